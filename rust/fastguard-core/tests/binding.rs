//! Proofs of possession: the twelve checks of RFC 9449 §4.3, each just failed and just passed, and what the guard makes of them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "tests fail by panics, and tell what they skip"
)]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastguard_core::binding::{
    BoundToken, DpopVerifier, Nonces, PresentedProof, ProofOptions, Replays, RequestUrl, Use, Used,
};
use fastguard_core::clock::{Now, Tick, UnixTime};
use fastguard_core::denial::{Denial, GateError};
use fastguard_core::gate::{Agreeing, Answer, ClaimAnswer, Decision, Gate};
use fastguard_core::jose::{Algorithms, KeySet, sha256};
use fastguard_core::request::{Headers, HttpMethod, ToolRequest};
use fastguard_core::token::{Answered, Attached, IssuerOptions, Tokens};
use fastguard_core::{Config, VerifiedToken};
use serde_json::{Value, json};

const ISSUER: &str = "https://auth.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";
const NOW: i64 = 1_795_219_200;
const MAX_AGE: u64 = 60;
const LEEWAY: u64 = 30;

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now_at(seconds: i64) -> Now {
    let tick = u64::try_from(seconds).unwrap() * 1_000_000_000;
    Now { unix: UnixTime::from_seconds(seconds), tick: Tick::from_nanos(tick), own: Tick::from_nanos(tick) }
}

type Signer = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// A key that signs, with its public half.
struct Holder {
    name: &'static str,
    jwk: Value,
    thumbprint: String,
    sign: Box<Signer>,
}

impl Holder {
    fn new(name: &'static str, jwk: Value, sign: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        // RFC 7638: serde_json writes members in the order of their names, without white space.
        let thumbprint = base64url(sha256(jwk.to_string().as_bytes()));
        Self { name, jwk, thumbprint, sign: Box::new(sign) }
    }

    fn elliptic(name: &'static str, curve: &str, algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(point.len() / 2);
        let jwk = json!({"crv": curve, "kty": "EC", "x": base64url(x), "y": base64url(y)});
        let sign = move |input: &[u8]| pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
        Self::new(name, jwk, sign)
    }

    fn es256() -> Self {
        Self::elliptic("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    fn edwards(name: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({"crv": "Ed25519", "kty": "OKP", "x": base64url(pair.public_key().as_ref())});
        Self::new(name, jwk, move |input: &[u8]| pair.sign(input).as_ref().to_vec())
    }

    fn rsa(name: &'static str, size: KeySize) -> Self {
        let pair = RsaKeyPair::generate(size).unwrap();
        let public = pair.public_key();
        let (n, e) = (public.modulus().big_endian_without_leading_zero(), public.exponent());
        let e = e.big_endian_without_leading_zero();
        let jwk = json!({"e": base64url(e), "kty": "RSA", "n": base64url(n)});
        let padding = if name == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
        Self::new(name, jwk, move |input: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &SystemRandom::new(), input, &mut signature).unwrap();
            signature
        })
    }

    fn compact(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", base64url(header), base64url(claims));
        let signature = (self.sign)(input.as_bytes());
        format!("{input}.{}", base64url(signature))
    }
}

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

/// A proof that passes, for tests to change.
struct Draft {
    header: Value,
    claims: Value,
}

impl Draft {
    fn new(holder: &Holder, token: &str) -> Self {
        let id = COUNT.replace(COUNT.get() + 1);
        Self {
            header: json!({"typ": "dpop+jwt", "alg": holder.name, "jwk": holder.jwk}),
            claims: json!({
                "jti": format!("proof-{id}"),
                "htm": "POST",
                "htu": AUDIENCE,
                "iat": NOW,
                "ath": base64url(sha256(token.as_bytes())),
            }),
        }
    }

    fn header(mut self, name: &str, value: Value) -> Self {
        self.header[name] = value;
        self
    }

    fn claim(mut self, name: &str, value: Value) -> Self {
        self.claims[name] = value;
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().unwrap().remove(name);
        self.header.as_object_mut().unwrap().remove(name);
        self
    }

    fn sign(&self, holder: &Holder) -> String {
        holder.compact(&self.header.to_string(), &self.claims.to_string())
    }
}

/// An issuer, a bound token, and the verifier of proofs.
struct Stage {
    issuer: Holder,
    tokens: Tokens,
    holder: Holder,
    verifier: DpopVerifier,
}

fn options(names: &[&str]) -> ProofOptions {
    let algorithms = Algorithms::from_names(names.iter().copied()).unwrap().with_both_names();
    ProofOptions::new(algorithms, Duration::from_secs(MAX_AGE), Duration::from_secs(LEEWAY))
}

impl Stage {
    fn new() -> Self {
        Self::of(Holder::es256(), options(&["ES256", "EdDSA"]))
    }

    fn of(holder: Holder, options: ProofOptions) -> Self {
        let issuer = Holder::es256();
        let keys = Arc::new(KeySet::from_jwks(issuer.jwk.to_string().as_bytes(), false).unwrap());
        let tokens = Tokens::single(IssuerOptions::new(ISSUER, AUDIENCE), keys, Duration::from_secs(30), 100);
        Self { issuer, tokens, holder, verifier: DpopVerifier::new(options, 1_000_000) }
    }

    fn token_with(&self, cnf: Option<Value>) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "agent", "iat": NOW - 60, "exp": NOW + 3_000,
        });
        if let Some(cnf) = cnf {
            claims["cnf"] = cnf;
        }
        self.issuer.compact(r#"{"typ":"at+jwt","alg":"ES256"}"#, &claims.to_string())
    }

    fn text(&self) -> String {
        self.token_with(Some(json!({"jkt": self.holder.thumbprint})))
    }

    fn verified(&self, text: &str) -> VerifiedToken {
        self.tokens.verify(text, Answered::default(), now_at(NOW), &Attached).unwrap()
    }

    fn confirm(&self, text: &str, proof: &str) -> Result<BoundToken, Denial> {
        self.confirm_at(text, proof, "POST", AUDIENCE, NOW)
    }

    fn confirm_at(&self, text: &str, proof: &str, method: &str, url: &str, now: i64) -> Result<BoundToken, Denial> {
        let url = RequestUrl::new(url).unwrap();
        let now = now_at(now);
        let presented = PresentedProof { proof, method, url: &url, body: None };
        self.verifier.confirm(self.verified(text), &presented, now, Use::Once, &Attached)
    }

    /// What the draft, signed by the holder, is answered with.
    fn judge(&self, change: impl FnOnce(Draft) -> Draft) -> Result<(), &'static str> {
        let text = self.text();
        let proof = change(Draft::new(&self.holder, &text)).sign(&self.holder);
        self.confirm(&text, &proof).map(drop).map_err(|denial| denial.code())
    }
}

