//! One entry in one allocation, header, key and value, and the eight bytes by which a table holds it. Knows nothing of tables, and never
//! decides what to store. The layout is in `content`. The only room with `unsafe`. Tested in `tests`.
#![allow(unsafe_code)]

mod content;
mod prefetch;
mod slot;

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::num::NonZeroU64;
use std::ptr::NonNull;

use bytes::Bytes;

use super::size;
use crate::base::entry::EntryRef;
use crate::base::hlc::{UnixMs, Version};
use crate::base::marks::Marks;
use content::{
    ALIGN, CLIENT_FLAGS, DEADLINE, FLAGS_AT, HIT, KEY_LEN_AT, MARKED, MARKED_BYTES, SHARED, Shape, TOMBSTONE, WIDE_KEY,
};
pub(super) use content::{Content, ContentBody, Value};
pub(super) use prefetch::prefetch;
pub(super) use slot::{Slot, Stamp};

/// Bits of the state of marks.
const STATE_STALE: u8 = 1;
const STATE_PROMISED: u8 = 2;

/// An entry, owned.
pub(super) struct Packed(NonNull<u8>);

// SAFETY: the allocation belongs to this value alone, and `Bytes` may be sent.
unsafe impl Send for Packed {}

impl Packed {
    /// Packs `key` and `content` into a new allocation.
    pub(super) fn new(key: &[u8], content: &Content<'_>) -> Self {
        let shape = Shape::of(key.len(), content);
        let layout = layout_of(&shape);
        // SAFETY: every shape has a header, so the layout is not empty.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: `at` is a fresh allocation of this shape's layout, which holds no `Bytes` yet; `key` lies elsewhere.
        unsafe {
            write_header(at, &shape, content);
            at.add(shape.key_at).copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            write_body(at, &shape, content);
        }
        Self(at)
    }

    /// The entry, to be read.
    pub(super) fn get(&self) -> PackedRef<'_> {
        // SAFETY: the entry is there as long as its owner is.
        unsafe { PackedRef::new(self.0) }
    }

    /// Its address; whoever has that owns the entry now.
    fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).0
    }

    /// # Safety
    /// `at` came from `into_raw`, and nobody else owns it.
    unsafe fn from_raw(at: NonNull<u8>) -> Self {
        Self(at)
    }
}

/// An entry, borrowed.
#[derive(Clone, Copy)]
pub(super) struct PackedRef<'t> {
    at: NonNull<u8>,
    owner: PhantomData<&'t Packed>,
}

impl<'t> PackedRef<'t> {
    /// # Safety
    /// `at` is the address of an entry that stays and does not change for 't.
    unsafe fn new(at: NonNull<u8>) -> Self {
        Self { at, owner: PhantomData }
    }

    /// `N` bytes at `offset`.
    ///
    /// # Safety
    /// They must lie within the allocation and be written.
    unsafe fn read<const N: usize>(self, offset: usize) -> [u8; N] {
        // SAFETY: the caller's promise; byte arrays have no alignment.
        unsafe { self.at.add(offset).cast().read() }
    }

    fn flags(self) -> u8 {
        // SAFETY: every entry has a whole header.
        unsafe { self.read::<1>(FLAGS_AT)[0] }
    }

    fn key_span(self) -> (usize, usize) {
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

    fn shape(self) -> Shape {
        let flags = self.flags() & !HIT;
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
    pub(super) fn key(self) -> &'t [u8] {
        let (at, len) = self.key_span();
        // SAFETY: the span lies within the allocation, and nobody changes that for 't.
        unsafe { std::slice::from_raw_parts(self.at.add(at).as_ptr(), len) }
    }

    /// The version.
    pub(super) fn version(self) -> Version {
        // SAFETY: every entry has a whole header.
        unsafe { Version { time: u64::from_le_bytes(self.read(0)), origin: u32::from_le_bytes(self.read(8)) } }
    }

    /// The value when it is large enough to be shared.
    pub(super) fn shared(self) -> Option<&'t Bytes> {
        let flags = self.flags();
        if flags & SHARED == 0 {
            return None;
        }
        let shape = self.shape();
        // SAFETY: with SHARED an initialised `Bytes` lies here, aligned as `lay_out` sees to, and stays for 't.
        Some(unsafe { self.at.add(shape.value_at).cast::<Bytes>().as_ref() })
    }

