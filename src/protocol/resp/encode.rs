//! Answers to bytes. [`ReplyBuf`] is the one place that encodes what stores answer; it keeps where each reply ends and what it was, so
//! that a router can reorder replies, add them up or build arrays of them without decoding. Never interprets. Tested in `encode/tests.rs`.

use std::ops::Range;

use bytes::{Buf, Bytes};

use super::super::item::{self, Answer, Content};
use super::value::Value;
use crate::base::item::{ItemReply, ItemValue};
use crate::base::limits::LARGE_VALUE_BYTES;
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink, Wire};

#[cfg(test)]
mod tests;

/// Capacity kept by [`ReplyBuf::clear`]; what a burst took beyond is given back.
const KEPT_BYTES: usize = 256 * 1024;
/// Less that was written is not worth letting go of.
const RELEASED_MIN: usize = 4 * 1024;

/// What a short reply takes, the value of a small key included.
const SHORT_REPLY_BYTES: usize = 80;
/// Replies that room is made for beforehand.
const ROOM_REPLIES_MAX: usize = 64;

/// Encoded replies: a buffer, with large shared values spliced in rather than copied. As a [`Buf`] it is what remains to be written; what
/// was written is let go of as it goes on.
#[derive(Debug, Default)]
pub struct ReplyBuf {
    wire: Wire,
    bytes: Vec<u8>,
    splices: Vec<Splice>,
    /// Of the splices that are still held.
    spliced_bytes: usize,
    marks: Vec<Mark>,
    written: Position,
}

/// A shared value that goes out before `bytes[before]`.
#[derive(Clone, Debug)]
struct Splice {
    before: usize,
    value: Bytes,
}

/// Where a reply ends, in `bytes` and in `splices`, and what it is.
#[derive(Clone, Copy, Debug)]
struct Mark {
    end: Position,
    kind: ReplyKind,
}

/// A place between two bytes of the whole: `bytes` before it, `splices` before it, and how far into the next splice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    bytes: usize,
    splices: usize,
    into: usize,
}

impl ReplyBuf {
    /// An empty buffer for `wire`.
    pub fn new(wire: Wire) -> Self {
        Self { wire, ..Self::default() }
    }

    /// An empty buffer that need not grow for so many short replies: growing it costs more than encoding them.
    pub fn with_room(wire: Wire, replies: usize) -> Self {
        let bytes = Vec::with_capacity(replies.min(ROOM_REPLIES_MAX) * SHORT_REPLY_BYTES);
        Self { wire, bytes, marks: Vec::with_capacity(replies), ..Self::default() }
    }

    /// How it encodes.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Changes how the following replies are encoded (`HELLO`).
    pub fn set_wire(&mut self, wire: Wire) {
        self.wire = wire;
    }

    /// Replies it holds.
    pub fn replies(&self) -> usize {
        self.marks.len()
    }

    /// What reply `index` is, or `None` when there are fewer.
    pub fn kind(&self, index: usize) -> Option<ReplyKind> {
        Some(self.marks.get(index)?.kind)
    }

    /// What would be free memory without it: its buffers, and the values that nobody else holds.
    pub fn held_bytes(&self) -> usize {
        let alone = self.splices[self.written.splices..].iter().filter(|splice| splice.value.is_unique());
        let values: usize = alone.map(|splice| splice.value.len()).sum();
        self.bytes.len() + self.marks.len() * size_of::<Mark>() + values
    }

