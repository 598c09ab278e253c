//! Room 2: confirms that whoever presents a token is its holder.

use crate::call::{Caller, VerifiedToken};
use crate::denial::Denial;
use crate::request::Scheme;

/// Proof that a token is used by its holder, as far as the token is bound to one.
#[derive(Clone, Debug)]
pub struct BoundToken {
    token: VerifiedToken,
}

impl BoundToken {
    /// The verified token.
    pub const fn token(&self) -> &VerifiedToken {
        &self.token
    }

    /// The caller that the token names.
    pub fn caller(&self) -> &Caller {
        self.token.caller()
    }
}

/// Room 2, compiled from one configuration.
#[derive(Debug, Default)]
pub struct Bindings {}

impl Bindings {
    /// A bound token never passes as a bearer token (RFC 9449 §7.2), nor an unbound one under the DPoP scheme.
    /// Proofs of possession cannot be verified yet, so every bound token is refused.
    pub fn confirm(&self, token: VerifiedToken, scheme: Scheme) -> Result<BoundToken, Denial> {
        use crate::token::Confirmation;

        let confirmations = token.confirmations();
        if let Some(Confirmation::Unknown(member)) =
            confirmations.iter().find(|confirmation| matches!(confirmation, Confirmation::Unknown(_)))
        {
            return Err(Denial::BindingUnknown { member: member.to_string() });
        }
        match confirmations.first() {
            Some(Confirmation::Key(_)) => Err(Denial::ProofMissing { binding: "jkt" }),
            Some(_) => Err(Denial::ProofMissing { binding: "x5t#S256" }),
            None if scheme == Scheme::Dpop => Err(Denial::BindingMissing),
            None => Ok(BoundToken { token }),
        }
    }
}
