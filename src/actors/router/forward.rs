//! Sends each operation to its coordinator, here or one hop away, and on to the next replica when that one can't be reached. A repeated
//! operation keeps its request id, so that it counts once. Never executes anything. How a group is parted into calls is tested below.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::limits::{BATCH_OPS_MAX, FRAME_BYTES_MAX};
use crate::base::op::{Op, OpRef};
use crate::base::reply::{BUSY, ReplyKind, ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::cluster::view::{PeerIx, View};
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Forward, Message as Native, Replies};
use crate::protocol::resp::encode::ReplyBuf;

use super::super::replication::{CallPeer, LinkError};
use super::{Desk, LATE, Ops, Terms, coordinate, errors};

/// Rounds of finding somebody else, each a little later than the one before. Together with the waits between them they outlast the
/// failure of one replica and a change of the ring.
const ATTEMPTS_MAX: u32 = 12;
/// Wait before a member is asked again that was asked before.
const PAUSE: Duration = Duration::from_millis(15);

/// Bytes of one call, unless a single operation is larger.
const CALL_BYTES_TARGET: usize = 16 * 1024 * 1024;
/// Operations of one call. It bounds an answer of small values; what larger ones come to only the answering side knows.
const CALL_OPS_MAX: usize = 4 * BATCH_OPS_MAX;
/// An operation without its key and value: its act, its number, its lengths.
const OP_BYTES_BESIDES: usize = 64;
/// Bytes of operations that can't be parted: what a frame takes, with room for its head.
const TOGETHER_BYTES_MAX: usize = FRAME_BYTES_MAX - 4 * 1024;
const TOO_LARGE_TOGETHER: &str =
    "ERR the keys and values together exceed what one member can be asked to do at once, nothing was done";

/// First words of replies that say nothing was done, for reasons of the moment or of the member.
const REFUSALS: [&str; 5] = ["-NOQUORUM", "-TIMEOUT", "-BUSY", "-SHUTDOWN", "-OOM"];
const IN_DOUBT: &str = "NOQUORUM the link broke, and too few replicas answered a second attempt, applied: unknown";

/// What a group of operations met with.
enum Met {
    /// Replies, one per operation.
    Replies(ReplyBuf),
    /// Nothing was done: ask somebody else.
    Elsewhere,
    /// Something may have been done, or begun with until then, and there is no answer: ask somebody else, with the same ids.
    Unknown { until: Instant },
}

/// Executes all operations. One reply each.
pub(super) async fn execute(desk: &Rc<Desk>, mut ops: Ops, terms: Terms) -> ReplyBuf {
    let total = ops.ops.len();
    let together = ops.together;
    // What is passed on for a client was begun, and perhaps done, before it came here; that it may have been, the client knows.
    let passed_on_retry = ops.retry;
    let begun_ms = if terms.start_by.is_some() { ops.begun_ms } else { desk.clock.unix_ms() };
    ops.begun_ms = begun_ms;
    // Where the operations still to be done stand in the whole, and whether they may have been done.
    let mut places: Vec<usize> = (0..total).collect();
    let mut unknown = vec![false; total];
    let mut done: Vec<(ReplyBuf, Vec<usize>)> = Vec::new();
    for attempt in 0..ATTEMPTS_MAX {
        let view = desk.view.load_full();
        let mut begins_until = desk.clock.monotonic();
        let mut groups = split(desk, &view, std::mem::take(&mut ops), std::mem::take(&mut places), terms.level);
        for (_, group, places) in &mut groups {
            group.retry &= passed_on_retry || places.iter().any(|place| unknown[*place]);
        }
        let asked = groups.into_iter().map(|(to, group, places)| ask(desk, &view, to, (group, places), terms));
        let results = join_all(asked).await;
        let is_last = attempt + 1 == ATTEMPTS_MAX || desk.clock.monotonic() + PAUSE >= terms.deadline;
        for (met, mut group, mut group_places) in results.into_iter().flatten() {
            match met {
                Met::Replies(replies) => {
                    // Who was late is asked again: nothing was done, and load is no reason to ask somebody else.
                    let late = if is_last { Vec::new() } else { late_ones(&replies) };
                    let doubtful = |n: usize| unknown.get(group_places[n]).is_some_and(|unknown| *unknown);
                    let replies = with_doubt(replies, doubtful, terms);
                    if late.is_empty() {
                        done.push((replies, group_places));
                        continue;
                    }
                    done.extend(without(&late, &replies, &group_places));
                    keep(&late, &mut group.ops);
                    keep(&late, &mut group.requests);
                    keep(&late, &mut group_places);
                }
                Met::Elsewhere => {}
                Met::Unknown { until } => {
                    begins_until = begins_until.max(until);
                    group_places.iter().for_each(|place| unknown[*place] = true);
                }
            }
            ops.ops.extend(group.ops);
            ops.requests.extend(group.requests);
            places.extend(group_places);
        }
        if ops.ops.is_empty() || is_last {
            break;
        }
        (ops.together, ops.begun_ms) = (together, begun_ms);
        ops.retry = passed_on_retry || places.iter().any(|place| unknown[*place]);
        desk.count(Counter::OpsRetried, ops.ops.len() as u64);
        if attempt > 0 {
            tokio::time::sleep(PAUSE * attempt).await;
        }
        if ops.retry && terms.level != Level::One {
            // A link may break before the moment after which the other side must not begin. From then on it asks who else was.
            tokio::time::sleep_until(begins_until.min(terms.deadline)).await;
        }
    }
    if !ops.ops.is_empty() {
        done.push(give_up(desk, &ops, places, &unknown, terms));
    }
    in_order(done, total, terms)
}

