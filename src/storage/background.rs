//! Work on whole partitions and between requests: flushing, dropping, collecting tombstones, sweeping what has expired, freeing what was
//! dropped. A turn is bounded; what it leaves is for the next. Never changes what a key's value is. Tested in `tests`.

use super::entries::Key;
use super::eviction::Place;
use super::segment::{Segment, Tally};
use super::store::{Applied, Store};
use crate::base::counters::Counter;
use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::EXPIRY_KEYS_PER_TURN;
use crate::base::notify::Classes;
use crate::base::slot::Partition;

/// Entries of dropped segments freed in one turn: some 100 microseconds.
const FREE_ENTRIES_PER_TURN: usize = 1_000;
/// Partitions whose missing digest a turn builds.
const DIGESTS_PER_TURN: usize = 2;
/// Between turns while work is left, which bounds what background work takes of a core.
const TURN_PAUSE_MS: u64 = 1;
/// Values a turn removes at most: with the cache misses of each, half a millisecond.
const EXPIRED_PER_TURN: usize = 500;
/// Entries a turn evicts for a smaller budget: some hundred microseconds.
const EVICTED_PER_TURN: usize = 500;
/// A sweep looks at every key of a segment, so it waits until that pays: a millisecond for every two keys, up to this.
const SWEEP_DELAY_MS_MAX: u64 = 500;

/// What a turn did, and when the next is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// When to call again at the latest; a new deadline may ask for an earlier call. `None` when nothing is planned.
    pub next: Option<UnixMs>,
    /// Values swept.
    pub expired: usize,
    /// The longest any of them stayed past its deadline, in milliseconds.
    pub late_ms_max: u64,
}

impl Store {
    /// Whether other nodes may hold copies of what is here. Only then do deletes and expiries leave tombstones and is a digest kept; a store
    /// starts without. Switched on, digests are built when first asked for, or by turns.
    pub fn set_replicated(&mut self, replicated: bool) {
        self.replicated = replicated;
        if !replicated {
            self.tables.iter_mut().for_each(super::table::Table::drop_digest);
        }
    }

    /// Deletes everything in a partition: what is there at the moment or comes later with a version up to the floor this sets and answers.
    pub fn flush(&mut self, partition: Partition, now: UnixMs) -> Version {
        let floor = self.hlc.stamp(now, self.floor(partition));
        self.table_mut(partition).floor = floor;
        self.give_up(partition);
        floor
    }

    /// The version at or below which everything in the partition is dead.
    pub fn floor(&self, partition: Partition) -> Version {
        self.tables[self.index(partition)].floor
    }

    /// Takes over a floor from a replica. Entries above it stay, at the cost of a walk over the partition.
    pub fn apply_floor(&mut self, partition: Partition, floor: Version, now: UnixMs) -> Applied {
        if self.hlc.observe(now, floor).is_err() {
            self.counters.inc(Counter::EntriesFarFuture);
            return Applied::FarFuture;
        }
        let index = self.index(partition);
        let present = self.tables[index].floor;
        if floor <= present {
            return if floor == present { Applied::Same } else { Applied::Stale(present) };
        }
        let table = &mut self.tables[index];
        table.floor = floor;
        let dead: Vec<Vec<u8>> = table
            .segments()
            .iter()
            .flat_map(|segment| segment.iter().chain(segment.iter_buried()))
            .filter(|packed| packed.version() <= floor)
            .map(|packed| packed.key().to_vec())
            .collect();
        let held: usize = table.segments().iter().map(|s| s.len() + s.buried_len()).sum();
        if dead.len() == held {
            self.give_up(partition);
        } else {
            for key in dead {
                table.forget(self.hash.of(&key), &mut self.tally);
            }
        }
        Applied::Newer
    }

    /// Gives a partition up: it belongs to others now. Nothing is remembered of it, the floor included.
    pub fn drop_partition(&mut self, partition: Partition) {
        self.table_mut(partition).floor = Version::ZERO;
        self.unsettle(partition);
        self.give_up(partition);
    }

    fn give_up(&mut self, partition: Partition) {
        let index = self.index(partition);
        for segment in self.tables[index].take_segments() {
            let taken = segment.tally();
            self.tally.update(taken, Tally::default());
            if taken.live + taken.buried > 0 {
                self.dying_tally.update(Tally::default(), taken);
                self.dying.push(segment);
            }
        }
    }

    /// Changes the budget (0 for no limit) and what happens at it. A smaller one is come down to by turns: no write has to wait for all
    /// that must go.
    pub fn set_budget(&mut self, bytes_max: usize, evict: bool) {
        self.config.evict = evict;
        self.budget = bytes_max;
        self.config.memory_bytes_max = if self.evicting_for(bytes_max) { self.memory_bytes() } else { bytes_max };
    }

