//! Names with `*`, which stands for any run of characters.

use std::cmp::Reverse;
use std::collections::HashMap;

/// A pattern of names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    /// What stands between the stars.
    parts: Vec<Box<str>>,
}

impl Glob {
    /// Any text is a pattern; one without `*` stands for itself.
    pub fn new(pattern: &str) -> Self {
        Self { parts: pattern.split('*').map(Box::from).collect() }
    }

    /// Whether the name is of this pattern. Takes linear time in the product of both lengths at most: there is no going back.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return false };
        let Some((last, middle)) = rest.split_last() else { return **first == *name };
        let Some(mut left) = name.strip_prefix(&**first) else { return false };
        for part in middle {
            let Some((_, after)) = left.split_once(&**part) else { return false };
            left = after;
        }
        left.ends_with(&**last)
    }

    /// How long the part before the first `*` is: the longer, the more a pattern says.
    pub fn literal_prefix_len(&self) -> usize {
        self.literal_prefix().len()
    }

    /// The part before the first `*`.
    pub fn literal_prefix(&self) -> &str {
        self.parts.first().map_or("", |first| first)
    }
}

/// What names and patterns of names stand for: a name beats every pattern, and a pattern those with a shorter part before the
/// first `*`. The configuration has refused ties.
#[derive(Debug)]
pub struct Named<T> {
    /// The names are the configuration's, so no caller can make them meet.
    exact: HashMap<Box<str>, T, foldhash::fast::RandomState>,
    /// The longest literal prefix first.
    globs: Vec<(Glob, T)>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), globs: Vec::new() }
    }
}

impl<'a, T> FromIterator<(&'a str, T)> for Named<T> {
    fn from_iter<I: IntoIterator<Item = (&'a str, T)>>(entries: I) -> Self {
        let mut named = Self::default();
        for (name, value) in entries {
            if name.contains('*') {
                named.globs.push((Glob::new(name), value));
            } else {
                named.exact.insert(name.into(), value);
            }
        }
        named.globs.sort_by_key(|(glob, _)| Reverse(glob.literal_prefix_len()));
        named
    }
}

impl<T> Named<T> {
    /// What stands for a name.
    pub fn find(&self, name: &str) -> Option<&T> {
        self.exact.get(name).or_else(|| self.globs.iter().find(|(glob, _)| glob.matches(name)).map(|(_, value)| value))
    }

    /// Has a name stand for this, whatever it stood for.
    pub fn insert(&mut self, name: &str, value: T) {
        self.exact.insert(name.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_stands_for_any_run_and_nothing_else_does() {
        for (pattern, name, expected) in [
            ("list_*", "list_tables", true),
            ("list_*", "list_", true),
            ("list_*", "lists", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("a.c", "abc", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("*_write", "orders_write", true),
            ("*_write", "orders_write2", false),
            ("", "", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }
}
