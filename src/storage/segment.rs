//! A bounded piece of a partition: live entries in their order of use, tombstones beside them. Never decides which version wins. Every
//! walk over keys (expiry, scan page, growing a table) covers one segment at a time, which is what bounds it. Tested in `table`.
#![allow(clippy::mutable_key_type)] // an entry's key never changes, only what is under it

// Ordered by `KeyHash`, whose seed is given: one seed, one order.
use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::FixedState;
use lru::LruCache;

use super::packed::{self, Content, ContentBody, Keyed, Packed, Slot};
use super::size;
use crate::base::entry::EntryRef;
use crate::base::hlc::{UnixMs, Version};

/// A node of `LruCache`: entry, slot, two links.
const NODE_BYTES: usize = size_of::<(Packed, Slot, [usize; 2])>();
/// A bucket of `LruCache`: key pointer, node pointer.
type Bucket = [usize; 2];

/// Hashes keys with a seed, and counts: a table that hashes more than the key it was given has just rehashed, which `lru` does not tell and
/// the memory account must know. One owner, so the counter is never contended.
#[derive(Clone)]
pub(super) struct KeyHash {
    state: FixedState,
    hashed: Arc<AtomicU32>,
}

impl KeyHash {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: FixedState::with_seed(seed), hashed: Arc::new(AtomicU32::new(0)) }
    }

    fn hashed(&self) -> u32 {
        self.hashed.load(Ordering::Relaxed)
    }
}

impl BuildHasher for KeyHash {
    type Hasher = <FixedState as BuildHasher>::Hasher;

    fn build_hasher(&self) -> Self::Hasher {
        self.hashed.store(self.hashed().wrapping_add(1), Ordering::Relaxed);
        self.state.build_hasher()
    }
}

/// What a shard holds, added up over its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Live entries, expired ones included until they are swept.
    pub(super) live: usize,
    /// Of these, how many have a deadline.
    pub(super) with_deadline: usize,
    /// Tombstones.
    pub(super) buried: usize,
    /// Memory of live entries, nodes and their tables.
    pub(super) live_bytes: usize,
    /// Memory of tombstones.
    pub(super) buried_bytes: usize,
}

impl Tally {
    /// Replaces what a part contributed before by what it does now.
    pub(super) fn update(&mut self, before: Self, now: Self) {
        let change = |total: &mut usize, before: usize, now: usize| *total = *total + now - before;
        change(&mut self.live, before.live, now.live);
        change(&mut self.with_deadline, before.with_deadline, now.with_deadline);
        change(&mut self.buried, before.buried, now.buried);
        change(&mut self.live_bytes, before.live_bytes, now.live_bytes);
        change(&mut self.buried_bytes, before.buried_bytes, now.buried_bytes);
    }

    /// Memory of everything.
    pub(super) fn bytes(&self) -> usize {
        self.live_bytes + self.buried_bytes
    }
}

/// A live entry, borrowed.
#[derive(Clone, Copy)]
pub(super) struct View<'t> {
    pub(super) packed: &'t Packed,
    pub(super) slot: Slot,
}

impl<'t> View<'t> {
    pub(super) fn version(&self) -> Version {
        self.packed.version()
    }

    pub(super) fn deadline(&self) -> Option<UnixMs> {
        self.packed.deadline(self.slot.due)
    }

    /// A value is gone from its deadline on.
    pub(super) fn expired(&self, now: UnixMs) -> bool {
        self.slot.due.may_have_passed(now) && self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// As `deadline`, of an entry that has one, without touching the entry where that is possible.
    fn deadline_seen_at(&self, now: UnixMs) -> Option<UnixMs> {
        self.slot.due.to_come(now).or_else(|| self.deadline())
    }

    pub(super) fn content(&self) -> Content<'t> {
        self.packed.content(self.slot.due)
    }

    pub(super) fn entry(&self) -> EntryRef<'t> {
        self.content().entry()
    }
}