// --- RFC 9449 §4.3, check by check ------------------------------------------------------------------

#[test]
fn good_proof_confirms_the_token() {
    let stage = Stage::new();
    let text = stage.text();
    let bound = stage.confirm(&text, &Draft::new(&stage.holder, &text).sign(&stage.holder)).unwrap();
    assert_eq!(bound.token().thumbprint(), Some(&*stage.holder.thumbprint));
    assert_eq!(bound.nonce(), None);
}

#[test]
fn check_2_header_is_one_compact_jws() {
    let stage = Stage::new();
    let text = stage.text();
    let proof = Draft::new(&stage.holder, &text).sign(&stage.holder);
    let (head, signature) = proof.rsplit_once('.').unwrap();
    for other in [
        "",
        "x",
        "a.b",
        head,
        &format!("{proof},{proof}"),
        &format!("{proof}, {proof}"),
        &format!("{proof} "),
        &format!(" {proof}"),
        &format!("{proof}."),
        &format!("{proof}="),
        &format!("{head}.{signature}A"),
        &format!("{{\"payload\":\"{head}\"}}"),
        &"a".repeat(9_000),
    ] {
        let denial = stage.confirm(&text, other).unwrap_err();
        assert!(["proof_malformed", "proof_signature_invalid"].contains(&denial.code()), "{other} {denial}");
    }
    assert!(stage.confirm(&text, &proof).is_ok());
}

#[test]
fn check_3_every_claim_must_be_there_and_of_its_type() {
    let stage = Stage::new();
    for claim in ["jti", "htm", "htu", "iat", "ath"] {
        assert_eq!(stage.judge(|draft| draft.without(claim)), Err("proof_malformed"), "{claim}");
        for value in [json!(null), json!([1]), json!({}), json!(true)] {
            assert_eq!(stage.judge(|draft| draft.claim(claim, value)), Err("proof_malformed"), "{claim}");
        }
    }
    for value in [json!("1795219200"), json!(-1), json!(1e300)] {
        assert_eq!(stage.judge(|draft| draft.claim("iat", value)), Err("proof_malformed"));
    }
    assert_eq!(stage.judge(|draft| draft.claim("jti", json!(""))), Err("proof_malformed"));
    assert_eq!(stage.judge(|draft| draft.claim("jti", json!("i".repeat(257)))), Err("proof_malformed"));
    assert_eq!(stage.judge(|draft| draft.claim("jti", json!("i".repeat(256)))), Ok(()));
    assert_eq!(stage.judge(|draft| draft.claim("nonce", json!(7))), Err("proof_malformed"));
    assert_eq!(stage.judge(|draft| draft.claim("nonce", json!("not asked for"))), Ok(()));
}

#[test]
fn check_3_what_nothing_reads_must_be_of_its_type_too() {
    let stage = Stage::new();
    for (claim, value) in [
        ("iss", json!(1)),
        ("iss", json!(null)),
        ("sub", json!(["alice"])),
        ("aud", json!(1)),
        ("aud", json!(null)),
        ("aud", json!([AUDIENCE, 1])),
    ] {
        assert_eq!(stage.judge(|draft| draft.claim(claim, value)), Err("proof_malformed"), "{claim}");
    }
    for (claim, value) in
        [("iss", json!("agent")), ("sub", json!("alice")), ("aud", json!(AUDIENCE)), ("aud", json!([AUDIENCE]))]
    {
        assert_eq!(stage.judge(|draft| draft.claim(claim, value)), Ok(()), "{claim}");
    }
}

