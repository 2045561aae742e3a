//! What must hold of a history. Pure functions from events to what is wrong with them.

use std::collections::BTreeMap;

use super::history::{Action, Event, Told};

const NEVER: u64 = u64::MAX;

/// By key.
pub(crate) type ByKey<'a> = BTreeMap<&'a str, Vec<&'a Event>>;

/// Events of keys whose name begins with `prefix`, by key.
pub(crate) fn keys<'a>(events: &'a [Event], prefix: &str) -> ByKey<'a> {
    by_key(events.iter().filter(|event| event.key.starts_with(prefix)))
}

/// Events of keys of one level, by key.
pub(crate) fn keys_at(events: &[Event], level: char) -> ByKey<'_> {
    by_key(events.iter().filter(|event| event.key[1..].starts_with(level)))
}

fn by_key<'a>(events: impl Iterator<Item = &'a Event>) -> ByKey<'a> {
    let mut by_key = ByKey::new();
    for event in events {
        by_key.entry(event.key.as_str()).or_default().push(event);
    }
    by_key
}

/// The value a read showed, if it was answered.
pub(super) fn value_read(event: &Event) -> Option<Option<&str>> {
    match (&event.action, &event.told) {
        (Action::Get, Told::Done(value)) => Some(value.as_deref()),
        _ => None,
    }
}

/// The value a write sets.
pub(super) fn value_set(event: &Event) -> Option<&str> {
    match &event.action {
        Action::Set(value) | Action::SetFor(value, _) => Some(value),
        _ => None,
    }
}

/// No value is read that nobody wrote, or whose writer was told that nothing was done.
pub(crate) fn nothing_from_nowhere(events: &[Event]) -> Vec<String> {
    let written: BTreeMap<&str, &Event> = events.iter().filter_map(|e| Some((value_set(e)?, e))).collect();
    let mut wrong = Vec::new();
    for read in events.iter().filter(|e| !e.key.starts_with('c')) {
        let Some(Some(value)) = value_read(read) else { continue };
        match written.get(value) {
            None => wrong.push(format!("read what nobody wrote: {read:?}")),
            Some(write) if write.key != read.key => wrong.push(format!("read another key's value: {read:?}")),
            Some(write) if !write.may_be_done() => wrong.push(format!("read a refused write: {read:?} of {write:?}")),
            Some(write) if read.told_us < write.asked_us => wrong.push(format!("read before it was written: {read:?}")),
            Some(_) => {}
        }
    }
    wrong
}

/// One value's write and reads: from the first end to the last beginning all of them agree that it was there.
struct Zone<'a> {
    value: Option<&'a str>,
    first_end: u64,
    last_start: u64,
}

impl Zone<'_> {
    fn is_forward(&self) -> bool {
        self.first_end < self.last_start
    }
}

/// Sets and reads of one key could have happened one after another on one copy, each between its beginning and its end. After Gibbons and
/// Korach, "Testing Shared Memories" (1997), for values that are written once: zones of values that lasted may not overlap, and no value may
/// have come and gone within the zone of another.
pub(crate) fn one_copy(key: &str, events: &[&Event]) -> Vec<String> {
    let mut zones: BTreeMap<Option<&str>, Zone<'_>> = BTreeMap::new();
    zones.insert(None, Zone { value: None, first_end: 0, last_start: 0 });
    for event in events.iter().filter(|e| value_set(e).is_some() && e.may_be_done()) {
        let value = value_set(event);
        let first_end = if event.is_done() { event.told_us } else { NEVER };
        zones.insert(value, Zone { value, first_end, last_start: event.asked_us });
    }
    let mut unread: Vec<Option<&str>> =
        events.iter().filter(|e| value_set(e).is_some() && !e.is_done()).map(|e| value_set(e)).collect();
    for event in events {
        if let Some(value) = value_read(event)
            && let Some(zone) = zones.get_mut(&value)
        {
            zone.first_end = zone.first_end.min(event.told_us);
            zone.last_start = zone.last_start.max(event.asked_us);
            unread.retain(|unread| *unread != value);
        }
    }
    // Nobody knows whether these were done, and nobody saw them.
    zones.retain(|value, _| !unread.contains(value));
    let mut forward: Vec<&Zone<'_>> = zones.values().filter(|zone| zone.is_forward()).collect();
    forward.sort_by_key(|zone| zone.first_end);
    let mut wrong = Vec::new();
    for pair in forward.windows(2) {
        if pair[1].first_end < pair[0].last_start {
            wrong.push(format!(
                "{key}: {:?} and {:?} were each there before and after the other",
                pair[0].value, pair[1].value
            ));
        }
    }
    for zone in zones.values().filter(|zone| !zone.is_forward()) {
        let at = forward.partition_point(|f| f.first_end < zone.last_start);
        if let Some(around) = at.checked_sub(1).map(|at| forward[at])
            && zone.first_end < around.last_start
        {
            wrong.push(format!("{key}: {:?} came and went while {:?} was there", zone.value, around.value));
        }
    }
    wrong
}

