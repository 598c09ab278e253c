//! What tests of several logs share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fastguard_core::UnixTime;
use fastguard_core::audit::{Event, Notice};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of a test's own, which is not there yet.
pub(crate) fn place_of(tests: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{tests}-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

pub(crate) fn notice(number: u32) -> Event {
    let fields = vec![("subject", format!("subject-{number}").into_boxed_str())];
    Notice { at: UnixTime::from_seconds(1_795_219_200), event_type: "revoked", fields }.into()
}
