//! The hub of published messages, one a node: from whoever publishes to this node's subscribers and to the members whose clients want to hear
//! it. It tells the others what its own clients want to hear. Who gets what is decided by `cluster::pubsub`. Exercised by
//! `tests/clients/check_pubsub.py` and `tests/clients/differential_pubsub.py`.
//!
//! Bounds: `NODE_SUBSCRIPTIONS_MAX`; of each subscriber `PUSH_BYTES_MAX`; of each member one change and one batch under way, and
//! `PUBLISH_BYTES_MAX` waiting.

mod ask;
mod inbox;
mod messages;
mod notices;
mod peers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::base::channel::Kind;
use crate::base::counters::{Counter, Counters};
use crate::base::glob;
use crate::base::limits::{
    LARGE_VALUE_BYTES, NODE_SUBSCRIPTIONS_BYTES_MAX, NODE_SUBSCRIPTIONS_MAX, PUBLISH_BYTES_MAX, REQUEST_TIMEOUT,
};
use crate::base::notify::Classes;
use crate::cluster::pubsub::{Interest, Ledger, Mailbag, Name, Parcel, Publications, Roster};
use crate::cluster::view::{PeerIx, View};
use crate::protocol::resp::subscriptions::Pushed;

use super::clock::Clock;
use super::local::Local;
use super::replication::{Identity, ViewChanged};
use super::store::{Audience, Notify};

pub use ask::{Unasked, names, subscribers};
pub use inbox::{Feed, Inbox, Waiting};
pub use messages::*;
pub use peers::change;

/// A subscription is confirmed at the latest after this time, whether or not all members know of it: longer than it takes to find out that one
/// can't be reached.
const CONFIRM_MAX: Duration = Duration::from_secs(1);

/// A client whose subscription waits until the members know of it.
struct Confirmation {
    version: u64,
    by: Instant,
    to: oneshot::Sender<()>,
}

/// The actor.
pub struct Hub {
    identity: Identity,
    clock: Clock,
    view: Arc<View>,
    local: Local,
    roster: Roster<Arc<Inbox>>,
    ledger: Ledger,
    /// What other members' clients want to hear, and of which life of them.
    interests: BTreeMap<PeerIx, (u64, Interest)>,
    bags: BTreeMap<PeerIx, Mailbag>,
    publications: Publications<oneshot::Sender<u64>>,
    confirmations: Vec<Confirmation>,
    /// Events of keys that subscribers here are to be told of.
    classes: Classes,
    /// What the stores have been asked for.
    noticed: Classes,
    /// Events of keys that they have sent and that are not published yet.
    under_way: Arc<AtomicUsize>,
    counters: Counters,
}

impl Hub {
    /// A hub without subscribers, beside these stores and replication senders, whose subscribers are told of events of keys of `classes`.
    pub fn new(identity: Identity, clock: Clock, view: Arc<View>, local: Local, classes: Classes) -> Self {
        let mut hub = Self {
            identity,
            clock,
            view,
            local,
            roster: Roster::default(),
            ledger: Ledger::default(),
            interests: BTreeMap::new(),
            bags: BTreeMap::new(),
            publications: Publications::default(),
            confirmations: Vec::new(),
            classes,
            noticed: Classes::NONE,
            under_way: Arc::default(),
            counters: Counters::default(),
        };
        hub.follow_members();
        hub
    }

    /// Sends a message to this node's subscribers; how many.
    fn deliver(&mut self, kind: Kind, channel: &Bytes, payload: &Bytes) -> u64 {
        let (mut sent, mut cut) = (0, 0);
        for (pattern, inbox) in self.roster.matching(kind, channel) {
            let pushed = Pushed { kind, pattern: pattern.cloned(), channel: channel.clone(), payload: payload.clone() };
            match inbox.push(pushed) {
                Ok(arrives) => sent += arrives,
                Err(_) => cut += 1,
            }
        }
        self.counters.add(Counter::MessagesDelivered, sent);
        if cut > 0 {
            self.counters.add(Counter::SubscribersSlow, cut);
            tracing::warn!(subscribers = cut, "subscribers cut off: they take too little of what is published");
        }
        sent
    }

