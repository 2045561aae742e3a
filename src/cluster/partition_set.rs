//! A set of partitions in 128 bytes. Knows nothing of who holds them. Tested below.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteArray;

use crate::base::slot::{PARTITIONS, Partition};

const WORDS: usize = PARTITIONS as usize / 64;
/// Bytes of one set on the wire: partition 0 is the lowest bit of the first byte.
pub const PARTITION_SET_BYTES: usize = PARTITIONS as usize / 8;

/// A set of partitions; one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionSet([u64; WORDS]);

impl PartitionSet {
    /// The set of none.
    pub const EMPTY: Self = Self([0; WORDS]);
    /// The set of all.
    pub const FULL: Self = Self([u64::MAX; WORDS]);

    /// Whether `partition` is in it.
    pub fn contains(&self, partition: Partition) -> bool {
        self.0[partition.index() / 64] >> (partition.index() % 64) & 1 == 1
    }

    /// Adds `partition`; true when it was not there.
    pub fn insert(&mut self, partition: Partition) -> bool {
        let new = !self.contains(partition);
        self.0[partition.index() / 64] |= 1 << (partition.index() % 64);
        new
    }

    /// Takes `partition` out; true when it was there.
    pub fn remove(&mut self, partition: Partition) -> bool {
        let old = self.contains(partition);
        self.0[partition.index() / 64] &= !(1 << (partition.index() % 64));
        old
    }

    /// How many are in it.
    pub fn count(&self) -> u16 {
        self.0.iter().map(|word| word.count_ones() as u16).sum()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Its partitions in order.
    pub fn iter(&self) -> impl Iterator<Item = Partition> + '_ {
        self.0.iter().zip(0u16..).flat_map(|(&word, at)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as u16)?;
                rest &= rest - 1;
                Some(Partition(at * 64 + bit))
            })
        })
    }

    /// Those in either.
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// Those in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// Those in this one and not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// Whether every partition of this one is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// The bytes it travels as.
    pub fn to_bytes(&self) -> [u8; PARTITION_SET_BYTES] {
        let mut bytes = [0; PARTITION_SET_BYTES];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }

    /// The set those bytes describe; any 128 bytes are a set.
    pub fn from_bytes(bytes: &[u8; PARTITION_SET_BYTES]) -> Self {
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        Self(words)
    }

    fn zip(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|i| op(self.0[i], other.0[i])))
    }
}

impl FromIterator<Partition> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = Partition>>(partitions: I) -> Self {
        let mut set = Self::EMPTY;
        for partition in partitions {
            set.insert(partition);
        }
        set
    }
}

impl fmt::Debug for PartitionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionSet({} of {PARTITIONS})", self.count())
    }
}

impl Serialize for PartitionSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for PartitionSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ByteArray::<PARTITION_SET_BYTES>::deserialize(deserializer).map(|bytes| Self::from_bytes(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(of: &BTreeSet<u16>) -> PartitionSet {
        of.iter().copied().map(Partition).collect()
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_set(a in prop::collection::btree_set(0..PARTITIONS, 0..80), b in prop::collection::btree_set(0..PARTITIONS, 0..80)) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.iter().map(|p| p.0).collect::<BTreeSet<_>>(), a.clone());
            prop_assert_eq!(usize::from(x.count()), a.len());
            prop_assert_eq!(x.union(&y), set(&(&a | &b)));
            prop_assert_eq!(x.intersection(&y), set(&(&a & &b)));
            prop_assert_eq!(x.difference(&y), set(&(&a - &b)));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            let bytes = postcard::to_stdvec(&x).unwrap();
            prop_assert_eq!(bytes.len(), 2 + PARTITION_SET_BYTES);
            prop_assert_eq!(postcard::from_bytes::<PartitionSet>(&bytes).unwrap(), x);
        }
    }

    #[test]
    fn a_set_of_another_size_is_refused() {
        for size in [0usize, 127, 129, 4096] {
            let bytes = postcard::to_stdvec(&serde_bytes::ByteBuf::from(vec![1u8; size])).unwrap();
            assert!(postcard::from_bytes::<PartitionSet>(&bytes).is_err(), "{size}");
        }
    }

    #[test]
    fn insert_and_remove_say_whether_they_changed_anything() {
        let mut set = PartitionSet::EMPTY;
        assert!(set.insert(Partition(1023)));
        assert!(!set.insert(Partition(1023)));
        assert!(set.remove(Partition(1023)));
        assert!(!set.remove(Partition(1023)));
        assert!(set.is_empty());
        assert_eq!(PartitionSet::FULL.count(), PARTITIONS);
    }
}
