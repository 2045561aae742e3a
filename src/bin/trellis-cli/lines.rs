//! Keys and values as lines of JSON: `{"key":"k","value":"v","ttl_ms":1000,"flags":1}`. What is no text, or shorter so, is `key_base64`,
//! `value_base64`. Reads and writes them; never opens a file. Tested below.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use trellis::client::Item;
use trellis::protocol::base64;

/// A key as a line has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) ttl: Option<Duration>,
    pub(crate) flags: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    flags: u32,
}

fn is_zero(flags: &u32) -> bool {
    *flags == 0
}

/// The line of an item, without its end.
pub(crate) fn of_item(key: &[u8], item: &Item) -> String {
    let (key, key_base64) = text_or_base64(key);
    let (value, value_base64) = text_or_base64(&item.value);
    let ttl_ms = item.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
    let line = Line { key, key_base64, value, value_base64, ttl_ms, flags: item.flags };
    serde_json::to_string(&line).expect("text and numbers make JSON")
}

fn text_or_base64(bytes: &[u8]) -> (Option<std::borrow::Cow<'_, str>>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if json_bytes(bytes) <= base64_bytes(bytes) => (Some(text.into()), None),
        _ => (None, Some(base64::encode(bytes))),
    }
}

/// Bytes of a text in JSON, without its quotes: RFC 8259, section 7.
fn json_bytes(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.iter().map(escaped).sum()
}

/// The same in base64, with what its name is longer.
fn base64_bytes(bytes: &[u8]) -> usize {
    "_base64".len() + bytes.len().div_ceil(3) * 4
}

/// Reads a line.
///
/// # Errors
/// Why it is none, in words.
pub(crate) fn read(line: &[u8]) -> Result<Entry, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let bytes = |what: &str, text: Option<std::borrow::Cow<'_, str>>, encoded: Option<String>| match (text, encoded) {
        (Some(text), None) => Ok(Bytes::from(text.into_owned())),
        (None, Some(encoded)) if encoded.is_empty() => Ok(Bytes::new()),
        (None, Some(encoded)) => {
            base64::decode(encoded.as_bytes()).map(Bytes::from).ok_or(format!("`{what}_base64` is no base64"))
        }
        (None, None) => Err(format!("neither `{what}` nor `{what}_base64`")),
        (Some(_), Some(_)) => Err(format!("both `{what}` and `{what}_base64`")),
    };
    let ttl = match line.ttl_ms {
        Some(0) => return Err("a key needs some time to live".into()),
        Some(ms) if i64::try_from(ms).is_err() => return Err("`ttl_ms` is too large".into()),
        ttl_ms => ttl_ms.map(Duration::from_millis),
    };
    Ok(Entry {
        key: bytes("key", line.key, line.key_base64)?,
        value: bytes("value", line.value, line.value_base64)?,
        ttl,
        flags: line.flags,
    })
}

/// Bytes among other JSON: text, or `{"base64": ...}`.
pub(crate) fn json_of(bytes: &[u8]) -> Json {
    std::str::from_utf8(bytes).map_or_else(|_| json!({ "base64": base64::encode(bytes) }), Json::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trellis::client::Version;

    fn item(value: &[u8], ttl_ms: Option<u64>) -> Item {
        let ttl = ttl_ms.map(Duration::from_millis);
        Item { value: Bytes::copy_from_slice(value), version: Version::ZERO, ttl, flags: 0 }
    }

    #[test]
    fn what_was_written_reads_back() {
        let values: [&[u8]; 6] = [b"", b"v", "\u{1F600}\n\"".as_bytes(), b"\xff\0", b"\r\n", &[0; 99]];
        for key in values {
            for value in values {
                for ttl_ms in [None, Some(1), Some(99_999)] {
                    let flags = ttl_ms.map_or(0, |_| u32::MAX);
                    let line = of_item(key, &Item { flags, ..item(value, ttl_ms) });
                    assert!(!line.contains('\n'), "{line}");
                    let ttl = ttl_ms.map(Duration::from_millis);
                    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                    assert_eq!(read(line.as_bytes()), Ok(Entry { key, value, ttl, flags }), "{line}");
                }
            }
        }
        assert_eq!(of_item(b"k", &item(b"v", Some(5))), r#"{"key":"k","value":"v","ttl_ms":5}"#);
        assert_eq!(of_item(b"k", &item(b"\xff", None)), r#"{"key":"k","value_base64":"/w=="}"#);
        // What has less than a millisecond left still goes.
        assert!(of_item(b"k", &item(b"", Some(0))).contains("\"ttl_ms\":1"));
    }

    #[test]
    fn no_line_is_longer_than_base64_makes_it() {
        for unit in ["\u{1}", "\n", "\"", "\\", "\u{7f}", "\u{80}", "\u{2028}", "a"] {
            let value = unit.repeat(3000);
            let line = of_item(b"k", &item(value.as_bytes(), None));
            let value_bytes = line.len() - r#"{"key":"k","value":""}"#.len();
            assert_eq!(value_bytes, json_bytes(value.as_bytes()).min(base64_bytes(value.as_bytes())), "{unit:?}");
        }
    }

    #[test]
    fn a_line_that_is_none_says_why() {
        for (line, why) in [
            ("", "EOF"),
            ("[]", "invalid"),
            ("{}", "neither `key`"),
            (r#"{"key":"k"}"#, "neither `value`"),
            (r#"{"key":"k","key_base64":"aw==","value":"v"}"#, "both `key`"),
            (r#"{"key":"k","value_base64":"x"}"#, "no base64"),
            (r#"{"key":"k","value":1}"#, "invalid type"),
            (r#"{"key":"k","value":"v","ttl_ms":0}"#, "some time"),
            (r#"{"key":"k","value":"v","ttl":"5s"}"#, "unknown field `ttl`"),
            (r#"{"key":"k","value":"v"} x"#, "trailing"),
        ] {
            let told = read(line.as_bytes()).unwrap_err();
            assert!(told.contains(why), "{line}: {told}");
        }
    }
}
