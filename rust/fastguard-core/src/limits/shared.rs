//! Windows that several processes share. The store that holds them is asked outside the core.

use std::sync::Arc;
use std::time::Duration;

use super::admit::{Limits, Standing};
use super::asking::AtHand;
use super::charges::{Charges, PlannedCharge};
use super::dues::Dues;
use super::permits::{Permits, Wanted};
use super::rules::Call;
use super::table::FEW_CHARGES;
use crate::clock::Tick;
use crate::config::{LimitMode, Meter};
use crate::denial::Denial;
use crate::request::Payload;

/// What a call is charged in one shared window.
#[derive(Clone, Debug)]
pub struct SharedCharge {
    /// The rule's name.
    pub rule: Arc<str>,
    /// The window's key, the same in every process that has the deployment's secret.
    pub key: u128,
    /// The most that any window of the length may hold.
    pub quota: u64,
    /// The window's length.
    pub window: Duration,
    /// How much is charged.
    pub cost: u32,
    /// What the window counts of results: then it is only asked for room for 1, and charged by the [`EndedCall`](super::EndedCall).
    pub meter: Option<Meter>,
}

/// A place that a call needs among those that run in all processes, until it has ended.
#[derive(Clone, Debug)]
pub struct SharedPlace {
    /// The rule's name.
    pub rule: Arc<str>,
    /// The key of what runs, the same in every process that has the deployment's secret.
    pub key: u128,
    /// How many may run at once.
    pub most: u32,
}

/// What other processes are asked of a call, and what it owes them then.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) charges: Box<[SharedCharge]>,
    pub(crate) places: Box<[SharedPlace]>,
    pub(crate) dues: Option<Arc<Dues>>,
}

/// What came of asking. Places are those of the charges, and after them those among the calls that run.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// All were charged and taken; the charge with the least left, or any that tells nothing of calls.
    Admitted {
        /// Its place.
        tightest: usize,
        /// What it has left.
        remaining: u64,
    },
    /// One has no room, and none was charged.
    Refused {
        /// Its place.
        place: usize,
        /// What it has left.
        remaining: u64,
        /// In what time it has room; `None` where no time helps.
        retry_after: Option<Duration>,
    },
    /// The store is away, and such calls are refused.
    Unavailable {
        /// When to come back.
        retry_after: Duration,
    },
}

/// The verdict of room limits on a call whose windows are shared.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) standing: Result<Option<Standing>, Denial>,
    /// In which mode the call was counted, for the record.
    pub(crate) mode: &'static str,
}

impl Counted {
    pub(crate) fn new(charges: &[SharedCharge], places: &[SharedPlace], verdict: &Verdict, mode: &'static str) -> Self {
        let unknown = || Denial::LimitsUnavailable { retry_after: Duration::from_secs(1) };
        let place_of = |place: usize| place.checked_sub(charges.len()).and_then(|place| places.get(place));
        let standing = match *verdict {
            Verdict::Admitted { tightest, remaining } => match (charges.get(tightest), place_of(tightest)) {
                (Some(SharedCharge { rule, meter: None, .. }), _) => {
                    Ok(Some(Standing { rule: Arc::clone(rule), remaining, is_together: false }))
                }
                (Some(_), _) | (None, Some(_)) => Ok(None),
                (None, None) => Err(unknown()),
            },
            Verdict::Refused { place, remaining, retry_after } => Err(match (charges.get(place), place_of(place)) {
                (Some(charge), _) => {
                    let (rule, quota, window) = (charge.rule.to_string(), charge.quota, charge.window);
                    let (meter, is_together) = (charge.meter, false);
                    Denial::QuotaSpent { rule, quota, window, remaining, retry_after, meter, is_together }
                }
                (None, Some(full)) => Denial::ConcurrencySpent { rule: full.rule.to_string(), concurrent: full.most },
                (None, None) => unknown(),
            }),
            Verdict::Unavailable { retry_after } => Err(Denial::LimitsUnavailable { retry_after }),
        };
        Self { standing, mode }
    }
}

impl Limits {
    /// Decides a call by the permits at hand; `None` where other processes must be asked, and then nothing is charged. `now`: by
    /// the process's own clock, which is the one that leases end by.
    pub(crate) fn at_hand(&self, call: &Call<'_>, payload: Payload<'_>, now: Tick) -> Result<Option<Counted>, Denial> {
        if self.mode != LimitMode::Leased || self.owing.iter().any(|group| !group.windows(call).is_empty()) {
            return Ok(None);
        }
        let mut charges = Charges::new();
        self.plan(&mut charges, payload, call)?;
        let (mut few, many);
        let wanted = if charges.len() <= FEW_CHARGES {
            few = [Wanted::NONE; FEW_CHARGES];
            for (slot, charge) in few.iter_mut().zip(charges.iter()) {
                *slot = charge.wanted(&self.permits);
            }
            few.get(..charges.len()).unwrap_or_default()
        } else {
            many = charges.iter().map(|charge| charge.wanted(&self.permits)).collect::<Vec<_>>();
            &many
        };
        let (mut tightest, mut remaining) = (0, u64::MAX);
        let found = self.permits.take(wanted, now, |place, left| {
            if left < remaining {
                (tightest, remaining) = (place, left);
            }
        });
        let rule = |place: usize| charges.window(place).map(|window| Arc::clone(&window.rule));
        let standing = match found {
            AtHand::Lacking => return Ok(None),
            AtHand::Taken => Ok(rule(tightest).map(|rule| Standing { rule, remaining, is_together: false })),
            AtHand::Spent(spent) => {
                let Some(charge) = charges.iter().nth(spent.place) else { return Ok(None) };
                let (rule, quota, window) = (charge.rule.to_string(), charge.quota, charge.window);
                // No time helps a call that costs more than the whole quota.
                let retry_after = (u64::from(charge.cost) <= quota).then_some(spent.retry_after);
                let (remaining, meter, is_together) = (spent.remaining, None, false);
                Err(Denial::QuotaSpent { rule, quota, window, remaining, retry_after, meter, is_together })
            }
        };
        Ok(Some(Counted { standing, mode: self.mode.name() }))
    }
}

impl PlannedCharge<'_> {
    fn wanted(&self, permits: &Permits) -> Wanted {
        Wanted {
            key: self.key,
            quota: u32::try_from(self.quota).unwrap_or(u32::MAX),
            window: self.window,
            cost: self.cost,
            is_leased: permits.is_leasable(self.quota, self.window),
        }
    }
}

impl Charges<'_> {
    /// The charges by themselves, to be made outside.
    pub fn to_shared(&self) -> Box<[SharedCharge]> {
        let shared = self.iter().map(|charge| SharedCharge {
            rule: Arc::clone(charge.rule),
            key: charge.key,
            quota: charge.quota,
            window: charge.window,
            cost: charge.cost,
            meter: charge.meter,
        });
        shared.collect()
    }
}
