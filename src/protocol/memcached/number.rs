//! Numbers in commands, as memcached's `safe_strtol` and its sisters take them: what C's functions read from the front of a word, with a
//! blank or nothing behind it, cut to the width of its variable. Tested below.

use crate::base::number::unsigned_prefix;

/// `safe_strtoull`.
pub(super) fn u64_of(word: &[u8]) -> Option<u64> {
    unsigned_prefix(word)
}

/// `safe_strtoul`, into 32 bits.
pub(super) fn u32_of(word: &[u8]) -> Option<u32> {
    unsigned_prefix(word).map(|number| number as u32)
}

/// `safe_strtol`, into 32 bits.
pub(super) fn i32_of(word: &[u8]) -> Option<i32> {
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
    fn numbers_are_cut_to_their_width() {
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
            assert_eq!(i32_of(word.as_bytes()), expected, "{word}");
        }
        assert_eq!(u32_of(b"4294967296"), Some(0));
        assert_eq!((u32_of(b"-1"), u32_of(b"-4294967297")), (None, None));
        assert_eq!(u64_of(b"18446744073709551615"), Some(u64::MAX));
    }
}
