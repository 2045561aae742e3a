//! The published picture of the cluster: who is there, who is alive, and for every partition who owns it, who holds it and who is to be
//! asked, in order. Immutable; a pure function of membership, ring and liveness. Never sends anything. Tested in `view/tests.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::Xxh3Default;

use crate::base::id::NodeId;
use crate::base::level::Level;
use crate::base::slot::{PARTITIONS, Partition};

use super::membership::{Member, MemberState, Membership};
use super::partition_set::PartitionSet;
use super::ring::Ring;

#[cfg(test)]
mod tests;

/// A member as this process numbers it; stable for the life of the process, meaningless outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIx(pub u32);

/// What the failure detector says of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Answers.
    Alive,
    /// Has not answered yet; counts as not alive.
    Suspect,
    /// Does not answer.
    Down,
}

/// The failure detector's knowledge of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its verdict.
    pub liveness: Liveness,
    /// The life it speaks of.
    pub incarnation: u64,
    /// Where that life is reached.
    pub address: SocketAddr,
}

/// A member as others see it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its record in the membership.
    pub member: Member,
    /// Whether it is alive. This node is always alive to itself.
    pub liveness: Liveness,
    /// Where it is reached, once known.
    pub address: Option<SocketAddr>,
    /// Partitions it owns.
    pub partitions: u16,
}

/// Up to three members without an allocation: the default replication factor.
pub type Peers = SmallVec<[PeerIx; 3]>;

/// One partition's members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Its owners by the ring, in order of preference.
    pub owners: Peers,
    /// Members that say they hold all of it, owners first. Equal to `owners` unless ownership is on the move.
    pub holders: Peers,
    /// Whom to ask, in order: living holders; if there is none, holders under suspicion; if none of these, living owners.
    pub serving: Peers,
    /// A hash of the lives of owners and holders, the same on every member that counts by the same two sets. Members whose marks of a
    /// partition differ do not count each other's acknowledgements: only so do two majorities always have a member in common.
    pub mark: u32,
}

/// Sets of members of which each must give its own required number of acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Required {
    /// Members and how many of them.
    pub sets: SmallVec<[(Peers, usize); 2]>,
}

impl Required {
    /// That one member.
    pub fn one_of(peer: PeerIx) -> Self {
        let mut sets = SmallVec::new();
        sets.push((Peers::from_slice(&[peer]), 1));
        Self { sets }
    }
}

impl Route {
    /// What a write needs: the level's number among the owners and, while ownership moves, among the holders as well. Where no member takes a
    /// share, those who hold are all there is.
    pub fn write(&self, level: Level) -> Required {
        let mut sets = SmallVec::new();
        if !self.owners.is_empty() || self.holders.is_empty() {
            sets.push((self.owners.clone(), level.required(self.owners.len())));
        }
        if !self.holders.is_empty() && self.holders != self.owners {
            sets.push((self.holders.clone(), level.required(self.holders.len())));
        }
        Required { sets }
    }

    /// What a read needs: the level's number among those who hold everything; among the owners if nobody does.
    pub fn read(&self, level: Level) -> Required {
        let from = if self.holders.is_empty() { &self.owners } else { &self.holders };
        let mut sets = SmallVec::new();
        sets.push((from.clone(), level.required(from.len())));
        Required { sets }
    }

    /// Everybody a write goes to.
    pub fn replicas(&self) -> impl Iterator<Item = PeerIx> + '_ {
        self.owners.iter().copied().chain(self.holders.iter().copied().filter(|peer| !self.owners.contains(peer)))
    }
}

/// The picture.
#[derive(Debug)]
pub struct View {
    /// Rises with every change of the ring.
    pub epoch: u64,
    /// This node.
    pub me: PeerIx,
    /// Whether this node has heard most of the seeds it was given.
    pub seeds_met: bool,
    /// How often this node was forgotten in its life. What it held before that counts for nothing.
    pub lapses: u32,
    peers: BTreeMap<PeerIx, Peer>,
    routes: Box<[Route]>,
    /// The ring behind it.
    pub ring: Arc<Ring>,
}

impl View {
    /// A member's details, while the membership knows it.
    pub fn peer(&self, peer: PeerIx) -> Option<&Peer> {
        self.peers.get(&peer)
    }

