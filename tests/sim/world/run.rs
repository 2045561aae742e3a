//! Carries a plan out: starts hosts and clients, lets faults happen, waits until all is quiet, and checks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use trellis::base::level::Level;
use turmoil::Sim;

use super::checks;
use super::client::{Load, Worker};
use super::cluster::{self, Held, Host, NODES};
use super::dice::Dice;
use super::history::{Event, History, Told};
use super::scenario::{Fault, Plan, Scenario};

/// A cluster is complete within this time of its last start.
const FORMING_MAX: Duration = Duration::from_secs(60);
/// All is equal within this time of the last fault.
const QUIET_MAX: Duration = Duration::from_secs(90);
/// Clients at each level.
const CLIENTS: usize = 4;
/// Longest pause of a client between two operations, unless the plan says otherwise.
const PACE_MS: u64 = 40;

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What was wrong; empty is good.
    pub(crate) failures: Vec<String>,
    /// Of everything observed: equal for equal seeds.
    pub(crate) hash: u64,
    /// Time that passed in the simulation.
    pub(crate) simulated: Duration,
    /// Operations asked.
    pub(crate) operations: usize,
    /// Writes acknowledged at quorum.
    pub(crate) quorum_writes: usize,
    /// Error replies at level one.
    pub(crate) errors_one: usize,
    /// Longest a client at level one waited for an answer that came.
    pub(crate) slowest_one: Duration,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic in a node ends only its task there; it must not pass unnoticed.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()))));
    });
}

/// Runs one seed of a scenario.
pub(crate) fn run(scenario: Scenario, seed: u64, trace: bool) -> Outcome {
    note_panics();
    PANICS.take();
    let done = std::panic::catch_unwind(|| Run::new(scenario, seed, trace).run_to_end());
    let mut outcome = done.unwrap_or_default();
    outcome.failures.extend(PANICS.take().into_iter().map(|panic| format!("panic: {panic}")));
    outcome
}

struct Run {
    sim: Sim<'static>,
    plan: Plan,
    seed: u64,
    hosts: Vec<Rc<Host>>,
    load: Rc<Load>,
    pace: Rc<Cell<u64>>,
    failures: Vec<String>,
}

impl Run {
    fn new(scenario: Scenario, seed: u64, trace: bool) -> Self {
        let plan = Plan::draw(scenario, seed);
        let mut dice = Dice::new(seed, "hosts");
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(Duration::from_millis(plan.tick_ms))
            .simulation_duration(Duration::from_secs(1 << 30))
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(Duration::from_millis(3))
            .fail_rate(0.0)
            .repair_rate(0.3)
            .tcp_capacity(4_096)
            .udp_capacity(4_096)
            .enable_random_order()
            .build();
        let hosts: Vec<Rc<Host>> =
            (0..NODES).map(|n| Rc::new(Host::new(n, seed, plan.forget_after, &mut dice))).collect();
        for host in &hosts {
            let life = host.clone();
            sim.host(host.name.as_str(), move || life.clone().live());
        }
        for (n, host) in hosts.iter().enumerate() {
            let mut seeds: Vec<String> =
                plan.seeds[n].iter().map(|seed| cluster::address(&sim, *seed).to_string()).collect();
            if plan.misled[n] {
                seeds.insert(0, "192.168.77.77:5000".to_owned());
            }
            *host.seeds.borrow_mut() = seeds;
        }
        let load = Rc::new(Load {
            history: History::new(trace),
            targets: RefCell::default(),
            stopped: Cell::new(false),
            running: Cell::new(0),
            seed,
        });
        trellis::net::lose_datagrams(0, seed);
        Self { sim, plan, seed, hosts, load, pace: Rc::new(Cell::new(PACE_MS)), failures: Vec::new() }
    }

    fn run_to_end(mut self) -> Outcome {
        if self.form() && self.go_through() {
            self.settle();
            self.check();
        }
        let events = self.load.history.events();
        let written =
            |e: &&Event| e.is_done() && e.action != super::history::Action::Get && e.key[1..].starts_with('q');
        let one = || events.iter().filter(|e| e.key[1..].starts_with('o'));
        let latency = |e: &Event| Duration::from_micros(e.told_us - e.asked_us);
        Outcome {
            hash: self.load.history.hash(),
            simulated: self.sim.elapsed(),
            operations: events.len(),
            quorum_writes: events.iter().filter(written).count(),
            errors_one: one().filter(|e| is_error_reply(e)).count(),
            slowest_one: one().filter(|e| e.is_done()).map(latency).max().unwrap_or_default(),
            failures: self.failures,
        }
    }

    fn step(&mut self) -> bool {
        match self.sim.step() {
            Ok(_) => true,
            Err(error) => {
                self.failures.push(format!("a host ended: {error}"));
                false
            }
        }
    }

    fn steps(&mut self, length: Duration) -> bool {
        let end = self.sim.elapsed() + length;
        while self.sim.elapsed() < end {
            if !self.step() {
                return false;
            }
        }
        true
    }

