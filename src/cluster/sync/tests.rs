//! Tests of the plan of synchronisation: planners of whole clusters, whose comparisons are carried out on sets of keys. Time is a number.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::id::NodeId;
use crate::cluster::membership::{Member, Membership};
use crate::cluster::ring::Ring;
use crate::cluster::specimen::{id, member};
use crate::cluster::view::{Cartographer, Sighting};

mod release;
mod sessions;
mod share;

/// What a planner is asked at, as the actor does.
const TICK_MS: u64 = 100;
/// A replica may lag behind this far in ordinary life.
const IN_FLIGHT_MS: u64 = 2_000;

struct Node {
    id: NodeId,
    planner: Planner,
    drawer: Cartographer,
    view: View,
    /// What the view was drawn from.
    drawn_from: (u64, Vec<bool>),
    /// Keys, by when they were written.
    data: BTreeMap<Partition, BTreeSet<(u64, u32)>>,
    /// Whether others reach it.
    up: bool,
    /// It has left, and runs no more.
    gone: bool,
}

impl Node {
    fn holds(&self, partition: Partition) -> bool {
        self.planner.held().contains(partition)
    }

    fn filled(&self) -> PartitionSet {
        self.data.iter().filter(|(_, keys)| !keys.is_empty()).map(|(partition, _)| *partition).collect()
    }
}

struct World {
    now: UnixMs,
    copies: u16,
    membership: Membership,
    nodes: Vec<Node>,
    keys: u32,
    /// What at least one node took.
    written: BTreeSet<(u64, u32)>,
    /// Pairs of names whose comparisons fail.
    cut: Vec<(&'static str, &'static str)>,
    /// Every node has heard most of its seeds.
    seeds_met: bool,
}

impl World {
    fn new(copies: u16) -> Self {
        Self {
            now: 1_000_000,
            copies,
            membership: Membership::default(),
            nodes: Vec::new(),
            keys: 0,
            written: BTreeSet::new(),
            cut: Vec::new(),
            seeds_met: false,
        }
    }

    /// A node that everybody knows at once.
    fn start(&mut self, name: &str, has_seeds: bool) {
        self.start_as(Member { replication: self.copies, ..member(name) }, has_seeds);
    }

    /// A node that says this of itself.
    fn start_as(&mut self, member: Member, has_seeds: bool) {
        let me = member.id.clone();
        self.membership.join(Member { incarnation: self.now, ..member }).unwrap();
        self.nodes.retain(|node| node.id != me);
        let mut drawer = Cartographer::new(me.clone());
        let view = drawer.draw(&self.membership, Arc::new(Ring::build(&self.membership)), &BTreeMap::new());
        let planner = Planner::new(self.now, has_seeds);
        let drawn_from = (0, Vec::new());
        let (data, up, gone) = (BTreeMap::new(), true, false);
        self.nodes.push(Node { id: me, planner, drawer, view, drawn_from, data, up, gone });
    }

    /// A node says something else of itself from now on.
    fn change(&mut self, name: &str, how: impl FnOnce(&mut Member)) {
        let mut me = self.membership.member(&id(name)).unwrap().clone();
        how(&mut me);
        self.membership.join(me).unwrap();
    }

