//! What an entry holds and how that is laid out in its allocation. Never touches memory. Tested in `tests`.
//!
//! ```text
//! 0   time             8
//! 8   origin           4
//! 12  flags            1
//! 13  key length       1   (3 with WIDE_KEY)
//!     key              n
//!     deadline         8   only with WIDE_DEADLINE
//!     client flags     4   only with CLIENT_FLAGS
//!     value length     2   unless TOMBSTONE or SHARED
//!     value            n   or, with SHARED, a `Bytes` at the next multiple of 8
//! ```
//!
//! A key of 16 and a value of 64 bytes make 96 bytes, with or without a deadline: the lower half of a deadline within 24 days of the
//! version lives in the entry's [`Slot`], in the table node, where four bytes would be padding otherwise.
#![deny(unsafe_code)]

use bytes::Bytes;

use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::{KEY_BYTES_MAX, LARGE_VALUE_BYTES};
use crate::storage::size;

pub(super) const WIDE_KEY: u8 = 1;
pub(super) const WIDE_DEADLINE: u8 = 2;
pub(super) const CLIENT_FLAGS: u8 = 4;
pub(super) const SHARED: u8 = 8;
pub(super) const TOMBSTONE: u8 = 16;

pub(super) const FLAGS_AT: usize = 12;
pub(super) const KEY_LEN_AT: usize = 13;
pub(super) const ALIGN: usize = 8;

// Lengths below are written in 2 bytes.
const _: () = assert!(LARGE_VALUE_BYTES <= 1 << 16 && KEY_BYTES_MAX < 1 << 24);
const _: () = assert!(align_of::<Bytes>() <= ALIGN);

/// What a table keeps beside an entry: eight bytes that would be padding otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Slot {
    /// Coarse time of the last use.
    pub(in crate::storage) used: u32,
    /// See [`Due`].
    pub(in crate::storage) due: Due,
}

/// A deadline as a table node carries it, enough to find expired entries without touching them: 0 none, 1 in full in the entry, else its lower
/// 32 bits, the rest following from the version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Due(u32);

impl Due {
    pub(super) const NONE: Self = Self(0);
    pub(super) const IN_ENTRY: Self = Self(1);
    /// Deadlines up to here after the version fit; half the range, so that comparing lower halves tells past from future.
    pub(super) const NARROW_MS_MAX: u64 = (1 << 31) - 1;

    pub(super) fn of(version: Version, deadline: Option<UnixMs>) -> Self {
        let Some(deadline) = deadline else { return Self::NONE };
        let near = deadline.checked_sub(version.unix_ms()).is_some_and(|ms| ms <= Self::NARROW_MS_MAX);
        if near && deadline as u32 > 1 { Self(deadline as u32) } else { Self::IN_ENTRY }
    }

    /// The deadline whose lower half this is: the first not before `base`.
    pub(super) fn after(self, base: UnixMs) -> UnixMs {
        base + u64::from(self.0.wrapping_sub(base as u32))
    }

    /// Whether there is a deadline.
    pub(in crate::storage) fn is_some(self) -> bool {
        self.0 != 0
    }

    /// The deadline, where it is certainly still to come and need not be looked up in the entry.
    pub(in crate::storage) fn to_come(self, now: UnixMs) -> Option<UnixMs> {
        (self.0 > 1 && !self.may_have_passed(now)).then(|| self.after(now))
    }

    /// Whether the deadline may have passed at `now`; false is certain.
    pub(in crate::storage) fn may_have_passed(self, now: UnixMs) -> bool {
        match self {
            Self::NONE => false,
            Self::IN_ENTRY => true,
            Self(low) => (now as u32).wrapping_sub(low) as i32 >= 0,
        }
    }
}

