//! The gossip actor: runs the failure detector on an arbiter of its own, carries its datagrams, and tells the ring owner what it saw.
//! Never decides who is alive; `cluster::gossip` does. Exercised by the simulation.
//!
//! Bound: datagrams are read as fast as they are judged, and what the kernel can't hold it drops; the detector bounds its members.

mod probe;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use crate::base::counters::{Counter, Counters};
use crate::base::id::NodeId;
use crate::base::limits::DATAGRAM_BYTES_MAX;
use crate::cluster::gossip::{Effect, Gossip, Member, MemberState, NamedSeed, Refusal, SeedWatch};
use crate::cluster::view::{Liveness, Sighting};
use crate::net::Udp;

use super::clock::Clock;
use super::replication::Identity;
use super::ring::{LocalDigest, PullFrom, RingActor, SeedsMet, Sighted};

/// Datagrams judged between two looks at the timers: the timers must not starve under a flood.
const DATAGRAMS_PER_TURN: usize = 64;
/// Seeds are looked up anew this often, as names move, and more often while nobody was found.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
const RESOLVE_EVERY_ALONE: Duration = Duration::from_secs(1);
/// Another process under this node's id is reported about every ten seconds while it lives; after thrice that it is gone.
const TWIN_GONE_AFTER: Duration = Duration::from_secs(30);

/// A link to that member broke: look at it now.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Doubt(pub NodeId);

/// Say good-bye and stop.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct SayGoodbye;

/// Never return, and hold the arbiter. For the tests of a node with a part that hangs.
#[cfg(feature = "sim")]
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Hang;

