//! What a store actor answers to replicas that compare themselves with it. Never decides what to compare. Exercised by the
//! simulation.

use actix::prelude::*;

use super::{
    AskPrints, AskSums, Digests, Drop, Guard, Lapse, Match, Outbound, Outlive, Settle, StampsAbove, StoreActor,
    Unsettle,
};
use crate::base::level::Level;
use crate::base::slot::Partition;
use crate::protocol::native::PartitionDigest;
use crate::protocol::resp::encode::ReplyBuf;

impl Handler<Digests> for StoreActor {
    type Result = MessageResult<Digests>;

    fn handle(&mut self, asked: Digests, _: &mut Self::Context) -> Self::Result {
        let partitions: Vec<Partition> = self.core.partitions().filter(|p| asked.partitions.contains(*p)).collect();
        let digest = |p: Partition| {
            let is_quiet = asked.recent && !self.core.is_unsettled(p);
            let digest = if is_quiet { 0 } else { self.core.partition_digest(p).sum };
            let (floor, settled, evicted) = (self.core.floor(p), self.core.settled(p), self.core.evicted(p));
            (p, PartitionDigest { digest, floor, settled, evicted })
        };
        MessageResult(partitions.into_iter().map(digest).collect())
    }
}

impl Handler<AskSums> for StoreActor {
    type Result = MessageResult<AskSums>;

    fn handle(&mut self, ask: AskSums, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        MessageResult(self.core.sums(ask.partition, ask.scope, &ask.ranges, now))
    }
}

impl Handler<AskPrints> for StoreActor {
    type Result = MessageResult<AskPrints>;

    fn handle(&mut self, ask: AskPrints, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        MessageResult(self.core.prints(ask.partition, ask.scope, &ask.ranges, ask.from, now))
    }
}

impl Handler<Match> for StoreActor {
    type Result = MessageResult<Match>;

    fn handle(&mut self, ask: Match, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        MessageResult(self.core.unmatched(ask.partition, ask.scope, &ask.ranges, ask.within, &ask.prints, now))
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
