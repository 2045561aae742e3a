//! When a link to a peer may be dialled, and when it is silent, stalled or lost; until when the peer may begin with what is sent to it.
//! Never touches a socket, a frame or a clock: a moment is the time since the node's start. Tested below.

use std::time::Duration;

use crate::base::limits::{
    CALL_BEGINS_MAX, LINK_BYTES_PER_SEC_MIN, LINK_RETRY_AFTER, LINK_SILENCE_MAX, LINK_STALL_MAX,
};

/// Time since this node's start.
pub type Moment = Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next dial is allowed from then on.
    Closed { until: Moment },
    /// Dialled, and not greeted yet.
    Dialling,
    /// Greeted: the peer's clock showed `their_ms` at the latest `at`.
    Open { their_ms: u64, at: Moment },
}

/// What a look at a link found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing is outstanding, or not for long.
    Fine,
    /// Half the patience is over: the peer may be working on what was asked, and should be pinged. Said once a silence.
    Quiet,
    /// The patience is over: the link has stalled. Said once a silence.
    Silent,
    /// Stalled, and silent still.
    Stalled,
    /// Stalled for all the time it gets. What was lost on the way stays lost for as long as the kernel's patience with it grows, which
    /// after a partition may be minutes; a new link is there at once.
    Lost,
}

/// One peer's link, from dial to dial.
#[derive(Debug)]
pub struct Link {
    phase: Phase,
    generation: u64,
    /// The last sign of life, or the moment since which something is waited for.
    quiet_since: Moment,
    pinged: bool,
    stalled: bool,
}

impl Default for Link {
    fn default() -> Self {
        let phase = Phase::Closed { until: Moment::ZERO };
        Self { phase, generation: 0, quiet_since: Moment::ZERO, pinged: false, stalled: false }
    }
}

impl Link {
    /// Whether it has been dialled and not been closed since.
    pub fn is_linked(&self) -> bool {
        !matches!(self.phase, Phase::Closed { .. })
    }

    /// Whether the peer has greeted.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// When the peer greeted, if it has.
    pub fn opened_at(&self) -> Option<Moment> {
        if let Phase::Open { at, .. } = self.phase { Some(at) } else { None }
    }

    /// Whether the peer has been silent for too long and has not been heard since.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether it is closed, and enough time has passed since.
    pub fn may_dial(&self, now: Moment) -> bool {
        matches!(self.phase, Phase::Closed { until } if until <= now)
    }

    /// Begins another link. Its generation tells what comes over it from what an earlier one left behind.
    pub fn dial(&mut self, now: Moment) -> u64 {
        self.phase = Phase::Dialling;
        self.generation += 1;
        self.restart(now);
        self.generation
    }

    /// Whether this is the generation in use.
    pub fn is_current(&self, generation: u64) -> bool {
        self.is_linked() && self.generation == generation
    }

    /// The peer of the current generation has greeted: its clock showed `their_ms` at the latest `at`.
    pub fn opened(&mut self, (their_ms, at): (u64, Moment), now: Moment) {
        self.phase = Phase::Open { their_ms, at };
        self.restart(now);
    }

    /// The link is no more.
    pub fn close(&mut self, now: Moment) {
        self.phase = Phase::Closed { until: now + LINK_RETRY_AFTER };
        self.stalled = false;
    }

    /// The peer gave a sign of life: a byte of it arrived, or it took some of what had to wait for it.
    pub fn lives(&mut self, at: Moment) {
        if at > self.quiet_since {
            self.restart(at);
        }
    }

    /// From now on something is waited for.
    pub fn awaits(&mut self, now: Moment) {
        self.restart(now);
    }

    /// This node did not run for a while: what the peer said meanwhile is still to be read.
    pub fn excuse(&mut self, now: Moment) {
        if !self.stalled {
            self.restart(now);
        }
    }

    fn restart(&mut self, at: Moment) {
        self.quiet_since = at;
        self.pinged = false;
        self.stalled = false;
    }

    /// Looks at the link; `waiting` tells whether anything is outstanding on it.
    pub fn look(&mut self, waiting: bool, now: Moment) -> Finding {
        let silence = now.saturating_sub(self.quiet_since);
        if self.stalled {
            return if silence > LINK_STALL_MAX { Finding::Lost } else { Finding::Stalled };
        }
        if !self.is_open() || !waiting {
            return Finding::Fine;
        }
        if silence > LINK_SILENCE_MAX {
            self.stalled = true;
            return Finding::Silent;
        }
        if silence > LINK_SILENCE_MAX / 2 && !self.pinged {
            self.pinged = true;
            return Finding::Quiet;
        }
        Finding::Fine
    }

