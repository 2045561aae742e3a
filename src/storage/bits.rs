//! Bits of strings as Redis counts them: bit 0 is the highest of the first byte. Finds, counts, and reads and writes integers of any width at any
//! offset. Knows nothing of keys. Tested below.

use std::ops::Range;

use crate::base::bitfield::{Field, Overflow, Verb};
use crate::base::op::BitUnit;

/// The bit at an offset; 0 past the end.
pub(super) fn bit(value: &[u8], at: u64) -> bool {
    byte_of(value, at / 8) & mask_of(at) != 0
}

/// Sets the bit at an offset.
///
/// # Panics
/// Past the end.
pub(super) fn set_bit(value: &mut [u8], at: u64, on: bool) {
    let byte = &mut value[(at / 8) as usize];
    if on { *byte |= mask_of(at) } else { *byte &= !mask_of(at) }
}

fn byte_of(value: &[u8], at: u64) -> u8 {
    usize::try_from(at).ok().and_then(|at| value.get(at)).copied().unwrap_or(0)
}

fn mask_of(at: u64) -> u8 {
    0x80 >> (at % 8)
}

/// The bits from `start` to `end`, both inclusive and negative from the end, of a string of `len` bytes; `None` when there are none.
pub(super) fn span(len: usize, start: i64, end: i64, unit: BitUnit) -> Option<Range<u64>> {
    let width = if unit == BitUnit::Bit { 1 } else { 8 };
    let units = i64::try_from(len).ok()?.checked_mul(8)? / width;
    let from_end = |at: i64| if at < 0 { units.saturating_add(at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(units - 1));
    (start <= end).then(|| (start * width) as u64..((end + 1) * width) as u64)
}

/// The bytes that a span touches: the first, those between, and the last, with the bits outside the span cleared in the first and the last.
/// Where it touches one byte only, that is the first.
fn parts<'v>(value: &'v [u8], span: &Range<u64>) -> (u8, &'v [u8], u8) {
    let (first, last) = ((span.start / 8) as usize, ((span.end - 1) / 8) as usize);
    let (head, tail) = (0xff >> (span.start % 8), 0xff << (7 - (span.end - 1) % 8));
    if first == last {
        return (value[first] & head & tail, &[], 0);
    }
    (value[first] & head, &value[first + 1..last], value[last] & tail)
}

