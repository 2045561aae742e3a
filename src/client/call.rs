//! One call from begin to end: groups operations by the node that coordinates them, sends them there, and tries those again that met with
//! nobody, under the same request ids, until the deadline. Which are tried again, and where, stands in `retry` and `routes`. Exercised by
//! `tests/client.rs`; how a group is parted into requests is tested below.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::base::level::Level;
use crate::base::op::{Op, OpRef};
use crate::base::reply::Wire;
use crate::base::slot::Partition;
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Forward, Message, Misdirected, Replies};

use super::clock;
use super::error::{Applied, Error, ErrorKind};
use super::inner::Inner;
use super::link::Lost;
use super::node::Node;
use super::reply::Reply;
use super::retry::{self, Verdict};
use super::routes::{Address, Table};

/// Bytes of one request, unless a single operation is larger.
const REQUEST_BYTES_TARGET: usize = 1024 * 1024;
/// Operations of one request.
const REQUEST_OPS_MAX: usize = 1024;
/// An operation without its key and value: its act, its number, its lengths.
const OP_BYTES_BESIDES: usize = 64;

/// What holds for all operations of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// `None` takes the cluster's default.
    pub(super) level: Option<Level>,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
}

/// An operation that has no answer yet.
#[derive(Debug)]
struct Pending {
    op: Op,
    place: usize,
    /// Its number among this client's requests; 0 where to repeat it does no harm.
    sequence: u64,
    /// An attempt may have done it.
    is_unknown: bool,
    /// How often it found the cluster busy.
    busy: u32,
}

/// What a request met with.
enum Met {
    /// Replies, one per operation.
    Replies(Vec<Result<Reply, Error>>),
    /// Nothing was done: ask somebody else.
    Elsewhere,
    /// Nothing was done, and not because of the node: what precedes it has no answer yet, or there was no room in time.
    Held,
    /// Something may have been done, or begun with until then.
    Unknown { until: Instant },
}

/// Whom a group is for: a node that serves its keys, or anybody.
type Target = Option<Address>;

/// Executes operations. One result each, in their order.
pub(super) async fn execute(inner: &Inner, ops: Vec<Op>, terms: Terms) -> Vec<Result<Reply, Error>> {
    let mut results: Vec<Option<Result<Reply, Error>>> = ops.iter().map(|_| None).collect();
    let level = terms.level.unwrap_or(inner.table().level);
    let mut left = begin(inner, ops, level);
    for attempt in 0..retry::ATTEMPTS_MAX {
        let table = inner.table();
        let groups = split(inner, &table, std::mem::take(&mut left));
        let sent = groups.into_iter().map(|(to, group)| send_group(inner, &table, to, group, (level, terms)));
        let mut begins_until = clock::now();
        let (mut is_elsewhere, mut is_stale) = (false, false);
        for (met, mut group) in join_all(sent).await.into_iter().flatten() {
            match met {
                Met::Replies(replies) => {
                    for (mut pending, reply) in group.into_iter().zip(replies) {
                        match settle(&mut pending, reply) {
                            Ok(result) => results[pending.place] = Some(result),
                            Err(verdict) => {
                                is_elsewhere |= verdict == Verdict::Elsewhere;
                                left.push(pending);
                            }
                        }
                    }
                }
                Met::Elsewhere => {
                    (is_elsewhere, is_stale) = (true, true);
                    left.append(&mut group);
                }
                Met::Held => left.append(&mut group),
                Met::Unknown { until } => {
                    (is_elsewhere, is_stale) = (true, true);
                    begins_until = begins_until.max(until);
                    group.iter_mut().for_each(|pending| pending.is_unknown = true);
                    left.append(&mut group);
                }
            }
        }
        let in_doubt = left.iter().any(|pending| pending.is_unknown);
        let mut next = clock::now() + retry::pause(attempt, is_elsewhere, rand::random());
        if in_doubt && level != Level::One {
            // From then on whoever is asked next asks the others what became of it.
            next = next.max(begins_until);
        }
        if left.is_empty() || next >= terms.deadline {
            break;
        }
        if is_stale {
            inner.refresh_soon();
        }
        left.sort_unstable_by_key(|pending| pending.place);
        tokio::time::sleep_until(next).await;
    }
    for pending in left {
        results[pending.place] = Some(Err(give_up(inner, &pending, terms)));
    }
    results.into_iter().map(|result| result.expect("each operation was settled or is left")).collect()
}

/// Gives those an id that must not happen twice: as a router does for what it forwards.
fn begin(inner: &Inner, ops: Vec<Op>, level: Level) -> Vec<Pending> {
    let number = |(place, op): (usize, Op)| {
        // Above level one a blind write, repeated, would undo what others saw written after it.
        let repeats = if level == Level::One { op.act.repeats_safely() } else { !op.act.writes() };
        let sequence = if repeats { 0 } else { inner.next_sequence() };
        Pending { op, place, sequence, is_unknown: false, busy: 0 }
    };
    ops.into_iter().enumerate().map(number).collect()
}

