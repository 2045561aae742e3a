//! What a native frame asks for, and its answer. Each works on its own; none touches a socket.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::{join_all, try_join_all};
use tokio::task::spawn_local;

use crate::base::counters::Counter;
use crate::base::entry::Entry as Stored;
use crate::base::hlc::Version;
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::base::op::Op;
use crate::base::reply::{BUSY, ReplyRef, ReplySink, STOPPING, Wire};
use crate::base::slot::{PARTITIONS, Partition};
use crate::cluster::partition_set::{PARTITION_SET_BYTES, PartitionSet};
use crate::protocol::native::frame::{self, FrameError};
use crate::protocol::native::{
    Answer, Answered, Ask, Forward, Holding, Key, Message, Misdirected, Page, RecordRef, Replies, Surveyed,
};
use crate::protocol::resp::Args;
use crate::protocol::resp::encode::ReplyBuf;

use super::super::admission::Permit;
use super::super::local::Gone;
use super::super::ring::Exchange;
use super::super::router::PeerBatch;
use super::super::store::{self, Held, Merge, Merged, Question, Record};
use super::super::sync::{Settle, Settles};
use super::answers::{Answers, Work};
use super::{Door, Entry, compare, direct, execute, fit, pubsub};

/// Begins to work on a frame.
///
/// # Errors
/// [`FrameError`] when it is no frame a client or peer may send; nothing was done.
pub(super) fn take(
    door: &Rc<Door>,
    entry: &Rc<Entry>,
    payload: Bytes,
    answers: &Rc<Answers>,
) -> Result<(), FrameError> {
    let door = door.clone();
    let message = frame::decode(&payload)?;
    // Whatever waits for other nodes is bounded by permits: it must not keep their frames from being read.
    let work = answers.begin(if matches!(message, Message::Replicate { .. }) { payload.len() } else { 0 });
    match message {
        Message::Replicate { .. } if !entry.is_peer() => return Err(FrameError::PeersOnly),
        Message::Forward { ref forward, .. } | Message::Relay { ref forward, .. }
            if !entry.is_peer() && forward.together =>
        {
            return Err(FrameError::PeersOnly);
        }
        Message::Forward { id, start_by, ref forward } | Message::Relay { id, start_by, ref forward } => {
            if forward.ops.len() > fit::FORWARD_OPS_MAX {
                return Err(FrameError::Malformed("too many operations".into()));
            }
            let writes: Vec<bool> = forward.ops.iter().map(|(_, op)| op.act.writes()).collect();
            let (mut batch, bytes) = peer_batch(&door, &payload, forward);
            let left = Duration::from_millis(start_by.saturating_sub(door.now()));
            batch.anywhere = matches!(message, Message::Relay { .. });
            batch.start_by = Some(door.handles.clock.monotonic() + left);
            let is_peer = entry.is_peer();
            spawn_local(async move {
                let result = coordinate(&door, is_peer, batch, bytes).await;
                send_forwarded(&work, id, result.map(|all| fit::replies(all, &writes, fit::REPLIES_BYTES_MAX)));
            });
        }
        Message::Replicate { sequence, records } => {
            let shards = by_shard(&door, &payload, &records)?;
            spawn_local(async move {
                let merges = shards.into_iter().enumerate().filter(|(_, records)| !records.is_empty());
                let merges = merges.map(|(shard, records)| door.handles.local.stores[shard].send(Merge(records)));
                // A store that is gone ends the node; then nothing is acknowledged.
                if let Ok(merged) = try_join_all(merges).await {
                    send(&work, &acknowledge(sequence, merged));
                }
            });
        }
        Message::Ask { ask: Ask::Ping, id } => {
            send(&work, &Message::Answer { id, answer: Answer::Pong });
        }
        Message::Ask { id, ask } => {
            let Ok(permit) = admit(&door, entry, &ask, payload.len()) else {
                door.count(Counter::Busy);
                send(&work, &Message::Answer { id, answer: Answer::Failed(BUSY) });
                return Ok(());
            };
            let entry = entry.clone();
            spawn_local(async move {
                let _permit = permit;
                let Ok(Message::Ask { ask, .. }) = frame::decode(&payload) else {
                    unreachable!("the same bytes decoded a moment ago");
                };
                answer(&door, &entry, id, ask, &payload, &work).await;
            });
        }
        _ => return Err(FrameError::Malformed("a frame of the other side's".into())),
    }
    Ok(())
}

