//! No text passes as a token of an issuer whose key the fuzzer does not have.
#![no_main]

use std::sync::LazyLock;

use fastguard_core::call::ToolRequest;
use fastguard_core::config::Config;
use fastguard_core::gate::{Decision, Gate};
use fastguard_core::{FakeClock, Now};
use libfuzzer_sys::fuzz_target;

/// The private half of this key was thrown away.
const CONFIG: &str = r#"
version = 1
[resource]
url = "https://mcp.example.com/mcp"
[[issuers]]
issuer = "https://auth.example.com"
algorithms = ["ES256", "RS256", "EdDSA"]
jwks = '''{"keys": [{"kty": "EC", "crv": "P-256", "kid": "k",
    "x": "IKRZT7xvQuSrazLbauxPQnuqq--N4suoTdcWDI58_v8", "y": "ffXpBNRW3XPADEZXuyaP-gM5dik_dJSEvefMvzyV5ag"}]}'''
[tools.look]
open = true
[audit]
enabled = false
"#;

static GATE: LazyLock<Gate> = LazyLock::new(|| {
    let config = Config::from_toml(CONFIG, None).expect("the configuration is sound");
    Gate::new(config, None).expect("the configuration is sound")
});

fn now() -> Now {
    FakeClock::at(1_795_219_200).now()
}

fuzz_target!(|text: &str| {
    let request = ToolRequest::tool("look", None, Some(text.into()), None);
    match GATE.check(&request, now()) {
        Err(_) => {}
        Ok(Decision::Allowed(_) | Decision::Observed(_)) => panic!("a forged token passes"),
        Ok(Decision::Waiting(_) | Decision::Agreeing(_)) => panic!("nothing can be waited for"),
    }
});
