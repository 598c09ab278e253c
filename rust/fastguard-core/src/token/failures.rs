//! Failed authentications by address: whoever guesses, or burns our time with signatures, is held off before the next is checked.

use std::net::IpAddr;

use super::addresses::{Addresses, look, spend};
use crate::clock::Tick;
use crate::config::Quota;
use crate::denial::Denial;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The failures of the last while. They outlive a change of the configuration.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Addresses>);

impl Failures {
    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a token that nobody knows yet may be looked at for this address.
    pub(super) fn check(&self, address: IpAddr, rate: Quota, own: Tick) -> Result<(), Denial> {
        let whole_at = self.addresses().look(address, own);
        look(whole_at, rate, own).map_err(|retry_after| Denial::AuthenticationLimited { retry_after })
    }

    /// One has failed.
    pub(super) fn count(&self, address: IpAddr, rate: Quota, own: Tick) {
        // Several at once may come over the allowance together; the next one is held off.
        let _ = spend(self.addresses().of(address, own), rate, own);
    }
}
