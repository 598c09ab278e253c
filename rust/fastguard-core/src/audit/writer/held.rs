//! Who writes to a folder: an advisory lock on a file in it, which the kernel takes back when its process ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::folder::private_file;
use crate::audit::queue::lock;
use crate::sync::Mutex;

/// The file whose lock says that the folder has a writer.
const LOCK: &str = "lock";

/// A folder that nobody else writes to. Shared by a log and its writer's thread, so that neither outlives it.
#[derive(Clone)]
pub(in crate::audit) struct Held(Arc<Mutex<Option<File>>>);

impl Held {
    /// Holds the folder; `None` where a living process does.
    pub(in crate::audit) fn take(folder: &Path) -> io::Result<Option<Self>> {
        Ok(locked(folder)?.map(|file| Self(Arc::new(Mutex::new(Some(file))))))
    }

    /// Holds the folder again where its file was taken away: with the folder, or by somebody who removes files.
    pub(super) fn renew(&self, folder: &Path) -> io::Result<()> {
        let mut held = lock(&self.0);
        if held.as_ref().is_some_and(|file| is_at(file, &folder.join(LOCK))) {
            return Ok(());
        }
        *held = locked(folder)?;
        if held.is_some() { Ok(()) } else { Err(io::Error::other("another process writes to the folder")) }
    }

    /// Holds the folder as soon as others let go of it; `None` where none has for so long, or where it `is_needless` by now. Who
    /// waits stands in the kernel's queue, and not in a race of those who look again and again.
    pub(in crate::audit) fn take_soon(
        folder: &Path,
        patience: Duration,
        is_needless: impl Fn() -> bool,
    ) -> io::Result<Option<Self>> {
        const PAUSE: Duration = Duration::from_millis(20);
        if let Some(held) = Self::take(folder)? {
            return Ok(Some(held));
        }
        let began = Instant::now();
        // Waiting for a lock cannot be given up; the thread that does so can. What it gets too late it lets go.
        let Some(waiter) = Waiter::new() else { return Self::take_by_looking(folder, patience, is_needless) };
        let (given, taken) = mpsc::sync_channel(0);
        let folder = folder.to_owned();
        thread::Builder::new().name("fastguard-lock".to_owned()).spawn(move || {
            let locked = locked_in_turn(&folder);
            drop(waiter);
            if let Err(mpsc::SendError(Ok(late))) = given.send(locked) {
                // Where this fails, closing the file lets go of it.
                let _ = late.unlock();
            }
        })?;
        loop {
            match taken.recv_timeout(PAUSE) {
                Ok(locked) => return Ok(Some(Self(Arc::new(Mutex::new(Some(locked?)))))),
                Err(mpsc::RecvTimeoutError::Timeout) if began.elapsed() < patience && !is_needless() => {}
                Err(mpsc::RecvTimeoutError::Timeout) => return Ok(None),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the thread that waits for a lock is gone"));
                }
            }
        }
    }

    /// Where threads wait already that were given up: whoever has the lock stands still.
    fn take_by_looking(folder: &Path, patience: Duration, is_needless: impl Fn() -> bool) -> io::Result<Option<Self>> {
        const PAUSE: Duration = Duration::from_millis(10);
        let began = Instant::now();
        loop {
            match Self::take(folder)? {
                None if began.elapsed() < patience && !is_needless() => thread::sleep(PAUSE),
                taken => return Ok(taken),
            }
        }
    }

    /// Lets others have it, whoever else has a copy of the open file: a child process that was made meanwhile.
    pub(in crate::audit) fn unlock(&self) -> io::Result<()> {
        lock(&self.0).take().map_or(Ok(()), |file| file.unlock())
    }

    /// Lets others have it. In a child process this closes the child's copy alone; the parent holds the folder on.
    pub(in crate::audit) fn let_go(&self) {
        // A thread that only the parent has may have held the mutex at the fork: then the copy stays until the child ends,
        // which keeps others from the folder longer than needed, and never the other way round.
        if let Ok(mut held) = self.0.try_lock() {
            *held = None;
        }
    }
}

/// A thread that waits for a lock, of which a process has few.
struct Waiter;

static WAITERS: AtomicUsize = AtomicUsize::new(0);

impl Waiter {
    fn new() -> Option<Self> {
        const MOST: usize = 8;
        let waiter = Self;
        // Counted first, so that it is given back where there are too many.
        (WAITERS.fetch_add(1, Ordering::Relaxed) < MOST).then_some(waiter)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        WAITERS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock_file(folder: &Path) -> io::Result<File> {
    private_file().write(true).create(true).truncate(false).open(folder.join(LOCK))
}

fn locked_in_turn(folder: &Path) -> io::Result<File> {
    loop {
        let file = lock_file(folder)?;
        file.lock()?;
        if is_at(&file, &folder.join(LOCK)) {
            return Ok(file);
        }
    }
}

fn locked(folder: &Path) -> io::Result<Option<File>> {
    let file = lock_file(folder)?;
    match file.try_lock() {
        // Whoever found the folder empty may have removed it and its file meanwhile.
        Ok(()) => Ok(is_at(&file, &folder.join(LOCK)).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether `path` is still the name of the open file.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => place(open) == place(named),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(super) fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

/// Removes the file of the lock, where its folder is to go.
pub(super) fn remove(folder: &Path) {
    // Where it stays, the folder does.
    let _ = std::fs::remove_file(folder.join(LOCK));
}