    fn at(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.id == id(name)).unwrap()
    }

    /// Has a node leave, if somebody else stays; which everybody knows at once.
    fn leave(&mut self, name: &str) {
        if self.membership.joined().any(|member| member.id != id(name)) {
            self.membership.leave(&id(name)).unwrap();
        }
    }

    fn set_up(&mut self, name: &str, up: bool) {
        self.nodes.iter_mut().find(|node| node.id == id(name)).unwrap().up = up;
    }

    /// Node `n` learns what there is to learn.
    fn look(&mut self, n: usize) {
        let from = (self.membership.digest(), self.nodes.iter().map(|node| node.up && !node.gone).collect::<Vec<_>>());
        if self.nodes[n].drawn_from == from {
            return;
        }
        let address = "10.0.0.1:5000".parse().unwrap();
        let sighting = |node: &Node| {
            let liveness = if node.up && !node.gone { Liveness::Alive } else { Liveness::Down };
            let incarnation = self.membership.member(&node.id)?.incarnation;
            Some((node.id.clone(), Sighting { liveness, incarnation, address }))
        };
        // Who is not reached reaches nobody.
        let sightings =
            if self.nodes[n].up { self.nodes.iter().filter_map(sighting).collect() } else { BTreeMap::new() };
        let node = &mut self.nodes[n];
        node.view = node.drawer.draw(&self.membership, Arc::new(Ring::build(&self.membership)), &sightings);
        node.view.seeds_met = self.seeds_met;
        node.drawn_from = from;
        node.planner.view_changed(&node.view, self.now);
    }

    fn turn(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.gone {
            return;
        }
        let steps = node.planner.steps(&node.view, (&node.filled(), &PartitionSet::EMPTY), self.now);
        for step in steps {
            match step {
                Step::Claim { partitions, founding } if self.nodes[n].up => {
                    let me = self.nodes[n].id.clone();
                    let incarnation = self.membership.member(&me).unwrap().incarnation;
                    self.membership.set_held(&me, incarnation, partitions, founding).unwrap();
                }
                Step::Claim { .. } | Step::Settle(_) | Step::Unsettle | Step::Lapse => {}
                Step::Drop(partitions) => self.drop_data(n, &partitions),
                Step::Depart if self.nodes[n].up => {
                    assert!(self.nodes[n].filled().is_empty(), "{} goes with data", self.nodes[n].id);
                    self.membership.left(&self.nodes[n].id).unwrap();
                    self.nodes[n].gone = true;
                }
                Step::Depart => {}
                Step::Compare(peer, partitions) => self.compare(n, peer, &partitions),
            }
        }
    }

    /// Drops, but only what every owner has.
    fn drop_data(&mut self, n: usize, partitions: &PartitionSet) {
        for partition in partitions.iter() {
            let gone = self.nodes[n].data.remove(&partition).unwrap_or_default();
            for owner in self.nodes[n].view.route(partition).owners.clone() {
                let owner = self.nodes[n].view.peer(owner).unwrap().member.id.clone();
                let has = self.at(owner.as_str()).data.get(&partition).cloned().unwrap_or_default();
                assert!(gone.is_subset(&has), "{} drops what {owner} lacks", self.nodes[n].id);
            }
        }
    }

    fn compare(&mut self, n: usize, peer: PeerIx, partitions: &PartitionSet) {
        let (me, to) = (self.nodes[n].id.clone(), self.nodes[n].view.peer(peer).unwrap().member.id.clone());
        let other = self.nodes.iter().position(|node| node.id == to).unwrap();
        let is_cut = self.cut.iter().any(|(a, b)| [(id(a), id(b)), (id(b), id(a))].contains(&(me.clone(), to.clone())));
        if is_cut || !self.nodes[n].up || !self.nodes[other].up || self.nodes[other].gone {
            return self.over(n, peer, SessionEnd { failed: *partitions, ..SessionEnd::default() });
        }
        for partition in partitions.iter() {
            let ours = self.nodes[n].data.get(&partition).cloned().unwrap_or_default();
            let theirs = self.nodes[other].data.get(&partition).cloned().unwrap_or_default();
            let old = |(written, _): &&(u64, u32)| written + IN_FLIGHT_MS < self.now;
            let came_to = Compared {
                differing: ours.symmetric_difference(&theirs).count(),
                pulled_old: theirs.difference(&ours).filter(old).count(),
                pushed_old: ours.difference(&theirs).filter(old).count(),
                adopted: false,
            };
            let both: BTreeSet<_> = ours.union(&theirs).copied().collect();
            if !both.is_empty() {
                self.nodes[n].data.insert(partition, both.clone());
                self.nodes[other].data.insert(partition, both);
            }
            self.nodes[n].planner.compared(peer, partition, came_to);
        }
        self.over(n, peer, SessionEnd::default());
    }

    fn over(&mut self, n: usize, peer: PeerIx, end: SessionEnd) {
        let node = &mut self.nodes[n];
        node.planner.session_over(&node.view, peer, &end, self.now);
    }

    /// A client writes a new key through a node, to whoever that one believes to be a living replica.
    fn write(&mut self, through: usize) {
        self.keys += 1;
        let (key, partition) = (self.keys, Partition((self.keys * 37 % 1024) as u16));
        let view = &self.nodes[through].view;
        let living = view.route(partition).replicas().filter(|peer| view.is_alive(*peer));
        let to: Vec<NodeId> = living.map(|peer| view.peer(peer).unwrap().member.id.clone()).collect();
        for node in self.nodes.iter_mut().filter(|node| to.contains(&node.id) && node.up && !node.gone) {
            node.data.entry(partition).or_default().insert((self.now, key));
            self.written.insert((self.now, key));
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.now += TICK_MS;
            for n in 0..self.nodes.len() {
                self.look(n);
                self.turn(n);
            }
        }
    }

    /// Everybody holds what they own and nothing else, and every owner has every key ever written.
    fn assert_settled(&self) {
        let kept: BTreeSet<(u64, u32)> =
            self.nodes.iter().flat_map(|node| node.data.values().flatten()).copied().collect();
        assert_eq!(kept, self.written);
        for node in self.nodes.iter().filter(|node| !node.gone) {
            let owned = node.view.owned();
            assert_eq!((node.planner.held(), node.planner.syncing(&node.view)), (owned, 0), "{}", node.id);
            assert!(node.filled().is_subset(&owned), "{} keeps what others own", node.id);
            for (partition, keys) in &node.data {
                let all = self.written.iter().filter(|(_, key)| key * 37 % 1024 == u32::from(partition.0));
                assert!(all.eq(keys), "{} lacks keys of {partition:?}", node.id);
            }
        }
    }
}

