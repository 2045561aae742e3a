//! What a store actor answers to replicas that compare themselves with it. Never decides what to compare. Exercised by the
//! simulation.

use actix::prelude::*;

use super::{Digests, Drop, Leaves, StoreActor, Versions, VersionsPage};
use crate::base::slot::Partition;
use crate::protocol::native::{LeafPosition, PartitionDigest};
use crate::storage::LEAVES;

/// Versions in one page of a leaf.
const VERSIONS_PER_PAGE: usize = crate::base::limits::SYNC_ENTRIES_PER_FRAME;

impl Handler<Digests> for StoreActor {
    type Result = MessageResult<Digests>;

    fn handle(&mut self, Digests(partitions): Digests, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<Partition> = self.core.partitions().filter(|p| partitions.contains(*p)).collect();
        let digest = |p: Partition| {
            let digest = self.core.partition_digest(p).sum;
            (p, PartitionDigest { digest, floor: self.core.floor(p) })
        };
        MessageResult(asked.into_iter().map(digest).collect())
    }
}

impl Handler<Leaves> for StoreActor {
    type Result = Vec<u64>;

    fn handle(&mut self, Leaves(partition): Leaves, _: &mut Self::Context) -> Self::Result {
        self.core.leaf_digests(partition).to_vec()
    }
}

impl Handler<Versions> for StoreActor {
    type Result = MessageResult<Versions>;

    fn handle(&mut self, ask: Versions, _: &mut Self::Context) -> Self::Result {
        let mut found = VersionsPage::default();
        let mut at = ask.from;
        while usize::from(at.leaf) < LEAVES {
            if ask.leaves >> at.leaf & 1 == 1 {
                let room = VERSIONS_PER_PAGE.saturating_sub(found.versions.len());
                if room == 0 {
                    found.next = Some(at);
                    break;
                }
                let page = self.core.leaf_versions(ask.partition, usize::from(at.leaf), at.position, room);
                found.versions.extend(page.versions);
                if let Some(position) = page.next {
                    found.next = Some(LeafPosition { leaf: at.leaf, position });
                    break;
                }
            }
            at = LeafPosition { leaf: at.leaf + 1, position: 0 };
        }
        MessageResult(found)
    }
}

impl Handler<Drop> for StoreActor {
    type Result = ();

    fn handle(&mut self, Drop(partitions): Drop, _: &mut Self::Context) {
        for partition in self.core.partitions().filter(|p| partitions.contains(*p)).collect::<Vec<_>>() {
            self.core.drop_partition(partition);
        }
    }
}
