//! A whole answer as a value: what a connection says itself, and what a client reads. Knows how each looks in RESP2 and RESP3; never
//! parses (that is `read`). Tested below.

use bytes::Bytes;

use super::encode::{bulk, header, integer, line, null};
use crate::base::reply::{ReplyKind, Wire};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A status line.
    Simple(Bytes),
    /// An integer.
    Int(i64),
    /// Bytes.
    Bulk(Bytes),
    /// An error line, first word included. Made by [`Value::error`], which keeps line ends out.
    Error(Bytes),
    /// Values in order.
    Array(Vec<Value>),
    /// Pairs in order; a flat array in RESP2.
    Map(Vec<(Value, Value)>),
    /// Distinct values; an array in RESP2.
    Set(Vec<Value>),
    /// Something not asked for; an array in RESP2.
    Push(Vec<Value>),
    /// A number; a bulk string in RESP2.
    Double(f64),
    /// A truth; 1 or 0 in RESP2.
    Bool(bool),
    /// Plain text for people; a bulk string in RESP2.
    Verbatim(Bytes),
}

impl Value {
    /// `+OK`.
    pub const OK: Self = Self::Simple(Bytes::from_static(b"OK"));

    /// A status.
    pub fn simple(text: &'static str) -> Self {
        Self::Simple(Bytes::from_static(text.as_bytes()))
    }

    /// A bulk string of fixed text.
    pub fn bulk(text: &'static str) -> Self {
        Self::Bulk(Bytes::from_static(text.as_bytes()))
    }

    /// An error. Line ends inside become spaces and those after it go, as in Redis: an echoed argument can't forge a reply.
    pub fn error(text: impl Into<Bytes>) -> Self {
        Self::Error(error_line(text.into()))
    }

    /// What it is, in the few words a router needs.
    pub fn kind(&self) -> ReplyKind {
        match self {
            Self::Int(n) => ReplyKind::Int(*n),
            Self::Error(_) => ReplyKind::Error,
            Self::Null => ReplyKind::Null,
            _ => ReplyKind::Value,
        }
    }

    /// Appends its bytes to `out`. Our own answers are a few levels deep and read ones are bounded, so recursion is.
    pub fn encode(&self, wire: Wire, out: &mut Vec<u8>) {
        let resp3 = wire != Wire::Resp2;
        match self {
            Self::Null => out.extend_from_slice(null(wire)),
            Self::Simple(text) => line(out, b'+', text),
            Self::Int(n) => integer(out, *n),
            Self::Bulk(value) => bulk(out, value),
            Self::Error(text) => line(out, b'-', text),
            Self::Array(values) => sequence(b'*', values, wire, out),
            Self::Set(values) => sequence(if resp3 { b'~' } else { b'*' }, values, wire, out),
            Self::Push(values) => sequence(if resp3 { b'>' } else { b'*' }, values, wire, out),
            Self::Map(pairs) => {
                match wire {
                    Wire::Resp2 => header(out, b'*', pairs.len() * 2),
                    Wire::Resp3 | Wire::Item => header(out, b'%', pairs.len()),
                }
                for (key, value) in pairs {
                    key.encode(wire, out);
                    value.encode(wire, out);
                }
            }
            Self::Double(number) if resp3 => line(out, b',', double(*number).as_bytes()),
            Self::Double(number) => bulk(out, double(*number).as_bytes()),
            Self::Bool(truth) if resp3 => line(out, b'#', if *truth { b"t" } else { b"f" }),
            Self::Bool(truth) => integer(out, i64::from(*truth)),
            Self::Verbatim(text) if resp3 => {
                header(out, b'=', text.len() + 4);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Self::Verbatim(text) => bulk(out, text),
        }
    }
}

fn sequence(kind: u8, values: &[Value], wire: Wire, out: &mut Vec<u8>) {
    header(out, kind, values.len());
    for value in values {
        value.encode(wire, out);
    }
}

/// The shortest text that reads back as `number`.
fn double(number: f64) -> String {
    if number.is_nan() { "nan".to_owned() } else { number.to_string() }
}

/// `text` as one line.
pub(super) fn error_line(text: Bytes) -> Bytes {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    if !text.iter().any(is_end) {
        return text;
    }
    let trimmed = match text.iter().rposition(|byte| !is_end(byte)) {
        Some(last) => &text[..=last],
        None => &[],
    };
    trimmed.iter().map(|byte| if is_end(byte) { b' ' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(value: &Value) -> (String, String) {
        let text = |wire| {
            let mut out = Vec::new();
            value.encode(wire, &mut out);
            String::from_utf8(out).unwrap()
        };
        (text(Wire::Resp2), text(Wire::Resp3))
    }

    #[test]
    fn version_two_flattens_what_version_three_names() {
        for (value, resp2, resp3) in [
            (Value::Null, "$-1\r\n", "_\r\n"),
            (Value::OK, "+OK\r\n", "+OK\r\n"),
            (Value::Map(vec![(Value::bulk("a"), Value::Int(1))]), "*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n$1\r\na\r\n:1\r\n"),
            (Value::Set(vec![Value::simple("x")]), "*1\r\n+x\r\n", "~1\r\n+x\r\n"),
            (Value::Push(vec![]), "*0\r\n", ">0\r\n"),
            (Value::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (Value::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
            (Value::Bool(true), ":1\r\n", "#t\r\n"),
            (Value::Verbatim("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
        ] {
            assert_eq!(both(&value), (resp2.to_owned(), resp3.to_owned()));
        }
    }

    #[test]
    fn an_error_stays_on_one_line() {
        assert_eq!(Value::error("ERR a\r\nb\r\n"), Value::Error("ERR a  b".into()));
        assert_eq!(Value::error("\r\n"), Value::Error(Bytes::new()));
    }
}
