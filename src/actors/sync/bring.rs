//! What a session does about keys that differ: it fetches, sends or forgets them. Which, is decided in `cluster::settle`. Exercised by the
//! simulation.
//!
//! Bound: `ENTRIES_AT_ONCE` and `SYNC_BYTES_PER_FRAME` at a time; of much, one page at a time on the whole node, and then a rest.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::line::{Ended, Line};
use crate::actors::clock::Clock;
use crate::actors::local::Local;
use crate::actors::replication::Outgoing;
use crate::actors::store::{self, Merge, Peek, Record};
use crate::base::counters::Counter;
use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::{SYNC_BYTES_PER_FRAME, SYNC_ENTRIES_PER_FRAME};
use crate::base::slot::Partition;
use crate::cluster::settle::{Difference, News, Standing};
use crate::cluster::sync::Compared;
use crate::protocol::native::frame;
use crate::protocol::native::{Answer, Ask, Holding, Key, Message as Native, RecordRef, Refusal};
use crate::storage::Differing;

/// A replica may lag behind this far in ordinary life.
const IN_FLIGHT_MS: u64 = 2_000;

/// Entries fetched or sent in one go: few enough that clients hardly wait behind them at either end.
const ENTRIES_AT_ONCE: usize = 64;
/// So many entries of a partition cross as fast as they can: what a replica missed should be there at once.
const UNPACED_MAX: usize = 64;
/// A node rests for so many times as long as it took to move a page: it moves copies in a tenth of its time.
const REST_TIMES: u32 = 9;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(200);

/// What is to become of keys that differ, each with the version that is here.
#[derive(Default)]
struct Plan {
    wanted: Vec<(Bytes, Version)>,
    offered: Vec<(Bytes, Version)>,
    dead: Vec<(Bytes, Version)>,
}

impl Plan {
    fn of(differing: Vec<Differing>, standing: Standing) -> Self {
        let mut plan = Self::default();
        for Differing { key, ours, theirs } in differing {
            let own = ours.unwrap_or(Version::ZERO);
            match standing.difference(ours, theirs) {
                Difference::Wanted => plan.wanted.push((key, own)),
                Difference::Offered => plan.offered.push((key, own)),
                Difference::Dead => plan.dead.push((key, own)),
                Difference::Left => {}
            }
        }
        plan
    }
}

/// One partition, of two replicas.
pub(super) struct Bring<'s> {
    pub(super) line: &'s Line,
    pub(super) clock: Clock,
    pub(super) local: &'s Local,
    pub(super) partition: Partition,
    pub(super) standing: Standing,
    /// What is here descends from another founding.
    pub(super) is_foreign: bool,
    /// Whose turn it is to move much.
    pub(super) pace: &'s Semaphore,
}

