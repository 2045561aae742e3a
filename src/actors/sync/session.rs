//! One comparison of partitions with one peer: each side gets what it lacks, and what is said is in proportion to that. Never decides what to
//! compare. Exercised by the simulation.
//!
//! It goes down from one sum over all partitions to a sum over some, to their digests, and then as `storage::Walk` says.
//!
//! Bound: `PARTITIONS_PER_SESSION` that differ, `PARTITIONS_AT_ONCE`; of each a question at a time, of `RANGES_MAX` sums or a page of
//! `SYNC_ENTRIES_PER_FRAME` entries.

use std::rc::Rc;

use actix::prelude::*;
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use super::bring::Bring;
use super::line::{Ended, Line};
use super::{Choose, SyncActor};
use crate::actors::clock::Clock;
use crate::actors::local::{Local, remix};
use crate::actors::store::{self, AskPrints, AskSums};
use crate::base::counters::Counter;
use crate::base::id::NodeId;
use crate::base::slot::{PARTITIONS, Partition};
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::settle::Standing;
use crate::cluster::sync::{Compared, SessionEnd};
use crate::protocol::native::frame;
use crate::protocol::native::{
    Answer, Ask, Digests, Key, Message as Native, PartitionDigest, PrintsOf, Roots, SUM_BYTES, Scope, SumsOf,
};
use crate::storage::{Job, Ranges, Unmatched, Walk, pair};

/// Partitions of one session that are worked on at a time: enough to hide the round trips, few enough to leave room for clients.
const PARTITIONS_AT_ONCE: usize = 8;
/// Partitions in one sum: first all, then, if that differs, some.
const WIDTHS: [u16; 2] = [PARTITIONS, 16];

/// One comparison with one peer.
pub(super) struct Session {
    /// Who plans it, and this node's name.
    pub(super) me: (Addr<SyncActor>, NodeId),
    pub(super) line: Line,
    pub(super) clock: Clock,
    pub(super) local: Local,
    /// Whether this node drops keys for want of memory.
    pub(super) evicts: bool,
    /// Partitions of which what is here descends from another founding.
    pub(super) foreign: PartitionSet,
    /// Whose turn it is to move much, of all sessions of the node.
    pub(super) pace: Rc<Semaphore>,
}

/// What the digests of one partition said.
#[derive(Clone, Copy)]
struct Pair {
    partition: Partition,
    ours: PartitionDigest,
    theirs: PartitionDigest,
}

impl Pair {
    /// The peer has the same and nothing to tell.
    fn is_equal(&self) -> bool {
        let (ours, theirs) = (self.ours, self.theirs);
        ours.digest == theirs.digest && ours.floor == theirs.floor && ours.settled >= theirs.settled
    }
}

/// What a session came to so far.
#[derive(Default)]
struct Found {
    compared: Vec<(Partition, Compared)>,
    end: SessionEnd,
}

impl Found {
    fn equal(&mut self, partition: Partition) {
        self.differing(partition, Compared::default());
    }

    fn differing(&mut self, partition: Partition, came_to: Compared) {
        self.compared.push((partition, came_to));
        self.end.failed.remove(partition);
    }
}

impl Session {
    /// What each partition came to, and what is left.
    pub(super) async fn run(&self, partitions: PartitionSet) -> (Vec<(Partition, Compared)>, SessionEnd) {
        let begun = self.clock.uptime();
        let mut found = Found { end: SessionEnd { failed: partitions, ..SessionEnd::default() }, ..Found::default() };
        // Who ends early has not compared what is left in `failed`.
        let _ = self.bring_together(partitions, &mut found).await;
        let took = self.clock.uptime().saturating_sub(begun);
        found.end.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        (found.compared, found.end)
    }

