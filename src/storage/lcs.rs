//! The longest common subsequence of two values, as Redis's `LCS` finds it: of several the same one, in the same pieces. A bit for each pair
//! of bytes, filled in as many rows at a time as the caller says. Never answers in any protocol. Tested below, and against redis-server by
//! the client tests.

/// A piece that both values have, by first and last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// In the first value.
    pub a: (usize, usize),
    /// In the second.
    pub b: (usize, usize),
}

impl Match {
    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.a.1 - self.a.0 + 1
    }
}

/// The table under way.
pub struct Lcs<'a> {
    a: &'a [u8],
    b: &'a [u8],
    /// Lengths for the last row filled.
    row: Vec<u32>,
    /// A bit for each pair: whether the way back leads up rather than left.
    up: Vec<u64>,
    /// Rows filled.
    filled: usize,
}

impl<'a> Lcs<'a> {
    /// A table for two values, nothing of it filled.
    ///
    /// # Panics
    /// When the values are so long that [`Self::table_bytes`] has no number.
    pub fn new(a: &'a [u8], b: &'a [u8]) -> Self {
        assert!(Self::table_bytes(a.len(), b.len()).is_some(), "the caller has looked");
        Self { a, b, row: vec![0; b.len() + 1], up: vec![0; a.len() * words(b.len())], filled: 0 }
    }

    /// What Redis's table for values of these lengths takes, which is 32 times as much as this one; `None` beyond all numbers.
    pub fn table_bytes(a: usize, b: usize) -> Option<usize> {
        let bytes = (a + 1).checked_mul(b + 1)?.checked_mul(size_of::<u32>())?;
        (a.max(b) < u32::MAX as usize).then_some(bytes)
    }

    /// Fills rows of about so many pairs of bytes, at least one row. False when there was nothing left to fill.
    pub fn fill(&mut self, pairs: usize) -> bool {
        let rows = (pairs / (self.b.len() + 1)).max(1);
        let last = self.a.len().min(self.filled + rows);
        let any = self.filled < last;
        for row in self.filled..last {
            self.fill_row(row);
        }
        self.filled = last;
        any
    }

    fn fill_row(&mut self, row: usize) {
        let words = words(self.b.len());
        let up = &mut self.up[row * words..(row + 1) * words];
        let (mut diagonal, mut left) = (0, 0);
        for (column, (byte, length)) in self.b.iter().zip(&mut self.row[1..]).enumerate() {
            let above = *length;
            if self.a[row] == *byte {
                left = diagonal + 1;
            } else if above > left {
                up[column / 64] |= 1 << (column % 64);
                left = above;
            }
            (*length, diagonal) = (left, above);
        }
    }

    /// Its length, once everything is filled.
    pub fn bytes(&self) -> usize {
        self.row.last().map_or(0, |length| *length as usize)
    }

    /// The subsequence, and its pieces from the last to the first, once everything is filled. Redis's walk back through the table.
    pub fn trace(&self) -> (Vec<u8>, Vec<Match>) {
        let (mut i, mut j) = (self.a.len(), self.b.len());
        let (mut text, mut matches) = (Vec::with_capacity(self.bytes()), Vec::new());
        let mut piece: Option<Match> = None;
        while i > 0 && j > 0 {
            if self.a[i - 1] == self.b[j - 1] {
                (i, j) = (i - 1, j - 1);
                text.push(self.a[i]);
                let grown = piece.get_or_insert(Match { a: (i, i), b: (j, j) });
                (grown.a.0, grown.b.0) = (i, j);
            } else {
                matches.extend(piece.take());
                if self.is_up(i - 1, j - 1) { i -= 1 } else { j -= 1 }
            }
        }
        matches.extend(piece);
        text.reverse();
        (text, matches)
    }

    fn is_up(&self, row: usize, column: usize) -> bool {
        self.up[row * words(self.b.len()) + column / 64] >> (column % 64) & 1 == 1
    }
}

/// Words of bits in a row.
fn words(columns: usize) -> usize {
    columns.div_ceil(64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn done<'a>(a: &'a [u8], b: &'a [u8], pairs: usize) -> Lcs<'a> {
        let mut lcs = Lcs::new(a, b);
        while lcs.fill(pairs) {}
        lcs
    }

    #[test]
    fn the_example_of_the_documentation_is_found_in_the_same_pieces() {
        let lcs = done(b"ohmytext", b"mynewtext", 1);
        let (text, matches) = lcs.trace();
        assert_eq!((&text[..], lcs.bytes()), (&b"mytext"[..], 6));
        assert_eq!(matches, [Match { a: (4, 7), b: (5, 8) }, Match { a: (2, 3), b: (0, 1) }]);
        assert_eq!(matches[0].bytes(), 4);
    }

    #[test]
    fn values_that_share_no_byte_have_no_subsequence() {
        for (a, b) in [(&b""[..], &b""[..]), (b"", b"x"), (b"x", b""), (b"ab", b"cd")] {
            let lcs = done(a, b, 100);
            assert_eq!((lcs.bytes(), lcs.trace()), (0, (vec![], vec![])));
        }
    }

    #[test]
    fn the_size_of_a_table_is_redis_own() {
        assert_eq!(Lcs::table_bytes(0, 0), Some(4));
        assert_eq!(Lcs::table_bytes(9, 19), Some(10 * 20 * 4));
        assert_eq!(Lcs::table_bytes(u32::MAX as usize, 1), None);
    }

    proptest! {
        #[test]
        fn it_is_a_subsequence_of_both_in_pieces_and_no_longer_one_is_told(
            a in prop::collection::vec(0u8..4, 0..90),
            b in prop::collection::vec(0u8..4, 0..90),
            pairs in 1usize..500,
        ) {
            let lcs = done(&a, &b, pairs);
            let (text, matches) = lcs.trace();
            let joined = |side: fn(&Match) -> (usize, usize), of: &[u8]| -> Vec<u8> {
                matches.iter().rev().flat_map(|m| of[side(m).0..=side(m).1].to_vec()).collect()
            };
            prop_assert_eq!(text.len(), lcs.bytes());
            prop_assert_eq!(&joined(|m| m.a, &a), &text);
            prop_assert_eq!(&joined(|m| m.b, &b), &text);
            // The textbook's table.
            let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
            for i in 1..=a.len() {
                for j in 1..=b.len() {
                    table[i][j] =
                        if a[i - 1] == b[j - 1] { table[i - 1][j - 1] + 1 } else { table[i - 1][j].max(table[i][j - 1]) };
                }
            }
            prop_assert_eq!(lcs.bytes(), table[a.len()][b.len()]);
        }
    }
}
