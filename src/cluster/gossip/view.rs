//! What is believed of every member, for those who ask. Follows foca's list and decides nothing, but that an address has one owner.
//! Tested by the scenarios in `tests/`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use foca::{State, Timer};

use super::effect::{Effect, Member, MemberState};
use super::identity::Identity;
use super::{Gossip, config};
use crate::base::id::NodeId;

/// One member.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) identity: Identity,
    /// How often it refuted a suspicion, as foca counts.
    pub(super) refuted: foca::Incarnation,
    pub(super) state: MemberState,
    pub(super) since_ms: u64,
    /// Messages from it so far.
    pub(super) heard: u64,
    /// When the last of them came, or it was first heard of; in time this node was awake.
    pub(super) heard_ms: u64,
    /// While suspect: when it is buried, should whoever raised the suspicion not do it.
    pub(super) bury_at: u64,
}

impl Known {
    fn member(&self) -> Member {
        Member {
            id: self.identity.node.clone(),
            address: self.identity.address,
            incarnation: self.identity.incarnation,
            state: self.state,
            since_ms: self.since_ms,
        }
    }
}

/// Every member but this node, by id. At most [`config::MEMBERS_MAX`].
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) known: BTreeMap<NodeId, Known>,
}

impl View {
    pub(super) fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.known.values().map(Known::member)
    }

    pub(super) fn member(&self, id: &NodeId) -> Option<Member> {
        self.known.get(id).map(Known::member)
    }

    /// Whether a member that is alive has this address.
    pub(super) fn lives_at(&self, address: SocketAddr) -> bool {
        self.known.values().any(|k| k.state == MemberState::Alive && k.identity.address == address)
    }

    pub(super) fn suspects(&self) -> impl Iterator<Item = &Known> {
        self.known.values().filter(|k| k.state == MemberState::Suspect)
    }

    pub(super) fn heard_from(&mut self, id: &NodeId, awake_ms: u64) {
        if let Some(known) = self.known.get_mut(id) {
            known.heard += 1;
            known.heard_ms = awake_ms;
        }
    }
}

fn believed(member: &foca::Member<Identity>) -> MemberState {
    match member.state() {
        _ if member.id().left => MemberState::Left,
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
        State::Down => MemberState::Down,
    }
}

impl Gossip {
    /// Brings the view up to foca's list and says what changed.
    pub(super) fn refresh(&mut self) {
        loop {
            let (changed, suspected) = self.follow();
            if suspected {
                self.visit_suspects_soon();
            }
            // Each turn of this loop buries someone, so it ends.
            if !changed || !self.evict_former_tenants() {
                return;
            }
        }
    }

    /// Answers whether anything changed, and whether someone became suspect.
    fn follow(&mut self) -> (bool, bool) {
        let now_ms = self.clock.now_ms;
        let awake_ms = self.clock.awake_ms();
        let bury_at = awake_ms + self.timing.backstop_ms;
        let (mut changed, mut suspected) = (false, false);
        let own = &self.foca.identity().node;
        for member in self.foca.iter_membership_state().filter(|m| m.id().node != *own) {
            let (id, state) = (member.id(), believed(member));
            let known = match self.view.known.entry(id.node.clone()) {
                Entry::Occupied(entry) => {
                    let known = entry.into_mut();
                    let (was, old) = (known.state, &known.identity);
                    let same = was == state && old.address == id.address && old.incarnation == id.incarnation;
                    known.refuted = member.incarnation();
                    if *old != *id {
                        known.identity = id.clone();
                    }
                    if same {
                        continue;
                    }
                    if was != state {
                        known.since_ms = now_ms;
                    }
                    known.state = state;
                    known
                }
                Entry::Vacant(entry) => entry.insert(Known {
                    identity: id.clone(),
                    refuted: member.incarnation(),
                    state,
                    since_ms: now_ms,
                    heard: 0,
                    heard_ms: awake_ms,
                    bury_at,
                }),
            };
            if state == MemberState::Suspect {
                known.bury_at = bury_at;
                suspected = true;
            }
            changed = true;
            self.desk.effects.push_back(Effect::Member(known.member()));
        }
        (changed, suspected)
    }

    /// Of several members at one address only the latest lives: the others were there before it. At our own address only we live.
    fn evict_former_tenants(&mut self) -> bool {
        let own = self.foca.identity();
        let mut owners: BTreeMap<SocketAddr, &Identity> = BTreeMap::from([(own.address, own)]);
        let mut former = Vec::new();
        for member in self.foca.iter_members().filter(|m| m.id().node != own.node && !m.id().left) {
            let id = member.id();
            let Some(&other) = owners.get(&id.address) else {
                owners.insert(id.address, id);
                continue;
            };
            let later = other == own || (other.rank(), &other.node) > (id.rank(), &id.node);
            let loser = if later { id } else { other };
            if !later {
                owners.insert(id.address, id);
            }
            former.push(loser.clone());
        }
        let evicted = !former.is_empty();
        for id in former {
            self.bury(id);
        }
        evicted
    }

    /// Makes room for `wanted` more members by forgetting those who have been dead longest. Answers whether there is room.
    pub(super) fn make_room(&mut self, wanted: usize) -> bool {
        while self.view.known.len() + wanted > config::MEMBERS_MAX {
            let dead = self.view.known.values().filter(|k| matches!(k.state, MemberState::Down | MemberState::Left));
            let Some(oldest) = dead.min_by_key(|k| k.since_ms).map(|k| k.identity.clone()) else { return false };
            let removed = self.foca.handle_timer(Timer::RemoveDown(oldest.clone()), &mut self.desk);
            self.note_fault(removed);
            self.view.known.remove(&oldest.node);
            self.desk.effects.push_back(Effect::Forgotten(oldest.node));
        }
        true
    }
}
