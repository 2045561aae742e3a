//! What is true of the whole process, whichever of its parts asks: memory and processor time as the operating system says in `/proc`, zeros
//! where there is no `/proc`; and what became of its log.

use std::fs;
use std::sync::atomic::AtomicU64;

/// Log lines that were dropped because nobody read them or they could not be written.
pub static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Memory and processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident now.
    pub resident_bytes: u64,
    /// Resident at the most so far.
    pub resident_bytes_max: u64,
    /// The machine's memory.
    pub system_bytes: u64,
    /// Processor time in the system.
    pub cpu_system_s: f64,
    /// Processor time in the process itself.
    pub cpu_user_s: f64,
}

/// Linux counts processor time in hundredths of a second on every architecture it shows to programs.
const TICKS_PER_S: f64 = 100.0;

/// Reads it.
pub fn usage() -> Usage {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the program's name, may contain anything; the fields after it do not.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |n: usize| after_name.split_whitespace().nth(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    Usage {
        resident_bytes: kilobytes(&status, "VmRSS:"),
        resident_bytes_max: kilobytes(&status, "VmHWM:"),
        system_bytes: kilobytes(&machine, "MemTotal:"),
        cpu_user_s: ticks(11) / TICKS_PER_S,
        cpu_system_s: ticks(12) / TICKS_PER_S,
    }
}

fn kilobytes(table: &str, name: &str) -> u64 {
    let line = table.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_running_process_has_memory() {
        if std::path::Path::new("/proc/self/status").exists() {
            assert!(super::usage().resident_bytes > 0);
        }
    }
}
