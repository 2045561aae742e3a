//! Which segment holds the least recently used entry of a shard: a lazy heap over the segments' oldest entries. Never removes an entry
//! itself. Tested in `tests`.
//!
//! A segment's oldest entry only gets younger, so a heap item that is out of date is too old; it is corrected when it surfaces.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::hlc::UnixMs;

/// Milliseconds, as a power of two, of one tick: 8.7 years until the count stands still. Within a tick, segments are served in turn.
const TICK_BITS: u32 = 6;

/// Coarse time that never goes back, for the order of use across segments.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    start: Option<UnixMs>,
    last: u32,
}

impl Ticks {
    pub(super) fn at(&mut self, now: UnixMs) -> u32 {
        let start = *self.start.get_or_insert(now);
        let ticks = now.saturating_sub(start) >> TICK_BITS;
        self.last = self.last.max(u32::try_from(ticks).unwrap_or(u32::MAX));
        self.last
    }
}

/// A segment in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// When its oldest entry was used last, or before.
    pub(super) used: u32,
    /// Index of its table in the shard.
    pub(super) table: usize,
    /// Index of it in the table.
    pub(super) segment: usize,
}

/// Segments by their oldest entry.
#[derive(Debug, Default)]
pub(super) struct EvictionQueue(BinaryHeap<Reverse<Candidate>>);

impl EvictionQueue {
    pub(super) fn push(&mut self, candidate: Candidate) {
        self.0.push(Reverse(candidate));
    }

    pub(super) fn pop(&mut self) -> Option<Candidate> {
        self.0.pop().map(|Reverse(candidate)| candidate)
    }

    /// Forgets the segments of a table.
    pub(super) fn remove_table(&mut self, table: usize) {
        self.0.retain(|Reverse(candidate)| candidate.table != table);
    }
}