/// Has a group executed, here or there.
async fn ask(
    desk: &Rc<Desk>,
    view: &Arc<View>,
    to: Option<PeerIx>,
    (group, places): (Ops, Vec<usize>),
    terms: Terms,
) -> Vec<(Met, Ops, Vec<usize>)> {
    match to {
        None => vec![(Met::Elsewhere, group, places)],
        Some(peer) if peer == view.me => {
            let replies = coordinate::all_here(desk, view, group.clone(), terms).await;
            vec![(Met::Replies(replies), group, places)]
        }
        Some(peer) => in_calls(desk, view, peer, (group, places), terms).await,
    }
}

/// Groups operations by the member that coordinates them and, if that is this node, by shard; the order within each group is kept.
fn split(
    desk: &Desk,
    view: &View,
    ops: Ops,
    places: Vec<usize>,
    level: Level,
) -> Vec<(Option<PeerIx>, Ops, Vec<usize>)> {
    let mut groups: BTreeMap<(Option<PeerIx>, usize), (Ops, Vec<usize>)> = BTreeMap::new();
    let first_time = ops.requests.is_empty();
    // What a transaction read can't be read again. Above level one a blind write needs an id as well: repeated, it would undo what others
    // saw written after it.
    let all_writes = level != Level::One || ops.rests_on_reads();
    let mut requests = ops.requests.into_iter();
    for (op, place) in ops.ops.into_iter().zip(places) {
        let partition = Partition::of(&op.key);
        let to = desk.coordinator(view.route(partition));
        let here = to == Some(view.me);
        let shard = if here { desk.local.shard_of(partition) } else { 0 };
        let request = if first_time {
            // Work that stays here is never repeated; it needs no id until it leaves.
            let repeats = if all_writes { !op.act.writes() } else { op.act.repeats_safely() };
            (!here && !repeats).then(|| desk.request_id())
        } else {
            requests.next().flatten()
        };
        let (group, group_places) = groups.entry((to, shard)).or_default();
        group.ops.push(op);
        group.requests.push(request);
        group.together = ops.together;
        group.retry = ops.retry;
        group.begun_ms = ops.begun_ms;
        group_places.push(place);
    }
    groups.into_iter().map(|((to, _), (group, places))| (to, group, places)).collect()
}