/// How many bits of a span, which is not empty and within the string, are 1.
pub(super) fn count(value: &[u8], span: &Range<u64>) -> u64 {
    let (first, between, last) = parts(value, span);
    let (words, rest) = between.as_chunks::<8>();
    let words: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    words + rest.iter().chain([&first, &last]).map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// The first bit in a span, which is not empty and within the string, that is `on`.
pub(super) fn position(value: &[u8], on: bool, span: &Range<u64>) -> Option<u64> {
    // In whole bytes that are all the other, there is none.
    let other = if on { 0x00 } else { 0xff };
    let in_byte = |at: u64| (at..span.end.min((at / 8 + 1) * 8)).find(|at| bit(value, *at) == on);
    if let Some(found) = in_byte(span.start) {
        return Some(found);
    }
    let first = (span.start / 8 + 1) as usize;
    let rest = value.get(first..span.end.div_ceil(8) as usize).unwrap_or(&[]);
    let (words, _) = rest.as_chunks::<8>();
    let skipped = words.iter().take_while(|word| **word == [other; 8]).count() * 8;
    let byte = rest[skipped..].iter().position(|byte| *byte != other)?;
    in_byte(((first + skipped + byte) * 8) as u64)
}

/// The `bits` bits from an offset as a number; those past the end are 0.
fn number(value: &[u8], offset: u64, bits: u8) -> u64 {
    let first = offset / 8;
    // Nine bytes hold 64 bits at any offset.
    let bytes = (0..9).fold(0u128, |bytes, n| bytes << 8 | u128::from(byte_of(value, first.saturating_add(n))));
    let number = bytes >> (72 - offset % 8 - u64::from(bits));
    (number & low_bits(bits)) as u64
}

/// Writes the lower `bits` bits of a number at an offset, all within the string.
fn put_number(value: &mut [u8], offset: u64, bits: u8, number: u64) {
    let (first, shift) = ((offset / 8) as usize, 72 - offset % 8 - u64::from(bits));
    let (mask, new) = (low_bits(bits) << shift, (u128::from(number) & low_bits(bits)) << shift);
    let bytes = value.iter_mut().skip(first).take(9).enumerate();
    for (n, byte) in bytes {
        let at = 64 - 8 * n;
        *byte = *byte & !((mask >> at) as u8) | (new >> at) as u8;
    }
}

fn low_bits(bits: u8) -> u128 {
    (1 << bits) - 1
}

/// What one operation of a `BITFIELD` answers, and whether the string has changed, which reaches as far as the operation if it may write.
pub(super) fn apply(field: &Field, value: &mut [u8]) -> (Option<i64>, bool) {
    let old = read(field, value);
    let (new, answers_new) = match field.verb {
        Verb::Get => return (Some(old), false),
        Verb::Set(number) => (fitted(field, number, 0), false),
        Verb::Add(by) => (fitted(field, old, by), true),
    };
    let Some(new) = new else { return (None, false) };
    put_number(value, field.offset, field.bits, new.cast_unsigned());
    (Some(if answers_new { new } else { old }), new != old)
}

/// The number in a field; bits past the end are 0.
pub(super) fn read(field: &Field, value: &[u8]) -> i64 {
    extended(number(value, field.offset, field.bits), field)
}

/// A field's bits as the number they stand for.
fn extended(bits: u64, field: &Field) -> i64 {
    let unused = 64 - u32::from(field.bits);
    if field.signed { (bits << unused).cast_signed() >> unused } else { bits.cast_signed() }
}

/// `number + by` as the field can hold it; `None` where that fails. The bounds are Redis's `checkSignedBitfieldOverflow` and
/// `checkUnsignedBitfieldOverflow`, which compute the room above and below a number in 64 bits: of a number that is out of range by nearly
/// that much it wraps, and saturates to the other end.
fn fitted(field: &Field, number: i64, by: i64) -> Option<i64> {
    let wrapped = extended(number.wrapping_add(by).cast_unsigned() & low_bits(field.bits) as u64, field);
    let max = (low_bits(field.bits - u8::from(field.signed)) as u64).cast_signed();
    let min = if field.signed { -max - 1 } else { 0 };
    let (above, below) = if field.signed {
        let (room_above, room_below) = (max.wrapping_sub(number), min.wrapping_sub(number));
        let narrow = field.bits < 64;
        (
            number > max || by > room_above && (narrow || number >= 0 && by > 0),
            number < min || by < room_below && (narrow || number < 0 && by < 0),
        )
    } else {
        // A negative number to be set is one above all, as the bits of it are.
        let over = number < 0 || number > max;
        (over || by > 0 && by > max - number, by < 0 && by < number.wrapping_neg())
    };
    match field.overflow {
        _ if !above && !below => Some(number + by),
        Overflow::Wrap => Some(wrapped),
        Overflow::Saturate => Some(if above { max } else { min }),
        Overflow::Fail => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_follow_the_rules_of_redis() {
        use BitUnit::{Bit, Byte};
        for (len, start, end, unit, expected) in [
            (3, 0, -1, Byte, Some(0..24)),
            (3, 1, 1, Byte, Some(8..16)),
            (3, -2, -1, Byte, Some(8..24)),
            (3, 5, -1, Byte, None),
            (3, 2, 1, Byte, None),
            (3, -100, -50, Byte, Some(0..8)),
            (3, 5, 30, Bit, Some(5..24)),
            (3, -3, -2, Bit, Some(21..23)),
            (3, i64::MIN, i64::MAX, Bit, Some(0..24)),
            (0, 0, -1, Byte, None),
            (0, 0, 0, Bit, None),
        ] {
            assert_eq!(span(len, start, end, unit), expected, "{len} {start} {end} {unit:?}");
        }
    }

    fn field(signed: bool, bits: u8, verb: Verb, overflow: Overflow) -> Field {
        Field { signed, bits, offset: 0, verb, overflow }
    }

    #[test]
    fn overflows_are_those_of_redis() {
        use Overflow::{Fail, Saturate, Wrap};
        for (signed, bits, number, by, [wrap, saturate], fails) in [
            (false, 8, 255, 1, [0, 255], true),
            (false, 8, 0, -1, [255, 0], true),
            (false, 8, -1, 0, [255, 255], true),
            (false, 8, 256, 0, [0, 255], true),
            (false, 8, 250, 5, [255, 255], false),
            (false, 63, i64::MAX, 1, [0, i64::MAX], true),
            (false, 63, i64::MIN, 0, [0, i64::MAX], true),
            (false, 1, 1, 1, [0, 1], true),
            (true, 8, 127, 1, [-128, 127], true),
            (true, 8, -128, -1, [127, -128], true),
            (true, 8, 128, 0, [-128, 127], true),
            (true, 8, -129, 0, [127, -128], true),
            // Redis's room above such a number wraps.
            (true, 8, i64::MIN, 0, [0, 127], true),
            (true, 64, i64::MAX, 1, [i64::MIN, i64::MAX], true),
            (true, 64, i64::MIN, -1, [i64::MAX, i64::MIN], true),
            (true, 64, i64::MIN, i64::MAX, [-1, -1], false),
            (true, 1, 0, 1, [-1, 0], true),
        ] {
            let of = |overflow| fitted(&field(signed, bits, Verb::Get, overflow), number, by);
            assert_eq!([of(Wrap), of(Saturate)], [Some(wrap), Some(saturate)], "{signed} {bits} {number} {by}");
            assert_eq!(of(Fail).is_none(), fails, "{signed} {bits} {number} {by}");
        }
    }

    /// The plainest way to have bits.
    fn bits_of(value: &[u8]) -> Vec<bool> {
        value.iter().flat_map(|byte| (0..8).map(move |n| byte & (0x80 >> n) != 0)).collect()
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            // Long runs of equal bytes, which are skipped.
            (prop::sample::select(vec![0u8, 0xff]), 0usize..40, any::<u8>(), 0usize..40)
                .prop_map(|(fill, before, odd, after)| [vec![fill; before], vec![odd], vec![fill; after]].concat()),
        ]
    }

    proptest! {
        #[test]
        fn counts_and_positions_are_those_of_single_bits(value in value(), start in -330i64..330, end in -330i64..330, is_bit: bool, on: bool) {
            let unit = if is_bit { BitUnit::Bit } else { BitUnit::Byte };
            if let Some(span) = span(value.len(), start, end, unit) {
                let bits = bits_of(&value);
                let inside = || bits[span.start as usize..span.end as usize].iter();
                prop_assert_eq!(count(&value, &span), inside().filter(|bit| **bit).count() as u64);
                let found = inside().position(|bit| *bit == on).map(|at| at as u64 + span.start);
                prop_assert_eq!(position(&value, on, &span), found);
            }
        }

        #[test]
        fn a_bit_that_is_set_is_read_and_no_other_changes(mut value in value(), at in 0u64..320, on: bool) {
            let mut bits = bits_of(&value);
            prop_assume!((at as usize) < bits.len());
            set_bit(&mut value, at, on);
            bits[at as usize] = on;
            prop_assert_eq!(bits_of(&value), bits);
            prop_assert_eq!(bit(&value, at), on);
            prop_assert!(!bit(&value, u64::MAX - at));
        }

        #[test]
        fn a_field_that_is_written_is_read_and_nothing_else_changes(
            mut value in value(),
            offset in 0u64..320,
            bits in 1u8..=63,
            signed: bool,
            new: i64,
        ) {
            let bits = bits + u8::from(signed);
            let field = Field { offset, ..field(signed, bits, Verb::Set(new), Overflow::Wrap) };
            let before = bits_of(&value);
            // Bits past the end are read as 0.
            let mut padded = value.clone();
            padded.resize(64, 0);
            prop_assert_eq!(read(&field, &value), read(&field, &padded));
            prop_assume!(field.end_bytes() as usize <= value.len());
            let old = read(&field, &value);
            let (answer, changed) = apply(&field, &mut value);
            let now = read(&field, &value);
            prop_assert_eq!((answer, changed), (Some(old), old != now));
            prop_assert_eq!(i128::from(now ^ new) & low_bits(bits) as i128, 0, "the lower bits are those given");
            let (from, to) = (offset as usize, offset as usize + usize::from(bits));
            let after = bits_of(&value);
            prop_assert_eq!(&after[..from], &before[..from]);
            prop_assert_eq!(&after[to..], &before[to..]);
        }

        #[test]
        fn sums_in_range_are_exact_and_others_as_the_overflow_says(bits in 1u8..=63, signed: bool, number: i64, by: i64) {
            let bits = bits + u8::from(signed);
            let held = extended(number.cast_unsigned() & low_bits(bits) as u64, &field(signed, bits, Verb::Get, Overflow::Wrap));
            let max = if signed { (1i128 << (bits - 1)) - 1 } else { (1i128 << bits) - 1 };
            let min = if signed { -max - 1 } else { 0 };
            let sum = i128::from(held) + i128::from(by);
            let fits = (min..=max).contains(&sum);
            let of = |overflow| fitted(&field(signed, bits, Verb::Get, overflow), held, by).map(i128::from);
            prop_assert_eq!(of(Overflow::Fail), fits.then_some(sum));
            prop_assert_eq!(of(Overflow::Saturate), Some(sum.clamp(min, max)));
            prop_assert_eq!(of(Overflow::Wrap), Some((sum - min).rem_euclid(max - min + 1) + min));
        }
    }
}