    /// Bytes it holds outside shared values.
    pub fn copied_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Lets go of what was written, once that is as much as the rest: so each byte is moved once at most. Replies written in full are
    /// forgotten, and the others have their indices moved down.
    fn release(&mut self) {
        let Position { bytes, splices, .. } = self.written;
        let cost = |bytes, splices| bytes + splices * size_of::<Splice>();
        let (gone, all) = (cost(bytes, splices), cost(self.bytes.len(), self.splices.len()));
        if gone < RELEASED_MIN || gone < all / 2 {
            return;
        }
        self.bytes.drain(..bytes);
        self.bytes.shrink_to((2 * self.bytes.len()).max(KEPT_BYTES));
        self.splices.drain(..splices);
        self.splices.iter_mut().for_each(|splice| splice.before -= bytes);
        let done = self.marks.partition_point(|mark| mark.end.bytes <= bytes && mark.end.splices <= splices);
        self.marks.drain(..done);
        for mark in &mut self.marks {
            mark.end.bytes -= bytes;
            mark.end.splices -= splices;
        }
        self.marks.shrink_to((2 * self.marks.len()).max(KEPT_BYTES / size_of::<Mark>()));
        (self.written.bytes, self.written.splices) = (0, 0);
    }

    /// Empties it for the next batch.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.splices.clear();
        self.spliced_bytes = 0;
        self.marks.clear();
        self.marks.shrink_to(KEPT_BYTES / size_of::<Mark>());
        self.written = Position::default();
    }

    /// Appends an answer of the connection itself.
    pub fn push_value(&mut self, value: &Value) {
        value.encode(self.wire, &mut self.bytes);
        self.close(value.kind());
    }

    /// Appends an error line, without `-` or line end.
    pub fn push_error(&mut self, text: &[u8]) {
        line(&mut self.bytes, b'-', text);
        self.close(ReplyKind::Error);
    }

    /// Appends a reply another node has encoded for the same wire. Large ones are shared, not copied.
    pub fn push_encoded(&mut self, encoded: Bytes, kind: ReplyKind) {
        if encoded.len() < LARGE_VALUE_BYTES {
            self.bytes.extend_from_slice(&encoded);
        } else {
            self.splice(encoded);
        }
        self.close(kind);
    }

    /// Appends the replies `range` of `other`.
    ///
    /// # Panics
    /// When `other` holds fewer.
    pub fn append(&mut self, other: &Self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let (from, to) = (other.start(range.start), other.marks[range.end - 1].end);
        let (bytes_base, splices_base) = (self.bytes.len(), self.splices.len());
        self.copy(other, from, to);
        self.marks.extend(other.marks[range].iter().map(|mark| Mark {
            end: Position {
                bytes: mark.end.bytes - from.bytes + bytes_base,
                splices: mark.end.splices - from.splices + splices_base,
                into: 0,
            },
            kind: mark.kind,
        }));
    }

    /// Appends all of `other`, taking over its memory when this one is empty.
    pub fn append_all(&mut self, mut other: Self) {
        if self.bytes.is_empty() && self.splices.is_empty() && other.written == Position::default() {
            other.wire = self.wire;
            *self = other;
        } else {
            let replies = other.replies();
            self.append(&other, 0..replies);
        }
    }

    /// Appends to a reply that [`Self::close`] will end.
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The same, of a value that is too large to be copied.
    pub fn write_shared(&mut self, value: Bytes) {
        self.splice(value);
    }

    /// Begins an array of `len` elements; [`Self::element`]s and [`Self::close`] follow.
    pub fn open_array(&mut self, len: usize) {
        header(&mut self.bytes, b'*', len);
    }

    /// Appends reply `index` of `other` as an element of the array under way.
    ///
    /// # Panics
    /// When `other` holds fewer.
    pub fn element(&mut self, other: &Self, index: usize) {
        self.copy(other, other.start(index), other.marks[index].end);
    }

    /// Appends the replies `range` of `other` as elements of the array under way.
    ///
    /// # Panics
    /// When `other` holds fewer.
    pub fn elements(&mut self, other: &Self, range: Range<usize>) {
        if let Some(last) = range.clone().next_back() {
            self.copy(other, other.start(range.start), other.marks[last].end);
        }
    }

    /// Appends what stands for an array that is not there.
    pub fn push_null_array(&mut self) {
        self.bytes.extend_from_slice(match self.wire {
            Wire::Resp2 => b"*-1\r\n",
            wire => null(wire),
        });
        self.close(ReplyKind::Null);
    }

    /// Ends a reply begun with [`Self::open_array`].
    pub fn close(&mut self, kind: ReplyKind) {
        let end = Position { bytes: self.bytes.len(), splices: self.splices.len(), into: 0 };
        self.marks.push(Mark { end, kind });
    }

    /// The encoded bytes of the replies `range`, piece by piece, for another wire to carry.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn slices(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let from = self.start(range.start);
        let to = if range.is_empty() { from } else { self.marks[range.end - 1].end };
        self.between(from, to)
    }

    /// Length in bytes of the replies `range`.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn slices_len(&self, range: Range<usize>) -> usize {
        self.slices(range).map(<[u8]>::len).sum()
    }

    fn start(&self, index: usize) -> Position {
        index.checked_sub(1).map_or_else(Position::default, |before| self.marks[before].end)
    }

    fn copy(&mut self, other: &Self, from: Position, to: Position) {
        let base = self.bytes.len();
        for splice in &other.splices[from.splices..to.splices] {
            self.splices.push(Splice { before: splice.before - from.bytes + base, value: splice.value.clone() });
            self.spliced_bytes += splice.value.len();
        }
        self.bytes.extend_from_slice(&other.bytes[from.bytes..to.bytes]);
    }

    fn splice(&mut self, value: Bytes) {
        self.spliced_bytes += value.len();
        self.splices.push(Splice { before: self.bytes.len(), value });
    }

    /// The pieces from one position to another, in order.
    fn between(&self, from: Position, to: Position) -> impl Iterator<Item = &[u8]> {
        let mut at = from;
        std::iter::from_fn(move || {
            while at != to {
                let piece = self.piece(at, to);
                at = self.after(at, piece.len());
                if !piece.is_empty() {
                    return Some(piece);
                }
            }
            None
        })
    }

    /// The longest contiguous piece at `at`, not beyond `to`; empty only where two pieces meet.
    fn piece(&self, at: Position, to: Position) -> &[u8] {
        match self.splices.get(at.splices).filter(|_| at.splices < to.splices) {
            Some(splice) if splice.before == at.bytes => &splice.value[at.into..],
            Some(splice) => &self.bytes[at.bytes..splice.before],
            None => &self.bytes[at.bytes..to.bytes],
        }
    }

    /// `at` moved on by `taken` bytes of the piece there.
    fn after(&self, mut at: Position, taken: usize) -> Position {
        match self.splices.get(at.splices) {
            Some(splice) if splice.before == at.bytes => {
                at.into += taken;
                if at.into == splice.value.len() {
                    at.into = 0;
                    at.splices += 1;
                }
            }
            _ => at.bytes += taken,
        }
        at
    }

    /// Reply `index`, read as an answer about an item. Large values are shared.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn answer(&self, index: usize) -> Answer<'_> {
        let (from, to) = (self.start(index), self.marks[index].end);
        let head = self.between(from, to).next().unwrap_or_default();
        let at = from;
        item::read(head, |value_at| {
            // A reply of another node is one piece, shared if it is large; the value of an item here is a piece of its own then.
            match self.splices.get(at.splices).filter(|_| at.splices < to.splices) {
                Some(splice) if splice.before == at.bytes => Content::Shared(splice.value.slice(value_at..)),
                Some(splice) => Content::Shared(splice.value.clone()),
                None => Content::Copied(&head[value_at..]),
            }
        })
    }

    fn item(&mut self, reply: &ItemReply<ItemValue<'_>>) {
        if self.wire != Wire::Item {
            // Whoever speaks RESP asks for no items; it gets what it can read.
            return match &reply.value {
                Some(ItemValue::Copied(value)) => bulk(&mut self.bytes, value),
                Some(ItemValue::Shared(value)) => bulk(&mut self.bytes, value),
                None => self.bytes.extend_from_slice(null(self.wire)),
            };
        }
        item::put_head(reply, &mut self.bytes);
        match &reply.value {
            None => {}
            Some(ItemValue::Shared(value)) if value.len() >= LARGE_VALUE_BYTES => self.splice((*value).clone()),
            Some(ItemValue::Shared(value)) => self.bytes.extend_from_slice(value),
            Some(ItemValue::Copied(value)) => self.bytes.extend_from_slice(value),
        }
    }

    fn end(&self) -> Position {
        Position { bytes: self.bytes.len(), splices: self.splices.len(), into: 0 }
    }
}

