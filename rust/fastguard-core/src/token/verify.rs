//! The walk from a token's text to [`VerifiedToken`].

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::cache::TokenCache;
use super::claims::{Caller, Reading};
use super::failures::Failures;
use super::introspection::{Introspection, is_jws_shaped};
use super::issuer::{Issuer, IssuerOptions, KeyPlace, KeySource};
use super::keys::{Absent, IssuerKeys};
use super::lookups::Lookups;
use super::outside::Outside;
use super::revocation::{Revocation, Revocations};
use crate::bounds::{MAX_CLAIMS_DEPTH, MAX_TOKEN_BYTES};
use crate::clock::{Now, Tick, UnixTime};
use crate::config::{Config, ConfigError, Quota};
use crate::denial::Denial;
use crate::hashing::KeyHasher;
use crate::jose::{Compact, Header, HeaderKey, KeySet, KeySetError, encode_segment, sha256};
use crate::json::Json;
use crate::scopes::ScopeTable;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Proof that a token's signature, issuer, audience, times and type are in order.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    pub(super) entry: Arc<Entry>,
}

impl VerifiedToken {
    /// The caller that the token names.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.entry.caller
    }

    /// The token's text.
    pub fn text(&self) -> &str {
        &self.entry.text
    }

    /// The SHA-256 of the text in base64url: what `ath` of a proof must be (RFC 9449 §4.2).
    pub fn text_hash(&self) -> &str {
        self.entry.text_hash.get_or_init(|| encode_segment(&sha256(self.entry.text.as_bytes())).into())
    }

    /// The key of the last proofs, once one was confirmed.
    pub(crate) fn proof_key(&self) -> Option<&HeaderKey> {
        self.entry.proof_key.get()
    }

    /// Keeps the key of a proof that was confirmed; the first one stays, so that nobody can make the guard forget it.
    pub(crate) fn keep_proof_key(&self, key: HeaderKey) {
        let _ = self.entry.proof_key.set(key);
    }
}

impl Deref for VerifiedToken {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.entry.caller
    }
}

/// Marks the generations of the administrators' endpoint. The others count from 0 and never get here.
const OF_ADMIN: u64 = 1 << 63;

/// A verdict with all that it depends on.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) text: Box<str>,
    pub(super) caller: Arc<Caller>,
    pub(super) keys: Arc<IssuerKeys>,
    pub(super) key_epoch: u64,
    pub(super) max_stale: Duration,
    pub(super) generation: u64,
    /// The count of revocations at which this token was last seen not to be hit.
    pub(super) cleared_at: AtomicU64,
    /// Kept for room 2: the same for all proofs of one token.
    pub(super) text_hash: OnceLock<Box<str>>,
    pub(super) proof_key: OnceLock<HeaderKey>,
}

impl Entry {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// A verdict for the tests of other modules.
    #[cfg(test)]
    pub(super) fn example(text: &str, principal: u128) -> Self {
        Self {
            text: text.into(),
            caller: Arc::new(Caller { principal, ..Caller::example() }),
            keys: Arc::new(IssuerKeys::unneeded()),
            key_epoch: 0,
            max_stale: Duration::ZERO,
            generation: 0,
            cleared_at: AtomicU64::new(0),
            text_hash: OnceLock::new(),
            proof_key: OnceLock::new(),
        }
    }
}

/// Why there is no proof.
#[derive(Debug)]
pub enum Unverified {
    /// The token is refused.
    Denied(Denial),
    /// Something must be found out first.
    Needs(Need),
}

impl From<Denial> for Unverified {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// How work of many microseconds is done: a binding lets other threads run meanwhile.
pub trait Detach {
    /// Does the work and hands on what it gives.
    fn detached<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T;
}

/// Does the work where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Attached;

impl Detach for Attached {
    fn detached<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        work()
    }
}

/// What must be found out before a token can be judged.
#[derive(Clone, Eq, PartialEq)]
pub enum Need {
    /// The key set of this issuer.
    Keys(Arc<str>),
    /// Whose token this is, by the verifier outside.
    Identity(Box<str>),
    /// What the issuer says of this opaque token (RFC 7662).
    Introspection(Box<str>),
}

impl Need {
    /// The word for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys",
            Self::Identity(_) => "the verifier",
            Self::Introspection(_) => "the issuer's word on the token",
        }
    }
}

