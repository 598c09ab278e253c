//! Permits that a process holds in advance in windows of all processes: when they are used, when the store is asked, and what becomes of them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::sync::Arc;
use std::time::Duration;

use fastguard_core::Tick;
use fastguard_core::limits::{Asking, AtHand, Begun, ClockSource, Given, Permits, Question, Spent, Unusable, Wanted};

const WINDOW: Duration = Duration::from_secs(60);
const QUOTA: u32 = 1_024;
/// A lease may have so many permits: the quota over 16 for each of two processes.
const MOST: u32 = 32;

fn at(millis: u64) -> Tick {
    Tick::from_nanos((1_000_000 + millis) * 1_000_000)
}

fn wanted(key: u128) -> Wanted {
    Wanted { key, quota: QUOTA, window: WINDOW, cost: 1, is_leased: true }
}

fn permits() -> Arc<Permits> {
    Arc::new(Permits::new(2))
}

fn asking(permits: &Arc<Permits>, wanted: &[Wanted], must_ask: bool, now: Tick) -> Asking {
    match permits.begin(wanted, must_ask, now) {
        Begun::Asking(asking) => *asking,
        other => panic!("{other:?}"),
    }
}

fn given(granted: u32) -> Given {
    Given { granted, remaining: 100, slot: 9 }
}

/// Has so many granted in each window of the call that asks.
fn grant(permits: &Arc<Permits>, wanted: &[Wanted], granted: u32, now: Tick) {
    let asking = asking(permits, wanted, false, now);
    let answer = vec![given(granted); asking.questions().len()];
    asking.granted(&answer, now).unwrap();
}

/// How many calls pass by what is at hand.
fn taken(permits: &Permits, wanted: &[Wanted], now: Tick) -> usize {
    (0..10_000).take_while(|_| permits.take(wanted, now, |_, _| {}) == AtHand::Taken).count()
}

fn share_left(permits: &Permits, now: Tick) -> u64 {
    let share = permits.share(QUOTA.into(), WINDOW).unwrap();
    share.admit(&7_u128.to_le_bytes(), 0, now, ClockSource::System).unwrap().remaining
}

#[test]
fn permits_are_used_by_so_many_calls_as_were_granted() {
    let permits = permits();
    assert_eq!(permits.take(&[wanted(7)], at(0), |_, _| {}), AtHand::Lacking);
    grant(&permits, &[wanted(7)], 10, at(0));
    // The call that asked has used one.
    assert_eq!(taken(&permits, &[wanted(7)], at(0)), 9);
    assert_eq!(permits.answered(), 9);
}

#[test]
fn call_of_two_windows_uses_neither_where_one_lacks_permits() {
    let permits = permits();
    grant(&permits, &[wanted(7)], 5, at(0));
    assert_eq!(permits.take(&[wanted(7), wanted(8)], at(0), |_, _| {}), AtHand::Lacking);
    assert_eq!(taken(&permits, &[wanted(7)], at(0)), 4);
}

#[test]
fn charges_of_one_window_must_fit_together() {
    let permits = permits();
    grant(&permits, &[wanted(7)], 2, at(0));
    assert_eq!(permits.take(&[wanted(7), wanted(7)], at(0), |_, _| {}), AtHand::Lacking);
    assert_eq!(taken(&permits, &[wanted(7)], at(0)), 1);
}

#[test]
fn calls_of_many_windows_are_decided_by_what_is_at_hand() {
    let permits = permits();
    let many: Vec<_> = (0..40).map(|number| wanted(number << 64 | number)).collect();
    grant(&permits, &many, 3, at(0));
    assert_eq!(taken(&permits, &many, at(0)), 2);
}

#[test]
fn lease_grows_while_it_is_used_up_and_is_sized_by_use_when_it_ends() {
    let permits = permits();
    let mut asked = Vec::new();
    for _ in 0..7 {
        let asking = asking(&permits, &[wanted(7)], false, at(0));
        let want = asking.questions()[0].want;
        asked.push(want);
        asking.granted(&[given(want)], at(0)).unwrap();
        taken(&permits, &[wanted(7)], at(0));
    }
    assert_eq!(asked, [2, 4, 8, 16, 32, MOST, MOST]);

    grant(&permits, &[wanted(7)], 32, at(0));
    for _ in 0..9 {
        permits.take(&[wanted(7)], at(0), |_, _| {});
    }
    let question = asking(&permits, &[wanted(7)], false, at(3_000)).questions()[0];
    // Ten were used, and half of that again; what was not goes back to the slot that it came of.
    assert_eq!(question, Question { place: 0, need: 1, want: 16, back_to: 9, back: 22 });
}

