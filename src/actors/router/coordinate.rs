//! Executes operations this node coordinates, at any level. At level one that is one message to the store. Above it: look first at what
//! the others hold, where an operation depends on it; execute; wait until enough replicas have the outcome; and stamp again where a replica
//! turns out to hold something newer. What is enough stands in `cluster::tally`.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::entry::Entry;
use crate::base::hlc::Version;
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::limits::LINK_SILENCE_MAX;
use crate::base::op::Op;
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::cluster::tally::{Progress, Tally};
use crate::cluster::view::{PeerIx, Required, View};
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Answer, Answered, Ask, Holding, Key, Message as Native, RecordRef};
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::Outcome;

use super::super::replication::{CallPeer, Committed, Outgoing, Push};
use super::super::store::{Execute, Executed, Merge, Peek, Record, Remember, Restamp};
use super::{Desk, Ops, STOPPING, Terms, errors};

/// Rounds of stamping anew before the client is told that the outcome is unknown.
const RESTAMPS_MAX: usize = 3;

/// Rounds of looking before an operation that always came too late is given up.
const SURVEYS_MAX: usize = 5;

const LATE: &str = "TIMEOUT the coordinator came too late to begin, applied: no";
const NO_QUORUM_BEFORE: &str = "NOQUORUM too few replicas of the key can be reached, applied: no";
const NO_QUORUM_AFTER: &str = "NOQUORUM too few replicas took the write, applied: unknown";
const TIMEOUT_BEFORE: &str = "TIMEOUT replicas did not answer in time, applied: no";
const TIMEOUT_AFTER: &str = "TIMEOUT replicas did not acknowledge the write in time, applied: unknown";

/// Executes operations of any of this node's partitions, in order per partition.
pub(super) async fn all_here(desk: &Rc<Desk>, view: &View, ops: Ops, terms: Terms) -> ReplyBuf {
    let shards = desk.local.stores.len();
    let shard = |ops: &Ops, n: usize| desk.local.shard_of(Partition::of(&ops.ops[n].key));
    let first = shard(&ops, 0);
    desk.count(Counter::OpsLocal, ops.ops.len() as u64);
    if shards == 1 || (1..ops.ops.len()).all(|n| shard(&ops, n) == first) {
        return on_shard(desk, view, first, ops, terms).await;
    }
    let mut groups: Vec<(Ops, Vec<usize>)> = vec![Default::default(); shards];
    let mut requests = ops.requests.into_iter();
    for (n, op) in ops.ops.into_iter().enumerate() {
        let (group, places) = &mut groups[desk.local.shard_of(Partition::of(&op.key))];
        group.ops.push(op);
        group.requests.push(requests.next().flatten());
        group.retry = ops.retry;
        places.push(n);
    }
    let groups = groups.into_iter().enumerate().filter(|(_, (ops, _))| !ops.ops.is_empty());
    let done =
        join_all(groups.map(async |(shard, (ops, places))| (on_shard(desk, view, shard, ops, terms).await, places)));
    let done = done.await;
    let mut at = BTreeMap::new();
    for (group, (_, places)) in done.iter().enumerate() {
        at.extend(places.iter().enumerate().map(|(n, place)| (*place, (group, n))));
    }
    let mut out = ReplyBuf::new(terms.wire);
    for (group, n) in at.into_values() {
        out.append(&done[group].0, n..n + 1);
    }
    out
}

async fn on_shard(desk: &Rc<Desk>, view: &View, shard: usize, ops: Ops, terms: Terms) -> ReplyBuf {
    let replies = if ops.all_or_none { 1 } else { ops.ops.len() };
    let careful = terms.level != Level::One && !view.is_sovereign();
    for _ in 0..SURVEYS_MAX {
        let begun = desk.clock.monotonic();
        if careful && let Err(refusal) = prepare(desk, view, shard, &ops, terms).await {
            return errors(terms.wire, replies, refusal);
        }
        // What was surveyed holds for as long as others do not take this node for gone. A process that was stopped in between looks again.
        let fresh = careful.then(|| begun + LINK_SILENCE_MAX);
        let sent = desk.local.stores[shard].send(Execute {
            ops: ops.ops.clone(),
            requests: ops.requests.clone(),
            all_or_none: ops.all_or_none,
            wire: terms.wire,
            level: terms.level,
            deadline: terms.deadline,
            start_by: terms.start_by.into_iter().chain(fresh).min(),
        });
        match sent.await {
            Ok(executed) if executed.late => {
                if terms.start_by.is_some_and(|start_by| start_by < desk.clock.monotonic()) {
                    break;
                }
            }
            Ok(executed) => return acknowledged(desk, shard, executed, &ops.ops, (begun, terms)).await,
            Err(_) => return errors(terms.wire, replies, STOPPING),
        }
    }
    desk.count(Counter::Timeout, replies as u64);
    errors(terms.wire, replies, LATE)
}