/// Groups operations by whom to ask; their order is kept within each group.
fn split(inner: &Inner, table: &Table, ops: Vec<Pending>) -> BTreeMap<Target, Vec<Pending>> {
    let mut groups: BTreeMap<Target, Vec<Pending>> = BTreeMap::new();
    for pending in ops {
        let partition = Partition::of(&pending.op.key);
        let to = table.choose(partition, |member| inner.is_avoided(member)).cloned();
        groups.entry(to).or_default().push(pending);
    }
    groups
}

/// Sends a group in requests of bounded size, one after another, so that the operations on one key keep their order. For the same reason
/// nothing is sent after a request of which anything is to be tried again.
async fn send_group(
    inner: &Inner,
    table: &Table,
    to: Target,
    group: Vec<Pending>,
    (level, terms): (Level, Terms),
) -> Vec<(Met, Vec<Pending>)> {
    let (is_relay, node) = match &to {
        Some(address) => (false, Some(inner.node(address))),
        None => (true, inner.any_node()),
    };
    let Some(node) = node else { return vec![(Met::Elsewhere, group)] };
    let (mut done, mut is_answered, mut group) = (Vec::new(), true, group.into_iter().peekable());
    while group.peek().is_some() {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while let Some(pending) = group.next_if(|pending| has_room(part.len(), bytes, &pending.op)) {
            bytes += op_bytes(&pending.op);
            part.push(pending);
        }
        let met = match is_answered {
            true => send(inner, table, &node, &part, (is_relay, level, terms)).await,
            false => Met::Held,
        };
        is_answered = matches!(&met, Met::Replies(replies) if all_final(&part, replies));
        done.push((met, part));
    }
    done
}

/// Whether none of the operations is to be tried again.
fn all_final(part: &[Pending], replies: &[Result<Reply, Error>]) -> bool {
    let verdict = |(pending, reply): (&Pending, &Result<Reply, Error>)| match reply {
        Ok(_) => Verdict::Final,
        Err(error) => retry::judge(error, pending.busy),
    };
    part.iter().zip(replies).map(verdict).all(|verdict| verdict == Verdict::Final)
}

/// What an operation takes in a request, or a little less than this.
pub(super) fn op_bytes(op: &Op) -> usize {
    op.key.len() + op.value.len() + OP_BYTES_BESIDES
}

/// Whether a request of so many operations and bytes takes one more.
fn has_room(count: usize, bytes: usize, op: &Op) -> bool {
    count == 0 || count < REQUEST_OPS_MAX && bytes + op_bytes(op) <= REQUEST_BYTES_TARGET
}

async fn send(
    inner: &Inner,
    table: &Table,
    node: &Arc<Node>,
    part: &[Pending],
    (is_relay, level, terms): (bool, Level, Terms),
) -> Met {
    let link = match tokio::time::timeout_at(terms.deadline, node.link(&inner.options)).await {
        Ok(Ok(link)) => link,
        Ok(Err(_)) | Err(_) => {
            node.avoid();
            return Met::Elsewhere;
        }
    };
    let room = match tokio::time::timeout_at(terms.deadline, link.room()).await {
        Ok(Ok(room)) => room,
        Ok(Err(_)) => {
            node.avoid();
            return Met::Elsewhere;
        }
        // The node has much to do, which is no reason to leave it.
        Err(_) => return Met::Held,
    };
    let left = terms.deadline.saturating_duration_since(clock::now());
    let forward = Forward {
        epoch: table.epoch,
        timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        level,
        wire: Wire::Item,
        router: inner.router,
        together: false,
        retry: part.iter().any(|pending| pending.is_unknown),
        begun_ms: link.their_ms(terms.begun),
        ops: part.iter().map(|pending| (pending.sequence, borrow(&pending.op))).collect(),
    };
    let call = if is_relay { Call::relay(&forward) } else { Call::forward(&forward) };
    match tokio::time::timeout_at(terms.deadline, link.ask(room, &call)).await {
        Ok(Ok(payload)) => {
            let met = read(inner, table, node, &payload, part.len());
            if let Met::Replies(replies) = &met
                && replies.iter().any(|reply| matches!(reply, Err(error) if error.kind() == ErrorKind::Shutdown))
            {
                node.avoid();
            }
            met
        }
        Ok(Err(Lost::Unsent)) => {
            node.avoid();
            Met::Elsewhere
        }
        Ok(Err(Lost::Broken { begins_until })) => {
            node.avoid();
            Met::Unknown { until: begins_until }
        }
        Err(_) => Met::Unknown { until: terms.deadline },
    }
}