/// Sends a group in calls of bounded size, one after another: the receiver works on calls at the same time, and the operations on one key
/// must keep their order. For the same reason nothing is sent after a call that has no answer.
async fn in_calls(
    desk: &Desk,
    view: &View,
    peer: PeerIx,
    (group, places): (Ops, Vec<usize>),
    terms: Terms,
) -> Vec<(Met, Ops, Vec<usize>)> {
    let (together, retry, begun_ms) = (group.together, group.retry, group.begun_ms);
    let lengths = if together { vec![group.ops.len()] } else { call_lengths(&group.ops) };
    if together && group.ops.iter().map(op_bytes).sum::<usize>() > TOGETHER_BYTES_MAX {
        let refusals = errors(terms.wire, group.ops.len(), TOO_LARGE_TOGETHER);
        return vec![(Met::Replies(refusals), group, places)];
    }
    let (mut ops, mut requests, mut places) = (group.ops.into_iter(), group.requests.into_iter(), places.into_iter());
    let mut done = Vec::with_capacity(lengths.len());
    let mut is_answered = true;
    for length in lengths {
        let (ops, requests) = (ops.by_ref().take(length).collect(), requests.by_ref().take(length).collect());
        let group = Ops { ops, requests, together, retry, begun_ms };
        let met = if is_answered { send(desk, view, peer, &group, terms).await } else { Met::Elsewhere };
        is_answered = matches!(&met, Met::Replies(replies) if late_ones(replies).is_empty());
        done.push((met, group, places.by_ref().take(length).collect()));
    }
    done
}

/// How many operations each call takes: as many as fit both bounds, and at least one.
pub(super) fn call_lengths(ops: &[Op]) -> Vec<usize> {
    let mut lengths = Vec::new();
    let (mut length, mut bytes) = (0, 0);
    for op in ops {
        if length > 0 && (length == CALL_OPS_MAX || bytes + op_bytes(op) > CALL_BYTES_TARGET) {
            lengths.push(length);
            (length, bytes) = (0, 0);
        }
        length += 1;
        bytes += op_bytes(op);
    }
    lengths.push(length);
    lengths
}

/// What an operation takes in a call, or a little less than this.
fn op_bytes(op: &Op) -> usize {
    op.key.len() + op.value.len() + OP_BYTES_BESIDES
}

async fn send(desk: &Desk, view: &View, peer: PeerIx, group: &Ops, terms: Terms) -> Met {
    let left = terms.deadline.saturating_duration_since(desk.clock.monotonic());
    let sequence = |request: &Option<RequestId>| request.map_or(0, |request| request.sequence);
    let forward = Forward {
        epoch: view.epoch,
        timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        level: terms.level,
        wire: terms.wire,
        router: group.requests.iter().flatten().next().map_or(desk.id, |request| request.router),
        together: group.together,
        retry: group.retry,
        begun_ms: group.begun_ms,
        ops: group.ops.iter().zip(&group.requests).map(|(op, request)| (sequence(request), borrow(op))).collect(),
    };
    desk.count(Counter::OpsForwarded, group.ops.len() as u64);
    // Whoever waits for what is passed on may ask somebody else from then on.
    let wait = |start_by: Instant| start_by.saturating_duration_since(desk.clock.monotonic());
    let begun_before = terms.start_by.map(|start_by| desk.clock.uptime() + wait(start_by));
    let call = CallPeer { peer, call: Call::forward(&forward).begun_before(begun_before) };
    let answer = tokio::time::timeout_at(terms.deadline, desk.replication.send(call)).await;
    match answer {
        Ok(Ok(Ok(payload))) => read(desk, view, peer, &payload, (group.ops.len(), terms)),
        Ok(Ok(Err(LinkError::Broken { within }))) => {
            desk.avoid(peer);
            Met::Unknown { until: desk.clock.monotonic() + within }
        }
        Ok(Ok(Err(LinkError::Unreachable))) => {
            desk.avoid(peer);
            Met::Elsewhere
        }
        // A full link is no reason to move keys to a second coordinator.
        Ok(Ok(Err(LinkError::Busy))) => {
            desk.count(Counter::Busy, group.ops.len() as u64);
            Met::Replies(errors(terms.wire, group.ops.len(), BUSY))
        }
        Ok(Err(_)) => Met::Elsewhere,
        Err(_) => Met::Unknown { until: terms.deadline },
    }
}

fn borrow(op: &Op) -> OpRef<'_> {
    OpRef { key: &op.key, act: op.act, value: &op.value }
}

/// Takes the replies out of the frame that answered.
fn read(desk: &Desk, view: &View, peer: PeerIx, payload: &Bytes, (wanted, terms): (usize, Terms)) -> Met {
    // It is over, whatever it came to.
    let unreadable = || Met::Unknown { until: desk.clock.monotonic() };
    match frame::decode(payload) {
        Ok(Native::Forwarded { result: Ok(Replies { marks, bytes }), .. }) if marks.len() == wanted => {
            let mut replies = ReplyBuf::new(terms.wire);
            let mut start = 0;
            for (end, kind) in marks {
                let Some(reply) = bytes.get(start..end as usize) else { return unreadable() };
                replies.push_encoded(frame::share(payload, reply), kind);
                start = end as usize;
            }
            Met::Replies(replies)
        }
        Ok(Native::Forwarded { result: Err(misdirected), .. }) => {
            if misdirected.epoch >= view.epoch {
                desk.pull_from(peer);
            }
            // Who knows a newer ring tells whom to ask; of the same ring it sees others alive.
            if misdirected.epoch <= view.epoch {
                desk.avoid(peer);
            }
            Met::Elsewhere
        }
        _ => unreadable(),
    }
}

