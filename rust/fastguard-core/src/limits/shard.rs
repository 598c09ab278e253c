//! The windows under one lock.

use std::time::Duration;

use hashbrown::HashTable;

use super::table::Charge;
use super::window::{Counter, Window};
use crate::clock::Tick;

/// Idle windows that one insertion looks for: enough to find room in a table half of which is idle.
const SWEEP: usize = 16;

/// By so many bits a place's block stands above its number in the block: a shift where a count of all would need a division.
const BLOCK_BITS: u32 = 7;

/// Windows are allocated in blocks of this many, so that the table never doubles. 93 of 176 bytes fill 16 KiB but for 16 bytes,
/// which is a size that allocators give without waste.
const BLOCK: usize = 93;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) narrow: Part<u16>,
    pub(super) wide: Part<u32>,
}

/// The windows of one width. The hash table holds places of four bytes, the blocks the windows themselves.
#[derive(Debug)]
pub(super) struct Part<C> {
    index: HashTable<u32>,
    blocks: Vec<Vec<Entry<C>>>,
    hand: u32,
    /// How often a window was removed, which moves another.
    moves: u32,
}

impl<C> Default for Part<C> {
    fn default() -> Self {
        Self { index: HashTable::new(), blocks: Vec::new(), hand: 0, moves: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Entry<C> {
    // Two halves: a u128 would be aligned to 16 bytes and cost 8 more.
    pub(super) key: [u64; 2],
    /// Half of the holder's hash: two who share it share their part of the table.
    pub(super) holder: u64,
    pub(super) window: Window<C>,
}

pub(super) const fn halves(value: u128) -> [u64; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    [value as u64, (value >> 64) as u64]
}

/// A place's block, and its number in it.
const fn split(position: u32) -> (usize, usize) {
    (position as usize >> BLOCK_BITS, position as usize & ((1 << BLOCK_BITS) - 1))
}

fn position_of(block: usize, place: usize) -> Option<u32> {
    u32::try_from(block << BLOCK_BITS | place).ok()
}

/// The place after this one.
const fn next(position: u32) -> u32 {
    let is_last_of_block = split(position).1 + 1 >= BLOCK;
    if is_last_of_block { (position >> BLOCK_BITS).saturating_add(1) << BLOCK_BITS } else { position + 1 }
}

impl<C: Counter> Part<C> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn entry(&self, position: u32) -> Option<&Entry<C>> {
        let (block, place) = split(position);
        self.blocks.get(block)?.get(place)
    }

    pub(super) fn entry_mut(&mut self, position: u32) -> Option<&mut Entry<C>> {
        let (block, place) = split(position);
        self.blocks.get_mut(block)?.get_mut(place)
    }

    #[inline]
    pub(super) fn find(&self, key: u128) -> Option<u32> {
        let key = halves(key);
        self.index.find(key[0], |position| self.entry(*position).is_some_and(|entry| entry.key == key)).copied()
    }

    pub(super) fn insert(&mut self, entry: Entry<C>) -> Option<u32> {
        let hash = entry.key[0];
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let (block, last) = (self.blocks.len().checked_sub(1)?, self.blocks.last_mut()?);
        let position = position_of(block, last.len())?;
        last.push(entry);
        let Self { index, blocks, .. } = self;
        index.insert_unique(hash, position, |other| {
            let (block, place) = split(*other);
            blocks.get(block).and_then(|block| block.get(place)).map_or(0, |entry| entry.key[0])
        });
        Some(position)
    }

    /// Where the last window is.
    fn last(&self) -> Option<u32> {
        position_of(self.blocks.len().checked_sub(1)?, self.blocks.last()?.len().checked_sub(1)?)
    }

    /// Removes one window; the last one takes its place, so that the blocks stay dense.
    fn remove(&mut self, position: u32) -> Option<Entry<C>> {
        let (key, last) = (self.entry(position)?.key, self.last()?);
        self.moves = self.moves.wrapping_add(1);
        self.index.find_entry(key[0], |other| *other == position).ok()?.remove();
        let moved = self.blocks.last_mut()?.pop()?;
        if self.blocks.last().is_some_and(Vec::is_empty) {
            self.blocks.pop();
        }
        if last == position {
            return Some(moved);
        }
        if let Some(place) = self.index.find_mut(moved.key[0], |other| *other == last) {
            *place = position;
        }
        Some(std::mem::replace(self.entry_mut(position)?, moved))
    }

    /// Looks at the next few windows for idle ones, removes them, and tells whose they were.
    pub(super) fn sweep(&mut self, now: Tick, freed: &mut Vec<u64>) {
        for _ in 0..SWEEP {
            let Some(last) = self.last() else { return };
            self.hand = if self.hand >= last { 0 } else { next(self.hand) };
            if self.entry(self.hand).is_some_and(|entry| entry.window.idle_from() <= now.as_nanos())
                && let Some(entry) = self.remove(self.hand)
            {
                freed.push(entry.holder);
            }
        }
    }
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.narrow.len() + self.wide.len()
    }

    /// Whether places that were found under the same lock hold still: as long as this stays the same.
    pub(super) const fn moves(&self) -> u32 {
        self.narrow.moves.wrapping_add(self.wide.moves)
    }

    /// How a window stands, if there is one.
    pub(super) fn look(&self, charge: &Charge<'_>, now: Tick) -> Option<(u64, Option<Duration>)> {
        if charge.spec.is_narrow() { self.narrow.look(charge, now) } else { self.wide.look(charge, now) }
    }

    /// Makes a charge whose window is there and has room for it, and tells what it left.
    pub(super) fn charge_found(&mut self, charge: &Charge<'_>, now: Tick) -> Option<u64> {
        if charge.spec.is_narrow() {
            self.narrow.charge_found(charge, now)
        } else {
            self.wide.charge_found(charge, now)
        }
    }

    /// Takes back what was charged so under the same lock.
    pub(super) fn take_back(&mut self, charge: &Charge<'_>) {
        if charge.is_look {
            return;
        }
        if charge.spec.is_narrow() {
            self.narrow.take_back(charge);
        } else {
            self.wide.take_back(charge);
        }
    }

    /// Makes a charge that was checked under the same lock, and tells what it left.
    pub(super) fn charge(&mut self, charge: &Charge<'_>, position: u32) -> u64 {
        if charge.spec.is_narrow() { self.narrow.charge(charge, position) } else { self.wide.charge(charge, position) }
    }

    pub(super) fn overdraw(&mut self, charge: &Charge<'_>, position: u32, cost: u64) {
        if charge.spec.is_narrow() {
            self.narrow.overdraw(position, cost);
        } else {
            self.wide.overdraw(position, cost);
        }
    }

    /// Where a window is that was checked under the same lock; making others may have moved it since.
    pub(super) fn position(&self, charge: &Charge<'_>) -> Option<u32> {
        if charge.spec.is_narrow() { self.narrow.find(charge.key) } else { self.wide.find(charge.key) }
    }
}

impl<C: Counter> Part<C> {
    fn look(&self, charge: &Charge<'_>, now: Tick) -> Option<(u64, Option<Duration>)> {
        let mut window = self.entry(self.find(charge.key)?)?.window.clone();
        window.advance(charge.spec, now);
        Some(window.look(charge.spec, charge.cost, now))
    }

    fn charge_found(&mut self, charge: &Charge<'_>, now: Tick) -> Option<u64> {
        let entry = self.entry_mut(self.find(charge.key)?)?;
        entry.window.advance(charge.spec, now);
        if !entry.window.has_room(charge.spec, charge.cost) {
            return None;
        }
        if charge.is_look {
            return Some(u64::MAX);
        }
        entry.window.charge(charge.cost);
        Some(entry.window.remaining(charge.spec))
    }

    fn take_back(&mut self, charge: &Charge<'_>) {
        if let Some(entry) = self.find(charge.key).and_then(|position| self.entry_mut(position)) {
            entry.window.take_back(charge.cost);
        }
    }

    fn charge(&mut self, charge: &Charge<'_>, position: u32) -> u64 {
        if charge.is_look {
            return u64::MAX;
        }
        let Some(entry) = self.entry_mut(position) else { return 0 };
        entry.window.charge(charge.cost);
        entry.window.remaining(charge.spec)
    }

    fn overdraw(&mut self, position: u32, cost: u64) {
        if let Some(entry) = self.entry_mut(position) {
            entry.window.overdraw(cost);
        }
    }
}
