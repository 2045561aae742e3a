//! The ring owner, one per node: the only writer of the membership and of the published view. Merges what others say, draws the ring
//! anew when it changed, and tells those who asked to know. The rules live in `cluster::membership`, `cluster::ring` and `cluster::view`.
//! Never touches a value. Tested in `ring/tests.rs` and exercised by the simulation.
//!
//! Bound: `PULLS_MAX` exchanges at a time; the membership bounds itself.

mod exchange;
mod leave;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::base::counters::{Counter, Counters};
use crate::base::id::NodeId;
use crate::cluster::forget::may_forget;
use crate::cluster::membership::{Member, Membership};
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::ring::Ring;
use crate::cluster::view::{Cartographer, Liveness, Peer, PeerIx, Sighting, View};

use self::leave::Wish;
pub use self::leave::{Depart, Leave, Reshare, Stay};
use super::clock::Clock;
use super::replication::{Identity, ViewChanged};
use super::router::SharedView;

/// Exchanges under way at a time; a further one is asked for again by the next datagram that differs.
const PULLS_MAX: usize = 8;
/// How often members that are long gone are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Exchange memberships with a node.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub enum PullFrom {
    /// A member.
    Peer(PeerIx),
    /// Whoever is there.
    Address(SocketAddr),
}

/// A membership from another node; answered with the merged one.
#[derive(Message, Debug)]
#[rtype(result = "Vec<u8>")]
pub struct Exchange(pub Vec<u8>);

/// The failure detector's news.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Sighted {
    /// Who.
    pub id: NodeId,
    /// What is known; `None` when the detector has forgotten the member.
    pub sighting: Option<Sighting>,
}

/// Most of this node's seeds have been heard.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct SeedsMet;

/// This node holds all of these partitions, as data of this founding.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Holds {
    /// Which.
    pub partitions: PartitionSet,
    /// Where the data descends from.
    pub founding: u64,
    /// How often this node had been forgotten when that was so.
    pub lapses: u32,
}

/// Take a dead member out of the ring.
#[derive(Message, Debug)]
#[rtype(result = "Result<(), String>")]
pub struct Forget(pub NodeId);

/// Somebody who wants every new view.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe(pub Recipient<ViewChanged>);

/// What was counted.
#[derive(Message, Debug)]
#[rtype(result = "RingStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Clone)]
pub struct RingStats {
    /// Counts.
    pub counters: Counters,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Pulled {
    from: SocketAddr,
    membership: Option<Vec<u8>>,
}

/// What the ring owner is told at its start.
pub struct RingConfig {
    /// Who this node is.
    pub identity: Identity,
    /// Its clock.
    pub clock: Clock,
    /// What it says of itself.
    pub me: Member,
    /// A member down for this long is forgotten; `None` never.
    pub forget_after: Option<Duration>,
    /// Told when this node has left.
    pub departed: Arc<Notify>,
}

/// The actor.
pub struct RingActor {
    config: RingConfig,
    membership: Membership,
    sightings: BTreeMap<NodeId, Sighting>,
    down_since: BTreeMap<NodeId, Instant>,
    cartographer: Cartographer,
    ring: Arc<Ring>,
    view: SharedView,
    subscribers: Vec<Recipient<ViewChanged>>,
    digest: Option<Recipient<LocalDigest>>,
    pulling: BTreeSet<SocketAddr>,
    seeds_met: bool,
    /// How often others have forgotten this node.
    lapses: u32,
    wish: Wish,
    /// Lives of members that are down for too long and are waited for all the same.
    held_back: BTreeSet<(NodeId, u64)>,
    /// Lives of members that are down and have lost what they held.
    gone: BTreeSet<(NodeId, u64)>,
    counters: Counters,
}

/// No process listens where this life of a member was.
#[derive(Message)]
#[rtype(result = "()")]
struct NobodyThere(NodeId, u64);

/// What this node's membership hashes to; goes out with every datagram.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct LocalDigest {
    /// Of the membership.
    pub digest: u64,
    /// Of the ring.
    pub epoch: u64,
}

