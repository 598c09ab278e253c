//! `[[audit.ship]]`

use std::collections::BTreeSet;
use std::time::Duration;

use super::Findings;
use super::url::Url;
use crate::config::schema::Config;
use crate::config::ship::{ObjectLock, Ship, Sink};

/// The shortest lock: S3 takes shorter ones, which prove nothing.
const SHORTEST_RETENTION: Duration = Duration::from_secs(86_400);

pub(super) fn check(config: &Config, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, ship) in config.audit.ship.iter().enumerate() {
        let at = |key: &str| format!("audit.ship[{index}].{key}");
        let name = ship.own_name();
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            findings.add(at("name"), "1 to 64 lower-case letters, digits, `-` and `_`");
        }
        if !seen.insert(name) {
            findings.add(at("name"), format!("`{name}` names another one already: each has a cursor of its own"));
        }
        check_belonging(ship, &at, findings);
        check_place(ship, &at, findings);
        check_lock(ship, &at, findings);
        for (key, file) in ship.files() {
            findings.refuse_empty(at(key), file.is_empty());
        }
        if ship.client_key.is_some() && ship.client_certificate.is_none() {
            findings.add(at("client_key"), "only with `client_certificate`");
        }
    }
}

/// A key of another sink says something that nobody would do.
fn check_belonging(ship: &Ship, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    use Sink::{File, Otlp, S3, Syslog};
    let keys: [(&str, bool, &[Sink]); 12] = [
        ("url", ship.url.is_some(), &[Otlp, Syslog, S3]),
        ("allow_http_loopback", ship.allow_http_loopback, &[Otlp, S3]),
        ("ca_file", ship.ca_file.is_some(), &[Otlp, Syslog, S3]),
        ("client_certificate", ship.client_certificate.is_some(), &[Otlp, Syslog]),
        ("client_key", ship.client_key.is_some(), &[Otlp, Syslog]),
        ("bearer_file", ship.bearer_file.is_some(), &[Otlp]),
        ("path", ship.path.is_some(), &[File]),
        ("bucket", ship.bucket.is_some(), &[S3]),
        ("prefix", ship.prefix.is_some(), &[S3]),
        ("region", ship.region.is_some(), &[S3]),
        ("object_lock", ship.object_lock.is_some(), &[S3]),
        ("retention", ship.retention.is_some(), &[S3]),
    ];
    for (key, _, sinks) in keys.into_iter().filter(|(_, is_given, sinks)| *is_given && !sinks.contains(&ship.sink)) {
        let names: Vec<_> = sinks.iter().map(|sink| format!("`{}`", sink.name())).collect();
        findings.add(at(key), format!("belongs to sink {}, not to `{}`", names.join(", "), ship.sink.name()));
    }
}

fn check_place(ship: &Ship, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    let is_missing = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    match ship.sink {
        Sink::Otlp if ship.url.is_none() => findings.add(at("url"), "needed: where the collector takes logs"),
        Sink::Otlp => check_url(ship, at, findings),
        Sink::Syslog => {
            let is_host = |text: &str| {
                // The parser of URLs knows two schemes; what follows is the same.
                let host = text.strip_prefix("tls://").map(|rest| format!("https://{rest}"));
                host.as_deref().and_then(Url::parse).is_some_and(|url| url.path == "/" && !url.has_extras)
            };
            if !ship.url.as_deref().is_some_and(is_host) {
                findings.add(at("url"), "needed: `tls://host:6514`; there is no syslog without TLS");
            }
        }
        Sink::S3 => {
            if is_missing(&ship.bucket) {
                findings.add(at("bucket"), "needed: the bucket's name");
            }
            if ship.url.is_some() {
                check_url(ship, at, findings);
            }
            let is_object = |text: &String| !text.starts_with('/') && text.len() <= 512 && text.is_ascii();
            if ship.prefix.as_ref().is_some_and(|prefix| !is_object(prefix)) {
                findings.add(at("prefix"), "at most 512 bytes of ASCII that do not begin with `/`");
            }
        }
        Sink::File if is_missing(&ship.path) => findings.add(at("path"), "needed: the folder that is written into"),
        Sink::File => {}
    }
}

fn check_url(ship: &Ship, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    match ship.url.as_deref().and_then(Url::parse) {
        None => findings.add(at("url"), "not an absolute URL"),
        Some(url) if url.has_extras => findings.add(at("url"), "must have no user, query or fragment"),
        Some(url) if url.scheme == "http" && !(ship.allow_http_loopback && url.is_loopback()) => {
            findings.add(at("url"), "must be https; http only on loopback and with `allow_http_loopback = true`");
        }
        Some(_) => {}
    }
}

fn check_lock(ship: &Ship, at: &impl Fn(&str) -> String, findings: &mut Findings) {
    if ship.sink != Sink::S3 {
        return;
    }
    let is_locked = ship.object_lock.unwrap_or_default() != ObjectLock::Off;
    match ship.retention {
        None if is_locked => {
            findings.add(at("retention"), "needed: for how long objects are locked; or set `object_lock = \"off\"`");
        }
        Some(_) if !is_locked => findings.add(at("retention"), "contradicts `object_lock = \"off\"`"),
        Some(span) if span.get() < SHORTEST_RETENTION => findings.add(at("retention"), "at least 1d"),
        _ => {}
    }
}
