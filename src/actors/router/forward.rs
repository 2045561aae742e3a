//! Sends each operation to its coordinator, here or one hop away, and on to the next replica when that one can't be reached. A repeated
//! operation keeps its request id, so that it counts once. Never executes anything.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::op::{Op, OpRef};
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::cluster::view::{PeerIx, View};
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Forward, Message as Native, Replies};
use crate::protocol::resp::encode::ReplyBuf;

use super::super::replication::{CallPeer, LinkError};
use super::{Desk, Ops, Terms, coordinate};

/// Rounds of finding somebody else, each a little later than the one before. Together with the waits between them they outlast the
/// failure of one replica and a change of the ring.
const ATTEMPTS_MAX: u32 = 12;
/// Wait before a member is asked again that was asked before.
const PAUSE: Duration = Duration::from_millis(15);

/// First words of replies that say nothing was done for reasons of the moment.
const REFUSALS: [&str; 4] = ["-NOQUORUM", "-TIMEOUT", "-BUSY", "-SHUTDOWN"];
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

/// Executes all operations. One reply each, except that `all_or_none` has one for all.
pub(super) async fn execute(desk: &Rc<Desk>, mut ops: Ops, terms: Terms) -> ReplyBuf {
    let total = ops.ops.len();
    let all_or_none = ops.all_or_none;
    let begun_ms = desk.clock.unix_ms();
    ops.begun_ms = begun_ms;
    // Where the operations still to be done stand in the whole, and whether they may have been done.
    let mut places: Vec<usize> = (0..total).collect();
    let mut unknown = vec![false; total];
    let mut done: Vec<(ReplyBuf, Vec<usize>)> = Vec::new();
    for attempt in 0..ATTEMPTS_MAX {
        let view = desk.view.load_full();
        let mut begins_until = desk.clock.monotonic();
        let groups = split(desk, &view, std::mem::take(&mut ops), std::mem::take(&mut places), terms.level);
        let results = join_all(groups.into_iter().map(|(to, group, places)| {
            let view = &view;
            async move {
                let met = match to {
                    None => Met::Elsewhere,
                    Some(peer) if peer == view.me => {
                        Met::Replies(coordinate::all_here(desk, view, group.clone(), terms).await)
                    }
                    Some(peer) => send(desk, view, peer, &group, terms).await,
                };
                (met, group, places)
            }
        }))
        .await;
        for (met, group, group_places) in results {
            match met {
                Met::Replies(replies) => {
                    let doubtful = |n: usize| unknown.get(group_places[n]).is_some_and(|unknown| *unknown);
                    done.push((with_doubt(replies, doubtful, terms), group_places));
                }
                Met::Elsewhere | Met::Unknown { .. } => {
                    if let Met::Unknown { until } = met {
                        begins_until = begins_until.max(until);
                        group_places.iter().for_each(|place| unknown[*place] = true);
                    }
                    ops.ops.extend(group.ops);
                    ops.requests.extend(group.requests);
                    places.extend(group_places);
                }
            }
        }
        if ops.ops.is_empty() || desk.clock.monotonic() + PAUSE >= terms.deadline {
            break;
        }
        (ops.all_or_none, ops.begun_ms) = (all_or_none, begun_ms);
        ops.retry = places.iter().any(|place| unknown[*place]);
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
        // All or none has one reply for all.
        ops.ops.truncate(if all_or_none { 1 } else { total });
        done.push(give_up(desk, &ops, places, &unknown, terms));
    }
    in_order(done, if all_or_none { 1 } else { total }, terms)
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
    let mut requests = ops.requests.into_iter();
    for (op, place) in ops.ops.into_iter().zip(places) {
        let partition = Partition::of(&op.key);
        let to = desk.coordinator(view.route(partition));
        let here = to == Some(view.me);
        let shard = if here { desk.local.shard_of(partition) } else { 0 };
        let request = if first_time {
            // Work that stays here is never repeated; it needs no id until it leaves.
            // Above level one a blind write needs one as well: repeated, it would undo what others saw written after it.
            let repeats = if level == Level::One { op.act.repeats_safely() } else { !op.act.writes() };
            (!here && !repeats).then(|| desk.request_id())
        } else {
            requests.next().flatten()
        };
        let (group, group_places) = groups.entry((to, shard)).or_default();
        group.ops.push(op);
        group.requests.push(request);
        group.all_or_none = ops.all_or_none;
        group.retry = ops.retry;
        group.begun_ms = ops.begun_ms;
        group_places.push(place);
    }
    groups.into_iter().map(|((to, _), (group, places))| (to, group, places)).collect()
}

async fn send(desk: &Desk, view: &View, peer: PeerIx, group: &Ops, terms: Terms) -> Met {
    let left = terms.deadline.saturating_duration_since(desk.clock.monotonic());
    let sequence = |request: &Option<RequestId>| request.map_or(0, |request| request.sequence);
    let forward = Forward {
        epoch: view.epoch,
        timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        level: terms.level,
        wire: terms.wire,
        router: desk.id,
        all_or_none: group.all_or_none,
        retry: group.retry,
        begun_ms: group.begun_ms,
        ops: group.ops.iter().zip(&group.requests).map(|(op, request)| (sequence(request), borrow(op))).collect(),
    };
    desk.count(Counter::OpsForwarded, group.ops.len() as u64);
    let call = CallPeer { peer, call: Call::forward(&forward) };
    let answer = tokio::time::timeout_at(terms.deadline, desk.replication.send(call)).await;
    match answer {
        Ok(Ok(Ok(payload))) => read(desk, view, peer, &payload, (group.replies(), terms)),
        Ok(Ok(Err(LinkError::Broken { within }))) => {
            desk.avoid(peer);
            Met::Unknown { until: desk.clock.monotonic() + within }
        }
        Ok(Ok(Err(LinkError::Unreachable | LinkError::Busy))) => {
            desk.avoid(peer);
            Met::Elsewhere
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
            desk.avoid(peer);
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
