//! One entry in one allocation: header, key and value behind an 8-byte pointer. Knows nothing of tables beyond how to be found in one, and
//! never decides what to store. The only room with `unsafe`. Tested below.
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
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::borrow::Borrow;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ptr::NonNull;

use bytes::Bytes;
use lru::LruCache;

use super::size;
use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::{KEY_BYTES_MAX, LARGE_VALUE_BYTES};

const WIDE_KEY: u8 = 1;
const WIDE_DEADLINE: u8 = 2;
const CLIENT_FLAGS: u8 = 4;
const SHARED: u8 = 8;
const TOMBSTONE: u8 = 16;

const FLAGS_AT: usize = 12;
const KEY_LEN_AT: usize = 13;
const ALIGN: usize = 8;

// Lengths below are written in 2 bytes.
const _: () = assert!(LARGE_VALUE_BYTES <= 1 << 16 && KEY_BYTES_MAX < 1 << 24);
const _: () = assert!(align_of::<Bytes>() <= ALIGN);

/// What a table keeps beside an entry: eight bytes that would be padding otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Coarse time of the last use.
    pub(super) used: u32,
    /// See [`Due`].
    pub(super) due: Due,
}

/// A deadline as a table node carries it, enough to find expired entries without touching them: 0 none, 1 in full in the entry, else its lower
/// 32 bits, the rest following from the version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due(u32);

impl Due {
    const IN_ENTRY: Self = Self(1);
    /// Deadlines up to here after the version fit; half the range, so that comparing lower halves tells past from future.
    const NARROW_MS_MAX: u64 = (1 << 31) - 1;

    fn of(version: Version, deadline: Option<UnixMs>) -> Self {
        let Some(deadline) = deadline else { return Self(0) };
        let near = deadline.checked_sub(version.unix_ms()).is_some_and(|ms| ms <= Self::NARROW_MS_MAX);
        if near && deadline as u32 > 1 { Self(deadline as u32) } else { Self::IN_ENTRY }
    }

    /// Whether there is a deadline.
    pub(super) fn is_some(self) -> bool {
        self.0 != 0
    }

    /// The deadline, where it is certainly still to come and need not be looked up in the entry.
    pub(super) fn to_come(self, now: UnixMs) -> Option<UnixMs> {
        (self.0 > 1 && !self.may_have_passed(now)).then(|| now + u64::from(self.0.wrapping_sub(now as u32)))
    }

    /// Whether the deadline may have passed at `now`; false is certain.
    pub(super) fn may_have_passed(self, now: UnixMs) -> bool {
        match self {
            Self(0) => false,
            Self::IN_ENTRY => true,
            Self(low) => (now as u32).wrapping_sub(low) as i32 >= 0,
        }
    }
}

