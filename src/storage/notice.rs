//! What clients are told of keys, as Redis's keyspace events: which events an operation amounts to. A store that is not asked for any does
//! nothing of it. Never publishes. Tested in `tests/notices.rs`, and against redis-server by `tests/clients/differential_pubsub.py`.

use bytes::Bytes;
use smallvec::SmallVec;

use super::ahead::Aim;
use super::entries::Key;
use super::execute::Hand;
use super::store::Store;
use crate::base::entry::EntryRef;
use crate::base::hlc::{UnixMs, Version};
use crate::base::item::{ItemAct, ItemTerms, Mode};
use crate::base::notify::Classes;
use crate::base::op::{Act, Aspect, Expiry, Op, Renaming, SetAnswer, When, absolute};
use crate::base::reply::ReplySink;

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Of which class.
    pub class: Classes,
    /// Redis's name for it.
    pub event: &'static str,
    /// To which key.
    pub key: Bytes,
}

/// What is asked for, and what has happened since it was last taken. Bounded by what a batch or a turn can do.
#[derive(Debug, Default)]
pub(super) struct Notices {
    wanted: Classes,
    told: Vec<Notice>,
    /// The key that is being renamed.
    moving: Bytes,
}

impl Notices {
    /// Whether anything is asked for.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.wanted != Classes::NONE
    }

    /// Notes what happened to a key without a client's doing.
    pub(super) fn note(&mut self, class: Classes, event: &'static str, key: &[u8]) {
        if self.wanted.meets(class) {
            self.told.push(Notice { class, event, key: Bytes::copy_from_slice(key) });
        }
    }
}

/// A value as far as events depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    version: Version,
    deadline: Option<UnixMs>,
}

