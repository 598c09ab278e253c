//! Witnesses: who signs a log's checkpoints as well, having seen that the log has only grown since the last one that it signed
//! (C2SP tlog-cosignature). A log whose checkpoints a witness has signed cannot show one past to some and another to others.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::digest::sha256;
use super::line::in_hex;
use super::prove::prove_growth;
use super::tree::note::{Checkpoint, Cosigner, Key};
use super::tree::proof::is_consistent;
use super::tree::publish::CHECKPOINT;
use super::writer::{self, Held};
use crate::denial::Fault;

/// How long one run waits for another of the same witness.
const PATIENCE: Duration = Duration::from_secs(10);

/// A witness: its name, its key, and what it has signed.
pub struct Witness {
    cosigner: Cosigner,
    folder: PathBuf,
}

/// A checkpoint with the witness's signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cosigned {
    /// The note, with the signatures that it had and the witness's.
    pub note: String,
    /// How many records it covers.
    pub size: u64,
    /// How many the last one had that the witness has signed; `None` where it has never seen the log.
    pub since: Option<u64>,
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Witness {
    /// Opens a witness whose memory is in `folder`: `key`, made where there is none, and the last note of each log.
    pub fn open(name: &str, folder: &Path) -> Result<Self, Fault> {
        let wrong = |reason: &str| Fault::AuditFailed { reason: reason.to_owned() };
        writer::open_folder(folder).map_err(|error| writer::failed(folder, &error))?;
        let seed = writer::read_or_make_key(&folder.join("key"))?;
        let cosigner = Cosigner::new(name, &seed).ok_or_else(|| wrong("a name without spaces and `+` is needed"))?;
        Ok(Self { cosigner, folder: folder.to_owned() })
    }

    /// The witness's public key, as signed notes name it.
    pub const fn key(&self) -> &Key {
        self.cosigner.key()
    }

    /// Signs the last checkpoint of the log in the folder `log`, which `key` has signed, where the log has only grown since the
    /// last one. What is signed is remembered first: no interruption makes the witness sign two pasts.
    pub fn cosign(&self, log: &Path, key: &Key) -> io::Result<Cosigned> {
        let held = Held::take_soon(&self.folder, PATIENCE, || false)?;
        let held = held.ok_or_else(|| io::Error::other("another run of this witness goes on"))?;
        let cosigned = self.cosign_held(log, key);
        held.unlock().and(cosigned)
    }

    fn cosign_held(&self, log: &Path, key: &Key) -> io::Result<Cosigned> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| refused("the checkpoint is malformed"));
        let note = writer::content(&log.join(CHECKPOINT))?.ok_or_else(|| refused("the log has no checkpoint yet"))?;
        let note = text(note)?;
        let now = Checkpoint::open(&note, Some(key)).map_err(refused)?;
        let memory = self.folder.join(format!("{}.note", in_hex(&sha256(0, &[now.origin.as_bytes()]))));
        let earlier = writer::content(&memory)?.map(text).transpose()?;
        let since = earlier.as_deref().map(|earlier| has_only_grown(log, earlier, &now, key)).transpose()?;
        let at = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let cosigned = self.cosigner.sign(&note, at).map_err(refused)?;
        writer::replace(&memory, note.as_bytes())?;
        Ok(Cosigned { note: cosigned, size: now.size, since })
    }
}

/// How many records there were at the `earlier` checkpoint, of which those at `now` are a continuation.
fn has_only_grown(log: &Path, earlier: &str, now: &Checkpoint, key: &Key) -> io::Result<u64> {
    let before = Checkpoint::open(earlier, Some(key)).map_err(refused)?;
    if before.size > now.size {
        return Err(refused("the checkpoint is older than the one that this witness has signed"));
    }
    let path = prove_growth(log, earlier)?;
    if path.to != now.size {
        return Err(io::Error::other("the log has gone on meanwhile: try again"));
    }
    if before.size == 0 || is_consistent((before.size, now.size), (&before.root, &now.root), &path.path) {
        return Ok(before.size);
    }
    Err(refused("the log is not the one whose checkpoint this witness has signed: it was written anew, or forked"))
}

/// When the witness of the key `witness` has signed a note, in seconds since 1970; an error where it has not.
pub fn cosigned_at(note: &str, witness: &Key) -> Result<u64, &'static str> {
    witness.cosigned_at(note)
}
