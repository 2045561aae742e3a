//! The store actor, one per data arbiter: the only owner of the values of its partitions, and the place where the last writer wins.
//! Never decides who owns a key; never waits for anybody. The rules live in `storage`. Exercised by the simulation and the client tests.
//!
//! Bound: what is in flight is bounded at the door, see `admission`.

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::base::counters::{Counter, Counters};
use crate::base::entry::{BodyRef, Entry, EntryRef};
use crate::base::hlc::{UnixMs, Version};
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::op::Op;
use crate::base::reply::{ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::protocol::native::frame;
use crate::protocol::native::{Answered, LeafPosition, PartitionDigest, RecordRef};
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::{Applied, LEAVES, Outcome, RecentRequests, Restamped, Store};

use super::clock::Clock;
use super::replication::{Committed, Outgoing, Replicate, Replication, ViewChanged};

mod messages;

pub use messages::*;

/// Versions in one page of a leaf.
const VERSIONS_PER_PAGE: usize = crate::base::limits::SYNC_ENTRIES_PER_FRAME;
/// The store looks after itself at least this often.
const TURN_EVERY_MS: u64 = 100;

/// The actor.
pub struct StoreActor {
    core: Store,
    recent: RecentRequests,
    clock: Clock,
    replication: Addr<Replication>,
    replicated: bool,
    counters: Counters,
    expiry_late_ms: u64,
}

/// Encoded records on their way to replicas.
#[derive(Default)]
struct Outbound {
    bytes: Vec<u8>,
    records: Vec<Outgoing>,
    written: Vec<(u32, Version)>,
}

impl Outbound {
    fn entry(&mut self, op: u32, key: &[u8], entry: EntryRef<'_>, answered: Option<Answered<'_>>) {
        frame::encode_record(&RecordRef::Entry { key, entry, answered }, &mut self.bytes);
        self.records.push(Outgoing { end: self.bytes.len(), partition: Partition::of(key), op });
        self.written.push((op, entry.version));
    }

    fn floor(&mut self, partition: Partition, version: Version) {
        frame::encode_record(&RecordRef::Floor { partition: partition.0, version }, &mut self.bytes);
        let op = u32::from(partition.0);
        self.records.push(Outgoing { end: self.bytes.len(), partition, op });
        self.written.push((op, version));
    }
}

impl StoreActor {
    /// An actor for `core`, which sends what it writes through `replication`.
    pub fn new(core: Store, clock: Clock, replication: Addr<Replication>) -> Self {
        Self {
            core,
            recent: RecentRequests::default(),
            clock,
            replication,
            replicated: false,
            counters: Counters::default(),
            expiry_late_ms: 0,
        }
    }

    /// Sends what was written on its way, and says how to hear of its arrival.
    fn replicate(
        &self,
        outbound: Outbound,
        level: Level,
    ) -> (Option<oneshot::Receiver<Committed>>, Vec<(u32, Version)>) {
        if outbound.records.is_empty() {
            return (None, Vec::new());
        }
        let (commit, committed) = if level == Level::One { (None, None) } else { Some(oneshot::channel()).unzip() };
        let written = if level == Level::One { Vec::new() } else { outbound.written };
        self.replication.do_send(Replicate { bytes: outbound.bytes, records: outbound.records, level, commit });
        (committed, written)
    }

    fn execute_one(
        &mut self,
        n: u32,
        op: &Op,
        request: Option<RequestId>,
        now: UnixMs,
        replies: &mut ReplyBuf,
        out: &mut Outbound,
    ) {
        if let Some(answered) = request.and_then(|request| self.recent.recall(request, now)) {
            self.counters.inc(Counter::OpsDeduplicated);
            replies.push_encoded(answered.reply.clone(), answered.kind);
            return;
        }
        let replicated = self.replicated;
        let Some(request) = request else {
            self.core.execute(op, now, replies, &mut |key, entry| {
                if replicated {
                    out.entry(n, key, entry, None);
                }
            });
            return;
        };
        let reply_at = replies.replies();
        let mut mutated = false;
        self.core.execute(op, now, replies, &mut |_, _| mutated = true);
        let reply: Bytes = replies.slices(reply_at..reply_at + 1).collect::<Vec<_>>().concat().into();
        let kind = replies.kind(reply_at).expect("every operation has one reply");
        if mutated && replicated {
            // The reply travels with the entry: whoever coordinates after this node can answer a retry with it.
            let entry = self.core.peek(&op.key).expect("what was just written leaves a value or a tombstone");
            out.entry(n, &op.key, entry, Some(Answered { request, kind, reply: &reply }));
        }
        self.recent.remember(request, Outcome { kind, reply }, now);
    }

    fn is_live(&self, key: &[u8], now: UnixMs) -> bool {
        match self.core.peek(key).map(|entry| entry.body) {
            Some(BodyRef::Live { deadline, .. }) => deadline.is_none_or(|deadline| deadline > now),
            Some(BodyRef::Tombstone) | None => false,
        }
    }

    fn merge_one(&mut self, record: &Record, now: UnixMs) -> Applied {
        match record {
            Record::Entry { key, entry, answered } => {
                if let Some((request, kind, reply)) = answered {
                    let outcome = Outcome { kind: *kind, reply: reply.clone() };
                    self.recent.remember(*request, outcome, now);
                }
                self.core.apply_owned(key, entry, now)
            }
            Record::Floor { partition, version } => self.core.apply_floor(*partition, *version, now),
        }
    }

    fn rest(&self, ctx: &mut Context<Self>) {
        let pause = std::time::Duration::from_millis(TURN_EVERY_MS);
        ctx.run_later(pause, |actor, ctx| actor.turn(ctx));
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        let turn = self.core.turn(self.clock.unix_ms());
        self.expiry_late_ms = turn.late_ms_max;
        let now = self.clock.unix_ms();
        match turn.next {
            Some(at) if at < now + TURN_EVERY_MS => {
                let pause = std::time::Duration::from_millis(at.saturating_sub(now).max(1));
                ctx.run_later(pause, |actor, ctx| actor.turn(ctx));
            }
            _ => self.rest(ctx),
        }
    }
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        self.rest(ctx);
    }
}