/// There is no room for a question.
struct Busy;

/// A question's share of the room, if it is one that takes any.
fn admit(door: &Door, entry: &Entry, ask: &Ask<'_>, bytes: usize) -> Result<Option<Permit>, Busy> {
    let keys = match ask {
        // Who lives and who belongs must be found out under any load, and what an operator wants to know. A command takes a permit itself.
        Ask::Ping | Ask::Membership(_) | Ask::Routes(_) | Ask::Interest(_) | Ask::Admin(_) | Ask::Command { .. } => {
            return Ok(None);
        }
        Ask::Entries(keys) => keys.len(),
        Ask::Survey { keys, .. } => keys.len(),
        _ => 1,
    };
    let room = if entry.is_peer() { &door.question_admission } else { &door.admission };
    room.admit(keys, bytes).map(Some).ok_or(Busy)
}

fn send(work: &Work, message: &Message<'_>) {
    match (frame::try_to_bytes(message), message) {
        (Ok(frame), _) => work.send(frame),
        (Err(_), Message::Answer { id, .. }) => {
            work.send(frame::to_bytes(&Message::Answer { id: *id, answer: TOO_LARGE }));
        }
        // Replies are made to fit; acknowledgements of more than a frame of records wait for ever, as if they were lost.
        (Err(_), _) => {}
    }
}

/// How long forwarded operations may take, and keep their permit: no client is answered later, whatever a peer says.
fn patience(timeout_ms: u32) -> Duration {
    Duration::from_millis(u64::from(timeout_ms)).min(REQUEST_TIMEOUT)
}

fn peer_batch(door: &Door, payload: &Bytes, forward: &Forward<'_>) -> (PeerBatch, usize) {
    let mut ops = Vec::with_capacity(forward.ops.len());
    let mut requests = Vec::with_capacity(forward.ops.len());
    for (sequence, op) in &forward.ops {
        let (key, value) = (frame::share(payload, op.key), frame::share(payload, op.value));
        ops.push(Op { key, act: op.act, value });
        requests.push((*sequence != 0).then_some(RequestId { router: forward.router, sequence: *sequence }));
    }
    let deadline = door.handles.clock.monotonic() + patience(forward.timeout_ms);
    let batch = PeerBatch {
        ops,
        requests,
        together: forward.together,
        retry: forward.retry,
        begun_ms: forward.begun_ms,
        wire: forward.wire,
        level: forward.level,
        deadline,
        start_by: None,
        anywhere: false,
    };
    (batch, payload.len())
}

async fn coordinate(door: &Rc<Door>, is_peer: bool, batch: PeerBatch, bytes: usize) -> Result<ReplyBuf, Misdirected> {
    let (count, wire) = (batch.ops.len(), batch.wire);
    let refused = |text: &str| {
        let mut errors = ReplyBuf::new(wire);
        (0..count).for_each(|_| errors.reply(ReplyRef::Error(text.to_owned().into())));
        Ok(errors)
    };
    if count == 0 {
        return Ok(ReplyBuf::new(wire));
    }
    if door.is_stopping() {
        // Whoever sent this will find another replica; a stopping node is one that nobody should wait for.
        return Err(Misdirected { epoch: 0 });
    }
    // Before it has a permit: who is held up keeps nobody else out.
    if !is_peer && let Err(text) = direct::admit(door, &batch.ops, batch.deadline).await {
        return refused(&text);
    }
    let room = if is_peer { &door.peer_admission } else { &door.admission };
    let Some(_permit) = room.admit(count, bytes) else {
        door.count(Counter::Busy);
        return refused(BUSY);
    };
    match door.handles.routers[door.shard].send(batch).await {
        Ok(result) => result,
        Err(_) => Err(Misdirected { epoch: 0 }),
    }
}

fn send_forwarded(work: &Work, id: u64, result: Result<ReplyBuf, Misdirected>) {
    let mut replies = match result {
        Ok(replies) => replies,
        Err(misdirected) => return send(work, &Message::Forwarded { id, result: Err(misdirected) }),
    };
    let mut end = 0u32;
    let marks = (0..replies.replies())
        .map(|n| {
            end += u32::try_from(replies.slices_len(n..n + 1)).expect("frames are bounded below 4 GiB");
            (end, replies.kind(n).expect("counted a moment ago"))
        })
        .collect();
    let bytes = replies.copy_to_bytes(replies.remaining());
    send(work, &Message::Forwarded { id, result: Ok(Replies { marks, bytes: &bytes }) });
}

