//! One partition: segments found by extendible hashing on a key's place, its digest, and the floor below which everything is dead. Never
//! decides which version wins. Tested below and in `tests`.
//!
//! Segments split in two before they grow past [`SEGMENT_KEYS_MAX`] (Fagin et al., "Extendible Hashing", 1979), so that no walk and no
//! rehash covers more, however many keys share a hash tag. A partition of usual size has one segment, and finding it costs nothing.

use super::digest::{Digest, place};
use super::entries::{Key, KeyHash};
use super::packed::{ContentBody, PackedRef, Stamp};
use super::segment::{Put, Segment, Tally};
use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::{UnixMs, Version};

/// A segment with more keys than this splits, which takes well under a millisecond.
const SEGMENT_KEYS_MAX: usize = 3_584;
/// Leading bits of a place a directory may use; beyond it (keys made to collide) segments grow instead.
const DEPTH_MAX: u8 = 16;

/// See the file's head.
pub(super) struct Table {
    /// Segment by the first `depth` bits of a place.
    directory: Vec<u16>,
    depth: u8,
    segments: Vec<Segment>,
    /// Live entries in all segments.
    live: usize,
    hash: KeyHash,
    /// Kept only while others hold copies, and built when first asked for.
    digest: Option<Box<Digest>>,
    /// Everything at or below is dead, and ignored when it comes late.
    pub(super) floor: Version,
    /// See [`Settled`].
    pub(super) settled: Settled,
}

/// How far a partition's past is closed: what all its replicas have, and what they may forget of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Every replica has all that was written up to here. What is dead up to here need not be remembered.
    pub(super) up_to: Version,
    /// What is not here up to here is dead or was evicted, and refused when it comes late: `up_to`, or what it is about to become, or `evicted`.
    pub(super) guard: Version,
    /// The newest version that was evicted. What is not here up to here may have been.
    pub(super) evicted: Version,
    /// The newest that was ever written here.
    pub(super) newest: Version,
    /// Tombstones up to `up_to` wait to be dropped.
    pub(super) collects: bool,
}

/// A key of a page and what is under it.
pub(super) struct Held<'t> {
    pub(super) place: u64,
    pub(super) packed: PackedRef<'t>,
    /// Whether it is a value, not a tombstone.
    pub(super) live: bool,
}

/// Keys in the order of their places, and the place where the next page starts.
pub(super) struct Page<'t> {
    pub(super) held: Vec<Held<'t>>,
    pub(super) next: Option<u64>,
}

/// A place as cursors carry it: its upper 48 bits.
pub(super) fn position_of(place: u64) -> u64 {
    place >> 16
}

/// The position of a key: pages of a scan have keys in this order.
pub fn position(key: &[u8]) -> u64 {
    position_of(place(key))
}

/// The first place of a position.
pub(super) fn place_of(position: u64) -> u64 {
    position << 16
}

impl Table {
    pub(super) fn new(hash: &KeyHash) -> Self {
        Self {
            directory: vec![0],
            depth: 0,
            segments: vec![Segment::new(hash, 0)],
            live: 0,
            hash: hash.clone(),
            digest: None,
            floor: Version::ZERO,
            settled: Settled::default(),
        }
    }

    fn slot_of(&self, place: u64) -> usize {
        if self.depth == 0 { 0 } else { (place >> (u64::BITS - u32::from(self.depth))) as usize }
    }

    /// The segment of `key`, and its place where something needs that.
    fn find(&self, key: Key<'_>) -> (usize, Option<u64>) {
        if self.depth == 0 && self.digest.is_none() {
            return (0, None);
        }
        let place = place(key.bytes);
        (usize::from(self.directory[self.slot_of(place)]), Some(place))
    }

    fn segment_of(&self, key: Key<'_>) -> usize {
        if self.depth == 0 { 0 } else { self.find(key).0 }
    }

    pub(super) fn segment(&self, index: usize) -> Option<&Segment> {
        self.segments.get(index)
    }

