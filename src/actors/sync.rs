//! Brings replicas together: carries out what `cluster::sync` plans, by comparing digests with a peer and sending each side what it
//! lacks. Never decides what to compare. Exercised by the simulation.
//!
//! Bound: one session per peer at a time, a page of a leaf at a time, `SYNC_ENTRIES_PER_FRAME` and `SYNC_BYTES_PER_FRAME` a page.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::base::counters::{Counter, Counters};
use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::{REQUEST_TIMEOUT, SYNC_BYTES_PER_FRAME, SYNC_ENTRIES_PER_FRAME};
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::sync::{Compared, Planner, Step};
use crate::cluster::view::{PeerIx, View};
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Answer, Ask, Holding, Key, LeafPosition, Message as Native, PartitionDigest, RecordRef};

use super::clock::Clock;
use super::local::Local;
use super::replication::{CallPeer, Diverged, Outgoing, Push, Replication, ViewChanged};
use super::ring::{Holds, RingActor};
use super::store::{self, Merge, Peek, Record, Versions, VersionsPage};

/// How often the plan is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Which partitions hold anything is asked this often.
const FILLED_EVERY_LOOKS: u32 = 20;
/// Partitions of one session that are worked on at a time: enough to hide the round trips, few enough to leave room for clients.
const PARTITIONS_AT_ONCE: usize = 8;
/// A replica may lag behind this far in ordinary life.
const IN_FLIGHT_MS: u64 = 2_000;

/// How repair stands.
#[derive(Message, Debug)]
#[rtype(result = "SyncStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Default, Clone)]
pub struct SyncStats {
    /// Counts.
    pub counters: Counters,
    /// Partitions owned and not yet complete.
    pub syncing: usize,
    /// Age of the last completed round; `None` before the first.
    pub last_round_age_ms: Option<u64>,
    /// Keys that differed in it.
    pub divergent_keys: usize,
}

#[derive(Message)]
#[rtype(result = "()")]
struct SessionOver {
    peer: PeerIx,
    compared: Vec<(Partition, Compared)>,
    left: PartitionSet,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Filled(PartitionSet);

/// The actor.
pub struct SyncActor {
    planner: Planner,
    view: Arc<View>,
    clock: Clock,
    local: Local,
    replication: Addr<Replication>,
    ring: Addr<RingActor>,
    filled: PartitionSet,
    looks: u32,
    counters: Rc<RefCell<Counters>>,
}

impl SyncActor {
    /// Carries out `planner`'s plan through `replication`.
    pub fn new(
        planner: Planner,
        view: Arc<View>,
        clock: Clock,
        local: Local,
        replication: Addr<Replication>,
        ring: Addr<RingActor>,
    ) -> Self {
        Self {
            planner,
            view,
            clock,
            local,
            replication,
            ring,
            filled: PartitionSet::EMPTY,
            looks: 0,
            counters: Rc::default(),
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(FILLED_EVERY_LOOKS) {
            let (stores, me) = (self.local.stores.clone(), ctx.address());
            actix::spawn(async move {
                let stats =
                    futures_util::future::join_all(stores.iter().map(|store| store.send(store::AskStats))).await;
                let filled = stats.into_iter().flatten().fold(PartitionSet::EMPTY, |all, s| all.union(&s.filled));
                me.do_send(Filled(filled));
            });
        }
        for step in self.planner.steps(&self.view, &self.filled, self.clock.unix_ms()) {
            self.take(step, ctx);
        }
        ctx.run_later(LOOK_EVERY, Self::look);
    }

    fn take(&mut self, step: Step, ctx: &mut Context<Self>) {
        match step {
            Step::Claim { partitions, founding } => self.ring.do_send(Holds { partitions, founding }),
            Step::Drop(partitions) => {
                self.filled = self.filled.difference(&partitions);
                for store in &self.local.stores {
                    store.do_send(store::Drop(partitions));
                }
            }
            Step::Compare(peer, partitions) => {
                let session = Session {
                    peer,
                    clock: self.clock,
                    local: self.local.clone(),
                    replication: self.replication.clone(),
                    counters: self.counters.clone(),
                };
                let me = ctx.address();
                actix::spawn(async move {
                    let (compared, left) = session.run(partitions).await;
                    me.do_send(SessionOver { peer, compared, left });
                });
            }
        }
    }
}

/// The peer did not answer, or not as agreed; or this node is stopping. What was brought over stays.
#[derive(Debug)]
struct Ended;

impl<E: std::error::Error> From<E> for Ended {
    fn from(_: E) -> Self {
        Self
    }
}

/// One comparison with one peer.
struct Session {
    peer: PeerIx,
    clock: Clock,
    local: Local,
    replication: Addr<Replication>,
    counters: Rc<RefCell<Counters>>,
}

impl Session {
    /// What each partition came to, and the partitions that could not be compared.
    async fn run(&self, partitions: PartitionSet) -> (Vec<(Partition, Compared)>, PartitionSet) {
        let mut compared = Vec::new();
        let mut left = partitions;
        let Ok(digests) = self.digests(partitions).await else { return (compared, left) };
        let sessions = digests.into_iter().map(async |(partition, ours, theirs)| {
            if ours == theirs {
                self.counters.borrow_mut().inc(Counter::SyncsEqual);
                return (partition, Ok(Compared::default()));
            }
            self.counters.borrow_mut().inc(Counter::SyncsDifferent);
            (partition, self.compare(partition, ours, theirs).await)
        });
        let mut sessions = futures_util::stream::iter(sessions).buffer_unordered(PARTITIONS_AT_ONCE);
        while let Some((partition, came_to)) = sessions.next().await {
            let Ok(came_to) = came_to else { break };
            compared.push((partition, came_to));
            left.remove(partition);
        }
        (compared, left)
    }

