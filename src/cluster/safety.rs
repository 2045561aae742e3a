//! Whether a node may stop now, memory and all, without any copy being missed: every partition of the cluster has all its copies, and nothing is
//! here that the other copies lack. Decides; never stops anything. Tested below.

use crate::base::slot::Partition;

use super::membership::MemberState;
use super::view::{Liveness, View};

/// What a node knows of itself besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Partitions that another copy may lack something of, by what this node knows.
    pub uneven: usize,
    /// Writes that are kept here for members that are there to get them. For one that is away they count no more than its copies do.
    pub hints: u64,
}

/// Why something might be lost if this node stopped; `None` if nothing would be.
pub fn not_safe_to_stop(view: &View, own: Own) -> Option<String> {
    if view.my_state() != Some(MemberState::Joined) {
        return Some("the node is leaving, and ends by itself".into());
    }
    let lacking = view.under_replicated();
    if lacking > 0 {
        let away = view.peers().filter(|(_, peer)| peer.liveness != Liveness::Alive && peer.partitions > 0);
        let away: Vec<&str> = away.map(|(_, peer)| peer.member.id.as_str()).collect();
        let because = if away.is_empty() { String::new() } else { format!(", not alive: {}", away.join(", ")) };
        return Some(format!("{lacking} partitions have fewer copies than they should{because}"));
    }
    if view.ring.copies() == 0 {
        return Some("no member takes a share, so nobody would take over".into());
    }
    let alone = Partition::all().filter(|p| view.route(*p).owners[..] == [view.me]).count();
    if alone > 0 {
        return Some(format!("{alone} partitions have their only copy here"));
    }
    if own.uneven > 0 {
        return Some(format!("{} partitions are being compared with their other copies", own.uneven));
    }
    (own.hints > 0).then(|| format!("{} writes are still to be handed to members that missed them", own.hints))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::base::id::NodeId;
    use crate::cluster::membership::{Member, Membership};
    use crate::cluster::partition_set::PartitionSet;
    use crate::cluster::ring::Ring;
    use crate::cluster::specimen::{id, member};
    use crate::cluster::view::{Cartographer, Sighting};

    /// What `a` sees: members that hold everything, those named not alive, and so many copies.
    fn view(members: &[&str], away: &[&str], copies: u16, leaves: bool) -> View {
        let mut membership = Membership::default();
        let address = "10.0.0.1:5000".parse().unwrap();
        let mut seen: BTreeMap<NodeId, Sighting> = BTreeMap::new();
        for name in members {
            membership.join(Member { replication: copies, ..member(name) }).unwrap();
            membership.set_held(&id(name), 10, PartitionSet::FULL, 1).unwrap();
            let liveness = if away.contains(name) { Liveness::Down } else { Liveness::Alive };
            seen.insert(id(name), Sighting { liveness, incarnation: 10, address });
        }
        if leaves {
            membership.leave(&id("a")).unwrap();
        }
        Cartographer::new(id("a")).draw(&membership, Arc::new(Ring::build(&membership)), &seen)
    }

    #[test]
    fn a_node_may_stop_when_all_copies_are_there_and_equal() {
        let none = Own::default();
        let why = |view: &View, own: Own| not_safe_to_stop(view, own).unwrap_or_default();
        let whole = view(&["a", "b", "c"], &[], 3, false);
        assert_eq!(why(&whole, none), "");
        assert_eq!(
            why(&view(&["a", "b", "c"], &["c"], 3, false), none),
            "1024 partitions have fewer copies than they should, not alive: c"
        );
        assert_eq!(why(&view(&["a"], &[], 3, false), none), "1024 partitions have their only copy here");
        assert!(why(&view(&["a", "b"], &[], 1, false), none).ends_with("have their only copy here"));
        assert_eq!(why(&view(&["a", "b"], &[], 2, true), none), "the node is leaving, and ends by itself");
        assert!(why(&whole, Own { uneven: 3, hints: 0 }).starts_with("3 partitions are being compared"));
        assert!(why(&whole, Own { uneven: 0, hints: 7 }).starts_with("7 writes are still to be handed"));
    }

    #[test]
    fn members_that_hold_nothing_may_be_away() {
        let mut membership = Membership::default();
        for (name, weight) in [("a", 1), ("b", 1), ("gateway", 0)] {
            membership.join(Member { weight, ..member(name) }).unwrap();
            let held = if weight > 0 { PartitionSet::FULL } else { PartitionSet::EMPTY };
            membership.set_held(&id(name), 10, held, 1).unwrap();
        }
        let sighting =
            Sighting { liveness: Liveness::Alive, incarnation: 10, address: "10.0.0.1:5000".parse().unwrap() };
        let seen = BTreeMap::from([(id("b"), sighting)]);
        let view = Cartographer::new(id("a")).draw(&membership, Arc::new(Ring::build(&membership)), &seen);
        assert_eq!(not_safe_to_stop(&view, Own::default()), None);
        for name in ["a", "b"] {
            let member = membership.member(&id(name)).unwrap().clone();
            membership.join(Member { weight: 0, ..member }).unwrap();
        }
        let view = Cartographer::new(id("a")).draw(&membership, Arc::new(Ring::build(&membership)), &seen);
        let why = not_safe_to_stop(&view, Own::default());
        assert_eq!(why.as_deref(), Some("no member takes a share, so nobody would take over"));
    }
}
