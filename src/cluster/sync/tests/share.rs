//! Tests of who holds how much: other shares at runtime, other numbers of copies, clones and gateways, and what is told of the way there.

use super::*;
use crate::cluster::membership::REPLICATE_TO_ALL;

/// A cluster of these, with some keys.
fn world(copies: u16, names: &[&str]) -> World {
    let mut world = World::new(copies);
    for (n, name) in names.iter().enumerate() {
        world.start(name, n > 0);
        world.run(12_000);
    }
    (0..300).for_each(|n| world.write(n % names.len()));
    world
}

fn held(world: &World) -> Vec<u16> {
    world.nodes.iter().map(|node| node.planner.held().count()).collect()
}

#[test]
fn data_follows_a_share_that_changes_at_runtime() {
    let mut world = world(1, &["a", "b", "c"]);
    world.change("c", |c| c.weight = 2);
    world.run(15_000);
    world.assert_settled();
    assert!(world.at("c").planner.held().count() > 400, "half of all: {:?}", held(&world));
    world.change("a", |a| a.weight = 0);
    world.run(15_000);
    world.assert_settled();
    assert!(world.at("a").planner.held().is_empty(), "a gateway");
    // As many copies as zones: each zone has one.
    let mut world = self::world(2, &["a", "b", "c"]);
    world.change("c", |c| c.zone = Some("far".into()));
    world.run(15_000);
    world.assert_settled();
    assert_eq!(world.at("c").planner.held(), PartitionSet::FULL);
}

#[test]
fn the_largest_number_of_copies_that_anybody_wants_is_that_of_all() {
    let mut world = world(2, &["a", "b", "c", "d"]);
    // A rolling restart that raises it: there are three copies from the first node on.
    for name in ["a", "b", "c", "d"] {
        world.copies = 3;
        world.start(name, true);
        world.run(15_000);
        world.assert_settled();
        assert_eq!(held(&world).iter().sum::<u16>(), 3 * 1024);
    }
    // One that lowers it: there are three until the last node wants two, and then what is too much goes.
    world.copies = 2;
    for (name, copies) in [("a", 3), ("b", 3), ("c", 3), ("d", 2)] {
        world.start(name, true);
        world.run(15_000);
        world.assert_settled();
        assert_eq!(held(&world).iter().sum::<u16>(), copies * 1024, "after {name}");
    }
}

#[test]
fn clones_hold_everything_and_gateways_nothing() {
    let mut world = world(REPLICATE_TO_ALL, &["a", "b", "c", "d"]);
    world.start_as(Member { weight: 0, replication: REPLICATE_TO_ALL, ..member("gateway") }, true);
    world.run(15_000);
    world.assert_settled();
    assert_eq!(held(&world), [1024, 1024, 1024, 1024, 0]);
    world.write(4);
    world.run(1_000);
    world.assert_settled();
}

#[test]
fn what_moves_is_told_with_how_long_it_will_take() {
    let mut world = world(1, &["a", "b"]);
    let moving = |world: &World, name: &str| world.at(name).planner.moving(&world.at(name).view, world.now);
    assert_eq!(moving(&world, "a"), None);
    world.leave("b");
    world.run(TICK_MS);
    let begun = moving(&world, "b").expect("it has to give all it has");
    assert_eq!((begun.left, begun.moved, begun.left_ms), (usize::from(world.at("b").planner.held().count()), 0, None));
    let mut seen = Vec::new();
    for _ in 0..100 {
        world.run(TICK_MS);
        seen.extend(moving(&world, "a").filter(|moving| moving.moved > 0));
    }
    assert!(world.at("b").gone && moving(&world, "a").is_none());
    for moving in seen {
        let expected = moving.elapsed_ms * moving.left as u64 / moving.moved as u64;
        assert_eq!(moving.left_ms, Some(expected), "{moving:?}");
    }
}

#[test]
fn copies_are_even_once_compared_and_uneven_once_one_missed_something() {
    let mut world = world(2, &["a", "b"]);
    world.run(15_000);
    let uneven = |world: &World| world.at("a").planner.uneven(&world.at("a").view);
    assert_eq!(uneven(&world), 0);
    let b = world.at("a").view.find(&id("b")).unwrap().0;
    let missed: PartitionSet = Partition::all().take(7).collect();
    world.nodes[0].planner.diverged(b, &missed);
    assert_eq!(uneven(&world), 7);
    world.run(5_000);
    assert_eq!(uneven(&world), 0);
}
