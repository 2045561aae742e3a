//! How long values are: always the same, evenly from a range, or by weights. Tested below.

use std::str::FromStr;

use rand::RngExt;
use rand::rngs::SmallRng;

use trellis::base::limits::VALUE_BYTES_MAX;
use trellis::config::quantity::parse_size;

/// Lengths of values: `64`, `16-1kb`, or `64:90,4kb:10`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// All the same.
    Fixed(usize),
    /// Evenly, both ends included.
    Range(usize, usize),
    /// Each with the upper end of its part of the sum of weights, exclusive.
    Weighted(Vec<(usize, u64)>),
}

impl Sizes {
    /// One of them.
    pub(crate) fn draw(&self, random: &mut SmallRng) -> usize {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Range(from, to) => random.random_range(*from..=*to),
            Self::Weighted(parts) => {
                let at = random.random_range(0..parts.last().expect("there is one at least").1);
                parts[parts.partition_point(|(_, end)| *end <= at)].0
            }
        }
    }

    /// The longest.
    pub(crate) fn max(&self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::Range(_, bytes) => *bytes,
            Self::Weighted(parts) => parts.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0),
        }
    }
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes <= VALUE_BYTES_MAX).ok_or_else(|| format!("`{text}` is no size of a value"))
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((from, to)) = text.split_once('-') {
            let (from, to) = (size(from)?, size(to)?);
            return if from <= to { Ok(Self::Range(from, to)) } else { Err("the range is upside down".into()) };
        }
        if !text.contains(':') {
            return size(text).map(Self::Fixed);
        }
        let mut sum = 0;
        let part = |part: &str| {
            let (bytes, weight) = part.split_once(':').ok_or("each size needs a weight")?;
            sum +=
                weight.parse::<u32>().ok().filter(|weight| *weight > 0).map(u64::from).ok_or("a weight is a number")?;
            Ok((size(bytes)?, sum))
        };
        text.split(',').map(part).collect::<Result<_, String>>().map(Self::Weighted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in [
            ("64", Sizes::Fixed(64)),
            ("0", Sizes::Fixed(0)),
            ("16-1kb", Sizes::Range(16, 1024)),
            ("64:90,4kb:10", Sizes::Weighted(vec![(64, 90), (4096, 100)])),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "x", "64-", "9-8", "64:0", "64:x", "64:1,32", "1tb"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_size_is_outside_of_what_was_asked_for(from in 0usize..2000, more in 0usize..2000, seed: u64) {
            let sizes = Sizes::Range(from, from + more);
            let drawn = sizes.draw(&mut SmallRng::seed_from_u64(seed));
            prop_assert!((from..=from + more).contains(&drawn) && drawn <= sizes.max());
        }
    }

    #[test]
    fn weighted_sizes_come_as_often_as_they_should() {
        let (sizes, mut random): (Sizes, _) = ("64:90,4kb:10".parse().unwrap(), SmallRng::seed_from_u64(1));
        let large = (0..100_000).filter(|_| sizes.draw(&mut random) == 4096).count();
        assert!(large.abs_diff(10_000) < 500, "{large}");
    }
}
