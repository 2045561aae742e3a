//! A bounded piece of a partition: live entries, tombstones beside them. Never decides which version wins, nor what is evicted. Every walk
//! over keys (expiry, scan page, growing a table) covers one segment at a time, which is what bounds it. Tested in `tests`.

use super::entries::{Entries, Key, KeyHash, LINE_BYTES};
use super::packed::{Content, ContentBody, Packed, PackedRef, Slot, Stamp};
use crate::base::hlc::{UnixMs, Version};

/// What a shard holds, added up over its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Live entries, expired ones included until they are swept.
    pub(super) live: usize,
    /// Of these, how many have a deadline.
    pub(super) with_deadline: usize,
    /// Tombstones.
    pub(super) buried: usize,
    /// Memory of live entries and their tables.
    pub(super) live_bytes: usize,
    /// Memory of tombstones and their tables.
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

/// What a [`Segment::put`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Put {
    /// The version before, a tombstone's included.
    pub(super) old: Option<Version>,
    /// The version now.
    pub(super) version: Version,
    /// Whether the entry had not been used yet in this tick.
    pub(super) news: bool,
}

/// See the file's head.
pub(super) struct Segment {
    live: Entries,
    buried: Entries,
    hash: KeyHash,
    /// What is here, memory of the two tables apart.
    tally: Tally,
    /// No entry's deadline is before this.
    pub(super) earliest: UnixMs,
    /// Leading bits of a place that all keys here share.
    pub(super) depth: u8,
}

impl Segment {
    pub(super) fn new(hash: &KeyHash, depth: u8) -> Self {
        Self {
            live: Entries::default(),
            buried: Entries::default(),
            hash: hash.clone(),
            tally: Tally::default(),
            earliest: UnixMs::MAX,
            depth,
        }
    }

    /// Bytes that storing `body` under `key` adds to a segment that has neither and is empty.
    pub(super) fn bytes_of(key: &[u8], body: ContentBody<'_>) -> usize {
        Content { version: Version::ZERO, body }.memory(key.len()) + LINE_BYTES
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn buried_len(&self) -> usize {
        self.buried.len()
    }

    /// What is here, added up.
    pub(super) fn tally(&self) -> Tally {
        Tally {
            live: self.live.len(),
            buried: self.buried.len(),
            live_bytes: self.tally.live_bytes + self.live.bytes(),
            buried_bytes: self.tally.buried_bytes + self.buried.bytes(),
            ..self.tally
        }
    }

    /// The live entries as they lie.
    pub(super) fn live(&self) -> &Entries {
        &self.live
    }

    /// The live entry under `key`.
    pub(super) fn peek(&self, key: Key<'_>) -> Option<PackedRef<'_>> {
        self.live.get(self.live.find(key)?)
    }

    /// Notes that the entry at a place of `live` was used; whether that is news.
    pub(super) fn touch(&mut self, place: usize, stamp: Stamp) -> bool {
        self.live.slot_mut(place).is_some_and(|slot| slot.stamp_with(stamp))
    }

    /// Notes that the entry at a place of `live` was read as an item; whether it had been before.
    pub(super) fn note_hit(&mut self, place: usize) -> bool {
        self.live.slot_mut(place).is_some_and(Slot::note_hit)
    }

    /// The version the tombstone of `key` has, if there is one.
    pub(super) fn buried(&self, key: Key<'_>) -> Option<Version> {
        Some(self.buried.get(self.buried.find(key)?)?.version())
    }

    /// Live entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = PackedRef<'_>> {
        self.live.iter()
    }

    /// Tombstones.
    pub(super) fn iter_buried(&self) -> impl Iterator<Item = PackedRef<'_>> {
        self.buried.iter()
    }

