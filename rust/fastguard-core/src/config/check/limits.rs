//! `[limits]`

use std::collections::BTreeSet;

use super::Findings;
use crate::config::schema::{Config, LimitRule, Per};
use crate::limits::{LONGEST_WINDOW, MAX_RULES, SHORTEST_WINDOW};

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let rules = &config.limits.rules;
    findings.refuse_empty("limits.rules", rules.is_empty());
    if rules.len() > MAX_RULES {
        findings.add("limits.rules", format!("at most {MAX_RULES} rules"));
    }
    if config.limits.max_keys == 0 {
        findings.add("limits.max_keys", "a table of no windows admits nothing");
    }
    let mut names = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = |key: &str| format!("limits.rules[{index}].{key}");
        findings.refuse_empty(at("per"), rule.per.is_empty());
        let distinct: BTreeSet<Per> = rule.per.iter().copied().collect();
        if distinct.len() != rule.per.len() {
            findings.add(at("per"), "names the same thing twice");
        }
        if rule.per.len() > 1 && distinct.contains(&Per::Everyone) {
            findings.add(at("per"), "`everyone` has one window for all and cannot be divided");
        }
        if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&rule.quota.window()) {
            findings.add(at("quota"), "the window must last between 1ms and 31d");
        }
        if rule.quota.count() > u64::from(u32::MAX) {
            findings.add(at("quota"), "at most 4294967295");
        }
        if !names.insert(rule.name()) {
            findings.add(at("name"), format!("`{}` stands here twice", rule.name()));
        }
        // They would share one window, which each call would be charged to twice.
        let is_same = |other: &&LimitRule| {
            (&other.per, other.quota.window(), &other.tool, &other.method)
                == (&rule.per, rule.quota.window(), &rule.tool, &rule.method)
        };
        if let Some(other) = rules.iter().take(index).find(is_same) {
            findings.add(
                at("quota"),
                format!("differs from `{}` in nothing but the count; keep the smaller", other.name()),
            );
        }
        let is_call = rule.method.as_deref().is_none_or(|method| method == "tools/call");
        if !is_call && (rule.tool.is_some() || distinct.contains(&Per::Tool)) {
            findings.add(at("method"), "only `tools/call` names a tool");
        }
    }
}
