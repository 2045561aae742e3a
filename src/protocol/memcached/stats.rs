//! `stats`: what is asked, and the lines that answer. Only what exists here is told; memcached's names for it. Gathers nothing. Tested below.

use super::number::u32_of;
use super::{Asked, BAD_FORMAT, Command, MEMCACHED_VERSION};

/// Which statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stats {
    /// `stats`.
    General,
    /// `stats settings`.
    Settings,
    /// Of slab classes (`items`, `slabs`), prefixes (`detail dump`) and external storage, none of which exist.
    Nothing,
}

/// What the lines tell.
#[derive(Clone, Debug, Default)]
pub struct StatsFacts {
    /// This process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Unix seconds.
    pub now_s: u64,
    /// This project's own version.
    pub trellis_version: &'static str,
    /// CPU time.
    pub cpu_user_s: f64,
    /// CPU time in the kernel.
    pub cpu_system_s: f64,
    /// Clients there may be.
    pub connections_max: u64,
    /// Clients of all protocols.
    pub connections: u64,
    /// Connections accepted.
    pub connections_total: u64,
    /// Connections refused.
    pub connections_rejected: u64,
    /// Keys looked up and found, and not found, by clients of all protocols.
    pub hits: u64,
    /// See there.
    pub misses: u64,
    /// Storing commands of memcached clients.
    pub stores: u64,
    /// Their `flush_all`s.
    pub flushes: u64,
    /// Their touching commands.
    pub touches: u64,
    /// Their meta commands.
    pub metas: u64,
    /// Values too large.
    pub too_large: u64,
    /// Writes refused for want of memory.
    pub out_of_memory: u64,
    /// Bytes from clients.
    pub bytes_read: u64,
    /// Bytes to clients.
    pub bytes_written: u64,
    /// The store's budget; 0 for none.
    pub memory_bytes_max: u64,
    /// What it takes.
    pub memory_bytes: u64,
    /// Keys.
    pub keys: u64,
    /// Data threads.
    pub threads: usize,
    /// Evicted.
    pub evictions: u64,
    /// Expired.
    pub expired: u64,
    /// memcached's `-I`.
    pub item_bytes_max: usize,
    /// The port of this protocol.
    pub port: u16,
    /// The address bound.
    pub host: String,
    /// Whether the least recently used go at the budget.
    pub evicts: bool,
    /// The Unix socket.
    pub unix: Option<String>,
    /// Seconds an idle client may stay; 0 for ever.
    pub idle_timeout_s: u64,
}

impl Stats {
    /// Reads the words behind `stats`.
    pub(super) fn parse(words: &[&[u8]]) -> Command {
        let name = "memcached_stats";
        let refuse = |line| Command::refuse(name, line, false);
        // As in memcached, what these begin with is taken for them, and the first that fits counts.
        const NAMES: [&[u8]; 6] = [b"reset", b"detail", b"settings", b"cachedump", b"conns", b"extstore"];
        let Some(word) = words.first() else { return Command { name, asked: Asked::Stats(Self::General) } };
        let stats = match NAMES.into_iter().find(|name| name.starts_with(word)).unwrap_or(*word) {
            b"settings" => Self::Settings,
            b"items" | b"slabs" | b"extstore" => Self::Nothing,
            b"detail" => match words.get(1) {
                Some(word) if b"on".starts_with(word) => {
                    return refuse("CLIENT_ERROR detailed stats are not kept here");
                }
                Some(word) if b"off".starts_with(word) => return Command::say(name, "OK"),
                Some(word) if b"dump".starts_with(word) => Self::Nothing,
                _ => return refuse("CLIENT_ERROR usage: stats detail on|off|dump"),
            },
            b"sizes" => {
                return Command { name, asked: Asked::Say("STAT sizes_status disabled\r\nEND".into(), false) };
            }
            b"reset" => return refuse("CLIENT_ERROR counters are shared with monitoring and not reset"),
            b"cachedump" => {
                let [_, class, limit, ..] = words else { return refuse("CLIENT_ERROR bad command line") };
                return refuse(match (u32_of(class), u32_of(limit)) {
                    (Some(_), Some(_)) => "CLIENT_ERROR stats cachedump not allowed",
                    _ => BAD_FORMAT,
                });
            }
            _ => return refuse("ERROR"),
        };
        Command { name, asked: Asked::Stats(stats) }
    }

