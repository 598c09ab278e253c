//! How old a token may be, and how long it may live.

use std::time::Duration;

use super::claims::Caller;
use super::issuer::Issuer;
use super::verify::Tokens;
use crate::clock::UnixTime;
use crate::denial::Denial;

impl Tokens {
    /// `exp`, the age and `nbf` at the time of the call. RFC 7519 §4.1.4: a token is dead *on* its `exp`, so equality is refused.
    pub(super) fn check_times(&self, caller: &Caller, now: UnixTime) -> Result<(), Denial> {
        if now >= caller.dead_at.plus(self.leeway) {
            return Err(self.death_of(caller, now));
        }
        match caller.valid_from {
            Some(valid_from) if now.plus(self.leeway) < valid_from => Err(Denial::TokenNotYetValid { valid_from }),
            _ => Ok(()),
        }
    }

    fn death_of(&self, caller: &Caller, now: UnixTime) -> Denial {
        match caller.issued_at {
            Some(issued_at) if now < caller.expires_at.plus(self.leeway) => Denial::TokenTooOld { issued_at },
            _ => Denial::TokenExpired { expired_at: caller.expires_at },
        }
    }

    /// `iat` is not in the future, and `exp` not too far from it; from now where there is no `iat`.
    pub(super) fn check_lifetime(&self, issuer: &Issuer, caller: &Caller, now: UnixTime) -> Result<(), Denial> {
        if let Some(issued_at) = caller.issued_at
            && now.plus(self.leeway) < issued_at
        {
            return Err(Denial::TokenFromFuture { issued_at });
        }
        let lifetime = caller.expires_at.since(caller.issued_at.unwrap_or(now));
        if lifetime > issuer.options.max_lifetime {
            return Err(Denial::LifetimeTooLong { lifetime });
        }
        self.check_scope_lifetimes(issuer, caller, lifetime)
    }

    /// A token is as dangerous as the strongest of its scopes, so that one decides for all of it.
    fn check_scope_lifetimes(&self, issuer: &Issuer, caller: &Caller, lifetime: Duration) -> Result<(), Denial> {
        let exceeded = issuer.options.scope_lifetimes.iter().filter(|(_, longest)| lifetime > *longest);
        for (glob, longest) in exceeded {
            let named = caller.scopes.iter().map(|scope| &**scope).find(|scope| glob.matches(scope));
            // A scope that another one implies is granted as well.
            if let Some(scope) = named.or_else(|| self.scopes.granted_like(glob, &caller.granted)) {
                return Err(Denial::ScopeLifetimeTooLong { scope: scope.to_owned(), lifetime, longest: *longest });
            }
        }
        Ok(())
    }
}
