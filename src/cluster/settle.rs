//! When the past of a partition is closed: every replica has all that was written up to a version, and stamps nothing below it any more. Then
//! what is dead up to there may be forgotten by all, and what turns up later from before is known to be dead. Never asks anybody; `actors::sync`
//! does. Tested below and in `sync/tests.rs`.
//!
//! The proof is each replica's own: it has stopped to stamp below the version, whatever it sent has been acknowledged, and it has compared
//! itself with every other one since the set of replicas was last another. The replicas must be all alive, and those who own the same as those
//! who hold. Any of them may ask; who does, changes from turn to turn, so that one whose clock is wrong holds nothing up for long. It is
//! not a matter of age: while a replica is away, nothing settles. After Garage's collection of tombstones in two phases.

use crate::base::hlc::{UnixMs, Version};
use crate::base::slot::Partition;

use super::partition_set::PartitionSet;
use super::view::{PeerIx, Route, View};

/// How often what was written since is to be settled.
pub const SETTLE_EVERY_MS: u64 = 5_000;
/// What is settled is at least so old: a coordinator that has not heard that it is none any more, and does not ask for acknowledgements, has
/// time for its last writes to arrive.
const SETTLE_AGE_MS: u64 = 10_000;

/// Up to where partitions may be settled at `now`.
pub fn up_to(now: UnixMs) -> Version {
    Version::earliest_at(now.saturating_sub(SETTLE_AGE_MS))
}

/// Which keys the replicas that have all there is cannot have had, though they have older versions than those are settled up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// None: whatever they lack was deleted.
    Nothing,
    /// What this node wrote by itself before it had ever compared itself with anybody.
    Own,
    /// All: it descends from another founding.
    Everything,
}

impl News {
    /// Whether a key of this version is among them, where this node's store stamps as `origin`.
    pub fn contains(self, version: Version, origin: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Own => version.origin == origin,
            Self::Everything => true,
        }
    }
}

/// What follows for a key of which two replicas that compare themselves have different versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// They have something newer.
    Wanted,
    /// This node has something newer.
    Offered,
    /// It was deleted, and they know while this node does not.
    Dead,
    /// It is not to be moved: they will see themselves what is to be done, or it was evicted on one side.
    Left,
}

/// Two replicas that compare themselves.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Up to where the partition is settled here.
    pub ours: Version,
    /// Up to where there.
    pub theirs: Version,
    /// Whether this node drops keys for want of memory: then what is missing of what is settled is not missed.
    pub evicts: bool,
    /// Up to where what is missing here, and what is missing there, may have been evicted though it is not settled.
    pub evicted: (Version, Version),
}

impl Standing {
    /// What follows from the versions of a key, `None` where it is not there (or settled and dead, which is the same). Not both are equal.
    pub fn difference(&self, ours: Option<Version>, theirs: Option<Version>) -> Difference {
        match (ours, theirs) {
            (Some(ours), Some(theirs)) if ours > theirs => Difference::Offered,
            (Some(ours), None) if ours > self.theirs && ours <= self.evicted.1 => Difference::Left,
            (Some(ours), None) if ours > self.theirs => Difference::Offered,
            // They have all there was. So have we, if we are settled as far: they have evicted it.
            (Some(_), None) if self.ours < self.theirs => Difference::Dead,
            (Some(_), None) => Difference::Left,
            (None, Some(theirs)) if theirs <= self.ours && (self.theirs < self.ours || self.evicts) => Difference::Left,
            (None, Some(theirs)) if theirs <= self.evicted.0 => Difference::Left,
            (_, Some(_)) => Difference::Wanted,
            (None, None) => Difference::Left,
        }
    }

    /// Differences up to this version are to be left, whatever they are: they come of eviction. Everything counts, if it is
    /// [`Version::ZERO`].
    pub fn compared_above(&self) -> Version {
        // Whoever takes over what is settled must find what is dead by then.
        if self.evicts && self.ours >= self.theirs { self.theirs } else { Version::ZERO }
    }

    /// Whether what they hold in this version is known to be alive, however old.
    pub fn vouched(&self, version: Version) -> bool {
        version <= self.theirs
    }
}

/// Whether everybody who may have something of the partition is there, and nobody on the way in or out.
fn is_quiet(view: &View, route: &Route) -> bool {
    !route.owners.is_empty()
        && route.owners.len() == route.holders.len()
        && route.owners.iter().all(|owner| view.is_alive(*owner) && route.holders.contains(owner))
}

