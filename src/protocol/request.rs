//! What a client asked, whatever protocol it spoke. Made by the parsers, answered by the router (`One`, `Many`, `Cluster`) or by the
//! connection itself.

use bytes::Bytes;

use crate::base::op::Op;
use crate::base::slot::Slot;

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
    /// How many keys there are in a slot.
    CountInSlot(Slot),
    /// Keys of a slot.
    KeysInSlot {
        /// Which.
        slot: Slot,
        /// At most so many.
        count: u64,
    },
}
