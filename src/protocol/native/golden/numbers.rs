//! The numbers of all variants that travel. A new variant does not compile here before it has one. Used by the golden tests alone.

use super::super::{Answer, Ask, Holding, Message, RecordRef, Refusal};
use crate::base::channel::Kind;
use crate::base::entry::BodyRef;
use crate::base::item::ItemAct;
use crate::base::level::Level;
use crate::base::op::{Act, Aspect, BitOp, BitUnit, Comparison, Deadline, Expiry, Renaming, SetAnswer, When};
use crate::base::reply::{ReplyKind, Wire};

/// The number of each variant, and how many there are.
macro_rules! numbers {
    ($number:ident, $count:ident, $of:ty, $($pattern:pat => $n:literal,)*) => {
        pub(super) fn $number(value: &$of) -> usize {
            match value {
                $($pattern => $n,)*
            }
        }
        pub(super) const $count: usize = [$($n),*].len();
    };
}

numbers!(message_number, MESSAGES, Message<'_>,
    Message::Hello(..) => 0,
    Message::Welcome(..) => 1,
    Message::Refused { .. } => 2,
    Message::Forward { .. } => 3,
    Message::Forwarded { .. } => 4,
    Message::Replicate { .. } => 5,
    Message::Acknowledge { .. } => 6,
    Message::Ask { .. } => 7,
    Message::Answer { .. } => 8,
    Message::Relay { .. } => 9,
);
numbers!(ask_number, ASKS, Ask<'_>,
    Ask::Ping => 0,
    Ask::Membership(..) => 1,
    Ask::Entries(..) => 2,
    Ask::Count(..) => 3,
    Ask::Keys { .. } => 4,
    Ask::Scan { .. } => 5,
    Ask::RandomKey(..) => 6,
    Ask::Flush { .. } => 7,
    Ask::Wait { .. } => 8,
    Ask::Digests(..) => 9,
    Ask::Sums(..) => 10,
    Ask::Prints(..) => 11,
    Ask::Command { .. } => 12,
    Ask::Admin(..) => 13,
    Ask::Survey { .. } => 14,
    Ask::Routes(..) => 15,
    Ask::Interest(..) => 16,
    Ask::Publish(..) => 17,
    Ask::Channels { .. } => 18,
    Ask::Subscribers { .. } => 19,
    Ask::Settles { .. } => 20,
    Ask::Settle { .. } => 21,
    Ask::Roots(..) => 22,
);
numbers!(answer_number, ANSWERS, Answer<'_>,
    Answer::Pong => 0,
    Answer::Membership(..) => 1,
    Answer::Entries(..) => 2,
    Answer::Count(..) => 3,
    Answer::Keys(..) => 4,
    Answer::Scanned(..) => 5,
    Answer::Done => 6,
    Answer::Digests(..) => 7,
    Answer::Apart { .. } => 8,
    Answer::Unmatched { .. } => 9,
    Answer::Reply(..) => 10,
    Answer::Admin { .. } => 11,
    Answer::Failed(..) => 12,
    Answer::Survey { .. } => 13,
    Answer::Routes(..) => 14,
    Answer::Counts(..) => 15,
    Answer::Names(..) => 16,
    Answer::Partitions(..) => 17,
);
numbers!(kind_number, KINDS, Kind,
    Kind::Channel => 0,
    Kind::Pattern => 1,
    Kind::Shard => 2,
);
numbers!(record_ref_number, RECORD_REFS, RecordRef<'_>,
    RecordRef::Entry { .. } => 0,
    RecordRef::Floor { .. } => 1,
);
numbers!(holding_number, HOLDINGS, Holding<'_>,
    Holding::Nothing => 0,
    Holding::Same => 1,
    Holding::Entry(..) => 2,
    Holding::Leased { .. } => 3,
    Holding::OtherRoute => 4,
);
numbers!(refusal_number, REFUSALS, Refusal,
    Refusal::FarFuture => 0,
    Refusal::Lease => 1,
    Refusal::Route => 2,
);
numbers!(body_ref_number, BODY_REFS, BodyRef<'_>,
    BodyRef::Tombstone => 0,
    BodyRef::Live { .. } => 1,
);
numbers!(act_number, ACTS, Act,
    Act::Get => 0,
    Act::Exists => 1,
    Act::Type => 2,
    Act::Touch => 3,
    Act::Strlen => 4,
    Act::GetRange { .. } => 5,
    Act::Ttl { .. } => 6,
    Act::Set { .. } => 7,
    Act::GetDel => 8,
    Act::GetEx { .. } => 9,
    Act::Delete => 10,
    Act::Append => 11,
    Act::SetRange { .. } => 12,
    Act::Incr { .. } => 13,
    Act::IncrFloat => 14,
    Act::Expire { .. } => 15,
    Act::Persist => 16,
    Act::SetIf { .. } => 17,
    Act::DeleteIf { .. } => 18,
    Act::Digest => 19,
    Act::GetBit { .. } => 20,
    Act::SetBit { .. } => 21,
    Act::BitCount { .. } => 22,
    Act::BitPos { .. } => 23,
    Act::BitField => 24,
    Act::BitFieldGet => 25,
    Act::Describe { .. } => 26,
    Act::Look => 27,
    Act::Unchanged { .. } => 28,
    Act::Absent { .. } => 29,
    Act::Whole => 30,
    Act::Load { .. } => 31,
    Act::Fold(..) => 32,
    Act::Unload { .. } => 33,
    Act::Item(..) => 34,
    Act::Renaming(..) => 35,
);
numbers!(aspect_number, ASPECTS, Aspect,
    Aspect::Encoding => 0,
    Aspect::Frequency => 1,
    Aspect::IdleSeconds => 2,
    Aspect::References => 3,
    Aspect::MemoryBytes => 4,
    Aspect::Dump => 5,
);
numbers!(bit_unit_number, BIT_UNITS, BitUnit,
    BitUnit::Byte => 0,
    BitUnit::Bit => 1,
);
numbers!(comparison_number, COMPARISONS, Comparison,
    Comparison::Equal => 0,
    Comparison::Differs => 1,
    Comparison::DigestEqual => 2,
    Comparison::DigestDiffers => 3,
);
numbers!(bit_op_number, BIT_OPS, BitOp,
    BitOp::And => 0,
    BitOp::Or => 1,
    BitOp::Xor => 2,
    BitOp::Not => 3,
);
numbers!(item_act_number, ITEM_ACTS, ItemAct,
    ItemAct::Read => 0,
    ItemAct::Peek => 1,
    ItemAct::Fetch => 2,
    ItemAct::Put => 3,
    ItemAct::Store => 4,
    ItemAct::Remove => 5,
    ItemAct::Count => 6,
    ItemAct::Touch => 7,
);
numbers!(expiry_number, EXPIRYS, Expiry,
    Expiry::Keep => 0,
    Expiry::Clear => 1,
    Expiry::Until(..) => 2,
);
numbers!(deadline_number, DEADLINES, Deadline,
    Deadline::In(..) => 0,
    Deadline::At(..) => 1,
);
numbers!(when_number, WHENS, When,
    When::Always => 0,
    When::Absent => 1,
    When::Present => 2,
);
numbers!(renaming_number, RENAMINGS, Renaming,
    Renaming::Load { .. } => 0,
    Renaming::Unload { .. } => 1,
    Renaming::Delete => 2,
    Renaming::Depart => 3,
);
numbers!(set_answer_number, SET_ANSWERS, SetAnswer,
    SetAnswer::Done => 0,
    SetAnswer::Flag => 1,
    SetAnswer::Old => 2,
    SetAnswer::Restored => 3,
    SetAnswer::Copied => 4,
    SetAnswer::Moved => 5,
);
numbers!(level_number, LEVELS, Level,
    Level::One => 0,
    Level::Quorum => 1,
    Level::All => 2,
);
numbers!(wire_number, WIRES, Wire,
    Wire::Resp2 => 0,
    Wire::Resp3 => 1,
    Wire::Item => 2,
);
numbers!(reply_kind_number, REPLY_KINDS, ReplyKind,
    ReplyKind::Int(..) => 0,
    ReplyKind::Error => 1,
    ReplyKind::Null => 2,
    ReplyKind::Value => 3,
);
