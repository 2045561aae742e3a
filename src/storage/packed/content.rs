//! What an entry holds and how that is laid out in its allocation. Never touches memory. Tested in `tests`.
//!
//! ```text
//! 0   time             8
//! 8   origin           4
//! 12  flags            1
//! 13  key length       1   (3 with WIDE_KEY)
//!     key              n
//!     deadline         8   only with DEADLINE
//!     client flags     4   only with CLIENT_FLAGS
//!     state            1   only with MARKED
//!     CAS unique       8   only with MARKED, 0 for that of the version
//!     value length     2   unless TOMBSTONE or SHARED
//!     value            n   or, with SHARED, a `Bytes` at the next multiple of 8
//! ```
//!
//! A key of 16 and a value of 64 bytes make 96 bytes, 112 with a deadline.
#![deny(unsafe_code)]

use bytes::Bytes;

use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::{KEY_BYTES_MAX, LARGE_VALUE_BYTES};
use crate::base::marks::Marks;
use crate::storage::size;

pub(super) const WIDE_KEY: u8 = 1;
pub(super) const DEADLINE: u8 = 2;
pub(super) const CLIENT_FLAGS: u8 = 4;
pub(super) const SHARED: u8 = 8;
pub(super) const TOMBSTONE: u8 = 16;
/// There are marks besides client flags, which is rare.
pub(super) const MARKED: u8 = 32;
/// It was read as an item. Of this copy alone, and no part of its shape.
pub(super) const HIT: u8 = 64;
/// What MARKED adds.
pub(super) const MARKED_BYTES: usize = 9;

pub(super) const FLAGS_AT: usize = 12;
pub(super) const KEY_LEN_AT: usize = 13;
/// Of an allocation, so that a [`Slot`](super::Slot) has four bits of the address to itself. Allocators give it anyway.
pub(super) const ALIGN: usize = 16;
const BYTES_ALIGN: usize = align_of::<Bytes>();

// Lengths below are written in 2 bytes.
const _: () = assert!(LARGE_VALUE_BYTES <= 1 << 16 && KEY_BYTES_MAX < 1 << 24);
const _: () = assert!(BYTES_ALIGN <= ALIGN);

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
    Live { value: Value<'a>, deadline: Option<UnixMs>, marks: Marks },
}

impl<'a> Content<'a> {
    /// The same as messages carry it.
    pub(in crate::storage) fn entry(&self) -> EntryRef<'a> {
        let body = match self.body {
            ContentBody::Tombstone => BodyRef::Tombstone,
            ContentBody::Live { value, deadline, marks } => BodyRef::Live { value: value.bytes(), deadline, marks },
        };
        EntryRef { version: self.version, body }
    }

    /// Whether it has a deadline.
    pub(super) fn has_deadline(&self) -> bool {
        matches!(self.body, ContentBody::Live { deadline: Some(_), .. })
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
            ContentBody::Live { value, deadline, marks } => {
                flags |= if deadline.is_some() { DEADLINE } else { 0 };
                flags |= if marks.flags != 0 { CLIENT_FLAGS } else { 0 };
                flags |= if marks == Marks::of(marks.flags) { 0 } else { MARKED };
                value_len = value.bytes().len();
                flags |= if value_len >= LARGE_VALUE_BYTES { SHARED } else { 0 };
            }
        }
        Self::lay_out(flags, key_len, value_len)
    }

    pub(super) fn lay_out(flags: u8, key_len: usize, value_len: usize) -> Self {
        let key_at = KEY_LEN_AT + if flags & WIDE_KEY != 0 { 3 } else { 1 };
        let mut at = key_at + key_len;
        at += if flags & DEADLINE != 0 { 8 } else { 0 };
        at += if flags & CLIENT_FLAGS != 0 { 4 } else { 0 };
        at += if flags & MARKED != 0 { MARKED_BYTES } else { 0 };
        let (value_at, value_len, total) = if flags & SHARED != 0 {
            let at = at.next_multiple_of(BYTES_ALIGN);
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
