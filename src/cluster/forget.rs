//! Whether a member that has been away for long may be taken out of the ring: not while it may be among the only ones to have a write that was
//! acknowledged at quorum. Decides; never asks anybody. Tested below.

use std::collections::BTreeSet;

use crate::base::slot::Partition;

use super::view::{PeerIx, View};

/// Whether the living hold every acknowledged write of `peer`'s partitions without it. `gone` are members that are known to have lost what they
/// held: no process listens where they were.
///
/// Of the holders of a partition some live, some are away. Those who are away may have acknowledged writes among themselves only if they are
/// as many as the living; then they are waited for. What is gone is not: nobody has it any more.
pub fn may_forget(view: &View, peer: PeerIx, gone: &BTreeSet<PeerIx>) -> bool {
    Partition::all().all(|partition| {
        let holders = &view.route(partition).holders;
        let alive = holders.iter().filter(|holder| view.is_alive(**holder)).count();
        let away = holders.iter().filter(|holder| !view.is_alive(**holder) && !gone.contains(holder)).count();
        !holders.contains(&peer) || away == 0 || alive > away
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::base::id::NodeId;
    use crate::cluster::membership::Membership;
    use crate::cluster::partition_set::PartitionSet;
    use crate::cluster::ring::Ring;
    use crate::cluster::specimen::{id, member};
    use crate::cluster::view::{Cartographer, Liveness, Sighting};

    /// Members that hold everything; of the others than `a` those named are alive.
    fn view(members: &[&str], alive: &[&str]) -> View {
        let mut membership = Membership::default();
        for name in members {
            membership.join(member(name)).unwrap();
            membership.set_held(&id(name), 10, PartitionSet::FULL, 1).unwrap();
        }
        let address = "10.0.0.1:5000".parse().unwrap();
        let sighting = Sighting { liveness: Liveness::Alive, incarnation: 10, address };
        let seen: BTreeMap<NodeId, Sighting> = alive.iter().map(|name| (id(name), sighting)).collect();
        Cartographer::new(id("a")).draw(&membership, Arc::new(Ring::build(&membership)), &seen)
    }

    fn may(members: &[&str], alive: &[&str], gone: &[&str]) -> bool {
        let view = view(members, alive);
        let find = |name: &str| view.find(&id(name)).unwrap().0;
        may_forget(&view, find("c"), &gone.iter().map(|name| find(name)).collect())
    }

    #[test]
    fn a_minority_of_the_holders_is_forgotten_and_half_of_them_is_waited_for() {
        assert!(may(&["a", "b", "c"], &["b"], &[]));
        assert!(!may(&["a", "b", "c"], &[], &[]), "b and c may have acknowledged what a never saw");
        assert!(!may(&["a", "c"], &[], &[]));
    }

    #[test]
    fn what_nobody_has_any_more_is_not_waited_for() {
        assert!(may(&["a", "b", "c"], &[], &["b", "c"]));
        assert!(!may(&["a", "b", "c"], &[], &["b"]), "c may have what b acknowledged with it");
        assert!(may(&["a", "c"], &[], &["c"]));
    }
}
