//! Which key comes next: evenly, by Zipf's law, or one after another. A key is a number below the size of the key space. Never spells a
//! key. Tested below.

use rand::RngExt;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};

/// How often which key is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Distribution {
    /// Each as often as any other
    Uniform,
    /// Few very often, most hardly ever
    Zipfian,
    /// One after another, again and again
    Sequential,
}

/// Where one connection's keys come from.
#[derive(Clone, Debug)]
pub(crate) enum Keys {
    Uniform { space: u64 },
    Zipfian { space: u64, ranks: Zipf<f64> },
    Walk { space: u64, next: u64, step: u64, rounds: Rounds },
}

/// What a walk does at the end of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounds {
    /// Ends: each key once.
    One,
    /// Begins again.
    Endless,
}

impl Keys {
    /// Keys for connection `n` of `of` that share a key space, which is not empty.
    pub(crate) fn new(distribution: Distribution, space: u64, exponent: f64, (n, of): (u64, u64)) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform { space },
            Distribution::Zipfian => {
                let ranks = Zipf::new(space as f64, exponent).expect("both were checked when they were read");
                Self::Zipfian { space, ranks }
            }
            Distribution::Sequential => Self::walk(space, (n, of), Rounds::Endless),
        }
    }

    /// The keys `n`, `n + of` and so on: all connections together walk over each key once a round.
    pub(crate) fn walk(space: u64, (n, of): (u64, u64), rounds: Rounds) -> Self {
        assert!(n < of && space > 0, "connection {n} of {of} over {space} keys");
        Self::Walk { space, next: n, step: of, rounds }
    }

    /// The next key; none when a walk is over.
    pub(crate) fn next(&mut self, random: &mut SmallRng) -> Option<u64> {
        match self {
            Self::Uniform { space } => Some(random.random_range(0..*space)),
            Self::Zipfian { space, ranks } => Some(scattered(ranks.sample(random) as u64 - 1, *space)),
            Self::Walk { space, next, step, rounds } => {
                if *next >= *space {
                    if *rounds == Rounds::One {
                        return None;
                    }
                    // Back to where it began, or inside if there are more connections than keys.
                    *next = *next % *step % *space;
                }
                let key = *next;
                *next += *step;
                Some(key)
            }
        }
    }
}

/// Spreads popular ranks over the key space, each to a key of its own, so that neighbours in number are not neighbours in use.
fn scattered(rank: u64, space: u64) -> u64 {
    // A prime above any key space has no divisor with it in common, so this is a permutation. It is xxHash's first.
    const PRIME: u64 = 11_400_714_785_074_694_791;
    const { assert!(PRIME > KEYS_MAX) };
    (u128::from(rank) * u128::from(PRIME) % u128::from(space)) as u64
}

/// The largest key space: what twelve digits can name.
pub(crate) const KEYS_MAX: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn random() -> SmallRng {
        SmallRng::seed_from_u64(1)
    }

    proptest! {
        #[test]
        fn connections_that_walk_once_meet_each_key_once(space in 1u64..300, of in 1u64..40) {
            let mut met = Vec::new();
            for n in 0..of {
                let (mut keys, mut random) = (Keys::walk(space, (n, of), Rounds::One), random());
                met.extend(std::iter::from_fn(|| keys.next(&mut random)));
            }
            met.sort_unstable();
            prop_assert!(met.into_iter().eq(0..space));
        }

        #[test]
        fn whatever_comes_next_is_a_key(space in 1u64..300, n in 0u64..40, more in 1u64..40) {
            for distribution in [Distribution::Uniform, Distribution::Zipfian, Distribution::Sequential] {
                let (mut keys, mut random) = (Keys::new(distribution, space, 0.99, (n, n + more)), random());
                for _ in 0..500 {
                    prop_assert!(keys.next(&mut random).is_some_and(|key| key < space));
                }
            }
        }

        #[test]
        fn each_rank_has_a_key_of_its_own(space in 1u64..2000) {
            let mut keys: Vec<u64> = (0..space).map(|rank| scattered(rank, space)).collect();
            keys.sort_unstable();
            prop_assert!(keys.into_iter().eq(0..space));
        }
    }

    #[test]
    fn the_most_popular_key_of_a_zipfian_draw_has_the_share_of_its_law() {
        let (space, draws) = (1000, 200_000);
        let (mut keys, mut random) = (Keys::new(Distribution::Zipfian, space, 0.99, (0, 1)), random());
        let mut seen = vec![0u32; space as usize];
        for _ in 0..draws {
            seen[keys.next(&mut random).unwrap() as usize] += 1;
        }
        seen.sort_unstable_by(|a, b| b.cmp(a));
        let sum: f64 = (1..=space).map(|rank| (rank as f64).powf(-0.99)).sum();
        for (rank, seen) in [(1.0f64, seen[0]), (2.0, seen[1]), (10.0, seen[9])] {
            let expected = f64::from(draws) * rank.powf(-0.99) / sum;
            assert!((f64::from(seen) - expected).abs() < 0.05 * expected, "rank {rank}: {seen}, not {expected:.0}");
        }
    }

    #[test]
    fn uniform_draws_reach_every_key_about_as_often() {
        let (mut keys, mut random) = (Keys::new(Distribution::Uniform, 100, 1.0, (0, 1)), random());
        let mut seen = [0u32; 100];
        for _ in 0..100_000 {
            seen[keys.next(&mut random).unwrap() as usize] += 1;
        }
        assert!(seen.iter().all(|seen| seen.abs_diff(1000) < 200), "{seen:?}");
    }
}
