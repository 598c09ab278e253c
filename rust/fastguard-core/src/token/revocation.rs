//! Tokens that are refused although they verify (decision 3).

use std::collections::HashMap;
use std::time::Duration;

use super::claims::Caller;
use crate::blocks::is_named;
use crate::bounds::MAX_REVOCATIONS;
use crate::clock::UnixTime;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{PoisonError, RwLock};

/// Which tokens are revoked: those that have every value named here and were issued until now, or before `issued_before`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Revocation {
    /// `iss`.
    pub issuer: Option<Box<str>>,
    /// `jti`, or the digest that [`Caller::token_id`] gives.
    pub token_id: Option<Box<str>>,
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// The client's id.
    pub client_id: Option<Box<str>>,
    /// `sid`.
    pub session: Option<Box<str>>,
    /// `kid`, as the header of the token names its key.
    pub key_id: Option<Box<str>>,
    /// Only tokens whose `iat` is before this.
    pub issued_before: Option<UnixTime>,
}

impl Revocation {
    /// The most specific value, under which the revocation is found again.
    fn selector(&self) -> Option<Selector> {
        let named = [
            (Selector::TokenId as fn(Box<str>) -> Selector, &self.token_id),
            (Selector::Session, &self.session),
            (Selector::Subject, &self.subject),
            (Selector::Client, &self.client_id),
            (Selector::Key, &self.key_id),
            (Selector::Issuer, &self.issuer),
        ];
        named.into_iter().find_map(|(make, value)| value.clone().map(make))
    }

