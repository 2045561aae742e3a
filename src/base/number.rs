//! What an integer is: the one spelling that Redis accepts, in arguments and in values. Never reads decimals. Tested below.

/// The refusal of what is none.
pub const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// A decimal `i64` as Redis's `string2ll` takes it: no sign but a leading `-`, no leading zeros, no spaces, nothing after it.
#[inline]
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut magnitude = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Nineteen digits fit 64 bits.
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    match negative {
        false => i64::try_from(magnitude).ok(),
        true => 0i64.checked_sub_unsigned(magnitude),
    }
}

/// The number that `text` begins with, as C's `strtoull` reads it and memcached takes it: blanks and a sign before it, and nothing or a blank
/// behind it. A minus turns the number round in 64 bits, unless that has its highest bit set, which is refused.
pub fn unsigned_prefix(text: &[u8]) -> Option<u64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let begin = text.iter().position(|byte| !is_blank(byte))?;
    let (negative, digits) = match &text[begin..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 || digits.get(end).is_some_and(|byte| !is_blank(byte) && *byte != 0) {
        return None;
    }
    let number = digits[..end]
        .iter()
        .try_fold(0u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    let number = if negative { number.wrapping_neg() } else { number };
    (!negative || number >> 63 == 0).then_some(number)
}

/// `number` in decimal, written to `digits`.
pub fn unsigned_text(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[begin..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_are_exactly_those_that_print_back(n: i64, digits in "-?[0-9]{1,21}", text: Vec<u8>) {
            prop_assert_eq!(integer(n.to_string().as_bytes()), Some(n));
            for text in [digits.as_bytes(), &text] {
                let expected = std::str::from_utf8(text).ok().and_then(|t| t.parse::<i64>().ok().filter(|n| n.to_string() == t));
                prop_assert_eq!(integer(text), expected);
            }
        }
    }

    #[test]
    fn unsigned_numbers_are_those_that_memcached_counts_in() {
        for (text, number) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            (" \t7", Some(7)),
            ("007 and more", Some(7)),
            ("7\r\n", Some(7)),
            ("7\0x", Some(7)),
            ("7x", None),
            ("+7", Some(7)),
            ("-0", Some(0)),
            ("-1", None),
            ("-18446744073709551615", Some(1)),
            ("- 1", None),
            ("", None),
            ("  ", None),
        ] {
            assert_eq!(unsigned_prefix(text.as_bytes()), number, "{text:?}");
        }
        for number in [0, 9, 10, u64::MAX] {
            assert_eq!(unsigned_text(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn integers_are_strict() {
        for bad in
            ["", "-", "+1", "01", "-0", " 1", "1 ", "1x", "1.0", "1e3", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(integer(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
    }
}
