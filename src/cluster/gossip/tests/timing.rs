//! How fast the dead are found and how seldom the living are called dead.

use super::super::*;
use super::network::{Network, name, seeds};

/// Time from the crash of one of `n` until every other lists it as down, sorted.
fn detection_ms(n: usize, usual: u64, loss_percent: u32, hint: bool) -> Vec<u64> {
    let mut times: Vec<u64> = (0..seeds(usual))
        .map(|seed| {
            let mut network = Network::formed(seed, n);
            network.loss_percent = loss_percent;
            network.run(seed * 37 % 1000);
            network.crash(&name(1));
            if hint {
                network.with(&name(0), |gossip, now| gossip.suspect_hint(now, &name(1)));
            }
            let start = network.now_ms;
            let others: Vec<_> = (0..n).filter(|&i| i != 1).collect();
            while !others.iter().all(|&i| network.gossip(i).member(&name(1)).unwrap().state == MemberState::Down) {
                network.run(10);
                assert!(network.now_ms - start <= 5_000, "seed {seed}");
            }
            network.now_ms - start
        })
        .collect();
    times.sort_unstable();
    times
}

fn line(what: &str, times: &[u64]) -> String {
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("{what}: median {} ms, p99 {} ms, max {} ms of {} runs", at(50), at(99), at(100), times.len())
}

#[test]
fn a_crashed_member_is_down_everywhere_within_three_seconds() {
    for n in [2, 3, 5, 10] {
        let times = detection_ms(n, 50, 0, false);
        println!("{}", line(&format!("{n} nodes"), &times));
        assert!(*times.last().unwrap() <= 3_000);
    }
}

#[test]
fn a_crashed_member_is_down_everywhere_before_the_timeout_under_loss() {
    let times = detection_ms(5, 50, 10, false);
    println!("{}", line("5 nodes, 10% loss", &times));
}

#[test]
fn a_broken_link_makes_it_faster() {
    let times = detection_ms(3, 50, 0, true);
    println!("{}", line("3 nodes, hinted", &times));
    assert!(*times.last().unwrap() <= 2_300);
}

#[test]
fn after_a_broken_link_the_dead_are_suspect_everywhere_within_600_ms() {
    let mut times: Vec<u64> = (0..seeds(50))
        .map(|seed| {
            let mut network = Network::formed(seed, 5);
            network.crash(&name(1));
            network.with(&name(0), |gossip, now| gossip.suspect_hint(now, &name(1)));
            network.run_until_agreed(&[0, 2, 3, 4], 2_000)
        })
        .collect();
    times.sort_unstable();
    println!("{}", line("5 nodes, hinted, until suspect everywhere", &times));
    assert!(*times.last().unwrap() <= 600);
}

#[test]
fn a_broken_link_to_a_live_member_costs_it_nothing() {
    for seed in 0..seeds(50) {
        let mut network = Network::formed(seed, 5);
        network.reports.clear();
        network.with(&name(0), |gossip, now| gossip.suspect_hint(now, &name(1)));
        network.run(3_000);
        assert!(network.reports.is_empty(), "{:?}", network.reports);
    }
}

#[test]
fn nobody_alive_is_called_down_under_loss() {
    for seed in 0..seeds(5) {
        let mut network = Network::formed(seed, 5);
        (network.loss_percent, network.delay_ms) = (10, 0..=40);
        network.reports.clear();
        network.run(600_000);
        for n in 0..5 {
            assert_eq!(network.reported(MemberState::Down, &name(n)), 0, "seed {seed}");
        }
        let suspicions: usize = (0..5).map(|n| network.reported(MemberState::Suspect, &name(n))).sum();
        println!("seed {seed}: {suspicions} suspicions seen, none fatal");
    }
}

#[test]
fn a_member_cut_off_from_all_others_knows_it_before_the_timeout() {
    for (n, few) in [(5, 2), (10, 1), (10, 2), (20, 1)] {
        let mut times: Vec<u64> = (0..seeds(20))
            .map(|seed| {
                let mut network = Network::formed(seed, n);
                let (these, those): (Vec<_>, Vec<_>) = (0..n).partition(|&i| i < few);
                network.cut_between(&these, &those);
                network.run_until_agreed(&these, 30_000);
                network.run_until_agreed(&those, 30_000);
                network.now_ms - network.cut_at_ms
            })
            .collect();
        times.sort_unstable();
        assert!(*times.last().unwrap() <= 5_000);
        println!("{}", line(&format!("{few} of {n} cut off"), &times));
    }
}

#[test]
fn a_quiet_cluster_costs_little() {
    for n in [5, 50] {
        let mut network = Network::formed(1, n);
        println!("{n} nodes, started within {} ms, agreed after {} ms", n * 500, network.now_ms - 2_000);
        network.run(10_000);
        network.bytes_sent = 0;
        network.run(60_000);
        let bytes_per_s = network.bytes_sent / 60 / n as u64;
        println!("{n} nodes: {bytes_per_s} bytes sent a second by each");
        assert!(bytes_per_s < 2_000);
    }
}
