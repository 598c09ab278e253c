//! A text that is split as a compact JWS is the one way to write its parts (RFC 7515 §7.1, RFC 4648 §3.5).
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastguard_core::jose::{Compact, decode_segment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Some(bytes) = decode_segment(text) {
        assert_eq!(URL_SAFE_NO_PAD.encode(bytes).as_bytes(), text);
    }
    let Ok(compact) = Compact::split(text) else { return };
    let signature = URL_SAFE_NO_PAD.encode(compact.signature());
    assert_eq!([compact.signing_input(), b".", signature.as_bytes()].concat(), text);
    if let Ok(payload) = compact.payload() {
        let header = compact.header_segment();
        assert_eq!([header, b".", URL_SAFE_NO_PAD.encode(payload).as_bytes()].concat(), compact.signing_input());
    }
    let _ = compact.header();
});
