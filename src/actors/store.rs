//! The store actor, one per data arbiter: the only owner of the values of its partitions, and the place where the last writer wins.
//! Never decides who owns a key; never waits for anybody. The rules live in `storage`. Exercised by the simulation and the client tests.
//!
//! Bound: what is in flight is bounded at the door, see `admission`.

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::base::counters::{Counter, Counters};
use crate::base::entry::Entry;
use crate::base::hlc::{UnixMs, Version};
use crate::base::level::Level;
use crate::base::op::Op;
use crate::base::outcome::Outcome;
use crate::base::reply::{ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::view::View;
use crate::protocol::native::{Answered, Counted, Refusal};
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::{Aim, Applied, Leases, OPS_AHEAD, RecentRequests, Store};

use super::clock::Clock;
use super::replication::{Replicate, Replication, ViewChanged};
use super::router::SharedView;

mod compare;
mod counted;
mod messages;
mod notices;
mod outbound;
#[cfg(test)]
mod tests;
mod together;

pub use messages::*;
pub use notices::{Audience, Noticed, Notify};
use outbound::Outbound;

/// The store looks after itself at least this often.
const TURN_EVERY_MS: u64 = 100;

/// The actor.
pub struct StoreActor {
    core: Store,
    recent: RecentRequests,
    leases: Leases,
    clock: Clock,
    view: SharedView,
    replication: Addr<Replication>,
    replicated: bool,
    /// Whether this node was the cluster by itself.
    sovereign: bool,
    counters: Counters,
    expiry_late_ms: u64,
    /// Who wants to hear what happens to keys.
    audience: Option<Audience>,
}

/// What became of one record.
enum Taken {
    Yes,
    /// Something newer stays.
    Newer(Version),
    Refused(Refusal),
}

impl Taken {
    fn of(applied: Applied) -> Self {
        match applied {
            Applied::Newer | Applied::Same => Self::Yes,
            Applied::Stale(version) => Self::Newer(version),
            Applied::FarFuture => Self::Refused(Refusal::FarFuture),
        }
    }
}

impl StoreActor {
    /// An actor for `core`, which sends what it writes through `replication`.
    pub fn new(core: Store, leases: Leases, clock: Clock, view: SharedView, replication: Addr<Replication>) -> Self {
        Self {
            core,
            recent: RecentRequests::default(),
            leases,
            clock,
            view,
            replication,
            replicated: false,
            sovereign: false,
            counters: Counters::default(),
            expiry_late_ms: 0,
            audience: None,
        }
    }

    /// Sends what was written on its way, and says how to hear of its arrival.
    fn replicate(&self, mut out: Outbound, level: Level, replies: ReplyBuf) -> Executed {
        for (key, op) in std::mem::take(&mut out.later) {
            // What was evicted meanwhile is not sent.
            if let Some(entry) = self.core.peek(&key) {
                out.entry(op, &key, entry, None, None);
            }
        }
        let counts = level != Level::One;
        let read = out.read;
        if out.records.is_empty() {
            return Executed { replies, commit: None, written: Vec::new(), read, late: false };
        }
        let (commit, committed) = if counts { Some(oneshot::channel()).unzip() } else { (None, None) };
        let written = if counts { out.written } else { Vec::new() };
        self.replication.do_send(Replicate { bytes: out.bytes, records: out.records, level, commit });
        Executed { replies, commit: committed, written, read, late: false }
    }

    /// Executes operation `n` of `batch`.
    fn execute_one(
        &mut self,
        (n, aim): (usize, Aim),
        batch: &Execute,
        now: UnixMs,
        replies: &mut ReplyBuf,
        out: &mut Outbound,
    ) {
        let (op, number) = (&batch.ops[n], u32::try_from(n).expect("batches are bounded"));
        let request = batch.requests.get(n).copied().flatten();
        if let Some(done) = request.and_then(|request| self.done(batch, &request, now)) {
            replies.push_encoded(done.reply.clone(), done.kind);
            self.counters.inc(Counter::OpsDeduplicated);
            return;
        }
        let base = if batch.grounds.is_some() { self.core.version(&op.key) } else { Version::ZERO };
        let counted = batch.grounds.as_ref().map(|grounds| grounds.counted(n, base));
        let replicated = self.replicated;
        let reply_at = replies.replies();
        let mut mutated = false;
        self.core.execute_at(aim, op, now, replies, &mut |key, entry| {
            mutated = true;
            let sent = replicated && request.is_none();
            // Counted writes are acknowledged each by itself.
            if sent && (counted.is_some() || !out.puts_off(number, &op.key, entry)) {
                out.entry(number, key, entry, None, counted);
            }
        });
        // What changed nothing may be done again.
        if let Some(request) = request.filter(|_| mutated) {
            let kind = replies.kind(reply_at).expect("every operation has one reply");
            let reply: Vec<&[u8]> = replies.slices(reply_at..reply_at + 1).collect();
            let mut outcome = Outcome::new(kind, &reply, Version::ZERO);
            if replicated {
                // The reply travels with the entry: whoever coordinates after this node can answer a retry with it.
                let entry = self.core.peek(&op.key).expect("what was just written leaves a value or a tombstone");
                outcome.version = entry.version;
                let answered = Answered { request, kind: outcome.kind, reply: &outcome.reply };
                out.entry(number, &op.key, entry, Some(answered), counted);
            }
            self.recent.remember(request, outcome, now);
        }
        if let Some(counted) = counted {
            self.note_counted(number, op, counted, mutated, out);
        }
    }

    /// What an operation above level one came to: a link in the key's chain of writes, or something read.
    fn note_counted(&mut self, n: u32, op: &Op, counted: Counted, mutated: bool, out: &mut Outbound) {
        let version = self.core.version(&op.key);
        if mutated {
            self.leases.taken(&op.key, counted.link(), version);
        } else {
            out.read.push((n, version));
        }
    }

    fn merge_one(&mut self, record: &Record, now: UnixMs) -> Taken {
        let (key, entry, answered, counted) = match record {
            Record::Entry { key, entry, answered, counted } => {
                if let Err(taken) = self.may_take(key, entry.version, *counted, now) {
                    return taken;
                }
                (key, entry, answered, counted)
            }
            Record::Known { key, entry } => {
                return self
                    .may_take(key, entry.version, None, now)
                    .map_or_else(|taken| taken, |()| Taken::of(self.core.restore(key, entry, now)));
            }
            Record::Floor { partition, version } => return Taken::of(self.core.apply_floor(*partition, *version, now)),
        };
        // Whoever counts by the same route has looked at what the others have.
        let applied = match counted {
            Some(_) => self.core.restore(key, entry, now),
            None => self.core.apply(key, entry, now),
        };
        if let (Applied::Newer, Some(counted)) = (applied, counted) {
            self.leases.taken(key, counted.link(), entry.version);
        }
        let taken = Taken::of(applied);
        if let (Taken::Yes, Some((request, kind, reply))) = (&taken, answered.as_deref()) {
            let outcome = Outcome { kind: *kind, reply: reply.clone(), version: entry.version };
            self.recent.remember(*request, outcome, now);
        }
        taken
    }

    fn rest(&self, ctx: &mut Context<Self>) {
        let pause = std::time::Duration::from_millis(TURN_EVERY_MS);
        ctx.run_later(pause, |actor, ctx| actor.turn(ctx));
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        let turn = self.core.turn(self.clock.unix_ms());
        self.recent.turn(self.clock.unix_ms());
        self.notify();
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
        let mut replies = ReplyBuf::with_room(batch.wire, batch.ops.len());
        let (monotonic, now) = self.clock.both();
        let too_late = batch.start_by.is_some_and(|start_by| start_by <= monotonic);
        if too_late || !self.stands(&batch, now) {
            self.counters.add(Counter::Abandoned, batch.ops.len() as u64);
            return MessageResult(Executed {
                replies,
                commit: None,
                written: Vec::new(),
                read: Vec::new(),
                late: true,
            });
        }
        if batch.deadline <= monotonic {
            self.counters.add(Counter::Abandoned, batch.ops.len() as u64);
            for _ in 0..batch.ops.len() {
                replies.reply(ReplyRef::Error("TIMEOUT the request waited too long, applied: no".into()));
            }
            return MessageResult(self.replicate(Outbound::default(), batch.level, replies));
        }
        if batch.grounds.is_some() {
            // It was surveyed by the published view, whose message may still be on its way.
            self.follow(&self.view.load_full());
        }
        let mut out = Outbound::default();
        if batch.together {
            self.execute_together(&batch, now, &mut replies, &mut out);
        } else {
            for (n, ops) in batch.ops.chunks(OPS_AHEAD).enumerate() {
                let aims = self.core.aim(ops);
                for (aimed, aim) in (n * OPS_AHEAD..).zip(aims.into_iter().take(ops.len())) {
                    self.execute_one((aimed, aim), &batch, now, &mut replies, &mut out);
                }
            }
        }
        self.notify();
        MessageResult(self.replicate(out, batch.level, replies))
    }
}

impl Handler<Answer> for StoreActor {
    type Result = ();

    fn handle(&mut self, Answer { batch, to }: Answer, ctx: &mut Self::Context) {
        let MessageResult(executed) = self.handle(batch, ctx);
        // Whoever has gone needs no answer.
        let _ = to.map(|to| to.send(executed.replies));
    }
}

impl Handler<Merge> for StoreActor {
    type Result = MessageResult<Merge>;

    fn handle(&mut self, Merge(records): Merge, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let mut merged = Merged::default();
        for (n, record) in &records {
            match self.merge_one(record, now) {
                Taken::Yes => {}
                Taken::Newer(version) => merged.newer.push((*n, version)),
                Taken::Refused(reason) => merged.refused.push((*n, reason)),
            }
        }
        self.notify();
        MessageResult(merged)
    }
}

impl Handler<Peek> for StoreActor {
    type Result = Vec<Option<Entry>>;

    fn handle(&mut self, Peek(keys): Peek, _: &mut Self::Context) -> Self::Result {
        keys.iter().map(|key| self.core.peek_owned(key)).collect()
    }
}

impl Handler<Count> for StoreActor {
    type Result = u64;

    fn handle(&mut self, Count(partitions): Count, _: &mut Self::Context) -> u64 {
        self.core.partitions().filter(|p| partitions.contains(*p)).map(|p| self.core.len_of(p) as u64).sum()
    }
}

impl Handler<Sizes> for StoreActor {
    type Result = Vec<(Partition, u64, u64)>;

    fn handle(&mut self, Sizes(partitions): Sizes, _: &mut Self::Context) -> Self::Result {
        let size = |p| {
            let (keys, bytes) = self.core.size_of(p);
            (p, keys as u64, bytes as u64)
        };
        self.core.partitions().filter(|p| partitions.contains(*p)).map(size).collect()
    }
}

impl Handler<SetBudget> for StoreActor {
    type Result = ();

    fn handle(&mut self, budget: SetBudget, _: &mut Self::Context) {
        self.core.set_budget(budget.bytes_max, budget.evict);
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
            let page = self.core.scan(*partition, *from, scan.count.min(SCAN_PAGE_KEYS_MAX), pattern, now);
            ScannedPage { partition: *partition, keys: page.keys, next: page.next }
        };
        MessageResult(within_scan_bytes(scan.from.iter().map(page)))
    }
}

