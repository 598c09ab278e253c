//! What a changed configuration ends of what was known before it, and what it keeps.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panics")]

#[expect(dead_code, reason = "one kind of key will do here")]
mod signing;

use std::sync::Arc;
use std::time::Duration;

use fastguard_core::denial::Denial;
use fastguard_core::hashing::KeyHasher;
use fastguard_core::scopes::ScopeTable;
use fastguard_core::token::{
    Answered, Attached, Identity, KeyPlace, KeySource, Need, Tokens, Unverified, VerifiedToken,
};
use fastguard_core::{Config, Now, Tick, UnixTime};
use serde_json::json;
use signing::Signer;

const ISSUER: &str = "https://auth.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";
const NOW: i64 = 1_800_000_000;

fn now() -> Now {
    let tick = Tick::from_nanos(1_000_000_000);
    Now { unix: UnixTime::from_seconds(NOW), tick, own: tick }
}

/// A configuration with these lines in its issuer's table, or without an issuer.
fn config(issuer: Option<&str>) -> Config {
    let issuers = issuer.map_or_else(String::new, |lines| format!("[[issuers]]\nissuer = \"{ISSUER}\"\n{lines}\n"));
    let text = format!(
        "version = 1\n[resource]\nurl = \"{AUDIENCE}\"\nauthorization_servers = [\"{ISSUER}\"]\n{issuers}\
         [tools.add]\nopen = true\n[audit]\nenabled = false\n"
    );
    Config::from_toml(&text, None).unwrap()
}

fn scopes(config: &Config) -> Arc<ScopeTable> {
    Arc::new(ScopeTable::new(config, &[]))
}

fn tokens(config: &Config, identity: Identity) -> Tokens {
    Tokens::new(config, scopes(config), KeyHasher::random(), identity).unwrap()
}

fn jwks(signer: &Signer) -> String {
    json!({ "keys": [signer.jwk("k")] }).to_string()
}

fn text(signer: &Signer) -> String {
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "agent-7", "jti": "t-1", "iat": NOW - 60, "exp": NOW + 600,
    });
    signer.token("k", &claims)
}

fn verify(tokens: &Tokens, text: &str) -> Result<VerifiedToken, Unverified> {
    tokens.verify(text, Answered::default(), now(), &Attached)
}

fn code(tokens: &Tokens, text: &str) -> &'static str {
    match verify(tokens, text) {
        Ok(_) => "verified",
        Err(Unverified::Denied(denial)) => denial.code(),
        Err(Unverified::Needs(need)) => need.name(),
    }
}

/// An issuer's table with the keys inline.
fn inline(signer: &Signer, rest: &str) -> Config {
    config(Some(&format!("jwks = '{}'\n{rest}", jwks(signer))))
}

#[test]
fn verdict_of_one_configuration_is_none_of_the_next() {
    let signer = Signer::elliptic();
    let text = text(&signer);
    let before = tokens(&inline(&signer, ""), Identity::Issuers);
    assert_eq!(code(&before, &text), "verified");

    let under_way = verify(&before, &text).unwrap();

    let stricter = inline(&signer, "max_lifetime = \"5m\"");
    let after = before.reload(&stricter, scopes(&stricter)).unwrap();
    assert_eq!(code(&after, &text), "lifetime_too_long");
    // A call that is under way is held to what says whose token it may be, not to what says how long one may live.
    assert_eq!(after.recheck(&under_way, now().unix), Ok(()));
    let denied = before.reload(&inline(&signer, "denied_keys = [\"k\"]"), scopes(&stricter)).unwrap();
    assert_eq!(denied.recheck(&under_way, now().unix).unwrap_err().code(), "key_denied");
    // So it is with each reload, not only with the first.
    let third = after.reload(&inline(&signer, ""), scopes(&stricter)).unwrap();
    assert_eq!(code(&third, &text), "verified");
    let fourth = third.reload(&stricter, scopes(&stricter)).unwrap();
    assert_eq!(code(&fourth, &text), "lifetime_too_long");
}

