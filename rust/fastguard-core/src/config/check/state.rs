//! `[state]` and what needs it

use std::time::Duration;

use super::Findings;
use crate::config::dpop::ReplayStore;
use crate::config::error::Warning;
use crate::config::limits::{LimitMode, Measure};
use crate::config::schema::Config;
use crate::config::state::State;

/// More processes than this share no server.
const MOST_PROCESSES: u32 = 100_000;

pub(super) fn check(config: &Config, findings: &mut Findings) {
    check_revocations(config, findings);
    let Some(state) = &config.state else {
        if config.limits.mode.is_some_and(LimitMode::is_shared) {
            findings.add("limits.mode", "windows are shared by a server that `[state]` names");
        }
        if config.dpop.replays == Some(ReplayStore::Shared) {
            findings.add("dpop.replays", "proofs are remembered together by a server that `[state]` names");
        }
        if config.limits.degrade.is_some() {
            findings.add("limits.degrade", "speaks of the server of `[state]`, which is not there");
        }
        return;
    };
    check_url(state, findings);
    if !(1..=MOST_PROCESSES).contains(&state.processes) {
        findings.add("state.processes", format!("between 1 and {MOST_PROCESSES}"));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if state.prefix.is_empty() || state.prefix.len() > 64 || !state.prefix.bytes().all(is_plain) {
        findings.add("state.prefix", "1 to 64 letters, digits, `-`, `_`, `.` and `:`");
    }
    if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&state.budget.get()) {
        findings.add("state.budget", "between 1ms and 1s: every call may wait for so long");
    }
    for (key, file) in state.files() {
        findings.refuse_empty(format!("state.{key}"), file.is_empty());
    }
    findings.refuse_empty("state.secret_file", state.secret_file.as_deref() == Some(""));
    findings.refuse_empty("state.user", state.user.as_deref() == Some(""));
    let tls = [("ca_file", &state.ca_file), ("client_certificate", &state.client_certificate)];
    let is_secure = state.url.starts_with("rediss://") || state.url.starts_with("rediss+");
    for (key, _) in tls.into_iter().filter(|(_, file)| file.is_some() && !is_secure) {
        findings.add(format!("state.{key}"), "only with a `rediss://` URL");
    }
    if state.client_key.is_some() && state.client_certificate.is_none() {
        findings.add("state.client_key", "only with `client_certificate`");
    }
}

fn check_revocations(config: &Config, findings: &mut Findings) {
    let Some(table) = &config.revocations else { return };
    findings.refuse_empty("revocations.file", table.file.as_deref() == Some(""));
    if table.file.is_none() && !table.shared {
        findings.add("revocations", "names neither `file` nor `shared`: a guard without the table learns as much");
    }
    if table.shared && config.state.is_none() {
        findings.add("revocations.shared", "processes tell each other by a server that `[state]` names");
    }
    if !(Duration::from_secs(2)..=Duration::from_secs(86_400)).contains(&table.max_staleness.get()) {
        findings.add("revocations.max_staleness", "between 2s and 24h");
    }
}

fn check_url(state: &State, findings: &mut Findings) {
    let Some((scheme, rest)) = state.url.split_once("://") else {
        findings.add("state.url", "`rediss://host:port/0`, `redis://…` or `unix:///path`");
        return;
    };
    let server = scheme.strip_suffix("+sentinel").or_else(|| scheme.strip_suffix("+cluster")).unwrap_or(scheme);
    if !matches!(server, "rediss" | "redis") && scheme != "unix" {
        let message = format!(
            "`{scheme}` is none of `rediss`, `redis`, `unix`, and `rediss` or `redis` with `+sentinel` or `+cluster`"
        );
        findings.add("state.url", message);
    }
    if scheme.ends_with("+cluster") && !rest.split(',').all(has_port) {
        findings.add("state.url", "nodes of the cluster with their ports alone: `rediss+cluster://a:6379,b:6379`");
    }
    if scheme.ends_with("+sentinel") && !names_sentinels(rest) {
        let message = "sentinels with their ports, and the master's name: `rediss+sentinel://a:26379,b:26379/NAME`";
        findings.add("state.url", message);
    }
    if rest.is_empty() || !rest.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        findings.add("state.url", "names no host");
    }
    // A client of Redis takes options from the query, among them those that switch checks off.
    if rest.contains(['@', '?', '#']) {
        findings
            .add("state.url", "no user, password, query or fragment: `user` and `password_file` have their own keys");
    }
}

fn has_port(place: &str) -> bool {
    place
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether it is `host:port,host:port/NAME`, and perhaps a number of a database.
fn names_sentinels(rest: &str) -> bool {
    let mut parts = rest.split('/');
    let (places, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_database = |text: &str| text.parse::<u32>().is_ok();
    places.split(',').all(has_port)
        && !name.is_empty()
        && parts.next().is_none_or(is_database)
        && parts.next().is_none()
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<Warning>) {
    let Some(state) = &config.state else { return };
    let is_leased = config.limit_mode() == LimitMode::Leased;
    let owing = config.limits.rules.iter().enumerate().filter(|(_, rule)| rule.measure() != Measure::Calls);
    warnings.extend(owing.filter(|_| is_leased).map(|(index, _)| {
        let message = "has no leases: each call that it counts asks the server, as in mode `exact`".to_owned();
        Warning { key: format!("limits.rules[{index}]"), message }
    }));
    let plain = ["redis://", "redis+sentinel://", "redis+cluster://"]
        .into_iter()
        .find_map(|scheme| state.url.strip_prefix(scheme));
    let host = plain.map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    if host.is_some_and(|host| !matches!(host, "localhost" | "127.0.0.1" | "[")) {
        let message = "without TLS: whoever is on the way can change what processes count".to_owned();
        warnings.push(Warning { key: "state.url".to_owned(), message });
    }
}