    /// What the peer's clock shows at a moment or later, never earlier, in Unix milliseconds; 0 before it has greeted.
    pub fn their_ms(&self, moment: Moment) -> u64 {
        let Phase::Open { their_ms, at } = self.phase else { return 0 };
        their_ms + u64::try_from(moment.saturating_sub(at).as_millis()).unwrap_or(u64::MAX / 2)
    }
}

/// The moment until which a peer may begin with what is sent at `now` behind `ahead_bytes`, its own included: the way of many bytes is
/// long. Nobody may be told before that the peer will not begin.
pub fn begins_until(now: Moment, ahead_bytes: u64) -> Moment {
    let way_ms = ahead_bytes.saturating_mul(1_000) / LINK_BYTES_PER_SEC_MIN;
    now + CALL_BEGINS_MAX + Duration::from_millis(way_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn open_since(now: u64) -> Link {
        let mut link = Link::default();
        link.dial(ms(now));
        link.opened((0, ms(now)), ms(now));
        link
    }

    #[test]
    fn a_silence_is_pinged_half_way_stalls_and_is_lost() {
        use Finding::*;
        let mut link = open_since(1_000);
        let looks = [
            (1_100, Fine),
            (1_101, Quiet),
            (1_102, Fine),
            (1_200, Fine),
            (1_201, Silent),
            (1_202, Stalled),
            (3_000, Stalled),
            (3_001, Lost),
        ];
        for (now, finding) in looks {
            assert_eq!(link.look(true, ms(now)), finding, "at {now}");
        }
    }

    #[test]
    fn a_frame_that_crosses_slowly_is_no_silence_and_one_that_stops_is() {
        let mut link = open_since(0);
        for now in (40..=540).step_by(40) {
            link.lives(ms(now - 3));
            assert_eq!(link.look(true, ms(now)), Finding::Fine, "at {now}");
        }
        assert_eq!(link.look(true, ms(520 - 3 + 201)), Finding::Silent);
    }

    #[test]
    fn nothing_outstanding_is_no_silence_and_neither_is_a_dial() {
        let mut link = open_since(0);
        assert_eq!(link.look(false, ms(9_000)), Finding::Fine);
        link.awaits(ms(9_000));
        assert_eq!(link.look(true, ms(9_100)), Finding::Fine);
        link.close(ms(9_100));
        link.dial(ms(9_500));
        assert_eq!(link.look(true, ms(19_000)), Finding::Fine);
    }

    #[test]
    fn a_sign_of_life_ends_a_stall_and_an_excuse_does_not() {
        let mut link = open_since(0);
        assert_eq!(link.look(true, ms(201)), Finding::Silent);
        link.excuse(ms(300));
        assert!(link.is_stalled());
        link.lives(ms(310));
        assert!(!link.is_stalled());
        assert_eq!(link.look(true, ms(500)), Finding::Quiet);
        link.excuse(ms(520));
        assert_eq!(link.look(true, ms(600)), Finding::Fine);
    }

    #[test]
    fn a_closed_link_rests_and_the_next_is_of_another_generation() {
        let mut link = Link::default();
        assert!(link.may_dial(Moment::ZERO));
        let first = link.dial(ms(5));
        assert!(link.is_current(first) && !link.may_dial(ms(9_000)));
        link.close(ms(10));
        assert!(!link.is_current(first) && !link.may_dial(ms(259)) && link.may_dial(ms(260)));
        let second = link.dial(ms(260));
        assert!(link.is_current(second) && !link.is_current(first));
    }

    #[test]
    fn the_peers_clock_runs_from_its_greeting() {
        let mut link = Link::default();
        assert_eq!(link.their_ms(ms(9)), 0);
        link.dial(ms(1_000));
        link.opened((7_000, ms(1_010)), ms(1_020));
        assert_eq!(begins_until(ms(1_020), 100), ms(1_220));
        assert_eq!(link.their_ms(ms(1_220)), 7_210);
        assert_eq!(begins_until(ms(1_020), LINK_BYTES_PER_SEC_MIN), ms(2_220));
    }

    proptest! {
        #[test]
        fn a_link_is_silent_only_after_its_patience(steps in prop::collection::vec((0u8..4, 0u64..150), 1..60)) {
            let (mut link, mut now, mut alive) = (open_since(0), 0, 0);
            for (step, pause) in steps {
                now += pause;
                match step {
                    0 => {
                        link.lives(ms(now));
                        alive = now;
                    }
                    1 => link.excuse(ms(now)),
                    _ => match link.look(true, ms(now)) {
                        Finding::Silent => prop_assert!(link.is_stalled() && ms(alive) + LINK_SILENCE_MAX < ms(now)),
                        Finding::Fine | Finding::Quiet => prop_assert!(!link.is_stalled()),
                        Finding::Stalled | Finding::Lost => prop_assert!(link.is_stalled()),
                    },
                }
            }
        }
    }
}
