//! Signed requests (RFC 9421), and digests of their bodies (RFC 9530).

mod component;
mod dictionary;
mod digest;
mod input;
mod key;
mod message;
mod verify;

pub use digest::check_digest;
pub use input::{SignatureInput, read_signatures};
pub use key::{SignatureAlgorithm, SignatureAlgorithms};
pub use message::{SignedMessage, StartLine};
pub(super) use verify::Signatures;
