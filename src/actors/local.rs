//! This node's own data as one: fans questions out to the stores and adds their answers up. Never leaves the node.

use std::time::Duration;

use actix::{Addr, Message};
use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::base::entry::Entry;
use crate::base::level::Level;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::view::PeerIx;
use crate::protocol::native::{PartitionDigest, roots};

use super::replication::{AwaitReplicas, HandOver, Replication};
use super::store::{self, ScannedPage, StoreActor, within_scan_bytes};

/// An actor of this node is gone: it is stopping. Nothing can be said of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Gone;

impl From<actix::MailboxError> for Gone {
    fn from(_: actix::MailboxError) -> Self {
        Self
    }
}

/// The place in `weights` that a random `draw` chooses, each with a chance in proportion to its weight; 0 when there is no weight.
pub(super) fn weighted(weights: &[u64], draw: u64) -> usize {
    let mut left = draw % weights.iter().sum::<u64>().max(1);
    let found = weights.iter().position(|weight| {
        let here = left < *weight;
        left -= if here { 0 } else { *weight };
        here
    });
    found.unwrap_or(0)
}

/// Another draw that follows from this one.
pub(super) fn remix(draw: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&draw.to_le_bytes())
}

/// Addresses of the actors of every data arbiter, by shard.
#[derive(Clone)]
pub struct Local {
    /// The stores.
    pub stores: Vec<Addr<StoreActor>>,
    /// The replication senders.
    pub replications: Vec<Addr<Replication>>,
}

impl Local {
    /// The shard that holds a partition.
    pub fn shard_of(&self, partition: Partition) -> usize {
        partition.index() % self.stores.len()
    }

    /// The store that holds a partition.
    pub fn store_of(&self, partition: Partition) -> &Addr<StoreActor> {
        &self.stores[self.shard_of(partition)]
    }

    async fn ask_all<M>(&self, ask: impl Fn() -> M) -> Result<Vec<M::Result>, Gone>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        StoreActor: actix::Handler<M>,
    {
        Ok(try_join_all(self.stores.iter().map(|store| store.send(ask()))).await?)
    }

    /// Live keys in these partitions.
    pub async fn count(&self, partitions: PartitionSet) -> Result<u64, Gone> {
        Ok(self.ask_all(|| store::Count(partitions)).await?.into_iter().sum())
    }

    /// Keys and bytes of each of these partitions.
    pub async fn sizes(&self, partitions: PartitionSet) -> Result<Vec<(Partition, u64, u64)>, Gone> {
        Ok(self.ask_all(|| store::Sizes(partitions)).await?.into_iter().flatten().collect())
    }

