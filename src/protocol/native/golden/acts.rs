//! The bytes of operations, pinned: what `golden` checks. Used by the golden tests alone.

use super::numbers::*;
use super::{Pin, part};
use crate::base::item::ItemAct;
use crate::base::op::{
    Act, Aspect, BitOp, BitUnit, Comparison, Deadline, ExpireWhen, Expiry, Renaming, SetAnswer, When,
};
use crate::base::seen::Seen;

pub(super) fn acts() -> Vec<Pin> {
    vec![
        part("Act::Get", Act::Get, act_number, "00"),
        part("Act::Exists", Act::Exists, act_number, "01"),
        part("Act::Type", Act::Type, act_number, "02"),
        part("Act::Touch", Act::Touch, act_number, "03"),
        part("Act::Strlen", Act::Strlen, act_number, "04"),
        part("Act::GetRange", Act::GetRange { start: 0, end: -1 }, act_number, "05 00 01"),
        part("Act::Ttl", Act::Ttl { ms: true, absolute: false }, act_number, "06 01 00"),
        part(
            "Act::Set",
            Act::Set { expiry: Expiry::Clear, when: When::Always, answer: SetAnswer::Done, flags: 0 },
            act_number,
            "07 01 00 00 00",
        ),
        part("Act::GetDel", Act::GetDel, act_number, "08"),
        part("Act::GetEx", Act::GetEx { expiry: Expiry::Keep }, act_number, "09 00"),
        part("Act::Delete", Act::Delete, act_number, "0a"),
        part("Act::Append", Act::Append, act_number, "0b"),
        part("Act::SetRange", Act::SetRange { offset: 300 }, act_number, "0c ac 02"),
        part("Act::Incr", Act::Incr { by: -1 }, act_number, "0d 01"),
        part("Act::IncrFloat", Act::IncrFloat, act_number, "0e"),
        part(
            "Act::Expire",
            Act::Expire { at: Deadline::In(60_000), when: ExpireWhen { no_deadline: true, ..ExpireWhen::default() } },
            act_number,
            "0f 00 c0 a9 07 01 00 00 00",
        ),
        part("Act::Persist", Act::Persist, act_number, "10"),
        part(
            "Act::SetIf",
            Act::SetIf {
                expiry: Expiry::Keep,
                comparison: Comparison::Differs,
                answer: SetAnswer::Old,
                operand_bytes: 300,
            },
            act_number,
            "11 00 01 02 ac 02",
        ),
        part("Act::DeleteIf", Act::DeleteIf { comparison: Comparison::Equal }, act_number, "12 00"),
        part("Act::Digest", Act::Digest, act_number, "13"),
        part("Act::GetBit", Act::GetBit { at: 300 }, act_number, "14 ac 02"),
        part("Act::SetBit", Act::SetBit { at: 300, on: true }, act_number, "15 ac 02 01"),
        part("Act::BitCount", Act::BitCount { start: 0, end: -1, unit: BitUnit::Bit }, act_number, "16 00 01 01"),
        part(
            "Act::BitPos",
            Act::BitPos { on: true, open: false, start: 0, end: -1, unit: BitUnit::Byte },
            act_number,
            "17 01 00 00 01 00",
        ),
        part("Act::BitField", Act::BitField, act_number, "18"),
        part("Act::BitFieldGet", Act::BitFieldGet, act_number, "19"),
        part("Act::Describe", Act::Describe { aspect: Aspect::Dump }, act_number, "1a 05"),
        part("Act::Look", Act::Look, act_number, "1b"),
        part(
            "Act::Unchanged",
            Act::Unchanged { since: Seen { time: 7 << 16, origin: 9, live: true } },
            act_number,
            "1c 80 80 1c 09 01",
        ),
        part("Act::Absent", Act::Absent { skip: 300 }, act_number, "1d ac 02"),
        part("Act::Whole", Act::Whole, act_number, "1e"),
        part("Act::Load", Act::Load { skip: 2 }, act_number, "1f 02"),
        part("Act::Fold", Act::Fold(BitOp::Xor), act_number, "20 02"),
        part("Act::Unload", Act::Unload { skip: 1 }, act_number, "21 01"),
        part("Act::Item", Act::Item(ItemAct::Fetch), act_number, "22 02"),
        part("Act::Renaming", Act::Renaming(Renaming::Unload { skip: 1 }), act_number, "23 01 01"),
    ]
}

