//! Addresses and facts that connections, the admin endpoint and the node share: how to reach every actor of this node. Holds no state.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use actix::Addr;
use tokio::sync::Notify;

use crate::base::counters::Counter;
use crate::base::level::Level;
use crate::base::slot::Partition;
use crate::protocol::resp::control::{ClientKind, KillFilter};
use crate::protocol::resp::encode::ReplyBuf;

use super::clock::Clock;
use super::connection::{Census, Connections, KillClients, ListClients, Note, Outside};
use super::gossip::GossipActor;
use super::live::Live;
use super::local::{Gone, Local};
use super::pubsub::{Hub, Waiting};
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
    /// Level of a new connection.
    pub consistency: Level,
    /// The Unix socket, if there is one.
    pub unix: Option<PathBuf>,
    /// The port clients use.
    pub port: u16,
    /// For memcached clients, if there is such a port.
    pub memcached: Option<MemcachedSettings>,
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
    /// What of that can change.
    pub live: Arc<Live>,
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
    /// Where messages are published.
    pub hub: Addr<Hub>,
    /// Bytes of messages that wait for subscribers.
    pub waiting: Waiting,
    /// Told when this node has left the cluster, and has nothing to run for any more.
    pub departed: Arc<Notify>,
    /// Who is connected.
    pub census: Arc<Census>,
}

impl Handles {
    /// What the whole node can tell of itself, within a second or so.
    pub async fn report(&self) -> Report {
        Report::gather(self).await
    }

    /// The line of every client of a kind, or of any, over all arbiters that answer in time.
    pub async fn clients(&self, kind: Option<ClientKind>) -> Vec<(u64, String)> {
        let connections = self.connections.get().map_or(&[][..], Vec::as_slice);
        report::ask(connections, || ListClients(kind)).await.into_iter().flatten().collect()
    }

    /// Ends the connections of clients that fit, but not that of the client with the id `but`; how many there were.
    pub async fn kill_clients(&self, filter: &KillFilter, but: u64) -> u64 {
        let connections = self.connections.get().map_or(&[][..], Vec::as_slice);
        report::ask(connections, || KillClients(filter.clone(), but)).await.into_iter().sum()
    }

    /// Has a client's request answered by the data arbiter that has `key` if this node has it, as one reply.
    ///
    /// # Errors
    /// [`Gone`]: the arbiter stopped meanwhile, and nobody knows what became of the request.
    pub async fn ask(&self, key: &[u8], request: Outside) -> Result<ReplyBuf, Gone> {
        let door = self.connections.get().and_then(|doors| doors.get(self.local.shard_of(Partition::of(key))));
        Ok(door.ok_or(Gone)?.send(request).await?)
    }

    /// Counts what was refused outside of all actors.
    pub fn note(&self, counter: Counter) {
        if let Some(door) = self.connections.get().and_then(|doors| doors.first()) {
            door.do_send(Note(counter));
        }
    }

    /// A page of the admin endpoint, or a change (`POST` and a path): HTTP status and JSON.
    pub async fn admin(&self, request: &[u8]) -> (u16, String) {
        views::answer(self, request).await
    }
}