    fn note(&self, text: &str) {
        self.load.history.note(&format!("{:>11} {text}", self.sim.elapsed().as_micros()));
    }

    fn start(&mut self, n: usize) {
        self.hosts[n].up.set(true);
        self.sim.bounce(self.hosts[n].name.as_str());
        self.load.targets.borrow_mut().push(cluster::address(&self.sim, n));
        self.note(&format!("node {n} starts as {}", self.hosts[n].id.borrow()));
    }

    /// Starts everybody, and waits until the cluster is complete.
    fn form(&mut self) -> bool {
        let mut starts: Vec<(u64, usize)> = self.plan.starts_ms.iter().copied().zip(0..).collect();
        starts.sort_unstable();
        if self.plan.load_at_once {
            self.begin_load();
        }
        for (at, n) in starts {
            while self.sim.elapsed() < Duration::from_millis(at) {
                if !self.step() {
                    return false;
                }
            }
            self.start(n);
        }
        let formed = self.await_equal(FORMING_MAX, &[]);
        if !self.plan.load_at_once {
            self.begin_load();
        }
        formed
    }

    fn begin_load(&mut self) {
        for (host, level) in [("client-quorum", Level::Quorum), ("client-one", Level::One)] {
            let first = if level == Level::Quorum { 0 } else { CLIENTS };
            let workers: Vec<Worker> =
                (first..first + CLIENTS).map(|n| Worker::new(self.load.clone(), n, level)).collect();
            let pace = self.pace.clone();
            self.sim.client(host, async move {
                for worker in workers {
                    tokio::task::spawn_local(worker.work(pace.clone()));
                }
                std::future::pending().await
            });
        }
    }

    /// Lets everything happen that the plan has in store.
    fn go_through(&mut self) -> bool {
        let begun = self.sim.elapsed();
        let faults = std::mem::take(&mut self.plan.faults);
        for (at, fault) in faults {
            let at = begun + Duration::from_millis(at);
            while self.sim.elapsed() < at {
                if !self.step() {
                    return false;
                }
            }
            self.note(&format!("{fault:?}"));
            self.happen(fault);
        }
        self.load.stopped.set(true);
        self.pace.set(PACE_MS);
        true
    }

    fn happen(&mut self, fault: Fault) {
        let name = |n: usize| format!("node-{n}");
        match fault {
            Fault::Crash(n) => self.kill(n),
            Fault::PowerOff(n) => {
                // Its last words are lost with it.
                for other in (0..NODES).filter(|other| *other != n) {
                    self.sim.partition(name(n), name(other));
                }
                self.kill(n);
                for other in (0..NODES).filter(|other| *other != n) {
                    self.sim.repair(name(n), name(other));
                }
            }
            Fault::Return(n, fresh) => {
                if fresh {
                    let id = format!("n{n}-{}", self.hosts[n].lives.get());
                    *self.hosts[n].id.borrow_mut() = id;
                }
                // It joins through any other node, whatever it was told the first time.
                let seeds = (0..NODES).filter(|other| *other != n).map(|n| cluster::address(&self.sim, n).to_string());
                *self.hosts[n].seeds.borrow_mut() = seeds.collect();
                self.start(n);
            }
            Fault::Isolate(away) => {
                for n in &away {
                    for other in (0..NODES).filter(|other| !away.contains(other)) {
                        self.sim.partition(name(*n), name(other));
                    }
                }
            }
            Fault::CutOneWay(from, to) if from != to => self.sim.partition_oneway(name(from), name(to)),
            Fault::CutOneWay(..) => {}
            Fault::Mend => self.mend(),
            Fault::LoseDatagrams(per_mille) => trellis::net::lose_datagrams(per_mille, self.seed),
            Fault::Latency(ms) => self.sim.set_max_message_latency(Duration::from_millis(ms)),
            Fault::Slow(n, ms) => {
                for other in (0..NODES).filter(|other| *other != n) {
                    self.sim.set_link_latency(name(n), name(other), Duration::from_millis(ms));
                }
            }
            Fault::Break(per_ten_thousand) => self.fail_rate(per_ten_thousand as f64 / 10_000.0),
            Fault::Pace(ms) => self.pace.set(ms),
        }
    }

    fn kill(&mut self, n: usize) {
        self.load.targets.borrow_mut().retain(|target| *target != cluster::address(&self.sim, n));
        self.sim.crash(self.hosts[n].name.as_str());
        self.hosts[n].died();
    }

    fn fail_rate(&mut self, rate: f64) {
        for a in 0..NODES {
            for b in 0..a {
                self.sim.set_link_fail_rate(format!("node-{a}"), format!("node-{b}"), rate);
            }
        }
    }

