//! Scopes as bits: one per scope that the configuration names (decision 10).

use std::collections::{BTreeMap, HashMap};

use crate::config::{Config, Glob, Rule};
use crate::policy::CodeRule;

/// A set of scopes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ScopeBits(Vec<u64>);

impl ScopeBits {
    fn insert(&mut self, index: usize) {
        let (word, bit) = (index / 64, 1_u64 << (index % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(slot) = self.0.get_mut(word) {
            *slot |= bit;
        }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// Whether every scope of `other` is in this set.
    pub fn contains_all(&self, other: &Self) -> bool {
        let mine = self.0.iter().copied().chain(std::iter::repeat(0));
        other.0.iter().zip(mine).all(|(theirs, mine)| theirs & !mine == 0)
    }

    /// Whether the sets share a scope.
    pub fn contains_any(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(mine, theirs)| mine & theirs != 0)
    }
}

/// Every scope that the configuration names, with what it implies.
#[derive(Debug, Default)]
pub struct ScopeTable {
    scopes: HashMap<Box<str>, (usize, ScopeBits)>,
}

impl ScopeTable {
    /// Numbers the scopes of all rules and hierarchies. The configuration has refused cycles.
    pub fn new(config: &Config, code: &[CodeRule]) -> Self {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let tables = [&config.tools, &config.prompts, &config.resources, &config.methods];
        let rules = tables.into_iter().flat_map(BTreeMap::values).chain(code.iter().map(|rule| &rule.rule));
        let rules = rules.flat_map(named);
        let hierarchy = config
            .scopes
            .iter()
            .flat_map(|(name, scope)| std::iter::once(name.as_str()).chain(scope.implies.iter().map(String::as_str)));
        for name in rules.chain(hierarchy) {
            let next = numbers.len();
            numbers.entry(name).or_insert(next);
        }
        let scopes = numbers.iter().map(|(name, number)| ((*name).into(), (*number, closure(name, config, &numbers))));
        Self { scopes: scopes.collect() }
    }

    /// The bits of a token's scopes, implied ones included. Names that no rule speaks of have none.
    pub fn bits<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> ScopeBits {
        let mut bits = ScopeBits::default();
        for name in names {
            if let Some((_, implied)) = self.scopes.get(name) {
                bits.join(implied);
            }
        }
        bits
    }

    /// The one bit of a scope that a rule names, without what it implies.
    pub fn bit(&self, name: &str) -> ScopeBits {
        let mut bits = ScopeBits::default();
        if let Some((number, _)) = self.scopes.get(name) {
            bits.insert(*number);
        }
        bits
    }

    /// The first scope by name that the bits grant and a pattern fits.
    pub fn granted_like(&self, glob: &Glob, granted: &ScopeBits) -> Option<&str> {
        let fitting = self.scopes.keys().filter(|name| glob.matches(name));
        fitting.filter(|name| granted.contains_all(&self.bit(name))).min().map(|name| &**name)
    }
}

fn named(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.scopes().iter().chain(rule.any_scopes()).map(String::as_str)
}

fn closure(name: &str, config: &Config, numbers: &HashMap<&str, usize>) -> ScopeBits {
    let mut bits = ScopeBits::default();
    let mut open = vec![name];
    let mut seen = std::collections::HashSet::new();
    while let Some(name) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        if let Some(number) = numbers.get(name) {
            bits.insert(*number);
        }
        if let Some(scope) = config.scopes.get(name) {
            open.extend(scope.implies.iter().map(String::as_str));
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[usize]) -> ScopeBits {
        let mut bits = ScopeBits::default();
        for number in numbers {
            bits.insert(*number);
        }
        bits
    }

    #[test]
    fn set_holds_what_was_put_in_over_the_borders_of_its_words() {
        let mine = of(&[0, 63, 64, 200]);
        for number in [0, 63, 64, 200] {
            assert!(mine.contains_all(&of(&[number])) && mine.contains_any(&of(&[number, 299])), "{number}");
        }
        for number in [1, 62, 65, 127, 128, 192, 199, 201, 256, 264] {
            assert!(!mine.contains_all(&of(&[number])) && !mine.contains_any(&of(&[number, 299])), "{number}");
        }
        assert!(mine.contains_all(&of(&[])) && !mine.contains_any(&of(&[])));
        assert!(!mine.contains_all(&of(&[0, 1])) && mine.contains_any(&of(&[1, 200])));
        assert!(!of(&[0]).contains_all(&mine) && of(&[0]).contains_any(&mine));
    }

    #[test]
    fn sets_of_any_length_are_joined() {
        for (mut one, other) in [(of(&[1]), of(&[100])), (of(&[100]), of(&[1]))] {
            one.join(&other);
            assert_eq!(one, of(&[1, 100]));
        }
    }
}