fn by_shard(door: &Door, payload: &Bytes, records: &[RecordRef<'_>]) -> Result<Vec<Vec<(u32, Record)>>, FrameError> {
    let local = &door.handles.local;
    let mut shards: Vec<Vec<(u32, Record)>> = (0..local.stores.len()).map(|_| Vec::new()).collect();
    for (n, record) in (0u32..).zip(records) {
        let (partition, record) = match record {
            RecordRef::Entry { key, entry, answered, counted } => {
                let answered = answered.map(|a| Box::new((a.request, a.kind, frame::share(payload, a.reply))));
                let entry = entry.to_entry_with(|value| frame::share(payload, value));
                (
                    Partition::of(key),
                    Record::Entry { key: frame::share(payload, key), entry, answered, counted: *counted },
                )
            }
            RecordRef::Floor { partition, version } if *partition < PARTITIONS => {
                let partition = Partition(*partition);
                (partition, Record::Floor { partition, version: *version })
            }
            RecordRef::Floor { .. } => return Err(FrameError::Malformed("no such partition".into())),
        };
        shards[local.shard_of(partition)].push((n, record));
    }
    Ok(shards)
}

fn acknowledge(sequence: u64, merged: Vec<Merged>) -> Message<'static> {
    let (mut newer, mut refused) = (Vec::new(), Vec::new());
    for merged in merged {
        newer.extend(merged.newer);
        refused.extend(merged.refused);
    }
    Message::Acknowledge { sequence, newer, refused }
}

pub(super) fn partitions(bits: &[u8]) -> Option<PartitionSet> {
    <&[u8; PARTITION_SET_BYTES]>::try_from(bits).ok().map(PartitionSet::from_bytes)
}

const TOO_LARGE: Answer<'static> = Answer::Failed("ERR the answer is too large for one frame, applied: unknown");
pub(super) const NOT_PARTITIONS: Answer<'static> = Answer::Failed("ERR not a set of partitions");

