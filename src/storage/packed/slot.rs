//! Eight bytes of a table: nothing, the mark of something erased, or an entry with all that a search, an eviction and a sweep want to know
//! before they touch it. Owns its entry. Never decides where an entry goes. Tested in `tests`.
//!
//! ```text
//! 63          20 19      9 8        7   0
//! address / 16   stamp     deadline tag
//! ```
//!
//! An address has 48 bits (what x86-64 gives to processes with 4-level page tables, and aarch64 with 48-bit addresses) and is a multiple of
//! 16, which leaves 20 bits.

use std::ptr::{self, NonNull};

use super::content::{ALIGN, Content, ContentBody, DEADLINE, FLAGS_AT, HIT, Shape};
use super::prefetch::prefetch;
use super::{Packed, PackedRef, drop_shared, write_body, write_header};
use crate::base::hlc::{UnixMs, Version};

const TAG_MASK: usize = 0xff;
const DEADLINE_BIT: usize = 1 << 8;
const STAMP_AT: u32 = 9;
const STAMP_MASK: usize = (Stamp::COUNT as usize - 1) << STAMP_AT;
const ADDRESS_AT: u32 = 20;
/// A deadline of no entry: something has been here, and a search goes on.
const ERASED: usize = DEADLINE_BIT;
const ADDRESS_BITS: u32 = 48;
/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

const _: () = assert!(usize::BITS == 64, "slots are for machines of 64 bits");
const _: () = assert!(STAMP_MASK < 1 << ADDRESS_AT && ADDRESS_BITS - ALIGN.trailing_zeros() + ADDRESS_AT == 64);

/// A moment of use on a clock that goes round; what a tick is, `eviction` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Stamp(u16);

impl Stamp {
    /// Ticks in a round.
    pub(in crate::storage) const COUNT: u16 = 1 << 11;

    /// The moment `ticks` later.
    pub(in crate::storage) fn after(self, ticks: u16) -> Self {
        Self(self.0.wrapping_add(ticks) % Self::COUNT)
    }

    /// Ticks from here to `now`, up to the length of a round.
    pub(in crate::storage) fn age(self, now: Self) -> u16 {
        now.0.wrapping_sub(self.0) % Self::COUNT
    }
}

/// See the file's head. A pointer rather than a number, for what it points to must stay reachable through it.
pub(in crate::storage) struct Slot(*mut u8);

// SAFETY: a slot owns its entry alone, as `Packed` does.
unsafe impl Send for Slot {}

impl Slot {
    /// Nothing, and nothing has been here since the table was built.
    pub(in crate::storage) const EMPTY: Self = Self(ptr::null_mut());

    /// An entry in a slot.
    ///
    /// # Panics
    /// If the allocator gave an address of more than 48 bits.
    pub(in crate::storage) fn holding(entry: Packed, tag: u8, stamp: Stamp) -> Self {
        let deadline = if entry.get().flags() & DEADLINE != 0 { DEADLINE_BIT } else { 0 };
        let low = usize::from(tag) | deadline | usize::from(stamp.0) << STAMP_AT;
        Self(packed_address(entry.into_raw()).map_addr(|address| address | low))
    }

