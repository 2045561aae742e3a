//! Acts on whole items, on conditions: what memcached's meta commands ask, and with them HTTP and clients that know versions. After
//! memcached 1.6's `do_store_item`, `do_add_delta` and the handlers of its meta commands. Compared with it in `storage::tests::items` and by
//! `tests/clients/differential_memcached.py`.
//!
//! Where memcached changes an item and leaves its CAS unique alone (a touch, a promise), the entry gets a new version, because replicas
//! must agree, and keeps the number as its own.

use std::num::NonZeroU64;

use bytes::Bytes;

use super::{Mutated, OUT_OF_MEMORY, Target, error};
use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::{UnixMs, Version};
use crate::base::item::{ItemAct, ItemOutcome, ItemReply, ItemTerms, ItemValue, Mode, Only, cas_unique};
use crate::base::marks::Marks;
use crate::base::number::{unsigned_prefix, unsigned_text};
use crate::base::op::{Expiry, absolute};
use crate::base::reply::{ReplyRef, ReplySink};
use crate::storage::packed::{ContentBody, PackedRef, Value};
use crate::storage::store::{OutOfMemory, Store};

const MALFORMED: &str = "ERR malformed terms of an item";

/// An item taken out to be changed.
struct Present {
    value: Bytes,
    was_hit: bool,
    state: State,
}

/// What an item is, apart from its value.
#[derive(Clone, Copy)]
struct State {
    version: Version,
    deadline: Option<UnixMs>,
    marks: Marks,
}

impl State {
    fn of(live: PackedRef<'_>) -> Self {
        Self { version: live.version(), deadline: live.deadline(), marks: live.marks() }
    }

    fn cas(&self) -> u64 {
        cas_unique(self.version, self.marks)
    }

    /// Its marks, with the CAS unique it has now as its own.
    fn with_its_cas(&self) -> Marks {
        Marks { cas: NonZeroU64::new(self.cas()), ..self.marks }
    }

    fn is(&self, only: Only) -> bool {
        match only {
            Only::Cas(cas) => cas == self.cas(),
            Only::Version(version) => version == self.version,
        }
    }

    /// Whether a CAS unique that is not this item's is one that it had before. It is, if it is any version's: only this key's earlier versions
    /// had it. Where clients give the numbers themselves, these decide.
    fn is_newer_than(&self, only: Only) -> bool {
        match (only, self.marks.cas) {
            (Only::Cas(cas), Some(own)) if own.get() != self.version.cas_unique() => cas < own.get(),
            (Only::Cas(cas), _) => cas >> 63 == 0,
            (Only::Version(_), _) => true,
        }
    }

    /// Whether it is to be promised to who asks with these terms, which give it this deadline.
    fn is_won(&self, terms: &ItemTerms, deadline: Option<UnixMs>, now: UnixMs) -> bool {
        let looked_at = if terms.recache_last { deadline } else { self.deadline };
        let is_due = match (terms.recache, looked_at) {
            (Some(before), Some(deadline)) => seconds_left(deadline, now) < seconds_left(absolute(before, now), now),
            _ => false,
        };
        !self.marks.is_promised && (self.marks.is_stale || is_due)
    }

    fn reply<'a>(&self, outcome: ItemOutcome, now: UnixMs) -> ItemReply<ItemValue<'a>> {
        ItemReply {
            version: self.version,
            marks: self.marks,
            ttl_ms: self.deadline.map(|deadline| deadline.saturating_sub(now)),
            age_ms: now.saturating_sub(self.version.unix_ms()),
            ..ItemReply::only(outcome)
        }
    }
}

/// A condition that memcached takes for none: no item has this number.
fn asked(only: Option<Only>) -> Option<Only> {
    only.filter(|only| *only != Only::Cas(0))
}

fn resolve(expiry: Expiry, present: Option<UnixMs>, now: UnixMs) -> Option<UnixMs> {
    match expiry {
        Expiry::Keep => present,
        Expiry::Clear => None,
        Expiry::Until(at) => Some(absolute(at, now)),
    }
}

/// Seconds left of a deadline as memcached counts them, which knows whole seconds only.
fn seconds_left(deadline: UnixMs, now: UnixMs) -> u64 {
    deadline.saturating_sub(now).div_ceil(1_000)
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("values are bounded far below 4 GiB")
}