impl fmt::Debug for Need {
    /// Never the token's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(issuer) => f.debug_tuple("Keys").field(issuer).finish(),
            Self::Identity(_) => f.write_str("Identity"),
            Self::Introspection(_) => f.write_str("Introspection"),
        }
    }
}

/// What a call has waited for already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered<'a> {
    /// Its need was answered once, well or not: an absent key is unknown now.
    pub has_waited: bool,
    /// What the verifier outside has found, by [`Tokens::attest`].
    pub attested: Option<&'a Attested>,
    /// Who asks, where that is known: lookups of unknown tokens are counted by address.
    pub address: Option<IpAddr>,
}

/// What the verifier outside has found of a token: whose it is, or why it is refused.
pub type Attested = Result<VerifiedToken, Denial>;

impl Answered<'_> {
    /// A fetch has ended since the call came.
    pub const fn by_fetch() -> Self {
        Self { has_waited: true, attested: None, address: None }
    }

    /// The same of a call from this address.
    #[must_use]
    pub const fn from(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }
}

/// Who proves identities.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Identity {
    /// The core, by the keys of `[[issuers]]`.
    #[default]
    Issuers,
    /// A verifier outside, whose findings come by [`Tokens::attest`].
    Outside,
}

/// What outlives a change of the configuration: verdicts, revocations, the hasher of identities.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) cache: TokenCache,
    pub(super) revocations: Arc<Revocations>,
    pub(super) hasher: KeyHasher,
    pub(super) lookups: Lookups,
    failures: Failures,
    /// The header that was read last: an issuer writes the same one into all its tokens until its key changes.
    header: ArcSwapOption<KnownHeader>,
}

#[derive(Debug)]
struct KnownHeader {
    segment: Box<[u8]>,
    header: Header,
}

impl Kept {
    fn new(cache_size: usize, hasher: KeyHasher, revocations: Arc<Revocations>) -> Self {
        let cache = TokenCache::new(cache_size);
        let (lookups, failures) = (Lookups::default(), Failures::default());
        Self { cache, revocations, hasher, lookups, failures, header: ArcSwapOption::empty() }
    }

    /// Reads the header, unless its letters are those of the last one.
    fn header(&self, compact: &Compact<'_>) -> Result<Arc<KnownHeader>, Denial> {
        let segment = compact.header_segment();
        if let Some(known) = &*self.header.load()
            && *known.segment == *segment
        {
            return Ok(Arc::clone(known));
        }
        let known = Arc::new(KnownHeader { segment: segment.into(), header: compact.header()? });
        self.header.store(Some(Arc::clone(&known)));
        Ok(known)
    }
}

/// Room 1, compiled from one configuration.
#[derive(Debug)]
pub struct Tokens {
    pub(super) issuers: HashMap<Arc<str>, Issuer>,
    pub(super) scopes: Arc<ScopeTable>,
    pub(super) leeway: Duration,
    pub(super) generation: u64,
    pub(super) kept: Arc<Kept>,
    /// Set where identities are proved outside.
    pub(super) outside: Option<Outside>,
    /// Set where an issuer is asked about its opaque tokens.
    pub(super) introspection: Option<Introspection>,
    /// How many authentications may fail for one address; `None` where nothing is known of addresses.
    failed_authentications: Option<Quota>,
}

impl Tokens {
    /// Compiles the issuers. Keys given inline are prepared here; others come by [`Tokens::replace_keys`].
    pub fn new(
        config: &Config,
        scopes: Arc<ScopeTable>,
        hasher: KeyHasher,
        identity: Identity,
    ) -> Result<Self, ConfigError> {
        let kept = Kept::new(config.tokens.cache_size, hasher, Arc::default());
        let outside = Outside::new(config, identity)?;
        Ok(Self { outside, ..Self::compile(config, scopes, Arc::new(kept), 0, &HashMap::new())? })
    }

    /// Compiles a changed configuration. Keys of issuers that stay are kept, verdicts end, revocations hold on.
    pub fn reload(&self, config: &Config, scopes: Arc<ScopeTable>) -> Result<Self, ConfigError> {
        let identity = if self.outside.is_some() { Identity::Outside } else { Identity::Issuers };
        let outside = Outside::new(config, identity)?;
        let kept = Arc::clone(&self.kept);
        Ok(Self { outside, ..Self::compile(config, scopes, kept, self.generation + 1, &self.issuers)? })
    }

