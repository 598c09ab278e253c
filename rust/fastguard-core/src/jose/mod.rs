//! JSON Object Signing: below the rooms, knows nothing of issuers or claims.

mod algorithm;
mod backend;
mod base64url;
mod compact;
mod key;
mod keyset;
mod roca;
mod thumbprint;

pub use algorithm::{Algorithm, Algorithms};
pub(crate) use backend::is_same;
pub use backend::{Hasher, Mac, random, sha256, sha512};
pub use base64url::decode_segment;
pub(crate) use base64url::encode_segment;
pub use compact::{Compact, Header, verify_compact};
pub use key::{HeaderKey, Key, KeyError};
pub use keyset::{KeySet, KeySetError, SkipReason, SkippedKey};
pub use thumbprint::{digest_name, is_published};