    /// What is under each key, tombstones and expired values included.
    pub async fn peek(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Entry>>, Gone> {
        let mut shards: Vec<(Vec<Bytes>, Vec<usize>)> = vec![Default::default(); self.stores.len()];
        let mut found = vec![None; keys.len()];
        for (n, key) in keys.into_iter().enumerate() {
            let (asked, places) = &mut shards[self.shard_of(Partition::of(&key))];
            asked.push(key);
            places.push(n);
        }
        let asked = shards.into_iter().zip(&self.stores).filter(|((asked, _), _)| !asked.is_empty());
        let held =
            asked.map(async |((asked, places), store)| store.send(store::Peek(asked)).await.map(|h| (h, places)));
        for (held, places) in try_join_all(held).await? {
            for (entry, place) in held.into_iter().zip(places) {
                found[place] = entry;
            }
        }
        Ok(found)
    }

    /// All keys of these partitions that match.
    pub async fn keys(&self, partitions: PartitionSet, pattern: &Bytes) -> Result<Vec<Bytes>, Gone> {
        let ask = || store::Keys { partitions, pattern: pattern.clone() };
        Ok(self.ask_all(ask).await?.into_iter().flatten().collect())
    }

    /// A page of keys of each of these partitions, in their order; `from` applies to the first. The first always comes; others are left
    /// out where there is too much for one frame.
    pub async fn scan(
        &self,
        partitions: PartitionSet,
        from: u64,
        count: usize,
        pattern: &Bytes,
    ) -> Result<Vec<ScannedPage>, Gone> {
        let mut asks: Vec<Vec<(Partition, u64)>> = vec![Vec::new(); self.stores.len()];
        for (n, partition) in partitions.iter().enumerate() {
            asks[self.shard_of(partition)].push((partition, if n == 0 { from } else { 0 }));
        }
        let pages = self.stores.iter().zip(asks).filter(|(_, from)| !from.is_empty());
        let pages = pages.map(|(store, from)| store.send(store::Scan { from, count, pattern: pattern.clone() }));
        let mut pages: Vec<ScannedPage> = try_join_all(pages).await?.into_iter().flatten().collect();
        pages.sort_by_key(|page| page.partition);
        Ok(within_scan_bytes(pages))
    }

    /// A key of these partitions, each with about the same chance.
    pub async fn random_key(&self, partitions: PartitionSet, draw: u64) -> Result<Option<Bytes>, Gone> {
        let counts = self.ask_all(|| store::Count(partitions)).await?;
        let first = weighted(&counts, draw);
        // The others too: all that one holds may have expired.
        for store in self.stores[first..].iter().chain(&self.stores[..first]) {
            if let Some(key) = store.send(store::RandomKey(partitions, remix(draw))).await? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Deletes everything in these partitions; false if the level was missed somewhere.
    pub async fn flush(&self, partitions: PartitionSet, level: Level) -> Result<bool, Gone> {
        let mut met = true;
        for executed in self.ask_all(|| store::Flush { partitions, level }).await? {
            if let Some(commit) = executed.commit {
                let outcome = tokio::time::timeout(REQUEST_TIMEOUT, commit).await;
                met &= matches!(outcome, Ok(Ok(outcome)) if outcome.is_met());
            }
        }
        Ok(met)
    }

    /// The least number of other members that hold everything these partitions took so far.
    pub async fn await_replicas(
        &self,
        partitions: PartitionSet,
        replicas: usize,
        timeout: Duration,
    ) -> Result<usize, Gone> {
        let mut asks = Vec::new();
        for (shard, replication) in self.replications.iter().enumerate() {
            let own: PartitionSet = partitions.iter().filter(|p| self.shard_of(*p) == shard).collect();
            if !own.is_empty() {
                asks.push(replication.send(AwaitReplicas { partitions: own, replicas, timeout }));
            }
        }
        Ok(try_join_all(asks).await?.into_iter().min().unwrap_or(0))
    }

    /// Waits until a peer has been handed over all that is noted for it, at the most for so long.
    pub async fn hand_over(&self, peer: PeerIx, timeout: Duration) {
        // A sender that is gone has nothing to hand over.
        let _ = try_join_all(self.replications.iter().map(|sender| sender.send(HandOver { peer, timeout }))).await;
    }

    /// Digests of these partitions, in order; if only what is `recent` counts, 0 of those that hold nothing newer than they are settled up to.
    pub async fn digests(
        &self,
        partitions: PartitionSet,
        recent: bool,
    ) -> Result<Vec<(Partition, PartitionDigest)>, Gone> {
        let ask = || store::Digests { partitions, recent };
        let mut all: Vec<_> = self.ask_all(ask).await?.into_iter().flatten().collect();
        all.sort_by_key(|(partition, _)| *partition);
        Ok(all)
    }

    /// As [`Self::digests`], `width` of them in one sum.
    pub async fn roots(
        &self,
        partitions: PartitionSet,
        recent: bool,
        (width, salt): (usize, u32),
    ) -> Result<Vec<u8>, Gone> {
        let digests = self.digests(partitions, recent).await?;
        let numbered: Vec<_> = digests.into_iter().map(|(partition, digest)| (partition.0, digest)).collect();
        Ok(roots(&numbered, width, salt))
    }
}

#[cfg(test)]
mod tests {
    use super::weighted;

    #[test]
    fn a_draw_falls_by_weight() {
        let drawn: Vec<usize> = (0..6).map(|draw| weighted(&[1, 0, 3], draw)).collect();
        assert_eq!(drawn, [0, 2, 2, 2, 0, 2]);
        assert_eq!((weighted(&[0, 0], 5), weighted(&[], 5)), (0, 0));
    }
}
