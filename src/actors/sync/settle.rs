//! Closing the past of partitions: asks the other replicas, and answers them. When it may be done is decided in `cluster::settle` and
//! `cluster::sync`. Exercised by the simulation.
//!
//! Bound: one round in `SETTLE_EVERY_MS`, a question and a notice to each peer in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::{join_all, try_join_all};

use super::SyncActor;
use super::line::Ended;
use crate::actors::local::Local;
use crate::actors::replication::{CallPeer, Drain, Replication};
use crate::actors::store;
use crate::base::counters::Counter;
use crate::base::hlc::Version;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::base::slot::Partition;
use crate::cluster::partition_set::{PARTITION_SET_BYTES, PartitionSet};
use crate::cluster::settle;
use crate::cluster::view::PeerIx;
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Answer, Ask, Message as Native};

/// Patience with acknowledgements of what was sent before the question.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Partitions, each with the mark of the route to it.
type Marked = Vec<(Partition, u32)>;

/// In which of these partitions does every other replica have all that this node has up to this version?
#[derive(Message, Debug, Clone)]
#[rtype(result = "PartitionSet")]
pub struct Settles {
    /// Partitions, each with the mark of the route by which that is asked.
    pub partitions: Marked,
    /// Up to here.
    pub up_to: Version,
}

/// Every replica has said so.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Settle {
    /// Partitions, each with the mark of the route by which that was asked.
    pub partitions: Marked,
    /// Up to here.
    pub up_to: Version,
}

/// For which of these does the same hold still, after all that was on its way to this actor has arrived?
#[derive(Message)]
#[rtype(result = "PartitionSet")]
struct Still(Marked);

/// A round under way.
struct Round {
    me: Addr<SyncActor>,
    replication: Addr<Replication>,
    up_to: Version,
    /// What to ask whom; this node too.
    own: Marked,
    peers: BTreeMap<PeerIx, Marked>,
}

impl SyncActor {
    /// Asks all replicas of these partitions whether they may be settled, and tells them if so.
    pub(super) fn propose(&mut self, partitions: PartitionSet, ctx: &mut Context<Self>) {
        let mut round = Round {
            me: ctx.address(),
            replication: self.replication.clone(),
            up_to: settle::up_to(self.clock.unix_ms()),
            own: Vec::new(),
            peers: BTreeMap::new(),
        };
        for partition in partitions.iter() {
            let Some(route) = settle::route(&self.view, partition) else { continue };
            round.own.push((partition, route.mark));
            for peer in settle::others(&self.view, route) {
                round.peers.entry(peer).or_default().push((partition, route.mark));
            }
        }
        let counters = self.counters.clone();
        actix::spawn(async move {
            // Whoever did not answer is asked again in the next round.
            if let Ok(settled) = round.run().await {
                counters.borrow_mut().add(Counter::PartitionsSettled, u64::from(settled));
            }
        });
    }

    fn level(&self, partitions: &Marked) -> Marked {
        let level = partitions.iter().filter(|(partition, mark)| self.planner.is_level(&self.view, *partition, *mark));
        level.copied().collect()
    }
}

impl Round {
    /// How many partitions were settled.
    async fn run(self) -> Result<u16, Ended> {
        let own = self.me.send(Settles { partitions: self.own.clone(), up_to: self.up_to }).await?;
        let asked = self.peers.iter().map(async |(peer, marked)| {
            let granted = self.ask(*peer, marked).await.unwrap_or(PartitionSet::EMPTY);
            // Of those it was not asked about it says nothing.
            set(marked).difference(&granted)
        });
        let refused = join_all(asked).await.iter().fold(PartitionSet::EMPTY, |all, refused| all.union(refused));
        let agreed = own.difference(&refused);
        let among = |marked: &Marked| marked.iter().filter(|(p, _)| agreed.contains(*p)).copied().collect::<Marked>();
        self.me.send(Settle { partitions: among(&self.own), up_to: self.up_to }).await?;
        let told = self.peers.iter().map(|(peer, marked)| self.tell(*peer, among(marked)));
        join_all(told).await;
        Ok(agreed.count())
    }

