//! Ranges of places that replicas compare: of all places the first bits of which are one of some numbers. Never looks at a table. Tested
//! below.

/// Deepest division of a partition: a range of one with a hundred million keys has some six.
pub const DEPTH_MAX: u8 = 24;
/// Ranges of one question.
pub const RANGES_MAX: usize = 1_024;

/// Those places whose first `depth` bits are one of `numbers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    depth: u8,
    /// Rising.
    numbers: Vec<u32>,
}

fn prefix(place: u64, depth: u8) -> u32 {
    // Shifting by all bits is no shift.
    place.checked_shr(u64::BITS - u32::from(depth)).unwrap_or(0) as u32
}

impl Ranges {
    /// `None` unless there are one to [`RANGES_MAX`] of them, their numbers rise, and all exist at a depth of at most [`DEPTH_MAX`].
    pub fn new(depth: u8, numbers: Vec<u32>) -> Option<Self> {
        let bounded = depth <= DEPTH_MAX && (1..=RANGES_MAX).contains(&numbers.len());
        let exist = bounded && numbers.last().is_some_and(|last| u64::from(*last) >> depth == 0);
        (exist && numbers.is_sorted_by(|a, b| a < b)).then_some(Self { depth, numbers })
    }

    /// All there are at `depth`.
    ///
    /// # Panics
    /// If these are more than [`RANGES_MAX`].
    pub(super) fn all(depth: u8) -> Self {
        Self::new(depth, (0..1 << depth).collect()).expect("the caller knows how many there are")
    }

    /// Bits of a place that choose a range.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// Which.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Which of them `place` is in.
    pub(super) fn find(&self, place: u64) -> Option<usize> {
        self.numbers.binary_search(&prefix(place, self.depth)).ok()
    }

    /// How many of them end at `last` or before.
    pub(super) fn ended_by(&self, last: u64) -> usize {
        let open = prefix(last, self.depth);
        let is_end = last == u64::MAX || prefix(last + 1, self.depth) != open;
        self.numbers.partition_point(|number| *number < open || is_end && *number == open)
    }

    /// Whether any of them has a place from `first` to `last`.
    pub(super) fn touch(&self, first: u64, last: u64) -> bool {
        let at = self.numbers.partition_point(|number| *number < prefix(first, self.depth));
        self.numbers.get(at).is_some_and(|number| *number <= prefix(last, self.depth))
    }

    /// Those at these places among them, in order.
    pub(super) fn pick(&self, chosen: &[u32]) -> Option<Self> {
        let picked = chosen.iter().filter_map(|at| self.numbers.get(*at as usize)).copied();
        Self::new(self.depth, picked.collect())
    }

    /// All but the first so many.
    pub(super) fn after(&self, count: usize) -> Option<Self> {
        Self::new(self.depth, self.numbers.get(count..)?.to_vec())
    }

    /// Each of them in 2^`bits` parts; as many of these in one as may be.
    pub(super) fn divide(&self, bits: u8) -> impl Iterator<Item = Self> + '_ {
        let depth = self.depth + bits;
        let group = (RANGES_MAX >> bits).max(1);
        self.numbers.chunks(group).map(move |numbers| {
            let parts = numbers.iter().flat_map(|number| (*number << bits)..((*number + 1) << bits));
            Self::new(depth, parts.collect()).expect("depth and number of parts are bounded")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_set_of_ranges_is_refused() {
        assert!(Ranges::new(6, vec![0, 3, 63]).is_some() && Ranges::new(0, vec![0]).is_some());
        for (depth, numbers) in
            [(6, vec![]), (6, vec![64]), (0, vec![1]), (6, vec![3, 3]), (6, vec![4, 3]), (25, vec![0])]
        {
            assert_eq!(Ranges::new(depth, numbers.clone()), None, "{depth} {numbers:?}");
        }
        assert!(Ranges::new(24, (0..=RANGES_MAX as u32).collect()).is_none());
        assert!(Ranges::new(24, (0..RANGES_MAX as u32).collect()).is_some());
    }

    #[test]
    fn places_are_found_in_ranges_and_ranges_end_at_places() {
        let whole = Ranges::all(0);
        assert_eq!((whole.find(0), whole.find(u64::MAX)), (Some(0), Some(0)));
        assert_eq!((whole.ended_by(u64::MAX - 1), whole.ended_by(u64::MAX)), (0, 1));
        let some = Ranges::new(4, vec![1, 2, 15]).unwrap();
        let place = |number: u64| number << 60;
        assert_eq!([0, 1, 2, 3, 15].map(|n| some.find(place(n))), [None, Some(0), Some(1), None, Some(2)]);
        assert_eq!(
            [place(1), place(2) - 1, place(2), place(3) - 1, u64::MAX].map(|p| some.ended_by(p)),
            [0, 1, 1, 2, 3]
        );
        assert!(some.touch(0, place(1)) && some.touch(place(2), place(9)) && some.touch(place(14), u64::MAX));
        assert!(!some.touch(0, place(1) - 1) && !some.touch(place(3), place(15) - 1));
    }

    #[test]
    fn parts_cover_what_is_divided() {
        let some = Ranges::new(6, (0..64).collect()).unwrap();
        let parts: Vec<Ranges> = some.divide(6).collect();
        assert_eq!(parts.len(), 4);
        assert!(parts.iter().all(|part| part.depth() == 12));
        assert!(parts.iter().flat_map(|part| part.numbers().iter().copied()).eq(0..4096));
        assert_eq!(some.pick(&[1, 5, 64]).unwrap().numbers(), [1, 5]);
        assert_eq!((some.pick(&[]), some.after(64), some.after(65)), (None, None, None));
        assert_eq!(some.after(62).unwrap().numbers(), [62, 63]);
    }
}
