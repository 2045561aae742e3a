//! Connections, by data arbiter: an actor that takes streams over and keeps the list of clients, and one task per connection that decodes
//! what a read brought, hands it to the router as one message, and writes the replies. Never executes an operation.
//!
//! Bound: `Admission` for what is in flight, `connections_max` clients over the whole node, peers in a pool of their own (`seat`), limits
//! per phase in `base::limits`.

mod answers;
mod compare;
mod direct;
mod execute;
mod fit;
mod memcached;
mod native;
mod observe;
mod outside;
mod pause;
mod peer;
mod pubsub;
mod resp;
mod seat;
mod transaction;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::base::counters::{Counter, Counters};
use crate::base::hlc::UnixMs;
use crate::base::limits::{
    CLIENT_BYTES_PER_SEC_MIN, CLIENT_REQUEST_TIMEOUT, CLIENT_STALL_PRESSED, CLIENT_STALL_TIMEOUT,
    CONNECTIONS_BYTES_MAX, FIRST_BYTE_MAX, INFLIGHT_BYTES_MAX, INFLIGHT_OPS_MAX, PEER_INFLIGHT_OPS_MAX,
};
use crate::net::{Handover, Stream};
use crate::protocol::native::PREFACE;
use crate::protocol::resp::control::{ClientKind, KillFilter};
use crate::protocol::resp::session::Session;
use crate::protocol::resp::slowlog::SlowLog;
use crate::protocol::resp::transaction::Transaction;

use super::admission::{Admission, Budget};
use super::handles::Handles;
use super::latency::Latencies;

pub use outside::{Note, Outside, Wanted};
use pubsub::Listening;
pub use seat::Census;
use seat::{Role, Seat};

/// How often clients are looked at for being slow or idle.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a connection reads at first; the buffer grows with what the client sends, because most clients are idle most of the time.
const READ_BYTES_FIRST: usize = 1024;

/// A connection to serve.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Accepted(pub Handover, pub Port);

/// Which listener a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Redis clients and peers.
    Main,
    /// memcached clients.
    Memcached,
}

/// One line per client of a kind, or of any, as `CLIENT LIST` has them, by id.
#[derive(Message)]
#[rtype(result = "Vec<(u64, String)>")]
pub struct ListClients(pub Option<ClientKind>);

/// End these clients' connections, but not that of the client with this id; answered with how many there were.
#[derive(Message)]
#[rtype(result = "u64")]
pub struct KillClients(pub KillFilter, pub u64);

/// What this actor counted.
#[derive(Message)]
#[rtype(result = "ConnectionStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Default, Clone)]
pub struct ConnectionStats {
    /// Counts.
    pub counters: Counters,
    /// Latencies by command.
    pub latencies: Latencies,
    /// Clients connected.
    pub clients: usize,
    /// Operations of clients in flight.
    pub inflight_ops: usize,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to them.
    pub bytes_out: u64,
}

/// What a connection waits for, which decides how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// For the client to say something.
    Idle,
    /// For the rest of a request.
    Request { since: Instant, bytes: usize },
    /// For the client to take its replies.
    Stalled { since: Instant },
    /// For this node.
    Us,
}

/// One connection, as the arbiter's list has it.
struct Entry {
    session: RefCell<Session>,
    transaction: RefCell<Transaction>,
    listening: Listening,
    waits: Cell<Waits>,
    /// Of a native connection, which reads and writes at the same time: since when the other side has taken none of its answers.
    stalled: Cell<Option<Instant>>,
    /// Whether it holds so much that it counts towards the budget.
    is_counted: Cell<bool>,
    seat: Seat,
    task: RefCell<Option<AbortHandle>>,
}

impl Entry {
    fn is_peer(&self) -> bool {
        self.seat.role() == Role::Peer
    }
}

/// What all connections of one arbiter share.
struct Door {
    handles: Handles,
    shard: usize,
    admission: Rc<Admission>,
    peer_admission: Rc<Admission>,
    question_admission: Rc<Admission>,
    budget: Rc<Budget>,
    counters: RefCell<Counters>,
    latencies: RefCell<Latencies>,
    slow: RefCell<SlowLog>,
    clients: RefCell<BTreeMap<u64, Rc<Entry>>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    /// The flush that a memcached client has put off. One: a later one takes its place.
    flush: RefCell<Option<AbortHandle>>,
    /// When a native connection refused or closed was last worth a line.
    refusal_logged: Cell<Option<Instant>>,
}

