//! What was answered to recent requests, so that a retry is answered again instead of done twice. Never executes anything. Tested below.
//!
//! Kept in a `TtlCache`, which evicts by age of insertion: right for one lifetime that all entries share. It reads the operating system's
//! clock, so its own lifetime is set to one that never ends, and ours is counted in the `now` of the caller: the same run gives the same
//! answers, under simulated time too.

use std::time::Duration;

use foldhash::fast::FixedState;
use ttl_cache::TtlCache;

use crate::base::hlc::{UnixMs, Version};
use crate::base::id::RequestId;
use crate::base::limits::{RECENT_REPLIES_BYTES_MAX, RECENT_REPLY_BYTES_MAX, RECENT_REQUEST_TTL, RECENT_REQUESTS_MAX};
use crate::base::outcome::Outcome;

/// Longer than any process runs.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Forgotten at most per insert, so that a lull does not make one request pay for all before it.
const PURGED_PER_INSERT: usize = 4;
/// Forgotten at most per turn: some 100 microseconds.
const PURGED_PER_TURN: usize = 1_000;

struct Remembered {
    at: UnixMs,
    outcome: Outcome,
}

/// Answers by request id, for [`RECENT_REQUEST_TTL`], up to [`RECENT_REQUESTS_MAX`] of them and [`RECENT_REPLIES_BYTES_MAX`] bytes.
pub struct RecentRequests {
    cache: TtlCache<RequestId, Remembered, FixedState>,
    /// How many are in the cache, which can't say.
    held: usize,
    /// Bytes of their replies.
    bytes: usize,
    /// The newest version among those forgotten.
    forgotten: Version,
}

impl Default for RecentRequests {
    fn default() -> Self {
        let cache = TtlCache::with_hasher(RECENT_REQUESTS_MAX, FixedState::default());
        Self { cache, held: 0, bytes: 0, forgotten: Version::ZERO }
    }
}

impl RecentRequests {
    /// What `id` was answered, if it was within the lifetime.
    pub fn recall(&self, id: RequestId, now: UnixMs) -> Option<&Outcome> {
        self.cache.get(&id).filter(|remembered| !over(remembered, now)).map(|remembered| &remembered.outcome)
    }

    /// Remembers the answer to `id`. At the limits the oldest are forgotten.
    pub fn remember(&mut self, id: RequestId, outcome: Outcome, now: UnixMs) {
        // A peer's may be longer than what is kept here.
        let outcome = if outcome.reply.len() > RECENT_REPLY_BYTES_MAX {
            Outcome::new(outcome.kind, &[&outcome.reply], outcome.version)
        } else {
            outcome
        };
        self.purge(PURGED_PER_INSERT, now);
        while self.held >= RECENT_REQUESTS_MAX || self.bytes + outcome.reply.len() > RECENT_REPLIES_BYTES_MAX {
            self.forget_oldest(|_| true);
        }
        self.bytes += outcome.reply.len();
        match self.cache.insert(id, Remembered { at: now, outcome }, NEVER) {
            Some(replaced) => self.bytes -= replaced.outcome.reply.len(),
            None => self.held += 1,
        }
    }

    /// Forgets some of what is past its lifetime.
    pub fn turn(&mut self, now: UnixMs) {
        self.purge(PURGED_PER_TURN, now);
    }

    /// Bytes of the replies remembered.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn purge(&mut self, count_max: usize, now: UnixMs) {
        for _ in 0..count_max {
            if !self.forget_oldest(|oldest| over(oldest, now)) {
                break;
            }
        }
    }

    /// Every request of the lifetime that wrote a newer version than this is remembered, of those there ever were.
    pub fn forgotten(&self) -> Version {
        self.forgotten
    }

    /// Forgets the oldest if it may go.
    fn forget_oldest(&mut self, may_go: impl Fn(&Remembered) -> bool) -> bool {
        let oldest = self.cache.iter().next().filter(|(_, remembered)| may_go(remembered)).map(|(id, _)| *id);
        let Some(gone) = oldest.and_then(|id| self.cache.remove(&id)) else { return false };
        self.held -= 1;
        self.bytes -= gone.outcome.reply.len();
        self.forgotten = self.forgotten.max(gone.outcome.version);
        true
    }
}

