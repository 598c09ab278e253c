//! What is recorded, as the gate hands it over. Cheap to build; the writer's thread does everything else.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::inputs::Digested;
use crate::call::{Caller, Trace};
use crate::clock::UnixTime;
use crate::denial::{Denial, Fault, Room};

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// A call was allowed, denied, or could not be decided.
    Decision(Box<Decision>),
    /// An allowed call came to its end.
    Ending(Box<Ending>),
    /// An administrator's act: revoked, reloaded, keys rotated.
    Notice(Box<Notice>),
}

impl From<Decision> for Event {
    fn from(decision: Decision) -> Self {
        Self::Decision(Box::new(decision))
    }
}

impl From<Ending> for Event {
    fn from(ending: Ending) -> Self {
        Self::Ending(Box::new(ending))
    }
}

impl From<Notice> for Event {
    fn from(notice: Notice) -> Self {
        Self::Notice(Box::new(notice))
    }
}

/// One decision of the gate.
#[derive(Debug)]
pub struct Decision {
    /// When it was taken.
    pub at: UnixTime,
    /// How long it took, where the caller of the gate has measured it.
    pub elapsed_nanos: Option<u64>,
    /// Unique in this log, by [`super::Audit::next_id`].
    pub id: u64,
    /// What was decided.
    pub result: Outcome,
    /// False where the refusal was only observed (decision 16 of the design).
    pub enforced: bool,
    /// Who asked; `None` before a token was verified.
    pub caller: Option<Arc<Caller>>,
    /// The peer's address.
    pub peer: Option<IpAddr>,
    /// `tool`, `prompt`, `resource`, `method` or `http`.
    pub kind: &'static str,
    /// The JSON-RPC method, or the HTTP one where no message was read.
    pub method: Cow<'static, str>,
    /// The tool, prompt or resource, or the path.
    pub target: Option<Arc<str>>,
    /// The session that the wire named.
    pub session: Option<Box<str>>,
    /// The JSON-RPC id, as its JSON text.
    pub request_id: Option<Box<str>>,
    /// The trace that the request belongs to.
    pub trace: Option<Trace>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// The rule's tier.
    pub tier: &'static str,
    /// Names of the arguments whose values are recorded.
    pub log_arguments: Arc<[Box<str>]>,
    /// What the call was given.
    pub arguments: Arguments,
    /// Digest of the configuration in force.
    pub policy: Arc<str>,
    /// How far it came.
    pub checks: Checks,
    /// The limit that refused or came closest, and how much it leaves.
    pub limit: Option<(Arc<str>, u64)>,
    /// How windows that several processes share were counted; `None` where they are this process's own.
    pub limits_mode: Option<&'static str>,
}

/// What was decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The call may run.
    Allowed,
    /// A room refused it.
    Denied {
        /// [`Denial::code`].
        code: &'static str,
        /// [`Denial::room`].
        room: Room,
        /// For the record, never for the client.
        detail: String,
        /// [`Denial::config_key`].
        config_key: Option<Box<str>>,
        /// [`Denial::missing_scopes`].
        missing: Box<[String]>,
    },
    /// It could not be decided.
    Faulted {
        /// [`Fault::code`].
        code: &'static str,
        /// For the record, never for the client.
        detail: String,
    },
}

impl From<&Denial> for Outcome {
    fn from(denial: &Denial) -> Self {
        Self::Denied {
            code: denial.code(),
            room: denial.room(),
            detail: denial.to_string(),
            config_key: denial.config_key().map(Box::from),
            missing: denial.missing_scopes().into(),
        }
    }
}

impl From<&Fault> for Outcome {
    fn from(fault: &Fault) -> Self {
        Self::Faulted { code: fault.code(), detail: fault.to_string() }
    }
}

impl Outcome {
    /// The code, unless the call was allowed.
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Allowed => None,
            Self::Denied { code, .. } | Self::Faulted { code, .. } => Some(code),
        }
    }
}

/// What one room said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Check {
    /// The call was decided before.
    #[default]
    NotReached,
    /// It let the call pass.
    Passed,
    /// It refused.
    Refused,
}

/// What each room said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Checks {
    pub(super) request: Check,
    pub(super) token: Check,
    pub(super) binding: Check,
    pub(super) limits: Check,
    pub(super) policy: Check,
    pub(super) approval: Check,
}

impl Checks {
    /// Every room up to `last` let the call pass; those after it were not reached.
    #[must_use]
    pub const fn passed_through(last: Room) -> Self {
        Self::up_to(last, Check::Passed)
    }

    /// `room` refused, those before it let the call pass.
    #[must_use]
    pub const fn refused_by(room: Room) -> Self {
        Self::up_to(room, Check::Refused)
    }