pub(super) fn renamings() -> Vec<Pin> {
    vec![
        part("Renaming::Load", Renaming::Load { skip: 1 }, renaming_number, "00 01"),
        part("Renaming::Unload", Renaming::Unload { skip: 1 }, renaming_number, "01 01"),
        part("Renaming::Delete", Renaming::Delete, renaming_number, "02"),
        part("Renaming::Depart", Renaming::Depart, renaming_number, "03"),
    ]
}

pub(super) fn bit_ops() -> Vec<Pin> {
    vec![
        part("BitOp::And", BitOp::And, bit_op_number, "00"),
        part("BitOp::Or", BitOp::Or, bit_op_number, "01"),
        part("BitOp::Xor", BitOp::Xor, bit_op_number, "02"),
        part("BitOp::Not", BitOp::Not, bit_op_number, "03"),
    ]
}

pub(super) fn item_acts() -> Vec<Pin> {
    vec![
        part("ItemAct::Read", ItemAct::Read, item_act_number, "00"),
        part("ItemAct::Peek", ItemAct::Peek, item_act_number, "01"),
        part("ItemAct::Fetch", ItemAct::Fetch, item_act_number, "02"),
        part("ItemAct::Put", ItemAct::Put, item_act_number, "03"),
        part("ItemAct::Store", ItemAct::Store, item_act_number, "04"),
        part("ItemAct::Remove", ItemAct::Remove, item_act_number, "05"),
        part("ItemAct::Count", ItemAct::Count, item_act_number, "06"),
        part("ItemAct::Touch", ItemAct::Touch, item_act_number, "07"),
    ]
}

pub(super) fn aspects() -> Vec<Pin> {
    vec![
        part("Aspect::Encoding", Aspect::Encoding, aspect_number, "00"),
        part("Aspect::Frequency", Aspect::Frequency, aspect_number, "01"),
        part("Aspect::IdleSeconds", Aspect::IdleSeconds, aspect_number, "02"),
        part("Aspect::References", Aspect::References, aspect_number, "03"),
        part("Aspect::MemoryBytes", Aspect::MemoryBytes, aspect_number, "04"),
        part("Aspect::Dump", Aspect::Dump, aspect_number, "05"),
    ]
}

pub(super) fn bit_units() -> Vec<Pin> {
    vec![
        part("BitUnit::Byte", BitUnit::Byte, bit_unit_number, "00"),
        part("BitUnit::Bit", BitUnit::Bit, bit_unit_number, "01"),
    ]
}

pub(super) fn comparisons() -> Vec<Pin> {
    vec![
        part("Comparison::Equal", Comparison::Equal, comparison_number, "00"),
        part("Comparison::Differs", Comparison::Differs, comparison_number, "01"),
        part("Comparison::DigestEqual", Comparison::DigestEqual, comparison_number, "02"),
        part("Comparison::DigestDiffers", Comparison::DigestDiffers, comparison_number, "03"),
    ]
}

pub(super) fn expiries() -> Vec<Pin> {
    vec![
        part("Expiry::Keep", Expiry::Keep, expiry_number, "00"),
        part("Expiry::Clear", Expiry::Clear, expiry_number, "01"),
        part("Expiry::Until", Expiry::Until(Deadline::At(1000)), expiry_number, "02 01 d0 0f"),
    ]
}

pub(super) fn deadlines() -> Vec<Pin> {
    vec![
        part("Deadline::In", Deadline::In(-1), deadline_number, "00 01"),
        part("Deadline::At", Deadline::At(1000), deadline_number, "01 d0 0f"),
    ]
}

pub(super) fn conditions() -> Vec<Pin> {
    vec![
        part("When::Always", When::Always, when_number, "00"),
        part("When::Absent", When::Absent, when_number, "01"),
        part("When::Present", When::Present, when_number, "02"),
    ]
}

pub(super) fn set_answers() -> Vec<Pin> {
    vec![
        part("SetAnswer::Done", SetAnswer::Done, set_answer_number, "00"),
        part("SetAnswer::Flag", SetAnswer::Flag, set_answer_number, "01"),
        part("SetAnswer::Old", SetAnswer::Old, set_answer_number, "02"),
        part("SetAnswer::Restored", SetAnswer::Restored, set_answer_number, "03"),
        part("SetAnswer::Copied", SetAnswer::Copied, set_answer_number, "04"),
        part("SetAnswer::Moved", SetAnswer::Moved, set_answer_number, "05"),
    ]
}
