//! Spot checks: after a few reads at level one the replicas of the key are asked what they hold, and brought together if they are apart. Never
//! holds up the read, and costs the others nothing but a count. What a survey finds and repairs is `survey`'s. Tested below and exercised by
//! the simulation.
//!
//! Bound: one check at a time and [`CHECK_EVERY`] of each router.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::hlc::Version;
use crate::base::level::Level;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::base::op::Op;
use crate::base::slot::Partition;

use super::Desk;
use super::survey::{self, Inquiry};

/// One operation in so many is looked at, on average.
const OPS_PER_CHECK: u64 = 100;
/// Least time between two checks: with some 50 us of work for each, half a per cent of a processor at the most.
const CHECK_EVERY: Duration = Duration::from_millis(10);

/// Chooses what is checked.
pub(super) struct Spots {
    dice: RefCell<SmallRng>,
    /// Operations until the next that is looked at.
    left: Cell<u64>,
    /// When the next check may begin; `None` while one is under way.
    rested: Cell<Option<Instant>>,
}

impl Spots {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        let dice = RefCell::new(SmallRng::seed_from_u64(seed));
        Self { dice, left: Cell::new(OPS_PER_CHECK), rested: Cell::new(Some(now)) }
    }

    /// Which of a batch of `ops` operations is to be looked at, if any is.
    pub(super) fn choose(&self, ops: usize) -> Option<usize> {
        let (left, ops) = (self.left.get(), ops as u64);
        if left > ops {
            self.left.set(left - ops);
            return None;
        }
        self.left.set(self.dice.borrow_mut().random_range(1..2 * OPS_PER_CHECK));
        usize::try_from(left - 1).ok()
    }
}

/// Begins to check what `op`, which this node coordinates at level one, has read or will read.
pub(super) fn check(desk: &Rc<Desk>, op: &Op) {
    let (view, partition) = (desk.view.load_full(), Partition::of(&op.key));
    let route = view.route(partition);
    let others = || route.holders.iter().filter(|peer| **peer != view.me);
    let now = desk.clock.monotonic();
    let is_rested = desk.spots.rested.get().is_some_and(|rested| rested <= now);
    if !op.act.reads() || op.act.writes() || others().next().is_none() || !is_rested {
        return;
    }
    // Of all that are there. While one is away a majority is what there is to be asked.
    let level = if others().all(|peer| view.is_alive(*peer)) { Level::All } else { Level::Quorum };
    let (shard, inquiries) = (desk.local.shard_of(partition), BTreeMap::from([(op.key.clone(), Inquiry::default())]));
    desk.spots.rested.set(None);
    desk.count(Counter::ReadsChecked, 1);
    let desk = desk.clone();
    actix::spawn(async move {
        let survey = survey::take(&desk, &view, shard, inquiries, (level, Version::ZERO));
        // Whoever did not answer, or could not be brought up to date, is compared in time.
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, survey).await;
        desk.spots.rested.set(Some(desk.clock.monotonic() + CHECK_EVERY));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::clock::Clock;

    #[test]
    fn one_operation_in_a_hundred_is_chosen_whatever_the_batches() {
        for batch in [1, 7, 1_000] {
            let spots = Spots::new(3, Clock::os().monotonic());
            let chosen = (0..700_000 / batch).filter_map(|_| spots.choose(batch));
            let chosen: Vec<usize> = chosen.inspect(|at| assert!(*at < batch)).collect();
            let expected = if batch < 200 { 6_500..7_500 } else { 700..701 };
            assert!(expected.contains(&chosen.len()), "{} of batches of {batch}", chosen.len());
        }
    }
}
