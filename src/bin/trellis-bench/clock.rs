//! The generator's only reader of clocks: nanoseconds since the start of a run, which is all that a latency needs.

use std::time::{Duration, Instant};

/// Counts from its making. Copies count from the same moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts to count.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds so far.
    pub(crate) fn now(self) -> u64 {
        nanos(self.0.elapsed())
    }

    /// What is left until `at`; nothing if that is past.
    pub(crate) fn until(self, at: u64) -> Duration {
        Duration::from_nanos(at.saturating_sub(self.now()))
    }
}

/// A duration in nanoseconds; 584 years at the most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
