//! What nodes tell each other of one partition: its keys by pages, and what replicas compare. Golden bytes in `golden.rs`.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Key;
use crate::base::hlc::Version;

/// A page of one partition's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<'a> {
    /// Partition number.
    pub partition: u16,
    /// In order of position.
    #[serde(borrow)]
    pub keys: Vec<Key<'a>>,
    /// Where to go on, if there is more.
    pub next: Option<u64>,
}

/// What replicas of a partition compare first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDigest {
    /// Over keys and versions.
    pub digest: u64,
    /// Everything up to here was flushed.
    pub floor: Version,
    /// Everything up to here is here, and dead if it is not.
    pub settled: Version,
    /// What is not here up to here may have been evicted. Not compared: each replica evicts what it will.
    pub evicted: Version,
}

/// Bytes of a sum of something, or of the print of an entry, as replicas tell each other.
pub const SUM_BYTES: usize = 6;

/// A hash as it travels.
pub fn shortened(hash: u64) -> [u8; SUM_BYTES] {
    std::array::from_fn(|n| hash.to_le_bytes()[n])
}

/// One sum for each `width` partitions of these, in order; the last may have fewer. Equal, it says that all of their digests are.
pub fn roots(digests: &[(u16, PartitionDigest)], width: usize, salt: u32) -> Vec<u8> {
    let root = |group: &[(u16, PartitionDigest)]| {
        let compared = |(at, digest): &(u16, PartitionDigest)| (*at, digest.digest, digest.floor, digest.settled);
        let bytes = super::encode_payload(&group.iter().map(compared).collect::<Vec<_>>());
        shortened(xxh3_64_with_seed(&bytes, u64::from(salt)))
    };
    digests.chunks(width.max(1)).flat_map(root).collect()
}

/// The numbers of those sums that differ, of as many as both sides have, and how many these are.
pub fn apart(ours: &[u8], theirs: &[u8]) -> (usize, Vec<u32>) {
    let pairs = ours.as_chunks::<SUM_BYTES>().0.iter().zip(theirs.as_chunks::<SUM_BYTES>().0);
    let compared = pairs.len();
    (compared, (0..).zip(pairs).filter(|(_, (ours, theirs))| ours != theirs).map(|(n, _)| n).collect())
}

/// What of a partition is compared, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Chosen by who asks, another in each comparison, so that what looks equal by accident does so once.
    pub salt: u32,
    /// Only what is newer counts; [`Version::ZERO`] is all.
    pub above: Version,
}

/// One side's digests of partitions, many in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots<'a> {
    /// A bit each.
    #[serde(borrow, with = "serde_bytes")]
    pub partitions: &'a [u8],
    /// As in [`Digests`].
    pub recent: bool,
    /// As in [`Scope`].
    pub salt: u32,
    /// How many partitions are in one sum.
    pub width: u16,
    /// [`SUM_BYTES`] each.
    #[serde(borrow, with = "serde_bytes")]
    pub sums: &'a [u8],
}

/// Whose digests are asked for. Until the next such question of the same node, none of these partitions is compared with anybody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests<'a> {
    /// Who asks.
    pub node: &'a str,
    /// A bit each; none to say that the comparison is over.
    #[serde(borrow, with = "serde_bytes")]
    pub partitions: &'a [u8],
    /// Whoever asks drops keys for want of memory: the digest of what holds nothing newer than it is settled up to is 0.
    pub recent: bool,
}

/// One side's sums over ranges of a partition's places: over all those whose first `depth` bits are one of `ranges`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumsOf<'a> {
    /// Partition number.
    pub partition: u16,
    /// What counts.
    pub scope: Scope,
    /// Bits of a place that choose a range.
    pub depth: u8,
    /// Rising.
    pub ranges: Vec<u32>,
    /// [`SUM_BYTES`] each, for the first of the ranges or all.
    #[serde(borrow, with = "serde_bytes")]
    pub sums: &'a [u8],
}

/// Prints of what one side has in ranges of a partition's places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrintsOf<'a> {
    /// Partition number.
    pub partition: u16,
    /// What counts.
    pub scope: Scope,
    /// Bits of a place that choose a range.
    pub depth: u8,
    /// Rising.
    pub ranges: Vec<u32>,
    /// The first place that is meant.
    pub from: u64,
    /// The first after it that is not.
    pub to: Option<u64>,
    /// [`SUM_BYTES`] for each entry.
    #[serde(borrow, with = "serde_bytes")]
    pub prints: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_tell_which_groups_of_partitions_differ() {
        let zero = Version::ZERO;
        let digest = |digest| PartitionDigest { digest, floor: zero, settled: zero, evicted: zero };
        let ours: Vec<_> = (0..10).map(|n| (n, digest(u64::from(n)))).collect();
        let mut theirs = ours.clone();
        assert_eq!(apart(&roots(&ours, 4, 1), &roots(&theirs, 4, 1)), (3, vec![]));
        theirs[9].1.digest = 0;
        assert_eq!(apart(&roots(&ours, 4, 1), &roots(&theirs, 4, 1)), (3, vec![2]));
        theirs[0].1.evicted.time = 1;
        theirs[4].1.settled.time = 1;
        assert_eq!(apart(&roots(&ours, 4, 1), &roots(&theirs, 4, 1)), (3, vec![1, 2]));
        theirs[0].0 = 11;
        assert_eq!(apart(&roots(&ours, 100, 1), &roots(&theirs, 100, 1)), (1, vec![0]));
        assert_ne!(roots(&ours, 4, 1), roots(&ours, 4, 2));
    }

    #[test]
    fn only_what_both_sides_have_is_compared() {
        let sums = |numbers: &[u64]| numbers.iter().flat_map(|n| shortened(*n)).collect::<Vec<u8>>();
        assert_eq!(apart(&sums(&[1, 2, 3]), &sums(&[1, 3])), (2, vec![1]));
        assert_eq!(apart(&sums(&[1]), &[]), (0, vec![]));
    }
}