    async fn ask(&self, ask: &Ask<'_>) -> Result<Bytes, Ended> {
        let answer = self.replication.send(CallPeer { peer: self.peer, call: Call::ask(ask) });
        Ok(tokio::time::timeout(REQUEST_TIMEOUT, answer).await???)
    }

    async fn digests(
        &self,
        partitions: PartitionSet,
    ) -> Result<Vec<(Partition, PartitionDigest, PartitionDigest)>, Ended> {
        let ours = self.local.digests(partitions).await?;
        let payload = self.ask(&Ask::Digests(&partitions.to_bytes())).await?;
        match frame::decode(&payload)? {
            Native::Answer { answer: Answer::Digests(theirs), .. } if theirs.len() == ours.len() => {
                Ok(partitions.iter().zip(ours).zip(theirs).map(|((p, ours), theirs)| (p, ours, theirs)).collect())
            }
            _ => Err(Ended),
        }
    }

    async fn compare(
        &self,
        partition: Partition,
        ours: PartitionDigest,
        theirs: PartitionDigest,
    ) -> Result<Compared, Ended> {
        self.level_floors(partition, ours.floor, theirs.floor).await?;
        let payload = self.ask(&Ask::Leaves(partition.0)).await?;
        let Native::Answer { answer: Answer::Leaves(theirs), .. } = frame::decode(&payload)? else { return Err(Ended) };
        let ours = self.local.store_of(partition).send(store::Leaves(partition)).await?;
        if ours.len() != theirs.len() {
            return Err(Ended);
        }
        let apart = (0..ours.len()).filter(|leaf| ours[*leaf] != theirs[*leaf]);
        #[cfg(feature = "sim")]
        let apart = apart.filter(|leaf| leaf % 2 == 0 || !crate::base::plant::Plant::SkippedLeaves.is_sown());
        self.compare_leaves(partition, apart.fold(0, |bits, leaf| bits | 1 << leaf)).await
    }

    /// Flushes count like writes: the later one holds on both sides.
    async fn level_floors(&self, partition: Partition, ours: Version, theirs: Version) -> Result<(), Ended> {
        if theirs > ours {
            let floor = Record::Floor { partition, version: theirs };
            self.local.store_of(partition).send(Merge(vec![(0, floor)])).await?;
        } else if ours > theirs {
            let mut bytes = Vec::new();
            frame::encode_record(&RecordRef::Floor { partition: partition.0, version: ours }, &mut bytes);
            let floor = Outgoing { end: bytes.len(), partition, op: 0, route: None };
            self.push(bytes, vec![floor]).await?;
        }
        Ok(())
    }

    async fn compare_leaves(&self, partition: Partition, leaves: u64) -> Result<Compared, Ended> {
        let mut came_to = Compared::default();
        let mut ours = self.our_versions(partition, leaves).await?;
        let mut wanted: Vec<(Bytes, Version)> = Vec::new();
        let mut offered: Vec<Bytes> = Vec::new();
        for (key, theirs) in self.their_versions(partition, leaves).await? {
            match ours.remove(&key) {
                Some(own) if own > theirs => offered.push(key),
                Some(own) if own == theirs => {}
                own => wanted.push((key, own.unwrap_or(Version::ZERO))),
            }
        }
        offered.extend(ours.into_keys());
        came_to.differing += wanted.len() + offered.len();
        let mut wanted = &wanted[..];
        while !wanted.is_empty() {
            let (answered, old) = self.pull(partition, &wanted[..wanted.len().min(SYNC_ENTRIES_PER_FRAME)]).await?;
            wanted = &wanted[answered..];
            came_to.pulled_old += old;
        }
        for page in offered.chunks(SYNC_ENTRIES_PER_FRAME) {
            self.offer(partition, page).await?;
        }
        Ok(came_to)
    }

    async fn our_versions(&self, partition: Partition, leaves: u64) -> Result<BTreeMap<Bytes, Version>, Ended> {
        let mut all = BTreeMap::new();
        let mut from = Some(LeafPosition::default());
        while let Some(at) = from {
            let ask = Versions { partition, leaves, from: at };
            let VersionsPage { versions, next } = self.local.store_of(partition).send(ask).await?;
            all.extend(versions);
            from = next;
        }
        Ok(all)
    }