    pub(super) fn segment_mut(&mut self, index: usize) -> Option<&mut Segment> {
        self.segments.get_mut(index)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Asks for the memory where the search for `key` begins.
    pub(super) fn prefetch_line(&self, key: Key<'_>) {
        self.segments[self.segment_of(key)].live().prefetch_line(key.hash);
    }

    /// Asks for the entry under `key`, if the search would find it where it begins.
    pub(super) fn prefetch_entry(&self, key: Key<'_>) {
        self.segments[self.segment_of(key)].live().prefetch_entry(key);
    }

    /// Where the live entry under `key` lies, expired or not: its segment, and its place there.
    pub(super) fn locate(&self, key: Key<'_>) -> Option<(usize, usize)> {
        let segment = self.segment_of(key);
        Some((segment, self.segments[segment].live().find(key)?))
    }

    /// The live entry at a location.
    pub(super) fn at(&self, (segment, place): (usize, usize)) -> Option<PackedRef<'_>> {
        self.segments.get(segment)?.live().get(place)
    }

    /// Notes a use of the entry at a location; whether that is news.
    pub(super) fn touch(&mut self, (segment, place): (usize, usize), used: Stamp) -> bool {
        self.segments[segment].touch(place, used)
    }

    /// Notes that the entry at a location was read as an item; whether it had been before.
    pub(super) fn note_hit(&mut self, (segment, place): (usize, usize)) -> bool {
        self.segments[segment].note_hit(place)
    }

