//! Lets faults happen to a run: to its hosts, its network and its clients. Decides nothing but whether a crash would be one too many.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::{self, NODES};
use super::run::Run;
use super::scenario::Fault;

/// Cuts under way, by direction: how many faults ask for each. A link passes again when the last of them is over.
pub(super) type Cuts = BTreeMap<(usize, usize), usize>;

fn name(n: usize) -> String {
    format!("node-{n}")
}

impl Run {
    /// Lets one happen.
    pub(super) fn happen(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(n) => self.kill(n),
            Fault::PowerOff(n) => self.power_off(n),
            Fault::CrashIfWhole(n) => self.crash_if_whole(n),
            Fault::Return(n, fresh) => self.come_back(n, fresh),
            Fault::Freeze(n) if self.hosts[n].up.get() => self.hosts[n].freeze(),
            Fault::Freeze(_) => {}
            Fault::Thaw(n) => self.hosts[n].thaw(),
            Fault::Leave(n) => self.leave(n),
            Fault::Stay(n) => self.hosts[n].stays.set(true),
            Fault::Reweigh(n, weight) => self.hosts[n].reweighs.set(Some(weight)),
            Fault::Weigh(n, weight) => self.hosts[n].weight.set(weight),
            Fault::Copies(n, copies) => self.hosts[n].copies.set(copies),
            Fault::Roll(copies) => self.roll(copies),
            Fault::Skew(n, ms) => self.hosts[n].skew_ms.set(ms),
            Fault::Forget => self.forget_the_gone(),
            Fault::Isolate(away) => {
                for n in &away {
                    for other in (0..self.hosts.len()).filter(|other| !away.contains(other)) {
                        self.cut(*n, other);
                        self.cut(other, *n);
                    }
                }
            }
            Fault::CutOneWay(from, to) if from != to => self.cut(from, to),
            Fault::CutOneWay(..) => {}
            Fault::Cut(ways) => ways.into_iter().for_each(|(from, to)| self.cut(from, to)),
            Fault::Uncut(ways) => ways.into_iter().for_each(|(from, to)| self.uncut(from, to)),
            Fault::Mend => self.mend(),
            Fault::Recover => self.recover(),
            Fault::LoseDatagrams(per_mille) => trellis::net::lose_datagrams(per_mille, self.seed),
            Fault::Latency(ms) => self.sim.set_max_message_latency(Duration::from_millis(ms)),
            Fault::Slow(n, ms) => {
                for other in (0..self.hosts.len()).filter(|other| *other != n) {
                    self.sim.set_link_latency(name(n), name(other), Duration::from_millis(ms));
                }
            }
            Fault::Break(per_ten_thousand) => self.fail_rate(per_ten_thousand as f64 / 10_000.0),
            Fault::Pace(ms) => self.pace.set(ms),
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        *self.cuts.entry((from, to)).or_default() += 1;
        self.sim.partition_oneway(name(from), name(to));
    }

    fn uncut(&mut self, from: usize, to: usize) {
        if let Some(times) = self.cuts.get_mut(&(from, to)) {
            *times -= 1;
            if *times == 0 {
                self.cuts.remove(&(from, to));
                self.sim.repair_oneway(name(from), name(to));
            }
        }
    }

    pub(super) fn kill(&mut self, n: usize) {
        self.load.targets.borrow_mut().retain(|target| *target != cluster::address(&self.sim, n));
        self.sim.crash(self.hosts[n].name.as_str());
        self.hosts[n].died();
    }

    fn power_off(&mut self, n: usize) {
        // Its last words are lost with it.
        let others = (0..self.hosts.len()).filter(|other| *other != n);
        let ways: Vec<(usize, usize)> = others.flat_map(|other| [(n, other), (other, n)]).collect();
        for (from, to) in &ways {
            self.cut(*from, *to);
        }
        self.kill(n);
        for (from, to) in &ways {
            self.uncut(*from, *to);
        }
    }

    /// A node that dies takes its copies with it, as there is no disk yet. What a majority of three acknowledged survives one such loss, and
    /// the next once everything has three copies again, which the nodes themselves say. The first may happen at any time.
    fn crash_if_whole(&mut self, n: usize) {
        if !self.hosts[n].up.get() || (self.losses > 0 && self.unwhole().is_some()) {
            self.note(&format!("node {n} does not crash"));
            return;
        }
        self.losses += 1;
        self.note(&format!("node {n} crashes"));
        if self.losses.is_multiple_of(2) { self.kill(n) } else { self.power_off(n) }
    }

    /// One that dies before it takes note of the wish stays a member.
    fn leave(&mut self, n: usize) {
        if self.hosts[n].up.get() {
            self.note(&format!("node {n} is to leave"));
            self.hosts[n].leaves.set(true);
        }
    }

    /// Takes note of a node that has left and ended.
    pub(super) fn let_go(&mut self) {
        for n in 0..self.hosts.len() {
            if self.hosts[n].left.take() {
                self.note(&format!("node {n} has left"));
                self.left += 1;
                self.kill(n);
            }
        }
    }

    pub(super) fn come_back(&mut self, n: usize, fresh: bool) {
        if self.hosts[n].up.get() {
            return;
        }
        let host = &self.hosts[n];
        if fresh {
            let id = format!("n{n}-{}", host.lives.get());
            self.gone.push(host.id.replace(id));
        }
        // It joins through any other node, whatever it was told the first time.
        let seeds = (0..NODES).filter(|other| *other != n).map(|n| cluster::address(&self.sim, n).to_string());
        *host.seeds.borrow_mut() = seeds.collect();
        self.start(n);
    }

    /// An operator forgets members that will not return, through any one node.
    pub(super) fn forget_the_gone(&mut self) {
        if let Some(host) = self.hosts.iter().find(|host| host.up.get() && !host.is_frozen()) {
            host.forgets.borrow_mut().clone_from(&self.gone);
        }
    }

    /// The end of all faults that have an end: who is away returns, who does not is forgotten.
    fn recover(&mut self) {
        self.mend();
        for n in 0..self.hosts.len() {
            self.hosts[n].thaw();
            if !self.hosts[n].up.get() && self.hosts[n].lives.get() > 0 && !self.hosts[n].is_gone.get() {
                self.come_back(n, false);
            }
        }
        self.forget_the_gone();
    }

    fn fail_rate(&mut self, rate: f64) {
        for a in 0..self.hosts.len() {
            for b in 0..a {
                self.sim.set_link_fail_rate(name(a), name(b), rate);
            }
        }
    }

    fn mend(&mut self) {
        trellis::net::lose_datagrams(0, self.seed);
        self.cuts.clear();
        self.fail_rate(0.0);
        self.sim.set_max_message_latency(Duration::from_millis(3));
        for a in 0..self.hosts.len() {
            for b in 0..a {
                self.sim.repair(name(a), name(b));
                self.sim.set_link_latency(name(a), name(b), Duration::from_millis(1));
            }
        }
    }
}
