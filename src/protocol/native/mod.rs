//! The native protocol: what peers and clients that know the ring say to a node. Drawn byte by byte in `docs/PROTOCOL.md`; golden bytes in
//! `golden.rs`. The only place that calls postcard for streams. Never does I/O.
//!
//! A connection opens with [`PREFACE`], then carries frames both ways: a little-endian `u32` length, then one postcard [`Message`].

pub mod assembly;
pub mod frame;
#[cfg(test)]
mod golden;
mod greeting;
mod partition;
mod pubsub;

pub use greeting::{Hello, PeerHello, Welcome};
pub use partition::{
    Digests, Page, PartitionDigest, PrintsOf, Roots, SUM_BYTES, Scope, SumsOf, apart, roots, shortened,
};
pub use pubsub::{Published, Wanted};

use serde::{Deserialize, Serialize};

use crate::base::channel::Kind;
use crate::base::entry::EntryRef;
use crate::base::hlc::Version;
use crate::base::id::RequestId;
use crate::base::level::Level;
use crate::base::op::OpRef;
use crate::base::reply::{ReplyKind, Wire};

/// First bytes of a native connection; the first of them starts no RESP command, the last is the protocol version.
pub const PREFACE: [u8; 5] = [0xF5, b'T', b'R', b'L', VERSION];
/// Raised whenever a frame changes other than by appending a variant.
pub const VERSION: u8 = 4;

/// How the reason of a `Refused` begins when the names of the clusters differ. For people.
pub const OTHER_CLUSTER: &str = "another cluster name";

/// One frame. Append-only: postcard numbers the variants, and golden tests hold the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// First frame of the side that dialled.
    Hello(#[serde(borrow)] Hello<'a>),
    /// First frame of the side that accepted.
    Welcome(#[serde(borrow)] Welcome<'a>),
    /// Last frame before a hang-up, with the reason in words.
    Refused {
        /// Why.
        reason: &'a str,
    },
    /// Operations for the receiver to coordinate.
    Forward {
        /// Chosen by the sender, echoed in the answer.
        id: u64,
        /// Unix milliseconds on the receiver's clock after which it must not begin: the sender may have asked somebody else by then.
        start_by: u64,
        /// The operations.
        #[serde(borrow)]
        forward: Forward<'a>,
    },
    /// The answer to `Forward`.
    Forwarded {
        /// Of the request.
        id: u64,
        /// Encoded replies in the order of the operations, or why none was executed.
        #[serde(borrow)]
        result: Result<Replies<'a>, Misdirected>,
    },
    /// Entries for a replica to merge.
    Replicate {
        /// Counts up per link.
        sequence: u64,
        /// In no particular order; merging does not need one.
        #[serde(borrow)]
        records: Vec<RecordRef<'a>>,
    },
    /// The replica has merged a `Replicate`.
    Acknowledge {
        /// Of the `Replicate`.
        sequence: u64,
        /// Records that lost to something newer: index and the version that stays.
        newer: Vec<(u32, Version)>,
        /// Records that were not taken: index and reason.
        refused: Vec<(u32, Refusal)>,
    },
    /// A question to the receiver alone.
    Ask {
        /// Chosen by the sender.
        id: u64,
        /// The question.
        #[serde(borrow)]
        ask: Ask<'a>,
    },
    /// Its answer.
    Answer {
        /// Of the `Ask`.
        id: u64,
        /// The answer.
        #[serde(borrow)]
        answer: Answer<'a>,
    },
    /// As `Forward`, from a client that can't reach those who serve the keys: the receiver finds the coordinator, one hop on if need be.
    /// Answered by `Forwarded`.
    Relay {
        /// Chosen by the sender, echoed in the answer.
        id: u64,
        /// As in `Forward`.
        start_by: u64,
        /// The operations. The epoch means nothing here.
        #[serde(borrow)]
        forward: Forward<'a>,
    },
}

/// Operations for their coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forward<'a> {
    /// The sender's ring epoch.
    pub epoch: u64,
    /// Time left to answer.
    pub timeout_ms: u32,
    /// Wanted acknowledgements.
    pub level: Level,
    /// How to encode the replies.
    pub wire: Wire,
    /// [`RequestId::router`] of the sender.
    pub router: u64,
    /// The operations are a transaction, to be executed in one go.
    pub together: bool,
    /// An earlier attempt may have been done by another coordinator.
    pub retry: bool,
    /// When the first attempt began: Unix milliseconds on the sender's clock.
    pub begun_ms: u64,
    /// The operations, each with its [`RequestId::sequence`], 0 where a repetition does no harm.
    #[serde(borrow)]
    pub ops: Vec<(u64, OpRef<'a>)>,
}

/// Replies, encoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replies<'a> {
    /// Where each reply ends, and what it is.
    pub marks: Vec<(u32, ReplyKind)>,
    /// The bytes.
    #[serde(borrow, with = "serde_bytes")]
    pub bytes: &'a [u8],
}