/// The route of a partition that can be settled.
pub fn route(view: &View, partition: Partition) -> Option<&Route> {
    let route = view.route(partition);
    (is_quiet(view, route) && route.owners.contains(&view.me)).then_some(route)
}

/// Those of `unsettled` for which it is this node's turn to ask.
pub fn mine(view: &View, unsettled: &PartitionSet, now: UnixMs) -> PartitionSet {
    let turn = now / SETTLE_EVERY_MS;
    let is_mine = |partition: &Partition| {
        let owners = route(view, *partition).map_or(&[][..], |route| &route.owners[..]);
        let at = (turn + u64::from(partition.0)).checked_rem(owners.len() as u64);
        at.is_some_and(|at| owners[at as usize] == view.me)
    };
    unsettled.iter().filter(is_mine).collect()
}

/// The other replicas of a partition.
pub fn others(view: &View, route: &Route) -> impl Iterator<Item = PeerIx> {
    let me = view.me;
    route.owners.clone().into_iter().filter(move |peer| *peer != me)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u64) -> Option<Version> {
        Some(Version { time, origin: 1 })
    }

    #[test]
    fn what_one_side_lacks_is_sent_dropped_or_left_by_what_both_have_settled() {
        use Difference::{Dead, Left, Offered, Wanted};
        let settled = |time: u64| at(time).filter(|v| v.time > 0).unwrap_or(Version::ZERO);
        for (settled_here, settled_there, evicts, ours, theirs, follows) in [
            // Nothing is settled: whoever lacks it gets it.
            (0, 0, false, at(5), None, Offered),
            (0, 0, false, None, at(5), Wanted),
            (0, 0, true, None, at(5), Wanted),
            // Both there: the newer one, whatever is settled.
            (9, 9, false, at(5), at(6), Wanted),
            (9, 9, true, at(6), at(5), Offered),
            // Settled there, and not there: it was deleted.
            (0, 9, false, at(9), None, Dead),
            (8, 9, false, at(5), None, Dead),
            (0, 9, false, at(10), None, Offered),
            // Settled here, and not here: they will find out.
            (9, 0, false, None, at(9), Left),
            (9, 0, false, None, at(10), Wanted),
            // Settled on both sides: only eviction, or a write that came late, makes a difference. Who lacks it gets it, unless it evicts.
            (9, 9, false, at(5), None, Left),
            (9, 9, false, None, at(5), Wanted),
            (9, 9, true, None, at(5), Left),
            (9, 9, true, None, at(10), Wanted),
        ] {
            let evicted = (Version::ZERO, Version::ZERO);
            let standing = Standing { ours: settled(settled_here), theirs: settled(settled_there), evicts, evicted };
            let found = standing.difference(ours, theirs);
            assert_eq!(found, follows, "{standing:?} {ours:?} {theirs:?}");
        }
    }

    #[test]
    fn what_may_have_been_evicted_is_not_missed() {
        use Difference::{Dead, Left, Offered, Wanted};
        let [three, six] = [3, 6].map(|time| Version { time, origin: 1 });
        let standing = Standing { ours: three, theirs: three, evicts: true, evicted: (six, Version::ZERO) };
        assert_eq!(standing.difference(None, at(6)), Left);
        assert_eq!(standing.difference(None, at(7)), Wanted);
        assert_eq!(standing.difference(at(6), None), Offered, "nothing was evicted there");
        let standing = Standing { evicted: (Version::ZERO, six), ..standing };
        assert_eq!(standing.difference(at(6), None), Left);
        assert_eq!(standing.difference(at(7), None), Offered);
        assert_eq!(standing.difference(None, at(6)), Wanted);
        // What is on both sides is made equal, and what is dead dropped, all the same.
        let standing = Standing { evicted: (six, six), ..standing };
        assert_eq!(standing.difference(at(4), at(5)), Wanted);
        assert_eq!(standing.difference(at(5), at(4)), Offered);
        assert_eq!(Standing { theirs: six, ..standing }.difference(at(5), None), Dead);
    }

    #[test]
    fn what_a_node_wrote_alone_is_news_to_those_who_never_met_it() {
        let version = Version { time: 5, origin: 7 };
        assert!(!News::Nothing.contains(version, 7));
        assert!(News::Own.contains(version, 7) && !News::Own.contains(version, 8));
        assert!(News::Everything.contains(version, 8));
    }
}
