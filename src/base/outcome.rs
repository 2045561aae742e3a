//! What came of a request, as it is remembered and told to those who ask again. Plain data; tested where it is used, in `storage::recent`
//! and `cluster::survey`.

use bytes::Bytes;

use super::hlc::Version;
use super::reply::ReplyKind;

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
    /// Whether the request wrote anything. One that did not may be done again.
    pub fn has_changed(&self) -> bool {
        self.version > Version::ZERO
    }
}
