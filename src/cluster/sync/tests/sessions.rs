//! Tests of what sessions choose, and when they begin.

use super::*;
use crate::cluster::sync::sessions::RETRY_MS;

#[test]
fn what_could_not_be_compared_is_tried_again_after_a_pause() {
    let mut world = World::new(2);
    world.start("a", false);
    world.run(1_000);
    world.start("b", true);
    world.now += TICK_MS;
    world.look(1);
    let (now, node) = (world.now, &mut world.nodes[1]);
    let compare = |node: &mut Node, now| {
        let steps = node.planner.steps(&node.view, (&PartitionSet::EMPTY, &PartitionSet::EMPTY), now);
        steps.into_iter().find_map(|step| if let Step::Compare(peer, set) = step { Some((peer, set)) } else { None })
    };
    let (peer, first) = compare(node, now).unwrap();
    assert_eq!(first, PartitionSet::FULL);
    assert_eq!(compare(node, now), None, "one session per peer");
    let end = SessionEnd { failed: first, ..SessionEnd::default() };
    node.planner.session_over(&node.view, peer, &end, now);
    assert_eq!(compare(node, now + RETRY_MS - 1), None);
    assert_eq!(compare(node, now + RETRY_MS), Some((peer, first)));
}

#[test]
fn sessions_choose_what_is_free_and_rest_for_twice_as_long_as_they_took() {
    let mut world = World::new(3);
    world.start("a", false);
    world.run(1_000);
    world.start("b", true);
    world.start("c", true);
    world.run(15_000);
    let (now, node) = (world.now, &mut world.nodes[0]);
    let (view, planner) = (&node.view, &mut node.planner);
    let peers: Vec<PeerIx> = view.others().map(|(peer, _)| peer).collect();
    let [first, second] = [0, 1].map(|n| planner.choose(view, peers[n], &PartitionSet::FULL, now));
    assert_eq!([first, second].map(|set| usize::from(set.count())), [PARTITIONS_PER_SESSION; 2]);
    assert!(first.intersection(&second).is_empty());
    // The greater id does not go first.
    let free = planner.visited(view, &id("c"), PartitionSet::FULL, now);
    assert_eq!(free, PartitionSet::FULL.difference(&first.union(&second)));
    assert!(planner.choose(view, peers[0], &free, now).is_empty());
    assert!(planner.visited(view, &id("stranger"), PartitionSet::FULL, now).is_empty());
    let none = (&PartitionSet::EMPTY, &PartitionSet::EMPTY);
    planner.steps(view, none, now);
    let end = SessionEnd { put_off: first, took_ms: 300, ..SessionEnd::default() };
    planner.session_over(view, peers[0], &end, now);
    let compares = |steps: Vec<Step>| steps.into_iter().any(|step| step == Step::Compare(peers[0], first));
    assert!(!compares(planner.steps(view, none, now + 599)));
    assert!(compares(planner.steps(view, none, now + 600)));
}