    /// Those of the partitions for which a peer says yes.
    async fn ask(&self, peer: PeerIx, marked: &Marked) -> Result<PartitionSet, Ended> {
        let (bits, routes) = (set(marked).to_bytes(), marks(marked));
        let call = Call::ask(&Ask::Settles { partitions: &bits, routes, up_to: self.up_to });
        let answer = self.replication.send(CallPeer { peer, call });
        let payload = tokio::time::timeout(REQUEST_TIMEOUT, answer).await???;
        let Native::Answer { answer: Answer::Partitions(bits), .. } = frame::decode(&payload)? else {
            return Err(Ended);
        };
        <&[u8; PARTITION_SET_BYTES]>::try_from(bits).map(PartitionSet::from_bytes).map_err(|_| Ended)
    }

    /// A peer that does not hear of it takes it over when it compares itself.
    async fn tell(&self, peer: PeerIx, marked: Marked) {
        if !marked.is_empty() {
            let (bits, routes) = (set(&marked).to_bytes(), marks(&marked));
            let call = Call::ask(&Ask::Settle { partitions: &bits, routes, up_to: self.up_to });
            let told = self.replication.send(CallPeer { peer, call });
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, told).await;
        }
    }
}

fn set(marked: &Marked) -> PartitionSet {
    marked.iter().map(|(partition, _)| *partition).collect()
}

fn marks(marked: &Marked) -> Vec<u32> {
    marked.iter().map(|(_, mark)| *mark).collect()
}

/// Those whose other replicas have all acknowledged what the senders of `local` had for them.
async fn acknowledged(
    local: &Local,
    asked: Vec<(Partition, u32, Vec<PeerIx>)>,
    up_to: Version,
) -> Result<Marked, Ended> {
    // First no stamp below any more: what was stamped before is with the senders then.
    for store in &local.stores {
        if !store.send(store::StampsAbove(up_to)).await? {
            return Err(Ended);
        }
    }
    let peers: BTreeSet<PeerIx> = asked.iter().flat_map(|(_, _, others)| others).copied().collect();
    let drain = |timeout| {
        try_join_all(local.replications.iter().map(|sender| sender.send(Drain { peers: peers.clone(), timeout })))
    };
    let drained = drain(DRAIN_MAX).await?;
    // What was refused among the acknowledgements is reported by the time of the next answer.
    drain(Duration::ZERO).await?;
    let all = |(partition, _, others): &&(Partition, u32, Vec<PeerIx>)| {
        others.iter().all(|peer| drained[local.shard_of(*partition)].contains(peer))
    };
    Ok(asked.iter().filter(all).map(|(partition, mark, _)| (*partition, *mark)).collect())
}

impl Handler<Settles> for SyncActor {
    type Result = ResponseFuture<PartitionSet>;

    fn handle(&mut self, asked: Settles, ctx: &mut Self::Context) -> Self::Result {
        let others = |(partition, mark): (Partition, u32)| {
            let route = settle::route(&self.view, partition)?;
            Some((partition, mark, settle::others(&self.view, route).collect()))
        };
        let level: Vec<_> = self.level(&asked.partitions).into_iter().filter_map(others).collect();
        let (me, local) = (ctx.address(), self.local.clone());
        Box::pin(async move {
            if level.is_empty() {
                return PartitionSet::EMPTY;
            }
            let Ok(acknowledged) = acknowledged(&local, level, asked.up_to).await else { return PartitionSet::EMPTY };
            // What was lost on the way was reported before the senders answered.
            me.send(Still(acknowledged)).await.unwrap_or(PartitionSet::EMPTY)
        })
    }
}

impl Handler<Still> for SyncActor {
    type Result = MessageResult<Still>;

    fn handle(&mut self, Still(partitions): Still, _: &mut Self::Context) -> Self::Result {
        MessageResult(set(&self.level(&partitions)))
    }
}

impl Handler<Settle> for SyncActor {
    type Result = ();

    fn handle(&mut self, settle: Settle, _: &mut Self::Context) {
        let is_so = |(partition, mark): &&(Partition, u32)| self.view.route(*partition).mark == *mark;
        let partitions: PartitionSet =
            settle.partitions.iter().filter(is_so).map(|(partition, _)| *partition).collect();
        for store in self.local.stores.iter().filter(|_| !partitions.is_empty()) {
            store.do_send(store::Settle { partitions, up_to: settle.up_to });
        }
    }
}
