//! What came of a request, as it is remembered and told to those who ask again. Plain data; tested where it is used, in `storage::recent`
//! and `cluster::survey`.

use bytes::Bytes;

use super::hlc::Version;
use super::limits::RECENT_REPLY_BYTES_MAX;
use super::reply::ReplyKind;

/// What a retry is told whose reply was too long to be remembered.
const REPLY_GONE: &[u8] =
    b"-NOQUORUM the link broke, and the reply is too long to be kept for a second attempt, applied: yes\r\n";

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it was.
    pub kind: ReplyKind,
    /// The encoded reply.
    pub reply: Bytes,
    /// What it wrote; [`Version::ZERO`] if it changed nothing.
    pub version: Version,
}

impl Outcome {
    /// What a request that wrote `version` came to, with its encoded reply in pieces. In the place of one longer than
    /// [`RECENT_REPLY_BYTES_MAX`] is an error that says so.
    pub fn new(kind: ReplyKind, reply: &[&[u8]], version: Version) -> Self {
        if reply.iter().map(|piece| piece.len()).sum::<usize>() > RECENT_REPLY_BYTES_MAX {
            return Self { kind: ReplyKind::Error, reply: Bytes::from_static(REPLY_GONE), version };
        }
        Self { kind, reply: reply.concat().into(), version }
    }

    /// Whether the request wrote anything. One that did not may be done again.
    pub fn has_changed(&self) -> bool {
        self.version > Version::ZERO
    }
}