/// See the file's head.
pub(super) struct Segment {
    live: LruCache<Packed, Slot, KeyHash>,
    buried: HashSet<Packed, KeyHash>,
    hash: KeyHash,
    /// Buckets of `live`, by the model in `size`.
    buckets: usize,
    /// What is here.
    tally: Tally,
    /// No entry's deadline is before this.
    pub(super) earliest: UnixMs,
    /// Leading bits of a place that all keys here share.
    pub(super) depth: u8,
    /// Whether the eviction queue knows this segment.
    pub(super) queued: bool,
}

impl Segment {
    pub(super) fn new(hash: &KeyHash, depth: u8) -> Self {
        Self {
            live: LruCache::unbounded_with_hasher(hash.clone()),
            buried: HashSet::with_hasher(hash.clone()),
            hash: hash.clone(),
            buckets: 0,
            tally: Tally::default(),
            earliest: UnixMs::MAX,
            depth,
            queued: false,
        }
    }

    /// Bytes that storing `body` under `key` adds to a segment that has neither, its table apart.
    pub(super) fn bytes_of(key: &[u8], body: ContentBody<'_>) -> usize {
        Content { version: Version::ZERO, body }.memory(key.len()) + size::allocation(NODE_BYTES)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn buried_len(&self) -> usize {
        self.buried.len()
    }

    /// What is here, added up.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn peek(&self, key: &[u8]) -> Option<View<'_>> {
        packed::peek(&self.live, key).map(|(packed, slot)| View { packed, slot: *slot })
    }

