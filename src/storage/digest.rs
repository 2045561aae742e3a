//! A digest of one partition: which versions of which keys it holds, kept up to date in constant time per change. Equal digests mean equal
//! contents (up to a 64-bit collision). Live, expired and deleted keys count alike, by key and version alone, so that it does not matter
//! which replica has swept what. Never looks at a table. Tested below.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::base::hlc::Version;
use crate::protocol::native::{SUM_BYTES, shortened};

/// Leaves of a partition's digest: a difference is narrowed down to this part of a partition before keys are compared.
pub(super) const LEAVES: usize = 64;
/// Bits of a [`place`] that choose the leaf.
pub(super) const LEAF_BITS: u32 = LEAVES.trailing_zeros();

/// Where a key stands in the stable order of its partition, equal on every node: segments, pages of a scan and leaves are ranges of it.
pub(super) fn place(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The leaf a key at `place` counts towards.
pub(super) fn leaf_of(place: u64) -> usize {
    (place >> (u64::BITS - LEAF_BITS)) as usize
}

/// The digest of a whole partition, as replicas compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionDigest {
    /// Sum over all keys, tombstones included.
    pub sum: u64,
    /// Everything at or below this version is dead.
    pub floor: Version,
}

/// A partition's leaves: of each the wrapping sum of a hash of every key and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest([u64; LEAVES]);

impl Default for Digest {
    fn default() -> Self {
        Self([0; LEAVES])
    }
}

impl Digest {
    /// Notes that the key at `place` went from one version to another; `None` is absence.
    pub(super) fn change(&mut self, place: u64, from: Option<Version>, to: Option<Version>) {
        let term = |version: Option<Version>| version.map_or(0, |version| term(place, version));
        let leaf = &mut self.0[leaf_of(place)];
        *leaf = leaf.wrapping_sub(term(from)).wrapping_add(term(to));
    }

    /// The leaves in order.
    pub(super) fn leaves(&self) -> &[u64; LEAVES] {
        &self.0
    }

    /// All leaves in one.
    pub(super) fn root(&self, floor: Version) -> PartitionDigest {
        PartitionDigest { sum: self.0.iter().fold(0, |sum: u64, leaf| sum.wrapping_add(*leaf)), floor }
    }
}

fn bytes_of(place: u64, version: Version) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&place.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.time.to_le_bytes());
    bytes[16..].copy_from_slice(&version.origin.to_le_bytes());
    bytes
}

/// One key's part in the sum. The key enters by its 64-bit hash, which the caller has anyway.
pub(super) fn term(place: u64, version: Version) -> u64 {
    xxh3_64(&bytes_of(place, version))
}

/// The key at `place` and its version, in a few bytes.
pub(super) fn print(place: u64, version: Version, salt: u32) -> [u8; SUM_BYTES] {
    shortened(xxh3_64_with_seed(&bytes_of(place, version), u64::from(salt)))
}

/// A sum of terms in as many bytes.
pub(super) fn short(sum: u64, salt: u32) -> [u8; SUM_BYTES] {
    shortened(xxh3_64_with_seed(&sum.to_le_bytes(), u64::from(salt)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_cancel_out_in_any_order() {
        let version = |time| Some(Version { time, origin: 1 });
        let (mut a, mut b) = (Digest::default(), Digest::default());
        a.change(1, None, version(1));
        a.change(u64::MAX, None, version(2));
        a.change(1, version(1), version(3));
        b.change(u64::MAX, None, version(2));
        b.change(1, None, version(3));
        assert_eq!(a, b);
        b.change(1, version(3), None);
        b.change(u64::MAX, version(2), None);
        assert_eq!(b, Digest::default());
    }

    #[test]
    fn leaves_are_the_first_bits_of_places() {
        assert_eq!([0, 1 << 58, u64::MAX].map(leaf_of), [0, 1, LEAVES - 1]);
    }

    #[test]
    fn places_and_terms_never_change() {
        // Replicas of different builds compare these.
        assert_eq!(place(b"key"), 13_540_649_951_185_429_987);
        let version = Version { time: 2, origin: 3 };
        assert_eq!(term(1, version), 16_537_628_236_543_094_169);
        assert_eq!(print(1, version, 4), [33, 186, 3, 221, 187, 15]);
        assert_eq!(short(1, 4), [117, 38, 195, 115, 76, 160]);
        assert_ne!(short(1, 4), short(1, 5));
    }
}
