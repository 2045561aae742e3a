//! The operations a store executes on one key, whatever protocol asked. Plain data: parsed in `protocol`, executed in `storage`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::hlc::UnixMs;
use super::item::ItemAct;
use super::seen::Seen;

/// One operation on one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// The key it is about.
    pub key: Bytes,
    /// What to do.
    pub act: Act,
    /// The bytes the act takes: a value to set, a suffix to append, a decimal to add. Empty otherwise.
    pub value: Bytes,
}

impl Op {
    /// An operation that takes no value.
    pub fn new(key: Bytes, act: Act) -> Self {
        Self { key, act, value: Bytes::new() }
    }
}

/// An [`Op`] that borrows its bytes, as it travels between nodes. Variants are append-only: postcard numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpRef<'a> {
    /// The key it is about.
    #[serde(borrow, with = "serde_bytes")]
    pub key: &'a [u8],
    /// What to do.
    pub act: Act,
    /// The bytes the act takes.
    #[serde(borrow, with = "serde_bytes")]
    pub value: &'a [u8],
}

/// What to do with a key. Append-only: peers number the variants. The reply of each is given as RESP2 shows it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// The value, or null.
    Get,
    /// 1 or 0.
    Exists,
    /// `+string` or `+none`.
    Type,
    /// 1 if present (and recently used now), else 0.
    Touch,
    /// Length of the value, 0 when absent.
    Strlen,
    /// The bytes from `start` to `end`, both inclusive, negative from the end; empty when absent.
    GetRange {
        /// First byte.
        start: i64,
        /// Last byte.
        end: i64,
    },
    /// Time to live or deadline: -2 absent, -1 no deadline.
    Ttl {
        /// Milliseconds rather than seconds (seconds round half up, as Redis does).
        ms: bool,
        /// The Unix time of the deadline rather than the time left.
        absolute: bool,
    },
    /// Store `Op::value`.
    Set {
        /// The deadline afterwards.
        expiry: Expiry,
        /// Only if.
        when: When,
        /// What to answer.
        answer: SetAnswer,
        /// Flags of memcached clients.
        flags: u32,
    },
    /// The value, which is deleted.
    GetDel,
    /// The value, with its deadline changed.
    GetEx {
        /// The deadline afterwards.
        expiry: Expiry,
    },
    /// 1 if it was there, else 0.
    Delete,
    /// Append `Op::value`; the new length.
    Append,
    /// Overwrite from `offset` with `Op::value`, zero-padding; the new length. An empty value changes nothing.
    SetRange {
        /// First byte overwritten.
        offset: u64,
    },
    /// Add to the decimal integer at the key (0 when absent); the sum.
    Incr {
        /// May be negative.
        by: i64,
    },
    /// Add `Op::value`, a decimal number as text, to the one at the key (0 when absent); the sum as text.
    IncrFloat,
    /// Set the deadline; 1, or 0 when absent or the condition fails. A deadline in the past deletes.
    Expire {
        /// The new deadline.
        at: Deadline,
        /// Only if.
        when: ExpireWhen,
    },
    /// Remove the deadline; 1 if there was one.
    Persist,
    /// As `Set`, if what the key holds compares as asked with the operand: the first bytes of `Op::value`. What follows them is stored. A key
    /// that is not there differs from everything.
    SetIf {
        /// The deadline afterwards.
        expiry: Expiry,
        /// Only if.
        comparison: Comparison,
        /// What to answer.
        answer: SetAnswer,
        /// Length of the operand.
        operand_bytes: u32,
    },
    /// 1 if it was there, compared as asked with `Op::value`, and is deleted; else 0.
    DeleteIf {
        /// Only if.
        comparison: Comparison,
    },
    /// XXH3-64 of the value as 16 lower-case hexadecimal digits, or null.
    Digest,
    /// The bit `at` bits from the start of the value; 0 past its end.
    GetBit {
        /// Bit 0 is the highest of the first byte.
        at: u64,
    },
    /// Set one bit, zero-padding; what it was.
    SetBit {
        /// As above.
        at: u64,
        /// 1 rather than 0.
        on: bool,
    },
    /// How many bits are 1 from `start` to `end`, both inclusive, negative from the end; 0 when absent.
    BitCount {
        /// First.
        start: i64,
        /// Last.
        end: i64,
        /// What these count.
        unit: BitUnit,
    },
    /// The first bit that is `on` from `start` to `end`, or -1. Of a value that is absent all bits are 0.
    BitPos {
        /// 1 rather than 0.
        on: bool,
        /// No end was named: the value goes on in zeros.
        open: bool,
        /// First.
        start: i64,
        /// Last.
        end: i64,
        /// What these count.
        unit: BitUnit,
    },
    /// The operations that `Op::value` encodes (see [`bitfield`](super::bitfield)), in order; an array of integers and nulls.
    BitField,
    /// The same if none of them writes.
    BitFieldGet,
    /// What there is to tell of the value, or null.
    Describe {
        /// Of all that.
        aspect: Aspect,
    },
    /// What the key holds, as [`Seen::to_text`].
    Look,
    /// In a transaction: 1 if nothing was written to the key since, else 0, and nothing after it is done.
    Unchanged {
        /// What it held.
        since: Seen,
    },
    /// In a transaction: 1 if the key is absent, else 0, and the next operations are passed over.
    Absent {
        /// How many.
        skip: u32,
    },
    /// The value with its version, deadline and flags, as [`Whole::to_bytes`](super::whole::Whole::to_bytes), or null.
    Whole,
    /// In a transaction: takes value, deadline and flags to hand; 1, or 0 if the key is absent, and the next operations are passed over.
    Load {
        /// How many.
        skip: u32,
    },
    /// In a transaction: combines what is at hand with the value, bit by bit, or takes the first to hand; its length.
    Fold(BitOp),
    /// In a transaction: stores what is at hand, or deletes the key if that is a combination of no bytes; its length. After an error the next
    /// operations are passed over.
    Unload {
        /// How many.
        skip: u32,
    },
    /// Something about the whole item. The reply is one of items, see there.
    Item(ItemAct),
    /// A part of a `RENAME`, which is told of as such.
    Renaming(Renaming),
}

