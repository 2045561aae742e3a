//! Executes operations this node coordinates, at any level. At level one that is one message to the store. Above it: survey what an
//! operation depends on, execute, and wait until enough replicas have the outcome. What is enough stands in `cluster::tally`; why two
//! coordinators do not undo each other's work, in `storage::lease`. Never decides who coordinates. Exercised by the simulation.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::hlc::Version;
use crate::base::level::Level;
use crate::base::limits::{CLOCK_AHEAD_MAX, DIAL_TIMEOUT, LINK_RETRY_AFTER, LINK_STALL_MAX, SURVEY_FRESH_MAX};
use crate::base::op::Op;
use crate::base::reply::{BUSY, ReplyKind, ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::cluster::view::{Required, View};
use crate::protocol::resp::encode::ReplyBuf;

use super::super::replication::{Committed, WATCH_EVERY};
use super::super::store::{Execute, Executed, Grounds, Restamp};
use super::survey::{self, Found, Inquiry, Obstacle};
use super::{Desk, LATE, NO_QUORUM_BEFORE, Ops, STOPPING, Terms, errors, forward, spot};

/// Rounds of proposing a write again before the client is told that the outcome is unknown.
const PROPOSALS_MAX: usize = 3;
/// First and longest wait before another look at replicas; each is twice the one before.
const PAUSE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(40)];
/// For so long replicas that do not answer, and are not known to be down, are asked again: a link that died without a word is found lost,
/// closed and replaced within this time, or its peer is found dead.
const UNHEARD_MAX: Duration = LINK_STALL_MAX
    .saturating_add(WATCH_EVERY)
    .saturating_add(LINK_RETRY_AFTER)
    .saturating_add(DIAL_TIMEOUT)
    .saturating_add(PAUSE[1]);

const NO_QUORUM_AFTER: &str = "NOQUORUM too few replicas took the write, applied: unknown";
const TIMEOUT_BEFORE: &str = "TIMEOUT replicas did not answer in time, applied: no";
const TIMEOUT_AFTER: &str = "TIMEOUT replicas did not acknowledge the write in time, applied: unknown";
const NOT_CONFIRMED: &str = "NOQUORUM what was read could not be confirmed by enough replicas, applied: no";

/// Executes operations of any of this node's partitions, in order per partition.
pub(super) async fn all_here(desk: &Rc<Desk>, view: &Arc<View>, ops: Ops, terms: Terms) -> ReplyBuf {
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
        group.begun_ms = ops.begun_ms;
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

async fn on_shard(desk: &Rc<Desk>, view: &Arc<View>, shard: usize, ops: Ops, terms: Terms) -> ReplyBuf {
    if terms.level == Level::One || view.is_sovereign() {
        if let Some(op) = desk.spots.choose(ops.ops.len()).and_then(|at| ops.ops.get(at)) {
            spot::check(desk, op);
        }
        return match desk.local.stores[shard].send(execute(&ops, terms, None)).await {
            Ok(executed) if executed.late => late(desk, &ops, terms),
            Ok(executed) => executed.replies,
            Err(_) => errors(terms.wire, ops.ops.len(), STOPPING),
        };
    }
    // So few at a time that their leases do not drive each other out, and that an outbox takes them.
    let lengths = forward::call_lengths(&ops.ops);
    if ops.together || lengths.len() == 1 {
        return surveyed(desk, shard, &ops, terms).await;
    }
    let mut out = ReplyBuf::new(terms.wire);
    let (mut left, mut requests) = (&ops.ops[..], ops.requests.iter().copied());
    for length in lengths {
        let (part, rest) = left.split_at(length);
        left = rest;
        let part = Ops { ops: part.to_vec(), requests: requests.by_ref().take(length).collect(), ..ops };
        out.append_all(surveyed(desk, shard, &part, terms).await);
    }
    out
}

async fn surveyed(desk: &Rc<Desk>, shard: usize, ops: &Ops, terms: Terms) -> ReplyBuf {
    match carefully(desk, shard, ops, terms).await {
        Ok((executed, found)) => acknowledged(desk, shard, executed, ops, (found, terms)).await,
        Err(refusal) => errors(terms.wire, ops.ops.len(), refusal),
    }
}

/// Whoever sent them asks again, while there is time.
fn late(desk: &Desk, ops: &Ops, terms: Terms) -> ReplyBuf {
    desk.count(Counter::OpsLate, ops.ops.len() as u64);
    errors(terms.wire, ops.ops.len(), LATE)
}

fn execute(ops: &Ops, terms: Terms, grounds: Option<Grounds>) -> Execute {
    Execute {
        ops: ops.ops.clone(),
        requests: ops.requests.clone(),
        together: ops.together,
        wire: terms.wire,
        level: terms.level,
        deadline: terms.deadline,
        start_by: terms.start_by,
        grounds,
    }
}

/// How long one request goes on looking.
struct Patience {
    pause: Duration,
    unheard_until: Instant,
    deadline: Instant,
}

impl Patience {
    fn new(desk: &Desk, deadline: Instant) -> Self {
        let unheard_until = deadline.min(desk.clock.monotonic() + UNHEARD_MAX);
        Self { pause: PAUSE[0], unheard_until, deadline }
    }

    /// Waits before another look. False if the obstacle is there to stay, or its time is over.
    async fn outlasts(&mut self, desk: &Desk, obstacle: &Obstacle) -> bool {
        let until = match obstacle {
            Obstacle::Passing(_) => self.deadline,
            Obstacle::Unheard => self.unheard_until,
            Obstacle::Refusal(_) => return false,
        };
        if desk.clock.monotonic() + self.pause >= until {
            return false;
        }
        desk.count(Counter::SurveysRepeated, 1);
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE[1]);
        true
    }
}

