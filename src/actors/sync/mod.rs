//! Brings replicas together: carries out what `cluster::sync` plans. Never decides what to compare, and leaves comparing to `session`.
//! Exercised by the simulation.
//!
//! Bound: one session per peer at a time.

mod bring;
mod depart;
mod line;
mod session;
mod settle;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::Semaphore;

use crate::base::counters::Counters;
use crate::base::id::NodeId;
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::sync::{Compared, Moving, Planner, REST_MS_MIN, SessionEnd, Step};
use crate::cluster::view::{PeerIx, View};

use self::line::Line;
use self::session::Session;
pub use self::settle::{Settle, Settles};
use super::clock::Clock;
use super::live::Live;
use super::local::Local;
use super::replication::{Diverged, Replication, ViewChanged};
use super::ring::{Holds, RingActor};
use super::store;

/// How often the plan is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Which partitions hold anything is asked this often.
const FILLED_EVERY_LOOKS: u32 = 20;
/// A peer is handed over what is noted for it before it is compared, so that little is left to be found; if that takes longer, meanwhile.
const HANDOVER_FIRST_MAX: Duration = Duration::from_secs(2);

/// How repair stands.
#[derive(Message, Debug)]
#[rtype(result = "SyncStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Default, Clone)]
pub struct SyncStats {
    /// Counts.
    pub counters: Counters,
    /// Partitions owned and not yet complete.
    pub syncing: usize,
    /// What moves to and from this node.
    pub moving: Option<Moving>,
    /// Partitions that another replica may lack something of.
    pub uneven: usize,
    /// Age of the last completed round; `None` before the first.
    pub last_round_age_ms: Option<u64>,
    /// Keys that differed in it.
    pub divergent_keys: usize,
}

/// A member is about to compare these partitions with this node. Which of them it may, until it says otherwise.
#[derive(Message, Debug)]
#[rtype(result = "PartitionSet")]
pub struct Visit {
    /// Who.
    pub node: NodeId,
    /// Which; none when it is done.
    pub partitions: PartitionSet,
}

/// Which of these partitions, which differ from a peer's, are to be brought together now?
#[derive(Message)]
#[rtype(result = "PartitionSet")]
struct Choose {
    peer: PeerIx,
    apart: PartitionSet,
}

#[derive(Message)]
#[rtype(result = "()")]
struct SessionOver {
    peer: PeerIx,
    compared: Vec<(Partition, Compared)>,
    end: SessionEnd,
}

/// What the stores hold.
#[derive(Message)]
#[rtype(result = "()")]
struct Filled {
    filled: PartitionSet,
    unsettled: PartitionSet,
}

/// The actor.
pub struct SyncActor {
    planner: Planner,
    view: Arc<View>,
    clock: Clock,
    local: Local,
    replication: Addr<Replication>,
    ring: Addr<RingActor>,
    live: Arc<Live>,
    filled: PartitionSet,
    unsettled: PartitionSet,
    looks: u32,
    /// The last look before this node goes is under way.
    departing: bool,
    /// One of all sessions moves much at a time.
    pace: Rc<Semaphore>,
    counters: Rc<RefCell<Counters>>,
}

