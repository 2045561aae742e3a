//! Executes one operation as Redis 7 does: one file per family of acts. Parses nothing, encodes nothing. Compared with redis-server in
//! `storage::tests`.

mod bit;
mod condition;
mod deadline;
mod describe;
mod item;
mod number;
mod read;
mod steps;
mod string;

use std::borrow::Cow;

use crate::base::counters::Counter;
use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::{UnixMs, Version};
use crate::base::marks::Marks;
use crate::base::op::{Act, Op, Renaming};
use crate::base::reply::{ReplyRef, ReplySink};

use super::ahead::Aim;
use super::entries::Key;
use super::packed::{ContentBody, PackedRef, Value};
use super::store::{OutOfMemory, Store};
use condition::Condition;
pub(super) use steps::Hand;

pub(super) const OVERFLOW: &str = "ERR increment or decrement would overflow";
pub(super) const NOT_A_FLOAT: &str = "ERR value is not a valid float";
pub(super) const NOT_FINITE: &str = "ERR increment would produce NaN or Infinity";
/// The refusal of an operation of a peer whose value does not have the form its act asks for.
const MALFORMED: &str = "ERR malformed operation";
pub(super) const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// Told of every change, with the key and what it holds now.
pub(super) trait Mutated: FnMut(&[u8], EntryRef<'_>) {}
impl<F: FnMut(&[u8], EntryRef<'_>)> Mutated for F {}

/// One operation on its way: which table, which key, when.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    table: usize,
    key: Key<'a>,
    now: UnixMs,
}

impl Store {
    /// Executes `op` at `now`, gives one answer to `sink`, and tells `mutated` what the key holds now if it changed: the value or tombstone to
    /// replicate, under its new version. An error reply means that nothing changed.
    pub fn execute(
        &mut self,
        op: &Op,
        now: UnixMs,
        sink: &mut impl ReplySink,
        mutated: &mut impl FnMut(&[u8], EntryRef<'_>),
    ) {
        let (table, key) = self.find(&op.key);
        self.execute_at(Aim { table: table as u32, hash: key.hash }, op, now, sink, mutated);
    }

    /// As [`Store::execute`], with what [`Store::aim`] said of this operation.
    pub fn execute_at(
        &mut self,
        aim: Aim,
        op: &Op,
        now: UnixMs,
        sink: &mut impl ReplySink,
        mutated: &mut impl FnMut(&[u8], EntryRef<'_>),
    ) {
        if self.notices.is_on() {
            self.execute_noticed(aim, op, now, sink, mutated);
        } else {
            self.execute_unnoticed(aim, op, now, sink, mutated);
        }
    }

    /// As [`Store::execute_at`], where nobody wants to hear of it.
    #[inline]
    pub(super) fn execute_unnoticed(
        &mut self,
        aim: Aim,
        op: &Op,
        now: UnixMs,
        sink: &mut impl ReplySink,
        mutated: &mut impl FnMut(&[u8], EntryRef<'_>),
    ) {
        let to = Target { table: aim.table as usize, key: Key { bytes: &op.key, hash: aim.hash }, now };
        match op.act {
            Act::Get => self.get(to, sink),
            Act::Exists => self.presence(to, false, sink),
            Act::Touch => self.presence(to, true, sink),
            Act::Type => self.kind(to, sink),
            Act::Strlen => self.strlen(to, sink),
            Act::GetRange { start, end } => self.get_range(to, start, end, sink),
            Act::Ttl { ms, absolute } => self.ttl(to, ms, absolute, sink),
            Act::Set { expiry, when, answer, flags } => {
                let condition = Condition::When(when);
                let set = string::Set { value: Value::Owned(&op.value), expiry, condition, answer, flags };
                self.set(to, set, sink, mutated);
            }
            Act::GetDel => self.get_del(to, sink, mutated),
            Act::GetEx { expiry } => self.get_ex(to, expiry, sink, mutated),
            Act::Delete | Act::Renaming(Renaming::Delete | Renaming::Depart) => self.del(to, sink, mutated),
            Act::Append => self.append(to, &op.value, sink, mutated),
            Act::SetRange { offset } => self.set_range(to, offset, &op.value, sink, mutated),
            Act::Incr { by } => self.incr(to, by, sink, mutated),
            Act::IncrFloat => self.incr_float(to, &op.value, sink, mutated),
            Act::Expire { at, when } => self.expire_at(to, at, when, sink, mutated),
            Act::Persist => self.persist(to, sink, mutated),
            Act::SetIf { expiry, comparison, answer, operand_bytes } => {
                let Some((operand, value)) = op.value.split_at_checked(operand_bytes as usize) else {
                    return sink.reply(error(MALFORMED));
                };
                let condition = Condition::If(comparison, operand);
                // The operand shares the value's buffer, which the store must not hold for it.
                let set = string::Set { value: Value::Copied(value), expiry, condition, answer, flags: 0 };
                self.set(to, set, sink, mutated);
            }
            Act::DeleteIf { comparison } => self.delete_if(to, comparison, &op.value, sink, mutated),
            Act::Digest => self.digest(to, sink),
            Act::GetBit { at } => self.get_bit(to, at, sink),
            Act::SetBit { at, on } => self.set_bit(to, (at, on), sink, mutated),
            Act::BitCount { start, end, unit } => self.bit_count(to, bit::BitRange { start, end, unit }, sink),
            Act::BitPos { on, open, start, end, unit } => {
                self.bit_position(to, (on, open), bit::BitRange { start, end, unit }, sink);
            }
            Act::BitField | Act::BitFieldGet => self.bit_field(to, &op.value, sink, mutated),
            Act::Describe { aspect } => self.describe(to, aspect, sink),
            Act::Look => self.look(to, sink),
            Act::Unchanged { since } => self.unchanged(to, since, sink),
            Act::Absent { skip } => self.absent(to, skip, sink),
            Act::Whole => self.whole(to, sink),
            Act::Load { skip } | Act::Renaming(Renaming::Load { skip }) => self.load(to, skip, sink),
            Act::Fold(how) => self.fold(to, how, sink),
            Act::Unload { skip } | Act::Renaming(Renaming::Unload { skip }) => self.unload(to, skip, sink, mutated),
            Act::Item(act) => self.item(to, act, &op.value, sink, mutated),
        }
    }

    /// The value, counted as a use.
    fn value(&mut self, to: Target<'_>) -> Option<PackedRef<'_>> {
        self.read(to.table, to.key, to.now, true)
    }

    /// The value, read by a command that does not count as a use.
    fn glance(&mut self, to: Target<'_>) -> Option<PackedRef<'_>> {
        self.read(to.table, to.key, to.now, false)
    }

    fn count_lookup(&mut self, hit: bool) {
        self.counters.inc(if hit { Counter::Hits } else { Counter::Misses });
    }

    /// Stores a value and tells of it. A deadline already past deletes instead.
    fn store(
        &mut self,
        to: Target<'_>,
        value: Value<'_>,
        deadline: Option<UnixMs>,
        flags: u32,
        mutated: &mut impl Mutated,
    ) -> Result<(), OutOfMemory> {
        if deadline.is_some_and(|deadline| deadline <= to.now) {
            self.remove(to, mutated);
            return Ok(());
        }
        let marks = Marks::of(flags);
        let version = self.write(to.table, to.key, ContentBody::Live { value, deadline, marks }, to.now)?;
        mutated(to.key.bytes, EntryRef { version, body: BodyRef::Live { value: value.bytes(), deadline, marks } });
        Ok(())
    }

    /// Deletes and tells of it.
    fn remove(&mut self, to: Target<'_>, mutated: &mut impl Mutated) {
        let version = self.delete(to.table, to.key, to.now);
        mutated(to.key.bytes, EntryRef { version, body: BodyRef::Tombstone });
    }

    /// Changes the deadline of a value that is there, and tells of it. One already past deletes.
    fn set_deadline(&mut self, to: Target<'_>, deadline: Option<UnixMs>, mutated: &mut impl Mutated) {
        if deadline.is_some_and(|deadline| deadline <= to.now) {
            return self.remove(to, mutated);
        }
        let table = &mut self.tables[to.table];
        let seen = table.version(to.key).unwrap_or(Version::ZERO);
        table.restamp(to.key, self.hlc.stamp(to.now, seen), deadline, &mut self.tally);
        if let Some(live) = self.tables[to.table].peek(to.key) {
            mutated(to.key.bytes, live.entry());
        }
    }
}

/// The reply that carries a value, shared when it is large.
fn bulk(live: PackedRef<'_>) -> ReplyRef<'_> {
    live.shared().map_or_else(|| ReplyRef::Bulk(live.value()), ReplyRef::Shared)
}

fn error(text: &'static str) -> ReplyRef<'static> {
    ReplyRef::Error(Cow::Borrowed(text))
}
