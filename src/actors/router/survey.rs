//! Finds out what enough replicas hold for some keys, and has them promise the keys that are to be changed: the first half of every
//! operation above level one that depends on what is there. Merges what is newer than ours, brings those that are behind up to it, and tells
//! which requests were done before. Never executes anything. The rules are in `storage::lease` and `cluster::tally`. Exercised by the simulation.

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
use crate::base::limits::CLOCK_AHEAD_MAX;
use crate::base::reply::ReplyKind;
use crate::base::slot::Partition;
use crate::cluster::tally::{Progress, Tally};
use crate::cluster::view::{PeerIx, Route, View};
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{
    Answer, Answered, Ask, Counted, Holding, Key, Message as Native, RecordRef, Refusal, Surveyed as Asked,
};
use crate::storage::Outcome;

use super::super::replication::{CallPeer, Outgoing, Push};
use super::super::store::{Ballot, Held, Merge, Question, Record, Survey};
use super::{Desk, STOPPING};

const NO_QUORUM_BEFORE: &str = "NOQUORUM too few replicas of the key can be reached, applied: no";
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
    /// Another coordinator has a key, or views differ for the moment. A next ballot must lie above this.
    Passing(Version),
    /// An error for the client.
    Refusal(&'static str),
}

impl From<actix::MailboxError> for Obstacle {
    fn from(_: actix::MailboxError) -> Self {
        Self::Refusal(STOPPING)
    }
}

/// One key while the answers come in.
struct Subject {
    key: Bytes,
    inquiry: Inquiry,
    ours: Option<Entry>,
    tally: Tally,
    /// The newest that is not ours.
    newer: Option<Entry>,
    /// The version each replica that answered has.
    theirs: BTreeMap<PeerIx, Version>,
    /// Which replicas remember each request, and with what outcome. One that was begun twice may have left two.
    remembered: BTreeMap<(RequestId, Version), (Outcome, Vec<PeerIx>)>,
    /// Versions that some replica has, and since when it remembers every request that led to them.
    known: Vec<(Version, Version)>,
    /// Some replica declined for a reason that will pass.
    declined: bool,
}

