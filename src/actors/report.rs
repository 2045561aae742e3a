//! What a node can tell of itself, gathered from its actors when somebody asks. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use futures_util::future::join_all;

use crate::base::counters::{Counter, Counters};
use crate::cluster::membership::MemberState;
use crate::cluster::safety::{Own, not_safe_to_stop};
use crate::cluster::view::{Liveness, View};
use crate::protocol::resp::info::InfoFacts;

use super::connection::{self, ConnectionStats};
use super::handles::Handles;
use super::pubsub::{self, HubStats};
use super::replication::{self, ReplicationStats};
use super::store::{self, StoreStats};
use super::sync::SyncStats;
use super::{gossip, ring, router, sync};

/// Patience with an actor that is asked for its part: what others wait for when they ask whether a node is well, as Kubernetes' probes do.
/// An arbiter that turns to nothing else for that long serves nobody.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

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
    /// What this node's clients have subscribed to.
    pub hub: HubStats,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Why it knows no other node, where it should.
    pub alone: Option<String>,
    /// Whether it is stopping.
    pub stopping: bool,
    /// Kinds of actors of which one did not answer in time or is gone; what they would have told is not in the sums.
    pub silent: Vec<&'static str>,
}

impl Report {
    pub(super) async fn gather(handles: &Handles) -> Self {
        let local = &handles.local;
        let doors = handles.connections.get().map_or(&[][..], Vec::as_slice);
        let (stores, replications, routers, doors, ring, gossip, sync, hub) = tokio::join!(
            ask(&local.stores, || store::AskStats),
            ask(&local.replications, || replication::AskStats),
            ask(&handles.routers, || router::AskStats),
            ask(doors, || connection::AskStats),
            ask(std::slice::from_ref(&handles.ring), || ring::AskStats),
            ask(std::slice::from_ref(&handles.gossip), || gossip::AskStats),
            ask(std::slice::from_ref(&handles.sync), || sync::AskStats),
            ask(std::slice::from_ref(&handles.hub), || pubsub::AskStats),
        );
        let complete = [
            ("store", stores.len() == local.stores.len()),
            ("replication", replications.len() == local.replications.len()),
            ("router", routers.len() == handles.routers.len()),
            ("connections", doors.len() == handles.routers.len()),
            ("ring", !ring.is_empty()),
            ("gossip", !gossip.is_empty()),
            ("sync", !sync.is_empty()),
            ("hub", !hub.is_empty()),
        ];
        let silent = complete.iter().filter(|(_, complete)| !complete).map(|(name, _)| *name).collect();
        let mut counters = Counters::default();
        let store = add_stores(stores.into_iter(), &mut counters);
        let replication = add_replications(replications.into_iter(), &mut counters);
        let connections = add_connections(doors.into_iter(), &mut counters);
        let others = routers.into_iter().map(|stats| stats.0).chain(ring.into_iter().map(|stats| stats.counters));
        let alone = gossip.first().and_then(|stats| stats.alone.clone());
        others.chain(gossip.into_iter().map(|stats| stats.counters)).for_each(|own| counters.merge(&own));
        let sync = sync.into_iter().next().unwrap_or_default();
        counters.merge(&sync.counters);
        let hub = hub.into_iter().next().unwrap_or_default();
        counters.merge(&hub.counters);
        counters.add(Counter::AcceptsFailed, handles.census.accepts_failed.load(Ordering::Relaxed));
        counters.add(Counter::LogLinesDropped, super::process::LOG_LINES_DROPPED.load(Ordering::Relaxed));
        Self {
            view: handles.view.load_full(),
            counters,
            store,
            replication,
            connections,
            sync,
            hub,
            uptime_ms: u64::try_from(handles.clock.uptime().as_millis()).unwrap_or(u64::MAX),
            alone,
            stopping: handles.census.stopping.load(Ordering::Relaxed),
            silent,
        }
    }