    /// The member of that name.
    pub fn find(&self, id: &NodeId) -> Option<(PeerIx, &Peer)> {
        self.peers().find(|(_, peer)| peer.member.id == *id)
    }

    /// All members, this node included, in the order they became known.
    pub fn peers(&self) -> impl Iterator<Item = (PeerIx, &Peer)> {
        self.peers.iter().map(|(ix, peer)| (*ix, peer))
    }

    /// All members but this node.
    pub fn others(&self) -> impl Iterator<Item = (PeerIx, &Peer)> {
        self.peers().filter(|(ix, _)| *ix != self.me)
    }

    /// Where a partition's requests go.
    pub fn route(&self, partition: Partition) -> &Route {
        &self.routes[partition.index()]
    }

    /// Whether a member is alive.
    pub fn is_alive(&self, peer: PeerIx) -> bool {
        self.peer(peer).is_some_and(|peer| peer.liveness == Liveness::Alive)
    }

    /// Whether this node may coordinate the partition: it is among those to ask.
    pub fn serves(&self, partition: Partition) -> bool {
        self.route(partition).serving.contains(&self.me)
    }

    /// Partitions that this node owns.
    pub fn owned(&self) -> PartitionSet {
        let mut owned = PartitionSet::EMPTY;
        for partition in Partition::all().filter(|p| self.route(*p).owners.contains(&self.me)) {
            owned.insert(partition);
        }
        owned
    }

    /// Partitions this node's record says it holds, whether or not the claim counts.
    pub fn claimed(&self) -> PartitionSet {
        self.peer(self.me).map_or(PartitionSet::EMPTY, |peer| peer.member.held_now())
    }

    /// Whether any other member shares a partition with this node, so that writes must travel. One that leaves does, until it is gone.
    pub fn is_replicated(&self) -> bool {
        self.peers.values().filter(|peer| !peer.member.is_tombstone()).count() > 1
    }

    /// Where this node stands.
    pub fn my_state(&self) -> Option<MemberState> {
        self.peer(self.me).map(|peer| peer.member.state)
    }

    /// Whether this node's word alone is that of the cluster: it founded one and has no company. A node that is still to hear from its seeds
    /// holds nothing, and its majority of one says nothing.
    pub fn is_sovereign(&self) -> bool {
        !self.is_replicated() && !self.claimed().is_empty()
    }

    /// Partitions with fewer living holders among their owners than owners.
    pub fn under_replicated(&self) -> usize {
        let held_by = |route: &Route, owner: &PeerIx| self.is_alive(*owner) && route.holders.contains(owner);
        self.routes.iter().filter(|route| route.owners.iter().any(|owner| !held_by(route, owner))).count()
    }
}

/// Numbers members and draws views. One per node.
#[derive(Debug)]
pub struct Cartographer {
    me: NodeId,
    numbers: BTreeMap<NodeId, PeerIx>,
}

impl Cartographer {
    /// For the node named `me`, which becomes number 0.
    pub fn new(me: NodeId) -> Self {
        Self { numbers: BTreeMap::from([(me.clone(), PeerIx(0))]), me }
    }

    /// Draws the picture that these three give.
    pub fn draw(&mut self, membership: &Membership, ring: Arc<Ring>, sightings: &BTreeMap<NodeId, Sighting>) -> View {
        let mut peers = BTreeMap::new();
        // A node that has left sees itself until it ends.
        for member in membership.iter().filter(|member| !member.is_tombstone() || member.id == self.me) {
            let next = PeerIx(u32::try_from(self.numbers.len()).expect("fewer than 2^32 members in one life"));
            let ix = *self.numbers.entry(member.id.clone()).or_insert(next);
            let (liveness, address) = if member.id == self.me {
                (Liveness::Alive, member.address.parse().ok())
            } else {
                match sightings.get(&member.id) {
                    // What is known of another life says nothing about this one.
                    Some(seen) if seen.incarnation == member.incarnation => (seen.liveness, Some(seen.address)),
                    _ => (Liveness::Down, member.address.parse().ok()),
                }
            };
            peers.insert(ix, Peer { member: member.clone(), liveness, address, partitions: 0 });
        }
        let held: BTreeMap<PeerIx, PartitionSet> = claims(&peers, &membership.superseded());
        let ring_numbers: Vec<PeerIx> = ring.members().iter().map(|member| self.numbers[&member.id]).collect();
        let routes: Box<[Route]> = (0..PARTITIONS)
            .map(|p| {
                let owners = ring.replicas(Partition(p)).iter().map(|ix| ring_numbers[usize::from(*ix)]).collect();
                route(Partition(p), owners, &held, &peers)
            })
            .collect();
        for owner in routes.iter().flat_map(|route| &route.owners) {
            if let Some(peer) = peers.get_mut(owner) {
                peer.partitions += 1;
            }
        }
        View { epoch: membership.epoch(), me: PeerIx(0), seeds_met: false, lapses: 0, peers, routes, ring }
    }
}

