//! Wakes a poll to the microsecond, where polling itself counts milliseconds: an open loop must not be late by its own clock. Tested, as
//! a process, in `tests/bench.rs`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer that a poll hears of.
pub(crate) struct Timer(TimerFd);

impl Timer {
    /// One that is not set, known to the poll of `registry`.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_fd().as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Has the poll return after this time, unless it is set anew before.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn set(&mut self, wait: Duration) -> io::Result<()> {
        // Nothing at all would stop it.
        let wait = Expiration::OneShot(wait.max(Duration::from_nanos(1)).into());
        self.0.set(wait, TimerSetTimeFlags::empty())?;
        Ok(())
    }
}
