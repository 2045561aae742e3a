//! The replication sender, one per data arbiter: an outbox and a link per peer, acknowledgements counted against levels, hints for those who
//! can't be sent what they should have, and the calls other actors make to peers. Never decides who owns a key or what a key holds. The rules
//! live in `cluster::outbox`, `cluster::hints` and `cluster::tally`; the bytes in `link`. Exercised by the simulation.
//!
//! Bounds: `OUTBOX_BYTES_MAX` and one batch per peer for entries, `CALLS_MAX` calls per peer, the setting `max-hints`.

mod drain;
mod handover;
mod link;
mod messages;
mod outlet;
mod push;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::base::counters::{Counter, Counters};
use crate::base::id::{ClusterName, NodeId};
use crate::base::limits::REQUEST_TIMEOUT;
#[cfg(feature = "sim")]
use crate::base::plant::Plant;
use crate::base::slot::Partition;
use crate::cluster::hints::Hints;
use crate::cluster::link::{Finding, Moment};
use crate::cluster::outbox::{Posted, Ticket};
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::tally::{Progress, Tally};
use crate::cluster::view::{Liveness, Peer, PeerIx, Required, View};
use crate::net::Net;
use crate::protocol::native::Message as Native;
use crate::protocol::native::frame;

pub use self::handover::HandOver;
use self::link::{LinkDown, LinkFrames, LinkUp};
pub use self::messages::*;
use self::outlet::{Outlet, Verdict};
use super::clock::Clock;
use super::gossip::Doubt;
use super::store::Peek;

/// How often silent links are looked at, while anything is outstanding.
pub(super) const WATCH_EVERY: Duration = Duration::from_millis(40);

/// Who this replication sender works for.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The network.
    pub net: Net,
    /// The cluster.
    pub cluster: ClusterName,
    /// This node.
    pub node: NodeId,
    /// This life of it.
    pub incarnation: u64,
}

/// One [`Replicate`] or [`Push`] whose acknowledgements are counted.
struct Pending {
    tallies: Vec<(Tally, u32)>,
    open: usize,
    outcome: Committed,
    commit: Option<oneshot::Sender<Committed>>,
}

/// The actor.
pub struct Replication {
    identity: Identity,
    outbox_bytes_max: usize,
    clock: Clock,
    view: Arc<View>,
    outlets: BTreeMap<PeerIx, Outlet>,
    hints: Hints,
    hint_waiters: Vec<handover::Waiter>,
    pending: BTreeMap<u64, Pending>,
    next_pending: u64,
    counters: Counters,
    diverged: Option<Recipient<Diverged>>,
    doubts: Option<Recipient<Doubt>>,
    store: Option<(Recipient<Peek>, PartitionSet)>,
    watching: bool,
}

impl Replication {
    /// The sender of one data arbiter, whose outboxes take `outbox_bytes_max` each.
    pub fn new(identity: Identity, clock: Clock, view: Arc<View>, outbox_bytes_max: usize, hints: Hints) -> Self {
        Self {
            identity,
            outbox_bytes_max,
            clock,
            view,
            outlets: BTreeMap::new(),
            hints,
            hint_waiters: Vec::new(),
            pending: BTreeMap::new(),
            next_pending: 1,
            counters: Counters::default(),
            diverged: None,
            doubts: None,
            store: None,
            watching: false,
        }
    }

    /// The outlet to a peer, with a link opened or being opened; `None` if it can't be reached at the moment.
    fn outlet(&mut self, peer: PeerIx, ctx: &mut Context<Self>) -> Option<&mut Outlet> {
        let known = self.view.peer(peer)?;
        let address = known.address?;
        let outlet = self.outlets.entry(peer).or_insert_with(|| Outlet::new(self.outbox_bytes_max));
        if !outlet.is_linked() {
            let now = self.clock.uptime();
            if !outlet.may_dial(now) {
                return None;
            }
            let (generation, pulse, frames) = outlet.dial(now);
            let dial = link::Dial {
                net: self.identity.net,
                clock: self.clock,
                address,
                cluster: self.identity.cluster.clone(),
                me: self.identity.node.clone(),
                incarnation: self.identity.incarnation,
                expects: known.member.id.clone(),
                expects_incarnation: known.member.incarnation,
                peer,
                generation,
            };
            actix::spawn(link::run(dial, pulse, frames, ctx.address()));
        }
        self.watch(ctx);
        self.outlets.get_mut(&peer)
    }