#[test]
fn check_3_repeated_members_are_refused() {
    let stage = Stage::new();
    let text = stage.text();
    let draft = Draft::new(&stage.holder, &text);
    let twice = |value: &Value, member: &str| format!("{}{member}}}", value.to_string().strip_suffix('}').unwrap());
    let (header, claims) = (draft.header.to_string(), draft.claims.to_string());
    for (header, claims) in [
        (twice(&draft.header, r#","typ":"dpop+jwt""#), claims.clone()),
        (header.clone(), twice(&draft.claims, r#","htm":"POST""#)),
        (header.clone(), twice(&draft.claims, r#","j\u0074i":"other""#)),
        (header.replace(r#""kty""#, r#""kty":"EC","kty""#), claims.clone()),
    ] {
        let proof = stage.holder.compact(&header, &claims);
        assert_eq!(stage.confirm(&text, &proof).unwrap_err().code(), "proof_malformed", "{header} {claims}");
    }
    assert!(stage.confirm(&text, &stage.holder.compact(&header, &claims)).is_ok());
}

#[test]
fn check_4_type_is_that_of_proofs() {
    let stage = Stage::new();
    assert_eq!(stage.judge(|draft| draft.without("typ")), Err("proof_malformed"));
    for typ in ["JWT", "at+jwt", "DPOP+JWT", "dpop", "application/dpop+jwt", ""] {
        assert_eq!(stage.judge(|draft| draft.header("typ", json!(typ))), Err("proof_malformed"), "{typ}");
    }
    assert_eq!(stage.judge(|draft| draft.header("typ", json!("dpop+jwt"))), Ok(()));
}

#[test]
fn check_5_algorithm_is_asymmetric_and_allowed() {
    let stage = Stage::new();
    for name in ["none", "None", "HS256", "HS512", "RS256", "PS256", "ES384", "es256", "ES256 ", ""] {
        let judged = stage.judge(|draft| draft.header("alg", json!(name)));
        assert_eq!(judged, Err("proof_algorithm_refused"), "{name}");
    }
    assert_eq!(stage.judge(|draft| draft.without("alg")), Err("proof_malformed"));
    for parameter in ["crit", "b64", "zip", "enc"] {
        assert_eq!(stage.judge(|draft| draft.header(parameter, json!([]))), Err("proof_malformed"), "{parameter}");
    }
    // `EdDSA` was allowed, so the key is what does not fit.
    assert_eq!(stage.judge(|draft| draft.header("alg", json!("EdDSA"))), Err("proof_key_refused"));
}

#[test]
fn check_5_every_algorithm_passes_once_it_is_allowed() {
    let holders: [fn() -> Holder; 6] = [
        Holder::es256,
        || Holder::elliptic("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        || Holder::edwards("EdDSA"),
        || Holder::edwards("Ed25519"),
        || Holder::rsa("PS256", KeySize::Rsa2048),
        || Holder::rsa("RS256", KeySize::Rsa2048),
    ];
    for make in holders {
        let name = make().name;
        assert_eq!(Stage::of(make(), options(&[name])).judge(|draft| draft), Ok(()), "{name}");
        let others: Vec<_> = ["ES512", if name == "ES384" { "ES256" } else { "ES384" }].into();
        let refused = Stage::of(make(), options(&others)).judge(|draft| draft);
        assert_eq!(refused, Err("proof_algorithm_refused"), "{name}");
    }
    // Two names of one algorithm.
    assert_eq!(Stage::of(Holder::edwards("Ed25519"), options(&["EdDSA"])).judge(|draft| draft), Ok(()));
    assert_eq!(Stage::of(Holder::edwards("EdDSA"), options(&["Ed25519"])).judge(|draft| draft), Ok(()));
}

#[test]
fn check_6_signature_is_of_the_key_in_the_proof() {
    let stage = Stage::new();
    let text = stage.text();
    let draft = Draft::new(&stage.holder, &text);
    let other = Holder::es256();
    assert_eq!(stage.confirm(&text, &draft.sign(&other)).unwrap_err(), Denial::ProofSignatureInvalid);
    let proof = draft.sign(&stage.holder);
    let changed = Draft::new(&stage.holder, &text).claim("htm", json!("GET")).sign(&stage.holder);
    let (_, signature) = proof.rsplit_once('.').unwrap();
    let (head, _) = changed.rsplit_once('.').unwrap();
    assert_eq!(stage.confirm(&text, &format!("{head}.{signature}")).unwrap_err(), Denial::ProofSignatureInvalid);
    assert!(stage.confirm(&text, &proof).is_ok());
    // Once more, now that the key is known by its header.
    assert_eq!(stage.confirm(&text, &draft.sign(&other)).unwrap_err(), Denial::ProofSignatureInvalid);
}

#[test]
fn check_7_key_is_public() {
    let stage = Stage::new();
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let mut jwk = stage.holder.jwk.clone();
        jwk[member] = json!("AAAA");
        assert_eq!(stage.judge(|draft| draft.header("jwk", jwk)), Err("proof_key_refused"), "{member}");
    }
    let mut jwk = stage.holder.jwk.clone();
    jwk["kid"] = json!("mine");
    assert_eq!(stage.judge(|draft| draft.header("jwk", jwk)), Ok(()));
}

#[test]
fn check_7_key_is_one_that_may_sign_proofs() {
    let stage = Stage::new();
    assert_eq!(stage.judge(|draft| draft.without("jwk")), Err("proof_malformed"));
    let change = |name: &str, value: Value| {
        let mut jwk = stage.holder.jwk.clone();
        jwk[name] = value;
        jwk
    };
    let short = change("x", json!(base64url([1; 31])));
    let off_curve = change("x", json!(base64url([1; 32])));
    let padded = change("x", json!(format!("{}=", stage.holder.jwk["x"].as_str().unwrap())));
    let encrypts = change("use", json!("enc"));
    let other_algorithm = change("alg", json!("ES384"));
    let symmetric = json!({"kty": "oct", "k": "AAAA"});
    for jwk in [json!("x"), json!(null), json!({}), symmetric, short, padded, encrypts, other_algorithm] {
        let judged = stage.judge(|draft| draft.header("jwk", jwk.clone()));
        assert_eq!(judged, Err("proof_key_refused"), "{jwk}");
    }
    // ring looks at the point only when it verifies, and the thumbprint is compared before.
    let expected = if cfg!(feature = "ring") { "proof_key_mismatch" } else { "proof_key_refused" };
    assert_eq!(stage.judge(|draft| draft.header("jwk", off_curve)), Err(expected));
}

#[test]
fn check_7_rsa_keys_are_bounded_before_any_arithmetic() {
    let stage = Stage::of(Holder::rsa("RS256", KeySize::Rsa2048), options(&["RS256"]));
    let modulus = |bytes: usize| {
        let mut jwk = stage.holder.jwk.clone();
        jwk["n"] = json!(base64url(vec![0xff; bytes]));
        jwk
    };
    for bytes in [128, 255, 513, 1_024, 2_048] {
        let judged = stage.judge(|draft| draft.header("jwk", modulus(bytes)));
        assert_eq!(judged, Err("proof_key_refused"), "{bytes}");
    }
    let mut jwk = stage.holder.jwk.clone();
    jwk["e"] = json!(base64url([0xff; 64]));
    assert_eq!(stage.judge(|draft| draft.header("jwk", jwk)), Err("proof_key_refused"));
    // A leading zero gives the key another thumbprint by its letters, though it is the same key.
    for (name, value) in [
        ("e", "AAEAAQ".to_owned()),
        ("n", {
            let modulus = URL_SAFE_NO_PAD.decode(stage.holder.jwk["n"].as_str().unwrap()).unwrap();
            base64url([vec![0], modulus].concat())
        }),
    ] {
        let mut jwk = stage.holder.jwk.clone();
        jwk[name] = json!(value);
        assert_eq!(stage.judge(|draft| draft.header("jwk", jwk)), Err("proof_key_refused"), "{name}");
    }
    // At the bound the key is read, and found to be another than the token's.
    assert_eq!(stage.judge(|draft| draft.header("jwk", modulus(512))), Err("proof_key_mismatch"));
    assert_eq!(stage.judge(|draft| draft), Ok(()));
}

#[test]
fn check_8_method_is_the_request_s_letter_by_letter() {
    let stage = Stage::new();
    for method in ["GET", "post", "Post", "POST ", ""] {
        assert_eq!(stage.judge(|draft| draft.claim("htm", json!(method))), Err("proof_method_mismatch"), "{method}");
    }
    let text = stage.text();
    let proof = Draft::new(&stage.holder, &text).claim("htm", json!("GET")).sign(&stage.holder);
    assert!(stage.confirm_at(&text, &proof, "GET", AUDIENCE, NOW).is_ok());
}

#[test]
fn check_9_url_is_the_request_s_however_it_is_written() {
    let stage = Stage::new();
    for url in [
        "https://mcp.example.com/mcp",
        "HTTPS://MCP.example.COM:443/mcp",
        "https://mcp.example.com/%6Dcp",
        "https://mcp.example.com/x/../mcp",
        "https://mcp.example.com/mcp?session=1#x",
    ] {
        assert_eq!(stage.judge(|draft| draft.claim("htu", json!(url))), Ok(()), "{url}");
    }
    for url in [
        "http://mcp.example.com/mcp",
        "https://mcp.example.com:8443/mcp",
        "https://mcp.example.com/mcp/",
        "https://mcp.example.com/MCP",
        "https://mcp.example.com/mcp/x",
        "https://mcp.example.com.evil.example/mcp",
        "https://evil.example/mcp?https://mcp.example.com/mcp",
        "https://mcp.example.com@evil.example/mcp",
        "https://mcp.example.com/mcp\u{0}",
        "https://mcp.example.com/mcp\n",
        " https://mcp.example.com/mcp",
        "/mcp",
        "",
    ] {
        assert_eq!(stage.judge(|draft| draft.claim("htu", json!(url))), Err("proof_url_mismatch"), "{url:?}");
    }
}

#[test]
fn check_10_nonce_must_be_ours_where_one_is_demanded() {
    let mut stage = Stage::new();
    stage.verifier = DpopVerifier::new(options(&["ES256"]), 1_000_000).with_nonces(Nonces::new(&[7; 32]));
    let text = stage.text();
    let refused = stage.confirm(&text, &Draft::new(&stage.holder, &text).sign(&stage.holder)).unwrap_err();
    let nonce = refused.nonce().unwrap().to_owned();
    assert_eq!((refused.code(), refused.challenge_error()), ("nonce_required", Some("use_dpop_nonce")));
    assert_eq!(stage.judge(|draft| draft.claim("nonce", json!("of another"))), Err("nonce_required"));
    assert_eq!(stage.judge(|draft| draft.claim("nonce", json!(nonce))), Ok(()));
    // A minute later it still passes, and the next one is given along; after two it does not.
    for (after, expected) in [(60, Some(true)), (120, None)] {
        let at = NOW + after;
        let draft = Draft::new(&stage.holder, &text).claim("nonce", json!(nonce)).claim("iat", json!(at));
        let confirmed = stage.confirm_at(&text, &draft.sign(&stage.holder), "POST", AUDIENCE, at);
        assert_eq!(confirmed.ok().map(|bound| bound.nonce().is_some()), expected, "{after}");
    }
}

#[test]
fn check_11_time_is_within_the_window_on_both_sides() {
    let stage = Stage::new();
    let window = i64::try_from(MAX_AGE + LEEWAY).unwrap();
    for (offset, expected) in [
        (-window - 1, Err("proof_expired")),
        (-window, Ok(())),
        (0, Ok(())),
        (window, Ok(())),
        (window + 1, Err("proof_from_future")),
    ] {
        assert_eq!(stage.judge(|draft| draft.claim("iat", json!(NOW + offset))), expected, "{offset}");
    }
}

#[test]
fn check_11_window_never_passes_five_minutes() {
    let algorithms = Algorithms::from_names(["ES256"]).unwrap();
    let wide = ProofOptions::new(algorithms, Duration::from_secs(300), Duration::from_secs(30));
    let stage = Stage::of(Holder::es256(), wide);
    assert_eq!(stage.judge(|draft| draft.claim("iat", json!(NOW - 301))), Err("proof_expired"));
    assert_eq!(stage.judge(|draft| draft.claim("iat", json!(NOW - 300))), Ok(()));
}

#[test]
fn check_11_expiry_that_a_proof_gives_itself_is_heeded() {
    let stage = Stage::new();
    let leeway = i64::try_from(LEEWAY).unwrap();
    assert_eq!(stage.judge(|draft| draft.claim("exp", json!(NOW - leeway))), Err("proof_expired"));
    assert_eq!(stage.judge(|draft| draft.claim("exp", json!(NOW - leeway + 1))), Ok(()));
    assert_eq!(stage.judge(|draft| draft.claim("nbf", json!(NOW + leeway + 1))), Err("proof_from_future"));
    assert_eq!(stage.judge(|draft| draft.claim("nbf", json!(NOW + leeway))), Ok(()));
    assert_eq!(stage.judge(|draft| draft.claim("exp", json!("soon"))), Err("proof_malformed"));
}

#[test]
fn check_12_proof_is_of_this_token() {
    let stage = Stage::new();
    let (text, other) = (stage.text(), stage.text());
    assert_ne!(text, other);
    let proof = Draft::new(&stage.holder, &other).sign(&stage.holder);
    assert_eq!(stage.confirm(&text, &proof).unwrap_err(), Denial::ProofTokenMismatch);
    assert!(stage.confirm(&other, &proof).is_ok());
    let hex = sha256(text.as_bytes()).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(stage.judge(|draft| draft.claim("ath", json!(hex))), Err("proof_token_mismatch"));
}

#[test]
fn check_12_key_is_the_one_that_the_token_is_bound_to() {
    let stage = Stage::new();
    let text = stage.text();
    let thief = Holder::es256();
    let proof = Draft::new(&thief, &text).sign(&thief);
    assert_eq!(stage.confirm(&text, &proof).unwrap_err().code(), "proof_key_mismatch");
    let bound_to_thief = stage.token_with(Some(json!({"jkt": thief.thumbprint})));
    let proof = Draft::new(&thief, &bound_to_thief).sign(&thief);
    assert!(stage.confirm(&bound_to_thief, &proof).is_ok());
}

#[test]
fn key_that_one_verifier_has_taken_is_judged_anew_by_another() {
    let stage = Stage::of(Holder::edwards("EdDSA"), options(&["EdDSA"]));
    let strict = DpopVerifier::new(options(&["ES256"]), 1_000_000);
    let text = stage.text();
    let token = stage.verified(&text);
    let url = RequestUrl::new(AUDIENCE).unwrap();
    let judge = |verifier: &DpopVerifier| {
        let proof = Draft::new(&stage.holder, &text).sign(&stage.holder);
        let presented = PresentedProof { proof: &proof, method: "POST", url: &url, body: None };
        let judged = verifier.confirm(token.clone(), &presented, now_at(NOW), Use::Once, &Attached);
        judged.map(drop).map_err(|denial| denial.code())
    };
    assert_eq!(judge(&stage.verifier), Ok(()));
    assert_eq!(judge(&strict), Err("proof_algorithm_refused"));
    assert_eq!(judge(&stage.verifier), Ok(()));
}

#[test]
fn key_whose_private_half_is_published_is_refused() {
    let jwk = json!({
        "crv": "P-256", "kty": "EC",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    });
    let stage = Stage::new();
    assert_eq!(stage.judge(|draft| draft.header("jwk", jwk)), Err("proof_key_refused"));
}

// --- replay -----------------------------------------------------------------------------------------

#[test]
fn proof_passes_once() {
    let stage = Stage::new();
    let text = stage.text();
    let proof = Draft::new(&stage.holder, &text).sign(&stage.holder);
    assert!(stage.confirm(&text, &proof).is_ok());
    assert_eq!(stage.confirm(&text, &proof).unwrap_err(), Denial::ProofReplayed);
    // The same `jti` in another proof is no new one: neither spelling nor time makes it so.
    let (header, claims) =
        proof.split_once('.').map(|(header, rest)| (header, rest.split('.').next().unwrap())).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let again = Draft { header: serde_json::from_str(&header).unwrap(), claims };
    let again = again.claim("iat", json!(NOW + 1)).claim("htu", json!("https://mcp.example.com:443/mcp"));
    assert_eq!(stage.confirm(&text, &again.sign(&stage.holder)).unwrap_err(), Denial::ProofReplayed);
}

#[test]
fn refused_proof_leaves_no_trace() {
    let stage = Stage::new();
    for claim in ["htm", "htu", "ath"] {
        assert!(stage.judge(|draft| draft.claim(claim, json!("x"))).is_err());
    }
    assert!(stage.judge(|draft| draft.claim("iat", json!(NOW - 1_000))).is_err());
    assert!(stage.verifier.replays().is_empty());
    assert_eq!(stage.judge(|draft| draft), Ok(()));
    assert_eq!(stage.verifier.replays().len(), 1);
}

#[test]
fn proof_that_is_looked_at_is_not_used_up() {
    let stage = Stage::new();
    let text = stage.text();
    let proof = Draft::new(&stage.holder, &text).sign(&stage.holder);
    let url = RequestUrl::new(AUDIENCE).unwrap();
    let presented = PresentedProof { proof: &proof, method: "POST", url: &url, body: None };
    let look =
        |usage| stage.verifier.confirm(stage.verified(&text), &presented, now_at(NOW), usage, &Attached).map(drop);
    assert_eq!((look(Use::Look), look(Use::Look), look(Use::Once)), (Ok(()), Ok(()), Ok(())));
    assert_eq!((look(Use::Look), look(Use::Once)), (Err(Denial::ProofReplayed), Err(Denial::ProofReplayed)));
}

#[test]
fn ten_thousand_proofs_shown_by_two_threads_pass_exactly_once_each() {
    let stage = Stage::of(Holder::edwards("EdDSA"), options(&["EdDSA"]));
    let text = stage.text();
    let token = stage.verified(&text);
    let proofs: Vec<String> = (0..10_000).map(|_| Draft::new(&stage.holder, &text).sign(&stage.holder)).collect();
    let url = RequestUrl::new(AUDIENCE).unwrap();
    let passed: Vec<AtomicUsize> = proofs.iter().map(|_| AtomicUsize::new(0)).collect();
    let (verifier, proofs) = (&stage.verifier, &proofs);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (proof, passed) in proofs.iter().zip(&passed) {
                    let token = token.clone();
                    let presented = PresentedProof { proof, method: "POST", url: &url, body: None };
                    match verifier.confirm(token, &presented, now_at(NOW), Use::Once, &Attached) {
                        Ok(_) => drop(passed.fetch_add(1, Ordering::Relaxed)),
                        Err(denial) => assert_eq!(denial, Denial::ProofReplayed),
                    }
                }
            });
        }
    });
    assert!(passed.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    assert_eq!(stage.verifier.replays().len(), 10_000);
}

fn used<'a>(thumbprint: &'a str, id: &'a str, principal: u32) -> Used<'a> {
    Used { thumbprint, id, issued_at: UnixTime::from_seconds(NOW), principal: u128::from(principal) }
}

/// Bytes of this process that lie in memory.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4_096)
}

/// Ten million proofs, each with a `jti` of its own, by so many principals in turn. Gives how many bytes each that is remembered takes.
fn ten_million_proofs(principals: u32, most_each: u64) {
    const CAP: usize = 1_000_000;
    let replays = Replays::new(CAP, Duration::from_secs(600));
    let before = resident();
    let ids: Vec<String> = (0..100).map(|n| format!("{n:08}")).collect();
    let tick = now_at(NOW).tick;
    let mut passed = 0;
    for number in 0..100_000_u32 {
        let thumbprint = number.to_string();
        for (id, place) in ids.iter().zip(0..) {
            match replays.record(&used(&thumbprint, id, (number * 100 + place) % principals), tick) {
                Ok(()) => passed += 1,
                Err(denial) => assert_eq!(denial.code(), "replays_full"),
            }
        }
    }
    assert_eq!((passed, replays.len()), (CAP, CAP));
    let mut known = 0;
    for number in 0..1_000_u32 {
        let again = replays.record(&used(&number.to_string(), &ids[0], number * 100 % principals), tick);
        assert_eq!(again, Err(Denial::ProofReplayed));
        known += 1;
    }
    assert_eq!(known, 1_000);
    let (Some(before), Some(after)) = (before, resident()) else { return };
    let grown = after.saturating_sub(before);
    println!("{principals} principals: {grown} bytes, {} each", grown / CAP as u64);
    let most = CAP as u64 * most_each + 64 * 1024 * 1024;
    assert!(grown <= most, "{grown} of {most} bytes");
}

#[test]
#[ignore = "a soak: ten million proofs"]
fn ten_million_proofs_of_few_principals_are_refused_beyond_the_cap_and_none_is_forgotten() {
    ten_million_proofs(200, 40);
}

/// The most that the store can take: each principal is counted once for its one proof.
#[test]
#[ignore = "a soak: ten million proofs"]
fn ten_million_proofs_of_as_many_principals_are_refused_beyond_the_cap_and_none_is_forgotten() {
    ten_million_proofs(10_000_000, 120);
}

// --- the examples of RFC 9449 -----------------------------------------------------------------------

#[test]
fn example_of_rfc_9449_fails_by_its_opaque_token_alone() {
    let folder = std::env::var_os("FASTGUARD_VECTORS").map_or_else(
        || std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        std::path::PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("rfc/rfc9449.json")) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have the vectors");
        println!("SKIPPED: no vectors");
        return;
    };
    let file: Value = serde_json::from_str(&text).unwrap();
    let example = file["proofs"].as_array().unwrap().iter().find(|proof| proof.get("access_token").is_some()).unwrap();
    let mut options = options(&["ES256"]);
    options.dangerous_allow_published_keys = true;
    let stage = Stage::of(Holder::es256(), options);
    // Its access token is opaque, so `ath` cannot match a token of ours: that is the one check that it must fail.
    let bound = stage.token_with(Some(json!({"jkt": example["jkt"]})));
    let (method, url) = (example["request"]["method"].as_str().unwrap(), example["request"]["uri"].as_str().unwrap());
    let at = example["request"]["clock"].as_i64().unwrap();
    let token = stage.verified(&bound);
    let proof = example["proof"].as_str().unwrap();
    let judge = |method: &str, url: &str| {
        let url = RequestUrl::new(url).unwrap();
        let presented = PresentedProof { proof, method, url: &url, body: None };
        let judged = stage.verifier.confirm(token.clone(), &presented, now_at(at), Use::Look, &Attached);
        judged.unwrap_err().code()
    };
    assert_eq!(judge(method, url), "proof_token_mismatch");
    assert_eq!(judge("POST", url), "proof_method_mismatch");
    assert_eq!(judge(method, "https://resource.example.org/other"), "proof_url_mismatch");
    let hash = base64url(sha256(example["access_token"].as_str().unwrap().as_bytes()));
    assert_eq!(example["claims"]["ath"], json!(hash));
}

// --- the whole gate ---------------------------------------------------------------------------------

struct Guarded {
    stage: Stage,
    gate: Gate,
}

fn configuration(stage: &Stage, dpop: &str) -> Config {
    let text = format!(
        "version = 1\n[resource]\nurl = \"{AUDIENCE}\"\n[[issuers]]\nissuer = \"{ISSUER}\"\njwks = '{}'\n\
         [dpop]\n{dpop}\n[tools.add]\nopen = true\n[tools.pay]\nopen = true\nbinding = \"dpop\"\n\
         [audit]\nenabled = false\n",
        stage.issuer.jwk
    );
    let text = if dpop.contains("off") { text.replace("binding = \"dpop\"\n", "") } else { text };
    Config::from_toml(&text, None).unwrap()
}

impl Guarded {
    fn new(dpop: &str) -> Self {
        let stage = Stage::new();
        let gate = Gate::new(configuration(&stage, dpop), None).unwrap();
        Self { stage, gate }
    }

    fn request(tool: &str, headers: &[(&str, &str)]) -> ToolRequest {
        let mut found = Headers::default();
        for (name, value) in headers {
            found.push(name.as_bytes(), value.as_bytes());
        }
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
        ToolRequest::http(HttpMethod::Post, "/mcp", found, Some(body.to_string().into_bytes().into()), None)
    }

    fn call(&self, tool: &str, headers: &[(&str, &str)]) -> Result<(), Denial> {
        match self.gate.check(&Self::request(tool, headers), now_at(NOW)) {
            Ok(Decision::Allowed(_)) => Ok(()),
            Ok(Decision::Observed(_)) => panic!("nothing is observed here"),
            Ok(Decision::Waiting(_) | Decision::Agreeing(_)) => panic!("nothing is to be waited for"),
            Err(GateError::Denied(denial, _)) => Err(denial),
            Err(GateError::Faulted(fault)) => panic!("{fault}"),
        }
    }

    fn code(&self, tool: &str, headers: &[(&str, &str)]) -> &'static str {
        self.call(tool, headers).map_or_else(|denial| denial.code(), |()| "allowed")
    }

    fn proof(&self, text: &str) -> String {
        Draft::new(&self.stage.holder, text).sign(&self.stage.holder)
    }
}

#[test]
fn bound_token_passes_with_its_proof_under_its_scheme_alone() {
    let guarded = Guarded::new("mode = \"optional\"");
    let text = guarded.stage.text();
    let (dpop, bearer) = (format!("DPoP {text}"), format!("Bearer {text}"));
    let proof = guarded.proof(&text);
    assert_eq!(guarded.code("add", &[("authorization", &bearer)]), "bound_as_bearer");
    assert_eq!(guarded.code("add", &[("authorization", &bearer), ("dpop", &proof)]), "bound_as_bearer");
    assert_eq!(guarded.code("add", &[("authorization", &dpop)]), "proof_missing");
    assert_eq!(guarded.code("add", &[("authorization", &dpop), ("dpop", &proof)]), "allowed");
    assert_eq!(guarded.code("add", &[("authorization", &dpop), ("dpop", &proof)]), "proof_replayed");
}

#[test]
fn check_1_there_is_one_proof() {
    let guarded = Guarded::new("mode = \"optional\"");
    let text = guarded.stage.text();
    let dpop = format!("DPoP {text}");
    let (one, other) = (guarded.proof(&text), guarded.proof(&text));
    let twice = [("authorization", &*dpop), ("dpop", &one), ("DPoP", &other)];
    assert_eq!(guarded.code("add", &twice), "proof_duplicated");
    let joined = format!("{one}, {other}");
    assert_eq!(guarded.code("add", &[("authorization", &dpop), ("dpop", &joined)]), "proof_malformed");
    assert_eq!(guarded.code("add", &[("authorization", &dpop), ("dpop", &one)]), "allowed");
}

#[test]
fn unbound_token_never_passes_under_the_scheme_of_proofs() {
    let guarded = Guarded::new("mode = \"optional\"");
    let text = guarded.stage.token_with(None);
    let (dpop, bearer) = (format!("DPoP {text}"), format!("Bearer {text}"));
    let proof = guarded.proof(&text);
    assert_eq!(guarded.code("add", &[("authorization", &dpop), ("dpop", &proof)]), "binding_missing");
    assert_eq!(guarded.code("add", &[("authorization", &dpop)]), "binding_missing");
    assert_eq!(guarded.code("add", &[("authorization", &bearer)]), "allowed");
}

#[test]
fn members_of_cnf_that_cannot_be_confirmed_are_refused() {
    let guarded = Guarded::new("mode = \"optional\"");
    let thumbprint = &guarded.stage.holder.thumbprint;
    for (cnf, expected) in [
        (json!({"jkt": thumbprint, "x5t#S256": "A"}), "certificate_missing"),
        (json!({"x5t#S256": "A"}), "certificate_missing"),
        (json!({"jkt": thumbprint, "osc": {}}), "binding_unknown"),
        (json!({"kid": "a"}), "binding_unknown"),
        (json!({"jkt": thumbprint}), "allowed"),
    ] {
        let text = guarded.stage.token_with(Some(cnf.clone()));
        let (dpop, proof) = (format!("DPoP {text}"), guarded.proof(&text));
        assert_eq!(guarded.code("add", &[("authorization", &dpop), ("dpop", &proof)]), expected, "{cnf}");
    }
}

#[test]
fn modes_say_whether_tokens_may_or_must_be_bound() {
    for (mode, unbound, bound) in [
        ("off", "allowed", "binding_unknown"),
        ("optional", "allowed", "allowed"),
        ("required", "binding_missing", "allowed"),
    ] {
        let guarded = Guarded::new(&format!("mode = \"{mode}\""));
        let text = guarded.stage.token_with(None);
        assert_eq!(guarded.code("add", &[("authorization", &format!("Bearer {text}"))]), unbound, "{mode}");
        let text = guarded.stage.text();
        let (dpop, proof) = (format!("DPoP {text}"), guarded.proof(&text));
        assert_eq!(guarded.code("add", &[("authorization", &dpop), ("dpop", &proof)]), bound, "{mode}");
    }
}

#[test]
fn rule_demands_a_bound_token() {
    let guarded = Guarded::new("mode = \"optional\"");
    let unbound = guarded.stage.token_with(None);
    let denial = guarded.call("pay", &[("authorization", &format!("Bearer {unbound}"))]).unwrap_err();
    assert_eq!((denial.code(), denial.status()), ("binding_required", 401));
    let text = guarded.stage.text();
    let (dpop, proof) = (format!("DPoP {text}"), guarded.proof(&text));
    assert_eq!(guarded.code("pay", &[("authorization", &dpop), ("dpop", &proof)]), "allowed");
}

#[test]
fn message_of_an_sdk_brings_no_proof_so_a_bound_token_is_refused() {
    let guarded = Guarded::new("mode = \"optional\"");
    let request = ToolRequest::tool("add", None, Some(guarded.stage.text().into()), None);
    let refused = guarded.gate.check(&request, now_at(NOW)).unwrap_err();
    assert_eq!(refused, GateError::Denied(Denial::BoundAsBearer, None));
}

#[test]
fn head_of_a_long_request_does_not_use_up_its_proof() {
    let guarded = Guarded::new("mode = \"optional\"");
    let text = guarded.stage.text();
    let (dpop, proof) = (format!("DPoP {text}"), guarded.proof(&text));
    let headers = [("authorization", &*dpop), ("dpop", &*proof)];
    let head = guarded.gate.check_head(&Guarded::request("add", &headers), Answered::default(), now_at(NOW), &Attached);
    assert!(head.unwrap().is_none());
    assert_eq!(guarded.code("add", &headers), "allowed");
    assert!(
        guarded
            .gate
            .check_head(&Guarded::request("add", &headers), Answered::default(), now_at(NOW), &Attached)
            .is_err()
    );
}

#[test]
fn reload_forgets_no_proof_and_cannot_lengthen_their_life() {
    let guarded = Guarded::new("max_age = \"1m\"");
    let text = guarded.stage.text();
    let (dpop, proof) = (format!("DPoP {text}"), guarded.proof(&text));
    let headers = [("authorization", &*dpop), ("dpop", &*proof)];
    assert_eq!(guarded.code("add", &headers), "allowed");
    guarded.gate.reload(configuration(&guarded.stage, "max_age = \"30s\"")).unwrap();
    assert_eq!(guarded.code("add", &headers), "proof_replayed");
    let refused = guarded.gate.reload(configuration(&guarded.stage, "max_age = \"2m\"")).unwrap_err();
    assert!(refused.to_string().starts_with("dpop.max_age: a reload cannot raise it"), "{refused}");
    guarded.gate.reload(configuration(&guarded.stage, "max_age = \"1m\"")).unwrap();
    assert_eq!(guarded.code("add", &headers), "proof_replayed");
}

#[test]
fn challenge_of_a_missing_token_names_what_is_taken() {
    for (mode, bearer, dpop) in [("off", true, false), ("optional", true, true), ("required", false, true)] {
        let guarded = Guarded::new(&format!("mode = \"{mode}\""));
        let denial = guarded.call("add", &[]).unwrap_err();
        let challenge = guarded.gate.state().receiver().challenge(&denial).unwrap();
        assert_eq!(challenge.contains("Bearer "), bearer, "{challenge}");
        assert_eq!(challenge.contains("DPoP algs=\"EdDSA Ed25519 ES256\""), dpop, "{challenge}");
    }
}

// --- certificates -----------------------------------------------------------------------------------

/// The certificate of RFC 8705 appendix A, and what a token that is bound to it says.
const CERTIFICATE: &str = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=";
const CERTIFICATE_THUMBPRINT: &str = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";

fn by_proxy(stage: &Stage, source: &str, headers: &[(&str, &str)], peer: &str) -> &'static str {
    let certificates =
        format!("mode = \"optional\"\n[certificates]\nsource = \"{source}\"\n[proxies]\naddresses = [\"10.0.0.0/8\"]");
    let gate = Gate::new(configuration(stage, &certificates), None).unwrap();
    let request = Guarded::request("add", headers).from_peer(peer.parse().ok());
    match gate.check(&request, now_at(NOW)) {
        Ok(_) => "allowed",
        Err(GateError::Denied(denial, _)) => denial.code(),
        Err(GateError::Faulted(fault)) => panic!("{fault}"),
    }
}

