//! The arithmetic of a pool: which link of a node takes the next request, when to dial another, and how long to leave a node alone that
//! could not be dialled. Never dials. Takes time and dice as arguments. Tested below.

use std::time::Duration;

use tokio::time::Instant;

/// Requests under way on each link of a node before another one is dialled, while there may be one more.
pub(super) const LINK_BUSY_CALLS: usize = 64;
/// First and longest time after a failed dial in which the node is not dialled again; each is twice the one before.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// What to do with the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The link of this number takes it.
    Use(usize),
    /// This one takes it, and another link would help.
    UseAndDial(usize),
    /// There is no link.
    Dial,
}

/// Chooses among the open links of a node, given how many requests are under way on each.
pub(super) fn choose(under_way: &[usize], links_max: usize) -> Choice {
    let least = (0..under_way.len()).min_by_key(|n| under_way[*n]);
    match least {
        None => Choice::Dial,
        Some(n) if under_way[n] >= LINK_BUSY_CALLS && under_way.len() < links_max => Choice::UseAndDial(n),
        Some(n) => Choice::Use(n),
    }
}

/// How a node that can't be dialled is left alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Whether it may be dialled.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// A dial failed. `dice` is from 0 to 1: clients that lost a node at the same moment must not come back at the same moment.
    pub(super) fn failed(&mut self, now: Instant, dice: f64) {
        let most = BACKOFF[0].saturating_mul(1 << self.failures.min(16)).min(BACKOFF[1]);
        self.failures += 1;
        self.until = Some(now + most.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0));
    }

    /// A dial went well.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_are_dialled_only_while_all_are_busy() {
        assert_eq!(choose(&[], 2), Choice::Dial);
        assert_eq!(choose(&[0], 2), Choice::Use(0));
        assert_eq!(choose(&[LINK_BUSY_CALLS], 2), Choice::UseAndDial(0));
        assert_eq!(choose(&[LINK_BUSY_CALLS], 1), Choice::Use(0));
        assert_eq!(choose(&[9, LINK_BUSY_CALLS, 3], 3), Choice::Use(2));
    }

    proptest! {
        #[test]
        fn the_least_busy_link_is_used_and_never_too_many_are_dialled(
            under_way in prop::collection::vec(0usize..200, 0..6), links_max in 1usize..6,
        ) {
            match choose(&under_way, links_max) {
                Choice::Dial => prop_assert!(under_way.is_empty()),
                Choice::Use(n) => prop_assert!(under_way.iter().all(|calls| *calls >= under_way[n])),
                Choice::UseAndDial(n) => {
                    prop_assert!(under_way.len() < links_max && under_way[n] >= LINK_BUSY_CALLS);
                    prop_assert!(under_way.iter().all(|calls| *calls >= under_way[n]));
                }
            }
        }

        #[test]
        fn a_node_is_left_alone_for_longer_each_time_within_bounds(dice in prop::collection::vec(0f64..1.0, 1..40)) {
            let (mut backoff, now) = (Backoff::default(), Instant::now());
            prop_assert!(backoff.is_over(now));
            for (n, dice) in dice.into_iter().enumerate() {
                backoff.failed(now, dice);
                let most = BACKOFF[0].saturating_mul(1 << n.min(16)).min(BACKOFF[1]);
                prop_assert!(!backoff.is_over(now + most / 2 - Duration::from_millis(1)) && backoff.is_over(now + most));
            }
            backoff.succeeded();
            prop_assert!(backoff.is_over(now));
        }
    }
}