    /// Members whose clients want to hear a message. Of those that have not said, nobody knows that they do not.
    fn interested(&self, kind: Kind, channel: &[u8]) -> Vec<PeerIx> {
        let wants = |peer: &PeerIx, incarnation| match self.interests.get(peer) {
            Some((life, interest)) if *life == incarnation => interest.wants(kind, channel),
            _ => true,
        };
        let reachable = peers::members(&self.view).filter(|(_, _, alive)| *alive);
        reachable.filter(|(peer, life, _)| wants(peer, *life)).map(|(peer, ..)| peer).collect()
    }

    /// Posts a message to a member, or counts it as lost.
    fn post(&mut self, peer: PeerIx, parcel: Parcel, ctx: &mut Context<Self>) {
        match self.bags.entry(peer).or_default().post(parcel, PUBLISH_BYTES_MAX) {
            Ok(()) => self.send(peer, ctx),
            Err(parcel) => self.lose(vec![parcel.ticket]),
        }
    }

    /// Messages that did not arrive, or of which nobody knows.
    fn lose(&mut self, tickets: Vec<Option<u64>>) {
        self.counters.add(Counter::MessagesLost, tickets.len() as u64);
        tickets.into_iter().flatten().for_each(|ticket| self.settle(ticket, 0));
    }

    fn settle(&mut self, ticket: u64, count: u64) {
        if let Some((sum, to)) = self.publications.settle(ticket, count) {
            // The publisher may have gone.
            let _ = to.send(sum);
        }
    }

    /// What comes of names that came or went: members are told. The version that all have to know.
    fn changed(&mut self, names: &[Name], ctx: &mut Context<Self>) -> u64 {
        let version = self.ledger.changed(names, &self.roster, self.classes);
        self.attend(ctx);
        for peer in self.ledger.peers() {
            self.tell(peer, ctx);
        }
        version
    }

    /// Asks the stores for the events of keys that anybody wants to hear of, here or elsewhere. What is written from now on finds them asked.
    fn attend(&mut self, ctx: &mut Context<Self>) {
        let reachable = peers::members(&self.view).filter(|(.., alive)| *alive);
        let theirs = reachable.filter_map(|(peer, life, _)| self.interests.get(&peer).filter(|(of, _)| *of == life));
        let wanted = theirs.fold(self.ledger.classes(), |all, (_, interest)| all | interest.classes());
        if wanted != std::mem::replace(&mut self.noticed, wanted) {
            let audience = Audience { to: ctx.address().recipient(), under_way: self.under_way.clone() };
            for store in &self.local.stores {
                store.do_send(Notify(wanted, audience.clone()));
            }
        }
    }

    /// Resolves once all members that can be reached know a version, or after a while.
    fn confirmed(&mut self, version: u64, ctx: &mut Context<Self>) -> oneshot::Receiver<()> {
        let (to, confirmed) = oneshot::channel();
        if self.ledger.known() >= version {
            // The other end is in this very function.
            let _ = to.send(());
        } else {
            self.confirmations.push(Confirmation { version, by: self.clock.monotonic() + CONFIRM_MAX, to });
            ctx.run_later(CONFIRM_MAX, |hub, _| hub.confirm());
        }
        confirmed
    }

    /// Confirms what can be, and what waits for too long.
    fn confirm(&mut self) {
        let (known, now) = (self.ledger.known(), self.clock.monotonic());
        for done in self.confirmations.extract_if(.., |waits| waits.version <= known || waits.by <= now) {
            if done.version > known {
                self.counters.inc(Counter::SubscriptionsUnconfirmed);
            }
            let _ = done.to.send(());
        }
    }
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
    }
}

impl Handler<Subscribe> for Hub {
    type Result = ResponseFuture<Result<(), Full>>;

    fn handle(&mut self, asked: Subscribe, ctx: &mut Self::Context) -> Self::Result {
        let bytes: usize = asked.names.iter().map(Bytes::len).sum();
        if self.roster.subscriptions() + asked.names.len() > NODE_SUBSCRIPTIONS_MAX
            || self.roster.bytes() + bytes > NODE_SUBSCRIPTIONS_BYTES_MAX
        {
            self.counters.inc(Counter::SubscriptionsRefused);
            return Box::pin(async { Err(Full) });
        }
        let mut news: Vec<Name> = Vec::new();
        for name in asked.names {
            if self.roster.add((asked.kind, &name), asked.id, asked.inbox.clone()) {
                news.push((asked.kind, name));
            }
        }
        // Without news it waits all the same: whoever subscribed first may still do so.
        let version = self.changed(&news, ctx);
        let confirmed = self.confirmed(version, ctx);
        Box::pin(async move {
            // A hub that stops confirms nothing, and ends the node.
            let _ = confirmed.await;
            Ok(())
        })
    }
}

