//! Notes for replicas what they can't be sent, and hands it over once they are back. Never decides what is noted or given up: the rules are in
//! `cluster::hints`; never keeps a value: what is handed over is what the store has then. Exercised by the simulation.
//!
//! Bounds: those of `cluster::hints`; a page a replica at a time, `PAGE_KEYS` and `PAGE_BYTES`, and one in [`WATCH_EVERY`] at the most; of
//! what is lost with a link, `LOST_HINTS_MAX` records.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Outgoing, Push, Replication, WATCH_EVERY};
use crate::actors::store::Peek;
use crate::base::slot::Partition;
use crate::cluster::hints::{GivenUp, Hint, Page};
use crate::cluster::view::{PeerIx, View};
use crate::protocol::native::RecordRef;
use crate::protocol::native::frame;

/// Keys of one page: with one in 40 ms, 25,000 a second for each member and data arbiter, which leaves clients their share.
const PAGE_KEYS: usize = 1_024;
/// Bytes from which on a part of a page is sent, and the next has to wait: some 13 MB a second, but for values that are larger by themselves.
const PAGE_BYTES: usize = 512 * 1024;
/// Records that were under way on a link that was lost and are noted: some ten milliseconds of work. Those beyond are compared.
const LOST_HINTS_MAX: usize = 64 * 1024;

/// Wait until a peer has been handed over all that is noted for it, at the most for so long.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct HandOver {
    /// Whom.
    pub peer: PeerIx,
    /// Longest wait.
    pub timeout: Duration,
}

/// Somebody who waits until nothing is noted for a peer.
pub(super) type Waiter = (PeerIx, oneshot::Sender<()>);

/// Which of these entries, by their numbers, did the peer not take?
#[derive(Message)]
#[rtype(result = "Vec<u32>")]
struct Part(Push);

/// A page is over.
#[derive(Message)]
#[rtype(result = "()")]
struct PageOver {
    peer: PeerIx,
    number: u64,
    handed_over: Vec<Hint>,
    /// Refused, or lost on the way.
    not_taken: Vec<Hint>,
    /// What this node does not have any more.
    gone: Vec<Hint>,
}

impl Replication {
    /// Notes a record that a replica could not be sent.
    pub(super) fn note_missed(&mut self, peer: PeerIx, record: &[u8]) {
        // A record without bytes is known by its partition alone.
        if self.hints.are_kept()
            && let Ok((record, _)) = frame::decode_record(record)
        {
            self.note(peer, &record);
        }
    }

    /// Notes records that were under way on a link that was lost.
    pub(super) fn note_lost(&mut self, peer: PeerIx, encoded: &[Bytes]) {
        let mut room = if self.hints.are_kept() { LOST_HINTS_MAX } else { 0 };
        for records in encoded {
            let mut rest = &records[..];
            while room > 0
                && let Ok((record, after)) = frame::decode_record(rest)
            {
                self.note(peer, &record);
                (rest, room) = (after, room - 1);
            }
        }
    }

    fn note(&mut self, peer: PeerIx, record: &RecordRef<'_>) {
        #[cfg(feature = "sim")]
        if crate::base::plant::Plant::DroppedHint.is_sown() {
            return;
        }
        // All that a flush concerns is compared.
        if let RecordRef::Entry { key, entry, .. } = record
            && self.store.as_ref().is_some_and(|(_, partitions)| partitions.contains(Partition::of(key)))
        {
            let given_up = self.hints.note(peer, key, entry.version, self.clock.uptime());
            self.leave_to_comparison(given_up);
        }
    }

    fn leave_to_comparison(&mut self, given_up: GivenUp) {
        for (peer, partition) in given_up {
            if belongs(&self.view, peer, partition) {
                self.mark_diverged(peer, partition);
            }
        }
    }

    /// Members that are there and for which something is noted.
    pub(super) fn living_targets(&self) -> impl Iterator<Item = PeerIx> {
        self.hints.targets().filter(|peer| self.view.is_alive(*peer))
    }

    /// Begins to hand over what is noted for members that are there. Whether there is any.
    pub(super) fn hand_over(&mut self, ctx: &mut Context<Self>) -> bool {
        let living: Vec<PeerIx> = self.living_targets().collect();
        for peer in &living {
            self.begin_page(*peer, ctx);
        }
        self.tell_waiters();
        !living.is_empty()
    }

    fn begin_page(&mut self, peer: PeerIx, ctx: &mut Context<Self>) {
        let given_up = self.hints.expire(peer, self.clock.uptime());
        self.leave_to_comparison(given_up);
        let room = self.outbox_bytes_max;
        let takes = self.outlet(peer, ctx).is_some_and(|outlet| outlet.is_open() && outlet.outbox_bytes() < room);
        if takes
            && let Some((store, _)) = self.store.clone()
            && let Some(page) = self.hints.page(peer, PAGE_KEYS)
        {
            actix::spawn(run(page, peer, (store, ctx.address()), self.view.clone()));
        }
    }

