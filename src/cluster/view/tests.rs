//! Tests of the view: who is asked in which order, whose claims count, what a level requires while ownership moves.

use proptest::prelude::*;

use super::*;
use crate::cluster::specimen::{id, member};

const FIRST: Partition = Partition(0);

/// A member named `name`, holding `held` of the data founded at `founding`.
#[derive(Clone, Debug)]
struct Seen {
    name: &'static str,
    liveness: Liveness,
    held: PartitionSet,
    founding: u64,
}

fn seen(name: &'static str, liveness: Liveness, held: PartitionSet) -> Seen {
    Seen { name, liveness, held, founding: 1 }
}

fn membership(of: &[Seen], replication: u16) -> Membership {
    let mut membership = Membership::default();
    for Seen { name, held, founding, .. } in of {
        membership.join(Member { replication, ..member(name) }).unwrap();
        membership.set_held(&id(name), 10, *held, *founding).unwrap();
    }
    membership
}

fn sightings(of: &[Seen]) -> BTreeMap<NodeId, Sighting> {
    let address = "10.0.0.1:5000".parse().unwrap();
    let sighting = |seen: &Seen| (id(seen.name), Sighting { liveness: seen.liveness, incarnation: 10, address });
    of.iter().map(sighting).collect()
}

/// The picture that `me` draws.
fn draw(me: &str, of: &[Seen], replication: u16) -> View {
    let membership = membership(of, replication);
    let ring = Arc::new(Ring::build(&membership));
    Cartographer::new(id(me)).draw(&membership, ring, &sightings(of))
}

fn names(view: &View, peers: &[PeerIx]) -> Vec<String> {
    peers.iter().map(|ix| view.peer(*ix).unwrap().member.id.to_string()).collect()
}

use Liveness::{Alive, Down, Suspect};

#[test]
fn living_holders_are_asked_first_then_suspects_then_living_owners() {
    let (all, none) = (PartitionSet::FULL, PartitionSet::EMPTY);
    // `me` holds nothing, so that only the others' states decide.
    let serving = |a: (Liveness, PartitionSet), b: (Liveness, PartitionSet)| {
        let view = draw("me", &[seen("a", a.0, a.1), seen("b", b.0, b.1), seen("me", Alive, none)], 3);
        let mut serving = names(&view, &view.route(FIRST).serving);
        serving.sort();
        serving.join(" ")
    };
    assert_eq!(serving((Alive, all), (Alive, all)), "a b");
    assert_eq!(serving((Alive, all), (Suspect, all)), "a", "a suspect is passed over while another holder lives");
    assert_eq!(serving((Alive, none), (Suspect, all)), "b", "a suspect that holds beats an owner that lacks");
    assert_eq!(
        serving((Alive, none), (Down, all)),
        "a me",
        "with every holder down the living owners are all there is"
    );
    assert_eq!(serving((Down, all), (Down, all)), "me");
    assert_eq!(serving((Alive, none), (Alive, none)), "a b me");
}

#[test]
fn the_order_of_serving_is_that_of_the_ring() {
    let all = [seen("a", Alive, PartitionSet::FULL), seen("b", Alive, PartitionSet::FULL)];
    let view = draw("a", &all, 2);
    for partition in Partition::all() {
        let owners: Vec<String> = view.ring.owners(partition).map(|owner| owner.id.to_string()).collect();
        let route = view.route(partition);
        assert_eq!(names(&view, &route.owners), owners);
        assert_eq!((&route.holders, &route.serving), (&route.owners, &route.owners));
    }
    assert_eq!(view.owned(), PartitionSet::FULL);
}

