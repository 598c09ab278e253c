//! Admits a call: finds its charges, then makes them all, or none.

use std::net::IpAddr;
use std::sync::Arc;

use super::charges::Charges;
use super::cost::Tools;
use super::rules::{Call, Group, compile};
use super::shared::Counted;
use super::table::{Charge, Refusal, WindowTable};
use crate::call::{BoundToken, Target};
use crate::clock::Tick;
use crate::config::Config;
use crate::denial::Denial;
use crate::hashing::KeyHasher;
use crate::request::{Kind, Payload};

/// Most rules of one configuration.
pub const MAX_RULES: usize = 64;

/// Most quotas that may count one call; a rule per role counts once for each role of the caller.
pub const MAX_WINDOWS: usize = 16;

/// Proof that every window of a call had room, and was charged.
#[derive(Clone, Debug)]
pub struct AdmittedCall {
    bound: BoundToken,
    target: Target,
    standing: Option<Standing>,
}

/// How the tightest window stands after a call.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What is left of its quota.
    pub remaining: u64,
}

impl AdmittedCall {
    /// The token and its binding.
    pub const fn bound(&self) -> &BoundToken {
        &self.bound
    }

    /// What the call is about.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The window with the least left, if any rule counts this call.
    pub const fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
    }
}

/// Room 3, compiled from one configuration. The windows outlive it.
#[derive(Debug)]
pub struct Limits {
    groups: Vec<Group>,
    tools: Tools,
    table: Arc<WindowTable>,
    hasher: KeyHasher,
    /// Whether the windows are those of all processes, which are asked outside.
    is_shared: bool,
}

impl Limits {
    /// Compiles `[limits]`.
    pub fn new(config: &Config, hasher: KeyHasher) -> Self {
        let table = Arc::new(WindowTable::new(config.limits.max_keys));
        let is_shared = config.limit_mode().is_shared();
        Self { groups: compile(config, &hasher), tools: Tools::new(config), table, hasher, is_shared }
    }

    /// Compiles a changed `[limits]`. Windows of rules that differ in nothing but their count keep what they counted.
    #[must_use]
    pub fn reload(&self, config: &Config) -> Self {
        Self {
            groups: compile(config, &self.hasher),
            tools: Tools::new(config),
            table: Arc::clone(&self.table),
            hasher: self.hasher.clone(),
            is_shared: config.limit_mode().is_shared(),
        }
    }

    /// Whether the windows are those of all processes: then [`Limits::charges`] are made outside the core.
    pub const fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The windows.
    pub fn table(&self) -> &WindowTable {
        &self.table
    }

    /// Which windows the call counts in, and what it costs. Charges nothing.
    pub fn charges(
        &self,
        bound: &BoundToken,
        target: &Target,
        payload: Payload<'_>,
        session: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Result<Charges<'_>, Denial> {
        let mut charges = Charges::new();
        self.plan(&mut charges, bound, target, payload, &Call::new(bound, target, session, peer))?;
        Ok(charges)
    }

    /// The same in place: the list is large, and moving it would cost a call with one rule more than its window does.
    fn plan<'a>(
        &'a self,
        charges: &mut Charges<'a>,
        bound: &BoundToken,
        target: &Target,
        payload: Payload<'_>,
        call: &Call<'_>,
    ) -> Result<(), Denial> {
        let holder = bound.caller().principal();
        let cost = if target.kind() == Kind::Tool { self.tools.cost(target.name(), payload) } else { Ok(1) };
        let cost = cost.map_err(|_| Denial::CostUnreadable { tool: target.name().to_owned() })?;
        for group in &self.groups {
            for window in group.windows(call) {
                let push = |key| charges.push(Charge { key, spec: &window.spec, cost, holder }, window);
                group.keys(call, &self.tools, window, push);
            }
        }
        Ok(())
    }

    /// Checks every window, then charges them all, or none. Gives the tightest.
    pub fn charge(&self, charges: &Charges<'_>, now: Tick) -> Result<Option<Standing>, Denial> {
        if charges.is_empty() {
            return Ok(None);
        }
        match self.table.admit(charges.as_slice(), now) {
            Ok(admitted) => Ok(Some(Standing { rule: charges.rule(admitted.tightest), remaining: admitted.remaining })),
            Err(refused) => {
                let rule = charges.rule(refused.index).to_string();
                let planned = charges.iter().nth(refused.index);
                let (quota, window) = planned.map_or_else(Default::default, |charge| (charge.quota, charge.window));
                Err(match (refused.reason, refused.retry_after) {
                    (Refusal::TableFull | Refusal::ShareFull, Some(retry_after)) => {
                        Denial::WindowsFull { rule, retry_after }
                    }
                    (_, retry_after) => {
                        Denial::QuotaSpent { rule, quota, window, remaining: refused.remaining, retry_after }
                    }
                })
            }
        }
    }

    /// Takes what the store has said of the charges of a call. A refusal gives the target back, for the record.
    pub(crate) fn admit_counted(
        bound: BoundToken,
        target: Target,
        counted: &Counted,
    ) -> Result<AdmittedCall, Box<(Target, Denial)>> {
        match &counted.standing {
            Ok(standing) => Ok(AdmittedCall { bound, target, standing: standing.clone() }),
            Err(denial) => Err(Box::new((target, denial.clone()))),
        }
    }

    /// A call that no rule counts.
    pub(crate) const fn admit_uncounted(bound: BoundToken, target: Target) -> AdmittedCall {
        AdmittedCall { bound, target, standing: None }
    }

    /// Finds the charges of a call and makes them. A refusal gives the target back, for the record.
    pub fn admit(
        &self,
        bound: BoundToken,
        target: Target,
        payload: Payload<'_>,
        session: Option<&str>,
        peer: Option<IpAddr>,
        now: Tick,
    ) -> Result<AdmittedCall, Box<(Target, Denial)>> {
        let mut charges = Charges::new();
        let planned = self.plan(&mut charges, &bound, &target, payload, &Call::new(&bound, &target, session, peer));
        match planned.and_then(|()| self.charge(&charges, now)) {
            Ok(standing) => Ok(AdmittedCall { bound, target, standing }),
            Err(denial) => Err(Box::new((target, denial))),
        }
    }
}
