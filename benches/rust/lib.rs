//! Benches only: see `benches/README.md`.
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "used by measurements alone")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use fastguard_core::Config;
use fastguard_core::clock::{Now, Tick, UnixTime};
use fastguard_core::gate::Gate;

/// When tokens of [`Issuer`] are good.
pub const NOW: i64 = 1_800_000_000;

/// Who issues tokens to one caller, by ES256.
pub struct Issuer {
    jwk: String,
    /// The caller's token, which may call `run_query`.
    pub token: String,
}

impl Issuer {
    pub fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
        let claims = format!(
            r#"{{"iss":"https://auth.example.com","aud":"https://mcp.example.com/mcp","sub":"alice","client_id":"agent-7","iat":{NOW},"exp":{},"jti":"0123456789abcdef","scope":"warehouse:schema:read warehouse:query:read"}}"#,
            NOW + 900
        );
        let header = base64url(br#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#);
        let input = format!("{header}.{}", base64url(claims.as_bytes()));
        let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).expect("signed");
        Self {
            jwk: format!(r#"{{"kty":"EC","crv":"P-256","kid":"k","x":"{x}","y":"{y}"}}"#),
            token: format!("{input}.{}", base64url(signature.as_ref())),
        }
    }

    /// A gate with one tool and these limit rules, and without a log.
    pub fn gate(&self, rules: &str) -> Gate {
        let config = format!(
            r#"{{"version":1,"resource":{{"url":"https://mcp.example.com/mcp"}},"issuers":[{{"issuer":"https://auth.example.com","algorithms":["ES256"],
            "jwks":{}}}],"limits":{{"rules":[{rules}]}},
            "tools":{{"run_query":{{"scopes":["warehouse:query:read"]}}}},"audit":{{"enabled":false}}}}"#,
            self.jwk
        );
        Gate::new(Config::from_json(&config).expect("good"), None).expect("good")
    }
}

/// A time at which the token is good.
pub fn now() -> Now {
    Now { unix: UnixTime::from_seconds(NOW + 1), tick: Tick::from_nanos(1), own: Tick::from_nanos(1) }
}

/// Without a dependency, so that a bench needs none.
pub fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(ALPHABET[(word >> (18 - 6 * place) & 63) as usize] as char);
        }
    }
    text
}

/// As in the extension, so that both are measured alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
