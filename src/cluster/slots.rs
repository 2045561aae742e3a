//! The ring as clients of Redis Cluster know it: ranges of slots, each with the members that are asked for it. A pure function of the
//! view; never renders anything. Tested below.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::view::{PeerIx, Peers, Route, View};
use crate::base::slot::{Partition, SLOTS_PER_PARTITION, Slot};

/// Members told of a range, its leader first. With a copy on every one of a thousand members more would be a burden and help nobody.
pub const RANGE_MEMBERS_MAX: usize = 16;

/// Consecutive slots that the same members are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// Its first slot.
    pub first: Slot,
    /// Its last slot.
    pub last: Slot,
    /// Whom to ask: first the member that coordinates, then those that would take its place, by id. Empty if nobody can answer.
    pub serving: Peers,
    /// Owners and holders that are down or still lack the data, by id.
    pub absent: Peers,
}

/// All slots, in order, with neighbours of equal members in one range.
pub fn ranges(view: &View) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for partition in Partition::all() {
        let route = view.route(partition);
        let (serving, absent) = (serving(view, route), absent(view, route));
        let last = Slot(partition.first_slot().0 + SLOTS_PER_PARTITION - 1);
        match ranges.last_mut() {
            Some(range) if range.serving == serving && range.absent == absent => range.last = last,
            _ => ranges.push(SlotRange { first: partition.first_slot(), last, serving, absent }),
        }
    }
    ranges
}

fn serving(view: &View, route: &Route) -> Peers {
    let mut serving = route.serving.clone();
    if let Some(others) = serving.get_mut(1..) {
        sort(view, others);
    }
    serving.truncate(RANGE_MEMBERS_MAX);
    serving
}

fn absent(view: &View, route: &Route) -> Peers {
    let mut absent: Peers = route.replicas().filter(|peer| !route.serving.contains(peer)).collect();
    sort(view, &mut absent);
    absent.truncate(RANGE_MEMBERS_MAX);
    absent
}

/// By id, which every member knows alike; numbers are this process's own.
fn sort(view: &View, peers: &mut [PeerIx]) {
    peers.sort_unstable_by_key(|peer| view.peer(*peer).map(|peer| &peer.member.id));
}

/// The same ranges with as many followers in each that a member leads: as few as in that of them which has the fewest.
///
/// redis-py keeps one turn a leader when it spreads reads over followers, and with a range of fewer fails for want of a member.
pub fn evened(mut ranges: Vec<SlotRange>) -> Vec<SlotRange> {
    let mut fewest: BTreeMap<PeerIx, usize> = BTreeMap::new();
    for serving in ranges.iter().map(|range| &range.serving) {
        if let Some(leader) = serving.first() {
            let least = fewest.entry(*leader).or_insert(serving.len());
            *least = serving.len().min(*least);
        }
    }
    for range in &mut ranges {
        if let Some(least) = range.serving.first().and_then(|leader| fewest.get(leader)) {
            range.serving.truncate(*least);
        }
    }
    ranges
}

/// The same ranges in an order in which a member follows in some range before it leads one, wherever that is possible, but for the leader
/// of the first.
///
/// redis-py keeps the first role it sees of a node, and adds up over all "primaries" what `DBSIZE`, `KEYS` and `SCAN` answer. Here every
/// node answers for the whole cluster: told in this order, redis-py asks one.
pub fn introduced(ranges: Vec<SlotRange>) -> Vec<SlotRange> {
    let mut known: BTreeSet<PeerIx> = BTreeSet::new();
    let (mut told, mut left) = (Vec::with_capacity(ranges.len()), ranges);
    while !left.is_empty() {
        let before = told.len();
        let mut later = Vec::new();
        for range in left {
            if range.serving.first().is_none_or(|leader| known.contains(leader)) {
                known.extend(&range.serving);
                told.push(range);
            } else {
                later.push(range);
            }
        }
        if told.len() == before {
            let first = later.remove(0);
            known.extend(&first.serving);
            told.push(first);
        }
        left = later;
    }
    told
}

