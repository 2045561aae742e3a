//! Latency histograms by command, with buckets of powers of two. Tested below.

use std::collections::BTreeMap;
use std::time::Duration;

/// Buckets: the first takes what is below 2 microseconds, each further one twice as much, the last all above 8 seconds.
pub const BUCKETS: usize = 24;

/// One command's latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many fell into each bucket.
    pub buckets: [u64; BUCKETS],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Notes `count` commands that took `latency` each.
    pub fn record(&mut self, latency: Duration, count: u64) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = (us.max(1).ilog2() as usize).min(BUCKETS - 1);
        self.buckets[bucket] += count;
        self.sum_us += us.saturating_mul(count);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum_us += other.sum_us;
    }

    /// What came after `before`, an earlier state of these counts.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        for (mine, theirs) in since.buckets.iter_mut().zip(before.buckets) {
            *mine = mine.saturating_sub(theirs);
        }
        since.sum_us = since.sum_us.saturating_sub(before.sum_us);
        since
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper end of a bucket, in microseconds; the last has none.
    pub fn upper_us(bucket: usize) -> Option<u64> {
        (bucket + 1 < BUCKETS).then(|| 1 << (bucket + 1))
    }
}

/// By command name.
pub type Latencies = BTreeMap<&'static str, Histogram>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_below_its_buckets_upper_end() {
        for us in [0, 1, 2, 3, 4, 1_000, 999_999, 8_000_000, u64::MAX / 2] {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_micros(us), 3);
            let bucket = histogram.buckets.iter().position(|n| *n == 3).unwrap();
            assert!(Histogram::upper_us(bucket).is_none_or(|upper| us < upper), "{us}");
            assert!(bucket == 0 || Histogram::upper_us(bucket - 1).unwrap() <= us, "{us}");
        }
    }
}
