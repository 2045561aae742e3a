//! Counts acknowledgements against what a level requires. Never waits; tested below.

use super::view::{PeerIx, Peers, Required};

use smallvec::SmallVec;

/// Where a count stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More answers are needed and possible.
    Pending,
    /// Every set has its number.
    Met,
    /// Some set can't reach its number any more.
    Unmeetable,
}

/// One set's count.
#[derive(Clone, Debug)]
struct Count {
    waiting: Peers,
    missing: usize,
}

/// The count of one write or read.
#[derive(Clone, Debug)]
pub struct Tally {
    sets: SmallVec<[Count; 2]>,
}

impl Tally {
    /// Starts a count over `required`.
    pub fn new(required: Required) -> Self {
        let sets = required.sets.into_iter().map(|(waiting, missing)| Count { waiting, missing }).collect();
        Self { sets }
    }

    /// A member did what was asked.
    pub fn acknowledge(&mut self, peer: PeerIx) -> Progress {
        self.settle(peer, 1)
    }

    /// A member did not, or can't be known to have done it.
    pub fn fail(&mut self, peer: PeerIx) -> Progress {
        #[cfg(feature = "sim")]
        if crate::base::plant::Plant::LostAcknowledgement.is_sown() {
            return self.settle(peer, 1);
        }
        self.settle(peer, 0)
    }

    fn settle(&mut self, peer: PeerIx, counts: usize) -> Progress {
        for set in &mut self.sets {
            if let Some(at) = set.waiting.iter().position(|waiting| *waiting == peer) {
                set.waiting.remove(at);
                set.missing = set.missing.saturating_sub(counts);
            }
        }
        self.progress()
    }

    /// Where it stands.
    pub fn progress(&self) -> Progress {
        if self.sets.iter().all(|set| set.missing == 0) {
            Progress::Met
        } else if self.sets.iter().any(|set| set.missing > set.waiting.len()) {
            Progress::Unmeetable
        } else {
            Progress::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::level::Level;
    use crate::cluster::view::Route;
    use proptest::prelude::*;

    fn peers(ids: &[u32]) -> Peers {
        ids.iter().copied().map(PeerIx).collect()
    }

    #[test]
    fn a_moving_partition_needs_its_number_among_owners_and_holders() {
        // Owners 1 2 3, of which 3 is new; 0 holds it still.
        let route = Route { owners: peers(&[1, 2, 3]), holders: peers(&[1, 2, 0]), ..Route::default() };
        let mut tally = Tally::new(route.write(Level::Quorum));
        assert_eq!(tally.acknowledge(PeerIx(1)), Progress::Pending);
        assert_eq!(tally.acknowledge(PeerIx(3)), Progress::Pending, "owners agree, holders do not yet");
        assert_eq!(tally.acknowledge(PeerIx(0)), Progress::Met);
    }

    #[test]
    fn a_level_out_of_reach_is_said_at_once() {
        let route = Route { owners: peers(&[0, 1, 2]), holders: peers(&[0, 1, 2]), ..Route::default() };
        let mut tally = Tally::new(route.write(Level::Quorum));
        assert_eq!(tally.fail(PeerIx(1)), Progress::Pending);
        assert_eq!(tally.fail(PeerIx(2)), Progress::Unmeetable);
    }

    #[test]
    fn reads_ask_holders_alone() {
        let route = Route { owners: peers(&[1, 2, 3]), holders: peers(&[1, 2]), ..Route::default() };
        let mut tally = Tally::new(route.read(Level::Quorum));
        assert_eq!(tally.acknowledge(PeerIx(3)), Progress::Pending);
        assert_eq!(tally.acknowledge(PeerIx(1)), Progress::Pending);
        assert_eq!(tally.acknowledge(PeerIx(2)), Progress::Met);
    }

    proptest! {
        #[test]
        fn met_means_the_number_in_each_set(
            owners in prop::collection::btree_set(0u32..6, 1..5),
            holders in prop::collection::btree_set(0u32..6, 0..5),
            answers in prop::collection::vec((0u32..6, any::<bool>()), 0..12),
        ) {
            let owners: Peers = owners.into_iter().map(PeerIx).collect();
            let holders: Peers = holders.into_iter().map(PeerIx).collect();
            let route = Route { owners, holders, ..Route::default() };
            let required = route.write(Level::Quorum);
            let mut tally = Tally::new(required.clone());
            let mut first = std::collections::BTreeMap::new();
            for (peer, yes) in answers {
                let peer = PeerIx(peer);
                first.entry(peer).or_insert(yes);
                if yes { tally.acknowledge(peer) } else { tally.fail(peer) };
            }
            let count = |set: &Peers, wanted: bool| set.iter().filter(|p| first.get(p) == Some(&wanted)).count();
            let met = required.sets.iter().all(|(set, n)| count(set, true) >= *n);
            let lost = required.sets.iter().any(|(set, n)| set.len() - count(set, false) < *n);
            let expected = if met { Progress::Met } else if lost { Progress::Unmeetable } else { Progress::Pending };
            prop_assert_eq!(tally.progress(), expected);
        }
    }
}