impl ReplySink for ReplyBuf {
    #[inline]
    fn reply(&mut self, reply: ReplyRef<'_>) {
        let kind = reply.kind();
        match reply {
            ReplyRef::Ok => self.bytes.extend_from_slice(b"+OK\r\n"),
            ReplyRef::Null => self.bytes.extend_from_slice(null(self.wire)),
            ReplyRef::Int(n) => integer(&mut self.bytes, n),
            ReplyRef::Bulk(value) => bulk(&mut self.bytes, value),
            ReplyRef::Shared(value) if value.len() < LARGE_VALUE_BYTES => bulk(&mut self.bytes, value),
            ReplyRef::Shared(value) => {
                header(&mut self.bytes, b'$', value.len());
                self.splice(value.clone());
                self.bytes.extend_from_slice(b"\r\n");
            }
            ReplyRef::Ints(ints) => {
                header(&mut self.bytes, b'*', ints.len());
                for int in ints {
                    match int {
                        Some(n) => integer(&mut self.bytes, *n),
                        None => self.bytes.extend_from_slice(null(self.wire)),
                    }
                }
            }
            ReplyRef::Simple(text) => line(&mut self.bytes, b'+', text.as_bytes()),
            ReplyRef::Error(text) => line(&mut self.bytes, b'-', text.as_bytes()),
            ReplyRef::Item(item) => self.item(item),
        }
        self.close(kind);
    }
}

