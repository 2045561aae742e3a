//! Versions and the hybrid logical clock that makes them. Never reads a clock: `now` comes in. Tested below.
//!
//! After Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots" (2014): 48 bits of wall milliseconds, 16 of counter.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
pub type UnixMs = u64;

const COUNTER_BITS: u32 = 16;

/// When and where a value was written. Totally ordered: time first, then origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Wall milliseconds in the upper 48 bits, a counter in the lower 16.
    pub time: u64,
    /// [`NodeId::origin`](super::id::NodeId::origin) of the stamping node.
    pub origin: u32,
}

impl Version {
    /// Older than every stamp.
    pub const ZERO: Self = Self { time: 0, origin: 0 };

    /// Not newer than any stamp made at `ms` or later, newer than all made before.
    pub fn earliest_at(ms: UnixMs) -> Self {
        Self { time: ms << COUNTER_BITS, origin: 0 }
    }

    /// A number below 2^63 for clients that compare versions of a key (memcached's CAS unique). Different versions have different numbers: those of
    /// one origin have different times, those of one time different origins, and a multiplication by an odd number maps no two origins to one. Of
    /// two that differ in both, the times would have to be apart by just the difference of two such products: one pair in 2^63.
    pub fn cas_unique(self) -> u64 {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.time.wrapping_add(u64::from(self.origin).wrapping_mul(SPREAD)) & (u64::MAX >> 1)
    }

    /// The wall clock part.
    pub fn unix_ms(self) -> UnixMs {
        self.time >> COUNTER_BITS
    }
}

/// A remote stamp lies further ahead of our clock than allowed. Nothing was applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a version lies {ahead_ms} ms ahead of the local clock")]
pub struct TooFarAhead {
    /// How far.
    pub ahead_ms: u64,
}

/// Hands out versions that rise above everything stamped or seen by this node.
#[derive(Debug, Clone)]
pub struct Hlc {
    last: u64,
    origin: u32,
    ahead_ms_max: u64,
}

impl Hlc {
    /// A clock stamping as `origin`, refusing remote stamps more than `ahead_ms_max` milliseconds ahead.
    pub fn new(origin: u32, ahead_ms_max: u64) -> Self {
        Self { last: 0, origin, ahead_ms_max }
    }

    /// The origin this clock stamps with.
    pub fn origin(&self) -> u32 {
        self.origin
    }

    /// A version above `now`, above every earlier stamp and above `seen`, the version it replaces.
    pub fn stamp(&mut self, now: UnixMs, seen: Version) -> Version {
        self.last = (now << COUNTER_BITS).max(self.last + 1).max(seen.time + 1);
        Version { time: self.last, origin: self.origin }
    }

    /// The least that the next stamp can be.
    pub fn next(&self, now: UnixMs) -> Version {
        Version { time: (now << COUNTER_BITS).max(self.last + 1), origin: self.origin }
    }

    /// Takes note of a version stamped elsewhere.
    ///
    /// # Errors
    /// [`TooFarAhead`] when it lies beyond the allowance; the clock is unchanged then.
    pub fn observe(&mut self, now: UnixMs, remote: Version) -> Result<(), TooFarAhead> {
        let ahead_ms = remote.unix_ms().saturating_sub(now);
        if ahead_ms > self.ahead_ms_max {
            return Err(TooFarAhead { ahead_ms });
        }
        self.last = self.last.max(remote.time);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stamps_rise_whatever_the_wall_clock_does(nows in prop::collection::vec(0u64..1 << 40, 1..50)) {
            let mut hlc = Hlc::new(1, 500);
            let mut last = Version::ZERO;
            for now in nows {
                let next = hlc.stamp(now, Version::ZERO);
                prop_assert!(next > last);
                prop_assert!(next.unix_ms() >= now);
                last = next;
            }
        }

        #[test]
        fn a_stamp_beats_what_it_replaces(now in 0u64..1 << 40, time in 0u64..1 << 56, origin: u32) {
            let seen = Version { time, origin };
            prop_assert!(Hlc::new(0, 500).stamp(now, seen) > seen);
        }
    }

    #[test]
    fn versions_of_one_time_or_of_one_origin_have_different_numbers() {
        let origins = [0, 1, 2, 3, 0x8000_0000, u32::MAX - 1, u32::MAX, 0x9e37_79b9, 0x7f4a_7c15];
        let times = [0, 1, 1 << 16, 1_700_000_000_000 << 16, (1_700_000_000_000 << 16) + 1, 1 << 62];
        let numbers: std::collections::BTreeSet<u64> = origins
            .iter()
            .flat_map(|origin| times.map(|time| Version { time, origin: *origin }.cas_unique()))
            .collect();
        assert_eq!(numbers.len(), origins.len() * times.len());
        assert!(numbers.iter().all(|number| *number < 1 << 63));
    }

    #[test]
    fn a_stamp_from_the_far_future_is_refused_and_leaves_the_clock_alone() {
        let mut hlc = Hlc::new(1, 500);
        let far = Version { time: 10_000 << COUNTER_BITS, origin: 2 };
        assert_eq!(hlc.observe(1_000, far), Err(TooFarAhead { ahead_ms: 9_000 }));
        assert_eq!(hlc.stamp(1_000, Version::ZERO).unix_ms(), 1_000);
        assert!(hlc.observe(9_600, far).is_ok());
        assert!(hlc.stamp(9_600, Version::ZERO) > far);
    }
}
