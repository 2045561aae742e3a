//! Sets up logging: lines for people or JSON objects, on standard error, at the levels `RUST_LOG` asks for. Whoever logs never waits for
//! whoever reads: a thread of its own writes, and what does not fit is dropped and counted. Never writes to standard output, which belongs to
//! the ready line. Tested below, in `tests/options.rs` and in `tests/process.rs`.
//!
//! `tracing-appender` has such a writer, but its guard reports on the same standard error, and so waits for ever when that is what hangs.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::actors::process::LOG_LINES_DROPPED;
use crate::config::LogFormat;

/// Text that may wait for the log's reader. As much again may be on its way.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// A `RUST_LOG` that cannot be read, a second set-up in one process, or no thread to write. Nothing is logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Names the directive that is wrong.
    #[error("RUST_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// It is not UTF-8.
    #[error("RUST_LOG: {0}")]
    NotText(std::env::VarError),
    /// There is no thread for the log.
    #[error("no thread for the log: {0}")]
    Thread(io::Error),
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
    // What can't be written is not worth a panic, which is what the report of the failure on the same standard error would be.
    let lines = tracing_subscriber::fmt().log_internal_errors(false);
    let lines = lines.with_env_filter(filter).with_writer(|| Line);
    // Colours are for people: in a file they are noise.
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.with_target(false).try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).try_init()?,
    }
    std::thread::Builder::new().name("log".into()).spawn(write_for_ever).map(drop).map_err(TelemetryError::Thread)
}

fn write_for_ever() {
    loop {
        LOG_LINES_DROPPED.fetch_add(LOG.write_next(&mut io::stderr()), Ordering::Relaxed);
    }
}

/// Puts text into the log as it is, for what must be said at whatever level and is no event.
pub fn say(text: impl Display) {
    LOG.push(format!("{text}\n").as_bytes());
}

/// Waits until all that was logged before is written, but not longer than `patience`: nobody need read.
pub fn flush(patience: Duration) {
    LOG.flush(patience);
}

static LOG: Log = Log { pending: Mutex::new(Pending { text: Vec::new(), writing: false }), changed: Condvar::new() };

/// Between those who log and the one thread that writes.
struct Log {
    pending: Mutex<Pending>,
    changed: Condvar,
}

struct Pending {
    /// Whole lines.
    text: Vec<u8>,
    /// Whether text that was here is being written.
    writing: bool,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // No step under the lock leaves it half done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes lines, or drops them where too many wait.
    fn push(&self, lines: &[u8]) {
        let mut pending = self.lock();
        if pending.text.len() + lines.len() > PENDING_BYTES_MAX {
            LOG_LINES_DROPPED.fetch_add(count(lines), Ordering::Relaxed);
            return;
        }
        pending.text.extend_from_slice(lines);
        self.changed.notify_all();
    }

    /// Waits for lines and writes them. Returns how many could not be written.
    fn write_next(&self, to: &mut impl Write) -> u64 {
        let idle = self.changed.wait_while(self.lock(), |pending| pending.text.is_empty());
        let mut pending = idle.unwrap_or_else(PoisonError::into_inner);
        pending.writing = true;
        let text = mem::take(&mut pending.text);
        drop(pending);
        let left = write(to, &text);
        self.lock().writing = false;
        self.changed.notify_all();
        count(left)
    }

    fn flush(&self, patience: Duration) {
        let busy = |pending: &mut Pending| pending.writing || !pending.text.is_empty();
        drop(self.changed.wait_timeout_while(self.lock(), patience, busy));
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Writes what can be written and returns the rest.
fn write<'a>(to: &mut impl Write, mut text: &'a [u8]) -> &'a [u8] {
    while !text.is_empty() {
        match to.write(text) {
            Ok(0) => break,
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    text
}

/// Where one event's line goes.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        Log { pending: Mutex::new(Pending { text: Vec::new(), writing: false }), changed: Condvar::new() }
    }

    #[test]
    fn lines_are_written_in_order_and_those_that_cannot_be_are_counted() {
        let log = log();
        log.push(b"a\n");
        log.push(b"b\nc\n");
        let mut written = Vec::new();
        assert_eq!(log.write_next(&mut written), 0);
        assert_eq!(written, b"a\nb\nc\n");
        log.push(b"dd\nee\n");
        let mut room = [0u8; 4];
        assert_eq!(log.write_next(&mut room.as_mut_slice()), 1, "the second line was not written whole");
        assert_eq!(&room, b"dd\ne");
        log.flush(Duration::MAX);
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_nobody_waits_for_it() {
        let (log, before) = (log(), LOG_LINES_DROPPED.load(Ordering::Relaxed));
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        for _ in 0..PENDING_BYTES_MAX / line.len() + 3 {
            log.push(&line);
        }
        assert_eq!(log.lock().text.len(), PENDING_BYTES_MAX);
        assert_eq!(LOG_LINES_DROPPED.load(Ordering::Relaxed) - before, 3);
        log.flush(Duration::ZERO);
    }
}
