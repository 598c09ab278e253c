//! What threads can do to each other, in orders that a model checker chooses (`make models`). The code is the library's own; the checker
//! switches threads at its locks and counters, and finds threads that wait for each other for ever. It knows nothing of weak memory.
#![cfg(feature = "shuttle")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, its helpers too")]

#[expect(dead_code, reason = "one kind of key will do here")]
mod signing;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fastguard_core::binding::{Replays, Used};
use fastguard_core::jose::KeySet;
use fastguard_core::limits::{AtHand, Begun, Charge, Given, Permits, Refusal, Wanted, WindowSpec, WindowTable};
use fastguard_core::token::{Answered, Attached, IssuerOptions, Revocation, Tokens, Unverified};
use fastguard_core::{Denial, Now, Tick, UnixTime};
use serde_json::json;
use shuttle::thread;
use signing::Signer;

const ISSUER: &str = "https://auth.example.com";
const RESOURCE: &str = "https://mcp.example.com/mcp";

const NOW: Now = Now {
    unix: UnixTime::from_seconds(1_800_000_000),
    tick: Tick::from_nanos(1_000_000_000),
    own: Tick::from_nanos(1_000_000_000),
};

/// Half of the runs choose every step at random, half few switches at places where they matter (probabilistic concurrency testing).
fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
    const RUNS: usize = 2_000;
    shuttle::check_random(model.clone(), RUNS);
    shuttle::check_pct(model, RUNS, 3);
}

/// A key set, the one that comes after it, and a token of the first.
struct Signed {
    set: String,
    next: String,
    token: String,
}

static SIGNED: LazyLock<Signed> = LazyLock::new(|| {
    let (signer, other) = (Signer::edwards(), Signer::edwards());
    let at = NOW.unix.as_millis() / 1_000;
    let claims = json!({"iss": ISSUER, "aud": RESOURCE, "sub": "alice", "client_id": "agent", "iat": at, "exp": at + 600, "jti": "t"});
    Signed {
        set: json!({"keys": [signer.jwk("k")]}).to_string(),
        next: json!({"keys": [other.jwk("k2")]}).to_string(),
        token: signer.token("k", &claims),
    }
});

fn tokens() -> Arc<Tokens> {
    let keys = KeySet::from_jwks(SIGNED.set.as_bytes(), false).unwrap();
    let options = IssuerOptions::new(ISSUER, RESOURCE);
    Arc::new(Tokens::single(options, keys.into(), Duration::ZERO, 16))
}

fn verify(tokens: &Tokens) -> Result<(), Denial> {
    match tokens.verify(&SIGNED.token, Answered::default(), NOW, &Attached) {
        Ok(_) => Ok(()),
        Err(Unverified::Denied(denial)) => Err(denial),
        Err(Unverified::Needs(_)) => unreachable!("the keys are given"),
    }
}

/// Others verify the token, so that the cache has it at any moment of what happens beside.
fn others(tokens: &Arc<Tokens>) -> Vec<thread::JoinHandle<()>> {
    let work = |tokens: Arc<Tokens>| move || (0..2).for_each(|_| drop(verify(&tokens)));
    (0..2).map(|_| thread::spawn(work(Arc::clone(tokens)))).collect()
}

#[test]
fn token_of_a_withdrawn_key_is_never_served_once_the_new_set_is_taken_in() {
    explore(|| {
        let tokens = tokens();
        let others = others(&tokens);
        tokens.replace_keys(ISSUER, SIGNED.next.as_bytes(), Tick::from_nanos(u64::MAX)).unwrap();
        assert!(matches!(verify(&tokens), Err(Denial::KeyUnknown { .. })));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(matches!(verify(&tokens), Err(Denial::KeyUnknown { .. })));
    });
}

#[test]
fn revoked_token_is_never_served_once_the_revocation_is_taken_in() {
    explore(|| {
        let tokens = tokens();
        let others = others(&tokens);
        let revocation = Revocation { subject: Some("alice".into()), ..Revocation::default() };
        tokens.revoke(revocation, NOW.unix).unwrap();
        assert_eq!(verify(&tokens), Err(Denial::TokenRevoked));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(verify(&tokens), Err(Denial::TokenRevoked));
    });
}

#[test]
fn verdict_is_the_same_in_every_order_of_its_cache() {
    explore(|| {
        let tokens = tokens();
        let others = others(&tokens);
        assert_eq!(verify(&tokens), Ok(()));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(tokens.cached(), 1);
    });
}

fn spec(quota: u64) -> WindowSpec {
    WindowSpec::new(quota, Duration::from_secs(60)).unwrap()
}

/// Windows in shards of their own: the upper half of the key says which.
fn charge(number: u128, spec: &WindowSpec) -> Charge<'_> {
    Charge { key: (number << 64) | 1, spec, cost: 1, holder: 7, is_look: false, overflow: 0 }
}

