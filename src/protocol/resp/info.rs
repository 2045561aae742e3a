//! The text of `INFO`: sections chosen as Redis 7 chooses them, rendered from plain facts. Gathers nothing itself. Tested below.

use std::fmt::Write as _;

use bytes::Bytes;

use super::session::REDIS_VERSION;

/// What `INFO` tells, gathered by the actor that answers it. Bytes, counts and seconds since start, as Redis has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InfoFacts {
    /// Our own version.
    pub trellis_version: String,
    /// This node's id.
    pub trellis_node_id: String,
    /// Live members as this node sees them.
    pub trellis_members_alive: u64,
    /// The epoch of the ring.
    pub trellis_ring_epoch: u64,
    /// Operating system and architecture.
    pub os: String,
    /// Process id.
    pub process_id: u32,
    /// Main port.
    pub tcp_port: u16,
    /// Wall clock, microseconds.
    pub server_time_us: u64,
    /// Since start.
    pub uptime_s: u64,
    /// Path of the configuration file, if any.
    pub config_file: String,
    /// Client connections.
    pub connected_clients: u64,
    /// Their limit.
    pub maxclients: u64,
    /// Bytes the store accounts for.
    pub used_memory: u64,
    /// Resident bytes of the process.
    pub used_memory_rss: u64,
    /// The most that has been. Redis tells the peak of `used_memory` instead; nothing here keeps that.
    pub used_memory_rss_peak: u64,
    /// Bytes of the machine.
    pub total_system_memory: u64,
    /// The store's budget; 0 = none.
    pub maxmemory: u64,
    /// `allkeys-lru` or `noeviction`.
    pub maxmemory_policy: &'static str,
    /// Connections accepted.
    pub total_connections_received: u64,
    /// Commands from clients.
    pub total_commands_processed: u64,
    /// Commands a second of late.
    pub instantaneous_ops_per_sec: u64,
    /// Bytes from clients.
    pub total_net_input_bytes: u64,
    /// Bytes to clients.
    pub total_net_output_bytes: u64,
    /// Connections refused.
    pub rejected_connections: u64,
    /// Values dropped at their deadline.
    pub expired_keys: u64,
    /// Values dropped at the budget.
    pub evicted_keys: u64,
    /// Reads that found a value.
    pub keyspace_hits: u64,
    /// Reads that found none.
    pub keyspace_misses: u64,
    /// Channels that clients of this node subscribed to.
    pub pubsub_channels: u64,
    /// Patterns that they subscribed to.
    pub pubsub_patterns: u64,
    /// Channels of `SSUBSCRIBE` that they subscribed to.
    pub pubsub_shard_channels: u64,
    /// Error replies to what was unknown or malformed, or concerned the connection itself. Errors that stores and routers answer have
    /// counters of their own.
    pub total_error_replies: u64,
    /// Processor time in the system, seconds.
    pub used_cpu_sys: f64,
    /// Processor time of our own, seconds.
    pub used_cpu_user: f64,
    /// Keys this node holds.
    pub keys: u64,
    /// Those of them with a deadline.
    pub expires: u64,
}

/// Appends one section.
type Section = fn(&InfoFacts, &mut String);

/// Sections in the order they are told. All are in the default selection.
const SECTIONS: [(&str, Section); 9] = [
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("cluster", cluster),
    ("keyspace", keyspace),
];

/// A choice of sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections([bool; SECTIONS.len()]);

impl Sections {
    /// Those named, in any case; unknown names choose nothing. No name, `default`, `all` and `everything` choose every one.
    pub fn named(names: &[Bytes]) -> Self {
        let is = |name: &Bytes, wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let whole = |name| ["default", "all", "everything"].into_iter().any(|group| is(name, group));
        if names.is_empty() || names.iter().any(whole) {
            return Self([true; SECTIONS.len()]);
        }
        Self(SECTIONS.map(|(section, _)| names.iter().any(|name| is(name, section))))
    }
}

/// The text of `sections`, an empty line between two.
pub fn render(facts: &InfoFacts, sections: Sections) -> String {
    let mut out = String::new();
    for ((_, section), wanted) in SECTIONS.iter().zip(sections.0) {
        if wanted {
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            section(facts, &mut out);
        }
    }
    out
}

/// Writes `name:value` lines.
macro_rules! lines {
    ($out:ident, $title:literal, $($name:literal => $value:expr,)*) => {
        $out.push_str(concat!("# ", $title, "\r\n"));
        $(write!($out, concat!($name, ":{}\r\n"), $value).expect("a string takes what is written to it");)*
    };
}

fn server(facts: &InfoFacts, out: &mut String) {
    lines!(out, "Server",
        "redis_version" => REDIS_VERSION,
        "redis_mode" => "standalone",
        "trellis_version" => facts.trellis_version,
        "trellis_node_id" => facts.trellis_node_id,
        "trellis_members_alive" => facts.trellis_members_alive,
        "trellis_ring_epoch" => facts.trellis_ring_epoch,
        "os" => facts.os,
        "arch_bits" => usize::BITS,
        "process_id" => facts.process_id,
        "tcp_port" => facts.tcp_port,
        "server_time_usec" => facts.server_time_us,
        "uptime_in_seconds" => facts.uptime_s,
        "uptime_in_days" => facts.uptime_s / 86_400,
        "config_file" => facts.config_file,
    );
}

