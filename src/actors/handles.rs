//! Addresses and facts that connections, the admin endpoint and the node share: how to reach every actor of this node. Holds no state.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Addr;

use crate::base::level::Level;

use super::clock::Clock;
use super::connection::{Census, Connections, ListClients};
use super::gossip::GossipActor;
use super::local::Local;
use super::replication::Identity;
use super::report::{self, Report};
use super::ring::RingActor;
use super::router::{Router, SharedView};
use super::sync::SyncActor;
use super::views;

/// Settings that connections need.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest value.
    pub value_bytes_max: usize,
    /// Most clients.
    pub connections_max: usize,
    /// Clients that say nothing for this long are closed; `None` never.
    pub client_timeout: Option<Duration>,
    /// Level of a new connection.
    pub consistency: Level,
    /// The Unix socket, if there is one.
    pub unix: Option<PathBuf>,
    /// The port clients use.
    pub port: u16,
    /// For memcached clients, if there is such a port.
    pub memcached: Option<MemcachedSettings>,
    /// Budget of the store; 0 is none.
    pub memory_bytes_max: u64,
    /// Whether the least recently used goes at the budget.
    pub evicts: bool,
    /// Settings as `CONFIG GET` shows them.
    pub shown: Vec<(String, String)>,
}

/// What connections of memcached clients need.
#[derive(Debug, Clone, Copy)]
pub struct MemcachedSettings {
    /// Where they connect.
    pub address: SocketAddr,
    /// Longest item, as memcached counts.
    pub item_bytes_max: usize,
}

/// How to reach everything.
#[derive(Clone)]
pub struct Handles {
    /// Who this node is.
    pub identity: Identity,
    /// What it was told.
    pub settings: Arc<Settings>,
    /// Its clock.
    pub clock: Clock,
    /// The picture of the cluster.
    pub view: SharedView,
    /// Stores and replication senders.
    pub local: Local,
    /// Routers, by data arbiter.
    pub routers: Vec<Addr<Router>>,
    /// Connections, by data arbiter; set once, when they have started.
    pub connections: Arc<OnceLock<Vec<Addr<Connections>>>>,
    /// The ring owner.
    pub ring: Addr<RingActor>,
    /// The failure detector.
    pub gossip: Addr<GossipActor>,
    /// Who brings replicas together.
    pub sync: Addr<SyncActor>,
    /// Who is connected.
    pub census: Arc<Census>,
}

impl Handles {
    /// What the whole node can tell of itself, within a second or so.
    pub async fn report(&self) -> Report {
        Report::gather(self).await
    }

    /// Every client's line, over all arbiters that answer in time.
    pub async fn clients(&self) -> Vec<(u64, String)> {
        let connections = self.connections.get().map_or(&[][..], Vec::as_slice);
        report::ask(connections, || ListClients).await.into_iter().flatten().collect()
    }

    /// A page of the admin endpoint, or a change (`POST` and a path): HTTP status and JSON.
    pub async fn admin(&self, request: &[u8]) -> (u16, String) {
        views::answer(self, request).await
    }
}
