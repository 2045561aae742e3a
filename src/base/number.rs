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
    fn integers_are_strict() {
        for bad in
            ["", "-", "+1", "01", "-0", " 1", "1 ", "1x", "1.0", "1e3", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(integer(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
    }
}
