//! One rule, compiled to bits.

use std::sync::Arc;
use std::time::Duration;

use crate::call::{BoundToken, Caller};
use crate::clock::UnixTime;
use crate::config::{Binding, Rule, Span, Tier};
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
    read_only: Option<bool>,
    /// What few rules demand, behind one look for all the others.
    demands: Option<Box<Demands>>,
    log_arguments: Arc<[Box<str>]>,
}

impl CompiledRule {
    /// `leeway`: for the clocks of those who say when they issued a token or authenticated somebody.
    pub(super) fn new(kind: Kind, name: &str, rule: &Rule, scopes: &ScopeTable, leeway: Duration) -> Self {
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
            read_only: rule.read_only,
            demands: Demands::of(rule, leeway).map(Box::new),
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
            read_only: None,
            demands: None,
            log_arguments: Arc::default(),
        }
    }

    /// Whether it says that the target changes nothing, or that it does.
    pub(super) const fn read_only(&self) -> Option<bool> {
        self.read_only
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
        match self.demands.as_deref().and_then(|demands| demands.binding) {
            None => true,
            Some(Binding::Dpop) => caller.thumbprint().is_some(),
        }
    }

    fn has_scopes_of(&self, caller: &Caller) -> bool {
        let granted = caller.granted();
        granted.contains_all(&self.all)
            && (self.any.is_empty() || self.any.iter().any(|bits| granted.contains_all(bits)))
    }

    /// Checks the binding, the scopes, how fresh token and login are, then the tier; nobody is asked to log in again for what is
    /// blocked. A challenge names every scope that this operation needs (SC2); where one of several
    /// suffices, the first of them.
    pub(super) fn check(&self, bound: &BoundToken, scopes: &ScopeTable, now: UnixTime) -> Result<(), Denial> {
        let caller: &Caller = bound.caller();
        if !self.is_bound_for(caller) {
            return Err(Denial::BindingRequired { rule: self.key.to_string() });
        }
        if !bound.is_signed() && self.demands.as_deref().is_some_and(|demands| demands.is_signed) {
            return Err(Denial::SignatureRequired { rule: self.key.to_string() });
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
        if let Some(demands) = self.demands.as_deref().filter(|_| self.tier != Tier::Block) {
            demands.check(self, caller, now)?;
        }
        match self.tier {
            Tier::Block => Err(Denial::TierBlocked { rule: self.key.to_string() }),
            Tier::Approve => Err(Denial::ApprovalRequired { rule: self.key.to_string() }),
            Tier::Auto | Tier::Log => Ok(()),
        }
    }
}

/// What a rule demands beside scopes.
#[derive(Debug)]
struct Demands {
    binding: Option<Binding>,
    is_signed: bool,
    acr_values: Vec<String>,
    max_age: Option<Duration>,
    max_token_age: Option<Duration>,
    leeway: Duration,
}

impl Demands {
    fn of(rule: &Rule, leeway: Duration) -> Option<Self> {
        let acr_values = rule.acr_values.clone().unwrap_or_default();
        let (max_age, max_token_age) = (rule.max_age.map(Span::get), rule.max_token_age.map(Span::get));
        let has_no_binding = rule.binding.is_none() && !rule.signed;
        let is_empty = has_no_binding && acr_values.is_empty() && max_age.is_none() && max_token_age.is_none();
        (!is_empty).then_some(Self {
            binding: rule.binding,
            is_signed: rule.signed,
            acr_values,
            max_age,
            max_token_age,
            leeway,
        })
    }

    /// When and how the person was authenticated (RFC 9470), then the age of the token: who steps up gets a new one.
    fn check(&self, rule: &CompiledRule, caller: &Caller, now: UnixTime) -> Result<(), Denial> {
        let is_accepted = |acr: &str| self.acr_values.iter().any(|accepted| *accepted == *acr);
        let lacks = if !self.acr_values.is_empty() && !caller.acr().is_some_and(is_accepted) {
            Some("acr")
        } else if self.max_age.is_some_and(|age| !self.is_within(caller.authenticated_at(), age, now)) {
            Some("auth_time")
        } else {
            None
        };
        if let Some(claim) = lacks {
            return Err(Denial::AuthenticationInsufficient {
                rule: rule.key.to_string(),
                claim,
                acr_values: self.acr_values.clone(),
                max_age: self.max_age,
                required: rule.all_names.clone(),
            });
        }
        if self.max_token_age.is_some_and(|age| !self.is_within(caller.issued_at(), age, now)) {
            return Err(Denial::NewerTokenRequired { rule: rule.key.to_string() });
        }
        Ok(())
    }

    /// Whether something happened at most so long ago, and not in the future. What is not said did not happen.
    fn is_within(&self, happened_at: Option<UnixTime>, age: Duration, now: UnixTime) -> bool {
        happened_at.is_some_and(|at| at <= now.plus(self.leeway) && now <= at.plus(age + self.leeway))
    }
}
