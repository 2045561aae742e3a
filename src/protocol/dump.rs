//! The payload of `DUMP` and `RESTORE`: one value with its client flags, without its deadline, of our own format. Never stores anything. Tested below.
//!
//! ```text
//! 0  version, 0x54     1
//! 1  client flags      4   little endian
//! 5  value             n
//!    XXH3-64 of all the above, little endian   8
//! ```
//!
//! Redis's own payloads begin with the type of an object, all below 0x20, and end in another sum.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 0x54;
const HEAD_BYTES: usize = 5;
const SUM_BYTES: usize = 8;
/// Bytes of a payload besides the value.
pub const DUMP_BYTES: usize = HEAD_BYTES + SUM_BYTES;

/// The payload of a value.
pub fn pack(value: &[u8], flags: u32) -> Bytes {
    let mut payload = Vec::with_capacity(DUMP_BYTES + value.len());
    payload.push(VERSION);
    payload.extend_from_slice(&flags.to_le_bytes());
    payload.extend_from_slice(value);
    payload.extend_from_slice(&xxh3_64(&payload).to_le_bytes());
    payload.into()
}

/// The value and the flags in a payload; `None` if it is of another version, cut off or changed. The value shares the payload's memory.
pub fn unpack(payload: &Bytes) -> Option<(Bytes, u32)> {
    let (rest, sum) = payload.split_last_chunk::<SUM_BYTES>()?;
    let (head, _) = rest.split_first_chunk::<HEAD_BYTES>()?;
    let [VERSION, a, b, c, d] = *head else { return None };
    let intact = xxh3_64(rest) == u64::from_le_bytes(*sum);
    intact.then(|| (payload.slice(HEAD_BYTES..rest.len()), u32::from_le_bytes([a, b, c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_format_is_what_it_was() {
        let payload = pack(b"v", 7);
        assert_eq!(payload[..6], [0x54, 7, 0, 0, 0, b'v']);
        assert_eq!(payload[6..], 0x393c_3007_1dca_047c_u64.to_le_bytes());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(value: Vec<u8>, flags: u32) {
            let payload = pack(&value, flags);
            prop_assert_eq!(payload.len(), value.len() + DUMP_BYTES);
            prop_assert_eq!(unpack(&payload), Some((Bytes::from(value), flags)));
        }

        #[test]
        fn what_was_changed_or_cut_is_refused(value: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let payload = pack(&value, 0);
            let mut changed = payload.to_vec();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert_eq!(unpack(&changed.into()), None);
            prop_assert_eq!(unpack(&payload.slice(..at)), None);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(payload: Vec<u8>) {
            unpack(&payload.into());
        }
    }
}
