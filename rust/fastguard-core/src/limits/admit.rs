//! Admits a call: finds its charges, then makes them all, or none.

use std::net::IpAddr;
use std::sync::Arc;

use super::charges::Charges;
use super::cost::Tools;
use super::dues::{Dues, EndedCall, Outbox, Owed, Place, Running};
use super::permits::Permits;
use super::rules::{Call, Group, compile};
use super::shared::{Asked, Counted, SharedPlace};
use super::table::{Charge, Refusal, WindowTable};
use crate::call::{BoundToken, Target};
use crate::clock::Tick;
use crate::config::{Config, LimitMode, Measure};
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
    /// Whether the call was counted in a window that newcomers share, because the table of windows is full.
    pub is_together: bool,
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
    pub(super) groups: Vec<Group>,
    /// Those that count a call until it ends.
    pub(super) owing: Vec<Group>,
    pub(super) tools: Tools,
    pub(super) running: Arc<Running>,
    outbox: Arc<Outbox>,
    pub(super) table: Arc<WindowTable>,
    hasher: KeyHasher,
    pub(super) mode: LimitMode,
    /// What this process may use without asking, in mode `leased`.
    pub(super) permits: Arc<Permits>,
}

impl Limits {
    /// Compiles `[limits]`.
    pub fn new(config: &Config, hasher: KeyHasher) -> Self {
        let table = Arc::new(WindowTable::new(config.limits.max_keys));
        let permits = Arc::new(Permits::new(config.state.as_ref().map_or(1, |state| state.processes)));
        Self::compiled(config, hasher, (table, permits), Arc::default(), Arc::default())
    }

    fn compiled(
        config: &Config,
        hasher: KeyHasher,
        (table, permits): (Arc<WindowTable>, Arc<Permits>),
        running: Arc<Running>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let is_of_calls = |group: &Group| group.measure == Measure::Calls;
        let (groups, owing) = compile(config, &hasher).into_iter().partition(is_of_calls);
        let mode = config.limit_mode();
        Self { groups, owing, tools: Tools::new(config), running, outbox, table, hasher, mode, permits }
    }

    /// Compiles a changed `[limits]`. Windows of rules that differ in nothing but their count keep what they counted.
    #[must_use]
    pub fn reload(&self, config: &Config) -> Self {
        let kept = (Arc::clone(&self.table), Arc::clone(&self.permits));
        Self::compiled(config, self.hasher.clone(), kept, Arc::clone(&self.running), Arc::clone(&self.outbox))
    }

    /// Whether the windows are those of all processes: then [`Limits::charges`] are made outside the core.
    pub const fn is_shared(&self) -> bool {
        self.mode.is_shared()
    }