/// Who carries the digest out.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AnnounceThrough(pub Recipient<LocalDigest>);

/// The membership of a node that knows only itself, and the picture it gives.
///
/// # Panics
/// If `me` is no valid member; configuration is checked before.
pub fn alone(me: &Member) -> (Membership, Cartographer, View) {
    let mut membership = Membership::default();
    membership.join(me.clone()).expect("a checked configuration makes a valid member");
    let mut cartographer = Cartographer::new(me.id.clone());
    let view = cartographer.draw(&membership, Arc::new(Ring::build(&membership)), &BTreeMap::new());
    (membership, cartographer, view)
}

impl RingActor {
    /// The owner of `view`, which shows what [`alone`] gave.
    pub fn new(config: RingConfig, membership: Membership, cartographer: Cartographer, view: SharedView) -> Self {
        let ring = view.load().ring.clone();
        Self {
            config,
            membership,
            sightings: BTreeMap::new(),
            down_since: BTreeMap::new(),
            cartographer,
            ring,
            view,
            subscribers: Vec::new(),
            digest: None,
            pulling: BTreeSet::new(),
            seeds_met: false,
            lapses: 0,
            wish: Wish::Stay,
            held_back: BTreeSet::new(),
            gone: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    /// Merges a membership. False if it was refused.
    fn merge(&mut self, bytes: &[u8], from: Option<SocketAddr>) -> bool {
        let merged = exchange::decode(bytes)
            .and_then(|theirs| self.membership.merge(&theirs).map_err(|refused| refused.to_string()));
        match merged {
            Ok(changes) => {
                self.counters.inc(Counter::MembershipPulls);
                if !changes.is_empty() {
                    self.stay();
                    // Not the epoch decides: a later life that did not know the former one begins with the same revision.
                    self.publish(!changes.records.is_empty() || changes.floor);
                }
                true
            }
            Err(reason) => {
                self.counters.inc(Counter::NativeErrors);
                tracing::warn!(from = from.map(tracing::field::display), reason, "membership refused");
                false
            }
        }
    }

    fn publish(&mut self, ring_changed: bool) {
        if ring_changed {
            self.ring = Arc::new(Ring::build(&self.membership));
        }
        let mut view = self.cartographer.draw(&self.membership, self.ring.clone(), &self.sightings);
        view.seeds_met = self.seeds_met;
        view.lapses = self.lapses;
        let view = Arc::new(view);
        self.view.store(view.clone());
        for subscriber in &self.subscribers {
            subscriber.do_send(ViewChanged(view.clone()));
        }
        if let Some(digest) = &self.digest {
            digest.do_send(LocalDigest { digest: self.membership.digest(), epoch: self.membership.epoch() });
        }
    }

    fn pull(&mut self, from: SocketAddr, ctx: &mut Context<Self>) {
        if self.pulling.contains(&from) {
            return;
        }
        if self.pulling.len() >= PULLS_MAX {
            self.counters.inc(Counter::MembershipPullsPutOff);
            return;
        }
        self.pulling.insert(from);
        let identity = self.config.identity.clone();
        let ours = exchange::encode(&self.membership);
        let me = ctx.address();
        actix::spawn(async move {
            let membership = exchange::exchange(&identity, from, &ours).await.map_err(|error| {
                tracing::debug!(%from, %error, "membership not pulled");
            });
            me.do_send(Pulled { from, membership: membership.ok() });
        });
    }

    /// Forgets members that have been down for too long. One node does it, the first of the living, so that a rejoin is not met by several
    /// late verdicts.
    fn forget_the_dead(&mut self, ctx: &mut Context<Self>) {
        let Some(after) = self.config.forget_after else { return };
        let (view, now) = (self.view.load_full(), self.config.clock.monotonic());
        // A member that died before this node came was never seen to go down.
        for (_, peer) in view.others().filter(|(_, peer)| peer.liveness == Liveness::Down) {
            self.down_since.entry(peer.member.id.clone()).or_insert(now);
        }
        let first = view.peers().filter(|(_, p)| p.liveness == Liveness::Alive).map(|(_, p)| &p.member.id).min();
        if first != Some(&self.config.me.id) {
            return;
        }
        let long_down =
            |id: &NodeId| self.down_since.get(id).is_some_and(|since| now.saturating_duration_since(*since) >= after);
        let lost = self.gone.iter().filter_map(|(id, life)| {
            view.find(id).filter(|(_, peer)| peer.member.incarnation == *life).map(|(ix, _)| ix)
        });
        let lost: BTreeSet<PeerIx> = lost.collect();
        let (gone, waited_for): (Vec<_>, Vec<_>) =
            view.others().filter(|(_, p)| long_down(&p.member.id)).partition(|(ix, _)| may_forget(&view, *ix, &lost));
        let gone: Vec<NodeId> = gone.iter().map(|(_, peer)| peer.member.id.clone()).collect();
        for (_, peer) in waited_for {
            self.see_whether_gone(peer, ctx);
        }
        for id in &gone {
            tracing::warn!(node = %id, "forgotten: down for too long");
            if self.membership.forget(id).is_err() {
                tracing::error!(node = %id, "could not be forgotten");
            }
            self.down_since.remove(id);
            self.held_back.retain(|(known, _)| known != id);
            self.gone.retain(|(known, _)| known != id);
        }
        if !gone.is_empty() {
            self.publish(true);
        }
    }

    /// Knocks where a member was that is waited for: if nobody listens there, what it held in memory is gone.
    fn see_whether_gone(&mut self, peer: &Peer, ctx: &mut Context<Self>) {
        let life = (peer.member.id.clone(), peer.member.incarnation);
        if self.held_back.insert(life.clone()) {
            tracing::warn!(node = %life.0, "not forgotten yet: it may be among the only ones to have what was acknowledged");
        }
        let Some(address) = peer.address else { return };
        if self.gone.contains(&life) {
            return;
        }
        let (net, me) = (self.config.identity.net, ctx.address());
        actix::spawn(async move {
            let knocked = net.connect(address, FORGET_EVERY).await;
            if knocked.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
                me.do_send(NobodyThere(life.0, life.1));
            }
        });
    }

    fn note_sighting(&mut self, id: NodeId, sighting: Option<Sighting>) {
        match sighting {
            Some(seen) if seen.liveness == Liveness::Alive => {
                self.down_since.remove(&id);
                self.held_back.retain(|(known, _)| *known != id);
                self.gone.retain(|(known, _)| *known != id);
            }
            _ => {
                self.down_since.entry(id.clone()).or_insert_with(|| self.config.clock.monotonic());
            }
        }
        match sighting {
            Some(sighting) => self.sightings.insert(id, sighting),
            None => self.sightings.remove(&id),
        };
    }
}

/// A member that is gone is a warning, for its copies are too.
fn log_sighting(node: &NodeId, &Sighting { liveness, address, .. }: &Sighting) {
    if liveness == Liveness::Down {
        tracing::warn!(%node, state = ?liveness, %address, "member");
    } else {
        tracing::info!(%node, state = ?liveness, %address, "member");
    }
}

impl Actor for RingActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        if self.config.forget_after.is_some() {
            ctx.run_interval(FORGET_EVERY, Self::forget_the_dead);
        }
    }
}