    /// The value; empty for a tombstone.
    pub(super) fn value(self) -> &'t [u8] {
        if let Some(bytes) = self.shared() {
            return bytes;
        }
        let shape = self.shape();
        // SAFETY: the span lies within the allocation and was written; as for `key`.
        unsafe { std::slice::from_raw_parts(self.at.add(shape.value_at).as_ptr(), shape.value_len) }
    }

    /// The value in the form in which it can be stored again without a copy.
    pub(super) fn stored_value(self) -> Value<'t> {
        match self.shared() {
            Some(bytes) => Value::Owned(bytes),
            None => Value::Copied(self.value()),
        }
    }

    /// Flags of memcached clients.
    pub(super) fn client_flags(self) -> u32 {
        let flags = self.flags();
        if flags & CLIENT_FLAGS == 0 {
            return 0;
        }
        let (key_at, key_len) = self.key_span();
        let at = key_at + key_len + if flags & DEADLINE != 0 { 8 } else { 0 };
        // SAFETY: with CLIENT_FLAGS they follow the key and the deadline.
        u32::from_le_bytes(unsafe { self.read(at) })
    }

    /// All marks of memcached clients.
    pub(super) fn marks(self) -> Marks {
        let flags = Marks::of(self.client_flags());
        if self.flags() & MARKED == 0 {
            return flags;
        }
        let (key_at, key_len) = self.key_span();
        let at = key_at
            + key_len
            + if self.flags() & DEADLINE != 0 { 8 } else { 0 }
            + if self.flags() & CLIENT_FLAGS != 0 { 4 } else { 0 };
        // SAFETY: with MARKED they follow the key, the deadline and the client flags.
        let ([state], cas) = unsafe { (self.read::<1>(at), u64::from_le_bytes(self.read(at + 1))) };
        Marks {
            is_stale: state & STATE_STALE != 0,
            is_promised: state & STATE_PROMISED != 0,
            cas: NonZeroU64::new(cas),
            ..flags
        }
    }

    /// Whether it was read as an item.
    pub(super) fn was_hit(self) -> bool {
        self.flags() & HIT != 0
    }

    /// The deadline.
    pub(super) fn deadline(self) -> Option<UnixMs> {
        if self.flags() & DEADLINE == 0 {
            return None;
        }
        let (key_at, key_len) = self.key_span();
        // SAFETY: with DEADLINE it follows the key.
        Some(u64::from_le_bytes(unsafe { self.read(key_at + key_len) }))
    }

    /// A value is gone from its deadline on.
    pub(super) fn expired(self, now: UnixMs) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// What it holds.
    pub(super) fn content(self) -> Content<'t> {
        let body = if self.flags() & TOMBSTONE != 0 {
            ContentBody::Tombstone
        } else {
            ContentBody::Live { value: self.stored_value(), deadline: self.deadline(), marks: self.marks() }
        };
        Content { version: self.version(), body }
    }

    /// The same as messages carry it.
    pub(super) fn entry(self) -> EntryRef<'t> {
        self.content().entry()
    }

    /// Bytes of memory it takes.
    pub(super) fn memory(self) -> usize {
        self.shape().memory() + size::allocation(self.shared().map_or(0, Bytes::len))
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        let shape = self.get().shape();
        // SAFETY: nothing borrows from an entry being dropped; it was allocated with the layout of its shape, as `Slot::overwrite` keeps it.
        unsafe {
            drop_shared(self.0, &shape);
            dealloc(self.0.as_ptr(), layout_of(&shape));
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
    let ContentBody::Live { value, deadline, marks } = content.body else { return };
    // SAFETY: `lay_out` made room for each part under the same flags.
    unsafe {
        let mut next = at.add(shape.key_at + shape.key_len);
        if shape.flags & DEADLINE != 0 {
            next.cast().write(deadline.expect("the shape has a deadline because there is one").to_le_bytes());
            next = next.add(8);
        }
        if shape.flags & CLIENT_FLAGS != 0 {
            next.cast().write(marks.flags.to_le_bytes());
            next = next.add(4);
        }
        if shape.flags & MARKED != 0 {
            let bit = |is_set, bit| if is_set { bit } else { 0 };
            next.write(bit(marks.is_stale, STATE_STALE) | bit(marks.is_promised, STATE_PROMISED));
            next.add(1).cast().write(marks.cas.map_or(0, NonZeroU64::get).to_le_bytes());
            next = next.add(MARKED_BYTES);
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

/// Whole size classes are allocated, so that a new value of about the old size needs no new allocation.
fn layout_of(shape: &Shape) -> Layout {
    Layout::from_size_align(shape.memory(), ALIGN).expect("bounded keys and values make a valid layout")
}

#[cfg(test)]
mod tests;
