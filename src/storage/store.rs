//! The store of one data shard: its partitions' tables, their memory, their clock. Where versions are compared and values come and go;
//! commands are in `execute`, background work in `background`. Never reads a clock, never sends anything. Tested in `tests`.

use bytes::Bytes;

use super::entries::{Key, KeyHash};
use super::eviction::{Evictor, Place, UseClock};
use super::execute::Hand;
use super::notice::Notices;
use super::packed::{ContentBody, PackedRef, Value};
use super::segment::{Segment, Tally};
use super::table::Table;
use super::watched::Watched;
use crate::base::counters::{Counter, Counters};
use crate::base::entry::{Body, BodyRef, Entry, EntryRef};
use crate::base::hlc::{Hlc, UnixMs, Version};
use crate::base::limits::CLOCK_AHEAD_MAX;
use crate::base::notify::Classes;
use crate::base::slot::{PARTITIONS, Partition};

/// What a store is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct StoreConfig {
    /// Which shard this is, below `shards`.
    pub shard: u16,
    /// How many shards share the node's partitions; this one holds every partition `p` with `p % shards == shard`.
    pub shards: u16,
    /// Bytes this shard may take for entries, tombstones and their tables; 0 for no limit. The empty store (about 300 bytes a partition, and
    /// 512 bytes more for each that keeps a digest) comes on top.
    pub memory_bytes_max: usize,
    /// At the limit: whether to evict the least recently used, else writes are refused.
    pub evict: bool,
    /// Longest value `APPEND` and `SETRANGE` may make.
    pub value_bytes_max: usize,
    /// Seed of the tables' hash, unknown to clients so that they cannot make keys collide.
    pub hash_seed: u64,
}

/// What became of an entry from a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was newer and is stored now.
    Newer,
    /// It was here already.
    Same,
    /// Something newer stays, of this version.
    Stale(Version),
    /// Its version lies too far ahead of this node's clock. Nothing was changed.
    FarFuture,
}

/// See the file's head.
pub struct Store {
    pub(super) config: StoreConfig,
    pub(super) hlc: Hlc,
    pub(super) tables: Vec<Table>,
    pub(super) tally: Tally,
    pub(super) counters: Counters,
    pub(super) hash: KeyHash,
    uses: UseClock,
    evictor: Evictor,
    /// What `config.memory_bytes_max` is to become; above that while entries are evicted for it by turns.
    pub(super) budget: usize,
    /// Segments given up, to be freed in slices, and what they take.
    pub(super) dying: Vec<Segment>,
    pub(super) dying_tally: Tally,
    /// Whether other nodes may hold copies: then deletes leave tombstones, and digests are kept.
    pub(super) replicated: bool,
    /// Table at which the next expiry turn begins.
    pub(super) expiry_cursor: usize,
    /// Operations after the last one that are to be passed over.
    pub(super) skip: usize,
    pub(super) watched: Watched,
    /// What a command on several keys carries from one to the next.
    pub(super) hand: Hand,
    /// What somebody wants to hear of keys.
    pub(super) notices: Notices,
}

/// A write that did not fit the memory budget. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfMemory;

impl Store {
    /// An empty store, not replicated.
    ///
    /// # Panics
    /// If `shard` is not below `shards`, or `shards` is above the number of partitions.
    pub fn new(config: StoreConfig, hlc: Hlc) -> Self {
        assert!(config.shard < config.shards && config.shards <= PARTITIONS, "every shard holds a partition");
        let hash = KeyHash::new(config.hash_seed);
        let held = (config.shard..PARTITIONS).step_by(usize::from(config.shards)).count();
        Self {
            config,
            hlc,
            tables: (0..held).map(|_| Table::new(&hash)).collect(),
            tally: Tally::default(),
            counters: Counters::default(),
            hash,
            uses: UseClock::default(),
            evictor: Evictor::new(config.hash_seed),
            budget: config.memory_bytes_max,
            dying: Vec::new(),
            dying_tally: Tally::default(),
            replicated: false,
            expiry_cursor: 0,
            skip: 0,
            watched: Watched::new(),
            hand: Hand::Empty,
            notices: Notices::default(),
        }
    }

