//! Subjects as pseudonyms (by choice): what a record says of a person is a keyed hash, under a key of that person alone, which lies
//! apart from the log and can be destroyed. The log stays as it was written; what its pseudonyms stood for is gone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;

use super::Settings;
use super::digest::HashKey;
use super::line::in_hex;
use super::writer::{self, SubjectKeys};
use crate::call::Caller;
use crate::denial::Fault;

/// What stands before each, so that none is taken for a name.
const MARK: &str = "pseudonym:";
/// Keys that a writer has at hand.
const MAX_KNOWN: usize = 10_000;

/// A person: a subject is one of its issuer.
#[derive(Clone, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Subject {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
}

/// Where the keys of subjects lie.
pub(super) trait Keys: Send {
    /// The key of a subject, made where there is none; `index` names it without saying who it is.
    fn key(&mut self, index: &str, subject: &Subject) -> io::Result<[u8; 32]>;
    /// Whether a key was destroyed since the last time that this was asked.
    fn were_destroyed(&mut self) -> bool;
}

/// Makes pseudonyms, on the writer's thread.
pub(super) struct Pseudonyms {
    index: HashKey,
    keys: Box<dyn Keys>,
    known: HashMap<Subject, HashKey>,
    /// Why the last lines cannot be written: nobody is named because a key is not at hand.
    failure: Option<io::Error>,
}

impl Pseudonyms {
    /// `hash_key`: the key of the place.
    pub(super) fn new(hash_key: &[u8; 32], keys: Box<dyn Keys>) -> Self {
        Self { index: HashKey::new(hash_key), keys, known: HashMap::new(), failure: None }
    }

    /// Before lines are written: keys that others have destroyed are used no more.
    pub(super) fn begin(&mut self) {
        if self.keys.were_destroyed() {
            self.known.clear();
        }
    }

    /// Why the lines since [`Self::begin`] must not be written, if they must not.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// What hides a subject.
    fn veil(&mut self, subject: &Subject) -> Veil<'_> {
        if !self.known.contains_key(subject) {
            match self.keys.key(&index(&self.index, subject), subject) {
                Ok(key) => {
                    if self.known.len() >= MAX_KNOWN {
                        self.known.clear();
                    }
                    self.known.insert(subject.clone(), HashKey::new(&key));
                }
                Err(error) => self.failure = Some(error),
            }
        }
        self.known.get(subject).map_or(Veil::Blind, Veil::Key)
    }

    /// What hides a caller: nothing, where it is no person.
    pub(super) fn of(&mut self, caller: Option<&Caller>) -> Veil<'_> {
        let Some((caller, subject)) = caller.and_then(|caller| Some((caller, caller.subject()?))) else {
            return Veil::None;
        };
        self.veil(&Subject { issuer: caller.issuer().to_owned(), subject: subject.to_owned() })
    }

    /// What hides whom an act of an administrator names, or who did it.
    pub(super) fn named(&mut self, issuer: Option<&str>, subject: &str) -> Veil<'_> {
        self.veil(&Subject { issuer: issuer.unwrap_or_default().to_owned(), subject: subject.to_owned() })
    }
}

/// How what belongs to somebody is written.
#[derive(Clone, Copy)]
pub(super) enum Veil<'p> {
    /// As it is.
    None,
    /// As a pseudonym.
    Key(&'p HashKey),
    /// Not at all: there is no key, and the line will not be written.
    Blind,
}

impl Veil<'_> {
    /// The `value` of a member: what is alike in two members of one person is not alike in the log.
    pub(super) fn over<'v>(&self, member: &str, value: &'v str) -> Cow<'v, str> {
        match self {
            Self::None => Cow::Borrowed(value),
            Self::Key(key) => Cow::Owned(pseudonym(key, member, value)),
            Self::Blind => Cow::Borrowed(MARK),
        }
    }
}

fn pseudonym(key: &HashKey, member: &str, value: &str) -> String {
    format!("{MARK}{}", in_hex(&key.hash(&[member.as_bytes(), b"\0", value.as_bytes()].concat())))
}

/// Names a subject's key: nobody without the key of the place can tell whose it is, or look for somebody's.
fn index(key: &HashKey, subject: &Subject) -> String {
    let issuer = subject.issuer.as_bytes();
    let length = (issuer.len() as u64).to_be_bytes();
    let text = [b"mcp-fastguard audit subject", length.as_slice(), issuer, subject.subject.as_bytes()].concat();
    in_hex(&key.hash(&text))
}

/// The keys of the subjects in the place that `settings` name, and the key of the place.
fn store(settings: &Settings) -> Result<(SubjectKeys, HashKey), Fault> {
    let key = match settings.key {
        Some(key) => key,
        None => writer::read_or_make_key(&settings.path.join("key"))?,
    };
    Ok((SubjectKeys::new(settings.subjects.clone()), HashKey::new(&key)))
}

fn failed(settings: &Settings, error: &io::Error) -> Fault {
    writer::failed(&settings.subjects, error)
}

/// The pseudonym of a subject in the records; `None` where it has none, or its key was destroyed.
pub fn pseudonym_of(settings: &Settings, subject: &Subject) -> Result<Option<String>, Fault> {
    let (store, key) = store(settings)?;
    let found = store.read(&index(&key, subject)).map_err(|error| failed(settings, &error))?;
    Ok(found.map(|(key, _)| pseudonym(&HashKey::new(&key), "subject", &subject.subject)))
}

/// Whom a pseudonym stands for; `None` where nobody knows, or nobody may any more.
pub fn resolve(settings: &Settings, text: &str) -> Result<Option<Subject>, Fault> {
    let (store, _) = store(settings)?;
    let is_meant =
        |(key, subject): &([u8; 32], Subject)| pseudonym(&HashKey::new(key), "subject", &subject.subject) == text;
    store.find(is_meant).map(|found| found.map(|(_, subject)| subject)).map_err(|error| failed(settings, &error))
}

/// Destroys the key of a subject; `false` where there is none. Guards that run use it no more from their next write on.
pub fn erase(settings: &Settings, subject: &Subject) -> Result<bool, Fault> {
    let (store, key) = store(settings)?;
    store.destroy(&index(&key, subject)).map_err(|error| failed(settings, &error))
}
