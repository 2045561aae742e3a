//! Takes a batch apart into operations and puts their replies together again, in order. Decides nothing about replicas.
//! Tested below and by the client tests.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Addr, Context};
use bytes::Buf;
use smallvec::SmallVec;

use crate::base::counters::Counter;
use crate::base::level::Level;
use crate::base::limits::{BATCH_OPS_MAX, BATCH_REPLY_BYTES_MAX, OPS_UNDER_WAY_MAX};
use crate::base::op::{Act, Op};
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::protocol::request::{ClusterOp, Gather, Request};
use crate::protocol::resp::encode::ReplyBuf;

use super::super::store::{Answer, Execute, StoreActor};
use super::{Batch, Desk, Ops, Router, STOPPING, Terms, cluster_wide, errors, forward};

const OVERTAKEN: &str = "NOQUORUM another client set some of the keys meanwhile, the others are set, applied: unknown";

const TOO_LARGE: &str = "BUSY the replies to one batch are too large, ask for fewer keys at a time, nothing was done";
const TOO_LATE: &str = "TIMEOUT what came before it in the batch took too long, applied: no";

/// Bytes of replies that are made or moved in one go; then others have their turn.
const TURN_BYTES: usize = 4 * 1024 * 1024;
/// Fewest operations executed at a time: a large value is shared, not copied, and takes no time.
const TURN_OPS_MIN: usize = 16;

type Reply = Pin<Box<dyn Future<Output = ReplyBuf>>>;

/// The local shard of each request of a batch.
type Shards = SmallVec<[u16; 64]>;

/// How a batch is answered.
pub enum Answering {
    /// By the one store that holds all its keys, without another word from the router.
    ByStore(Addr<StoreActor>, Execute),
    /// By what this comes to.
    ByRouter(Reply),
}

impl MessageResponse<Router, Batch> for Answering {
    fn handle(self, ctx: &mut Context<Router>, to: Option<OneshotSender<ReplyBuf>>) {
        match self {
            // What is in flight is bounded at the door. A store that is gone drops `to`, which tells the sender.
            Self::ByStore(store, batch) => store.do_send(Answer { batch, to }),
            Self::ByRouter(reply) => MessageResponse::<Router, Batch>::handle(reply, ctx, to),
        }
    }
}

/// Answers every request, in order.
pub(super) fn answer(desk: Rc<Desk>, requests: Vec<Request>, terms: Terms) -> Answering {
    match local_shards(&desk, &requests, terms.level) {
        Some(shards) => by_stores(&desk, requests, terms, shards),
        None => Answering::ByRouter(Box::pin(one_by_one(desk, requests, terms))),
    }
}

async fn one_by_one(desk: Rc<Desk>, requests: Vec<Request>, mut terms: Terms) -> ReplyBuf {
    let mut out = ReplyBuf::new(terms.wire);
    let mut run = Vec::new();
    for request in requests {
        let Request::Cluster(op) = request else {
            run.push(request);
            continue;
        };
        // What concerns all keys sees everything before it, and nothing after.
        answer_run(&desk, std::mem::take(&mut run), terms, &mut out).await;
        let begun = desk.clock.monotonic();
        if out.remaining() > BATCH_REPLY_BYTES_MAX {
            desk.count(Counter::Busy, 1);
            out.reply(ReplyRef::Error(TOO_LARGE.into()));
        } else if begun >= terms.deadline {
            desk.count(Counter::Timeout, 1);
            out.reply(ReplyRef::Error(TOO_LATE.into()));
        } else {
            let waits = matches!(op, ClusterOp::Wait { .. });
            cluster_wide::answer(&desk, op, terms, &mut out).await;
            if waits {
                // Its time is its own.
                terms.deadline += desk.clock.monotonic() - begun;
            }
        }
    }
    answer_run(&desk, run, terms, &mut out).await;
    out
}

/// Where each request goes, if all are about one key each, this node coordinates them, and nobody else's word is needed. It is the common
/// case, and spares it all the bookkeeping below.
fn local_shards(desk: &Desk, requests: &[Request], level: Level) -> Option<Shards> {
    let view = desk.view.load();
    if level != Level::One && !view.is_sovereign() {
        return None;
    }
    let shard = |request: &Request| {
        let Request::One(op) = request else { return None };
        let partition = Partition::of(&op.key);
        let ours = desk.coordinator(view.route(partition)) == Some(view.me);
        ours.then(|| u16::try_from(desk.local.shard_of(partition)).expect("fewer shards than partitions"))
    };
    requests.iter().map(shard).collect()
}