#[test]
fn a_node_without_seeds_holds_everything_at_once() {
    let mut world = World::new(3);
    world.start("a", false);
    world.run(TICK_MS);
    assert_eq!(world.membership.member(&id("a")).unwrap().held_now(), PartitionSet::FULL);
}

#[test]
fn nodes_that_met_their_seeds_found_together_and_one_that_did_not_waits() {
    let mut world = World::new(3);
    world.start("a", true);
    world.run(10 * FOUND_AFTER_MS);
    assert!(world.membership.member(&id("a")).unwrap().held_now().is_empty());
    world.seeds_met = true;
    world.start("b", true);
    world.run(FOUND_AFTER_MS - TICK_MS);
    assert!(world.membership.member(&id("b")).unwrap().held_now().is_empty());
    world.run(10_000);
    world.assert_settled();
}

#[test]
fn a_joiner_claims_only_what_it_has_compared_with_every_living_replica() {
    let mut world = World::new(3);
    world.start("a", false);
    world.run(1_000);
    world.start("b", true);
    world.run(10_000);
    (0..200).for_each(|n| world.write(n % 2));
    world.cut.push(("b", "c"));
    world.start("c", true);
    world.run(20_000);
    assert!(world.at("c").planner.held().is_empty(), "b may have what a has not");
    assert_eq!(world.at("c").planner.syncing(&world.at("c").view), 1024);
    world.cut.clear();
    world.run(10_000);
    world.assert_settled();
}

#[test]
fn copies_that_come_one_by_one_are_claimed_by_the_second_and_the_last_at_once() {
    let mut world = World::new(1);
    world.start("a", false);
    world.run(1_000);
    world.start("b", true);
    world.cut.push(("a", "b"));
    world.run(10_000);
    let (begun, b) = (world.now, &mut world.nodes[1]);
    let (a, owned) = (b.view.find(&id("a")).unwrap().0, b.view.owned());
    let mut claims = vec![];
    for (now, partition) in (begun..).step_by(10).zip(owned.iter()) {
        let held = b.planner.held();
        b.planner.compared(a, partition, Compared::default());
        b.planner.steps(&b.view, (&PartitionSet::EMPTY, &PartitionSet::EMPTY), now);
        if b.planner.held() != held {
            claims.push(now);
        }
    }
    assert_eq!(b.planner.held(), owned);
    assert_eq!(claims.pop(), Some(begun + 10 * (u64::from(owned.count()) - 1)), "nothing follows the last");
    assert!(claims.len() > 3 && claims.windows(2).all(|two| two[1] - two[0] == CLAIM_EVERY_MS), "{claims:?}");
}

#[test]
fn a_copy_is_given_back_only_when_every_owner_holds_it() {
    let mut world = World::new(1);
    world.start("a", false);
    world.run(1_000);
    (0..300).for_each(|_| world.write(0));
    world.start("b", true);
    let mut moved = 0;
    for _ in 0..200 {
        world.run(TICK_MS);
        let [a, b] = ["a", "b"].map(|name| world.at(name));
        for partition in Partition::all() {
            assert!(a.holds(partition) || b.holds(partition), "nobody holds {partition:?}");
            assert!(!a.view.route(partition).holders.is_empty() && !b.view.route(partition).holders.is_empty());
        }
        moved = b.planner.held().count();
    }
    assert_eq!(moved, world.at("b").view.owned().count());
    assert!(moved > 400);
    world.assert_settled();
}

#[test]
fn founders_that_meet_agree_on_the_older_founding_and_lose_nothing() {
    let mut world = World::new(3);
    world.start("a", false);
    let elder = world.now;
    world.run(5_000);
    (0..50).for_each(|_| world.write(0));
    // It founded apart, with data of its own, before they met.
    world.start("b", false);
    for key in 1_000..1_050 {
        let (partition, key) = (Partition((key * 37 % 1024) as u16), (world.now, key));
        world.nodes[1].data.entry(partition).or_default().insert(key);
        world.written.insert(key);
    }
    world.look(1);
    world.run(15_000);
    world.assert_settled();
    for name in ["a", "b"] {
        let held = world.membership.member(&id(name)).unwrap().held;
        assert_eq!((held.partitions, held.founding), (PartitionSet::FULL, elder), "{name}");
    }
}