    fn evicting_for(&self, budget: usize) -> bool {
        self.config.evict && budget > 0 && self.memory_bytes() > budget
    }

    /// Evicts some of what is above the budget. Whether there is more.
    fn shrink(&mut self) -> bool {
        if self.config.memory_bytes_max == self.budget {
            return false;
        }
        for _ in 0..EVICTED_PER_TURN {
            if !self.evicting_for(self.budget) || !self.evict_one(Place::NOWHERE) {
                self.config.memory_bytes_max = self.budget;
                return false;
            }
        }
        self.config.memory_bytes_max = self.budget.max(self.memory_bytes());
        true
    }

    /// Does a bounded amount of background work.
    pub fn turn(&mut self, now: UnixMs) -> Turn {
        self.free_slice(FREE_ENTRIES_PER_TURN);
        self.watched.turn(now);
        let unbuilt = self.build_digests();
        let shrinks = self.shrink();
        let collects = self.collect();
        let mut turn = self.sweep(now);
        if unbuilt || shrinks || collects || !self.dying.is_empty() {
            let soon = now + TURN_PAUSE_MS;
            turn.next = Some(turn.next.map_or(soon, |next| next.min(soon)));
        }
        turn
    }

    /// Builds a few digests that are missing; whether any still are.
    fn build_digests(&mut self) -> bool {
        if !self.replicated {
            return false;
        }
        let mut missing = self.tables.iter_mut().filter(|table| !table.has_digest());
        for table in missing.by_ref().take(DIGESTS_PER_TURN) {
            table.digest();
        }
        missing.next().is_some()
    }

    /// Frees up to `count` entries of dropped segments; how many.
    pub(super) fn free_slice(&mut self, count: usize) -> usize {
        let mut freed = 0;
        while freed < count {
            let Some(segment) = self.dying.last_mut() else { break };
            let before = segment.tally();
            freed += segment.dismantle(count - freed);
            self.dying_tally.update(before, segment.tally());
            if segment.len() + segment.buried_len() == 0 {
                self.dying.pop();
            }
        }
        freed
    }

    /// Turns an expired value into what an expired value becomes.
    pub(super) fn expire(&mut self, table: usize, key: Key<'_>) {
        self.counters.inc(Counter::Expired);
        self.notices.note(Classes::EXPIRED, "expired", key.bytes);
        let version = self.tables[table].version(key).unwrap_or(Version::ZERO);
        self.end(table, key, version);
    }

    /// Sweeps the segments that are due, in turn, until enough keys were looked at.
    fn sweep(&mut self, now: UnixMs) -> Turn {
        let mut turn = Turn::default();
        let mut looked_at = 0;
        let mut next = UnixMs::MAX;
        let tables = self.tables.len();
        for step in 0..tables {
            let index = (self.expiry_cursor + step) % tables;
            for segment in 0..self.tables[index].segments().len() {
                if let Some(at) = self.tables[index].segment(segment).and_then(sweep_due) {
                    if at > now {
                        next = next.min(at);
                        continue;
                    }
                    if looked_at >= EXPIRY_KEYS_PER_TURN || turn.expired >= EXPIRED_PER_TURN {
                        self.expiry_cursor = index;
                        turn.next = Some(now + TURN_PAUSE_MS);
                        return turn;
                    }
                    looked_at += self.tables[index].segments()[segment].len();
                    self.sweep_segment(index, segment, now, &mut turn);
                    next = next.min(self.tables[index].segment(segment).and_then(sweep_due).unwrap_or(next));
                }
            }
        }
        turn.next = (next < UnixMs::MAX).then_some(next);
        turn
    }

    fn sweep_segment(&mut self, table: usize, segment: usize, now: UnixMs, turn: &mut Turn) {
        let how = (now, EXPIRED_PER_TURN - turn.expired, self.replicated);
        let mut late_ms_max = turn.late_ms_max;
        let notices = &mut self.notices;
        let expired = self.tables[table].sweep(segment, how, &mut self.tally, |key, late_ms| {
            notices.note(Classes::EXPIRED, "expired", key);
            late_ms_max = late_ms_max.max(late_ms);
        });
        self.counters.add(Counter::Expired, expired as u64);
        turn.expired += expired;
        turn.late_ms_max = late_ms_max;
    }
}

/// When a segment is worth a sweep.
fn sweep_due(segment: &Segment) -> Option<UnixMs> {
    let delay_ms = (segment.len() as u64 / 2).min(SWEEP_DELAY_MS_MAX);
    (segment.tally().with_deadline > 0 && segment.earliest < UnixMs::MAX).then(|| segment.earliest + delay_ms)
}