    async fn bring_together(&self, partitions: PartitionSet, found: &mut Found) -> Result<(), Ended> {
        let mut apart = partitions;
        for width in WIDTHS {
            if !apart.is_empty() && (width == WIDTHS[0] || apart.count() > 1) {
                apart = self.compare_roots(apart, width).await?;
            }
        }
        for partition in partitions.difference(&apart).iter() {
            self.line.count(Counter::SyncsEqual, 1);
            found.equal(partition);
        }
        if apart.is_empty() {
            return Ok(());
        }
        let chosen = self.me.0.send(Choose { peer: self.line.peer(), apart }).await?;
        found.end.put_off = apart.difference(&chosen);
        found.end.failed = chosen;
        found.end.refused = chosen.is_empty();
        if chosen.is_empty() {
            return Ok(());
        }
        let brought = self.bring_chosen(chosen, found).await;
        // The peer need not wait until it would think so by itself.
        self.ask_digests(PartitionSet::EMPTY).await?;
        brought
    }

    async fn bring_chosen(&self, chosen: PartitionSet, found: &mut Found) -> Result<(), Ended> {
        let pairs = self.pairs(chosen).await?;
        let answered: PartitionSet = pairs.iter().map(|pair| pair.partition).collect();
        let refused = chosen.difference(&answered);
        found.end.failed = answered;
        found.end.put_off = found.end.put_off.union(&refused);
        found.end.refused = !refused.is_empty();
        let (equal, differ): (Vec<Pair>, Vec<Pair>) = pairs.into_iter().partition(Pair::is_equal);
        self.line.count(Counter::SyncsEqual, equal.len());
        equal.iter().for_each(|pair| found.equal(pair.partition));
        let sessions = differ.into_iter().map(async |pair| {
            self.line.count(Counter::SyncsDifferent, 1);
            self.compare(pair).await.map(|came_to| (pair.partition, came_to))
        });
        let mut sessions = futures_util::stream::iter(sessions).buffer_unordered(PARTITIONS_AT_ONCE);
        while let Some(compared) = sessions.next().await {
            let (partition, came_to) = compared?;
            found.differing(partition, came_to);
        }
        Ok(())
    }

    fn salt(&self) -> u32 {
        remix(self.clock.unix_ms() ^ u64::from(self.line.peer().0) << 48) as u32
    }

    /// Those of `partitions` among which some differ.
    async fn compare_roots(&self, partitions: PartitionSet, width: u16) -> Result<PartitionSet, Ended> {
        let salt = self.salt();
        let sums = self.local.roots(partitions, self.evicts, (usize::from(width), salt)).await?;
        let bits = partitions.to_bytes();
        let ask = Ask::Roots(Roots { partitions: &bits, recent: self.evicts, salt, width, sums: &sums });
        let (compared, apart) = self.ask_apart(&ask).await?;
        if compared * SUM_BYTES != sums.len() {
            return Err(Ended);
        }
        let all: Vec<Partition> = partitions.iter().collect();
        let groups = (0..).zip(all.chunks(usize::from(width))).filter(|(n, _)| apart.contains(n));
        Ok(groups.flat_map(|(_, group)| group).copied().collect())
    }

    async fn ask_apart(&self, ask: &Ask<'_>) -> Result<(usize, Vec<u32>), Ended> {
        let payload = self.line.ask(ask).await?;
        match frame::decode(&payload)? {
            Native::Answer { answer: Answer::Apart { compared, apart }, .. } => Ok((compared as usize, apart)),
            _ => Err(Ended),
        }
    }

    async fn ask_digests(&self, partitions: PartitionSet) -> Result<Vec<Option<PartitionDigest>>, Ended> {
        let (bits, node) = (partitions.to_bytes(), self.me.1.as_str());
        let ask = Ask::Digests(Digests { node, partitions: &bits, recent: self.evicts });
        let payload = self.line.ask(&ask).await?;
        match frame::decode(&payload)? {
            Native::Answer { answer: Answer::Digests(theirs), .. } => Ok(theirs),
            _ => Err(Ended),
        }
    }