    /// What this process may use without asking the others.
    pub const fn permits(&self) -> &Arc<Permits> {
        &self.permits
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
    pub(super) fn plan<'a>(
        &'a self,
        charges: &mut Charges<'a>,
        payload: Payload<'_>,
        call: &Call<'_>,
    ) -> Result<(), Denial> {
        let (holder, target) = (call.bound.caller().principal(), call.target);
        let cost = if target.kind() == Kind::Tool { self.tools.cost(target.name(), payload) } else { Ok(1) };
        let cost = cost.map_err(|_| Denial::CostUnreadable { tool: target.name().to_owned() })?;
        for group in &self.groups {
            for window in group.windows(call) {
                let (spec, overflow) = (&window.spec, window.salt);
                let push = |key, _: Option<&str>| {
                    charges.push(Charge { key, spec, cost, holder, is_look: false, overflow }, window);
                };
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
            Ok(admitted) => {
                Ok(charges.window(admitted.tightest).filter(|_| admitted.remaining != u64::MAX).map(|window| {
                    Standing {
                        rule: Arc::clone(&window.rule),
                        remaining: admitted.remaining,
                        is_together: admitted.is_together,
                    }
                }))
            }
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
                    (reason, retry_after) => {
                        let (remaining, is_together) = (refused.remaining, reason == Refusal::SpentTogether);
                        Denial::QuotaSpent { rule, quota, window, remaining, retry_after, meter, is_together }
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

    /// What other processes are asked of a call. `begins`: its places in this process are taken first; else they were.
    pub(crate) fn asked(
        &self,
        call: &Call<'_>,
        payload: Payload<'_>,
        begins: bool,
        now: Tick,
    ) -> Result<Asked, Denial> {
        let mut charges = Charges::new();
        let (mut places, mut dues) = (Box::default(), None);
        if begins {
            let (wanted, owed) = self.owing(&mut charges, call);
            if !wanted.is_empty() || !owed.is_empty() {
                let mut running = self.running.lock();
                // No process may have more of them than all together.
                running.check(&wanted)?;
                let taken = running.take(&wanted);
                let shared = Some((self.outbox.ticket(), Arc::clone(&self.outbox)));
                dues = Some(Arc::new(self.dues(taken, owed, shared, now)));
            }
            let place = |Place { rule, key, most }| SharedPlace { rule, key, most };
            places = wanted.into_iter().map(place).collect();
        }
        self.plan(&mut charges, payload, call)?;
        Ok(Asked { charges: charges.to_shared(), places, dues })
    }

    /// Calls that have ended since this was asked last, where places and windows are those of all processes.
    pub fn take_ended(&self) -> Vec<EndedCall> {
        self.outbox.take()
    }

    /// The places that a call needs while it runs, and what its result will be charged to. Windows of results are pushed to be looked at.
    fn owing<'a>(&'a self, charges: &mut Charges<'a>, call: &Call<'_>) -> (Vec<Place>, Vec<Owed>) {
        let holder = call.bound.caller().principal();
        let (mut wanted, mut owed) = (Vec::new(), Vec::new());
        for group in &self.owing {
            for window in group.windows(call) {
                let (rule, spec, length, overflow) = (&window.rule, &window.spec, window.window, window.salt);
                group.keys(call, &self.tools, window, |key, _| match group.measure {
                    Measure::Results(meter) => {
                        owed.push(Owed { meter, key, spec: *spec, window: length, holder, overflow });
                        charges.push(Charge { key, spec, cost: 1, holder, is_look: true, overflow }, window);
                    }
                    _ => wanted.push(Place { rule: Arc::clone(rule), key, most: spec.quota() }),
                });
            }
        }
        (wanted, owed)
    }

    fn dues(&self, places: Box<[u128]>, owed: Vec<Owed>, shared: Option<(u64, Arc<Outbox>)>, since: Tick) -> Dues {
        let (running, table) = (Arc::clone(&self.running), Arc::clone(&self.table));
        let owed = owed.into_boxed_slice();
        Dues { places, owed, running, table, shared, since, is_settled: AtomicBool::new(false) }
    }

    /// Checks places, meters and charges, then takes and charges them all, or none.
    fn take<'a>(
        &'a self,
        charges: &mut Charges<'a>,
        call: &Call<'_>,
        now: Tick,
    ) -> Result<(Option<Standing>, Option<Arc<Dues>>), Denial> {
        let (wanted, owed) = self.owing(charges, call);
        if wanted.is_empty() && owed.is_empty() {
            return self.charge(charges, now).map(|standing| (standing, None));
        }
        let mut places = self.running.lock();
        places.check(&wanted)?;
        // INVARIANT: whoever holds the lock of a shard never waits for the one of the places.
        let standing = self.charge(charges, now)?;
        let places = places.take(&wanted);
        Ok((standing, Some(Arc::new(self.dues(places, owed, None, now)))))
    }

    /// Takes what the store, or a permit of it, has said of the charges of a call. A refusal gives the target back, for the record.
    pub(crate) fn admit_counted(
        bound: BoundToken,
        target: Target,
        counted: Counted,
        dues: Option<Arc<Dues>>,
    ) -> Result<AdmittedCall, Box<(Target, Denial)>> {
        match counted.standing {
            Ok(standing) => Ok(AdmittedCall { bound, target, standing, dues }),
            Err(denial) => Err(Box::new((target, denial))),
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