/// What was counted.
#[derive(Message, Debug)]
#[rtype(result = "GossipStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Clone)]
pub struct GossipStats {
    /// Counts.
    pub counters: Counters,
    /// Why this node knows nobody, where it should.
    pub alone: Option<String>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Datagrams(Vec<(SocketAddr, Vec<u8>)>, tokio::sync::oneshot::Sender<()>);

#[derive(Message)]
#[rtype(result = "()")]
struct Resolved(Vec<NamedSeed>);

/// What silent seeds said when they were asked why.
#[derive(Message)]
#[rtype(result = "()")]
struct Asked(Vec<(SocketAddr, String)>);

/// The actor.
pub struct GossipActor {
    core: Gossip,
    clock: Clock,
    started: Instant,
    identity: Identity,
    socket: Rc<Udp>,
    outgoing: tokio::sync::mpsc::UnboundedSender<(SocketAddr, Vec<u8>)>,
    to_send: Option<tokio::sync::mpsc::UnboundedReceiver<(SocketAddr, Vec<u8>)>>,
    ring: Addr<RingActor>,
    seeds: Vec<String>,
    watch: SeedWatch,
    /// Another process under this node's id, and when it was heard.
    twin: Option<(SocketAddr, Instant)>,
    timer: Option<(Instant, SpawnHandle)>,
    counters: Counters,
    /// Datagrams that the writer task could not send.
    unsent: Rc<Cell<u64>>,
}

impl GossipActor {
    /// An actor for `core`, whose time counts from `started` on `clock`.
    pub fn new(
        core: Gossip,
        (clock, started): (Clock, Instant),
        identity: Identity,
        socket: Udp,
        ring: Addr<RingActor>,
        seeds: Vec<String>,
    ) -> Self {
        // Unbounded, but what enters it in one turn is bounded by the core, and the writer task takes it at once.
        let (outgoing, to_send) = tokio::sync::mpsc::unbounded_channel();
        Self {
            core,
            clock,
            started,
            identity,
            socket: Rc::new(socket),
            outgoing,
            to_send: Some(to_send),
            ring,
            seeds,
            watch: SeedWatch::default(),
            twin: None,
            timer: None,
            counters: Counters::default(),
            unsent: Rc::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        let since = self.clock.monotonic().saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Carries out what the core wants and sets the timer for when it wants to be called again.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        while let Some(effect) = self.core.next_effect() {
            self.perform(effect);
        }
        let faults = self.core.faults() - self.counters.count(Counter::GossipFaults);
        if faults > 0 {
            self.counters.add(Counter::GossipFaults, faults);
            tracing::error!(faults, "the failure detector made a mistake of its own");
        }
        let wanted = self.core.next_deadline().map(|at| self.started + Duration::from_millis(at));
        if self.timer.as_ref().map(|(at, _)| *at) == wanted {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = wanted {
            let handle = ctx.run_later(at.saturating_duration_since(self.clock.monotonic()), |actor, ctx| {
                actor.timer = None;
                actor.core.tick(actor.now_ms());
                actor.settle(ctx);
            });
            self.timer = Some((at, handle));
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => {
                self.counters.inc(Counter::DatagramsSent);
                let _ = self.outgoing.send((to, bytes));
            }
            Effect::SeedsMet => self.ring.do_send(SeedsMet),
            Effect::Member(member) => self.ring.do_send(sighted(member)),
            Effect::Forgotten(id) => self.ring.do_send(Sighted { id, sighting: None }),
            Effect::DigestDiffers { from, .. } => self.ring.do_send(PullFrom::Address(from)),
            Effect::Refused { refusal, from, log } => {
                self.counters.inc(match refusal {
                    Refusal::Garbage => Counter::DatagramsGarbage,
                    Refusal::Version(_) => Counter::DatagramsVersion,
                    Refusal::Cluster => Counter::DatagramsCluster,
                    Refusal::Full => Counter::MembersRefused,
                });
                if log && refusal == Refusal::Cluster {
                    // A datagram has but the fingerprint of its cluster's name; the names meet when that node asks over TCP why.
                    tracing::warn!(%from, ours = %self.identity.cluster, "datagram refused: from another cluster name");
                } else if log {
                    tracing::warn!(%from, reason = ?refusal, "datagram refused");
                }
            }
            Effect::Twin { address, incarnation } => {
                tracing::error!(%address, incarnation, "another process uses this node's id");
                self.twin = Some((address, self.clock.monotonic()));
            }
        }
    }

    /// Why this node knows no other, where it should.
    fn alone(&self) -> Option<String> {
        let now = self.clock.monotonic();
        let twin = self.twin.filter(|(_, heard)| now.saturating_duration_since(*heard) < TWIN_GONE_AFTER);
        match twin {
            Some((address, _)) => Some(format!("another process uses this node's id: {address}")),
            None => self.watch.alone(),
        }
    }

    fn resolve(&self, ctx: &mut Context<Self>) {
        let (net, seeds, me) = (self.identity.net, self.seeds.clone(), ctx.address());
        if seeds.is_empty() {
            return;
        }
        actix::spawn(async move {
            let mut found = Vec::new();
            for name in seeds {
                let addresses = net.resolve(&name).await.map_err(|error| error.to_string());
                found.push(NamedSeed { name, found: addresses });
            }
            me.do_send(Resolved(found));
        });
    }
}

fn sighted(member: Member) -> Sighted {
    let liveness = match member.state {
        MemberState::Alive => Liveness::Alive,
        MemberState::Suspect => Liveness::Suspect,
        MemberState::Down | MemberState::Left => Liveness::Down,
    };
    let sighting = Sighting { liveness, incarnation: member.incarnation, address: member.address };
    Sighted { id: member.id, sighting: Some(sighting) }
}

/// Reads datagrams and hands them over a few at a time, waiting for each handful to be judged.
async fn receive(socket: Rc<Udp>, to: Addr<GossipActor>) {
    let mut buf = [0; DATAGRAM_BYTES_MAX + 1];
    loop {
        let mut taken = Vec::new();
        match socket.receive(&mut buf).await {
            Ok((bytes, from)) => taken.push((from, buf[..bytes].to_vec())),
            // An earlier send met a closed port; it says nothing about this socket.
            Err(_) => {
                tokio::task::yield_now().await;
                continue;
            }
        }
        while taken.len() < DATAGRAMS_PER_TURN
            && let Some(Ok((bytes, from))) = futures_util::FutureExt::now_or_never(socket.receive(&mut buf))
        {
            taken.push((from, buf[..bytes].to_vec()));
        }
        let (judged, wait) = tokio::sync::oneshot::channel();
        to.do_send(Datagrams(taken, judged));
        if wait.await.is_err() {
            return;
        }
    }
}

impl Actor for GossipActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        actix::spawn(receive(self.socket.clone(), ctx.address()));
        let mut to_send = self.to_send.take().expect("an actor starts once");
        let (socket, unsent) = (self.socket.clone(), self.unsent.clone());
        actix::spawn(async move {
            while let Some((to, bytes)) = to_send.recv().await {
                // A datagram may be lost anywhere; the protocol lives with it.
                if let Err(error) = socket.send(&bytes, to).await {
                    unsent.set(unsent.get() + 1);
                    tracing::debug!(%to, %error, "datagram not sent");
                }
            }
        });
        self.resolve(ctx);
        self.core.tick(self.now_ms());
        self.settle(ctx);
    }
}

impl Handler<Datagrams> for GossipActor {
    type Result = ();

