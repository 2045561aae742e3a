//! A value with all that a copy of it needs, as one reply carries it from a store to a router. Never stores anything. Tested below.

use std::ops::Range;

use bytes::Bytes;

use super::hlc::UnixMs;
use super::seen::Seen;

/// Bytes before the value: what was seen, the deadline and the flags, in hexadecimal digits.
const HEAD_BYTES: usize = SEEN_BYTES + 16 + 8;
const SEEN_BYTES: usize = 25;
/// No deadline.
const NEVER: UnixMs = UnixMs::MAX;

/// See the file's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// What tells whether it is still there.
    pub seen: Seen,
    /// When it ends.
    pub deadline: Option<UnixMs>,
    /// Flags of memcached clients.
    pub flags: u32,
    /// The value.
    pub value: Bytes,
}

impl Whole {
    /// As it travels; the value is copied.
    pub fn to_bytes(seen: Seen, deadline: Option<UnixMs>, flags: u32, value: &[u8]) -> Vec<u8> {
        let head = format!("{}{:016x}{flags:08x}", seen.to_text(), deadline.unwrap_or(NEVER));
        let mut bytes = Vec::with_capacity(HEAD_BYTES + value.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(value);
        bytes
    }

    /// Reads [`Self::to_bytes`]; the value is shared.
    pub fn from_bytes(bytes: &Bytes) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES)?;
        let digits = |range: Range<usize>| std::str::from_utf8(head.get(range)?).ok();
        let number = |range| u64::from_str_radix(digits(range)?, 16).ok();
        let deadline = number(SEEN_BYTES..SEEN_BYTES + 16)?;
        Some(Self {
            seen: Seen::from_text(&head[..SEEN_BYTES])?,
            deadline: (deadline != NEVER).then_some(deadline),
            flags: u32::try_from(number(SEEN_BYTES + 16..HEAD_BYTES)?).ok()?,
            value: bytes.slice(HEAD_BYTES..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_nothing_shorter_does() {
        let seen = Seen { time: 5, origin: 7, live: true };
        for (deadline, flags, value) in [(None, 0, &b""[..]), (Some(1_700_000_000_000), u32::MAX, b"a\r\n\0b")] {
            let bytes = Bytes::from(Whole::to_bytes(seen, deadline, flags, value));
            let whole = Whole { seen, deadline, flags, value: Bytes::copy_from_slice(value) };
            assert_eq!(Whole::from_bytes(&bytes), Some(whole));
            assert_eq!(Whole::from_bytes(&bytes.slice(..HEAD_BYTES - 1)), None);
        }
    }
}