    /// The lines.
    pub fn render(self, facts: &StatsFacts) -> String {
        let lines = match self {
            Self::General => general(facts),
            Self::Settings => settings(facts),
            Self::Nothing => Vec::new(),
        };
        let mut text: String = lines.iter().map(|(name, value)| format!("STAT {name} {value}\r\n")).collect();
        text.push_str("END\r\n");
        text
    }
}

type Lines = Vec<(&'static str, String)>;

fn general(facts: &StatsFacts) -> Lines {
    let line = |name, value: u64| (name, value.to_string());
    vec![
        line("pid", u64::from(facts.pid)),
        line("uptime", facts.uptime_s),
        line("time", facts.now_s),
        ("version", MEMCACHED_VERSION.to_owned()),
        ("trellis_version", facts.trellis_version.to_owned()),
        line("pointer_size", u64::from(usize::BITS)),
        ("rusage_user", format!("{:.6}", facts.cpu_user_s)),
        ("rusage_system", format!("{:.6}", facts.cpu_system_s)),
        line("max_connections", facts.connections_max),
        line("curr_connections", facts.connections),
        line("total_connections", facts.connections_total),
        line("rejected_connections", facts.connections_rejected),
        line("cmd_get", facts.hits + facts.misses),
        line("cmd_set", facts.stores),
        line("cmd_flush", facts.flushes),
        line("cmd_touch", facts.touches),
        line("cmd_meta", facts.metas),
        line("get_hits", facts.hits),
        line("get_misses", facts.misses),
        line("store_too_large", facts.too_large),
        line("store_no_memory", facts.out_of_memory),
        line("bytes_read", facts.bytes_read),
        line("bytes_written", facts.bytes_written),
        line("limit_maxbytes", facts.memory_bytes_max),
        line("accepting_conns", 1),
        line("threads", facts.threads as u64),
        line("bytes", facts.memory_bytes),
        line("curr_items", facts.keys),
        line("evictions", facts.evictions),
        line("expired_keys", facts.expired),
    ]
}

fn settings(facts: &StatsFacts) -> Lines {
    let switch = |on| if on { "on" } else { "off" }.to_owned();
    vec![
        ("maxbytes", facts.memory_bytes_max.to_string()),
        ("maxconns", facts.connections_max.to_string()),
        ("tcpport", facts.port.to_string()),
        ("udpport", "0".to_owned()),
        ("inter", facts.host.clone()),
        ("verbosity", "0".to_owned()),
        ("evictions", switch(facts.evicts)),
        ("domain_socket", facts.unix.clone().unwrap_or_else(|| "NULL".to_owned())),
        ("shutdown_command", "no".to_owned()),
        ("num_threads", facts.threads.to_string()),
        ("detail_enabled", "no".to_owned()),
        ("cas_enabled", "yes".to_owned()),
        ("binding_protocol", "ascii".to_owned()),
        ("auth_enabled_sasl", "no".to_owned()),
        ("auth_enabled_ascii", "no".to_owned()),
        ("item_size_max", facts.item_bytes_max.to_string()),
        ("flush_enabled", "yes".to_owned()),
        ("dump_enabled", "no".to_owned()),
        ("idle_timeout", facts.idle_timeout_s.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_end_and_those_of_what_is_not_there_are_empty() {
        assert_eq!(Stats::Nothing.render(&StatsFacts::default()), "END\r\n");
        for stats in [Stats::General, Stats::Settings] {
            let text = stats.render(&StatsFacts { hits: 3, misses: 4, ..StatsFacts::default() });
            let (lines, end) = text.split_at(text.len() - "END\r\n".len());
            assert_eq!(end, "END\r\n");
            assert!(lines.split_terminator("\r\n").all(|line| line.split(' ').count() == 3 || line.ends_with(' ')));
        }
        assert!(
            general(&StatsFacts { hits: 3, misses: 4, ..StatsFacts::default() }).contains(&("cmd_get", "7".into()))
        );
    }
}
