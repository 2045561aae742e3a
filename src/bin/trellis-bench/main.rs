//! The load generator: asks Redis and memcached servers for more than they like, and says how they took it. Never part of a node. Tested
//! part by part here, and as a process in `tests/bench.rs`.
//!
//! Exit codes: 0 done, 1 some requests failed, 2 bad usage, 3 no server reached.

mod arguments;
mod arrivals;
mod clock;
mod cluster;
mod command;
mod encode;
mod figures;
mod keys;
mod pipe;
mod processor;
mod replies;
mod report;
mod run;
mod sizes;
mod tally;
mod timer;
mod worker;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use arguments::Arguments;
use command::Mix;
use run::{Phase, Run, Server, run};
use trellis::net::descriptors;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why nothing was measured. The text is what the user is shown.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// What was asked for makes no sense.
    #[error("trellis-bench: {0}")]
    Usage(String),
    /// No connection, or no answer on it.
    #[error("trellis-bench: {0}")]
    Unreachable(String),
    /// The system had too little of something.
    #[error("trellis-bench: {0}")]
    System(String),
    /// The figures could not be written where they should go.
    #[error("trellis-bench: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Output(_) | Self::System(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }
}

fn main() -> ExitCode {
    // Each connection is an open file. What does not fit is refused when it is opened.
    let _ = descriptors::raise();
    match measured(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        // Whoever read the output has seen enough of it.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // The exit code says it as well, to whoever has no standard error.
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Measures and prints what was asked for. Says how many requests failed.
fn measured(arguments: &Arguments) -> Result<u64, Failure> {
    arguments.check().map_err(Failure::Usage)?;
    let mix = Mix::new(&arguments.mix, arguments.protocol).map_err(Failure::Usage)?;
    let servers = servers(arguments)?;
    if arguments.load || arguments.load_only {
        for server in &servers {
            for phase in Phase::loads(arguments.protocol, &mix) {
                let loaded = watched(arguments, server, phase, "loading")?;
                let (stored, errors) = (loaded.tally.successes(), &loaded.tally.errors);
                if stored != arguments.keys {
                    let told = format!("{}: {stored} of {} keys were stored; {errors:?}", server.name, arguments.keys);
                    return Err(Failure::System(told));
                }
                if arguments.load_only && !arguments.json {
                    writeln!(io::stdout(), "{}: {stored} stored in {:.2} s", server.name, loaded.tally.seconds())?;
                }
            }
        }
    }
    if arguments.load_only {
        return Ok(0);
    }
    let mut failures = 0;
    let mut rounds: Vec<(Server, Vec<Run>)> = servers.into_iter().map(|server| (server, Vec::new())).collect();
    let turns = if arguments.compare.is_empty() { 1 } else { arguments.rounds as usize };
    for turn in 0..turns {
        for n in 0..rounds.len() {
            // Each round begins with another server, so that nobody always follows the same.
            let n = (n + turn) % rounds.len();
            let what = format!("round {} of {turns}", turn + 1);
            let done = watched(arguments, &rounds[n].0, Phase::Measure, &what)?;
            failures += done.tally.failures() + done.tally.unsent;
            rounds[n].1.push(done);
        }
    }
    print(arguments, &mix, &rounds)?;
    Ok(failures)
}

fn servers(arguments: &Arguments) -> Result<Vec<Server>, Failure> {
    if arguments.compare.is_empty() {
        return Ok(vec![Server::find("server", &arguments.servers, arguments.pid.first().copied())?]);
    }
    let find = |(n, (name, addresses)): (usize, &(String, Vec<String>))| {
        Server::find(name, addresses, arguments.pid.get(n).copied())
    };
    arguments.compare.iter().enumerate().map(find).collect()
}

/// Runs while whoever sits at the terminal sees how it goes.
fn watched(arguments: &Arguments, server: &Server, phase: Phase, what: &str) -> Result<Run, Failure> {
    let (mut last, is_seen) = (0, io::stderr().is_terminal());
    let done = run(arguments, server, phase, &mut |replies, errors| {
        if is_seen {
            // A line over the last one; who can't see it misses nothing.
            let _ =
                write!(io::stderr(), "\r\x1b[K{} {what}: {} replies/s, {errors} errors", server.name, replies - last);
            last = replies;
        }
    });
    if is_seen {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    done
}

fn print(arguments: &Arguments, mix: &Mix, rounds: &[(Server, Vec<Run>)]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if !arguments.json {
        let told = match rounds {
            [(_, runs)] => report::shown(&runs[0], arguments, mix),
            compared => report::compared(compared),
        };
        return Ok(write!(out, "{told}")?);
    }
    let runs: Vec<_> = rounds
        .iter()
        .flat_map(|(server, runs)| runs.iter().map(|run| report::json_of(run, server, arguments, mix)))
        .collect();
    let compared = if rounds.len() > 1 { report::json_compared(rounds) } else { json!(null) };
    let told = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "connections": arguments.connections,
        "threads": arguments.threads,
        "pipeline": arguments.pipeline,
        "rate": arguments.rate,
        "keys": arguments.keys,
        "compared": compared,
        "runs": runs,
    });
    Ok(writeln!(out, "{told}")?)
}
