//! Signatures of messages and digests of bodies: what is read has one base, and the base has no line that the fields do not give
//! (RFC 9421 §2.5).
#![no_main]

use fastguard_core::binding::{SignedMessage, StartLine, check_digest, read_signatures};
use fastguard_core::bounds::MAX_SIGNATURE_FIELD_BYTES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // A line for each: `Signature-Input`, `Signature`, the value of a field, the query.
    let mut lines = data.splitn(4, |byte| *byte == b'\n').chain(std::iter::repeat(&[][..]));
    let mut line = || lines.next().unwrap_or_default();
    let (input, signature, value) = (line(), line(), line());
    let query = &*String::from_utf8_lossy(line());
    let _ = check_digest(value, input);
    // Any signature will do: what it covers is in the other field.
    let labels = String::from_utf8_lossy(input).split('=').next().unwrap_or_default().to_owned();
    let own = format!("{labels}=:AAAA:");
    for signature in [signature, own.as_bytes()] {
        let Ok(found) = read_signatures(input, signature, None) else { continue };
        for found in found {
            let message = SignedMessage {
                start: StartLine::Request {
                    method: "POST",
                    scheme: "https",
                    authority: "mcp.example.com",
                    path: "/mcp",
                    query: Some(query),
                    request_target: None,
                },
                fields: &[("x-own", value), ("content-digest", value), ("x-own", b" again ")],
                trailers: &[],
                request: None,
            };
            let Ok(base) = found.base(&message) else { continue };
            assert!(base.is_ascii() && !base.contains('\r'), "a base has other characters");
            let (components, parameters) = base.rsplit_once('\n').unwrap_or(("", &base));
            assert!(parameters.starts_with("\"@signature-params\": ("), "a base ends otherwise");
            assert!(components.lines().all(|line| line.starts_with('"') && line.contains("\": ") || line.contains("\";")));
            // What is written is read again as the same.
            let again = format!("again={}", parameters.trim_start_matches("\"@signature-params\": "));
            if again.len() > MAX_SIGNATURE_FIELD_BYTES {
                continue;
            }
            let again = read_signatures(again.as_bytes(), b"again=:AAAA:", None).expect("what was written is read");
            assert_eq!(again.first().and_then(|again| again.base(&message).ok()), Some(base));
        }
    }
});
