//! What a change of membership would move, before it is made, and what is still moving of those that were. A pure function of the view, as the
//! ring is; sizes are what one node knows of. Never changes anything. Tested below.

use std::collections::BTreeMap;

use crate::base::id::{NodeId, Zone};
use crate::base::slot::Partition;

use super::membership::{Member, MemberState, Membership, Refused};
use super::ring::Ring;
use super::view::{PeerIx, View};

/// A change that might be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new member comes.
    Join {
        /// Under this id; another one would get other partitions.
        id: NodeId,
        /// With this share.
        share: Share,
    },
    /// A member leaves, or is forgotten.
    Go(NodeId),
    /// A member's share becomes another.
    Share(NodeId, Share),
}

/// What of a member's share is said; what is not stays, or is as it is by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Relative to others; 0 is a gateway.
    pub weight: Option<u16>,
    /// Failure domain; `Some(None)` is that which all share who name none.
    pub zone: Option<Option<Zone>>,
}

impl Share {
    /// Has `member` take it.
    pub fn apply(&self, member: &mut Member) {
        if let Some(weight) = self.weight {
            member.weight = weight;
        }
        if let Some(zone) = &self.zone {
            member.zone = zone.clone().map(String::from);
        }
    }
}

/// Why a change can't be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplanned {
    /// It names nobody.
    #[error("no such member")]
    NoMember,
    /// It makes a member of one that is.
    #[error("`{0}` is a member already")]
    IsMember(NodeId),
    /// No member may be like that.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Partitions and what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many.
    pub partitions: u64,
    /// Their keys.
    pub keys: u64,
    /// The memory these take.
    pub bytes: u64,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.partitions += other.partitions;
        self.keys += other.keys;
        self.bytes += other.bytes;
    }
}

/// How much is in each partition: known of those that are held here, the mean of these for others.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    known: BTreeMap<Partition, (u64, u64)>,
    mean: (u64, u64),
}

impl Sizes {
    /// Keys and bytes of the partitions that are held here.
    pub fn new(known: BTreeMap<Partition, (u64, u64)>) -> Self {
        let count = (known.len() as u64).max(1);
        let (keys, bytes) = known.values().fold((0, 0), |(keys, bytes), (k, b)| (keys + k, bytes + b));
        Self { known, mean: (keys / count, bytes / count) }
    }

    fn of(&self, partition: Partition) -> Load {
        let (keys, bytes) = self.known.get(&partition).copied().unwrap_or(self.mean);
        Load { partitions: 1, keys, bytes }
    }
}

/// What a member gets, and what it gives away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Copies it does not have yet.
    pub gets: Load,
    /// Copies it does not keep.
    pub gives: Load,
}

/// What each member gets and gives.
pub type Plan = BTreeMap<NodeId, Moves>;

/// The ring that a change would make of that which `view` has.
///
/// # Errors
/// [`Unplanned`].
pub fn ring_after(view: &View, change: &Change) -> Result<Ring, Unplanned> {
    let mut membership = Membership::default();
    for (_, peer) in view.peers() {
        membership.join(peer.member.clone())?;
        if peer.member.state != MemberState::Joined {
            membership.leave(&peer.member.id)?;
        }
    }
    let named = |id: &NodeId| membership.member(id).cloned().ok_or(Unplanned::NoMember);
    match change {
        Change::Join { id, .. } if membership.member(id).is_some() => return Err(Unplanned::IsMember(id.clone())),
        Change::Join { id, share } => {
            // At an address that is nobody's, so that it takes nobody's place.
            let mut member = Member::new(id.clone(), format!("{id}.invalid:1"));
            member.replication = membership.joined().map(|member| member.replication).max().unwrap_or(1);
            share.apply(&mut member);
            membership.join(member)?;
        }
        Change::Go(id) => {
            named(id)?;
            membership.leave(id)?;
        }
        Change::Share(id, share) => {
            let mut member = named(id)?;
            share.apply(&mut member);
            membership.join(member)?;
        }
    }
    Ok(Ring::build(&membership))
}

/// What has to move from one ring to another.
pub fn between(before: &Ring, after: &Ring, sizes: &Sizes) -> Plan {
    let mut plan = Plan::new();
    for partition in Partition::all() {
        let owners = |ring: &Ring| ring.owners(partition).map(|owner| owner.id.clone()).collect::<Vec<_>>();
        put(&mut plan, &owners(before), &owners(after), sizes.of(partition));
    }
    plan
}

/// What is still moving: owners that do not hold what they own, and holders that own no longer.
pub fn pending(view: &View, sizes: &Sizes) -> Plan {
    let mut plan = Plan::new();
    for partition in Partition::all() {
        let route = view.route(partition);
        let names = |peers: &[PeerIx]| peers.iter().filter_map(|ix| Some(view.peer(*ix)?.member.id.clone())).collect();
        let (holders, owners): (Vec<NodeId>, Vec<NodeId>) = (names(&route.holders), names(&route.owners));
        put(&mut plan, &holders, &owners, sizes.of(partition));
    }
    plan
}

