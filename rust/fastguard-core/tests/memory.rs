//! What a window costs, by an allocator that counts.
#![allow(unsafe_code, reason = "an allocator can only be wrapped by unsafe code; nothing else here is")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastguard_core::Tick;
use fastguard_core::limits::{Charge, ClockSource, SlidingWindow, WindowSpec, WindowTable};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on unchanged to the system's allocator; the counter is only added to and taken from.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about the layout is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the block came from `alloc` above, thus from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests of one process share the allocator, so that only one may count at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes that each of so many windows costs, everything that the table holds included, where every holder has `each` of them.
fn bytes_per_key(quota: u64, keys: u32, each: u32) -> usize {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let spec = WindowSpec::new(quota, Duration::from_secs(60)).unwrap();
    let before = LIVE.load(Ordering::Relaxed);
    let table = WindowTable::new(keys as usize * 2);
    for number in 0..keys {
        let charge = Charge {
            key: spread(number),
            spec: &spec,
            cost: 1,
            holder: spread(number / each),
            is_look: false,
            overflow: 0,
        };
        assert!(table.admit_one(&charge, Tick::from_nanos(1)).is_ok(), "key {number}");
    }
    assert_eq!(table.len(), keys as usize);
    let after = LIVE.load(Ordering::Relaxed);
    (after - before) / keys as usize
}

/// A number as a keyed hash would spread it over shards and slots.
fn spread(number: u32) -> u128 {
    let mix = |value: u64| {
        let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    };
    u128::from(mix(u64::from(number) + 1)) << 64 | u128::from(mix(u64::from(number) + 0x9e37_79b9_7f4a_7c15))
}

/// The windows themselves: 200 bytes where 16 bits suffice for a slot, 400 beyond. The table counts what each holder has, in 38
/// to 75 bytes a holder, so a holder of one window pays that on top; where each has 64 it no longer shows.
fn check(keys: u32) {
    for (quota, windows, alone) in [(1, 200, 280), (65_535, 200, 280), (65_536, 400, 420), (1 << 31, 400, 420)] {
        let bytes = bytes_per_key(quota, keys, 64);
        assert!(bytes <= windows, "{bytes} bytes a key with a quota of {quota}");
        let bytes = bytes_per_key(quota, keys, 1);
        assert!(bytes <= alone, "{bytes} bytes a key and holder with a quota of {quota}");
    }
}

#[test]
fn hundred_thousand_windows_stay_within_their_bytes() {
    check(100_000);
}

#[test]
#[ignore = "for the soak: a million windows, four times"]
fn million_windows_stay_within_their_bytes() {
    check(1_000_000);
}

#[test]
fn windows_that_are_idle_are_used_again_instead_of_new_ones() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let window = SlidingWindow::new(5, Duration::from_millis(1), 50_000).unwrap();
    let admit = |number: u32, now: u64| {
        window.admit(&number.to_le_bytes(), 1, Tick::from_nanos(now), ClockSource::Caller).unwrap().allowed
    };
    for number in 0..20_000 {
        admit(number, 1);
    }
    let (live, count) = (LIVE.load(Ordering::Relaxed), window.len());
    // A stranger with a new key for every call: 500,000 of them, 20,000 in each span of two windows.
    for number in 20_000..520_000_u32 {
        assert!(admit(number, u64::from(number) * 100), "{number}");
    }
    assert!(window.len() <= count, "{} windows after {count}", window.len());
    assert!(LIVE.load(Ordering::Relaxed) <= live + live / 8);
}