#[test]
fn nodes_that_name_each_other_as_seeds_found_one_cluster_together() {
    let mut world = World::new(3);
    world.seeds_met = true;
    ["a", "b", "c"].iter().for_each(|name| world.start(name, true));
    world.run(15_000);
    world.assert_settled();
    let foundings: BTreeSet<u64> = world.membership.iter().map(|member| member.held.founding).collect();
    assert_eq!(foundings.len(), 1);
}

#[test]
fn who_lost_its_memory_claims_after_hearing_a_majority_of_those_who_hold() {
    let mut world = World::new(3);
    world.start("a", false);
    world.run(1_000);
    world.start("b", true);
    world.start("c", true);
    world.run(10_000);
    (0..100).for_each(|n| world.write(n % 3));
    world.set_up("c", false);
    world.start("b", true);
    world.run(15_000);
    assert!(world.at("b").planner.held().is_empty(), "what b and c alone had acknowledged may be missing in a");
    world.set_up("c", true);
    world.run(10_000);
    world.assert_settled();
}

#[test]
fn the_last_of_all_members_claims_what_nobody_else_can_have() {
    let mut world = World::new(1);
    world.start("a", false);
    world.run(1_000);
    world.start("b", true);
    world.run(15_000);
    assert!(world.at("b").planner.held() != PartitionSet::FULL);
    world.membership.forget(&id("a")).unwrap();
    world.nodes.retain(|node| node.id == id("b"));
    world.run(5_000);
    assert_eq!(world.membership.member(&id("b")).unwrap().held_now(), PartitionSet::FULL);
}

#[test]
fn a_round_compares_everything_and_counts_what_differed() {
    let mut world = World::new(2);
    world.start("a", false);
    world.run(1_000);
    world.start("b", true);
    world.run(30_000);
    let (at, differing) = world.at("a").planner.last_round().unwrap();
    assert_eq!(differing, 0);
    world.write(0);
    world.nodes[1].data.clear();
    world.run(ROUND_EVERY_MS + 5_000);
    let rounds = ["a", "b"].map(|name| world.at(name).planner.last_round().unwrap());
    assert!(rounds[0].0 > at && rounds.iter().map(|(_, differing)| differing).sum::<usize>() == 1, "{rounds:?}");
    world.assert_settled();
}

#[derive(Clone, Debug)]
enum Event {
    Join,
    Leave(usize),
    Pause(usize),
    Resume,
    Write(usize),
    /// That many ticks, in which node `n` learns nothing new.
    Run(u64, usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Join),
        1 => (0..4usize).prop_map(Event::Leave),
        1 => (0..4usize).prop_map(Event::Pause),
        2 => Just(Event::Resume),
        6 => (0..4usize).prop_map(Event::Write),
        // Shorter than SETTLE_MS, which is what the rest may rely on.
        6 => (1..10u64, 0..4usize).prop_map(|(ticks, blind)| Event::Run(ticks, blind)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_nothing_is_lost_and_the_plan_comes_to_rest(
        copies in 1..4u16, events in prop::collection::vec(any_event(), 1..40),
    ) {
        let mut world = World::new(copies);
        world.start("n0", false);
        world.run(500);
        for event in events {
            let count = world.nodes.len();
            match event {
                Event::Join if count < 4 => world.start(&format!("n{count}"), true),
                Event::Join => {}
                Event::Leave(n) => world.leave(&format!("n{}", n % count)),
                Event::Pause(n) => {
                    if world.nodes.iter().all(|node| node.up) && count > 1 {
                        world.nodes[n % count].up = false;
                    }
                }
                Event::Resume => world.nodes.iter_mut().for_each(|node| node.up = true),
                Event::Write(n) => {
                    if world.nodes[n % count].up && !world.nodes[n % count].gone {
                        world.write(n % count);
                    }
                }
                Event::Run(ticks, blind) => {
                    for _ in 0..ticks {
                        world.now += TICK_MS;
                        for n in (0..count).filter(|n| *n != blind % count) {
                            world.look(n);
                            world.turn(n);
                        }
                    }
                    world.look(blind % count);
                }
            }
        }
        world.nodes.iter_mut().for_each(|node| node.up = true);
        world.run(60_000);
        world.assert_settled();
    }
}