    fn entry_at(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.0.map_addr(|word| (word >> ADDRESS_AT) << ALIGN.trailing_zeros()))
    }

    /// The entry.
    pub(in crate::storage) fn get(&self) -> Option<PackedRef<'_>> {
        // SAFETY: a slot with an address owns the entry there, and is borrowed as long as the entry.
        self.entry_at().map(|at| unsafe { PackedRef::new(at) })
    }

    /// Whether it holds an entry.
    pub(in crate::storage) fn is_full(&self) -> bool {
        self.0.addr() >> ADDRESS_AT != 0
    }

    /// Whether nothing has been here since the table was built.
    pub(in crate::storage) fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    /// Whether an entry here has this tag; one without an entry may say yes.
    pub(in crate::storage) fn has_tag(&self, tag: u8) -> bool {
        self.0.addr() & TAG_MASK == usize::from(tag)
    }

    /// Whether the entry here has a deadline.
    pub(in crate::storage) fn has_deadline(&self) -> bool {
        self.is_full() && self.0.addr() & DEADLINE_BIT != 0
    }

    /// When the entry here was used last.
    pub(in crate::storage) fn stamp(&self) -> Stamp {
        Stamp(((self.0.addr() & STAMP_MASK) >> STAMP_AT) as u16)
    }

    /// Notes a use; whether that is news. What is not news is not written, so that reading a hot key writes nothing.
    pub(in crate::storage) fn stamp_with(&mut self, stamp: Stamp) -> bool {
        let news = self.stamp() != stamp;
        if news {
            self.0 = self.0.map_addr(|word| word & !STAMP_MASK | usize::from(stamp.0) << STAMP_AT);
        }
        news
    }

    /// Takes the entry out, as if nothing had ever been here.
    pub(in crate::storage) fn clear(&mut self) -> Option<Packed> {
        self.leave(ptr::null_mut())
    }

    /// Takes the entry out and leaves a mark.
    pub(in crate::storage) fn erase(&mut self) -> Option<Packed> {
        self.leave(ptr::without_provenance_mut(ERASED))
    }

    /// Takes the entry out and puts `word`, which has no address, in its place.
    fn leave(&mut self, word: *mut u8) -> Option<Packed> {
        let at = self.entry_at();
        self.0 = word;
        // SAFETY: the slot owned the entry and has just forgotten it.
        at.map(|at| unsafe { Packed::from_raw(at) })
    }

    /// Asks the processor to fetch the entry: header, key and the beginning of its value.
    pub(in crate::storage) fn prefetch(&self) {
        if let Some(at) = self.entry_at() {
            prefetch(at.as_ptr());
            prefetch(at.as_ptr().wrapping_add(CACHE_LINE));
        }
    }

    /// Replaces the content under the same key, in place when the size class stays.
    ///
    /// # Panics
    /// If there is no entry.
    pub(in crate::storage) fn overwrite(&mut self, content: &Content<'_>) {
        let entry = self.get().expect("what is overwritten is there");
        let old = entry.shape();
        let new = Shape::of(old.key_len, content);
        if old.key_at == new.key_at && old.memory() == new.memory() {
            let at = entry.at;
            // SAFETY: `&mut self` ends every borrow from the entry, `content`'s included, so nothing reads it; the layout fits both shapes,
            // and the key stays where it is.
            unsafe {
                drop_shared(at, &old);
                write_header(at, &new, content);
                write_body(at, &new, content);
            }
        } else {
            let replacement = Packed::new(entry.key(), content);
            self.replace(replacement);
        }
        self.note_deadline(content.has_deadline());
    }

    /// Notes that the entry here was read as an item; whether it had been before. What is no news is not written.
    pub(in crate::storage) fn note_hit(&mut self) -> bool {
        let Some(at) = self.entry_at() else { return false };
        // SAFETY: the slot owns the entry, which has a whole header, and `&mut self` ends every borrow from it.
        unsafe {
            let flags = at.add(FLAGS_AT).read();
            if flags & HIT == 0 {
                at.add(FLAGS_AT).write(flags | HIT);
            }
            flags & HIT != 0
        }
    }

    /// Changes version and deadline and keeps the value.
    ///
    /// # Panics
    /// If there is no entry, or it is a tombstone.
    pub(in crate::storage) fn restamp(&mut self, version: Version, deadline: Option<UnixMs>) {
        let entry = self.get().expect("what is restamped is there");
        let ContentBody::Live { value, marks, .. } = entry.content().body else {
            unreachable!("tombstones have no deadline")
        };
        let content = Content { version, body: ContentBody::Live { value, deadline, marks } };
        let (shape, new, was_hit) = (entry.shape(), Shape::of(entry.key().len(), &content), entry.was_hit());
        if shape == new {
            let at = entry.at;
            // SAFETY: as in `overwrite`; the shapes are equal, so only the header and a deadline differ.
            unsafe {
                write_header(at, &new, &Content { version, body: ContentBody::Tombstone });
                if let Some(deadline) = deadline {
                    at.add(new.key_at + new.key_len).cast().write(deadline.to_le_bytes());
                }
            }
        } else {
            let replacement = Packed::new(entry.key(), &content);
            self.replace(replacement);
        }
        self.note_deadline(deadline.is_some());
        if was_hit {
            self.note_hit();
        }
    }

    /// Puts another entry of the same key in the place of the present one, which is freed.
    fn replace(&mut self, replacement: Packed) {
        let low = self.0.addr() & ((1 << ADDRESS_AT) - 1);
        let replaced = self.clear();
        self.0 = packed_address(replacement.into_raw()).map_addr(|address| address | low);
        drop(replaced);
    }

    fn note_deadline(&mut self, is_some: bool) {
        let bit = if is_some { DEADLINE_BIT } else { 0 };
        self.0 = self.0.map_addr(|word| word & !DEADLINE_BIT | bit);
    }
}

/// An address moved to the place it has in a slot.
fn packed_address(at: NonNull<u8>) -> *mut u8 {
    let address = at.addr().get();
    assert!(address >> ADDRESS_BITS == 0 && address.is_multiple_of(ALIGN), "the allocator gives addresses of 48 bits");
    at.as_ptr().map_addr(|address| address << (ADDRESS_AT - ALIGN.trailing_zeros()))
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.clear());
    }
}
