//! Allowances of addresses: how much strangers may cause before their tokens are known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::bounds::MAX_COUNTED_ADDRESSES;
use crate::clock::Tick;
use crate::config::Quota;

/// When the allowance of each address will be whole again. Those that are whole are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    whole_at: HashMap<u128, Tick>,
    swept_at: Tick,
}

impl Addresses {
    /// The allowance of an address. Newcomers share one while all places are taken.
    pub(super) fn of(&mut self, address: IpAddr, own: Tick) -> &mut Tick {
        let key = self.slot(address, own);
        self.whole_at.entry(key).or_default()
    }

    /// The same to look at; whole where nothing is known of the address.
    pub(super) fn look(&mut self, address: IpAddr, own: Tick) -> Tick {
        let key = self.slot(address, own);
        self.whole_at.get(&key).copied().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.whole_at.len()
    }

    /// Under which key an address counts.
    fn slot(&mut self, address: IpAddr, own: Tick) -> u128 {
        const SHARED: u128 = u128::MAX;
        let key = match address.to_canonical() {
            // IPv6 counts by /64 (decision 14); 64 bits are left of it, so that no IPv4 address looks like one.
            IpAddr::V6(address) => address.to_bits() >> 64,
            IpAddr::V4(address) => (1 << 64) | u128::from(address.to_bits()),
        };
        if self.whole_at.contains_key(&key) || self.whole_at.len() < MAX_COUNTED_ADDRESSES {
            return key;
        }
        if own.since(self.swept_at) >= Duration::from_secs(1) {
            self.swept_at = own;
            self.whole_at.retain(|_, whole_at| *whole_at > own);
        }
        if self.whole_at.len() < MAX_COUNTED_ADDRESSES { key } else { SHARED }
    }
}

/// Takes one of an allowance of `count`, which grows back by one in each part of the window. `Err`: in what time one is there.
pub(super) fn spend(whole_at: &mut Tick, rate: Quota, own: Tick) -> Result<(), Duration> {
    look(*whole_at, rate, own)?;
    *whole_at = (*whole_at).max(own).plus(step(rate));
    Ok(())
}

/// Whether one is there. `Err`: in what time.
pub(super) fn look(whole_at: Tick, rate: Quota, own: Tick) -> Result<(), Duration> {
    let allowed = rate.window().saturating_sub(step(rate));
    let debt = whole_at.since(own);
    if debt > allowed { Err(debt.saturating_sub(allowed)) } else { Ok(()) }
}

fn step(rate: Quota) -> Duration {
    rate.window() / u32::try_from(rate.count()).unwrap_or(u32::MAX).max(1)
}
