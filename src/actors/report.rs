//! What a node can tell of itself, gathered from its actors when somebody asks. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use crate::base::counters::{Counter, Counters};
use crate::cluster::membership::MemberState;
use crate::cluster::view::{Liveness, View};
use crate::protocol::resp::info::InfoFacts;

use super::connection::{self, ConnectionStats};
use super::handles::Handles;
use super::replication::{self, ReplicationStats};
use super::store::{self, StoreStats};
use super::sync::SyncStats;
use super::{gossip, ring, router, sync};

/// A node's own account.
#[derive(Debug, Clone)]
pub struct Report {
    /// The cluster as it sees it.
    pub view: Arc<View>,
    /// All its counters, added up.
    pub counters: Counters,
    /// Its stores, added up.
    pub store: StoreStats,
    /// Its replication senders, added up.
    pub replication: ReplicationStats,
    /// Its connections, added up.
    pub connections: ConnectionStats,
    /// How repair stands.
    pub sync: SyncStats,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Whether it is stopping.
    pub stopping: bool,
}

impl Report {
    pub(super) async fn gather(handles: &Handles) -> Self {
        let local = &handles.local;
        let doors = handles.connections.get().map_or(&[][..], Vec::as_slice);
        let (stores, replications, routers, doors) = tokio::join!(
            join_all(local.stores.iter().map(|actor| actor.send(store::AskStats))),
            join_all(local.replications.iter().map(|actor| actor.send(replication::AskStats))),
            join_all(handles.routers.iter().map(|actor| actor.send(router::AskStats))),
            join_all(doors.iter().map(|actor| actor.send(connection::AskStats))),
        );
        let (ring, gossip, sync) = tokio::join!(
            handles.ring.send(ring::AskStats),
            handles.gossip.send(gossip::AskStats),
            handles.sync.send(sync::AskStats),
        );
        let mut counters = Counters::default();
        let store = add_stores(stores.into_iter().flatten(), &mut counters);
        let replication = add_replications(replications.into_iter().flatten(), &mut counters);
        let connections = add_connections(doors.into_iter().flatten(), &mut counters);
        let others = routers.into_iter().flatten().map(|stats| stats.0);
        let others = others.chain(ring.ok().map(|stats| stats.counters)).chain(gossip.ok().map(|stats| stats.counters));
        others.for_each(|own| counters.merge(&own));
        let sync = sync.unwrap_or_default();
        counters.merge(&sync.counters);
        Self {
            view: handles.view.load_full(),
            counters,
            store,
            replication,
            connections,
            sync,
            uptime_ms: u64::try_from(handles.clock.uptime().as_millis()).unwrap_or(u64::MAX),
            stopping: handles.census.stopping.load(Ordering::Relaxed),
        }
    }

    /// `joining`, `active` or `leaving`.
    pub fn state(&self) -> &'static str {
        let me = self.view.peer(self.view.me).map(|peer| peer.member.state);
        match me {
            Some(MemberState::Leaving | MemberState::Left) => "leaving",
            _ if self.stopping => "leaving",
            Some(_) if self.sync.syncing == 0 => "active",
            _ => "joining",
        }
    }

    /// Why the node should get no traffic yet, or any more; `None` when it should.
    pub fn not_ready(&self) -> Option<String> {
        match self.state() {
            "active" => None,
            "leaving" => Some("the node is stopping or leaving".into()),
            _ => Some(format!("{} partitions are still being synchronised", self.sync.syncing)),
        }
    }

    /// What `INFO` shows of it.
    pub fn info(&self, handles: &Handles) -> InfoFacts {
        let count = |counter| self.counters.count(counter);
        let alive = self.view.peers().filter(|(_, peer)| peer.liveness == Liveness::Alive).count() as u64;
        let process = super::process::usage();
        InfoFacts {
            trellis_version: env!("CARGO_PKG_VERSION").into(),
            trellis_node_id: handles.identity.node.to_string(),
            trellis_members_alive: alive,
            trellis_ring_epoch: self.view.epoch,
            os: std::env::consts::OS.into(),
            process_id: std::process::id(),
            tcp_port: handles.settings.port,
            server_time_us: handles.clock.unix_us(),
            uptime_s: self.uptime_ms / 1000,
            config_file: String::new(),
            connected_clients: self.connections.clients as u64,
            maxclients: handles.settings.connections_max as u64,
            used_memory: self.store.memory_bytes as u64,
            used_memory_rss: process.resident_bytes,
            used_memory_peak: process.resident_bytes_max,
            total_system_memory: process.system_bytes,
            maxmemory: handles.settings.memory_bytes_max,
            maxmemory_policy: if handles.settings.evicts { "allkeys-lru" } else { "noeviction" },
            total_connections_received: count(Counter::ConnectionsAccepted),
            total_commands_processed: count(Counter::Commands),
            instantaneous_ops_per_sec: 0,
            total_net_input_bytes: self.connections.bytes_in,
            total_net_output_bytes: self.connections.bytes_out,
            rejected_connections: count(Counter::ConnectionsRefused),
            expired_keys: count(Counter::Expired),
            evicted_keys: count(Counter::Evicted),
            keyspace_hits: count(Counter::Hits),
            keyspace_misses: count(Counter::Misses),
            total_error_replies: count(Counter::CommandErrors),
            used_cpu_sys: process.cpu_system_s,
            used_cpu_user: process.cpu_user_s,
            keys: self.store.keys as u64,
            expires: self.store.with_deadline as u64,
        }
    }
}

fn add_stores(stats: impl Iterator<Item = StoreStats>, counters: &mut Counters) -> StoreStats {
    stats.fold(StoreStats::default(), |mut sum, stats| {
        counters.merge(&stats.counters);
        sum.keys += stats.keys;
        sum.with_deadline += stats.with_deadline;
        sum.tombstones += stats.tombstones;
        sum.memory_bytes += stats.memory_bytes;
        sum.expiry_late_ms = sum.expiry_late_ms.max(stats.expiry_late_ms);
        sum.filled = sum.filled.union(&stats.filled);
        sum
    })
}

fn add_replications(stats: impl Iterator<Item = ReplicationStats>, counters: &mut Counters) -> ReplicationStats {
    stats.fold(ReplicationStats::default(), |mut sum, stats| {
        counters.merge(&stats.counters);
        sum.outbox_bytes += stats.outbox_bytes;
        sum.links += stats.links;
        sum.calls += stats.calls;
        sum
    })
}

fn add_connections(stats: impl Iterator<Item = ConnectionStats>, counters: &mut Counters) -> ConnectionStats {
    stats.fold(ConnectionStats::default(), |mut sum, stats| {
        counters.merge(&stats.counters);
        for (command, histogram) in &stats.latencies {
            sum.latencies.entry(command).or_default().merge(histogram);
        }
        sum.clients += stats.clients;
        sum.inflight_ops += stats.inflight_ops;
        sum.bytes_in += stats.bytes_in;
        sum.bytes_out += stats.bytes_out;
        sum
    })
}
