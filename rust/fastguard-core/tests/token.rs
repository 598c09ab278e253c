//! Room 1 from outside: every refusal provoked, and what just misses it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod signing;

use std::sync::Arc;
use std::time::Duration;

use fastguard_core::bounds::{MAX_IDENTITY_BYTES, MAX_SCOPES, MAX_TOKEN_BYTES};
use fastguard_core::gate::Waiting;
use fastguard_core::hashing::KeyHasher;
use fastguard_core::jose::{Algorithms, KeySet};
use fastguard_core::request::{Headers, HttpMethod};
use fastguard_core::scopes::ScopeTable;
use fastguard_core::token::{
    Answered, Attached, Confirmation, Identity, IssuerOptions, Need, Revocation, Tokens, Unverified, VerifiedToken,
};
use fastguard_core::{Config, Decision, Denial, Gate, GateError, Now, Tick, ToolRequest, UnixTime};
use serde_json::{Value, json};
use signing::{Signer, encode};

const ISSUER: &str = "https://auth.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";
const NOW: i64 = 1_800_000_000;
const LEEWAY: i64 = 30;

/// A good token's claims with some of them set.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "agent-7", "sid": "s-1", "jti": "t-1",
        "iat": NOW - 60, "exp": NOW + 600, "scope": "warehouse:query:read",
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims(&json!({}));
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn at_millis(millis: i64) -> Now {
    let tick = Tick::from_nanos(1_000_000_000);
    Now { unix: UnixTime::from_millis(millis), tick, own: tick }
}

fn at(seconds: i64) -> Now {
    at_millis(seconds * 1_000)
}

/// One key and a verifier that knows it.
struct Room {
    signer: Signer,
    tokens: Tokens,
}

impl Room {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut IssuerOptions)) -> Self {
        let signer = Signer::elliptic();
        let keys = KeySet::from_jwks(jwks(&[(&signer, "k")]).as_bytes(), false).unwrap();
        let mut options = IssuerOptions::new(ISSUER, AUDIENCE);
        change(&mut options);
        let leeway = Duration::from_secs(LEEWAY.unsigned_abs());
        Self { tokens: Tokens::single(options, Arc::new(keys), leeway, 100), signer }
    }

    fn token(&self, claims: &Value) -> String {
        self.signer.token("k", claims)
    }

    fn headed(&self, header: &Value) -> String {
        self.signer.token_of(header.to_string().as_bytes(), claims(&json!({})).to_string().as_bytes())
    }

    fn verify(&self, token: &str) -> Result<VerifiedToken, Denial> {
        verify(&self.tokens, token, at(NOW))
    }

    fn of(&self, changes: &Value) -> Result<VerifiedToken, Denial> {
        self.verify(&self.token(&claims(changes)))
    }

    fn refusal_of(&self, changes: &Value) -> Denial {
        self.of(changes).unwrap_err()
    }
}

fn jwks(signers: &[(&Signer, &str)]) -> String {
    let keys: Vec<Value> = signers.iter().map(|(signer, key_id)| signer.jwk(key_id)).collect();
    json!({ "keys": keys }).to_string()
}

fn verify(tokens: &Tokens, token: &str, now: Now) -> Result<VerifiedToken, Denial> {
    tokens.verify(token, Answered::default(), now, &Attached).map_err(|unverified| match unverified {
        Unverified::Denied(denial) => denial,
        Unverified::Needs(need) => Denial::KeyUnknown { key_id: format!("needs {}", need.name()) },
    })
}

fn missing(claim: &str) -> Denial {
    Denial::ClaimMissing { claim: claim.to_owned() }
}

fn invalid(claim: &str) -> Denial {
    Denial::ClaimInvalid { claim: claim.to_owned() }
}

#[test]
fn good_token_tells_its_caller() {
    let room = Room::new();
    let token = room.of(&json!({"act": {"sub": "broker"}})).unwrap();
    assert_eq!(token.issuer(), ISSUER);
    assert_eq!((token.subject(), token.client_id()), (Some("alice"), Some("agent-7")));
    assert_eq!((token.session(), token.actor(), token.key_id()), (Some("s-1"), Some("broker"), Some("k")));
    assert_eq!((token.token_id(), &*token.scopes()[0]), ("t-1", "warehouse:query:read"));
    assert_eq!(token.expires_at(), UnixTime::from_seconds(NOW + 600));
}

#[test]
fn token_tells_for_whom_it_is_and_what_it_is_bound_to() {
    let room = Room::with(|options| options.roles_claim = Some("roles".into()));
    let bound = json!({"other": 1, "x5t#S256": "certificate", "jkt": "key"});
    let token = room
        .of(&json!({"aud": ["x", AUDIENCE], "roles": ["analyst", "owner"], "auth_time": NOW - 90, "cnf": bound}))
        .unwrap();
    assert_eq!(token.audience().join(" "), format!("x {AUDIENCE}"));
    assert_eq!(token.roles().join(" "), "analyst owner");
    assert_eq!(token.authenticated_at(), Some(UnixTime::from_seconds(NOW - 90)));
    assert_eq!(token.thumbprint(), Some("key"));
    let mut members: Vec<&str> = token.confirmations().iter().map(Confirmation::member).collect();
    members.sort_unstable();
    assert_eq!(members, ["jkt", "other", "x5t#S256"]);

    let unbound = room.of(&json!({"cnf": {"x5t#S256": "certificate"}})).unwrap();
    assert_eq!((unbound.thumbprint(), unbound.roles().len(), unbound.authenticated_at()), (None, 0, None));
}

/// RFC 9449 §4.2: `ath` is the hash of the token's ASCII text.
#[test]
fn token_keeps_its_text_and_the_hash_of_it() {
    let room = Room::new();
    let text = room.token(&claims(&json!({})));
    let token = room.verify(&text).unwrap();
    assert_eq!(token.text(), text);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    assert_eq!(token.text_hash(), encode(hash.as_ref()));
}

