//! Replies as a client reads them: bytes to [`Value`]s, incrementally, without recursion, bounded in depth and size. Used by our own
//! clients and tests; the server never parses replies. Tested below.

use bytes::{Buf, Bytes, BytesMut};

use super::{number, value::Value};
use crate::base::limits::INLINE_BYTES_MAX;

/// Arrays within arrays a reply may have; Redis's deepest is `COMMAND DOCS`.
pub const DEPTH_MAX: usize = 32;

/// Why a reply can't be read. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A reply of no known type.
    #[error("a reply begins with byte {0:#04x}")]
    Type(u8),
    /// A count, length or number that is none.
    #[error("a reply carries a malformed number")]
    Number,
    /// A line end is not where it belongs.
    #[error("a reply lacks a line end")]
    LineEnd,
    /// Larger than the caller allows, or nested deeper than [`DEPTH_MAX`].
    #[error("a reply is larger than allowed")]
    TooLarge,
}

/// Reads replies from one connection.
#[derive(Debug)]
pub struct ReplyReader {
    bytes_max: usize,
    /// Bytes of the reply under way that were consumed.
    consumed: usize,
    /// No line ends in the buffer before this.
    searched: usize,
    /// A bulk of this length is under way, of this type.
    bulk: Option<(u8, usize)>,
    open: Vec<Open>,
}

/// An aggregate that still lacks `left` values.
#[derive(Debug)]
struct Open {
    kind: u8,
    left: usize,
    values: Vec<Value>,
}

impl ReplyReader {
    /// A reader that refuses replies above `bytes_max`, memory for their values included.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, consumed: 0, searched: 0, bulk: None, open: Vec::new() }
    }

    /// The next reply, when `buf` holds the rest of it; its bytes are taken out. Between calls `buf` may only be appended to.
    ///
    /// # Errors
    /// [`ReplyError`]; the reader must not be used any more.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Value>, ReplyError> {
        loop {
            let Some(mut value) = self.value(buf)? else { return Ok(None) };
            loop {
                let Some(inner) = self.open.last_mut() else {
                    self.consumed = 0;
                    return Ok(Some(value));
                };
                inner.values.push(value);
                inner.left -= 1;
                if inner.left > 0 {
                    break;
                }
                let closed = self.open.pop().expect("it was just used");
                value = aggregate(closed.kind, closed.values);
            }
        }
    }

    /// The next value that is complete in itself; aggregates with content are opened on the way.
    fn value(&mut self, buf: &mut BytesMut) -> Result<Option<Value>, ReplyError> {
        loop {
            if let Some((kind, len)) = self.bulk {
                return self.bulk(buf, kind, len);
            }
            let Some(line) = self.line(buf)? else { return Ok(None) };
            let Some((kind, text)) = line.split_first() else { return Err(ReplyError::LineEnd) };
            match kind {
                b'+' | b'(' => return Ok(Some(Value::Simple(line.slice(1..)))),
                b'-' => return Ok(Some(Value::Error(line.slice(1..)))),
                b':' => return Ok(Some(Value::Int(number::integer(text).ok_or(ReplyError::Number)?))),
                b'_' => return Ok(Some(Value::Null)),
                b',' => return Ok(Some(Value::Double(double(text)?))),
                b'#' => return Ok(Some(Value::Bool(text == b"t"))),
                b'$' | b'=' | b'!' if text == b"-1" => return Ok(Some(Value::Null)),
                b'$' | b'=' | b'!' => self.bulk = Some((*kind, self.length(text)?)),
                b'*' if text == b"-1" => return Ok(Some(Value::Null)),
                b'*' | b'~' | b'>' | b'%' => {
                    let left = self.length(text)?.checked_mul(if *kind == b'%' { 2 } else { 1 });
                    let left = left.ok_or(ReplyError::TooLarge)?;
                    if left == 0 {
                        return Ok(Some(aggregate(*kind, Vec::new())));
                    }
                    if self.open.len() == DEPTH_MAX {
                        return Err(ReplyError::TooLarge);
                    }
                    self.open.push(Open { kind: *kind, left, values: Vec::new() });
                }
                other => return Err(ReplyError::Type(*other)),
            }
        }
    }

    fn bulk(&mut self, buf: &mut BytesMut, kind: u8, len: usize) -> Result<Option<Value>, ReplyError> {
        if buf.len() < len + 2 {
            return Ok(None);
        }
        self.charge(len)?;
        // Copied, so that a kept value does not pin the read buffer.
        let value = Bytes::copy_from_slice(&buf[..len]);
        if &buf[len..len + 2] != b"\r\n" {
            return Err(ReplyError::LineEnd);
        }
        buf.advance(len + 2);
        self.bulk = None;
        Ok(Some(match kind {
            b'=' => Value::Verbatim(if value.get(3) == Some(&b':') { value.slice(4..) } else { value }),
            b'!' => Value::error(value),
            _ => Value::Bulk(value),
        }))
    }

    fn line(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, ReplyError> {
        let Some(offset) = memchr::memchr(b'\n', &buf[self.searched..]) else {
            self.searched = buf.len();
            return if buf.len() > INLINE_BYTES_MAX { Err(ReplyError::TooLarge) } else { Ok(None) };
        };
        let end = self.searched + offset;
        self.searched = 0;
        let line = buf[..end].strip_suffix(b"\r").ok_or(ReplyError::LineEnd)?;
        let line = Bytes::copy_from_slice(line);
        buf.advance(end + 1);
        self.charge(line.len() + size_of::<Value>())?;
        Ok(Some(line))
    }

    fn length(&self, text: &[u8]) -> Result<usize, ReplyError> {
        let len = number::integer(text).and_then(|len| usize::try_from(len).ok()).ok_or(ReplyError::Number)?;
        if len > self.bytes_max { Err(ReplyError::TooLarge) } else { Ok(len) }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), ReplyError> {
        self.consumed += bytes;
        if self.consumed > self.bytes_max { Err(ReplyError::TooLarge) } else { Ok(()) }
    }
}

