//! The windows under one lock.

use std::time::Duration;

use hashbrown::HashTable;

use super::table::Charge;
use super::window::{Counter, Window};
use crate::clock::Tick;

/// Idle windows that one insertion looks for: enough to find room in a table half of which is idle.
const SWEEP: usize = 16;

/// Windows are allocated in blocks of this many, so that the table never doubles. 93 of 176 bytes fill 16 KiB but for 16 bytes,
/// which is a size that allocators give without waste.
const BLOCK: usize = 93;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) narrow: Part<u16>,
    pub(super) wide: Part<u32>,
}

/// The windows of one width. The hash table holds indices of four bytes, the blocks the windows themselves.
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
    pub(super) idle_from: u64,
    pub(super) window: Window<C>,
}

pub(super) const fn halves(value: u128) -> [u64; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    [value as u64, (value >> 64) as u64]
}

impl<C: Counter> Part<C> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn entry(&self, index: u32) -> Option<&Entry<C>> {
        let index = index as usize;
        self.blocks.get(index / BLOCK)?.get(index % BLOCK)
    }

    pub(super) fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<C>> {
        let index = index as usize;
        self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)
    }

    pub(super) fn find(&self, key: u128) -> Option<u32> {
        let key = halves(key);
        self.index.find(key[0], |index| self.entry(*index).is_some_and(|entry| entry.key == key)).copied()
    }

    pub(super) fn insert(&mut self, entry: Entry<C>) -> Option<u32> {
        let position = u32::try_from(self.index.len()).ok()?;
        let hash = entry.key[0];
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        self.blocks.last_mut()?.push(entry);
        let Self { index, blocks, .. } = self;
        index.insert_unique(hash, position, |other| {
            let other = *other as usize;
            blocks.get(other / BLOCK).and_then(|block| block.get(other % BLOCK)).map_or(0, |entry| entry.key[0])
        });
        Some(position)
    }

    /// Removes one window; the last one takes its place, so that the blocks stay dense.
    fn remove(&mut self, position: u32) -> Option<Entry<C>> {
        let key = self.entry(position)?.key;
        self.moves = self.moves.wrapping_add(1);
        self.index.find_entry(key[0], |index| *index == position).ok()?.remove();
        let moved = self.blocks.last_mut()?.pop()?;
        if self.blocks.last().is_some_and(Vec::is_empty) {
            self.blocks.pop();
        }
        let last = u32::try_from(self.index.len()).ok()?;
        if last == position {
            return Some(moved);
        }
        if let Some(index) = self.index.find_mut(moved.key[0], |index| *index == last) {
            *index = position;
        }
        Some(std::mem::replace(self.entry_mut(position)?, moved))
    }

    /// Looks at the next few windows for idle ones, removes them, and tells whose they were.
    pub(super) fn sweep(&mut self, now: Tick, freed: &mut Vec<u64>) {
        for _ in 0..SWEEP {
            let Some(last) = u32::try_from(self.len()).ok().and_then(|count| count.checked_sub(1)) else { return };
            self.hand = if self.hand >= last { 0 } else { self.hand + 1 };
            if self.entry(self.hand).is_some_and(|entry| entry.idle_from <= now.as_nanos())
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

    /// Makes a charge that was checked under the same lock, and tells what it left.
    pub(super) fn charge(&mut self, charge: &Charge<'_>, position: u32) -> u64 {
        if charge.spec.is_narrow() { self.narrow.charge(charge, position) } else { self.wide.charge(charge, position) }
    }

    pub(super) fn overdraw(&mut self, charge: &Charge<'_>, position: u32, cost: u64) {
        if charge.spec.is_narrow() {
            self.narrow.overdraw(charge, position, cost);
        } else {
            self.wide.overdraw(charge, position, cost);
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

    fn charge(&mut self, charge: &Charge<'_>, position: u32) -> u64 {
        if charge.is_look {
            return u64::MAX;
        }
        let Some(entry) = self.entry_mut(position) else { return 0 };
        entry.window.charge(charge.cost);
        entry.idle_from = entry.window.idle_from(charge.spec);
        entry.window.remaining(charge.spec)
    }

    fn overdraw(&mut self, charge: &Charge<'_>, position: u32, cost: u64) {
        let Some(entry) = self.entry_mut(position) else { return };
        entry.window.overdraw(cost);
        entry.idle_from = entry.window.idle_from(charge.spec);
    }
}
