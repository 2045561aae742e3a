//! What a store actor can be told and asked, and its answers. Plain data; what they do is in `store`. Tested below.

use std::collections::BTreeMap;

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actors::replication::Committed;
use crate::base::counters::Counters;
use crate::base::entry::Entry;
use crate::base::hlc::Version;
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::op::Op;
use crate::base::outcome::Outcome;
use crate::base::reply::{ReplyKind, Wire};
use crate::base::slot::Partition;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::settle::News;
use crate::protocol::native::{Counted, PartitionDigest, Refusal, Scope};
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::{Printed, Ranges, Sums, Unmatched};

/// Operations on keys of this store's partitions, to be executed in order.
#[derive(Message, Debug)]
#[rtype(result = "Executed")]
pub struct Execute {
    /// What to do.
    pub ops: Vec<Op>,
    /// The id of each operation that must not happen twice; empty if there is none.
    pub requests: Vec<Option<RequestId>>,
    /// The operations are a transaction: executed in one go, those passed over that a condition among them excludes.
    pub together: bool,
    /// How to encode the replies.
    pub wire: Wire,
    /// What to count before the caller may answer.
    pub level: Level,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
    /// After this it is not executed: what it rests on may have changed, or somebody else may have been asked.
    pub start_by: Option<Instant>,
    /// Above level one: what was found out before. If it no longer holds, nothing is done.
    pub grounds: Option<Grounds>,
}

/// An [`Execute`] at level one whose replies go to whoever waits at the other end, not back to the sender of this.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Answer {
    /// The operations.
    pub batch: Execute,
    /// Where the replies go.
    pub to: Option<oneshot::Sender<ReplyBuf>>,
}

/// What operations above level one rest on.
#[derive(Debug, Default)]
pub struct Grounds {
    /// Per operation, the mark of the route by which it counts.
    pub routes: Vec<u32>,
    /// Per operation, whether a majority has promised its key under the ballot.
    pub leased: Vec<bool>,
    /// The ballot.
    pub ballot: Version,
    /// Requests that are known to be done, or can't be known not to be, and what to answer.
    pub settled: BTreeMap<RequestId, Outcome>,
}

/// What came of an [`Execute`].
#[derive(Debug)]
pub struct Executed {
    /// A reply per operation.
    pub replies: ReplyBuf,
    /// Tells when the level is met; `None` at level one or when nothing was written.
    pub commit: Option<oneshot::Receiver<Committed>>,
    /// The versions written: operation and version, above level one.
    pub written: Vec<(u32, Version)>,
    /// The versions that operations found which wrote nothing, above level one.
    pub read: Vec<(u32, Version)>,
    /// It came too late to begin, or its grounds do not hold: nothing was done.
    pub late: bool,
}

/// What is sent to this store to merge.
#[derive(Debug)]
pub enum Record {
    /// A key's entry.
    Entry {
        /// The key.
        key: Bytes,
        /// What it holds.
        entry: Entry,
        /// The request behind it and its encoded reply. Boxed, because most have none.
        answered: Option<Box<(RequestId, ReplyKind, Bytes)>>,
        /// What it rests on, if its acknowledgement counts.
        counted: Option<Counted>,
    },
    /// What a key is known to hold, however old: whoever has it is complete.
    Known {
        /// The key.
        key: Bytes,
        /// What it holds.
        entry: Entry,
    },
    /// Everything in the partition up to this version is gone.
    Floor {
        /// Which.
        partition: Partition,
        /// The flush.
        version: Version,
    },
}

/// Entries to merge, each with the number the sender gave it.
#[derive(Message, Debug)]
#[rtype(result = "Merged")]
pub struct Merge(pub Vec<(u32, Record)>);

/// What became of a [`Merge`]; records not listed were merged.
#[derive(Debug, Default)]
pub struct Merged {
    /// Lost to something newer: number and the version that stays.
    pub newer: Vec<(u32, Version)>,
    /// Not taken: number and reason.
    pub refused: Vec<(u32, Refusal)>,
}

/// What is under these keys, tombstones and expired values included?
#[derive(Message, Debug)]
#[rtype(result = "Vec<Option<Entry>>")]
pub struct Peek(pub Vec<Bytes>);