    /// Which actors do not answer, in words; `None` when all do.
    pub fn not_live(&self) -> Option<String> {
        (!self.silent.is_empty()).then(|| format!("no answer from: {}", self.silent.join(", ")))
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
            "active" => self.not_live(),
            "leaving" => Some("the node is stopping or leaving".into()),
            _ => self
                .not_live()
                .or_else(|| self.alone.clone())
                .or_else(|| Some(format!("{} partitions are still being synchronised", self.sync.syncing))),
        }
    }

    /// Why stopping the node now might lose something; `None` if it would not.
    pub fn not_safe_to_stop(&self) -> Option<String> {
        let own = Own { uneven: self.sync.uneven, hints: self.replication.hints_due as u64 };
        self.not_live().or_else(|| self.alone.clone()).or_else(|| not_safe_to_stop(&self.view, own))
    }

    /// What `INFO` shows of it.
    pub fn info(&self, handles: &Handles) -> InfoFacts {
        let (live, baseline) = (&handles.live, handles.live.baseline());
        let counters = self.counters.since(&baseline.counters);
        let count = |counter| counters.count(counter);
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
            used_memory_rss_peak: process.resident_bytes_max,
            total_system_memory: process.system_bytes,
            maxmemory: live.memory_bytes_max(),
            maxmemory_policy: if live.evicts() { "allkeys-lru" } else { "noeviction" },
            total_connections_received: count(Counter::ConnectionsAccepted),
            total_commands_processed: count(Counter::Commands),
            instantaneous_ops_per_sec: 0,
            total_net_input_bytes: self.connections.bytes_in.saturating_sub(baseline.bytes_in),
            total_net_output_bytes: self.connections.bytes_out.saturating_sub(baseline.bytes_out),
            rejected_connections: count(Counter::ConnectionsRefused),
            expired_keys: count(Counter::Expired),
            evicted_keys: count(Counter::Evicted),
            keyspace_hits: count(Counter::Hits),
            keyspace_misses: count(Counter::Misses),
            pubsub_channels: self.hub.channels as u64,
            pubsub_patterns: self.hub.patterns as u64,
            pubsub_shard_channels: self.hub.shard_channels as u64,
            total_error_replies: count(Counter::CommandErrors),
            used_cpu_sys: process.cpu_system_s,
            used_cpu_user: process.cpu_user_s,
            keys: self.store.keys as u64,
            expires: self.store.with_deadline as u64,
        }
    }
}

/// Operations that connections have under way.
pub(super) async fn inflight_ops(handles: &Handles) -> usize {
    let doors = handles.connections.get().map_or(&[][..], Vec::as_slice);
    ask(doors, || connection::AskStats).await.iter().map(|stats| stats.inflight_ops).sum()
}

/// What those of these actors tell that answer in time.
pub(super) async fn ask<A, M>(actors: &[Addr<A>], message: impl Fn() -> M) -> Vec<M::Result>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    let asked = actors.iter().map(|actor| tokio::time::timeout(ANSWER_TIME_MAX, actor.send(message())));
    join_all(asked).await.into_iter().flatten().flatten().collect()
}

fn add_stores(stats: impl Iterator<Item = StoreStats>, counters: &mut Counters) -> StoreStats {
    stats.fold(StoreStats::default(), |mut sum, stats| {
        counters.merge(&stats.counters);
        sum.keys += stats.keys;
        sum.with_deadline += stats.with_deadline;
        sum.tombstones += stats.tombstones;
        sum.memory_bytes += stats.memory_bytes;
        sum.expiry_late_ms = sum.expiry_late_ms.max(stats.expiry_late_ms);
        sum
    })
}

fn add_replications(stats: impl Iterator<Item = ReplicationStats>, counters: &mut Counters) -> ReplicationStats {
    stats.fold(ReplicationStats::default(), |mut sum, stats| {
        counters.merge(&stats.counters);
        sum.outbox_bytes += stats.outbox_bytes;
        sum.hints_pending += stats.hints_pending;
        sum.hints_due += stats.hints_due;
        sum.hints_bytes += stats.hints_bytes;
        sum.links.extend(stats.links);
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
