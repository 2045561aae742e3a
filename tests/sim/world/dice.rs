//! Chance, from a seed. The only source of it in a simulated run.

use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// One stream of chance.
pub(crate) struct Dice(SmallRng);

impl Dice {
    /// The stream named `name` of a seed; streams do not disturb one another.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(SmallRng::seed_from_u64(xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), seed)))
    }

    /// A number out of a range.
    pub(crate) fn of(&mut self, range: Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// Yes in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.of(0..100) < percent
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.of(0..from.len() as u64) as usize]
    }

    /// The numbers below `n` in any order.
    pub(crate) fn order(&mut self, n: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            all.swap(i, self.of(0..i as u64 + 1) as usize);
        }
        all
    }
}