    /// The live entry under `key`, expired or not.
    pub(super) fn peek(&self, key: Key<'_>) -> Option<PackedRef<'_>> {
        self.segments[self.segment_of(key)].peek(key)
    }

    /// Whatever is under `key`, tombstones included.
    pub(super) fn entry(&self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let segment = &self.segments[self.segment_of(key)];
        match segment.peek(key) {
            Some(live) => Some(live.entry()),
            None => segment.buried(key).map(|version| EntryRef { version, body: BodyRef::Tombstone }),
        }
    }

    /// The version of whatever is under `key`.
    pub(super) fn version(&self, key: Key<'_>) -> Option<Version> {
        let segment = &self.segments[self.segment_of(key)];
        segment.peek(key).map(PackedRef::version).or_else(|| segment.buried(key))
    }

    /// Stores a value under the version `stamp` makes of the present one.
    pub(super) fn put(
        &mut self,
        key: Key<'_>,
        used: Stamp,
        body: ContentBody<'_>,
        stamp: impl FnOnce(Version) -> Version,
        tally: &mut Tally,
    ) -> Put {
        let (segment, place) = self.find(key);
        let put = self.change(segment, tally, |s| s.put(key, used, body, stamp));
        self.note(place, put.old, Some(put.version));
        self.written(put.version);
        self.split_if_large(segment, key, tally);
        put
    }

    /// Changes version and deadline of a live entry.
    pub(super) fn restamp(&mut self, key: Key<'_>, version: Version, deadline: Option<UnixMs>, tally: &mut Tally) {
        let (segment, place) = self.find(key);
        let Some(old) = self.segments[segment].peek(key).map(PackedRef::version) else { return };
        self.change(segment, tally, |s| s.restamp(key, version, deadline));
        self.note(place, Some(old), Some(version));
        self.written(version);
    }

    /// Puts a tombstone in the place of whatever `key` held.
    pub(super) fn bury(&mut self, key: Key<'_>, version: Version, tally: &mut Tally) {
        let (segment, place) = self.find(key);
        let old = self.change(segment, tally, |s| s.bury(key, version));
        self.note(place, old, Some(version));
        self.written(version);
        self.split_if_large(segment, key, tally);
    }

    fn written(&mut self, version: Version) {
        self.settled.newest = self.settled.newest.max(version);
    }

    /// Drops whatever `key` held.
    pub(super) fn forget(&mut self, key: Key<'_>, tally: &mut Tally) {
        let (segment, place) = self.find(key);
        let old = self.change(segment, tally, |s| s.forget(key));
        self.note(place, old, None);
    }

    /// Evicts the entry at a location.
    pub(super) fn evict(&mut self, (segment, place): (usize, usize), tally: &mut Tally, gone: impl FnOnce(&[u8])) {
        let evicted = self.change(segment, tally, |s| s.remove(place));
        if let Some(packed) = evicted {
            let version = packed.get().version();
            gone(packed.get().key());
            self.forget_in_digest(packed.get());
            self.settled.evicted = self.settled.evicted.max(version);
            self.settled.guard = self.settled.guard.max(version);
        }
    }

    /// Removes up to `limit` of what has expired in a segment; `late` is told which, and by how many ms. If `keep`, what others may not have
    /// yet leaves a tombstone. How many.
    pub(super) fn sweep(
        &mut self,
        segment: usize,
        (now, limit, keep): (UnixMs, usize, bool),
        tally: &mut Tally,
        mut late: impl FnMut(&[u8], u64),
    ) -> usize {
        let expired = self.change(segment, tally, |s| s.sweep(now, limit));
        for packed in &expired {
            let entry = packed.get();
            late(entry.key(), entry.deadline().map_or(0, |deadline| now - deadline));
            if keep && entry.version() > self.settled.up_to {
                let key = self.hash.of(entry.key());
                self.change(segment, tally, |s| s.bury(key, entry.version()));
            } else {
                self.forget_in_digest(entry);
            }
        }
        expired.len()
    }

    /// Drops up to `limit` of the tombstones that are settled; how many.
    pub(super) fn collect(&mut self, limit: usize, tally: &mut Tally) -> usize {
        let up_to = self.settled.up_to;
        #[cfg(feature = "sim")]
        let early = crate::base::plant::Plant::EarlyTombstone.is_sown();
        #[cfg(feature = "sim")]
        let up_to = if early { Version { time: u64::MAX, origin: u32::MAX } } else { up_to };
        let mut collected = 0;
        for segment in 0..self.segments.len() {
            let tombstones = self.change(segment, tally, |s| s.collect(up_to, limit - collected));
            collected += tombstones.len();
            for tombstone in &tombstones {
                self.forget_in_digest(tombstone.get());
            }
            if collected == limit {
                return collected;
            }
        }
        self.settled.collects = false;
        collected
    }

    /// Up to `limit` keys (more when several share a place) from place `from` to `last`.
    pub(super) fn page(&self, from: u64, last: u64, limit: usize) -> Page<'_> {
        let mut held: Vec<Held<'_>> = Vec::new();
        let mut at = self.slot_of(from);
        let end = self.slot_of(last);
        while at <= end {
            let segment = &self.segments[usize::from(self.directory[at])];
            let start = held.len();
            let live = segment.iter().map(|packed| (packed, true));
            let buried = segment.iter_buried().map(|packed| (packed, false));
            held.extend(live.chain(buried).filter_map(|(packed, live)| {
                let place = place(packed.key());
                (from..=last).contains(&place).then_some(Held { place, packed, live })
            }));
            held[start..].sort_unstable_by_key(|held| held.place);
            at = ((at >> (self.depth - segment.depth)) + 1) << (self.depth - segment.depth);
            if held.len() > limit {
                // Keys of one position stay together: on the next page, or on this one when they are all of it.
                let position = position_of(held[limit].place);
                let cut = held.partition_point(|held| position_of(held.place) < position);
                let cut = if cut == 0 { held.partition_point(|held| position_of(held.place) <= position) } else { cut };
                let next =
                    held.get(cut).map(|held| place_of(position_of(held.place))).or_else(|| self.first_of(at, end));
                held.truncate(cut);
                return Page { held, next };
            }
            if held.len() == limit {
                return Page { held, next: self.first_of(at, end) };
            }
        }
        Page { held, next: None }
    }

