//! The request router, one per data arbiter: takes a batch of requests, has each operation executed by the first living replica of its
//! key, here or elsewhere, and answers in order. Never holds a value. Which replica that is stands in the view; what a level requires in
//! `cluster::tally`. Exercised by the simulation and the client tests.
//!
//! Bound: what is in flight is bounded at the door, see `admission`.

mod cluster_wide;
mod coordinate;
mod forward;
mod gather;
mod lcs;
mod pauses;
mod several;
mod spot;
mod survey;

pub use cluster_wide::cursor_at;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::base::counters::{Counter, Counters};
use crate::base::hlc::UnixMs;
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::limits::{LINK_RETRY_AFTER, LINK_SILENCE_MAX};
use crate::base::op::Op;
use crate::base::reply::{LATE, ReplyRef, ReplySink, STOPPING, Wire};
use crate::base::slot::Partition;
use crate::cluster::view::{PeerIx, Route, View};
use crate::protocol::native::Misdirected;
use crate::protocol::request::Request;
use crate::protocol::resp::encode::ReplyBuf;

use super::clock::Clock;
use super::local::{Local, remix};
use super::replication::Replication;
use super::ring::{PullFrom, RingActor};

const NO_QUORUM_BEFORE: &str = "NOQUORUM too few replicas of the key can be reached, applied: no";

/// The picture of the cluster that everybody reads and the ring actor alone replaces.
pub type SharedView = Arc<ArcSwap<View>>;

/// Requests of one connection, to be answered in order.
#[derive(Message, Debug)]
#[rtype(result = "ReplyBuf")]
pub struct Batch {
    /// The requests.
    pub requests: Vec<Request>,
    /// They are a transaction, to be executed in one go: all of their keys are of one partition, and none is about all keys.
    pub together: bool,
    /// How to encode the replies.
    pub wire: Wire,
    /// Wanted acknowledgements.
    pub level: Level,
    /// When nobody waits any more.
    pub deadline: Instant,
}

/// Operations that another node sends here because this one serves their keys.
#[derive(Message, Debug)]
#[rtype(result = "Result<ReplyBuf, Misdirected>")]
pub struct PeerBatch {
    /// The operations.
    pub ops: Vec<Op>,
    /// The id of each that must not happen twice; empty if there is none.
    pub requests: Vec<Option<RequestId>>,
    /// They are a transaction.
    pub together: bool,
    /// An earlier attempt may have been done by another coordinator.
    pub retry: bool,
    /// When the sender first began with them, in Unix milliseconds.
    pub begun_ms: UnixMs,
    /// How to encode the replies.
    pub wire: Wire,
    /// Wanted acknowledgements.
    pub level: Level,
    /// When nobody waits any more.
    pub deadline: Instant,
    /// After this the sender may have asked somebody else, and nothing may begin here without asking the other replicas.
    pub start_by: Option<Instant>,
    /// Who sent them could not reach those who serve their keys: they are to be found.
    pub anywhere: bool,
}

/// What this actor has counted.
#[derive(Message, Debug)]
#[rtype(result = "RouterStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Default, Clone)]
pub struct RouterStats(pub Counters);

/// Operations on their way, with what a retry needs to know of each.
#[derive(Debug, Clone, Default)]
struct Ops {
    ops: Vec<Op>,
    requests: Vec<Option<RequestId>>,
    /// They are a transaction, on keys of one partition.
    together: bool,
    retry: bool,
    /// When the router that took them from a client first began, in Unix milliseconds.
    begun_ms: UnixMs,
}

impl Ops {
    /// Whether what a transaction writes may depend on what it reads under any of its keys.
    fn rests_on_reads(&self) -> bool {
        self.together && self.ops.iter().any(|op| op.act.reads()) && self.ops.iter().any(|op| op.act.writes())
    }
}

/// What an answer needs.
#[derive(Clone, Copy, Debug)]
struct Terms {
    wire: Wire,
    level: Level,
    deadline: Instant,
    start_by: Option<Instant>,
}

/// What every request in flight on this arbiter shares.
struct Desk {
    clock: Clock,
    view: SharedView,
    local: Local,
    replication: Addr<Replication>,
    ring: Addr<RingActor>,
    /// [`RequestId::router`] of this router, in this life.
    id: u64,
    next_sequence: Cell<u64>,
    /// Peers whose link broke a moment ago.
    avoided: RefCell<BTreeMap<PeerIx, Instant>>,
    counters: RefCell<Counters>,
    /// Who computes an `LCS`: one at a time, because of its table.
    comparing: Semaphore,
    /// When this arbiter last ran.
    ran: Cell<Instant>,
    pauses: RefCell<pauses::Pauses>,
    /// Which reads at level one are checked.
    spots: spot::Spots,
}

/// The actor.
pub struct Router {
    desk: Rc<Desk>,
}

impl Router {
    /// A router whose requests carry `id`, unlike any other router's.
    pub fn new(
        clock: Clock,
        view: SharedView,
        local: Local,
        replication: Addr<Replication>,
        ring: Addr<RingActor>,
        id: u64,
    ) -> Self {
        let desk = Desk {
            clock,
            view,
            local,
            replication,
            ring,
            id,
            next_sequence: Cell::new(1),
            avoided: RefCell::default(),
            counters: RefCell::default(),
            comparing: Semaphore::new(1),
            ran: Cell::new(clock.monotonic()),
            pauses: RefCell::default(),
            spots: spot::Spots::new(remix(id), clock.monotonic()),
        };
        Self { desk: Rc::new(desk) }
    }
}

