//! How two sides of a connection greet each other. Golden bytes in `golden.rs`.

use serde::{Deserialize, Serialize};

/// Who dials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// Must be the receiver's.
    pub cluster: &'a str,
    /// `None` for clients.
    pub peer: Option<PeerHello<'a>>,
}

/// What a peer adds to its hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerHello<'a> {
    /// The dialling node.
    pub node: &'a str,
    /// Which life of it.
    pub incarnation: u64,
    /// Whom it means to reach; another node at the address refuses.
    pub expects: Option<&'a str>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome<'a> {
    /// The answering node.
    pub node: &'a str,
    /// Which life of it.
    pub incarnation: u64,
    /// Its clock, in Unix milliseconds.
    pub now_ms: u64,
}
