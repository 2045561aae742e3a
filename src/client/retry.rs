//! When an operation is tried again, and where. Decides from what an attempt met with; never asks anybody. Takes dice as an argument. Tested
//! below.

use std::time::Duration;

use crate::base::reply::LATE;

use super::error::{Error, ErrorKind};

/// Rounds of trying, at the most; the deadline usually ends it earlier.
pub(super) const ATTEMPTS_MAX: u32 = 64;
/// How often an operation that found the cluster busy is tried again: clients that never give way keep it busy.
const BUSY_MAX: u32 = 5;
/// First and longest wait before another round.
const PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

/// What becomes of an operation that was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its caller is told.
    Final,
    /// Nothing was done, for a reason of the moment: it is tried again.
    Again,
    /// Nothing was done, for a reason of that node.
    Elsewhere,
}

/// Decides, given how often it was tried again because of this already.
pub(super) fn judge(error: &Error, busy: u32) -> Verdict {
    match error.kind() {
        ErrorKind::Shutdown => Verdict::Elsewhere,
        ErrorKind::Busy if busy < BUSY_MAX => Verdict::Again,
        ErrorKind::Timeout if error.to_string() == LATE => Verdict::Again,
        _ => Verdict::Final,
    }
}

/// The wait after round `attempt`, counted from 0. The first costs nothing where another replica can be asked at once.
pub(super) fn pause(attempt: u32, may_go_elsewhere: bool, dice: f64) -> Duration {
    if attempt == 0 && may_go_elsewhere {
        return Duration::ZERO;
    }
    let most = PAUSE[0].saturating_mul(1 << attempt.min(16)).min(PAUSE[1]);
    most.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_done_or_may_have_been_is_never_tried_again_by_its_reply() {
        for (line, verdict) in [
            ("BUSY the node is overloaded, nothing was done", Verdict::Again),
            ("SHUTDOWN the node is stopping, nothing was done", Verdict::Elsewhere),
            ("TIMEOUT the coordinator came too late to begin, applied: no", Verdict::Again),
            ("TIMEOUT replicas did not answer in time, applied: no", Verdict::Final),
            ("TIMEOUT replicas did not acknowledge the write in time, applied: unknown", Verdict::Final),
            ("NOQUORUM too few replicas took the write, applied: unknown", Verdict::Final),
            ("NOQUORUM too few replicas of the key can be reached, applied: no", Verdict::Final),
            ("OOM", Verdict::Final),
            ("ERR value is not an integer or out of range", Verdict::Final),
        ] {
            assert_eq!(judge(&Error::of_line(line.as_bytes()), 0), verdict, "{line}");
        }
    }

    #[test]
    fn who_finds_the_cluster_busy_gives_way_in_the_end() {
        let busy = Error::of_line(b"BUSY");
        let tried = (0..100).take_while(|n| judge(&busy, *n) == Verdict::Again).count();
        assert_eq!(tried, BUSY_MAX as usize);
    }

    proptest! {
        #[test]
        fn waits_grow_within_bounds(attempt in 0..ATTEMPTS_MAX, dice in 0f64..1.0) {
            let wait = pause(attempt, false, dice);
            prop_assert!(wait >= PAUSE[0] / 2 && wait <= PAUSE[1]);
            prop_assert!(pause(attempt + 1, false, dice) >= wait);
            prop_assert_eq!(pause(0, true, dice), Duration::ZERO);
        }
    }
}