#[test]
fn certificate_is_believed_from_a_declared_proxy_alone_and_once() {
    let stage = Stage::new();
    let hash: String = URL_SAFE_NO_PAD
        .decode(CERTIFICATE_THUMBPRINT)
        .unwrap()
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let element = format!("Hash={hash};Subject=\"CN=mtls\"");
    let other = format!("Hash={}", "0".repeat(64));
    let text = stage.token_with(Some(json!({"x5t#S256": CERTIFICATE_THUMBPRINT})));
    let bearer = ("authorization", &*format!("Bearer {text}"));
    let (name, proxy) = ("x-forwarded-client-cert", "10.0.0.1");
    for (headers, peer, expected) in [
        (vec![bearer, (name, &element)], proxy, "allowed"),
        (vec![bearer, (name, &element)], "192.0.2.1", "certificate_missing"),
        (vec![bearer], proxy, "certificate_missing"),
        (vec![bearer, (name, "")], proxy, "certificate_missing"),
        (vec![bearer, (name, &other)], proxy, "certificate_mismatch"),
        (vec![bearer, (name, &element), (name, &element)], proxy, "certificate_malformed"),
        (vec![bearer, (name, &element), (name, &element)], "192.0.2.1", "certificate_missing"),
        (vec![bearer, ("client-cert", &*format!(":{CERTIFICATE}:"))], proxy, "certificate_missing"),
    ] {
        assert_eq!(by_proxy(&stage, "envoy", &headers, peer), expected, "{headers:?} {peer}");
    }
    assert_eq!(by_proxy(&stage, "off", &[bearer, (name, &element)], proxy), "certificate_missing");
}

