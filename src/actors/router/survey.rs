//! Finds out what enough replicas hold for some keys, and has them promise the keys that are to be changed: the first half of every
//! operation above level one that depends on what is there. Merges what is newer than ours, brings those that are behind up to it, and tells
//! which requests were done before. Never executes anything, and decides nothing: the rules are in `storage::lease` and `cluster::survey`.
//! Exercised by the simulation.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use crate::base::counters::Counter;
use crate::base::entry::Entry;
use crate::base::hlc::{UnixMs, Version};
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::outcome::Outcome;
use crate::base::reply::{BUSY, ReplyKind};
use crate::base::slot::Partition;
use crate::cluster::survey::{Subject, Verdict};
use crate::cluster::tally::Progress;
use crate::cluster::view::{Liveness, PeerIx, Route, View};
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{
    Answer, Answered, Ask, Counted, Holding, Key, Message as Native, RecordRef, Refusal, Surveyed as KeyAsked,
};

use super::super::replication::{CallPeer, LinkError, Outgoing, Push};
use super::super::store::{Ballot, Held, Merge, Question, Record, Survey};
use super::{Desk, NO_QUORUM_BEFORE, STOPPING};

const FAR_FUTURE: &str = "NOQUORUM a replica holds a version from the far future, applied: no";
const IN_DOUBT: &[u8] = b"-TIMEOUT an earlier attempt was begun and may have been overruled, applied: unknown\r\n";

/// A key to ask about.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    /// Whether it is to be changed on the strength of the answer.
    pub(super) lease: bool,
    /// Requests about it that may have been done before.
    pub(super) requests: Vec<RequestId>,
    /// When the first of them began, in Unix milliseconds, if any has been tried before.
    pub(super) begun_ms: Option<UnixMs>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Under which the leases were given.
    pub(super) ballot: Version,
    /// Per key, the newest version; enough replicas hold it now.
    pub(super) newest: BTreeMap<Bytes, Version>,
    /// Requests that were done, or can't be known not to be, and what to answer.
    pub(super) settled: BTreeMap<RequestId, Outcome>,
}

/// Why nothing may be executed.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// Another coordinator has a key with this ballot, or views differ for the moment.
    Passing(Version),
    /// Too few replicas answered, although enough are not known to be down.
    Unheard,
    /// An error for the client.
    Refusal(&'static str),
}

impl Obstacle {
    /// What a next ballot must lie above.
    pub(super) fn above(&self) -> Version {
        if let Self::Passing(theirs) = self { *theirs } else { Version::ZERO }
    }
}

impl From<actix::MailboxError> for Obstacle {
    fn from(_: actix::MailboxError) -> Self {
        Self::Refusal(STOPPING)
    }
}

/// A key that is asked about, and what was heard of it.
struct Asked {
    key: Bytes,
    inquiry: Inquiry,
    subject: Subject,
}

impl Asked {
    fn route<'v>(&self, view: &'v View) -> &'v Route {
        view.route(Partition::of(&self.key))
    }

    fn counted(&self, view: &View, ballot: Version) -> Option<Counted> {
        let route = self.route(view).mark;
        // What led to the newest version is not told with it.
        self.inquiry.lease.then_some(Counted { route, base: Version::ZERO, lease: Some(ballot) })
    }

    /// Takes what one replica says it holds.
    fn hear(&mut self, peer: PeerIx, holding: &Holding<'_>) {
        match holding {
            Holding::Nothing => self.subject.holds(peer, None),
            Holding::Same => self.subject.holds(peer, self.subject.ours().cloned()),
            Holding::Entry(entry) => self.subject.holds(peer, Some(entry.to_entry())),
            Holding::Leased { .. } | Holding::OtherRoute => self.subject.declines(peer),
        }
    }

    fn settle(&self, view: &View, settled: &mut BTreeMap<RequestId, Outcome>) {
        let (majority, version) = (self.route(view).read(Level::Quorum), self.subject.newest_version());
        let doubt = || Outcome { kind: ReplyKind::Error, reply: Bytes::from_static(IN_DOUBT), version };
        for (request, verdict) in self.subject.verdicts(&majority, &self.inquiry.requests, self.inquiry.begun_ms) {
            let outcome = if let Verdict::Done(outcome) = verdict { outcome } else { doubt() };
            settled.insert(request, outcome);
        }
    }
}

/// Asks about these keys of one shard, as the coordinator, until enough replicas have answered for each.
///
/// # Errors
/// [`Obstacle`]; nothing was executed.
pub(super) async fn take(
    desk: &Rc<Desk>,
    view: &View,
    shard: usize,
    inquiries: BTreeMap<Bytes, Inquiry>,
    (level, above): (Level, Version),
) -> Result<Found, Obstacle> {
    if inquiries.is_empty() {
        return Ok(Found::default());
    }
    let (ballot, mut keys) = begin(desk, view, shard, inquiries, (level, above)).await?;
    let heard = hear(desk, view, &mut keys, (ballot, above)).await;
    // What was told of some keys need not be told again in the next round, which an answer may have no room for.
    merge(desk, view, shard, &keys, ballot).await?;
    heard?;
    let mut found = Found { ballot, ..Found::default() };
    repair(desk, view, shard, &keys, ballot).await?;
    for asked in keys {
        asked.settle(view, &mut found.settled);
        let newest = asked.subject.newest_version();
        found.newest.insert(asked.key, newest);
    }
    Ok(found)
}