    /// The segments that hold places from `from` on, in order, each with the first and the last place that it holds.
    pub(super) fn segments_from(&self, from: u64) -> impl Iterator<Item = (&Segment, u64, u64)> {
        let end = self.directory.len() - 1;
        let mut at = self.slot_of(from);
        std::iter::from_fn(move || {
            let segment = &self.segments[usize::from(*self.directory.get(at)?)];
            let run = 1usize << (self.depth - segment.depth);
            let first = self.first_of(at / run * run, end).unwrap_or(0);
            at = (at / run + 1) * run;
            Some((segment, first, self.first_of(at, end).map_or(u64::MAX, |next| next - 1)))
        })
    }

    /// The first place of a directory entry, if it is not past `end`.
    fn first_of(&self, at: usize, end: usize) -> Option<u64> {
        (at <= end).then(|| (at as u64).checked_shl(u64::BITS - u32::from(self.depth)).unwrap_or(0))
    }

    /// The digest, built now if it is not kept yet.
    pub(super) fn digest(&mut self) -> &Digest {
        if self.digest.is_none() {
            self.digest = Some(Box::new(self.digest_from_scratch()));
        }
        self.digest.as_deref().expect("just made")
    }

    pub(super) fn has_digest(&self) -> bool {
        self.digest.is_some()
    }

    pub(super) fn drop_digest(&mut self) {
        self.digest = None;
    }

    /// The digest as the contents have it.
    pub(super) fn digest_from_scratch(&self) -> Digest {
        let mut digest = Digest::default();
        for segment in &self.segments {
            for packed in segment.iter().chain(segment.iter_buried()) {
                digest.change(place(packed.key()), None, Some(packed.version()));
            }
        }
        digest
    }

    /// Empties the table; its segments are the caller's to take apart.
    pub(super) fn take_segments(&mut self) -> Vec<Segment> {
        self.directory = vec![0];
        self.depth = 0;
        self.live = 0;
        if let Some(digest) = &mut self.digest {
            **digest = Digest::default();
        }
        std::mem::replace(&mut self.segments, vec![Segment::new(&self.hash, 0)])
    }

    fn change<R>(&mut self, segment: usize, tally: &mut Tally, change: impl FnOnce(&mut Segment) -> R) -> R {
        let segment = &mut self.segments[segment];
        let before = segment.tally();
        let result = change(segment);
        let after = segment.tally();
        self.live = self.live - before.live + after.live;
        tally.update(before, after);
        result
    }

    fn note(&mut self, place: Option<u64>, from: Option<Version>, to: Option<Version>) {
        if let (Some(digest), Some(place)) = (&mut self.digest, place) {
            digest.change(place, from, to);
        }
    }

    fn forget_in_digest(&mut self, entry: PackedRef<'_>) {
        if self.digest.is_some() {
            self.note(Some(place(entry.key())), Some(entry.version()), None);
        }
    }

    /// Splits the segment of `key` when it is full.
    fn split_if_large(&mut self, index: usize, key: Key<'_>, tally: &mut Tally) {
        let segment = &mut self.segments[index];
        let depth = segment.depth;
        if segment.len() + segment.buried_len() <= SEGMENT_KEYS_MAX || depth == DEPTH_MAX {
            return;
        }
        let before = segment.tally();
        let high = segment.split(place);
        tally.update(before, segment.tally());
        tally.update(Tally::default(), high.tally());
        let new = u16::try_from(self.segments.len()).expect("a directory of 16 bits has at most 65536 segments");
        self.segments.push(high);
        if depth == self.depth {
            self.directory = self.directory.iter().flat_map(|id| [*id, *id]).collect();
            self.depth += 1;
        }
        // The segment's entries in the directory are a run; the upper half of it has the next bit set.
        let run = 1usize << (self.depth - depth);
        let first = self.slot_of(place(key.bytes)) / run * run;
        self.directory[first + run / 2..first + run].fill(new);
    }
}