#[test]
fn certificate_that_is_over_is_refused() {
    let stage = Stage::new();
    let text = stage.token_with(Some(json!({"x5t#S256": CERTIFICATE_THUMBPRINT})));
    let bearer = format!("Bearer {text}");
    let headers = [("authorization", &*bearer), ("client-cert", &*format!(":{CERTIFICATE}:"))];
    assert_eq!(by_proxy(&stage, "client-cert", &headers, "10.0.0.1"), "certificate_expired");
}

#[test]
fn both_bindings_of_a_token_are_checked() {
    let stage = Stage::new();
    let thumbprint = &stage.holder.thumbprint;
    let text = stage.token_with(Some(json!({"jkt": thumbprint, "x5t#S256": CERTIFICATE_THUMBPRINT})));
    let hash: String = URL_SAFE_NO_PAD
        .decode(CERTIFICATE_THUMBPRINT)
        .unwrap()
        .iter()
        .fold(String::from("Hash="), |hex, byte| hex + &format!("{byte:02x}"));
    let (dpop, bearer) = (format!("DPoP {text}"), format!("Bearer {text}"));
    let proof = Draft::new(&stage.holder, &text).sign(&stage.holder);
    let certificate = ("x-forwarded-client-cert", &*hash);
    for (headers, expected) in [
        (vec![("authorization", &*dpop), ("dpop", &*proof), certificate], "allowed"),
        (vec![("authorization", &*dpop), ("dpop", &*proof)], "certificate_missing"),
        (vec![("authorization", &*dpop), certificate], "proof_missing"),
        (vec![("authorization", &*bearer), certificate], "bound_as_bearer"),
    ] {
        assert_eq!(by_proxy(&stage, "envoy", &headers, "10.0.0.1"), expected, "{headers:?}");
    }
}

