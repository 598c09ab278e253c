//! `[limits]` compiled: which rules count a call, and the keys of their windows (decision 4).

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cost::{Tools, weight};
use super::window::WindowSpec;
use crate::bounds::MAX_CLAIMS_DEPTH;
use crate::call::{BoundToken, Caller, Target};
use crate::config::{Config, Counted, Glob, LimitRule, Measure, Meter, Per, Quota, Required};
use crate::hashing::KeyHasher;
use crate::json::Json;
use crate::request::Kind;

/// By so many bits a key is turned before its next part comes in.
const TURN: u32 = 43;

/// One call, as the rules see it.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(super) bound: &'a BoundToken,
    pub(super) target: &'a Target,
    pub(super) session: Option<&'a str>,
    pub(super) peer: Option<IpAddr>,
    /// Parsed by the first rule that reads a claim.
    claims: OnceCell<Option<Json<'a>>>,
    /// Hashed by the first rule that counts by tool.
    tool_key: OnceCell<u128>,
}

impl<'a> Call<'a> {
    pub(crate) const fn new(
        bound: &'a BoundToken,
        target: &'a Target,
        session: Option<&'a str>,
        peer: Option<IpAddr>,
    ) -> Self {
        Self { bound, target, session, peer, claims: OnceCell::new(), tool_key: OnceCell::new() }
    }

    fn claim(&self, name: &str) -> Option<&Json<'a>> {
        let text = || Json::parse(self.bound.caller().claims(), MAX_CLAIMS_DEPTH).ok();
        self.claims.get_or_init(text).as_ref()?.member(name)
    }
}

/// What a rule limits in one window.
#[derive(Debug)]
pub(super) struct CompiledWindow {
    pub(super) rule: Arc<str>,
    pub(super) measure: Measure,
    /// Zero where nothing is counted over time.
    pub(super) window: Duration,
    pub(super) spec: WindowSpec,
    /// What makes two windows the same, across a reload and between rules that name the same thing: all but the count. And the
    /// name of the window that newcomers share.
    pub(super) salt: u128,
}

impl CompiledWindow {
    /// What it counts of results, if that is what it counts.
    pub(super) const fn meter(&self) -> Option<Meter> {
        match self.measure {
            Measure::Results(meter) => Some(meter),
            Measure::Calls | Measure::Running => None,
        }
    }
}

/// A claim that must be there, and the JSON text that it must equal, if any.
type ExpectedClaim = (Box<str>, Option<Box<[u8]>>);

/// Rules that fit the same calls of the same callers.
#[derive(Debug)]
struct Alternative {
    tool: Option<Glob>,
    method: Option<Glob>,
    role: Option<Box<str>>,
    claims: Vec<ExpectedClaim>,
    /// Whether none of these is asked for.
    fits_all: bool,
    windows: Vec<CompiledWindow>,
}

/// Rules that name the same thing: the most specific that fits counts.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) measure: Measure,
    words: Vec<Per>,
    /// Whether it counts once for each role.
    is_of_roles: bool,
    /// Whether it counts calls of tools alone.
    is_of_tools: bool,
    hasher: KeyHasher,
    /// The most specific first.
    alternatives: Vec<Alternative>,
}

impl Alternative {
    fn new(rule: &LimitRule, windows: Vec<CompiledWindow>) -> Self {
        let expected = |required: &Required| match required {
            Required::Present(_) => None,
            Required::Equal(value) => Some(value.to_string().into_bytes().into()),
        };
        Self {
            tool: rule.tool.as_deref().map(Glob::new),
            method: rule.method.as_deref().map(Glob::new),
            role: rule.role.as_deref().map(Box::from),
            claims: rule.claim.iter().map(|(name, required)| (name.as_str().into(), expected(required))).collect(),
            fits_all: rule.tool.is_none() && rule.method.is_none() && rule.role.is_none() && rule.claim.is_empty(),
            windows,
        }
    }

    fn fits(&self, call: &Call<'_>) -> bool {
        self.fits_all || self.fits_some(call)
    }