async fn answer(door: &Rc<Door>, entry: &Rc<Entry>, id: u64, ask: Ask<'_>, payload: &Bytes, work: &Work) {
    let reply = |answer: Answer<'_>| send(work, &Message::Answer { id, answer });
    let handles = &door.handles;
    match ask {
        Ask::Ping => reply(Answer::Pong),
        Ask::Membership(theirs) => match handles.ring.send(Exchange(theirs.to_vec())).await {
            Ok(ours) => reply(Answer::Membership(&ours)),
            Err(_) => reply(Answer::Failed(STOPPING)),
        },
        Ask::Entries(keys) => {
            let have: Vec<Version> = keys.iter().map(|(_, have)| *have).collect();
            let key = |(Key(key), _): &(Key<'_>, Version)| frame::share(payload, key);
            match handles.local.peek(keys.iter().map(key).collect()).await {
                Ok(held) => {
                    let mut holdings: Vec<_> = have.iter().zip(&held).map(holding).collect();
                    holdings.truncate(fit::page(&holdings, fit::ENTRIES_BYTES_TARGET));
                    reply(Answer::Entries(holdings));
                }
                Err(Gone) => reply(Answer::Failed(STOPPING)),
            }
        }
        Ask::Survey { ballot, keys, requests } => match survey(door, payload, (ballot, &keys), &requests).await {
            Ok(store::Surveyed { held, answered, known, .. }) => {
                let answered = answered.iter().map(|(request, outcome)| {
                    let answered = Answered { request: *request, kind: outcome.kind, reply: &outcome.reply };
                    (answered, outcome.version)
                });
                let holdings = keys.iter().zip(&held).map(|(asked, held)| match held {
                    Held::Entry(entry) => holding((&asked.have, entry)),
                    Held::Leased(above) => Holding::Leased { above: *above },
                    Held::OtherRoute => Holding::OtherRoute,
                });
                let mut holdings: Vec<_> = holdings.collect();
                // The others are not answered: who surveys counts on none of them.
                let fitting = fit::page(&holdings, fit::SURVEY_BYTES_TARGET);
                holdings[fitting..].fill(Holding::OtherRoute);
                // Only a retry asks.
                let asked = |n: u32| requests.iter().any(|(about, _)| *about == n);
                let known = (0u32..).zip(known).filter_map(|(n, since)| Some((n, since?))).filter(|(n, _)| asked(*n));
                reply(Answer::Survey { holdings, answered: answered.collect(), known: known.collect() });
            }
            Err(Gone) => reply(Answer::Failed(STOPPING)),
        },
        Ask::Command { level, args } => {
            let args = args.into_iter().map(|Key(arg)| frame::share(payload, arg)).collect();
            let replies = command(door, entry, level, args).await;
            reply(Answer::Reply(&replies));
        }
        Ask::Routes(known) => direct::routes(&handles.view.load(), &handles.settings, known, &reply),
        Ask::Admin(path) => {
            let (status, body) = handles.admin(path).await;
            reply(Answer::Admin { status, body: body.as_bytes() });
        }
        Ask::Interest(_) | Ask::Publish(_) | Ask::Channels { .. } | Ask::Subscribers { .. } => {
            pubsub::answer(door, entry, ask, payload, &reply).await;
        }
        Ask::Settles { .. } | Ask::Settle { .. } => settle(door, ask, &reply).await,
        Ask::Roots(_) | Ask::Digests(_) | Ask::Sums(_) | Ask::Prints(_) => {
            compare::answer(door, entry, ask, payload, &reply).await;
        }
        about_keys => about(door, about_keys, payload, &reply).await,
    }
}

/// Questions and notices about partitions whose past is to be closed.
async fn settle(door: &Door, ask: Ask<'_>, reply: &impl Fn(Answer<'_>)) {
    let sync = &door.handles.sync;
    match ask {
        Ask::Settles { partitions, routes, up_to } => {
            let Some(partitions) = marked(partitions, &routes) else { return reply(NOT_PARTITIONS) };
            match sync.send(Settles { partitions, up_to }).await {
                Ok(settles) => reply(Answer::Partitions(&settles.to_bytes())),
                Err(_) => reply(Answer::Failed(STOPPING)),
            }
        }
        Ask::Settle { partitions, routes, up_to } => {
            let Some(partitions) = marked(partitions, &routes) else { return reply(NOT_PARTITIONS) };
            sync.do_send(Settle { partitions, up_to });
            reply(Answer::Done);
        }
        _ => unreachable!("the caller sends these two here"),
    }
}

/// Partitions with the marks of the routes to them; `None` if these are not as many.
fn marked(bits: &[u8], routes: &[u32]) -> Option<Vec<(Partition, u32)>> {
    let partitions = partitions(bits)?;
    (usize::from(partitions.count()) == routes.len()).then(|| partitions.iter().zip(routes.iter().copied()).collect())
}

/// Questions about many keys at once.
async fn about(door: &Rc<Door>, ask: Ask<'_>, payload: &Bytes, reply: &impl Fn(Answer<'_>)) {
    let local = &door.handles.local;
    let bits = match ask {
        Ask::Count(bits) | Ask::RandomKey(bits) => bits,
        Ask::Keys { partitions, .. }
        | Ask::Scan { partitions, .. }
        | Ask::Flush { partitions, .. }
        | Ask::Wait { partitions, .. } => partitions,
        _ => &PartitionSet::EMPTY.to_bytes(),
    };
    let Some(partitions) = partitions(bits) else { return reply(NOT_PARTITIONS) };
    let done: Result<(), Gone> = async {
        match ask {
            Ask::Count(_) => reply(Answer::Count(local.count(partitions).await?)),
            Ask::RandomKey(_) => {
                let draw = xxhash_rust::xxh3::xxh3_64(payload) ^ door.now();
                let key = local.random_key(partitions, draw).await?;
                reply(Answer::Keys(key.iter().map(|key| Key(key)).collect()));
            }
            Ask::Keys { pattern, .. } => {
                let keys = local.keys(partitions, &frame::share(payload, pattern)).await?;
                reply(Answer::Keys(keys.iter().map(|key| Key(key)).collect()));
            }
            Ask::Scan { from, count, pattern, .. } => {
                let pattern = frame::share(payload, pattern);
                let pages = local.scan(partitions, from, count as usize, &pattern).await?;
                let page = |page: &store::ScannedPage| (page.partition.0, page.next);
                let pages = pages.iter().map(|p| {
                    let (partition, next) = page(p);
                    Page { partition, keys: p.keys.iter().map(|key| Key(key)).collect(), next }
                });
                reply(Answer::Scanned(pages.collect()));
            }
            Ask::Flush { level, .. } => {
                let met = local.flush(partitions, level).await?;
                reply(if met {
                    Answer::Done
                } else {
                    Answer::Failed("NOQUORUM too few replicas took it, applied: unknown")
                });
            }
            Ask::Wait { replicas, timeout_ms, .. } => {
                let timeout = Duration::from_millis(u64::from(timeout_ms));
                reply(Answer::Count(local.await_replicas(partitions, replicas as usize, timeout).await? as u64));
            }
            _ => reply(Answer::Failed("ERR unknown question")),
        }
        Ok(())
    }
    .await;
    if done.is_err() {
        reply(Answer::Failed(STOPPING));
    }
}

