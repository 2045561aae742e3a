//! Events of keys as messages: on the channel of the key and on that of the event, to those who asked for its class. Each subscriber's own node
//! says which classes it hears of.

use std::sync::atomic::Ordering;

use actix::prelude::*;
use bytes::Bytes;

use super::{Hub, peers};
use crate::actors::store::Noticed;
use crate::base::channel::Kind;
use crate::base::notify::{Classes, KEYEVENT, KEYSPACE};
use crate::cluster::pubsub::Parcel;
use crate::cluster::view::PeerIx;
use crate::storage::Notice;

impl Handler<Noticed> for Hub {
    type Result = ();

    fn handle(&mut self, Noticed(notices): Noticed, ctx: &mut Self::Context) {
        self.under_way.fetch_sub(notices.len(), Ordering::Relaxed);
        for notice in notices {
            let Notice { class, event, key } = notice;
            let named = Bytes::from_static(event.as_bytes());
            self.tell_of(class | Classes::BY_KEY, [KEYSPACE, &key].concat().into(), named, ctx);
            self.tell_of(class | Classes::BY_EVENT, [KEYEVENT, event.as_bytes()].concat().into(), key, ctx);
        }
    }
}

impl Hub {
    /// Publishes an event to those who hear of all of these classes. Of members that have not said, nobody knows that they do.
    fn tell_of(&mut self, classes: Classes, channel: Bytes, payload: Bytes, ctx: &mut Context<Self>) {
        let kind = Kind::Channel;
        if self.classes.has(classes) {
            self.deliver(kind, &channel, &payload);
        }
        let wants = |(peer, life, alive): (PeerIx, u64, bool)| {
            let (of, interest) = self.interests.get(&peer)?;
            let wants = alive && *of == life && interest.classes().has(classes) && interest.wants(kind, &channel);
            wants.then_some(peer)
        };
        let peers: Vec<PeerIx> = peers::members(&self.view).filter_map(wants).collect();
        for peer in peers {
            let parcel = Parcel { kind, channel: channel.clone(), payload: payload.clone(), ticket: None };
            self.post(peer, parcel, ctx);
        }
    }
}
