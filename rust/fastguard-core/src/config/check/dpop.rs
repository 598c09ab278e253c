//! `[dpop]` and the rules that name it

use std::time::Duration;

use super::Findings;
use crate::bounds::MAX_PROOF_AGE;
use crate::config::certificates::CertificateSource;
use crate::config::dpop::{Dpop, DpopMode, NonceMode};
use crate::config::error::{Problem, Warning};
use crate::config::schema::Config;

/// Asymmetric, and with keys whose check costs no more than a token's. RSA only where it is named (D13).
const ALGORITHMS: [&str; 7] = ["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "RS256"];

/// Less would let a few callers fill the store: each may hold one part in 64.
const FEWEST_REPLAY_ENTRIES: usize = 1_024;
/// 4 GB at 40 bytes each.
const MOST_REPLAY_ENTRIES: usize = 100_000_000;

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let dpop = &config.dpop;
    if !(Duration::from_secs(1)..=MAX_PROOF_AGE).contains(&dpop.max_age.get()) {
        findings.add("dpop.max_age", "between 1s and 5m, the most that MCP allows");
    }
    check_table(dpop, findings);
    check_nonce(config, findings);
    if dpop.mode == DpopMode::Required && config.stdio.is_some() {
        findings.add("dpop.mode", "`required` contradicts [stdio]: no proof can come over standard input");
    }
    if dpop.mode == DpopMode::Off {
        for (table, name, _) in super::rules::all(config).filter(|(_, _, rule)| rule.binding.is_some()) {
            findings.add(format!("{table}.\"{name}\".binding"), "contradicts `dpop.mode = \"off\"`");
        }
    }
}

/// What a verifier without a configuration checks too.
pub(super) fn check_table(dpop: &Dpop, findings: &mut Findings) {
    findings.refuse_empty("dpop.algorithms", dpop.algorithms.is_empty());
    for name in dpop.algorithms.iter().filter(|name| !ALGORITHMS.contains(&name.as_str())) {
        let problem = Problem::new("dpop.algorithms", format!("`{name}` is no algorithm of proofs"));
        findings.push(problem.nearest(name, ALGORITHMS));
    }
    if !(FEWEST_REPLAY_ENTRIES..=MOST_REPLAY_ENTRIES).contains(&dpop.replay_entries) {
        findings.add("dpop.replay_entries", format!("between {FEWEST_REPLAY_ENTRIES} and {MOST_REPLAY_ENTRIES}"));
    }
}

fn check_nonce(config: &Config, findings: &mut Findings) {
    let dpop = &config.dpop;
    if let Some(file) = &dpop.nonce_secret_file {
        findings.refuse_empty("dpop.nonce_secret_file", file.is_empty());
        if dpop.nonce == NonceMode::Off {
            findings.add("dpop.nonce_secret_file", "contradicts `dpop.nonce = \"off\"`");
        }
    }
    if dpop.nonce == NonceMode::Required && dpop.mode == DpopMode::Off {
        findings.add("dpop.nonce", "contradicts `dpop.mode = \"off\"`");
    }
}

pub(super) fn warnings(config: &Config) -> Vec<Warning> {
    let mut warnings = nonce_warnings(config);
    let is_of_proxies = !matches!(config.certificates.source, CertificateSource::Off | CertificateSource::Tls);
    if is_of_proxies && config.proxies.addresses.is_empty() {
        let message = "no certificate will be believed: name the proxies in `proxies.addresses`".to_owned();
        warnings.push(Warning { key: "certificates.source".to_owned(), message });
    }
    warnings
}

fn nonce_warnings(config: &Config) -> Vec<Warning> {
    let dpop = &config.dpop;
    // With `[state]` they are made of its secret.
    let has_secret = dpop.nonce_secret_file.is_some() || dpop.nonce_secret.bytes().is_some() || config.state.is_some();
    if dpop.nonce == NonceMode::Off || has_secret {
        return Vec::new();
    }
    let message =
        "each process makes nonces of its own: where there are several, set `dpop.nonce_secret_file`".to_owned();
    vec![Warning { key: "dpop.nonce".to_owned(), message }]
}
