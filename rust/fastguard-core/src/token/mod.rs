//! Room 1: verifies the token. Signature first, then the claims; what was verified once is found again by its text.

mod addresses;
mod cache;
mod claims;
mod failures;
mod introspection;
mod issuer;
mod keys;
mod lookups;
mod outside;
mod revocation;
mod times;
mod verify;

pub use claims::{Caller, Confirmation};
pub use issuer::{IssuerOptions, KeyPlace, KeySource, media_type};
pub use outside::{LOCAL_AUDIENCE, unavailable};
pub use revocation::{Revocation, Revocations};
pub use verify::{Answered, Attached, Attested, Detach, Identity, Need, Tokens, Unverified, VerifiedToken};
