//! Processor time: what the generator took, and what a server on this machine took, as the kernel counts it under `/proc`. A client that
//! is slow or noisy hides a server's rate, never this. Where there is no `/proc` there is no figure. Tested below.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// Processor time of this process.
pub(crate) fn own() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = |time: nix::sys::time::TimeVal| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).ok();
    Some(Duration::from_micros(micros(usage.user_time())? + micros(usage.system_time())?))
}

/// Processor time of a process, its threads' together.
pub(crate) fn of(pid: u32) -> Option<Duration> {
    let ticks = ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let a_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    Some(Duration::from_nanos(ticks.checked_mul(1_000_000_000 / a_second)?))
}

/// User and system time in a line of `stat`. The name in it may be anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// The process on this machine that listens at a loopback address.
pub(crate) fn listener(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() {
        return None;
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().find_map(|table| inode(&fs::read_to_string(table).ok()?, address.port()))?;
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|link| link == Path::new(&socket)))
    })
}

/// The socket that listens on a port, in a table of the kernel's.
fn inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        // 0A: it listens.
        (local == port && *fields.get(3)? == "0A").then(|| fields.get(9)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("17 (a"), None);
    }

    #[test]
    fn listening_sockets_are_told_from_others() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1770 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 111 1 0 20 4 1 21 -1\n\
            1: 0100007F:1770 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n";
        assert_eq!(inode(table, 6000), Some(222));
        assert_eq!(inode(table, 6001), None);
    }

    #[test]
    fn this_process_is_found_by_its_port() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listener(listening.local_addr().unwrap());
        assert_eq!(found, Path::new("/proc/self").exists().then(std::process::id));
        assert!(own().is_some_and(|used| used > Duration::ZERO));
    }
}