impl Handler<Execute> for StoreActor {
    type Result = MessageResult<Execute>;

    fn handle(&mut self, batch: Execute, _: &mut Self::Context) -> Self::Result {
        let mut replies = ReplyBuf::new(batch.wire);
        if batch.start_by.is_some_and(|start_by| start_by < self.clock.monotonic()) {
            self.counters.add(Counter::Abandoned, batch.ops.len() as u64);
            return MessageResult(Executed { replies, commit: None, written: Vec::new(), late: true });
        }
        if batch.deadline <= self.clock.monotonic() {
            self.counters.add(Counter::Abandoned, batch.ops.len() as u64);
            for _ in &batch.ops {
                replies.reply(ReplyRef::Error("TIMEOUT the request waited too long, applied: no".into()));
            }
            return MessageResult(Executed { replies, commit: None, written: Vec::new(), late: false });
        }
        let now = self.clock.unix_ms();
        let mut out = Outbound::default();
        // A retry finds the keys it has set itself.
        let done = batch.requests.iter().flatten().any(|request| self.recent.recall(*request, now).is_some());
        let blocked = batch.all_or_none && !done && batch.ops.iter().any(|op| self.is_live(&op.key, now));
        if !blocked {
            for (n, op) in (0u32..).zip(&batch.ops) {
                let request = batch.requests.get(n as usize).copied().flatten();
                self.execute_one(n, op, request, now, &mut replies, &mut out);
            }
        }
        if batch.all_or_none {
            replies = ReplyBuf::new(batch.wire);
            replies.reply(ReplyRef::Int(i64::from(!blocked)));
        }
        let (commit, written) = self.replicate(out, batch.level);
        MessageResult(Executed { replies, commit, written, late: false })
    }
}

impl Handler<Merge> for StoreActor {
    type Result = MessageResult<Merge>;

    fn handle(&mut self, Merge(records): Merge, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let mut merged = Merged::default();
        for (n, record) in &records {
            match self.merge_one(record, now) {
                Applied::Newer | Applied::Same => {}
                Applied::Stale(version) => merged.newer.push((*n, version)),
                Applied::FarFuture { .. } => merged.refused.push(*n),
            }
        }
        MessageResult(merged)
    }
}

impl Handler<Peek> for StoreActor {
    type Result = Vec<Option<Entry>>;

    fn handle(&mut self, Peek(keys): Peek, _: &mut Self::Context) -> Self::Result {
        keys.iter().map(|key| self.core.peek_owned(key)).collect()
    }
}

impl Handler<Survey> for StoreActor {
    type Result = MessageResult<Survey>;

    fn handle(&mut self, survey: Survey, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let recall = |request: &RequestId| Some((*request, self.recent.recall(*request, now)?.clone()));
        MessageResult(Surveyed {
            held: survey.keys.iter().map(|key| self.core.peek_owned(key)).collect(),
            answered: survey.requests.iter().filter_map(recall).collect(),
        })
    }
}

impl Handler<Remember> for StoreActor {
    type Result = ();

    fn handle(&mut self, Remember(answered): Remember, _: &mut Self::Context) {
        let now = self.clock.unix_ms();
        for (request, outcome) in answered {
            if self.recent.recall(request, now).is_none() {
                self.recent.remember(request, outcome, now);
            }
        }
    }
}

impl Handler<Restamp> for StoreActor {
    type Result = MessageResult<Restamp>;

    fn handle(&mut self, restamp: Restamp, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let mut out = Outbound::default();
        for (n, key, ours, seen) in &restamp.keys {
            let restamped =
                self.core.restamp(key, *ours, *seen, now, &mut |key, entry| out.entry(*n, key, entry, None));
            if let Restamped::FarFuture { ahead_ms } = restamped {
                tracing::warn!(ahead_ms, "a replica holds a version from the far future");
            }
        }
        let (commit, written) = self.replicate(out, restamp.level);
        MessageResult(Executed { replies: ReplyBuf::default(), commit, written, late: false })
    }
}

impl Handler<Count> for StoreActor {
    type Result = u64;

