//! Proofs of single records for others, in the format of C2SP tlog-proof, and of the log's growth.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::log::{Entry, first_sequence, read};
use super::merkle::{Hash, leaf};
use super::tree::note::{Checkpoint, Key};
use super::tree::proof::{consistency, inclusion, is_included};
use super::tree::publish::CHECKPOINT;
use super::tree::tiles;
use super::writer;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Siblings on the way to the root of a tree with 2^64 leaves.
const MAX_SIBLINGS: usize = 64;

/// A record that a proof has shown to be in a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proved {
    /// The log at the time of the proof.
    pub checkpoint: Checkpoint,
    /// The record's number.
    pub seq: u64,
    /// Its line.
    pub record: Vec<u8>,
}

/// The log's growth since an earlier checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Growth {
    /// Records then.
    pub from: u64,
    /// Records at the last checkpoint.
    pub to: u64,
    /// The path of RFC 6962 §2.1.2.
    pub path: Vec<Hash>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The last checkpoint of the log in `folder` and the hashes of the records that it covers; `found` gets each line.
fn leaves(folder: &Path, mut found: impl FnMut(usize, &[u8])) -> io::Result<(String, Checkpoint, Vec<Hash>)> {
    let note = writer::content(&folder.join(CHECKPOINT))?.ok_or_else(|| invalid("the log has no checkpoint yet"))?;
    let note = String::from_utf8(note).map_err(|_| invalid("the checkpoint is malformed"))?;
    let checkpoint = Checkpoint::open(&note, None).map_err(invalid)?;
    let size = usize::try_from(checkpoint.size).map_err(|_| invalid("the log is too large"))?;
    // Where the start was pruned, its hashes are in the tiles.
    let pruned = first_sequence(folder)?.unwrap_or(checkpoint.size);
    let missing = || invalid("a tile of pruned records is missing");
    let mut leaves = tiles::leaves(folder, pruned)?.ok_or_else(missing)?;
    for entry in read(folder)? {
        if leaves.len() == size {
            break;
        }
        if let Entry::Line(line) = entry? {
            found(leaves.len(), &line.text);
            leaves.push(leaf(&line.text));
        }
    }
    if leaves.len() < size {
        return Err(invalid("the log ends before its checkpoint"));
    }
    Ok((note, checkpoint, leaves))
}

/// Proves that record `seq` is in the log in `folder`. The record itself is the proof's extra data.
pub fn prove(folder: &Path, seq: u64) -> io::Result<String> {
    let index = usize::try_from(seq).map_err(|_| invalid("there is no such record"))?;
    let mut record = None;
    let (note, checkpoint, leaves) = leaves(folder, |at, line| {
        if at == index {
            record = Some(line.to_vec());
        }
    })?;
    let record = record.ok_or_else(|| invalid("no checkpoint covers the record yet"))?;
    let path = inclusion(&leaves, index);
    if !is_included(&leaf(&record), seq, checkpoint.size, &path, &checkpoint.root) {
        return Err(invalid("the records are not those that the checkpoint signs"));
    }
    let mut text = format!("{HEADER}\nextra {}\nindex {seq}\n", STANDARD.encode(&record));
    for hash in path {
        // Writing to a string never fails.
        let _ = writeln!(text, "{}", STANDARD.encode(hash));
    }
    Ok(format!("{text}\n{note}"))
}

/// Checks a proof of [`prove`] with the key that its reader trusts.
pub fn check_proof(text: &str, key: &Key) -> Result<Proved, &'static str> {
    const MALFORMED: &str = "the proof is malformed";
    let (head, note) = text.split_once("\n\n").ok_or(MALFORMED)?;
    let mut lines = head.split('\n');
    if lines.next() != Some(HEADER) {
        return Err(MALFORMED);
    }
    let record = lines.next().and_then(|line| line.strip_prefix("extra ")).ok_or("the proof holds no record")?;
    let record = STANDARD.decode(record).map_err(|_| MALFORMED)?;
    let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(MALFORMED)?;
    let seq: u64 = index.parse().map_err(|_| MALFORMED)?;
    let mut path = Vec::new();
    for line in lines {
        let hash = STANDARD.decode(line).ok().and_then(|hash| Hash::try_from(hash).ok()).ok_or(MALFORMED)?;
        path.push(hash);
    }
    if path.len() > MAX_SIBLINGS || seq.to_string() != index {
        return Err(MALFORMED);
    }
    let checkpoint = Checkpoint::open(note, Some(key))?;
    if !is_included(&leaf(&record), seq, checkpoint.size, &path, &checkpoint.root) {
        return Err("the record is not in the log that the checkpoint signs");
    }
    Ok(Proved { checkpoint, seq, record })
}

/// Proves that the log in `folder` only grew since the checkpoint in `earlier`; one of an empty log has nothing to prove.
pub fn prove_growth(folder: &Path, earlier: &str) -> io::Result<Growth> {
    let earlier = Checkpoint::open(earlier, None).map_err(invalid)?;
    let (_, checkpoint, leaves) = leaves(folder, |_, _| {})?;
    if earlier.size > checkpoint.size {
        return Err(invalid("the checkpoint is older than the earlier one"));
    }
    let size = usize::try_from(earlier.size).map_err(|_| invalid("the log is too large"))?;
    Ok(Growth { from: earlier.size, to: checkpoint.size, path: consistency(&leaves, size) })
}
