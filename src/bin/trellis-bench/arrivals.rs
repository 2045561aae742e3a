//! When requests of an open loop are due: at a fixed rate, whatever becomes of those before. Latencies count from here, so that a server
//! that stands still is seen to keep everybody waiting (Tene's "coordinated omission"). Tested below.

const NANOS: u128 = 1_000_000_000;

/// One thread's share of a fixed rate: each `of`th request, beginning with `n`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    rate: u64,
    next: u64,
    of: u64,
}

impl Arrivals {
    /// The share of thread `n` of `of` in `rate` requests a second, which is not 0.
    pub(crate) fn new(rate: u64, (n, of): (u64, u64)) -> Self {
        assert!(rate > 0 && n < of, "thread {n} of {of}, {rate} a second");
        Self { rate, next: n, of }
    }

    /// When the next request is due, in nanoseconds since the start.
    pub(crate) fn due(&self) -> u64 {
        u64::try_from(u128::from(self.next) * NANOS / u128::from(self.rate)).unwrap_or(u64::MAX)
    }

    /// Goes on to the one after it.
    pub(crate) fn advance(&mut self) {
        self.next += self.of;
    }

    /// How many are due before `end`, from here on.
    pub(crate) fn left(&self, end: u64) -> u64 {
        let before = (u128::from(end) * u128::from(self.rate)).div_ceil(NANOS);
        u64::try_from(before).unwrap_or(u64::MAX).saturating_sub(self.next).div_ceil(self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn threads_together_keep_the_rate(rate in 1u64..5000, threads in 1u64..9) {
            let (end, mut due) = (1_000_000_000, Vec::new());
            for n in 0..threads {
                let mut arrivals = Arrivals::new(rate, (n, threads));
                prop_assert_eq!(arrivals.left(end), (0..rate).skip(n as usize).step_by(threads as usize).count() as u64);
                while arrivals.due() < end {
                    due.push(arrivals.due());
                    arrivals.advance();
                }
                prop_assert_eq!(arrivals.left(end), 0);
            }
            due.sort_unstable();
            let expected = (0..rate).map(|n| n * 1_000_000_000 / rate);
            prop_assert!(due.into_iter().eq(expected));
        }
    }
}
