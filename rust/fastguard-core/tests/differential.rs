//! Mutated tokens, judged by us and by `jsonwebtoken`: no case in which we accept and it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::string_slice,
    reason = "tests fail by panics, and tell what they skip"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastguard_core::clock::{Now, Tick, UnixTime};
use fastguard_core::jose::KeySet;
use fastguard_core::token::{Answered, Attached, IssuerOptions, Tokens};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};

const ISSUER: &str = "https://auth.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";

/// A generator of its own, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.roll(list.len())]
    }

    /// The first, which is the good one, three times out of four.
    fn lean<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        if self.roll(4) == 0 { self.pick(list) } else { &list[0] }
    }
}

struct Stage {
    pair: EcdsaKeyPair,
    ours: Tokens,
    theirs: DecodingKey,
    validation: Validation,
    now: i64,
}

impl Stage {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let jwk = format!(r#"{{"kty":"EC","crv":"P-256","kid":"k","alg":"ES256","x":"{x}","y":"{y}"}}"#);
        let keys = Arc::new(KeySet::from_jwks(jwk.as_bytes(), false).unwrap());
        let ours = Tokens::single(IssuerOptions::new(ISSUER, AUDIENCE), keys, Duration::from_secs(30), 0);
        let theirs = DecodingKey::from_ec_components(&x, &y).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_nbf = true;
        // As ours: a token of the very second of its end plus 30 is dead.
        validation.leeway = 30;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        Self { pair, ours, theirs, validation, now }
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn we_accept(&self, token: &str) -> bool {
        let now = Now { unix: UnixTime::from_seconds(self.now), tick: Tick::from_nanos(1), own: Tick::from_nanos(1) };
        self.ours.verify(token, Answered::default(), now, &Attached).is_ok()
    }

    fn they_accept(&self, token: &str) -> bool {
        decode::<serde_json::Value>(token, &self.theirs, &self.validation).is_ok()
    }

    /// A token with something changed before it is signed, or after.
    fn mutant(&self, dice: &mut Dice) -> String {
        let now = self.now;
        let header = *dice.lean(&[
            r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#,
            r#"{"alg":"ES256","typ":"at+jwt"}"#,
            r#"{"alg":"ES256","kid":"k","typ":"at+jwt","crit":["exp"]}"#,
            r#"{"alg":"none","kid":"k","typ":"at+jwt"}"#,
            r#"{"alg":"HS256","kid":"k","typ":"at+jwt"}"#,
            r#"{"alg":"ES256","alg":"ES256","kid":"k","typ":"at+jwt"}"#,
            r#"{"typ":"application/at+jwt","kid":"k","alg":"ES256","jku":"https://evil.example/jwks"}"#,
            r#"{"alg":"es256","kid":"k","typ":"at+jwt"}"#,
        ]);
        let claim = |dice: &mut Dice, name: &str, values: &[String]| format!("\"{name}\":{}", dice.lean(values));
        let text = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let times: Vec<String> = [now + 600, now - 600, now, now + 3, now * 1_000, 0, -1]
            .iter()
            .map(ToString::to_string)
            .chain(text(&["\"1\"", "null", "true", "1e400", "1e3", "[]", "{}"]))
            .collect();
        let mut claims = vec![
            claim(
                dice,
                "iss",
                &text(&[&format!("\"{ISSUER}\""), "\"https://auth.example.com/\"", "null", "[\"x\"]", "7"]),
            ),
            claim(
                dice,
                "aud",
                &text(&[&format!("\"{AUDIENCE}\""), &format!("[\"a\",\"{AUDIENCE}\"]"), "\"x\"", "[]", "null", "{}"]),
            ),
            format!("\"exp\":{}", if dice.roll(3) == 0 { dice.pick(&times).clone() } else { (now + 600).to_string() }),
            claim(dice, "sub", &text(&["\"a\"", "\"a\"", "\"\"", "7", "null"])),
        ];
        if dice.roll(3) == 0 {
            claims.push(format!("\"nbf\":{}", dice.pick(&times)));
        }
        if dice.roll(2) == 0 {
            claims.push(format!("\"iat\":{}", dice.pick(&times)));
        }
        if dice.roll(4) == 0 {
            claims.remove(dice.roll(claims.len()));
        }
        if dice.roll(8) == 0 {
            claims.push(claims[dice.roll(claims.len())].clone());
        }
        let mut token = self.sign(header, &format!("{{{}}}", claims.join(","))).into_bytes();
        for _ in 0..dice.roll(6).saturating_sub(3) {
            let at = dice.roll(token.len());
            match dice.roll(4) {
                0 => token[at] = *dice.pick(b"AZaz09-_.=+/ \n"),
                1 => token.insert(at, *dice.pick(b"AZaz09-_.=+/ \n")),
                2 => drop(token.remove(at)),
                _ => token.swap(0, at),
            }
        }
        String::from_utf8_lossy(&token).into_owned()
    }
}

fn compare(rounds: usize) {
    let stage = Stage::new();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut both, mut ours_only, mut theirs_only) = (0, Vec::new(), 0);
    for _ in 0..rounds {
        let token = stage.mutant(&mut dice);
        match (stage.we_accept(&token), stage.they_accept(&token)) {
            (true, true) => both += 1,
            (true, false) => ours_only.push(token),
            (false, true) => theirs_only += 1,
            (false, false) => {}
        }
    }
    println!("{rounds} mutants: {both} accepted by both, {theirs_only} by jsonwebtoken alone");
    assert!(ours_only.is_empty(), "{} accepted by us alone, such as {}", ours_only.len(), ours_only[0]);
    assert!(both > rounds / 200, "too few mutants were good: {both}");
}

#[test]
fn mutants_are_never_accepted_by_us_alone() {
    compare(20_000);
}

#[test]
#[ignore = "takes minutes: run by `make soak`"]
fn a_million_mutants_are_never_accepted_by_us_alone() {
    compare(1_000_000);
}
