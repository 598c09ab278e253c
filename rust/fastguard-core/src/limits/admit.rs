//! Admits a call: finds its charges, then makes them all, or none.

use std::net::IpAddr;
use std::sync::Arc;

use super::charges::Charges;
use super::cost::Tools;
use super::dues::{Dues, Owed, Place, Running};
use super::rules::{Call, Group, compile};
use super::shared::Counted;
use super::table::{Charge, Refusal, WindowTable};
use crate::call::{BoundToken, Target};
use crate::clock::Tick;
use crate::config::{Config, Measure};
use crate::denial::Denial;
use crate::hashing::KeyHasher;
use crate::request::{Kind, Payload};
use crate::sync::atomic::AtomicBool;

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
    dues: Option<Arc<Dues>>,
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

    /// Whether a rule counts the call until it ends.
    pub const fn owes(&self) -> bool {
        self.dues.is_some()
    }

    /// What it owes.
    pub(crate) const fn dues(&self) -> Option<&Arc<Dues>> {
        self.dues.as_ref()
    }
}

/// Room 3, compiled from one configuration. The windows outlive it.
#[derive(Debug)]
pub struct Limits {
    groups: Vec<Group>,
    /// Those that count a call until it ends.
    owing: Vec<Group>,
    tools: Tools,
    running: Arc<Running>,
    table: Arc<WindowTable>,
    hasher: KeyHasher,
    /// Whether the windows are those of all processes, which are asked outside.
    is_shared: bool,
}

impl Limits {
    /// Compiles `[limits]`.
    pub fn new(config: &Config, hasher: KeyHasher) -> Self {
        let table = Arc::new(WindowTable::new(config.limits.max_keys));
        Self::compiled(config, hasher, table, Arc::default())
    }

    fn compiled(config: &Config, hasher: KeyHasher, table: Arc<WindowTable>, running: Arc<Running>) -> Self {
        let is_of_calls = |group: &Group| group.measure == Measure::Calls;
        let (groups, owing) = compile(config, &hasher).into_iter().partition(is_of_calls);
        let is_shared = config.limit_mode().is_shared();
        Self { groups, owing, tools: Tools::new(config), running, table, hasher, is_shared }
    }

    /// Compiles a changed `[limits]`. Windows of rules that differ in nothing but their count keep what they counted.
    #[must_use]
    pub fn reload(&self, config: &Config) -> Self {
        Self::compiled(config, self.hasher.clone(), Arc::clone(&self.table), Arc::clone(&self.running))
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
        self.plan(&mut charges, payload, &Call::new(bound, target, session, peer))?;
        Ok(charges)
    }

    /// The same in place: the list is large, and moving it would cost a call with one rule more than its window does.
    fn plan<'a>(&'a self, charges: &mut Charges<'a>, payload: Payload<'_>, call: &Call<'_>) -> Result<(), Denial> {
        let (holder, target) = (call.bound.caller().principal(), call.target);
        let cost = if target.kind() == Kind::Tool { self.tools.cost(target.name(), payload) } else { Ok(1) };
        let cost = cost.map_err(|_| Denial::CostUnreadable { tool: target.name().to_owned() })?;
        for group in &self.groups {
            for window in group.windows(call) {
                let push = |key| charges.push(Charge { key, spec: &window.spec, cost, holder, is_look: false }, window);
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
            Ok(admitted) => Ok(charges
                .window(admitted.tightest)
                .filter(|_| admitted.remaining != u64::MAX)
                .map(|window| Standing { rule: Arc::clone(&window.rule), remaining: admitted.remaining })),
            Err(refused) => {
                let found = charges.window(refused.index);
                let rule = found.map(|found| found.rule.to_string()).unwrap_or_default();
                let quota = found.map(|found| u64::from(found.spec.quota())).unwrap_or_default();
                let window = found.map(|found| found.window).unwrap_or_default();
                let meter = match found.map(|found| found.measure) {
                    Some(Measure::Results(meter)) => Some(meter),
                    _ => None,
                };
                Err(match (refused.reason, refused.retry_after) {
                    (Refusal::TableFull | Refusal::ShareFull, Some(retry_after)) => {
                        Denial::WindowsFull { rule, retry_after }
                    }
                    (_, retry_after) => {
                        Denial::QuotaSpent { rule, quota, window, remaining: refused.remaining, retry_after, meter }
                    }
                })
            }
        }
    }

