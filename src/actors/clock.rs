//! The node's only reader of clocks. Everything above and below takes `now` from here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::base::hlc::UnixMs;

/// Unix time that a step of the wall clock cannot move: the wall clock, or the cluster's, as it was at the start, plus the monotonic time since.
/// Deadlines hold, whatever an operator or a time daemon does to the wall clock of a running node.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_unix: Duration,
}

impl Clock {
    /// The operating system's clock.
    pub fn os() -> Self {
        // A wall clock before 1970 is a broken one; counting from the epoch then keeps the node running.
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_unix }
    }

    /// A clock that shows `unix_ms` now and follows the runtime's time, which a simulator drives.
    pub fn starting_at(unix_ms: UnixMs) -> Self {
        Self { started: Instant::now(), started_unix: Duration::from_millis(unix_ms) }
    }

    /// The same with another time, for a machine whose wall clock is wrong.
    #[must_use]
    pub fn moved_by(&self, ms: i64) -> Self {
        let by = Duration::from_millis(ms.unsigned_abs());
        let moved = if ms < 0 { self.started_unix.saturating_sub(by) } else { self.started_unix.saturating_add(by) };
        Self { started_unix: moved, ..*self }
    }

    /// Unix milliseconds.
    pub fn unix_ms(&self) -> UnixMs {
        self.both().1
    }

    /// Both clocks, at the price of one.
    pub fn both(&self) -> (Instant, UnixMs) {
        let now = Instant::now();
        let unix = self.started_unix + now.saturating_duration_since(self.started);
        (now, u64::try_from(unix.as_millis()).unwrap_or(UnixMs::MAX))
    }

    /// Unix microseconds, for `TIME`.
    pub fn unix_us(&self) -> u64 {
        u64::try_from((self.started_unix + self.started.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }

    /// A point on the monotonic clock, for deadlines of requests.
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