    /// Compiles the configuration of the administrators' endpoint, after `before` where there was one: the same keys and
    /// revocations, and verdicts of its own. A token that was verified for the one resource is none of the other's.
    pub fn beside(&self, config: &Config, scopes: Arc<ScopeTable>, before: Option<&Self>) -> Result<Self, ConfigError> {
        let (generation, kept) = if let Some(before) = before {
            (before.generation + 1, Arc::clone(&before.kept))
        } else {
            let (hasher, revocations) = (self.kept.hasher.clone(), Arc::clone(&self.kept.revocations));
            (OF_ADMIN, Arc::new(Kept::new(config.tokens.cache_size, hasher, revocations)))
        };
        Self::compile(config, scopes, kept, generation, &self.issuers)
    }

    /// A verifier for one issuer with given keys, without a configuration.
    pub fn single(options: IssuerOptions, keys: Arc<KeySet>, leeway: Duration, cache_size: usize) -> Self {
        let hasher = KeyHasher::random();
        let kept = Kept::new(cache_size, hasher, Arc::default());
        let issuers = HashMap::from([(Arc::clone(&options.issuer), Issuer::with_keys(options, keys))]);
        let (scopes, kept) = (Arc::default(), Arc::new(kept));
        Self {
            issuers,
            scopes,
            leeway,
            generation: 0,
            kept,
            outside: None,
            introspection: None,
            failed_authentications: None,
        }
    }

    fn compile(
        config: &Config,
        scopes: Arc<ScopeTable>,
        kept: Arc<Kept>,
        generation: u64,
        before: &HashMap<Arc<str>, Issuer>,
    ) -> Result<Self, ConfigError> {
        let mut issuers = HashMap::new();
        for (index, table) in config.issuers.iter().enumerate() {
            let options = IssuerOptions::from_config(table, &config.resource.url);
            let issuer = if let Some(text) = table.inline_jwks() {
                let keys = KeySet::from_jwks(text.as_bytes(), false)
                    .and_then(KeySet::without_published)
                    .map_err(|error| ConfigError::at(format!("issuers[{index}].jwks"), error.to_string()))?;
                Issuer::with_keys(options, Arc::new(keys))
            } else if table.has_no_keys() {
                Issuer { options, keys: Arc::new(IssuerKeys::unneeded()) }
            } else {
                let source = KeySource::Fetched(Box::new(KeyPlace::from(table)));
                let kept = before.get(&options.issuer).filter(|old| *old.keys.source() == source);
                let keys = kept.map_or_else(|| Arc::new(IssuerKeys::fetched(source)), |old| Arc::clone(&old.keys));
                Issuer { options, keys }
            };
            issuers.insert(Arc::clone(&issuer.options.issuer), issuer);
        }
        let (leeway, introspection) = (config.tokens.leeway.get(), Introspection::new(config));
        let failed_authentications = Some(config.limits.failed_authentications);
        Ok(Self { issuers, scopes, leeway, generation, kept, outside: None, introspection, failed_authentications })
    }

    /// Verifies a token. `answered`: what was waited for already.
    pub fn verify(
        &self,
        text: &str,
        answered: Answered<'_>,
        now: Now,
        detach: &impl Detach,
    ) -> Result<VerifiedToken, Unverified> {
        if let Some(entry) = self.kept.cache.find(text)
            && entry.generation == self.generation
            && entry.key_epoch == entry.keys.epoch()
            && entry.keys.is_usable(entry.max_stale, now.own)
        {
            let token = VerifiedToken { entry };
            self.recheck(&token, now.unix)?;
            return Ok(token);
        }
        let counted = answered.address.zip(self.failed_authentications);
        if let Some((address, rate)) = counted {
            self.kept.failures.check(address, rate, now.own)?;
        }
        let found = self.verify_first(text, answered, now, detach);
        if let (Some((address, rate)), Err(Unverified::Denied(denial))) = (counted, &found)
            && denial.status() == 401
        {
            self.kept.failures.count(address, rate, now.own);
        }
        found
    }

    /// Verifies a token that was not verified before.
    fn verify_first(
        &self,
        text: &str,
        answered: Answered<'_>,
        now: Now,
        detach: &impl Detach,
    ) -> Result<VerifiedToken, Unverified> {
        if self.outside.is_some() {
            return self.take_attested(text, answered, now.unix);
        }
        if let Some(introspection) = self.introspection.as_ref().filter(|_| !is_jws_shaped(text)) {
            return self.take_introspected(introspection, text, answered, now);
        }
        let entry = Arc::new(detach.detached(|| self.verify_anew(text, answered.has_waited, now))?);
        self.kept.cache.insert(&entry);
        Ok(VerifiedToken { entry })
    }

