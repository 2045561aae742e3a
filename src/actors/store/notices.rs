//! What a store actor tells the hub of published messages: what happened to the keys that this node coordinates. Others' copies that expire or go
//! here are theirs to tell of. Which events there are is decided by `storage::notice`. Exercised by `tests/clients/differential_pubsub.py`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::prelude::*;

use super::StoreActor;
use crate::base::counters::Counter;
use crate::base::limits::NOTICES_MAX;
use crate::base::notify::Classes;
use crate::base::slot::Partition;
use crate::storage::Notice;

/// What happened to keys, in order.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Noticed(pub Vec<Notice>);

/// Where notices go, and how many are on their way there from all stores.
#[derive(Clone)]
pub struct Audience {
    /// Told of them.
    pub to: Recipient<Noticed>,
    /// How many it has not taken yet.
    pub under_way: Arc<AtomicUsize>,
}

/// From now on notices of these classes are wanted.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Notify(pub Classes, pub Audience);

impl StoreActor {
    /// Sends what has happened on its way.
    pub(super) fn notify(&mut self) {
        let Some(audience) = &self.audience else { return };
        let mut notices = self.core.take_notices();
        if notices.is_empty() {
            return;
        }
        let view = self.view.load();
        let coordinates = |key: &[u8]| view.route(Partition::of(key)).serving.first() == Some(&view.me);
        // What a client asked for is told by whoever did it.
        let by_itself = Classes::EXPIRED | Classes::EVICTED;
        notices.retain(|notice| !notice.class.meets(by_itself) || coordinates(&notice.key));
        if audience.under_way.load(Ordering::Relaxed) + notices.len() > NOTICES_MAX {
            self.counters.add(Counter::NoticesDropped, notices.len() as u64);
        } else if !notices.is_empty() {
            audience.under_way.fetch_add(notices.len(), Ordering::Relaxed);
            audience.to.do_send(Noticed(notices));
        }
    }
}

impl Handler<Notify> for StoreActor {
    type Result = ();

    fn handle(&mut self, Notify(classes, audience): Notify, _: &mut Self::Context) {
        self.notify();
        self.core.set_noticed(classes);
        self.audience = (classes != Classes::NONE).then_some(audience);
    }
}