#[test]
fn verdict_of_the_administrators_endpoint_is_none_of_its_next_configuration_and_none_of_the_tools() {
    let signer = Signer::elliptic();
    let text = text(&signer);
    let (loose, strict) = (inline(&signer, ""), inline(&signer, "max_lifetime = \"5m\""));
    let tools = tokens(&loose, Identity::Issuers);
    let first = tools.beside(&loose, scopes(&loose), None).unwrap();
    let token = verify(&first, &text).unwrap();

    let second = tools.beside(&strict, scopes(&strict), Some(&first)).unwrap();
    assert_eq!(code(&second, &text), "lifetime_too_long");
    let third = tools.beside(&loose, scopes(&loose), Some(&second)).unwrap();
    assert_eq!(code(&third, &text), "verified");

    // A call that is under way holds on; what was verified for the one resource is none of the other's.
    assert_eq!(second.recheck(&token, now().unix), Ok(()));
    assert_eq!(third.recheck(&token, now().unix), Ok(()));
    let refused = tools.recheck(&token, now().unix).unwrap_err();
    assert_eq!(refused, Denial::AudienceMismatch { found: AUDIENCE.to_owned() });
}

#[test]
fn keys_of_an_issuer_that_stays_are_kept_and_those_of_another_place_are_not() {
    let signer = Signer::elliptic();
    let text = text(&signer);
    let at = |place: &str| config(Some(&format!("jwks_uri = \"https://auth.example.com/{place}\"")));
    let before = tokens(&at("jwks"), Identity::Issuers);
    let fresh = Tick::from_nanos(60_000_000_000);
    before.replace_keys(ISSUER, jwks(&signer).as_bytes(), fresh).unwrap();
    assert_eq!(code(&before, &text), "verified");
    let place = KeyPlace { jwks_uri: Some("https://auth.example.com/jwks".to_owned()), ..KeyPlace::default() };
    assert_eq!(before.sources().collect::<Vec<_>>(), [(ISSUER, &KeySource::Fetched(Box::new(place)))]);

    let same = before.reload(&at("jwks"), scopes(&at("jwks"))).unwrap();
    assert_eq!(code(&same, &text), "verified");
    let other = same.reload(&at("keys"), scopes(&at("keys"))).unwrap();
    assert_eq!(code(&other, &text), "keys");
}

#[test]
fn figures_of_keys_tell_whom_they_failed_and_until_when_they_can_be_used() {
    let (known, stranger) = (Signer::elliptic(), Signer::elliptic());
    let configuration = config(Some("jwks_uri = \"https://auth.example.com/jwks\"\nmax_stale = \"1h\""));
    let tokens = tokens(&configuration, Identity::Issuers);
    let figures = |seconds: u64| {
        let at = now().own.plus(Duration::from_secs(seconds));
        tokens
            .key_figures(at)
            .map(|(issuer, misses, is_usable)| (issuer.to_owned(), misses, is_usable))
            .collect::<Vec<_>>()
    };
    assert_eq!(figures(3_601), [(ISSUER.to_owned(), 0, false)]);

    tokens.replace_keys(ISSUER, jwks(&known).as_bytes(), now().own).unwrap();
    assert_eq!(code(&tokens, &text(&known)), "verified");
    let unknown = stranger.token("other", &json!({"iss": ISSUER}));
    for _ in 0..2 {
        let answered = tokens.verify(&unknown, Answered::by_fetch(), now(), &Attached);
        assert!(matches!(answered, Err(Unverified::Denied(denial)) if denial.code() == "key_unknown"));
    }
    assert_eq!(figures(0), [(ISSUER.to_owned(), 2, true)]);
    assert_eq!(figures(3_601), [(ISSUER.to_owned(), 2, false)]);
}

#[test]
fn verifier_outside_stays_through_a_reload() {
    let configuration = config(None);
    let before = tokens(&configuration, Identity::Outside);
    let after = before.reload(&configuration, scopes(&configuration)).unwrap();
    for tokens in [before, after] {
        let Err(Unverified::Needs(need)) = verify(&tokens, "opaque") else { panic!("it was not asked") };
        assert_eq!(need, Need::Identity("opaque".into()));
    }
}