/// What a `RENAME` is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renaming {
    /// As [`Act::Load`], of the key it had.
    Load {
        /// How many.
        skip: u32,
    },
    /// As [`Act::Unload`], to the key it gets.
    Unload {
        /// How many.
        skip: u32,
    },
    /// As [`Act::Delete`], after both.
    Delete,
    /// As [`Act::Delete`], where the key it gets is in another partition.
    Depart,
}

/// How `BITOP` combines values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BitOp {
    /// Bits that all have.
    And,
    /// Bits that any has.
    Or,
    /// Bits that an odd number has.
    Xor,
    /// The bits that the only value has not.
    Not,
}

/// A deadline a client named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deadline {
    /// Milliseconds from the moment the coordinator executes.
    In(i64),
    /// Unix milliseconds.
    At(i64),
}

/// What becomes of a key's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiry {
    /// It stays.
    Keep,
    /// It goes.
    Clear,
    /// It is replaced.
    Until(Deadline),
}

/// The condition of a `Set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// None.
    Always,
    /// NX.
    Absent,
    /// XX.
    Present,
}

/// How a value is compared with an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// IFEQ: the same bytes.
    Equal,
    /// IFNE: other bytes.
    Differs,
    /// IFDEQ: the operand is the value's digest.
    DigestEqual,
    /// IFDNE: the operand is another digest.
    DigestDiffers,
}

/// What a range of bits is given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BitUnit {
    /// Whole bytes.
    Byte,
    /// Bits.
    Bit,
}

/// The condition of an `Expire`; the flags combine as in Redis 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpireWhen {
    /// NX: only without a deadline.
    pub no_deadline: bool,
    /// XX: only with one.
    pub deadline: bool,
    /// GT: only if later (no deadline counts as infinite).
    pub later: bool,
    /// LT: only if earlier.
    pub earlier: bool,
}

/// What a `Set` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetAnswer {
    /// `+OK`, or null when the condition failed.
    Done,
    /// 1 or 0 (SETNX).
    Flag,
    /// The old value or null (SET ... GET, GETSET), whether or not the condition held.
    Old,
    /// `+OK`, or an error when the condition failed (RESTORE).
    Restored,
    /// 1 or 0: it is a copy (COPY).
    Copied,
    /// 1 or 0: it was another key's (RENAME).
    Moved,
}

