//! Faults in any combination: membership change together with another fault is where systems of this kind fail.

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::super::*;
use super::network::{N, Network, address, config, name, seeds};

const NODES: N = 6;

struct Chaos {
    network: Network,
    /// Lives started so far; each is later than any before it, but for clocks that go back.
    lives: u64,
    /// Addresses are never shared by two that run.
    homes: [N; NODES],
    log: Vec<String>,
}

impl Chaos {
    fn start(&mut self, n: N) {
        self.lives += 1;
        let back_ms = if self.network.rng.random_range(0..8) == 0 { 600_000 } else { 0 };
        let known = config(n, &[0, 1]);
        let incarnation = known.incarnation + 1_000 * self.lives - back_ms;
        let home = self.homes[n];
        self.log.push(format!("{}: start {n} at {home}, life {incarnation}", self.network.now_ms));
        self.network.start(GossipConfig { address: address(home), incarnation, ..known });
    }

    /// One fault or the end of one.
    fn step(&mut self) {
        let network = &mut self.network;
        let n = network.rng.random_range(0..NODES);
        let running = network.running().contains(&n);
        let what = network.rng.random_range(0..10);
        self.log.push(format!("{}: {what} on {n}, running {running}", network.now_ms));
        match what {
            0 if running => network.crash(&name(n)),
            1 if running => {
                network.with(&name(n), |gossip, now| gossip.leave(now));
                network.crash(&name(n));
            }
            2 if running && network.is_paused(n) => network.resume(&name(n)),
            2 if running => network.pause(&name(n)),
            3 => {
                let these: Vec<N> = (0..20).filter(|_| network.rng.random()).collect();
                let those: Vec<N> = (0..20).filter(|n| !these.contains(n)).collect();
                network.cut_between(&these, &those);
            }
            4 => network.heal(),
            5 => network.cut_one_way(n, (n + 1) % NODES),
            6 => network.loss_percent = *[0, 10, 30, 80].choose(&mut network.rng).unwrap(),
            7 if running => {
                let about = name((n + 1) % NODES);
                network.with(&name(n), |gossip, now| gossip.suspect_hint(now, &about));
            }
            // It moves: to an address of its own, or back.
            8 if !running => self.homes[n] = if self.homes[n] == n { n + 10 } else { n },
            _ if !running => self.start(n),
            _ => {}
        }
    }
}

#[test]
fn after_any_faults_all_who_live_agree() {
    let mut times = Vec::new();
    for seed in 0..seeds(50) {
        let homes = std::array::from_fn(|n| n);
        let mut chaos = Chaos { network: Network::new(seed), lives: 0, homes, log: Vec::new() };
        chaos.network.delay_ms = 0..=50;
        (0..NODES).for_each(|n| chaos.start(n));
        for _ in 0..60 {
            chaos.step();
            let wait_ms = chaos.network.rng.random_range(0..6_000);
            chaos.network.run(wait_ms);
        }
        // Peace: the seeds live at their places, so that every address is known to someone.
        chaos.network.heal();
        chaos.network.loss_percent = 0;
        for n in 0..NODES {
            let running = chaos.network.running().contains(&n);
            if running && chaos.network.is_paused(n) {
                chaos.network.resume(&name(n));
            }
            if n < 2 && (!running || chaos.homes[n] != n) {
                if running {
                    chaos.network.crash(&name(n));
                }
                chaos.homes[n] = n;
                chaos.start(n);
            }
        }
        let alive = chaos.network.running();
        let before = chaos.network.now_ms;
        while !chaos.network.agreed(&alive) {
            chaos.network.run(100);
            if chaos.network.now_ms > before + 30_000 {
                println!("seed {seed}:\n{}", chaos.log.join("\n"));
                chaos.network.assert_agreed(&alive);
            }
        }
        times.push(chaos.network.now_ms - before);
        // And stays so.
        chaos.network.run(30_000);
        chaos.network.assert_agreed(&alive);
    }
    times.sort_unstable();
    println!("after chaos: agreed within {} ms (median), {} ms (max)", times[times.len() / 2], times[times.len() - 1]);
}