/// Looks at what this node itself holds, and draws the ballot.
async fn begin(
    desk: &Desk,
    view: &View,
    shard: usize,
    inquiries: BTreeMap<Bytes, Inquiry>,
    (level, above): (Level, Version),
) -> Result<(Version, Vec<Asked>), Obstacle> {
    let question = |(key, inquiry): (&Bytes, &Inquiry)| {
        let route = view.route(Partition::of(key)).mark;
        Question { key: key.clone(), route, lease: inquiry.lease }
    };
    let questions = inquiries.iter().map(question).collect();
    let requests = inquiries.values().flat_map(|inquiry| &inquiry.requests).copied().collect();
    let surveyed = desk.local.stores[shard].send(Survey { ballot: Ballot::Own { above }, questions, requests }).await?;
    let remembered: BTreeMap<RequestId, Outcome> = surveyed.answered.into_iter().collect();
    let mut keys = Vec::with_capacity(inquiries.len());
    for (((key, inquiry), held), known) in inquiries.into_iter().zip(surveyed.held).zip(surveyed.known) {
        let ours = match held {
            Held::Entry(entry) => entry,
            Held::Leased(theirs) => return Err(Obstacle::Passing(above.max(theirs))),
            Held::OtherRoute => return Err(Obstacle::Passing(above)),
        };
        // Those who hold it tell what there is; who is to accept a change must have promised to.
        let route = view.route(Partition::of(&key));
        let required = if inquiry.lease { route.write(level) } else { route.read(level) };
        let mut subject = Subject::new(required, view.me, ours);
        for request in &inquiry.requests {
            if let Some(outcome) = remembered.get(request) {
                subject.remembers(view.me, *request, outcome.clone());
            }
        }
        if let Some(since) = known {
            subject.knows_since(subject.newest_version(), since);
        }
        keys.push(Asked { key, inquiry, subject });
    }
    Ok((surveyed.ballot, keys))
}

/// Asks the replicas, and hears them until each tally is met or can't be.
async fn hear(
    desk: &Desk,
    view: &View,
    keys: &mut [Asked],
    (ballot, mut above): (Version, Version),
) -> Result<(), Obstacle> {
    let mut asked: BTreeMap<PeerIx, Vec<usize>> = BTreeMap::new();
    for (n, key) in keys.iter().enumerate() {
        for peer in key.route(view).replicas().filter(|peer| *peer != view.me) {
            asked.entry(peer).or_default().push(n);
        }
    }
    let mut busy = false;
    let asks = asked.into_iter().map(|(peer, asked)| ask(desk, view, peer, asked, &*keys, ballot));
    let mut asks: FuturesUnordered<_> = asks.collect::<Vec<_>>().into_iter().collect();
    while keys.iter().any(|key| key.subject.progress() == Progress::Pending) {
        let Some((peer, asked, payload)) = asks.next().await else { break };
        let answer = match payload.as_ref().map(|payload| frame::decode(payload)) {
            Ok(Ok(Native::Answer { answer: Answer::Survey { holdings, answered, known }, .. }))
                if holdings.len() == asked.len() =>
            {
                Some((holdings, answered, known))
            }
            Ok(Ok(Native::Answer { answer: Answer::Failed(BUSY), .. })) | Err(LinkError::Busy) => {
                busy = true;
                None
            }
            _ => None,
        };
        let Some((holdings, answered, known)) = answer else {
            asked.iter().for_each(|n| keys[*n].subject.is_lost(peer));
            continue;
        };
        for (n, holding) in asked.iter().zip(&holdings) {
            keys[*n].hear(peer, holding);
            if let Holding::Leased { above: theirs } = holding {
                above = above.max(*theirs);
            }
        }
        if holdings.iter().any(|holding| matches!(holding, Holding::OtherRoute)) {
            desk.pull_from(peer);
        }
        for (n, since) in known {
            if let Some(subject) = asked.get(n as usize).map(|n| &mut keys[*n].subject)
                && let Some(version) = subject.version_of(peer)
            {
                subject.knows_since(version, since);
            }
        }
        for (Answered { request, kind, reply }, version) in answered {
            let about = asked.iter().find(|n| keys[**n].inquiry.requests.contains(&request));
            if let Some(n) = about {
                let outcome = Outcome { kind, reply: Bytes::copy_from_slice(reply), version };
                keys[*n].subject.remembers(peer, request, outcome);
            }
        }
    }
    conclude(view, keys, busy, above)
}