    /// The partitions of this shard.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (self.config.shard..PARTITIONS).step_by(usize::from(self.config.shards)).map(Partition)
    }

    pub(super) fn index(&self, partition: Partition) -> usize {
        assert_eq!(partition.0 % self.config.shards, self.config.shard, "the router sends each partition to its shard");
        usize::from(partition.0 / self.config.shards)
    }

    /// The table of `key`, and the key with its hash.
    pub(super) fn find<'k>(&self, key: &'k [u8]) -> (usize, Key<'k>) {
        (self.index(Partition::of(key)), self.hash.of(key))
    }

    pub(super) fn table(&self, partition: Partition) -> &Table {
        &self.tables[self.index(partition)]
    }

    pub(super) fn table_mut(&mut self, partition: Partition) -> &mut Table {
        let index = self.index(partition);
        &mut self.tables[index]
    }

    /// Whether the order of use matters.
    pub(super) fn evicting(&self) -> bool {
        self.config.memory_bytes_max > 0 && self.config.evict
    }

    // ---- single keys ----

    /// Whatever is under `key`: tombstones and expired values included, its place in the order of use unchanged.
    pub fn peek(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (table, key) = self.find(key);
        self.tables[table].entry(key)
    }

    /// As [`Store::peek`], owned; a large value is shared, not copied.
    pub fn peek_owned(&self, key: &[u8]) -> Option<Entry> {
        let (table, key) = self.find(key);
        let table = &self.tables[table];
        let Some(live) = table.peek(key) else { return table.entry(key).map(EntryRef::to_entry) };
        let content = live.content();
        let ContentBody::Live { value, deadline, marks } = content.body else { return None };
        let value = match value {
            Value::Owned(bytes) => bytes.clone(),
            Value::Copied(bytes) => Bytes::copy_from_slice(bytes),
        };
        Some(Entry { version: content.version, body: Body::Live { value, deadline, marks } })
    }

    /// The value under `key` to be read now. An expired one is swept and not returned.
    #[inline]
    pub(super) fn read(&mut self, table: usize, key: Key<'_>, now: UnixMs, is_use: bool) -> Option<PackedRef<'_>> {
        let at = self.locate(table, key, now, is_use)?;
        self.tables[table].at(at)
    }

    /// As [`Store::read`], where it lies.
    #[inline]
    pub(super) fn locate(&mut self, table: usize, key: Key<'_>, now: UnixMs, is_use: bool) -> Option<(usize, usize)> {
        let at = self.tables[table].locate(key)?;
        if self.tables[table].at(at)?.expired(now) {
            self.expire(table, key);
            return None;
        }
        if is_use && self.evicting() {
            let news = self.tables[table].touch(at, self.uses.now());
            self.count_use(news);
        }
        Some(at)
    }

    /// Counts a use for the order of eviction.
    fn count_use(&mut self, news: bool) {
        if news && self.evicting() && self.uses.count(self.tally.live) {
            self.evictor.bound_ages(&mut self.tables, self.uses.now());
        }
    }

    /// What `key` held is dead by `version`, which is remembered for as long as somebody may not know.
    pub(super) fn end(&mut self, table: usize, key: Key<'_>, version: Version) {
        if self.replicated && version > self.tables[table].settled.up_to {
            self.tables[table].bury(key, version, &mut self.tally);
        } else {
            self.tables[table].forget(key, &mut self.tally);
        }
    }

    /// Stores a value as this node's own write.
    pub(super) fn write(
        &mut self,
        table: usize,
        key: Key<'_>,
        body: ContentBody<'_>,
        now: UnixMs,
    ) -> Result<Version, OutOfMemory> {
        if !self.has_room(table, key, body) {
            self.counters.inc(Counter::OutOfMemory);
            return Err(OutOfMemory);
        }
        let hlc = &mut self.hlc;
        let stamp = |seen| hlc.stamp(now, seen);
        let put = self.tables[table].put(key, self.uses.now(), body, stamp, &mut self.tally);
        self.count_use(put.news);
        self.watched.written(key.hash, put.version);
        self.stay_within_budget(table, key);
        Ok(put.version)
    }

    /// Deletes as this node's own write. The tombstone is kept only while others may hold copies.
    pub(super) fn delete(&mut self, table: usize, key: Key<'_>, now: UnixMs) -> Version {
        let seen = self.tables[table].version(key).unwrap_or(Version::ZERO);
        let version = self.hlc.stamp(now, seen);
        if self.replicated {
            self.tables[table].bury(key, version, &mut self.tally);
        } else {
            self.tables[table].forget(key, &mut self.tally);
            self.watched.written(key.hash, version);
        }
        version
    }

    /// Merges an entry from a replica; a large value is shared, not copied. Never refused for memory: with eviction something else goes, without
    /// it the caller minds the budget. What comes so late that it must have been deleted meanwhile is refused as stale ([`Store::settle`]).
    pub fn apply(&mut self, key: &[u8], entry: &Entry, now: UnixMs) -> Applied {
        self.merge(key, entry, true, now)
    }

    /// As [`Store::apply`], of what is known to be what the key holds, however old.
    pub fn restore(&mut self, key: &[u8], entry: &Entry, now: UnixMs) -> Applied {
        self.merge(key, entry, false, now)
    }

    fn merge(&mut self, key: &[u8], entry: &Entry, guarded: bool, now: UnixMs) -> Applied {
        if self.hlc.observe(now, entry.version).is_err() {
            self.counters.inc(Counter::EntriesFarFuture);
            return Applied::FarFuture;
        }
        let (table, key) = self.find(key);
        if entry.version <= self.tables[table].floor {
            self.counters.inc(Counter::EntriesStale);
            return Applied::Stale(self.tables[table].floor);
        }
        let effective = as_of(entry.as_ref(), now);
        if let Some(present) = self.tables[table].entry(key) {
            let present = as_of(present, now);
            match effective.merge_order(&present) {
                std::cmp::Ordering::Greater => {}
                _ if entry.version == present.version => return Applied::Same,
                _ => {
                    self.counters.inc(Counter::EntriesStale);
                    return Applied::Stale(present.version);
                }
            }
        } else if effective.body == BodyRef::Tombstone && entry.version <= self.tables[table].settled.up_to {
            // Dead here as well, and nobody needs to be told.
            return Applied::Same;
        } else if guarded && entry.version <= self.tables[table].settled.guard {
            self.counters.inc(Counter::EntriesOutlived);
            return Applied::Stale(self.tables[table].settled.guard);
        }
        self.counters.inc(Counter::EntriesApplied);
        match &entry.body {
            Body::Live { value, deadline, marks } if effective.body != BodyRef::Tombstone => {
                let body = ContentBody::Live { value: Value::Owned(value), deadline: *deadline, marks: *marks };
                let put = self.tables[table].put(key, self.uses.now(), body, |_| entry.version, &mut self.tally);
                self.count_use(put.news);
                self.stay_within_budget(table, key);
            }
            // Also while nobody else is known: whoever sent it is there.
            Body::Live { .. } | Body::Tombstone if entry.version > self.tables[table].settled.up_to => {
                self.tables[table].bury(key, entry.version, &mut self.tally);
            }
            Body::Live { .. } | Body::Tombstone => self.tables[table].forget(key, &mut self.tally),
        }
        Applied::Newer
    }

    /// Stamps what is under `key` again if it still has version `ours`, and gives `mutated` the entry under its new version. False if the key
    /// has changed meanwhile; nothing was done then.
    pub fn restamp(
        &mut self,
        key: &[u8],
        ours: Version,
        now: UnixMs,
        mutated: &mut impl FnMut(&[u8], EntryRef<'_>),
    ) -> bool {
        let (table, key) = self.find(key);
        let Some(present) = self.tables[table].entry(key).filter(|entry| entry.version == ours) else { return false };
        let version = self.hlc.stamp(now, ours);
        match present.body {
            BodyRef::Tombstone => self.tables[table].bury(key, version, &mut self.tally),
            BodyRef::Live { deadline, .. } => self.tables[table].restamp(key, version, deadline, &mut self.tally),
        }
        if let Some(entry) = self.tables[table].entry(key) {
            mutated(key.bytes, entry);
        }
        true
    }

    /// The version of whatever is under `key`, or [`Version::ZERO`].
    pub fn version(&self, key: &[u8]) -> Version {
        let (table, key) = self.find(key);
        self.tables[table].version(key).unwrap_or(Version::ZERO)
    }

    /// A version above everything stamped and seen here and above `above`: what this node writes on the strength of it is written later.
    /// `None` if `above` lies so far ahead of this node's clock that others, behind it, might refuse what is stamped from now on.
    pub fn ballot(&mut self, above: Version, now: UnixMs) -> Option<Version> {
        let allowed = above.unix_ms() <= now + CLOCK_AHEAD_MAX.as_millis() as u64 / 2;
        allowed.then(|| self.hlc.observe(now, above).ok())??;
        Some(self.hlc.stamp(now, above))
    }

    /// The least that what is written now can be stamped.
    pub fn next_stamp(&self, now: UnixMs) -> Version {
        self.hlc.next(now)
    }

    /// What this store stamps with, [`Version::origin`].
    pub fn origin(&self) -> u32 {
        self.hlc.origin()
    }

    // ---- memory ----

    /// Whether a value may be stored, something else evicted if need be.
    fn has_room(&self, table: usize, key: Key<'_>, body: ContentBody<'_>) -> bool {
        let max = self.config.memory_bytes_max;
        if max == 0 {
            return true;
        }
        let needed = Segment::bytes_of(key.bytes, body);
        if self.config.evict {
            return needed + self.tally.buried_bytes <= max;
        }
        let present = self.tables[table].peek(key);
        let present = present.map_or(0, |live| Segment::bytes_of(key.bytes, live.content().body));
        needed <= present || self.memory_bytes() + needed - present <= max
    }

    /// Evicts until the budget holds, but not the key just written.
    fn stay_within_budget(&mut self, table: usize, key: Key<'_>) {
        while self.evicting() && self.memory_bytes() > self.config.memory_bytes_max {
            if self.free_slice(1) > 0 {
                continue;
            }
            let Some((segment, slot)) = self.tables[table].locate(key) else { break };
            if !self.evict_one(Place { table, segment, slot }) {
                break;
            }
        }
    }

    /// Evicts one entry, but not that at `spared`. False if there is none.
    pub(super) fn evict_one(&mut self, spared: Place) -> bool {
        let Some(oldest) = self.evictor.next(&self.tables, self.uses.now(), spared) else { return false };
        let notices = &mut self.notices;
        self.tables[oldest.table].evict((oldest.segment, oldest.slot), &mut self.tally, |key| {
            notices.note(Classes::EVICTED, "evicted", key);
        });
        self.counters.inc(Counter::Evicted);
        true
    }

    /// Bytes taken by entries, tombstones, their tables, and what is being freed.
    pub fn memory_bytes(&self) -> usize {
        self.tally.bytes() + self.dying_tally.bytes()
    }

    /// Live keys, expired ones included until they are swept.
    pub fn len(&self) -> usize {
        self.tally.live
    }

    /// Whether there is no live key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Live keys of one partition.
    pub fn len_of(&self, partition: Partition) -> usize {
        self.table(partition).len()
    }

    /// Keys of a partition and the bytes they take, tombstones included.
    pub fn size_of(&self, partition: Partition) -> (usize, usize) {
        let tallies = self.table(partition).segments().iter().map(Segment::tally);
        tallies.fold((0, 0), |(keys, bytes), tally| (keys + tally.live, bytes + tally.bytes()))
    }

    /// Whether anything is in a partition, if only tombstones.
    pub fn is_filled(&self, partition: Partition) -> bool {
        self.table(partition).segments().iter().map(Segment::tally).any(|tally| tally.live + tally.buried > 0)
    }

    /// Tombstones.
    pub fn tombstones(&self) -> usize {
        self.tally.buried
    }

    /// Live keys with a deadline.
    pub fn with_deadline(&self) -> usize {
        self.tally.with_deadline
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// An entry as it is at `now`: past its deadline it is a tombstone of the same version.
fn as_of(entry: EntryRef<'_>, now: UnixMs) -> EntryRef<'_> {
    match entry.body {
        BodyRef::Live { deadline: Some(deadline), .. } if deadline <= now => {
            EntryRef { version: entry.version, body: BodyRef::Tombstone }
        }
        _ => entry,
    }
}
