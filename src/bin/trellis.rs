//! The node's process: settings, logging, then the node until it stops. Decides nothing but the exit code. Tested in `tests/options.rs`.

use std::process::ExitCode;

use trellis::{options, telemetry};

fn main() -> ExitCode {
    let config = match options::from_process() {
        Ok(config) => config,
        Err(error) => return ExitCode::from(error.report()),
    };
    if let Err(error) = telemetry::init(config.log_format) {
        eprintln!("trellis: {error}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
