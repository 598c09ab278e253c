//! The log's folder: `audit/<log>/000001.jsonl`, and `audit/key` beside the logs.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::beside::beside;
use super::held::{self, Held};
use crate::audit::digest::random;
use crate::audit::journal::{File, Store};
use crate::audit::line::hex;
use crate::audit::merkle::Hash;
use crate::audit::registry::Registry;
use crate::denial::Fault;

/// The folder of one log, which no other process writes to: this one holds it.
pub(in crate::audit) struct Folder {
    path: PathBuf,
    held: Held,
    birth: Birth,
    /// Where the end of the log is entered, and its name.
    end: Option<(Registry, Box<str>)>,
}

/// Whether the registry knows of a log.
enum Birth {
    /// It does, or there is none.
    Entered,
    /// Not yet.
    Waits(Registry, Box<str>),
    /// An attempt failed: it may.
    Tried(Registry, Box<str>),
}

impl Folder {
    /// Makes the folder `name` in `base`; an error where it exists, or where another process was quicker to hold it.
    pub(in crate::audit) fn make(base: &Path, name: &str, registry: Registry) -> io::Result<Self> {
        let path = base.join(name);
        private_folder().create(&path)?;
        sync_folder(base)?;
        let held = Held::take(&path)?.ok_or(io::ErrorKind::AlreadyExists)?;
        Ok(Self { path, held, birth: Birth::Waits(registry, name.into()), end: None })
    }

    /// The folder of a log whose process is gone.
    pub(in crate::audit) const fn of(path: PathBuf, held: Held) -> Self {
        Self { path, held, birth: Birth::Entered, end: None }
    }

    pub(in crate::audit) fn held(&self) -> Held {
        self.held.clone()
    }