/// A value on its way into the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// Copied in.
    Copied(&'a [u8]),
    /// Kept as it is when large, else copied in.
    Owned(&'a Bytes),
}

impl<'a> Value<'a> {
    /// The bytes.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// What an entry is to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    pub(super) version: Version,
    pub(super) body: ContentBody<'a>,
}

/// The body of a [`Content`].
#[derive(Clone, Copy, Debug)]
pub(super) enum ContentBody<'a> {
    Tombstone,
    Live { value: Value<'a>, deadline: Option<UnixMs>, flags: u32 },
}

impl<'a> Content<'a> {
    /// The same as messages carry it.
    pub(super) fn entry(&self) -> EntryRef<'a> {
        let body = match self.body {
            ContentBody::Tombstone => BodyRef::Tombstone,
            ContentBody::Live { value, deadline, flags } => BodyRef::Live { value: value.bytes(), deadline, flags },
        };
        EntryRef { version: self.version, body }
    }

    /// The deadline as the table node carries it.
    pub(super) fn due(&self) -> Due {
        match self.body {
            ContentBody::Tombstone => Due::default(),
            ContentBody::Live { deadline, .. } => Due::of(self.version, deadline),
        }
    }

    /// Bytes of memory an entry of this content takes under a key of `key_len` bytes.
    pub(super) fn memory(&self, key_len: usize) -> usize {
        let shape = Shape::of(key_len, self);
        let large = if shape.flags & SHARED != 0 { self.shared_len() } else { 0 };
        size::allocation(shape.total) + size::allocation(large)
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
struct Shape {
    flags: u8,
    key_at: usize,
    key_len: usize,
    /// Of the value, or of the `Bytes` that holds it.
    value_at: usize,
    /// 0 when SHARED or TOMBSTONE.
    value_len: usize,
    total: usize,
}

impl Shape {
    fn of(key_len: usize, content: &Content<'_>) -> Self {
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

    fn lay_out(flags: u8, key_len: usize, value_len: usize) -> Self {
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

    /// Whole size classes are allocated, so that a new value of about the old size needs no new allocation.
    fn layout(&self) -> Layout {
        Layout::from_size_align(size::allocation(self.total), ALIGN)
            .expect("bounded keys and values make a valid layout")
    }
}

/// An entry. The pointer is in a cell because tables lend their keys out shared; only [`EntryMut`], which has the table to itself, changes it.
pub(super) struct Packed(Cell<NonNull<u8>>);

// SAFETY: the allocation belongs to this value alone, and `Bytes` may be sent.
unsafe impl Send for Packed {}

impl Packed {
    /// Packs `key` and `content` into a new allocation.
    pub(super) fn new(key: &[u8], content: &Content<'_>) -> Self {
        let shape = Shape::of(key.len(), content);
        let layout = shape.layout();
        // SAFETY: every shape has a header, so the layout is not empty.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: `at` is a fresh allocation of this shape's layout, which holds no `Bytes` yet; `key` lies elsewhere.
        unsafe {
            write_header(at, &shape, content);
            at.add(shape.key_at).copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            write_body(at, &shape, content);
        }
        Self(Cell::new(at))
    }

    fn at(&self) -> NonNull<u8> {
        self.0.get()
    }

    /// `N` bytes at `offset`.
    ///
    /// # Safety
    /// They must lie within the allocation and be written.
    unsafe fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        // SAFETY: the caller's promise; byte arrays have no alignment.
        unsafe { self.at().add(offset).cast().read() }
    }

    fn flags(&self) -> u8 {
        // SAFETY: every entry has a whole header.
        unsafe { self.read::<1>(FLAGS_AT)[0] }
    }

    fn key_span(&self) -> (usize, usize) {
        // SAFETY: every entry has a whole header, and WIDE_KEY says that the length takes three bytes.
        unsafe {
            if self.flags() & WIDE_KEY == 0 {
                (KEY_LEN_AT + 1, usize::from(self.read::<1>(KEY_LEN_AT)[0]))
            } else {
                let [a, b, c] = self.read::<3>(KEY_LEN_AT);
                (KEY_LEN_AT + 3, u32::from_le_bytes([a, b, c, 0]) as usize)
            }
        }
    }

    fn shape(&self) -> Shape {
        let flags = self.flags();
        let (_, key_len) = self.key_span();
        let empty = Shape::lay_out(flags, key_len, 0);
        if flags & (SHARED | TOMBSTONE) != 0 {
            return empty;
        }
        // SAFETY: without these flags the two bytes before the value are its length.
        let value_len = u16::from_le_bytes(unsafe { self.read(empty.value_at - 2) });
        Shape::lay_out(flags, key_len, usize::from(value_len))
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        let (at, len) = self.key_span();
        // SAFETY: the span lies within the allocation, and nobody changes that while `self` is borrowed: see `EntryMut`.
        unsafe { std::slice::from_raw_parts(self.at().add(at).as_ptr(), len) }
    }

    /// The version.
    pub(super) fn version(&self) -> Version {
        // SAFETY: every entry has a whole header.
        unsafe { Version { time: u64::from_le_bytes(self.read(0)), origin: u32::from_le_bytes(self.read(8)) } }
    }

    /// The value when it is large enough to be shared.
    pub(super) fn shared(&self) -> Option<&Bytes> {
        let flags = self.flags();
        if flags & SHARED == 0 {
            return None;
        }
        let shape = self.shape();
        // SAFETY: with SHARED an initialised `Bytes` lies here, aligned as `lay_out` sees to, borrowed no longer than `self`.
        Some(unsafe { self.at().add(shape.value_at).cast::<Bytes>().as_ref() })
    }

    /// The value; empty for a tombstone.
    pub(super) fn value(&self) -> &[u8] {
        if let Some(bytes) = self.shared() {
            return bytes;
        }
        let shape = self.shape();
        // SAFETY: the span lies within the allocation and was written; as for `key`.
        unsafe { std::slice::from_raw_parts(self.at().add(shape.value_at).as_ptr(), shape.value_len) }
    }

    /// The value in the form in which it can be stored again without a copy.
    pub(super) fn stored_value(&self) -> Value<'_> {
        match self.shared() {
            Some(bytes) => Value::Owned(bytes),
            None => Value::Copied(self.value()),
        }
    }

    /// Flags of memcached clients.
    pub(super) fn client_flags(&self) -> u32 {
        let flags = self.flags();
        if flags & CLIENT_FLAGS == 0 {
            return 0;
        }
        let (key_at, key_len) = self.key_span();
        let at = key_at + key_len + if flags & WIDE_DEADLINE != 0 { 8 } else { 0 };
        // SAFETY: with CLIENT_FLAGS they follow the key and the wide deadline.
        u32::from_le_bytes(unsafe { self.read(at) })
    }

    /// The deadline, given what the table node says of it.
    pub(super) fn deadline(&self, due: Due) -> Option<UnixMs> {
        match due {
            Due(0) => None,
            Due::IN_ENTRY if self.flags() & WIDE_DEADLINE == 0 => None,
            Due::IN_ENTRY => {
                let (key_at, key_len) = self.key_span();
                // SAFETY: with WIDE_DEADLINE it follows the key.
                Some(u64::from_le_bytes(unsafe { self.read(key_at + key_len) }))
            }
            Due(low) => {
                let base = self.version().unix_ms();
                Some(base + u64::from(low.wrapping_sub(base as u32)))
            }
        }
    }

    /// What it holds, given what the table node says of its deadline.
    pub(super) fn content(&self, due: Due) -> Content<'_> {
        let body = if self.flags() & TOMBSTONE != 0 {
            ContentBody::Tombstone
        } else {
            ContentBody::Live { value: self.stored_value(), deadline: self.deadline(due), flags: self.client_flags() }
        };
        Content { version: self.version(), body }
    }

    /// Bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        size::allocation(self.shape().total) + size::allocation(self.shared().map_or(0, Bytes::len))
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        let shape = self.shape();
        // SAFETY: nothing borrows from an entry being dropped; it was allocated with the layout of its shape, as `overwrite` keeps it.
        unsafe {
            drop_shared(self.at(), &shape);
            dealloc(self.at().as_ptr(), shape.layout());
        }
    }
}

