//! The keys of subjects on disk: `subjects/ab/cdef…`, a file each, of mode 0600. `subjects/destroyed` is written anew whenever one
//! is destroyed, so that whoever has keys in memory learns of it.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::folder::{key_of_hex, open_folder, private_file, refuse_if_public, sync_folder};
use crate::audit::digest::random;
use crate::audit::line::in_hex;
use crate::audit::pseudonyms::{Keys, Subject};

const DESTROYED: &str = "destroyed";
/// An issuer and a subject of 2 KiB each, escaped.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The folder of the keys.
pub(in crate::audit) struct SubjectKeys {
    folder: PathBuf,
    destroyed: Option<Mark>,
}

/// Tells one file `destroyed` from the next.
type Mark = (Option<SystemTime>, String);

#[derive(Deserialize, Serialize)]
struct Content {
    key: String,
    #[serde(flatten)]
    subject: Subject,
}

impl SubjectKeys {
    pub(in crate::audit) fn new(folder: PathBuf) -> Self {
        let destroyed = mark(&folder);
        Self { folder, destroyed }
    }

    fn path(&self, index: &str) -> PathBuf {
        let (group, name) = index.split_at_checked(2).unwrap_or(("", index));
        self.folder.join(group).join(name)
    }

    /// The key of this name and whose it is; `None` where there is none.
    pub(in crate::audit) fn read(&self, index: &str) -> io::Result<Option<([u8; 32], Subject)>> {
        read(&self.path(index))
    }

    /// The first key of which `is_meant` is true.
    pub(in crate::audit) fn find(
        &self,
        is_meant: impl Fn(&([u8; 32], Subject)) -> bool,
    ) -> io::Result<Option<([u8; 32], Subject)>> {
        let groups = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            groups => groups?,
        };
        for group in groups {
            let group = group?;
            if !group.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(group.path())? {
                if let Some(found) = read(&file?.path())?.filter(|found| is_meant(found)) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Destroys a key; `false` where there is none.
    pub(in crate::audit) fn destroy(&self, index: &str) -> io::Result<bool> {
        let path = self.path(index);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            removed => removed?,
        }
        sync_folder(path.parent().unwrap_or(&self.folder))?;
        let draft = self.draft()?;
        private_file().write(true).create_new(true).open(&draft)?.write_all(draft_name(&draft).as_bytes())?;
        fs::rename(&draft, self.folder.join(DESTROYED))?;
        Ok(true)
    }

    fn draft(&self) -> io::Result<PathBuf> {
        let random = random::<8>().map_err(|fault| io::Error::other(fault.to_string()))?;
        Ok(self.folder.join(format!(".draft-{}", in_hex(&random))))
    }

    fn make(&self, path: &Path, subject: &Subject) -> io::Result<()> {
        let key = random::<32>().map_err(|fault| io::Error::other(fault.to_string()))?;
        let content = serde_json::to_vec(&Content { key: in_hex(&key), subject: subject.clone() })?;
        open_folder(&self.folder)?;
        open_folder(path.parent().unwrap_or(&self.folder))?;
        let draft = self.draft()?;
        let made = private_file().write(true).create_new(true).open(&draft).and_then(|mut file| {
            file.write_all(&content)?;
            // Unlike a rename, a link never replaces the key that another process has made meanwhile.
            match fs::hard_link(&draft, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }
        });
        let _ = fs::remove_file(&draft);
        made
    }
}

impl Keys for SubjectKeys {
    fn key(&mut self, index: &str, subject: &Subject) -> io::Result<[u8; 32]> {
        let path = self.path(index);
        for _ in 0..2 {
            if let Some((key, _)) = read(&path)? {
                return Ok(key);
            }
            self.make(&path, subject)?;
        }
        // Destroyed again by somebody else, or cut by a loss of power and not replaced.
        read(&path)?.map(|(key, _)| key).ok_or_else(|| io::Error::other(format!("`{}` cannot be kept", path.display())))
    }

    fn were_destroyed(&mut self) -> bool {
        let found = mark(&self.folder);
        let were = found != self.destroyed;
        self.destroyed = found;
        were
    }
}

fn draft_name(draft: &Path) -> String {
    draft.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn mark(folder: &Path) -> Option<Mark> {
    let path = folder.join(DESTROYED);
    let at = fs::metadata(&path).ok()?.modified().ok();
    Some((at, fs::read_to_string(&path).unwrap_or_default()))
}

/// A key that a loss of power has left empty is none: nothing was resolved by it yet.
fn read(path: &Path) -> io::Result<Option<([u8; 32], Subject)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    refuse_if_public(&file)?;
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
    let found = serde_json::from_slice::<Content>(&text).ok();
    let found = found.and_then(|Content { key, subject }| Some((key_of_hex(&key)?, subject)));
    if found.is_none() {
        fs::remove_file(path)?;
    }
    Ok(found)
}
