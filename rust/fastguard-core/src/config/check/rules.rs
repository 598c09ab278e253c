//! `[tools]`, `[prompts]`, `[resources]`, `[methods]` and `[scopes]`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Findings;
use crate::config::error::Warning;
use crate::config::glob::Glob;
use crate::config::schema::{Config, Rule, Tier};

fn tables(config: &Config) -> [(&'static str, &BTreeMap<String, Rule>); 4] {
    [
        ("tools", &config.tools),
        ("prompts", &config.prompts),
        ("resources", &config.resources),
        ("methods", &config.methods),
    ]
}

/// Every rule with its table and name.
pub(super) fn all(config: &Config) -> impl Iterator<Item = (&'static str, &str, &Rule)> {
    tables(config).into_iter().flat_map(|(table, rules)| rules.iter().map(move |(name, rule)| (table, &**name, rule)))
}

pub(super) fn check(config: &Config, findings: &mut Findings) {
    for (table, rules) in tables(config) {
        for (name, rule) in rules {
            let key = format!("{table}.\"{name}\"");
            if name.is_empty() {
                findings.add(&key, "a rule needs a name");
            }
            check_rule(rule, &key, findings);
        }
        check_ties(table, rules, findings);
    }
    for (name, scope) in &config.scopes {
        let key = format!("scopes.\"{name}\".implies");
        findings.refuse_empty(&key, scope.implies.is_empty());
        for implied in scope.implies.iter().chain([name]) {
            check_scope(implied, &key, findings);
        }
        if implies_itself(config, name) {
            findings.add(key, format!("`{name}` implies itself"));
        }
    }
}

pub(super) fn check_rule(rule: &Rule, key: &str, findings: &mut Findings) {
    let has_scopes = rule.scopes.is_some() || rule.any_scopes.is_some();
    match (has_scopes, rule.open) {
        (true, true) => findings.add(key, "`open = true` contradicts the scopes beside it"),
        (false, false) if rule.tier != Tier::Block => {
            findings.add(key, "says nothing of who may: `scopes`, `any_scopes` or `open = true` is needed");
        }
        _ => {}
    }
    for (name, list) in [("scopes", &rule.scopes), ("any_scopes", &rule.any_scopes)] {
        let Some(list) = list else { continue };
        findings.refuse_empty(format!("{key}.{name}"), list.is_empty());
        for scope in list {
            check_scope(scope, &format!("{key}.{name}"), findings);
        }
    }
    check_freshness(rule, key, findings);
}

/// What a rule demands of when and how somebody was authenticated.
fn check_freshness(rule: &Rule, key: &str, findings: &mut Findings) {
    if let Some(values) = &rule.acr_values {
        findings.refuse_empty(format!("{key}.acr_values"), values.is_empty());
        // RFC 9470 section 3: the challenge separates them by spaces, so that none may hold one.
        for value in values.iter().filter(|value| !is_token(value)) {
            let message = format!("`{}` is no value of `acr` that a challenge can hold", value.escape_default());
            findings.add(format!("{key}.acr_values"), message);
        }
    }
    for (name, age) in [("max_age", rule.max_age), ("max_token_age", rule.max_token_age)] {
        // RFC 9470 section 3: `max_age` counts whole seconds.
        let is_usable = |age: Duration| age >= Duration::from_secs(1) && age <= LONGEST_AGE && age.subsec_nanos() == 0;
        if age.is_some_and(|age| !is_usable(age.get())) {
            findings.add(format!("{key}.{name}"), "whole seconds, between 1s and 31d");
        }
    }
}

/// A longer age is hardly a demand.
const LONGEST_AGE: Duration = Duration::from_secs(31 * 86_400);

/// RFC 6749 §3.3: visible ASCII without `"` and `\`.
fn check_scope(scope: &str, key: &str, findings: &mut Findings) {
    if !is_token(scope) {
        findings.add(key, format!("`{}` is no scope (RFC 6749 section 3.3)", scope.escape_default()));
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')
}

/// Two patterns that say equally much about one name leave open which rule holds.
fn check_ties(table: &str, rules: &BTreeMap<String, Rule>, findings: &mut Findings) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in rules.keys().filter(|name| name.contains('*')) {
        let prefix = Glob::new(name).literal_prefix().to_owned();
        if let Some(other) = seen.insert(prefix, name) {
            findings.add(
                format!("{table}.\"{name}\""),
                format!("says as much as `{other}`: it is not decided which one holds"),
            );
        }
    }
}

fn implies_itself(config: &Config, start: &str) -> bool {
    let mut open = vec![start];
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        for implied in config.scopes.get(name).into_iter().flat_map(|scope| &scope.implies) {
            if implied == start {
                return true;
            }
            if seen.insert(implied) {
                open.push(implied);
            }
        }
    }
    false
}

/// Scopes that say so much, or so little, that they are granted to everyone.
pub(super) fn warnings(config: &Config) -> Vec<Warning> {
    const TOO_BROAD: [&str; 6] = ["admin", "api", "full-access", "full_access", "all", "*"];
    let mut warnings = Vec::new();
    for (table, rules) in tables(config) {
        for (name, rule) in rules {
            for scope in rule.scopes().iter().chain(rule.any_scopes()) {
                let is_broad = TOO_BROAD.iter().any(|broad| scope.eq_ignore_ascii_case(broad));
                let says_no_action = !scope.contains([':', '.', '/', '_', '-']);
                if is_broad || says_no_action {
                    let message = format!("the scope `{scope}` says too little: prefer `resource:action`");
                    warnings.push(Warning { key: format!("{table}.\"{name}\""), message });
                }
            }
        }
    }
    if config.tools.is_empty() {
        let message = "no tool has a rule: every call of a tool will be refused".to_owned();
        warnings.push(Warning { key: "tools".to_owned(), message });
    }
    warnings
}