/// What an [`Act::Describe`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aspect {
    /// How Redis would keep it.
    Encoding,
    /// How often it is used: an error, for nobody counts.
    Frequency,
    /// Seconds since its last change.
    IdleSeconds,
    /// How many keys share it: 1.
    References,
    /// Bytes of memory it is accounted for.
    MemoryBytes,
    /// The payload from which `RESTORE` makes it again.
    Dump,
}

impl Act {
    /// Whether it can change the key.
    pub fn writes(&self) -> bool {
        if let Self::Item(act) = self {
            return act.writes();
        }
        !matches!(
            self,
            Self::Get
                | Self::Exists
                | Self::Type
                | Self::Touch
                | Self::Strlen
                | Self::GetRange { .. }
                | Self::Ttl { .. }
                | Self::Digest
                | Self::GetBit { .. }
                | Self::BitCount { .. }
                | Self::BitPos { .. }
                | Self::BitFieldGet
                | Self::Describe { .. }
                | Self::GetEx { expiry: Expiry::Keep }
                | Self::Look
                | Self::Unchanged { .. }
                | Self::Absent { .. }
                | Self::Whole
                | Self::Load { .. }
                | Self::Fold(_)
                | Self::Renaming(Renaming::Load { .. })
        )
    }

    /// Whether what it does or answers depends on what the key holds. The others are blind writes, which need no read first.
    pub fn reads(&self) -> bool {
        if let Self::Item(act) = self {
            return act.reads();
        }
        !matches!(
            self,
            Self::Set { when: When::Always, answer: SetAnswer::Done | SetAnswer::Flag, expiry, .. } if *expiry != Expiry::Keep
        )
    }

    /// Whether doing it twice would show: a second reply or a second effect unlike the first.
    pub fn repeats_safely(&self) -> bool {
        !self.writes() || !self.reads()
    }
}

/// The absolute form of a deadline, at `now`; times before the epoch become the epoch (already past).
pub fn absolute(deadline: Deadline, now: UnixMs) -> UnixMs {
    let at = match deadline {
        Deadline::In(ms) => i64::try_from(now).unwrap_or(i64::MAX).saturating_add(ms),
        Deadline::At(ms) => ms,
    };
    u64::try_from(at).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blind_writes_and_reads_repeat_safely() {
        let set = |expiry, when, answer| Act::Set { expiry, when, answer, flags: 0 };
        assert!(set(Expiry::Clear, When::Always, SetAnswer::Done).repeats_safely());
        assert!(!set(Expiry::Keep, When::Always, SetAnswer::Done).repeats_safely());
        assert!(!set(Expiry::Clear, When::Absent, SetAnswer::Flag).repeats_safely());
        assert!(!Act::Incr { by: 1 }.repeats_safely());
        assert!(!Act::Delete.repeats_safely());
        assert!(Act::Get.repeats_safely());
        assert!(Act::Item(ItemAct::Read).repeats_safely() && Act::Item(ItemAct::Put).repeats_safely());
        assert!(!Act::Item(ItemAct::Fetch).repeats_safely() && !Act::Item(ItemAct::Store).repeats_safely());
        assert!(!Act::GetEx { expiry: Expiry::Clear }.repeats_safely());
        assert!(!Act::DeleteIf { comparison: Comparison::Equal }.repeats_safely());
        assert!(Act::Digest.repeats_safely());
        assert!(!Act::BitField.repeats_safely());
        assert!(Act::BitFieldGet.repeats_safely());
    }

    #[test]
    fn what_every_operation_carries_stays_small() {
        assert_eq!((size_of::<Act>(), size_of::<Op>()), (24, 88));
    }

    #[test]
    fn deadlines_before_the_epoch_are_the_epoch() {
        assert_eq!(absolute(Deadline::In(-2_000), 1_000), 0);
        assert_eq!(absolute(Deadline::In(5), 1_000), 1_005);
        assert_eq!(absolute(Deadline::At(-1), 1_000), 0);
    }
}