impl Buf for ReplyBuf {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.written.bytes + self.spliced_bytes - self.written.into
    }

    fn has_remaining(&self) -> bool {
        self.written != self.end()
    }

    fn chunk(&self) -> &[u8] {
        self.between(self.written, self.end()).next().unwrap_or(&[])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let pieces = self.between(self.written, self.end());
        slices.iter_mut().zip(pieces).map(|(slot, piece)| *slot = std::io::IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        let end = self.end();
        while count > 0 {
            assert!(self.written != end, "advanced beyond the end");
            let taken = self.piece(self.written, end).len().min(count);
            let before = self.written.splices;
            self.written = self.after(self.written, taken);
            count -= taken;
            if self.written.splices > before {
                self.spliced_bytes -= std::mem::take(&mut self.splices[before].value).len();
            }
        }
        self.release();
    }
}

/// No value.
pub(super) fn null(wire: Wire) -> &'static [u8] {
    match wire {
        Wire::Resp2 => b"$-1\r\n",
        Wire::Resp3 | Wire::Item => b"_\r\n",
    }
}

/// `:n`.
#[inline]
pub(super) fn integer(out: &mut Vec<u8>, n: i64) {
    line(out, b':', itoa::Buffer::new().format(n).as_bytes());
}

/// A type byte, a length, a line end.
#[inline]
pub(super) fn header(out: &mut Vec<u8>, kind: u8, len: usize) {
    line(out, kind, itoa::Buffer::new().format(len).as_bytes());
}

/// `$len`, then the bytes.
#[inline]
pub(super) fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    // The longest header is `$`, twenty digits and two line ends.
    out.reserve(value.len() + 25);
    header(out, b'$', value.len());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A type byte, text, a line end.
#[inline]
pub(super) fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.reserve(text.len() + 3);
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}