impl Door {
    fn count(&self, counter: Counter) {
        self.counters.borrow_mut().inc(counter);
    }

    fn is_stopping(&self) -> bool {
        self.handles.census.stopping.load(Ordering::Relaxed)
    }

    fn now(&self) -> UnixMs {
        self.handles.clock.unix_ms()
    }
}

/// The actor.
pub struct Connections {
    door: Rc<Door>,
}

impl Connections {
    /// The connections of data arbiter `shard`.
    pub fn new(handles: Handles, shard: usize) -> Self {
        let door = Door {
            handles,
            shard,
            admission: Rc::new(Admission::new(INFLIGHT_OPS_MAX, INFLIGHT_BYTES_MAX)),
            peer_admission: Rc::new(Admission::new(PEER_INFLIGHT_OPS_MAX, INFLIGHT_BYTES_MAX)),
            question_admission: Rc::new(Admission::new(PEER_INFLIGHT_OPS_MAX, INFLIGHT_BYTES_MAX)),
            budget: Rc::new(Budget::new(CONNECTIONS_BYTES_MAX)),
            counters: RefCell::default(),
            latencies: RefCell::default(),
            slow: RefCell::default(),
            clients: RefCell::default(),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            flush: RefCell::new(None),
            refusal_logged: Cell::new(None),
        };
        Self { door: Rc::new(door) }
    }
}

/// Ends connections whose clients let them wait for too long.
fn look(door: &Door) {
    let now = door.handles.clock.monotonic();
    let pressed = door.budget.is_used_up();
    let idle_max = door.handles.live.client_timeout_ms();
    for entry in door.clients.borrow().values() {
        let pressed = pressed && entry.is_counted.get();
        let stall_max = if pressed { CLIENT_STALL_PRESSED } else { CLIENT_STALL_TIMEOUT };
        let idle_ms = door.now().saturating_sub(entry.session.borrow().last_active());
        let waits = entry.stalled.get().filter(|since| now - *since > CLIENT_STALL_TIMEOUT);
        let late = match waits.map_or_else(|| entry.waits.get(), |since| Waits::Stalled { since }) {
            Waits::Us => None,
            Waits::Idle => {
                // Who listens may say nothing for ever, as in Redis.
                let may_be = entry.is_peer() || entry.session.borrow().listens();
                let idle = idle_max.is_some_and(|max| idle_ms > max) && !may_be;
                idle.then_some(Counter::ConnectionsIdle)
            }
            Waits::Request { since, bytes } => {
                let allowed = CLIENT_REQUEST_TIMEOUT + Duration::from_secs((bytes / CLIENT_BYTES_PER_SEC_MIN) as u64);
                (now - since > allowed).then_some(Counter::ConnectionsSlow)
            }
            Waits::Stalled { since } => (now - since > stall_max).then_some(Counter::ConnectionsSlow),
        };
        if let Some(reason) = late {
            door.count(reason);
            if let Some(task) = entry.task.borrow().as_ref() {
                task.abort();
            }
        }
    }
}

/// Serves a stream to its end, whatever ends it.
async fn serve(door: Rc<Door>, entry: Rc<Entry>, mut stream: Stream) {
    let mut buf = BytesMut::with_capacity(READ_BYTES_FIRST);
    // The first byte tells the protocols apart. Peers have it ready; who is silent is a client, and may stay so.
    let first = match tokio::time::timeout(FIRST_BYTE_MAX, stream.read_buf(&mut buf)).await {
        Ok(read) => read,
        Err(_) if entry.seat.settle(Role::Client) => stream.read_buf(&mut buf).await,
        Err(_) => return refuse(&door, stream, Port::Main).await,
    };
    match first {
        Ok(0) | Err(_) => {}
        Ok(_) if buf[0] == PREFACE[0] => native::serve(&door, &entry, stream, buf).await,
        Ok(_) if entry.seat.settle(Role::Client) => resp::serve(&door, &entry, stream, buf).await,
        Ok(_) => refuse(&door, stream, Port::Main).await,
    }
}