    fn post(&mut self, peer: PeerIx, record: &[u8], posted: Posted, ctx: &mut Context<Self>) -> bool {
        let (alive, now) = (self.view.is_alive(peer), self.clock.uptime());
        // A record without bytes was too much for any outbox.
        let takes = alive && !record.is_empty();
        let taken = takes && self.outlet(peer, ctx).is_some_and(|outlet| outlet.post(record, posted, now));
        if taken {
            self.counters.inc(Counter::EntriesSent);
            self.counters.add(Counter::ReplicationBytes, record.len() as u64);
        } else {
            self.counters.inc(Counter::EntriesDropped);
            self.mark_diverged(peer, posted.partition);
            self.watch(ctx);
        }
        taken
    }

    fn mark_diverged(&mut self, peer: PeerIx, partition: Partition) {
        self.outlets.entry(peer).or_insert_with(|| Outlet::new(self.outbox_bytes_max)).mark_diverged(partition);
    }

    /// Settles one acknowledgement, or its absence, and tells the waiter once all of its records are settled.
    fn settle(&mut self, ticket: Ticket, peer: PeerIx, verdict: Verdict) {
        let Some(pending) = self.pending.get_mut(&ticket.tally) else { return };
        let Some((tally, op)) = pending.tallies.get_mut(ticket.op as usize) else { return };
        if tally.progress() != Progress::Pending {
            return;
        }
        let progress = match verdict {
            Verdict::Merged => tally.acknowledge(peer),
            Verdict::Newer(version) => {
                pending.outcome.newer.push((*op, version));
                tally.acknowledge(peer)
            }
            Verdict::Astray => {
                pending.outcome.astray.push(*op);
                tally.fail(peer)
            }
            Verdict::Lost => tally.fail(peer),
        };
        pending.open -= usize::from(progress != Progress::Pending);
        match progress {
            Progress::Unmeetable if !pending.outcome.astray.contains(op) => pending.outcome.short.push(*op),
            // The others are enough.
            Progress::Met => pending.outcome.astray.retain(|astray| astray != op),
            Progress::Unmeetable | Progress::Pending => {}
        }
        self.conclude(ticket.tally);
    }

    fn conclude(&mut self, id: u64) {
        if self.pending.get(&id).is_some_and(|pending| pending.open == 0)
            && let Some(mut pending) = self.pending.remove(&id)
            && let Some(commit) = pending.commit.take()
        {
            // The waiter may have run into its deadline.
            let _ = commit.send(pending.outcome);
        }
    }

    /// What a peer was not, or may not have been, sent counts towards no level, whether or not it is noted for it.
    fn lose(&mut self, peer: PeerIx, tickets: impl IntoIterator<Item = Ticket>) {
        let verdict = Verdict::Lost;
        #[cfg(feature = "sim")]
        let verdict = if Plant::CountedHint.is_sown() { Verdict::Merged } else { verdict };
        for ticket in tickets {
            self.settle(ticket, peer, verdict);
        }
    }

    /// Starts counting `tallies`, one per record with the sender's number for it; those in `astray` can't be counted any more.
    fn count(&mut self, tallies: Vec<(Tally, u32)>, astray: Vec<u32>, commit: oneshot::Sender<Committed>) -> u64 {
        let id = self.next_pending;
        self.next_pending += 1;
        let open = tallies.iter().filter(|(tally, _)| tally.progress() == Progress::Pending).count();
        let short = tallies.iter().filter(|(t, _)| t.progress() == Progress::Unmeetable).map(|(_, op)| *op).collect();
        let outcome = Committed { short, newer: Vec::new(), astray };
        self.pending.insert(id, Pending { tallies, open, outcome, commit: Some(commit) });
        id
    }

    fn begin_batch(&mut self) {
        self.outlets.values_mut().for_each(Outlet::begin_batch);
    }

    fn flush(&mut self) {
        for outlet in self.outlets.values_mut() {
            outlet.flush();
        }
    }

