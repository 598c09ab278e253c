//! The window against an exact oracle, a log of every admission (decision 5 of the design).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::string_slice,
    reason = "tests fail by panics, and tell what they skip"
)]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use fastguard_core::clock::Tick;
use fastguard_core::limits::{Charge, ClockSource, Refusal, SlidingWindow, WindowSpec, WindowTable};
use proptest::prelude::*;

/// Nanoseconds of the window in most tests: 64 slots of 1000.
const WINDOW: u64 = 64_000_000;

fn tick(nanos: u64) -> Tick {
    Tick::from_nanos(nanos)
}

/// What was charged later than `since`.
fn charged_after(log: &[(u64, u64)], since: i128) -> u64 {
    log.iter().filter(|(at, _)| i128::from(*at) > since).map(|(_, cost)| cost).sum()
}

/// Steps between arrivals: standing still, small, at the borders of slots and of the window.
fn steps() -> impl Strategy<Value = u64> {
    let slot = WINDOW / 64;
    prop_oneof![
        4 => Just(0),
        4 => 1..2_000_u64,
        3 => prop::sample::select(vec![slot - 1, slot, slot + 1]),
        2 => prop::sample::select(vec![WINDOW - slot, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + slot]),
        3 => 0..WINDOW / 8,
        1 => WINDOW..WINDOW * 3,
    ]
}