#[test]
fn permits_are_given_back_once() {
    let permits = permits();
    grant(&permits, &[wanted(7)], 10, at(0));
    assert_eq!(asking(&permits, &[wanted(7)], false, at(3_000)).questions()[0].back, 9);
    assert_eq!(asking(&permits, &[wanted(7)], false, at(3_000)).questions()[0].back, 0);
}

#[test]
fn call_that_another_rule_refuses_puts_its_permits_back() {
    let permits = permits();
    grant(&permits, &[wanted(7)], 5, at(0));
    let waiting = asking(&permits, &[wanted(7), wanted(8)], false, at(0));
    assert_eq!(waiting.questions().iter().map(|asked| asked.place).collect::<Vec<_>>(), [1]);
    // It holds one while it waits.
    assert_eq!(taken(&permits, &[wanted(7)], at(0)), 3);
    waiting.refused(Some(0), WINDOW, at(10));
    assert_eq!(taken(&permits, &[wanted(7)], at(10)), 1);

    let spent = Spent { place: 1, remaining: 0, retry_after: Duration::from_millis(59_990) };
    assert_eq!(permits.take(&[wanted(7), wanted(8)], at(20), |_, _| {}), AtHand::Spent(spent));
}

#[test]
fn call_that_leaves_puts_its_permits_back_and_lets_others_ask() {
    let permits = permits();
    grant(&permits, &[wanted(7)], 2, at(0));
    let waiting = asking(&permits, &[wanted(7), wanted(8)], false, at(0));
    let Begun::Busy(number) = permits.begin(&[wanted(8)], false, at(1)) else { panic!("nobody asks") };
    assert_eq!(number, waiting.number());
    drop(waiting);
    assert_eq!(taken(&permits, &[wanted(7)], at(1)), 1);
    asking(&permits, &[wanted(8)], false, at(1));
}

#[test]
fn permit_that_is_put_back_belongs_to_no_later_lease() {
    let permits = permits();
    grant(&permits, &[wanted(7)], 2, at(0));
    let waiting = asking(&permits, &[wanted(7), wanted(8)], false, at(0));
    grant(&permits, &[wanted(7)], 3, at(3_000));
    drop(waiting);
    assert_eq!(taken(&permits, &[wanted(7)], at(3_000)), 2);
}

#[test]
fn question_that_takes_too_long_is_asked_by_another_and_its_late_answer_takes_nothing_away() {
    let permits = permits();
    let slow = asking(&permits, &[wanted(7)], false, at(0));
    assert!(matches!(permits.begin(&[wanted(7)], false, at(99)), Begun::Busy(_)));
    let second = asking(&permits, &[wanted(7)], false, at(100));
    second.granted(&[given(4)], at(101)).unwrap();
    // The slow call has what it was granted, and the newer lease stands.
    slow.granted(&[given(9)], at(102)).unwrap();
    assert_eq!(taken(&permits, &[wanted(7)], at(102)), 3);
}

#[test]
fn answer_that_comes_after_the_lease_has_ended_is_not_used() {
    let permits = permits();
    let late = asking(&permits, &[wanted(7)], false, at(0));
    assert_eq!(late.granted(&[given(4)], at(3_000)), Err(Unusable::Late));
    let in_time = asking(&permits, &[wanted(7)], false, at(4_000));
    assert!(in_time.granted(&[given(4)], at(6_999)).is_ok());

    grant(&permits, &[wanted(8)], 4, at(0));
    let held = asking(&permits, &[wanted(8)], true, at(0));
    assert_eq!(held.granted(&[], at(3_000)), Err(Unusable::Late));
}