/// What is under these keys, and which of these requests were done, all in one instant: whoever sees an effect sees its request. Keys that
/// are to be leased are promised to the owner of the ballot.
#[derive(Message, Debug)]
#[rtype(result = "Surveyed")]
pub struct Survey {
    /// Whose.
    pub ballot: Ballot,
    /// Keys.
    pub questions: Vec<Question>,
    /// Requests.
    pub requests: Vec<RequestId>,
}

/// The ballot of a survey.
#[derive(Clone, Copy, Debug)]
pub enum Ballot {
    /// One that this store draws for itself, above this version.
    Own {
        /// What another coordinator's stamps lie below.
        above: Version,
    },
    /// A peer's.
    Of(Version),
}

/// One key of a [`Survey`].
#[derive(Clone, Debug)]
pub struct Question {
    /// The key.
    pub key: Bytes,
    /// The mark of the asker's route.
    pub route: u32,
    /// Whether to lease it.
    pub lease: bool,
}

/// The answer to [`Survey`].
#[derive(Debug)]
pub struct Surveyed {
    /// The ballot that was drawn or given.
    pub ballot: Version,
    /// One per key.
    pub held: Vec<Held>,
    /// Those that were done, and their replies.
    pub answered: Vec<(RequestId, Outcome)>,
    /// Per key, since which version every request that changed it is remembered here.
    pub known: Vec<Option<Version>>,
}

/// What a store holds for a key it was asked about.
#[derive(Clone, Debug)]
pub enum Held {
    /// This, tombstones and expired values included.
    Entry(Option<Entry>),
    /// No answer: it is another coordinator's for now, and the next must stamp above this.
    Leased(Version),
    /// No answer: the asker counts by other owners and holders.
    OtherRoute,
}

/// Stamp these keys anew under a lease, if they still have the version given, and replicate them.
#[derive(Message, Debug)]
#[rtype(result = "Executed")]
pub struct Restamp {
    /// Number of the operation, key, our version. Routes and leases are in the order of these.
    pub keys: Vec<(u32, Bytes, Version)>,
    /// What it rests on.
    pub grounds: Grounds,
    /// What to count.
    pub level: Level,
}

/// How many keys live in these partitions?
#[derive(Message, Debug)]
#[rtype(result = "u64")]
pub struct Count(pub PartitionSet);

/// How many keys are in each of these partitions, and how many bytes do they take?
#[derive(Message, Debug)]
#[rtype(result = "Vec<(Partition, u64, u64)>")]
pub struct Sizes(pub PartitionSet);

/// All keys of these partitions that match.
#[derive(Message, Debug)]
#[rtype(result = "Vec<Bytes>")]
pub struct Keys {
    /// Where.
    pub partitions: PartitionSet,
    /// Redis glob.
    pub pattern: Bytes,
}

/// A page of keys of each of these partitions.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Vec<ScannedPage>")]
pub struct Scan {
    /// Where, and from which position.
    pub from: Vec<(Partition, u64)>,
    /// About how many of each.
    pub count: usize,
    /// Redis glob; empty for all.
    pub pattern: Bytes,
}

/// Keys one page of a [`Scan`] has at the most: a frame takes that many of the longest keys.
pub const SCAN_PAGE_KEYS_MAX: usize = 4_096;
/// Bytes of keys after which an answer takes up no further page.
pub const SCAN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// As many of these pages as an answer has room for; at least one.
pub fn within_scan_bytes(pages: impl IntoIterator<Item = ScannedPage>) -> Vec<ScannedPage> {
    let mut bytes = 0;
    let mut kept = Vec::new();
    for page in pages {
        bytes += page.keys.iter().map(Bytes::len).sum::<usize>();
        kept.push(page);
        if bytes >= SCAN_BYTES_MAX {
            break;
        }
    }
    kept
}

/// One partition's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedPage {
    /// Which.
    pub partition: Partition,
    /// The keys.
    pub keys: Vec<Bytes>,
    /// Where to go on.
    pub next: Option<u64>,
}

/// A key of these partitions, chosen by this draw.
#[derive(Message, Debug)]
#[rtype(result = "Option<Bytes>")]
pub struct RandomKey(pub PartitionSet, pub u64);

/// Delete everything in these partitions.
#[derive(Message, Debug)]
#[rtype(result = "Executed")]
pub struct Flush {
    /// Which.
    pub partitions: PartitionSet,
    /// What to count.
    pub level: Level,
}