    /// The digests of both sides, but for partitions of which the peer has another comparison under way.
    async fn pairs(&self, partitions: PartitionSet) -> Result<Vec<Pair>, Ended> {
        let ours = self.local.digests(partitions, self.evicts).await?;
        let theirs = self.ask_digests(partitions).await?;
        if ours.len() != theirs.len() {
            return Err(Ended);
        }
        let pairs = ours.into_iter().zip(theirs);
        Ok(pairs.filter_map(|((partition, ours), theirs)| Some(Pair { partition, ours, theirs: theirs? })).collect())
    }

    async fn compare(&self, Pair { partition, ours, theirs }: Pair) -> Result<Compared, Ended> {
        let store = self.local.store_of(partition);
        let standing = Standing {
            ours: ours.settled,
            theirs: theirs.settled,
            evicts: self.evicts,
            evicted: (ours.evicted, theirs.evicted),
        };
        let takes_over = theirs.settled > ours.settled;
        if takes_over {
            store.send(store::Guard(partition, theirs.settled)).await?;
        }
        let bring = Bring {
            line: &self.line,
            clock: self.clock,
            local: &self.local,
            partition,
            standing,
            is_foreign: self.foreign.contains(partition),
            pace: &self.pace,
        };
        bring.level_floors(ours.floor, theirs.floor).await?;
        let scope = Scope { salt: self.salt(), above: standing.compared_above() };
        let mut walk = Walk::new(scope);
        let mut came_to = Compared { adopted: takes_over, ..Compared::default() };
        while let Some(job) = walk.next_job() {
            match job {
                Job::Sums(ranges) => self.compare_sums(partition, scope, &ranges, &mut walk).await?,
                Job::List(ranges, from) => {
                    came_to.add(self.compare_page((&bring, scope), ranges, from, &mut walk).await?);
                }
            }
        }
        if takes_over {
            let partitions = [partition].into_iter().collect();
            store.send(store::Settle { partitions, up_to: theirs.settled }).await?;
        }
        Ok(came_to)
    }

    async fn compare_sums(
        &self,
        partition: Partition,
        scope: Scope,
        ranges: &Ranges,
        walk: &mut Walk,
    ) -> Result<(), Ended> {
        let ask = AskSums { partition, scope, ranges: ranges.clone() };
        let ours = self.local.store_of(partition).send(ask).await?;
        let count = ours.sums.len() / SUM_BYTES;
        let (depth, numbers) = (ranges.depth(), ranges.numbers()[..count].to_vec());
        let sums = SumsOf { partition: partition.0, scope, depth, ranges: numbers, sums: &ours.sums };
        let (compared, apart) = self.ask_apart(&Ask::Sums(sums)).await?;
        #[cfg(feature = "sim")]
        let mut apart = apart;
        #[cfg(feature = "sim")]
        apart.retain(|at| depth > 4 || at % 2 == 0 || !crate::base::plant::Plant::SkippedLeaves.is_sown());
        walk.compared(ranges, compared.min(count), &apart, ours.entries / count.max(1))?;
        Ok(())
    }

    async fn compare_page(
        &self,
        (bring, scope): (&Bring<'_>, Scope),
        ranges: Ranges,
        from: u64,
        walk: &mut Walk,
    ) -> Result<Compared, Ended> {
        let partition = bring.partition;
        let ask = AskPrints { partition, scope, ranges: ranges.clone(), from };
        let ours = self.local.store_of(partition).send(ask).await?;
        let payload = self
            .line
            .ask(&Ask::Prints(PrintsOf {
                partition: partition.0,
                scope,
                depth: ranges.depth(),
                ranges: ranges.numbers().to_vec(),
                from,
                to: ours.end,
                prints: &ours.prints,
            }))
            .await?;
        let Native::Answer { answer: Answer::Unmatched { versions, lacking, end }, .. } = frame::decode(&payload)?
        else {
            return Err(Ended);
        };
        // The page they came in must not stay in memory for the sake of one key.
        let entries = versions.into_iter().map(|(Key(key), version)| (bytes::Bytes::copy_from_slice(key), version));
        let differing = pair(&ours, Unmatched { entries: entries.collect(), lacking, end });
        walk.listed(ranges, from, end)?;
        bring.together(differing).await
    }
}