    async fn their_versions(&self, partition: Partition, leaves: u64) -> Result<Vec<(Bytes, Version)>, Ended> {
        let mut all = Vec::new();
        let mut from = Some(LeafPosition::default());
        while let Some(at) = from {
            let payload = self.ask(&Ask::Versions { partition: partition.0, leaves, from: at }).await?;
            let Native::Answer { answer: Answer::Versions { versions, next }, .. } = frame::decode(&payload)? else {
                return Err(Ended);
            };
            all.extend(versions.into_iter().map(|(Key(key), version)| (payload.slice_ref(key), version)));
            // A page must lead on, or a confused peer could hold us here for ever.
            from = next.filter(|next| *next > at);
        }
        Ok(all)
    }

    /// Fetches and merges entries. Returns for how many the peer had room in its answer, one or more, and how many of these should have
    /// been here long ago.
    async fn pull(&self, partition: Partition, wanted: &[(Bytes, Version)]) -> Result<(usize, usize), Ended> {
        let keys = wanted.iter().map(|(key, have)| (Key(key), *have)).collect();
        let payload = self.ask(&Ask::Entries(keys)).await?;
        let Native::Answer { answer: Answer::Entries(found), .. } = frame::decode(&payload)? else { return Err(Ended) };
        if found.is_empty() || found.len() > wanted.len() {
            return Err(Ended);
        }
        let answered = found.len();
        let now: UnixMs = self.clock.unix_ms();
        let mut old = 0;
        let mut records = Vec::new();
        for (n, ((key, _), holding)) in (0u32..).zip(wanted.iter().zip(found)) {
            if let Holding::Entry(entry) = holding {
                old += usize::from(entry.version.unix_ms() + IN_FLIGHT_MS < now);
                let entry = entry.to_entry_with(|value| frame::share(&payload, value));
                // The page it came in must not stay in memory for the sake of one key.
                let key = Bytes::copy_from_slice(key);
                records.push((n, Record::Entry { key, entry, answered: None, counted: None }));
            }
        }
        self.counters.borrow_mut().add(Counter::SyncEntries, records.len() as u64);
        self.local.store_of(partition).send(Merge(records)).await?;
        Ok((answered, old))
    }

    /// Sends entries the peer lacks.
    async fn offer(&self, partition: Partition, keys: &[Bytes]) -> Result<(), Ended> {
        let held = self.local.store_of(partition).send(Peek(keys.to_vec())).await?;
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        for (key, entry) in keys.iter().zip(&held) {
            // It may have been evicted or dropped meanwhile.
            let Some(entry) = entry else { continue };
            let record = RecordRef::Entry { key, entry: entry.as_ref(), answered: None, counted: None };
            frame::encode_record(&record, &mut bytes);
            let op = u32::try_from(records.len()).expect("pages are bounded");
            records.push(Outgoing { end: bytes.len(), partition, op, route: None });
            if bytes.len() >= SYNC_BYTES_PER_FRAME {
                self.push(std::mem::take(&mut bytes), std::mem::take(&mut records)).await?;
            }
        }
        if records.is_empty() { Ok(()) } else { self.push(bytes, records).await }
    }

    async fn push(&self, bytes: Vec<u8>, records: Vec<Outgoing>) -> Result<(), Ended> {
        let pushed = self.replication.send(Push { peer: self.peer, bytes, records });
        let pushed = tokio::time::timeout(REQUEST_TIMEOUT, pushed).await??;
        if pushed { Ok(()) } else { Err(Ended) }
    }
}

impl Actor for SyncActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        self.look(ctx);
    }
}

impl Handler<ViewChanged> for SyncActor {
    type Result = ();

    fn handle(&mut self, ViewChanged(view): ViewChanged, _: &mut Self::Context) {
        self.planner.view_changed(&view, self.clock.unix_ms());
        self.view = view;
    }
}

impl Handler<Diverged> for SyncActor {
    type Result = ();

    fn handle(&mut self, diverged: Diverged, _: &mut Self::Context) {
        self.planner.diverged(diverged.peer, &diverged.partitions);
    }
}

impl Handler<SessionOver> for SyncActor {
    type Result = ();

    fn handle(&mut self, over: SessionOver, _: &mut Self::Context) {
        for (partition, came_to) in over.compared {
            self.planner.compared(over.peer, partition, came_to);
        }
        self.planner.session_over(over.peer, &over.left, self.clock.unix_ms());
    }
}

impl Handler<Filled> for SyncActor {
    type Result = ();

    fn handle(&mut self, Filled(filled): Filled, _: &mut Self::Context) {
        self.filled = filled;
    }
}

impl Handler<AskStats> for SyncActor {
    type Result = MessageResult<AskStats>;

    fn handle(&mut self, _: AskStats, _: &mut Self::Context) -> Self::Result {
        let last = self.planner.last_round();
        MessageResult(SyncStats {
            counters: self.counters.borrow().clone(),
            syncing: self.planner.syncing(&self.view),
            last_round_age_ms: last.map(|(at, _)| self.clock.unix_ms().saturating_sub(at)),
            divergent_keys: last.map_or(0, |(_, keys)| keys),
        })
    }
}
