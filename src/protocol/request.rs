//! What a client asked, whatever protocol it spoke. Made by the parsers, answered by the router (`One`, `Many`, `Cluster`) or by the
//! connection itself.

use bytes::Bytes;

use crate::base::op::Op;
use crate::base::slot::Partition;

/// A request the router answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// One operation on one key.
    One(Op),
    /// Operations on several keys, answered as one.
    Many(Gather, Vec<Op>),
    /// Something about all keys. It sees every write before it on its connection and none after.
    Cluster(ClusterOp),
}

impl Request {
    /// How many operations it takes.
    pub fn ops(&self) -> usize {
        if let Self::Many(_, ops) = self { ops.len() } else { 1 }
    }

    /// The partition of all its keys, if there is one and no other.
    pub fn partition(&self) -> Option<Partition> {
        match self {
            Self::One(op) => Some(Partition::of(&op.key)),
            Self::Many(_, ops) => {
                let first = Partition::of(&ops.first()?.key);
                ops.iter().all(|op| Partition::of(&op.key) == first).then_some(first)
            }
            Self::Cluster(_) => None,
        }
    }
}

/// How the answers to the operations of a [`Request::Many`] become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// The sum of integers (`DEL`, `EXISTS`, `UNLINK`, `TOUCH`).
    Sum,
    /// An array in the order asked (`MGET`).
    Array,
    /// `+OK` once all are done (`MSET`).
    AllOk,
    /// `MSETNX`: the operations are `Set`s with `When::Absent`; either none of the keys exists and all are set (1), or nothing is done (0).
    SetAllIfAbsent,
}

/// Something about all keys.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterOp {
    /// How many keys there are.
    DbSize,
    /// All keys that match the glob pattern.
    Keys {
        /// Redis glob.
        pattern: Bytes,
    },
    /// A page of keys.
    Scan {
        /// Where to go on; 0 starts.
        cursor: u64,
        /// Redis glob, if any.
        pattern: Option<Bytes>,
        /// About how many.
        count: u64,
        /// `TYPE` filter that excludes strings: the page is walked and nothing is returned.
        nothing: bool,
    },
    /// Deletes everything.
    Flush,
    /// Any key.
    RandomKey,
    /// Waits until `replicas` other members hold the connection's writes so far, at most `timeout_ms` (0 = for ever); answers how many do.
    Wait {
        /// Replicas asked for.
        replicas: i64,
        /// Longest wait.
        timeout_ms: u64,
    },
}
