//! What the journal asks of files.

use std::io;

use crate::audit::merkle::Hash;

/// Where files are made.
pub(in crate::audit) trait Store: Send {
    /// An open file.
    type File: File;
    /// From how many bytes on lines are written by [`Self::beside`], if more wait.
    const MIN_BYTES_BESIDE: usize;
    /// Does `work`, which waits for the disk, and `meanwhile`, which does not; at once where it can.
    fn beside<W: Send, M>(work: impl FnMut() -> W + Send, meanwhile: impl FnOnce() -> M) -> (W, M);
    /// Makes file `number`, which must not exist; durable when it returns.
    fn create(&mut self, number: u32) -> io::Result<Self::File>;
    /// Removes file `number`.
    fn remove(&mut self, number: u32) -> io::Result<()>;
    /// Writes the whole file `path` in place of the one before it, so that it is never seen in part; durable when
    /// it returns, where `durable` says so.
    fn put(&mut self, path: &str, bytes: &[u8], durable: bool) -> io::Result<()>;
    /// Removes the folder `path` and what is in it, if it is there.
    fn discard(&mut self, path: &str);
    /// Whether the log may hold records: its birth is entered in the registry of its place, or it has none.
    fn is_entered(&self) -> bool {
        true
    }
    /// Enters the birth of the log, whose first line is durable.
    fn enter_birth(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Enters the end of the log, which is sealed and signed.
    fn enter_end(&mut self, _records: u64, _root: &Hash) -> io::Result<()> {
        Ok(())
    }
}

/// A file that only grows.
pub(in crate::audit) trait File: Send {
    /// Writes all of `bytes` at the end, which is at `length`; an error where it is elsewhere by now.
    fn append(&mut self, length: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts it to `length` bytes, if it is longer.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}