impl Subject {
    fn route<'v>(&self, view: &'v View) -> &'v Route {
        view.route(Partition::of(&self.key))
    }

    fn newest(&self) -> Option<&Entry> {
        self.newer.as_ref().or(self.ours.as_ref())
    }

    fn newest_version(&self) -> Version {
        self.newest().map_or(Version::ZERO, |entry| entry.version)
    }

    /// What the key's replicas must answer: those who hold it tell what there is; who is to accept a change must have promised to.
    fn tally(&self, view: &View, level: Level) -> Tally {
        let route = self.route(view);
        let mut tally = Tally::new(if self.inquiry.lease { route.write(level) } else { route.read(level) });
        tally.acknowledge(view.me);
        tally
    }

    fn counted(&self, view: &View, ballot: Version) -> Option<Counted> {
        let route = self.route(view).mark;
        // What led to the newest version is not told with it.
        self.inquiry.lease.then_some(Counted { route, base: Version::ZERO, lease: Some(ballot) })
    }

    /// The request that wrote the newest version, which travels with it so that a retry elsewhere finds both.
    fn behind_newest(&self) -> Option<(RequestId, &Outcome)> {
        let newest = self.newest_version();
        let found =
            self.remembered.iter().find(|(_, (outcome, _))| outcome.version == newest && newest > Version::ZERO);
        found.map(|((request, _), (outcome, _))| (*request, outcome))
    }

    /// Takes what one replica says it holds.
    fn hear(&mut self, peer: PeerIx, holding: &Holding<'_>) {
        let entry = match holding {
            Holding::Nothing => None,
            Holding::Same => self.ours.clone(),
            Holding::Entry(entry) => Some(entry.to_entry()),
            Holding::Leased { .. } | Holding::OtherRoute => {
                self.declined = true;
                self.tally.fail(peer);
                return;
            }
        };
        self.tally.acknowledge(peer);
        self.theirs.insert(peer, entry.as_ref().map_or(Version::ZERO, |entry| entry.version));
        if let Some(entry) = entry {
            let best = self.newest().map(Entry::as_ref);
            if best.is_none_or(|best| entry.as_ref().merge_order(&best).is_gt()) {
                self.newer = Some(entry);
            }
        }
    }

    fn remember(&mut self, peer: PeerIx, request: RequestId, outcome: Outcome) {
        self.remembered.entry((request, outcome.version)).or_insert_with(|| (outcome, Vec::new())).1.push(peer);
    }

    /// What becomes of the requests asked about, other than being done now. One whose effect is the newest version, or that a majority took,
    /// is part of what the key holds. Of any other that is remembered it can't be said: it may have been built upon, or overruled by somebody
    /// who never saw it. Nor of one that was begun before and is not remembered, unless the newest version is older than it, or somebody
    /// remembers all that led there since.
    fn settle(&self, view: &View, settled: &mut BTreeMap<RequestId, Outcome>) {
        let newest = self.newest_version();
        let doubt = || Outcome { kind: ReplyKind::Error, reply: Bytes::from_static(IN_DOUBT), version: newest };
        for ((request, _), (outcome, by)) in &self.remembered {
            let mut tally = Tally::new(self.route(view).read(Level::Quorum));
            for peer in by {
                tally.acknowledge(*peer);
            }
            let certain = outcome.version == newest || tally.progress() == Progress::Met;
            if certain {
                settled.insert(*request, outcome.clone());
            } else {
                settled.entry(*request).or_insert_with(doubt);
            }
        }
        let Some(begun_ms) = self.inquiry.begun_ms else { return };
        // Clocks differ, but not by more than this: stamps from further ahead are refused.
        let begun = Version::earliest_at(begun_ms.saturating_sub(CLOCK_AHEAD_MAX.as_millis() as u64));
        let known = self.known.iter().any(|(version, since)| *version == newest && *since < begun);
        if newest >= begun && !known {
            for request in &self.inquiry.requests {
                settled.entry(*request).or_insert_with(doubt);
            }
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
    let (ballot, mut subjects) = begin(desk, view, shard, inquiries, (level, above)).await?;
    hear(desk, view, &mut subjects, (ballot, above)).await?;
    let mut found = Found { ballot, ..Found::default() };
    merge(desk, view, shard, &subjects, ballot).await?;
    repair(desk, view, &subjects, ballot, level).await?;
    for subject in subjects {
        subject.settle(view, &mut found.settled);
        found.newest.insert(subject.key.clone(), subject.newest_version());
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
) -> Result<(Version, Vec<Subject>), Obstacle> {
    let question = |(key, inquiry): (&Bytes, &Inquiry)| {
        let route = view.route(Partition::of(key)).mark;
        Question { key: key.clone(), route, lease: inquiry.lease }
    };
    let questions = inquiries.iter().map(question).collect();
    let requests = inquiries.values().flat_map(|inquiry| &inquiry.requests).copied().collect();
    let surveyed = desk.local.stores[shard].send(Survey { ballot: Ballot::Own { above }, questions, requests }).await?;
    let remembered: BTreeMap<RequestId, Outcome> = surveyed.answered.into_iter().collect();
    let mut subjects = Vec::with_capacity(inquiries.len());
    for (((key, inquiry), held), known) in inquiries.into_iter().zip(surveyed.held).zip(surveyed.known) {
        let ours = match held {
            Held::Entry(entry) => entry,
            Held::Leased(theirs) => return Err(Obstacle::Passing(above.max(theirs))),
            Held::OtherRoute => return Err(Obstacle::Passing(above)),
        };
        let done = inquiry.requests.iter().filter_map(|request| Some((*request, remembered.get(request)?.clone())));
        let remembered =
            done.map(|(request, outcome)| ((request, outcome.version), (outcome, vec![view.me]))).collect();
        let tally = Tally::new(view.route(Partition::of(&key)).read(level));
        let version = ours.as_ref().map_or(Version::ZERO, |entry| entry.version);
        let known = known.into_iter().map(|since| (version, since)).collect();
        let (newer, theirs) = (None, BTreeMap::new());
        let mut subject = Subject { key, inquiry, ours, tally, newer, theirs, remembered, known, declined: false };
        subject.tally = subject.tally(view, level);
        subjects.push(subject);
    }
    Ok((surveyed.ballot, subjects))
}

/// Asks the replicas, and hears them until each tally is met or can't be.
async fn hear(
    desk: &Desk,
    view: &View,
    subjects: &mut [Subject],
    (ballot, mut above): (Version, Version),
) -> Result<(), Obstacle> {
    let mut asked: BTreeMap<PeerIx, Vec<usize>> = BTreeMap::new();
    for (n, subject) in subjects.iter().enumerate() {
        for peer in subject.route(view).replicas().filter(|peer| *peer != view.me) {
            asked.entry(peer).or_default().push(n);
        }
    }
    let asks = asked.into_iter().map(|(peer, asked)| ask(desk, view, peer, asked, &*subjects, ballot));
    let mut asks: FuturesUnordered<_> = asks.collect::<Vec<_>>().into_iter().collect();
    while subjects.iter().any(|subject| subject.tally.progress() == Progress::Pending) {
        let Some((peer, asked, payload)) = asks.next().await else { break };
        let answer = payload.as_ref().and_then(|payload| match frame::decode(payload) {
            Ok(Native::Answer { answer: Answer::Survey { holdings, answered, known }, .. })
                if holdings.len() == asked.len() =>
            {
                Some((holdings, answered, known))
            }
            _ => None,
        });
        let Some((holdings, answered, known)) = answer else {
            for n in asked {
                subjects[n].tally.fail(peer);
            }
            continue;
        };
        let mut strays = false;
        for (n, holding) in asked.iter().zip(holdings) {
            subjects[*n].hear(peer, &holding);
            match holding {
                Holding::Leased { above: theirs } => above = above.max(theirs),
                Holding::OtherRoute => strays = true,
                Holding::Nothing | Holding::Same | Holding::Entry(_) => {}
            }
        }
        if strays {
            desk.pull_from(peer);
        }
        for (n, since) in known {
            if let Some(subject) = asked.get(n as usize).map(|n| &mut subjects[*n])
                && let Some(version) = subject.theirs.get(&peer)
            {
                subject.known.push((*version, since));
            }
        }
        for (Answered { request, kind, reply }, version) in answered {
            let about = asked.iter().find(|n| subjects[**n].inquiry.requests.contains(&request));
            if let Some(n) = about {
                let outcome = Outcome { kind, reply: Bytes::copy_from_slice(reply), version };
                subjects[*n].remember(peer, request, outcome);
            }
        }
    }
    let unmet = subjects.iter().find(|subject| subject.tally.progress() != Progress::Met);
    match unmet {
        None => Ok(()),
        Some(subject) if subject.declined => Err(Obstacle::Passing(above)),
        Some(_) => {
            desk.count(Counter::NoQuorum, 1);
            Err(Obstacle::Refusal(NO_QUORUM_BEFORE))
        }
    }
}

/// Asks one replica. What it is asked is encoded at once; the future borrows nothing of the subjects.
fn ask<'d>(
    desk: &'d Desk,
    view: &View,
    peer: PeerIx,
    asked: Vec<usize>,
    subjects: &[Subject],
    ballot: Version,
) -> impl Future<Output = (PeerIx, Vec<usize>, Option<Bytes>)> + use<'d> {
    let key = |n: &usize| {
        let subject = &subjects[*n];
        Asked {
            key: Key(&subject.key),
            have: subject.ours.as_ref().map_or(Version::ZERO, |entry| entry.version),
            route: subject.route(view).mark,
            lease: subject.inquiry.lease,
        }
    };
    let about = |(at, n): (u32, &usize)| subjects[*n].inquiry.requests.iter().map(move |request| (at, *request));
    let requests = (0u32..).zip(&asked).flat_map(about).collect();
    let call = Call::ask(&Ask::Survey { ballot, keys: asked.iter().map(key).collect(), requests });
    let answer = desk.replication.send(CallPeer { peer, call });
    async move { (peer, asked, answer.await.ok().and_then(Result::ok)) }
}

