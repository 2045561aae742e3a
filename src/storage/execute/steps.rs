//! What transactions are made of besides ordinary acts: looking at a key for `WATCH`, comparing it at `EXEC`, conditions that pass over the
//! acts after them, and carrying a value from one key to another. Never leaves anything out itself: whoever executes asks
//! [`Store::take_skip`] how many. Tested in `storage::tests::steps`.

use bytes::Bytes;

use super::{Mutated, OUT_OF_MEMORY, Target, error};
use crate::base::hlc::{UnixMs, Version};
use crate::base::op::BitOp;
use crate::base::reply::{ReplyRef, ReplySink};
use crate::base::seen::Seen;
use crate::base::whole::Whole;
use crate::storage::bitop::combine;
use crate::storage::packed::Value;
use crate::storage::store::{OutOfMemory, Store};

/// What is carried from one key to another.
#[derive(Debug)]
pub(in crate::storage) enum Hand {
    Empty,
    /// A value as it was.
    Loaded {
        value: Bytes,
        deadline: Option<UnixMs>,
        flags: u32,
    },
    /// A combination of values.
    Folded(Vec<u8>),
}

/// How far a transaction that failed skips: over all there is.
const TO_THE_END: usize = usize::MAX;

impl Store {
    /// Empties the hand: a transaction is over.
    pub fn let_go(&mut self) {
        self.hand = Hand::Empty;
    }

    /// How many of the operations after the last one are to be passed over. Told once.
    pub fn take_skip(&mut self) -> usize {
        std::mem::take(&mut self.skip)
    }

    pub(super) fn look(&mut self, to: Target<'_>, sink: &mut impl ReplySink) {
        let mut seen = self.seen(to);
        if !seen.live {
            let version = self.watched.look(to.key.hash, seen.version(), to.now);
            seen = Seen::new(version, false);
        }
        sink.reply(ReplyRef::Bulk(seen.to_text().as_bytes()));
    }

    pub(super) fn unchanged(&mut self, to: Target<'_>, since: Seen, sink: &mut impl ReplySink) {
        let is_unchanged = since.still(self.seen(to));
        self.go_on_if(is_unchanged, TO_THE_END, sink);
    }

    pub(super) fn absent(&mut self, to: Target<'_>, skip: u32, sink: &mut impl ReplySink) {
        let is_absent = self.glance(to).is_none();
        self.go_on_if(is_absent, skip as usize, sink);
    }

    pub(super) fn whole(&mut self, to: Target<'_>, sink: &mut impl ReplySink) {
        let seen = self.seen(to);
        let found = self.value(to).map(|live| {
            let whole = Whole::to_bytes(seen, live.deadline(), live.client_flags(), live.value());
            sink.reply(ReplyRef::Shared(&Bytes::from(whole)));
        });
        self.count_lookup(found.is_some());
        if found.is_none() {
            sink.reply(ReplyRef::Null);
        }
    }

    pub(super) fn load(&mut self, to: Target<'_>, skip: u32, sink: &mut impl ReplySink) {
        let found = self.value(to).map(|live| Hand::Loaded {
            value: live.shared().cloned().unwrap_or_else(|| Bytes::copy_from_slice(live.value())),
            deadline: live.deadline(),
            flags: live.client_flags(),
        });
        self.count_lookup(found.is_some());
        let is_there = found.is_some();
        self.hand = found.unwrap_or(Hand::Empty);
        self.go_on_if(is_there, skip as usize, sink);
    }

    pub(super) fn fold(&mut self, to: Target<'_>, how: BitOp, sink: &mut impl ReplySink) {
        let at_hand = match std::mem::replace(&mut self.hand, Hand::Empty) {
            Hand::Folded(bytes) => Some(bytes),
            Hand::Loaded { .. } | Hand::Empty => None,
        };
        let found = self.value(to);
        let is_there = found.is_some();
        let folded = combine(how, at_hand, found.map_or(&[][..], |live| live.value()));
        self.count_lookup(is_there);
        sink.reply(ReplyRef::Int(folded.len() as i64));
        self.hand = Hand::Folded(folded);
    }

    pub(super) fn unload(&mut self, to: Target<'_>, skip: u32, sink: &mut impl ReplySink, mutated: &mut impl Mutated) {
        let (value, deadline, flags) = match std::mem::replace(&mut self.hand, Hand::Empty) {
            Hand::Loaded { value, deadline, flags } => (value, deadline, flags),
            Hand::Folded(bytes) if !bytes.is_empty() => (Bytes::from(bytes), None, 0),
            Hand::Folded(_) => {
                if self.glance(to).is_some() {
                    self.remove(to, mutated);
                }
                return sink.reply(ReplyRef::Int(0));
            }
            Hand::Empty => return sink.reply(ReplyRef::Null),
        };
        let stored = self.store(to, Value::Owned(&value), deadline, flags, mutated);
        sink.reply(match stored {
            Ok(()) => ReplyRef::Int(value.len() as i64),
            Err(OutOfMemory) => {
                self.skip = skip as usize;
                error(OUT_OF_MEMORY)
            }
        });
    }

    fn go_on_if(&mut self, holds: bool, skip: usize, sink: &mut impl ReplySink) {
        self.skip = if holds { 0 } else { skip };
        sink.reply(ReplyRef::Int(i64::from(holds)));
    }

    fn seen(&mut self, to: Target<'_>) -> Seen {
        // Looks first: reading sweeps what has expired, which may leave nothing of its version.
        let version = self.tables[to.table].version(to.key).unwrap_or(Version::ZERO);
        let live = self.glance(to).is_some();
        Seen::new(if live { version } else { self.watched.newest(to.key.hash, version) }, live)
    }
}
