//! `[[issuers]]`

use std::collections::BTreeSet;
use std::time::Duration;

use super::Findings;
use super::url::Url;
use crate::config::error::Problem;
use crate::config::schema::{Config, Issuer};
use crate::config::values::Required;
use crate::jose::{Algorithm, KeySet};

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, issuer) in config.issuers.iter().enumerate() {
        let at = |key: &str| format!("issuers[{index}].{key}");
        if !seen.insert(&issuer.issuer) {
            findings.add(at("issuer"), format!("`{}` stands here twice", issuer.issuer));
        }
        if config.issuers.len() > 1 && issuer.asserts_scopes.is_none() {
            findings.add(
                at("asserts_scopes"),
                "needed where there is more than one issuer: say which scopes this one may assert",
            );
        }
        check_places(issuer, &at, findings);
        check_fetching(issuer, &at, findings);
        check_algorithms(issuer, &at, findings);
        check_types(issuer, &at, findings);
        check_lists(issuer, &at, findings);
        if issuer.audience_claim.as_deref().is_some_and(|claim| claim != "aud") && issuer.audiences.is_none() {
            findings
                .add(at("audiences"), "needed with another `audience_claim`: no such claim holds the resource's URL");
        }
        findings.refuse_empty(at("audience_claim"), issuer.audience_claim.as_deref() == Some(""));
        check_lifetimes(issuer, &at, findings);
        check_introspection(issuer, &at, findings);
    }
    let asked = config.issuers.iter().enumerate().filter(|(_, issuer)| issuer.introspects());
    for (index, _) in asked.skip(1) {
        let message =
            "one issuer at most: an opaque token does not say whose it is, and none may learn another's tokens";
        findings.add(format!("issuers[{index}].introspection_client_id"), message);
    }
}

/// Longest time that an answer about a token is believed: so much later its revocation at the issuer is known here.
const LONGEST_CACHE: Duration = Duration::from_secs(600);

fn check_introspection(issuer: &Issuer, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    let (secret, certificate) = (&issuer.introspection_client_secret_file, &issuer.client_certificate);
    if !issuer.introspects() {
        let keys =
            [("introspection_endpoint", &issuer.introspection_endpoint), ("introspection_client_secret_file", secret)];
        for (key, _) in keys.into_iter().filter(|(_, value)| value.is_some()) {
            findings.add(at(key), "only with `introspection_client_id`");
        }
        return;
    }
    findings.refuse_empty(at("introspection_client_id"), issuer.introspection_client_id.as_deref() == Some(""));
    if secret.is_none() && certificate.is_none() {
        let message = "needs `introspection_client_secret_file`, or `client_certificate`: a server answers nobody else";
        findings.add(at("introspection_client_id"), message);
    }
    if issuer.introspection_cache.get() > LONGEST_CACHE {
        findings.add(at("introspection_cache"), "at most 10m");
    }
    let rates = [
        ("introspection_lookups", issuer.introspection_lookups),
        ("introspection_lookups_per_address", issuer.introspection_lookups_per_address),
    ];
    for (key, rate) in rates {
        let has_window = (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&rate.window());
        if rate.count() == 0 || rate.count() > 1_000_000 || !has_window {
            findings.add(at(key), "between 1 and 1000000, in 1s to 24h");
        }
    }
}

fn check_lifetimes(issuer: &Issuer, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    const SHORTEST: Duration = Duration::from_secs(1);
    let longest = issuer.max_lifetime.get();
    if !(SHORTEST..=Duration::from_secs(86_400)).contains(&longest) {
        findings.add(at("max_lifetime"), "between 1s and 24h");
    }
    for (scope, lifetime) in &issuer.scope_lifetimes {
        let key = at(&format!("scope_lifetimes.\"{scope}\""));
        findings.refuse_empty(&key, scope.is_empty());
        if !(SHORTEST..=longest).contains(&lifetime.get()) {
            findings.add(key, "between 1s and `max_lifetime`, which bounds every token of this issuer");
        }
    }
    if issuer.max_token_age.is_some_and(|age| !(SHORTEST..=longest).contains(&age.get())) {
        findings.add(at("max_token_age"), "between 1s and `max_lifetime`, beyond which no token of this issuer lives");
    }
}

