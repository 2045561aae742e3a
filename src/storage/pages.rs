//! Keys of a partition by pages, for scans, and its digest. Never changes anything. Tested in `tests/replicas.rs`.

use bytes::Bytes;

use super::digest::PartitionDigest;
use super::packed::PackedRef;
use super::segment::Segment;
use super::store::Store;
use super::table::{Table, place_of, position_of};
use crate::base::glob;
use crate::base::hlc::UnixMs;
use crate::base::slot::Partition;

/// A page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// Those that match.
    pub keys: Vec<Bytes>,
    /// Where the next page starts, below 2^48; `None` when this was the last.
    pub next: Option<u64>,
}

/// Fewest keys a scan page looks at: a page costs a walk over a segment, whatever it returns.
const SCAN_KEYS_MIN: usize = 128;

impl Store {
    // ---- pages of keys ----

    /// Keys of a partition from `position` on (0 starts) that match `pattern`, about `count` looked at. A key that is there from the first page
    /// to the last is returned, whatever else comes and goes.
    pub fn scan(
        &self,
        partition: Partition,
        position: u64,
        count: usize,
        pattern: Option<&[u8]>,
        now: UnixMs,
    ) -> KeyPage {
        let page = self.table(partition).page(place_of(position), u64::MAX, count.max(SCAN_KEYS_MIN));
        let live = page.held.iter().filter(|held| held.live && !held.packed.expired(now));
        let keys = live.map(|held| held.packed.key()).filter(|key| pattern.is_none_or(|p| glob::matches(p, key)));
        KeyPage { keys: keys.map(Bytes::copy_from_slice).collect(), next: page.next.map(position_of) }
    }

    /// Appends every key of a partition that matches.
    pub fn keys(&self, partition: Partition, pattern: &[u8], now: UnixMs, out: &mut Vec<Bytes>) {
        for segment in self.table(partition).segments() {
            let live = segment.iter().filter(|live| !live.expired(now)).map(PackedRef::key);
            out.extend(live.filter(|key| glob::matches(pattern, key)).map(Bytes::copy_from_slice));
        }
    }

    /// The live key of `among` that a random `draw` chooses, each with about the same chance; `None` when there is none.
    pub fn random_key(&self, among: impl Fn(Partition) -> bool, draw: u64, now: UnixMs) -> Option<Bytes> {
        let tables = self.partitions().filter(|p| among(*p)).map(|p| self.table(p));
        let segments: Vec<&Segment> = tables.flat_map(Table::segments).filter(|s| s.len() > 0).collect();
        let live: usize = segments.iter().map(|segment| segment.len()).sum();
        let mut nth = (draw % (live as u64).max(1)) as usize;
        let start = segments.iter().position(|segment| {
            let here = nth < segment.len();
            nth -= if here { 0 } else { segment.len() };
            here
        })?;
        // On from there past what has expired, once around.
        let around = segments[start..].iter().chain(&segments[..=start]);
        let mut keys = around.flat_map(|segment| segment.iter()).skip(nth).filter(|live| !live.expired(now));
        keys.next().map(|live| Bytes::copy_from_slice(live.key()))
    }

    // ---- synchronisation ----

    /// The digest of a partition; built on the first call after [`Store::set_replicated`], kept up to date from then on.
    pub fn partition_digest(&mut self, partition: Partition) -> PartitionDigest {
        let table = self.table_mut(partition);
        let floor = table.floor;
        table.digest().root(floor)
    }
}
