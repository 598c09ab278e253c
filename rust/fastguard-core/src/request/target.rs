//! What a message is about.

use std::borrow::Cow;
use std::sync::Arc;

use super::trace::Trace;
use crate::bounds::MAX_NAME_BYTES;
use crate::denial::Denial;

/// The method under which rules name the GET stream of the transport before 2026-07-28.
pub(super) const HTTP_GET: &str = "http/get";
/// The method under which rules name the end of a session.
pub(super) const HTTP_DELETE: &str = "http/delete";
/// The method under which rules name an answer to a request of the server's.
pub(super) const RESPONSE: &str = "response";

/// Which table of rules speaks of a target.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `[tools]`
    Tool,
    /// `[prompts]`
    Prompt,
    /// `[resources]`
    Resource,
    /// `[methods]`
    Method,
}

impl Kind {
    /// The kind's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Method => "method",
        }
    }

    /// Reads the kind's word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tool, Self::Prompt, Self::Resource, Self::Method].into_iter().find(|kind| kind.name() == name)
    }
}

/// Proof of what a message is about: its method and the thing it names.
#[derive(Clone, Debug)]
pub struct Target {
    kind: Kind,
    method: Cow<'static, str>,
    name: Option<Arc<str>>,
    /// Further resources, of `subscriptions/listen`.
    also: Vec<Box<str>>,
    id: Option<Box<str>>,
    trace: Option<Trace>,
    is_body_seen: bool,
}

impl Target {
    pub(super) const fn method(method: Cow<'static, str>) -> Self {
        Self { kind: Kind::Method, method, name: None, also: Vec::new(), id: None, trace: None, is_body_seen: true }
    }

    pub(super) fn tool(name: &str, has_arguments: bool) -> Result<Self, Denial> {
        Ok(Self {
            kind: Kind::Tool,
            method: Cow::Borrowed("tools/call"),
            name: Some(checked_name(name)?),
            also: Vec::new(),
            id: None,
            trace: None,
            is_body_seen: has_arguments,
        })
    }

    pub(super) fn named(kind: Kind, method: Cow<'static, str>, name: &str) -> Result<Self, Denial> {
        Ok(Self { kind, name: Some(checked_name(name)?), ..Self::method(method) })
    }

    pub(super) fn with_also(mut self, also: Vec<Box<str>>) -> Self {
        self.also = also;
        self
    }

    pub(super) fn with_id(mut self, id: Option<Box<str>>) -> Self {
        self.id = id;
        self
    }

    pub(super) const fn with_trace(mut self, trace: Option<Trace>) -> Self {
        self.trace = trace;
        self
    }

    pub(super) const fn with_body_unseen(mut self) -> Self {
        self.is_body_seen = false;
        self
    }

    /// Which table of rules speaks of it.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The method of the message.
    pub fn method_name(&self) -> &str {
        &self.method
    }

    /// What rules call it: the name of a tool or prompt, the URI of a resource, else the method.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.method)
    }

    /// The same, to be kept.
    pub fn shared_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    /// The method of the message, to be kept.
    pub fn shared_method(&self) -> Cow<'static, str> {
        self.method.clone()
    }

    /// Further resources that the message names.
    pub fn also(&self) -> &[Box<str>] {
        &self.also
    }

    /// The JSON text of the request's id; `None` for notifications, answers and streams.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The trace that the message says it belongs to.
    pub const fn trace(&self) -> Option<Trace> {
        self.trace
    }

    /// Whether the body was there to be read.
    pub const fn is_body_seen(&self) -> bool {
        self.is_body_seen
    }
}

fn checked_name(name: &str) -> Result<Arc<str>, Denial> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(Denial::MessageInvalid { what: "the name of the target is empty or too long" });
    }
    Ok(name.into())
}

/// The methods of the specification that name no target, so that the common ones need no allocation.
pub(super) fn known_method(method: &str) -> Cow<'static, str> {
    const KNOWN: [&str; 22] = [
        "tools/call",
        "tools/list",
        "prompts/get",
        "prompts/list",
        "resources/read",
        "resources/list",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
        "completion/complete",
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "tasks/get",
        "tasks/result",
        "tasks/cancel",
    ];
    match KNOWN.into_iter().find(|known| *known == method) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(method.to_owned()),
    }
}