/// A value on its way into the store.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) enum Value<'a> {
    /// Copied in.
    Copied(&'a [u8]),
    /// Kept as it is when large, else copied in.
    Owned(&'a Bytes),
}

impl<'a> Value<'a> {
    /// The bytes.
    pub(in crate::storage) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// What an entry is to hold.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Content<'a> {
    pub(in crate::storage) version: Version,
    pub(in crate::storage) body: ContentBody<'a>,
}

/// The body of a [`Content`].
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) enum ContentBody<'a> {
    Tombstone,
    Live { value: Value<'a>, deadline: Option<UnixMs>, flags: u32 },
}

impl<'a> Content<'a> {
    /// The same as messages carry it.
    pub(in crate::storage) fn entry(&self) -> EntryRef<'a> {
        let body = match self.body {
            ContentBody::Tombstone => BodyRef::Tombstone,
            ContentBody::Live { value, deadline, flags } => BodyRef::Live { value: value.bytes(), deadline, flags },
        };
        EntryRef { version: self.version, body }
    }

    /// The deadline as the table node carries it.
    pub(in crate::storage) fn due(&self) -> Due {
        match self.body {
            ContentBody::Tombstone => Due::default(),
            ContentBody::Live { deadline, .. } => Due::of(self.version, deadline),
        }
    }

    /// Bytes of memory an entry of this content takes under a key of `key_len` bytes.
    pub(in crate::storage) fn memory(&self, key_len: usize) -> usize {
        let shape = Shape::of(key_len, self);
        let large = if shape.flags & SHARED != 0 { self.shared_len() } else { 0 };
        shape.memory() + size::allocation(large)
    }

    fn shared_len(&self) -> usize {
        match self.body {
            ContentBody::Live { value, .. } => value.bytes().len(),
            ContentBody::Tombstone => 0,
        }
    }
}

/// Where everything lies in an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) flags: u8,
    pub(super) key_at: usize,
    pub(super) key_len: usize,
    /// Of the value, or of the `Bytes` that holds it.
    pub(super) value_at: usize,
    /// 0 when SHARED or TOMBSTONE.
    pub(super) value_len: usize,
    pub(super) total: usize,
}

impl Shape {
    pub(super) fn of(key_len: usize, content: &Content<'_>) -> Self {
        assert!(key_len <= KEY_BYTES_MAX, "keys are bounded at the door");
        let mut flags = if key_len > usize::from(u8::MAX) { WIDE_KEY } else { 0 };
        let mut value_len = 0;
        match content.body {
            ContentBody::Tombstone => flags |= TOMBSTONE,
            ContentBody::Live { value, deadline, flags: client } => {
                flags |= if Due::of(content.version, deadline) == Due::IN_ENTRY { WIDE_DEADLINE } else { 0 };
                flags |= if client != 0 { CLIENT_FLAGS } else { 0 };
                value_len = value.bytes().len();
                flags |= if value_len >= LARGE_VALUE_BYTES { SHARED } else { 0 };
            }
        }
        Self::lay_out(flags, key_len, value_len)
    }

    pub(super) fn lay_out(flags: u8, key_len: usize, value_len: usize) -> Self {
        let key_at = KEY_LEN_AT + if flags & WIDE_KEY != 0 { 3 } else { 1 };
        let mut at = key_at + key_len;
        at += if flags & WIDE_DEADLINE != 0 { 8 } else { 0 };
        at += if flags & CLIENT_FLAGS != 0 { 4 } else { 0 };
        let (value_at, value_len, total) = if flags & SHARED != 0 {
            let at = at.next_multiple_of(ALIGN);
            (at, 0, at + size_of::<Bytes>())
        } else if flags & TOMBSTONE != 0 {
            (at, 0, at)
        } else {
            (at + 2, value_len, at + 2 + value_len)
        };
        Self { flags, key_at, key_len, value_at, value_len, total }
    }

    /// Bytes of its allocation: a whole size class, so that a new value of about the old size needs no other.
    pub(in crate::storage) fn memory(&self) -> usize {
        size::allocation(self.total)
    }
}
