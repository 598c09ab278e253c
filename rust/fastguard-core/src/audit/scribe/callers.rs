//! What lines say of callers, kept as it is written: the next call is often one with the same token.

use std::sync::{Arc, Weak};

use super::{write_grant, write_identity};
use crate::audit::line::Object;
use crate::audit::pseudonyms::Veil;
use crate::call::Caller;

/// Callers that are known at once; each has its place, where it meets others.
const PLACES: usize = 64;
/// What is longer is written anew each time: a token's scopes may take some MiB.
const MAX_KEPT_BYTES: usize = 4 * 1024;

/// Members of the last callers. Of pseudonyms nothing is kept: their keys can be destroyed.
pub(super) struct Callers {
    places: Vec<Option<Kept>>,
}

struct Kept {
    /// Holds the memory of the caller, so that no other one is taken for it, and nothing in it.
    caller: Weak<Caller>,
    members: Vec<u8>,
    /// How many of the bytes say who it is; the others say what it may do.
    identity: usize,
}

impl Callers {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| None).collect() }
    }

    /// Writes who a caller is.
    pub(super) fn write_identity(&mut self, caller: &Arc<Caller>, object: &mut Object<'_>) {
        match self.kept(caller) {
            Some(kept) => object.members(kept.members.get(..kept.identity).unwrap_or_default()),
            None => write_identity(caller, Veil::None, object),
        }
    }

    /// Writes who a caller is and what its token lets it do.
    pub(super) fn write(&mut self, caller: &Arc<Caller>, object: &mut Object<'_>) {
        if let Some(kept) = self.kept(caller) {
            return object.members(&kept.members);
        }
        write_identity(caller, Veil::None, object);
        write_grant(caller, Veil::None, object);
    }

    fn kept(&mut self, caller: &Arc<Caller>) -> Option<&Kept> {
        let address = Arc::as_ptr(caller).addr();
        let place = self.places.get_mut((address >> 6 ^ address >> 12) % PLACES)?;
        if !place.as_ref().is_some_and(|kept| std::ptr::eq(kept.caller.as_ptr(), Arc::as_ptr(caller))) {
            let mut members = Vec::new();
            write_identity(caller, Veil::None, &mut Object::inside(&mut members));
            let identity = members.len();
            write_grant(caller, Veil::None, &mut Object::inside(&mut members));
            if members.len() > MAX_KEPT_BYTES {
                return None;
            }
            *place = Some(Kept { caller: Arc::downgrade(caller), members, identity });
        }
        place.as_ref()
    }
}