/// Tells a client that there is no room for it.
async fn refuse(door: &Door, mut stream: Stream, port: Port) {
    door.count(Counter::ConnectionsRefused);
    let refusal = stream.write_all(match port {
        Port::Main => b"-ERR max number of clients reached\r\n".as_slice(),
        Port::Memcached => b"ERROR Too many open connections\r\n",
    });
    let _ = tokio::time::timeout(LOOK_EVERY, refusal).await;
}

/// Takes the connection off the list however its task ends.
struct Listed {
    door: Rc<Door>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let entry = self.door.clients.borrow_mut().remove(&self.id);
        entry.iter().for_each(|entry| pubsub::end(&self.door, entry));
    }
}

impl Actor for Connections {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        ctx.run_interval(LOOK_EVERY, |actor, _| look(&actor.door));
    }
}

impl Handler<Accepted> for Connections {
    type Result = ();

    fn handle(&mut self, Accepted(stream, port): Accepted, _: &mut Self::Context) {
        let Ok(stream) = stream.take_over() else { return };
        let census = &self.door.handles.census;
        let Some(seat) = Seat::take(census.clone()) else {
            let door = self.door.clone();
            actix::spawn(async move { refuse(&door, stream, port).await });
            return;
        };
        self.door.count(Counter::ConnectionsAccepted);
        let id = census.next_id();
        let unix = || {
            self.door.handles.settings.unix.as_ref().map_or_else(String::new, |path| format!("{}:0", path.display()))
        };
        let address = |address: Option<std::net::SocketAddr>| address.map_or_else(unix, |address| address.to_string());
        let session = Session::new(
            id,
            address(stream.peer_address()),
            address(stream.local_address()),
            self.door.handles.settings.consistency,
            self.door.now(),
        );
        let entry = Rc::new(Entry {
            session: RefCell::new(session),
            transaction: RefCell::default(),
            listening: Listening::default(),
            waits: Cell::new(Waits::Idle),
            stalled: Cell::new(None),
            is_counted: Cell::new(false),
            seat,
            task: RefCell::new(None),
        });
        self.door.clients.borrow_mut().insert(id, entry.clone());
        let listed = Listed { door: self.door.clone(), id };
        let (door, served) = (self.door.clone(), entry.clone());
        let task = tokio::task::spawn_local(async move {
            match port {
                Port::Main => serve(door, served, stream).await,
                Port::Memcached if served.seat.settle(Role::Client) => memcached::serve(&door, &served, stream).await,
                Port::Memcached => refuse(&door, stream, port).await,
            }
            drop(listed);
        });
        entry.task.replace(Some(task.abort_handle()));
    }
}

impl Handler<ListClients> for Connections {
    type Result = MessageResult<ListClients>;

    fn handle(&mut self, ListClients(kind): ListClients, _: &mut Self::Context) -> Self::Result {
        let now = self.door.now();
        let clients = self.door.clients.borrow();
        let is_meant = |entry: &Entry| kind.is_none_or(|kind| kind == entry.session.borrow().kind());
        let lines = clients.iter().filter(|(_, entry)| !entry.is_peer() && is_meant(entry));
        MessageResult(lines.map(|(id, entry)| (*id, entry.session.borrow().line(now))).collect())
    }
}

impl Handler<KillClients> for Connections {
    type Result = u64;

    fn handle(&mut self, KillClients(filter, but): KillClients, _: &mut Self::Context) -> u64 {
        let clients = self.door.clients.borrow();
        let meant = |entry: &Rc<Entry>| {
            let session = entry.session.borrow();
            !entry.is_peer() && session.id() != but && session.fits(&filter)
        };
        let mut killed = 0;
        for entry in clients.values().filter(|entry| meant(entry)) {
            if let Some(task) = entry.task.borrow().as_ref() {
                task.abort();
                killed += 1;
            }
        }
        self.door.counters.borrow_mut().add(Counter::ConnectionsKilled, killed);
        killed
    }
}

impl Handler<AskStats> for Connections {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        let door = &self.door;
        MessageResult(ConnectionStats {
            counters: door.counters.borrow().clone(),
            latencies: door.latencies.borrow().clone(),
            clients: door.clients.borrow().values().filter(|entry| !entry.is_peer()).count(),
            inflight_ops: door.admission.ops(),
            bytes_in: door.bytes_in.get(),
            bytes_out: door.bytes_out.get(),
        })
    }
}
