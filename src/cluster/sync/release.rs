//! What this node lets go of: copies that others own and have, and in the end its place among the members. Never drops anything itself. Tested in
//! `sync/tests.rs`.

use super::{Pair, Planner, SETTLE_MS, Step, alive};
use crate::base::hlc::UnixMs;
use crate::base::slot::Partition;
use crate::cluster::membership::MemberState;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::view::{PeerIx, View};

impl Planner {
    /// Gives back what others own and hold: the claim first, the data once nobody counts on it.
    pub(super) fn give_back(&mut self, view: &View, filled: &PartitionSet, now: UnixMs, steps: &mut Vec<Step>) {
        let owned = view.owned();
        let (mut given, mut drop) = (PartitionSet::EMPTY, PartitionSet::EMPTY);
        for partition in filled.union(&self.held).difference(&owned).iter() {
            let route = view.route(partition);
            let all_hold = !route.owners.is_empty()
                && route.owners.iter().all(|owner| view.is_alive(*owner) && route.holders.contains(owner));
            if !all_hold {
                continue;
            }
            let is_safe =
                route.owners.iter().all(|owner| self.is_clean(partition, owner) && !self.is_due(partition, owner));
            if self.held.contains(partition) {
                if is_safe {
                    given.insert(partition);
                }
            } else if self.changed_ms.get(&partition).is_none_or(|at| *at + SETTLE_MS <= now) {
                if is_safe {
                    drop.insert(partition);
                }
                // A stray: written here by someone who did not know better. Its owners get it before it goes.
                let lacks = |owner: &PeerIx| !self.is_clean(partition, owner) && !self.is_due(partition, owner);
                let lacking: Vec<PeerIx> = route.owners.iter().copied().filter(lacks).collect();
                for owner in lacking {
                    let incarnation = alive(view, owner).unwrap_or_default();
                    let unknown = Pair { incarnation, mark: route.mark, clean: false, level: None };
                    self.pairs.entry((partition, owner)).or_insert(unknown);
                    self.pending.entry(owner).or_insert(PartitionSet::EMPTY).insert(partition);
                }
            }
        }
        if now >= self.next_claim_ms || given == self.held.difference(&owned) {
            self.held = self.held.difference(&given);
            self.changed_ms.extend(given.iter().map(|partition| (partition, now)));
        }
        if !drop.is_empty() {
            self.pairs.retain(|(partition, _), _| !drop.contains(*partition));
            steps.push(Step::Drop(drop));
        }
    }

    /// Whether a peer had nothing old of a partition that is missing here when they were last compared.
    fn is_clean(&self, partition: Partition, peer: &PeerIx) -> bool {
        self.pairs.get(&(partition, *peer)).is_some_and(|pair| pair.clean)
    }

    /// Whether a peer may have missed something of a partition since, or is being compared: it is not to be relied on yet.
    fn is_due(&self, partition: Partition, peer: &PeerIx) -> bool {
        self.asked.contains_key(&(partition, *peer))
            || self.pending.get(peer).is_some_and(|pending| pending.contains(partition))
    }

    /// Whether a node that leaves has nothing left: no claim, here or in the eyes of others, no data, nothing being compared; and has given
    /// nothing back for so long that nobody counts on it any more.
    pub(super) fn may_depart(&mut self, view: &View, filled: &PartitionSet, now: UnixMs) -> bool {
        if view.my_state() != Some(MemberState::Leaving) {
            self.leaving_since_ms = None;
            return false;
        }
        let since = *self.leaving_since_ms.get_or_insert(now);
        let last = self.changed_ms.values().copied().fold(since, UnixMs::max);
        self.held.union(&view.claimed()).union(filled).is_empty() && self.busy.is_empty() && last + SETTLE_MS <= now
    }
}