// --- proofs that several processes remember ---------------------------------------------------------

struct Shared {
    stage: Stage,
    gates: [Gate; 2],
}

impl Shared {
    fn new() -> Self {
        let stage = Stage::new();
        let gate = |secret: &[u8]| {
            let mut config = configuration(&stage, "mode = \"optional\"");
            let text = "url = \"redis://localhost\"\nprocesses = 2";
            let other =
                format!("version = 1\n[resource]\nurl = \"{AUDIENCE}\"\n[limits]\nmode = \"local\"\n[state]\n{text}");
            let shared = Config::from_toml(&other, None).unwrap();
            (config.state, config.limits) = (shared.state, shared.limits);
            config.set_state_secret("test", secret).unwrap();
            Gate::new(config, None).unwrap()
        };
        let secret = [7; 32];
        let gates = [gate(&secret), gate(&secret)];
        Self { stage, gates }
    }

    fn asked(&self, gate: usize, request: &ToolRequest) -> Result<Agreeing, Denial> {
        match self.gates[gate].check(request, now_at(NOW)) {
            Ok(Decision::Agreeing(agreeing)) => Ok(agreeing),
            Err(GateError::Denied(denial, _)) => Err(denial),
            other => panic!("{other:?}"),
        }
    }

    fn answered(&self, request: &ToolRequest, agreeing: &Agreeing, claim: ClaimAnswer) -> &'static str {
        let answer = Answer { claim, limits: None };
        match self.gates[0].agreed(request, agreeing, &answer, now_at(NOW), &Attached, false) {
            Ok(Decision::Allowed(_)) => "allowed",
            Err(GateError::Denied(denial, _)) => denial.code(),
            other => panic!("{other:?}"),
        }
    }

    fn request(&self) -> ToolRequest {
        let text = self.stage.text();
        let proof = Draft::new(&self.stage.holder, &text).sign(&self.stage.holder);
        Guarded::request("add", &[("authorization", &format!("DPoP {text}")), ("dpop", &proof)])
    }
}