impl Store {
    pub(super) fn item(
        &mut self,
        to: Target<'_>,
        act: ItemAct,
        value: &Bytes,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        match act {
            ItemAct::Read => return self.item_read(to, (true, false), sink),
            ItemAct::Peek => {
                let bare = ItemTerms::split(value).is_some_and(|(_, terms)| terms.bare);
                return self.item_read(to, (false, bare), sink);
            }
            _ => {}
        }
        let Some((data, terms)) = ItemTerms::split(value) else { return sink.reply(error(MALFORMED)) };
        let done = match act {
            ItemAct::Read | ItemAct::Peek => Ok(()),
            ItemAct::Fetch => self.item_fetch(to, (&terms, true), sink, mutated),
            ItemAct::Touch => self.item_fetch(to, (&terms, false), sink, mutated),
            ItemAct::Put => self.item_put(to, &data, &terms, sink, mutated),
            ItemAct::Store => self.item_store(to, &data, &terms, sink, mutated),
            ItemAct::Remove => self.item_remove(to, &terms, sink, mutated),
            ItemAct::Count => self.item_count(to, &terms, sink, mutated),
        };
        if let Err(OutOfMemory) = done {
            sink.reply(error(OUT_OF_MEMORY));
        }
    }

    fn item_read(&mut self, to: Target<'_>, (is_use, bare): (bool, bool), sink: &mut impl ReplySink) {
        let at = self.locate(to.table, to.key, to.now, is_use);
        self.count_lookup(at.is_some());
        let table = &mut self.tables[to.table];
        let Some((was_hit, live)) = at.and_then(|at| {
            let was_hit = if is_use { table.note_hit(at) } else { table.at(at)?.was_hit() };
            Some((was_hit, table.at(at)?))
        }) else {
            return sink.reply(ReplyRef::Null);
        };
        let value = || live.shared().map_or_else(|| ItemValue::Copied(live.value()), ItemValue::Shared);
        let reply = State::of(live).reply(ItemOutcome::Done, to.now);
        let (len, value) = (length(live.value()), (!bare).then(value));
        sink.reply(ReplyRef::Item(&ItemReply { was_hit, len, value, ..reply }));
    }

    fn item_fetch(
        &mut self,
        to: Target<'_>,
        (terms, promises): (&ItemTerms, bool),
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) -> Result<(), OutOfMemory> {
        let is_use = !terms.unseen;
        let state = self.glance(to).map(State::of);
        let (deadline, won) = match state {
            Some(state) => {
                let deadline = resolve(terms.expiry, state.deadline, to.now);
                (deadline, promises && state.is_won(terms, deadline, to.now))
            }
            None => (None, false),
        };
        match (state, terms.vivify) {
            (None, Some(expiry)) => return self.item_vivify(to, expiry, terms, sink, mutated),
            (Some(_), _) if won || terms.expiry != Expiry::Keep => {}
            _ => {
                self.item_read(to, (is_use, terms.bare), sink);
                return Ok(());
            }
        }
        if is_use {
            self.value(to);
        }
        let Some(Present { value, was_hit, state }) = self.present(to) else {
            unreachable!("it was there a moment ago");
        };
        self.count_lookup(true);
        let marks = state.with_its_cas();
        let after = Marks { is_promised: marks.is_promised || won, ..marks };
        let version = self.put_item(to, Value::Owned(&value), deadline, after, mutated)?;
        self.keep_hit(to, was_hit || is_use);
        let reply = ItemReply { version, marks, won, was_hit, ..state.reply(ItemOutcome::Done, to.now) };
        let (len, value) = (length(&value), (!terms.bare).then_some(ItemValue::Shared(&value)));
        sink.reply(ReplyRef::Item(&ItemReply { len, value, ..reply }));
        Ok(())
    }

    /// Makes an empty item where there is none, and promises it to who asked.
    fn item_vivify(
        &mut self,
        to: Target<'_>,
        expiry: Expiry,
        terms: &ItemTerms,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) -> Result<(), OutOfMemory> {
        self.count_lookup(false);
        let (deadline, marks) = (resolve(expiry, None, to.now), Marks { cas: terms.cas, ..Marks::default() });
        let promised = Marks { is_promised: true, ..marks };
        let version = self.put_item(to, Value::Copied(b""), deadline, promised, mutated)?;
        self.keep_hit(to, !terms.unseen);
        let reply = State { version, deadline, marks }.reply(ItemOutcome::Created, to.now);
        let value = (!terms.bare).then_some(ItemValue::Copied(b""));
        sink.reply(ReplyRef::Item(&ItemReply { won: true, value, ..reply }));
        Ok(())
    }

    fn item_put(
        &mut self,
        to: Target<'_>,
        data: &Bytes,
        terms: &ItemTerms,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) -> Result<(), OutOfMemory> {
        let deadline = resolve(terms.expiry, None, to.now);
        let marks = Marks { cas: terms.cas, ..Marks::of(terms.flags) };
        let version = self.put_item(to, Value::Owned(data), deadline, marks, mutated)?;
        let reply = State { version, deadline, marks }.reply(ItemOutcome::Done, to.now);
        sink.reply(ReplyRef::Item(&ItemReply { len: length(data), ..reply }));
        Ok(())
    }