/// What a client is told of an obstacle that stayed.
fn refusal(desk: &Desk, obstacle: &Obstacle) -> &'static str {
    let (counter, refusal) = match obstacle {
        Obstacle::Passing(_) => (Counter::Timeout, TIMEOUT_BEFORE),
        Obstacle::Unheard => (Counter::NoQuorum, NO_QUORUM_BEFORE),
        Obstacle::Refusal(BUSY) => (Counter::Busy, BUSY),
        Obstacle::Refusal(STOPPING) => (Counter::Shutdown, STOPPING),
        Obstacle::Refusal(refusal) => (Counter::NoQuorum, *refusal),
    };
    desk.count(counter, 1);
    refusal
}

/// Surveys and executes, again and again while another coordinator has a key or views differ. After an error nothing was done.
async fn carefully(desk: &Rc<Desk>, shard: usize, ops: &Ops, terms: Terms) -> Result<(Executed, Found), &'static str> {
    let mut above = if ops.retry { above_first_attempt(desk, ops) } else { Version::ZERO };
    // Blind writes are tried without a survey first.
    let mut all = false;
    let mut patience = Patience::new(desk, terms.deadline);
    loop {
        // What differed may have been settled meanwhile.
        let view = desk.view.load_full();
        let begun = desk.clock.monotonic();
        // After that moment the sender may have gone to another coordinator.
        let retry = ops.retry || terms.start_by.is_some_and(|start_by| start_by <= begun);
        all |= retry;
        let inquiries = inquiries(desk, &view, ops, (terms.level, all, retry))?;
        let surveyed = !inquiries.is_empty();
        let survey = survey::take(desk, &view, shard, inquiries, (terms.level, above));
        let found = match tokio::time::timeout_at(terms.deadline, survey).await {
            Ok(Ok(found)) => found,
            Ok(Err(obstacle)) => {
                if !patience.outlasts(desk, &obstacle).await {
                    return Err(refusal(desk, &obstacle));
                }
                // Asked again, this is a first attempt still; begun from now on, it would be one of two that nobody can tell apart.
                if !ops.retry && terms.start_by.is_some_and(|start_by| start_by <= desk.clock.monotonic()) {
                    desk.count(Counter::OpsLate, ops.ops.len() as u64);
                    return Err(LATE);
                }
                above = above.max(obstacle.above());
                continue;
            }
            Err(_) => return Err(refusal(desk, &Obstacle::Passing(above))),
        };
        // What was surveyed holds for a while.
        let fresh = surveyed.then(|| begun + SURVEY_FRESH_MAX);
        let terms =
            Terms { start_by: if all { fresh } else { terms.start_by.into_iter().chain(fresh).min() }, ..terms };
        let grounds = grounds(&view, ops, &found, all);
        let executed = desk.local.stores[shard].send(execute(ops, terms, Some(grounds))).await.map_err(|_| STOPPING)?;
        if !executed.late {
            return Ok((executed, found));
        }
        all = true;
    }
}