type Events = SmallVec<[(Classes, &'static str); 4]>;

impl Store {
    /// Asks for notices of these classes from now on.
    pub fn set_noticed(&mut self, wanted: Classes) {
        self.notices = Notices { wanted, ..Notices::default() };
    }

    /// What has happened since this was last asked, in order.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices.told)
    }

    /// Executes an operation as [`Store::execute_at`] does, and notes what it amounts to.
    pub(super) fn execute_noticed(
        &mut self,
        aim: Aim,
        op: &Op,
        now: UnixMs,
        sink: &mut impl ReplySink,
        mutated: &mut impl FnMut(&[u8], EntryRef<'_>),
    ) {
        let (table, key) = (aim.table as usize, Key { bytes: &op.key, hash: aim.hash });
        let before = self.standing(table, key, now);
        let folded = matches!(self.hand, Hand::Folded(_));
        self.execute_unnoticed(aim, op, now, sink, mutated);
        let after = self.standing(table, key, now);
        match op.act {
            Act::Renaming(Renaming::Load { .. }) => self.notices.moving = op.key.clone(),
            Act::Renaming(Renaming::Unload { .. }) if after != before => {
                let from = std::mem::take(&mut self.notices.moving);
                self.tell([(Classes::NEW, "new")], &op.key);
                self.tell([(Classes::GENERIC, "rename_from")], &from);
                self.tell([(Classes::GENERIC, "rename_to")], &op.key);
            }
            _ => self.tell(events(op, folded, (before, after), now), &op.key),
        }
    }

    fn tell(&mut self, events: impl IntoIterator<Item = (Classes, &'static str)>, key: &Bytes) {
        let Notices { wanted, told, .. } = &mut self.notices;
        let asked = events.into_iter().filter(|(class, _)| wanted.meets(*class));
        told.extend(asked.map(|(class, event)| Notice { class, event, key: key.clone() }));
    }

    /// The value there. One that has expired goes first, which is an event of its own.
    fn standing(&mut self, table: usize, key: Key<'_>, now: UnixMs) -> Option<Standing> {
        let live = self.read(table, key, now, false)?;
        Some(Standing { version: live.version(), deadline: live.deadline() })
    }
}

/// The events that an operation amounts to which found `before` and left `after`. `folded`: it had a combination of values at hand.
fn events(op: &Op, folded: bool, (before, after): (Option<Standing>, Option<Standing>), now: UnixMs) -> Events {
    let mut events = Events::new();
    let changed = before.map(|found| found.version) != after.map(|left| left.version);
    let gone = before.is_some() && after.is_none();
    let is_new = before.is_none() && after.is_some();
    if before.is_none() && misses(op) {
        events.push((Classes::MISS, "keymiss"));
    }
    let mut written = |class, event| {
        if changed {
            events.extend(is_new.then_some((Classes::NEW, "new")));
            events.push((class, event));
        }
    };
    match op.act {
        Act::Set { expiry, when, answer, .. } => {
            let holds = match when {
                When::Always => true,
                When::Absent => before.is_none(),
                When::Present => before.is_some(),
            };
            set((expiry, answer, holds), (before, after), now, &mut events);
        }
        Act::SetIf { expiry, answer, .. } => set((expiry, answer, changed), (before, after), now, &mut events),
        Act::Append => written(Classes::STRING, "append"),
        Act::SetRange { .. } => written(Classes::STRING, "setrange"),
        Act::Incr { .. } => written(Classes::STRING, "incrby"),
        Act::IncrFloat => written(Classes::STRING, "incrbyfloat"),
        Act::SetBit { .. } | Act::BitField => written(Classes::STRING, "setbit"),
        Act::Unload { .. } if folded && gone => events.push((Classes::GENERIC, "del")),
        Act::Unload { .. } if folded => written(Classes::STRING, "set"),
        // What it replaces was deleted before.
        Act::Unload { .. } if changed => events.extend([(Classes::NEW, "new"), (Classes::GENERIC, "copy_to")]),
        Act::Renaming(Renaming::Depart) if gone => events.push((Classes::GENERIC, "rename_from")),
        Act::Delete | Act::DeleteIf { .. } | Act::GetDel if gone => events.push((Classes::GENERIC, "del")),
        Act::Expire { .. } | Act::Persist | Act::GetEx { .. } if changed => {
            events.push((Classes::GENERIC, deadline_event(after)));
        }
        Act::Item(act) => item(act, &op.value, (before, after), &mut events),
        _ => {}
    }
    events
}

/// What a change of a deadline is called.
fn deadline_event(after: Option<Standing>) -> &'static str {
    match after {
        None => "del",
        Some(Standing { deadline: None, .. }) => "persist",
        Some(_) => "expire",
    }
}

/// Whether it is a read that Redis counts as one.
fn misses(op: &Op) -> bool {
    match op.act {
        Act::Set { answer, .. } | Act::SetIf { answer, .. } => answer == SetAnswer::Old,
        Act::GetDel | Act::GetEx { .. } | Act::Load { .. } | Act::Fold(_) => true,
        Act::Describe { aspect } => aspect == Aspect::Dump,
        Act::Look | Act::Unchanged { .. } | Act::Absent { .. } | Act::Whole | Act::Renaming(_) => false,
        Act::Item(ItemAct::Read | ItemAct::Peek | ItemAct::Fetch) => true,
        act => !act.writes(),
    }
}

/// The events of a `Set` whose condition held or not.
fn set(
    (expiry, answer, holds): (Expiry, SetAnswer, bool),
    (before, after): (Option<Standing>, Option<Standing>),
    now: UnixMs,
    events: &mut Events,
) {
    let is_past = matches!(expiry, Expiry::Until(at) if absolute(at, now) <= now);
    let changed = before.map(|found| found.version) != after.map(|left| left.version);
    if !holds || !(changed || is_past) {
        return;
    }
    let (class, event) = match answer {
        SetAnswer::Restored if is_past => {
            return events.extend(before.map(|_| (Classes::GENERIC, "del")));
        }
        SetAnswer::Restored => (Classes::GENERIC, "restore"),
        SetAnswer::Copied => (Classes::GENERIC, "copy_to"),
        SetAnswer::Moved => (Classes::GENERIC, "rename_to"),
        SetAnswer::Done | SetAnswer::Flag | SetAnswer::Old => (Classes::STRING, "set"),
    };
    // All but a plain `SET` delete what they replace before.
    if before.is_none() || class != Classes::STRING {
        events.push((Classes::NEW, "new"));
    }
    events.push((class, event));
    if class == Classes::STRING && matches!(expiry, Expiry::Until(_)) {
        events.push((Classes::GENERIC, "expire"));
        if is_past {
            events.push((Classes::EXPIRED, "expired"));
        }
    }
}

/// The events of an act on an item, in the terms of Redis.
fn item(act: ItemAct, value: &Bytes, (before, after): (Option<Standing>, Option<Standing>), events: &mut Events) {
    if before.map(|found| found.version) == after.map(|left| left.version) {
        return;
    }
    let Some((_, terms)) = ItemTerms::split(value) else { return };
    events.extend((before.is_none() && after.is_some()).then_some((Classes::NEW, "new")));
    let was = before.map(|found| found.deadline);
    let is = after.map(|left| left.deadline);
    let event = match act {
        ItemAct::Read | ItemAct::Peek => return,
        _ if after.is_none() => (Classes::GENERIC, "del"),
        // A promise alone is no change that a client of Redis could see.
        ItemAct::Fetch | ItemAct::Touch if before.is_some() && was == is && terms.expiry == Expiry::Keep => return,
        ItemAct::Fetch | ItemAct::Touch if before.is_some() => (Classes::GENERIC, deadline_event(after)),
        ItemAct::Store if before.is_some() && matches!(terms.mode, Mode::Append | Mode::Prepend) => {
            (Classes::STRING, "append")
        }
        ItemAct::Count if before.is_some() => (Classes::STRING, "incrby"),
        ItemAct::Fetch | ItemAct::Touch | ItemAct::Put | ItemAct::Store | ItemAct::Remove | ItemAct::Count => {
            (Classes::STRING, "set")
        }
    };
    events.push(event);
    if event.1 == "set" && is.flatten().is_some() {
        events.push((Classes::GENERIC, "expire"));
    }
}
