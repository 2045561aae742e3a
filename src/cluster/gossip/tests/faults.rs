//! Crashes, pauses, moves, partitions: whatever happened, all who live agree on who lives soon after it is over.

use rand::RngExt;
use rand::seq::SliceRandom;

use super::super::*;
use super::network::{N, Network, address, config, name, seeds};

/// After a fault is over, everyone agrees within this time: a round of announcements to the dead, and what follows from it.
const AGREED_MS_MAX: u64 = 30_000;

/// Runs a scenario for each seed and prints how long agreement took.
fn for_seeds(what: &str, usual: u64, scenario: impl Fn(u64) -> u64) {
    let mut times: Vec<u64> = (0..seeds(usual)).map(scenario).collect();
    times.sort_unstable();
    let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: agreed after {median} ms (median), {max} ms (max) of {} runs", times.len());
}

/// A later life of node `n`.
fn again(n: N, seeds: &[N], later_ms: u64) -> GossipConfig {
    let config = config(n, seeds);
    GossipConfig { incarnation: config.incarnation + later_ms, ..config }
}

#[test]
fn five_started_in_any_order_find_each_other_through_one_seed_under_loss() {
    for_seeds("five in random order, 10% loss", 50, |seed| {
        let mut network = Network::new(seed);
        (network.loss_percent, network.delay_ms) = (10, 0..=50);
        let mut order: Vec<N> = (0..5).collect();
        order.shuffle(&mut network.rng);
        for n in order {
            let wait_ms = network.rng.random_range(0..20_000);
            network.run(wait_ms);
            network.start(config(n, &[0]));
        }
        network.run_until_agreed(&[0, 1, 2, 3, 4], AGREED_MS_MAX)
    });
}

#[test]
fn a_member_that_crashed_comes_back_under_its_id() {
    for_seeds("restart under the same id", 50, |seed| {
        let mut network = Network::formed(seed, 5);
        network.crash(&name(2));
        // Sometimes before anyone noticed.
        let away_ms = network.rng.random_range(10..10_000);
        network.run(away_ms);
        network.start(again(2, &[0], away_ms));
        let took_ms = network.run_until_agreed(&[0, 1, 2, 3, 4], AGREED_MS_MAX);
        network.run(10_000);
        network.assert_agreed(&[0, 1, 2, 3, 4]);
        let life = |n: N| network.gossip(n).member(&name(2)).map(|m| m.incarnation);
        assert!([0, 1, 3, 4].iter().all(|&n| life(n) == Some(again(2, &[], away_ms).incarnation)), "seed {seed}");
        took_ms
    });
}

#[test]
fn a_clock_that_went_back_does_not_keep_a_member_out() {
    for_seeds("restart with the clock an hour back", 50, |seed| {
        let mut network = Network::formed(seed, 3);
        network.crash(&name(1));
        let away_ms = network.rng.random_range(10..10_000);
        network.run(away_ms);
        let config = config(1, &[0]);
        network.start(GossipConfig { incarnation: config.incarnation - 3_600_000, ..config });
        let took_ms = network.run_until_agreed(&[0, 1, 2], AGREED_MS_MAX);
        network.run(10_000);
        network.assert_agreed(&[0, 1, 2]);
        took_ms
    });
}

#[test]
fn a_new_node_at_a_dead_ones_address_takes_its_place_at_once() {
    for_seeds("another id at the same address", 50, |seed| {
        let mut network = Network::formed(seed, 4);
        network.crash(&name(1));
        network.run(20);
        let clock_ms = if seed % 2 == 0 { 1_000 } else { 0 };
        network.start(GossipConfig { address: address(1), ..again(9, &[0], clock_ms) });
        // Nodes 0, 2, 3 and 9 live; 1 is down, not forgotten.
        let took_ms = network.run_until_agreed(&[0, 2, 3, 9], 5_000);
        for n in [0, 2, 3] {
            assert_eq!(network.gossip(n).member(&name(1)).map(|m| m.state), Some(MemberState::Down), "seed {seed}");
        }
        network.run(60_000);
        network.assert_agreed(&[0, 2, 3, 9]);
        took_ms
    });
}

#[test]
fn a_node_that_moves_leaves_nothing_behind() {
    for_seeds("the same id at another address", 50, |seed| {
        let mut network = Network::formed(seed, 3);
        network.crash(&name(2));
        network.run(100);
        network.start(GossipConfig { address: address(7), ..again(2, &[0], 100) });
        let took_ms = network.run_until_agreed(&[0, 1, 2], 5_000);
        assert_eq!(network.gossip(0).members().count(), 2, "seed {seed}");
        assert_eq!(network.gossip(0).member(&name(2)).map(|m| m.address), Some(address(7)));
        network.run(30_000);
        network.assert_agreed(&[0, 1, 2]);
        took_ms
    });
}