/// Charges two windows together from three threads, each of which names them in another order, and tells how often both were charged.
fn charged_together(table: &Arc<WindowTable>, narrow: WindowSpec, wide: WindowSpec) -> usize {
    let work = |table: Arc<WindowTable>, is_turned: bool| {
        move || {
            let (one, two) = (charge(1, &narrow), charge(2, &wide));
            let charges = if is_turned { [two, one] } else { [one, two] };
            (0..2).filter(|_| table.admit(&charges, NOW.tick).is_ok()).count()
        }
    };
    let threads = [false, true, false].map(|is_turned| thread::spawn(work(Arc::clone(table), is_turned)));
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

/// What a window has left.
fn left(table: &WindowTable, number: u128, spec: &WindowSpec) -> usize {
    (0..10).take_while(|_| table.admit_one(&charge(number, spec), NOW.tick).is_ok()).count()
}

#[test]
fn windows_that_are_charged_together_admit_their_quota_and_nobody_waits_for_ever() {
    explore(|| {
        let table = Arc::new(WindowTable::new(4 * 1_024));
        let quota = spec(4);
        assert_eq!(charged_together(&table, quota, quota), 4);
        assert_eq!((left(&table, 1, &quota), left(&table, 2, &quota)), (0, 0));
    });
}

#[test]
fn window_is_charged_nothing_where_the_other_one_refuses() {
    explore(|| {
        let table = Arc::new(WindowTable::new(4 * 1_024));
        let (small, large) = (spec(2), spec(5));
        assert_eq!(charged_together(&table, small, large), 2);
        assert_eq!((left(&table, 1, &small), left(&table, 2, &large)), (0, 3));
    });
}

#[test]
fn holder_of_a_table_gets_no_more_windows_than_its_share() {
    explore(|| {
        let table = Arc::new(WindowTable::new(64 * 2));
        let quota = spec(1);
        let threads = (0..3_u128).map(|number| {
            let table = Arc::clone(&table);
            thread::spawn(move || match table.admit_one(&charge(number, &quota), NOW.tick) {
                Ok(_) => 1,
                Err(refused) => {
                    assert_eq!(refused.reason, Refusal::ShareFull);
                    0
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 2);
        assert_eq!(table.len(), 2);
    });
}

const LIFETIME: Duration = Duration::from_secs(600);

fn used(id: &str, principal: u128, seconds: u64) -> Used<'_> {
    let issued_at = NOW.unix.plus(Duration::from_secs(seconds));
    Used { thumbprint: "t", id, issued_at, principal }
}

#[test]
fn proof_is_taken_by_one_thread_alone_wherever_the_spans_of_time_begin() {
    explore(|| {
        let replays = Arc::new(Replays::new(1_024, LIFETIME));
        // The threads do not agree on the time: a span begins between them.
        let threads = [0_u64, 199, 201].map(|seconds| {
            let replays = Arc::clone(&replays);
            let tick = Tick::from_nanos(seconds * 1_000_000_000);
            thread::spawn(move || usize::from(replays.record(&used("a", u128::from(seconds), seconds), tick).is_ok()))
        });
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 1);
        assert_eq!(replays.len(), 1);
    });
}

#[test]
fn store_of_proofs_takes_no_more_than_it_may_and_forgets_once() {
    explore(|| {
        let replays = Arc::new(Replays::new(2, LIFETIME));
        let record = |id: &'static str, principal: u128, seconds: u64| {
            let replays = Arc::clone(&replays);
            let tick = Tick::from_nanos(seconds * 1_000_000_000);
            thread::spawn(move || usize::from(replays.record(&used(id, principal, seconds), tick).is_ok()))
        };
        let threads = [record("a", 1, 0), record("b", 2, 0), record("c", 3, 0)];
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 2);
        // All are over; two at once find the store full and free it.
        let threads = [record("d", 4, 1_000), record("e", 5, 1_000)];
        let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!((1..=2).contains(&taken));
        assert_eq!(replays.len(), taken);
    });
}

/// Windows in shards of their own, as above.
fn leased(number: u128) -> Wanted {
    Wanted { key: (number << 64) | 1, quota: 128, window: Duration::from_secs(60), cost: 1, is_leased: true }
}

/// Asks for the permits of these windows, and is granted one for the call and two more in each.
fn asked(permits: &Arc<Permits>, wanted: &[Wanted]) -> bool {
    let Begun::Asking(asking) = permits.begin(wanted, false, NOW.own) else { return false };
    let given = vec![Given { granted: 3, remaining: 0, slot: 1 }; asking.questions().len()];
    asking.granted(&given, NOW.own).is_ok()
}

#[test]
fn permits_of_two_windows_are_used_together_by_as_many_calls_as_were_granted() {
    explore(|| {
        let permits = Arc::new(Permits::new(1));
        let (one, two) = (leased(1), leased(2));
        assert!(asked(&permits, &[one, two]));
        let threads = [[one, two], [two, one], [one, two]].map(|wanted| {
            let permits = Arc::clone(&permits);
            thread::spawn(move || usize::from(permits.take(&wanted, NOW.own, |_, _| {}) == AtHand::Taken))
        });
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 2);
        assert_eq!(permits.take(&[one], NOW.own, |_, _| {}), AtHand::Lacking);
        assert_eq!(permits.take(&[two], NOW.own, |_, _| {}), AtHand::Lacking);
    });
}

#[test]
fn one_thread_alone_asks_for_a_window_and_what_the_others_hold_goes_back() {
    explore(|| {
        let permits = Arc::new(Permits::new(1));
        assert!(asked(&permits, &[leased(1)]));
        let threads = [1_u128, 2, 2].map(|number| {
            let permits = Arc::clone(&permits);
            // The first holds a permit of its window, and leaves; the others lack the same permits.
            thread::spawn(move || match permits.begin(&[leased(number)], number == 1, NOW.own) {
                Begun::Asking(asking) => usize::from(!asking.questions().is_empty()),
                Begun::Busy(_) => 0,
                other => panic!("{other:?}"),
            })
        });
        let asked: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!((1..=2).contains(&asked), "{asked}");
        let left = (0..9).take_while(|_| permits.take(&[leased(1)], NOW.own, |_, _| {}) == AtHand::Taken).count();
        assert_eq!(left, 2);
    });
}
