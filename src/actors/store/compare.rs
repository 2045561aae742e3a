//! What a store actor answers to replicas that compare themselves with it. Never decides what to compare. Exercised by the
//! simulation.

use actix::prelude::*;

use super::{
    Digests, Drop, Guard, Lapse, Leaves, Outbound, Outlive, Settle, StampsAbove, StoreActor, Unsettle, Versions,
    VersionsPage,
};
use crate::base::level::Level;
use crate::base::slot::Partition;
use crate::protocol::native::{LeafPosition, PartitionDigest};
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::LEAVES;

/// Versions in one page of a leaf.
const VERSIONS_PER_PAGE: usize = crate::base::limits::SYNC_ENTRIES_PER_FRAME;

impl Handler<Digests> for StoreActor {
    type Result = MessageResult<Digests>;

    fn handle(&mut self, Digests(partitions): Digests, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<Partition> = self.core.partitions().filter(|p| partitions.contains(*p)).collect();
        let digest = |p: Partition| {
            let digest = self.core.partition_digest(p).sum;
            (p, PartitionDigest { digest, floor: self.core.floor(p), settled: self.core.settled(p) })
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
        let now = self.clock.unix_ms();
        let mut found = VersionsPage::default();
        let mut at = ask.from;
        while usize::from(at.leaf) < LEAVES {
            if ask.leaves >> at.leaf & 1 == 1 {
                let room = VERSIONS_PER_PAGE.saturating_sub(found.versions.len());
                if room == 0 {
                    found.next = Some(at);
                    break;
                }
                let page = self.core.leaf_versions(ask.partition, usize::from(at.leaf), at.position, room, now);
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

impl Handler<StampsAbove> for StoreActor {
    type Result = bool;

    fn handle(&mut self, StampsAbove(version): StampsAbove, _: &mut Self::Context) -> bool {
        let now = self.clock.unix_ms();
        self.core.stamps_above(version, now)
    }
}

impl Handler<Settle> for StoreActor {
    type Result = ();

    fn handle(&mut self, settle: Settle, _: &mut Self::Context) {
        let now = self.clock.unix_ms();
        for partition in self.core.partitions().filter(|p| settle.partitions.contains(*p)) {
            self.core.settle(partition, settle.up_to, now);
        }
    }
}

impl Handler<Guard> for StoreActor {
    type Result = ();

    fn handle(&mut self, Guard(partition, up_to): Guard, _: &mut Self::Context) {
        self.core.guard(partition, up_to);
    }
}

impl Handler<Unsettle> for StoreActor {
    type Result = ();

    fn handle(&mut self, _: Unsettle, _: &mut Self::Context) {
        self.core.partitions().for_each(|partition| self.core.unsettle(partition));
    }
}

impl Handler<Lapse> for StoreActor {
    type Result = ();

    fn handle(&mut self, _: Lapse, _: &mut Self::Context) {
        let now = self.clock.unix_ms();
        self.core.partitions().for_each(|partition| self.core.lapse(partition, now));
    }
}

impl Handler<Outlive> for StoreActor {
    type Result = ();

    fn handle(&mut self, Outlive { keys, news }: Outlive, _: &mut Self::Context) {
        let now = self.clock.unix_ms();
        let mut out = Outbound::default();
        for (key, version) in &keys {
            if news.contains(*version, self.core.origin()) {
                self.core.restamp(key, *version, now, &mut |key, entry| out.entry(0, key, entry, None, None));
            } else {
                self.core.outlive(key, *version);
            }
        }
        self.replicate(out, Level::One, ReplyBuf::default());
    }
}