#[test]
fn while_ownership_moves_writes_need_both_sets_and_reads_those_who_hold() {
    let full = PartitionSet::FULL;
    let view = draw("a", &[seen("a", Alive, full), seen("b", Alive, PartitionSet::EMPTY)], 1);
    let moving = Partition::all().find(|p| names(&view, &view.route(*p).owners) == ["b"]).unwrap();
    let route = view.route(moving);
    assert_eq!(names(&view, &route.holders), ["a"]);
    assert_eq!(names(&view, &route.serving), ["a"], "the joiner is not asked for what it has not got");
    assert_eq!(names(&view, &route.replicas().collect::<Vec<_>>()), ["b", "a"]);
    let needed = |required: Required| -> Vec<(Vec<String>, usize)> {
        required.sets.iter().map(|(peers, n)| (names(&view, peers), *n)).collect()
    };
    assert_eq!(needed(route.write(Level::Quorum)), [(vec!["b".into()], 1), (vec!["a".into()], 1)]);
    assert_eq!(needed(route.read(Level::Quorum)), [(vec!["a".into()], 1)]);
    let settled = Partition::all().find(|p| names(&view, &view.route(*p).owners) == ["a"]).unwrap();
    assert_eq!(needed(view.route(settled).write(Level::All)), [(vec!["a".into()], 1)]);
    assert_eq!(view.under_replicated(), usize::from(view.peer(view.find(&id("b")).unwrap().0).unwrap().partitions));
}

#[test]
fn where_nobody_takes_a_share_those_who_hold_are_all_there_is() {
    let mut membership = membership(&[seen("a", Alive, PartitionSet::FULL), seen("b", Alive, PartitionSet::EMPTY)], 3);
    for name in ["a", "b"] {
        let member = membership.member(&id(name)).unwrap().clone();
        membership.join(Member { weight: 0, ..member }).unwrap();
    }
    let ring = Arc::new(Ring::build(&membership));
    let view = Cartographer::new(id("b")).draw(&membership, ring, &sightings(&[seen("a", Alive, PartitionSet::FULL)]));
    let route = view.route(FIRST);
    assert_eq!((route.owners.len(), names(&view, &route.serving)), (0, vec!["a".to_owned()]));
    for required in [route.write(Level::Quorum), route.read(Level::Quorum)] {
        assert_eq!(required.sets.iter().map(|(of, n)| (of.len(), *n)).collect::<Vec<_>>(), [(1, 1)]);
    }
    let nobody = Route::default();
    assert_eq!(nobody.write(Level::One).sets[0].1, 1, "of none: it can't be met");
}

#[test]
fn a_member_whose_address_was_taken_over_holds_nothing() {
    let all = PartitionSet::FULL;
    let mut membership = membership(&[seen("a", Down, all), seen("b", Alive, all), seen("me", Alive, all)], 3);
    let heir = Member { address: member("a").address, incarnation: 11, ..member("heir") };
    membership.join(heir).unwrap();
    let ring = Arc::new(Ring::build(&membership));
    let view = Cartographer::new(id("me")).draw(&membership, ring, &sightings(&[seen("b", Alive, all)]));
    let mut route = [&view.route(FIRST).owners, &view.route(FIRST).holders].map(|peers| names(&view, peers));
    route.iter_mut().for_each(|names| names.sort());
    assert_eq!(route, [vec!["b", "heir", "me"], vec!["b", "me"]]);
    assert!(view.find(&id("a")).is_some(), "it is listed until it is forgotten");
}

#[test]
fn of_several_foundings_the_most_backed_counts_then_the_oldest() {
    let founder = |name, founding| Seen { founding, ..seen(name, Alive, PartitionSet::FULL) };
    let holders = |all: &[Seen]| {
        let view = draw(all[0].name, all, 3);
        let mut names = names(&view, &view.route(FIRST).holders);
        names.sort();
        names.join(" ")
    };
    assert_eq!(holders(&[founder("a", 7), founder("b", 5)]), "b", "the older of two");
    assert_eq!(holders(&[founder("a", 7), founder("b", 5), founder("c", 7)]), "a c", "two against one");
    let bystander = seen("c", Alive, PartitionSet::EMPTY);
    assert_eq!(holders(&[founder("a", 7), founder("b", 5), Seen { founding: 7, ..bystander }]), "b");
}