#[test]
fn token_that_was_verified_is_found_and_not_verified_again() {
    let room = Room::new();
    let text = room.token(&claims(&json!({})));
    let (first, again) = (room.verify(&text).unwrap(), room.verify(&text).unwrap());
    assert!(Arc::ptr_eq(first.caller(), again.caller()));
    assert_eq!(room.tokens.cached(), 1);

    // The same letters in another place are another token.
    let other = room.token(&claims(&json!({"jti": "t-2"})));
    assert!(!Arc::ptr_eq(first.caller(), room.verify(&other).unwrap().caller()));
    assert_eq!(room.tokens.cached(), 2);
}

#[test]
fn need_of_an_answer_is_named_for_people_and_shows_no_token() {
    let needs = [Need::Keys(ISSUER.into()), Need::Identity("secret".into()), Need::Introspection("secret".into())];
    let shown = needs.each_ref().map(|need| format!("{need:?}"));
    assert_eq!(shown, [format!("Keys({ISSUER:?})"), "Identity".to_owned(), "Introspection".to_owned()]);
    assert_eq!(needs.each_ref().map(Need::name), ["keys", "the verifier", "the issuer's word on the token"]);
}

#[test]
fn keys_of_each_kind_verify_their_own_tokens_alone() {
    let signers = [Signer::elliptic(), Signer::edwards(), Signer::rsa()];
    let named: Vec<(&Signer, &str)> = signers.iter().map(|signer| (signer, signer.algorithm())).collect();
    let keys = KeySet::from_jwks(jwks(&named).as_bytes(), false).unwrap();
    let tokens = Tokens::single(IssuerOptions::new(ISSUER, AUDIENCE), Arc::new(keys), Duration::ZERO, 0);
    for signer in &signers {
        for other in &signers {
            let token = signer.token(other.algorithm(), &claims(&json!({})));
            let expected = if std::ptr::eq(signer, other) { "" } else { "algorithm_refused" };
            let code = verify(&tokens, &token, at(NOW)).map_or_else(|denial| denial.code(), |_| "");
            assert_eq!(code, expected, "{} {}", signer.algorithm(), other.algorithm());
        }
    }
}

// --- times -----------------------------------------------------------------------------------

/// RFC 7519 §4.1.4: not accepted "on or after" the expiration time.
#[test]
fn token_on_its_expiry_is_refused_and_a_millisecond_before_is_not() {
    let room = Room::new();
    let token = room.token(&claims(&json!({})));
    let edge = (NOW + 600 + LEEWAY) * 1_000;
    assert!(verify(&room.tokens, &token, at_millis(edge - 1)).is_ok());
    let expired = Denial::TokenExpired { expired_at: UnixTime::from_seconds(NOW + 600) };
    // From the cache, and anew.
    assert_eq!(verify(&room.tokens, &token, at_millis(edge)).unwrap_err(), expired);
    let late = room.token(&claims(&json!({"jti": "t-2"})));
    assert_eq!(verify(&room.tokens, &late, at_millis(edge)).unwrap_err(), expired);
}

#[test]
fn expiry_with_a_fraction_counts_to_the_millisecond() {
    let room = Room::new();
    let token = room.token(&claims(&json!({"exp": 1_800_000_000.5})));
    let edge = (NOW + LEEWAY) * 1_000 + 500;
    assert!(verify(&room.tokens, &token, at_millis(edge - 1)).is_ok());
    assert_eq!(verify(&room.tokens, &token, at_millis(edge)).unwrap_err().code(), "token_expired");
}

#[test]
fn token_before_its_nbf_is_refused_and_at_the_edge_of_the_leeway_is_not() {
    let room = Room::new();
    assert!(room.of(&json!({"nbf": NOW + LEEWAY})).is_ok());
    let valid_from = UnixTime::from_seconds(NOW + LEEWAY + 1);
    assert_eq!(room.refusal_of(&json!({"nbf": NOW + LEEWAY + 1})), Denial::TokenNotYetValid { valid_from });
    let cached = room.token(&claims(&json!({"nbf": NOW})));
    assert!(room.verify(&cached).is_ok());
    let early = verify(&room.tokens, &cached, at_millis((NOW - LEEWAY) * 1_000 - 1)).unwrap_err();
    assert_eq!(early.code(), "token_not_yet_valid");
}

#[test]
fn token_from_the_future_is_refused_and_at_the_edge_of_the_leeway_is_not() {
    let room = Room::new();
    assert!(room.of(&json!({"iat": NOW + LEEWAY})).is_ok());
    let issued_at = UnixTime::from_seconds(NOW + LEEWAY + 1);
    assert_eq!(room.refusal_of(&json!({"iat": NOW + LEEWAY + 1})), Denial::TokenFromFuture { issued_at });
}

#[test]
fn lifetime_above_the_longest_is_refused_and_the_longest_is_not() {
    let room = Room::new();
    assert!(room.of(&json!({"iat": NOW - 60, "exp": NOW - 60 + 3_600})).is_ok());
    let lifetime = Duration::from_secs(3_601);
    assert_eq!(
        room.refusal_of(&json!({"iat": NOW - 60, "exp": NOW - 60 + 3_601})),
        Denial::LifetimeTooLong { lifetime }
    );
    // Without `iat` the rest of its life counts.
    let mut claims = without("iat");
    claims["exp"] = (NOW + 3_600).into();
    assert!(room.verify(&room.token(&claims)).is_ok());
    claims["exp"] = (NOW + 3_601).into();
    assert_eq!(room.verify(&room.token(&claims)).unwrap_err().code(), "lifetime_too_long");
}

