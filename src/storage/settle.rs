//! The past of a partition that is closed: what every replica has up to some version, so that what is dead up to there can be forgotten, and
//! what comes later from before is refused. Never decides that it is so: `cluster::settle` does, by proof. Tested in `tests/settle.rs`.

use super::store::Store;
use super::table::{Settled, Table};
use crate::base::counters::Counter;
use crate::base::hlc::{UnixMs, Version};
#[cfg(feature = "sim")]
use crate::base::plant::Plant::EarlyTombstone;
use crate::base::slot::Partition;

/// Tombstones a turn drops at most: some hundred microseconds.
const COLLECTED_PER_TURN: usize = 1_000;

impl Store {
    /// Stamps nothing at or below `version` from now on. False, and nothing changed, if that lies too far ahead of this node's clock.
    pub fn stamps_above(&mut self, version: Version, now: UnixMs) -> bool {
        let near = self.hlc.observe(now, version).is_ok();
        if !near {
            self.counters.inc(Counter::EntriesFarFuture);
        }
        near
    }

    /// Every replica of the partition has all that was written up to `up_to`, and none stamps anything below it any more. Tombstones up to
    /// there are dropped, by turns; of what is not here, writes up to there are refused as stale. Never goes back.
    pub fn settle(&mut self, partition: Partition, up_to: Version, now: UnixMs) {
        if !self.stamps_above(up_to, now) {
            return;
        }
        let settled = &mut self.table_mut(partition).settled;
        if up_to > settled.up_to {
            *settled = Settled { up_to, guard: settled.guard.max(up_to), collects: true, ..*settled };
        }
    }

    /// As [`Store::settle`] of all partitions up to now, by the only node there is.
    pub fn settle_all(&mut self, now: UnixMs) {
        let up_to = self.hlc.stamp(now, Version::ZERO);
        for partition in self.partitions() {
            self.settle(partition, up_to, now);
        }
    }

    /// The partition is about to become settled up to `up_to` by taking over what a replica that is has: nothing from before may come in by
    /// other ways meanwhile.
    pub fn guard(&mut self, partition: Partition, up_to: Version) {
        let settled = &mut self.table_mut(partition).settled;
        settled.guard = settled.guard.max(up_to);
    }

    /// The other replicas have gone on without this node: of what it has, they know all that is still alive.
    pub fn lapse(&mut self, partition: Partition, now: UnixMs) {
        self.settle(partition, Version { time: 1, origin: 0 }, now);
    }

    /// What is here has nothing to do with what others have: nothing is settled.
    pub fn unsettle(&mut self, partition: Partition) {
        let settled = &mut self.table_mut(partition).settled;
        *settled = Settled { newest: settled.newest, ..Settled::default() };
    }

    /// Up to where the partition is settled.
    pub fn settled(&self, partition: Partition) -> Version {
        self.table(partition).settled.up_to
    }

    /// Up to where what is missing may have been evicted; [`Version::ZERO`] if that is no further than it is settled, where it is not missed anyway.
    pub fn evicted(&self, partition: Partition) -> Version {
        let settled = self.table(partition).settled;
        if settled.evicted > settled.up_to { settled.evicted } else { Version::ZERO }
    }

    /// Whether a partition was written to since it was settled.
    pub fn is_unsettled(&self, partition: Partition) -> bool {
        let settled = self.table(partition).settled;
        settled.newest > settled.up_to
    }

    /// Partitions that were written to since they were settled.
    pub fn unsettled(&self) -> impl Iterator<Item = Partition> + '_ {
        self.partitions().filter(|partition| self.is_unsettled(*partition))
    }

    /// Forgets what is under `key` if it still has version `ours`: it was deleted long ago, and this node was not there.
    pub fn outlive(&mut self, key: &[u8], ours: Version) {
        let (table, key) = self.find(key);
        if self.tables[table].version(key) == Some(ours) {
            self.tables[table].forget(key, &mut self.tally);
            self.counters.inc(Counter::EntriesOutlived);
        }
    }

    /// Drops some of the tombstones that are settled. Whether there are more.
    pub(super) fn collect(&mut self) -> bool {
        let mut room = COLLECTED_PER_TURN;
        let due = |table: &&mut Table| table.settled.collects;
        #[cfg(feature = "sim")]
        let due = |table: &&mut Table| due(table) || EarlyTombstone.is_sown();
        for table in self.tables.iter_mut().filter(due) {
            let collected = table.collect(room, &mut self.tally);
            self.counters.add(Counter::TombstonesCollected, collected as u64);
            room -= collected;
            if room == 0 {
                return true;
            }
        }
        false
    }
}
