//! Writes each event as one line. The fields and their order are listed in `docs/rooms/audit.md`; none is renamed.

mod callers;

use std::io;

use super::inputs::Inputs;
use super::line::{Object, timestamp};
use super::pseudonyms::{Pseudonyms, Veil};
use super::record::{Check, Checks, Decision, Ending, Event, Notice, Outcome};
use crate::call::Caller;
use crate::clock::UnixTime;
use crate::denial::Room;
use callers::Callers;

/// Knows what stays the same in all lines of a log.
pub(super) struct Scribe {
    log: Box<str>,
    inputs: Inputs,
    pseudonyms: Option<Pseudonyms>,
    callers: Callers,
}

impl Scribe {
    pub(super) fn new(log: Box<str>, key: &[u8; 32]) -> Self {
        Self { log, inputs: Inputs::new(key), pseudonyms: None, callers: Callers::new() }
    }

    /// Hides subjects, if `pseudonyms` are there to do so.
    pub(super) fn with_pseudonyms(self, pseudonyms: Option<Pseudonyms>) -> Self {
        Self { pseudonyms, ..self }
    }

    /// Before lines of one commit are written.
    pub(super) fn begin(&mut self) {
        if let Some(pseudonyms) = &mut self.pseudonyms {
            pseudonyms.begin();
        }
    }