impl Handler<SeedsMet> for RingActor {
    type Result = ();

    fn handle(&mut self, _: SeedsMet, _: &mut Self::Context) {
        self.seeds_met = true;
        self.publish(false);
    }
}

impl Handler<PullFrom> for RingActor {
    type Result = ();

    fn handle(&mut self, pull: PullFrom, ctx: &mut Self::Context) {
        let address = match pull {
            PullFrom::Address(address) => Some(address),
            PullFrom::Peer(peer) => self.view.load().peer(peer).and_then(|peer| peer.address),
        };
        if let Some(address) = address {
            self.pull(address, ctx);
        }
    }
}

impl Handler<Pulled> for RingActor {
    type Result = ();

    fn handle(&mut self, pulled: Pulled, _: &mut Self::Context) {
        self.pulling.remove(&pulled.from);
        if let Some(bytes) = pulled.membership {
            self.merge(&bytes, Some(pulled.from));
        }
    }
}

impl Handler<Exchange> for RingActor {
    type Result = MessageResult<Exchange>;

    fn handle(&mut self, Exchange(bytes): Exchange, _: &mut Self::Context) -> Self::Result {
        self.merge(&bytes, None);
        MessageResult(exchange::encode(&self.membership))
    }
}

impl Handler<Sighted> for RingActor {
    type Result = ();

