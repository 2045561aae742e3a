//! Settings that change while the node runs (`CONFIG SET`), and since when `INFO` counts (`CONFIG RESETSTAT`). Readers never wait; who
//! changes them says so to the stores. Tested below.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::base::counters::Counters;
use crate::protocol::resp::settings::Change;

use super::latency::Latencies;

/// Microseconds from which on a command is slow, as in Redis.
const SLOWER_THAN_US: i64 = 10_000;
/// Entries the slow log keeps, as in Redis.
const SLOWLOG_LEN: u64 = 128;

/// What was counted when the statistics were last reset.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    /// Everything.
    pub counters: Counters,
    /// By command.
    pub latencies: Latencies,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to them.
    pub bytes_out: u64,
}

/// The settings. Each is read by itself; nothing depends on two of them changing at once.
#[derive(Debug)]
pub struct Live {
    /// All settings as `CONFIG GET` shows them, those that never change among them.
    shown: ArcSwap<Vec<(String, String)>>,
    client_timeout_ms: AtomicU64,
    memory_bytes_max: AtomicU64,
    evicts: AtomicBool,
    slower_than_us: AtomicI64,
    slowlog_len: AtomicU64,
    slow_commands: AtomicU64,
    baseline: ArcSwap<Baseline>,
}

impl Live {
    /// As configured; `shown` are the settings that do not change.
    pub fn new(
        client_timeout: Option<Duration>,
        memory_bytes_max: u64,
        evicts: bool,
        shown: Vec<(String, String)>,
    ) -> Self {
        let timeout = client_timeout.unwrap_or_default();
        let live = Self {
            shown: ArcSwap::from_pointee(shown),
            client_timeout_ms: AtomicU64::new(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            memory_bytes_max: AtomicU64::new(memory_bytes_max),
            evicts: AtomicBool::new(evicts),
            slower_than_us: AtomicI64::new(SLOWER_THAN_US),
            slowlog_len: AtomicU64::new(SLOWLOG_LEN),
            slow_commands: AtomicU64::new(0),
            baseline: ArcSwap::default(),
        };
        live.show("timeout", timeout.as_secs());
        for change in [
            Change::MaxMemory(memory_bytes_max),
            Change::Evicts(evicts),
            Change::SlowerThan(SLOWER_THAN_US),
            Change::SlowLogLen(SLOWLOG_LEN),
        ] {
            live.apply(change);
        }
        live
    }

    fn show(&self, name: &str, value: impl ToString) {
        let value = value.to_string();
        self.shown.rcu(|shown| {
            let mut shown = Vec::clone(shown);
            match shown.binary_search_by(|(known, _)| known.as_str().cmp(name)) {
                Ok(at) => shown[at].1.clone_from(&value),
                Err(at) => shown.insert(at, (name.to_owned(), value.clone())),
            }
            shown
        });
    }

    /// Takes a change over. Whoever else it concerns is the caller's to tell.
    pub(super) fn apply(&self, change: Change) {
        match change {
            Change::MaxMemory(bytes) => {
                self.memory_bytes_max.store(bytes, Ordering::Relaxed);
                self.show("maxmemory", bytes);
            }
            Change::Evicts(evicts) => {
                self.evicts.store(evicts, Ordering::Relaxed);
                self.show("maxmemory-policy", if evicts { "allkeys-lru" } else { "noeviction" });
            }
            Change::Timeout(seconds) => {
                self.client_timeout_ms.store(seconds.saturating_mul(1000), Ordering::Relaxed);
                self.show("timeout", seconds);
            }
            Change::SlowerThan(us) => {
                self.slower_than_us.store(us, Ordering::Relaxed);
                self.show("slowlog-log-slower-than", us);
            }
            Change::Notify(classes) => self.show("notify-keyspace-events", classes),
            Change::SlowLogLen(len) => {
                self.slowlog_len.store(len, Ordering::Relaxed);
                self.show("slowlog-max-len", len);
            }
        }
    }

    /// Settings as `CONFIG GET` shows them, in order of name.
    pub fn shown(&self) -> arc_swap::Guard<std::sync::Arc<Vec<(String, String)>>> {
        self.shown.load()
    }

    /// Clients that say nothing for so many milliseconds are closed; `None` never.
    pub fn client_timeout_ms(&self) -> Option<u64> {
        Some(self.client_timeout_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// Budget of the store; 0 is none.
    pub fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max.load(Ordering::Relaxed)
    }

    /// Whether the least recently used goes at the budget.
    pub fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// From how long on a command is slow; `None` if none ever is.
    pub fn slower_than(&self) -> Option<Duration> {
        u64::try_from(self.slower_than_us.load(Ordering::Relaxed)).ok().map(Duration::from_micros)
    }

    /// Entries the slow log keeps.
    pub fn slowlog_len(&self) -> usize {
        usize::try_from(self.slowlog_len.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// The number of the next slow command.
    pub(super) fn next_slow_command(&self) -> u64 {
        self.slow_commands.fetch_add(1, Ordering::Relaxed)
    }

    /// What had been counted when the statistics were last reset.
    pub fn baseline(&self) -> std::sync::Arc<Baseline> {
        self.baseline.load_full()
    }

    /// Counts anew from here.
    pub(super) fn reset_statistics(&self, baseline: Baseline) {
        self.baseline.store(baseline.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_shown_in_its_place() {
        let fixed =
            [("bind", "::1"), ("port", "5"), ("save", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let live = Live::new(Some(Duration::from_secs(9)), 0, true, fixed.to_vec());
        let shown =
            |live: &Live| live.shown().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        assert_eq!(
            shown(&live),
            [
                "bind=::1",
                "maxmemory=0",
                "maxmemory-policy=allkeys-lru",
                "port=5",
                "save=",
                "slowlog-log-slower-than=10000",
                "slowlog-max-len=128",
                "timeout=9"
            ]
        );
        live.apply(Change::MaxMemory(7));
        live.apply(Change::Evicts(false));
        live.apply(Change::Timeout(0));
        live.apply(Change::SlowerThan(-1));
        assert_eq!((live.memory_bytes_max(), live.evicts()), (7, false));
        assert_eq!((live.client_timeout_ms(), live.slower_than()), (None, None));
        assert_eq!(shown(&live)[1..3], ["maxmemory=7", "maxmemory-policy=noeviction"]);
        assert_eq!(shown(&live).len(), 8);
    }
}
