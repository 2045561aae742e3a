//! One partition: segments found by extendible hashing on a key's place, its digest, and the floor below which everything is dead. Never
//! decides which version wins. Tested below and in `tests`.
//!
//! Segments split in two before they grow past [`SEGMENT_KEYS_MAX`] (Fagin et al., "Extendible Hashing", 1979), so that no walk and no
//! rehash covers more, however many keys share a hash tag. A partition of usual size has one segment, and finding it costs nothing.

use super::digest::{Digest, place};
use super::packed::{ContentBody, Packed};
use super::segment::{KeyHash, Segment, Tally, View};
use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::{UnixMs, Version};

/// A segment with more keys than this splits: as many as 4096 buckets hold. Splitting takes well under a millisecond.
const SEGMENT_KEYS_MAX: usize = 3_584;
/// Leading bits of a place a directory may use; beyond it (keys made to collide) segments grow instead.
const DEPTH_MAX: u8 = 16;

/// See the file's head.
pub(super) struct Table {
    /// Segment by the first `depth` bits of a place.
    directory: Vec<u16>,
    depth: u8,
    segments: Vec<Segment>,
    hash: KeyHash,
    /// Kept only while others hold copies, and built when first asked for.
    digest: Option<Box<Digest>>,
    /// Everything at or below is dead, and ignored when it comes late.
    pub(super) floor: Version,
}

