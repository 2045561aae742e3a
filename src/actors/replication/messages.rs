//! What a replication sender can be told and asked, and its answers. Plain data; what they do is in `replication`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::actors::gossip::Doubt;
use crate::actors::store::Peek;
use crate::base::counters::Counters;
use crate::base::hlc::Version;
use crate::base::level::Level;
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::view::{PeerIx, View};
use crate::protocol::native::frame::Call;

/// Why a call to a peer has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It was never sent: nothing was done.
    #[error("the member can't be reached")]
    Unreachable,
    /// It was sent, and the link broke or fell silent: it may have been done.
    #[error("the link to the member broke")]
    Broken {
        /// The peer may still begin with it for this long.
        within: Duration,
    },
    /// Too many calls to this peer are under way: nothing was done.
    #[error("too many requests are under way to the member")]
    Busy,
}

/// Entries to send to the other replicas of their partitions.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Replicate {
    /// Encoded records, one after another.
    pub bytes: Vec<u8>,
    /// Where each ends and belongs.
    pub records: Vec<Outgoing>,
    /// What to count.
    pub level: Level,
    /// Told once the level is met or out of reach for each record; not asked for at level one.
    pub commit: Option<oneshot::Sender<Committed>>,
}

/// One record of a [`Replicate`].
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// End in the bytes. One that ends where it begins was left out: its partition diverges.
    pub end: usize,
    /// Its partition.
    pub partition: Partition,
    /// The sender's number for the operation behind it.
    pub op: u32,
    /// The mark of the route by which it counts; `None` if it does not, or by any.
    pub route: Option<u32>,
}

/// The outcome of a [`Replicate`] above level one.
#[derive(Debug, Default)]
pub struct Committed {
    /// Operations whose level is out of reach.
    pub short: Vec<u32>,
    /// Operations that lost to something newer on a replica, or had to be above it, and its version.
    pub newer: Vec<(u32, Version)>,
    /// Operations that were counted by a route which is not, or no longer, that of enough replicas.
    pub astray: Vec<u32>,
}

impl Committed {
    /// Whether every record was acknowledged by as many as its level wants: taken, or found older than what is there.
    pub fn is_met(&self) -> bool {
        self.short.is_empty() && self.astray.is_empty()
    }
}

/// Entries for one peer, whatever the ring says; true once it has them all, or newer ones.
#[derive(Message, Debug)]
#[rtype(result = "bool")]
pub struct Push {
    /// Whom.
    pub peer: PeerIx,
    /// Encoded records.
    pub bytes: Vec<u8>,
    /// Where each ends and belongs.
    pub records: Vec<Outgoing>,
}

/// A request to a peer; the payload of the answering frame.
#[derive(Message, Debug)]
#[rtype(result = "Result<Bytes, LinkError>")]
pub struct CallPeer {
    /// Whom.
    pub peer: PeerIx,
    /// What.
    pub call: Call,
}

/// How many other members hold everything that was posted so far for these partitions?
#[derive(Message, Debug)]
#[rtype(result = "usize")]
pub struct AwaitReplicas {
    /// Partitions meant.
    pub partitions: PartitionSet,
    /// Enough.
    pub replicas: usize,
    /// Longest wait.
    pub timeout: Duration,
}

/// Which of these peers have acknowledged all that was posted to them so far, once they have or it has taken too long? Not those for whom
/// something is noted that they were not sent. What others may have missed has been reported before the answer comes.
#[derive(Message, Debug)]
#[rtype(result = "BTreeSet<PeerIx>")]
pub struct Drain {
    /// Whom.
    pub peers: BTreeSet<PeerIx>,
    /// Longest wait.
    pub timeout: Duration,
}

/// The cluster looks different now.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct ViewChanged(pub Arc<View>);

/// Partitions in which a peer may have missed entries.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Diverged {
    /// Who.
    pub peer: PeerIx,
    /// Where.
    pub partitions: PartitionSet,
}

/// Who wants to know of divergence, and of links that broke; and where the entries are.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReportTo {
    /// Told of partitions in which a peer may have missed entries.
    pub diverged: Recipient<Diverged>,
    /// Told of members whose link broke or fell silent.
    pub doubts: Recipient<Doubt>,
    /// Asked for what is to be handed over.
    pub store: Recipient<Peek>,
    /// What that store has. Comparison sends entries of others as well, of which no hints are kept: it knows by itself what is to be compared again.
    pub partitions: PartitionSet,
}

/// What this actor can tell of itself.
#[derive(Message, Debug)]
#[rtype(result = "ReplicationStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Default, Clone)]
pub struct ReplicationStats {
    /// Counts.
    pub counters: Counters,
    /// Bytes in all outboxes.
    pub outbox_bytes: usize,
    /// Keys noted for replicas that could not be sent them.
    pub hints_pending: usize,
    /// Those of them whose replica is there to get them.
    pub hints_due: usize,
    /// What these take.
    pub hints_bytes: usize,
    /// Open links.
    pub links: Vec<OpenLink>,
    /// Calls without an answer yet.
    pub calls: usize,
}

/// A link that is open.
#[derive(Debug, Clone, Copy)]
pub struct OpenLink {
    /// To whom.
    pub peer: PeerIx,
    /// How long it has been.
    pub age: Duration,
    /// Bytes that wait to be sent or acknowledged.
    pub queued_bytes: usize,
}