/// CVE-2026-25537: a time of the wrong type is refused, never passed over.
#[test]
fn times_that_are_no_numbers_are_refused() {
    let room = Room::new();
    for claim in ["exp", "nbf", "iat"] {
        for value in [json!(null), json!("1800000600"), json!(true), json!([NOW]), json!({}), json!(1e300)] {
            assert_eq!(room.refusal_of(&json!({claim: value})), invalid(claim), "{claim}");
        }
    }
    assert_eq!(room.verify(&room.token(&without("exp"))).unwrap_err(), missing("exp"));
    assert!(room.verify(&room.token(&without("iat"))).is_ok());
}

// --- iss, aud, typ, require ------------------------------------------------------------------

#[test]
fn audience_is_ours_exactly_alone_or_in_a_list() {
    let room = Room::new();
    assert!(room.of(&json!({"aud": AUDIENCE})).is_ok());
    assert!(room.of(&json!({"aud": ["https://other.example.com", AUDIENCE]})).is_ok());
    for aud in [
        json!("https://mcp.example.com/mcp/"),
        json!("https://mcp.example.com"),
        json!(""),
        json!([]),
        json!(["https://MCP.example.com/mcp"]),
    ] {
        assert_eq!(room.refusal_of(&json!({"aud": aud})).code(), "audience_mismatch", "{aud}");
    }
    for aud in [json!(null), json!(7), json!({}), json!([AUDIENCE, 7]), json!([[AUDIENCE]])] {
        assert_eq!(room.refusal_of(&json!({"aud": aud})), invalid("aud"), "{aud}");
    }
    assert_eq!(room.verify(&room.token(&without("aud"))).unwrap_err(), missing("aud"));
}

#[test]
fn issuer_is_the_configured_one_exactly() {
    let room = Room::new();
    for other in ["https://auth.example.com/", "https://AUTH.example.com", "http://auth.example.com", ""] {
        assert_eq!(room.refusal_of(&json!({"iss": other})), Denial::IssuerUnknown { found: other.to_owned() });
    }
    for value in [json!([ISSUER]), json!(null), json!(1)] {
        assert_eq!(room.refusal_of(&json!({"iss": value})), invalid("iss"));
    }
    assert_eq!(room.verify(&room.token(&without("iss"))).unwrap_err(), missing("iss"));
}

/// RFC 9068 §4 and RFC 7515 §4.1.9: `at+jwt`, with or without `application/`, in any case.
#[test]
fn type_is_an_access_tokens_however_it_is_written() {
    let room = Room::new();
    let header = |typ: &str| json!({"alg": "ES256", "kid": "k", "typ": typ});
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        assert!(room.verify(&room.headed(&header(typ))).is_ok(), "{typ}");
    }
    for typ in ["JWT", "dpop+jwt", "", "at+jwt ", "application/", "text/at+jwt", "application/application/at+jwt"] {
        let refused = room.verify(&room.headed(&header(typ))).unwrap_err();
        assert_eq!(refused, Denial::TypeRefused { found: typ.to_owned() });
    }
    let none = room.verify(&room.headed(&json!({"alg": "ES256", "kid": "k"}))).unwrap_err();
    assert_eq!(none, Denial::TypeRefused { found: String::new() });
    let loose = Room::with(|options| options.types = vec!["".into(), "jwt".into()]);
    assert!(loose.verify(&loose.headed(&json!({"alg": "ES256", "kid": "k"}))).is_ok());
    assert!(loose.verify(&loose.headed(&header("JWT"))).is_ok());
    assert_eq!(loose.verify(&loose.headed(&header("at+jwt"))).unwrap_err().code(), "type_refused");
}

#[test]
fn required_claims_are_there_and_equal() {
    let text = r#"require = { token_use = "access", tenant = true, level = 2 }"#;
    let world = World::new(text, "");
    let good = json!({"token_use": "access", "tenant": "t", "level": 2});
    assert!(world.of(&good).is_ok());
    let changed = |name: &str, value: Value| {
        let mut changes = good.clone();
        changes[name] = value;
        world.of(&changes).unwrap_err()
    };
    for (claim, value) in
        [("token_use", json!("id")), ("tenant", json!(null)), ("level", json!("2")), ("level", json!(3))]
    {
        assert_eq!(changed(claim, value), Denial::ClaimRefused { claim: claim.to_owned() });
    }
    assert_eq!(world.of(&json!({"token_use": "access", "level": 2})).unwrap_err(), missing("tenant"));
}

// --- form, header, key -----------------------------------------------------------------------

#[test]
fn token_beyond_the_bound_is_refused_and_at_the_bound_is_not() {
    let room = Room::new();
    let padded = |length: usize| room.token(&claims(&json!({"padding": "x".repeat(length)})));
    // Three bytes make four, so the bound itself can be hit or just missed.
    let mut length = MAX_TOKEN_BYTES * 3 / 4 - 500;
    while padded(length + 1).len() <= MAX_TOKEN_BYTES {
        length += 1;
    }
    assert!(padded(length).len() >= MAX_TOKEN_BYTES - 1);
    assert!(room.verify(&padded(length)).is_ok());
    assert_eq!(room.verify(&padded(length + 1)).unwrap_err(), Denial::TokenTooLarge);
}

#[test]
fn payload_that_is_not_one_object_is_malformed() {
    let room = Room::new();
    let header = json!({"alg": "ES256", "kid": "k", "typ": "at+jwt"}).to_string();
    let good = claims(&json!({})).to_string();
    let twice = good.replacen('{', r#"{"sub":"mallory","#, 1);
    let deep =
        claims(&json!({})).to_string().replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(64), "]".repeat(64)), 1);
    for payload in ["", "[]", "null", "{", &format!("{good} x"), &twice, &deep] {
        let token = room.signer.token_of(header.as_bytes(), payload.as_bytes());
        assert_eq!(room.verify(&token).unwrap_err().code(), "token_malformed", "{payload}");
    }
    let token = room.signer.token_of(header.as_bytes(), b"\xff{}");
    assert_eq!(room.verify(&token).unwrap_err().code(), "token_malformed");
    assert!(room.verify(&room.signer.token_of(header.as_bytes(), format!(" {good}\n").as_bytes())).is_ok());
}