/// A key of a page and what is under it.
pub(super) struct Held<'t> {
    pub(super) place: u64,
    pub(super) packed: &'t Packed,
    /// `None` for a tombstone.
    pub(super) view: Option<View<'t>>,
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
            hash: hash.clone(),
            digest: None,
            floor: Version::ZERO,
        }
    }

    fn slot_of(&self, place: u64) -> usize {
        if self.depth == 0 { 0 } else { (place >> (u64::BITS - u32::from(self.depth))) as usize }
    }

    /// The segment of `key`, and its place where something needs that.
    fn find(&self, key: &[u8]) -> (usize, Option<u64>) {
        if self.depth == 0 && self.digest.is_none() {
            return (0, None);
        }
        let place = place(key);
        (usize::from(self.directory[self.slot_of(place)]), Some(place))
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
        self.segments.iter().map(Segment::len).sum()
    }

    /// The live entry under `key`, expired or not.
    pub(super) fn peek(&self, key: &[u8]) -> Option<View<'_>> {
        self.segments[self.find(key).0].peek(key)
    }

    /// As `peek`, and the entry counts as used at `used`.
    pub(super) fn touch(&mut self, key: &[u8], used: u32) -> Option<View<'_>> {
        let (segment, _) = self.find(key);
        self.segments[segment].touch(key, used)
    }

    /// Whatever is under `key`, tombstones included.
    pub(super) fn entry(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let segment = &self.segments[self.find(key).0];
        match segment.peek(key) {
            Some(view) => Some(view.entry()),
            None => segment.buried(key).map(|version| EntryRef { version, body: BodyRef::Tombstone }),
        }
    }

    /// The version of whatever is under `key`.
    pub(super) fn version(&self, key: &[u8]) -> Option<Version> {
        let segment = &self.segments[self.find(key).0];
        segment.peek(key).map(|view| view.version()).or_else(|| segment.buried(key))
    }

    /// Stores a value under the version `stamp` makes of the present one. Answers that version and the segment.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        used: (u32, bool),
        body: ContentBody<'_>,
        stamp: impl FnOnce(Version) -> Version,
        tally: &mut Tally,
    ) -> (Version, usize) {
        let (segment, place) = self.find(key);
        let (old, version) = self.change(segment, tally, |s| s.put(key, used, body, stamp));
        self.note(place, old, Some(version));
        (version, self.split_if_large(segment, key, tally))
    }

    /// Changes version and deadline of a live entry.
    pub(super) fn restamp(&mut self, key: &[u8], version: Version, deadline: Option<UnixMs>, tally: &mut Tally) {
        let (segment, place) = self.find(key);
        let Some(old) = self.segments[segment].peek(key).map(|view| view.version()) else { return };
        self.change(segment, tally, |s| s.restamp(key, version, deadline));
        self.note(place, Some(old), Some(version));
    }

    /// Puts a tombstone in the place of whatever `key` held.
    pub(super) fn bury(&mut self, key: &[u8], version: Version, tally: &mut Tally) {
        let (segment, place) = self.find(key);
        let old = self.change(segment, tally, |s| s.bury(key, version));
        self.note(place, old, Some(version));
        self.split_if_large(segment, key, tally);
    }

    /// Drops whatever `key` held.
    pub(super) fn forget(&mut self, key: &[u8], tally: &mut Tally) {
        let (segment, place) = self.find(key);
        let old = self.change(segment, tally, |s| s.forget(key));
        self.note(place, old, None);
    }

    /// Evicts the least recently used entry of a segment.
    pub(super) fn evict(&mut self, segment: usize, tally: &mut Tally) -> bool {
        let Some(packed) = self.change(segment, tally, Segment::pop_oldest) else { return false };
        self.note_key(packed.key(), Some(packed.version()), None);
        true
    }

    /// Removes up to `limit` of what has expired in a segment, as tombstones if `keep`; `late` is told by how many ms each. How many.
    pub(super) fn sweep(
        &mut self,
        segment: usize,
        (now, limit, keep): (UnixMs, usize, bool),
        tally: &mut Tally,
        mut late: impl FnMut(u64),
    ) -> usize {
        let mut expired = Vec::new();
        self.change(segment, tally, |s| {
            s.sweep(now, limit, |packed, deadline| {
                late(now - deadline);
                expired.push((packed.key().to_vec(), packed.version()));
            });
        });
        let count = expired.len();
        for (key, version) in expired {
            if keep {
                self.change(segment, tally, |s| s.bury(&key, version));
            } else {
                self.note_key(&key, Some(version), None);
            }
        }
        count
    }

    /// Drops tombstones of versions up to `up_to`; how many.
    pub(super) fn collect(&mut self, up_to: Version, tally: &mut Tally) -> usize {
        let mut collected = 0;
        for segment in 0..self.segments.len() {
            let keys: Vec<Vec<u8>> = self.segments[segment]
                .iter_buried()
                .filter(|tombstone| tombstone.version() <= up_to)
                .map(|tombstone| tombstone.key().to_vec())
                .collect();
            collected += keys.len();
            for key in keys {
                self.forget(&key, tally);
            }
        }
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
            let live = segment.iter().map(|view| (view.packed, Some(view)));
            let buried = segment.iter_buried().map(|packed| (packed, None));
            held.extend(live.chain(buried).filter_map(|(packed, view)| {
                let place = place(packed.key());
                (from..=last).contains(&place).then_some(Held { place, packed, view })
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

    /// The first place of a directory entry, if it is not past `end`.
    fn first_of(&self, at: usize, end: usize) -> Option<u64> {
        (at <= end).then(|| (at as u64) << (u64::BITS - u32::from(self.depth)))
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
            let live = segment.iter().map(|view| view.packed);
            for packed in live.chain(segment.iter_buried()) {
                digest.change(place(packed.key()), None, Some(packed.version()));
            }
        }
        digest
    }

    /// Empties the table; its segments are the caller's to take apart.
    pub(super) fn take_segments(&mut self) -> Vec<Segment> {
        self.directory = vec![0];
        self.depth = 0;
        if let Some(digest) = &mut self.digest {
            **digest = Digest::default();
        }
        std::mem::replace(&mut self.segments, vec![Segment::new(&self.hash, 0)])
    }

    fn change<R>(&mut self, segment: usize, tally: &mut Tally, change: impl FnOnce(&mut Segment) -> R) -> R {
        let segment = &mut self.segments[segment];
        let before = segment.tally();
        let result = change(segment);
        tally.update(before, segment.tally());
        result
    }

    fn note(&mut self, place: Option<u64>, from: Option<Version>, to: Option<Version>) {
        if let (Some(digest), Some(place)) = (&mut self.digest, place) {
            digest.change(place, from, to);
        }
    }

    fn note_key(&mut self, key: &[u8], from: Option<Version>, to: Option<Version>) {
        if self.digest.is_some() {
            self.note(Some(place(key)), from, to);
        }
    }

    /// Splits the segment of `key` when it is full; the segment of `key` afterwards.
    fn split_if_large(&mut self, index: usize, key: &[u8], tally: &mut Tally) -> usize {
        let segment = &mut self.segments[index];
        let depth = segment.depth;
        if segment.len() + segment.buried_len() <= SEGMENT_KEYS_MAX || depth == DEPTH_MAX {
            return index;
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
        let first = self.slot_of(place(key)) / run * run;
        self.directory[first + run / 2..first + run].fill(new);
        self.find(key).0
    }
}
