//! `[limits]`: how often.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::schema::Config;
use super::values::{Quota, Required};

/// `[limits]`: how often.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The rules. Of those that name the same thing the most specific counts a call; all others that fit count it too.
    /// Default: 1000/minute per principal.
    pub rules: Vec<LimitRule>,
    /// How many tokens from one address may turn out to be none in which time, before further ones are refused unread; IPv6 by /64.
    /// Tokens that were verified before pass. Default: 300/minute.
    pub failed_authentications: Quota,
    /// Most windows that are kept at once. Default: 1000000.
    pub max_keys: usize,
    /// Whose windows count: `local`, this process's own; `exact` and `leased`, those that all processes share by the server of
    /// `[state]`. Default: `exact` with `[state]`, else `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<LimitMode>,
    /// What holds while that server is away: `local`, each process admits its share of every quota; `refuse`, none. Default: local.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degrade: Option<OnStoreFailure>,
    /// What the caller of a tool is told of a spent limit: `error`, as of every refusal, which the client sees; `result`, a result of the
    /// tool with `isError`, which the model reads. Default: error.
    pub answer: LimitAnswer,
}

impl Default for Limits {
    fn default() -> Self {
        let quota = Quota::new(1_000, std::time::Duration::from_secs(60));
        let rule = LimitRule::of_principals(None, quota);
        let failed_authentications = Quota::new(300, std::time::Duration::from_secs(60));
        Self {
            rules: vec![rule],
            failed_authentications,
            max_keys: 1_000_000,
            mode: None,
            degrade: None,
            answer: LimitAnswer::Error,
        }
    }
}

/// Whose windows count.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LimitMode {
    /// Each process has its own.
    Local,
    /// All processes share them: one round trip for each call.
    Exact,
    /// The same, and each process takes permits in advance.
    Leased,
}

impl LimitMode {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Exact => "exact",
            Self::Leased => "leased",
        }
    }

    /// Whether several processes share the windows.
    pub const fn is_shared(self) -> bool {
        !matches!(self, Self::Local)
    }
}

/// What the caller of a tool is told of a spent limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LimitAnswer {
    /// 429, or an error of JSON-RPC.
    #[default]
    Error,
    /// A result of the tool that says so.
    Result,
}

/// What holds while the server of `[state]` is away.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnStoreFailure {
    /// Each process admits its share of every quota.
    #[default]
    Local,
    /// Calls that any rule counts are refused.
    Refuse,
}

impl OnStoreFailure {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Refuse => "refuse",
        }
    }
}

/// One rule of `[limits]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitRule {
    /// A name for records and answers. Default: made from `per` and the target.
    #[serde(default)]
    pub name: Option<String>,
    /// What has a window of its own: one word or several.
    #[serde(deserialize_with = "super::values::one_or_many")]
    #[cfg_attr(feature = "schema", schemars(with = "super::values::OneOrMany<Per>"))]
    pub per: Vec<Per>,
    /// How many in which time: "100/minute", "5/10s", or several that all hold: `["10/s", "1000/h"]`. This or `concurrent`.
    #[serde(
        default,
        deserialize_with = "quotas",
        serialize_with = "super::values::as_one_or_many",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "super::values::OneOrMany<Quota>"))]
    pub quota: Vec<Quota>,
    /// How many calls of tools may run at once; with `[state]` in all processes together. A call runs until its tool has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// What `quota` counts of the results of tools, once they are there. Default: calls, each at its cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<Meter>,
    /// Only calls of this tool count, by name or glob.
    #[serde(default)]
    pub tool: Option<String>,
    /// Only messages of this method count, by name or glob. Default: every message.
    #[serde(default)]
    pub method: Option<String>,
    /// Only callers with this role count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Only callers whose token has these claims count: `true` for any value, else the value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claim: BTreeMap<String, Required>,
}

/// Reads a quota or a list of them, and says what is wrong with one.
fn quotas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Quota>, D::Error> {
    struct Quotas;

    impl<'de> Visitor<'de> for Quotas {
        type Value = Vec<Quota>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a quota like \"100/minute\", or a list of them")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Quota>, E> {
            text.parse().map(|quota| vec![quota]).map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Vec<Quota>, A::Error> {
            let mut quotas = Vec::new();
            while let Some(quota) = values.next_element()? {
                quotas.push(quota);
            }
            if quotas.is_empty() {
                return Err(A::Error::custom("a list of no quotas says nothing"));
            }
            Ok(quotas)
        }
    }

    deserializer.deserialize_any(Quotas)
}

/// What a result has, and a quota may count.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Meter {
    /// Rows, as the record of the ending has them.
    Rows,
    /// Bytes, as the record of the ending has them.
    Bytes,
}

impl Meter {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
        }
    }
}