/// Takes over what is newer than ours.
async fn merge(desk: &Desk, view: &View, shard: usize, subjects: &[Subject], ballot: Version) -> Result<(), Obstacle> {
    let record = |(n, subject): (u32, &Subject)| {
        let entry = subject.newer.clone()?;
        let answered = subject.behind_newest().map(|(request, outcome)| (request, outcome.kind, outcome.reply.clone()));
        let counted = subject.counted(view, ballot);
        Some((n, Record::Entry { key: subject.key.clone(), entry, answered, counted }))
    };
    let records: Vec<_> = (0u32..).zip(subjects).filter_map(record).collect();
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

/// Entries for one replica, and the numbers of the subjects they are of.
#[derive(Default)]
struct Parcel {
    bytes: Vec<u8>,
    records: Vec<Outgoing>,
    about: Vec<usize>,
}

/// Sends the newest version to every replica that answered with an older one, and sees that enough hold it then, so that no later read
/// of as many replicas can go backwards.
async fn repair(
    desk: &Rc<Desk>,
    view: &View,
    subjects: &[Subject],
    ballot: Version,
    level: Level,
) -> Result<(), Obstacle> {
    let mut parcels: BTreeMap<PeerIx, Parcel> = BTreeMap::new();
    for (n, subject) in subjects.iter().enumerate() {
        let Some(entry) = subject.newest() else { continue };
        let answered = subject.behind_newest();
        for (peer, version) in &subject.theirs {
            let knows = answered.is_none_or(|(request, o)| subject.remembered[&(request, o.version)].1.contains(peer));
            if *version >= entry.version && knows {
                continue;
            }
            let parcel = parcels.entry(*peer).or_default();
            let answered = answered.map(|(request, o)| Answered { request, kind: o.kind, reply: &o.reply });
            let counted = subject.counted(view, ballot);
            let record = RecordRef::Entry { key: &subject.key, entry: entry.as_ref(), answered, counted };
            frame::encode_record(&record, &mut parcel.bytes);
            let (partition, route) = (Partition::of(&subject.key), counted.map(|counted| counted.route));
            parcel.records.push(Outgoing { end: parcel.bytes.len(), partition, op: n as u32, route });
            parcel.about.push(n);
        }
    }
    if parcels.is_empty() {
        return Ok(());
    }
    let pushed = join_all(parcels.into_iter().map(async |(peer, Parcel { bytes, records, about })| {
        desk.count(Counter::ReadRepairs, records.len() as u64);
        let taken = desk.replication.send(Push { peer, bytes, records }).await.unwrap_or(false);
        (peer, about, taken)
    }))
    .await;
    for (n, subject) in subjects.iter().enumerate() {
        let mut tally = subject.tally(view, level);
        for (peer, version) in &subject.theirs {
            let push = pushed.iter().find(|(to, about, _)| to == peer && about.contains(&n));
            if push.map_or(*version >= subject.newest_version(), |(_, _, taken)| *taken) {
                tally.acknowledge(*peer);
            }
        }
        if tally.progress() != Progress::Met {
            // The replica that did not take it has promised the key to another, or is lost: another look will tell.
            return Err(Obstacle::Passing(ballot));
        }
    }
    Ok(())
}
