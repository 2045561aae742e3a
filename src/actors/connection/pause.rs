//! Whether this node's clients are held up (`CLIENT PAUSE`), and for how long. One for the node: a pause set through one connection holds
//! all. Peers are never held up. Tested below.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::hlc::UnixMs;
use crate::protocol::resp::control::Pause;

use super::Door;

/// The longest pause; a longer one ends then. Nobody means to hold an application up for longer, and a forgotten one must end.
pub(super) const PAUSE_MS_MAX: u64 = 60 * 60 * 1000;

/// What all connections of a node look at before they execute.
#[derive(Debug, Default)]
pub(super) struct Pausing {
    /// When it ends; 0 without a pause. Nothing depends on seeing both fields change at once: a command is held a moment too long or not.
    until: AtomicU64,
    everything: AtomicBool,
}

impl Pausing {
    /// Begins a pause, or makes the present one longer and stricter, as in Redis.
    pub(super) fn begin(&self, pause: Pause, now: UnixMs) {
        if !pause.writes_only {
            self.everything.store(true, Ordering::Relaxed);
        }
        self.until.fetch_max(now.saturating_add(pause.timeout_ms.min(PAUSE_MS_MAX)), Ordering::Relaxed);
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Relaxed);
        self.everything.store(false, Ordering::Relaxed);
    }

    /// Whether there may be one: what the common case costs.
    pub(super) fn is_set(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    /// Whether a command is held up now, given whether it writes.
    pub(super) fn holds(&self, writes: bool, now: UnixMs) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        // A pause that begins meanwhile goes on.
        let is_over = until != 0 && until <= now;
        if is_over && self.until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.everything.store(false, Ordering::Relaxed);
        }
        now < until && (writes || self.everything.load(Ordering::Relaxed))
    }
}

/// What is answered to whoever can't wait for the end of a pause.
const HELD_UP: &str = "TIMEOUT the node holds its clients up (CLIENT PAUSE), applied: no";
/// How often a command that is held up looks whether it still is.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether a command is held up now, given whether it writes.
pub(super) fn holds(door: &Door, writes: bool) -> bool {
    door.handles.census.pausing.holds(writes, door.now())
}

/// Waits until such a command is no longer held up, or the node stops.
pub(super) async fn wait_out(door: &Door, writes: bool) {
    while holds(door, writes) && !door.is_stopping() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same for who has a deadline.
///
/// # Errors
/// [`HELD_UP`] when it is over; nothing was done.
pub(super) async fn wait_out_until(door: &Door, writes: bool, deadline: Instant) -> Result<(), &'static str> {
    // What the common case costs.
    if !door.handles.census.pausing.is_set() {
        return Ok(());
    }
    tokio::time::timeout_at(deadline, wait_out(door, writes)).await.map_err(|_| {
        door.count(Counter::Timeout);
        HELD_UP
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_writes_lets_reads_go_on_and_ends_by_itself() {
        let pausing = Pausing::default();
        assert!(!pausing.is_set() && !pausing.holds(true, 0));
        pausing.begin(Pause { timeout_ms: 10, writes_only: true }, 100);
        assert!(pausing.holds(true, 109) && !pausing.holds(false, 109));
        assert!(pausing.is_set() && !pausing.holds(true, 110) && !pausing.is_set());
    }

    #[test]
    fn a_second_pause_makes_the_first_no_shorter_and_no_milder() {
        let pausing = Pausing::default();
        pausing.begin(Pause { timeout_ms: 10, writes_only: false }, 100);
        pausing.begin(Pause { timeout_ms: 5, writes_only: true }, 100);
        assert!(pausing.holds(false, 109));
        pausing.end();
        assert!(!pausing.holds(true, 101));
    }

    #[test]
    fn the_longest_pause_is_bounded() {
        let pausing = Pausing::default();
        pausing.begin(Pause { timeout_ms: u64::MAX, writes_only: false }, 100);
        assert!(pausing.holds(false, 99 + PAUSE_MS_MAX) && !pausing.holds(false, 100 + PAUSE_MS_MAX));
    }
}