impl Handler<Unsubscribe> for Hub {
    type Result = ();

    fn handle(&mut self, asked: Unsubscribe, ctx: &mut Self::Context) {
        let mut gone: Vec<Name> = Vec::new();
        for (kind, names) in Kind::ALL.into_iter().zip(asked.names) {
            gone.extend(
                names.into_iter().filter(|name| self.roster.remove((kind, name), asked.id)).map(|name| (kind, name)),
            );
        }
        self.changed(&gone, ctx);
    }
}

impl Handler<SetClasses> for Hub {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, SetClasses(classes): SetClasses, ctx: &mut Self::Context) -> Self::Result {
        self.classes = classes;
        let version = self.changed(&[], ctx);
        let confirmed = self.confirmed(version, ctx);
        Box::pin(async move {
            let _ = confirmed.await;
        })
    }
}

impl Handler<Publish> for Hub {
    type Result = ResponseFuture<u64>;

    fn handle(&mut self, Publish { kind, channel, payload }: Publish, ctx: &mut Self::Context) -> Self::Result {
        self.counters.inc(Counter::MessagesPublished);
        // Copies: a message must not keep the buffer it was read into for as long as a subscriber is slow.
        let own = |bytes: Bytes| if bytes.len() < LARGE_VALUE_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes };
        let (channel, payload) = (own(channel), own(payload));
        let here = self.deliver(kind, &channel, &payload);
        let peers = self.interested(kind, &channel);
        if peers.is_empty() {
            return Box::pin(async move { here });
        }
        let (to, counted) = oneshot::channel();
        let ticket = Some(self.publications.open(peers.len(), here, to));
        for peer in peers {
            self.post(peer, Parcel { kind, channel: channel.clone(), payload: payload.clone(), ticket }, ctx);
        }
        Box::pin(async move {
            match tokio::time::timeout(REQUEST_TIMEOUT, counted).await {
                Ok(Ok(count)) => count,
                // What others do with it will not be known in time.
                Ok(Err(_)) | Err(_) => here,
            }
        })
    }
}

impl Handler<Deliver> for Hub {
    type Result = Vec<u64>;

    fn handle(&mut self, Deliver(parcels): Deliver, _: &mut Self::Context) -> Vec<u64> {
        parcels.iter().map(|parcel| self.deliver(parcel.kind, &parcel.channel, &parcel.payload)).collect()
    }
}

impl Handler<ViewChanged> for Hub {
    type Result = ();

    fn handle(&mut self, ViewChanged(view): ViewChanged, ctx: &mut Self::Context) {
        self.view = view;
        self.follow_members();
        self.attend(ctx);
        for peer in self.ledger.peers() {
            self.tell(peer, ctx);
        }
        self.confirm();
    }
}

impl Handler<Names> for Hub {
    type Result = Vec<Bytes>;

    fn handle(&mut self, Names(kind, pattern): Names, _: &mut Self::Context) -> Vec<Bytes> {
        let fits = |name: &&Bytes| glob::matches(&pattern, name);
        self.roster.names(kind).filter(fits).cloned().collect()
    }
}

impl Handler<Counts> for Hub {
    type Result = Vec<u64>;

    fn handle(&mut self, Counts(kind, names): Counts, _: &mut Self::Context) -> Vec<u64> {
        names.iter().map(|name| self.roster.count(kind, name) as u64).collect()
    }
}

impl Handler<AskStats> for Hub {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        let names = |kind| self.roster.names(kind).count();
        MessageResult(HubStats {
            counters: self.counters.clone(),
            subscriptions: self.roster.subscriptions(),
            channels: names(Kind::Channel),
            patterns: names(Kind::Pattern),
            shard_channels: names(Kind::Shard),
        })
    }
}