proptest! {
    // Miri takes seconds for what else takes a millisecond.
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 400 }, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn never_more_than_the_quota_and_never_late_by_more_than_a_slot(
        quota in prop_oneof![0_u64..20, 65_530_u64..65_540],
        start in 0_u64..WINDOW * 2,
        arrivals in prop::collection::vec((steps(), prop_oneof![3 => 1_u32..4, 1 => 1_u32..70_000]), 1..300),
    ) {
        let window = SlidingWindow::new(quota, Duration::from_nanos(WINDOW), 16).unwrap();
        let mut now = start;
        let mut log: Vec<(u64, u64)> = Vec::new();
        for (step, cost) in arrivals {
            now += step;
            let admission = window.admit(b"key", cost, tick(now), ClockSource::Caller).unwrap();
            let cost = u64::from(cost);
            if admission.allowed {
                log.push((now, cost));
                // In every window that ends here; those that end between admissions hold no more than these.
                prop_assert!(charged_after(&log, i128::from(now) - i128::from(WINDOW)) <= quota);
            } else {
                // The exact count over a window that is 1/64 longer would have refused as well.
                let longer = i128::from(now) - i128::from(WINDOW + WINDOW / 64);
                prop_assert!(charged_after(&log, longer - 1) + cost > quota, "refused at {now} without need");
            }
        }
    }

    #[test]
    fn retry_after_is_true(
        quota in 1_u64..10,
        start in 0_u64..WINDOW,
        arrivals in prop::collection::vec((steps(), 1_u32..4), 1..60),
    ) {
        let mut now = start;
        let mut admitted: Vec<(u64, u32)> = Vec::new();
        for (step, cost) in arrivals {
            now += step;
            // The same history in a window of its own, so that asking changes nothing.
            let window = SlidingWindow::new(quota, Duration::from_nanos(WINDOW), 16).unwrap();
            for (at, cost) in &admitted {
                prop_assert!(window.admit(b"key", *cost, tick(*at), ClockSource::Caller).unwrap().allowed);
            }
            let admission = window.admit(b"key", cost, tick(now), ClockSource::Caller).unwrap();
            if admission.allowed {
                admitted.push((now, cost));
            } else if u64::from(cost) > quota {
                prop_assert_eq!(admission.retry_after, None);
            } else {
                let back = now + admission.retry_after.unwrap().as_nanos() as u64;
                prop_assert!(window.admit(b"key", cost, tick(back), ClockSource::Caller).unwrap().allowed);
            }
        }
    }

    #[test]
    fn retry_after_of_several_windows_is_true(
        quotas in prop::collection::vec(1_u64..6, 2..8),
        arrivals in prop::collection::vec((steps(), 1_u32..3), 1..80),
    ) {
        let specs: Vec<WindowSpec> = quotas
            .iter()
            .enumerate()
            .map(|(index, quota)| WindowSpec::new(*quota, Duration::from_nanos(WINDOW * (index as u64 + 1))).unwrap())
            .collect();
        let charges = |cost| -> Vec<Charge<'_>> {
            let key = |index: usize| ((index as u128 + 1) << 61) | 7;
            specs.iter().enumerate().map(|(index, spec)| Charge { key: key(index), spec, cost, holder: 1, is_look: false, overflow: 0 }).collect()
        };
        let table = WindowTable::new(100_000);
        let mut now = 1;
        for (step, cost) in arrivals {
            now += step;
            let Err(refused) = table.admit(&charges(cost), tick(now)) else { continue };
            prop_assert_eq!(refused.retry_after.is_none(), quotas.iter().any(|quota| *quota < u64::from(cost)));
            if let Some(wait) = refused.retry_after {
                now += wait.as_nanos() as u64;
                prop_assert!(table.admit(&charges(cost), tick(now)).is_ok());
            }
        }
    }

    #[test]
    fn newcomers_to_a_full_table_are_never_admitted_more_than_the_quota(
        quota in 1_u64..5,
        most in 1_usize..5,
        arrivals in prop::collection::vec((steps(), 0_usize..8, 0_usize..8, 1_u32..3), 1..300),
    ) {
        let table = WindowTable::without_shares(most);
        let spec = WindowSpec::new(quota, Duration::from_nanos(WINDOW)).unwrap();
        let mut logs: Vec<Vec<(u64, u64)>> = vec![Vec::new(); 8];
        let mut now = 1;
        for (step, one, other, cost) in arrivals {
            now += step;
            let charge = |key: usize| Charge { cost, ..charge(&spec, key as u128, key as u128) };
            let charges = [charge(one), charge(other)];
            let charges = if one == other { &charges[..1] } else { &charges[..] };
            match table.admit(charges, tick(now)) {
                Ok(_) => {
                    for charge in charges {
                        let log = &mut logs[charge.key as usize];
                        log.push((now, u64::from(cost)));
                        prop_assert!(charged_after(log, i128::from(now) - i128::from(WINDOW)) <= quota);
                    }
                }
                Err(refused) if charges.len() == 1 => {
                    prop_assert_eq!(refused.retry_after.is_none(), u64::from(cost) > quota);
                    if let Some(wait) = refused.retry_after {
                        now += wait.as_nanos() as u64;
                        prop_assert!(table.admit(charges, tick(now)).is_ok(), "a retry after the time that was told");
                        logs[one].push((now, u64::from(cost)));
                    }
                }
                Err(_) => {}
            }
        }
    }

    #[test]
    fn several_charges_are_made_all_or_none(
        quotas in prop::collection::vec(0_u64..6, 1..8),
        costs in prop::collection::vec(1_u32..3, 1..40),
    ) {
        let table = WindowTable::new(100_000);
        let specs: Vec<WindowSpec> =
            quotas.iter().map(|quota| WindowSpec::new(*quota, Duration::from_nanos(WINDOW)).unwrap()).collect();
        let mut left: Vec<i64> = quotas.iter().map(|quota| *quota as i64).collect();
        for cost in costs {
            let charges: Vec<Charge<'_>> = specs
                .iter()
                .enumerate()
                .map(|(index, spec)| Charge { key: ((index as u128 + 1) << 61) | 7, spec, cost, holder: 1, is_look: false, overflow: 0 })
                .collect();
            let expected = left.iter().all(|left| *left >= i64::from(cost));
            prop_assert_eq!(table.admit(&charges, tick(5)).is_ok(), expected);
            if expected {
                for left in &mut left {
                    *left -= i64::from(cost);
                }
            }
        }
    }
}

#[test]
fn call_that_one_window_refuses_is_charged_in_none_of_either_width() {
    let table = WindowTable::new(100_000);
    let [narrow, wide, spent] = [9, 70_000, 1].map(|quota| WindowSpec::new(quota, Duration::from_secs(60)).unwrap());
    let charges =
        [charge(&narrow, 1 << 64, 1), charge(&wide, 2 << 64, 1), charge(&wide, 2 << 64, 1), charge(&spent, 3 << 64, 1)];
    table.admit(&charges, tick(1)).unwrap();
    for _ in 0..3 {
        assert_eq!(table.admit(&charges, tick(2)).unwrap_err().index, 3);
    }

    assert_eq!(table.look(&charges[0], tick(3)).0, 8);
    assert_eq!(table.look(&charges[1], tick(3)).0, 69_998);
}

