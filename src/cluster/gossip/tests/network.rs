//! A network of failure detectors with virtual time: loss, delay, reordering, cuts, crashes, pauses. One seed, one run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use crate::base::limits::DATAGRAM_BYTES_MAX;

/// A node by number; it lives at 10.0.n.1:5000 unless said otherwise.
pub(super) type N = usize;

/// How many seeds a scenario tries: `TRELLIS_SEEDS`, else `usual`.
pub(super) fn seeds(usual: u64) -> u64 {
    std::env::var("TRELLIS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

pub(super) fn address(n: N) -> SocketAddr {
    SocketAddr::from(([10, (n >> 8) as u8, (n & 255) as u8, 1], 5000))
}

pub(super) fn name(n: N) -> NodeId {
    format!("node-{n}").parse().unwrap()
}

pub(super) fn config(n: N, seeds: &[N]) -> GossipConfig {
    GossipConfig {
        node: name(n),
        address: address(n),
        incarnation: 1_800_000_000_000,
        heartbeat_interval_ms: 1000,
        failure_timeout_ms: 5000,
        cluster: "test".parse().unwrap(),
        seeds: seeds.iter().map(|&s| address(s)).collect(),
    }
}

struct Node {
    gossip: Gossip,
    address: SocketAddr,
    paused: bool,
    /// What waits in its socket while it is paused.
    backlog: Vec<(SocketAddr, Vec<u8>)>,
}

pub(super) struct Network {
    pub(super) now_ms: u64,
    pub(super) rng: StdRng,
    pub(super) loss_percent: u32,
    /// Datagrams take this long, at random, so that they overtake each other.
    pub(super) delay_ms: std::ops::RangeInclusive<u64>,
    nodes: BTreeMap<NodeId, Node>,
    in_flight: BTreeMap<(u64, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    pub(super) bytes_sent: u64,
    /// Pairs (from, to) that are cut.
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// When the last cut was made.
    pub(super) cut_at_ms: u64,
    /// All effects but `Send`: when, whose, what.
    pub(super) reports: Vec<(u64, NodeId, Effect)>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now_ms: 0,
            rng: StdRng::seed_from_u64(seed),
            loss_percent: 0,
            delay_ms: 0..=3,
            nodes: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            sent: 0,
            bytes_sent: 0,
            cut: BTreeSet::new(),
            cut_at_ms: 0,
            reports: Vec::new(),
        }
    }

    /// `n` nodes that know node 0, all up and acquainted.
    pub(super) fn formed(seed: u64, n: N) -> Self {
        let mut network = Self::new(seed);
        for i in 0..n {
            let at = network.rng.random_range(0..500);
            network.run(at);
            network.start(config(i, &[0]));
        }
        network.run_until_agreed(&(0..n).collect::<Vec<_>>(), 30_000);
        network.run(2_000);
        network
    }

    pub(super) fn start(&mut self, config: GossipConfig) {
        let (id, address) = (config.node.clone(), config.address);
        let mut gossip = Gossip::new(self.now_ms, config, self.rng.random()).unwrap();
        gossip.tick(self.now_ms);
        let node = Node { gossip, address, paused: false, backlog: Vec::new() };
        self.nodes.insert(id.clone(), node);
        self.perform(&id);
    }

    pub(super) fn crash(&mut self, id: &NodeId) {
        let node = self.nodes.remove(id).unwrap();
        assert_eq!(node.gossip.faults(), 0);
    }

    pub(super) fn pause(&mut self, id: &NodeId) {
        self.nodes.get_mut(id).unwrap().paused = true;
    }

    /// Wakes up; the socket's backlog comes before or after the timers, as it happens.
    pub(super) fn resume(&mut self, id: &NodeId) {
        let node = self.nodes.get_mut(id).unwrap();
        node.paused = false;
        let backlog = std::mem::take(&mut node.backlog);
        if self.rng.random() {
            self.with(id, |gossip, now| gossip.tick(now));
        }
        for (from, bytes) in backlog {
            self.with(id, |gossip, now| gossip.receive(now, from, &bytes));
        }
    }

    /// Calls a node and performs what it wants.
    pub(super) fn with(&mut self, id: &NodeId, call: impl FnOnce(&mut Gossip, u64)) {
        let now = self.now_ms;
        call(&mut self.nodes.get_mut(id).unwrap().gossip, now);
        self.perform(id);
    }

    /// The numbers of those that run, paused or not.
    pub(super) fn running(&self) -> Vec<N> {
        (0..50).filter(|&n| self.nodes.contains_key(&name(n))).collect()
    }

    pub(super) fn is_paused(&self, n: N) -> bool {
        self.nodes[&name(n)].paused
    }

    pub(super) fn gossip(&self, n: N) -> &Gossip {
        &self.nodes[&name(n)].gossip
    }

    pub(super) fn cut_one_way(&mut self, from: N, to: N) {
        self.cut.insert((address(from), address(to)));
        self.cut_at_ms = self.now_ms;
    }

    pub(super) fn cut_between(&mut self, these: &[N], those: &[N]) {
        for (&a, &b) in these.iter().flat_map(|a| those.iter().map(move |b| (a, b))) {
            self.cut_one_way(a, b);
            self.cut_one_way(b, a);
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Puts a datagram on the wire as if `from` had sent it.
    pub(super) fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
        self.bytes_sent += bytes.len() as u64;
        self.sent += 1;
        if self.cut.contains(&(from, to)) || self.rng.random_range(0..100) < self.loss_percent {
            return;
        }
        let at = self.now_ms + self.rng.random_range(self.delay_ms.clone());
        self.in_flight.insert((at, self.sent), (from, to, bytes));
    }

    fn perform(&mut self, id: &NodeId) {
        while let Some(effect) = self.nodes.get_mut(id).and_then(|node| node.gossip.next_effect()) {
            let from = self.nodes[id].address;
            match effect {
                Effect::Send { to, bytes } => self.inject(from, to, bytes),
                other => self.reports.push((self.now_ms, id.clone(), other)),
            }
        }
    }

    /// Lets `ms` pass.
    pub(super) fn run(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        loop {
            let awake = self.nodes.iter().filter(|(_, node)| !node.paused);
            let timer = awake.filter_map(|(id, n)| Some((n.gossip.next_deadline()?, id))).min();
            let packet = self.in_flight.first_key_value().map(|(&(at, _), _)| at);
            let timer_at = timer.map_or(u64::MAX, |(at, _)| at);
            if timer_at.min(packet.unwrap_or(u64::MAX)) > until {
                break;
            }
            if packet.is_some_and(|at| at <= timer_at) {
                let ((at, _), (from, to, bytes)) = self.in_flight.pop_first().unwrap();
                self.now_ms = self.now_ms.max(at);
                self.deliver(from, to, bytes);
            } else {
                let id = timer.expect("one of them is due").1.clone();
                self.now_ms = self.now_ms.max(timer_at);
                self.with(&id, |gossip, now| gossip.tick(now));
            }
        }
        self.now_ms = until;
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let Some((id, node)) = self.nodes.iter_mut().find(|(_, node)| node.address == to) else { return };
        if node.paused {
            node.backlog.push((from, bytes));
            return;
        }
        let id = id.clone();
        self.with(&id, |gossip, now| gossip.receive(now, from, &bytes));
    }

    /// Whether each of `alive` believes that exactly these are.
    pub(super) fn agreed(&self, alive: &[N]) -> bool {
        alive.iter().all(|&n| {
            let members = self.gossip(n).members().filter(|m| m.state == MemberState::Alive);
            let believed: BTreeSet<_> = members.map(|m| m.id).chain([name(n)]).collect();
            believed == alive.iter().map(|&n| name(n)).collect()
        })
    }

    pub(super) fn assert_agreed(&self, alive: &[N]) {
        for &n in alive {
            assert_eq!(self.gossip(n).faults(), 0);
        }
        if !self.agreed(alive) {
            for &n in alive {
                eprintln!("{}: {:#?}", name(n), self.gossip(n).members().collect::<Vec<_>>());
            }
            panic!("they disagree at {} ms", self.now_ms);
        }
    }

    /// How long until all of `alive` agree on it, in steps of 10 ms. Panics after `at_most_ms`.
    pub(super) fn run_until_agreed(&mut self, alive: &[N], at_most_ms: u64) -> u64 {
        let start = self.now_ms;
        while !self.agreed(alive) {
            if self.now_ms - start > at_most_ms {
                self.assert_agreed(alive);
            }
            self.run(10);
        }
        self.now_ms - start
    }

    /// What `state` reports there were of `about`, by anyone.
    pub(super) fn reported(&self, state: MemberState, about: &NodeId) -> usize {
        let hit = |effect: &Effect| matches!(effect, Effect::Member(m) if m.state == state && m.id == *about);
        self.reports.iter().filter(|(_, _, effect)| hit(effect)).count()
    }
}