fn put(plan: &mut Plan, before: &[NodeId], after: &[NodeId], load: Load) {
    for id in after.iter().filter(|id| !before.contains(id)) {
        plan.entry(id.clone()).or_default().gets.add(load);
    }
    for id in before.iter().filter(|id| !after.contains(id)) {
        plan.entry(id.clone()).or_default().gives.add(load);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::partition_set::PartitionSet;
    use crate::cluster::specimen::{id, member};
    use crate::cluster::view::Cartographer;

    /// The view of `a` of members that hold all they own, with two copies of each partition.
    fn view(names: &[&str]) -> View {
        let mut membership = Membership::default();
        for name in names {
            membership.join(Member { replication: 2, ..member(name) }).unwrap();
        }
        let ring = Ring::build(&membership);
        for name in names {
            let owns = |p: &Partition| ring.owners(*p).any(|owner| owner.id == id(name));
            membership.set_held(&id(name), 10, Partition::all().filter(owns).collect::<PartitionSet>(), 1).unwrap();
        }
        Cartographer::new(id("a")).draw(&membership, Arc::new(Ring::build(&membership)), &BTreeMap::new())
    }

    /// Ten keys of a hundred bytes in each partition, but for the first, which has a thousand.
    fn sizes() -> Sizes {
        let size = |p: Partition| (p, if p == Partition(0) { (1_000, 100_000) } else { (10, 1_000) });
        Sizes::new(Partition::all().map(size).collect())
    }

    fn planned(view: &View, change: &Change) -> Plan {
        between(&view.ring, &ring_after(view, change).unwrap(), &sizes())
    }

    #[test]
    fn what_one_gets_others_give() {
        let view = view(&["a", "b", "c"]);
        for (change, gets, gives) in [
            (Change::Join { id: id("d"), share: Share::default() }, vec!["d"], vec!["a", "b", "c"]),
            (Change::Go(id("b")), vec!["a", "c"], vec!["b"]),
            (Change::Share(id("c"), Share { weight: Some(0), zone: None }), vec!["a", "b"], vec!["c"]),
        ] {
            let plan = planned(&view, &change);
            let sum = |of: fn(&Moves) -> Load| {
                plan.values().fold(Load::default(), |mut sum, moves| {
                    sum.add(of(moves));
                    sum
                })
            };
            assert_eq!(sum(|moves| moves.gets), sum(|moves| moves.gives), "{change:?}");
            for name in gets {
                assert!(plan[&id(name)].gets.keys > 1_000, "{change:?} {name}");
            }
            for name in gives {
                assert!(plan[&id(name)].gives.bytes > 100_000, "{change:?} {name}");
            }
        }
    }

    #[test]
    fn who_goes_gives_all_it_has() {
        let view = view(&["a", "b", "c"]);
        let plan = planned(&view, &Change::Go(id("b")));
        let (_, b) = view.find(&id("b")).unwrap();
        assert_eq!(plan[&id("b")].gives.partitions, u64::from(b.partitions));
        assert_eq!(plan[&id("b")].gets, Load::default());
    }

    #[test]
    fn what_has_moved_is_not_pending_and_what_has_not_is() {
        let mut of_three = view(&["a", "b", "c"]);
        assert_eq!(pending(&of_three, &sizes()), Plan::new());
        // The same holders, and the ring of four.
        let mut membership = Membership::default();
        for (_, peer) in of_three.peers() {
            membership.join(peer.member.clone()).unwrap();
            let held = peer.member.held;
            membership.set_held(&peer.member.id, 10, held.partitions, held.founding).unwrap();
        }
        let change = Change::Join { id: id("d"), share: Share::default() };
        let plan = planned(&of_three, &change);
        membership
            .join(Member { replication: 2, incarnation: 1, ..Member::new(id("d"), "d.invalid:1".into()) })
            .unwrap();
        of_three = Cartographer::new(id("a")).draw(&membership, Arc::new(Ring::build(&membership)), &BTreeMap::new());
        assert_eq!(pending(&of_three, &sizes()), plan);
    }

    #[test]
    fn what_is_not_known_here_is_taken_for_the_mean() {
        let sizes = Sizes::new(BTreeMap::from([(Partition(0), (10, 1_000)), (Partition(1), (30, 3_000))]));
        assert_eq!(sizes.of(Partition(1)), Load { partitions: 1, keys: 30, bytes: 3_000 });
        assert_eq!(sizes.of(Partition(2)), Load { partitions: 1, keys: 20, bytes: 2_000 });
        assert_eq!(Sizes::new(BTreeMap::new()).of(Partition(2)), Load { partitions: 1, keys: 0, bytes: 0 });
    }

    #[test]
    fn changes_that_make_no_sense_have_no_plan() {
        let view = view(&["a", "b"]);
        let refused = |change: Change| ring_after(&view, &change).unwrap_err();
        assert_eq!(refused(Change::Go(id("x"))), Unplanned::NoMember);
        assert_eq!(refused(Change::Join { id: id("a"), share: Share::default() }), Unplanned::IsMember(id("a")));
        assert_eq!(refused(Change::Share(id("x"), Share::default())), Unplanned::NoMember);
    }
}
