//! The windows under one lock.

use std::time::Duration;

use hashbrown::HashTable;

use super::table::Charge;
use super::window::{Counter, Window};
use crate::clock::Tick;

/// Idle windows that one insertion looks for: enough to find room in a table half of which is idle.
const SWEEP: usize = 16;

/// Windows are allocated in blocks of this many, so that the table never doubles. 23 of 176 bytes fill 4 KiB but for 48 bytes,
/// which is a size that allocators give without waste.
const BLOCK: usize = 23;

/// By so many windows a shard's last block grows, so that few windows in many shards are small.
const GROWTH: usize = 6;

/// By so many bits a place's block stands above its number in the block: a shift where a count of all would need a division.
const BLOCK_BITS: u32 = 5;

/// A window's place: its block, and its number there. Two bytes count to 47,104 windows; a shard has some 500.
pub(super) type Place = u16;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) narrow: Part<u16>,
    pub(super) wide: Part<u32>,
    /// Which window of either was looked at last for one that is idle.
    hands: [Place; 2],
}

// Beside its lock it fills two cache lines.
const _: () = assert!(size_of::<Shard>() <= 120);
const _: () = assert!(BLOCK <= 1 << BLOCK_BITS);

/// The windows of one width. The hash table holds places, the blocks the windows themselves.
#[derive(Debug)]
pub(super) struct Part<C> {
    index: HashTable<Place>,
    blocks: Vec<Vec<Entry<C>>>,
}

impl<C> Default for Part<C> {
    fn default() -> Self {
        Self { index: HashTable::new(), blocks: Vec::new() }
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
const fn split(place: Place) -> (usize, usize) {
    (place as usize >> BLOCK_BITS, place as usize & ((1 << BLOCK_BITS) - 1))
}

fn place_of(block: usize, number: usize) -> Option<Place> {
    Place::try_from(block << BLOCK_BITS | number).ok()
}

/// The place after this one.
const fn next(place: Place) -> Place {
    let is_last_of_block = split(place).1 + 1 >= BLOCK;
    if is_last_of_block { (place >> BLOCK_BITS).saturating_add(1) << BLOCK_BITS } else { place + 1 }
}

impl<C: Counter> Part<C> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn entry(&self, place: Place) -> Option<&Entry<C>> {
        let (block, number) = split(place);
        self.blocks.get(block)?.get(number)
    }

    pub(super) fn entry_mut(&mut self, place: Place) -> Option<&mut Entry<C>> {
        let (block, number) = split(place);
        self.blocks.get_mut(block)?.get_mut(number)
    }

    #[inline]
    pub(super) fn find(&self, key: u128) -> Option<Place> {
        let key = halves(key);
        self.index.find(key[0], |place| self.entry(*place).is_some_and(|entry| entry.key == key)).copied()
    }

    pub(super) fn insert(&mut self, entry: Entry<C>) -> Option<Place> {
        let hash = entry.key[0];
        if self.blocks.last().is_none_or(|block| block.len() >= BLOCK) {
            self.blocks.push(Vec::new());
        }
        let (block, last) = (self.blocks.len().checked_sub(1)?, self.blocks.last_mut()?);
        let place = place_of(block, last.len())?;
        if last.len() == last.capacity() {
            last.reserve_exact(GROWTH.min(BLOCK.saturating_sub(last.len())));
        }
        last.push(entry);
        let Self { index, blocks, .. } = self;
        index.insert_unique(hash, place, |other| {
            let (block, number) = split(*other);
            blocks.get(block).and_then(|block| block.get(number)).map_or(0, |entry| entry.key[0])
        });
        Some(place)
    }

    /// Where the last window is.
    fn last(&self) -> Option<Place> {
        place_of(self.blocks.len().checked_sub(1)?, self.blocks.last()?.len().checked_sub(1)?)
    }

    /// Removes one window; the last one takes its place, so that the blocks stay dense.
    fn remove(&mut self, place: Place) -> Option<Entry<C>> {
        let (key, last) = (self.entry(place)?.key, self.last()?);
        self.index.find_entry(key[0], |other| *other == place).ok()?.remove();
        let moved = self.blocks.last_mut()?.pop()?;
        if self.blocks.last().is_some_and(Vec::is_empty) {
            self.blocks.pop();
        }
        if last == place {
            return Some(moved);
        }
        if let Some(of_moved) = self.index.find_mut(moved.key[0], |other| *other == last) {
            *of_moved = place;
        }
        Some(std::mem::replace(self.entry_mut(place)?, moved))
    }

    fn sweep(&mut self, hand: &mut Place, now: Tick, freed: &mut Vec<u64>) {
        for _ in 0..SWEEP {
            let Some(last) = self.last() else { return };
            *hand = if *hand >= last { 0 } else { next(*hand) };
            if self.entry(*hand).is_some_and(|entry| entry.window.idle_from() <= now.as_nanos())
                && let Some(entry) = self.remove(*hand)
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

    /// Looks at the next few windows for idle ones, removes them, and tells whose they were.
    pub(super) fn sweep(&mut self, now: Tick) -> Vec<u64> {
        let mut freed = Vec::new();
        let [of_narrow, of_wide] = &mut self.hands;
        self.narrow.sweep(of_narrow, now, &mut freed);
        self.wide.sweep(of_wide, now, &mut freed);
        freed
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

    /// Charges a window, if it is there, what may be more than fits. Tells whether it is.
    pub(super) fn overdraw(&mut self, charge: &Charge<'_>, cost: u64) -> bool {
        if charge.spec.is_narrow() { self.narrow.overdraw(charge, cost) } else { self.wide.overdraw(charge, cost) }
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
        if let Some(entry) = self.find(charge.key).and_then(|place| self.entry_mut(place)) {
            entry.window.take_back(charge.cost);
        }
    }

    fn overdraw(&mut self, charge: &Charge<'_>, cost: u64) -> bool {
        let entry = self.find(charge.key).and_then(|place| self.entry_mut(place));
        entry.map(|entry| entry.window.overdraw(cost)).is_some()
    }
}