/// Errors for what nobody could be found for.
fn give_up(desk: &Desk, ops: &Ops, places: Vec<usize>, unknown: &[bool], terms: Terms) -> (ReplyBuf, Vec<usize>) {
    let mut replies = ReplyBuf::new(terms.wire);
    let late = desk.clock.monotonic() + PAUSE >= terms.deadline;
    desk.count(if late { Counter::Timeout } else { Counter::NoQuorum }, ops.ops.len() as u64);
    for (op, place) in ops.ops.iter().zip(&places) {
        let word = if late { "TIMEOUT" } else { "NOQUORUM" };
        let applied = if unknown[*place] && op.act.writes() { "unknown" } else { "no" };
        let text = format!("{word} no replica of the key could be reached, applied: {applied}");
        replies.reply(ReplyRef::Error(text.into()));
    }
    (replies, places)
}

/// Whether reply `n` is the refusal of a coordinator that came too late to begin.
fn is_late(replies: &ReplyBuf, n: usize) -> bool {
    let reply = || replies.slices(n..n + 1).next().and_then(|reply| reply.strip_prefix(b"-"));
    replies.kind(n) == Some(ReplyKind::Error) && reply().is_some_and(|reply| reply.starts_with(LATE.as_bytes()))
}

/// Which operations were late, if any were: of a transaction all or none.
fn late_ones(replies: &ReplyBuf) -> Vec<bool> {
    let late: Vec<bool> = (0..replies.replies()).map(|n| is_late(replies, n)).collect();
    if late.contains(&true) { late } else { Vec::new() }
}

/// Keeps what belongs to operations that were late.
fn keep<T>(late: &[bool], of: &mut Vec<T>) {
    let mut late = late.iter();
    of.retain(|_| late.next() == Some(&true));
}

/// The replies to the others, each with its place.
fn without(late: &[bool], replies: &ReplyBuf, places: &[usize]) -> Vec<(ReplyBuf, Vec<usize>)> {
    let others = (0..replies.replies()).filter(|n| !late[*n]);
    let reply = |n: usize| {
        let mut reply = ReplyBuf::new(replies.wire());
        reply.append(replies, n..n + 1);
        (reply, vec![places[n]])
    };
    others.map(reply).collect()
}

/// A refusal says that nothing was done, which only the attempt it answers can vouch for: an earlier one may have been.
fn with_doubt(replies: ReplyBuf, doubtful: impl Fn(usize) -> bool, terms: Terms) -> ReplyBuf {
    let refused = |n: usize| {
        let reply = replies.slices(n..n + 1).next().unwrap_or_default();
        replies.kind(n) == Some(ReplyKind::Error) && REFUSALS.iter().any(|word| reply.starts_with(word.as_bytes()))
    };
    if !(0..replies.replies()).any(|n| doubtful(n) && refused(n)) {
        return replies;
    }
    let mut out = ReplyBuf::new(terms.wire);
    for n in 0..replies.replies() {
        if doubtful(n) && refused(n) {
            out.reply(ReplyRef::Error(IN_DOUBT.into()));
        } else {
            out.append(&replies, n..n + 1);
        }
    }
    out
}

