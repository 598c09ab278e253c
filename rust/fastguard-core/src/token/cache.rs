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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str, principal: u128) -> Arc<Entry> {
        Arc::new(Entry::example(text, principal))
    }

    /// A cache with a token for each of these principals, named after it.
    fn filled(capacity: usize, principals: std::ops::Range<u128>) -> TokenCache {
        let cache = TokenCache::new(capacity);
        insert(&cache, principals);
        cache
    }

    fn insert(cache: &TokenCache, principals: std::ops::Range<u128>) {
        for principal in principals {
            cache.insert(&entry(&format!("token-{principal}"), principal));
        }
    }

    fn found(cache: &TokenCache, principals: std::ops::Range<u128>) -> usize {
        principals.filter(|principal| cache.find(&format!("token-{principal}")).is_some()).count()
    }

    #[test]
    fn token_is_found_by_its_text_and_no_other_is() {
        let cache = filled(8, 0..3);
        assert_eq!(cache.find("token-1").unwrap().text(), "token-1");
        assert!(cache.find("token-9").is_none());
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn cache_without_room_keeps_and_finds_nothing() {
        let cache = filled(0, 0..3);
        assert!(cache.find("token-1").is_none());
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn tokens_that_agree_where_they_are_hashed_share_a_place_and_are_told_apart() {
        let cache = TokenCache::new(16);
        let of = |start: &str| format!("{start}{}", "x".repeat(3 * SAMPLE));
        let (one, other) = (of("one"), of("two"));
        cache.insert(&entry(&one, 1));
        assert!(cache.find(&other).is_none());
        cache.insert(&entry(&other, 2));
        assert!(cache.find(&one).is_none());
        assert_eq!(cache.find(&other).unwrap().text(), &*other);
        assert_eq!(cache.len(), 1);

        // The same in the old generation.
        insert(&cache, 0..8);
        assert!(cache.find(&one).is_none());
        assert_eq!(cache.find(&other).unwrap().text(), &*other);
    }

    #[test]
    fn tokens_that_differ_in_the_middle_or_at_the_end_have_places_of_their_own() {
        let (some, x) = ("a".repeat(SAMPLE), "x".repeat(SAMPLE));
        let cache = TokenCache::new(16);
        let texts = [format!("{x}{x}{some}{x}"), format!("{x}{x}{x}{x}"), format!("{x}{x}{x}{some}")];
        for (text, principal) in texts.iter().zip(0..) {
            cache.insert(&entry(text, principal));
        }
        assert_eq!(texts.iter().filter(|text| cache.find(text).is_some()).count(), 3);
    }

    #[test]
    fn full_cache_forgets_what_was_not_used_for_a_turn_and_no_more() {
        let cache = filled(32, 0..32);
        assert_eq!(cache.len(), 32);
        // What is found in the old generation moves to the young one, and here begins it.
        assert_eq!(found(&cache, 3..4), 1);
        insert(&cache, 32..47);
        assert_eq!((found(&cache, 0..3), found(&cache, 3..4), found(&cache, 4..16)), (0, 1, 0));
        assert_eq!((found(&cache, 32..47), cache.len()), (15, 32));
        assert_eq!(found(&cache, 16..17), 1);
    }

    #[test]
    fn one_principal_fills_no_more_than_its_share() {
        let share = 10;
        let cache = TokenCache::new(2 * share * TABLE_SHARE);
        for number in 0..3 * share {
            cache.insert(&entry(&format!("mallory-{number}"), 7));
        }
        assert_eq!(cache.len(), share);
        insert(&cache, 100..101);
        assert_eq!(found(&cache, 100..101), 1);
    }
}