#[test]
fn threads_together_never_exceed_the_quota() {
    let window = Arc::new(SlidingWindow::new(1_000, Duration::from_secs(60), 16).unwrap());
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let window = Arc::clone(&window);
            std::thread::spawn(move || {
                (0..2_000).filter(|_| window.admit(b"key", 1, tick(9), ClockSource::System).unwrap().allowed).count()
            })
        })
        .collect();
    let admitted: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();

    assert_eq!(admitted, 1_000);
}

fn charge(spec: &WindowSpec, key: u128, holder: u128) -> Charge<'_> {
    Charge { key, spec, cost: 1, holder, is_look: false, overflow: 0 }
}

#[test]
fn holder_has_its_share_of_the_table_and_no_more() {
    let table = WindowTable::new(6_400);
    let spec = WindowSpec::new(5, Duration::from_secs(60)).unwrap();
    let outcomes: Vec<_> =
        (0..200).map(|key| table.admit_one(&charge(&spec, ((key * 7_919) << 40) | key, 1), tick(1))).collect();

    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 100);
    assert!(outcomes.iter().filter_map(|outcome| outcome.err()).all(|refused| refused.reason == Refusal::ShareFull));
    assert!(table.admit_one(&charge(&spec, 1, 2), tick(1)).is_ok());
}

#[test]
fn idle_windows_make_room_and_those_with_debt_do_not() {
    let table = WindowTable::new(64);
    let spec = WindowSpec::new(1, Duration::from_secs(1)).unwrap();
    for key in 0..64 {
        assert!(table.admit_one(&charge(&spec, key, key), tick(1)).is_ok());
    }
    assert!(table.admit_one(&charge(&spec, 99, 99), tick(2)).unwrap().is_together);
    assert!(table.admit_one(&charge(&spec, 0, 0), tick(3)).is_err());
    assert!(table.admit_one(&charge(&spec, 99, 99), tick(3_000_000_000)).is_ok());
    assert!(table.len() <= 64);
}

