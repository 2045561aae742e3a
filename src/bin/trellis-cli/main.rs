//! The client for people and scripts: one command, one exit code. Never decides what a command means: it asks a node and shows the answer.
//! Tested in `tests/cli.rs`.
//!
//! Exit codes: 0 done, 1 the node said no or there is no such key, 2 bad usage, 3 no node reached.

mod arguments;
mod ask;
mod export;
mod import;
mod lines;
mod members;
mod progress;
mod prompt;
mod replies;
mod show;
mod watch;

use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a command failed. The text is what the user is shown.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The node said no, or what was asked for is not there.
    #[error("{0}")]
    Told(String),
    /// What was asked was answered and shown, and the answer is no.
    #[error("")]
    Shown,
    /// The command makes no sense.
    #[error("trellis-cli: {0}")]
    Usage(String),
    /// No node was reached, or the connection broke before the answer.
    #[error("trellis-cli: {0}")]
    Unreachable(String),
    /// The answer could not be written where it should go.
    #[error("trellis-cli: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Told(_) | Self::Shown | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }
}

fn main() -> ExitCode {
    let arguments = arguments::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from);
    let done = done.and_then(|runtime| match arguments.command {
        Some(_) => runtime.block_on(ask::run(arguments)),
        None => prompt::run(runtime, &arguments),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough of it.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Shown) => ExitCode::from(Failure::Shown.exit_code()),
        Err(failure) => {
            // The exit code says it as well, to whoever has no standard error.
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
