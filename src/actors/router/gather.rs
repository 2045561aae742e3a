//! Takes a batch apart into operations and puts their replies together again, in order. Decides nothing about replicas.
//! Tested below and by the client tests.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Addr, Context};
use bytes::Buf;
use smallvec::SmallVec;

use crate::base::counters::Counter;
use crate::base::level::Level;
use crate::base::limits::{BATCH_OPS_MAX, BATCH_REPLY_BYTES_MAX, OPS_UNDER_WAY_MAX};
use crate::base::op::Op;
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::protocol::request::{ClusterOp, Gather, Request, Several};
use crate::protocol::resp::encode::ReplyBuf;

use super::super::store::{Answer, Execute, StoreActor};
use super::{Batch, Desk, Ops, Router, STOPPING, Terms, cluster_wide, errors, forward, lcs, several, spot};

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

/// Answers every request, in order; a transaction has them executed in one go.
pub(super) fn answer(desk: Rc<Desk>, requests: Vec<Request>, together: bool, terms: Terms) -> Answering {
    match local_shards(&desk, &requests, terms.level) {
        Some(shards) => by_stores(&desk, requests, together, terms, shards),
        None if together => Answering::ByRouter(Box::pin(async move {
            let mut out = ReplyBuf::new(terms.wire);
            transaction(&desk, requests, terms, &mut out).await;
            out
        })),
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
        if is_over(&desk, terms, &mut out) {
            continue;
        }
        let begun = desk.clock.monotonic();
        let waits = matches!(op, ClusterOp::Wait { .. });
        cluster_wide::answer(&desk, op, terms, &mut out).await;
        if waits {
            // Its time is its own.
            terms.deadline += desk.clock.monotonic() - begun;
        }
    }
    answer_run(&desk, run, terms, &mut out).await;
    out
}