#[test]
fn header_that_asks_for_more_is_refused() {
    let room = Room::new();
    for parameter in ["crit", "b64", "zip", "enc"] {
        let mut header = json!({"alg": "ES256", "kid": "k", "typ": "at+jwt"});
        header[parameter] = json!(true);
        let refused = room.verify(&room.headed(&header)).unwrap_err();
        assert_eq!(refused, Denial::HeaderParameterRefused { parameter });
    }
    // Keys that a token brings along are not looked at (RFC 8725 §3.10).
    let stranger = Signer::elliptic();
    let header = json!({"alg": "ES256", "kid": "k", "typ": "at+jwt", "jwk": stranger.jwk("k")});
    assert!(room.verify(&room.headed(&header)).is_ok());
    let forged = stranger.token_of(header.to_string().as_bytes(), claims(&json!({})).to_string().as_bytes());
    assert_eq!(room.verify(&forged).unwrap_err(), Denial::SignatureInvalid);
}

#[test]
fn algorithm_must_be_allowed_and_fit_the_key() {
    let room = Room::new();
    let header = |algorithm: &str| json!({"alg": algorithm, "kid": "k", "typ": "at+jwt"});
    for algorithm in ["none", "HS256", "RS256", "EdDSA", "ES384", "es256", ""] {
        let refused = room.verify(&room.headed(&header(algorithm))).unwrap_err();
        assert_eq!(refused, Denial::AlgorithmRefused { algorithm: algorithm.to_owned() });
    }
    let narrow = Room::with(|options| options.algorithms = Algorithms::from_names(["RS256"]).unwrap());
    assert_eq!(narrow.of(&json!({})).unwrap_err().code(), "algorithm_refused");
}

#[test]
fn key_is_chosen_by_its_kid_and_never_guessed() {
    let (one, other) = (Signer::elliptic(), Signer::elliptic());
    let room = |keys: &[(&Signer, &str)]| {
        let keys = KeySet::from_jwks(jwks(keys).as_bytes(), false).unwrap();
        Tokens::single(IssuerOptions::new(ISSUER, AUDIENCE), Arc::new(keys), Duration::ZERO, 0)
    };
    let bare = |signer: &Signer| {
        let header = json!({"alg": "ES256", "typ": "at+jwt"}).to_string();
        signer.token_of(header.as_bytes(), claims(&json!({})).to_string().as_bytes())
    };
    let check = |tokens: &Tokens, token: &str| verify(tokens, token, at(NOW)).map(|_| ());
    let both = room(&[(&one, "a"), (&other, "b")]);
    assert!(check(&both, &one.token("a", &claims(&json!({})))).is_ok());
    assert_eq!(check(&both, &one.token("b", &claims(&json!({})))), Err(Denial::SignatureInvalid));
    let unknown = Denial::KeyUnknown { key_id: "c".to_owned() };
    assert_eq!(check(&both, &one.token("c", &claims(&json!({})))), Err(unknown));
    assert_eq!(check(&both, &bare(&one)), Err(Denial::KeyAmbiguous));
    assert!(check(&room(&[(&one, "a")]), &bare(&one)).is_ok());
    let twins = room(&[(&one, "a"), (&other, "a")]);
    assert_eq!(check(&twins, &one.token("a", &claims(&json!({})))), Err(Denial::KeyAmbiguous));
}

/// A key that cannot be read may be the one that signed; a key for encryption cannot.
#[test]
fn kid_that_a_broken_key_bears_too_is_ambiguous() {
    let signer = Signer::elliptic();
    let room = |twin: Value| {
        let text = json!({"keys": [signer.jwk("k"), twin]}).to_string();
        let keys = KeySet::from_jwks(text.as_bytes(), false).unwrap();
        Tokens::single(IssuerOptions::new(ISSUER, AUDIENCE), Arc::new(keys), Duration::ZERO, 0)
    };
    let token = signer.token("k", &claims(&json!({})));
    let mut broken = Signer::elliptic().jwk("k");
    broken["x"] = json!("AA");
    assert_eq!(verify(&room(broken), &token, at(NOW)).unwrap_err(), Denial::KeyAmbiguous);
    let mut for_encryption = Signer::elliptic().jwk("k");
    for_encryption["use"] = json!("enc");
    assert!(verify(&room(for_encryption), &token, at(NOW)).is_ok());
    assert!(verify(&room(json!({"kty": "OKP", "crv": "X25519", "kid": "k", "x": "AA"})), &token, at(NOW)).is_ok());
}

#[test]
fn changed_token_does_not_verify() {
    let room = Room::new();
    let token = room.token(&claims(&json!({})));
    let parts: Vec<&str> = token.split('.').collect();
    let other = encode(claims(&json!({"sub": "bob"})).to_string());
    assert_eq!(room.verify(&format!("{}.{other}.{}", parts[0], parts[2])).unwrap_err(), Denial::SignatureInvalid);
    assert_eq!(room.verify(&format!("{}.{}.", parts[0], parts[1])).unwrap_err(), Denial::SignatureInvalid);
    for text in [&parts[..2].join("."), &format!("{token}.x"), &format!("{token}="), &format!("{token}\n")] {
        assert_eq!(room.verify(text).unwrap_err().code(), "token_malformed", "{text:?}");
    }
}

// --- who, and which scopes -------------------------------------------------------------------

