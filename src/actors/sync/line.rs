//! What a session says to its peer and hears from it, counted. Never decides what to say. Exercised by the simulation.

use std::cell::RefCell;
use std::rc::Rc;

use actix::prelude::*;
use bytes::Bytes;

use crate::actors::replication::{CallPeer, Outgoing, Push, Replication};
use crate::base::counters::{Counter, Counters};
use crate::base::limits::REQUEST_TIMEOUT;
use crate::cluster::view::PeerIx;
use crate::protocol::native::Ask;
use crate::protocol::native::frame::{Call, LENGTH_BYTES};

/// The peer did not answer, or not as agreed; or this node is stopping. What was brought over stays.
#[derive(Debug)]
pub(super) struct Ended;

impl<E: std::error::Error> From<E> for Ended {
    fn from(_: E) -> Self {
        Self
    }
}

/// The way to one peer.
#[derive(Clone)]
pub(super) struct Line {
    peer: PeerIx,
    replication: Addr<Replication>,
    counters: Rc<RefCell<Counters>>,
}

impl Line {
    pub(super) fn new(peer: PeerIx, replication: Addr<Replication>, counters: Rc<RefCell<Counters>>) -> Self {
        Self { peer, replication, counters }
    }

    pub(super) fn peer(&self) -> PeerIx {
        self.peer
    }

    pub(super) fn count(&self, counter: Counter, n: usize) {
        self.counters.borrow_mut().add(counter, n as u64);
    }

    /// The payload of the answer.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Bytes, Ended> {
        let call = Call::ask(ask);
        self.count(Counter::SyncBytes, LENGTH_BYTES + call.bytes());
        let answer = self.replication.send(CallPeer { peer: self.peer, call });
        let payload = tokio::time::timeout(REQUEST_TIMEOUT, answer).await???;
        self.count(Counter::SyncBytes, LENGTH_BYTES + payload.len());
        Ok(payload)
    }

    /// Sends records; they have arrived when it is over.
    pub(super) async fn push(&self, bytes: Vec<u8>, records: Vec<Outgoing>) -> Result<(), Ended> {
        self.count(Counter::SyncBytes, bytes.len());
        let pushed = self.replication.send(Push { peer: self.peer, bytes, records });
        let pushed = tokio::time::timeout(REQUEST_TIMEOUT, pushed).await??;
        if pushed { Ok(()) } else { Err(Ended) }
    }
}
