//! Decimals as Redis reads, adds and writes them, without the noise of binary fractions. Integers are in `base::number`. Tested below.
//!
//! Redis adds floats in 80-bit `long double` and prints `%.17Lf` without trailing zeros. The same is done here in integers, digit for digit,
//! for numbers below 2^64 (the last digit may differ by one if a number has more places than are read); beyond that in `f64`, which differs
//! from the 16th significant digit on. Hexadecimal floats and numbers above 1.8e308, which Redis takes, are refused.

const PLACES: u32 = 17;
/// Digits after the point that are read; the rest only decides roundings.
const READ_PLACES: usize = 19;

/// A number as x86's 80-bit `long double` holds it, on its way through an addition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Extended {
    /// Below 2^64, never with more than 64 significant bits.
    Fixed {
        /// Below zero.
        negative: bool,
        /// In units of 2^-64.
        size: u128,
    },
    /// Too large for that.
    Binary(f64),
}

impl Extended {
    pub(super) const ZERO: Self = Self::Fixed { negative: false, size: 0 };

    /// The number that `text` is, as `strtold` would take it when nothing surrounds it: not empty, no blanks, not NaN, in range.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let binary: f64 = text.parse().ok().filter(|number: &f64| !number.is_nan())?;
        if binary.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
            return None; // out of range, which `strtold` reports
        }
        Some(fixed(text).unwrap_or(Self::Binary(binary)))
    }

    /// The sum.
    pub(super) fn plus(self, by: Self) -> Self {
        let sum = match (self, by) {
            (Self::Fixed { negative, size: a }, Self::Fixed { negative: other, size: b }) if negative == other => {
                a.checked_add(b).map(|size| (negative, size))
            }
            (Self::Fixed { negative, size: a }, Self::Fixed { size: b, .. }) => {
                Some((if a == b { false } else { negative == (a > b) }, a.abs_diff(b)))
            }
            _ => None,
        };
        let sum = sum.and_then(|(negative, size)| Some(Self::Fixed { negative, size: rounded(size, false)? }));
        sum.unwrap_or_else(|| Self::Binary(self.to_f64() + by.to_f64()))
    }

    fn to_f64(self) -> f64 {
        match self {
            Self::Fixed { negative, size } => {
                let size = size as f64 / (1u128 << 64) as f64;
                if negative { -size } else { size }
            }
            Self::Binary(n) => n,
        }
    }

    /// `%.17Lf` without trailing zeros; `None` when not finite.
    pub(super) fn to_text(self) -> Option<String> {
        let text = match self {
            Self::Fixed { negative, size: n } => {
                let sign = if negative { "-" } else { "" };
                let fraction = (n & u128::from(u64::MAX)) * 10u128.pow(PLACES);
                let (mut places, rest) = (fraction >> 64, fraction as u64);
                let half = 1 << 63;
                places += u128::from(rest > half || rest == half && places & 1 == 1);
                let carry = places / 10u128.pow(PLACES);
                format!("{sign}{}.{:017}", (n >> 64) + carry, places % 10u128.pow(PLACES))
            }
            Self::Binary(n) if n.is_finite() => format!("{n:.17}"),
            Self::Binary(_) => return None,
        };
        let text = text.trim_end_matches('0').trim_end_matches('.');
        Some(if text == "-0" { "0" } else { text }.to_owned())
    }
}

/// `size` rounded to 64 significant bits, ties to even; `sticky` says that it is a little more than it shows. `None` if that is 2^128.
fn rounded(size: u128, sticky: bool) -> Option<u128> {
    let bits = u128::BITS - size.leading_zeros();
    if bits <= 64 {
        return Some(size);
    }
    let drop = bits - 64;
    let (kept, rest, half) = (size >> drop, size & ((1 << drop) - 1), 1 << (drop - 1));
    let up = rest > half || rest == half && (sticky || kept & 1 == 1);
    (kept + u128::from(up)).checked_mul(1 << drop)
}

/// `text`, a decimal number, if it is below 2^64.
fn fixed(text: &str) -> Option<Extended> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok()?),
        None => (text, 0),
    };
    let unsigned = mantissa.trim_start_matches(['-', '+']);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The point moves by the exponent; digits before it make the whole part.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let digits = || whole.bytes().chain(fraction.bytes());
    let mut units = 0u64;
    let mut places = [0u8; READ_PLACES];
    let mut sticky = false;
    for (at, byte) in (0i64..).zip(digits()) {
        match usize::try_from(at - point) {
            Err(_) => units = units.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?,
            Ok(place) if place < READ_PLACES => places[place] = byte - b'0',
            Ok(_) => sticky |= byte != b'0',
        }
    }
    let missing = u32::try_from(point.saturating_sub(digits().count() as i64).max(0)).ok()?;
    if units > 0 {
        units = units.checked_mul(10u64.checked_pow(missing)?)?;
    }
    let scale = 10u128.pow(READ_PLACES as u32);
    let places = places.iter().fold(0u128, |sum, digit| sum * 10 + u128::from(*digit)) << 64;
    let size = rounded((u128::from(units) << 64) | (places / scale), sticky || places % scale != 0)?;
    Some(Extended::Fixed { negative: mantissa.starts_with('-'), size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str, by: &str) -> Option<String> {
        let parse = |text: &str| Extended::parse(text.as_bytes()).expect("a number");
        parse(text).plus(parse(by)).to_text()
    }

    #[test]
    fn sums_print_as_redis_prints_them() {
        for (text, by, sum) in [
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "1.1", "4.1"),
            ("0.1", "0.2", "0.3"),
            ("-5", "5.0", "0"),
            ("3.0", "-4.5", "-1.5"),
            ("0", "1e-17", "0.00000000000000001"),
            ("1e15", "0.5", "1000000000000000.5"),
            (".5", "0.0", "0.5"),
            ("1.", "0.25", "1.25"),
            ("1e21", "0.0", "1000000000000000000000"),
            ("12345678901234567000e-3", "0.0", "12345678901234567"),
            // Where 64 bits of mantissa show.
            ("100.1", "0.1", "100.2"),
            ("1000", "0.1", "1000.09999999999999998"),
            ("1000.1", "0.1", "1000.19999999999999996"),
            ("12345.678", "0.1", "12345.77799999999999958"),
            ("99999.9", "0.1", "100000"),
            ("123456789.1", "0.1", "123456789.19999999999708962"),
            ("-123456789.1", "-0.1", "-123456789.19999999999708962"),
            ("-13365.303", "-98.21", "-13463.5129999999999999"),
            ("80930.22", "99.2", "81029.42000000000000171"),
            // More digits than 53 bits hold.
            ("0", "9007199254740993", "9007199254740993"),
            ("0", "0.12345678901234567", "0.12345678901234567"),
            ("1e17", "0.1", "100000000000000000.1015625"),
            ("9223372036854775807", "0", "9223372036854775807"),
            ("9223372036854775807", "3.0e3", "9223372036854778807"),
            ("9223372036854775807", "-0.1", "9223372036854775807"),
            ("-9223372036854775808", "1", "-9223372036854775807"),
            ("9223372036854775807", "9223372036854775807", "18446744073709551614"),
            ("-0.0", "0", "0"),
            ("-3", "3", "0"),
        ] {
            assert_eq!(added(text, by).as_deref(), Some(sum), "{text} + {by}");
        }
        assert_eq!(added("inf", "1"), None);
        assert_eq!(added("0", "inf"), None);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", " 1", "1 ", "abc", "nan", "1e999", "1..2", "--1", "1e"] {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text}");
        }
    }
}