    pub(in crate::audit) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens file `number` to go on in it; with its length.
    pub(in crate::audit) fn reopen(&self, number: u32) -> io::Result<(LogFile, u64)> {
        let path = self.file(number);
        let file = OpenOptions::new().append(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok((LogFile { file, path }, length))
    }

    /// Removes the folder of a log that never began. One that the registry may know of waits for the next start.
    pub(in crate::audit) fn remove_if_empty(&self) {
        if !matches!(self.birth, Birth::Tried(..)) && files(&self.path).is_ok_and(|files| files.is_empty()) {
            held::remove(&self.path);
            // Where something else lies in it, it stays.
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Removes the folder of a log that has no record; a part of the first one may be there.
    pub(in crate::audit) fn remove_unused(&self) {
        for (_, file) in files(&self.path).unwrap_or_default() {
            // Where it stays, the folder does.
            let _ = fs::remove_file(file);
        }
        self.remove_if_empty();
    }

    /// Removes all files of lines.
    pub(in crate::audit) fn remove_files(&self) -> io::Result<()> {
        files(&self.path)?.into_iter().try_for_each(|(_, file)| fs::remove_file(file))
    }

    /// Cuts file `number` to `length` bytes.
    pub(in crate::audit) fn cut(&self, number: u32, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file(number))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn file(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:06}.jsonl"))
    }
}

impl Store for Folder {
    type File = LogFile;

    /// About what a disk takes some milliseconds for, in which a thread is begun and ended a hundred times.
    const MIN_BYTES_BESIDE: usize = 1024 * 1024;

    fn beside<W: Send, M>(work: impl FnMut() -> W + Send, meanwhile: impl FnOnce() -> M) -> (W, M) {
        beside(work, meanwhile)
    }

    fn create(&mut self, number: u32) -> io::Result<LogFile> {
        self.held.renew(&self.path)?;
        let path = self.file(number);
        let file = private_file().append(true).create_new(true).open(&path)?;
        sync_folder(&self.path).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        Ok(LogFile { file, path })
    }

    fn remove(&mut self, number: u32) -> io::Result<()> {
        fs::remove_file(self.file(number))
    }

    fn put(&mut self, path: &str, bytes: &[u8], durable: bool) -> io::Result<()> {
        let (path, draft) = (self.path.join(path), self.path.join(".draft"));
        let write = || {
            let mut file = private_file().write(true).create(true).truncate(true).open(&draft)?;
            file.write_all(bytes)?;
            if durable { file.sync_all() } else { Ok(()) }
        };
        let rename = || match fs::rename(&draft, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private_folder().recursive(true).create(path.parent().unwrap_or(&self.path))?;
                fs::rename(&draft, &path)
            }
            done => done,
        };
        write().and_then(|()| rename())?;
        if durable { sync_folder(&self.path) } else { Ok(()) }
    }

    fn discard(&mut self, path: &str) {
        // Partial tiles beside a full one are only superfluous.
        let _ = fs::remove_dir_all(self.path.join(path));
    }

    fn is_entered(&self) -> bool {
        matches!(self.birth, Birth::Entered)
    }

    fn enter_birth(&mut self) -> io::Result<()> {
        let (registry, log) = match std::mem::replace(&mut self.birth, Birth::Entered) {
            Birth::Entered => return Ok(()),
            Birth::Waits(registry, log) | Birth::Tried(registry, log) => (registry, log),
        };
        let entered = registry.enter_birth(&log);
        match &entered {
            Ok(()) => self.end = Some((registry, log)),
            Err(_) => self.birth = Birth::Tried(registry, log),
        }
        entered
    }

    fn enter_end(&mut self, records: u64, root: &Hash) -> io::Result<()> {
        self.end.take().map_or(Ok(()), |(registry, log)| registry.enter_end(&log, records, root))
    }
}

/// A file of a log, which rotates itself: others that rotate it, or write to it, are found out at the next write.
pub(in crate::audit) struct LogFile {
    file: fs::File,
    path: PathBuf,
}

impl File for LogFile {
    fn append(&mut self, length: u64, bytes: &[u8]) -> io::Result<()> {
        let found = self.file.metadata()?.len();
        let what = if !held::is_at(&self.file, &self.path) {
            "renamed, replaced or removed"
        } else if found < length {
            "cut"
        } else if found > length {
            "written"
        } else {
            return self.file.write_all(bytes);
        };
        Err(io::Error::other(format!("`{}` was {what} by somebody else", self.path.display())))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        // Where somebody else cut it, setting the length would fill it with zeros.
        if self.file.metadata()?.len() > length { self.file.set_len(length) } else { Ok(()) }
    }
}

/// Makes the folder `path` if there is none.
pub(in crate::audit) fn open_folder(path: &Path) -> io::Result<()> {
    match private_folder().create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| sync_folder(path.parent().unwrap_or(path))),
    }
}

/// Makes the folder of the logs if there is none, and makes sure that files can be written in it.
pub(in crate::audit) fn open_base(base: &Path) -> Result<(), Fault> {
    let refused = |error: io::Error| failed(base, &error);
    private_folder().recursive(true).create(base).map_err(refused)?;
    let mut name = Vec::from(*b".probe-");
    hex(&random::<8>()?, &mut name);
    let probe = base.join(String::from_utf8_lossy(&name).as_ref());
    let written = private_file().write(true).create_new(true).open(&probe).and_then(|mut file| {
        file.write_all(b"probe\n")?;
        file.sync_data()
    });
    let removed = fs::remove_file(&probe);
    written.and(removed).map_err(refused)
}

/// A key in the file `path` as 64 hexadecimal digits. Made where there is none; of several processes that make
/// one at once, the first wins and the others read its key.
pub(in crate::audit) fn read_or_make_key(path: &Path) -> Result<[u8; 32], Fault> {
    // The parent of a bare name is the empty path, which no call of the system takes.
    let base = path.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match read_key(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        key => return key.map_err(|error| failed(path, &error)),
    }
    let mut name = Vec::from(*b".key-");
    hex(&random::<8>()?, &mut name);
    let draft = base.join(String::from_utf8_lossy(&name).as_ref());
    let mut text = Vec::new();
    hex(&random::<32>()?, &mut text);
    text.push(b'\n');
    let made = private_file().write(true).create_new(true).open(&draft).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces the key that another process has made meanwhile.
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => sync_folder(base),
        }
    });
    let _ = fs::remove_file(&draft);
    made.and_then(|()| read_key(path)).map_err(|error| failed(path, &error))
}

