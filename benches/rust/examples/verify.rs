//! First sight of a token against the bare verification with a parsed key, in alternating blocks of one run.
//! Prints one JSON object per algorithm: medians in nanoseconds and their ratio.
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "a measurement, run by hand and by `make bench`")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use fastguard_benches::base64url;
use fastguard_core::clock::{Now, Tick, UnixTime};
use fastguard_core::jose::KeySet;
use fastguard_core::token::{Answered, Attached, IssuerOptions, Tokens};

const NOW: i64 = 1_800_000_000;
const BLOCKS: usize = 60;
const CALLS: u32 = 200;

fn signing_input(algorithm: &str) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","kid":"key-1","typ":"at+jwt"}}"#);
    let claims = format!(
        r#"{{"iss":"https://auth.example.com","aud":"https://mcp.example.com/mcp","sub":"alice","client_id":"agent-7","iat":{NOW},"exp":{},"jti":"0123456789abcdef","scope":"warehouse:schema:read warehouse:query:read"}}"#,
        NOW + 900
    );
    format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()))
}

fn block(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        work();
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare(name: &str, jwk: &str, raw: &ParsedPublicKey, input: &str, signature: &[u8]) {
    let token = format!("{input}.{}", base64url(signature));
    let keys = Arc::new(KeySet::from_jwks(jwk.as_bytes(), false).expect("a key"));
    let options = IssuerOptions::new("https://auth.example.com", "https://mcp.example.com/mcp");
    let tokens = Tokens::single(options, keys, Duration::from_secs(30), 0);
    let now = Now { unix: UnixTime::from_seconds(NOW + 1), tick: Tick::from_nanos(1), own: Tick::from_nanos(1) };
    let (mut bare, mut whole, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..std::env::args().nth(1).and_then(|given| given.parse().ok()).unwrap_or(BLOCKS) {
        let one = block(|| raw.verify_sig(input.as_bytes(), signature).expect("valid"));
        let other = block(|| drop(tokens.verify(&token, Answered::default(), now, &Attached).expect("valid")));
        bare.push(one);
        whole.push(other);
        ratios.push(other / one);
    }
    println!(
        r#"{{"algorithm":"{name}","bare_ns":{:.0},"verify_ns":{:.0},"ratio":{:.3}}}"#,
        median(bare),
        median(whole),
        median(ratios)
    );
}

fn main() {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
    let public = rsa.public_key();
    let (n, e) = (
        public.modulus().big_endian_without_leading_zero().to_vec(),
        public.exponent().big_endian_without_leading_zero().to_vec(),
    );
    let jwk = format!(r#"{{"kty":"RSA","kid":"key-1","alg":"RS256","n":"{}","e":"{}"}}"#, base64url(&n), base64url(&e));
    let input = signing_input("RS256");
    let mut signature = vec![0; rsa.public_modulus_len()];
    rsa.sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature).expect("signed");
    let raw =
        RsaPublicKeyComponents { n: &n, e: &e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).expect("parsed");
    compare("RS256", &jwk, &raw, &input, &signature);

    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = pair.public_key().as_ref();
    let jwk = format!(
        r#"{{"kty":"EC","crv":"P-256","kid":"key-1","alg":"ES256","x":"{}","y":"{}"}}"#,
        base64url(&point[1..33]),
        base64url(&point[33..])
    );
    let input = signing_input("ES256");
    let signature = pair.sign(&random, input.as_bytes()).expect("signed");
    let raw = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).expect("parsed");
    compare("ES256", &jwk, &raw, &input, signature.as_ref());
}
