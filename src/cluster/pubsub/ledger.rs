//! What each member has been told of what this node's clients want to hear, and what to tell it next. One change is under way to a member at a
//! time; what changes meanwhile goes with the next. Never sends. Tested in `tests.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, INTEREST_BYTES_MAX, INTEREST_NAMES_MAX, Name, Roster};
use crate::base::channel::Kind;
use crate::base::notify::Classes;
use crate::cluster::view::PeerIx;

/// See the file's head.
#[derive(Debug)]
pub struct Ledger {
    version: u64,
    everything: bool,
    classes: Classes,
    peers: BTreeMap<PeerIx, Told>,
}

impl Default for Ledger {
    fn default() -> Self {
        // The first version says that nothing is wanted: a member that has not heard it sends everything.
        Self { version: 1, everything: false, classes: Classes::NONE, peers: BTreeMap::new() }
    }
}

/// What one member knows.
#[derive(Debug)]
struct Told {
    incarnation: u64,
    alive: bool,
    /// The version it has acknowledged; 0 for none.
    known: u64,
    under_way: Option<u64>,
    /// Names that have changed since the version that it knows or is being told: at most [`INTEREST_NAMES_MAX`], of [`INTEREST_BYTES_MAX`].
    changed: BTreeSet<Name>,
    changed_bytes: usize,
    /// It has to be told everything.
    anew: bool,
}

impl Told {
    fn nothing(incarnation: u64, alive: bool) -> Self {
        Self { incarnation, alive, known: 0, under_way: None, changed: BTreeSet::new(), changed_bytes: 0, anew: true }
    }
}

impl Told {
    fn note(&mut self, names: &[Name]) {
        for name in names {
            if self.changed.insert(name.clone()) {
                self.changed_bytes += name.1.len();
            }
        }
    }

    fn take_changed(&mut self) -> BTreeSet<Name> {
        self.changed_bytes = 0;
        std::mem::take(&mut self.changed)
    }
}

impl Ledger {
    /// Notes that these names came or went, and the events of keys that are wanted now. The version that says so.
    pub fn changed<S>(&mut self, names: &[Name], roster: &Roster<S>, classes: Classes) -> u64 {
        let classes = roster.heard(classes);
        if names.is_empty() && classes == self.classes {
            return self.version;
        }
        self.version += 1;
        self.classes = classes;
        let (count, bytes) = (roster.names_len(), roster.bytes());
        let too_many = |share: usize| count > INTEREST_NAMES_MAX / share || bytes > INTEREST_BYTES_MAX / share;
        // Once everything is asked for, it is until half of the names are gone: nothing must go back and forth at the bound.
        let everything = too_many(if self.everything { 2 } else { 1 });
        let turned = everything != std::mem::replace(&mut self.everything, everything);
        for told in self.peers.values_mut() {
            told.anew |= turned;
            if !everything && !told.anew {
                told.note(names);
            }
            // To tell all anew is no more then, for that is bounded.
            let too_much = told.changed.len() > INTEREST_NAMES_MAX || told.changed_bytes > INTEREST_BYTES_MAX;
            if everything || told.anew || too_much {
                told.anew |= !everything;
                told.take_changed();
            }
        }
        self.version
    }

    /// Takes over who else there is: number, life, and whether it is alive.
    pub fn follow(&mut self, members: impl Iterator<Item = (PeerIx, u64, bool)>) {
        let mut before = std::mem::take(&mut self.peers);
        for (peer, incarnation, alive) in members {
            let told = before.remove(&peer).filter(|told| told.incarnation == incarnation);
            self.peers
                .insert(peer, told.map_or_else(|| Told::nothing(incarnation, alive), |told| Told { alive, ..told }));
        }
    }

    /// What to tell a member now, if it is alive, does not know the newest and is not being told anything. An answer to it is owed to
    /// [`Ledger::answered`].
    pub fn next<S>(&mut self, peer: PeerIx, roster: &Roster<S>) -> Option<(u64, Change)> {
        let told = self.peers.get_mut(&peer)?;
        if !told.alive || told.under_way.is_some() || (told.known == self.version && !told.anew) {
            return None;
        }
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        let changed = told.take_changed();
        if self.everything {
        } else if told.anew {
            let all = Kind::ALL.iter().flat_map(|kind| roster.names(*kind).map(|name| (*kind, name.clone())));
            added.extend(all);
        } else {
            for (kind, name) in changed {
                let list = if roster.count(kind, &name) > 0 { &mut added } else { &mut removed };
                list.push((kind, name));
            }
        }
        let base = if told.anew { 0 } else { told.known };
        told.anew = false;
        told.under_way = Some(self.version);
        let (version, everything, classes) = (self.version, self.everything, self.classes);
        Some((told.incarnation, Change { base, version, everything, classes, added, removed }))
    }

    /// Notes whether the life of a member that was told something has taken it. If not, or if that is not known, it is told all anew.
    pub fn answered(&mut self, peer: PeerIx, incarnation: u64, taken: bool) {
        let Some(told) = self.peers.get_mut(&peer).filter(|told| told.incarnation == incarnation) else { return };
        let Some(version) = told.under_way.take() else { return };
        if taken {
            told.known = version;
        } else {
            (told.known, told.anew) = (0, true);
            told.take_changed();
        }
    }

    /// The version that every living member knows.
    pub fn known(&self) -> u64 {
        self.peers.values().filter(|told| told.alive).map(|told| told.known).min().unwrap_or(u64::MAX)
    }

    /// Wanted events of keys, of this node.
    pub fn classes(&self) -> Classes {
        self.classes
    }

    /// Everybody.
    pub fn peers(&self) -> impl Iterator<Item = PeerIx> + use<> {
        self.peers.keys().copied().collect::<Vec<_>>().into_iter()
    }
}
