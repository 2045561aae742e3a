//! The store actor, one per data arbiter: the only owner of the values of its partitions, and the place where the last writer wins.
//! Never decides who owns a key; never waits for anybody. The rules live in `storage`. Exercised by the simulation and the client tests.
//!
//! Bound: what is in flight is bounded at the door, see `admission`.

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::base::counters::{Counter, Counters};
use crate::base::entry::{BodyRef, Entry, EntryRef};
use crate::base::hlc::{UnixMs, Version};
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::op::Op;
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink, Wire};
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::protocol::native::frame;
use crate::protocol::native::{Answered, LeafPosition, PartitionDigest, RecordRef};
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::{Applied, LEAVES, Outcome, RecentRequests, Restamped, Store};

use super::clock::Clock;
use super::replication::{Committed, Outgoing, Replicate, Replication, ViewChanged};

/// Versions in one page of a leaf.
const VERSIONS_PER_PAGE: usize = crate::base::limits::SYNC_ENTRIES_PER_FRAME;
/// The store looks after itself at least this often.
const TURN_EVERY_MS: u64 = 100;

/// Operations on keys of this store's partitions, to be executed in order.
#[derive(Message, Debug)]
#[rtype(result = "Executed")]
pub struct Execute {
    /// What to do.
    pub ops: Vec<Op>,
    /// The id of each operation that must not happen twice; empty if there is none.
    pub requests: Vec<Option<RequestId>>,
    /// The operations are sets if absent: all are done, or none. The one reply says which.
    pub all_or_none: bool,
    /// How to encode the replies.
    pub wire: Wire,
    /// What to count before the caller may answer.
    pub level: Level,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
}

/// What came of an [`Execute`].
#[derive(Debug)]
pub struct Executed {
    /// A reply per operation.
    pub replies: ReplyBuf,
    /// Tells when the level is met; `None` at level one or when nothing was written.
    pub commit: Option<oneshot::Receiver<Committed>>,
    /// The versions written: operation and version, above level one.
    pub written: Vec<(u32, Version)>,
}

/// What a peer sent for this store to merge.
#[derive(Debug)]
pub enum Record {
    /// A key's entry.
    Entry {
        /// The key.
        key: Bytes,
        /// What it holds.
        entry: Entry,
        /// The request behind it and its encoded reply.
        answered: Option<(RequestId, ReplyKind, Bytes)>,
    },
    /// Everything in the partition up to this version is gone.
    Floor {
        /// Which.
        partition: Partition,
        /// The flush.
        version: Version,
    },
}

/// Entries to merge, each with the number the sender gave it.
#[derive(Message, Debug)]
#[rtype(result = "Merged")]
pub struct Merge(pub Vec<(u32, Record)>);

/// What became of a [`Merge`]; records not listed were merged.
#[derive(Debug, Default)]
pub struct Merged {
    /// Lost to something newer: number and the version that stays.
    pub newer: Vec<(u32, Version)>,
    /// Refused because they were stamped too far in the future.
    pub refused: Vec<u32>,
}

/// What is under these keys, tombstones and expired values included?
#[derive(Message, Debug)]
#[rtype(result = "Vec<Option<Entry>>")]
pub struct Peek(pub Vec<Bytes>);

/// What is under these keys, and which of these requests were done, all in one instant: whoever sees an effect sees its request.
#[derive(Message, Debug)]
#[rtype(result = "Surveyed")]
pub struct Survey {
    /// Keys.
    pub keys: Vec<Bytes>,
    /// Requests.
    pub requests: Vec<RequestId>,
}

/// The answer to [`Survey`].
#[derive(Debug, Default)]
pub struct Surveyed {
    /// One per key.
    pub held: Vec<Option<Entry>>,
    /// Those that were done, and their replies.
    pub answered: Vec<(RequestId, Outcome)>,
}

/// Requests that were done elsewhere: a retry of one is answered, not repeated.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Remember(pub Vec<(RequestId, Outcome)>);

