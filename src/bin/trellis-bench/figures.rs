//! Medians and ratios of several rounds. Tested below.

/// The middle one, or the mean of the two in the middle; none of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

/// The least and the greatest; none of nothing.
pub(crate) fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    Some((least, values.iter().copied().max_by(f64::total_cmp)?))
}

/// One server's figure beside another's, over rounds in which both took their turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    /// Of the medians.
    pub(crate) medians: f64,
    /// The least and the greatest of a round.
    pub(crate) spread: (f64, f64),
}

/// How `mine` stands to `other`, round by round; none where there is nothing, or zero, to compare with.
pub(crate) fn ratio(mine: &[f64], other: &[f64]) -> Option<Ratio> {
    let rounds: Vec<f64> = mine.iter().zip(other).map(|(mine, other)| mine / other).collect();
    let medians = median(mine)? / median(other)?;
    Some(Ratio { medians, spread: spread(&rounds)? }).filter(|ratio| ratio.medians.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds() {
        let told = ratio(&[10.0, 40.0, 30.0], &[10.0, 20.0, 20.0]);
        assert_eq!(told, Some(Ratio { medians: 1.5, spread: (1.0, 2.0) }));
        assert_eq!(ratio(&[1.0], &[0.0]), None);
        assert_eq!(ratio(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn half_of_all_values_are_on_either_side(values in prop::collection::vec(0.0f64..1e9, 1..50)) {
            let middle = median(&values).unwrap();
            let (least, most) = spread(&values).unwrap();
            prop_assert!(least <= middle && middle <= most);
            let below = values.iter().filter(|value| **value < middle).count();
            let above = values.iter().filter(|value| **value > middle).count();
            prop_assert!(2 * below <= values.len() && 2 * above <= values.len());
        }
    }
}