/// The receiver does not hold a key of the request; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misdirected {
    /// The receiver's ring epoch. Unless it is older than the sender's, the sender should pull the membership: claims change without it.
    pub epoch: u64,
}

/// Something a replica merges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum RecordRef<'a> {
    /// A key's entry.
    Entry {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// What it holds.
        #[serde(borrow)]
        entry: EntryRef<'a>,
        /// The request that wrote it and its encoded reply, where a retry of it must be answered and not repeated.
        #[serde(borrow)]
        answered: Option<Answered<'a>>,
        /// What it rests on, if its acknowledgement counts towards a level above one.
        counted: Option<Counted>,
    },
    /// Everything in the partition up to this version is gone.
    Floor {
        /// Partition number.
        partition: u16,
        /// The flush.
        version: Version,
    },
}

/// What a write above level one rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The [`Route::mark`](crate::cluster::view::Route::mark) by which the sender counts.
    pub route: u32,
    /// What the key's version was where it was written; [`Version::ZERO`] if that is not known.
    pub base: Version,
    /// The ballot under which the key was leased, if the write depends on what was read.
    pub lease: Option<Version>,
}

impl Counted {
    /// The version this write is known to follow upon, every request between remembered where both were taken. A write without a lease was
    /// made in ignorance of what others had: it follows upon nothing.
    pub fn link(&self) -> Version {
        if self.lease.is_some() { self.base } else { Version::ZERO }
    }
}

/// Why a replica did not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It was stamped too far in the future.
    FarFuture,
    /// The key is leased to another coordinator, or no longer to this one.
    Lease,
    /// The sender counts by other owners and holders than the receiver knows.
    Route,
}

/// A remembered reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered<'a> {
    /// Of the request.
    pub request: RequestId,
    /// What the reply was.
    pub kind: ReplyKind,
    /// Its bytes in the wire format the client had asked for.
    #[serde(borrow, with = "serde_bytes")]
    pub reply: &'a [u8],
}

