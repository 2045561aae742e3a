//! Numbers as Redis reads them: strict, so that `INCR` and every option agree on what an integer is. Tested below.

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

/// A decimal number as `INCRBYFLOAT` takes it: no surrounding spaces, not NaN. Infinity is a number here; adding it is what fails.
pub fn float(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// A `SCAN` cursor as `strtoul` takes it: an optional sign, digits, possibly none; a negative one wraps.
pub fn cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return text.is_empty().then_some(0);
    }
    let number = digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_are_exactly_those_that_print_back(n: i64, text in "-?[0-9]{1,21}") {
            prop_assert_eq!(integer(n.to_string().as_bytes()), Some(n));
            let expected = text.parse::<i64>().ok().filter(|n| n.to_string() == text);
            prop_assert_eq!(integer(text.as_bytes()), expected);
        }

        #[test]
        fn any_bytes_are_a_number_or_none(text: Vec<u8>) {
            let plain = std::str::from_utf8(&text).ok().and_then(|t| t.parse::<i64>().ok().filter(|n| n.to_string() == t));
            prop_assert_eq!(integer(&text), plain);
            float(&text);
            cursor(&text);
        }
    }

    #[test]
    fn integers_are_strict() {
        for bad in ["", "-", "+1", "01", "-0", " 1", "1 ", "1x", "9223372036854775808", "-9223372036854775809"] {
            assert_eq!(integer(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
    }

    #[test]
    fn cursors_follow_strtoul() {
        assert_eq!(cursor(b""), Some(0));
        assert_eq!(cursor(b"-1"), Some(u64::MAX));
        assert_eq!(cursor(b"18446744073709551616"), None);
        assert_eq!(cursor(b" 1"), None);
    }

    #[test]
    fn floats_are_numbers_without_spaces() {
        assert_eq!(float(b"3.0e3"), Some(3000.0));
        assert_eq!(float(b"inf"), Some(f64::INFINITY));
        for bad in ["nan", " 1", "1 ", "", "x"] {
            assert_eq!(float(bad.as_bytes()), None, "{bad}");
        }
    }
}
