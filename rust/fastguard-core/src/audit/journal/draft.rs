//! Formats the lines of one commit.

use std::collections::VecDeque;
use std::io;

use super::{Committed, Failure, Moment};
use crate::audit::line::Object;
use crate::audit::merkle::{Hash, Tree};
use crate::audit::record::Event;
use crate::audit::registry::Entry;
use crate::audit::scribe::Scribe;
use crate::audit::tally::Tally;
use crate::clock::UnixTime;

/// The version of the format, in every file's first line.
const FORMAT: u64 = 1;
/// Most bytes that are written between two syncs.
const MAX_COMMIT_BYTES: usize = 8 * 1024 * 1024;
/// Lines are expected to be about so long, and at most so many to be written between two syncs: for that much, buffers grow at once.
const EXPECTED_BYTES: usize = 1024;
const MAX_EXPECTED: usize = MAX_COMMIT_BYTES / EXPECTED_BYTES * 2;

/// What waits to be written.
pub(super) enum Item {
    Event(Event),
    /// Members that were formatted to know their length.
    Members(Vec<u8>),
    Counted(Box<Counted>),
    Repaired(UnixTime, Repaired),
    Entry(UnixTime, Box<Entry>),
    Seal(UnixTime),
}

/// What was done to a log whose process ended without a seal.
#[derive(Clone, Copy, Debug)]
pub(in crate::audit) struct Repaired {
    /// Bytes of the last line, which was written in part.
    pub(in crate::audit) cut_bytes: u64,
}

/// A report of refusals that were not written one by one.
pub(super) struct Counted {
    pub(super) from: UnixTime,
    pub(super) to: UnixTime,
    pub(super) tally: Tally,
    pub(super) unrecorded: u64,
}

/// Where the next lines go, once those before them are durable.
pub(super) struct Place {
    /// Whether lines can follow in file `number`, which has `length` bytes.
    pub(super) is_open: bool,
    pub(super) number: u32,
    pub(super) length: u64,
    /// The lines before.
    pub(super) tree: Tree,
    /// Whether the log may hold records: the registry knows of it.
    pub(super) is_born: bool,
}

/// Lines that go into one file and are made durable by one sync.
#[derive(Default)]
pub(super) struct Group {
    /// Whether they begin file `number`.
    pub(super) opens: bool,
    pub(super) number: u32,
    length_before: u64,
    /// After a byte that is not written.
    lines: Vec<u8>,
    /// The tree with them, and what they completed in it for tiles.
    pub(super) tree: Tree,
    pub(super) completed: Vec<(usize, Hash)>,
    /// What the lines were made of; until they are durable, others can be made of it.
    pub(super) items: Vec<Item>,
    pub(super) committed: Committed,
    /// Whether they end the log.
    pub(super) seals: bool,
}

impl Group {
    pub(super) fn lines(&self) -> &[u8] {
        self.lines.get(1..).unwrap_or_default()
    }

    /// Where more lines go once these are durable.
    pub(super) fn place_after(&self) -> Place {
        Place {
            is_open: !self.seals,
            number: self.number,
            length: self.length_before + self.lines().len() as u64,
            tree: self.tree.clone(),
            is_born: true,
        }
    }
}

/// What waits to be written, and what formats it.
pub(super) struct Drafts {
    pub(super) scribe: Scribe,
    max_file_bytes: u64,
    waiting: VecDeque<Item>,
    /// Groups that are written, for their buffers: one, or two where some are formatted while others are written.
    spare: Vec<Group>,
}

impl Drafts {
    pub(super) const fn new(scribe: Scribe, max_file_bytes: u64) -> Self {
        Self { scribe, max_file_bytes, waiting: VecDeque::new(), spare: Vec::new() }
    }

    pub(super) fn add(&mut self, item: Item) {
        self.waiting.push_back(item);
    }

    pub(super) fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Formats as much as goes into one file and one sync.
    pub(super) fn next(&mut self, place: Place, failure: Option<&Failure>, moment: Moment) -> io::Result<Group> {
        let Place { is_open, number, length, tree, is_born } = place;
        let before = tree.size();
        let opens = !is_open || length >= self.max_file_bytes;
        let (number, length_before) = if opens { (number + 1, 0) } else { (number, length) };
        let room = self.max_file_bytes.saturating_sub(length_before);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(MAX_COMMIT_BYTES);
        let expected = self.waiting.len().min(MAX_EXPECTED);
        let Group { lines, mut items, completed, .. } = self.spare.pop().unwrap_or_default();
        let mut draft = Draft::new(lines, tree.completing(completed));
        draft.lines.reserve(EXPECTED_BYTES * expected.min(room / EXPECTED_BYTES + 16));
        items.reserve(expected);
        if opens {
            draft.open(&self.scribe, number, moment.now.unix);
            if let Some(failure) = failure {
                draft.recover(failure, self.waiting.len(), moment);
            }
        }
        let mut committed = Committed::default();
        self.scribe.begin();
        // Nothing but its first line stands in a log before the registry knows of it.
        while is_born
            && (items.is_empty() || draft.lines.len() <= room)
            && let Some(item) = self.waiting.pop_front()
        {
            draft.item(&item, &mut self.scribe);
            committed.count(&item);
            items.push(item);
        }
        let Draft { lines, mut tree } = draft;
        committed.records = tree.size() - before;
        let completed = tree.take_completed();
        let seals = matches!(items.last(), Some(Item::Seal(_)));
        let group = Group { opens, number, length_before, lines, tree, completed, items, committed, seals };
        match self.scribe.take_failure() {
            Some(error) => {
                self.put_back(group);
                Err(error)
            }
            None => Ok(group),
        }
    }

