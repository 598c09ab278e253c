//! Tokens that were verified, found again by their text (decision 2).

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::verify::Entry;
use crate::bounds::TABLE_SHARE;
use crate::sync::{Mutex, PoisonError};

/// Hashes are keyed at random, and the text is compared whole, so that a collision costs a verification and nothing else.
#[derive(Debug)]
pub(super) struct TokenCache {
    hasher: RandomState,
    generations: ArcSwap<Generations>,
    /// Entries of the young generation by principal: none may hold more than its share (decision 5).
    shares: Mutex<HashMap<u128, usize>>,
    capacity: usize,
}

/// Letters that are hashed at each of two places.
const SAMPLE: usize = 32;

type Table = DashMap<u64, Arc<Entry>, RandomState>;

/// Entries live in the young generation until it is full; then it becomes the old one, and the old one goes. What is found
/// in the old one moves back, so that tokens in use stay, at the cost of one map operation in a full turn.
#[derive(Debug)]
struct Generations {
    young: Arc<Table>,
    old: Arc<Table>,
}

impl TokenCache {
    pub(super) fn new(capacity: usize) -> Self {
        let generations = Generations { young: Arc::default(), old: Arc::default() };
        Self {
            hasher: RandomState::default(),
            generations: ArcSwap::from_pointee(generations),
            shares: Mutex::default(),
            capacity,
        }
    }

    pub(super) fn find(&self, text: &str) -> Option<Arc<Entry>> {
        if self.capacity == 0 {
            return None;
        }
        let key = self.key(text);
        let generations = self.generations.load();
        if let Some(entry) = generations.young.get(&key) {
            return (entry.text() == text).then(|| Arc::clone(&entry));
        }
        let entry = generations.old.get(&key).filter(|entry| entry.text() == text).map(|entry| Arc::clone(&entry))?;
        self.insert(&entry);
        Some(entry)
    }

    pub(super) fn insert(&self, entry: &Arc<Entry>) {
        if self.capacity == 0 {
            return;
        }
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let generation_size = self.capacity.div_ceil(2);
        let generations = self.generations.load();
        let mut young = Arc::clone(&generations.young);
        if young.len() >= generation_size {
            let turned = Generations { young: Arc::default(), old: Arc::clone(&young) };
            young = Arc::clone(&turned.young);
            self.generations.store(turned.into());
            shares.clear();
        }
        let share = shares.entry(entry.caller().principal()).or_default();
        // A caller that makes more tokens than its share pays for their verification itself.
        if *share >= generation_size.div_ceil(TABLE_SHARE).max(8) {
            return;
        }
        if young.insert(self.key(entry.text()), Arc::clone(entry)).is_none() {
            *share += 1;
        }
    }

    /// A hash of the letters that differ between tokens: the end, where the signature is, and the middle, should many opaque tokens
    /// end alike. Whoever makes a text that meets another's here pays for a verification, as with any other text.
    fn key(&self, text: &str) -> u64 {
        let text = text.as_bytes();
        let end = text.last_chunk::<SAMPLE>();
        let middle = text.get(text.len() / 2..).and_then(|half| half.first_chunk::<SAMPLE>());
        match (middle, end) {
            (Some(middle), Some(end)) => self.hasher.hash_one((text.len(), middle, end)),
            _ => self.hasher.hash_one(text),
        }
    }

    pub(super) fn len(&self) -> usize {
        let generations = self.generations.load();
        generations.young.len() + generations.old.len()
    }
}
