//! Numbers in the arguments of commands. An integer is what `base::number` says, so that `INCR` and every option agree. Tested below.

pub use crate::base::number::integer;

/// A decimal number as `INCRBYFLOAT` takes it: no surrounding spaces, not NaN, no digits out of range. Infinity, by its name, is a number here;
/// adding it is what fails.
pub fn float(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let overflows = number.is_infinite() && text.iter().any(u8::is_ascii_digit);
    (!number.is_nan() && !overflows).then_some(number)
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
        fn any_bytes_are_taken_or_refused(text: Vec<u8>) {
            float(&text);
            cursor(&text);
        }
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
        for bad in ["nan", " 1", "1 ", "", "x", "1e99999"] {
            assert_eq!(float(bad.as_bytes()), None, "{bad}");
        }
    }
}