#[test]
fn sightings_of_another_life_say_nothing_and_this_node_is_alive_to_itself() {
    let all = [seen("a", Alive, PartitionSet::FULL), seen("b", Alive, PartitionSet::FULL)];
    let mut membership = membership(&all, 2);
    membership.join(Member { incarnation: 11, replication: 2, ..member("b") }).unwrap();
    let mut drawer = Cartographer::new(id("a"));
    let ring = Arc::new(Ring::build(&membership));
    let mut known = sightings(&all);
    known.remove(&id("a"));
    let view = drawer.draw(&membership, ring.clone(), &known);
    let liveness = |view: &View, name| view.find(&id(name)).unwrap().1.liveness;
    assert_eq!((liveness(&view, "a"), liveness(&view, "b")), (Alive, Down));
    assert_eq!(names(&view, &view.route(FIRST).holders), ["a"], "the new life holds nothing yet");
    known.get_mut(&id("b")).unwrap().incarnation = 11;
    assert_eq!(liveness(&drawer.draw(&membership, ring, &known), "b"), Alive);
}

#[test]
fn numbers_stay_with_their_members_for_life() {
    let [a, b, c] = ["a", "b", "c"].map(|name| seen(name, Alive, PartitionSet::FULL));
    let mut drawer = Cartographer::new(id("b"));
    let mut view = |of: &[Seen]| {
        let membership = membership(of, 2);
        drawer.draw(&membership, Arc::new(Ring::build(&membership)), &sightings(of))
    };
    let number = |view: &View, name| view.find(&id(name)).map(|(ix, _)| ix);
    let before = view(&[a.clone(), b.clone(), c.clone()]);
    assert_eq!(number(&before, "b"), Some(PeerIx(0)));
    let without = view(&[b.clone(), c.clone()]);
    assert_eq!((number(&without, "a"), number(&without, "c")), (None, number(&before, "c")));
    let after = view(&[a, b, c]);
    assert_eq!(number(&after, "a"), number(&before, "a"));
}

fn any_seen(name: &'static str) -> impl Strategy<Value = Seen> {
    let liveness = prop_oneof![3 => Just(Alive), 1 => Just(Suspect), 1 => Just(Down)];
    let held = prop_oneof![
        Just(PartitionSet::FULL),
        Just(PartitionSet::EMPTY),
        any::<u64>().prop_map(|bits| Partition::all().filter(|p| bits >> (p.0 % 64) & 1 == 1).collect()),
    ];
    (liveness, held, 1..3u64).prop_map(move |(liveness, held, founding)| Seen { name, liveness, held, founding })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_route_is_sound_and_the_same_in_all_eyes(
        all in ["a", "b", "c", "d"].map(any_seen), copies in 1..4u16,
    ) {
        let mut all = all.to_vec();
        all[0].liveness = Alive;
        all[1].liveness = Alive;
        let (view, other) = (draw("a", &all, copies), draw("b", &all, copies));
        for partition in Partition::all() {
            let route = view.route(partition);
            let mut replicas: Vec<PeerIx> = route.replicas().collect();
            prop_assert!(route.serving.iter().all(|peer| replicas.contains(peer)));
            replicas.sort();
            replicas.dedup();
            prop_assert_eq!(replicas.len(), route.replicas().count(), "nobody twice");
            let outside = route.holders.iter().skip_while(|peer| route.owners.contains(peer));
            prop_assert!(outside.clone().all(|peer| !route.owners.contains(peer)), "owners come first");
            let living: Peers = route.holders.iter().copied().filter(|peer| view.is_alive(*peer)).collect();
            prop_assert!(living.is_empty() || route.serving == living);
            let theirs = other.route(partition);
            prop_assert_eq!(names(&view, &route.owners), names(&other, &theirs.owners));
            let in_their_eyes: std::collections::BTreeSet<_> = names(&other, &theirs.serving).into_iter().collect();
            prop_assert_eq!(names(&view, &route.serving).into_iter().collect::<std::collections::BTreeSet<_>>(), in_their_eyes);
        }
        let places: usize = view.peers().map(|(_, peer)| usize::from(peer.partitions)).sum();
        prop_assert_eq!(places, usize::from(PARTITIONS) * usize::from(copies));
    }
}