    /// Keeps an eye on links for as long as something is outstanding, and reports what diverged.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        if !self.watching {
            self.watching = true;
            let begun = self.clock.uptime();
            ctx.run_later(WATCH_EVERY, move |actor, ctx| {
                actor.watching = false;
                let now = actor.clock.uptime();
                if now > begun + 2 * WATCH_EVERY {
                    actor.outlets.values_mut().for_each(|outlet| outlet.excuse(now));
                }
                actor.look(now, ctx);
            });
        }
    }

    fn look(&mut self, now: Moment, ctx: &mut Context<Self>) {
        let (mut silent, mut lost) = (Vec::new(), Vec::new());
        let mut outstanding = false;
        for (peer, outlet) in &mut self.outlets {
            match outlet.look(now) {
                Finding::Silent => silent.push(*peer),
                Finding::Lost => lost.push(*peer),
                Finding::Fine | Finding::Quiet | Finding::Stalled => {}
            }
            outstanding |= outlet.is_waiting();
            let partitions = outlet.take_diverged();
            if !partitions.is_empty()
                && let Some(recipient) = &self.diverged
            {
                recipient.do_send(Diverged { peer: *peer, partitions });
            }
        }
        for peer in silent {
            self.counters.inc(Counter::LinksSilent);
            tracing::info!(peer = self.name(peer), "link silent");
            self.doubt(peer);
        }
        for peer in lost {
            self.break_link(peer, "silent for too long");
            // What it may have missed is reported at the next look.
            outstanding = true;
        }
        if self.hand_over(ctx) || outstanding {
            self.watch(ctx);
        }
    }

    fn name(&self, peer: PeerIx) -> &str {
        self.view.peer(peer).map_or("?", |peer| peer.member.id.as_str())
    }

    fn break_link(&mut self, peer: PeerIx, reason: &str) {
        let name = self.name(peer).to_owned();
        let Some(outlet) = self.outlets.get_mut(&peer).filter(|outlet| outlet.is_linked()) else { return };
        if outlet.is_open() {
            tracing::info!(peer = name, reason, "link closed");
        } else {
            tracing::debug!(peer = name, reason, "link not opened");
        }
        let lost = outlet.close(self.clock.uptime());
        self.lose(peer, lost.waiting);
        self.note_lost(peer, &lost.encoded);
    }

    /// Has the failure detector look at a peer now.
    fn doubt(&self, peer: PeerIx) {
        if let (Some(detector), Some(peer)) = (&self.doubts, self.view.peer(peer)) {
            detector.do_send(Doubt(peer.member.id.clone()));
        }
    }

    fn frame(&mut self, peer: PeerIx, payload: Bytes) {
        match frame::decode(&payload) {
            Ok(Native::Acknowledge { sequence, newer, refused }) => {
                let Some(outlet) = self.outlets.get_mut(&peer) else { return };
                for (ticket, verdict) in outlet.acknowledged(sequence, &newer, &refused) {
                    self.settle(ticket, peer, verdict);
                }
            }
            Ok(Native::Answer { id, .. } | Native::Forwarded { id, .. }) => {
                if let Some(outlet) = self.outlets.get_mut(&peer) {
                    outlet.answered(id, payload);
                }
            }
            Ok(_) | Err(_) => {
                self.counters.inc(Counter::NativeErrors);
                self.break_link(peer, "the peer did not speak as agreed");
            }
        }
    }
}

impl Actor for Replication {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
    }
}

impl Handler<Replicate> for Replication {
    type Result = ();

    fn handle(&mut self, sent: Replicate, ctx: &mut Self::Context) {
        let view = self.view.clone();
        let pending = sent.commit.map(|commit| {
            let current = |record: &Outgoing| record.route.is_none_or(|mark| mark == view.route(record.partition).mark);
            let tally = |record: &Outgoing| {
                let required = view.route(record.partition).write(sent.level);
                let mut tally = Tally::new(if current(record) { required } else { Required::one_of(view.me) });
                tally.acknowledge(view.me);
                (tally, record.op)
            };
            // Counted by a route that has changed since; it goes to the replicas by the new one all the same.
            let astray = sent.records.iter().filter(|record| !current(record)).map(|record| record.op).collect();
            self.count(sent.records.iter().map(tally).collect(), astray, commit)
        });
        self.begin_batch();
        let mut start = 0;
        for (n, record) in sent.records.iter().enumerate() {
            let ticket = pending.map(|tally| Ticket { tally, op: u32::try_from(n).expect("batches are bounded") });
            for peer in view.route(record.partition).replicas().filter(|peer| *peer != view.me) {
                let (encoded, posted) =
                    (&sent.bytes[start..record.end], Posted { partition: record.partition, ticket });
                if self.post(peer, encoded, posted, ctx) {
                    continue;
                }
                self.lose(peer, ticket);
                self.note_missed(peer, encoded);
            }
            start = record.end;
        }
        if let Some(id) = pending {
            self.conclude(id);
        }
        self.flush();
    }
}

