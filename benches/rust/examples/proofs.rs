//! A whole DPoP check (cached token, fresh proof, nonce, store of used proofs) against the bare verification with a parsed key, in
//! alternating blocks of one run; and what two threads gain over one. Prints one JSON object per algorithm.
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "a measurement, run by hand and by `make bench`")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey,
};
use fastguard_benches::base64url;
use fastguard_core::VerifiedToken;
use fastguard_core::binding::{DpopVerifier, Nonces, PresentedProof, ProofOptions, RequestUrl, Use};
use fastguard_core::clock::{Now, Tick, UnixTime};
use fastguard_core::jose::{Algorithms, KeySet};
use fastguard_core::token::{Answered, Attached, IssuerOptions, Tokens};

const NOW: i64 = 1_800_000_000;
const URL: &str = "https://mcp.example.com/mcp";
const BLOCKS: usize = 60;
const CALLS: usize = 200;
const SECRET: [u8; 32] = [7; 32];

/// A proof with what was signed and the signature.
struct Made {
    proof: String,
    input: String,
    signature: Vec<u8>,
}

struct Stage {
    token: VerifiedToken,
    verifier: DpopVerifier,
    url: RequestUrl,
    now: Now,
}

impl Stage {
    /// A token that is bound to the key, of an issuer with a key of its own.
    fn new(jwk: &str, algorithm: &str) -> Self {
        let random = SystemRandom::new();
        let issuer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let keys = KeySet::from_jwks(elliptic_jwk(&issuer).as_bytes(), false).expect("a set");
        let tokens = Tokens::single(IssuerOptions::new("i", URL), Arc::new(keys), Duration::from_secs(30), 100);
        let thumbprint = base64url(digest(&SHA256, jwk.as_bytes()).as_ref());
        let claims = format!(
            r#"{{"iss":"i","aud":"{URL}","sub":"alice","client_id":"agent-7","iat":{NOW},"exp":{},"cnf":{{"jkt":"{thumbprint}"}}}}"#,
            NOW + 900
        );
        let input = format!("{}.{}", base64url(br#"{"alg":"ES256","typ":"at+jwt"}"#), base64url(claims.as_bytes()));
        let signature = issuer.sign(&random, input.as_bytes()).expect("signed");
        let text = format!("{input}.{}", base64url(signature.as_ref()));
        let now = Now { unix: UnixTime::from_seconds(NOW + 1), tick: Tick::from_nanos(1), own: Tick::from_nanos(1) };
        let token = tokens.verify(&text, Answered::default(), now, &Attached).expect("valid");
        let algorithms = Algorithms::from_names([algorithm]).expect("known");
        let options = ProofOptions::new(algorithms, Duration::from_secs(270), Duration::from_secs(30));
        let verifier = DpopVerifier::new(options, 10_000_000).with_nonces(Nonces::new(&SECRET));
        Self { token, verifier, url: RequestUrl::new(URL).expect("a URL"), now }
    }

    fn make(&self, jwk: &str, algorithm: &str, number: usize, sign: &dyn Fn(&[u8]) -> Vec<u8>) -> Made {
        let header = format!(r#"{{"typ":"dpop+jwt","alg":"{algorithm}","jwk":{jwk}}}"#);
        let (ath, nonce) = (self.token.text_hash(), Nonces::new(&SECRET).give(self.now.unix));
        let claims = format!(
            r#"{{"jti":"0123456789abcdef{number}","htm":"POST","htu":"{URL}","iat":{NOW},"ath":"{ath}","nonce":"{nonce}"}}"#
        );
        let input = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = sign(input.as_bytes());
        Made { proof: format!("{input}.{}", base64url(&signature)), input, signature }
    }

    fn confirm(&self, made: &Made) {
        let presented = PresentedProof { proof: &made.proof, method: "POST", url: &self.url, body: None };
        let token = self.token.clone();
        self.verifier.confirm(token, &presented, self.now, Use::Once, &Attached).expect("valid");
    }
}

fn elliptic_jwk(pair: &EcdsaKeyPair) -> String {
    let point = pair.public_key().as_ref();
    let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
    format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many times as much two threads do in the time of one.
fn gain(made: &[Made], work: impl Fn(&Made) + Sync) -> f64 {
    let quarter = made.len() / 4;
    let one = timed(|| made[..2 * quarter].iter().for_each(&work));
    let (left, right) = (&made[2 * quarter..3 * quarter], &made[3 * quarter..]);
    let both = timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| left.iter().for_each(&work));
            scope.spawn(|| right.iter().for_each(&work));
        });
    });
    one / both
}

fn compare(algorithm: &str, jwk: &str, raw: &ParsedPublicKey, sign: &dyn Fn(&[u8]) -> Vec<u8>) {
    let stage = Stage::new(jwk, algorithm);
    let made: Vec<Made> = (0..BLOCKS * CALLS).map(|number| stage.make(jwk, algorithm, number, sign)).collect();
    let verify = |made: &Made| raw.verify_sig(made.input.as_bytes(), &made.signature).expect("valid");
    let (mut bare, mut whole, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for block in made.chunks(CALLS) {
        let one = timed(|| block.iter().for_each(verify)) / CALLS as f64;
        let other = timed(|| block.iter().for_each(|made| stage.confirm(made))) / CALLS as f64;
        bare.push(one);
        whole.push(other);
        ratios.push(other / one);
    }
    let fresh = Stage::new(jwk, algorithm);
    let made: Vec<Made> = (0..8 * CALLS).map(|number| fresh.make(jwk, algorithm, number, sign)).collect();
    let gained = gain(&made, |made| fresh.confirm(made)) / gain(&made, verify);
    println!(
        r#"{{"algorithm":"{algorithm}","bare_ns":{:.0},"verify_ns":{:.0},"ratio":{:.3},"threads":{gained:.3}}}"#,
        median(bare),
        median(whole),
        median(ratios)
    );
}

fn main() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let raw = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()).expect("parsed");
    let random = SystemRandom::new();
    let sign = |input: &[u8]| pair.sign(&random, input).expect("signed").as_ref().to_vec();
    compare("ES256", &elliptic_jwk(&pair), &raw, &sign);

    let pair = Ed25519KeyPair::generate().expect("a key");
    let raw = ParsedPublicKey::new(&ED25519, pair.public_key().as_ref()).expect("parsed");
    let x = base64url(pair.public_key().as_ref());
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    compare("EdDSA", &jwk, &raw, &|input: &[u8]| pair.sign(input).as_ref().to_vec());
}