impl Bring<'_> {
    /// Makes both sides equal in these keys.
    pub(super) async fn together(&self, differing: Vec<Differing>) -> Result<Compared, Ended> {
        let plan = Plan::of(differing, self.standing);
        let now = self.clock.unix_ms();
        let is_old = |version: Version| version.unix_ms() + IN_FLIGHT_MS < now;
        let mut came_to = Compared {
            differing: plan.wanted.len() + plan.offered.len() + plan.dead.len(),
            pushed_old: plan.offered.iter().filter(|(_, version)| is_old(*version)).count(),
            ..Compared::default()
        };
        if !plan.dead.is_empty() {
            // Whoever has compared itself knows what it had; before that, what it wrote itself nobody can have deleted.
            let news = match self.standing.ours {
                _ if self.is_foreign => News::Everything,
                Version::ZERO => News::Own,
                _ => News::Nothing,
            };
            for page in plan.dead.chunks(SYNC_ENTRIES_PER_FRAME) {
                self.local.store_of(self.partition).send(store::Outlive { keys: page.to_vec(), news }).await?;
            }
        }
        let is_much = plan.wanted.len() + plan.offered.len() > UNPACED_MAX;
        let mut wanted = &plan.wanted[..];
        while !wanted.is_empty() {
            let page = &wanted[..wanted.len().min(ENTRIES_AT_ONCE)];
            let (answered, old) = self.paced(is_much, self.pull(page)).await?;
            wanted = &wanted[answered..];
            came_to.pulled_old += old;
        }
        for page in plan.offered.chunks(ENTRIES_AT_ONCE) {
            self.paced(is_much, self.offer(page)).await?;
        }
        Ok(came_to)
    }

    /// Moves a page. Where there are many more, as when a partition gets another owner, this is the only one that the node moves, and after it
    /// the node rests in proportion to what the page took: it takes longer while clients keep the nodes busy, and then the rest does too. After
    /// Garage's tranquility.
    async fn paced<T>(&self, is_much: bool, page: impl Future<Output = Result<T, Ended>>) -> Result<T, Ended> {
        if !is_much {
            return page.await;
        }
        let _turn = self.pace.acquire().await?;
        let begun = self.clock.uptime();
        let moved = page.await?;
        let took = self.clock.uptime().saturating_sub(begun);
        tokio::time::sleep((took * REST_TIMES).min(REST_MAX)).await;
        Ok(moved)
    }

    /// Fetches and merges entries. Returns for how many the peer had room in its answer, one or more, and how many of these should have
    /// been here long ago.
    async fn pull(&self, wanted: &[(Bytes, Version)]) -> Result<(usize, usize), Ended> {
        let keys = wanted.iter().map(|(key, have)| (Key(key), *have)).collect();
        let payload = self.line.ask(&Ask::Entries(keys)).await?;
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
                let key = key.clone();
                let record = if self.standing.vouched(entry.version) {
                    Record::Known { key, entry }
                } else {
                    Record::Entry { key, entry, answered: None, counted: None }
                };
                records.push((n, record));
            }
        }
        self.line.count(Counter::SyncEntries, records.len());
        let merged = self.local.store_of(self.partition).send(Merge(records)).await?;
        // Who can't take what the other has must not count as having compared itself with it. What is promised to a coordinator comes later.
        match merged.refused.iter().any(|(_, refusal)| *refusal == Refusal::FarFuture) {
            true => Err(Ended),
            false => Ok((answered, old)),
        }
    }

    /// Sends entries the peer lacks.
    async fn offer(&self, keys: &[(Bytes, Version)]) -> Result<(), Ended> {
        let asked = keys.iter().map(|(key, _)| key.clone()).collect();
        let held = self.local.store_of(self.partition).send(Peek(asked)).await?;
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        for ((key, _), entry) in keys.iter().zip(&held) {
            // It may have been evicted or dropped meanwhile.
            let Some(entry) = entry else { continue };
            let record = RecordRef::Entry { key, entry: entry.as_ref(), answered: None, counted: None };
            frame::encode_record(&record, &mut bytes);
            let op = u32::try_from(records.len()).expect("pages are bounded");
            records.push(Outgoing { end: bytes.len(), partition: self.partition, op, route: None });
            if bytes.len() >= SYNC_BYTES_PER_FRAME {
                self.line.push(std::mem::take(&mut bytes), std::mem::take(&mut records)).await?;
            }
        }
        if records.is_empty() { Ok(()) } else { self.line.push(bytes, records).await }
    }

    /// Flushes count like writes: the later one holds on both sides.
    pub(super) async fn level_floors(&self, ours: Version, theirs: Version) -> Result<(), Ended> {
        if theirs > ours {
            let floor = Record::Floor { partition: self.partition, version: theirs };
            self.local.store_of(self.partition).send(Merge(vec![(0, floor)])).await?;
        } else if ours > theirs {
            let mut bytes = Vec::new();
            frame::encode_record(&RecordRef::Floor { partition: self.partition.0, version: ours }, &mut bytes);
            let floor = Outgoing { end: bytes.len(), partition: self.partition, op: 0, route: None };
            self.line.push(bytes, vec![floor]).await?;
        }
        Ok(())
    }
}
