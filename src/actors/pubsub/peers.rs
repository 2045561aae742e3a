//! The hub's talk with other members: what this node's clients want to hear, messages on their way, and what comes back. One change and one
//! batch at a time are under way to each.

use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;

use crate::base::channel::Kind;
use crate::base::counters::Counter;
use crate::base::limits::FRAME_BYTES_TARGET;
use crate::cluster::pubsub::{Change, Interest, Name};
use crate::cluster::view::{Liveness, PeerIx, View};
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Answer, Ask, Key, Message as Native, Published, Wanted};

use super::{Heed, Hub};
use crate::actors::replication::{CallPeer, LinkError};

/// A member that did not take what it was told is told again after this time.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Whether a life of a member has taken what it was told.
#[derive(Message)]
#[rtype(result = "()")]
struct Told {
    peer: PeerIx,
    incarnation: u64,
    taken: bool,
}

/// How many subscribers of a member have been sent each message of the batch under way; `None` if nobody knows.
#[derive(Message)]
#[rtype(result = "()")]
struct Delivered(PeerIx, Option<Vec<u64>>);

/// Every other member: which life, and whether it may be reached. One under suspicion may.
pub(super) fn members(view: &View) -> impl Iterator<Item = (PeerIx, u64, bool)> {
    view.others().map(|(ix, peer)| (ix, peer.member.incarnation, peer.liveness != Liveness::Down))
}

impl Hub {
    /// Takes the members over that the view shows. What is known of other lives of them is forgotten, and what is on its way to those that are
    /// down is lost.
    pub(super) fn follow_members(&mut self) {
        let view = self.view.clone();
        self.ledger.follow(members(&view));
        let is_known = |peer: PeerIx, life| view.peer(peer).is_some_and(|known| known.member.incarnation == life);
        self.interests.retain(|peer, (life, _)| is_known(*peer, *life));
        let is_up = |peer| view.peer(peer).is_some_and(|known| known.liveness != Liveness::Down);
        let lost: Vec<Option<u64>> =
            self.bags.iter_mut().filter(|(peer, _)| !is_up(**peer)).flat_map(|(_, bag)| bag.give_up()).collect();
        self.lose(lost);
    }

    /// Tells a member what has changed, unless it is being told something.
    pub(super) fn tell(&mut self, peer: PeerIx, ctx: &mut Context<Self>) {
        let Some((incarnation, change)) = self.ledger.next(peer, &self.roster) else { return };
        let ask = Ask::Interest(Wanted {
            node: self.identity.node.as_str(),
            incarnation: self.identity.incarnation,
            base: change.base,
            version: change.version,
            everything: change.everything,
            classes: change.classes,
            added: change.added.iter().map(|(kind, name)| (*kind, Key(name))).collect(),
            removed: change.removed.iter().map(|(kind, name)| (*kind, Key(name))).collect(),
        });
        let (asked, hub) = (self.local.replications[0].send(CallPeer { peer, call: Call::ask(&ask) }), ctx.address());
        actix::spawn(async move {
            let taken = answered(asked.await, |answer| matches!(answer, Answer::Done).then_some(())).is_some();
            hub.do_send(Told { peer, incarnation, taken });
        });
    }

    /// Sends a member the next batch, unless one is under way.
    pub(super) fn send(&mut self, peer: PeerIx, ctx: &mut Context<Self>) {
        let Some(batch) = self.bags.get_mut(&peer).and_then(|bag| bag.next(FRAME_BYTES_TARGET)) else { return };
        self.counters.add(Counter::MessagesForwarded, batch.len() as u64);
        let messages = batch.iter().map(|parcel| Published {
            kind: parcel.kind,
            channel: Key(&parcel.channel),
            payload: Key(&parcel.payload),
        });
        let call = Call::ask(&Ask::Publish(messages.collect()));
        let (asked, hub) = (self.local.replications[0].send(CallPeer { peer, call }), ctx.address());
        actix::spawn(async move {
            let counts = answered(asked.await, |answer| match answer {
                Answer::Counts(counts) => Some(counts),
                _ => None,
            });
            hub.do_send(Delivered(peer, counts));
        });
    }
}

/// What a peer's answer says, if it came and says it.
pub(super) fn answered<T>(
    answer: Result<Result<Bytes, LinkError>, MailboxError>,
    read: impl FnOnce(Answer<'_>) -> Option<T>,
) -> Option<T> {
    let payload = answer.ok()?.ok()?;
    match frame::decode(&payload) {
        Ok(Native::Answer { answer, .. }) => read(answer),
        _ => None,
    }
}

impl Handler<Told> for Hub {
    type Result = ();

    fn handle(&mut self, told: Told, ctx: &mut Self::Context) {
        let peer = told.peer;
        self.ledger.answered(peer, told.incarnation, told.taken);
        if told.taken {
            self.tell(peer, ctx);
        } else {
            ctx.run_later(TELL_AGAIN_AFTER, move |hub, ctx| hub.tell(peer, ctx));
        }
        self.confirm();
    }
}

impl Handler<Delivered> for Hub {
    type Result = ();

    fn handle(&mut self, Delivered(peer, counts): Delivered, ctx: &mut Self::Context) {
        let Some(bag) = self.bags.get_mut(&peer) else { return };
        let tickets = bag.answered();
        match counts {
            Some(counts) if counts.len() == tickets.len() => {
                for (ticket, count) in tickets.into_iter().zip(counts) {
                    ticket.into_iter().for_each(|ticket| self.settle(ticket, count));
                }
            }
            _ => self.lose(tickets),
        }
        self.send(peer, ctx);
    }
}

impl Handler<Heed> for Hub {
    type Result = bool;

    fn handle(&mut self, Heed { node, incarnation, change }: Heed, ctx: &mut Self::Context) -> bool {
        // Who is not in the view yet will be, and tells again.
        let known = self.view.find(&node).filter(|(_, peer)| peer.member.incarnation == incarnation);
        let Some((peer, _)) = known else { return false };
        let (life, interest) = self.interests.entry(peer).or_insert_with(|| (incarnation, Interest::default()));
        if *life != incarnation {
            (*life, *interest) = (incarnation, Interest::default());
        }
        let taken = interest.take(change).is_ok();
        if !taken {
            // Until all is told anew it is as if nothing had been: it is sent everything.
            self.interests.remove(&peer);
        }
        self.attend(ctx);
        taken
    }
}

/// What a member says of its clients' wishes, as the core takes it.
pub fn change(wanted: &Wanted<'_>) -> Change {
    let own = Bytes::copy_from_slice;
    let names =
        |names: &[(Kind, Key<'_>)]| -> Vec<Name> { names.iter().map(|(kind, Key(name))| (*kind, own(name))).collect() };
    Change {
        base: wanted.base,
        version: wanted.version,
        everything: wanted.everything,
        classes: wanted.classes,
        added: names(&wanted.added),
        removed: names(&wanted.removed),
    }
}