/// # Safety
/// `at` is an allocation of this shape whose body is initialised and unborrowed, and will be overwritten or freed.
unsafe fn drop_shared(at: NonNull<u8>, shape: &Shape) {
    if shape.flags & SHARED != 0 {
        // SAFETY: with SHARED an initialised, aligned `Bytes` lies there.
        unsafe { at.add(shape.value_at).cast::<Bytes>().drop_in_place() };
    }
}

/// # Safety
/// `at` is an allocation of at least this shape's size, unborrowed.
unsafe fn write_header(at: NonNull<u8>, shape: &Shape, content: &Content<'_>) {
    // SAFETY: the header lies within every shape; byte arrays have no alignment.
    unsafe {
        at.cast().write(content.version.time.to_le_bytes());
        at.add(8).cast().write(content.version.origin.to_le_bytes());
        at.add(FLAGS_AT).write(shape.flags);
        let [a, b, c, _] = (shape.key_len as u32).to_le_bytes();
        if shape.flags & WIDE_KEY != 0 {
            at.add(KEY_LEN_AT).cast().write([a, b, c]);
        } else {
            at.add(KEY_LEN_AT).write(a);
        }
    }
}

/// Writes what follows the key.
///
/// # Safety
/// `at` is an allocation of at least this shape's size, unborrowed, its old `Bytes` dropped; `content` borrows from elsewhere.
unsafe fn write_body(at: NonNull<u8>, shape: &Shape, content: &Content<'_>) {
    let ContentBody::Live { value, deadline, flags } = content.body else { return };
    // SAFETY: `lay_out` made room for each part under the same flags.
    unsafe {
        let mut next = at.add(shape.key_at + shape.key_len);
        if shape.flags & WIDE_DEADLINE != 0 {
            next.cast().write(deadline.expect("a wide deadline is one").to_le_bytes());
            next = next.add(8);
        }
        if shape.flags & CLIENT_FLAGS != 0 {
            next.cast().write(flags.to_le_bytes());
            next = next.add(4);
        }
        if shape.flags & SHARED != 0 {
            let bytes = match value {
                Value::Owned(bytes) => bytes.clone(),
                Value::Copied(bytes) => Bytes::copy_from_slice(bytes),
            };
            at.add(shape.value_at).cast::<Bytes>().write(bytes);
        } else {
            let bytes = value.bytes();
            next.cast().write((bytes.len() as u16).to_le_bytes());
            at.add(shape.value_at).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        }
    }
}