#[test]
fn the_only_seed_is_found_again_when_it_returns_as_another_node_without_seeds() {
    for_seeds("the seed replaced", 50, |seed| {
        let mut network = Network::formed(seed, 3);
        network.crash(&name(0));
        network.run(30_000);
        network.start(GossipConfig { address: address(0), ..again(9, &[], 30_000) });
        network.run_until_agreed(&[1, 2, 9], AGREED_MS_MAX)
    });
}

#[test]
fn a_paused_member_is_down_meanwhile_accuses_nobody_and_returns_by_itself() {
    for_seeds("paused for a minute", 50, |seed| {
        let mut network = Network::formed(seed, 5);
        network.pause(&name(3));
        network.run(60_000);
        network.assert_agreed(&[0, 1, 2, 4]);
        network.reports.clear();
        network.resume(&name(3));
        let took_ms = network.run_until_agreed(&[0, 1, 2, 3, 4], AGREED_MS_MAX);
        network.run(5_000);
        network.assert_agreed(&[0, 1, 2, 3, 4]);
        for n in [0, 1, 2, 4] {
            assert_eq!(network.reported(MemberState::Down, &name(n)), 0, "seed {seed}");
        }
        assert!((50_000..=60_000).contains(&network.gossip(3).clock.slept_ms));
        took_ms
    });
}

fn partition(seed: u64, cut_ms: u64) -> u64 {
    let mut network = Network::formed(seed, 5);
    network.cut_between(&[0, 1], &[2, 3, 4]);
    network.run(cut_ms);
    network.assert_agreed(&[0, 1]);
    network.assert_agreed(&[2, 3, 4]);
    network.heal();
    let took_ms = network.run_until_agreed(&[0, 1, 2, 3, 4], AGREED_MS_MAX);
    network.run(10_000);
    network.assert_agreed(&[0, 1, 2, 3, 4]);
    took_ms
}

#[test]
fn two_sides_of_a_partition_find_each_other() {
    for_seeds("partition of a minute", 50, |seed| partition(seed, 60_000));
}

#[test]
fn two_sides_of_a_partition_that_lasted_hours_find_each_other() {
    // A virtual second costs the same however many seeds share it, so these are few.
    for_seeds("partition of two hours", 3, |seed| partition(seed, 7_200_000));
}

#[test]
fn nodes_that_were_all_alone_find_each_other() {
    for_seeds("everyone apart", 50, |seed| {
        let mut network = Network::formed(seed, 5);
        for n in 0..5 {
            network.cut_between(&[n], &(0..5).filter(|&m| m != n).collect::<Vec<_>>());
        }
        network.run(60_000);
        for n in 0..5 {
            network.assert_agreed(&[n]);
            assert!(!network.gossip(n).connected());
        }
        network.heal();
        network.run_until_agreed(&[0, 1, 2, 3, 4], AGREED_MS_MAX)
    });
}

#[test]
fn one_link_that_is_dead_in_one_direction_costs_nobody_its_life() {
    for seed in 0..seeds(50) {
        let mut network = Network::formed(seed, 5);
        network.cut_one_way(1, 2);
        network.reports.clear();
        network.run(60_000);
        for n in 0..5 {
            assert_eq!(network.reported(MemberState::Down, &name(n)), 0, "seed {seed}");
        }
    }
}

#[test]
fn a_member_that_hears_but_is_not_heard_returns_when_it_is() {
    for_seeds("deaf to one", 50, |seed| {
        let mut network = Network::formed(seed, 5);
        for n in [0, 1, 3, 4] {
            network.cut_one_way(2, n);
        }
        network.run(60_000);
        let others_agree = [0, 1, 3, 4].map(|n| network.gossip(n).member(&name(2)).map(|m| m.state));
        assert_eq!(others_agree, [Some(MemberState::Down); 4], "seed {seed}");
        network.heal();
        network.run_until_agreed(&[0, 1, 2, 3, 4], AGREED_MS_MAX)
    });
}

#[test]
fn a_member_that_leaves_is_left_not_down_and_may_return() {
    for_seeds("left and back", 50, |seed| {
        let mut network = Network::formed(seed, 5);
        network.loss_percent = 10;
        network.with(&name(4), |gossip, now| gossip.leave(now));
        assert_eq!(network.gossip(4).next_deadline(), None);
        network.crash(&name(4));
        network.reports.clear();
        network.run(2_000);
        for n in 0..4 {
            assert_eq!(network.gossip(n).member(&name(4)).map(|m| m.state), Some(MemberState::Left), "seed {seed}");
        }
        network.run(60_000);
        assert_eq!(network.reported(MemberState::Down, &name(4)), 0);
        network.start(again(4, &[0], 62_000));
        network.run_until_agreed(&[0, 1, 2, 3, 4], AGREED_MS_MAX)
    });
}