    /// As `peek`, and the entry counts as used at `used`.
    pub(super) fn touch(&mut self, key: &[u8], used: u32) -> Option<View<'_>> {
        let entry = packed::find_mut(&mut self.live, key, true)?;
        entry.slot.used = used;
        let (packed, slot) = entry.into_shared();
        Some(View { packed, slot: *slot })
    }

    /// The version the tombstone of `key` has, if there is one.
    pub(super) fn buried(&self, key: &[u8]) -> Option<Version> {
        if self.buried.is_empty() {
            return None;
        }
        self.buried.get::<dyn Keyed + '_>(&Borrowed(key)).map(Packed::version)
    }

    /// The least recently used entry.
    pub(super) fn oldest(&self) -> Option<View<'_>> {
        self.live.peek_lru().map(|(packed, slot)| View { packed, slot: *slot })
    }

    /// Live entries, most recently used first.
    pub(super) fn iter(&self) -> impl Iterator<Item = View<'_>> {
        self.live.iter().map(|(packed, slot)| View { packed, slot: *slot })
    }

    /// Tombstones.
    pub(super) fn iter_buried(&self) -> impl Iterator<Item = &Packed> {
        self.buried.iter()
    }

    /// Stores a value under the version that `stamp` makes of the present one (a tombstone's included). Answers the old and the new.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        (used, promote): (u32, bool),
        body: ContentBody<'_>,
        stamp: impl FnOnce(Version) -> Version,
    ) -> (Option<Version>, Version) {
        let (old, version);
        if let Some(mut entry) = packed::find_mut(&mut self.live, key, promote) {
            let seen = entry.packed().version();
            (old, version) = (Some(seen), stamp(seen));
            let content = Content { version, body };
            let before = (entry.packed().memory(), entry.slot.due.is_some());
            entry.overwrite(&content);
            entry.slot.used = used;
            let after = (entry.packed().memory(), entry.slot.due.is_some());
            self.tally.live_bytes = self.tally.live_bytes - before.0 + after.0;
            self.count_deadline(before.1, after.1);
        } else {
            old = self.exhume(key);
            version = stamp(old.unwrap_or(Version::ZERO));
            let content = Content { version, body };
            self.admit(Packed::new(key, &content), Slot { used, due: content.due() });
        }
        if let ContentBody::Live { deadline: Some(deadline), .. } = body {
            self.earliest = self.earliest.min(deadline);
        }
        (old, version)
    }

    /// Changes version and deadline of a live entry.
    pub(super) fn restamp(&mut self, key: &[u8], version: Version, deadline: Option<UnixMs>) {
        let Some(mut entry) = packed::find_mut(&mut self.live, key, false) else { return };
        let before = (entry.packed().memory(), entry.slot.due.is_some());
        entry.restamp(version, deadline);
        self.tally.live_bytes = self.tally.live_bytes - before.0 + entry.packed().memory();
        let with_deadline = entry.slot.due.is_some();
        self.count_deadline(before.1, with_deadline);
        self.earliest = self.earliest.min(deadline.unwrap_or(UnixMs::MAX));
    }

    /// Puts a tombstone in the place of whatever `key` held; the version of that.
    pub(super) fn bury(&mut self, key: &[u8], version: Version) -> Option<Version> {
        let old = self.forget(key);
        let tombstone = Packed::new(key, &Content { version, body: ContentBody::Tombstone });
        self.inter(tombstone);
        old
    }

    fn inter(&mut self, tombstone: Packed) {
        self.tally.buried += 1;
        self.tally.buried_bytes += tombstone.memory();
        self.resizing_buried(|buried| buried.insert(tombstone));
    }

    /// Drops whatever `key` held, tombstone or value; its version.
    pub(super) fn forget(&mut self, key: &[u8]) -> Option<Version> {
        let Some((packed, slot)) = packed::remove(&mut self.live, key) else { return self.exhume(key) };
        self.dismiss(&packed, slot);
        Some(packed.version())
    }

    /// Takes out the least recently used entry.
    pub(super) fn pop_oldest(&mut self) -> Option<Packed> {
        let (packed, slot) = self.live.pop_lru()?;
        self.dismiss(&packed, slot);
        Some(packed)
    }

    /// Removes up to `count` entries and tombstones, of a segment that nobody reads any more; how many.
    pub(super) fn dismantle(&mut self, count: usize) -> usize {
        let mut freed = 0;
        while freed < count && self.pop_oldest().is_some() {
            freed += 1;
        }
        if freed < count && !self.buried.is_empty() {
            let keys: Vec<Vec<u8>> = self.buried.iter().take(count - freed).map(|t| t.key().to_vec()).collect();
            freed += keys.len();
            for key in keys {
                self.exhume(&key);
            }
        }
        freed
    }

    /// Moves the entries whose place has the next bit set into a new segment.
    pub(super) fn split(&mut self, place: impl Fn(&[u8]) -> u64) -> Self {
        let bit = 1u64 << (u64::BITS - 1 - u32::from(self.depth));
        let mut low = Self::new(&self.hash, self.depth + 1);
        let mut high = Self::new(&self.hash, self.depth + 1);
        low.queued = self.queued;
        (low.earliest, high.earliest) = (self.earliest, self.earliest);
        // From the least recently used on, so that both keep their order.
        while let Some((packed, slot)) = self.live.pop_lru() {
            let side = if place(packed.key()) & bit == 0 { &mut low } else { &mut high };
            side.admit(packed, slot);
        }
        for tombstone in self.buried.drain() {
            let side = if place(tombstone.key()) & bit == 0 { &mut low } else { &mut high };
            side.inter(tombstone);
        }
        *self = low;
        high
    }

    /// Removes the expired, up to `limit`, and hands each over. Unless the limit cut it short, the others' earliest deadline is exact
    /// afterwards.
    pub(super) fn sweep(&mut self, now: UnixMs, limit: usize, mut expired: impl FnMut(&Packed, UnixMs)) {
        let mut keys: Vec<(Vec<u8>, UnixMs)> = Vec::new();
        let mut earliest = UnixMs::MAX;
        for view in self.iter().filter(|view| view.slot.due.is_some()) {
            match view.deadline_seen_at(now) {
                Some(deadline) if deadline <= now => keys.push((view.packed.key().to_vec(), deadline)),
                Some(deadline) => earliest = earliest.min(deadline),
                None => {}
            }
            if keys.len() == limit {
                earliest = self.earliest;
                break;
            }
        }
        self.earliest = earliest;
        for (key, deadline) in keys {
            if let Some((packed, slot)) = packed::remove(&mut self.live, &key) {
                self.dismiss(&packed, slot);
                expired(&packed, deadline);
            }
        }
    }

    fn admit(&mut self, packed: Packed, slot: Slot) {
        self.tally.live += 1;
        self.tally.live_bytes += packed.memory() + size::allocation(NODE_BYTES);
        self.count_deadline(false, slot.due.is_some());
        let (len, before) = (self.live.len(), self.hash.hashed());
        self.live.put(packed, slot);
        // A plain insert hashes twice: to look and to insert.
        if self.buckets == 0 || self.hash.hashed().wrapping_sub(before) > 2 {
            let buckets = size::table_after_rehash(self.buckets, len);
            self.tally.live_bytes += size::table::<Bucket>(buckets) - size::table::<Bucket>(self.buckets);
            self.buckets = buckets;
        }
    }

    /// Accounts for an entry just taken out, and gives the table back when it was the last.
    fn dismiss(&mut self, packed: &Packed, slot: Slot) {
        self.tally.live -= 1;
        self.tally.live_bytes -= packed.memory() + size::allocation(NODE_BYTES);
        self.count_deadline(slot.due.is_some(), false);
        if self.live.is_empty() {
            self.tally.live_bytes -= size::table::<Bucket>(self.buckets);
            self.buckets = 0;
            self.earliest = UnixMs::MAX;
            self.live = LruCache::unbounded_with_hasher(self.hash.clone());
        }
    }

    fn count_deadline(&mut self, before: bool, after: bool) {
        self.tally.with_deadline = self.tally.with_deadline - usize::from(before) + usize::from(after);
    }

    /// Removes the tombstone of `key`; its version.
    pub(super) fn exhume(&mut self, key: &[u8]) -> Option<Version> {
        if self.buried.is_empty() {
            return None;
        }
        let tombstone = self.buried.take::<dyn Keyed + '_>(&Borrowed(key))?;
        self.tally.buried -= 1;
        self.tally.buried_bytes -= tombstone.memory();
        if self.buried.is_empty() {
            self.resizing_buried(HashSet::shrink_to_fit);
        }
        Some(tombstone.version())
    }

    fn resizing_buried<R>(&mut self, change: impl FnOnce(&mut HashSet<Packed, KeyHash>) -> R) {
        self.tally.buried_bytes -= buried_table(&self.buried);
        change(&mut self.buried);
        self.tally.buried_bytes += buried_table(&self.buried);
    }

    /// The account of this segment from scratch.
    #[cfg(test)]
    pub(super) fn recount(&self) -> Tally {
        let live: usize = self.iter().map(|v| v.packed.memory() + size::allocation(NODE_BYTES)).sum();
        let buried: usize = self.buried.iter().map(Packed::memory).sum();
        Tally {
            live: self.live.len(),
            with_deadline: self.iter().filter(|v| v.deadline().is_some()).count(),
            buried: self.buried.len(),
            live_bytes: live + size::table::<Bucket>(self.buckets),
            buried_bytes: buried + buried_table(&self.buried),
        }
    }
}

/// Bytes of the table of tombstones; std's set is a hashbrown table that tells its capacity.
fn buried_table(buried: &HashSet<Packed, KeyHash>) -> usize {
    let capacity = buried.capacity();
    let buckets = if capacity == 0 { 0 } else { (capacity + 1).next_power_of_two() };
    size::table::<Packed>(buckets)
}

/// A key to search tombstones by.
struct Borrowed<'k>(&'k [u8]);

impl Keyed for Borrowed<'_> {
    fn key_bytes(&self) -> &[u8] {
        self.0
    }
    fn packed(&self) -> Option<&Packed> {
        None
    }
    fn meet(&self, _: &dyn Keyed) {}
}
