//! A whole node: starts every actor in order, accepts connections, and stops everything in the reverse order. The only place that knows
//! which actor lives on which arbiter. Exercised by the simulation and by every test with real processes.
//!
//! Start: listeners, the time, ring, replication and store per data arbiter, synchronisation, routers, gossip, connections, acceptance. Stop: refuse
//! new requests and let those under way finish, say good-bye to the failure detector, let outboxes empty and clients read their replies, close.

mod settings;
mod time;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::prelude::*;
use actix_rt::ArbiterHandle;
use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::base::hlc::Hlc;
use crate::base::id::NodeId;
use crate::base::limits::CLOCK_AHEAD_MAX;
use crate::base::notify::Classes;
use crate::base::slot::Partition;
use crate::cluster::gossip::{BadTiming, Gossip, GossipConfig};
use crate::cluster::membership::{Member, REPLICATE_TO_ALL};
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::sync::Planner;
use crate::config::{Config, Eviction, Replication as Copies};
use crate::net::{self, Listener, Net, SocketFile, Stream, Udp};
use crate::storage::{Leases, Store, StoreConfig};

use super::clock::Clock;
use super::connection::{Accepted, Census, Connections, Port};
use super::gossip::{GossipActor, SayGoodbye};
use super::handles::Handles;
use super::live::Live;
use super::local::Local;
use super::pubsub::{Hub, Waiting};
use super::replication::{Identity, Replication, ReportTo, ViewChanged};
use super::report;
use super::ring::{self, AnnounceThrough, RingActor, RingConfig, Subscribe};
use super::router::Router;
use super::store::StoreActor;
use super::sync::SyncActor;