/// Makes sure that the level can be met, and that this node holds the newest of what enough replicas hold for every key an operation
/// depends on. After an error nothing was done.
async fn prepare(desk: &Rc<Desk>, view: &View, shard: usize, ops: &Ops, terms: Terms) -> Result<(), &'static str> {
    let mut reads: BTreeMap<Bytes, (Tally, Vec<RequestId>)> = BTreeMap::new();
    for (n, op) in ops.ops.iter().enumerate() {
        let route = view.route(Partition::of(&op.key));
        // A node that nobody has told of a cluster yet knows no holders; its own majority of one says nothing.
        let known = !route.holders.is_empty();
        if !known || op.act.writes() && !reachable(view, route.write(terms.level)) {
            desk.count(Counter::NoQuorum, 1);
            return Err(NO_QUORUM_BEFORE);
        }
        if op.act.reads() || ops.all_or_none || ops.retry {
            let (_, requests) = reads.entry(op.key.clone()).or_insert_with(|| {
                let mut tally = Tally::new(route.read(terms.level));
                tally.acknowledge(view.me);
                (tally, Vec::new())
            });
            requests.extend(ops.requests.get(n).copied().flatten());
        }
    }
    if reads.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout_at(terms.deadline, catch_up(desk, view, shard, reads, terms.level)).await {
        Ok(caught_up) => caught_up,
        Err(_) => {
            desk.count(Counter::Timeout, 1);
            Err(TIMEOUT_BEFORE)
        }
    }
}

fn reachable(view: &View, required: Required) -> bool {
    required.sets.iter().all(|(set, needed)| set.iter().filter(|peer| view.is_alive(**peer)).count() >= *needed)
}

/// What the replicas hold for the keys of a read.
struct Survey {
    keys: Vec<Bytes>,
    /// Requests about each key. One that another coordinator has done, whose effect we may find below, must not be done again.
    requests: Vec<Vec<RequestId>>,
    answered: Vec<(RequestId, Outcome)>,
    ours: Vec<Option<Entry>>,
    /// Per peer that answered, per key it was asked: its number and the version there.
    theirs: BTreeMap<PeerIx, Vec<(usize, Version)>>,
    newer: BTreeMap<usize, Entry>,
}

impl Survey {
    /// The newest version of a key that anybody who answered holds.
    fn newest(&self, n: usize) -> Version {
        let ours = self.ours[n].as_ref().map_or(Version::ZERO, |entry| entry.version);
        self.newer.get(&n).map_or(ours, |entry| entry.version.max(ours))
    }
}