    fn handle(&mut self, seen: Sighted, ctx: &mut Self::Context) {
        let before = self.sightings.get(&seen.id).copied();
        self.note_sighting(seen.id.clone(), seen.sighting);
        if before == seen.sighting {
            return;
        }
        if let Some(sighting) = seen.sighting {
            let known = self.membership.member(&seen.id).is_some_and(|m| m.incarnation == sighting.incarnation);
            log_sighting(&seen.id, &sighting);
            if sighting.liveness == Liveness::Alive && !known {
                self.pull(sighting.address, ctx);
            }
        }
        self.publish(false);
    }
}

impl Handler<Holds> for RingActor {
    type Result = ();

    fn handle(&mut self, holds: Holds, _: &mut Self::Context) {
        let me = &self.config.me;
        if holds.lapses != self.lapses {
            // Said before it was heard that what it held counts no more.
            return;
        }
        match self.membership.set_held(&me.id, me.incarnation, holds.partitions, holds.founding) {
            Ok(true) => self.publish(false),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot say what this node holds"),
        }
    }
}

impl Handler<Forget> for RingActor {
    type Result = Result<(), String>;

    fn handle(&mut self, Forget(id): Forget, _: &mut Self::Context) -> Self::Result {
        if id == self.config.me.id {
            return Err("a node can't forget itself".into());
        }
        if self.sightings.get(&id).is_some_and(|seen| seen.liveness == Liveness::Alive) {
            return Err(format!("`{id}` is alive; stop it first"));
        }
        self.membership.forget(&id).map_err(|refused| refused.to_string()).map(|_| self.publish(true))
    }
}

impl Handler<NobodyThere> for RingActor {
    type Result = ();

    fn handle(&mut self, NobodyThere(id, incarnation): NobodyThere, _: &mut Self::Context) {
        let is_alive = self.sightings.get(&id).is_some_and(|seen| seen.liveness == Liveness::Alive);
        if !is_alive && self.membership.member(&id).is_some() {
            self.gone.insert((id, incarnation));
        }
    }
}

impl Handler<Subscribe> for RingActor {
    type Result = ();

    fn handle(&mut self, Subscribe(subscriber): Subscribe, _: &mut Self::Context) {
        subscriber.do_send(ViewChanged(self.view.load_full()));
        self.subscribers.push(subscriber);
    }
}

impl Handler<AnnounceThrough> for RingActor {
    type Result = ();

    fn handle(&mut self, AnnounceThrough(recipient): AnnounceThrough, _: &mut Self::Context) {
        recipient.do_send(LocalDigest { digest: self.membership.digest(), epoch: self.membership.epoch() });
        self.digest = Some(recipient);
    }
}

impl Handler<AskStats> for RingActor {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        MessageResult(RingStats { counters: self.counters.clone() })
    }
}
