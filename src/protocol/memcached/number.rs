//! Numbers in commands, as memcached 1.6.45 takes them. Most are digits and nothing else, within a length and a range. Flags and deadlines of
//! the text protocol's storing commands are still what C's functions read from the front of a word, with a blank or nothing behind it, cut to
//! the width of its variable. Tested below.

use crate::base::number::unsigned_prefix;

/// Longest number of 32 bits, leading zeros and sign included.
const NARROW_BYTES_MAX: usize = 11;
/// The same of 64 bits.
const WIDE_BYTES_MAX: usize = 22;

/// Unsigned, of 64 bits.
pub(super) fn u64_of(word: &[u8]) -> Option<u64> {
    if !(1..=WIDE_BYTES_MAX).contains(&word.len()) || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    word.iter().try_fold(0u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// Unsigned, of 32 bits.
pub(super) fn u32_of(word: &[u8]) -> Option<u32> {
    let word = Some(word).filter(|word| word.len() <= NARROW_BYTES_MAX)?;
    u64_of(word).and_then(|number| u32::try_from(number).ok())
}

/// Of 32 bits, with a minus or none. A minus alone is 0.
pub(super) fn i32_of(word: &[u8]) -> Option<i32> {
    let word = Some(word).filter(|word| word.len() <= NARROW_BYTES_MAX)?;
    match word {
        b"-" => Some(0),
        [b'-', digits @ ..] => 0i64.checked_sub_unsigned(u64_of(digits)?).and_then(|number| i32::try_from(number).ok()),
        digits => u64_of(digits).and_then(|number| i32::try_from(number).ok()),
    }
}

/// `safe_strtoul`, into 32 bits.
pub(super) fn loose_u32(word: &[u8]) -> Option<u32> {
    unsigned_prefix(word).map(|number| number as u32)
}

/// `safe_strtol`, into 32 bits.
pub(super) fn loose_i32(word: &[u8]) -> Option<i32> {
    let begin = word.iter().position(|byte| !matches!(byte, b' ' | b'\t'..=b'\r'))?;
    let word = &word[begin..];
    if let Some(digits) = word.strip_prefix(b"-") {
        if !digits.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        return 0i64.checked_sub_unsigned(unsigned_prefix(digits)?).map(|number| number as i32);
    }
    i64::try_from(unsigned_prefix(word)?).ok().map(|number| number as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_within_a_range_and_a_length() {
        for (word, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("-1", Some(-1)),
            ("-0", Some(0)),
            ("-", Some(0)),
            ("2147483647", Some(i32::MAX)),
            ("2147483648", None),
            ("-2147483648", Some(i32::MIN)),
            ("-2147483649", None),
            ("00000000001", Some(1)),
            ("000000000001", None),
            ("+5", None),
            ("1\tx", None),
            ("1x", None),
            ("--1", None),
            ("", None),
        ] {
            assert_eq!(i32_of(word.as_bytes()), expected, "{word}");
        }
        assert_eq!((u32_of(b"4294967295"), u32_of(b"4294967296"), u32_of(b"-1")), (Some(u32::MAX), None, None));
        assert_eq!((u64_of(b"18446744073709551615"), u64_of(b"18446744073709551616")), (Some(u64::MAX), None));
        assert_eq!((u64_of(&[b'0'; 22]), u64_of(&[b'0'; 23]), u64_of(b"")), (Some(0), None, None));
    }

    #[test]
    fn loose_numbers_are_cut_to_their_width() {
        for (word, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("+5", Some(5)),
            ("2147483648", Some(i32::MIN)),
            ("4294967297", Some(1)),
            ("-9223372036854775808", Some(0)),
            ("-9223372036854775809", None),
            ("9223372036854775808", None),
            ("1\tx", Some(1)),
            ("1x", None),
            ("--1", None),
            ("-+1", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(loose_i32(word.as_bytes()), expected, "{word}");
        }
        assert_eq!(loose_u32(b"4294967296"), Some(0));
        assert_eq!((loose_u32(b"-1"), loose_u32(b"-4294967297")), (None, None));
    }
}
