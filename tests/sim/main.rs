//! Whole nodes in a simulated world: one seed of every scenario, and that one seed is one run. Seeds that once failed are kept here.
//! `cargo run --release --features sim --example simulate` runs any number.

#[allow(dead_code, unused_imports, reason = "the command `simulate` uses the rest")]
mod world;

use world::{Outcome, Scenario, Task};

fn run(scenario: Scenario, seed: u64) -> Outcome {
    world::run(Task { scenario, seed, level: None, trace: false })
}

fn holds(scenario: Scenario, seed: u64) {
    let outcome = run(scenario, seed);
    assert!(outcome.failures.is_empty(), "{scenario:?} seed {seed}: {:#?}", outcome.failures);
    assert!(outcome.quorum_writes > 0, "{scenario:?} seed {seed}: no load");
}

#[test]
fn one_seed_gives_one_run() {
    for scenario in [Scenario::Calm, Scenario::Crash, Scenario::Combined] {
        assert_eq!(run(scenario, 1).hash, run(scenario, 1).hash, "{scenario:?}");
    }
    assert_ne!(run(Scenario::Calm, 1).hash, run(Scenario::Calm, 2).hash);
}

macro_rules! scenarios {
    ($($name:ident => $scenario:ident,)*) => {
        $(#[test] fn $name() { holds(Scenario::$scenario, 0); })*
    };
}

scenarios! {
    a_cluster_without_trouble_counts_exactly => Calm,
    nodes_find_each_other_in_any_order => Form,
    a_node_dies_and_returns => Crash,
    a_node_dies_and_another_takes_its_place => Replace,
    nodes_leave_in_order => Leave,
    a_minority_is_cut_off_for_long_and_comes_back => Partition,
    links_that_carry_one_way_do_no_harm => Asymmetric,
    lost_and_overtaking_datagrams_do_no_harm => Lossy,
    breaking_links_do_no_harm => BrokenLinks,
    a_slow_node_does_no_harm => Slow,
    troubles_that_come_together_do_no_harm => Mixed,
    all_troubles_at_once_lose_nothing_at_quorum => Combined,
}

/// A quorum read was refused at once when two links of living replicas had died without a word.
#[test]
fn replicas_behind_dead_links_are_asked_again() {
    holds(Scenario::BrokenLinks, 487);
}

/// A restart in turn with another number of copies amid other troubles came to no end: a node did not say again that it may stop.
#[test]
fn nodes_restarted_in_turn_change_the_number_of_copies() {
    holds(Scenario::Combined, 7);
}