    /// Changes what one room said.
    #[must_use]
    pub const fn with(mut self, room: Room, check: Check) -> Self {
        match room {
            Room::Request => self.request = check,
            Room::Token => self.token = check,
            Room::Binding => self.binding = check,
            Room::Limits => self.limits = check,
            Room::Policy => self.policy = check,
            Room::Approval => self.approval = check,
        }
        self
    }

    const fn up_to(last: Room, check: Check) -> Self {
        const fn before(room: Room, last: Room) -> Check {
            if (room as u8) < (last as u8) { Check::Passed } else { Check::NotReached }
        }
        let checks = Self {
            request: before(Room::Request, last),
            token: before(Room::Token, last),
            binding: before(Room::Binding, last),
            limits: before(Room::Limits, last),
            policy: before(Room::Policy, last),
            approval: before(Room::Approval, last),
        };
        checks.with(last, check)
    }
}

/// What the call was given.
#[derive(Debug, Default)]
pub enum Arguments {
    /// Nothing.
    #[default]
    None,
    /// The JSON text of the arguments object.
    Text(Arc<[u8]>),
    /// The JSON text of `params`; the arguments are at `arguments`.
    Params(Arc<[u8]>),
    /// A whole JSON-RPC message; the arguments are at `params.arguments`.
    Message(Arc<[u8]>),
    /// Too large to wait in the queue: hashed by the caller's thread ([`super::Audit::digest`]).
    Digest(Box<Digested>),
}

/// The ending of an allowed call.
#[derive(Debug)]
pub struct Ending {
    /// When it ended.
    pub at: UnixTime,
    /// The decision's id.
    pub decision: u64,
    /// What it has to do with other rounds of the same call.
    pub round: Option<Box<RoundTold>>,
    /// From the decision to the end.
    pub duration: Duration,
    /// Of that, the time in which the tool ran.
    pub execution: Option<Duration>,
    /// `ok`, `error`, `cancelled`, …
    pub status: Box<str>,
    /// The class of the error, never its text.
    pub error: Option<Box<str>>,
    /// Rows of the result.
    pub rows: Option<u64>,
    /// Bytes of the result.
    pub bytes: Option<u64>,
    /// Content items of the result.
    pub items: Option<u64>,
    /// Whether the tool's own summary of its result failed.
    pub summary_failed: bool,
    /// As in the decision.
    pub kind: &'static str,
    /// As in the decision.
    pub method: Cow<'static, str>,
    /// As in the decision.
    pub target: Option<Arc<str>>,
    /// As in the decision.
    pub caller: Option<Arc<Caller>>,
    /// As in the decision.
    pub session: Option<Box<str>>,
    /// As in the decision.
    pub request_id: Option<Box<str>>,
}

/// Keyed digest of what a server gave a client to come back with.
pub type RoundDigest = [u8; 16];

/// How the rounds of one call are joined.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoundTold {
    /// The decision of the first one, where this process has seen it.
    pub call: Option<u64>,
    /// What the client came back with.
    pub continues: Option<RoundDigest>,
    /// What the client was given to come back with.
    pub asks: Option<RoundDigest>,
}

/// An administrator's act.
#[derive(Debug)]
pub struct Notice {
    /// When.
    pub at: UnixTime,
    /// `revoked`, `reloaded`, `keys_rotated`, …
    pub event_type: &'static str,
    /// What belongs to it; never a secret.
    pub fields: Vec<(&'static str, Box<str>)>,
}

impl Event {
    /// About how many bytes it holds while it waits.
    pub(super) fn weight(&self) -> u64 {
        // The largest of the three structs and what the allocator adds.
        const BASE: usize = 512;
        let held = match self {
            Self::Decision(decision) => decision.weight(),
            Self::Ending(ending) => {
                text(ending.target.as_deref()) + text(ending.session.as_deref()) + text(ending.request_id.as_deref())
            }
            Self::Notice(notice) => notice.fields.iter().map(|(_, value)| value.len() + 32).sum(),
        };
        u64::try_from(BASE + held).unwrap_or(u64::MAX)
    }
}

impl Decision {
    fn weight(&self) -> usize {
        let detail = match &self.result {
            Outcome::Allowed => 0,
            Outcome::Denied { detail, .. } | Outcome::Faulted { detail, .. } => detail.len(),
        };
        let arguments = match &self.arguments {
            Arguments::None => 0,
            Arguments::Text(bytes) | Arguments::Params(bytes) | Arguments::Message(bytes) => bytes.len(),
            Arguments::Digest(digested) => digested.weight(),
        };
        let request_id = text(self.request_id.as_deref());
        detail
            + arguments
            + self.method.len()
            + text(self.target.as_deref())
            + text(self.session.as_deref())
            + request_id
    }
}

fn text(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}
