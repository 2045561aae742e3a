//! What level one really loses, counted: it promises no more than its one copy, so nothing here is a failure. Pure functions of a history.

use std::ops::AddAssign;

use super::checks::{self, value_read, value_set};
use super::history::{Action, Event, Told};

/// Counts over keys written at level one, against what was found when all was quiet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    /// Members of the set whose write was acknowledged.
    pub(crate) members: usize,
    /// Those that are gone.
    pub(crate) members_lost: usize,
    /// Increments that were acknowledged.
    pub(crate) increments: usize,
    /// Those that the counter does not show: at least so many, for some that were not acknowledged may have been done.
    pub(crate) increments_lost: usize,
    /// Registers with a write that was acknowledged.
    pub(crate) registers: usize,
    /// Those that show a value whose write had ended before a later one began that was acknowledged.
    pub(crate) registers_back: usize,
    /// Keys that were deleted last.
    pub(crate) deleted: usize,
    /// Those that are there.
    pub(crate) deleted_back: usize,
    /// Reads of registers.
    pub(crate) reads: usize,
    /// Those that show a value older than one acknowledged before they began.
    pub(crate) reads_stale: usize,
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.members += other.members;
        self.members_lost += other.members_lost;
        self.increments += other.increments;
        self.increments_lost += other.increments_lost;
        self.registers += other.registers;
        self.registers_back += other.registers_back;
        self.deleted += other.deleted;
        self.deleted_back += other.deleted_back;
        self.reads += other.reads;
        self.reads_stale += other.reads_stale;
    }
}

impl Losses {
    /// Of a history whose last reads are those of `reader`.
    pub(crate) fn of(events: &[Event], reader: usize) -> Self {
        let mut losses = Self::default();
        for (key, events) in checks::keys_at(events, 'o') {
            let last = events.iter().rev().find(|e| e.worker == reader && e.is_done());
            let Some(Told::Done(found)) = last.map(|e| &e.told) else { continue };
            let rest: Vec<&Event> = events.iter().copied().filter(|e| e.worker != reader).collect();
            match key.chars().next() {
                Some('s') => losses.member(&rest, found.as_deref()),
                Some('c') => losses.counter(&rest, found.as_deref()),
                Some('r') => losses.register(&rest, found.as_deref()),
                Some('d') => losses.deletion(&rest, found.as_deref()),
                _ => {}
            }
        }
        losses
    }

    fn member(&mut self, events: &[&Event], found: Option<&str>) {
        if events.iter().any(|e| value_set(e).is_some() && e.is_done()) {
            self.members += 1;
            self.members_lost += usize::from(found.is_none());
        }
    }

    fn counter(&mut self, events: &[&Event], found: Option<&str>) {
        let done = events.iter().filter(|e| e.action == Action::Increment && e.is_done()).count();
        let shown = found.and_then(|n| n.parse().ok()).unwrap_or(0);
        self.increments += done;
        self.increments_lost += done.saturating_sub(shown);
    }

    fn register(&mut self, events: &[&Event], found: Option<&str>) {
        if events.iter().any(|e| value_set(e).is_some() && e.is_done()) {
            self.registers += 1;
            self.registers_back += usize::from(is_older(events, found, u64::MAX));
        }
        for read in events {
            if let Some(value) = value_read(read) {
                self.reads += 1;
                self.reads_stale += usize::from(is_older(events, value, read.asked_us));
            }
        }
    }

    fn deletion(&mut self, events: &[&Event], found: Option<&str>) {
        let deleted = events.iter().filter(|e| e.action == Action::Delete && e.is_done()).map(|e| e.asked_us).max();
        let Some(deleted_us) = deleted else { return };
        let set = |e: &&&Event| value_set(e).is_some() && e.may_be_done();
        // One whose end is not known may have been done after the delete.
        if events.iter().filter(set).all(|e| e.is_done() && e.told_us < deleted_us) {
            self.deleted += 1;
            self.deleted_back += usize::from(found.is_some());
        }
    }
}

/// Whether some write was acknowledged before `before_us` that began after the write of `value` had ended.
fn is_older(events: &[&Event], value: Option<&str>, before_us: u64) -> bool {
    let ended_us = match value {
        None => 0,
        Some(value) => match events.iter().find(|e| value_set(e) == Some(value)) {
            Some(write) if write.is_done() => write.told_us,
            // It may have been done at any time.
            _ => return false,
        },
    };
    events.iter().any(|e| value_set(e).is_some() && e.is_done() && e.asked_us > ended_us && e.told_us < before_us)
}