fn by_stores(desk: &Desk, requests: Vec<Request>, terms: Terms, shards: Shards) -> Answering {
    desk.count(Counter::OpsLocal, requests.len() as u64);
    let execute = |ops| Execute {
        ops,
        requests: Vec::new(),
        all_or_none: false,
        wire: terms.wire,
        level: Level::One,
        deadline: terms.deadline,
        start_by: None,
        grounds: None,
    };
    let mut ops = requests.into_iter().filter_map(|r| if let Request::One(op) = r { Some(op) } else { None });
    let first = shards.first().map_or(0, |shard| usize::from(*shard));
    if shards.iter().all(|shard| usize::from(*shard) == first) {
        return Answering::ByStore(desk.local.stores[first].clone(), execute(ops.collect()));
    }
    let mut batches: Vec<Vec<Op>> = desk.local.stores.iter().map(|_| Vec::with_capacity(shards.len())).collect();
    for shard in &shards {
        batches[usize::from(*shard)].extend(ops.next());
    }
    let sent = batches.into_iter().zip(&desk.local.stores).map(|(ops, store)| {
        let count = ops.len();
        (count, (count > 0).then(|| store.send(execute(ops))))
    });
    let sent: Vec<_> = sent.collect();
    Answering::ByRouter(Box::pin(async move {
        let mut done = Vec::with_capacity(sent.len());
        for (count, sent) in sent {
            let executed = if let Some(sent) = sent { sent.await.ok() } else { None };
            let replies = executed.map_or_else(|| errors(terms.wire, count, STOPPING), |executed| executed.replies);
            done.push((replies, 0));
        }
        let mut out = ReplyBuf::with_room(terms.wire, shards.len());
        for shard in shards {
            let (replies, next) = &mut done[usize::from(shard)];
            out.append(replies, *next..*next + 1);
            *next += 1;
        }
        out
    }))
}

/// Answers requests about keys: executes their operations, then dresses the replies.
async fn answer_run(desk: &Rc<Desk>, requests: Vec<Request>, terms: Terms, out: &mut ReplyBuf) {
    if requests.is_empty() {
        return;
    }
    let mut ops = Vec::new();
    let mut shapes = Vec::with_capacity(requests.len());
    for request in requests {
        match request {
            Request::One(op) => {
                ops.push(op);
                shapes.push(Shape { gather: None, count: 1, writes: false });
            }
            Request::Many(Gather::SetAllIfAbsent, sets) => {
                // Rare, and its own round: whatever came before it must be done when it looks.
                let before = std::mem::take(&mut ops);
                let replies = execute(desk, before, terms, out.remaining()).await;
                dress(&replies, &std::mem::take(&mut shapes), out).await;
                set_all_if_absent(desk, sets, terms, out).await;
            }
            Request::Many(gather, many) => {
                let writes = many.iter().any(|op| op.act.writes());
                shapes.push(Shape { gather: Some(gather), count: many.len(), writes });
                ops.extend(many);
            }
            Request::Cluster(_) => unreachable!("the caller has answered these"),
        }
    }
    let replies = execute(desk, ops, terms, out.remaining()).await;
    dress(&replies, &shapes, out).await;
}

/// Executes operations in order, so many at a time that a store gets to others in between: as many as the replies before them let expect
/// to take [`TURN_BYTES`]. `replied_bytes` are those that the batch has taken already.
async fn execute(desk: &Rc<Desk>, ops: Vec<Op>, terms: Terms, replied_bytes: usize) -> ReplyBuf {
    let mut replies = ReplyBuf::new(terms.wire);
    let mut left = ops.into_iter();
    let mut turn = BATCH_OPS_MAX;
    while left.len() > 0 {
        if replied_bytes + replies.remaining() > BATCH_REPLY_BYTES_MAX {
            desk.count(Counter::Busy, left.len() as u64);
            replies.append_all(errors(terms.wire, left.len(), TOO_LARGE));
            break;
        }
        let ops = left.by_ref().take(turn).collect();
        let done = forward::execute(desk, Ops { ops, ..Ops::default() }, terms).await;
        turn = next_turn(turn, done.remaining());
        replies.append_all(done);
    }
    replies
}

/// How many operations come next when `ops` took `bytes` of replies.
fn next_turn(ops: usize, bytes: usize) -> usize {
    let expected = ops * TURN_BYTES / bytes.max(1);
    expected.clamp(TURN_OPS_MIN, (2 * ops).min(OPS_UNDER_WAY_MAX))
}

/// What a request made of its operations.
struct Shape {
    gather: Option<Gather>,
    /// How many there are.
    count: usize,
    /// Whether any of several changes its key.
    writes: bool,
}

/// Makes each request's one reply out of those of its operations.
async fn dress(replies: &ReplyBuf, shapes: &[Shape], out: &mut ReplyBuf) {
    let (mut at, mut rested_at) = (0, out.remaining());
    for Shape { gather, count, writes } in shapes {
        if out.remaining() > rested_at + TURN_BYTES {
            tokio::task::yield_now().await;
            rested_at = out.remaining();
        }
        let range = at..at + count;
        at = range.end;
        let failed = range.clone().find(|n| replies.kind(*n) == Some(ReplyKind::Error));
        match (gather, failed) {
            (None, _) => out.append(replies, range),
            // An error says that nothing was done, or does not know; where another part was done, the first is no longer true.
            (Some(_), Some(failed)) if *writes && range.clone().any(|n| replies.kind(n) != Some(ReplyKind::Error)) => {
                in_part(replies, failed, out);
            }
            // One error stands for the whole: the client can't tell which part failed, as with Redis.
            (Some(_), Some(failed)) => out.append(replies, failed..failed + 1),
            (Some(Gather::Sum), None) => {
                let int = |n| if let Some(ReplyKind::Int(int)) = replies.kind(n) { int } else { 0 };
                out.reply(ReplyRef::Int(range.map(int).sum()));
            }
            (Some(Gather::Array), None) => {
                out.open_array(*count);
                for n in range {
                    out.element(replies, n);
                    if out.remaining() > rested_at + TURN_BYTES {
                        tokio::task::yield_now().await;
                        rested_at = out.remaining();
                    }
                }
                out.close(ReplyKind::Value);
            }
            (Some(Gather::AllOk | Gather::SetAllIfAbsent), None) => out.reply(ReplyRef::Ok),
        }
    }
}

