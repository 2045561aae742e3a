//! Whether a member may go by its own wish: somebody must stay to take over what it holds. Decides; never asks anybody. Tested below.

use std::collections::BTreeMap;

use crate::base::id::NodeId;

use super::membership::{Member, MemberState, Membership};
use super::partition_set::PartitionSet;
use super::view::{Liveness, PeerIx, View};

/// Why a node does not leave. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stays {
    /// Nobody else has a share of the ring, and what this node holds would go with it.
    #[error("no other member takes a share, so all data would be lost; stop the node if that is meant")]
    Last,
    /// The same of one that only gives its share up.
    #[error("no other member takes a share, so nobody would own any key")]
    Sole,
    /// Somebody has, but nobody is there.
    #[error("no other member that takes a share is alive; try again when one is, or stop the node")]
    Alone,
    /// One that has a share is away. With this node out of the ring as well, keys of both may have no majority, and that one could claim nothing.
    #[error(
        "`{0}` is not alive: without it and this node keys may have no majority; try again when it is back, or forget it"
    )]
    Away(NodeId),
}

/// Whether `me` may begin to leave.
///
/// # Errors
/// [`Stays`] says why not.
pub fn may_leave(view: &View, membership: &Membership, me: &NodeId) -> Result<(), Stays> {
    if !has_heir(membership, me) {
        return Err(Stays::Last);
    }
    let holds_nothing = membership.member(me).is_none_or(holds_nothing);
    let takes = |member: &Member| member.state == MemberState::Joined && member.weight > 0;
    let is_anybody_there =
        view.others().any(|(_, peer)| peer.liveness == Liveness::Alive && takes(&peer.member) && peer.partitions > 0);
    let superseded = membership.superseded();
    let mut away = view.others().filter(|(_, peer)| {
        peer.liveness != Liveness::Alive && takes(&peer.member) && !superseded.contains(&peer.member.id)
    });
    match away.next() {
        _ if holds_nothing => Ok(()),
        _ if !is_anybody_there => Err(Stays::Alone),
        Some((_, peer)) => Err(Stays::Away(peer.member.id.clone())),
        None => Ok(()),
    }
}

/// Whether `me` may give up its share and stay as a gateway: all that it holds moves away, as from one that leaves.
///
/// # Errors
/// [`Stays`] says why not.
pub fn may_give_up_share(view: &View, membership: &Membership, me: &NodeId) -> Result<(), Stays> {
    may_leave(view, membership, me).map_err(|stays| if stays == Stays::Last { Stays::Sole } else { stays })
}

/// Whether somebody stays who takes over what `me` holds. Of members that all leave at once one must stay, the same for everybody: the first by
/// id, which then takes its leave back.
pub fn has_heir(membership: &Membership, me: &NodeId) -> bool {
    let superseded = membership.superseded();
    let takes = |member: &&Member| member.id != *me && member.weight > 0 && !superseded.contains(&member.id);
    membership.member(me).is_none_or(holds_nothing)
        || membership.present().filter(takes).any(|member| member.state == MemberState::Joined || member.id < *me)
}

/// Members that a living one waits for before it can give back all that it holds and does not own: those to take partitions over that are not alive, with
/// how many.
pub fn waits_for(view: &View, giver: PeerIx) -> BTreeMap<&NodeId, u16> {
    let mut waits_for = BTreeMap::new();
    let held = view.peer(giver).filter(|_| view.is_alive(giver)).map(|peer| peer.member.held_now());
    for partition in held.unwrap_or(PartitionSet::EMPTY).iter() {
        let owners = &view.route(partition).owners;
        if owners.contains(&giver) {
            continue;
        }
        for owner in owners.iter().filter(|owner| !view.is_alive(**owner)).filter_map(|owner| view.peer(*owner)) {
            *waits_for.entry(&owner.member.id).or_default() += 1;
        }
    }
    waits_for
}