/// Asks replicas until each key's tally is met, merges what is newer than ours, and brings those that are behind up to it, so that no
/// later read of as many replicas can go backwards.
async fn catch_up(
    desk: &Rc<Desk>,
    view: &View,
    shard: usize,
    reads: BTreeMap<Bytes, (Tally, Vec<RequestId>)>,
    level: Level,
) -> Result<(), &'static str> {
    let (keys, reads): (Vec<Bytes>, Vec<(Tally, Vec<RequestId>)>) = reads.into_iter().unzip();
    let (mut tallies, requests): (Vec<Tally>, Vec<Vec<RequestId>>) = reads.into_iter().unzip();
    let store = &desk.local.stores[shard];
    let ours = store.send(Peek(keys.clone())).await.map_err(|_| STOPPING)?;
    let mut survey =
        Survey { keys, requests, answered: Vec::new(), ours, theirs: BTreeMap::new(), newer: BTreeMap::new() };
    let mut asks: FuturesUnordered<_> =
        questions(view, &survey).map(|(peer, asked)| ask(desk, peer, asked, &survey)).collect();
    let mut answers = Vec::new();
    while tallies.iter().any(|tally| tally.progress() == Progress::Pending) {
        let Some((peer, asked, answer)) = asks.next().await else { break };
        for n in &asked {
            if answer.is_some() {
                tallies[*n].acknowledge(peer)
            } else {
                tallies[*n].fail(peer)
            };
        }
        answers.extend(answer.map(|answer| (peer, asked, answer)));
    }
    drop(asks);
    if tallies.iter().any(|tally| tally.progress() != Progress::Met) {
        desk.count(Counter::NoQuorum, 1);
        return Err(NO_QUORUM_BEFORE);
    }
    for (peer, asked, payload) in answers {
        digest(&mut survey, peer, &asked, &payload);
    }
    if !survey.answered.is_empty() {
        store.do_send(Remember(std::mem::take(&mut survey.answered)));
    }
    if !survey.newer.is_empty() {
        let record = |(n, entry): (&usize, &Entry)| {
            (*n as u32, Record::Entry { key: survey.keys[*n].clone(), entry: entry.clone(), answered: None })
        };
        let merged = store.send(Merge(survey.newer.iter().map(record).collect())).await.map_err(|_| STOPPING)?;
        if !merged.refused.is_empty() {
            return Err("NOQUORUM a replica holds a version from the far future, applied: no");
        }
    }
    repair(desk, view, &survey, level).await
}

/// Which keys to ask each living replica about.
fn questions<'a>(view: &'a View, survey: &'a Survey) -> impl Iterator<Item = (PeerIx, Vec<usize>)> + 'a {
    let mut asked: BTreeMap<PeerIx, Vec<usize>> = BTreeMap::new();
    for (n, key) in survey.keys.iter().enumerate() {
        for (set, _) in view.route(Partition::of(key)).read(Level::All).sets {
            for peer in set.into_iter().filter(|peer| *peer != view.me) {
                asked.entry(peer).or_default().push(n);
            }
        }
    }
    asked.into_iter()
}

async fn ask(desk: &Desk, peer: PeerIx, asked: Vec<usize>, survey: &Survey) -> (PeerIx, Vec<usize>, Option<Bytes>) {
    let have = |n: &usize| survey.ours[*n].as_ref().map_or(Version::ZERO, |entry| entry.version);
    let keys = asked.iter().map(|n| (Key(&survey.keys[*n]), have(n))).collect();
    let about = |(at, n): (u32, &usize)| survey.requests[*n].iter().map(move |request| (at, *request));
    let requests = (0u32..).zip(&asked).flat_map(about).collect();
    let call = CallPeer { peer, call: Call::ask(&Ask::Survey { keys, requests }) };
    let answer = desk.replication.send(call).await;
    (peer, asked, answer.ok().and_then(Result::ok))
}

/// Notes what a replica answered.
fn digest(survey: &mut Survey, peer: PeerIx, asked: &[usize], payload: &Bytes) {
    let Ok(Native::Answer { answer: Answer::Survey { holdings, answered }, .. }) = frame::decode(payload) else {
        return;
    };
    let outcome = |a: &Answered<'_>| Outcome { kind: a.kind, reply: Bytes::copy_from_slice(a.reply) };
    survey.answered.extend(answered.iter().map(|answered| (answered.request, outcome(answered))));
    let mut versions = Vec::with_capacity(asked.len());
    for (n, holding) in asked.iter().zip(holdings) {
        let ours = survey.ours[*n].as_ref();
        let version = match holding {
            Holding::Nothing => Version::ZERO,
            Holding::Same => ours.map_or(Version::ZERO, |entry| entry.version),
            Holding::Entry(entry) => {
                let beats = |best: Option<&Entry>| best.is_none_or(|best| entry.merge_order(&best.as_ref()).is_gt());
                if beats(survey.newer.get(n).or(ours)) {
                    survey.newer.insert(*n, entry.to_entry());
                }
                entry.version
            }
        };
        versions.push((*n, version));
    }
    survey.theirs.insert(peer, versions);
}

