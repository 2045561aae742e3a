//! Answers about items on their way to whoever dresses them for a client: memcached connections, HTTP, clients that know versions. Internal,
//! under [`Wire::Item`](crate::base::reply::Wire::Item). Never does I/O. Tested below and in `resp/encode/tests.rs`.
//!
//! Lines are as in RESP3: `+OK`, `_` for nothing there, `:n`, `-error`. An item is, without a line end:
//!
//! ```text
//! 0    1   I
//! 1    1   outcome
//! 2    1   bits: 1 value, 2 deadline, 4 stale, 8 promised, 16 won, 32 hit before, 64 CAS unique of its own, 128 flags
//! 3    8   version, time
//! 11   4   version, origin
//! 15   8   milliseconds since it was written
//! 23   4   length of the value, whether or not it follows
//!      8   milliseconds until the deadline, if there is one
//!      8   CAS unique, if it has its own
//!      4   flags, if not 0
//!      n   value
//! ```
//!
//! Numbers are little-endian.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::base::hlc::Version;
use crate::base::item::{ItemOutcome, ItemReply, ItemValue};
use crate::base::marks::Marks;

const ITEM: u8 = b'I';
const OUTCOMES: [ItemOutcome; 6] = [
    ItemOutcome::Done,
    ItemOutcome::Created,
    ItemOutcome::NotStored,
    ItemOutcome::Differs,
    ItemOutcome::Missing,
    ItemOutcome::NotNumber,
];

const VALUE: u8 = 1;
const DEADLINE: u8 = 2;
const STALE: u8 = 4;
const PROMISED: u8 = 8;
const WON: u8 = 16;
const HIT: u8 = 32;
const OWN_CAS: u8 = 64;
const FLAGS: u8 = 128;

/// What an operation on an item was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<'a> {
    /// Done, and nothing to tell.
    Ok,
    /// Nothing is there.
    Null,
    /// An integer.
    Int(i64),
    /// An error line, first word included.
    Error(&'a [u8]),
    /// An item.
    Item(Item<'a>),
    /// What no operation on an item is answered with.
    Strange,
}

/// An [`ItemReply`] that was read.
pub type Item<'a> = ItemReply<Content<'a>>;

/// The bytes of an item in a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Content<'a> {
    /// To be copied.
    Copied(&'a [u8]),
    /// Shared with the store, or with the frame it came in.
    Shared(Bytes),
}

impl Content<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The bytes, to be kept.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Copied(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Appends a reply up to its value.
pub(super) fn put_head(reply: &ItemReply<ItemValue<'_>>, out: &mut Vec<u8>) {
    let bit = |is_set, bit| if is_set { bit } else { 0 };
    let marks = reply.marks;
    let bits = bit(reply.value.is_some(), VALUE)
        | bit(reply.ttl_ms.is_some(), DEADLINE)
        | bit(marks.is_stale, STALE)
        | bit(marks.is_promised, PROMISED)
        | bit(reply.won, WON)
        | bit(reply.was_hit, HIT)
        | bit(marks.cas.is_some(), OWN_CAS)
        | bit(marks.flags != 0, FLAGS);
    let outcome = OUTCOMES.iter().position(|known| *known == reply.outcome).expect("all are known");
    let mut head = [0; 27];
    head[..3].copy_from_slice(&[ITEM, outcome as u8, bits]);
    head[3..11].copy_from_slice(&reply.version.time.to_le_bytes());
    head[11..15].copy_from_slice(&reply.version.origin.to_le_bytes());
    head[15..23].copy_from_slice(&reply.age_ms.to_le_bytes());
    head[23..].copy_from_slice(&reply.len.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend(reply.ttl_ms.into_iter().flat_map(u64::to_le_bytes));
    out.extend(marks.cas.into_iter().flat_map(|cas| cas.get().to_le_bytes()));
    if marks.flags != 0 {
        out.extend_from_slice(&marks.flags.to_le_bytes());
    }
}

/// Reads an encoded reply that a frame brought whole.
pub fn read_shared(encoded: &Bytes) -> Answer<'_> {
    read(encoded, |at| Content::Shared(encoded.slice(at..)))
}

/// Reads an encoded reply up to the value of an item, and says how many bytes that took. `rest` makes the value of what follows.
pub(super) fn read<'a>(encoded: &'a [u8], rest: impl FnOnce(usize) -> Content<'a>) -> Answer<'a> {
    let line = |text: &'a [u8]| text.strip_suffix(b"\r\n").unwrap_or(text);
    match encoded {
        [ITEM, head @ ..] => read_item(head, rest).map_or(Answer::Strange, Answer::Item),
        [b'+', ..] => Answer::Ok,
        [b'_', ..] => Answer::Null,
        [b'-', text @ ..] => Answer::Error(line(text)),
        [b':', text @ ..] => crate::base::number::integer(line(text)).map_or(Answer::Strange, Answer::Int),
        _ => Answer::Strange,
    }
}

fn read_item<'a>(head: &'a [u8], rest: impl FnOnce(usize) -> Content<'a>) -> Option<Item<'a>> {
    let length = head.len() + 1;
    let from = &mut &*head;
    let [outcome, bits] = take(from)?;
    let outcome = *OUTCOMES.get(usize::from(outcome))?;
    let version = Version { time: u64::from_le_bytes(take(from)?), origin: u32::from_le_bytes(take(from)?) };
    let (age_ms, len) = (u64::from_le_bytes(take(from)?), u32::from_le_bytes(take(from)?));
    let mut optional = |bit| if bits & bit == 0 { Some(None) } else { take(from).map(u64::from_le_bytes).map(Some) };
    let (ttl_ms, cas) = (optional(DEADLINE)?, optional(OWN_CAS)?);
    let flags = if bits & FLAGS == 0 { 0 } else { u32::from_le_bytes(take(from)?) };
    let marks = Marks {
        flags,
        is_stale: bits & STALE != 0,
        is_promised: bits & PROMISED != 0,
        cas: cas.and_then(NonZeroU64::new),
    };
    Some(Item {
        outcome,
        version,
        marks,
        ttl_ms,
        age_ms,
        won: bits & WON != 0,
        was_hit: bits & HIT != 0,
        len,
        value: (bits & VALUE != 0).then(|| rest(length - from.len())),
    })
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn copied<'a>(encoded: &'a [u8]) -> Answer<'a> {
        read(encoded, |at| Content::Copied(&encoded[at..]))
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_strange(bytes: Vec<u8>) {
            copied(&bytes);
            copied(&[&[ITEM, 0], &bytes[..]].concat());
        }
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        assert_eq!(copied(b"+OK\r\n"), Answer::Ok);
        assert_eq!(copied(b"_\r\n"), Answer::Null);
        assert_eq!(copied(b":-7\r\n"), Answer::Int(-7));
        assert_eq!(copied(b"-BUSY no\r\n"), Answer::Error(b"BUSY no"));
        for strange in [&b""[..], b"*1\r\n", b"I", b":x\r\n", &[ITEM, 6, 0]] {
            assert_eq!(copied(strange), Answer::Strange);
        }
    }
}
