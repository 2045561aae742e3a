//! What a client asked, whatever protocol it spoke. Made by the parsers, answered by the router (`One`, `Many`, `Cluster`) or by the
//! connection itself.

use bytes::Bytes;

use crate::base::op::{BitOp, Op};
use crate::base::slot::{Partition, Slot};

/// A request the router answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// One operation on one key.
    One(Op),
    /// Operations on several keys, answered as one.
    Many(Gather, Vec<Op>),
    /// One command whose result depends on several keys. In one go where all are of one partition.
    Several(Box<Several>),
    /// Something about all keys. It sees every write before it on its connection and none after.
    Cluster(ClusterOp),
}

impl Request {
    /// How many operations it takes.
    pub fn ops(&self) -> usize {
        match self {
            Self::One(_) | Self::Cluster(_) => 1,
            Self::Many(_, ops) => ops.len(),
            Self::Several(several) => several.keys().len(),
        }
    }

    /// The partition of all its keys, if there is one and no other.
    pub fn partition(&self) -> Option<Partition> {
        match self {
            Self::One(op) => Some(Partition::of(&op.key)),
            Self::Many(_, ops) => the_one(ops.iter().map(|op| &op.key)),
            Self::Several(several) => the_one(several.keys()),
            Self::Cluster(_) => None,
        }
    }
}

/// The partition of all these keys, if it is one.
fn the_one<'a>(keys: impl IntoIterator<Item = &'a Bytes>) -> Option<Partition> {
    let mut partitions = keys.into_iter().map(|key| Partition::of(key));
    let first = partitions.next()?;
    partitions.all(|partition| partition == first).then_some(first)
}

/// A command whose result depends on several keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Several {
    /// `COPY`: 1, or 0 if there is nothing to copy or, without `replace`, something in the way.
    Copy {
        /// What is copied, its deadline and flags with it.
        from: Bytes,
        /// Where to. Another key.
        to: Bytes,
        /// Whatever is there.
        replace: bool,
    },
    /// `RENAME`, `RENAMENX`.
    Rename {
        /// What is moved, its deadline and flags with it.
        from: Bytes,
        /// Where to. May be the same.
        to: Bytes,
        /// Only if nothing is there (1 or 0).
        if_absent: bool,
    },
    /// `BITOP`: the length of the result.
    BitOp {
        /// How.
        how: BitOp,
        /// Where the result goes.
        to: Bytes,
        /// What is combined; exactly one for [`BitOp::Not`].
        from: Vec<Bytes>,
    },
    /// `LCS`.
    Lcs {
        /// What is compared.
        keys: [Bytes; 2],
        /// What of it is answered.
        ask: LcsAsk,
    },
}

impl Several {
    /// All its keys.
    pub fn keys(&self) -> Vec<&Bytes> {
        match self {
            Self::Copy { from, to, .. } | Self::Rename { from, to, .. } => vec![from, to],
            Self::BitOp { to, from, .. } => std::iter::once(to).chain(from).collect(),
            Self::Lcs { keys: [a, b], .. } => vec![a, b],
        }
    }
}

/// What an `LCS` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LcsAsk {
    /// What is answered.
    pub want: LcsWant,
    /// The most that Redis's table may take.
    pub table_bytes_max: usize,
}

/// What an `LCS` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LcsWant {
    /// The subsequence.
    Text,
    /// Its length.
    Length,
    /// Where its pieces are.
    Matches {
        /// Only those of so many bytes.
        shortest: usize,
        /// Each with its length.
        with_length: bool,
    },
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
