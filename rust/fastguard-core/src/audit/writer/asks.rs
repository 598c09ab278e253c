//! What processes ask of whoever writes to the registry: a file each in its folder `asks`, so that one who has the lock enters for
//! all who wait for it. They say nothing by themselves: what is entered, the logs say.

use std::fs;
use std::io;
use std::path::Path;

use super::folder::{open_folder, private_file};

const ASKS: &str = "asks";
/// Most that are looked at under one lock.
const MAX_ASKS: usize = 1_024;

/// Leaves word. Where it cannot, its process enters for itself.
pub(in crate::audit) fn ask(registry: &Path, name: &str) -> io::Result<()> {
    let asks = registry.join(ASKS);
    let leave = || private_file().write(true).create(true).truncate(false).open(asks.join(name)).map(drop);
    match leave() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            open_folder(&asks)?;
            leave()
        }
        left => left,
    }
}

/// What was asked, in no order.
pub(in crate::audit) fn asked(registry: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(registry.join(ASKS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.take(MAX_ASKS).map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

/// Whether somebody has done what was asked.
pub(in crate::audit) fn is_answered(registry: &Path, name: &str) -> bool {
    matches!(registry.join(ASKS).join(name).try_exists(), Ok(false))
}

/// Takes back what was asked, if it still is.
pub(in crate::audit) fn answered(registry: &Path, name: &str) {
    // One that stays is entered twice, which says nothing else than once.
    let _ = fs::remove_file(registry.join(ASKS).join(name));
}
