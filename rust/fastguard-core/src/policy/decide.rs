//! Which rule speaks of a target, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::rule::{CodeRule, CompiledRule};
use crate::call::{AdmittedCall, BoundToken, Caller};
use crate::clock::UnixTime;
use crate::config::{Config, Named, Rule, Tier};
use crate::denial::Denial;
use crate::request::{Kind, Target};
use crate::scopes::ScopeTable;

/// Methods of the specification that every verified caller may use unless a rule of `[methods]` says otherwise: they run
/// nothing, or lists that are filtered. All others need a rule.
const OPEN_METHODS: [&str; 19] = [
    "completion/complete",
    "http/delete",
    "http/get",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/elicitation/complete",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "ping",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "response",
    "server/discover",
    "subscriptions/listen",
    "tools/list",
    "resources/unsubscribe",
];

/// Proof that a call may run, short of the approvals that the rule may demand.
#[derive(Clone, Debug)]
pub struct AllowedCall {
    admitted: AdmittedCall,
    rule: Arc<CompiledRule>,
    record: u64,
}

impl AllowedCall {
    /// The call with what was proved before.
    pub const fn admitted(&self) -> &AdmittedCall {
        &self.admitted
    }

    /// The caller.
    pub fn caller(&self) -> &Caller {
        self.admitted.bound().caller()
    }

    /// What the call is about.
    pub const fn target(&self) -> &Target {
        self.admitted.target()
    }

    /// The rule that decided.
    pub fn rule(&self) -> &CompiledRule {
        &self.rule
    }

    /// The number of the decision's record in the audit log; 0 without one.
    pub const fn record(&self) -> u64 {
        self.record
    }

    pub(crate) const fn recorded_as(mut self, record: u64) -> Self {
        self.record = record;
        self
    }
}

/// Room 4, compiled from one configuration.
#[derive(Debug)]
pub struct Policy {
    tools: Table,
    prompts: Table,
    resources: Table,
    methods: Table,
    open: Arc<CompiledRule>,
    scopes: Arc<ScopeTable>,
}

/// The rules of one kind. All rules of an entry must be met: the configuration's and those beside the code.
type Table = Named<Box<[Arc<CompiledRule>]>>;

fn table(
    kind: Kind,
    rules: &BTreeMap<String, Rule>,
    code: &[CodeRule],
    scopes: &ScopeTable,
    leeway: Duration,
) -> Table {
    let compile = |name: &str, rule: &Rule| Arc::new(CompiledRule::new(kind, name, rule, scopes, leeway));
    let mut table: Table = rules.iter().map(|(name, rule)| (name.as_str(), Box::from([compile(name, rule)]))).collect();
    let code = code.iter().filter(|rule| rule.kind == kind);
    for name in code.clone().map(|rule| rule.name.as_str()).collect::<BTreeSet<_>>() {
        let beside = code.clone().filter(|rule| rule.name == name);
        let both = found(&table, name).iter().cloned().chain(beside.map(|rule| compile(name, &rule.rule)));
        let both = both.collect();
        table.insert(name, both);
    }
    table
}

fn found<'t>(table: &'t Table, name: &str) -> &'t [Arc<CompiledRule>] {
    table.find(name).map_or(&[], |rules| rules)
}

impl Policy {
    /// Compiles the rules of the configuration and those beside the code.
    pub fn new(config: &Config, code: &[CodeRule], scopes: Arc<ScopeTable>) -> Self {
        let leeway = config.tokens.leeway.get();
        let table = |kind, rules| table(kind, rules, code, &scopes, leeway);
        Self {
            tools: table(Kind::Tool, &config.tools),
            prompts: table(Kind::Prompt, &config.prompts),
            resources: table(Kind::Resource, &config.resources),
            methods: table(Kind::Method, &config.methods),
            open: Arc::new(CompiledRule::open("methods (default)")),
            scopes,
        }
    }

    fn table(&self, kind: Kind) -> &Table {
        match kind {
            Kind::Tool => &self.tools,
            Kind::Prompt => &self.prompts,
            Kind::Resource => &self.resources,
            Kind::Method => &self.methods,
        }
    }

    /// Decides an admitted call. A refusal gives it back, for the record.
    pub fn decide(&self, admitted: AdmittedCall, now: UnixTime) -> Result<AllowedCall, (Box<AdmittedCall>, Denial)> {
        match self.judge(admitted.bound(), admitted.target(), now) {
            Ok(rule) => Ok(AllowedCall { admitted, rule, record: 0 }),
            Err(denial) => Err((Box::new(admitted), denial)),
        }
    }

    fn judge(&self, bound: &BoundToken, target: &Target, now: UnixTime) -> Result<Arc<CompiledRule>, Denial> {
        let rule = self.judge_name(bound, target.kind(), target.name(), now)?;
        if target.kind() != Kind::Method {
            // A rule may name the method as well as the target: then both must be met.
            for rule in found(&self.methods, target.method_name()) {
                rule.check(bound, &self.scopes, now)?;
            }
        }
        for resource in target.also() {
            self.judge_name(bound, Kind::Resource, resource, now)?;
        }
        Ok(rule)
    }

    fn judge_name(
        &self,
        bound: &BoundToken,
        kind: Kind,
        name: &str,
        now: UnixTime,
    ) -> Result<Arc<CompiledRule>, Denial> {
        let rules = found(self.table(kind), name);
        for rule in rules {
            rule.check(bound, &self.scopes, now)?;
        }
        match rules.iter().max_by_key(|rule| rule.tier()) {
            Some(rule) => Ok(Arc::clone(rule)),
            None if kind == Kind::Method && OPEN_METHODS.contains(&name) => Ok(Arc::clone(&self.open)),
            None => Err(Denial::TargetUnknown { target: name.to_owned() }),
        }
    }

    /// Whether a call changes something: one of a tool does, unless its rules say `read_only`.
    pub fn writes(&self, target: &Target) -> bool {
        let rules = found(&self.tools, target.name());
        let is_told = rules.iter().any(|rule| rule.read_only() == Some(true));
        target.kind() == Kind::Tool && !(is_told && rules.iter().all(|rule| rule.read_only() != Some(false)))
    }

    /// The rules that speak of a target.
    pub fn rules(&self, kind: Kind, name: &str) -> &[Arc<CompiledRule>] {
        found(self.table(kind), name)
    }

    /// Whether a list may show the target to the caller: a rule names it, its scopes are met, and it is not blocked.
    /// A login that is too old hides nothing: the call itself is answered with what the client can do about it.
    pub fn may_see(&self, kind: Kind, name: &str, caller: &Caller) -> bool {
        let rules = found(self.table(kind), name);
        !rules.is_empty() && rules.iter().all(|rule| rule.tier() != Tier::Block && rule.is_met_by(caller))
    }
}