    // Kept out of the way of rules for all calls, of which most files have no others.
    #[inline(never)]
    fn fits_some(&self, call: &Call<'_>) -> bool {
        let target = call.target;
        self.tool.as_ref().is_none_or(|glob| target.kind() == Kind::Tool && glob.matches(target.name()))
            && self.method.as_ref().is_none_or(|glob| glob.matches(target.method_name()))
            && self.role.as_ref().is_none_or(|role| call.bound.caller().roles().contains(role))
            && self.claims.iter().all(|(name, expected)| {
                call.claim(name).is_some_and(|found| {
                    let is_equal = |text: &[u8]| Json::parse(text, MAX_CLAIMS_DEPTH).is_ok_and(|it| found.is_same(&it));
                    expected.as_deref().is_none_or(is_equal)
                })
            })
    }
}

/// Compiles the rules. The order of the file decides between those that are equally specific.
pub(super) fn compile(config: &Config, hasher: &KeyHasher) -> Vec<Group> {
    let rules = &config.limits.rules;
    let widths = widest(rules);
    let mut ordered: Vec<&LimitRule> = rules.iter().collect();
    ordered.sort_by_key(|rule| {
        Reverse((weight(rule.tool.as_deref()), weight(rule.method.as_deref()), rule.claim.len(), rule.role.is_some()))
    });
    let things: BTreeSet<_> = rules.iter().map(LimitRule::counted).collect();
    let group = |thing: Counted<'_>| {
        let of_thing = || ordered.iter().copied().filter(|rule| rule.counted() == thing);
        let mut firsts: Vec<&LimitRule> = Vec::new();
        for rule in of_thing() {
            if !firsts.iter().any(|first| first.fits_same_as(rule)) {
                firsts.push(rule);
            }
        }
        let alternative = |first: &LimitRule| {
            let same = of_thing().filter(|rule| rule.fits_same_as(first));
            Alternative::new(first, same.flat_map(|rule| windows(rule, &widths, hasher)).collect())
        };
        let alternatives = firsts.into_iter().map(alternative).collect();
        let (measure, words): (_, Vec<Per>) = (thing.0, thing.1.iter().copied().collect());
        let is_of_tools = measure != Measure::Calls || words.contains(&Per::Tool) || words.contains(&Per::Class);
        Group {
            measure,
            is_of_roles: words.contains(&Per::Role),
            words,
            is_of_tools,
            hasher: hasher.clone(),
            alternatives,
        }
    };
    things.into_iter().map(group).collect()
}

/// The text of what makes two windows the same.
fn identity(rule: &LimitRule, window: Duration) -> String {
    format!("{:?} {window:?}", rule.counted())
}

/// The largest quota of each window: rules that share one need counters of one width.
fn widest(rules: &[LimitRule]) -> HashMap<String, u64> {
    let mut widths = HashMap::new();
    for rule in rules {
        for quota in &rule.quota {
            let width: &mut u64 = widths.entry(identity(rule, quota.window())).or_default();
            *width = quota.count().max(*width);
        }
    }
    widths
}

fn windows(rule: &LimitRule, widths: &HashMap<String, u64>, hasher: &KeyHasher) -> Vec<CompiledWindow> {
    let (name, measure): (Arc<str>, _) = (rule.name().into(), rule.measure());
    let compiled = |window: Duration, spec: WindowSpec, identity: &str| CompiledWindow {
        rule: Arc::clone(&name),
        measure,
        window,
        spec,
        salt: hasher.hash(&[identity.as_bytes()]),
    };
    let window = |quota: &Quota| {
        let identity = identity(rule, quota.window());
        // The configuration has refused what cannot be counted; should it ever not have, nothing passes.
        let spec = WindowSpec::new(quota.count(), quota.window()).unwrap_or(WindowSpec::CLOSED);
        let width = match measure {
            // One result may have more than the quota.
            Measure::Results(_) => u64::from(u32::MAX),
            _ => widths.get(&identity).copied().unwrap_or_default(),
        };
        compiled(quota.window(), spec.as_wide_as(width), &identity)
    };
    let at_once = rule
        .concurrent
        .map(|most| compiled(Duration::ZERO, WindowSpec::at_once(most), &identity(rule, Duration::ZERO)));
    rule.quota.iter().map(window).chain(at_once).collect()
}

impl Group {
    /// The windows in which the call counts, if a rule of the group fits it.
    pub(super) fn windows(&self, call: &Call<'_>) -> &[CompiledWindow] {
        if self.is_of_tools && call.target.kind() != Kind::Tool {
            return &[];
        }
        self.alternatives.iter().find(|rule| rule.fits(call)).map_or(&[], |rule| &rule.windows)
    }