impl SyncActor {
    /// Carries out `planner`'s plan through `replication`.
    pub fn new(
        planner: Planner,
        view: Arc<View>,
        clock: Clock,
        local: Local,
        (replication, ring): (Addr<Replication>, Addr<RingActor>),
        live: Arc<Live>,
    ) -> Self {
        Self {
            planner,
            view,
            clock,
            local,
            replication,
            ring,
            live,
            filled: PartitionSet::EMPTY,
            unsettled: PartitionSet::EMPTY,
            looks: 0,
            departing: false,
            pace: Rc::new(Semaphore::new(1)),
            counters: Rc::default(),
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(FILLED_EVERY_LOOKS) {
            let (stores, me) = (self.local.stores.clone(), ctx.address());
            actix::spawn(async move {
                let stats =
                    futures_util::future::join_all(stores.iter().map(|store| store.send(store::AskStats))).await;
                let mut all = Filled { filled: PartitionSet::EMPTY, unsettled: PartitionSet::EMPTY };
                for own in stats.into_iter().flatten() {
                    all.filled = all.filled.union(&own.filled);
                    all.unsettled = all.unsettled.union(&own.unsettled);
                }
                me.do_send(all);
            });
        }
        self.act(ctx);
        ctx.run_later(LOOK_EVERY, Self::look);
    }

    fn act(&mut self, ctx: &mut Context<Self>) {
        for step in self.planner.steps(&self.view, (&self.filled, &self.unsettled), self.clock.unix_ms()) {
            self.take(step, ctx);
        }
    }

    fn take(&mut self, step: Step, ctx: &mut Context<Self>) {
        match step {
            Step::Claim { partitions, founding } => {
                self.ring.do_send(Holds { partitions, founding, lapses: self.planner.lapses() });
            }
            Step::Drop(partitions) => {
                self.filled = self.filled.difference(&partitions);
                for store in &self.local.stores {
                    store.do_send(store::Drop(partitions));
                }
            }
            Step::Settle(partitions) => self.propose(partitions, ctx),
            Step::Depart => self.depart(ctx),
            Step::Unsettle => self.local.stores.iter().for_each(|store| store.do_send(store::Unsettle)),
            Step::Lapse => self.local.stores.iter().for_each(|store| store.do_send(store::Lapse)),
            Step::Compare(peer, partitions) => {
                let Some(me) = self.view.peer(self.view.me) else { return };
                let session = Session {
                    me: (ctx.address(), me.member.id.clone()),
                    line: Line::new(peer, self.replication.clone(), self.counters.clone()),
                    clock: self.clock,
                    local: self.local.clone(),
                    evicts: self.live.memory_bytes_max() > 0 && self.live.evicts(),
                    foreign: self.planner.foreign(),
                    pace: self.pace.clone(),
                };
                let (me, local) = (ctx.address(), self.local.clone());
                actix::spawn(async move {
                    local.hand_over(peer, HANDOVER_FIRST_MAX).await;
                    let (compared, end) = session.run(partitions).await;
                    me.do_send(SessionOver { peer, compared, end });
                });
            }
        }
    }
}

impl Actor for SyncActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        self.look(ctx);
    }
}

impl Handler<ViewChanged> for SyncActor {
    type Result = ();

    fn handle(&mut self, ViewChanged(view): ViewChanged, _: &mut Self::Context) {
        self.planner.view_changed(&view, self.clock.unix_ms());
        self.view = view;
    }
}

impl Handler<Diverged> for SyncActor {
    type Result = ();

    fn handle(&mut self, diverged: Diverged, _: &mut Self::Context) {
        self.planner.diverged(diverged.peer, &diverged.partitions);
    }
}

impl Handler<SessionOver> for SyncActor {
    type Result = ();

    fn handle(&mut self, over: SessionOver, ctx: &mut Self::Context) {
        for (partition, came_to) in over.compared {
            self.planner.compared(over.peer, partition, came_to);
        }
        self.planner.session_over(&self.view, over.peer, &over.end, self.clock.unix_ms());
        // There may be more to compare before the next look.
        ctx.run_later(Duration::from_millis(REST_MS_MIN), Self::act);
    }
}

impl Handler<Choose> for SyncActor {
    type Result = MessageResult<Choose>;

    fn handle(&mut self, Choose { peer, apart }: Choose, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.planner.choose(&self.view, peer, &apart, self.clock.unix_ms()))
    }
}

impl Handler<Visit> for SyncActor {
    type Result = MessageResult<Visit>;

    fn handle(&mut self, visit: Visit, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.planner.visited(&self.view, &visit.node, visit.partitions, self.clock.unix_ms()))
    }
}

impl Handler<Filled> for SyncActor {
    type Result = ();

    fn handle(&mut self, held: Filled, _: &mut Self::Context) {
        self.filled = held.filled;
        self.unsettled = held.unsettled;
    }
}

impl Handler<AskStats> for SyncActor {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        let last = self.planner.last_round();
        MessageResult(SyncStats {
            counters: self.counters.borrow().clone(),
            syncing: self.planner.syncing(&self.view),
            moving: self.planner.moving(&self.view, self.clock.unix_ms()),
            uneven: self.planner.uneven(&self.view),
            last_round_age_ms: last.map(|(at, _)| self.clock.unix_ms().saturating_sub(at)),
            divergent_keys: last.map_or(0, |(_, keys)| keys),
        })
    }
}