fn borrow(op: &Op) -> OpRef<'_> {
    OpRef { key: &op.key, act: op.act, value: &op.value }
}

/// Takes the replies out of the frame that answered.
fn read(inner: &Inner, table: &Table, node: &Node, payload: &Bytes, wanted: usize) -> Met {
    match frame::decode(payload) {
        Ok(Message::Forwarded { result: Ok(Replies { marks, bytes }), .. }) if marks.len() == wanted => {
            let (mut replies, mut start) = (Vec::with_capacity(wanted), 0);
            for (end, _) in marks {
                let reply = bytes.get(start..end as usize).map(|reply| Reply::read(&payload.slice_ref(reply)));
                replies.push(reply.unwrap_or_else(|| Err(Error::strange("replies cut short"))));
                start = end as usize;
            }
            Met::Replies(replies)
        }
        Ok(Message::Forwarded { result: Err(Misdirected { epoch }), .. }) => {
            // Who knows a newer ring tells whom to ask; of the same ring it sees others alive.
            if epoch <= table.epoch {
                node.avoid();
            }
            inner.refresh_soon();
            Met::Elsewhere
        }
        _ => {
            let strange = || Error::new(ErrorKind::Protocol, Applied::Unknown, "an answer to another question");
            Met::Replies((0..wanted).map(|_| Err(strange())).collect())
        }
    }
}

/// The result of an operation, or why it is to be tried again.
fn settle(pending: &mut Pending, reply: Result<Reply, Error>) -> Result<Result<Reply, Error>, Verdict> {
    let error = match reply {
        Ok(reply) => return Ok(Ok(reply)),
        Err(error) => error,
    };
    let verdict = retry::judge(&error, pending.busy);
    if verdict != Verdict::Final {
        pending.busy += u32::from(error.kind() == ErrorKind::Busy);
        return Err(verdict);
    }
    let in_doubt = pending.is_unknown && pending.op.act.writes();
    Ok(Err(if in_doubt { error.in_doubt() } else { error }))
}

/// The error for what nobody could be found for.
fn give_up(inner: &Inner, pending: &Pending, terms: Terms) -> Error {
    let applied = if pending.is_unknown && pending.op.act.writes() { Applied::Unknown } else { Applied::No };
    let told = if applied == Applied::No { "no" } else { "unknown" };
    if pending.is_unknown || inner.is_linked() {
        let within = terms.deadline.saturating_duration_since(terms.begun).as_millis();
        return Error::new(ErrorKind::Timeout, applied, format!("no answer within {within} ms, applied: {told}"));
    }
    inner.unreachable(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::op::Act;
    use proptest::prelude::*;

    fn op(bytes: usize) -> Op {
        Op { key: Bytes::from_static(b"k"), act: Act::Append, value: vec![0; bytes].into() }
    }

    fn pending(act: Act, is_unknown: bool) -> Pending {
        Pending { op: Op { act, ..op(0) }, place: 0, sequence: 1, is_unknown, busy: 0 }
    }

    #[test]
    fn a_refusal_of_a_retry_leaves_doubt_of_writes_only() {
        let told = |act, is_unknown| {
            let refused = Err(Error::of_line(b"NOQUORUM too few, applied: no"));
            settle(&mut pending(act, is_unknown), refused).unwrap().unwrap_err().applied()
        };
        assert_eq!(told(Act::Incr { by: 1 }, false), Applied::No);
        assert_eq!(told(Act::Incr { by: 1 }, true), Applied::Unknown);
        assert_eq!(told(Act::Get, true), Applied::No);
    }

    #[test]
    fn busy_and_late_operations_are_tried_again_and_others_told() {
        let mut of = pending(Act::Get, false);
        let mut told = |line: &str| settle(&mut of, Err(Error::of_line(line.as_bytes())));
        assert_eq!(told("BUSY nothing was done").unwrap_err(), Verdict::Again);
        assert_eq!(told("SHUTDOWN nothing was done").unwrap_err(), Verdict::Elsewhere);
        assert!(told("ERR wrong").is_ok());
        assert_eq!(of.busy, 1);
    }

    proptest! {
        #[test]
        fn requests_are_bounded_and_none_is_empty(sizes in prop::collection::vec(0usize..600_000, 1..40)) {
            let (mut count, mut bytes) = (0, 0);
            for op in sizes.into_iter().map(op) {
                if !has_room(count, bytes, &op) {
                    prop_assert!(count > 0);
                    (count, bytes) = (0, 0);
                }
                prop_assert!(has_room(count, bytes, &op));
                (count, bytes) = (count + 1, bytes + op_bytes(&op));
                prop_assert!(count == 1 || count <= REQUEST_OPS_MAX && bytes <= REQUEST_BYTES_TARGET);
            }
        }
    }
}