/// Digests of these partitions, in order.
#[derive(Message, Debug)]
#[rtype(result = "Vec<(Partition, PartitionDigest)>")]
pub struct Digests {
    /// Which.
    pub partitions: PartitionSet,
    /// Those that hold nothing newer than they are settled up to have digest 0.
    pub recent: bool,
}

/// Sums over ranges of a partition.
#[derive(Message, Debug)]
#[rtype(result = "Sums")]
pub struct AskSums {
    /// Of which.
    pub partition: Partition,
    /// What counts.
    pub scope: Scope,
    /// The ranges.
    pub ranges: Ranges,
}

/// A page of what is in ranges of a partition.
#[derive(Message, Debug)]
#[rtype(result = "Printed")]
pub struct AskPrints {
    /// Of which.
    pub partition: Partition,
    /// What counts.
    pub scope: Scope,
    /// The ranges.
    pub ranges: Ranges,
    /// The first place of the page.
    pub from: u64,
}

/// How what is in ranges of a partition differs from a page of somebody else's.
#[derive(Message, Debug)]
#[rtype(result = "Unmatched")]
pub struct Match {
    /// Of which.
    pub partition: Partition,
    /// What counts.
    pub scope: Scope,
    /// The ranges.
    pub ranges: Ranges,
    /// The first place of the page, and the first after it.
    pub within: (u64, Option<u64>),
    /// What is on it.
    pub prints: Bytes,
}

/// Forget these partitions' data: others have it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Drop(pub PartitionSet);

/// Stamp nothing at or below this any more; false if it lies too far ahead.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "bool")]
pub struct StampsAbove(pub Version);

/// Every replica of these partitions has all there was up to here.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Settle {
    /// Which.
    pub partitions: PartitionSet,
    /// Up to here.
    pub up_to: Version,
}

/// This partition is about to be settled up to here by taking over what another replica has.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Guard(pub Partition, pub Version);

/// What is here descends from another founding than what others have: nothing of it is settled with them.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Unsettle;

/// The others have gone on without this node, so that what it has and they have not is dead.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Lapse;

/// Replicas that have all there is lack these keys, which have these versions here: forget them, or write them anew.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Outlive {
    /// Keys and versions.
    pub keys: Vec<(Bytes, Version)>,
    /// Which of them the others cannot have had.
    pub news: News,
}

/// Keep to another budget from now on.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct SetBudget {
    /// Of this store; 0 is none.
    pub bytes_max: usize,
    /// Whether the least recently used goes at the budget.
    pub evict: bool,
}

/// What this actor can tell of itself.
#[derive(Message, Debug)]
#[rtype(result = "StoreStats")]
pub struct AskStats;

/// The answer to [`AskStats`].
#[derive(Debug, Default, Clone)]
pub struct StoreStats {
    /// Counts.
    pub counters: Counters,
    /// Live keys, copies of other coordinators' included.
    pub keys: usize,
    /// Keys with a deadline.
    pub with_deadline: usize,
    /// Tombstones.
    pub tombstones: usize,
    /// Bytes accounted for, replies kept for retries included.
    pub memory_bytes: usize,
    /// The longest a key swept in the last turn had outlived its deadline.
    pub expiry_late_ms: u64,
    /// Partitions that hold anything, if only tombstones.
    pub filled: PartitionSet,
    /// Partitions that were written to since they were settled.
    pub unsettled: PartitionSet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_scan_ends_with_the_page_that_fills_it() {
        let page = |n: u16, bytes: usize| ScannedPage {
            partition: Partition(n),
            keys: vec![vec![0; bytes].into()],
            next: None,
        };
        let kept = |sizes: &[usize]| within_scan_bytes((0u16..).zip(sizes).map(|(n, bytes)| page(n, *bytes))).len();
        assert_eq!(kept(&[1, 1, 1]), 3);
        assert_eq!(kept(&[SCAN_BYTES_MAX, 1, 1]), 1);
        assert_eq!(kept(&[1, SCAN_BYTES_MAX, 1]), 2);
        assert_eq!(kept(&[]), 0);
    }

    #[test]
    fn the_largest_page_fits_a_frame() {
        use crate::base::limits::{FRAME_BYTES_MAX, KEY_BYTES_MAX};
        const { assert!(SCAN_BYTES_MAX + SCAN_PAGE_KEYS_MAX * (KEY_BYTES_MAX + 16) < FRAME_BYTES_MAX) };
    }
}
