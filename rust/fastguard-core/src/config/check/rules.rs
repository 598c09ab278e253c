//! `[tools]`, `[prompts]`, `[resources]`, `[methods]` and `[scopes]`

use std::collections::{BTreeMap, BTreeSet};

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
}

/// RFC 6749 §3.3: visible ASCII without `"` and `\`.
fn check_scope(scope: &str, key: &str, findings: &mut Findings) {
    let is_token =
        !scope.is_empty() && scope.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
    if !is_token {
        findings.add(key, format!("`{}` is no scope (RFC 6749 section 3.3)", scope.escape_default()));
    }
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