/// Above whatever an earlier attempt at a blind write may have been stamped, which no survey need have seen: found later, it must lose to
/// what was acknowledged after this one. A retry is sent once the first may not be begun any more, so that was stamped before now, by a
/// clock ahead of this one and by stamps ahead of that clock. Other operations are promised their keys, which bounds their stamps.
fn above_first_attempt(desk: &Desk, ops: &Ops) -> Version {
    let blind = ops.ops.iter().any(|op| op.act.writes() && !op.act.reads());
    let latest_ms = desk.clock.unix_ms().saturating_add(2 * CLOCK_AHEAD_MAX.as_millis() as u64);
    if blind { Version::earliest_at(latest_ms) } else { Version::ZERO }
}

/// What has to be known before these operations are executed. An error means that their level can't be met.
fn inquiries(
    desk: &Desk,
    view: &View,
    ops: &Ops,
    (level, all, retry): (Level, bool, bool),
) -> Result<BTreeMap<Bytes, Inquiry>, &'static str> {
    let mut inquiries: BTreeMap<Bytes, Inquiry> = BTreeMap::new();
    let rests_on_reads = ops.rests_on_reads();
    for (n, op) in ops.ops.iter().enumerate() {
        let route = view.route(Partition::of(&op.key));
        // A node that nobody has told of a cluster yet knows no holders; its own majority of one says nothing.
        let known = !route.holders.is_empty();
        if !known || op.act.writes() && !reachable(view, route.write(level)) {
            desk.count(Counter::NoQuorum, 1);
            return Err(NO_QUORUM_BEFORE);
        }
        if op.act.reads() || rests_on_reads || all {
            let inquiry = inquiries.entry(op.key.clone()).or_default();
            inquiry.requests.extend(ops.requests.get(n).copied().flatten());
            inquiry.begun_ms = retry.then_some(ops.begun_ms);
        }
    }
    for op in ops.ops.iter().filter(|op| op.act.writes() || rests_on_reads) {
        inquiries.entry(op.key.clone()).and_modify(|inquiry| inquiry.lease = true);
    }
    Ok(inquiries)
}

fn reachable(view: &View, required: Required) -> bool {
    required.sets.iter().all(|(set, needed)| set.iter().filter(|peer| view.is_alive(**peer)).count() >= *needed)
}

fn grounds(view: &View, ops: &Ops, found: &Found, all: bool) -> Grounds {
    let rests_on_reads = ops.rests_on_reads();
    let leased = |op: &Op| (all || found.newest.contains_key(&op.key)) && (op.act.writes() || rests_on_reads);
    Grounds {
        routes: ops.ops.iter().map(|op| view.route(Partition::of(&op.key)).mark).collect(),
        leased: ops.ops.iter().map(leased).collect(),
        ballot: found.ballot,
        settled: found.settled.clone(),
    }
}

/// Waits for the acknowledgements, confirms what was read, and puts errors where that did not succeed.
async fn acknowledged(
    desk: &Rc<Desk>,
    shard: usize,
    mut executed: Executed,
    ops: &Ops,
    (found, terms): (Found, Terms),
) -> ReplyBuf {
    let replies = std::mem::take(&mut executed.replies);
    let mut failed: BTreeMap<u32, &'static str> = BTreeMap::new();
    if !confirmed(desk, shard, &executed, ops, (&found, terms)).await {
        failed.extend(executed.read.iter().map(|(n, _)| (*n, NOT_CONFIRMED)));
    }
    for proposal in 0..PROPOSALS_MAX {
        let Some(commit) = executed.commit.take() else { break };
        let Ok(Ok(Committed { short, newer, astray })) = tokio::time::timeout_at(terms.deadline, commit).await else {
            failed.extend(executed.written.iter().map(|(n, _)| (*n, TIMEOUT_AFTER)));
            break;
        };
        failed.extend(short.into_iter().map(|n| (n, NO_QUORUM_AFTER)));
        let mut again: BTreeMap<u32, Version> = executed.written.iter().copied().collect();
        again.retain(|n, _| astray.contains(n) || newer.iter().any(|(lost, _)| lost == n));
        if again.is_empty() {
            break;
        }
        failed.extend(again.keys().map(|n| (*n, TIMEOUT_AFTER)));
        if proposal + 1 < PROPOSALS_MAX {
            let above = newer.iter().map(|(_, version)| *version).max().unwrap_or(Version::ZERO);
            let proposed = propose_again(desk, shard, ops, &again, (terms, above));
            let Ok(Some(proposed)) = tokio::time::timeout_at(terms.deadline, proposed).await else { break };
            failed.retain(|n, _| proposed.written.iter().all(|(written, _)| written != n));
            executed = proposed;
        }
    }
    if failed.is_empty() { replies } else { with_errors(desk, replies, &failed, terms) }
}