#[test]
fn new_proof_waits_for_the_word_of_other_processes() {
    let shared = Shared::new();
    for (claim, code) in [
        (ClaimAnswer::New, "allowed"),
        (ClaimAnswer::Used(0), "proof_replayed"),
        (ClaimAnswer::Unknown, "replays_unavailable"),
    ] {
        let request = shared.request();
        let agreeing = shared.asked(0, &request).unwrap();
        assert_eq!(shared.answered(&request, &agreeing, claim), code);
        // This process knows it in any case.
        assert_eq!(shared.asked(0, &request).unwrap_err(), Denial::ProofReplayed);
    }
}

#[test]
fn processes_claim_a_proof_by_one_name_and_two_proofs_by_two() {
    let shared = Shared::new();
    let (request, other) = (shared.request(), shared.request());
    let claim = |gate, request| shared.asked(gate, request).unwrap().claims()[0];
    let (one, two) = (claim(0, &request), claim(1, &request));
    assert_eq!(one.key, two.key);
    assert_ne!(one.key, claim(1, &other).key);
    // Twice the five minutes that a proof is good for, on either side of now.
    assert_eq!(one.lifetime, Duration::from_secs(600));
}

#[test]
fn call_without_a_proof_asks_nobody() {
    let shared = Shared::new();
    let request = Guarded::request("add", &[("authorization", &format!("Bearer {}", shared.stage.token_with(None)))]);
    assert!(matches!(shared.gates[0].check(&request, now_at(NOW)), Ok(Decision::Allowed(_))));
}

#[test]
fn message_of_a_decided_call_claims_no_proof_again() {
    let shared = Shared::new();
    let request = shared.request();
    let agreeing = shared.asked(0, &request).unwrap();
    let answer = Answer { claim: ClaimAnswer::New, limits: None };
    let decided = shared.gates[0].agreed(&request, &agreeing, &answer, now_at(NOW), &Attached, false);
    let Ok(Decision::Allowed(parent)) = decided else { panic!("not allowed") };
    let nested = ToolRequest::tool("add", None, None, None);
    assert!(matches!(shared.gates[0].check_nested(&parent, &nested, now_at(NOW)), Ok(Decision::Allowed(_))));
}
