//! Durations and sizes as people write them: `500ms`, `60s`, `10m`, `2h`; `512kb`, `64mb`, `1gb`, or plain bytes. Sizes mean what they mean
//! in a `redis.conf`. Whole numbers only, so that a text has one meaning. Never guesses a unit. Tested below.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// As Redis has them, `k` a thousand and `kb` 1024; `tb` on top.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1 << 10),
    ("m", 1_000_000),
    ("mb", 1 << 20),
    ("g", 1_000_000_000),
    ("gb", 1 << 30),
    ("tb", 1 << 40),
];

/// Reads a duration. `0` needs no unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    scaled(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// Reads a duration whose unit may be left out for milliseconds, as in `--heartbeat-interval 500`.
pub fn parse_duration_or_ms(text: &str) -> Option<Duration> {
    scaled(text, &[("", 1)]).map(Duration::from_millis).or_else(|| parse_duration(text))
}

/// Reads a size in bytes; `kb`, `mb`, `gb` and `tb` are powers of 1024, `k`, `m` and `g` of 1000, in either case.
pub fn parse_size(text: &str) -> Option<u64> {
    scaled(text, &SIZE_UNITS)
}

/// Digits, then exactly one of `units`; `None` also when the product does not fit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in
            [("500ms", 500), ("60s", 60_000), ("10m", 600_000), ("2h", 7_200_000), ("0", 0), ("0s", 0), ("5S", 5_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            " 1s",
            "1s ",
            "1d",
            "1sec",
            "+1s",
            "99999999999999999999ms",
            "9999999999999999h",
            "٣s",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn milliseconds_may_go_without_a_unit_where_the_option_says_so() {
        assert_eq!(parse_duration_or_ms("1000"), Some(Duration::from_secs(1)));
        assert_eq!(parse_duration_or_ms("2s"), Some(Duration::from_secs(2)));
        assert_eq!(parse_duration_or_ms("two"), None);
    }

    #[test]
    fn sizes_have_the_units_of_redis() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("7b", 7),
            ("512k", 512_000),
            ("100m", 100_000_000),
            ("1G", 1_000_000_000),
            ("512kb", 512 << 10),
            ("64mb", 64 << 20),
            ("1gb", 1 << 30),
            ("1GB", 1 << 30),
            ("2tb", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "kb", "m", "1t", "1kib", "1.5gb", "-1", "1 mb", "99999999999999999999", "99999999tb"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,24}") {
            let _ = (parse_duration(&text), parse_duration_or_ms(&text), parse_size(&text));
        }

        #[test]
        fn what_is_written_is_read(number in 0u64..1 << 20) {
            prop_assert_eq!(parse_size(&format!("{number}mb")), Some(number << 20));
            prop_assert_eq!(parse_duration(&format!("{number}s")), Some(Duration::from_secs(number)));
        }
    }
}
