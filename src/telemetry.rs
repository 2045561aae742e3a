//! Sets up logging: lines for people or JSON objects, on standard error, at the levels `RUST_LOG` asks for. Never writes to standard output,
//! which belongs to the ready line. Tested in `tests/options.rs` and `tests/process.rs`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::LogFormat;

/// A `RUST_LOG` that cannot be read, or a second set-up in one process. Nothing was set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Names the directive that is wrong.
    #[error("RUST_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// It is not UTF-8.
    #[error("RUST_LOG: {0}")]
    NotText(std::env::VarError),
    /// Logging had been set up before.
    #[error("logging is set up already")]
    Twice(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// Without `RUST_LOG`: what this package says of itself, and of the frameworks what is wrong.
const DEFAULT_FILTER: &str = "warn,trellis=info";

/// Turns logging on for the whole process, by `RUST_LOG`; `info` where that is set and says nothing.
///
/// # Errors
/// [`TelemetryError`]; the process then has no logging and should not go on.
pub fn init(format: LogFormat) -> Result<(), TelemetryError> {
    // Unset or empty RUST_LOG leaves the default; only a malformed one is an error.
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if directives.trim().is_empty() => EnvFilter::new(DEFAULT_FILTER),
        Ok(directives) => EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(directives)?,
        Err(std::env::VarError::NotPresent) => EnvFilter::new(DEFAULT_FILTER),
        Err(error @ std::env::VarError::NotUnicode(_)) => return Err(TelemetryError::NotText(error)),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours are for people: in a file they are noise.
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.with_target(false).try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).try_init()?,
    }
    Ok(())
}