    /// Tells who waits for peers for which nothing is noted any more, or that are not there.
    fn tell_waiters(&mut self) {
        for (peer, waiter) in std::mem::take(&mut self.hint_waiters) {
            if self.hints.pending_for(peer) == 0 {
                let _ = waiter.send(());
            } else if self.view.is_alive(peer) && !waiter.is_closed() {
                self.hint_waiters.push((peer, waiter));
            }
        }
    }

    /// Completes once nothing is noted for a peer; fails if it goes away before. `None` if nothing is.
    pub(super) fn handed_over(&mut self, peer: PeerIx, ctx: &mut Context<Self>) -> Option<oneshot::Receiver<()>> {
        if self.hints.pending_for(peer) == 0 {
            return None;
        }
        let (waiter, told) = oneshot::channel();
        self.hint_waiters.push((peer, waiter));
        self.watch(ctx);
        Some(told)
    }
}

/// Whether a member is to have a partition.
fn belongs(view: &View, peer: PeerIx, partition: Partition) -> bool {
    view.route(partition).replicas().any(|replica| replica == peer)
}

/// Entries to be sent at once, and what they were noted as.
#[derive(Default)]
struct Parcel {
    bytes: Vec<u8>,
    records: Vec<Outgoing>,
    hints: Vec<Hint>,
}

impl Parcel {
    /// Sends them; false if not all were taken.
    async fn send(self, to: &Addr<Replication>, over: &mut PageOver) -> bool {
        let push = Push { peer: over.peer, bytes: self.bytes, records: self.records };
        let Ok(failed) = to.send(Part(push)).await else { return false };
        let is_met = failed.is_empty();
        for (n, hint) in (0u32..).zip(self.hints) {
            if failed.contains(&n) { over.not_taken.push(hint) } else { over.handed_over.push(hint) }
        }
        is_met
    }
}

/// Hands a page over, in parts if its values are large.
async fn run(page: Page, peer: PeerIx, (store, me): (Recipient<Peek>, Addr<Replication>), view: Arc<View>) {
    let number = page.number;
    let (handed_over, not_taken) = (Vec::new(), Vec::new());
    let (hints, gone): (Vec<Hint>, Vec<Hint>) =
        page.hints.into_iter().partition(|hint| belongs(&view, peer, Partition::of(&hint.key)));
    let mut over = PageOver { peer, number, handed_over, not_taken, gone };
    // A store that is gone ends the node.
    let Ok(held) = store.send(Peek(hints.iter().map(|hint| hint.key.clone()).collect())).await else { return };
    let mut parcel = Parcel::default();
    for (hint, entry) in hints.into_iter().zip(held) {
        let Some(entry) = entry.filter(|entry| entry.version >= hint.version) else {
            over.gone.push(hint);
            continue;
        };
        let record = RecordRef::Entry { key: &hint.key, entry: entry.as_ref(), answered: None, counted: None };
        frame::encode_record(&record, &mut parcel.bytes);
        let (end, partition) = (parcel.bytes.len(), Partition::of(&hint.key));
        let op = u32::try_from(parcel.records.len()).expect("pages are bounded");
        parcel.records.push(Outgoing { end, partition, op, route: None });
        parcel.hints.push(hint);
        if parcel.bytes.len() >= PAGE_BYTES {
            if !std::mem::take(&mut parcel).send(&me, &mut over).await {
                break;
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
    if !parcel.hints.is_empty() {
        parcel.send(&me, &mut over).await;
    }
    me.do_send(over);
}

impl Handler<Part> for Replication {
    type Result = ResponseFuture<Vec<u32>>;

    fn handle(&mut self, Part(push): Part, ctx: &mut Self::Context) -> Self::Result {
        let all: Vec<u32> = push.records.iter().map(|record| record.op).collect();
        let committed = self.push(&push, ctx);
        Box::pin(async move { committed.await.map_or(all, |outcome| outcome.short) })
    }
}

impl Handler<PageOver> for Replication {
    type Result = ();

    fn handle(&mut self, over: PageOver, ctx: &mut Self::Context) {
        let PageOver { peer, number, handed_over, not_taken, gone } = over;
        // What was lost with a link is sent again over the next one; what was refused will be refused again.
        let is_open = self.outlets.get(&peer).is_some_and(|outlet| outlet.is_open());
        let given_up: Vec<Hint> = gone.into_iter().chain(not_taken.into_iter().filter(|_| is_open)).collect();
        self.hints.page_over(peer, number, &handed_over, &given_up);
        self.leave_to_comparison(given_up.iter().map(|hint| (peer, Partition::of(&hint.key))).collect());
        self.tell_waiters();
        self.watch(ctx);
    }
}

impl Handler<HandOver> for Replication {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, HandOver { peer, timeout }: HandOver, ctx: &mut Self::Context) -> Self::Result {
        let handed_over = self.handed_over(peer, ctx);
        let deadline = self.clock.monotonic() + timeout;
        Box::pin(async move {
            if let Some(told) = handed_over {
                // Whether or not: what is missing then is for the comparison to find.
                let _ = tokio::time::timeout_at(deadline, told).await;
            }
        })
    }
}
