//! What a store says of a partition to a replica that compares itself with it: sums over ranges of places, then, where they differ, a short
//! print of each entry. Never decides what to look at, which `walk` does. Tested in `tests/compare.rs`.
//!
//! Sums and prints are shortened under a salt that is another one in each comparison: what looks equal by accident, once in 2^48 times, does
//! not the next time.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::digest::{self, LEAF_BITS, LEAVES, place};
use super::packed::PackedRef;
use super::ranges::Ranges;
use super::segment::Segment;
use super::store::Store;
use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::SYNC_ENTRIES_PER_FRAME;
use crate::base::slot::Partition;
use crate::protocol::native::{SUM_BYTES, Scope};

/// Entries that answering one question looks at, or one segment more: a millisecond or two.
const LOOKED_MAX: usize = 8_000;

/// Sums of ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// [`SUM_BYTES`] for each of the ranges, from the first on: at least one, and as many as are summed up in one go.
    pub sums: Vec<u8>,
    /// About how many entries are in these.
    pub entries: usize,
}

/// A page of what one side has in some ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// Keys (live, expired or deleted) and their versions, in an order all nodes share.
    pub entries: Vec<(Bytes, Version)>,
    /// [`SUM_BYTES`] for each.
    pub prints: Vec<u8>,
    /// The first place that is not on this page; `None` when this was the last.
    pub end: Option<u64>,
}

/// How one side differs from a page of the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmatched {
    /// Keys and versions that the page does not have.
    pub entries: Vec<(Bytes, Version)>,
    /// Numbers of prints on the page that are not here.
    pub lacking: Vec<u32>,
    /// The first place that was not looked at any more; `None` when there is nothing beyond.
    pub end: Option<u64>,
}

/// A key of which two sides have different versions, `None` where it is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The key.
    pub key: Bytes,
    /// On the side that asked.
    pub ours: Option<Version>,
    /// On the other.
    pub theirs: Option<Version>,
}

/// Entries in some ranges, by place.
struct Listed<'t> {
    entries: Vec<(u64, PackedRef<'t>)>,
    end: Option<u64>,
}

impl Store {
    /// Sums over what is in these ranges. Where it takes no look at the entries, because the digest is kept that far, tombstones and expired
    /// values that are settled count until they are dropped.
    pub fn sums(&mut self, partition: Partition, scope: Scope, ranges: &Ranges, now: UnixMs) -> Sums {
        if scope.above == Version::ZERO && u32::from(ranges.depth()) <= LEAF_BITS {
            return self.sums_of_leaves(partition, scope, ranges);
        }
        let mut sums = vec![0u64; ranges.count()];
        let (mut entries, mut looked, mut summed) = (0, 0, 0);
        for (segment, first, last) in self.table(partition).segments_from(0) {
            if ranges.touch(first, last) {
                looked += segment.len() + segment.buried_len();
                for (place, entry) in self.counting(partition, segment, scope, now) {
                    if let Some(range) = ranges.find(place) {
                        sums[range] = sums[range].wrapping_add(digest::term(place, entry.version()));
                        entries += 1;
                    }
                }
            }
            summed = ranges.ended_by(last);
            if summed == sums.len() || looked >= LOOKED_MAX && summed > 0 {
                break;
            }
        }
        let sums = sums[..summed].iter().flat_map(|sum| digest::short(*sum, scope.salt));
        Sums { sums: sums.collect(), entries }
    }

    fn sums_of_leaves(&mut self, partition: Partition, scope: Scope, ranges: &Ranges) -> Sums {
        let table = self.table_mut(partition);
        let all: usize = table.segments().iter().map(|segment| segment.len() + segment.buried_len()).sum();
        let width = LEAVES >> ranges.depth();
        let leaves = table.digest().leaves();
        let sum = |number: &u32| {
            let first = *number as usize * width;
            leaves[first..first + width].iter().fold(0u64, |sum, leaf| sum.wrapping_add(*leaf))
        };
        let sums = ranges.numbers().iter().flat_map(|number| digest::short(sum(number), scope.salt));
        Sums { sums: sums.collect(), entries: (all * ranges.count()) >> ranges.depth() }
    }

    /// A page of what is in these ranges from place `from` on.
    pub fn prints(&self, partition: Partition, scope: Scope, ranges: &Ranges, from: u64, now: UnixMs) -> Printed {
        let Listed { entries, end } = self.listed(partition, scope, ranges, (from, None), now);
        let prints = entries.iter().flat_map(|(place, entry)| digest::print(*place, entry.version(), scope.salt));
        Printed {
            prints: prints.collect(),
            entries: entries.iter().map(|(_, entry)| (Bytes::copy_from_slice(entry.key()), entry.version())).collect(),
            end,
        }
    }

