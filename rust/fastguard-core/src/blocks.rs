//! Tools and callers that are blocked for a time, whatever tokens and rules say.

use std::collections::HashMap;

use crate::bounds::MAX_BLOCKS;
use crate::call::{Caller, Target};
use crate::clock::UnixTime;
use crate::denial::Denial;
use crate::request::Kind;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{PoisonError, RwLock};

/// What is blocked: the calls that have every value named here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Block {
    /// The name of a tool.
    pub tool: Option<Box<str>>,
    /// `iss`.
    pub issuer: Option<Box<str>>,
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// The client's id.
    pub client_id: Option<Box<str>>,
}

impl Block {
    /// The most specific value, under which the block is found again.
    fn selector(&self) -> Option<Selector> {
        let named = [
            (Selector::Subject as fn(Box<str>) -> Selector, &self.subject),
            (Selector::Client, &self.client_id),
            (Selector::Tool, &self.tool),
            (Selector::Issuer, &self.issuer),
        ];
        named.into_iter().find_map(|(make, value)| value.clone().map(make))
    }

    fn fits(&self, caller: &Caller, tool: Option<&str>) -> bool {
        is_named(self.tool.as_deref(), tool)
            && is_named(self.issuer.as_deref(), Some(caller.issuer()))
            && is_named(self.subject.as_deref(), caller.subject())
            && is_named(self.client_id.as_deref(), caller.client_id())
    }
}

/// Whether a block or a revocation that names this, or nothing here, hits who has that.
pub(crate) fn is_named(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| found == Some(wanted))
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Selector {
    Tool(Box<str>),
    Subject(Box<str>),
    Client(Box<str>),
    Issuer(Box<str>),
}

/// `None`: until it is lifted.
type Until = Option<UnixTime>;

/// The blocks in force. Each change is seen by the next call.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Whether there is none, so that a call pays for one load.
    is_any: AtomicBool,
    by_selector: RwLock<HashMap<Selector, Vec<(Block, Until)>>>,
}

impl Blocks {
    /// Blocks from now on; `until` is when it ends by itself. The same block again takes the new end.
    /// `Err` where it names nothing, or where too many are in force.
    pub fn add(&self, block: Block, until: Until, now: UnixTime) -> Result<(), &'static str> {
        let selector = block.selector().ok_or("a block must name something")?;
        let mut found = self.by_selector.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) =
            found.get_mut(&selector).and_then(|list| list.iter_mut().find(|(known, _)| *known == block))
        {
            *known = until;
            return Ok(());
        }
        if found.values().map(Vec::len).sum::<usize>() >= MAX_BLOCKS {
            found.retain(|_, list| {
                list.retain(|(_, until)| until.is_none_or(|until| until > now));
                !list.is_empty()
            });
            if found.values().map(Vec::len).sum::<usize>() >= MAX_BLOCKS {
                return Err("too many blocks are in force");
            }
        }
        found.entry(selector).or_default().push((block, until));
        self.is_any.store(true, Ordering::Release);
        Ok(())
    }

    /// Lifts a block that names exactly this; whether there was one.
    pub fn lift(&self, block: &Block) -> bool {
        let Some(selector) = block.selector() else { return false };
        let mut found = self.by_selector.write().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = found.get_mut(&selector) else { return false };
        let before = list.len();
        list.retain(|(known, _)| known != block);
        let was_there = list.len() < before;
        if list.is_empty() {
            found.remove(&selector);
        }
        self.is_any.store(!found.is_empty(), Ordering::Release);
        was_there
    }

    /// How many are in force, or ended by themselves since the last addition.
    pub fn len(&self) -> usize {
        self.by_selector.read().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses what is blocked. Without a target: the caller alone.
    pub fn check(&self, caller: &Caller, target: Option<&Target>, now: UnixTime) -> Result<(), Denial> {
        if !self.is_any.load(Ordering::Acquire) {
            return Ok(());
        }
        let tool = target.filter(|target| target.kind() == Kind::Tool).map(Target::name);
        let selectors = [
            caller.subject().map(|value| Selector::Subject(value.into())),
            caller.client_id().map(|value| Selector::Client(value.into())),
            tool.map(|value| Selector::Tool(value.into())),
            Some(Selector::Issuer(caller.issuer().into())),
        ];
        let found = self.by_selector.read().unwrap_or_else(PoisonError::into_inner);
        let blocks = selectors.iter().flatten().filter_map(|selector| found.get(selector)).flatten();
        let mut hits =
            blocks.filter(|(block, until)| block.fits(caller, tool) && until.is_none_or(|until| until > now));
        match hits.next() {
            None => Ok(()),
            Some((block, until)) => Err(Denial::Blocked {
                what: if block.tool.is_some() { "tool" } else { "caller" },
                retry_after: until.map(|until| until.since(now)),
            }),
        }
    }
}
