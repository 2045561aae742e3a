//! One comparison of partitions with one peer, by digests: each side gets what it lacks. Never decides what to compare. Exercised by the
//! simulation.
//!
//! Bound: `PARTITIONS_AT_ONCE`, a page of a leaf at a time, `SYNC_ENTRIES_PER_FRAME` and `SYNC_BYTES_PER_FRAME` a page.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use actix::prelude::*;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::actors::clock::Clock;
use crate::actors::local::Local;
use crate::actors::replication::{CallPeer, Outgoing, Push, Replication};
use crate::actors::store::{self, Merge, Peek, Record, Versions, VersionsPage};
use crate::base::counters::{Counter, Counters};
use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::{REQUEST_TIMEOUT, SYNC_BYTES_PER_FRAME, SYNC_ENTRIES_PER_FRAME};
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::settle::{Difference, News, Standing};
use crate::cluster::sync::Compared;
use crate::cluster::view::PeerIx;
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Answer, Ask, Holding, Key, LeafPosition, Message as Native, PartitionDigest, RecordRef};

/// Partitions of one session that are worked on at a time: enough to hide the round trips, few enough to leave room for clients.
const PARTITIONS_AT_ONCE: usize = 8;
/// A replica may lag behind this far in ordinary life.
const IN_FLIGHT_MS: u64 = 2_000;

/// The peer did not answer, or not as agreed; or this node is stopping. What was brought over stays.
#[derive(Debug)]
pub(super) struct Ended;

impl<E: std::error::Error> From<E> for Ended {
    fn from(_: E) -> Self {
        Self
    }
}

impl Plan {
    fn put(&mut self, key: Bytes, ours: Option<Version>, theirs: Option<Version>, standing: Standing) {
        let own = ours.unwrap_or(Version::ZERO);
        match standing.difference(ours, theirs) {
            Difference::Wanted => self.wanted.push((key, own)),
            Difference::Offered => self.offered.push((key, own)),
            Difference::Dead => self.dead.push((key, own)),
            Difference::Left => {}
        }
    }
}

/// One comparison with one peer.
pub(super) struct Session {
    pub(super) peer: PeerIx,
    pub(super) clock: Clock,
    pub(super) local: Local,
    pub(super) replication: Addr<Replication>,
    pub(super) counters: Rc<RefCell<Counters>>,
    /// Whether this node drops keys for want of memory.
    pub(super) evicts: bool,
    /// Partitions of which what is here descends from another founding.
    pub(super) foreign: PartitionSet,
}

/// What the digests of one partition said.
#[derive(Clone, Copy)]
struct Digests {
    partition: Partition,
    ours: PartitionDigest,
    theirs: PartitionDigest,
}

impl Digests {
    /// The peer has the same and nothing to tell.
    fn are_equal(&self) -> bool {
        let (ours, theirs) = (self.ours, self.theirs);
        ours.digest == theirs.digest && ours.floor == theirs.floor && ours.settled >= theirs.settled
    }
}

/// What the comparison of a partition is to bring about.
#[derive(Default)]
struct Plan {
    wanted: Vec<(Bytes, Version)>,
    offered: Vec<(Bytes, Version)>,
    dead: Vec<(Bytes, Version)>,
}

