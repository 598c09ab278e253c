//! Windows that several processes share. The store that holds them is asked outside the core.

use std::sync::Arc;
use std::time::Duration;

use super::admit::Standing;
use super::charges::Charges;
use crate::denial::Denial;

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
}

/// What came of asking. Places are those of the charges.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// All were charged; the one with the least left.
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
    pub(crate) fn new(charges: &[SharedCharge], verdict: &Verdict, mode: &'static str) -> Self {
        let unknown = || Denial::LimitsUnavailable { retry_after: Duration::from_secs(1) };
        let standing = match *verdict {
            Verdict::Admitted { tightest, remaining } => {
                { charges.get(tightest).map(|charge| Some(Standing { rule: Arc::clone(&charge.rule), remaining })) }
                    .ok_or_else(unknown)
            }
            Verdict::Refused { place, remaining, retry_after } => {
                Err(charges.get(place).map_or_else(unknown, |charge| {
                    let (rule, quota, window) = (charge.rule.to_string(), charge.quota, charge.window);
                    Denial::QuotaSpent { rule, quota, window, remaining, retry_after, meter: None }
                }))
            }
            Verdict::Unavailable { retry_after } => Err(Denial::LimitsUnavailable { retry_after }),
        };
        Self { standing, mode }
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
        });
        shared.collect()
    }
}