/// A gateway that has nothing to hand over.
fn holds_nothing(member: &Member) -> bool {
    member.weight == 0 && member.held_now().is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::ring::Ring;
    use crate::cluster::specimen::{id, member};
    use crate::cluster::view::{Cartographer, Sighting};

    /// Members with their weights, all of which hold everything; those named leave.
    fn membership(members: &[(&str, u16)], leaving: &[&str]) -> Membership {
        let mut membership = Membership::default();
        for (name, weight) in members {
            membership.join(Member { weight: *weight, ..member(name) }).unwrap();
            let held = if *weight > 0 { PartitionSet::FULL } else { PartitionSet::EMPTY };
            membership.set_held(&id(name), 10, held, 1).unwrap();
        }
        for name in leaving {
            membership.leave(&id(name)).unwrap();
        }
        membership
    }

    fn sighting() -> Sighting {
        Sighting { liveness: Liveness::Alive, incarnation: 10, address: "10.0.0.1:5000".parse().unwrap() }
    }

    /// What `me` sees, of the others that those named are alive.
    fn seen_by(me: &str, members: &[(&str, u16)], alive: &[&str]) -> (Membership, View) {
        let membership = membership(members, &[]);
        let seen: BTreeMap<NodeId, Sighting> = alive.iter().map(|name| (id(name), sighting())).collect();
        let view = Cartographer::new(id(me)).draw(&membership, Arc::new(Ring::build(&membership)), &seen);
        (membership, view)
    }

    fn may(me: &str, members: &[(&str, u16)], alive: &[&str]) -> Result<(), Stays> {
        let (membership, view) = seen_by(me, members, alive);
        may_leave(&view, &membership, &id(me))
    }

    #[test]
    fn a_member_leaves_only_where_somebody_alive_takes_over() {
        assert_eq!(may("a", &[("a", 1)], &[]), Err(Stays::Last));
        assert_eq!(may("a", &[("a", 1), ("gateway", 0)], &["gateway"]), Err(Stays::Last));
        assert_eq!(may("a", &[("a", 1), ("b", 1)], &[]), Err(Stays::Alone));
        assert_eq!(may("a", &[("a", 1), ("b", 1)], &["b"]), Ok(()));
        assert_eq!(may("a", &[("a", 1), ("b", 1), ("c", 1)], &["b"]), Err(Stays::Away(id("c"))));
        assert_eq!(may("a", &[("a", 1), ("b", 1), ("gateway", 0)], &["b"]), Ok(()));
        assert_eq!(may("gateway", &[("a", 1), ("gateway", 0)], &[]), Ok(()), "it has nothing to hand over");
    }

    #[test]
    fn a_member_gives_its_share_up_only_where_another_alive_takes_it() {
        let give_up = |members: &[(&str, u16)], alive: &[&str]| {
            let (membership, view) = seen_by("a", members, alive);
            may_give_up_share(&view, &membership, &id("a"))
        };
        assert_eq!(give_up(&[("a", 1)], &[]), Err(Stays::Sole));
        assert_eq!(give_up(&[("a", 1), ("gateway", 0)], &["gateway"]), Err(Stays::Sole));
        assert_eq!(give_up(&[("a", 1), ("b", 1)], &[]), Err(Stays::Alone));
        assert_eq!(give_up(&[("a", 1), ("b", 1)], &["b"]), Ok(()));
    }

    #[test]
    fn a_leaver_waits_for_new_owners_that_are_not_alive() {
        let mut membership = membership(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)], &["a"]);
        for id in ["b", "c", "d"].map(id) {
            let member = membership.member(&id).unwrap().clone();
            membership.join(Member { replication: 1, ..member }).unwrap();
        }
        let waits = |alive: &[&str]| {
            let seen = alive.iter().map(|name| (id(name), sighting())).collect();
            let view = Cartographer::new(id("b")).draw(&membership, Arc::new(Ring::build(&membership)), &seen);
            let a = view.find(&id("a")).unwrap().0;
            let waits: Vec<_> = waits_for(&view, a).into_iter().map(|(id, n)| (id.to_string(), n)).collect();
            let owned = |name| view.find(&id(name)).unwrap().1.partitions;
            (waits, owned("c"), owned("d"))
        };
        assert_eq!(waits(&["a", "c", "d"]).0, []);
        let (waited, c, d) = waits(&["a"]);
        assert_eq!(waited, [("c".to_owned(), c), ("d".to_owned(), d)]);
        assert!(c > 0 && d > 0);
        assert_eq!(waits(&[]).0, [], "one that is not there waits for nobody");
    }

    #[test]
    fn of_those_who_all_leave_the_first_stays() {
        let heir = |members: &[(&str, u16)], leaving: &[&str]| {
            let membership = membership(members, leaving);
            leaving.iter().map(|me| has_heir(&membership, &id(me))).collect::<Vec<_>>()
        };
        let three = [("a", 1), ("b", 1), ("c", 1)];
        assert_eq!(heir(&three, &["a", "b"]), [true, true], "c is there");
        assert_eq!(heir(&three, &["a", "b", "c"]), [false, true, true]);
        assert_eq!(heir(&[("a", 0), ("b", 1), ("c", 1)], &["b", "c"]), [false, true], "a gateway takes nothing");
    }
}
