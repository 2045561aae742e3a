//! Acts that set, change or delete a value. Never decide on deadlines beyond what the act says. Compared with redis-server in
//! `storage::tests`.

use bytes::Bytes;

use super::condition::Condition;
use super::number::Extended;
use super::{Mutated, NOT_A_FLOAT, NOT_FINITE, OUT_OF_MEMORY, OVERFLOW, Target, bulk, error};
use crate::base::hlc::UnixMs;
use crate::base::number::{NOT_AN_INTEGER, integer};
use crate::base::op::{Expiry, SetAnswer, When, absolute};
use crate::base::reply::{ReplyRef, ReplySink, TOO_LONG};
use crate::storage::packed::Value;
use crate::storage::store::{OutOfMemory, Store};

const BUSY_KEY: &str = "BUSYKEY Target key name already exists.";

/// The arguments of a `Set`.
#[derive(Clone, Copy)]
pub(super) struct Set<'a> {
    pub(super) value: Value<'a>,
    pub(super) expiry: Expiry,
    pub(super) condition: Condition<'a>,
    pub(super) answer: SetAnswer,
    pub(super) flags: u32,
}

/// A value's bytes, deadline and flags, taken out to be changed.
pub(super) struct Taken {
    pub(super) value: Vec<u8>,
    pub(super) deadline: Option<UnixMs>,
    pub(super) flags: u32,
}