fn clients(facts: &InfoFacts, out: &mut String) {
    lines!(out, "Clients",
        "connected_clients" => facts.connected_clients,
        "cluster_connections" => 0,
        "maxclients" => facts.maxclients,
        "blocked_clients" => 0,
    );
}

fn memory(facts: &InfoFacts, out: &mut String) {
    let ratio = facts.used_memory_rss as f64 / facts.used_memory.max(1) as f64;
    lines!(out, "Memory",
        "used_memory" => facts.used_memory,
        "used_memory_human" => human(facts.used_memory),
        "used_memory_rss" => facts.used_memory_rss,
        "used_memory_rss_human" => human(facts.used_memory_rss),
        "used_memory_rss_peak" => facts.used_memory_rss_peak,
        "used_memory_rss_peak_human" => human(facts.used_memory_rss_peak),
        "total_system_memory" => facts.total_system_memory,
        "total_system_memory_human" => human(facts.total_system_memory),
        "maxmemory" => facts.maxmemory,
        "maxmemory_human" => human(facts.maxmemory),
        "maxmemory_policy" => facts.maxmemory_policy,
        "mem_fragmentation_ratio" => format_args!("{ratio:.2}"),
        "mem_allocator" => "mimalloc",
    );
}

fn persistence(_: &InfoFacts, out: &mut String) {
    lines!(out, "Persistence",
        "loading" => 0,
        "async_loading" => 0,
        "rdb_changes_since_last_save" => 0,
        "rdb_bgsave_in_progress" => 0,
        "rdb_last_bgsave_status" => "ok",
        "aof_enabled" => 0,
        "aof_rewrite_in_progress" => 0,
        "aof_last_write_status" => "ok",
    );
}

fn stats(facts: &InfoFacts, out: &mut String) {
    lines!(out, "Stats",
        "total_connections_received" => facts.total_connections_received,
        "total_commands_processed" => facts.total_commands_processed,
        "instantaneous_ops_per_sec" => facts.instantaneous_ops_per_sec,
        "total_net_input_bytes" => facts.total_net_input_bytes,
        "total_net_output_bytes" => facts.total_net_output_bytes,
        "rejected_connections" => facts.rejected_connections,
        "expired_keys" => facts.expired_keys,
        "evicted_keys" => facts.evicted_keys,
        "keyspace_hits" => facts.keyspace_hits,
        "keyspace_misses" => facts.keyspace_misses,
        "pubsub_channels" => facts.pubsub_channels,
        "pubsub_patterns" => facts.pubsub_patterns,
        "pubsubshard_channels" => facts.pubsub_shard_channels,
        "total_error_replies" => facts.total_error_replies,
    );
}

fn replication(_: &InfoFacts, out: &mut String) {
    lines!(out, "Replication",
        "role" => "master",
        "connected_slaves" => 0,
        "master_failover_state" => "no-failover",
        "master_repl_offset" => 0,
        "second_repl_offset" => -1,
        "repl_backlog_active" => 0,
    );
}

fn cpu(facts: &InfoFacts, out: &mut String) {
    lines!(out, "CPU",
        "used_cpu_sys" => format_args!("{:.6}", facts.used_cpu_sys),
        "used_cpu_user" => format_args!("{:.6}", facts.used_cpu_user),
    );
}

/// Not enabled, though `CLUSTER` answers: it would announce Redis Cluster's restrictions, and there are none (docs/COMPATIBILITY.md).
fn cluster(_: &InfoFacts, out: &mut String) {
    lines!(out, "Cluster", "cluster_enabled" => 0,);
}

/// A database without keys is not told, as in Redis.
fn keyspace(facts: &InfoFacts, out: &mut String) {
    lines!(out, "Keyspace",);
    if facts.keys > 0 {
        let (keys, expires) = (facts.keys, facts.expires);
        write!(out, "db0:keys={keys},expires={expires},avg_ttl=0\r\n").expect("a string takes what is written to it");
    }
}

/// Bytes as Redis's `bytesToHuman` writes them.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut number = bytes as f64 / 1024.0;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(names: &[&'static str]) -> Vec<String> {
        let names: Vec<Bytes> = names.iter().map(|name| Bytes::from(*name)).collect();
        let text = render(&InfoFacts::default(), Sections::named(&names));
        text.split("\r\n").filter_map(|line| line.strip_prefix("# ").map(str::to_owned)).collect()
    }

    #[test]
    fn sections_are_chosen_as_redis_chooses_them() {
        let all = ["Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU", "Cluster", "Keyspace"];
        for names in [&[][..], &["default"], &["ALL"], &["everything"], &["cpu", "all"], &["all", "nonsense"]] {
            assert_eq!(titles(names), all);
        }
        assert_eq!(titles(&["keyspace", "SERVER", "nonsense"]), ["Server", "Keyspace"]);
        assert_eq!(titles(&["nonsense"]), [""; 0]);
    }

    #[test]
    fn sections_are_parted_by_an_empty_line() {
        let facts = InfoFacts { keys: 3, expires: 1, ..InfoFacts::default() };
        let text = render(&facts, Sections::named(&["cluster".into(), "keyspace".into()]));
        assert_eq!(text, "# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\n");
    }

    #[test]
    fn sizes_read_as_redis_writes_them() {
        for (bytes, text) in
            [(0, "0B"), (200, "200B"), (1_955_392, "1.86M"), (32_768, "32.00K"), (25_276_502_016, "23.54G")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
