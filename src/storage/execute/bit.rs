//! Acts on bits and on integers at any offset. What bits are is in `storage::bits`; never parses. Compared with redis-server in
//! `storage::tests`.

use bytes::Bytes;

use super::{MALFORMED, Mutated, OUT_OF_MEMORY, Target, error};
use crate::base::bitfield;
use crate::base::op::BitUnit;
use crate::base::reply::{ReplyRef, ReplySink, TOO_LONG};
use crate::storage::bits;
use crate::storage::packed::Value;
use crate::storage::store::{OutOfMemory, Store};

/// A field that begins within the longest string may reach so far past its end, as in Redis; frames have room for it.
const FIELD_BYTES_MAX: usize = 8;

/// The bits a `BITCOUNT` or a `BITPOS` looks at.
#[derive(Clone, Copy)]
pub(super) struct BitRange {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) unit: BitUnit,
}

impl Store {
    pub(super) fn get_bit(&mut self, to: Target<'_>, at: u64, sink: &mut impl ReplySink) {
        let found = self.value(to).map(|live| bits::bit(live.value(), at));
        self.count_lookup(found.is_some());
        sink.reply(ReplyRef::Int(i64::from(found.unwrap_or(false))));
    }

    pub(super) fn set_bit(
        &mut self,
        to: Target<'_>,
        (at, on): (u64, bool),
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        let Some(end) = self.within_bound(at / 8 + 1, 0) else { return sink.reply(error(TOO_LONG)) };
        let old = self.glance(to).map(|live| (live.value().len(), bits::bit(live.value(), at)));
        let was = old.is_some_and(|(_, bit)| bit);
        let changes = was != on || old.is_none_or(|(len, _)| len < end);
        if changes {
            let mut taken = self.take_grown(to, end);
            bits::set_bit(&mut taken.value, at, on);
            let value = Bytes::from(taken.value);
            let stored = self.store(to, Value::Owned(&value), taken.deadline, taken.flags, mutated);
            if stored == Err(OutOfMemory) {
                return sink.reply(error(OUT_OF_MEMORY));
            }
        }
        sink.reply(ReplyRef::Int(i64::from(was)));
    }

    pub(super) fn bit_count(&mut self, to: Target<'_>, range: BitRange, sink: &mut impl ReplySink) {
        let BitRange { start, end, unit } = range;
        // Both before the string, and the wrong way round: none, where other such ranges are moved to its first byte.
        let reversed = start < 0 && end < 0 && start > end;
        let count = self.value(to).map(|live| {
            let value = live.value();
            let span = bits::span(value.len(), start, end, unit).filter(|_| !reversed);
            span.map_or(0, |span| bits::count(value, &span))
        });
        self.count_lookup(count.is_some());
        sink.reply(ReplyRef::Int(count.unwrap_or(0).cast_signed()));
    }

    /// `open`: no end was named, and the string goes on in zeros.
    pub(super) fn bit_position(
        &mut self,
        to: Target<'_>,
        (on, open): (bool, bool),
        range: BitRange,
        sink: &mut impl ReplySink,
    ) {
        let found = self.value(to).map(|live| {
            let value = live.value();
            let span = bits::span(value.len(), range.start, range.end, range.unit)?;
            bits::position(value, on, &span).or_else(|| (!on && open).then_some(span.end))
        });
        self.count_lookup(found.is_some());
        let nothing = if on { -1 } else { 0 };
        let position = |at: Option<u64>| at.map_or(-1, u64::cast_signed);
        sink.reply(ReplyRef::Int(found.map_or(nothing, position)));
    }

    /// `BITFIELD`: its operations in order, none or all of them seen by others.
    pub(super) fn bit_field(
        &mut self,
        to: Target<'_>,
        operations: &[u8],
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        let Some(fields) = bitfield::decode(operations) else { return sink.reply(error(MALFORMED)) };
        let reach = fields.iter().filter(|field| field.writes()).map(bitfield::Field::end_bytes).max();
        let Some(reach) = reach else {
            let answers: Option<Vec<_>> =
                self.value(to).map(|live| fields.iter().map(|field| Some(bits::read(field, live.value()))).collect());
            self.count_lookup(answers.is_some());
            return sink.reply(ReplyRef::Ints(&answers.unwrap_or_else(|| vec![Some(0); fields.len()])));
        };
        let Some(end) = self.within_bound(reach, FIELD_BYTES_MAX) else { return sink.reply(error(TOO_LONG)) };
        let present = self.glance(to).map(|live| live.value().len());
        let mut taken = self.take_grown(to, end);
        // As in Redis the string grows to the farthest write, even if that fails.
        let mut changed = present.is_none_or(|len| len < end);
        let mut answers = Vec::with_capacity(fields.len());
        for field in &fields {
            let (answer, changes) = bits::apply(field, &mut taken.value);
            answers.push(answer);
            changed |= changes;
        }
        if changed {
            let value = Bytes::from(taken.value);
            let stored = self.store(to, Value::Owned(&value), taken.deadline, taken.flags, mutated);
            if stored == Err(OutOfMemory) {
                return sink.reply(error(OUT_OF_MEMORY));
            }
        }
        sink.reply(ReplyRef::Ints(&answers));
    }

    /// A length that a string may have, with so much on top.
    fn within_bound(&self, bytes: u64, more: usize) -> Option<usize> {
        usize::try_from(bytes).ok().filter(|bytes| *bytes <= self.config.value_bytes_max + more)
    }
}