/// Whether the batch has had all the bytes or all the time it may have. If so, the next request is told.
fn is_over(desk: &Desk, terms: Terms, out: &mut ReplyBuf) -> bool {
    let (counter, text) = if out.remaining() > BATCH_REPLY_BYTES_MAX {
        (Counter::Busy, TOO_LARGE)
    } else if desk.clock.monotonic() >= terms.deadline {
        (Counter::Timeout, TOO_LATE)
    } else {
        return false;
    };
    desk.count(counter, 1);
    out.reply(ReplyRef::Error(text.into()));
    true
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

fn by_stores(desk: &Rc<Desk>, requests: Vec<Request>, together: bool, terms: Terms, shards: Shards) -> Answering {
    desk.count(Counter::OpsLocal, requests.len() as u64);
    if let Some(Request::One(op)) = desk.spots.choose(requests.len()).and_then(|at| requests.get(at)) {
        spot::check(desk, op);
    }
    let execute = |ops| Execute {
        ops,
        requests: Vec::new(),
        together,
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
    let mut work = Work::default();
    for request in requests {
        if !matches!(request, Request::Many(Gather::SetAllIfAbsent, _) | Request::Several(_)) {
            work.add(request);
            continue;
        }
        // Rare, and its own round: whatever came before it must be done when it looks.
        answer_work(desk, std::mem::take(&mut work), terms, out).await;
        if is_over(desk, terms, out) {
            continue;
        }
        match request {
            request if request.partition().is_some() => transaction(desk, vec![request], terms, out).await,
            Request::Many(_, sets) => several::set_all_apart(desk, sets, terms, out).await,
            Request::Several(command) => several::apart(desk, *command, terms, out).await,
            Request::One(_) | Request::Cluster(_) => unreachable!("told apart above"),
        }
    }
    answer_work(desk, work, terms, out).await;
}

async fn answer_work(desk: &Rc<Desk>, work: Work, terms: Terms, out: &mut ReplyBuf) {
    let replies = execute(desk, work.ops, terms, out.remaining()).await;
    dress(desk, &replies, &work.shapes, terms, out).await;
}

/// Answers a transaction.
async fn transaction(desk: &Rc<Desk>, requests: Vec<Request>, terms: Terms, out: &mut ReplyBuf) {
    let mut work = Work::default();
    requests.into_iter().for_each(|request| work.add(request));
    let ops = Ops { ops: work.ops, together: true, ..Ops::default() };
    dress(desk, &forward::execute(desk, ops, terms).await, &work.shapes, terms, out).await;
}

/// Executes operations in order, so many at a time that a store gets to others in between: as many as the replies before them let expect
/// to take [`TURN_BYTES`]. `replied_bytes` are those that the batch has taken already.
pub(super) async fn execute(desk: &Rc<Desk>, ops: Vec<Op>, terms: Terms, replied_bytes: usize) -> ReplyBuf {
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

/// The operations of requests, and what is to be made of their replies.
#[derive(Default)]
struct Work {
    ops: Vec<Op>,
    shapes: Vec<Shape>,
}

impl Work {
    fn add(&mut self, request: Request) {
        let (gather, ops) = match request {
            Request::One(op) => {
                self.ops.push(op);
                return self.shapes.push(Shape { made: Made::Plain, count: 1 });
            }
            Request::Several(command) => {
                let steps = several::steps(&command);
                self.shapes.push(Shape { made: Made::Several(command), count: steps.len() });
                return self.ops.extend(steps);
            }
            Request::Many(Gather::SetAllIfAbsent, sets) => (Gather::SetAllIfAbsent, several::set_all_steps(sets)),
            Request::Many(gather, ops) => (gather, ops),
            Request::Cluster(_) => unreachable!("these are answered by themselves, and never in a transaction"),
        };
        let writes = ops.iter().any(|op| op.act.writes());
        self.shapes.push(Shape { made: Made::Gathered { gather, writes }, count: ops.len() });
        self.ops.extend(ops);
    }
}

/// What a request made of its operations.
struct Shape {
    made: Made,
    /// How many there are.
    count: usize,
}

enum Made {
    /// The only one there is.
    Plain,
    Gathered {
        gather: Gather,
        /// Whether any changes its key.
        writes: bool,
    },
    /// Steps.
    Several(Box<Several>),
}

/// Makes each request's one reply out of those of its operations.
async fn dress(desk: &Desk, replies: &ReplyBuf, shapes: &[Shape], terms: Terms, out: &mut ReplyBuf) {
    let (mut at, mut rested_at) = (0, out.remaining());
    for Shape { made, count } in shapes {
        rest(out, &mut rested_at).await;
        let range = at..at + count;
        at = range.end;
        match made {
            Made::Plain => out.append(replies, range),
            Made::Gathered { gather, writes } => {
                gathered(replies, range, (*gather, *writes), out, &mut rested_at).await;
            }
            Made::Several(command) => match &**command {
                Several::Lcs { ask, .. } => lcs::reply(desk, replies, range, *ask, terms, out).await,
                command => several::reply(replies, range, command, out),
            },
        }
    }
}

/// Lets others have their turn once enough bytes have been moved since the last time.
async fn rest(out: &ReplyBuf, rested_at: &mut usize) {
    if out.remaining() > *rested_at + TURN_BYTES {
        tokio::task::yield_now().await;
        *rested_at = out.remaining();
    }
}

async fn gathered(
    replies: &ReplyBuf,
    range: Range<usize>,
    (gather, writes): (Gather, bool),
    out: &mut ReplyBuf,
    rested_at: &mut usize,
) {
    let failed = range.clone().find(|n| replies.kind(*n) == Some(ReplyKind::Error));
    match (gather, failed) {
        (Gather::SetAllIfAbsent, _) => several::set_all_reply(replies, range, out),
        // An error says that nothing was done, or does not know; where another part was done, the first is no longer true.
        (_, Some(failed)) if writes && range.clone().any(|n| replies.kind(n) != Some(ReplyKind::Error)) => {
            in_part(replies, failed, out);
        }
        // One error stands for the whole: the client can't tell which part failed, as with Redis.
        (_, Some(failed)) => out.append(replies, failed..failed + 1),
        (Gather::Sum, None) => {
            let int = |n| if let Some(ReplyKind::Int(int)) = replies.kind(n) { int } else { 0 };
            out.reply(ReplyRef::Int(range.map(int).sum()));
        }
        (Gather::Array, None) => {
            out.open_array(range.len());
            for n in range {
                out.element(replies, n);
                rest(out, rested_at).await;
            }
            out.close(ReplyKind::Value);
        }
        (Gather::AllOk, None) => out.reply(ReplyRef::Ok),
    }
}

/// The reply to a request of which one part met the error at `failed` and another was done.
pub(super) fn in_part(replies: &ReplyBuf, failed: usize, out: &mut ReplyBuf) {
    let error =
        replies.slices(failed..failed + 1).flatten().skip(1).copied().take_while(u8::is_ascii_uppercase).collect();
    let word = String::from_utf8(error).unwrap_or_default();
    let text = format!("NOQUORUM done for some of the keys, for another there was {word}, applied: unknown");
    out.reply(ReplyRef::Error(text.into()));
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
        let mut rested_at = 0;
        let dressed = gathered(&replies, 0..parts.len(), (gather, writes), &mut out, &mut rested_at);
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
