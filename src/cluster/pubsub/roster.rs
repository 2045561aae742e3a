//! Who subscribed to what on this node, and whom a message is for. `S` is whatever reaches a subscriber. Never delivers. Tested below and in
//! `tests.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::base::channel::Kind;
use crate::base::glob;
use crate::base::notify::{Classes, KEYEVENT, KEYSPACE};

/// Subscribers of one name, by their numbers. Most names have one.
type Subscribers<S> = SmallVec<[(u64, S); 1]>;

/// See the file's head.
#[derive(Debug)]
pub struct Roster<S> {
    names: [BTreeMap<Bytes, Subscribers<S>>; 3],
    subscriptions: usize,
    /// Of all names.
    bytes: usize,
    /// Names that channels of events of one key, and of one event, may have.
    of_keys: usize,
    of_events: usize,
}

impl<S> Default for Roster<S> {
    fn default() -> Self {
        Self { names: [const { BTreeMap::new() }; 3], subscriptions: 0, bytes: 0, of_keys: 0, of_events: 0 }
    }
}

impl<S> Roster<S> {
    /// Adds a subscription, once; whether it is the first of its name.
    pub fn add(&mut self, (kind, name): (Kind, &Bytes), id: u64, subscriber: S) -> bool {
        let subscribers = match self.names[kind as usize].get_mut(name) {
            Some(subscribers) => subscribers,
            None => self.names[kind as usize].entry(name.clone()).or_default(),
        };
        let is_first = subscribers.is_empty();
        if let Err(at) = subscribers.binary_search_by_key(&id, |(id, _)| *id) {
            subscribers.insert(at, (id, subscriber));
            self.subscriptions += 1;
        }
        if is_first {
            self.bytes += name.len();
            self.of_keys += usize::from(may_name(kind, name, KEYSPACE));
            self.of_events += usize::from(may_name(kind, name, KEYEVENT));
        }
        is_first
    }

    /// Takes a subscription away; whether it was the last of its name.
    pub fn remove(&mut self, (kind, name): (Kind, &Bytes), id: u64) -> bool {
        let Some(subscribers) = self.names[kind as usize].get_mut(name) else { return false };
        let Ok(at) = subscribers.binary_search_by_key(&id, |(id, _)| *id) else { return false };
        subscribers.remove(at);
        self.subscriptions -= 1;
        let is_last = subscribers.is_empty();
        if is_last {
            self.names[kind as usize].remove(name);
            self.bytes -= name.len();
            self.of_keys -= usize::from(may_name(kind, name, KEYSPACE));
            self.of_events -= usize::from(may_name(kind, name, KEYEVENT));
        }
        is_last
    }

    /// Whom a message on a channel is for, and by which pattern: those of the channel first, then those of each pattern, as in Redis. Who is
    /// there twice gets it twice.
    pub fn matching<'a>(&'a self, kind: Kind, channel: &'a [u8]) -> impl Iterator<Item = (Option<&'a Bytes>, &'a S)> {
        let direct = self.names[kind as usize].get(channel).into_iter().flatten().map(|(_, to)| (None, to));
        let patterns = (kind == Kind::Channel).then_some(&self.names[Kind::Pattern as usize]);
        let fitting = patterns.into_iter().flatten().filter(move |(pattern, _)| glob::matches(pattern, channel));
        direct.chain(fitting.flat_map(|(pattern, to)| to.iter().map(move |(_, to)| (Some(pattern), to))))
    }

    /// How many subscribed to this very name.
    pub fn count(&self, kind: Kind, name: &[u8]) -> usize {
        self.names[kind as usize].get(name).map_or(0, SmallVec::len)
    }

    /// The names of one kind, in order.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &Bytes> {
        self.names[kind as usize].keys()
    }

    /// How many different names there are.
    pub fn names_len(&self) -> usize {
        self.names.iter().map(BTreeMap::len).sum()
    }

    /// Bytes of these.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Subscriptions of all subscribers.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// What of these classes somebody may hear of.
    pub fn heard(&self, classes: Classes) -> Classes {
        let mut heard = classes;
        if self.of_keys == 0 {
            heard = heard.without(Classes::BY_KEY);
        }
        if self.of_events == 0 {
            heard = heard.without(Classes::BY_EVENT);
        }
        heard.effective()
    }
}