/// The reply to a request of which one part met the error at `failed` and another was done.
fn in_part(replies: &ReplyBuf, failed: usize, out: &mut ReplyBuf) {
    let error =
        replies.slices(failed..failed + 1).flatten().skip(1).copied().take_while(u8::is_ascii_uppercase).collect();
    let word = String::from_utf8(error).unwrap_or_default();
    let text = format!("NOQUORUM done for some of the keys, for another there was {word}, applied: unknown");
    out.reply(ReplyRef::Error(text.into()));
}

/// `MSETNX`. Atomic where all keys are of one partition; over several it looks first and then sets, without isolation.
async fn set_all_if_absent(desk: &Rc<Desk>, sets: Vec<Op>, terms: Terms, out: &mut ReplyBuf) {
    let partition = sets.first().map(|op| Partition::of(&op.key));
    if sets.iter().all(|op| Some(Partition::of(&op.key)) == partition) {
        let ops = Ops { ops: sets, all_or_none: true, ..Ops::default() };
        let replies = forward::execute(desk, ops, terms).await;
        return out.append(&replies, 0..1);
    }
    let looks = sets.iter().map(|op| Op::new(op.key.clone(), Act::Exists)).collect();
    let found = execute(desk, looks, terms, 0).await;
    let failed = |replies: &ReplyBuf| (0..replies.replies()).find(|n| replies.kind(*n) == Some(ReplyKind::Error));
    if let Some(n) = failed(&found) {
        return out.append(&found, n..n + 1);
    }
    if (0..found.replies()).any(|n| found.kind(n) == Some(ReplyKind::Int(1))) {
        return out.reply(ReplyRef::Int(0));
    }
    let count = sets.len();
    let done = execute(desk, sets, terms, 0).await;
    let set = (0..count).filter(|n| done.kind(*n) == Some(ReplyKind::Int(1))).count();
    match failed(&done) {
        Some(n) if set > 0 => in_part(&done, n, out),
        Some(n) => out.append(&done, n..n + 1),
        // Somebody else was faster with some of the keys, or with all.
        None if set > 0 && set < count => out.reply(ReplyRef::Error(OVERTAKEN.into())),
        None => out.reply(ReplyRef::Int(i64::from(set == count))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reply::{BUSY, Wire};
    use futures_util::FutureExt;

    #[test]
    fn large_replies_make_turns_shorter_and_small_ones_longer() {
        assert_eq!(next_turn(1_024, 1_024 * 5), 2_048);
        assert_eq!(next_turn(OPS_UNDER_WAY_MAX, 1), OPS_UNDER_WAY_MAX);
        assert_eq!(next_turn(1_024, 1_024 * 30_000), 139, "4 MiB of 30 kB each");
        assert_eq!(next_turn(16, 16 * 400_000_000), TURN_OPS_MIN);
    }

    fn dressed(gather: Gather, writes: bool, parts: &[ReplyRef<'_>]) -> String {
        let (mut replies, mut out) = (ReplyBuf::new(Wire::Resp2), ReplyBuf::new(Wire::Resp2));
        parts.iter().for_each(|part| replies.reply(part.clone()));
        let shapes = [Shape { gather: Some(gather), count: parts.len(), writes }];
        let dressed = dress(&replies, &shapes, &mut out);
        dressed.now_or_never().expect("so little is done in one go");
        String::from_utf8(out.copy_to_bytes(out.remaining()).to_vec()).unwrap()
    }

    #[test]
    fn an_error_that_says_nothing_was_done_is_not_passed_on_where_a_part_was_done() {
        let busy = ReplyRef::Error(BUSY.into());
        let in_part = "-NOQUORUM done for some of the keys, for another there was BUSY, applied: unknown\r\n";
        assert_eq!(dressed(Gather::AllOk, true, &[ReplyRef::Ok, busy.clone()]), in_part);
        assert_eq!(dressed(Gather::Sum, true, &[busy.clone(), ReplyRef::Int(1)]), in_part);
        assert_eq!(dressed(Gather::AllOk, true, &[busy.clone(), busy.clone()]), format!("-{BUSY}\r\n"));
        assert_eq!(dressed(Gather::Sum, false, &[ReplyRef::Int(1), busy]), format!("-{BUSY}\r\n"));
    }
}