/// What a rule measures.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Measure {
    /// Calls, each at its cost.
    Calls,
    /// Calls that run.
    Running,
    /// What results have.
    Results(Meter),
}

/// What has a window of its own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// (issuer, subject), or (issuer, client) without a subject.
    Principal,
    /// (principal, session); where the wire has no session, the principal.
    Session,
    /// (issuer, client); without a client, the principal.
    Client,
    /// The actor, if the token has one, else the client; without both, the principal.
    Agent,
    /// (issuer, organisation); without one, the principal.
    Organisation,
    /// (issuer, role), for each role of the caller; without one, the principal.
    Role,
    /// The tool; alone, (principal, tool).
    Tool,
    /// The tool's class; alone, (principal, class). Tools without one share a window.
    Class,
    /// The method of the message.
    Method,
    /// The address of the peer; IPv6 by /64.
    Address,
    /// One window for all.
    Everyone,
}

impl Per {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Session => "session",
            Self::Client => "client",
            Self::Agent => "agent",
            Self::Organisation => "organisation",
            Self::Role => "role",
            Self::Tool => "tool",
            Self::Class => "class",
            Self::Method => "method",
            Self::Address => "address",
            Self::Everyone => "everyone",
        }
    }
}

/// What a rule counts, whoever it is said of: rules that agree in it name the same thing.
pub(crate) type Counted<'a> = (Measure, BTreeSet<Per>, Option<&'a str>, Option<&'a str>);

impl Config {
    /// Whose windows count.
    pub fn limit_mode(&self) -> LimitMode {
        let unsaid = if self.state.is_some() { LimitMode::Exact } else { LimitMode::Local };
        self.limits.mode.unwrap_or(unsaid)
    }
}

impl LimitRule {
    /// So many calls for each principal, whatever they call.
    pub(super) fn of_principals(name: Option<&str>, quota: Quota) -> Self {
        Self {
            name: name.map(str::to_owned),
            per: vec![Per::Principal],
            quota: vec![quota],
            concurrent: None,
            meter: None,
            tool: None,
            method: None,
            role: None,
            claim: BTreeMap::new(),
        }
    }

    /// The rule's name in records and answers: its own, or one made of what it says.
    pub fn name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let per: Vec<&str> = self.per.iter().map(|per| per.name()).collect();
        let narrowed = [("tool", &self.tool), ("method", &self.method), ("role", &self.role)];
        let mut narrowed: Vec<String> = narrowed
            .into_iter()
            .filter_map(|(key, value)| value.as_ref().map(|value| format!(" {key} {value}")))
            .collect();
        narrowed.extend(self.claim.iter().map(|(claim, required)| match required {
            Required::Equal(value) => format!(" claim {claim}={value}"),
            Required::Present(_) => format!(" claim {claim}"),
        }));
        let quotas: Vec<String> = self.quota.iter().map(ToString::to_string).collect();
        let most = match self.measure() {
            Measure::Calls => quotas.join("+"),
            Measure::Running => format!("{} at once", self.concurrent.unwrap_or_default()),
            Measure::Results(meter) => format!("{} {}", meter.name(), quotas.join("+")),
        };
        format!("{}{} {most}", per.join("+"), narrowed.concat())
    }

    /// What it measures.
    pub(crate) fn measure(&self) -> Measure {
        match self.meter {
            _ if self.concurrent.is_some() => Measure::Running,
            Some(meter) => Measure::Results(meter),
            None => Measure::Calls,
        }
    }

    /// `per` with what it implies: sessions subdivide a principal, and tools do where nothing else of the caller is named.
    pub(crate) fn words(&self) -> BTreeSet<Per> {
        let mut words: BTreeSet<Per> = self.per.iter().copied().collect();
        let of_caller = [Per::Principal, Per::Client, Per::Agent, Per::Organisation, Per::Role];
        let is_divided = words.contains(&Per::Tool) || words.contains(&Per::Class);
        if words.contains(&Per::Session) || is_divided && !of_caller.iter().any(|word| words.contains(word)) {
            words.insert(Per::Principal);
        }
        words
    }

    /// What is counted. A target that `per` divides by anyway, a role and a claim choose the quota and make no other window.
    pub(crate) fn counted(&self) -> Counted<'_> {
        let words = self.words();
        let by_tool = words.contains(&Per::Tool);
        let by_method = by_tool || words.contains(&Per::Method);
        let tool = self.tool.as_deref().filter(|_| !by_tool);
        let method = self.method.as_deref().filter(|_| !by_method);
        (self.measure(), words, tool, method)
    }

    /// Whether both fit the same calls of the same callers.
    pub(crate) fn fits_same_as(&self, other: &Self) -> bool {
        self.counted() == other.counted()
            && (&self.tool, &self.method, &self.role, &self.claim)
                == (&other.tool, &other.method, &other.role, &other.claim)
    }
}
