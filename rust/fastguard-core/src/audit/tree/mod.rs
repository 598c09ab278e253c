//! The log as others see it: tiles of hashes, signed checkpoints, and proofs.
//!
//! Tiles and their paths are those of C2SP tlog-tiles, checkpoints those of C2SP tlog-checkpoint, proofs those of
//! C2SP tlog-proof. Entries stay lines of JSON: a bundle of entries holds at most 65,535 bytes of each, a line more.

pub(super) mod check;
pub(super) mod note;
pub(super) mod proof;
pub(super) mod publish;
pub(super) mod tiles;
