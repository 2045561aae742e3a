//! `BITOP` on bytes. Values may be of different lengths: what is missing counts as zero. Never looks a value up. Tested below.

use crate::base::op::BitOp;

/// Combines what is at hand with another value. The first value of all begins: `None` is at hand.
pub fn combine(how: BitOp, at_hand: Option<Vec<u8>>, value: &[u8]) -> Vec<u8> {
    let Some(mut bytes) = at_hand else {
        return if how == BitOp::Not { value.iter().map(|byte| !byte).collect() } else { value.to_vec() };
    };
    if bytes.len() < value.len() {
        bytes.resize(value.len(), 0);
    }
    let (both, rest) = bytes.split_at_mut(value.len());
    let pairs = both.iter_mut().zip(value);
    match how {
        BitOp::And => {
            pairs.for_each(|(byte, other)| *byte &= other);
            rest.fill(0);
        }
        BitOp::Or => pairs.for_each(|(byte, other)| *byte |= other),
        BitOp::Xor => pairs.for_each(|(byte, other)| *byte ^= other),
        // It takes one value, so nothing is at hand; of more the last counts.
        BitOp::Not => return combine(how, None, value),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_values_end_in_zeros() {
        let of = |how, values: &[&[u8]]| {
            values.iter().fold(None, |at_hand, value| Some(combine(how, at_hand, value))).unwrap_or_default()
        };
        assert_eq!(of(BitOp::And, &[b"\xff\x0f", b"\x3c", b"\xff\xff\xff"]), b"\x3c\0\0");
        assert_eq!(of(BitOp::Or, &[b"\x01", b"\x02\x02", b""]), b"\x03\x02");
        assert_eq!(of(BitOp::Xor, &[b"\xff\xff", b"\x0f"]), b"\xf0\xff");
        assert_eq!(of(BitOp::And, &[b"", b"\xff"]), b"\0");
        assert_eq!(of(BitOp::Not, &[b"\x0f\xf0"]), b"\xf0\x0f");
        assert_eq!(of(BitOp::Not, &[b""]), b"");
    }
}
