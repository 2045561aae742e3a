//! How far copies have moved to and from this node, and how long the rest may take, by the time that it took so far. Never moves anything. Tested
//! in `sync/tests/share.rs`.

use super::Planner;
use crate::base::hlc::UnixMs;
use crate::cluster::settle;
use crate::cluster::view::View;

/// What moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moving {
    /// Partitions that this node is still to get or to give.
    pub left: usize,
    /// Partitions that it got or gave since.
    pub moved: usize,
    /// For how long it has been going on.
    pub elapsed_ms: u64,
    /// How long the rest takes if it goes on as before; `None` while nothing has moved.
    pub left_ms: Option<u64>,
}

/// Since when, and of how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    at_ms: UnixMs,
    all: usize,
}

impl Planner {
    /// What is moving; `None` when all is where it belongs.
    pub fn moving(&self, view: &View, now: UnixMs) -> Option<Moving> {
        let (begun, left) = (self.begun?, self.displaced(view));
        let (moved, elapsed_ms) = (begun.all.saturating_sub(left), now.saturating_sub(begun.at_ms));
        let left_ms = (elapsed_ms * left as u64).checked_div(moved as u64);
        Some(Moving { left, moved, elapsed_ms, left_ms })
    }

    /// Takes note of how it stands.
    pub(super) fn note_progress(&mut self, view: &View, now: UnixMs) {
        let left = self.displaced(view);
        self.begun = match self.begun {
            _ if left == 0 => None,
            Some(begun) => Some(Begun { all: begun.all.max(left), ..begun }),
            None => Some(Begun { at_ms: now, all: left }),
        };
    }

    /// Partitions owned and not held, or held and not owned.
    fn displaced(&self, view: &View) -> usize {
        let owned = view.owned();
        usize::from(owned.difference(&self.held).count() + self.held.difference(&owned).count())
    }

    /// Partitions that another replica may lack something of, as far as this node knows: not found to be the same since they last may have
    /// differed.
    pub fn uneven(&self, view: &View) -> usize {
        let owned = view.owned();
        let uneven = owned.iter().filter(|partition| {
            let route = view.route(*partition);
            let is_level = |peer| self.pairs.get(&(*partition, peer)).is_some_and(|p| p.level == Some(route.mark));
            !settle::others(view, route).all(is_level)
        });
        uneven.count()
    }
}
