//! What a type cannot say: impossible values and contradictions. All that are found are reported at once.

mod admin;
mod certificates;
mod dpop;
mod issuers;
mod limits;
mod rules;
mod ship;
mod signatures;
mod state;
mod url;

use super::dpop::Dpop;
use super::error::{ConfigError, Problem, Warning};
use super::schema::{Config, Durability, OnAuditFailure, Rule};
use std::time::Duration;

pub(crate) use url::split_url;

/// The problems found so far.
#[derive(Default)]
pub(super) struct Findings(Vec<Problem>);

impl Findings {
    fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(key, message));
    }

    fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Empty lists say nothing, or something that was not meant.
    fn refuse_empty(&mut self, key: impl Into<String>, is_empty: bool) {
        if is_empty {
            self.add(key, "must not be empty");
        }
    }

    fn into_result(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError::new(self.0)) }
    }
}

/// Checks the whole configuration.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let mut findings = Findings::default();
    if config.version != 1 {
        findings.add("version", format!("this version of mcp-fastguard reads version 1, not {}", config.version));
    }
    check_resource(config, &mut findings);
    issuers::check(config, &mut findings);
    rules::check(config, &mut findings);
    limits::check(config, &mut findings);
    state::check(config, &mut findings);
    check_audit(config, &mut findings);
    ship::check(config, &mut findings);
    if config.tokens.leeway.get() > Duration::from_secs(300) {
        findings.add("tokens.leeway", "at most 5m: more is no tolerance for clocks");
    }
    dpop::check(config, &mut findings);
    certificates::check(config, &mut findings);
    signatures::check(config, &mut findings);
    check_stdio(config, &mut findings);
    admin::check(config, &mut findings);
    if let Some(observe) = &config.observe {
        findings.refuse_empty("observe.rooms", observe.rooms.is_empty());
    }
    findings.into_result()
}

/// Checks `[dpop]` by itself.
pub(super) fn check_dpop(dpop: &Dpop) -> Result<(), ConfigError> {
    let mut findings = Findings::default();
    dpop::check_table(dpop, &mut findings);
    findings.into_result()
}

/// Checks one rule by itself.
pub(super) fn check_rule(rule: &Rule, key: &str) -> Result<(), ConfigError> {
    let mut findings = Findings::default();
    rules::check_rule(rule, key, &mut findings);
    findings.into_result()
}

/// A client is known by its issuer and its id: where there is one issuer, that one is meant.
fn check_issuer_of_client(config: &Config, issuer: Option<&str>, key: &str, findings: &mut Findings) {
    let key = format!("{key}.issuer");
    match issuer {
        None if config.issuers.len() != 1 => findings.add(key, "needed: there is not one issuer"),
        Some(named) if !config.issuers.is_empty() && !config.issuers.iter().any(|issuer| issuer.issuer == named) => {
            let known = config.issuers.iter().map(|issuer| issuer.issuer.as_str());
            findings.push(Problem::new(key, format!("`{named}` is none of the issuers")).nearest(named, known));
        }
        _ => {}
    }
}

fn check_resource(config: &Config, findings: &mut Findings) {
    let parsed = url::Url::parse(&config.resource.url);
    match &parsed {
        None => findings.add("resource.url", "not an absolute URL"),
        Some(parsed) => {
            if parsed.scheme == "http" && !parsed.is_loopback() {
                findings.add("resource.url", "must be https; http only on loopback");
            }
            if parsed.has_extras {
                findings.add("resource.url", "must have no user, query or fragment (RFC 8707 section 2)");
            }
            if parsed.host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                findings.add("resource.url", "write the host in lower case: audiences are compared letter by letter");
            }
            if !url::is_plain_path(parsed.path) {
                findings.add("resource.url", "the path must be plain: no `..`, `//`, `%` or `*`");
            }
        }
    }
    for (index, path) in config.resource.public.iter().enumerate() {
        let key = format!("resource.public[{index}]");
        if !path.starts_with('/') || !url::is_plain_path(path) {
            findings
                .add(&key, format!("`{path}` is no plain path: it starts with `/` and has no `..`, `//`, `%` or `*`"));
        }
        if parsed.as_ref().is_some_and(|parsed| parsed.path == path) {
            findings.add(key, "the guarded path cannot be public");
        }
    }
}