    /// Stores a value under the version that `stamp` makes of the present one (a tombstone's included).
    pub(super) fn put(
        &mut self,
        key: Key<'_>,
        used: Stamp,
        body: ContentBody<'_>,
        stamp: impl FnOnce(Version) -> Version,
    ) -> Put {
        if let ContentBody::Live { deadline: Some(deadline), .. } = body {
            self.earliest = self.earliest.min(deadline);
        }
        if let Some(slot) = self.live.find(key).and_then(|place| self.live.slot_mut(place)) {
            let old = version_in(slot);
            let version = stamp(old);
            changing(&mut self.tally, slot, |slot| slot.overwrite(&Content { version, body }));
            return Put { old: Some(old), version, news: slot.stamp_with(used) };
        }
        let old = self.exhume(key);
        let version = stamp(old.unwrap_or(Version::ZERO));
        let packed = Packed::new(key.bytes, &Content { version, body });
        self.tally.live_bytes += packed.get().memory();
        self.tally.with_deadline += usize::from(packed.get().deadline().is_some());
        self.live.insert(&self.hash, key, packed, used);
        Put { old, version, news: true }
    }

    /// Changes version and deadline of a live entry.
    pub(super) fn restamp(&mut self, key: Key<'_>, version: Version, deadline: Option<UnixMs>) {
        let Some(slot) = self.live.find(key).and_then(|place| self.live.slot_mut(place)) else { return };
        changing(&mut self.tally, slot, |slot| slot.restamp(version, deadline));
        self.earliest = self.earliest.min(deadline.unwrap_or(UnixMs::MAX));
    }

    /// Puts a tombstone in the place of whatever `key` held; the version of that.
    pub(super) fn bury(&mut self, key: Key<'_>, version: Version) -> Option<Version> {
        let old = self.forget(key);
        let tombstone = Packed::new(key.bytes, &Content { version, body: ContentBody::Tombstone });
        self.tally.buried_bytes += tombstone.get().memory();
        self.buried.insert(&self.hash, key, tombstone, Stamp::default());
        old
    }

    /// Drops whatever `key` held, tombstone or value; its version.
    pub(super) fn forget(&mut self, key: Key<'_>) -> Option<Version> {
        let Some(place) = self.live.find(key) else { return self.exhume(key) };
        Some(self.remove(place)?.get().version())
    }

    /// Removes the tombstone of `key`; its version.
    fn exhume(&mut self, key: Key<'_>) -> Option<Version> {
        let tombstone = self.buried.take(self.buried.find(key)?)?;
        self.tally.buried_bytes -= tombstone.get().memory();
        self.buried.fit(&self.hash);
        Some(tombstone.get().version())
    }

    /// Takes out the entry at a place of `live`.
    pub(super) fn remove(&mut self, place: usize) -> Option<Packed> {
        let packed = self.live.take(place)?;
        self.dismiss(packed.get());
        self.fit();
        Some(packed)
    }

    /// Removes up to `count` entries and tombstones, of a segment that nobody reads any more; how many.
    pub(super) fn dismantle(&mut self, count: usize) -> usize {
        for freed in 0..count {
            if let Some(packed) = self.live.pop() {
                self.dismiss(packed.get());
            } else if let Some(tombstone) = self.buried.pop() {
                self.tally.buried_bytes -= tombstone.get().memory();
            } else {
                return freed;
            }
        }
        count
    }

    /// Moves the entries whose place has the next bit set into a new segment.
    pub(super) fn split(&mut self, place: impl Fn(&[u8]) -> u64) -> Self {
        let bit = 1u64 << (u64::BITS - 1 - u32::from(self.depth));
        let mut low = Self::new(&self.hash, self.depth + 1);
        let mut high = Self::new(&self.hash, self.depth + 1);
        (low.earliest, high.earliest) = (self.earliest, self.earliest);
        let mut sort = |full: Slot, live: bool| {
            let Some(entry) = full.get() else { return };
            let side = if place(entry.key()) & bit == 0 { &mut low } else { &mut high };
            let (key_hash, memory) = (self.hash.of(entry.key()).hash, entry.memory());
            if live {
                side.tally.live_bytes += memory;
                side.tally.with_deadline += usize::from(full.has_deadline());
                side.live.adopt(&self.hash, key_hash, full);
            } else {
                side.tally.buried_bytes += memory;
                side.buried.adopt(&self.hash, key_hash, full);
            }
        };
        std::mem::take(&mut self.live).into_slots().for_each(|full| sort(full, true));
        std::mem::take(&mut self.buried).into_slots().for_each(|full| sort(full, false));
        *self = low;
        high
    }