    /// How what is here in these ranges, from place `from` to before `to`, differs from a page of these prints.
    pub fn unmatched(
        &self,
        partition: Partition,
        scope: Scope,
        ranges: &Ranges,
        within: (u64, Option<u64>),
        prints: &[u8],
        now: UnixMs,
    ) -> Unmatched {
        let mut given: Vec<(&[u8; SUM_BYTES], u32)> = prints.as_chunks().0.iter().zip(0..).collect();
        given.sort_unstable();
        let mut lacking = vec![true; given.len()];
        let Listed { entries, end } = self.listed(partition, scope, ranges, within, now);
        let mut unmatched = Vec::new();
        for (place, entry) in entries {
            let print = digest::print(place, entry.version(), scope.salt);
            match given.binary_search_by_key(&&print, |(print, _)| print) {
                Ok(at) => lacking[given[at].1 as usize] = false,
                Err(_) => unmatched.push((Bytes::copy_from_slice(entry.key()), entry.version())),
            }
        }
        let lacking = (0..).zip(lacking).filter(|(_, lacks)| *lacks).map(|(n, _)| n).collect();
        Unmatched { entries: unmatched, lacking, end }
    }

    /// What of a segment counts: all but what is settled and dead, for that comes and goes by itself.
    fn counting<'s>(
        &'s self,
        partition: Partition,
        segment: &'s Segment,
        scope: Scope,
        now: UnixMs,
    ) -> impl Iterator<Item = (u64, PackedRef<'s>)> {
        let settled = self.table(partition).settled.up_to;
        let live = segment.iter().map(move |entry| (entry, !entry.expired(now)));
        let all = live.chain(segment.iter_buried().map(|entry| (entry, false)));
        let counts = move |(entry, lives): &(PackedRef<'s>, bool)| {
            (*lives || entry.version() > settled) && entry.version() > scope.above
        };
        all.filter(counts).map(|(entry, _)| (place(entry.key()), entry))
    }

    fn listed(
        &self,
        partition: Partition,
        scope: Scope,
        ranges: &Ranges,
        (from, to): (u64, Option<u64>),
        now: UnixMs,
    ) -> Listed<'_> {
        let mut entries = Vec::new();
        let (mut looked, mut end) = (0, to);
        let within = |place: u64| place >= from && to.is_none_or(|to| place < to) && ranges.find(place).is_some();
        for (segment, first, last) in self.table(partition).segments_from(from) {
            if to.is_some_and(|to| first >= to) {
                break;
            }
            if ranges.touch(first, last) {
                looked += segment.len() + segment.buried_len();
                let start = entries.len();
                let found = self.counting(partition, segment, scope, now);
                entries.extend(found.filter(|(place, _)| within(*place)));
                entries[start..].sort_unstable_by_key(|(place, _)| *place);
            }
            if entries.len() > SYNC_ENTRIES_PER_FRAME {
                end = Some(cut(&mut entries));
                break;
            }
            if looked >= LOOKED_MAX && last < u64::MAX && to.is_none_or(|to| last + 1 < to) {
                end = Some(last + 1);
                break;
            }
        }
        Listed { entries, end }
    }
}

/// Ends a page that is too long; the place where the next begins. Keys of one place stay together.
fn cut(entries: &mut Vec<(u64, PackedRef<'_>)>) -> u64 {
    let place = entries[SYNC_ENTRIES_PER_FRAME].0;
    let before = entries.partition_point(|(at, _)| *at < place);
    if before > 0 {
        entries.truncate(before);
        return place;
    }
    let through = entries.partition_point(|(at, _)| *at <= place);
    entries.truncate(through);
    // Only keys made to collide come here; after the last place there is none.
    place.saturating_add(1)
}

/// The keys that differ between a page and what the other side found about it.
pub fn pair(page: &Printed, found: Unmatched) -> Vec<Differing> {
    let mut all: BTreeMap<Bytes, (Option<Version>, Option<Version>)> = BTreeMap::new();
    let answered = |key: &[u8]| found.end.is_none_or(|end| place(key) < end);
    for (key, ours) in found.lacking.iter().filter_map(|n| page.entries.get(*n as usize)) {
        if answered(key) {
            all.insert(key.clone(), (Some(*ours), None));
        }
    }
    for (key, theirs) in found.entries {
        all.entry(key).or_default().1 = Some(theirs);
    }
    let apart = all.into_iter().filter(|(_, (ours, theirs))| ours != theirs);
    apart.map(|(key, (ours, theirs))| Differing { key, ours, theirs }).collect()
}