#[test]
fn token_names_a_subject_or_a_client() {
    let room = Room::new();
    let mut claims = without("sub");
    assert!(room.verify(&room.token(&claims)).is_ok());
    claims.as_object_mut().unwrap().remove("client_id");
    assert_eq!(room.verify(&room.token(&claims)).unwrap_err(), Denial::PrincipalMissing);
    claims["azp"] = json!("agent-7");
    assert_eq!(room.verify(&room.token(&claims)).unwrap().client_id(), Some("agent-7"));
}

#[test]
fn identities_are_strings_neither_empty_nor_too_long() {
    let room = Room::new();
    for claim in ["sub", "client_id", "jti", "sid"] {
        for value in [json!(""), json!(7), json!(null), json!(["a"]), json!("x".repeat(MAX_IDENTITY_BYTES + 1))] {
            assert_eq!(room.refusal_of(&json!({claim: value})), invalid(claim));
        }
        assert!(room.of(&json!({claim: "x".repeat(MAX_IDENTITY_BYTES)})).is_ok());
    }
    for act in [json!("broker"), json!(null), json!({"sub": 7})] {
        assert_eq!(room.refusal_of(&json!({"act": act})), invalid("act"));
    }
}

#[test]
fn principals_differ_by_what_names_them() {
    let room = Room::new();
    let principal = |claims: &Value| room.verify(&room.token(claims)).unwrap().principal();
    let mut client = without("sub");
    client["client_id"] = json!("alice");
    assert_eq!(principal(&claims(&json!({}))), principal(&claims(&json!({"jti": "t-2", "client_id": "agent-8"}))));
    assert_ne!(principal(&claims(&json!({}))), principal(&client), "a client of a subject's name");
}