    fn handle(&mut self, Count(partitions): Count, _: &mut Self::Context) -> u64 {
        self.core.partitions().filter(|p| partitions.contains(*p)).map(|p| self.core.len_of(p) as u64).sum()
    }
}

impl Handler<Keys> for StoreActor {
    type Result = Vec<Bytes>;

    fn handle(&mut self, keys: Keys, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let mut found = Vec::new();
        for partition in self.core.partitions().filter(|p| keys.partitions.contains(*p)) {
            self.core.keys(partition, &keys.pattern, now, &mut found);
        }
        found
    }
}

impl Handler<Scan> for StoreActor {
    type Result = MessageResult<Scan>;

    fn handle(&mut self, scan: Scan, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let pattern = (!scan.pattern.is_empty()).then_some(&scan.pattern[..]);
        let page = |(partition, from): &(Partition, u64)| {
            let page = self.core.scan(*partition, *from, scan.count, pattern, now);
            ScannedPage { partition: *partition, keys: page.keys, next: page.next }
        };
        MessageResult(scan.from.iter().map(page).collect())
    }
}

impl Handler<RandomKey> for StoreActor {
    type Result = Option<Bytes>;

    fn handle(&mut self, RandomKey(draw): RandomKey, _: &mut Self::Context) -> Self::Result {
        self.core.random_key(draw, self.clock.unix_ms())
    }
}

impl Handler<Flush> for StoreActor {
    type Result = MessageResult<Flush>;

    fn handle(&mut self, flush: Flush, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let mut out = Outbound::default();
        for partition in self.core.partitions().filter(|p| flush.partitions.contains(*p)).collect::<Vec<_>>() {
            let floor = self.core.flush(partition, now);
            if self.replicated {
                out.floor(partition, floor);
            }
        }
        let (commit, written) = self.replicate(out, flush.level);
        MessageResult(Executed { replies: ReplyBuf::default(), commit, written, late: false })
    }
}

impl Handler<Digests> for StoreActor {
    type Result = MessageResult<Digests>;

    fn handle(&mut self, Digests(partitions): Digests, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<Partition> = self.core.partitions().filter(|p| partitions.contains(*p)).collect();
        let digest = |p: Partition| {
            let digest = self.core.partition_digest(p).sum;
            (p, PartitionDigest { digest, floor: self.core.floor(p) })
        };
        MessageResult(asked.into_iter().map(digest).collect())
    }
}

impl Handler<Leaves> for StoreActor {
    type Result = Vec<u64>;

    fn handle(&mut self, Leaves(partition): Leaves, _: &mut Self::Context) -> Self::Result {
        self.core.leaf_digests(partition).iter().map(|leaf| leaf.sum).collect()
    }
}

impl Handler<Versions> for StoreActor {
    type Result = MessageResult<Versions>;

    fn handle(&mut self, ask: Versions, _: &mut Self::Context) -> Self::Result {
        let mut found = VersionsPage::default();
        let mut at = ask.from;
        while usize::from(at.leaf) < LEAVES {
            if ask.leaves >> at.leaf & 1 == 1 {
                let room = VERSIONS_PER_PAGE.saturating_sub(found.versions.len());
                if room == 0 {
                    found.next = Some(at);
                    break;
                }
                let page = self.core.leaf_versions(ask.partition, usize::from(at.leaf), at.position, room);
                found.versions.extend(page.versions);
                if let Some(position) = page.next {
                    found.next = Some(LeafPosition { leaf: at.leaf, position });
                    break;
                }
            }
            at = LeafPosition { leaf: at.leaf + 1, position: 0 };
        }
        MessageResult(found)
    }
}

impl Handler<Drop> for StoreActor {
    type Result = ();

    fn handle(&mut self, Drop(partitions): Drop, _: &mut Self::Context) {
        for partition in self.core.partitions().filter(|p| partitions.contains(*p)).collect::<Vec<_>>() {
            self.core.drop_partition(partition);
        }
    }
}

impl Handler<ViewChanged> for StoreActor {
    type Result = ();

    fn handle(&mut self, ViewChanged(view): ViewChanged, _: &mut Self::Context) {
        if self.replicated != view.is_replicated() {
            self.replicated = view.is_replicated();
            self.core.set_replicated(self.replicated);
        }
    }
}

/// Panic, for the test of what follows. Releases do not have it.
#[cfg(feature = "sim")]
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Panic;

#[cfg(feature = "sim")]
impl Handler<Panic> for StoreActor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked for by a test");
    }
}

impl Handler<AskStats> for StoreActor {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        let mut counters = self.counters.clone();
        counters.merge(self.core.counters());
        let mut filled = PartitionSet::EMPTY;
        for partition in self.core.partitions().filter(|p| self.core.len_of(*p) > 0) {
            filled.insert(partition);
        }
        MessageResult(StoreStats {
            counters,
            keys: self.core.len(),
            with_deadline: self.core.with_deadline(),
            tombstones: self.core.tombstones(),
            memory_bytes: self.core.memory_bytes(),
            expiry_late_ms: self.expiry_late_ms,
            filled,
        })
    }
}
