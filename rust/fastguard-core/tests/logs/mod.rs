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

/// A folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

pub(crate) fn notice(number: u32) -> Event {
    let fields = vec![("subject", format!("subject-{number}").into_boxed_str())];
    Notice { at: UnixTime::from_seconds(1_795_219_200), event_type: "revoked", fields }.into()
}