impl Session {
    /// What each partition came to, and the partitions that could not be compared.
    pub(super) async fn run(&self, partitions: PartitionSet) -> (Vec<(Partition, Compared)>, PartitionSet) {
        let mut compared = Vec::new();
        let mut left = partitions;
        let Ok(digests) = self.digests(partitions).await else { return (compared, left) };
        let sessions = digests.into_iter().map(async |digests| {
            if digests.are_equal() {
                self.counters.borrow_mut().inc(Counter::SyncsEqual);
                return (digests.partition, Ok(Compared::default()));
            }
            self.counters.borrow_mut().inc(Counter::SyncsDifferent);
            (digests.partition, self.compare(digests).await)
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

    async fn digests(&self, partitions: PartitionSet) -> Result<Vec<Digests>, Ended> {
        let ours = self.local.digests(partitions).await?;
        let payload = self.ask(&Ask::Digests(&partitions.to_bytes())).await?;
        match frame::decode(&payload)? {
            Native::Answer { answer: Answer::Digests(theirs), .. } if theirs.len() == ours.len() => {
                let pairs = partitions.iter().zip(ours).zip(theirs);
                Ok(pairs.map(|((partition, ours), theirs)| Digests { partition, ours, theirs }).collect())
            }
            _ => Err(Ended),
        }
    }

    async fn compare(&self, Digests { partition, ours, theirs }: Digests) -> Result<Compared, Ended> {
        let store = self.local.store_of(partition);
        let takes_over = theirs.settled > ours.settled;
        if takes_over {
            store.send(store::Guard(partition, theirs.settled)).await?;
        }
        self.level_floors(partition, ours.floor, theirs.floor).await?;
        let payload = self.ask(&Ask::Leaves(partition.0)).await?;
        let Native::Answer { answer: Answer::Leaves(their_leaves), .. } = frame::decode(&payload)? else {
            return Err(Ended);
        };
        let our_leaves = store.send(store::Leaves(partition)).await?;
        if our_leaves.len() != their_leaves.len() {
            return Err(Ended);
        }
        let apart = (0..our_leaves.len()).filter(|leaf| our_leaves[*leaf] != their_leaves[*leaf]);
        #[cfg(feature = "sim")]
        let apart = apart.filter(|leaf| leaf % 2 == 0 || !crate::base::plant::Plant::SkippedLeaves.is_sown());
        let leaves = apart.fold(0, |bits, leaf| bits | 1 << leaf);
        let standing = Standing { ours: ours.settled, theirs: theirs.settled, evicts: self.evicts };
        let came_to = self.compare_leaves(partition, leaves, standing).await?;
        if takes_over {
            let partitions = [partition].into_iter().collect();
            store.send(store::Settle { partitions, up_to: theirs.settled }).await?;
        }
        Ok(Compared { adopted: takes_over, ..came_to })
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

    async fn compare_leaves(&self, partition: Partition, leaves: u64, standing: Standing) -> Result<Compared, Ended> {
        let plan = self.plan(partition, leaves, standing).await?;
        let now = self.clock.unix_ms();
        let is_old = |version: Version| version.unix_ms() + IN_FLIGHT_MS < now;
        let mut came_to = Compared {
            differing: plan.wanted.len() + plan.offered.len() + plan.dead.len(),
            pushed_old: plan.offered.iter().filter(|(_, version)| is_old(*version)).count(),
            ..Compared::default()
        };
        if !plan.dead.is_empty() {
            // Whoever has compared itself knows what it had; before that, what it wrote itself nobody can have deleted.
            let news = match standing.ours {
                _ if self.foreign.contains(partition) => News::Everything,
                Version::ZERO => News::Own,
                _ => News::Nothing,
            };
            for page in plan.dead.chunks(SYNC_ENTRIES_PER_FRAME) {
                self.local.store_of(partition).send(store::Outlive { keys: page.to_vec(), news }).await?;
            }
        }
        let mut wanted = &plan.wanted[..];
        while !wanted.is_empty() {
            let page = &wanted[..wanted.len().min(SYNC_ENTRIES_PER_FRAME)];
            let (answered, old) = self.pull(partition, page, standing).await?;
            wanted = &wanted[answered..];
            came_to.pulled_old += old;
        }
        for page in plan.offered.chunks(SYNC_ENTRIES_PER_FRAME) {
            self.offer(partition, page).await?;
        }
        Ok(came_to)
    }

    async fn plan(&self, partition: Partition, leaves: u64, standing: Standing) -> Result<Plan, Ended> {
        let mut plan = Plan::default();
        if leaves == 0 {
            return Ok(plan);
        }
        let mut ours = self.our_versions(partition, leaves).await?;
        for (key, theirs) in self.their_versions(partition, leaves).await? {
            let own = ours.remove(&key);
            if own != Some(theirs) {
                plan.put(key, own, Some(theirs), standing);
            }
        }
        for (key, own) in ours {
            plan.put(key, Some(own), None, standing);
        }
        Ok(plan)
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
    async fn pull(
        &self,
        partition: Partition,
        wanted: &[(Bytes, Version)],
        standing: Standing,
    ) -> Result<(usize, usize), Ended> {
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
                let record = if standing.vouched(entry.version) {
                    Record::Known { key, entry }
                } else {
                    Record::Entry { key, entry, answered: None, counted: None }
                };
                records.push((n, record));
            }
        }
        self.counters.borrow_mut().add(Counter::SyncEntries, records.len() as u64);
        self.local.store_of(partition).send(Merge(records)).await?;
        Ok((answered, old))
    }

    /// Sends entries the peer lacks.
    async fn offer(&self, partition: Partition, keys: &[(Bytes, Version)]) -> Result<(), Ended> {
        let asked = keys.iter().map(|(key, _)| key.clone()).collect();
        let held = self.local.store_of(partition).send(Peek(asked)).await?;
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        for ((key, _), entry) in keys.iter().zip(&held) {
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