fn check_audit(config: &Config, findings: &mut Findings) {
    let audit = &config.audit;
    findings.refuse_empty("audit.path", audit.path.is_empty());
    if audit.max_file_bytes < 64 * 1024 {
        findings.add("audit.max_file_bytes", "at least 65536");
    }
    if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&audit.flush_interval.get()) {
        findings.add("audit.flush_interval", "between 1ms and 10s");
    }
    if audit.checkpoint_records == 0 {
        findings.add("audit.checkpoint_records", "at least 1");
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&audit.checkpoint_interval.get()) {
        findings.add("audit.checkpoint_interval", "between 1s and 1d");
    }
    findings.refuse_empty("audit.pseudonyms_path", audit.pseudonyms_path.as_ref().is_some_and(String::is_empty));
    if audit.pseudonyms_path.is_some() && !audit.pseudonyms {
        findings.add("audit.pseudonyms_path", "only beside `pseudonyms = true`");
    }
    if !crate::audit::is_name(&audit.origin) {
        findings.add("audit.origin", "a name without spaces and `+`");
    }
}

fn check_stdio(config: &Config, findings: &mut Findings) {
    let Some(stdio) = &config.stdio else { return };
    let sources = [
        stdio.token_file.is_some(),
        stdio.token_variable.is_some(),
        stdio.token_command.is_some(),
        stdio.principal.is_some(),
    ];
    if sources.into_iter().filter(|is_given| *is_given).count() != 1 {
        findings.add("stdio", "one of `token_file`, `token_variable`, `token_command` and `principal` is needed");
    }
    let is_empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
    findings.refuse_empty("stdio.token_file", is_empty(&stdio.token_file));
    findings.refuse_empty("stdio.principal", is_empty(&stdio.principal));
    let has_no_word = |words: &Vec<String>| words.first().is_none_or(String::is_empty);
    findings.refuse_empty("stdio.token_command", stdio.token_command.as_ref().is_some_and(has_no_word));
    if stdio.token_variable.as_ref().is_some_and(|name| !name.starts_with("FASTGUARD_")) {
        findings.add("stdio.token_variable", "must begin with `FASTGUARD_`");
    }
    if stdio.principal.is_none() && !stdio.scopes.is_empty() {
        findings.add("stdio.scopes", "only beside `principal`: a token brings its own");
    }
}

/// What is allowed and probably not meant.
pub(super) fn warnings(config: &Config) -> Vec<Warning> {
    let mut warnings = rules::warnings(config);
    warnings.extend(dpop::warnings(config));
    state::warn(config, &mut warnings);
    if !config.audit.enabled {
        let message = "no record is kept: nobody will be able to say who called what".to_owned();
        warnings.push(Warning { key: "audit.enabled".to_owned(), message });
    }
    if config.audit.enabled && config.audit.on_failure == OnAuditFailure::ContinueAndCount {
        let message = "calls run without a record while the log cannot be written".to_owned();
        warnings.push(Warning { key: "audit.on_failure".to_owned(), message });
    }
    if config.audit.enabled && !config.audit.intent && config.audit.durability == Durability::Batched {
        let message =
            "the record of a call that has changed something can be lost when the process is killed".to_owned();
        warnings.push(Warning { key: "audit.intent".to_owned(), message });
    }
    if config.issuers.is_empty() {
        let message = "no issuer: every call will be refused".to_owned();
        warnings.push(Warning { key: "issuers".to_owned(), message });
    }
    warnings
}