#[test]
fn scopes_are_a_string_or_a_list_and_nothing_else() {
    let room = Room::new();
    let scopes = |changes: &Value| {
        let token = room.of(changes).unwrap();
        token.scopes().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(scopes(&json!({"scope": "a b"})), ["a", "b"]);
    assert_eq!(scopes(&json!({"scope": " a  b "})), ["a", "b"]);
    // RFC 6749 §3.3: U+0020 and nothing else parts them.
    assert_eq!(scopes(&json!({"scope": "a\tb\u{a0}c\nd"})), ["a\tb\u{a0}c\nd"]);
    assert_eq!(scopes(&json!({"scope": ["a", "b c"]})), ["a", "b c"]);
    assert_eq!(scopes(&json!({"scope": ""})), [""; 0]);
    // The first claim that is there counts, and not the second.
    assert_eq!(scopes(&json!({"scope": "a", "scp": "b"})), ["a"]);
    let mut claims = without("scope");
    assert!(room.verify(&room.token(&claims)).unwrap().scopes().is_empty());
    claims["scp"] = json!(["b"]);
    assert_eq!(&*room.verify(&room.token(&claims)).unwrap().scopes()[0], "b");
    for value in [json!(null), json!(7), json!({}), json!(["a", 7]), json!([["a"]]), json!(true)] {
        assert_eq!(room.refusal_of(&json!({"scope": value})), invalid("scope"));
    }
    assert_eq!(scopes(&json!({"scope": vec!["a"; MAX_SCOPES]})).len(), MAX_SCOPES);
    assert_eq!(room.refusal_of(&json!({"scope": vec!["a"; MAX_SCOPES + 1]})), invalid("scope"));
}

#[test]
fn token_without_jti_is_named_by_what_was_signed() {
    let room = Room::new();
    let first = room.verify(&room.token(&without("jti"))).unwrap();
    // ECDSA signs at random: another signature over the same token must not be another name.
    let second = room.verify(&room.token(&without("jti"))).unwrap();
    assert!(first.token_id().starts_with("sha-256:"));
    assert_eq!(first.token_id(), second.token_id());
    let mut other = without("jti");
    other["sub"] = json!("bob");
    assert_ne!(room.verify(&room.token(&other)).unwrap().token_id(), first.token_id());
}

// --- with a configuration --------------------------------------------------------------------

/// A configuration with one inline key, and the rooms made of it.
struct World {
    signer: Signer,
    config: Config,
    scopes: Arc<ScopeTable>,
    tokens: Tokens,
}

impl World {
    /// `issuer` stands in `[[issuers]]`, `rest` behind it.
    fn new(issuer: &str, rest: &str) -> Self {
        let signer = Signer::elliptic();
        let text = format!(
            "version = 1\n[resource]\nurl = \"{AUDIENCE}\"\n[[issuers]]\nissuer = \"{ISSUER}\"\njwks = '{}'\n{issuer}\n\
             {rest}\n[audit]\nenabled = false\n",
            jwks(&[(&signer, "k")])
        );
        let config = Config::from_toml(&text, None).unwrap();
        let scopes = Arc::new(ScopeTable::new(&config, &[]));
        let tokens = Tokens::new(&config, Arc::clone(&scopes), KeyHasher::random(), Identity::Issuers).unwrap();
        Self { signer, config, scopes, tokens }
    }

    fn of(&self, changes: &Value) -> Result<VerifiedToken, Denial> {
        verify(&self.tokens, &self.signer.token("k", &claims(changes)), at(NOW))
    }

    fn gate(&self) -> Gate {
        Gate::new(self.config.clone(), None).unwrap()
    }

    fn token(&self, changes: &Value) -> String {
        self.signer.token("k", &claims(changes))
    }
}

const TOOLS: &str = r#"
[scopes.admin]
implies = ["write"]
[scopes.write]
implies = ["read"]
[tools.look]
scopes = ["read"]
[tools.change]
scopes = ["write"]
"#;

#[test]
fn scopes_imply_others_downwards_and_never_upwards() {
    let world = World::new("", TOOLS);
    let has = |scope: &str, wanted: &str| {
        world.of(&json!({"scope": scope})).unwrap().granted().contains_all(&world.scopes.bit(wanted))
    };
    assert!(has("admin", "read") && has("admin", "write") && has("write", "read") && has("read", "read"));
    assert!(!has("read", "write") && !has("write", "admin") && !has("Read", "read") && !has("other", "read"));
}

#[test]
fn scopes_that_the_issuer_may_not_assert_are_ignored() {
    let world = World::new(r#"asserts_scopes = ["re*", "warehouse:*"]"#, TOOLS);
    let token = world.of(&json!({"scope": "read admin warehouse:x"})).unwrap();
    assert_eq!(token.scopes().iter().map(|scope| &**scope).collect::<Vec<_>>(), ["read", "warehouse:x"]);
    assert!(token.granted().contains_all(&world.scopes.bit("read")));
    assert!(!token.granted().contains_any(&world.scopes.bit("admin")));
    assert!(!token.granted().contains_any(&world.scopes.bit("write")));
}

/// What the gate says of a call: `Ok` where it may run.
fn call(gate: &Gate, tool: &str, token: &str) -> Result<(), GateError> {
    call_at(gate, tool, token, at(NOW)).map(|_| ())
}

fn call_at(gate: &Gate, tool: &str, token: &str, now: Now) -> Result<Option<Waiting>, GateError> {
    let request = ToolRequest::tool(tool, None, Some(token.into()), None);
    Ok(match gate.check(&request, now)? {
        Decision::Allowed(_) => None,
        Decision::Waiting(waiting) => Some(waiting),
        Decision::Observed(_) | Decision::Agreeing(_) => panic!("nothing is observed or shared here"),
    })
}

fn code(result: Result<(), GateError>) -> &'static str {
    match result {
        Ok(()) => "allowed",
        Err(GateError::Denied(denial, _)) => denial.code(),
        Err(GateError::Faulted(fault)) => fault.code(),
    }
}

#[test]
fn bound_tokens_never_pass_as_bearer_tokens() {
    let world = World::new("", TOOLS);
    let gate = world.gate();
    let of = |changes: Value| {
        let mut changes = changes;
        changes["scope"] = json!("read");
        code(call(&gate, "look", &world.token(&changes)))
    };
    assert_eq!(of(json!({})), "allowed");
    assert_eq!(of(json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})), "bound_as_bearer");
    assert_eq!(of(json!({"cnf": {"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}})), "certificate_missing");
    assert_eq!(of(json!({"cnf": {"jkt": "a", "x5t#S256": "b"}})), "certificate_missing");
    assert_eq!(of(json!({"cnf": {"jku": "https://evil.example"}})), "binding_unknown");
    assert_eq!(of(json!({"cnf": {"jkt": "a", "kid": "b"}})), "binding_unknown");
    for cnf in [json!({}), json!(null), json!("jkt"), json!({"jkt": 7}), json!({"jkt": null}), json!([])] {
        assert_eq!(of(json!({"cnf": cnf})), "claim_invalid", "{cnf}");
    }
}

#[test]
fn unbound_token_under_the_dpop_scheme_is_refused() {
    let world = World::new("", TOOLS);
    let gate = world.gate();
    let token = world.token(&json!({"scope": "read"}));
    let of = |authorization: Option<String>| {
        let mut headers = Headers::default();
        if let Some(text) = authorization {
            headers.push(b"authorization", text.as_bytes());
        }
        let request = ToolRequest::http(HttpMethod::Delete, "/mcp", headers, None, None);
        code(gate.check(&request, at(NOW)).map(|_| ()))
    };
    assert_eq!(of(Some(format!("DPoP {token}"))), "binding_missing");
    assert_eq!(of(Some(format!("Basic {token}"))), "scheme_unsupported");
    assert_eq!(of(None), "token_missing");
    // The token is in order; the rooms behind it decide.
    assert_eq!(of(Some(format!("Bearer {token}"))), of(Some(format!("bearer {token}"))));
    assert!(!["token_missing", "scheme_unsupported", "binding_missing"].contains(&of(Some(format!("Bearer {token}")))));
}

#[test]
fn scopes_decide_at_the_gate() {
    let world = World::new("", TOOLS);
    let gate = world.gate();
    let of = |tool: &str, scope: &str| code(call(&gate, tool, &world.token(&json!({"scope": scope}))));
    assert_eq!(of("change", "admin"), "allowed");
    assert_eq!(of("change", "read"), "scope_insufficient");
    assert_eq!(of("unheard_of", "admin"), "target_unknown");
}

// --- revocation ------------------------------------------------------------------------------

#[expect(clippy::unnecessary_wraps, reason = "the members of a revocation are options")]
fn text(value: &str) -> Option<Box<str>> {
    Some(value.into())
}

#[test]
fn revocation_by_each_selector_hits_at_once_from_the_cache_too() {
    let none = Revocation::default;
    let selectors: [(Revocation, Value); 6] = [
        (Revocation { token_id: text("t-1"), ..none() }, json!({"jti": "t-2"})),
        (Revocation { subject: text("alice"), ..none() }, json!({"sub": "bob"})),
        (Revocation { client_id: text("agent-7"), ..none() }, json!({"client_id": "agent-8"})),
        (Revocation { session: text("s-1"), ..none() }, json!({"sid": "s-2"})),
        (Revocation { issuer: text(ISSUER), subject: text("alice"), ..none() }, json!({"sub": "bob"})),
        (Revocation { subject: text("alice"), session: text("s-1"), ..none() }, json!({"sid": "s-2"})),
    ];
    for (revocation, spared) in selectors {
        let room = Room::new();
        let (hit, spared) = (room.token(&claims(&json!({}))), room.token(&claims(&spared)));
        let held = room.verify(&hit).unwrap();
        assert!(room.verify(&spared).is_ok());
        room.tokens.revoke(revocation.clone(), at(NOW).unix).unwrap();
        assert_eq!(room.verify(&hit).unwrap_err(), Denial::TokenRevoked, "{revocation:?}");
        assert_eq!(room.tokens.recheck(&held, at(NOW).unix), Err(Denial::TokenRevoked));
        assert!(room.verify(&spared).is_ok(), "{revocation:?}");
        // Neither in the cache nor new: another text with the same claims.
        assert_eq!(room.of(&json!({})).unwrap_err(), Denial::TokenRevoked);
    }
}

#[test]
fn revocation_of_an_issuer_hits_what_was_issued_until_now_and_not_later() {
    let room = Room::new();
    room.tokens
        .revoke(Revocation { issuer: text(ISSUER), ..Revocation::default() }, at_millis(NOW * 1_000).unix)
        .unwrap();
    assert_eq!(room.refusal_of(&json!({"iat": NOW - 60})), Denial::TokenRevoked);
    // `iat` counts seconds: what was issued in this very one may be older.
    assert_eq!(room.refusal_of(&json!({"iat": NOW})), Denial::TokenRevoked);
    assert!(room.of(&json!({"iat": NOW + 1})).is_ok());
    assert_eq!(room.verify(&room.token(&without("iat"))).unwrap_err(), Denial::TokenRevoked);
    let other = Revocation { issuer: text("https://other.example.com"), ..Revocation::default() };
    let room = Room::new();
    room.tokens.revoke(other, at(NOW).unix).unwrap();
    assert!(room.of(&json!({})).is_ok());
}

#[test]
fn revocation_by_key_hits_the_tokens_that_name_it() {
    let room = Room::new();
    let token = room.token(&claims(&json!({})));
    let key_id = room.verify(&token).unwrap().key_id().unwrap().to_owned();
    room.tokens.revoke(Revocation { key_id: text("another"), ..Revocation::default() }, at(NOW).unix).unwrap();
    assert!(room.verify(&token).is_ok());
    room.tokens.revoke(Revocation { key_id: text(&key_id), ..Revocation::default() }, at(NOW).unix).unwrap();
    assert_eq!(room.verify(&token).unwrap_err(), Denial::TokenRevoked);
}

#[test]
fn revocation_of_what_was_issued_before_a_moment_spares_that_moment() {
    let room = Room::new();
    let issued_before = Some(UnixTime::from_seconds(NOW - 60));
    let revocation = Revocation { subject: text("alice"), issued_before, ..Revocation::default() };
    room.tokens.revoke(revocation, at(NOW).unix).unwrap();
    assert_eq!(room.refusal_of(&json!({"iat": NOW - 61})), Denial::TokenRevoked);
    assert!(room.of(&json!({"iat": NOW - 60})).is_ok());
}

/// Processes that tell each other all that is in force tell it again and again.
#[test]
fn revocation_that_comes_again_takes_no_more_room() {
    let room = Room::new();
    let revocation = Revocation { subject: text("alice"), ..Revocation::default() };
    for second in 0..3 {
        room.tokens.revoke(revocation.clone(), at(NOW + second).unix).unwrap();
    }
    assert_eq!(room.tokens.revocations(), 1);
    assert_eq!(room.refusal_of(&json!({"iat": NOW + 2})), Denial::TokenRevoked);
    room.tokens.revoke(Revocation { subject: text("bob"), ..Revocation::default() }, at(NOW).unix).unwrap();
    assert_eq!(room.tokens.revocations(), 2);
}

#[test]
fn revocation_by_token_id_hits_whenever_the_token_says_it_was_issued() {
    let room = Room::new();
    room.tokens.revoke(Revocation { token_id: text("t-1"), ..Revocation::default() }, at(NOW - 600).unix).unwrap();
    assert_eq!(room.refusal_of(&json!({"iat": NOW})), Denial::TokenRevoked);
    let digest = room.verify(&room.token(&without("jti"))).unwrap().token_id().to_owned();
    room.tokens.revoke(Revocation { token_id: text(&digest), ..Revocation::default() }, at(NOW).unix).unwrap();
    assert_eq!(room.verify(&room.token(&without("jti"))).unwrap_err(), Denial::TokenRevoked);
}

#[test]
fn revocation_of_nothing_is_a_mistake() {
    assert!(Room::new().tokens.revoke(Revocation::default(), at(NOW).unix).is_err());
}

#[test]
fn revocation_at_the_gate_hits_the_next_call() {
    let world = World::new("", TOOLS);
    let gate = world.gate();
    let token = world.token(&json!({"scope": "read"}));
    assert_eq!(code(call(&gate, "look", &token)), "allowed");
    gate.revoke(Revocation { session: text("s-1"), ..Revocation::default() }, at(NOW).unix).unwrap();
    assert_eq!(code(call(&gate, "look", &token)), "token_revoked");
    // Revocations outlive a change of the configuration.
    gate.reload(world.config.clone()).unwrap();
    assert_eq!(code(call(&gate, "look", &token)), "token_revoked");
}

// --- keys that are fetched -------------------------------------------------------------------

fn fetched() -> Gate {
    let text = format!(
        "version = 1\n[resource]\nurl = \"{AUDIENCE}\"\n[[issuers]]\nissuer = \"{ISSUER}\"\n{TOOLS}\n[audit]\nenabled = false\n"
    );
    Gate::new(Config::from_toml(&text, None).unwrap(), None).unwrap()
}

/// A set that need not be replaced within these tests.
const FRESH: Tick = Tick::from_nanos(u64::MAX);

fn later(seconds: u64) -> Now {
    let now = at(NOW);
    let tick = now.tick.plus(Duration::from_secs(seconds));
    Now { tick, own: tick, ..now }
}

#[test]
fn key_that_is_taken_away_ends_cached_verdicts_and_one_that_comes_does_not() {
    let gate = fetched();
    let (old, new) = (Signer::elliptic(), Signer::elliptic());
    let replace = |keys: &[(&Signer, &str)]| gate.state().tokens().replace_keys(ISSUER, jwks(keys).as_bytes(), FRESH);
    replace(&[(&old, "old")]).unwrap();
    let token = old.token("old", &claims(&json!({"scope": "read"})));
    let held = verify(gate.state().tokens(), &token, at(NOW)).unwrap();
    replace(&[(&old, "old"), (&new, "new")]).unwrap();
    assert_eq!(gate.state().tokens().recheck(&held, at(NOW).unix), Ok(()));
    assert_eq!(code(call(&gate, "look", &token)), "allowed");
    replace(&[(&new, "new")]).unwrap();
    assert_eq!(gate.state().tokens().recheck(&held, at(NOW).unix), Err(Denial::TokenRevoked));
    // Anew, its key is known to have been taken away: nothing to wait for.
    assert_eq!(code(call(&gate, "look", &token)), "key_unknown");
    // A bad document changes nothing.
    assert!(replace(&[]).is_err());
    assert!(gate.state().tokens().replace_keys(ISSUER, b"<html>", FRESH).is_err());
    assert_eq!(code(call(&gate, "look", &new.token("new", &claims(&json!({"scope": "read"}))))), "allowed");
    // Another key under an old name is another key.
    replace(&[(&old, "new")]).unwrap();
    assert_eq!(code(call(&gate, "look", &new.token("new", &claims(&json!({"scope": "read"}))))), "signature_invalid");
}

#[test]
fn unknown_kid_waits_once_then_is_refused_then_cools_down() {
    let gate = fetched();
    let (known, stranger) = (Signer::elliptic(), Signer::elliptic());
    let good = claims(&json!({"scope": "read"}));
    let request =
        |signer: &Signer, key_id: &str| ToolRequest::tool("look", None, Some(signer.token(key_id, &good).into()), None);
    let denial = |result: Result<Decision, GateError>| match result {
        Err(GateError::Denied(denial, _)) => denial,
        other => Denial::ClaimInvalid { claim: format!("{other:?}") },
    };
    // No keys yet: the first call asks, the second waits for the same fetch.
    let Decision::Waiting(first) = gate.check(&request(&known, "k"), later(0)).unwrap() else {
        panic!("does not wait")
    };
    assert_eq!(first.need(), &Need::Keys(ISSUER.into()));
    let Decision::Waiting(second) = gate.check(&request(&known, "k"), later(1)).unwrap() else {
        panic!("does not wait")
    };
    gate.state().tokens().replace_keys(ISSUER, jwks(&[(&known, "k")]).as_bytes(), FRESH).unwrap();
    assert!(matches!(gate.resume(&request(&known, "k"), first, later(1)).unwrap(), Decision::Allowed(_)));
    assert!(matches!(gate.resume(&request(&known, "k"), second, later(1)).unwrap(), Decision::Allowed(_)));
    // The first set used up nobody's turn to ask: a fetch, and then the key is known not to be there.
    let Decision::Waiting(third) = gate.check(&request(&stranger, "x"), later(10)).unwrap() else {
        panic!("does not wait")
    };
    gate.state().tokens().replace_keys(ISSUER, jwks(&[(&known, "k")]).as_bytes(), FRESH).unwrap();
    let unknown = denial(gate.resume(&request(&stranger, "x"), third, later(11)));
    assert_eq!((unknown.code(), unknown.status()), ("key_unknown", 401));
    // The same name again: known to be unknown, no fetch. Another: nobody can tell whether it is new, so 503, not 401.
    assert_eq!(denial(gate.check(&request(&stranger, "x"), later(12))).code(), "key_unknown");
    let unavailable = denial(gate.check(&request(&stranger, "y"), later(12)));
    assert_eq!(unavailable, Denial::KeysUnavailable { retry_after: Duration::from_secs(28) });
    assert_eq!(unavailable.status(), 503);
    assert_eq!(denial(gate.check(&request(&stranger, "y"), later(39))).status(), 503);
    assert!(matches!(gate.check(&request(&stranger, "y"), later(40)).unwrap(), Decision::Waiting(_)));
    // Known keys are never held up by any of this.
    assert!(matches!(gate.check(&request(&known, "k"), later(32)).unwrap(), Decision::Allowed(_)));
}

#[test]
fn failed_fetch_refuses_with_503_and_keeps_the_old_keys() {
    let gate = fetched();
    let signer = Signer::elliptic();
    let good = claims(&json!({"scope": "read"}));
    let request = |key_id: &str| ToolRequest::tool("look", None, Some(signer.token(key_id, &good).into()), None);
    let Decision::Waiting(waiting) = gate.check(&request("k"), later(0)).unwrap() else { panic!("does not wait") };
    gate.state().tokens().keys_failed(ISSUER, later(5).own);
    let refused = gate.resume(&request("k"), waiting, later(3)).unwrap_err();
    assert_eq!(refused, Denial::KeysUnavailable { retry_after: Duration::from_secs(2) }.into());
    gate.state().tokens().replace_keys(ISSUER, jwks(&[(&signer, "k")]).as_bytes(), FRESH).unwrap();
    gate.state().tokens().keys_failed(ISSUER, later(5).own);
    assert!(matches!(gate.check(&request("k"), later(6)).unwrap(), Decision::Allowed(_)));
}

/// Whoever is not the issuer causes no fetch, and learns that it is not.
#[test]
fn strangers_cause_no_fetch() {
    let gate = fetched();
    let token = Signer::elliptic().token("k", &claims(&json!({"iss": "https://evil.example"})));
    assert_eq!(code(call(&gate, "look", &token)), "issuer_unknown");
    let token = Signer::elliptic().token("k", &without("iss"));
    assert_eq!(code(call(&gate, "look", &token)), "claim_missing");
}