/// Puts the groups' replies into the order of the operations.
fn in_order(mut done: Vec<(ReplyBuf, Vec<usize>)>, total: usize, terms: Terms) -> ReplyBuf {
    if done.len() == 1
        && let Some((replies, _)) = done.pop_if(|(replies, places)| replies.replies() == total && places.is_sorted())
    {
        return replies;
    }
    let mut at = vec![(0, 0); total];
    for (group, (replies, places)) in done.iter().enumerate() {
        for (n, place) in places.iter().take(replies.replies()).enumerate() {
            at[*place] = (group, n);
        }
    }
    let mut out = ReplyBuf::new(terms.wire);
    for (group, n) in at {
        out.append(&done[group].0, n..n + 1);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
    use crate::base::op::{Act, Comparison, Deadline, Expiry, SetAnswer, When};
    use crate::base::reply::Wire;
    use proptest::prelude::*;

    const EMPTY: Forward<'_> = Forward {
        epoch: 1,
        timeout_ms: 1,
        level: Level::One,
        wire: Wire::Resp2,
        router: 1,
        together: false,
        retry: false,
        begun_ms: 1,
        ops: Vec::new(),
    };

    fn set(value_bytes: usize) -> Op {
        let act = Act::Set { expiry: Expiry::Clear, when: When::Always, answer: SetAnswer::Done, flags: 0 };
        Op { key: Bytes::from_static(b"key"), act, value: vec![0; value_bytes].into() }
    }

    #[test]
    fn a_group_goes_in_calls_of_bounded_bytes_and_operations() {
        const MIB: usize = 1024 * 1024;
        let large = vec![set(9 * MIB); 3];
        assert_eq!(call_lengths(&large), [1, 1, 1], "none fits beside another");
        assert_eq!(call_lengths(&[set(64 * MIB), set(1), set(1), set(64 * MIB)]), [1, 2, 1]);
        assert_eq!(call_lengths(&vec![set(0); 2 * CALL_OPS_MAX + 1]), [CALL_OPS_MAX, CALL_OPS_MAX, 1]);
    }

    #[test]
    fn the_largest_single_operation_fits_a_frame() {
        let op = Op { key: vec![0; KEY_BYTES_MAX].into(), ..set(0) };
        assert!(op_bytes(&op) + VALUE_BYTES_MAX <= TOGETHER_BYTES_MAX);
    }

    #[test]
    fn an_operation_takes_no_more_than_is_reckoned() {
        let at = Deadline::At(i64::MIN);
        let until =
            Act::Set { expiry: Expiry::Until(at), when: When::Present, answer: SetAnswer::Old, flags: u32::MAX };
        let compared = Act::SetIf {
            expiry: Expiry::Until(at),
            comparison: Comparison::DigestDiffers,
            answer: SetAnswer::Old,
            operand_bytes: u32::MAX,
        };
        for act in [until, compared, Act::IncrFloat, Act::GetRange { start: i64::MIN, end: i64::MIN }] {
            let op = Op { act, ..set(300) };
            let call = |ops| Call::forward(&Forward { ops, ..EMPTY }).bytes();
            assert!(call(vec![(u64::MAX, borrow(&op))]) - call(Vec::new()) <= op_bytes(&op));
        }
    }

    #[test]
    fn only_what_was_late_is_done_again_and_the_others_keep_their_replies() {
        let replies = |of: &[ReplyRef<'_>]| {
            let mut replies = ReplyBuf::new(Wire::Resp2);
            of.iter().for_each(|reply| replies.reply(reply.clone()));
            replies
        };
        let late = || ReplyRef::Error(LATE.into());
        let mixed = replies(&[ReplyRef::Ok, late(), ReplyRef::Error(BUSY.into())]);
        let which = late_ones(&mixed);
        assert_eq!(which, [false, true, false]);
        let others = without(&which, &mixed, &[7, 5, 9]);
        assert_eq!(others.iter().map(|(_, places)| places[0]).collect::<Vec<_>>(), [7, 9]);
        let mut places = vec![7, 5, 9];
        keep(&which, &mut places);
        assert_eq!(places, [5]);
        let value = format!("-{LATE}");
        assert!(late_ones(&replies(&[ReplyRef::Bulk(value.as_bytes())])).is_empty(), "a value may read so");
    }

    proptest! {
        #[test]
        fn calls_take_all_operations_in_bounds(sizes in prop::collection::vec(0usize..CALL_BYTES_TARGET / 3, 1..12)) {
            let ops: Vec<Op> = sizes.iter().map(|size| set(*size)).collect();
            let lengths = call_lengths(&ops);
            prop_assert_eq!(lengths.iter().sum::<usize>(), ops.len());
            let mut ops = &ops[..];
            for length in lengths {
                let (call, rest) = ops.split_at(length);
                prop_assert!(length > 0 && call.iter().map(op_bytes).sum::<usize>() <= CALL_BYTES_TARGET);
                ops = rest;
            }
        }
    }
}
