//! `[limits]`

use std::collections::BTreeSet;
use std::time::Duration;

use super::Findings;
use crate::config::limits::{LimitRule, Measure, Per};
use crate::config::schema::Config;
use crate::config::values::Required;
use crate::limits::{LONGEST_WINDOW, MAX_RULES, MAX_WINDOWS, SHORTEST_WINDOW};

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let rules = &config.limits.rules;
    findings.refuse_empty("limits.rules", rules.is_empty());
    if rules.len() > MAX_RULES {
        findings.add("limits.rules", format!("at most {MAX_RULES} rules"));
    }
    if rules.len() <= MAX_RULES && most_windows(rules) > MAX_WINDOWS {
        findings.add("limits.rules", format!("at most {MAX_WINDOWS} quotas may count one call"));
    }
    if config.limits.max_keys == 0 {
        findings.add("limits.max_keys", "a table of no windows admits nothing");
    }
    let failed = config.limits.failed_authentications;
    let has_window = (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&failed.window());
    if !(1..=1_000_000).contains(&failed.count()) || !has_window {
        findings.add("limits.failed_authentications", "between 1 and 1000000, in 1s to 24h");
    }
    let mut names = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        check_words(index, rule, findings);
        check_measure(index, rule, rules, findings);
        check_quotas(index, rule, rules, findings);
        if !names.insert(rule.name()) {
            findings.add(at(index, "name"), format!("`{}` stands here twice", rule.name()));
        }
        if rule.claim.values().any(|required| *required == Required::Present(false)) {
            findings.add(at(index, "claim"), "`false` says nothing: write `true` or the value");
        }
    }
    check_classes(config, findings);
}

fn at(index: usize, key: &str) -> String {
    format!("limits.rules[{index}].{key}")
}

/// Of the rules that name the same thing, only those that fit the same callers count together.
fn most_windows(rules: &[LimitRule]) -> usize {
    let things: BTreeSet<_> = rules.iter().map(LimitRule::counted).collect();
    let most = |thing| {
        let of_thing = rules.iter().filter(|rule| rule.counted() == thing);
        let together = |rule: &LimitRule| -> usize {
            rules.iter().filter(|other| other.fits_same_as(rule)).map(|other| other.quota.len()).sum()
        };
        of_thing.map(together).max().unwrap_or(0)
    };
    things.into_iter().map(most).sum()
}

fn check_words(index: usize, rule: &LimitRule, findings: &mut Findings) {
    findings.refuse_empty(at(index, "per"), rule.per.is_empty());
    let distinct: BTreeSet<Per> = rule.per.iter().copied().collect();
    if distinct.len() != rule.per.len() {
        findings.add(at(index, "per"), "names the same thing twice");
    }
    if rule.per.len() > 1 && distinct.contains(&Per::Everyone) {
        findings.add(at(index, "per"), "`everyone` has one window for all and cannot be divided");
    }
    let is_call = rule.method.as_deref().is_none_or(|method| method == "tools/call");
    if !is_call && (rule.tool.is_some() || distinct.contains(&Per::Tool) || distinct.contains(&Per::Class)) {
        findings.add(at(index, "method"), "only `tools/call` names a tool");
    }
}

fn check_measure(index: usize, rule: &LimitRule, rules: &[LimitRule], findings: &mut Findings) {
    match (rule.quota.is_empty(), rule.concurrent) {
        (true, None) => findings.add(at(index, "quota"), "needed, or `concurrent`"),
        (false, Some(_)) => findings.add(at(index, "concurrent"), "stands beside `quota`: write two rules"),
        _ => {}
    }
    if rule.concurrent.is_some() && rule.meter.is_some() {
        findings.add(at(index, "meter"), "says what a `quota` counts, and there is none");
    }
    if rule.measure() != Measure::Calls && rule.method.is_some() {
        findings.add(at(index, "method"), "`concurrent` and `meter` are of calls of tools alone");
    }
    let is_twin = |other: &&LimitRule| rule.measure() == Measure::Running && other.fits_same_as(rule);
    if let Some(other) = rules.iter().take(index).find(is_twin) {
        let message = format!("differs from `{}` in nothing but the count; keep the smaller", other.name());
        findings.add(at(index, "concurrent"), message);
    }
}

fn check_quotas(index: usize, rule: &LimitRule, rules: &[LimitRule], findings: &mut Findings) {
    for (place, quota) in rule.quota.iter().enumerate() {
        if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&quota.window()) {
            findings.add(at(index, "quota"), "the window must last between 1ms and 31d");
        }
        if quota.count() > u64::from(u32::MAX) {
            findings.add(at(index, "quota"), "at most 4294967295");
        }
        let lasts_as_long = |other: &LimitRule| other.quota.iter().any(|other| other.window() == quota.window());
        if rule.quota.iter().take(place).any(|other| other.window() == quota.window()) {
            findings.add(at(index, "quota"), "two quotas for one window; keep the smaller");
        }
        // They would share one window, which each call would be charged to twice.
        let other = rules.iter().take(index).find(|other| other.fits_same_as(rule) && lasts_as_long(other));
        if let Some(other) = other {
            findings.add(
                at(index, "quota"),
                format!("differs from `{}` in nothing but the count; keep the smaller", other.name()),
            );
        }
    }
}

fn check_classes(config: &Config, findings: &mut Findings) {
    let has_classes = config.tools.values().any(|rule| rule.class.is_some());
    let counts_class = config.limits.rules.iter().position(|rule| rule.per.contains(&Per::Class));
    if let Some(index) = counts_class.filter(|_| !has_classes) {
        findings.add(at(index, "per"), "no tool has a `class`");
    }
    for (table, rules) in [("prompts", &config.prompts), ("resources", &config.resources), ("methods", &config.methods)]
    {
        for (name, _) in rules.iter().filter(|(_, rule)| rule.class.is_some()) {
            findings.add(format!("{table}.\"{name}\".class"), "only tools have classes");
        }
        for (name, _) in rules.iter().filter(|(_, rule)| rule.cost.is_some()) {
            findings.add(format!("{table}.\"{name}\".cost"), "only tools have costs");
        }
        for (name, _) in rules.iter().filter(|(_, rule)| rule.read_only.is_some()) {
            findings.add(format!("{table}.\"{name}\".read_only"), "only tools write");
        }
    }
}
