//! Which windows a call counts in (decision 4).

use std::net::IpAddr;
use std::sync::Arc;

use super::table::{Charge, Refusal, WindowTable};
use super::window::WindowSpec;
use crate::call::{BoundToken, Target};
use crate::clock::Tick;
use crate::config::{Config, Glob, LimitRule, Per};
use crate::denial::Denial;
use crate::hashing::KeyHasher;
use crate::request::Kind;

/// Most rules that one call may count in: its charges stand on the stack.
pub const MAX_RULES: usize = 16;

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
    rules: Vec<CompiledRule>,
    table: Arc<WindowTable>,
    hasher: KeyHasher,
}

#[derive(Debug)]
struct CompiledRule {
    name: Arc<str>,
    /// What makes two rules the same across a reload: all but the quota's count.
    identity: Box<[u8]>,
    per: Vec<Per>,
    spec: WindowSpec,
    tool: Option<Glob>,
    method: Option<Glob>,
}

impl CompiledRule {
    fn new(rule: &LimitRule) -> Self {
        let narrowed = (rule.tool.as_deref(), rule.method.as_deref());
        let identity = format!("{:?} {narrowed:?} {:?}", rule.per, rule.quota.window());
        Self {
            name: rule.name().into(),
            identity: identity.into_bytes().into(),
            per: rule.per.clone(),
            // The configuration has refused what cannot be counted; should it ever not have, nothing passes.
            spec: WindowSpec::new(rule.quota.count(), rule.quota.window()).unwrap_or(WindowSpec::CLOSED),
            tool: rule.tool.as_deref().map(Glob::new),
            method: rule.method.as_deref().map(Glob::new),
        }
    }

    /// A rule without `tool` and `method` counts every message; one per tool counts calls of tools.
    fn counts(&self, target: &Target) -> bool {
        let is_tool = target.kind() == Kind::Tool;
        (is_tool || !self.per.contains(&Per::Tool))
            && self.tool.as_ref().is_none_or(|glob| is_tool && glob.matches(target.name()))
            && self.method.as_ref().is_none_or(|glob| glob.matches(target.method_name()))
    }

    /// The key of the caller's window. Session and tool subdivide the principal, because callers can make new ones.
    fn key(&self, hasher: &KeyHasher, call: &Counted<'_>) -> u128 {
        let caller = call.bound.caller();
        let principal = caller.principal().to_le_bytes();
        let mut parts: [&[u8]; 12] = [&[]; 12];
        let address = call.peer.map(network_of);
        let mut count = 0;
        let mut push = |part| {
            if let Some(slot) = parts.get_mut(count) {
                *slot = part;
                count += 1;
            }
        };
        push(&self.identity);
        for per in &self.per {
            match per {
                Per::Principal => push(&principal),
                Per::Session => {
                    push(&principal);
                    push(call.session.unwrap_or_default().as_bytes());
                }
                Per::Client => {
                    push(caller.issuer().as_bytes());
                    push(caller.client_id().unwrap_or_default().as_bytes());
                }
                Per::Tool => {
                    push(&principal);
                    push(call.target.name().as_bytes());
                }
                Per::Method => push(call.target.method_name().as_bytes()),
                Per::Address => push(address.as_ref().map_or(&[], |address| &address[..])),
                Per::Everyone => {}
            }
        }
        hasher.hash(parts.get(..count).unwrap_or_default())
    }
}

/// IPv6 counts by /64 (decision 14): a household has that many addresses.
fn network_of(address: IpAddr) -> [u8; 9] {
    let mut network = [0; 9];
    let (mark, octets): (u8, &[u8]) = match address.to_canonical() {
        IpAddr::V4(address) => (4, &address.octets()),
        IpAddr::V6(address) => (6, &address.octets()),
    };
    for (slot, octet) in network.iter_mut().zip(std::iter::once(&mark).chain(octets)) {
        *slot = *octet;
    }
    network
}

/// One call, as the rules see it.
#[derive(Debug)]
struct Counted<'a> {
    bound: &'a BoundToken,
    target: &'a Target,
    session: Option<&'a str>,
    peer: Option<IpAddr>,
}

impl Limits {
    /// Compiles `[limits]`.
    pub fn new(config: &Config, hasher: KeyHasher) -> Self {
        let table = Arc::new(WindowTable::new(config.limits.max_keys));
        Self { rules: config.limits.rules.iter().map(CompiledRule::new).collect(), table, hasher }
    }

    /// Compiles a changed `[limits]`. Windows of rules that differ in nothing but their count keep what they counted.
    #[must_use]
    pub fn reload(&self, config: &Config) -> Self {
        let rules = config.limits.rules.iter().map(CompiledRule::new).collect();
        Self { rules, table: Arc::clone(&self.table), hasher: self.hasher.clone() }
    }

    /// The windows.
    pub fn table(&self) -> &WindowTable {
        &self.table
    }

    /// Checks the windows of every rule that counts the call, then charges them all, or none. A refusal gives the target
    /// back, for the record.
    pub fn admit(
        &self,
        bound: BoundToken,
        target: Target,
        session: Option<&str>,
        peer: Option<IpAddr>,
        now: Tick,
    ) -> Result<AdmittedCall, Box<(Target, Denial)>> {
        let charged = self.charge_all(&Counted { bound: &bound, target: &target, session, peer }, now);
        match charged {
            Ok(standing) => Ok(AdmittedCall { bound, target, standing }),
            Err(denial) => Err(Box::new((target, denial))),
        }
    }

    fn charge_all(&self, call: &Counted<'_>, now: Tick) -> Result<Option<Standing>, Denial> {
        let holder = call.bound.caller().principal();
        let mut fitting: [Option<&CompiledRule>; MAX_RULES] = [None; MAX_RULES];
        let rules = self.rules.iter().filter(|rule| rule.counts(call.target));
        let mut count = 0;
        for (slot, rule) in fitting.iter_mut().zip(rules) {
            *slot = Some(rule);
            count += 1;
        }
        Ok(match (count, fitting.first().copied().flatten()) {
            (0, _) | (_, None) => None,
            (1, Some(rule)) => {
                let charge = Charge { key: rule.key(&self.hasher, call), spec: &rule.spec, cost: 1, holder };
                Some(self.charge(&[charge], &fitting, now)?)
            }
            (count, Some(first)) => {
                let empty = Charge { key: 0, spec: &first.spec, cost: 0, holder };
                let mut charges = [empty; MAX_RULES];
                for (slot, rule) in charges.iter_mut().zip(fitting.iter().flatten()) {
                    *slot = Charge { key: rule.key(&self.hasher, call), spec: &rule.spec, cost: 1, holder };
                }
                Some(self.charge(charges.get(..count).unwrap_or_default(), &fitting, now)?)
            }
        })
    }

    fn charge(&self, charges: &[Charge<'_>], rules: &[Option<&CompiledRule>], now: Tick) -> Result<Standing, Denial> {
        let name =
            |index: usize| rules.get(index).copied().flatten().map_or_else(Arc::default, |rule| Arc::clone(&rule.name));
        match self.table.admit(charges, now) {
            Ok(admitted) => Ok(Standing { rule: name(admitted.tightest), remaining: admitted.remaining }),
            Err(refused) => {
                let (rule, retry_after) = (name(refused.index).to_string(), refused.retry_after);
                Err(match refused.reason {
                    Refusal::Spent => Denial::QuotaSpent { rule, retry_after },
                    Refusal::TableFull | Refusal::ShareFull => Denial::WindowsFull { rule, retry_after },
                })
            }
        }
    }
}
