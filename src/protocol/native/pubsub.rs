//! What members tell each other of subscriptions, and the messages between them, as they travel. What they mean is decided by
//! `cluster::pubsub`. Golden bytes in `golden.rs`.

use serde::{Deserialize, Serialize};

use super::Key;
use crate::base::channel::Kind;
use crate::base::notify::Classes;

/// How what the clients of a member want to hear has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted<'a> {
    /// The member.
    pub node: &'a str,
    /// Which life of it.
    pub incarnation: u64,
    /// The version that is changed; 0 if whatever was known is replaced.
    pub base: u64,
    /// The version that is made.
    pub version: u64,
    /// Whether everything that is published is wanted.
    pub everything: bool,
    /// Wanted classes of events of keys.
    pub classes: Classes,
    /// Names that are wanted now.
    #[serde(borrow)]
    pub added: Vec<(Kind, Key<'a>)>,
    /// Names that are not any more.
    #[serde(borrow)]
    pub removed: Vec<(Kind, Key<'a>)>,
}

/// A message for subscribers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published<'a> {
    /// Of the channel.
    pub kind: Kind,
    /// Where it was published.
    #[serde(borrow)]
    pub channel: Key<'a>,
    /// What.
    #[serde(borrow)]
    pub payload: Key<'a>,
}