#[test]
fn table_holds_as_many_windows_as_it_may_wherever_their_keys_fall() {
    let table = WindowTable::without_shares(20_000);
    let spec = WindowSpec::new(1, Duration::from_secs(1)).unwrap();
    // The same hash in every run: some shards are given more of the keys than others.
    let hash = |number: u128| {
        let mut hasher = DefaultHasher::new();
        number.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    let key = |number: u128| hash(number) << 64 | hash(!number);
    let is_together = |number| table.admit_one(&charge(&spec, key(number), number), tick(1)).unwrap().is_together;

    assert!(!(1..=20_000).any(is_together));
    assert_eq!(table.len(), 20_000);
    assert!(is_together(20_001));
    assert_eq!(table.len(), 20_000);
}

#[test]
fn newcomers_to_a_full_table_share_one_window_and_others_keep_theirs() {
    let table = WindowTable::new(64);
    let spec = WindowSpec::new(3, Duration::from_secs(1)).unwrap();
    for key in 0..64 {
        table.admit_one(&charge(&spec, key, key), tick(1)).unwrap();
    }
    let newcomers: Vec<_> = (100..110).map(|key| table.admit_one(&charge(&spec, key, key), tick(2))).collect();

    let left: Vec<_> = newcomers.iter().map(|found| found.map(|it| (it.remaining, it.is_together))).collect();
    assert_eq!(left[..3], [Ok((2, true)), Ok((1, true)), Ok((0, true))]);
    assert!(left[3..].iter().all(|found| found.unwrap_err().reason == Refusal::SpentTogether));
    assert_eq!(table.overflowed(), 3);
    // Another rule's newcomers have another window.
    let other = Charge { overflow: 1, ..charge(&spec, 100, 100) };
    assert!(table.admit_one(&other, tick(2)).unwrap().is_together);
    assert_eq!(table.admit_one(&charge(&spec, 5, 5), tick(3)).unwrap().remaining, 1);
    assert!(table.len() <= 64);
}

#[test]
fn newcomer_begins_its_own_window_with_what_it_was_charged_before() {
    let table = WindowTable::without_shares(1);
    let short = WindowSpec::new(1, Duration::from_millis(1)).unwrap();
    let spec = WindowSpec::new(3, Duration::from_secs(1)).unwrap();
    table.admit_one(&Charge { overflow: 9, ..charge(&short, 1, 1) }, tick(1)).unwrap();
    assert!(table.admit_one(&Charge { cost: 2, ..charge(&spec, 2, 2) }, tick(2)).unwrap().is_together);
    let later = table.admit_one(&charge(&spec, 2, 2), tick(10_000_000)).unwrap();

    assert_eq!((later.remaining, later.is_together), (0, false));
}

#[test]
fn holder_with_its_share_spends_nothing_of_newcomers() {
    let table = WindowTable::new(64);
    let spec = WindowSpec::new(3, Duration::from_secs(60)).unwrap();
    for key in 0..64 {
        table.admit_one(&charge(&spec, key, key), tick(1)).unwrap();
    }
    for key in 200..210 {
        assert_eq!(table.admit_one(&charge(&spec, key, 7), tick(2)).unwrap_err().reason, Refusal::ShareFull);
    }
    assert_eq!(table.admit_one(&charge(&spec, 300, 300), tick(2)).unwrap().remaining, 2);
}

#[test]
fn two_newcomers_of_one_call_must_fit_together() {
    let table = WindowTable::without_shares(1);
    let spec = WindowSpec::new(3, Duration::from_secs(1)).unwrap();
    table.admit_one(&charge(&spec, 1, 1), tick(1)).unwrap();
    let both = [Charge { cost: 2, ..charge(&spec, 2, 2) }, Charge { cost: 2, ..charge(&spec, 3, 3) }];

    assert!(table.admit(&both, tick(2)).is_err());
    assert!(table.admit(&both[..1], tick(2)).is_ok());
}

#[test]
fn window_is_looked_at_and_stays_as_it_is() {
    let table = WindowTable::new(64);
    let spec = WindowSpec::new(3, Duration::from_secs(1)).unwrap();
    assert_eq!(table.look(&charge(&spec, 1, 1), tick(1)), (3, None));
    assert!(table.is_empty());
    table.admit_one(&Charge { cost: 3, ..charge(&spec, 1, 1) }, tick(1)).unwrap();
    let (left, wait) = table.look(&charge(&spec, 1, 1), tick(2));

    assert_eq!(left, 0);
    assert!(wait.unwrap() <= Duration::from_millis(1_016));
}

#[test]
fn window_that_is_about_to_be_charged_is_not_swept_away() {
    let table = WindowTable::new(2);
    let spec = WindowSpec::new(1, Duration::from_secs(1)).unwrap();
    table.admit_one(&charge(&spec, 1, 1), tick(1)).unwrap();
    let later = 10_000_000_000;
    let both = [charge(&spec, 1, 1), charge(&spec, 2, 2)];
    table.admit(&both, tick(later)).unwrap();

    assert!(table.admit_one(&charge(&spec, 1, 1), tick(later)).is_err());
    assert!(table.admit_one(&charge(&spec, 2, 2), tick(later)).is_err());
}

#[test]
fn longest_wait_of_all_refusals_is_told() {
    let table = WindowTable::new(1_000);
    let (short, long) =
        (WindowSpec::new(1, Duration::from_secs(1)).unwrap(), WindowSpec::new(1, Duration::from_secs(60)).unwrap());
    let both = [charge(&short, 1, 1), charge(&long, 2 << 64, 1)];
    table.admit(&both, tick(1)).unwrap();
    let refused = table.admit(&both, tick(2)).unwrap_err();

    assert_eq!(refused.index, 1);
    assert!(refused.retry_after.unwrap() > Duration::from_secs(59));
}

#[test]
fn two_charges_of_one_window_must_fit_together() {
    let table = WindowTable::new(1_000);
    let spec = WindowSpec::new(3, Duration::from_secs(1)).unwrap();
    let twice = [charge(&spec, 1, 1), charge(&spec, 1, 1)];
    table.admit(&twice, tick(1)).unwrap();

    assert_eq!(table.admit(&twice, tick(2)).unwrap_err().reason, Refusal::Spent);
    // Nothing was charged for the refused call, so one more alone fits.
    assert!(table.admit_one(&charge(&spec, 1, 1), tick(3)).is_ok());
    assert!(table.admit_one(&charge(&spec, 1, 1), tick(4)).is_err());
}
