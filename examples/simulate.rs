//! Runs whole clusters in simulated worlds, as many seeds as asked for, and says what went wrong in which. Prints one line per failure and a
//! summary; exits 1 if anything failed. The worlds are those of `tests/sim`.

#[path = "../tests/sim/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

// Half of what a run allocates it frees at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser;
use trellis::base::level::Level;
use trellis::base::plant::Plant;
use world::{Losses, Outcome, Scenario, Task, run};

/// Simulated clusters of five under load and faults.
#[derive(Parser)]
struct Arguments {
    /// How many seeds; they take the scenarios in turn, but for `clocks`.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this scenario.
    #[arg(long, value_parser = scenario)]
    scenario: Option<Scenario>,
    /// Only clients of this level, `one` or `quorum`; both by default.
    #[arg(long)]
    level: Option<Level>,
    /// Print everything that is observed.
    #[arg(long)]
    trace: bool,
    /// Run each seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// Plant a bug that the checks must find.
    #[arg(long, value_parser = plant)]
    plant: Option<Plant>,
    /// Threads; each runs one seed at a time.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

/// Of one seed: one fault often shows in many ways.
const FAILURES_SHOWN: usize = 4;

fn plant(name: &str) -> Result<Plant, String> {
    let found = Plant::ALL.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, plant)| plant).ok_or_else(|| format!("one of {}", Plant::ALL.map(|(name, _)| name).join(", ")))
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let names = || Scenario::ALL.map(Scenario::name).join(", ");
    Scenario::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| format!("one of {}", names()))
}

#[derive(Default)]
struct Total {
    seeds: u64,
    failed: Vec<u64>,
    operations: usize,
    quorum_writes: usize,
    errors_one: usize,
    slowest_one: Duration,
    simulated: Duration,
    losses: Losses,
    converged: Vec<Duration>,
    hash: u64,
    took: Duration,
}

impl Total {
    fn of(seed: u64, outcome: &Outcome, took: Duration) -> Self {
        Self {
            seeds: 1,
            failed: (!outcome.failures.is_empty()).then_some(seed).into_iter().collect(),
            operations: outcome.operations,
            quorum_writes: outcome.quorum_writes,
            errors_one: outcome.errors_one,
            slowest_one: outcome.slowest_one,
            simulated: outcome.simulated,
            losses: outcome.losses,
            converged: vec![outcome.converged],
            hash: outcome.hash,
            took,
        }
    }

    fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.failed.extend(&other.failed);
        self.operations += other.operations;
        self.quorum_writes += other.quorum_writes;
        self.errors_one += other.errors_one;
        self.slowest_one = self.slowest_one.max(other.slowest_one);
        self.simulated += other.simulated;
        self.losses += other.losses;
        self.converged.extend(&other.converged);
        self.hash ^= other.hash;
        self.took += other.took;
    }

    fn print(&self, name: &str) {
        println!(
            "{name:<12} {:>5} seeds {:>4} failed {:>8.2} simulated h {:>9} operations {:>8} quorum writes {:>6} errors at one, slowest {:>5} ms, \
             {:>6.1} s, trace {:016x}",
            self.seeds,
            self.failed.len(),
            self.simulated.as_secs_f64() / 3_600.0,
            self.operations,
            self.quorum_writes,
            self.errors_one,
            self.slowest_one.as_millis(),
            self.took.as_secs_f64(),
            self.hash,
        );
    }

    /// What clients at level one lost, and how long after the last fault all replicas were equal.
    fn print_figures(&mut self) {
        let l = &self.losses;
        let counts = [
            ("members of the set gone", l.members_lost, l.members),
            ("increments not counted", l.increments_lost, l.increments),
            ("registers with an older value", l.registers_back, l.registers),
            ("deleted keys back", l.deleted_back, l.deleted),
            ("stale reads", l.reads_stale, l.reads),
        ];
        for (what, lost, of) in counts {
            println!("level one: {what}: {lost} of {of}");
        }
        self.converged.sort_unstable();
        let at = |per_cent: usize| self.converged[(self.converged.len() - 1) * per_cent / 100].as_secs_f64();
        println!("equal after: median {:.1} s, p99 {:.1} s, longest {:.1} s", at(50), at(99), at(100));
    }
}

fn turn(seed: u64) -> Scenario {
    Scenario::ALL[seed as usize % Scenario::ALL.len()]
}

fn one(arguments: &Arguments, seed: u64) -> (Scenario, Outcome) {
    let scenario = arguments.scenario.unwrap_or_else(|| turn(seed));
    let task = Task { scenario, seed, level: arguments.level, trace: arguments.trace };
    let mut outcome = run(task);
    if arguments.twice && run(Task { trace: false, ..task }).hash != outcome.hash {
        outcome.failures.push("two runs of one seed differ".to_owned());
    }
    (scenario, outcome)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(plant) = arguments.plant {
        plant.sow();
    }
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
    let began = Instant::now();
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first + arguments.seeds;
    let totals: Mutex<BTreeMap<Scenario, Total>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let began = Instant::now();
                    let (scenario, outcome) = one(&arguments, seed);
                    let name = scenario.name();
                    for failure in outcome.failures.iter().take(FAILURES_SHOWN) {
                        println!("FAILED --scenario {name} --first {seed} --seeds 1: {failure}");
                    }
                    for line in &outcome.story {
                        println!("    {line}");
                    }
                    let total = Total::of(seed, &outcome, began.elapsed());
                    totals.lock().expect("no thread panics").entry(scenario).or_default().add(&total);
                }
            });
        }
    });
    let totals = totals.into_inner().expect("no thread panics");
    let mut all = Total::default();
    for (scenario, total) in &totals {
        total.print(&scenario.name());
        all.add(total);
    }
    // Threads run beside each other.
    all.took = began.elapsed();
    all.print("all");
    if all.seeds > 0 {
        all.print_figures();
    }
    if all.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