    /// Takes back what is not durable of a group, and its buffers.
    pub(super) fn put_back(&mut self, mut group: Group) {
        for item in group.items.drain(..).rev() {
            self.waiting.push_front(item);
        }
        self.spare.push(group);
    }
}

/// Lines that are formatted, after a byte that stands for the end of the line before them, and the tree as it will be.
struct Draft {
    lines: Vec<u8>,
    tree: Tree,
}

impl Draft {
    fn new(mut lines: Vec<u8>, tree: Tree) -> Self {
        lines.clear();
        lines.push(b'\n');
        Self { lines, tree }
    }

    fn item(&mut self, item: &Item, scribe: &mut Scribe) {
        match item {
            Item::Event(event) => self.line(|object| scribe.write(event, object)),
            Item::Members(members) => self.line(|object| object.members(members)),
            Item::Counted(counted) => self.line(|object| write_counted(counted, object)),
            Item::Repaired(at, repaired) => self.line(|object| write_repaired(*at, *repaired, object)),
            Item::Entry(at, entry) => self.line(|object| entry.write(*at, object)),
            Item::Seal(at) => self.seal(scribe.log(), *at),
        }
    }

    fn line(&mut self, write: impl FnOnce(&mut Object<'_>)) {
        // The byte that ends the line before is lent to the leaf, so that its hash is made where it stands.
        let start = self.lines.len().saturating_sub(1);
        let mut object = Object::open(&mut self.lines);
        object.number("seq", self.tree.size());
        write(&mut object);
        object.close();
        self.tree.push_leaf(self.lines.get_mut(start..).unwrap_or_default());
        self.lines.push(b'\n');
    }

    fn open(&mut self, scribe: &Scribe, number: u32, at: UnixTime) {
        let (records, root) = (self.tree.size(), self.tree.root());
        self.line(|object| {
            object.time("timestamp", at);
            object.text("event_type", "log_opened");
            object.number("format", FORMAT);
            object.text("log", scribe.log());
            object.number("file", number.into());
            object.number("records_before", records);
            object.hex("previous_root", &root);
            object.hex("hash_key", &scribe.key_name());
        });
    }

    fn recover(&mut self, failure: &Failure, waiting: usize, moment: Moment) {
        self.line(|object| {
            object.time("timestamp", moment.now.unix);
            object.text("event_type", "recovered");
            object.text("reason", &failure.reason);
            object.time("failed_at", failure.since);
            object.number("written_later", waiting as u64);
            object.number("refused", moment.refused - failure.refused_before);
            object.number("unrecorded", moment.unrecorded - failure.unrecorded_before);
            object.flag("torn_end_cut", failure.cut);
        });
    }

    fn seal(&mut self, log: &str, at: UnixTime) {
        let (records, root) = (self.tree.size(), self.tree.root());
        self.line(|object| {
            object.time("timestamp", at);
            object.text("event_type", "log_sealed");
            object.text("log", log);
            object.number("records", records);
            object.hex("root", &root);
        });
    }
}

fn write_repaired(at: UnixTime, repaired: Repaired, object: &mut Object<'_>) {
    object.time("timestamp", at);
    object.text("event_type", "recovered");
    object.text("reason", "the process that wrote the log ended without a seal");
    object.number("cut_bytes", repaired.cut_bytes);
    object.flag("torn_end_cut", true);
}

fn write_counted(counted: &Counted, object: &mut Object<'_>) {
    object.time("timestamp", counted.to);
    object.text("event_type", "refusals_counted");
    object.time("from", counted.from);
    object.time("to", counted.to);
    object.number("total", counted.tally.total());
    object.objects("counts", &counted.tally.sorted(), |(address, code, count), object| {
        object.text("address", &address.to_string());
        object.text("code", code);
        object.number("count", *count);
    });
    object.number("other", counted.tally.other());
    object.number("unrecorded", counted.unrecorded);
}