    /// Whether a token that was verified before still holds: its times, its key and the revocations.
    pub fn recheck(&self, token: &VerifiedToken, now: UnixTime) -> Result<(), Denial> {
        let entry = &token.entry;
        self.check_times(&entry.caller, now)?;
        if entry.key_epoch != entry.keys.epoch() {
            return Err(Denial::TokenRevoked);
        }
        if entry.generation != self.generation {
            if (entry.generation ^ self.generation) & OF_ADMIN != 0 {
                return Err(Denial::AudienceMismatch { found: entry.caller.audience().join(" ") });
            }
            self.recheck_issuer(&entry.caller)?;
        }
        let epoch = self.kept.revocations.epoch();
        if entry.cleared_at.load(Ordering::Acquire) != epoch {
            if self.kept.revocations.hits(&entry.caller) {
                return Err(Denial::TokenRevoked);
            }
            entry.cleared_at.store(epoch, Ordering::Release);
        }
        Ok(())
    }

    /// What a configuration that came since the token was verified says of its issuer, key and subject.
    fn recheck_issuer(&self, caller: &Caller) -> Result<(), Denial> {
        let Some(issuer) = self.issuers.get(&caller.issuer) else { return Err(Denial::TokenRevoked) };
        match caller.key_id.as_deref().filter(|key_id| issuer.denies(key_id)) {
            Some(key_id) => Err(Denial::KeyDenied { key_id: key_id.to_owned() }),
            None => issuer.check_subject(caller.subject()),
        }
    }

    fn verify_anew(&self, text: &str, has_waited: bool, now: Now) -> Result<Entry, Unverified> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge.into());
        }
        let compact = Compact::split(text.as_bytes())?;
        let known = self.kept.header(&compact)?;
        let header = &known.header;
        let payload = compact.payload()?;
        let issuer = self.choose_issuer(&payload)?;
        let algorithm = header.algorithm;
        if !issuer.options.algorithms.contains(algorithm) {
            return Err(Denial::AlgorithmRefused { algorithm: algorithm.name().to_owned() }.into());
        }
        // INVARIANT: both are read before the key, so a verdict that outran a change is known as too old.
        let key_epoch = issuer.keys.epoch();
        let cleared_at = self.kept.revocations.epoch();
        check_signature(issuer, &compact, header, &payload, has_waited, now)?;
        issuer.check_type(header.typ.as_deref())?;
        let claims = parse_claims(&payload)?;
        let digest = || crate::jose::digest_name(compact.signing_input());
        let hasher = &self.kept.hasher;
        let reading = Reading { issuer, scopes: &self.scopes, hasher, key_id: header.key_id.clone(), digest: &digest };
        let caller = reading.caller(&payload, &claims)?;
        self.check_times(&caller, now.unix)?;
        self.check_lifetime(issuer, &caller, now.unix)?;
        if self.kept.revocations.hits(&caller) {
            return Err(Denial::TokenRevoked.into());
        }
        let (keys, generation, max_stale) = (Arc::clone(&issuer.keys), self.generation, issuer.options.max_stale);
        let cleared_at = AtomicU64::new(cleared_at);
        let caller = Arc::new(caller);
        let (text_hash, proof_key) = (OnceLock::new(), OnceLock::new());
        Ok(Entry {
            text: text.into(),
            caller,
            keys,
            key_epoch,
            max_stale,
            generation,
            cleared_at,
            text_hash,
            proof_key,
        })
    }

    /// With one issuer, its keys are tried before the payload is parsed; with several, `iss` chooses among their keys, and
    /// is believed only after one of them has verified the signature.
    fn choose_issuer(&self, payload: &[u8]) -> Result<&Issuer, Denial> {
        let mut all = self.issuers.values();
        if let (Some(only), None) = (all.next(), all.next()) {
            return Ok(only);
        }
        let claims = parse_claims(payload)?;
        match claims.member("iss") {
            Some(Json::String(name)) => {
                self.issuers.get(&**name).ok_or_else(|| Denial::IssuerUnknown { found: name.to_string() })
            }
            Some(_) => Err(Denial::ClaimInvalid { claim: "iss".to_owned() }),
            None => Err(Denial::ClaimMissing { claim: "iss".to_owned() }),
        }
    }

    /// How many revocations are in force.
    pub fn revocations(&self) -> usize {
        self.kept.revocations.len()
    }

    /// Refuses from now on the tokens that a revocation hits.
    pub fn revoke(&self, revocation: Revocation, now: UnixTime) -> Result<(), &'static str> {
        let lifetimes = self.issuers.values().map(|issuer| issuer.options.max_lifetime);
        // A reference token may live on and on while it is used, so what its answer says of times bounds nothing.
        let is_asked = self.outside.is_some() || self.introspection.is_some();
        let longest = lifetimes.chain(is_asked.then_some(Outside::LONGEST_LIFE)).max().unwrap_or_default();
        self.kept.revocations.add(revocation, now, longest + self.leeway + self.leeway)
    }

    /// Takes in a key set that was fetched for an issuer, to be replaced at `fresh_until` of the process's own clock. A bad
    /// document keeps the old set.
    pub fn replace_keys(&self, issuer: &str, jwks: &[u8], fresh_until: Tick) -> Result<(), KeySetError> {
        let set = KeySet::from_jwks(jwks, false)?.without_published()?;
        if let Some(issuer) = self.issuers.get(issuer) {
            issuer.keys.replace(set, fresh_until);
        }
        Ok(())
    }

    /// Takes note that fetching an issuer's keys has failed, and that it is tried again at `due` of the process's own clock.
    pub fn keys_failed(&self, issuer: &str, due: Tick) {
        if let Some(issuer) = self.issuers.get(issuer) {
            issuer.keys.failed(due);
        }
    }

    /// Every issuer with the place its keys come from.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &KeySource)> {
        self.issuers.iter().map(|(name, issuer)| (&**name, issuer.keys.source()))
    }

    /// How many tokens of each issuer were refused because their key was not there, and whether its keys can be used now.
    pub fn key_figures(&self, own: Tick) -> impl Iterator<Item = (&str, u64, bool)> {
        self.issuers.iter().map(move |(name, issuer)| {
            (&**name, issuer.keys.misses(), issuer.keys.is_usable(issuer.options.max_stale, own))
        })
    }

    /// How many verdicts are cached.
    pub fn cached(&self) -> usize {
        self.kept.cache.len()
    }
}