    /// One key, or one for each role of the caller.
    pub(super) fn keys(
        &self,
        call: &Call<'_>,
        tools: &Tools,
        window: &CompiledWindow,
        mut with: impl FnMut(u128, Option<&str>),
    ) {
        let roles = call.bound.caller().roles();
        if roles.is_empty() || !self.is_of_roles {
            return with(self.key(call, tools, window, None), None);
        }
        // A role that a token names twice is one role.
        for (place, role) in roles.iter().enumerate() {
            if !roles.iter().take(place).any(|other| other == role) {
                with(self.key(call, tools, window, Some(role)), Some(role));
            }
        }
    }

    /// The words of the key of one window, each with what the call has there.
    pub(super) fn named(
        &self,
        call: &Call<'_>,
        tools: &Tools,
        role: Option<&str>,
    ) -> Vec<(&'static str, Option<Box<str>>)> {
        let caller = call.bound.caller();
        let name = |word: &Per| match word {
            Per::Principal => caller.subject().or(caller.client_id()).map(Box::from),
            Per::Session => call.session.map(Box::from),
            Per::Agent if caller.actor().is_some() => caller.actor().map(Box::from),
            Per::Client | Per::Agent => caller.client_id().map(Box::from),
            Per::Organisation => caller.organisation().map(Box::from),
            Per::Role => role.map(Box::from),
            Per::Tool => Some(call.target.name().into()),
            Per::Class => tools.class(call.target.name()).map(Box::from),
            Per::Method => Some(call.target.method_name().into()),
            Per::Address => call.peer.map(|address| address.to_canonical().to_string().into()),
            Per::Everyone => None,
        };
        self.words.iter().map(|word| (word.name(), name(word))).collect()
    }

    /// The key of one window. What a caller lacks counts for its principal: nobody is free of a rule for want of a name.
    ///
    /// Each part is a keyed hash of its own, so nobody can choose two calls whose parts meet, and what is known of a token is hashed
    /// once. Turned, for two parts that are equal must not take each other away.
    #[inline]
    fn key(&self, call: &Call<'_>, tools: &Tools, window: &CompiledWindow, role: Option<&str>) -> u128 {
        let with = |key: u128, word: &Per| key.rotate_left(TURN) ^ self.part(*word, call, tools, role);
        match &self.words[..] {
            // Most rules have one word, and need no loop.
            [word] => with(window.salt, word),
            words => words.iter().fold(window.salt, with),
        }
    }

    #[inline]
    fn part(&self, word: Per, call: &Call<'_>, tools: &Tools, role: Option<&str>) -> u128 {
        let caller = call.bound.caller();
        match word {
            Per::Everyone => 0,
            Per::Principal => caller.principal(),
            Per::Agent if caller.actor().is_some() => self.of_issuer(b"actor", caller, caller.actor()),
            Per::Client | Per::Agent => caller.client_key(),
            Per::Organisation => self.of_issuer(b"organisation", caller, caller.organisation()),
            Per::Role => self.of_issuer(b"role", caller, role),
            Per::Session => self.hash(call.session.unwrap_or_default().as_bytes()),
            Per::Tool => *call.tool_key.get_or_init(|| self.hash(call.target.name().as_bytes())),
            Per::Class => self.hash(tools.class(call.target.name()).unwrap_or_default().as_bytes()),
            Per::Method => self.hash(call.target.method_name().as_bytes()),
            Per::Address => self.hash(call.peer.map(network_of).as_ref().map_or(&[], |network| &network[..])),
        }
    }

    // Kept out of the way of parts that are known: so is the next one.
    #[inline(never)]
    fn hash(&self, part: &[u8]) -> u128 {
        self.hasher.hash(&[part])
    }

    #[inline(never)]
    fn of_issuer(&self, mark: &[u8], caller: &Caller, name: Option<&str>) -> u128 {
        match name {
            Some(name) => self.hasher.hash(&[mark, caller.issuer().as_bytes(), name.as_bytes()]),
            None => self.hasher.hash(&[mark, &caller.principal().to_le_bytes()]),
        }
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
