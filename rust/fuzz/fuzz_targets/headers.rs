//! Header lines in wire order: what the room of requests lets through is what it says (RFC 9110 §5, §11).
#![no_main]

use std::sync::LazyLock;

use fastguard_core::config::Config;
use fastguard_core::request::{Headers, HttpMethod, Receiver, ToolRequest};
use libfuzzer_sys::fuzz_target;

static RECEIVER: LazyLock<Receiver> = LazyLock::new(|| {
    let text = r#"
        version = 1
        [resource]
        url = "https://mcp.example.com/mcp"
        [[issuers]]
        issuer = "https://auth.example.com"
        algorithms = ["ES256"]
        [proxies]
        addresses = ["192.0.2.0/24"]
        [tools.look]
        open = true
        [certificates]
        source = "envoy"
    "#;
    Receiver::new(&Config::from_toml(text, None).expect("the configuration is sound"))
});

fuzz_target!(|lines: &[u8]| {
    let mut headers = Headers::default();
    let mut authorizations = 0;
    for line in lines.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        authorizations += u32::from(name.eq_ignore_ascii_case(b"authorization"));
        headers.push(name, value);
    }
    let peer = Some([192, 0, 2, 7].into());
    let request = ToolRequest::http(HttpMethod::Post, "/mcp", headers, None, peer);
    let Ok(received) = RECEIVER.receive(&request) else { return };
    assert!(authorizations < 2, "one of two tokens was chosen");
    if let Some((_, token)) = received.credentials() {
        assert_eq!(authorizations, 1);
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()), "a token with other characters passes");
    }
    let _ = (received.proof(), received.certificate(), received.target());
});
