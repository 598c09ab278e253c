//! `[signatures]` and the rules that name it

use std::collections::BTreeSet;
use std::time::Duration;

use super::Findings;
use crate::bounds::{MAX_PROOF_AGE, MAX_SIGNATURE_COMPONENTS};
use crate::config::error::Problem;
use crate::config::schema::Config;
use crate::config::signatures::{SignatureMode, Signatures, SigningClient};

/// Asymmetric: whoever could verify by a shared secret could sign as well.
const ALGORITHMS: [&str; 5] =
    ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519", "rsa-pss-sha512", "rsa-v1_5-sha256"];

/// The derived components of requests (RFC 9421 section 2.2) that need no parameter.
const DERIVED: [&str; 7] = ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"];

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let table = &config.signatures;
    check_table(table, findings);
    let mut seen = BTreeSet::new();
    for (index, client) in table.clients.iter().enumerate() {
        check_client(config, client, &format!("signatures.clients[{index}]"), findings);
        if !seen.insert((&client.issuer, &client.client_id)) {
            findings
                .add(format!("signatures.clients[{index}].client_id"), "stands here twice: give it one set of keys");
        }
    }
    if table.mode == SignatureMode::Required && config.stdio.is_some() {
        findings.add("signatures.mode", "`required` contradicts [stdio]: no signature can come over standard input");
    }
    if table.mode == SignatureMode::Off {
        if !table.clients.is_empty() {
            findings.add("signatures.clients", "contradicts `signatures.mode = \"off\"`");
        }
        for (table, name, _) in super::rules::all(config).filter(|(_, _, rule)| rule.signed) {
            findings.add(format!("{table}.\"{name}\".signed"), "contradicts `signatures.mode = \"off\"`");
        }
    }
}

fn check_table(table: &Signatures, findings: &mut Findings) {
    findings.refuse_empty("signatures.algorithms", table.algorithms.is_empty());
    for name in table.algorithms.iter().filter(|name| !ALGORITHMS.contains(&name.as_str())) {
        let problem = Problem::new("signatures.algorithms", format!("`{name}` is no algorithm of signed requests"));
        findings.push(problem.nearest(name, ALGORITHMS));
    }
    findings.refuse_empty("signatures.components", table.components.is_empty());
    if table.components.len() > MAX_SIGNATURE_COMPONENTS {
        findings.add("signatures.components", format!("at most {MAX_SIGNATURE_COMPONENTS}"));
    }
    for name in &table.components {
        let is_field = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
        if !is_field && !DERIVED.contains(&name.as_str()) {
            let message = format!("`{}` is no field in lower case, nor a component of requests", name.escape_default());
            findings.push(Problem::new("signatures.components", message).nearest(name, DERIVED));
        }
    }
    if !(Duration::from_secs(1)..=MAX_PROOF_AGE).contains(&table.max_age.get()) {
        findings.add("signatures.max_age", "between 1s and 5m");
    }
    findings.refuse_empty("signatures.tag", table.tag.as_ref().is_some_and(String::is_empty));
}

fn check_client(config: &Config, client: &SigningClient, key: &str, findings: &mut Findings) {
    findings.refuse_empty(format!("{key}.client_id"), client.client_id.is_empty());
    match (&client.jwks, &client.jwks_file) {
        (Some(_), Some(_)) => findings.add(format!("{key}.jwks"), "only one of `jwks` and `jwks_file`"),
        (None, Some(_)) => {}
        _ => {
            if let Err(message) = client.keys() {
                findings.add(format!("{key}.jwks"), message);
            }
        }
    }
    super::check_issuer_of_client(config, client.issuer.as_deref(), key, findings);
}