/// The claims to hold partitions that count. Members that founded a cluster on their own and then met another one each claim to hold
/// everything, and only one of these claims can be true: that with more claimants behind it, then the older.
fn claims(peers: &BTreeMap<PeerIx, Peer>, superseded: &BTreeSet<&NodeId>) -> BTreeMap<PeerIx, PartitionSet> {
    let counts = |peer: &Peer| !peer.member.held_now().is_empty() && !superseded.contains(&peer.member.id);
    let mut backing: BTreeMap<u64, usize> = BTreeMap::new();
    for peer in peers.values().filter(|peer| counts(peer)) {
        *backing.entry(peer.member.held.founding).or_default() += 1;
    }
    let founding = backing.iter().max_by_key(|(founding, n)| (**n, std::cmp::Reverse(**founding))).map(|(f, _)| *f);
    peers
        .iter()
        .filter(|(_, peer)| counts(peer) && Some(peer.member.held.founding) == founding)
        .map(|(ix, peer)| (*ix, peer.member.held_now()))
        .collect()
}

fn route(
    partition: Partition,
    owners: Peers,
    held: &BTreeMap<PeerIx, PartitionSet>,
    peers: &BTreeMap<PeerIx, Peer>,
) -> Route {
    let holds = |peer: &PeerIx| held.get(peer).is_some_and(|held| held.contains(partition));
    #[cfg(feature = "sim")]
    let holds =
        |peer: &PeerIx| holds(peer) || crate::base::plant::Plant::JoiningReader.is_sown() && owners.contains(peer);
    let mut holders: Peers = owners.iter().copied().filter(|peer| holds(peer)).collect();
    holders.extend(held.keys().copied().filter(|peer| !owners.contains(peer) && holds(peer)));
    let among = |candidates: &Peers, liveness: Liveness| -> Peers {
        candidates.iter().copied().filter(|peer| peers.get(peer).is_some_and(|p| p.liveness == liveness)).collect()
    };
    let serving =
        [among(&holders, Liveness::Alive), among(&holders, Liveness::Suspect), among(&owners, Liveness::Alive)]
            .into_iter()
            .find(|candidates| !candidates.is_empty())
            .unwrap_or_default();
    let mark = mark(&owners, &holders, peers);
    Route { owners, holders, serving, mark }
}

/// See [`Route::mark`]: over names and incarnations, since the numbers are this process's own.
fn mark(owners: &Peers, holders: &Peers, peers: &BTreeMap<PeerIx, Peer>) -> u32 {
    #[cfg(feature = "sim")]
    if crate::base::plant::Plant::EqualRoutes.is_sown() {
        return 0;
    }
    let mut lives: SmallVec<[(bool, &str, u64); 6]> = SmallVec::new();
    for (holds, set) in [(false, owners), (true, holders)] {
        let members = set.iter().filter_map(|peer| peers.get(peer));
        lives.extend(members.map(|peer| (holds, peer.member.id.as_str(), peer.member.incarnation)));
    }
    lives.sort_unstable();
    let mut hash = Xxh3Default::new();
    for (holds, id, incarnation) in lives {
        hash.update(&[u8::from(holds)]);
        hash.update(id.as_bytes());
        // No name has this byte, so the end of one is not the start of a number.
        hash.update(&[0]);
        hash.update(&incarnation.to_le_bytes());
    }
    hash.digest() as u32
}