/// Longest wait for outboxes to empty and for what is noted for members that are there to be handed over.
const HAND_OFF_MAX: Duration = Duration::from_millis(750);
/// Time after it before connections close, for clients to read their last replies.
const GRACE: Duration = Duration::from_millis(500);
/// Time that requests under way have to finish when the node stops; their own deadline is earlier, but for `WAIT`.
const DRAIN_MAX: Duration = Duration::from_millis(5_500);
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Longest wait for any one part that was told to stop. All waits together stay below the 10 s that a supervisor grants.
const PART_STOP_MAX: Duration = Duration::from_millis(500);
/// Free ports tried until one is free for connections and datagrams alike.
const PORT_DRAWS_MAX: usize = 16;
/// Pause after `accept` failed: most often too many files are open, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {what}: {error}")]
    Listen {
        /// Which.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// The listener for memcached clients could not be bound.
    #[error("cannot listen on memcached {address}: {error}; --memcached-port takes another, 0 takes a free one")]
    ListenMemcached {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The advertised host has no address.
    #[error("cannot resolve the advertised address `{name}`: {error}")]
    Advertise {
        /// It.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// The failure detector cannot keep such times.
    #[error(transparent)]
    Timing(#[from] BadTiming),
}

/// The node did not stop in order: parts of it hang, and only the end of the process ends them.
#[derive(Debug, thiserror::Error)]
#[error("these did not stop in time: {}", parts.join(", "))]
pub struct Hung {
    /// Which.
    pub parts: Vec<String>,
}

/// Where a node runs.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// The network.
    pub net: Net,
    /// The clock.
    pub clock: Clock,
    /// Whatever is drawn at random follows from it.
    pub seed: u64,
    /// Bytes that an outbox takes; `OUTBOX_BYTES_MAX`, or little to see it overflow.
    pub outbox_bytes_max: usize,
    /// Whether replicas are compared time and again, whatever happened; not so to see that nothing is missed without being known.
    pub rounds: bool,
    /// Whether every data arbiter and the gossip get a thread of their own; a simulated host has but one.
    pub threads: bool,
}

/// A running node.
pub struct Node {
    /// How to reach its actors.
    pub handles: Handles,
    /// Where clients and peers reach it.
    pub address: SocketAddr,
    arbiters: Vec<Arbiter>,
    unix: Option<SocketFile>,
}

/// One place where actors live.
struct Home {
    arbiter: Option<ArbiterHandle>,
}

impl Home {
    fn start<A>(&self, make: impl FnOnce(&mut Context<A>) -> A + Send + 'static) -> Addr<A>
    where
        A: Actor<Context = Context<A>>,
    {
        match &self.arbiter {
            Some(arbiter) => A::start_in_arbiter(arbiter, make),
            None => A::create(make),
        }
    }
}

/// Runs a program that starts a node, on this thread: actors live only inside a system.
pub fn block_on<F: Future>(program: F) -> F::Output {
    actix_rt::System::new().block_on(program)
}

/// Starts a node on what was bound for it. `admin_port` is that of its admin endpoint, if it has one, for others to be told.
///
/// # Errors
/// [`StartError`], with nothing left running.
pub async fn start(
    Bound { listener, udp, memcached, address }: Bound,
    config: &Config,
    world: World,
    admin_port: Option<u16>,
) -> Result<Node, StartError> {
    let unix = bind_unix(config)?;
    let (advertised, reachable) = advertised(config, world.net, address).await?;
    // Before anything is stamped, this life of the node included.
    let world = World { clock: time::of_cluster(config, world.net, world.clock, [address, reachable]).await, ..world };
    let incarnation = world.clock.unix_ms();
    let draw = |salt: u64| xxhash_rust::xxh3::xxh3_64_with_seed(&salt.to_le_bytes(), world.seed);
    let node = config.node_id.clone().unwrap_or_else(|| random_id(draw(1), draw(2)));
    let identity = Identity { net: world.net, cluster: config.cluster_name.clone(), node, incarnation };
    let gossip = detector(config, &identity, reachable, draw(3))?;
    let mut arbiters: Vec<Arbiter> = Vec::new();
    let mut home = || {
        let arbiter = world.threads.then(Arbiter::new);
        let handle = arbiter.as_ref().map(Arbiter::handle);
        arbiters.extend(arbiter);
        Home { arbiter: handle }
    };
    let threads = if world.threads { config.threads.max(1) } else { config.threads.clamp(1, SIMULATED_SHARDS_MAX) };
    let data: Vec<Home> = (0..threads).map(|_| home()).collect();
    let liveness = home();

    let me = member(config, &identity, &advertised, admin_port);
    let (membership, cartographer, view) = ring::alone(&me);
    let view = Arc::new(ArcSwap::from_pointee(view));
    let departed = Arc::new(Notify::new());
    let ring_config = RingConfig {
        identity: identity.clone(),
        clock: world.clock,
        me,
        forget_after: config.forget_after,
        departed: departed.clone(),
    };
    let shared = view.clone();
    let ring = liveness.start(move |_| RingActor::new(ring_config, membership, cartographer, shared));
    let planner = Planner::new(incarnation, settings::seeds_name_others(config, world.net, [address, reachable]).await)
        .with_rounds(world.rounds);
    let live = Arc::new(settings::live(config, address));
    let (local, sync) = start_data(config, (world, &live), &data, &identity, (&view, planner), &ring, &draw);
    let routers = start_routers(world.clock, &data, &view, &local, &ring, &draw);
    let (seeds, to, time) = (config.seeds.clone(), ring.clone(), (world.clock, world.clock.monotonic()));
    let own = identity.clone();
    let gossip = liveness.start(move |_| GossipActor::new(gossip, time, own, udp, to, seeds));
    ring.do_send(AnnounceThrough(gossip.clone().recipient()));
    for (shard, (replication, store)) in local.replications.iter().zip(&local.stores).enumerate() {
        let (diverged, doubts) = (sync.clone().recipient(), gossip.clone().recipient());
        let partitions = Partition::all().filter(|partition| local.shard_of(*partition) == shard).collect();
        replication.do_send(ReportTo { diverged, doubts, store: store.clone().recipient(), partitions });
    }

    let hub = start_hub((world.clock, config.notify), &data, &identity, &view, &local, &ring);
    let handles = Handles {
        identity,
        settings: Arc::new(settings::settings(config, address, memcached.as_ref())),
        live,
        clock: world.clock,
        view,
        local,
        routers,
        connections: Arc::new(OnceLock::new()),
        ring,
        gossip,
        sync,
        hub,
        waiting: Waiting::default(),
        departed,
        census: Arc::new(Census::new(config.connections_max)),
    };
    let connections: Vec<_> = data
        .iter()
        .enumerate()
        .map(|(shard, home)| {
            let handles = handles.clone();
            home.start(move |_| Connections::new(handles, shard))
        })
        .collect();
    handles.connections.set(connections.clone()).unwrap_or_else(|_| unreachable!("set once, here"));
    let (unix, file) = unix.unzip();
    let listeners = [(Some(listener), Port::Main), (unix, Port::Main), (memcached, Port::Memcached)];
    for (listener, port) in listeners.into_iter().filter_map(|(listener, port)| Some((listener?, port))) {
        actix::spawn(accept(listener, port, connections.clone(), handles.census.clone()));
    }
    Ok(Node { handles, address, arbiters, unix: file })
}

/// The main port, for connections and datagrams, and that for memcached clients.
pub struct Bound {
    listener: Listener,
    udp: Udp,
    memcached: Option<Listener>,
    address: SocketAddr,
}

/// Takes the main port, then that for memcached clients. The first thing to do: of all ports in use the main port is the one to tell of.
///
/// # Errors
/// [`StartError::Listen`], [`StartError::ListenMemcached`].
pub async fn bind(config: &Config, net: Net) -> Result<Bound, StartError> {
    let listen = |what: String| move |error| StartError::Listen { what, error };
    let wanted = SocketAddr::new(config.host, config.port);
    let mut draws = if config.port == 0 { PORT_DRAWS_MAX } else { 1 };
    let (listener, udp, address) = loop {
        let listener = net.listen(wanted).await.map_err(listen(format!("tcp {wanted}")))?;
        let address = listener.address().ok().flatten().unwrap_or(wanted);
        draws -= 1;
        match net.udp(address).await {
            Ok(udp) => break (listener, udp, address),
            // A port that is free for connections need not be free for datagrams.
            Err(error) if draws > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(listen(format!("udp {address}"))(error)),
        }
    };
    let memcached = bind_memcached(config, net).await?;
    Ok(Bound { listener, udp, memcached, address })
}

async fn bind_memcached(config: &Config, net: Net) -> Result<Option<Listener>, StartError> {
    let Some(memcached) = &config.memcached else { return Ok(None) };
    let wanted = SocketAddr::new(config.host, memcached.port);
    let refused = |error| StartError::ListenMemcached { address: wanted, error };
    net.listen(wanted).await.map(Some).map_err(refused)
}

fn bind_unix(config: &Config) -> Result<Option<(Listener, SocketFile)>, StartError> {
    let Some(path) = &config.unix else { return Ok(None) };
    let refused = |error| StartError::Listen { what: format!("unix {}", path.display()), error };
    net::listen_unix(path).map(Some).map_err(refused)
}

fn detector(config: &Config, identity: &Identity, address: SocketAddr, seed: u64) -> Result<Gossip, BadTiming> {
    let gossip = GossipConfig {
        node: identity.node.clone(),
        address,
        incarnation: identity.incarnation,
        heartbeat_interval_ms: config.heartbeat_interval.as_millis() as u64,
        failure_timeout_ms: config.failure_timeout.as_millis() as u64,
        cluster: config.cluster_name.clone(),
        seeds: Vec::new(),
    };
    Gossip::new(0, gossip, seed)
}

/// Shards of a simulated node: enough for messages to cross between them.
const SIMULATED_SHARDS_MAX: usize = 4;

/// What others are told, and the address that gossip carries.
async fn advertised(config: &Config, net: Net, bound: SocketAddr) -> Result<(String, SocketAddr), StartError> {
    let Some(advertise) = &config.advertise else { return Ok((bound.to_string(), bound)) };
    let name = format!("{}:{}", advertise.host, advertise.port.unwrap_or(bound.port()));
    match net.resolve(&name).await {
        Ok(found) => match found.first() {
            Some(address) => Ok((name, *address)),
            None => Err(StartError::Advertise { name, error: io::ErrorKind::NotFound.into() }),
        },
        Err(error) => Err(StartError::Advertise { name, error }),
    }
}

fn random_id(high: u64, low: u64) -> NodeId {
    let id = uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid();
    id.to_string().parse().expect("a UUID is a name")
}

fn member(config: &Config, identity: &Identity, advertised: &str, admin_port: Option<u16>) -> Member {
    let host = advertised.rsplit_once(':').map_or(advertised, |(host, _)| host);
    Member {
        admin: admin_port.map(|port| format!("{host}:{port}")),
        weight: config.weight,
        zone: config.zone.clone().map(String::from),
        vnodes: config.vnodes,
        replication: match config.replication {
            Copies::Copies(copies) => u16::from(copies),
            Copies::All => REPLICATE_TO_ALL,
        },
        incarnation: identity.incarnation,
        ..Member::new(identity.node.clone(), advertised.to_owned())
    }
}

/// Tells an actor of every new view.
fn subscribe<A>(ring: &Addr<RingActor>, actor: &Addr<A>)
where
    A: Actor + Handler<ViewChanged>,
    A::Context: ToEnvelope<A, ViewChanged>,
{
    ring.do_send(Subscribe(actor.clone().recipient()));
}

/// Starts replication senders, stores and the synchronisation.
fn start_data(
    config: &Config,
    (world, live): (World, &Arc<Live>),
    homes: &[Home],
    identity: &Identity,
    (view, planner): (&Arc<ArcSwap<crate::cluster::view::View>>, Planner),
    ring: &Addr<RingActor>,
    draw: &impl Fn(u64) -> u64,
) -> (Local, Addr<SyncActor>) {
    let shards = u16::try_from(homes.len()).expect("fewer threads than partitions");
    let mut local = Local { stores: Vec::new(), replications: Vec::new() };
    for home in homes {
        let (identity, drawn) = (identity.clone(), view.load_full());
        let hints = settings::hints(config, shards, draw(102));
        let new = move |_: &mut _| Replication::new(identity, world.clock, drawn, world.outbox_bytes_max, hints);
        local.replications.push(home.start(new));
    }
    for (shard, home) in (0u16..).zip(homes) {
        let core = StoreConfig {
            shard,
            shards,
            memory_bytes_max: config.memory_bytes_max.map_or(0, |bytes| (bytes / u64::from(shards)).max(1) as usize),
            evict: config.eviction == Eviction::Lru,
            value_bytes_max: config.value_bytes_max,
            hash_seed: draw(100),
        };
        let hlc = Hlc::new(
            identity.node.origin(identity.incarnation.wrapping_add(u64::from(shard) << 48)),
            CLOCK_AHEAD_MAX.as_millis() as u64,
        );
        let (clock, view) = (world.clock, view.clone());
        let (leases, replication) = (Leases::new(draw(101)), local.replications[usize::from(shard)].clone());
        local
            .stores
            .push(home.start(move |_| StoreActor::new(Store::new(core, hlc), leases, clock, view, replication)));
    }
    let (drawn, clock, own) = (view.load_full(), world.clock, local.clone());
    let (replication, to, live) = (local.replications[0].clone(), ring.clone(), live.clone());
    let sync = homes[0].start(move |_| SyncActor::new(planner, drawn, clock, own, (replication, to), live));
    for replication in &local.replications {
        subscribe(ring, replication);
    }
    local.stores.iter().for_each(|store| subscribe(ring, store));
    subscribe(ring, &sync);
    (local, sync)
}

fn start_routers(
    clock: Clock,
    homes: &[Home],
    view: &Arc<ArcSwap<crate::cluster::view::View>>,
    local: &Local,
    ring: &Addr<RingActor>,
    draw: &impl Fn(u64) -> u64,
) -> Vec<Addr<Router>> {
    let start = |(shard, home): (usize, &Home)| {
        let (view, local, ring) = (view.clone(), local.clone(), ring.clone());
        let (replication, id) = (local.replications[shard].clone(), draw(1_000 + shard as u64));
        home.start(move |_| Router::new(clock, view, local, replication, ring, id))
    };
    homes.iter().enumerate().map(start).collect()
}

/// Starts the hub of published messages.
fn start_hub(
    (clock, classes): (Clock, Classes),
    homes: &[Home],
    identity: &Identity,
    view: &Arc<ArcSwap<crate::cluster::view::View>>,
    local: &Local,
    ring: &Addr<RingActor>,
) -> Addr<Hub> {
    let (identity, drawn, local) = (identity.clone(), view.load_full(), local.clone());
    let hub = homes[0].start(move |_| Hub::new(identity, clock, drawn, local, classes));
    subscribe(ring, &hub);
    hub
}

/// Hands connections to the data arbiters in turn.
async fn accept(listener: Listener, port: Port, connections: Vec<Addr<Connections>>, census: Arc<Census>) {
    for to in connections.iter().cycle() {
        match listener.accept().await.and_then(Stream::hand_over) {
            Ok(stream) => to.do_send(Accepted(stream, port)),
            Err(error) => {
                census.accepts_failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Stops arbiters, the data arbiters first and that of liveness last among them, and names those that do not end.
async fn join(arbiters: Vec<Arbiter>) -> Vec<String> {
    for arbiter in &arbiters {
        arbiter.stop();
    }
    let liveness = arbiters.len().saturating_sub(1);
    let joined = arbiters.into_iter().enumerate().map(async |(n, arbiter)| {
        let (ended, wait) = tokio::sync::oneshot::channel();
        // To join blocks, and one that hangs is never joined: a thread that nobody waits for.
        std::thread::spawn(move || ended.send(arbiter.join()));
        match tokio::time::timeout(PART_STOP_MAX, wait).await {
            Ok(Ok(Ok(()))) => None,
            Ok(_) => {
                tracing::error!("an arbiter ended in a panic");
                None
            }
            Err(_) => Some(if n == liveness { "liveness arbiter".to_owned() } else { format!("data arbiter {n}") }),
        }
    });
    futures_util::future::join_all(joined).await.into_iter().flatten().collect()
}

impl Node {
    /// Stops in order: later requests are refused, those under way have `DRAIN_MAX` to finish, the other nodes are told, outboxes and hints have
    /// `HAND_OFF_MAX` to leave, clients `GRACE` to read their replies, and connections close. Takes less than 10 s, whatever hangs.
    ///
    /// # Errors
    /// [`Hung`] names what is still running then.
    pub async fn stop(self) -> Result<(), Hung> {
        let mut parts = Vec::new();
        self.handles.census.stopping.store(true, Ordering::Relaxed);
        let patience = self.handles.clock.monotonic() + DRAIN_MAX;
        while report::inflight_ops(&self.handles).await > 0 && self.handles.clock.monotonic() < patience {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        if tokio::time::timeout(PART_STOP_MAX, self.handles.gossip.send(SayGoodbye)).await.is_err() {
            parts.push("gossip".to_owned());
        }
        // What was acknowledged at level one leaves for the other replicas before the node does.
        let leaving = self.handles.local.await_replicas(PartitionSet::FULL, usize::MAX, HAND_OFF_MAX);
        if tokio::time::timeout(HAND_OFF_MAX + PART_STOP_MAX, leaving).await.is_err() {
            parts.push("replication".to_owned());
        }
        tokio::time::sleep(GRACE).await;
        parts.extend(join(self.arbiters).await);
        if let Some(file) = self.unix
            && let Err(error) = file.remove()
        {
            tracing::warn!(%error, "the unix socket stays behind");
        }
        if parts.is_empty() { Ok(()) } else { Err(Hung { parts }) }
    }
}