/// Questions to one node. Append-only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ask<'a> {
    /// Are you there?
    Ping,
    /// Here is my membership, give me yours (postcard of `cluster::membership::Membership`).
    Membership(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// What do you hold for these keys that differs from this version ([`Version::ZERO`]: from nothing)?
    Entries(#[serde(borrow)] Vec<(Key<'a>, Version)>),
    /// How many keys in these partitions (a bit each, lowest first)?
    Count(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// All keys in these partitions that match the glob.
    Keys {
        /// A bit each.
        #[serde(borrow, with = "serde_bytes")]
        partitions: &'a [u8],
        /// Redis glob.
        #[serde(borrow, with = "serde_bytes")]
        pattern: &'a [u8],
    },
    /// A page of keys of each of these partitions.
    Scan {
        /// A bit each.
        #[serde(borrow, with = "serde_bytes")]
        partitions: &'a [u8],
        /// Where to go on in the first of them; the others begin at their start.
        from: u64,
        /// About how many of each.
        count: u32,
        /// Redis glob, empty for all.
        #[serde(borrow, with = "serde_bytes")]
        pattern: &'a [u8],
    },
    /// Any key of these partitions.
    RandomKey(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// Flush these partitions as their coordinator.
    Flush {
        /// A bit each.
        #[serde(borrow, with = "serde_bytes")]
        partitions: &'a [u8],
        /// Wanted acknowledgements.
        level: Level,
    },
    /// How many replicas hold all that these partitions took so far, waiting at most `timeout_ms` for `replicas`?
    Wait {
        /// A bit each.
        #[serde(borrow, with = "serde_bytes")]
        partitions: &'a [u8],
        /// Enough.
        replicas: u32,
        /// Longest wait.
        timeout_ms: u32,
    },
    /// Your digests of these partitions, in order?
    Digests(#[serde(borrow)] Digests<'a>),
    /// Which of these sums differ from yours?
    Sums(#[serde(borrow)] SumsOf<'a>),
    /// Which of these prints do you lack, and what do you have besides?
    Prints(#[serde(borrow)] PrintsOf<'a>),
    /// A command of `trellis-cli`, as RESP would carry it; the answer is RESP3.
    Command {
        /// Wanted acknowledgements; `None` takes the node's default.
        level: Option<Level>,
        /// The command and its arguments.
        #[serde(borrow)]
        args: Vec<Key<'a>>,
    },
    /// A page of the admin endpoint by its path, or a change: `POST` and a path. The answer is its JSON.
    Admin(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// As [`Ask::Entries`], for a replica by the sender's route, and in the same instant: promise the keys that are to be leased, and say
    /// which of these requests were done, given with the number of the key each is about.
    Survey {
        /// For the leases; [`Version::ZERO`] if there are none.
        ballot: Version,
        /// Keys.
        #[serde(borrow)]
        keys: Vec<Surveyed<'a>>,
        /// Numbers of keys, and requests.
        requests: Vec<(u32, RequestId)>,
    },
    /// Whom to ask for what, unless it is what the asker has: [`Routes::mark`], 0 for nothing. For clients that know the ring.
    Routes(u64),
    /// What the sender's clients want to hear has changed.
    Interest(#[serde(borrow)] Wanted<'a>),
    /// Deliver these to your clients, in order.
    Publish(#[serde(borrow)] Vec<Published<'a>>),
    /// Names that your clients subscribed to.
    Channels {
        /// Which.
        kind: Kind,
        /// Those that match this glob.
        #[serde(borrow, with = "serde_bytes")]
        pattern: &'a [u8],
    },
    /// How many of your clients subscribed to each of these names?
    Subscribers {
        /// Of the names.
        kind: Kind,
        /// Names.
        #[serde(borrow)]
        names: Vec<Key<'a>>,
    },
    /// In which of these partitions does every replica have all that you have up to this version, below which you stamp nothing any more?
    Settles {
        /// A bit each.
        #[serde(borrow, with = "serde_bytes")]
        partitions: &'a [u8],
        /// The mark of the asker's route to each, in order.
        routes: Vec<u32>,
        /// Up to here.
        up_to: Version,
    },
    /// All replicas of these partitions have said so: take them for settled.
    Settle {
        /// A bit each.
        #[serde(borrow, with = "serde_bytes")]
        partitions: &'a [u8],
        /// The mark of the asker's route to each, in order.
        routes: Vec<u32>,
        /// Up to here.
        up_to: Version,
    },
    /// Which of these sums of digests differ from yours?
    Roots(#[serde(borrow)] Roots<'a>),
}

/// A key of a survey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surveyed<'a> {
    /// The key.
    #[serde(borrow)]
    pub key: Key<'a>,
    /// The version the asker has.
    pub have: Version,
    /// The mark of the asker's route.
    pub route: u32,
    /// Whether to lease it.
    pub lease: bool,
}

/// Answers to [`Ask`]. Append-only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// Here.
    Pong,
    /// The membership.
    Membership(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// One per key asked for, from the first on: at least one, and as many as make a frame of reasonable size.
    Entries(#[serde(borrow)] Vec<Holding<'a>>),
    /// A number of keys, or of replicas.
    Count(u64),
    /// Keys.
    Keys(#[serde(borrow)] Vec<Key<'a>>),
    /// A page of keys per partition.
    Scanned(#[serde(borrow)] Vec<Page<'a>>),
    /// Done.
    Done,
    /// Partition digests; `None` where another comparison is under way.
    Digests(Vec<Option<PartitionDigest>>),
    /// Sums that differ.
    Apart {
        /// Of how many, from the first on: at least one.
        compared: u32,
        /// Their numbers.
        apart: Vec<u32>,
    },
    /// How what is here differs from the prints.
    Unmatched {
        /// Keys and versions that are not among them.
        #[serde(borrow)]
        versions: Vec<(Key<'a>, Version)>,
        /// Numbers of those that are not here.
        lacking: Vec<u32>,
        /// The first place that was not looked at any more, if there is one before the last that was meant.
        end: Option<u64>,
    },
    /// A reply in RESP3.
    Reply(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// JSON and its HTTP status.
    Admin {
        /// As HTTP would have it.
        status: u16,
        /// The body.
        #[serde(borrow, with = "serde_bytes")]
        body: &'a [u8],
    },
    /// The question could not be answered: an error line as RESP would carry it.
    Failed(&'a str),
    /// One holding per key asked for, and the replies of those requests that were done.
    Survey {
        /// In the order asked.
        #[serde(borrow)]
        holdings: Vec<Holding<'a>>,
        /// Only those that were done, each with the version it wrote.
        #[serde(borrow)]
        answered: Vec<(Answered<'a>, Version)>,
        /// Numbers of keys, and the version since which every request that changed the key is remembered here.
        known: Vec<(u32, Version)>,
    },
    /// Whom to ask for what; `Done` if the asker has it.
    Routes(#[serde(borrow)] Routes<'a>),
    /// A number for each message or name, in order.
    Counts(Vec<u64>),
    /// Names that clients subscribed to.
    Names(#[serde(borrow)] Vec<Key<'a>>),
    /// Partitions, a bit each.
    Partitions(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
}

/// Whom to ask for each partition, and what else a client has to know, as the answering node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes<'a> {
    /// Names all that follows: equal marks, equal routes.
    pub mark: u64,
    /// The node's ring epoch.
    pub epoch: u64,
    /// The acknowledgements it asks for where a client does not say.
    pub level: Level,
    /// The longest value it takes.
    pub value_bytes_max: u64,
    /// `host:port` of members.
    #[serde(borrow)]
    pub members: Vec<&'a str>,
    /// Of each partition the members that serve it, by their place in `members`: its coordinator first.
    pub serving: Vec<Vec<u16>>,
}

/// What a member holds for a key it was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding<'a> {
    /// Nothing, though the asker has something.
    Nothing,
    /// The version the asker has, or nothing like the asker.
    Same,
    /// This.
    Entry(#[serde(borrow)] EntryRef<'a>),
    /// No answer: it is promised to another coordinator, and the next must stamp above this.
    Leased {
        /// Where its stamps end.
        above: Version,
    },
    /// No answer: the sender's owners and holders of the partition are not the receiver's.
    OtherRoute,
}

/// A key among others: bytes that postcard does not take for a list of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key<'a>(#[serde(borrow, with = "serde_bytes")] pub &'a [u8]);

/// A payload that is a message family of its own, such as the membership.
pub fn encode_payload(payload: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(payload).expect("a Vec takes any payload")
}

/// Reads such a payload; it must fill the bytes.
///
/// # Errors
/// [`FrameError::Malformed`](frame::FrameError::Malformed).
pub fn decode_payload<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, frame::FrameError> {
    match postcard::take_from_bytes(bytes) {
        Ok((payload, [])) => Ok(payload),
        Ok((_, rest)) => Err(frame::FrameError::Malformed(format!("{} bytes left over", rest.len()))),
        Err(error) => Err(frame::FrameError::Malformed(error.to_string())),
    }
}