impl Store {
    pub(super) fn set(&mut self, to: Target<'_>, set: Set<'_>, sink: &mut impl ReplySink, mutated: &mut impl Mutated) {
        // A blind write looks the key up once, in the table's own `put`.
        let blind = matches!(set.condition, Condition::When(When::Always))
            && set.answer != SetAnswer::Old
            && set.expiry != Expiry::Keep;
        let (mut present, mut deadline) = (false, None);
        let mut old = None;
        let mut wanted = set.condition.holds(None);
        if !blind && let Some(live) = self.glance(to) {
            (present, deadline) = (true, live.deadline());
            wanted = set.condition.holds(Some(live.value()));
            // The old value is answered after the write, which may be refused.
            old = (set.answer == SetAnswer::Old).then(|| match live.shared() {
                Some(bytes) => bytes.clone(),
                None => Bytes::copy_from_slice(live.value()),
            });
        }
        if set.answer == SetAnswer::Old {
            self.count_lookup(present);
        }
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(refusal) => return sink.reply(error(refusal)),
        };
        let deadline = match set.expiry {
            Expiry::Keep => deadline,
            Expiry::Clear => None,
            Expiry::Until(at) => Some(absolute(at, to.now)),
        };
        if wanted && let Err(OutOfMemory) = self.store(to, set.value, deadline, set.flags, mutated) {
            return sink.reply(error(OUT_OF_MEMORY));
        }
        sink.reply(match (set.answer, &old) {
            (SetAnswer::Done | SetAnswer::Restored, _) if wanted => ReplyRef::Ok,
            (SetAnswer::Restored, _) => error(BUSY_KEY),
            (SetAnswer::Flag | SetAnswer::Copied | SetAnswer::Moved, _) => ReplyRef::Int(i64::from(wanted)),
            (SetAnswer::Old, Some(old)) => ReplyRef::Shared(old),
            (SetAnswer::Done | SetAnswer::Old, _) => ReplyRef::Null,
        });
    }

    pub(super) fn get_del(&mut self, to: Target<'_>, sink: &mut impl ReplySink, mutated: &mut impl Mutated) {
        let found = self.glance(to).map(|live| sink.reply(bulk(live))).is_some();
        self.count_lookup(found);
        if found {
            self.remove(to, mutated);
        } else {
            sink.reply(ReplyRef::Null);
        }
    }

    pub(super) fn del(&mut self, to: Target<'_>, sink: &mut impl ReplySink, mutated: &mut impl Mutated) {
        let found = self.glance(to).is_some();
        if found {
            self.remove(to, mutated);
        }
        sink.reply(ReplyRef::Int(i64::from(found)));
    }

    pub(super) fn append(
        &mut self,
        to: Target<'_>,
        suffix: &Bytes,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        let len = self.glance(to).map(|live| live.value().len());
        if len.unwrap_or(0) + suffix.len() > self.config.value_bytes_max {
            return sink.reply(error(TOO_LONG));
        }
        let taken = self.take(to, suffix.len());
        let (deadline, flags) = taken.as_ref().map_or((None, 0), |taken| (taken.deadline, taken.flags));
        let joined = taken.map(|taken| {
            let mut value = taken.value;
            value.extend_from_slice(suffix);
            Bytes::from(value)
        });
        let value = joined.as_ref().unwrap_or(suffix);
        let stored = self.store(to, Value::Owned(value), deadline, flags, mutated);
        sink.reply(length_or_oom(value.len(), stored));
    }

    pub(super) fn set_range(
        &mut self,
        to: Target<'_>,
        offset: u64,
        part: &Bytes,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        let len = self.glance(to).map_or(0, |live| live.value().len());
        if part.is_empty() {
            return sink.reply(ReplyRef::Int(len as i64));
        }
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(part.len()));
        let Some(end) = end.filter(|end| *end <= self.config.value_bytes_max) else {
            return sink.reply(error(TOO_LONG));
        };
        let mut taken = self.take_grown(to, end);
        taken.value[end - part.len()..end].copy_from_slice(part);
        let value = Bytes::from(taken.value);
        let stored = self.store(to, Value::Owned(&value), taken.deadline, taken.flags, mutated);
        sink.reply(length_or_oom(value.len(), stored));
    }

    pub(super) fn incr(&mut self, to: Target<'_>, by: i64, sink: &mut impl ReplySink, mutated: &mut impl Mutated) {
        let (mut number, mut deadline, mut flags) = (Some(0), None, 0);
        if let Some(live) = self.glance(to) {
            (number, deadline, flags) = (integer(live.value()), live.deadline(), live.client_flags());
        }
        let Some(number) = number else { return sink.reply(error(NOT_AN_INTEGER)) };
        let Some(sum) = number.checked_add(by) else { return sink.reply(error(OVERFLOW)) };
        let mut text = itoa::Buffer::new();
        let value = Value::Copied(text.format(sum).as_bytes());
        sink.reply(match self.store(to, value, deadline, flags, mutated) {
            Ok(()) => ReplyRef::Int(sum),
            Err(OutOfMemory) => error(OUT_OF_MEMORY),
        });
    }

    pub(super) fn incr_float(
        &mut self,
        to: Target<'_>,
        by: &[u8],
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        let (mut number, mut deadline, mut flags) = (Some(Extended::ZERO), None, 0);
        if let Some(live) = self.glance(to) {
            (number, deadline, flags) = (Extended::parse(live.value()), live.deadline(), live.client_flags());
        }
        let (Some(number), Some(by)) = (number, Extended::parse(by)) else { return sink.reply(error(NOT_A_FLOAT)) };
        let Some(text) = number.plus(by).to_text() else { return sink.reply(error(NOT_FINITE)) };
        sink.reply(match self.store(to, Value::Copied(text.as_bytes()), deadline, flags, mutated) {
            Ok(()) => ReplyRef::Bulk(text.as_bytes()),
            Err(OutOfMemory) => error(OUT_OF_MEMORY),
        });
    }

    /// A copy of the value, of nothing where there is none, zero-padded to `len` bytes at least.
    pub(super) fn take_grown(&mut self, to: Target<'_>, len: usize) -> Taken {
        let present = self.glance(to).map_or(0, |live| live.value().len());
        let taken = self.take(to, len.saturating_sub(present));
        let mut taken = taken.unwrap_or(Taken { value: Vec::with_capacity(len), deadline: None, flags: 0 });
        if taken.value.len() < len {
            taken.value.resize(len, 0);
        }
        taken
    }

    /// A copy of the value with room for `more` bytes.
    fn take(&mut self, to: Target<'_>, more: usize) -> Option<Taken> {
        self.glance(to).map(|live| {
            let old = live.value();
            let mut value = Vec::with_capacity(old.len() + more);
            value.extend_from_slice(old);
            Taken { value, deadline: live.deadline(), flags: live.client_flags() }
        })
    }
}

fn length_or_oom(len: usize, stored: Result<(), OutOfMemory>) -> ReplyRef<'static> {
    match stored {
        Ok(()) => ReplyRef::Int(len as i64),
        Err(OutOfMemory) => error(OUT_OF_MEMORY),
    }
}