    fn mend(&mut self) {
        trellis::net::lose_datagrams(0, self.seed);
        self.fail_rate(0.0);
        self.sim.set_max_message_latency(Duration::from_millis(3));
        for a in 0..NODES {
            for b in 0..a {
                let (a, b) = (format!("node-{a}"), format!("node-{b}"));
                self.sim.repair(a.as_str(), b.as_str());
                self.sim.set_link_latency(a.as_str(), b.as_str(), Duration::from_millis(1));
            }
        }
    }

    /// Waits until clients have ended and all nodes agree.
    fn settle(&mut self) {
        for _ in 0..300 {
            if self.load.running.get() == 0 || !self.steps(Duration::from_millis(500)) {
                break;
            }
        }
        if self.load.running.get() > 0 {
            self.failures.push("clients do not end".to_owned());
        }
        let keys: BTreeSet<String> = self.load.history.events().into_iter().map(|event| event.key).collect();
        let keys: Vec<String> = keys.into_iter().collect();
        if !self.await_equal(QUIET_MAX, &keys) {
            return;
        }
        for host in &self.hosts {
            self.note(&host.view().map_or_else(String::new, |view| cluster::picture(&view)));
            self.note(&format!("{:?}", host.shown()));
        }
        let reader = Worker::new(self.load.clone(), 2 * CLIENTS, Level::Quorum);
        let quorum_keys = keys.into_iter().filter(|key| key[1..].starts_with('q')).collect();
        self.sim.client("client-last", async move {
            reader.read_all(quorum_keys).await;
            Ok(())
        });
        while self.load.running.get() > 0 && self.step() {}
        let last = self.load.history.events();
        if let Some(event) = last.iter().rev().find(|e| e.worker == 2 * CLIENTS && !e.is_done()) {
            self.failures.push(format!("a healthy cluster does not answer: {event:?}"));
        }
    }

    /// Waits until [`Self::difference`] finds none.
    fn await_equal(&mut self, at_most: Duration, keys: &[String]) -> bool {
        let begun = self.sim.elapsed();
        loop {
            if !self.steps(Duration::from_millis(500)) {
                return false;
            }
            for host in &self.hosts {
                host.want(keys);
            }
            if !self.steps(Duration::from_millis(300)) {
                return false;
            }
            let Some(difference) = self.difference(keys) else {
                self.note("all is equal");
                return true;
            };
            self.load.history.remark(&difference);
            if self.sim.elapsed() > begun + at_most {
                self.failures.push(format!("not equal after {at_most:?}: {difference}"));
                return false;
            }
        }
    }

    /// What nodes do not agree on yet: members, ring, or what they hold under these keys.
    fn difference(&self, keys: &[String]) -> Option<String> {
        let views: Vec<_> = self.hosts.iter().filter_map(|host| host.view()).collect();
        let all = || views.iter().map(|v| cluster::summary(v)).collect::<Vec<_>>().join("\n    ");
        if views.len() < NODES {
            return Some("some nodes are not up".to_owned());
        }
        let whole = |v: &std::sync::Arc<trellis::cluster::view::View>| {
            v.under_replicated() == 0 && v.peers().count() == NODES && v.peers().all(|(ix, _)| v.is_alive(ix))
        };
        if !views.iter().all(whole) {
            return Some(format!("not whole\n    {}", all()));
        }
        let first = cluster::picture(&views[0]);
        if views.iter().any(|view| cluster::picture(view) != first) {
            return Some(format!("pictures differ\n    {}", all()));
        }
        let shown: Option<Vec<Held>> = self.hosts.iter().map(|host| host.shown()).collect();
        let Some(shown) = shown else { return Some("a node does not show what it holds".to_owned()) };
        for (k, key) in keys.iter().enumerate() {
            let partition = trellis::base::slot::Partition::of(key.as_bytes());
            let owners = (0..NODES).filter(|n| views[*n].route(partition).owners.contains(&views[*n].me));
            let versions: Vec<_> = owners.map(|n| (n, shown[n][k].as_ref())).collect();
            if versions.iter().any(|(_, held)| *held != versions[0].1) {
                return Some(format!("replicas of {key} differ: {versions:?}"));
            }
        }
        None
    }

    fn check(&mut self) {
        let events = self.load.history.events();
        let mut wrong = checks::nothing_from_nowhere(&events);
        for (key, events) in checks::keys(&events, "cq") {
            wrong.extend(checks::counter(key, &events, self.plan.one_cluster));
        }
        if self.plan.one_cluster {
            for (key, events) in checks::keys(&events, "rq") {
                wrong.extend(checks::one_copy(key, &events));
            }
            for (key, events) in checks::keys(&events, "dq") {
                wrong.extend(checks::deletes(key, &events));
            }
            for (key, events) in checks::keys(&events, "eq") {
                wrong.extend(checks::deadlines(key, &events));
            }
        }
        self.failures.extend(wrong);
    }
}

/// An error the node gave; not that it could not be reached.
fn is_error_reply(event: &Event) -> bool {
    match &event.told {
        Told::Done(_) => false,
        Told::Refused(text) => !text.starts_with("no connection"),
        Told::Unknown(text) => !text.starts_with("no answer"),
    }
}