    /// Removes the expired, up to `limit`, and hands them over. Unless the limit cut it short, the others' earliest deadline is exact
    /// afterwards.
    pub(super) fn sweep(&mut self, now: UnixMs, limit: usize) -> Vec<Packed> {
        let mut earliest = UnixMs::MAX;
        let expired = self.live.extract(limit, Slot::has_deadline, |entry| {
            let Some(deadline) = entry.deadline().filter(|deadline| *deadline > now) else { return true };
            earliest = earliest.min(deadline);
            false
        });
        if expired.len() < limit {
            self.earliest = earliest;
        }
        expired.iter().for_each(|packed| self.dismiss(packed.get()));
        self.fit();
        expired
    }

    /// Removes up to `limit` tombstones of versions up to `up_to`, and hands them over.
    pub(super) fn collect(&mut self, up_to: Version, limit: usize) -> Vec<Packed> {
        if self.buried.is_empty() {
            return Vec::new();
        }
        let collected = self.buried.extract(limit, Slot::is_full, |tombstone| tombstone.version() <= up_to);
        self.tally.buried_bytes -= collected.iter().map(|tombstone| tombstone.get().memory()).sum::<usize>();
        self.buried.fit(&self.hash);
        collected
    }

    /// Makes entries that were not used for `ticks_max` look as if they had been used just then, so that no stamp goes round.
    pub(super) fn bound_age(&mut self, now: Stamp, ticks_max: u16) {
        let oldest = now.after(Stamp::COUNT - ticks_max);
        for slot in self.live.slots_mut().filter(|slot| slot.stamp().age(now) > ticks_max) {
            slot.stamp_with(oldest);
        }
    }

    /// Accounts for an entry just taken out.
    fn dismiss(&mut self, entry: PackedRef<'_>) {
        self.tally.live_bytes -= entry.memory();
        self.tally.with_deadline -= usize::from(entry.deadline().is_some());
    }

    /// Gives back what the live entries' table does not need any more.
    fn fit(&mut self) {
        self.live.fit(&self.hash);
        if self.live.is_empty() {
            self.earliest = UnixMs::MAX;
        }
    }

    /// The account of this segment from scratch.
    #[cfg(test)]
    pub(super) fn recount(&self) -> Tally {
        Tally {
            live: self.iter().count(),
            with_deadline: self.iter().filter(|entry| entry.deadline().is_some()).count(),
            buried: self.iter_buried().count(),
            live_bytes: self.iter().map(PackedRef::memory).sum::<usize>() + self.live.bytes(),
            buried_bytes: self.iter_buried().map(PackedRef::memory).sum::<usize>() + self.buried.bytes(),
        }
    }
}

fn version_in(slot: &Slot) -> Version {
    slot.get().map_or(Version::ZERO, PackedRef::version)
}

/// Changes a live entry and accounts for it.
fn changing(tally: &mut Tally, slot: &mut Slot, change: impl FnOnce(&mut Slot)) {
    let weigh = |slot: &Slot| (slot.get().map_or(0, PackedRef::memory), usize::from(slot.has_deadline()));
    let before = weigh(slot);
    change(slot);
    let after = weigh(slot);
    tally.live_bytes = tally.live_bytes - before.0 + after.0;
    tally.with_deadline = tally.with_deadline - before.1 + after.1;
}
