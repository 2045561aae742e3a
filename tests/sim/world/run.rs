//! Carries a plan out: starts hosts and clients and goes through the schedule. How faults happen is in `faults`, the end in `settle`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use trellis::base::level::Level;
use turmoil::Sim;

use super::client::{Load, Worker};
use super::cluster::{self, Host, NODES};
use super::copies::Rolling;
use super::dice::Dice;
use super::faults::Cuts;
use super::history::{Event, History, Told};
use super::level_one::Losses;
use super::scenario::{Plan, Scenario};

/// A cluster is complete within this time of its last start.
const FORMING_MAX: Duration = Duration::from_secs(60);
/// Clients at each level.
const CLIENTS: usize = 4;
/// Who reads everything when all is quiet.
pub(super) const READER: usize = 2 * CLIENTS;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// Which kind.
    pub(crate) scenario: Scenario,
    /// What everything is drawn from.
    pub(crate) seed: u64,
    /// Clients of this level only.
    pub(crate) level: Option<Level>,
    /// Print everything that is observed.
    pub(crate) trace: bool,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What was wrong, each with the name of its checker or its key first; empty is good.
    pub(crate) failures: Vec<String>,
    /// What was asked and told of the first key that was wrong.
    pub(crate) story: Vec<String>,
    /// From the end of all faults until all nodes were equal.
    pub(crate) converged: Duration,
    /// What level one lost.
    pub(crate) losses: Losses,
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
pub(crate) fn run(task: Task) -> Outcome {
    note_panics();
    PANICS.take();
    let done = std::panic::catch_unwind(|| Run::new(task).run_to_end());
    let mut outcome = done.unwrap_or_default();
    outcome.failures.extend(PANICS.take().into_iter().map(|panic| format!("panic: {panic}")));
    outcome
}

/// A run under way.
pub(super) struct Run {
    pub(super) sim: Sim<'static>,
    pub(super) plan: Plan,
    pub(super) seed: u64,
    pub(super) hosts: Vec<Rc<Host>>,
    pub(super) load: Rc<Load>,
    pub(super) pace: Rc<Cell<u64>>,
    pub(super) cuts: Cuts,
    pub(super) rolling: Option<Rolling>,
    /// Nodes that died with all they held, if that was counted.
    pub(super) losses: usize,
    /// Nodes that left in order.
    pub(super) left: usize,
    /// Ids whose place somebody else has taken.
    pub(super) gone: Vec<String>,
    pub(super) converged: Duration,
    pub(super) failures: Vec<String>,
    pub(super) story: Vec<String>,
    level: Option<Level>,
}

impl Run {
    fn new(Task { scenario, seed, level, trace }: Task) -> Self {
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
            (0..NODES + plan.joiners).map(|n| Rc::new(Host::new(n, seed, &plan, &mut dice))).collect();
        for host in &hosts {
            let life = host.clone();
            sim.host(host.name.as_str(), move || life.clone().live());
            // It starts when the plan says so, and costs nothing until then.
            sim.crash(host.name.as_str());
        }
        for (n, host) in hosts.iter().enumerate().take(NODES) {
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
        let pace = Rc::new(Cell::new(plan.pace_ms));
        Self {
            sim,
            plan,
            seed,
            hosts,
            load,
            pace,
            cuts: Cuts::new(),
            rolling: None,
            losses: 0,
            left: 0,
            gone: Vec::new(),
            converged: Duration::ZERO,
            failures: Vec::new(),
            story: Vec::new(),
            level,
        }
    }

    fn run_to_end(mut self) -> Outcome {
        if self.form() && self.go_through() {
            self.settle();
            self.check();
        }
        let events = self.load.history.events();
        let written =
            |e: &&Event| e.is_done() && e.action != super::history::Action::Get && e.key[1..].starts_with('q');
        let one = || events.iter().filter(|e| e.key[1..].starts_with('o') && e.worker != READER);
        let latency = |e: &Event| Duration::from_micros(e.told_us - e.asked_us);
        Outcome {
            losses: Losses::of(&events, READER),
            converged: self.converged,
            story: self.story,
            hash: self.load.history.hash(),
            simulated: self.sim.elapsed(),
            operations: events.len(),
            quorum_writes: events.iter().filter(written).count(),
            errors_one: one().filter(|e| is_error_reply(e)).count(),
            slowest_one: one().filter(|e| e.is_done()).map(latency).max().unwrap_or_default(),
            failures: self.failures,
        }
    }

    /// Hosts whose node is up.
    pub(super) fn up(&self) -> impl Iterator<Item = &Rc<Host>> {
        self.hosts.iter().filter(|host| host.up.get())
    }

    /// One tick of simulated time; not if the simulation has ended.
    pub(super) fn step(&mut self) -> bool {
        match self.sim.step() {
            Ok(_) => {
                self.let_go();
                self.roll_on();
                true
            }
            Err(error) => {
                self.failures.push(format!("a host ended: {error}"));
                false
            }
        }
    }

    /// As many as that takes.
    pub(super) fn steps(&mut self, length: Duration) -> bool {
        let end = self.sim.elapsed() + length;
        while self.sim.elapsed() < end {
            if !self.step() {
                return false;
            }
        }
        true
    }

    /// Notes what must be the same in every run of the seed.
    pub(super) fn note(&self, text: &str) {
        self.load.history.note(&format!("{:>11} {text}", self.sim.elapsed().as_micros()));
    }

    /// Starts a node.
    pub(super) fn start(&mut self, n: usize) {
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
        let levels = [Level::Quorum, Level::One].into_iter().zip([0, CLIENTS]);
        let workers: Vec<Worker> = levels
            .filter(|(level, _)| self.level.is_none_or(|only| only == *level))
            .flat_map(|(level, first)| (first..first + CLIENTS).map(move |n| (n, level)))
            .map(|(n, level)| Worker::new(self.load.clone(), n, level))
            .collect();
        let pace = self.pace.clone();
        self.sim.client("clients", async move {
            for worker in workers {
                tokio::task::spawn_local(worker.work(pace.clone()));
            }
            std::future::pending().await
        });
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
        let done = self.finish_rolling();
        self.load.stopped.set(true);
        done
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
