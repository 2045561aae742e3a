//! Tests of what a node lets go of, and when it goes itself.

use super::*;

#[test]
fn a_leaver_goes_when_all_it_holds_has_moved_and_not_before() {
    let mut world = World::new(2);
    world.start("a", false);
    world.run(1_000);
    ["b", "c"].iter().for_each(|name| world.start(name, true));
    world.run(15_000);
    (0..300).for_each(|n| world.write(n % 3));
    world.leave("a");
    assert!(world.membership.joined().all(|member| member.id != id("a")));
    world.cut.push(("a", "b"));
    world.run(20_000);
    assert!(!world.at("a").gone && !world.at("a").planner.held().is_empty(), "b has not got what it owns now");
    world.cut.clear();
    world.run(15_000);
    assert!(world.at("a").gone);
    world.assert_settled();
    // It joins anew.
    world.start("a", true);
    world.run(15_000);
    assert!(!world.at("a").view.owned().is_empty());
    world.assert_settled();
}

#[test]
fn an_owner_that_missed_something_after_it_was_compared_is_compared_again_before_a_copy_goes() {
    let mut world = World::new(1);
    world.start("a", false);
    world.run(1_000);
    world.start("b", true);
    while world.at("b").planner.held().is_empty() {
        world.run(TICK_MS);
    }
    // It claims some; the former owner has yet to hear that, and has a write to it on its way that is lost.
    world.look(0);
    let claimed = world.at("b").planner.held();
    let missed: PartitionSet = claimed.iter().take(1).collect();
    let b = world.at("a").view.find(&id("b")).unwrap().0;
    let (now, node) = (world.now, &mut world.nodes[0]);
    node.planner.diverged(b, &missed);
    for look in 0..50 {
        let now = now + look * TICK_MS;
        for step in node.planner.steps(&node.view, (&PartitionSet::EMPTY, &PartitionSet::EMPTY), now) {
            let Step::Compare(peer, partitions) = step else { continue };
            for partition in partitions.difference(&missed).iter() {
                node.planner.compared(peer, partition, Compared::default());
            }
            let failed = partitions.intersection(&missed);
            node.planner.session_over(&node.view, peer, &SessionEnd { failed, ..SessionEnd::default() }, now);
        }
    }
    let given = PartitionSet::FULL.difference(&node.planner.held());
    assert_eq!(given.union(&missed), claimed);
    assert!(given != claimed && given.count() > 1, "b lacks something of it");
}

#[test]
fn a_copy_that_is_one_too_many_goes_only_once_it_was_compared_as_such() {
    let mut world = World::new(3);
    ["a", "b", "c"].iter().enumerate().for_each(|(n, name)| world.start(name, n > 0));
    world.run(21_000);
    world.assert_settled();
    let put = |world: &mut World, first: u32, written: u64| {
        for partition in Partition::all() {
            for n in [0, 2] {
                world.nodes[n].data.entry(partition).or_default().insert((written, first + u32::from(partition.0)));
            }
        }
    };
    // Something old that the second lacked is brought there by the third.
    let old = world.now - 10_000;
    put(&mut world, 10_000, old);
    let b = world.at("c").view.find(&id("b")).unwrap().0;
    world.nodes[2].planner.diverged(b, &PartitionSet::FULL);
    world.run(1_000);
    // Something that two of three acknowledge, while nothing passes to the second.
    world.cut.extend([("a", "b"), ("b", "c")]);
    let now = world.now;
    put(&mut world, 20_000, now);
    ["a", "b", "c"].iter().for_each(|name| world.change(name, |member| member.replication = 2));
    world.run(6_000);
    let elsewhere = world.at("a").view.owned().intersection(&world.at("b").view.owned());
    assert!(elsewhere.count() > 200 && elsewhere.is_subset(&world.at("c").planner.held()), "it may be needed");
    world.cut.clear();
    world.run(6_000);
    assert_eq!(world.at("c").planner.held(), world.at("c").view.owned());
}
