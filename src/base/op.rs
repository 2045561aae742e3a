//! The operations a store executes on one key, whatever protocol asked. Plain data: parsed in `protocol`, executed in `storage`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::hlc::UnixMs;
use super::item::ItemAct;

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
    /// Something about the whole item. The reply is one of items, see there.
    Item(ItemAct),
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
                | Self::GetEx { expiry: Expiry::Keep }
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