fn aggregate(kind: u8, values: Vec<Value>) -> Value {
    match kind {
        b'~' => Value::Set(values),
        b'>' => Value::Push(values),
        b'%' => {
            let mut pairs = Vec::with_capacity(values.len() / 2);
            let mut values = values.into_iter();
            while let (Some(key), Some(value)) = (values.next(), values.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        }
        _ => Value::Array(values),
    }
}

fn double(text: &[u8]) -> Result<f64, ReplyError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(ReplyError::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reply::Wire;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Int),
            bytes().prop_map(Value::Bulk),
            bytes().prop_map(Value::Verbatim),
            bytes().prop_map(Value::error),
            "[a-z]{0,8}".prop_map(|text| Value::Simple(text.into())),
            any::<bool>().prop_map(Value::Bool),
            any::<i32>().prop_map(|n| Value::Double(f64::from(n) / 8.0)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let values = || prop::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                values().prop_map(Value::Array),
                values().prop_map(Value::Set),
                values().prop_map(Value::Push),
                prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_reads_back_however_it_is_cut(
            values in prop::collection::vec(value(), 1..4),
            cuts in prop::collection::vec(1usize..9, 1..9),
        ) {
            let mut bytes = Vec::new();
            for value in &values {
                value.encode(Wire::Resp3, &mut bytes);
            }
            let (mut reader, mut buf, mut read) = (ReplyReader::new(1 << 20), BytesMut::new(), Vec::new());
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                buf.extend_from_slice(now);
                rest = later;
                while let Some(value) = reader.next(&mut buf).unwrap() {
                    read.push(value);
                }
            }
            prop_assert_eq!(read, values);
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn another_implementation_reads_our_replies_as_we_do(value in value()) {
            let mut bytes = Vec::new();
            value.encode(Wire::Resp3, &mut bytes);
            let (_, rest) = resp_rs::resp3::parse_frame(bytes.into()).unwrap();
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused_in_bounded_memory(bytes in prop::collection::vec(prop_oneof![
            any::<u8>(), Just(b'*'), Just(b'$'), Just(b'%'), Just(b'9'), Just(b'\r'), Just(b'\n')], 0..300)) {
            let (mut reader, mut buf) = (ReplyReader::new(1 << 12), BytesMut::from(&bytes[..]));
            while let Ok(Some(_)) = reader.next(&mut buf) {}
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let mut deep = BytesMut::from(&b"*1\r\n".repeat(DEPTH_MAX + 1)[..]);
        assert_eq!(ReplyReader::new(1 << 20).next(&mut deep), Err(ReplyError::TooLarge));
        let mut long = BytesMut::from(&b"$2000\r\n"[..]);
        assert_eq!(ReplyReader::new(1000).next(&mut long), Err(ReplyError::TooLarge));
        let mut many = BytesMut::from(&[b"*1000\r\n".to_vec(), b":1\r\n".repeat(1000)].concat()[..]);
        assert_eq!(ReplyReader::new(1000).next(&mut many), Err(ReplyError::TooLarge));
    }
}