    fn handle(&mut self, Datagrams(taken, judged): Datagrams, ctx: &mut Self::Context) {
        self.counters.add(Counter::Datagrams, taken.len() as u64);
        // First what is overdue: an answer that waited while this node did not run must not be judged late.
        self.core.tick(self.now_ms());
        for (from, bytes) in taken {
            self.core.receive(self.now_ms(), from, &bytes);
        }
        self.settle(ctx);
        let _ = judged.send(());
    }
}

impl Handler<Resolved> for GossipActor {
    type Result = ();

    fn handle(&mut self, Resolved(seeds): Resolved, ctx: &mut Self::Context) {
        let now_ms = self.now_ms();
        self.core.seeds(now_ms, seeds.iter().flat_map(|seed| seed.found.iter().flatten().copied()).collect());
        self.settle(ctx);
        if self.watch.look(now_ms, &seeds, self.core.address(), self.core.answered()) {
            let (identity, to_ask, me) = (self.identity.clone(), self.watch.to_ask(), ctx.address());
            actix::spawn(async move {
                let asked = to_ask.iter().map(async |address| (*address, probe::ask(&identity, *address).await));
                me.do_send(Asked(futures_util::future::join_all(asked).await));
            });
        }
        let pause = if self.core.connected() { RESOLVE_EVERY } else { RESOLVE_EVERY_ALONE };
        ctx.run_later(pause, |actor, ctx| actor.resolve(ctx));
    }
}

impl Handler<Asked> for GossipActor {
    type Result = ();

    fn handle(&mut self, Asked(findings): Asked, _: &mut Self::Context) {
        for (address, finding) in findings {
            self.watch.learned(address, &finding);
        }
        if let Some(line) = self.watch.line() {
            tracing::warn!("{line}");
        }
    }
}

impl Handler<LocalDigest> for GossipActor {
    type Result = ();

    fn handle(&mut self, ours: LocalDigest, ctx: &mut Self::Context) {
        self.core.local_digest(ours.digest, ours.epoch);
        self.settle(ctx);
    }
}

impl Handler<Doubt> for GossipActor {
    type Result = ();

    fn handle(&mut self, Doubt(node): Doubt, ctx: &mut Self::Context) {
        self.core.suspect_hint(self.now_ms(), &node);
        self.settle(ctx);
    }
}

impl Handler<SayGoodbye> for GossipActor {
    type Result = ();

    fn handle(&mut self, _: SayGoodbye, ctx: &mut Self::Context) {
        self.core.leave(self.now_ms());
        self.settle(ctx);
    }
}

impl Handler<AskStats> for GossipActor {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        let mut counters = self.counters.clone();
        counters.add(Counter::DatagramsUnsent, self.unsent.get());
        MessageResult(GossipStats { counters, alone: self.alone() })
    }
}

#[cfg(feature = "sim")]
impl Handler<Hang> for GossipActor {
    type Result = ();

    fn handle(&mut self, _: Hang, _: &mut Self::Context) {
        loop {
            std::thread::park();
        }
    }
}