/// Sends the newest version to every replica that answered with an older one, and sees that enough hold it then.
async fn repair(desk: &Rc<Desk>, view: &View, survey: &Survey, level: Level) -> Result<(), &'static str> {
    let mut pushes = Vec::new();
    for (peer, versions) in &survey.theirs {
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        for (n, _) in versions.iter().filter(|(n, version)| *version < survey.newest(*n)) {
            let Some(entry) = survey.newer.get(n).or(survey.ours[*n].as_ref()) else { continue };
            let key = &survey.keys[*n];
            frame::encode_record(&RecordRef::Entry { key, entry: entry.as_ref(), answered: None }, &mut bytes);
            records.push(Outgoing { end: bytes.len(), partition: Partition::of(key), op: *n as u32 });
        }
        if !records.is_empty() {
            desk.count(Counter::ReadRepairs, records.len() as u64);
            let push = desk.replication.send(Push { peer: *peer, bytes, records });
            pushes.push(async move { (*peer, push.await.unwrap_or(false)) });
        }
    }
    let pushed: BTreeMap<PeerIx, bool> = join_all(pushes).await.into_iter().collect();
    for (n, key) in survey.keys.iter().enumerate() {
        let mut tally = Tally::new(view.route(Partition::of(key)).read(level));
        tally.acknowledge(view.me);
        for (peer, versions) in &survey.theirs {
            let current = versions.iter().any(|(asked, version)| *asked == n && *version >= survey.newest(n));
            if current || pushed.get(peer) == Some(&true) {
                tally.acknowledge(*peer);
            }
        }
        if tally.progress() != Progress::Met {
            return Err("NOQUORUM replicas were found apart and could not be brought together, applied: no");
        }
    }
    Ok(())
}

/// Waits for the acknowledgements and puts errors where they did not come.
async fn acknowledged(
    desk: &Rc<Desk>,
    shard: usize,
    mut executed: Executed,
    ops: &[Op],
    (begun, terms): (Instant, Terms),
) -> ReplyBuf {
    let replies = std::mem::take(&mut executed.replies);
    let mut failed: BTreeMap<u32, &'static str> = BTreeMap::new();
    for round in 0..=RESTAMPS_MAX {
        let Some(commit) = executed.commit.take() else { break };
        let outcome = match tokio::time::timeout_at(terms.deadline, commit).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                failed.extend(executed.written.iter().map(|(n, _)| (*n, TIMEOUT_AFTER)));
                break;
            }
        };
        let Committed { short, newer } = outcome;
        failed.extend(short.into_iter().map(|n| (n, NO_QUORUM_AFTER)));
        if newer.is_empty() {
            break;
        }
        // Only what depends on nothing may be lifted above what came after it, and only while nobody can have been asked instead: else
        // a stopped process that goes on would undo what others have acknowledged meanwhile.
        let may_rise = |n: &u32| ops.get(*n as usize).is_some_and(|op| !op.act.reads());
        let too_late = begun.elapsed() > LINK_SILENCE_MAX;
        if round == RESTAMPS_MAX || too_late || !newer.iter().all(|(n, _)| may_rise(n)) {
            failed.extend(newer.into_iter().map(|(n, _)| (n, TIMEOUT_AFTER)));
            break;
        }
        let written: BTreeMap<u32, Version> = executed.written.iter().copied().collect();
        let again = newer
            .into_iter()
            .filter_map(|(n, seen)| Some((n, ops.get(n as usize)?.key.clone(), *written.get(&n)?, seen)))
            .collect();
        match desk.local.stores[shard].send(Restamp { keys: again, level: terms.level }).await {
            Ok(stamped) => executed = stamped,
            Err(_) => {
                failed.extend(written.into_keys().map(|n| (n, TIMEOUT_AFTER)));
                break;
            }
        }
    }
    if failed.is_empty() { replies } else { with_errors(desk, replies, &failed, terms) }
}

fn with_errors(desk: &Desk, replies: ReplyBuf, failed: &BTreeMap<u32, &'static str>, terms: Terms) -> ReplyBuf {
    let mut out = ReplyBuf::new(terms.wire);
    let all_or_none = replies.replies() == 1;
    for n in 0..replies.replies() {
        let failure = if all_or_none { failed.values().next() } else { failed.get(&(n as u32)) };
        match failure {
            Some(error) if replies.kind(n) != Some(ReplyKind::Error) => {
                desk.count(if *error == TIMEOUT_AFTER { Counter::Timeout } else { Counter::NoQuorum }, 1);
                out.reply(ReplyRef::Error((*error).into()));
            }
            _ => out.append(&replies, n..n + 1),
        }
    }
    out
}