/// An entry in a table borrowed exclusively, so that nothing else borrows from it.
pub(super) struct EntryMut<'t> {
    packed: &'t Packed,
    /// What the table keeps beside it.
    pub(super) slot: &'t mut Slot,
}

impl<'t> EntryMut<'t> {
    /// The entry.
    pub(super) fn packed(&self) -> &Packed {
        self.packed
    }

    /// Gives up the right to change it.
    pub(super) fn into_shared(self) -> (&'t Packed, &'t Slot) {
        (self.packed, self.slot)
    }

    /// Replaces the content under the same key, in place when the size class stays. `content` cannot borrow from this entry.
    pub(super) fn overwrite(&mut self, content: &Content<'_>) {
        let old = self.packed.shape();
        let new = Shape::of(old.key_len, content);
        if old.key_at == new.key_at && old.layout() == new.layout() {
            let at = self.packed.at();
            // SAFETY: the table is ours alone and `&mut self` ends every borrow from the entry, so nothing reads it; the layout fits both
            // shapes, and the key stays where it is.
            unsafe {
                drop_shared(at, &old);
                write_header(at, &new, content);
                write_body(at, &new, content);
            }
        } else {
            self.swap(Packed::new(self.packed.key(), content));
        }
        self.slot.due = content.due();
    }

    /// Changes version and deadline and keeps the value.
    pub(super) fn restamp(&mut self, version: Version, deadline: Option<UnixMs>) {
        let old = self.packed.content(self.slot.due);
        let ContentBody::Live { value, flags, .. } = old.body else { unreachable!("tombstones are not in the table") };
        let content = Content { version, body: ContentBody::Live { value, deadline, flags } };
        let due = content.due();
        let (shape, new) = (self.packed.shape(), Shape::of(self.packed.key().len(), &content));
        if shape == new {
            let at = self.packed.at();
            // SAFETY: as in `overwrite`; the shapes are equal, so only the header and a wide deadline differ.
            unsafe {
                write_header(at, &new, &Content { version, body: ContentBody::Tombstone });
                if let (true, Some(deadline)) = (new.flags & WIDE_DEADLINE != 0, deadline) {
                    at.add(new.key_at + new.key_len).cast().write(deadline.to_le_bytes());
                }
            }
        } else {
            let replacement = Packed::new(self.packed.key(), &content);
            self.swap(replacement);
        }
        self.slot.due = due;
    }

