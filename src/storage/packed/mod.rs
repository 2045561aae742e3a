//! One entry in one allocation: header, key and value behind an 8-byte pointer. Knows nothing of tables beyond how to be found in one
//! (`lookup`), and never decides what to store. The layout is in `content`. The only room with `unsafe`. Tested in `tests`.
#![allow(unsafe_code)]

mod content;
mod lookup;

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;

use bytes::Bytes;

use super::size;
use crate::base::hlc::{UnixMs, Version};
use content::{ALIGN, CLIENT_FLAGS, FLAGS_AT, KEY_LEN_AT, SHARED, Shape, TOMBSTONE, WIDE_DEADLINE, WIDE_KEY};
pub(super) use content::{Content, ContentBody, Due, Slot, Value};
pub(super) use lookup::{Keyed, find_mut, peek, remove};

/// An entry. The pointer is in a cell because tables lend their keys out shared; only [`EntryMut`], which has the table to itself, changes it.
pub(super) struct Packed(Cell<NonNull<u8>>);

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
            Due::NONE => None,
            Due::IN_ENTRY if self.flags() & WIDE_DEADLINE == 0 => None,
            Due::IN_ENTRY => {
                let (key_at, key_len) = self.key_span();
                // SAFETY: with WIDE_DEADLINE it follows the key.
                Some(u64::from_le_bytes(unsafe { self.read(key_at + key_len) }))
            }
            due => Some(due.after(self.version().unix_ms())),
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
        self.shape().memory() + size::allocation(self.shared().map_or(0, Bytes::len))
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        let shape = self.shape();
        // SAFETY: nothing borrows from an entry being dropped; it was allocated with the layout of its shape, as `overwrite` keeps it.
        unsafe {
            drop_shared(self.at(), &shape);
            dealloc(self.at().as_ptr(), layout_of(&shape));
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
        if old.key_at == new.key_at && old.memory() == new.memory() {
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

/// Whole size classes are allocated, so that a new value of about the old size needs no new allocation.
fn layout_of(shape: &Shape) -> Layout {
    Layout::from_size_align(shape.memory(), ALIGN).expect("bounded keys and values make a valid layout")
}

#[cfg(test)]
mod tests;
