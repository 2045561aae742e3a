//! Who owns what: 1024 partitions, each with its replica set, as a pure function of the membership. Never knows who is alive.
//! Tested in `ring/tests.rs`; the figures of `docs/adr/0002-placement.md` come from `examples/ring_figures.rs`.

use std::collections::BTreeMap;

use super::assignment::{Input, assign};
use super::membership::{Member, Membership};
use super::placement::{distances, token_counts};
use crate::base::id::NodeId;
use crate::base::slot::{PARTITIONS, Partition};

#[cfg(test)]
mod tests;

/// A member as the ring knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingMember {
    /// Its identity.
    pub id: NodeId,
    /// `host:port` for clients and peers.
    pub address: String,
    /// Its share relative to others; 0 is a gateway, which owns nothing.
    pub weight: u16,
    /// Its failure domain.
    pub zone: Option<String>,
    /// Partitions it owns a copy of.
    pub places: u16,
    /// Partitions it comes first for, and so coordinates while it lives.
    pub firsts: u16,
}

/// The owners of every partition. Immutable; a changed membership makes another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    epoch: u64,
    members: Vec<RingMember>,
    copies: usize,
    owners: Vec<u16>,
}

impl Ring {
    /// The ring of `membership`: equal for equal memberships, on every machine. It wants the largest number of copies any
    /// joined member wants, and has at most one on each member with a weight whose address nobody has taken. Tens of microseconds for three members, milliseconds
    /// for a hundred: build it when the membership changes, not per request.
    pub fn build(membership: &Membership) -> Self {
        let joined: Vec<&Member> = membership.joined().collect();
        let superseded = membership.superseded();
        let owns = |member: &Member| member.weight > 0 && !superseded.contains(&member.id);
        let owning: Vec<usize> = (0..joined.len()).filter(|&at| owns(joined[at])).collect();
        let wanted = joined.iter().map(|member| usize::from(member.replication)).max().unwrap_or(0);
        let copies = wanted.min(owning.len());
        let owners: Vec<u16> = if copies == 0 {
            Vec::new()
        } else {
            let chosen: Vec<&Member> = owning.iter().map(|&at| joined[at]).collect();
            assign(&input(&chosen, copies)).into_iter().map(|member| owning[member] as u16).collect()
        };
        let mut members: Vec<RingMember> = joined.iter().map(|member| RingMember::of(member)).collect();
        for row in owners.chunks_exact(copies.max(1)) {
            members[usize::from(row[0])].firsts += 1;
            row.iter().for_each(|&owner| members[usize::from(owner)].places += 1);
        }
        Self { epoch: membership.epoch(), members, copies, owners }
    }

    /// The epoch of the membership it was built from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Joined members in order of id, gateways included.
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// Where `id` is in [`members`](Self::members).
    pub fn index_of(&self, id: &NodeId) -> Option<u16> {
        self.members.binary_search_by(|member| member.id.cmp(id)).ok().map(|at| at as u16)
    }

    /// Copies of each partition: what is wanted, or as many as there are members with a weight.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// The owners of `partition` as indices into [`members`](Self::members), in order of preference: the first that lives coordinates.
    /// Empty when nobody owns anything.
    pub fn replicas(&self, partition: Partition) -> &[u16] {
        let at = partition.index() * self.copies;
        self.owners.get(at..at + self.copies).unwrap_or(&[])
    }

    /// The owners of `partition` themselves, in order of preference.
    pub fn owners(&self, partition: Partition) -> impl Iterator<Item = &RingMember> {
        self.replicas(partition).iter().map(|&owner| &self.members[usize::from(owner)])
    }

    /// How many copies must be made anew to get from this ring to `new`.
    pub fn copies_moved_to(&self, new: &Self) -> usize {
        let had = |partition, owner: &RingMember| self.owners(partition).any(|former| former.id == owner.id);
        Partition::all().map(|partition| new.owners(partition).filter(|owner| !had(partition, owner)).count()).sum()
    }
}

impl RingMember {
    fn of(member: &Member) -> Self {
        let Member { id, address, weight, zone, .. } = member.clone();
        Self { id, address, weight, zone, places: 0, firsts: 0 }
    }
}

fn input(members: &[&Member], copies: usize) -> Input {
    let mut zone_numbers = BTreeMap::new();
    for member in members {
        let next = zone_numbers.len();
        zone_numbers.entry(member.zone.as_deref()).or_insert(next);
    }
    let weights: Vec<u64> = members.iter().map(|member| u64::from(member.weight) * u64::from(member.vnodes)).collect();
    let mut by_partition = vec![0; usize::from(PARTITIONS) * members.len()];
    for (at, (member, tokens)) in members.iter().zip(token_counts(&weights)).enumerate() {
        for (row, distance) in by_partition.chunks_exact_mut(members.len()).zip(distances(&member.id, tokens)) {
            row[at] = distance;
        }
    }
    Input {
        zones: members.iter().map(|member| zone_numbers[&member.zone.as_deref()]).collect(),
        zone_count: zone_numbers.len(),
        weights,
        copies,
        distances: by_partition,
    }
}
