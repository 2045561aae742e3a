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

/// Bytes taken at once: their table look-ups do not wait for each other.
const SLICE: usize = 8;

/// CRC16/XMODEM, polynomial 0x1021, eight bytes a step (Kounavis and Berry, "Novel Table Lookup-Based Algorithms for High-Performance CRC
/// Generation", 2008).
fn crc16(bytes: &[u8]) -> u16 {
    let mut slices = bytes.chunks_exact(SLICE);
    let mut crc = 0u16;
    for slice in &mut slices {
        let [high, low] = crc.to_be_bytes();
        let first = CRC16[7][usize::from(slice[0] ^ high)] ^ CRC16[6][usize::from(slice[1] ^ low)];
        crc = (2..SLICE).fold(first, |crc, n| crc ^ CRC16[SLICE - 1 - n][usize::from(slice[n])]);
    }
    let one = |crc: u16, byte: &u8| (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ byte)];
    slices.remainder().iter().fold(crc, one)
}

/// What a byte does to the sum: row `n` when `n` bytes follow it in its slice.
static CRC16: [[u16; 256]; SLICE] = {
    let mut table = [[0u16; 256]; SLICE];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[0][i] = crc;
        i += 1;
    }
    let mut row = 1;
    while row < SLICE {
        let mut i = 0;
        while i < 256 {
            let before = table[row - 1][i];
            table[row][i] = (before << 8) ^ table[0][(before >> 8) as usize];
            i += 1;
        }
        row += 1;
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
    fn keys_of_any_length_have_the_sum_their_bits_have() {
        let bit_by_bit = |bytes: &[u8]| {
            bytes.iter().fold(0u16, |crc, byte| {
                (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc >> 15 == 1 { 0x1021 } else { 0 })
            })
        };
        let bytes: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(97).wrapping_add(31)).collect();
        for len in 0..bytes.len() {
            assert_eq!(crc16(&bytes[..len]), bit_by_bit(&bytes[..len]), "{len}");
        }
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