    /// Why the lines since [`Self::begin`] must not be written, if they must not.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.pseudonyms.as_mut().and_then(Pseudonyms::take_failure)
    }

    pub(super) fn log(&self) -> &str {
        &self.log
    }

    pub(super) fn key_name(&self) -> [u8; 16] {
        self.inputs.key_name()
    }

    /// Writes the members that stand after `seq`.
    pub(super) fn write(&mut self, event: &Event, object: &mut Object<'_>) {
        match event {
            Event::Decision(decision) => self.decision(decision, object),
            Event::Ending(ending) => self.ending(ending, object),
            Event::Notice(notice) => write_notice(notice, self.pseudonyms.as_mut(), object),
        }
    }

    fn decision(&mut self, decision: &Decision, object: &mut Object<'_>) {
        object.id("id", &self.log, decision.id);
        object.time("timestamp", decision.at);
        object.fixed(r#","event_type":"decision""#);
        write_target(decision.kind, decision.target.as_deref(), &decision.method, object);
        // Of a stranger it is not known whose session that is.
        let session = decision.session.as_deref().filter(|_| decision.caller.is_some() || self.pseudonyms.is_none());
        let veil = veil(self.pseudonyms.as_mut(), decision.caller.as_deref());
        match (&decision.caller, veil) {
            (None, _) => {}
            (Some(caller), Veil::None) => self.callers.write(caller, object),
            (Some(caller), veil) => {
                write_identity(caller, veil, object);
                write_grant(caller, veil, object);
            }
        }
        write_veiled("session", session, veil, object);
        if let Some(peer) = decision.peer {
            match veil {
                Veil::None => object.address("peer", peer),
                _ => write_veiled("peer", Some(&peer.to_string()), veil, object),
            }
        }
        object.text_if("request_id", decision.request_id.as_deref());
        if let Some(trace) = decision.trace {
            object.hex("trace_id", &trace.id);
            object.hex("parent_span_id", &trace.parent);
        }
        self.inputs.write(&decision.arguments, &decision.log_arguments, object);
        write_outcome(&decision.result, self.pseudonyms.is_some(), object);
        object.flag("enforced", decision.enforced);
        object.text_if("rule", decision.rule.as_deref());
        object.text("tier", decision.tier);
        write_checks(decision.checks, object);
        if let Some((rule, remaining)) = &decision.limit {
            let mut limit = object.object("limit");
            limit.text("rule", rule);
            limit.number("remaining", *remaining);
            limit.close();
        }
        object.text_if("limits_mode", decision.limits_mode);
        object.text("policy", &decision.policy);
        if let Some(elapsed) = decision.elapsed_nanos {
            object.thousandths("decided_in_us", elapsed);
        }
    }

    fn ending(&mut self, ending: &Ending, object: &mut Object<'_>) {
        object.id("decision", &self.log, ending.decision);
        object.time("timestamp", ending.at);
        object.fixed(r#","event_type":"ending""#);
        write_target(ending.kind, ending.target.as_deref(), &ending.method, object);
        let veil = veil(self.pseudonyms.as_mut(), ending.caller.as_deref());
        match (&ending.caller, veil) {
            (None, _) => {}
            (Some(caller), Veil::None) => self.callers.write_identity(caller, object),
            (Some(caller), veil) => write_identity(caller, veil, object),
        }
        write_veiled("session", ending.session.as_deref(), veil, object);
        object.text_if("request_id", ending.request_id.as_deref());
        if let Some(round) = ending.round.as_deref() {
            if let Some(first) = round.call {
                object.id("call", &self.log, first);
            }
            object.hex_if("continues", round.continues.as_ref().map(<[u8; 16]>::as_slice));
            object.hex_if("asks", round.asks.as_ref().map(<[u8; 16]>::as_slice));
        }
        object.text("status", &ending.status);
        object.text_if("error", ending.error.as_deref());
        object.thousandths("duration_ms", micros(ending.duration));
        if let Some(execution) = ending.execution {
            object.thousandths("execution_time_ms", micros(execution));
        }
        let mut summary = object.object("output_summary");
        summary.number_if("rows", ending.rows);
        summary.number_if("bytes", ending.bytes);
        summary.number_if("items", ending.items);
        summary.close();
        object.number_if("output_size_bytes", ending.bytes);
        if ending.summary_failed {
            object.flag("summary_failed", true);
        }
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn veil<'p>(pseudonyms: Option<&'p mut Pseudonyms>, caller: Option<&Caller>) -> Veil<'p> {
    pseudonyms.map_or(Veil::None, |pseudonyms| pseudonyms.of(caller))
}

fn write_veiled(name: &str, value: Option<&str>, veil: Veil<'_>, object: &mut Object<'_>) {
    if let Some(value) = value {
        object.text(name, &veil.over(name, value));
    }
}

fn write_notice(notice: &Notice, mut pseudonyms: Option<&mut Pseudonyms>, object: &mut Object<'_>) {
    object.time("timestamp", notice.at);
    object.text("event_type", notice.event_type);
    let field = |wanted: &str| notice.fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| &**value);
    for (name, value) in &notice.fields {
        let issuer = match *name {
            "admin_subject" => Some("admin_issuer"),
            // What is revoked of a person is hidden as that person is; of nobody in particular there is nothing to hide.
            "subject" | "session" | "token_id" if field("subject").is_some() => Some("issuer"),
            _ => None,
        };
        let subject = if *name == "admin_subject" { Some(&**value) } else { field("subject") };
        match (issuer, subject, pseudonyms.as_deref_mut()) {
            (Some(issuer), Some(subject), Some(pseudonyms)) => {
                let member = if *name == "admin_subject" { "subject" } else { *name };
                object.text(name, &pseudonyms.named(field(issuer), subject).over(member, value));
            }
            _ => object.text(name, value),
        }
    }
}

fn write_target(kind: &str, target: Option<&str>, method: &str, object: &mut Object<'_>) {
    object.text("kind", kind);
    object.text_if(if kind == "tool" { "tool_name" } else { "target" }, target);
    object.text("method", method);
}

fn write_identity(caller: &Caller, veil: Veil<'_>, object: &mut Object<'_>) {
    let mut identity = object.object("authenticated_identity");
    identity.text("issuer", caller.issuer());
    write_veiled("subject", caller.subject(), veil, &mut identity);
    identity.close();
    object.text_if("client_id", caller.client_id());
    // "Agent" is the actor if the token has one, else the client (decision 4 of the design).
    match caller.actor() {
        Some(actor) => write_veiled("agent_id", Some(actor), veil, object),
        None => object.text_if("agent_id", caller.client_id()),
    }
    object.text_if("organisation_id", caller.organisation());
}