    fn fits(&self, caller: &Caller) -> bool {
        is_named(self.issuer.as_deref(), Some(caller.issuer()))
            && is_named(self.token_id.as_deref(), Some(caller.token_id()))
            && is_named(self.subject.as_deref(), caller.subject())
            && is_named(self.client_id.as_deref(), caller.client_id())
            && is_named(self.session.as_deref(), caller.session())
            && is_named(self.key_id.as_deref(), caller.key_id())
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Selector {
    TokenId(Box<str>),
    Session(Box<str>),
    Subject(Box<str>),
    Client(Box<str>),
    Key(Box<str>),
    Issuer(Box<str>),
}

#[derive(Debug)]
struct Entry {
    revocation: Revocation,
    /// Tokens issued until this second are hit.
    issued_until: UnixTime,
    /// When it was added. It is kept until no token that was issued by then can be valid.
    added_at: UnixTime,
}

/// The revocations in force. Each addition is seen by the next call.
#[derive(Debug)]
pub struct Revocations {
    epoch: AtomicU64,
    entries: RwLock<Entries>,
    capacity: usize,
}

impl Default for Revocations {
    fn default() -> Self {
        Self::with_capacity(MAX_REVOCATIONS)
    }
}

#[derive(Debug, Default)]
struct Entries {
    by_selector: HashMap<Selector, Vec<Entry>>,
    count: usize,
}

impl Revocations {
    fn with_capacity(capacity: usize) -> Self {
        Self { epoch: AtomicU64::new(0), entries: RwLock::default(), capacity }
    }

    /// Counts the additions. What was checked at the present count needs no further look.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Adds a revocation of tokens issued until `now`; `longest_life` is the longest that any accepted token lives.
    /// `Err` where it names nothing or the table is full: live entries are never dropped.
    pub(super) fn add(
        &self,
        revocation: Revocation,
        now: UnixTime,
        longest_life: Duration,
    ) -> Result<(), &'static str> {
        let selector = revocation.selector().ok_or("a revocation must name something")?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.count >= self.capacity {
            entries.drop_expired(now, longest_life);
        }
        if entries.count >= self.capacity {
            return Err("the table of revocations is full");
        }
        // `iat` counts whole seconds: a token of this very second may be older than the revocation.
        let this_second = UnixTime::from_seconds(now.as_millis().div_euclid(1_000)).plus(Duration::from_millis(999));
        let before = revocation.issued_before.map(|before| UnixTime::from_millis(before.as_millis() - 1));
        let issued_until = before.unwrap_or(this_second);
        let known = entries.by_selector.entry(selector).or_default();
        // The same one comes again where processes tell each other all that is in force.
        if let Some(same) = known.iter_mut().find(|entry| entry.revocation == revocation) {
            same.issued_until = same.issued_until.max(issued_until);
            same.added_at = same.added_at.max(now);
        } else {
            known.push(Entry { revocation, issued_until, added_at: now });
            entries.count += 1;
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Whether a revocation hits the token. One without `iat` counts as issued at 0.
    pub(super) fn hits(&self, caller: &Caller) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        if entries.count == 0 {
            return false;
        }
        let selectors = [
            Some(Selector::TokenId(caller.token_id().into())),
            caller.session().map(|value| Selector::Session(value.into())),
            caller.subject().map(|value| Selector::Subject(value.into())),
            caller.client_id().map(|value| Selector::Client(value.into())),
            caller.key_id().map(|value| Selector::Key(value.into())),
            Some(Selector::Issuer(caller.issuer().into())),
        ];
        let issued_at = caller.issued_at().unwrap_or(UnixTime::EPOCH);
        selectors.iter().flatten().filter_map(|selector| entries.by_selector.get(selector)).flatten().any(|entry| {
            // A token id names one token, whenever it says it was issued.
            let is_old_enough = entry.revocation.token_id.is_some() || issued_at <= entry.issued_until;
            is_old_enough && entry.revocation.fits(caller)
        })
    }

    /// How many are in force.
    pub fn len(&self) -> usize {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Whether none is in force.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entries {
    fn drop_expired(&mut self, now: UnixTime, longest_life: Duration) {
        self.by_selector.retain(|_, list| {
            list.retain(|entry| entry.added_at.plus(longest_life) >= now);
            !list.is_empty()
        });
        self.count = self.by_selector.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::IssuerOptions;
    use super::super::verify::{Identity, Tokens};
    use super::*;
    use crate::config::Config;
    use crate::hashing::KeyHasher;
    use crate::jose::KeySet;

    const LIFE: Duration = Duration::from_secs(3_600);

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_seconds(seconds)
    }

    /// Everything that names the caller of the tests.
    fn all() -> Revocation {
        Revocation {
            issuer: Some("https://auth.example.com".into()),
            token_id: Some("jti-1".into()),
            subject: Some("alice".into()),
            client_id: Some("agent-7".into()),
            session: None,
            key_id: Some("key-1".into()),
            issued_before: None,
        }
    }

    fn hits(revocation: Revocation) -> bool {
        let revocations = Revocations::default();
        revocations.add(revocation, at(1_800_000_000), LIFE).unwrap();
        revocations.hits(&Caller::example())
    }

    #[test]
    fn revocation_hits_who_has_all_that_it_names_and_nobody_who_lacks_one() {
        assert!(hits(all()));
        let other = || Some(Box::from("other"));
        assert!(!hits(Revocation { issuer: other(), ..all() }));
        assert!(!hits(Revocation { token_id: other(), ..all() }));
        assert!(!hits(Revocation { subject: other(), ..all() }));
        assert!(!hits(Revocation { client_id: other(), ..all() }));
        assert!(!hits(Revocation { session: other(), ..all() }));
        assert!(!hits(Revocation { key_id: other(), ..all() }));
    }

    #[test]
    fn table_counts_what_is_in_force_and_the_same_one_once() {
        let revocations = Revocations::default();
        assert!(revocations.is_empty());
        for _ in 0..2 {
            revocations.add(all(), at(1_800_000_000), LIFE).unwrap();
        }
        assert_eq!(revocations.len(), 1);
        assert!(!revocations.is_empty());
        revocations.add(Revocation { token_id: Some("t".into()), ..all() }, at(1_800_000_000), LIFE).unwrap();
        assert_eq!(revocations.len(), 2);
    }

    #[test]
    fn full_table_drops_what_can_hit_nothing_any_more_and_refuses_while_all_can() {
        let of = |number: i64| Revocation { token_id: Some(number.to_string().into()), ..Revocation::default() };
        let revocations = Revocations::with_capacity(4);
        for number in 0..4 {
            // Two of them a second later.
            assert_eq!(revocations.add(of(number), at(number / 2), LIFE), Ok(()));
        }
        // The last moment at which a token that they hit can be valid.
        assert!(revocations.add(of(4), at(3_600), LIFE).is_err());
        assert_eq!(revocations.len(), 4);
        assert_eq!(revocations.add(of(4), at(3_601), LIFE), Ok(()));
        assert_eq!(revocations.len(), 3);
        assert_eq!(revocations.add(of(5), at(3_601), LIFE), Ok(()));
        assert!(revocations.add(of(6), at(3_601), LIFE).is_err());
    }

    /// A verifier of tokens that live for an hour at most, with a table for one revocation.
    fn narrow(mut tokens: Tokens) -> Tokens {
        Arc::get_mut(&mut tokens.kept).unwrap().revocations = Arc::new(Revocations::with_capacity(1));
        tokens
    }

    /// Whether a full table keeps a revocation for so many seconds and takes no other, and not for one more.
    fn is_kept_until(tokens: &Tokens, seconds: i64) -> bool {
        let of = |name: &str| Revocation { token_id: Some(name.into()), ..Revocation::default() };
        tokens.revoke(of("one"), at(0)).unwrap();
        tokens.revoke(of("other"), at(seconds)).is_err() && tokens.revoke(of("other"), at(seconds + 1)).is_ok()
    }

    #[test]
    fn revocation_is_kept_for_the_longest_life_and_the_leeway_on_both_ends() {
        let keys = KeySet::from_jwks(
            br#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            false,
        );
        let options = IssuerOptions::new("https://auth.example.com", "https://mcp.example.com/mcp");
        let tokens = Tokens::single(options, Arc::new(keys.unwrap()), Duration::from_secs(30), 10);
        assert!(is_kept_until(&narrow(tokens), 3_600 + 2 * 30));
    }

    #[test]
    fn revocation_is_kept_for_31_days_where_tokens_do_not_tell_how_long_they_live() {
        let text = "version = 1\n[resource]\nurl = \"https://mcp.example.com/mcp\"\n\
                    authorization_servers = [\"https://auth.example.com\"]\n[tools.add]\nopen = true\n[audit]\nenabled = false\n";
        let config = Config::from_toml(text, None).unwrap();
        let tokens = Tokens::new(&config, Arc::default(), KeyHasher::random(), Identity::Outside).unwrap();
        assert!(is_kept_until(&narrow(tokens), 31 * 86_400 + 2 * 30));
    }
}
