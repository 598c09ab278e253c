//! Formats the lines of one commit.

use super::{Failure, Moment};
use crate::audit::line::Object;
use crate::audit::merkle::Tree;
use crate::audit::record::Event;
use crate::audit::registry::Entry;
use crate::audit::scribe::Scribe;
use crate::audit::tally::Tally;
use crate::clock::UnixTime;

/// The version of the format, in every file's first line.
const FORMAT: u64 = 1;

/// What waits to be written.
pub(super) enum Item {
    Event(Event),
    /// Members that were formatted to know their length.
    Members(Vec<u8>),
    Counted(Box<Counted>),
    Repaired(UnixTime, Repaired),
    Entry(UnixTime, Entry),
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

/// Lines that are formatted and not yet written, and the tree as it will be.
pub(super) struct Draft<'j> {
    pub(super) lines: &'j mut Vec<u8>,
    pub(super) tree: Tree,
}

impl Draft<'_> {
    pub(super) fn item(&mut self, item: &Item, scribe: &mut Scribe) {
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
        let start = self.lines.len();
        let mut object = Object::open(self.lines);
        object.number("seq", self.tree.size());
        write(&mut object);
        object.close();
        self.tree.push(self.lines.get(start..).unwrap_or_default());
        self.lines.push(b'\n');
    }

    pub(super) fn open(&mut self, scribe: &Scribe, number: u32, at: UnixTime) {
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

    pub(super) fn recover(&mut self, failure: &Failure, waiting: usize, moment: Moment) {
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
