//! Replies as people read them, by type, the way `redis-cli` shows them on a terminal; and the same as JSON. Tested below.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

use trellis::client::Value;

use super::lines::json_of;

/// A reply in lines for people, without the last line end.
pub(crate) fn show(reply: &Value) -> String {
    let mut out = String::new();
    typed(reply, 0, &mut out);
    out
}

/// Replies nest as deep as they were read, which is bounded.
fn typed(reply: &Value, indent: usize, out: &mut String) {
    let _ = match reply {
        Value::Null => write!(out, "(nil)"),
        Value::Simple(text) | Value::Verbatim(text) => write!(out, "{}", String::from_utf8_lossy(text).trim_end()),
        Value::Int(n) => write!(out, "(integer) {n}"),
        Value::Bulk(bytes) => write!(out, "{}", quoted(bytes)),
        Value::Error(line) => write!(out, "(error) {}", String::from_utf8_lossy(line)),
        Value::Double(n) => write!(out, "(double) {n}"),
        Value::Bool(truth) => write!(out, "({truth})"),
        Value::Array(values) | Value::Set(values) | Value::Push(values) if values.is_empty() => {
            write!(out, "(empty array)")
        }
        Value::Map(pairs) if pairs.is_empty() => write!(out, "(empty map)"),
        Value::Array(values) | Value::Push(values) => return numbered(values, ')', indent, out),
        Value::Set(values) => return numbered(values, '~', indent, out),
        Value::Map(pairs) => {
            for (n, (key, value)) in pairs.iter().enumerate() {
                head(n, pairs.len(), '#', indent, out);
                typed(key, 0, out);
                out.push_str(" => ");
                typed(value, indent + width(pairs.len()) + 2, out);
            }
            return;
        }
    };
}

fn width(count: usize) -> usize {
    count.to_string().len()
}

fn head(n: usize, count: usize, mark: char, indent: usize, out: &mut String) {
    if n > 0 {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
    }
    let _ = write!(out, "{:>1$}{mark} ", n + 1, width(count));
}

fn numbered(values: &[Value], mark: char, indent: usize, out: &mut String) {
    for (n, value) in values.iter().enumerate() {
        head(n, values.len(), mark, indent, out);
        typed(value, indent + width(values.len()) + 2, out);
    }
}

/// Bytes in double quotes, in the escapes that the prompt takes back.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in bytes {
        let _ = match byte {
            b'"' | b'\\' => write!(out, "\\{}", char::from(*byte)),
            b'\n' => write!(out, "\\n"),
            b'\r' => write!(out, "\\r"),
            b'\t' => write!(out, "\\t"),
            0x07 => write!(out, "\\a"),
            0x08 => write!(out, "\\b"),
            b' '..=b'~' => write!(out, "{}", char::from(*byte)),
            _ => write!(out, "\\x{byte:02x}"),
        };
    }
    out.push('"');
    out
}

/// A reply as JSON. A map whose keys are no text becomes a list of pairs.
pub(crate) fn json(reply: &Value) -> Json {
    match reply {
        Value::Null => Json::Null,
        Value::Simple(text) | Value::Verbatim(text) | Value::Bulk(text) => json_of(text),
        Value::Int(n) => (*n).into(),
        Value::Error(line) => serde_json::json!({ "error": String::from_utf8_lossy(line) }),
        Value::Double(n) => serde_json::Number::from_f64(*n).map_or_else(|| n.to_string().into(), Json::Number),
        Value::Bool(truth) => (*truth).into(),
        Value::Array(values) | Value::Set(values) | Value::Push(values) => values.iter().map(json).collect(),
        Value::Map(pairs) => {
            let named = |(key, value): &(Value, Value)| match json(key) {
                Json::String(name) => Some((name, json(value))),
                _ => None,
            };
            let map: Option<Map<String, Json>> = pairs.iter().map(named).collect();
            map.map_or_else(
                || pairs.iter().map(|(key, value)| Json::from(vec![json(key), json(value)])).collect(),
                Json::from,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use trellis::protocol::resp::inline;

    #[test]
    fn replies_show_their_types() {
        for (reply, shown) in [
            (Value::OK, "OK"),
            (Value::Null, "(nil)"),
            (Value::Int(-3), "(integer) -3"),
            (Value::bulk("a \"b\"\n"), r#""a \"b\"\n""#),
            (Value::error("ERR no"), "(error) ERR no"),
            (Value::Bool(true), "(true)"),
            (Value::Array(vec![]), "(empty array)"),
            (Value::Array(vec![Value::Int(1), Value::bulk("b")]), "1) (integer) 1\n2) \"b\""),
            (
                Value::Array(vec![Value::bulk("0"), Value::Array(vec![Value::bulk("a"), Value::bulk("b")])]),
                "1) \"0\"\n2) 1) \"a\"\n   2) \"b\"",
            ),
            (Value::Map(vec![(Value::simple("a"), Value::Int(1))]), "1# a => (integer) 1"),
        ] {
            assert_eq!(show(&reply), shown);
        }
        let ten = Value::Array(vec![Value::Null; 10]);
        assert!(show(&ten).starts_with(" 1) (nil)\n") && show(&ten).ends_with("\n10) (nil)"));
    }

    #[test]
    fn replies_are_json_of_their_types() {
        let text = |reply: Value| json(&reply).to_string();
        assert_eq!(text(Value::Array(vec![Value::Null, Value::Int(1), Value::bulk("a")])), r#"[null,1,"a"]"#);
        assert_eq!(text(Value::Bulk(Bytes::from_static(b"\xff"))), r#"{"base64":"/w=="}"#);
        assert_eq!(text(Value::Map(vec![(Value::bulk("k"), Value::Double(0.5))])), r#"{"k":0.5}"#);
        assert_eq!(text(Value::Map(vec![(Value::Int(1), Value::Bool(true))])), "[[1,true]]");
        assert_eq!(text(Value::error("ERR x")), r#"{"error":"ERR x"}"#);
    }

    proptest! {
        #[test]
        fn what_is_shown_in_quotes_can_be_typed(bytes: Vec<u8>) {
            let args = inline::split(quoted(&bytes).as_bytes()).unwrap();
            prop_assert_eq!(&args[..], &[Bytes::from(bytes)][..]);
        }
    }
}