/// The slots that `peer` leads, as runs from first to last.
pub fn led_by(ranges: &[SlotRange], peer: PeerIx) -> SmallVec<[(u16, u16); 4]> {
    let mut runs: SmallVec<[(u16, u16); 4]> = SmallVec::new();
    for range in ranges.iter().filter(|range| range.serving.first() == Some(&peer)) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == range.first.0 => *last = range.last.0,
            _ => runs.push((range.first.0, range.last.0)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::slot::SLOTS;
    use crate::cluster::membership::{Member, Membership};
    use crate::cluster::partition_set::PartitionSet;
    use crate::cluster::ring::Ring;
    use crate::cluster::specimen::{id, member};
    use crate::cluster::view::{Cartographer, Liveness, Sighting};

    /// What `a` sees of members that hold everything, and of `late` ones that hold nothing yet.
    fn drawn(names: &[&str], late: &[&str], down: &[&str], replication: u16) -> View {
        let mut membership = Membership::default();
        let mut sightings = BTreeMap::new();
        for name in names.iter().chain(late) {
            membership.join(Member { replication, ..member(name) }).unwrap();
            let held = if late.contains(name) { PartitionSet::EMPTY } else { PartitionSet::FULL };
            membership.set_held(&id(name), 10, held, 1).unwrap();
            let liveness = if down.contains(name) { Liveness::Down } else { Liveness::Alive };
            let address = "10.0.0.1:5000".parse().unwrap();
            sightings.insert(id(name), Sighting { liveness, incarnation: 10, address });
        }
        let ring = Arc::new(Ring::build(&membership));
        Cartographer::new(id("a")).draw(&membership, ring, &sightings)
    }

    /// As when every member holds just what it owns.
    fn placed(names: &[String], replication: u16) -> Vec<SlotRange> {
        let mut membership = Membership::default();
        for name in names {
            membership.join(Member { replication, ..member(name) }).unwrap();
        }
        let ring = Arc::new(Ring::build(&membership));
        let mut sightings = BTreeMap::new();
        for name in names {
            let owns = |p: &Partition| ring.owners(*p).any(|owner| owner.id == id(name));
            let held: PartitionSet = Partition::all().filter(owns).collect();
            membership.set_held(&id(name), 10, held, 1).unwrap();
            let address = "10.0.0.1:5000".parse().unwrap();
            sightings.insert(id(name), Sighting { liveness: Liveness::Alive, incarnation: 10, address });
        }
        ranges(&Cartographer::new(id(&names[0])).draw(&membership, ring, &sightings))
    }

    fn peer(view: &View, name: &str) -> PeerIx {
        view.find(&id(name)).unwrap().0
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("n{n}")).collect()
    }

    #[test]
    fn ranges_cover_every_slot_once_and_neighbours_differ() {
        for (members, replication) in [(1, 3), (3, 3), (5, 2), (100, 3)] {
            let ranges = placed(&names(members), replication);
            assert_eq!((ranges[0].first.0, ranges[ranges.len() - 1].last.0), (0, SLOTS - 1));
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].last.0 + 1, pair[1].first.0);
                assert!(pair[0].serving != pair[1].serving || pair[0].absent != pair[1].absent);
            }
            assert!(ranges.iter().all(|range| range.serving.len() == members.min(usize::from(replication))));
        }
        assert_eq!(placed(&names(1), 3).len(), 1);
    }

    #[test]
    fn the_leader_is_whom_the_view_asks_first() {
        let view = drawn(&["a", "b", "c"], &[], &[], 3);
        for range in ranges(&view) {
            for slot in [range.first, range.last] {
                assert_eq!(range.serving.first(), view.route(slot.partition()).serving.first());
            }
        }
    }

    #[test]
    fn the_dead_and_those_who_lack_the_data_are_asked_for_nothing() {
        let view = drawn(&["a", "b", "c"], &["d"], &["b"], 4);
        for range in ranges(&view) {
            let asked: BTreeSet<PeerIx> = range.serving.iter().copied().collect();
            assert_eq!(asked, [peer(&view, "a"), peer(&view, "c")].into());
            assert_eq!(range.absent.len(), 2);
        }
        assert!(led_by(&ranges(&view), peer(&view, "d")).is_empty());
        let nobody = drawn(&["a", "b"], &[], &["b"], 1);
        let unserved = ranges(&nobody).into_iter().filter(|range| range.serving.is_empty()).count();
        assert_eq!(unserved, 0, "`a` holds everything, whoever owns it");
    }

    #[test]
    fn what_members_lead_is_all_there_is() {
        let members = names(7);
        let ranges = placed(&members, 3);
        let led = |n: u32| led_by(&ranges, PeerIx(n)).iter().map(|(first, last)| last - first + 1).sum::<u16>();
        assert_eq!((0..7).map(led).sum::<u16>(), SLOTS);
        assert!((0..7).all(|n| led(n) > 0));
    }

    #[test]
    fn every_range_of_a_leader_has_as_many_followers() {
        let range = |first, serving: &[u32]| SlotRange {
            first: Slot(first),
            last: Slot(first),
            serving: serving.iter().map(|n| PeerIx(*n)).collect(),
            absent: Peers::new(),
        };
        let evened = evened(vec![range(0, &[1, 2, 3]), range(1, &[2, 1, 3]), range(2, &[1, 3]), range(3, &[])]);
        assert_eq!(evened, [range(0, &[1, 2]), range(1, &[2, 1, 3]), range(2, &[1, 3]), range(3, &[])]);
    }

    #[test]
    fn one_member_alone_leads_before_it_follows() {
        for members in [3, 4, 6, 40] {
            let told = introduced(placed(&names(members), 3));
            let (mut seen, mut led_first) = (BTreeSet::new(), 0);
            for range in &told {
                led_first += usize::from(seen.insert(range.serving[0]));
                seen.extend(range.serving.iter().copied());
            }
            assert_eq!((seen.len(), led_first), (members, 1));
            let mut sorted = told;
            sorted.sort_by_key(|range| range.first);
            assert_eq!(sorted, placed(&names(members), 3), "nothing is lost");
        }
        let alone = introduced(placed(&names(4), 1));
        assert_eq!(alone.len(), placed(&names(4), 1).len(), "without copies nobody follows");
    }
}
