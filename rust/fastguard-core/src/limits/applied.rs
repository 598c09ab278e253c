//! How every rule stands that counts a call, for whoever asks why it is decided as it is.

use std::sync::Arc;
use std::time::Duration;

use super::admit::Limits;
use super::charges::Charges;
use super::rules::Call;
use super::table::Charge;
use crate::clock::Tick;
use crate::config::Measure;
use crate::denial::Denial;
use crate::request::{Kind, Payload};

/// How one window, or one count of calls that run, stands for a call. Windows of other processes are not known here.
#[derive(Clone, Debug)]
pub struct AppliedLimit {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Of whom and what it has a window of its own: the words of `per`, each with what the call has there.
    pub per: Vec<(&'static str, Option<Box<str>>)>,
    /// What it counts: `calls`, `rows`, `bytes`, or `running` calls.
    pub unit: &'static str,
    /// How many.
    pub quota: u64,
    /// In which time; zero where it counts what runs.
    pub window: Duration,
    /// What the call is charged at once.
    pub cost: u32,
    /// The key, the same in every process that has the deployment's secret.
    pub key: u128,
    /// What is left in this process.
    pub remaining: u64,
    /// In what time there is room for the call in this process; `None` where there is, or no time helps.
    pub retry_after: Option<Duration>,
}

impl AppliedLimit {
    /// Whether the call has room here.
    pub fn has_room(&self) -> bool {
        self.remaining >= u64::from(self.cost.max(1))
    }
}

impl Limits {
    /// Every rule that counts the call, in the order in which they are compiled. Charges nothing.
    pub(crate) fn applied(
        &self,
        call: &Call<'_>,
        payload: Payload<'_>,
        now: Tick,
    ) -> Result<Vec<AppliedLimit>, Denial> {
        // What cannot be charged is refused like the call itself.
        self.plan(&mut Charges::new(), payload, call)?;
        let cost = if call.target.kind() == Kind::Tool { self.tools.cost(call.target.name(), payload) } else { Ok(1) };
        let (cost, holder) = (cost.unwrap_or(u32::MAX), call.bound.caller().principal());
        let mut applied = Vec::new();
        for group in self.groups.iter().chain(&self.owing) {
            for window in group.windows(call) {
                group.keys(call, &self.tools, window, |key, role| {
                    let (unit, cost) = match group.measure {
                        Measure::Calls => ("calls", cost),
                        Measure::Running => ("running", 1),
                        Measure::Results(meter) => (meter.name(), 0),
                    };
                    let (spec, overflow) = (&window.spec, window.salt);
                    let asked = Charge { key, spec, cost: cost.max(1), holder, is_look: true, overflow };
                    let (remaining, retry_after) = match group.measure {
                        Measure::Running => (self.running.lock().left(key, spec.quota()), None),
                        _ => self.table.look(&asked, now),
                    };
                    applied.push(AppliedLimit {
                        rule: Arc::clone(&window.rule),
                        per: group.named(call, &self.tools, role),
                        unit,
                        quota: u64::from(spec.quota()),
                        window: window.window,
                        cost,
                        key,
                        remaining,
                        retry_after,
                    });
                });
            }
        }
        Ok(applied)
    }
}