impl Handler<RandomKey> for StoreActor {
    type Result = Option<Bytes>;

    fn handle(&mut self, RandomKey(partitions, draw): RandomKey, _: &mut Self::Context) -> Self::Result {
        self.core.random_key(|p| partitions.contains(p), draw, self.clock.unix_ms())
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
        MessageResult(self.replicate(out, flush.level, ReplyBuf::default()))
    }
}

impl Handler<ViewChanged> for StoreActor {
    type Result = ();

    fn handle(&mut self, ViewChanged(view): ViewChanged, _: &mut Self::Context) {
        self.follow(&view);
    }
}

impl StoreActor {
    /// Replicates if there is anybody to replicate to.
    fn follow(&mut self, view: &View) {
        if self.replicated != view.is_replicated() {
            self.replicated = view.is_replicated();
            self.core.set_replicated(self.replicated);
            if self.sovereign || view.is_sovereign() {
                // Nobody else has, or had, anything of what is here: what was deleted so far needs no remembering.
                self.core.settle_all(self.clock.unix_ms());
            }
        }
        self.sovereign = view.is_sovereign();
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
        for partition in self.core.partitions().filter(|p| self.core.is_filled(*p)) {
            filled.insert(partition);
        }
        MessageResult(StoreStats {
            counters,
            keys: self.core.len(),
            with_deadline: self.core.with_deadline(),
            tombstones: self.core.tombstones(),
            memory_bytes: self.core.memory_bytes() + self.recent.bytes(),
            expiry_late_ms: self.expiry_late_ms,
            filled,
            unsettled: self.core.unsettled().collect(),
        })
    }
}