    fn item_store(
        &mut self,
        to: Target<'_>,
        data: &Bytes,
        terms: &ItemTerms,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) -> Result<(), OutOfMemory> {
        let joins = matches!(terms.mode, Mode::Append | Mode::Prepend);
        let marks = Marks { cas: terms.cas, ..Marks::of(terms.flags) };
        let Some(state) = self.glance(to).map(State::of) else {
            let expiry = match (terms.mode, terms.only, terms.vivify) {
                (Mode::Set | Mode::Replace, Some(_), _) => return refuse(ItemOutcome::Missing, sink),
                (Mode::Set | Mode::Add, ..) => terms.expiry,
                (Mode::Append | Mode::Prepend, _, Some(expiry)) => expiry,
                (Mode::Replace | Mode::Append | Mode::Prepend, ..) => return refuse(ItemOutcome::NotStored, sink),
            };
            let deadline = resolve(expiry, None, to.now);
            let version = self.put_item(to, Value::Owned(data), deadline, marks, mutated)?;
            let reply = State { version, deadline, marks }.reply(ItemOutcome::Created, to.now);
            sink.reply(ReplyRef::Item(&ItemReply { len: length(data), ..reply }));
            return Ok(());
        };
        let (mut deadline, mut new_marks) = (resolve(terms.expiry, None, to.now), marks);
        match (terms.mode, terms.only) {
            (Mode::Add, _) => {
                // As in memcached, to find it there is a use of it.
                self.value(to);
                return refuse(ItemOutcome::NotStored, sink);
            }
            (Mode::Set | Mode::Replace, Some(only)) if !state.is(only) => {
                if !terms.stale || asked(terms.only).is_none() || !state.is_newer_than(only) {
                    return differs(state, to.now, sink);
                }
                deadline = state.deadline;
                new_marks = Marks { is_stale: true, is_promised: state.marks.is_promised, ..marks };
            }
            (Mode::Append | Mode::Prepend, only) => {
                if asked(only).is_some_and(|only| !state.is(only)) {
                    return differs(state, to.now, sink);
                }
                deadline = state.deadline;
                new_marks.flags = state.marks.flags;
            }
            (Mode::Set | Mode::Replace, _) => {}
        }
        let joined = if joins { Some(self.joined(to, data, terms)) } else { None };
        let value = match &joined {
            Some(None) => return refuse(ItemOutcome::NotStored, sink),
            Some(Some(joined)) => joined,
            None => data,
        };
        let version = self.put_item(to, Value::Owned(value), deadline, new_marks, mutated)?;
        let reply = State { version, deadline, marks: new_marks }.reply(ItemOutcome::Done, to.now);
        sink.reply(ReplyRef::Item(&ItemReply { len: length(value), ..reply }));
        Ok(())
    }

    /// The value there with `data` behind or before it; `None` when that is too long.
    fn joined(&mut self, to: Target<'_>, data: &Bytes, terms: &ItemTerms) -> Option<Bytes> {
        let limit = if terms.bytes_max > 0 { terms.bytes_max as usize } else { usize::MAX };
        let limit = limit.min(self.config.value_bytes_max);
        let live = self.glance(to)?;
        let (first, last): (&[u8], &[u8]) =
            if terms.mode == Mode::Append { (live.value(), data) } else { (data, live.value()) };
        (first.len() + last.len() <= limit).then(|| [first, last].concat().into())
    }

    fn item_remove(
        &mut self,
        to: Target<'_>,
        terms: &ItemTerms,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) -> Result<(), OutOfMemory> {
        let Some(state) = self.glance(to).map(State::of) else { return refuse(ItemOutcome::Missing, sink) };
        if terms.only.is_some_and(|only| !state.is(only)) {
            return differs(state, to.now, sink);
        }
        if !terms.strip && !terms.stale {
            self.remove(to, mutated);
            return refuse(ItemOutcome::Done, sink);
        }
        let Some(present) = self.present(to) else { return refuse(ItemOutcome::Missing, sink) };
        let (mut deadline, mut marks) = (state.deadline, state.marks);
        if terms.strip {
            (deadline, marks) = (None, Marks { cas: state.with_its_cas().cas, ..Marks::of(terms.flags) });
        }
        if terms.stale {
            marks = Marks { is_stale: true, is_promised: false, cas: None, ..marks };
        }
        marks.cas = terms.cas.or(marks.cas);
        deadline = resolve(terms.expiry, deadline, to.now);
        let value = if terms.strip { Bytes::new() } else { present.value };
        let version = self.put_item(to, Value::Owned(&value), deadline, marks, mutated)?;
        self.keep_hit(to, present.was_hit && !terms.strip);
        let reply = State { version, deadline, marks }.reply(ItemOutcome::Done, to.now);
        sink.reply(ReplyRef::Item(&ItemReply { len: length(&value), ..reply }));
        Ok(())
    }