    /// The name of a rule that counts the call until it ends, if there is one.
    pub fn owed_by(&self, bound: &BoundToken, target: &Target) -> Option<&str> {
        let call = Call::new(bound, target, None, None);
        self.owing.iter().find_map(|group| group.windows(&call).first()).map(|window| &*window.rule)
    }

    /// Takes the places of a call among those that run, if the meters have room too, where its windows are asked outside.
    pub(crate) fn begin(
        &self,
        bound: &BoundToken,
        target: &Target,
        session: Option<&str>,
        peer: Option<IpAddr>,
        now: Tick,
    ) -> Result<Option<Arc<Dues>>, Denial> {
        let mut looks = Charges::new();
        self.take(&mut looks, &Call::new(bound, target, session, peer), now).map(|(_, dues)| dues)
    }

    /// Checks places, meters and charges, then takes and charges them all, or none.
    fn take<'a>(
        &'a self,
        charges: &mut Charges<'a>,
        call: &Call<'_>,
        now: Tick,
    ) -> Result<(Option<Standing>, Option<Arc<Dues>>), Denial> {
        let holder = call.bound.caller().principal();
        let (mut wanted, mut owed) = (Vec::new(), Vec::new());
        for group in &self.owing {
            for window in group.windows(call) {
                let (rule, spec) = (&window.rule, &window.spec);
                group.keys(call, &self.tools, window, |key| match group.measure {
                    Measure::Results(meter) => {
                        owed.push(Owed { meter, key, spec: *spec, holder });
                        charges.push(Charge { key, spec, cost: 1, holder, is_look: true }, window);
                    }
                    _ => wanted.push(Place { rule: Arc::clone(rule), key, most: spec.quota() }),
                });
            }
        }
        if wanted.is_empty() && owed.is_empty() {
            return self.charge(charges, now).map(|standing| (standing, None));
        }
        let mut places = self.running.lock();
        places.check(&wanted)?;
        // INVARIANT: whoever holds the lock of a shard never waits for the one of the places.
        let standing = self.charge(charges, now)?;
        let places = places.take(&wanted);
        let (running, table) = (Arc::clone(&self.running), Arc::clone(&self.table));
        let owed = owed.into_boxed_slice();
        let dues = Dues { places, owed, running, table, since: now, is_settled: AtomicBool::new(false) };
        Ok((standing, Some(Arc::new(dues))))
    }

    /// Takes what the store has said of the charges of a call. A refusal gives the target back, for the record.
    pub(crate) fn admit_counted(
        bound: BoundToken,
        target: Target,
        counted: &Counted,
        dues: Option<Arc<Dues>>,
    ) -> Result<AdmittedCall, Box<(Target, Denial)>> {
        match &counted.standing {
            Ok(standing) => Ok(AdmittedCall { bound, target, standing: standing.clone(), dues }),
            Err(denial) => Err(Box::new((target, denial.clone()))),
        }
    }

    /// A call that no window counts.
    pub(crate) const fn admit_uncounted(bound: BoundToken, target: Target, dues: Option<Arc<Dues>>) -> AdmittedCall {
        AdmittedCall { bound, target, standing: None, dues }
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
        let call = Call::new(&bound, &target, session, peer);
        let planned = self.plan(&mut charges, payload, &call);
        let outcome = if self.owing.is_empty() {
            planned.and_then(|()| self.charge(&charges, now)).map(|standing| (standing, None))
        } else {
            planned.and_then(|()| self.take(&mut charges, &call, now))
        };
        match outcome {
            Ok((standing, dues)) => Ok(AdmittedCall { bound, target, standing, dues }),
            Err(denial) => Err(Box::new((target, denial))),
        }
    }
}