    fn swap(&mut self, replacement: Packed) {
        // The table hashes and compares by key, which both share; the old allocation goes with `replacement`.
        self.packed.0.swap(&replacement.0);
    }
}

/// What a table can be searched by: an entry, or a key that notes which entry it met.
pub(super) trait Keyed {
    fn key_bytes(&self) -> &[u8];
    fn packed(&self) -> Option<&Packed>;
    /// Called on the searching side with the entry whose key is equal.
    fn meet(&self, entry: &dyn Keyed);
}

impl Keyed for Packed {
    fn key_bytes(&self) -> &[u8] {
        self.key()
    }
    fn packed(&self) -> Option<&Packed> {
        Some(self)
    }
    fn meet(&self, _: &dyn Keyed) {}
}

/// `LruCache` lends out its keys only together with a move to the front. A probe remembers the key it was equal to.
struct Probe<'k> {
    key: &'k [u8],
    met: Cell<Option<NonNull<Packed>>>,
}

impl<'k> Probe<'k> {
    fn new(key: &'k [u8]) -> Self {
        Self { key, met: Cell::new(None) }
    }
}

impl Keyed for Probe<'_> {
    fn key_bytes(&self) -> &[u8] {
        self.key
    }
    fn packed(&self) -> Option<&Packed> {
        None
    }
    fn meet(&self, entry: &dyn Keyed) {
        self.met.set(entry.packed().map(NonNull::from));
    }
}

impl Hash for dyn Keyed + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.key_bytes());
    }
}
impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        let equal = self.key_bytes() == other.key_bytes();
        if equal {
            self.meet(other);
        }
        equal
    }
}
impl Eq for dyn Keyed + '_ {}

impl Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.key());
    }
}
impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Packed {}

impl<'a> Borrow<dyn Keyed + 'a> for Packed {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

/// The entry under `key`, its place in the order of use unchanged.
pub(super) fn peek<'t, S: BuildHasher>(
    table: &'t LruCache<Packed, Slot, S>,
    key: &[u8],
) -> Option<(&'t Packed, &'t Slot)> {
    let probe = Probe::new(key);
    let slot = table.peek::<dyn Keyed + '_>(&probe)?;
    let met = probe.met.get().expect("a lookup that finds compares equal");
    // SAFETY: the table owns this entry and is borrowed for 't; a table that only lends itself out shared neither moves nor drops it.
    Some((unsafe { met.as_ref() }, slot))
}

/// The entry under `key` to be changed, moved to the front of the order of use if asked.
pub(super) fn find_mut<'t, S: BuildHasher>(
    table: &'t mut LruCache<Packed, Slot, S>,
    key: &[u8],
    promote: bool,
) -> Option<EntryMut<'t>> {
    let probe = Probe::new(key);
    let query: &dyn Keyed = &probe;
    let slot = if promote { table.get_mut(query) } else { table.peek_mut(query) }?;
    let met = probe.met.get().expect("a lookup that finds compares equal");
    // SAFETY: the table owns this entry, keeps it in its node, apart from the slot, and is borrowed exclusively for 't.
    Some(EntryMut { packed: unsafe { met.as_ref() }, slot })
}

/// Takes the entry under `key` out of the table.
pub(super) fn remove<S: BuildHasher>(table: &mut LruCache<Packed, Slot, S>, key: &[u8]) -> Option<(Packed, Slot)> {
    let probe = Probe::new(key);
    table.pop_entry::<dyn Keyed + '_>(&probe)
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