#[test]
fn refusal_of_one_cost_says_nothing_of_another() {
    let permits = permits();
    let dear = Wanted { cost: 20, ..wanted(7) };
    asking(&permits, &[dear], false, at(0)).refused(Some(0), WINDOW, at(0));
    assert!(matches!(permits.take(&[dear], at(1), |_, _| {}), AtHand::Spent(_)));
    assert_eq!(permits.take(&[wanted(7)], at(1), |_, _| {}), AtHand::Lacking);
    // And it is asked again after a while, for others may have given something back.
    assert_eq!(permits.take(&[dear], at(375), |_, _| {}), AtHand::Lacking);
}

#[test]
fn store_that_grants_more_than_the_quota_is_not_believed() {
    let permits = permits();
    let (mut passed, mut now) = (0, 0);
    let spent = loop {
        let forged = asking(&permits, &[wanted(7)], false, at(now));
        match forged.granted(&[given(MOST)], at(now)) {
            Ok(_) => passed += 1 + taken(&permits, &[wanted(7)], at(now)),
            Err(Unusable::Overdrawn(spent)) => break spent,
            Err(Unusable::Late) => panic!("it came at once"),
        }
        now += 100;
    };
    assert_eq!(passed, usize::try_from(QUOTA).unwrap());
    // Seven eighths of the window after the first use.
    assert!((Duration::from_secs(48)..Duration::from_secs(53)).contains(&spent.retry_after), "{spent:?}");
}

#[test]
fn permits_that_calls_hold_count_where_the_store_is_not_believed() {
    let permits = permits();
    let all = Wanted { cost: QUOTA, ..wanted(7) };
    grant(&permits, &[Wanted { cost: 0, ..wanted(7) }], QUOTA, at(0));
    let held = asking(&permits, &[all], true, at(0));
    let forged = asking(&permits, &[wanted(7)], false, at(0));
    assert!(matches!(forged.granted(&[given(MOST)], at(0)), Err(Unusable::Overdrawn(_))));
    assert!(held.granted(&[], at(0)).is_ok());
}

#[test]
fn share_of_the_process_knows_what_was_used_of_leases() {
    let permits = permits();
    assert_eq!(share_left(&permits, at(0)), 512);
    grant(&permits, &[wanted(7)], 10, at(0));
    assert_eq!(taken(&permits, &[wanted(7)], at(0)), 9);
    permits.settle(&[wanted(7)], at(10));
    permits.settle(&[wanted(7)], at(20));
    assert_eq!(share_left(&permits, at(20)), 502);
}

#[test]
fn what_was_used_long_ago_counts_from_then() {
    let permits = permits();
    grant(&permits, &[wanted(7)], 10, at(0));
    taken(&permits, &[wanted(7)], at(0));
    // Nobody has called since: the lease ended a window and more ago.
    permits.settle(&[wanted(7)], at(65_000));
    assert_eq!(share_left(&permits, at(65_000)), 512);
}

#[test]
fn child_process_has_no_permits_and_knows_what_was_used() {
    let permits = permits();
    grant(&permits, &[wanted(7)], 10, at(0));
    permits.settle(&[wanted(7)], at(0));
    permits.after_fork();
    assert_eq!((permits.len(), share_left(&permits, at(0))), (0, 511));
    assert_eq!(asking(&permits, &[wanted(7)], false, at(0)).questions()[0].back, 0);
}

#[test]
fn full_table_forgets_leases_that_have_ended_and_counts_others_exactly() {
    let permits = permits();
    let key = |number: u128| number << 64 | number;
    let mut number = 0;
    // All shards are filled evenly, until one more would not fit.
    loop {
        let asking = asking(&permits, &[wanted(key(number))], false, at(0));
        let is_leased = !asking.questions().is_empty();
        let answer = vec![given(2); asking.questions().len()];
        asking.granted(&answer, at(0)).unwrap();
        if !is_leased {
            break;
        }
        number += 1;
    }
    assert!((100_000..101_000).contains(&permits.len()), "{}", permits.len());
    assert_eq!(permits.len(), usize::try_from(number).unwrap());

    let asking = asking(&permits, &[wanted(key(number))], false, at(3_000));
    assert_eq!(asking.questions().len(), 1);
    assert!(permits.len() < 100_000);
}