/// Why not enough has been heard, if so.
fn conclude(view: &View, keys: &[Asked], busy: bool, above: Version) -> Result<(), Obstacle> {
    let unmet: Vec<&Asked> = keys.iter().filter(|key| key.subject.progress() != Progress::Met).collect();
    let is_down = |peer| view.peer(peer).is_none_or(|peer| peer.liveness == Liveness::Down);
    if unmet.is_empty() {
        Ok(())
    } else if !unmet.iter().all(|key| key.subject.may_be_met(is_down)) {
        Err(Obstacle::Refusal(NO_QUORUM_BEFORE))
    } else if busy {
        Err(Obstacle::Refusal(BUSY))
    } else if unmet.iter().any(|key| key.subject.may_pass()) {
        Err(Obstacle::Passing(above))
    } else {
        Err(Obstacle::Unheard)
    }
}

/// Asks one replica. What it is asked is encoded at once; the future borrows nothing of the keys.
fn ask<'d>(
    desk: &'d Desk,
    view: &View,
    peer: PeerIx,
    asked: Vec<usize>,
    keys: &[Asked],
    ballot: Version,
) -> impl Future<Output = (PeerIx, Vec<usize>, Result<Bytes, LinkError>)> + use<'d> {
    let question = |n: &usize| {
        let Asked { key, inquiry, subject } = &keys[*n];
        let have = subject.ours().map_or(Version::ZERO, |entry| entry.version);
        KeyAsked { key: Key(key), have, route: keys[*n].route(view).mark, lease: inquiry.lease }
    };
    let about = |(at, n): (u32, &usize)| keys[*n].inquiry.requests.iter().map(move |request| (at, *request));
    let requests = (0u32..).zip(&asked).flat_map(about).collect();
    let call = Call::ask(&Ask::Survey { ballot, keys: asked.iter().map(question).collect(), requests });
    let answer = desk.replication.send(CallPeer { peer, call });
    async move { (peer, asked, answer.await.unwrap_or(Err(LinkError::Unreachable))) }
}

/// Takes over what is newer than ours.
async fn merge(desk: &Desk, view: &View, shard: usize, keys: &[Asked], ballot: Version) -> Result<(), Obstacle> {
    let record = |(n, asked): (u32, &Asked)| {
        let entry = asked.subject.newer()?.clone();
        let behind = asked.subject.behind_newest();
        let answered = behind.map(|(request, outcome)| Box::new((request, outcome.kind, outcome.reply.clone())));
        Some((n, Record::Entry { key: asked.key.clone(), entry, answered, counted: asked.counted(view, ballot) }))
    };
    let records: Vec<_> = (0u32..).zip(keys).filter_map(record).collect();
    if records.is_empty() {
        return Ok(());
    }
    let merged = desk.local.stores[shard].send(Merge(records)).await?;
    match merged.refused.first() {
        Some((_, Refusal::FarFuture)) => Err(Obstacle::Refusal(FAR_FUTURE)),
        Some((_, Refusal::Lease | Refusal::Route)) => Err(Obstacle::Passing(ballot)),
        None => Ok(()),
    }
}

/// Entries for one replica, and the numbers of the keys they are of.
#[derive(Default)]
struct Parcel {
    bytes: Vec<u8>,
    records: Vec<Outgoing>,
    about: Vec<usize>,
}

/// Sends the newest version to every replica that answered with an older one, and sees that enough hold it then, so that no later read
/// of as many replicas can go backwards. It takes the way of the shard's own writes, behind them: before them, it would make each look as
/// if something newer had been written by somebody else.
async fn repair(desk: &Rc<Desk>, view: &View, shard: usize, keys: &[Asked], ballot: Version) -> Result<(), Obstacle> {
    let mut parcels: BTreeMap<PeerIx, Parcel> = BTreeMap::new();
    for (n, asked) in keys.iter().enumerate() {
        let Asked { key, subject, .. } = asked;
        let Some(entry) = subject.newest().map(Entry::as_ref) else { continue };
        for peer in subject.heard().filter(|peer| subject.lacks(*peer)) {
            let parcel = parcels.entry(peer).or_default();
            let behind = subject.behind_newest();
            let answered = behind.map(|(request, o)| Answered { request, kind: o.kind, reply: &o.reply });
            let counted = asked.counted(view, ballot);
            frame::encode_record(&RecordRef::Entry { key, entry, answered, counted }, &mut parcel.bytes);
            let (partition, route) = (Partition::of(key), counted.map(|counted| counted.route));
            parcel.records.push(Outgoing { end: parcel.bytes.len(), partition, op: n as u32, route });
            parcel.about.push(n);
        }
    }
    if parcels.is_empty() {
        return Ok(());
    }
    let pushed = join_all(parcels.into_iter().map(async |(peer, Parcel { bytes, records, about })| {
        desk.count(Counter::ReadRepairs, records.len() as u64);
        let taken = desk.local.replications[shard].send(Push { peer, bytes, records }).await.unwrap_or(false);
        (peer, about, taken)
    }))
    .await;
    for (n, asked) in keys.iter().enumerate() {
        let took = |peer| pushed.iter().find(|(to, about, _)| *to == peer && about.contains(&n)).map(|push| push.2);
        if !asked.subject.is_settled(view.me, took) {
            // The replica that did not take it has promised the key to another, or is lost: another look will tell.
            return Err(Obstacle::Passing(ballot));
        }
    }
    Ok(())
}