fn over(remembered: &Remembered, now: UnixMs) -> bool {
    u128::from(now.saturating_sub(remembered.at)) >= RECENT_REQUEST_TTL.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reply::ReplyKind;
    use bytes::Bytes;

    const LIFETIME_MS: u64 = RECENT_REQUEST_TTL.as_millis() as u64;

    fn id(sequence: u64) -> RequestId {
        RequestId { router: 1, sequence }
    }

    fn one(n: i64) -> Outcome {
        Outcome { kind: ReplyKind::Int(n), reply: Bytes::from(format!(":{n}\r\n")), version: Version::ZERO }
    }

    #[test]
    fn an_answer_is_recalled_until_its_lifetime_is_over() {
        let mut recent = RecentRequests::default();
        recent.remember(id(1), one(1), 1_000);
        assert_eq!(recent.recall(id(1), 1_000 + LIFETIME_MS - 1), Some(&one(1)));
        assert_eq!(recent.recall(id(1), 1_000 + LIFETIME_MS), None);
        assert_eq!(recent.recall(id(2), 1_000), None);
    }

    #[test]
    fn what_is_over_makes_room_and_the_limit_holds() {
        let mut recent = RecentRequests::default();
        for sequence in 0..10 {
            recent.remember(id(sequence), one(0), 0);
        }
        for sequence in 10..13 {
            recent.remember(id(sequence), one(0), LIFETIME_MS);
        }
        assert_eq!(recent.cache.iter().count(), 3);
        for sequence in 0..RECENT_REQUESTS_MAX as u64 + 10 {
            recent.remember(id(100 + sequence), one(0), LIFETIME_MS);
        }
        assert_eq!(recent.cache.iter().count(), RECENT_REQUESTS_MAX);
        assert_eq!(recent.recall(id(12), LIFETIME_MS), None);
        assert_eq!(recent.held, RECENT_REQUESTS_MAX);
    }

    #[test]
    fn replies_are_bounded_in_bytes_and_what_is_forgotten_says_so() {
        let mut recent = RecentRequests::default();
        let reply = vec![b'x'; RECENT_REPLY_BYTES_MAX];
        let fit = (RECENT_REPLIES_BYTES_MAX / RECENT_REPLY_BYTES_MAX) as u64;
        let version = |time| Version { time, origin: 1 };
        for n in 1..=fit {
            recent.remember(id(n), Outcome::new(ReplyKind::Value, &[&reply], version(n)), 0);
        }
        assert_eq!((recent.bytes(), recent.forgotten()), (RECENT_REPLIES_BYTES_MAX, Version::ZERO));
        recent.remember(id(fit + 1), one(1), 0);
        assert_eq!((recent.recall(id(1), 0), recent.forgotten()), (None, version(1)));
        assert!(recent.recall(id(2), 0).is_some());
        recent.remember(id(2), one(1), 0);
        assert_eq!(recent.bytes(), RECENT_REPLIES_BYTES_MAX - 2 * RECENT_REPLY_BYTES_MAX + 2 * one(1).reply.len());
        recent.turn(LIFETIME_MS);
        assert_eq!((recent.bytes(), recent.held), (0, 0));
    }

    #[test]
    fn of_a_long_reply_it_is_remembered_that_there_was_one() {
        let version = Version { time: 5, origin: 1 };
        let half = vec![b'x'; RECENT_REPLY_BYTES_MAX / 2 + 1];
        let outcome = Outcome::new(ReplyKind::Value, &[&half, &half], version);
        assert_eq!((outcome.kind, outcome.version), (ReplyKind::Error, version));
        assert!(outcome.reply.ends_with(b"applied: yes\r\n"));
        let mut recent = RecentRequests::default();
        let long = Bytes::from(vec![b'x'; RECENT_REPLY_BYTES_MAX + 1]);
        recent.remember(id(1), Outcome { kind: ReplyKind::Value, reply: long, version }, 0);
        assert_eq!(recent.recall(id(1), 0), Some(&outcome));
    }
}