impl Handler<CallPeer> for Replication {
    type Result = ResponseFuture<Result<Bytes, LinkError>>;

    fn handle(&mut self, call: CallPeer, ctx: &mut Self::Context) -> Self::Result {
        let now = self.clock.uptime();
        let answer = match self.outlet(call.peer, ctx) {
            Some(outlet) => outlet.call(&call.call, now),
            None => Err(LinkError::Unreachable),
        };
        Box::pin(async move {
            match answer {
                Ok(answer) => answer.await.unwrap_or(Err(LinkError::Broken { within: REQUEST_TIMEOUT })),
                Err(error) => Err(error),
            }
        })
    }
}

impl Handler<ViewChanged> for Replication {
    type Result = ();

    fn handle(&mut self, ViewChanged(view): ViewChanged, ctx: &mut Self::Context) {
        let life = |view: &View, peer| view.peer(peer).map(|p: &Peer| (p.member.incarnation, p.address));
        let is_down = |peer| view.peer(peer).is_none_or(|p| p.liveness == Liveness::Down);
        let is_gone = |peer: &PeerIx| life(&self.view, *peer) != life(&view, *peer) || is_down(*peer);
        let gone: Vec<PeerIx> = self.outlets.keys().copied().filter(is_gone).collect();
        self.view = view;
        for peer in gone {
            self.break_link(peer, "the member is down, gone or started anew");
            if self.view.peer(peer).is_none() {
                self.outlets.remove(&peer);
                self.hints.forget(peer);
            }
        }
        // Whoever is back gets what it missed before anything else.
        if self.hand_over(ctx) {
            self.watch(ctx);
        }
    }
}

impl Handler<ReportTo> for Replication {
    type Result = ();

    fn handle(&mut self, to: ReportTo, _: &mut Self::Context) {
        self.diverged = Some(to.diverged);
        self.doubts = Some(to.doubts);
        self.store = Some((to.store, to.partitions));
    }
}

impl Handler<AskStats> for Replication {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.uptime();
        let mut counters = self.counters.clone();
        counters.merge(self.hints.counters());
        MessageResult(ReplicationStats {
            counters,
            hints_pending: self.hints.pending(),
            hints_due: self.living_targets().map(|peer| self.hints.pending_for(peer)).sum(),
            hints_bytes: self.hints.bytes(),
            outbox_bytes: self.outlets.values().map(Outlet::outbox_bytes).sum(),
            links: self.outlets.iter().filter_map(|(peer, outlet)| outlet.open_link(*peer, now)).collect(),
            calls: self.outlets.values().map(Outlet::calls).sum(),
        })
    }
}

impl Handler<LinkUp> for Replication {
    type Result = ();

    fn handle(&mut self, up: LinkUp, ctx: &mut Self::Context) {
        let now = self.clock.uptime();
        if let Some(outlet) = self.outlets.get_mut(&up.peer)
            && outlet.opened(up.generation, (up.their_ms, up.at), now)
        {
            self.counters.inc(Counter::LinksOpened);
            self.hand_over(ctx);
        }
    }
}

impl Handler<LinkDown> for Replication {
    type Result = ();

    fn handle(&mut self, down: LinkDown, _: &mut Self::Context) {
        if self.outlets.get(&down.peer).is_some_and(|outlet| outlet.is_generation(down.generation)) {
            self.counters.inc(if down.was_open { Counter::LinksBroken } else { Counter::DialsFailed });
            self.break_link(down.peer, &down.reason);
            self.doubt(down.peer);
        }
    }
}

impl Handler<LinkFrames> for Replication {
    type Result = ();

    fn handle(&mut self, sent: LinkFrames, _: &mut Self::Context) {
        if !self.outlets.get_mut(&sent.peer).is_some_and(|outlet| outlet.heard(sent.generation)) {
            return;
        }
        for payload in sent.frames {
            self.frame(sent.peer, payload);
        }
        // Acknowledgements make room and close gaps in which records gathered.
        self.flush();
    }
}
