//! Answers before any protocol has dressed them. Encoders live in `protocol`.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::item::{ItemReply, ItemValue};

/// The refusal of a node that has no room for a request.
pub const BUSY: &str = "BUSY the node is overloaded, nothing was done";
/// The refusal of a node that stops.
pub const STOPPING: &str = "SHUTDOWN the node is stopping, nothing was done";

/// The refusal of a coordinator that could not begin before its sender may have gone elsewhere.
pub const LATE: &str = "TIMEOUT the coordinator came too late to begin, applied: no";

/// The refusal of a string that would become too long.
pub const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

/// The answer to one operation, borrowing from the store that gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyRef<'a> {
    /// `+OK`.
    Ok,
    /// No value.
    Null,
    /// An integer.
    Int(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// Bytes large enough to be shared rather than copied.
    Shared(&'a Bytes),
    /// An array of integers, or nulls.
    Ints(&'a [Option<i64>]),
    /// A short status such as `PONG`.
    Simple(Cow<'static, str>),
    /// An error line, first word included, without `-` or line end.
    Error(Cow<'static, str>),
    /// What came of an act on an item.
    Item(&'a ItemReply<ItemValue<'a>>),
}

/// What a reply was, once encoded: enough to add up a `DEL` over several keys without decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyKind {
    /// An integer.
    Int(i64),
    /// An error.
    Error,
    /// No value.
    Null,
    /// Anything else.
    Value,
}

impl ReplyRef<'_> {
    /// What it is.
    pub fn kind(&self) -> ReplyKind {
        match self {
            Self::Int(n) => ReplyKind::Int(*n),
            Self::Error(_) => ReplyKind::Error,
            Self::Null => ReplyKind::Null,
            Self::Ok | Self::Bulk(_) | Self::Shared(_) | Self::Ints(_) | Self::Simple(_) | Self::Item(_) => {
                ReplyKind::Value
            }
        }
    }
}

/// How replies are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wire {
    /// Redis protocol, version 2.
    #[default]
    Resp2,
    /// Redis protocol, version 3.
    Resp3,
    /// Between this project's own parts, who read it with `protocol::item` and dress it for their clients: as version 3, and items with all
    /// that is known of them.
    Item,
}

/// Where a store puts its answers.
pub trait ReplySink {
    /// Takes the answer to the next operation.
    fn reply(&mut self, reply: ReplyRef<'_>);
}