fn check_places(issuer: &Issuer, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    let urls = [
        ("issuer", Some(&issuer.issuer)),
        ("jwks_uri", issuer.jwks_uri.as_ref()),
        ("introspection_endpoint", issuer.introspection_endpoint.as_ref()),
    ];
    for (key, text) in urls.into_iter().filter_map(|(key, text)| text.map(|text| (key, text))) {
        match Url::parse(text) {
            None => findings.add(at(key), format!("`{text}` is not an absolute URL")),
            Some(url) if url.has_extras && key == "issuer" => {
                findings.add(at(key), "must have no user, query or fragment (RFC 8414 section 2)");
            }
            Some(url) if url.scheme == "http" && !(issuer.allow_http_loopback && url.is_loopback()) => {
                findings.add(at(key), "must be https; http only on loopback and with `allow_http_loopback = true`");
            }
            Some(_) => {}
        }
    }
    let sources = [issuer.jwks_uri.is_some(), issuer.jwks.is_some(), issuer.jwks_file.is_some()];
    if sources.into_iter().filter(|is_given| *is_given).count() > 1 {
        findings.add(at("jwks_uri"), "only one of `jwks_uri`, `jwks` and `jwks_file`");
    }
    if let Some(text) = issuer.inline_jwks() {
        let keys = KeySet::from_jwks(text.as_bytes(), false).and_then(KeySet::without_published);
        if let Err(error) = keys {
            findings.add(at("jwks"), error.to_string());
        }
    }
}

/// The widest networks that have a meaning of their own: `10.0.0.0/8` and `fc00::/7`. A wider one would name most of the world,
/// and the check of addresses cannot be switched off.
const WIDEST_4: u32 = 8;
const WIDEST_6: u32 = 7;

/// A key set that nobody could renew for so long is not the issuer's any more.
const MAX_STALE: Duration = Duration::from_secs(7 * 86_400);

fn check_fetching(issuer: &Issuer, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    for network in &issuer.allow_networks {
        let widest = if network.is_ipv4() { WIDEST_4 } else { WIDEST_6 };
        if network.prefix() < widest {
            findings.add(at("allow_networks"), format!("`{network}` is too wide: at least /{widest}"));
        }
    }
    if issuer.max_stale.get() > MAX_STALE {
        findings.add(at("max_stale"), "at most 7d");
    }
    findings.refuse_empty(at("denied_keys"), issuer.denied_keys.iter().any(String::is_empty));
    if issuer.client_key.is_some() && issuer.client_certificate.is_none() {
        findings.add(at("client_key"), "only with `client_certificate`");
    }
    let files = issuer.files();
    for (key, file) in &files {
        findings.refuse_empty(at(key), file.is_empty());
    }
    if !issuer.introspects() && (issuer.jwks.is_some() || issuer.jwks_file.is_some()) {
        let networks = (!issuer.allow_networks.is_empty()).then_some("allow_networks");
        for key in networks.into_iter().chain(files.into_iter().map(|(key, _)| key)) {
            findings.add(at(key), "says how keys are fetched, but these are given by `jwks` or `jwks_file`");
        }
    }
}

fn check_algorithms(issuer: &Issuer, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    findings.refuse_empty(at("algorithms"), issuer.algorithms.is_empty());
    for name in &issuer.algorithms {
        match Algorithm::from_name(name) {
            Some(algorithm) if algorithm.is_symmetric() => findings
                .add(at("algorithms"), format!("`{name}` is symmetric: whoever verifies with it could also sign")),
            Some(_) => {}
            None => {
                let known =
                    Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric()).map(Algorithm::name);
                let problem = Problem::new(at("algorithms"), format!("`{name}` is not a known algorithm"));
                findings.push(problem.nearest(name, known));
            }
        }
    }
}

fn check_types(issuer: &Issuer, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    findings.refuse_empty(at("types"), issuer.types.is_empty());
    let is_loose = |name: &&String| name.is_empty() || name.eq_ignore_ascii_case("jwt");
    if let Some(name) = issuer.types.iter().find(is_loose).filter(|_| issuer.require.is_empty()) {
        let message = format!("`{name}` needs `require`: without it an ID token of the same issuer would pass");
        findings.add(at("types"), message);
    }
    for name in ["dpop+jwt", "logout+jwt", "id_token+jwt", "secevent+jwt", "oauth-id-jag+jwt"] {
        if issuer.types.iter().any(|accepted| accepted.eq_ignore_ascii_case(name)) {
            findings.add(at("types"), format!("`{name}` is no access token"));
        }
    }
    for (claim, value) in &issuer.require {
        let is_scalar = !matches!(
            value,
            Required::Present(false)
                | Required::Equal(serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_))
        );
        if !is_scalar {
            findings.add(at(&format!("require.{claim}")), "true, or the string or number that the claim must equal");
        }
    }
}

fn check_lists(issuer: &Issuer, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    let lists = [
        ("audiences", issuer.audiences.as_ref()),
        ("scope_claims", Some(&issuer.scope_claims)),
        ("client_claims", Some(&issuer.client_claims)),
        ("asserts_scopes", issuer.asserts_scopes.as_ref()),
        ("subjects", issuer.subjects.as_ref()),
    ];
    for (key, list) in lists {
        let is_empty = list.is_some_and(|list| list.is_empty() || list.iter().any(String::is_empty));
        findings.refuse_empty(at(key), is_empty);
    }
    findings.refuse_empty(at("denied_subjects"), issuer.denied_subjects.iter().any(String::is_empty));
}
