//! Answers as callers get them: from the bytes of a reply to a value, an item or an error. Never asks. Tested below.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::base::hlc::Version;
use crate::base::item::{ItemOutcome, ItemReply};
use crate::base::limits::{FRAME_BYTES_MAX, LARGE_VALUE_BYTES};
use crate::protocol::item::{self, Answer, Content};
use crate::protocol::resp::read::ReplyReader;
use crate::protocol::resp::value::Value;

use super::error::Error;

/// A value with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The bytes.
    pub value: Bytes,
    /// Names this state of the key. [`Client::set`](super::Client::set) can be made to depend on it.
    pub version: Version,
    /// Time left to live, unless it has no deadline.
    pub ttl: Option<Duration>,
    /// Flags of memcached clients; 0 of what others have stored.
    pub flags: u32,
}

/// What an operation was answered, errors aside.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// Anything but an item.
    Value(Value),
    /// What came of an operation on an item, the length of its value, and the item itself, if it was told.
    Item(ItemOutcome, u32, Option<Item>),
}

impl Reply {
    /// Reads one.
    ///
    /// # Errors
    /// Of the node, in its words; or that it is no reply.
    pub(super) fn read(encoded: &Bytes) -> Result<Self, Error> {
        match item::read_shared(encoded) {
            Answer::Item(ItemReply { outcome, version, marks, ttl_ms, len, value, .. }) => {
                let item = value.map(|content| {
                    let value = match content {
                        Content::Shared(bytes) if bytes.len() >= LARGE_VALUE_BYTES => bytes,
                        small => Bytes::copy_from_slice(small.bytes()),
                    };
                    Item { value, version, ttl: ttl_ms.map(Duration::from_millis), flags: marks.flags }
                });
                Ok(Self::Item(outcome, len, item))
            }
            Answer::Error(line) => Err(Error::of_line(line)),
            Answer::Ok | Answer::Null | Answer::Int(_) | Answer::Strange => value(encoded).map(Self::Value),
        }
    }
}

/// Reads a reply in RESP3.
///
/// # Errors
/// Of the node, in its words; or that it is no reply.
pub(super) fn value(encoded: &Bytes) -> Result<Value, Error> {
    if let Some(value) = plain_bulk(encoded) {
        return Ok(Value::Bulk(value));
    }
    match ReplyReader::new(2 * FRAME_BYTES_MAX).next(&mut BytesMut::from(&encoded[..])) {
        Ok(Some(Value::Error(line))) => Err(Error::of_line(&line)),
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(Error::strange("half a reply")),
        Err(error) => Err(Error::strange(error)),
    }
}

/// The bytes of a reply that is nothing but a bulk string, which most are, without reading it piece by piece.
fn plain_bulk(encoded: &Bytes) -> Option<Bytes> {
    let rest = encoded.strip_prefix(b"$")?;
    let digits = memchr::memchr(b'\r', rest)?;
    let length = usize::try_from(crate::base::number::integer(&rest[..digits])?).ok()?;
    let value = rest.get(digits + 2..)?.strip_suffix(b"\r\n")?;
    let is_whole = value.len() == length && rest.get(digits + 1) == Some(&b'\n');
    is_whole.then(|| if length >= LARGE_VALUE_BYTES { encoded.slice_ref(value) } else { Bytes::copy_from_slice(value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reply::Wire;
    use crate::client::{Applied, ErrorKind};
    use proptest::prelude::*;

    fn read(encoded: &'static [u8]) -> Result<Value, Error> {
        match Reply::read(&Bytes::from_static(encoded))? {
            Reply::Value(value) => Ok(value),
            Reply::Item(..) => panic!("an item"),
        }
    }

    #[test]
    fn replies_are_read_as_what_they_are() {
        assert_eq!(read(b"+OK\r\n"), Ok(Value::OK));
        assert_eq!(read(b":-7\r\n"), Ok(Value::Int(-7)));
        assert_eq!(read(b"_\r\n"), Ok(Value::Null));
        assert_eq!(read(b"$3\r\na\r\n\r\n"), Ok(Value::Bulk(Bytes::from_static(b"a\r\n"))));
        assert_eq!(read(b"*1\r\n:1\r\n"), Ok(Value::Array(vec![Value::Int(1)])));
        assert_eq!(read(b"-BUSY no\r\n").unwrap_err().kind(), ErrorKind::Busy);
        for strange in [&b""[..], b"$3\r\nab\r\n", b"$5\r\nab\r\n", b"$\r\n\r\n", b"x"] {
            let error = read(strange).unwrap_err();
            assert_eq!((error.kind(), error.applied()), (ErrorKind::Protocol, Applied::Yes), "{strange:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_as_they_were(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            any::<u8>().prop_map(|byte| vec![byte; LARGE_VALUE_BYTES + 1]),
        ]) {
            let (value, mut encoded) = (Value::Bulk(bytes.into()), Vec::new());
            value.encode(Wire::Item, &mut encoded);
            prop_assert_eq!(Reply::read(&encoded.into()), Ok(Reply::Value(value)));
        }

        #[test]
        fn any_bytes_are_a_reply_or_refused(bytes: Vec<u8>) {
            let _ = Reply::read(&bytes.into());
        }
    }
}