fn write_grant(caller: &Caller, veil: Veil<'_>, object: &mut Object<'_>) {
    write_veiled("token_id", Some(caller.token_id()), veil, object);
    object.text_if("key_id", caller.key_id());
    object.texts("scopes", caller.scopes());
    object.texts("rbac_role", caller.roles());
    if let Some(issued_at) = caller.issued_at() {
        object.time("issued_at", issued_at);
    }
    object.time("expires_at", caller.expires_at());
}

/// `hides`: subjects are hidden.
fn write_outcome(outcome: &Outcome, hides: bool, object: &mut Object<'_>) {
    match outcome {
        Outcome::Allowed => object.fixed(r#","result":"allowed""#),
        Outcome::Denied { code, room, detail, config_key, missing } => {
            object.fixed(r#","result":"denied""#);
            object.text("code", code);
            object.word("room", room.name());
            // The one detail that names whom a token names; nobody has proved it yet.
            let names = hides && *code == "subject_refused";
            object.text("detail", if names { "the subject is none that this issuer may speak of" } else { detail });
            object.text_if("config_key", config_key.as_deref());
            if !missing.is_empty() {
                object.texts("missing_scopes", missing);
            }
        }
        Outcome::Faulted { code, detail } => {
            object.fixed(r#","result":"faulted""#);
            object.text("code", code);
            object.text("detail", detail);
        }
    }
}

fn write_checks(checks: Checks, object: &mut Object<'_>) {
    const fn name(check: Check) -> &'static str {
        match check {
            Check::NotReached => "not_reached",
            Check::Passed => "passed",
            Check::Refused => "refused",
        }
    }
    const ALL_PASSED: &str = concat!(
        r#","checks":{"request":"passed","token":"passed","binding":"passed","limits":"passed","#,
        r#""policy":"passed","approval":"not_reached"}"#
    );
    if checks == Checks::passed_through(Room::Policy) {
        return object.fixed(ALL_PASSED);
    }
    let mut members = object.object("checks");
    members.word("request", name(checks.request));
    members.word("token", name(checks.token));
    members.word("binding", name(checks.binding));
    members.word("limits", name(checks.limits));
    members.word("policy", name(checks.policy));
    members.word("approval", name(checks.approval));
    members.close();
}

/// Whether a folder is named as logs are; others in the same place are none of ours.
pub(super) fn is_log_name(name: &str) -> bool {
    let mut parts = name.split('-');
    let (Some(time), Some(process), Some(random), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_time = time.len() == 15
        && time.bytes().enumerate().all(|(at, byte)| (at == 8) == (byte == b'T') && byte.is_ascii_alphanumeric());
    is_time
        && process.parse::<u32>().is_ok()
        && random.len() == 4
        && random.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// When a log was opened, by its name, as timestamps are written.
pub(super) fn opened_at(name: &str) -> Option<String> {
    if !is_log_name(name) {
        return None;
    }
    let part = |from: usize, to: usize| name.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(9, 11)?, part(11, 13)?, part(13, 15)?);
    Some(format!("{year}-{month}-{day}T{hour}:{minute}:{second}.000Z"))
}

/// The name of a log: when it was opened, by which process, and random digits.
pub(super) fn log_name(opened_at: UnixTime, process: u32, random: [u8; 2]) -> String {
    let mut time = Vec::new();
    timestamp(opened_at, &mut time);
    let time: String = time
        .into_iter()
        .map(char::from)
        .take_while(|byte| *byte != '.')
        .filter(|byte| !matches!(byte, '-' | ':'))
        .collect();
    let [first, second] = random;
    format!("{time}-{process}-{first:02x}{second:02x}")
}