    fn item_count(
        &mut self,
        to: Target<'_>,
        terms: &ItemTerms,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) -> Result<(), OutOfMemory> {
        let mut digits = [0; 20];
        let Some(present) = self.present(to) else {
            let Some(expiry) = terms.vivify else { return refuse(ItemOutcome::Missing, sink) };
            let text = unsigned_text(terms.initial, &mut digits);
            let (deadline, marks) = (resolve(expiry, None, to.now), Marks { cas: terms.cas, ..Marks::default() });
            let version = self.put_item(to, Value::Copied(text), deadline, marks, mutated)?;
            let reply = State { version, deadline, marks }.reply(ItemOutcome::Created, to.now);
            let value = (!terms.bare).then_some(ItemValue::Copied(text));
            sink.reply(ReplyRef::Item(&ItemReply { len: length(text), value, ..reply }));
            return Ok(());
        };
        let state = present.state;
        if present.value.is_empty() {
            return refuse(ItemOutcome::NotNumber, sink);
        }
        if asked(terms.only).is_some_and(|only| !state.is(only)) {
            return differs(state, to.now, sink);
        }
        let Some(number) = unsigned_prefix(&present.value) else { return refuse(ItemOutcome::NotNumber, sink) };
        let counted = if terms.down { number.saturating_sub(terms.delta) } else { number.wrapping_add(terms.delta) };
        let text = unsigned_text(counted, &mut digits);
        // A number that is no longer than what was there takes its place, with spaces behind it.
        let in_place = text.len() <= present.value.len();
        let mut padded = text.to_vec();
        padded.resize(text.len().max(present.value.len()), b' ');
        let kept = if in_place { state.marks } else { Marks::of(state.marks.flags) };
        let marks = Marks { cas: terms.cas, ..kept };
        let deadline = resolve(terms.expiry, state.deadline, to.now);
        let version = self.put_item(to, Value::Owned(&padded.into()), deadline, marks, mutated)?;
        self.keep_hit(to, present.was_hit && in_place);
        let reply = State { version, deadline: state.deadline, marks }.reply(ItemOutcome::Done, to.now);
        let value = (!terms.bare).then_some(ItemValue::Copied(text));
        sink.reply(ReplyRef::Item(&ItemReply { len: length(text), value, ..reply }));
        Ok(())
    }

    /// The item there, its value shared or copied.
    fn present(&mut self, to: Target<'_>) -> Option<Present> {
        self.glance(to).map(|live| Present {
            value: live.shared().map_or_else(|| Bytes::copy_from_slice(live.value()), Bytes::clone),
            was_hit: live.was_hit(),
            state: State::of(live),
        })
    }

    /// What memcached changes in place has been read before if it was.
    fn keep_hit(&mut self, to: Target<'_>, was_hit: bool) {
        let table = &mut self.tables[to.table];
        if let Some(at) = table.locate(to.key).filter(|_| was_hit) {
            table.note_hit(at);
        }
    }

    /// Stores an item and tells of it. A deadline already past deletes instead.
    fn put_item(
        &mut self,
        to: Target<'_>,
        value: Value<'_>,
        deadline: Option<UnixMs>,
        marks: Marks,
        mutated: &mut impl Mutated,
    ) -> Result<Version, OutOfMemory> {
        if deadline.is_some_and(|deadline| deadline <= to.now) {
            let version = self.delete(to.table, to.key, to.now);
            mutated(to.key.bytes, EntryRef { version, body: BodyRef::Tombstone });
            return Ok(version);
        }
        let version = self.write(to.table, to.key, ContentBody::Live { value, deadline, marks }, to.now)?;
        mutated(to.key.bytes, EntryRef { version, body: BodyRef::Live { value: value.bytes(), deadline, marks } });
        Ok(version)
    }
}

fn refuse(outcome: ItemOutcome, sink: &mut impl ReplySink) -> Result<(), OutOfMemory> {
    sink.reply(ReplyRef::Item(&ItemReply::only(outcome)));
    Ok(())
}

fn differs(state: State, now: UnixMs, sink: &mut impl ReplySink) -> Result<(), OutOfMemory> {
    sink.reply(ReplyRef::Item(&state.reply(ItemOutcome::Differs, now)));
    Ok(())
}