/// Whether a name can mean a channel that begins so. Of a pattern what stands before its first wildcard is compared.
fn may_name(kind: Kind, name: &[u8], prefix: &[u8]) -> bool {
    match kind {
        Kind::Channel => name.starts_with(prefix),
        Kind::Shard => false,
        Kind::Pattern => {
            let wild = name.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\')).unwrap_or(name.len());
            let literal = &name[..wild];
            literal.starts_with(prefix) || (wild < name.len() && prefix.starts_with(literal))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(names: &[(Kind, &'static str, u64)]) -> Roster<u64> {
        let mut roster = Roster::default();
        for (kind, name, id) in names {
            roster.add((*kind, &Bytes::from(*name)), *id, *id);
        }
        roster
    }

    fn matching(roster: &Roster<u64>, kind: Kind, channel: &str) -> Vec<(String, u64)> {
        let shown = |pattern: Option<&Bytes>| String::from_utf8(pattern.map_or(vec![], |p| p.to_vec())).unwrap();
        roster.matching(kind, channel.as_bytes()).map(|(pattern, id)| (shown(pattern), *id)).collect()
    }

    #[test]
    fn a_message_is_for_its_channel_then_for_each_pattern() {
        let names = [
            (Kind::Channel, "news", 2),
            (Kind::Channel, "news", 1),
            (Kind::Pattern, "n*", 1),
            (Kind::Pattern, "*s", 3),
            (Kind::Shard, "news", 4),
        ];
        let roster = roster(&names);
        let own = |pattern: &str, id| (pattern.to_owned(), id);
        assert_eq!(matching(&roster, Kind::Channel, "news"), [own("", 1), own("", 2), own("*s", 3), own("n*", 1)]);
        assert_eq!(matching(&roster, Kind::Shard, "news"), [own("", 4)]);
        assert_eq!(matching(&roster, Kind::Shard, "new"), []);
        assert_eq!((roster.subscriptions(), roster.names_len(), roster.bytes()), (5, 4, 12));
    }

    #[test]
    fn a_subscription_counts_once_and_goes_once() {
        let mut roster = roster(&[(Kind::Channel, "a", 1)]);
        let name = Bytes::from("a");
        assert!(!roster.add((Kind::Channel, &name), 1, 1) && !roster.add((Kind::Channel, &name), 2, 2));
        assert_eq!(roster.count(Kind::Channel, b"a"), 2);
        assert!(!roster.remove((Kind::Channel, &name), 1) && !roster.remove((Kind::Channel, &name), 1));
        assert!(roster.remove((Kind::Channel, &name), 2) && !roster.remove((Kind::Channel, &name), 2));
        assert_eq!((roster.subscriptions(), roster.names_len(), roster.bytes()), (0, 0, 0));
    }

    #[test]
    fn events_of_keys_are_wanted_by_who_may_hear_them() {
        let classes = Classes::parse(b"KEA").unwrap();
        let heard = |kind, name| roster(&[(kind, name, 1)]).heard(classes).to_string();
        for (kind, name, expected) in [
            (Kind::Channel, "__keyspace@0__:k", "AK"),
            (Kind::Channel, "__keyevent@0__:del", "AE"),
            (Kind::Channel, "__key", ""),
            (Kind::Pattern, "*", "AKE"),
            (Kind::Pattern, "__key*", "AKE"),
            (Kind::Pattern, "__keyevent@*__:*", "AE"),
            (Kind::Pattern, "__key", ""),
            (Kind::Pattern, "news.*", ""),
            (Kind::Shard, "__keyspace@0__:k", ""),
        ] {
            assert_eq!(heard(kind, name), expected, "{kind:?} {name}");
        }
        assert_eq!(roster(&[(Kind::Pattern, "*", 1)]).heard(Classes::parse(b"KE").unwrap()), Classes::NONE);
    }
}