pub(super) fn parse_claims(payload: &[u8]) -> Result<Json<'_>, Denial> {
    match Json::parse(payload, MAX_CLAIMS_DEPTH) {
        Ok(claims @ Json::Object(_)) => Ok(claims),
        _ => Err(Denial::TokenMalformed { what: "the payload is not one JSON object without repeated members" }),
    }
}

fn check_signature(
    issuer: &Issuer,
    compact: &Compact<'_>,
    header: &Header,
    payload: &[u8],
    has_waited: bool,
    now: Now,
) -> Result<(), Unverified> {
    let set = issuer.keys.set();
    // A set that is too old is as good as none.
    let usable = set.as_ref().filter(|_| issuer.keys.is_usable(issuer.options.max_stale, now.own));
    let denied = |name: &str| Denial::KeyDenied { key_id: name.to_owned() };
    let absent = match usable.map(|set| set.choose(header.key_id.as_deref(), header.algorithm)) {
        Some(Ok(key)) => {
            let mut names = key.key_id().into_iter().chain([key.thumbprint()]);
            if let Some(name) = names.find(|name| issuer.denies(name)) {
                return Err(denied(name).into());
            }
            let is_valid = key.verify(header.algorithm, compact.signing_input(), compact.signature());
            return if is_valid { Ok(()) } else { Err(Denial::SignatureInvalid.into()) };
        }
        Some(Err(denial @ Denial::KeyUnknown { .. })) => Some(denial),
        Some(Err(denial)) => return Err(denial.into()),
        None => None,
    };
    // Tokens of strangers cause no fetch: whoever is not the issuer is refused as such.
    issuer.check_issuer(&parse_claims(payload)?)?;
    // A key that is refused in any case is not worth a fetch.
    if let Some(name) = header.key_id.as_deref().filter(|name| issuer.denies(name)) {
        return Err(denied(name).into());
    }
    let has_set = absent.is_some();
    let key_id = has_set.then_some(header.key_id.as_deref()).flatten();
    match issuer.keys.absent(key_id, has_set, has_waited, now) {
        Absent::Refuse(denial) => Err(denial.into()),
        Absent::Wait => Err(Unverified::Needs(Need::Keys(Arc::clone(&issuer.options.issuer)))),
    }
}