/// Stamp these keys anew if they still have the version given first, above the one given second, and replicate them.
#[derive(Message, Debug)]
#[rtype(result = "Executed")]
pub struct Restamp {
    /// Number, key, our version, the version seen elsewhere.
    pub keys: Vec<(u32, Bytes, Version, Version)>,
    /// What to count.
    pub level: Level,
}

/// How many keys live in these partitions?
#[derive(Message, Debug)]
#[rtype(result = "u64")]
pub struct Count(pub PartitionSet);

/// All keys of these partitions that match.
#[derive(Message, Debug)]
#[rtype(result = "Vec<Bytes>")]
pub struct Keys {
    /// Where.
    pub partitions: PartitionSet,
    /// Redis glob.
    pub pattern: Bytes,
}

/// A page of keys of each of these partitions.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Vec<ScannedPage>")]
pub struct Scan {
    /// Where, and from which position.
    pub from: Vec<(Partition, u64)>,
    /// About how many of each.
    pub count: usize,
    /// Redis glob; empty for all.
    pub pattern: Bytes,
}

/// One partition's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedPage {
    /// Which.
    pub partition: Partition,
    /// The keys.
    pub keys: Vec<Bytes>,
    /// Where to go on.
    pub next: Option<u64>,
}

/// Any key.
#[derive(Message, Debug)]
#[rtype(result = "Option<Bytes>")]
pub struct RandomKey(pub u64);

/// Delete everything in these partitions.
#[derive(Message, Debug)]
#[rtype(result = "Executed")]
pub struct Flush {
    /// Which.
    pub partitions: PartitionSet,
    /// What to count.
    pub level: Level,
}

/// Digests of these partitions, in order.
#[derive(Message, Debug)]
#[rtype(result = "Vec<(Partition, PartitionDigest)>")]
pub struct Digests(pub PartitionSet);

/// Leaf digests of a partition.
#[derive(Message, Debug)]
#[rtype(result = "Vec<u64>")]
pub struct Leaves(pub Partition);

/// Keys and versions of some leaves of a partition.
#[derive(Message, Debug)]
#[rtype(result = "VersionsPage")]
pub struct Versions {
    /// Of which.
    pub partition: Partition,
    /// A bit each.
    pub leaves: u64,
    /// Where to go on.
    pub from: LeafPosition,
}

/// A page of [`Versions`].
#[derive(Debug, Default)]
pub struct VersionsPage {
    /// In an order all nodes share.
    pub versions: Vec<(Bytes, Version)>,
    /// Where to go on.
    pub next: Option<LeafPosition>,
}

/// Forget these partitions' data: others have it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Drop(pub PartitionSet);

/// What this actor can tell of itself.
#[derive(Message, Debug)]
#[rtype(result = "StoreStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Default, Clone)]
pub struct StoreStats {
    /// Counts.
    pub counters: Counters,
    /// Live keys, copies of other coordinators' included.
    pub keys: usize,
    /// Keys with a deadline.
    pub with_deadline: usize,
    /// Tombstones.
    pub tombstones: usize,
    /// Bytes accounted for.
    pub memory_bytes: usize,
    /// The longest a key swept in the last turn had outlived its deadline.
    pub expiry_late_ms: u64,
    /// Partitions that hold anything.
    pub filled: PartitionSet,
}

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
        if batch.deadline <= self.clock.monotonic() {
            self.counters.add(Counter::Abandoned, batch.ops.len() as u64);
            for _ in &batch.ops {
                replies.reply(ReplyRef::Error("TIMEOUT the request waited too long, applied: no".into()));
            }
            return MessageResult(Executed { replies, commit: None, written: Vec::new() });
        }
        let now = self.clock.unix_ms();
        let mut out = Outbound::default();
        let blocked = batch.all_or_none && batch.ops.iter().any(|op| self.is_live(&op.key, now));
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
        MessageResult(Executed { replies, commit, written })
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
        MessageResult(Executed { replies: ReplyBuf::default(), commit, written })
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
        MessageResult(Executed { replies: ReplyBuf::default(), commit, written })
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