/// What was deleted stays deleted; what was set and not deleted is there.
pub(crate) fn deletes(key: &str, events: &[&Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    for read in events {
        let Some(value) = value_read(read) else { continue };
        for write in events.iter().filter(|e| value_set(e).is_some() && e.is_done() && e.told_us < read.asked_us) {
            let delete = |e: &&&Event| e.action == Action::Delete;
            let set = value_set(write);
            let gone = events
                .iter()
                .filter(delete)
                .find(|d| d.is_done() && write.told_us < d.asked_us && d.told_us < read.asked_us);
            if let Some(gone) = gone.filter(|_| value == set) {
                wrong.push(format!("{key}: deleted and back: {write:?}, {gone:?}, {read:?}"));
            }
            let may_be_gone = events
                .iter()
                .filter(delete)
                .any(|d| d.may_be_done() && d.asked_us < read.told_us && (!d.is_done() || d.told_us > write.asked_us));
            if value.is_none() && !may_be_gone {
                wrong.push(format!("{key}: acknowledged and lost: {write:?}, {read:?}"));
            }
        }
    }
    wrong.truncate(3);
    wrong
}

/// Nothing is read a second after its deadline, or missing before it.
pub(crate) fn deadlines(key: &str, events: &[&Event]) -> Vec<String> {
    const SLACK_US: u64 = 1_000_000;
    let mut wrong = Vec::new();
    for read in events {
        let Some(value) = value_read(read) else { continue };
        for write in events.iter().filter(|e| e.is_done()) {
            let Action::SetFor(set, ms) = &write.action else { continue };
            if value == Some(set) && read.asked_us > write.told_us + ms * 1_000 + SLACK_US {
                wrong.push(format!("{key}: outlived its deadline: {write:?}, {read:?}"));
            }
            let only = events.iter().filter(|e| value_set(e).is_some() && e.may_be_done()).all(|other| {
                value_set(other) == Some(set)
                    || other.is_done() && other.told_us < write.asked_us
                    || other.asked_us > read.told_us
            });
            let fresh = write.told_us < read.asked_us && read.told_us + SLACK_US < write.asked_us + ms * 1_000;
            if value.is_none() && only && fresh {
                wrong.push(format!("{key}: acknowledged and lost: {write:?}, {read:?}"));
            }
        }
    }
    wrong.truncate(3);
    wrong
}

/// A counter never shows more than was asked for; when `exact`, each increment counts once and shows in every later one.
pub(crate) fn counter(key: &str, events: &[&Event], exact: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let increments: Vec<&&Event> = events.iter().filter(|e| e.action == Action::Increment).collect();
    let shown = |e: &Event| if let Told::Done(Some(n)) = &e.told { n.parse::<u64>().ok() } else { None };
    for event in events {
        let Some(n) = shown(event) else { continue };
        let asked = increments.iter().filter(|i| i.may_be_done() && i.asked_us <= event.told_us).count() as u64;
        if n > asked {
            wrong.push(format!("{key}: counted twice: {asked} were asked for before {event:?}"));
        }
        if exact {
            let before = increments.iter().filter(|i| i.is_done() && i.told_us < event.asked_us).count() as u64;
            let least = before + u64::from(event.action == Action::Increment);
            if n < least {
                wrong.push(format!("{key}: {least} were counted by {event:?}"));
            }
        }
    }
    if exact {
        let mut seen = BTreeMap::new();
        for event in increments.iter().filter(|e| e.is_done()) {
            if let Some(n) = shown(event)
                && let Some(twin) = seen.insert(n, event)
            {
                wrong.push(format!("{key}: two increments gave the same: {twin:?}, {event:?}"));
            }
        }
    }
    wrong.truncate(3);
    wrong
}
