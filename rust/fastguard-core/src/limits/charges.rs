//! The charges of a call before they are made.

use std::sync::Arc;
use std::time::Duration;

use super::rules::CompiledWindow;
use super::table::{Charge, FEW_CHARGES};
use crate::config::Meter;

/// Which windows a call counts in, and how much. Nothing is charged by making it.
#[derive(Debug)]
pub struct Charges<'a> {
    few: [Charge<'a>; FEW_CHARGES],
    windows_of_few: [Option<&'a CompiledWindow>; FEW_CHARGES],
    many: Vec<Charge<'a>>,
    windows_of_many: Vec<Option<&'a CompiledWindow>>,
    count: usize,
}

/// One of them, with its rule.
#[derive(Clone, Copy, Debug)]
pub struct PlannedCharge<'a> {
    /// The rule's name.
    pub rule: &'a Arc<str>,
    /// The window's key: a keyed hash.
    pub key: u128,
    /// The most that any window of the length may hold.
    pub quota: u64,
    /// The window's length.
    pub window: Duration,
    /// How much is charged.
    pub cost: u32,
    /// The principal.
    pub holder: u128,
    /// What the window counts of results, where the call is not charged before it has ended.
    pub meter: Option<Meter>,
}

impl<'a> Charges<'a> {
    pub(super) const fn new() -> Self {
        Self {
            few: [Charge::NONE; FEW_CHARGES],
            windows_of_few: [None; FEW_CHARGES],
            many: Vec::new(),
            windows_of_many: Vec::new(),
            count: 0,
        }
    }

    pub(super) fn push(&mut self, charge: Charge<'a>, window: &'a CompiledWindow) {
        let place = self.count;
        self.count += 1;
        if let (Some(slot), Some(of_slot)) = (self.few.get_mut(place), self.windows_of_few.get_mut(place)) {
            (*slot, *of_slot) = (charge, Some(window));
            return;
        }
        if place == FEW_CHARGES {
            self.many.extend_from_slice(&self.few);
            self.windows_of_many.extend_from_slice(&self.windows_of_few);
        }
        self.many.push(charge);
        self.windows_of_many.push(Some(window));
    }

    pub(super) fn as_slice(&self) -> &[Charge<'a>] {
        if self.count > FEW_CHARGES { &self.many } else { self.few.get(..self.count).unwrap_or_default() }
    }

    fn windows(&self) -> &[Option<&'a CompiledWindow>] {
        if self.count > FEW_CHARGES {
            &self.windows_of_many
        } else {
            self.windows_of_few.get(..self.count).unwrap_or_default()
        }
    }

    pub(super) fn window(&self, index: usize) -> Option<&'a CompiledWindow> {
        self.windows().get(index).copied().flatten()
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether no rule counts the call.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The charges, for a store that many processes share.
    pub fn iter(&self) -> impl Iterator<Item = PlannedCharge<'a>> {
        self.as_slice().iter().zip(self.windows()).filter_map(|(charge, window)| {
            window.map(|window| PlannedCharge {
                rule: &window.rule,
                key: charge.key,
                quota: u64::from(charge.spec.quota()),
                window: window.window,
                cost: charge.cost,
                holder: charge.holder,
                meter: window.meter(),
            })
        })
    }
}
