//! Numbers as Redis reads and writes them: 64-bit integers to the letter, decimals without the noise of binary fractions. Tested below.
//!
//! Redis adds floats in 80-bit `long double` and prints `%.17Lf` without trailing zeros. Here sums are exact in decimal, to 17 places, while
//! they stay below 10^20 in size; that prints what Redis prints except where its own binary noise reaches the 17th place (about from 100 on,
//! where 100.1 + 0.1 shows as 100.19999999999999999 or the like there, as 100.2 here). Beyond that range both fall back to binary: 80 bits
//! there, `f64` here.

/// The integer that `text` is, in the one spelling Redis accepts (its `string2ll`): no sign but `-`, no leading zero, nothing around it.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    canonical.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

const PLACES: usize = 17;
const ONE: i128 = 10i128.pow(PLACES as u32);
/// Sums of two numbers below this cannot overflow.
const EXACT_MAX: i128 = 10i128.pow(20) * ONE;

/// A decimal number on its way through an addition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decimal {
    /// In units of 10^-17.
    Exact(i128),
    /// Too large or too finely divided for that.
    Binary(f64),
}

impl Decimal {
    pub(super) const ZERO: Self = Self::Exact(0);

    /// The number that `text` is, as `strtold` would take it when nothing surrounds it: not empty, no blanks, not NaN. Hexadecimal is refused,
    /// which Redis would take.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let binary: f64 = text.parse().ok().filter(|number: &f64| !number.is_nan())?;
        if binary.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) {
            return None; // out of range, which `strtold` reports
        }
        Some(exact(text).map_or(Self::Binary(binary), Self::Exact))
    }

    /// The sum with `by`, which is taken as the shortest decimal that reads as it.
    pub(super) fn plus(self, by: f64) -> Self {
        let by_exact = if by.is_finite() { exact(ryu::Buffer::new().format_finite(by)) } else { None };
        match (self, by_exact) {
            (Self::Exact(a), Some(b)) => Self::Exact(a + b),
            (Self::Exact(a), None) => Self::Binary(a as f64 / ONE as f64 + by),
            (Self::Binary(a), _) => Self::Binary(a + by),
        }
    }

    /// Plain decimal notation, at most 17 places, no trailing zeros; `None` when not finite.
    pub(super) fn to_text(self) -> Option<String> {
        let text = match self {
            Self::Exact(n) => {
                let sign = if n < 0 { "-" } else { "" };
                let n = n.unsigned_abs();
                format!("{sign}{}.{:017}", n / ONE.unsigned_abs(), n % ONE.unsigned_abs())
            }
            Self::Binary(n) if n.is_finite() => format!("{n:.PLACES$}"),
            Self::Binary(_) => return None,
        };
        let text = text.trim_end_matches('0').trim_end_matches('.');
        Some(if text == "-0" { "0" } else { text }.to_owned())
    }
}

/// `text`, a number, in units of 10^-17 if it is a multiple of them and small enough.
fn exact(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mut number, mut places, mut after_point) = (0i128, 0i32, false);
    for byte in digits {
        match byte {
            b'.' => after_point = true,
            b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                places += i32::from(after_point);
            }
            _ => return None,
        }
    }
    let shift = (PLACES as i32).checked_add(exponent)?.checked_sub(places)?;
    let factor = 10i128.checked_pow(shift.unsigned_abs());
    let scaled = match (shift >= 0, number, factor) {
        (_, 0, _) => 0,
        (true, number, factor) => number.checked_mul(factor?)?,
        (false, number, factor) => factor.filter(|factor| number % factor == 0).map(|factor| number / factor)?,
    };
    (scaled < EXACT_MAX).then_some(if negative { -scaled } else { scaled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_spelling() {
        for text in ["0", "7", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(integer(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for text in ["", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "9223372036854775808", "1e3", "\u{661}"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn sums_print_as_redis_prints_them() {
        for (text, by, sum) in [
            ("10.5", 0.1, "10.6"),
            ("5.0e3", 2.0e2, "5200"),
            ("3", 1.1, "4.1"),
            ("0.1", 0.2, "0.3"),
            ("-5", 5.0, "0"),
            ("3.0", -4.5, "-1.5"),
            ("0", 1e-17, "0.00000000000000001"),
            ("1e15", 0.5, "1000000000000000.5"),
            (".5", 0.0, "0.5"),
            ("1.", 0.25, "1.25"),
            ("1e21", 0.0, "1000000000000000000000"),
        ] {
            assert_eq!(Decimal::parse(text.as_bytes()).unwrap().plus(by).to_text().unwrap(), sum, "{text} + {by}");
        }
        assert_eq!(Decimal::parse(b"inf").unwrap().plus(1.0).to_text(), None);
        assert_eq!(Decimal::ZERO.plus(f64::INFINITY).to_text(), None);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", " 1", "1 ", "abc", "nan", "1e999", "1..2", "--1", "1e"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text}");
        }
    }
}