/// What an operation read may be newer than what was surveyed: written here, and not yet held by enough others. Then they are asked again.
async fn confirmed(
    desk: &Rc<Desk>,
    shard: usize,
    executed: &Executed,
    ops: &Ops,
    (found, terms): (&Found, Terms),
) -> bool {
    let is_newer = |(n, version): &&(u32, Version)| {
        let key = &ops.ops[*n as usize].key;
        found.newest.get(key).is_none_or(|surveyed| version > surveyed)
    };
    let newer: Vec<&Bytes> = executed.read.iter().filter(is_newer).map(|(n, _)| &ops.ops[*n as usize].key).collect();
    if newer.is_empty() {
        return true;
    }
    let mut patience = Patience::new(desk, terms.deadline);
    let look = async {
        loop {
            let view = desk.view.load_full();
            let inquiries = newer.iter().map(|key| ((*key).clone(), Inquiry::default())).collect();
            match survey::take(desk, &view, shard, inquiries, (terms.level, Version::ZERO)).await {
                Ok(_) => return true,
                Err(obstacle) if patience.outlasts(desk, &obstacle).await => {}
                Err(_) => return false,
            }
        }
    };
    tokio::time::timeout_at(terms.deadline, look).await.unwrap_or(false)
}

/// Proposes writes again that were stamped too low, or counted by a route that has changed: under a lease, and only those that are still
/// the newest there is. What another has come to stand upon, or to overrule, is not ours to lift.
async fn propose_again(
    desk: &Rc<Desk>,
    shard: usize,
    ops: &Ops,
    again: &BTreeMap<u32, Version>,
    (terms, mut above): (Terms, Version),
) -> Option<Executed> {
    let key = |n: &u32| ops.ops.get(*n as usize).map(|op| op.key.clone());
    let mut patience = Patience::new(desk, terms.deadline);
    loop {
        let view = desk.view.load_full();
        let inquiry = || Inquiry { lease: true, ..Inquiry::default() };
        let inquiries = again.keys().filter_map(key).map(|key| (key, inquiry())).collect();
        match survey::take(desk, &view, shard, inquiries, (terms.level, above)).await {
            Ok(found) => {
                let newest = |(n, ours): (&u32, &Version)| {
                    let key = key(n)?;
                    (found.newest.get(&key) == Some(ours)).then_some((*n, key, *ours))
                };
                let keys: Vec<(u32, Bytes, Version)> = again.iter().filter_map(newest).collect();
                let routes = keys.iter().map(|(_, key, _)| view.route(Partition::of(key)).mark).collect();
                let leased = vec![true; keys.len()];
                let grounds = Grounds { routes, leased, ballot: found.ballot, settled: BTreeMap::new() };
                let restamp = Restamp { keys, grounds, level: terms.level };
                return desk.local.stores[shard].send(restamp).await.ok();
            }
            Err(obstacle) if patience.outlasts(desk, &obstacle).await => above = above.max(obstacle.above()),
            Err(_) => return None,
        }
    }
}

fn with_errors(desk: &Desk, replies: ReplyBuf, failed: &BTreeMap<u32, &'static str>, terms: Terms) -> ReplyBuf {
    let mut out = ReplyBuf::new(terms.wire);
    for n in 0..replies.replies() {
        match failed.get(&(n as u32)) {
            Some(error) if replies.kind(n) != Some(ReplyKind::Error) => {
                desk.count(if error.starts_with("TIMEOUT") { Counter::Timeout } else { Counter::NoQuorum }, 1);
                out.reply(ReplyRef::Error((*error).into()));
            }
            _ => out.append(&replies, n..n + 1),
        }
    }
    out
}