fn read_key(path: &Path) -> io::Result<[u8; 32]> {
    let file = OpenOptions::new().read(true).open(path)?;
    refuse_if_public(&file)?;
    let mut text = String::new();
    file.take(128).read_to_string(&mut text)?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a key of 64 hexadecimal digits");
    key_of_hex(text.trim_end()).ok_or_else(wrong)
}

/// A key of 64 hexadecimal digits.
pub(super) fn key_of_hex(digits: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

/// The group may read it: Kubernetes opens the files of a volume to the group of the pod.
#[cfg(unix)]
pub(super) fn refuse_if_public(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    const EVERY_USER: u32 = 0o007;
    if file.metadata()?.permissions().mode() & EVERY_USER == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "every user may read it; mode 0600 is needed"))
}

#[cfg(not(unix))]
pub(super) fn refuse_if_public(_file: &fs::File) -> io::Result<()> {
    Ok(())
}

fn private_folder() -> DirBuilder {
    let builder = DirBuilder::new();
    #[cfg(unix)]
    let builder = {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut builder = builder;
        builder.mode(0o700);
        builder
    };
    builder
}

pub(super) fn private_file() -> OpenOptions {
    let options = OpenOptions::new();
    #[cfg(unix)]
    let options = {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = options;
        options.mode(0o600);
        options
    };
    options
}

/// A new name in a folder is durable only once the folder is.
#[cfg(unix)]
pub(in crate::audit) fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(not(unix))]
pub(in crate::audit) fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

pub(in crate::audit) fn failed(path: &Path, error: &io::Error) -> Fault {
    Fault::AuditFailed { reason: format!("`{}`: {error}", path.display()) }
}

/// The files of a log in their order: of its folder, or the one file that `path` is.
pub(in crate::audit) fn files(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u32>().ok();
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![(number(path).unwrap_or(0), path.to_owned())]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl")
            && let Some(number) = number(&path)
        {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The folders in `base`, in the order of their names.
pub(in crate::audit) fn folders(base: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

/// Opens a file of a log for reading.
pub(in crate::audit) fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    open_at(path, 0)
}

/// The same from `offset` on.
pub(in crate::audit) fn open_at(path: &Path, offset: u64) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = OpenOptions::new().read(true).open(path)?;
    if offset > 0 {
        file.seek(io::SeekFrom::Start(offset))?;
    }
    Ok(Box::new(BufReader::with_capacity(256 * 1024, file)))
}

/// The whole of a small file of a log, a tile or a note; `None` where it is missing.
pub(in crate::audit) fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Notes with the signatures of many witnesses are smaller, and tiles have 8 KiB.
    const MAX_BYTES: u64 = 1 << 20;
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.take(MAX_BYTES).read_to_end(&mut bytes)?,
    };
    Ok(Some(bytes))
}

/// Writes the whole file `path` in place of the one before it; durable when it returns.
pub(in crate::audit) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let base = path.parent().unwrap_or(path);
    let draft = base.join(".draft");
    let mut file = private_file().write(true).create(true).truncate(true).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder(base)
}

/// The partial tiles in a folder, with their numbers of hashes.
pub(in crate::audit) fn partial_tiles(path: &Path) -> io::Result<Vec<(usize, PathBuf)>> {
    let mut tiles = Vec::new();
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                let path = entry?.path();
                if let Some(width) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) {
                    tiles.push((width, path));
                }
            }
        }
    }
    Ok(tiles)
}

/// The end of a file, at most `bytes` of it.
pub(in crate::audit) fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn device_that_is_full_is_an_error_of_the_write() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        let mut file = LogFile { file, path };

        let failed = file.append(0, b"{\"seq\":0}\n").unwrap_err();

        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    }
}
