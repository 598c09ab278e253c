//! One rule, compiled to bits.

use std::sync::Arc;

use crate::call::Caller;
use crate::config::{Binding, Rule, Tier};
use crate::denial::Denial;
use crate::request::Kind;
use crate::scopes::{ScopeBits, ScopeTable};

/// A rule that stands beside the code of a tool, in addition to the configuration's.
#[derive(Clone, Debug)]
pub struct CodeRule {
    /// Which table it would stand in.
    pub kind: Kind,
    /// The exact name of its target.
    pub name: String,
    /// What it demands.
    pub rule: Rule,
}

/// A rule of `[tools]` or its likes.
#[derive(Debug)]
pub struct CompiledRule {
    key: Arc<str>,
    all: ScopeBits,
    any: Vec<ScopeBits>,
    all_names: Vec<String>,
    any_names: Vec<String>,
    tier: Tier,
    binding: Option<Binding>,
    log_arguments: Arc<[Box<str>]>,
}

impl CompiledRule {
    pub(super) fn new(kind: Kind, name: &str, rule: &Rule, scopes: &ScopeTable) -> Self {
        let all_names = rule.scopes().to_vec();
        let any_names = rule.any_scopes().to_vec();
        let mut all = ScopeBits::default();
        for name in &all_names {
            all.join(&scopes.bit(name));
        }
        Self {
            key: format!("{}s.\"{name}\"", kind.name()).into(),
            all,
            any: any_names.iter().map(|name| scopes.bit(name)).collect(),
            all_names,
            any_names,
            tier: rule.tier,
            binding: rule.binding,
            log_arguments: rule.log_arguments.iter().map(|name| name.as_str().into()).collect(),
        }
    }

    /// A rule that lets every verified caller pass.
    pub(super) fn open(key: &str) -> Self {
        Self {
            key: key.into(),
            all: ScopeBits::default(),
            any: Vec::new(),
            all_names: Vec::new(),
            any_names: Vec::new(),
            tier: Tier::Auto,
            binding: None,
            log_arguments: Arc::default(),
        }
    }

    /// Where the rule stands in the configuration: `tools."run_query"`.
    pub const fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// What happens beside the scopes.
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Arguments whose values are recorded.
    pub const fn log_arguments(&self) -> &Arc<[Box<str>]> {
        &self.log_arguments
    }

    /// Whether the caller has the scopes and the binding that the rule demands.
    pub fn is_met_by(&self, caller: &Caller) -> bool {
        self.is_bound_for(caller) && self.has_scopes_of(caller)
    }

    /// A bound token has no way through the room of bindings but by its proof, so that it is bound says enough.
    fn is_bound_for(&self, caller: &Caller) -> bool {
        match self.binding {
            None => true,
            Some(Binding::Dpop) => caller.thumbprint().is_some(),
        }
    }

    fn has_scopes_of(&self, caller: &Caller) -> bool {
        let granted = caller.granted();
        granted.contains_all(&self.all)
            && (self.any.is_empty() || self.any.iter().any(|bits| granted.contains_all(bits)))
    }

    /// Checks the binding, the scopes, then the tier. A challenge names every scope that this operation needs (SC2); where one of several
    /// suffices, the first of them.
    pub(super) fn check(&self, caller: &Caller, scopes: &ScopeTable) -> Result<(), Denial> {
        if !self.is_bound_for(caller) {
            return Err(Denial::BindingRequired { rule: self.key.to_string() });
        }
        if !self.has_scopes_of(caller) {
            let granted = caller.granted();
            let lacks = |name: &&String| !granted.contains_all(&scopes.bit(name));
            let mut missing: Vec<String> = self.all_names.iter().filter(lacks).cloned().collect();
            let mut required = self.all_names.clone();
            let lacks_any = !self.any.is_empty() && !self.any.iter().any(|bits| granted.contains_all(bits));
            if let Some(first) = self.any_names.first().filter(|_| lacks_any) {
                missing.push(first.clone());
                required.push(first.clone());
            }
            return Err(Denial::ScopeInsufficient { rule: self.key.to_string(), required, missing });
        }
        match self.tier {
            Tier::Block => Err(Denial::TierBlocked { rule: self.key.to_string() }),
            Tier::Approve => Err(Denial::ApprovalRequired { rule: self.key.to_string() }),
            Tier::Auto | Tier::Log => Ok(()),
        }
    }
}
