//! What the hub can be told and asked, and its answers. Plain data.

use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;

use crate::base::channel::Kind;
use crate::base::counters::Counters;
use crate::base::id::NodeId;
use crate::base::notify::Classes;
use crate::cluster::pubsub::{Change, Parcel};

use super::inbox::Inbox;

/// This node's clients have subscribed to more than it can hold. Nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ERR the clients of this node have subscribed to too much, nothing was added")]
pub struct Full;

/// A client subscribes to names that it has not subscribed to. Answered once what is published through any member that can be reached gets to
/// it, or after a while.
#[derive(Message)]
#[rtype(result = "Result<(), Full>")]
pub struct Subscribe {
    /// The client's number.
    pub id: u64,
    /// How messages get to it.
    pub inbox: Arc<Inbox>,
    /// Of the names.
    pub kind: Kind,
    /// Names, each once.
    pub names: Vec<Bytes>,
}

/// A client ends subscriptions. Once answered, no message on these names is on its way to it that is not in its inbox.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Unsubscribe {
    /// The client's number.
    pub id: u64,
    /// Names it had subscribed to.
    pub names: [Vec<Bytes>; 3],
}

/// A client publishes. Answered with how many subscribers have been sent the message.
#[derive(Message)]
#[rtype(result = "u64")]
pub struct Publish {
    /// Of the channel.
    pub kind: Kind,
    /// Where.
    pub channel: Bytes,
    /// What.
    pub payload: Bytes,
}

/// Another member's clients published these. Answered with how many subscribers here have been sent each.
#[derive(Message)]
#[rtype(result = "Vec<u64>")]
pub struct Deliver(pub Vec<Parcel>);

/// What another member's clients want to hear has changed. Whether this is heeded from now on; if not, it has to be told all anew.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Heed {
    /// The member.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: u64,
    /// How.
    pub change: Change,
}

/// Which events of keys this node's subscribers are told of. Answered as [`Subscribe`] is.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetClasses(pub Classes);

/// Names that clients of this node subscribed to, of those that match the glob.
#[derive(Message, Clone)]
#[rtype(result = "Vec<Bytes>")]
pub struct Names(pub Kind, pub Bytes);

/// How many clients of this node subscribed to each of these names.
#[derive(Message, Clone)]
#[rtype(result = "Vec<u64>")]
pub struct Counts(pub Kind, pub Vec<Bytes>);

/// What this actor can tell of itself.
#[derive(Message)]
#[rtype(result = "HubStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Default, Clone)]
pub struct HubStats {
    /// Counts.
    pub counters: Counters,
    /// Subscriptions of all clients.
    pub subscriptions: usize,
    /// Channels subscribed to.
    pub channels: usize,
    /// Patterns subscribed to.
    pub patterns: usize,
    /// Channels of `SSUBSCRIBE` subscribed to.
    pub shard_channels: usize,
}