/// What this node holds for each key and promises of it, and the requests it knows to be done; each of these comes with the number of its
/// key.
async fn survey(
    door: &Door,
    payload: &Bytes,
    (ballot, keys): (Version, &[Surveyed<'_>]),
    requests: &[(u32, RequestId)],
) -> Result<store::Surveyed, Gone> {
    let local = &door.handles.local;
    let shard = |key: &[u8]| local.shard_of(Partition::of(key));
    let mut shards: Vec<(Vec<Question>, Vec<usize>, Vec<RequestId>)> = vec![Default::default(); local.stores.len()];
    for (n, Surveyed { key: Key(key), route, lease, .. }) in keys.iter().enumerate() {
        let (asked, places, _) = &mut shards[shard(key)];
        asked.push(Question { key: frame::share(payload, key), route: *route, lease: *lease });
        places.push(n);
    }
    for (n, request) in requests {
        if let Some(Surveyed { key: Key(key), .. }) = keys.get(*n as usize) {
            shards[shard(key)].2.push(*request);
        }
    }
    let asked = shards.into_iter().enumerate().filter(|(_, (asked, ..))| !asked.is_empty());
    let found = join_all(asked.map(async |(shard, (questions, places, requests))| {
        let survey = store::Survey { ballot: store::Ballot::Of(ballot), questions, requests };
        (local.stores[shard].send(survey).await, places)
    }));
    let mut all = store::Surveyed {
        ballot,
        held: vec![Held::OtherRoute; keys.len()],
        answered: Vec::new(),
        known: vec![None; keys.len()],
    };
    for (surveyed, places) in found.await {
        let surveyed = surveyed?;
        for ((held, known), place) in surveyed.held.into_iter().zip(surveyed.known).zip(places) {
            (all.held[place], all.known[place]) = (held, known);
        }
        all.answered.extend(surveyed.answered);
    }
    Ok(all)
}

/// What to say of an entry to somebody who has this version.
fn holding<'a>((have, held): (&Version, &'a Option<Stored>)) -> Holding<'a> {
    match held {
        Some(entry) if entry.version == *have => Holding::Same,
        Some(entry) => Holding::Entry(entry.as_ref()),
        None if *have == Version::ZERO => Holding::Same,
        None => Holding::Nothing,
    }
}

/// A command of `trellis-cli`, answered in RESP3.
async fn command(door: &Rc<Door>, entry: &Rc<Entry>, level: Option<Level>, args: Args) -> Bytes {
    let mut out = ReplyBuf::new(Wire::Resp3);
    entry.session.borrow_mut().speak(Wire::Resp3, level.unwrap_or(door.handles.settings.consistency));
    let value_bytes_max = door.handles.settings.value_bytes_max;
    if args.is_empty() {
        out.push_error(b"ERR an empty command");
    } else if args.iter().any(|arg| arg.len() > value_bytes_max) {
        // What the RESP decoder refuses before it reads it.
        out.push_error(format!("ERR a value may have at most {value_bytes_max} bytes, nothing was done").as_bytes());
    } else {
        execute::batch(door, entry, &mut vec![args], &mut out).await;
    }
    out.copy_to_bytes(out.remaining())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_keeps_its_permit_no_longer_than_a_client_waits() {
        assert_eq!([0, 20, u32::MAX].map(patience), [Duration::ZERO, Duration::from_millis(20), REQUEST_TIMEOUT]);
    }
}