impl Desk {
    fn count(&self, counter: Counter, n: u64) {
        self.counters.borrow_mut().add(counter, n);
    }

    /// Whom to ask for a partition: the first member in line that was not found unreachable a moment ago, else the first.
    fn coordinator(&self, route: &Route) -> Option<PeerIx> {
        let avoided = self.avoided.borrow();
        let reachable = |peer: &&PeerIx| avoided.is_empty() || !avoided.contains_key(peer);
        route.serving.iter().find(reachable).or_else(|| route.serving.first()).copied()
    }

    /// Passes a member over for a while.
    fn avoid(&self, peer: PeerIx) {
        self.avoided.borrow_mut().insert(peer, self.clock.monotonic() + LINK_RETRY_AFTER);
    }

    /// Notes that this arbiter runs. After a pause as long as the others' patience with a silent link, they have asked somebody else:
    /// until they try this node again, it does so too, lest two members coordinate the same keys.
    fn notice_pause(&self, view: &View) {
        let now = self.clock.monotonic();
        let paused = now.saturating_duration_since(self.ran.replace(now));
        if paused > LINK_SILENCE_MAX && view.is_replicated() {
            if let Some((pauses, longest)) = self.pauses.borrow_mut().note(now, paused) {
                tracing::warn!(pauses, longest_ms = longest.as_millis() as u64, "this node did not run for a while");
            }
            self.avoided.borrow_mut().insert(view.me, now + 2 * LINK_RETRY_AFTER);
        }
    }

    /// Whether this node stands back from coordinating a partition for another that serves it.
    fn stands_back(&self, view: &View, partition: Partition) -> bool {
        self.coordinator(view.route(partition)) != Some(view.me) && self.avoided.borrow().contains_key(&view.me)
    }

    /// Forgets whom to avoid once its time is over.
    fn amnesty(&self) {
        let mut avoided = self.avoided.borrow_mut();
        if !avoided.is_empty() {
            let now = self.clock.monotonic();
            avoided.retain(|_, until| *until > now);
        }
    }

    fn request_id(&self) -> RequestId {
        let sequence = self.next_sequence.get();
        self.next_sequence.set(sequence + 1);
        RequestId { router: self.id, sequence }
    }

    /// Learns a newer membership from a peer that has one.
    fn pull_from(&self, peer: PeerIx) {
        self.ring.do_send(PullFrom::Peer(peer));
    }
}

/// A reply buffer with the same error for each of `count` operations.
fn errors(wire: Wire, count: usize, text: &'static str) -> ReplyBuf {
    let mut replies = ReplyBuf::new(wire);
    for _ in 0..count {
        replies.reply(ReplyRef::Error(text.into()));
    }
    replies
}

/// How often a router notes that it runs.
const TICK: Duration = Duration::from_millis(50);

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        ctx.run_interval(TICK, |actor, _| actor.desk.notice_pause(&actor.desk.view.load()));
    }
}

impl Handler<Batch> for Router {
    type Result = gather::Answering;

    fn handle(&mut self, batch: Batch, _: &mut Self::Context) -> Self::Result {
        self.desk.notice_pause(&self.desk.view.load());
        self.desk.amnesty();
        let terms = Terms { wire: batch.wire, level: batch.level, deadline: batch.deadline, start_by: None };
        gather::answer(self.desk.clone(), batch.requests, batch.together, terms)
    }
}

impl Handler<PeerBatch> for Router {
    type Result = ResponseFuture<Result<ReplyBuf, Misdirected>>;

    fn handle(&mut self, batch: PeerBatch, _: &mut Self::Context) -> Self::Result {
        let desk = self.desk.clone();
        let view = desk.view.load_full();
        desk.notice_pause(&view);
        desk.amnesty();
        let refuses = |partition| !view.serves(partition) || desk.stands_back(&view, partition);
        let is_elsewhere = batch.ops.iter().any(|op| refuses(Partition::of(&op.key)));
        if is_elsewhere && !batch.anywhere {
            desk.count(Counter::OpsMisdirected, batch.ops.len() as u64);
            return Box::pin(std::future::ready(Err(Misdirected { epoch: view.epoch })));
        }
        desk.count(Counter::OpsReceived, batch.ops.len() as u64);
        let terms = Terms { wire: batch.wire, level: batch.level, deadline: batch.deadline, start_by: batch.start_by };
        let ops = Ops {
            ops: batch.ops,
            requests: batch.requests,
            together: batch.together,
            retry: batch.retry,
            begun_ms: batch.begun_ms,
        };
        if is_elsewhere {
            return Box::pin(async move { Ok(forward::execute(&desk, ops, terms).await) });
        }
        Box::pin(async move { Ok(coordinate::all_here(&desk, &view, ops, terms).await) })
    }
}

impl Handler<AskStats> for Router {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        MessageResult(RouterStats(self.desk.counters.borrow().clone()))
    }
}
