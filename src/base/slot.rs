//! Where a key lives in key space: slot, partition, hash tag. Knows nothing of nodes. Tested below.

use serde::{Deserialize, Serialize};

/// Slots of the Redis Cluster key space.
pub const SLOTS: u16 = 16384;
/// Partitions: the unit of placement, storage, repair and transfer.
pub const PARTITIONS: u16 = 1024;
/// Consecutive slots in one partition.
pub const SLOTS_PER_PARTITION: u16 = SLOTS / PARTITIONS;

/// CRC16 of the key or of its hash tag, modulo [`SLOTS`], as in Redis Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u16);

/// Sixteen consecutive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl Slot {
    /// The slot of `key`.
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) % SLOTS)
    }

    /// The partition this slot belongs to.
    pub fn partition(self) -> Partition {
        Partition(self.0 / SLOTS_PER_PARTITION)
    }
}

impl Partition {
    /// The partition of `key`.
    pub fn of(key: &[u8]) -> Self {
        Slot::of(key).partition()
    }

    /// As an index below [`PARTITIONS`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Every partition in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }

    /// Its first slot.
    pub fn first_slot(self) -> Slot {
        Slot(self.0 * SLOTS_PER_PARTITION)
    }
}

/// What is between the first `{` and the next `}` when that is not empty, else the whole key (Redis Cluster specification, "Hash tags").
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        Some(0) | None => key,
        Some(close) => &rest[..close],
    }
}

/// CRC16/XMODEM, polynomial 0x1021.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC16: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // CLUSTER KEYSLOT of redis-server 7.0.
        assert_eq!(Slot::of(b"foo").0, 12182);
        assert_eq!(Slot::of(b"somekey").0, 11058);
        assert_eq!(Slot::of(b"").0, 0);
    }

    #[test]
    fn a_hash_tag_alone_decides_the_slot() {
        assert_eq!(Slot::of(b"{user1}.name"), Slot::of(b"user1"));
        assert_eq!(Slot::of(b"a{user1}b{user2}"), Slot::of(b"user1"));
        assert_eq!(Slot::of(b"foo{{bar}}zap"), Slot::of(b"{bar"));
        assert_ne!(Slot::of(b"foo{}{bar}"), Slot::of(b"bar"));
        assert_ne!(Slot::of(b"foo{bar"), Slot::of(b"bar"));
    }

    #[test]
    fn every_slot_has_one_partition() {
        for p in Partition::all() {
            assert_eq!(p.first_slot().partition(), p);
        }
        assert_eq!(Slot(SLOTS - 1).partition(), Partition(PARTITIONS - 1));
    }
}
