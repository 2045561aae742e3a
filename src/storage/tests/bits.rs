//! Acts on bits against the replies of redis-server 7.0, and their bounds.

use super::acts::check;
use super::*;
use crate::base::bitfield::{Field, Overflow, Verb, encode};
use crate::base::op::BitUnit;

fn count(start: i64, end: i64, unit: BitUnit) -> Act {
    Act::BitCount { start, end, unit }
}

fn position(on: bool, start: i64, end: Option<i64>, unit: BitUnit) -> Act {
    Act::BitPos { on, open: end.is_none(), start, end: end.unwrap_or(-1), unit }
}

#[test]
fn single_bits_are_set_and_read_as_in_redis() {
    let set = |at, on| Act::SetBit { at, on };
    check(&[
        (Act::GetBit { at: 7 }, "", "0"),
        (set(7, true), "", "0"),
        (Act::Get, "", "\"\u{1}\""),
        (set(7, true), "", "1"),
        (set(23, false), "", "0"),
        (Act::Strlen, "", "3"),
        (Act::GetBit { at: 7 }, "", "1"),
        (Act::GetBit { at: u64::MAX }, "", "0"),
        (Act::Expire { at: Deadline::In(9_000), when: ExpireWhen::default() }, "", "1"),
        (set(7, false), "", "1"),
        (Act::Ttl { ms: false, absolute: false }, "", "9"),
        (set(8 << 20, true), "", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        (Act::Delete, "", "1"),
        (set(3, false), "", "0"),
        (Act::Strlen, "", "1"),
    ]);
}

#[test]
fn bits_are_counted_and_found_as_in_redis() {
    use BitUnit::{Bit, Byte};
    check(&[
        (count(0, -1, Byte), "", "0"),
        (position(true, 0, None, Byte), "", "-1"),
        (position(false, 0, None, Byte), "", "0"),
        (position(false, 5, Some(9), Bit), "", "0"),
        (plain_set(), "foobar", "+OK"),
        (count(0, -1, Byte), "", "26"),
        (count(0, 0, Byte), "", "4"),
        (count(1, 1, Byte), "", "6"),
        (count(5, 30, Bit), "", "17"),
        (count(-2, -1, Bit), "", "1"),
        (count(-8, -7, Byte), "", "4"),
        (count(-7, -8, Byte), "", "0"),
        (count(4, 2, Byte), "", "0"),
        (position(true, 0, None, Byte), "", "1"),
        (position(true, 2, None, Byte), "", "17"),
        (position(true, 2, Some(-1), Bit), "", "2"),
        (position(true, 3, Some(4), Bit), "", "-1"),
        (position(false, -7, Some(-8), Byte), "", "0"),
        (plain_set(), "~~~", "+OK"),
        (Act::SetBit { at: 0, on: true }, "", "0"),
        (Act::SetBit { at: 7, on: true }, "", "0"),
        (position(false, 0, Some(0), Byte), "", "-1"),
        (position(false, 0, None, Byte), "", "8"),
        (Act::SetRange { offset: 0 }, "", "3"),
        (plain_set(), "", "+OK"),
        (position(false, 0, None, Byte), "", "-1"),
        (count(0, -1, Byte), "", "0"),
    ]);
    let mut store = store();
    let ones = Op { value: Bytes::from(vec![0xff; 3]), ..op("k", plain_set(), "") };
    run(&mut store, &ones, T0);
    for (act, expected) in [
        (position(false, 0, None, Byte), "24"),
        (position(false, 1, None, Byte), "24"),
        (position(false, 3, None, Byte), "-1"),
        (position(false, 0, Some(-1), Byte), "-1"),
        (position(false, 0, Some(-1), Bit), "-1"),
        (position(true, 9, Some(9), Bit), "9"),
    ] {
        assert_eq!(run(&mut store, &op("k", act, ""), T0).0, expected, "{act:?}");
    }
}

fn fields(store: &mut Store, fields: &[Field]) -> (String, Option<Entry>) {
    let act = if fields.iter().any(Field::writes) { Act::BitField } else { Act::BitFieldGet };
    run(store, &Op { value: encode(fields).into(), ..op("k", act, "") }, T0)
}

#[test]
fn fields_are_changed_in_order_and_told_of_once() {
    let mut store = store();
    let field = |signed, bits, offset, verb, overflow| Field { signed, bits, offset, verb, overflow };
    let wrap = Overflow::Wrap;
    let get = |bits, offset| field(false, bits, offset, Verb::Get, wrap);
    assert_eq!(fields(&mut store, &[]).0, "[]");
    assert_eq!(fields(&mut store, &[get(8, 0), get(63, 1 << 40)]), ("[0, 0]".into(), None));
    let add = field(false, 4, 0, Verb::Add(1), wrap);
    let (replies, told) =
        fields(&mut store, &[field(true, 5, 100, Verb::Add(1), wrap), get(4, 0), add, add, get(8, 0)]);
    assert_eq!(replies, "[1, 0, 1, 2, 32]");
    assert!(matches!(told.unwrap().body, Body::Live { value, .. } if value.len() == 14));
    let sat = field(false, 2, 200, Verb::Add(3), Overflow::Saturate);
    let fail = field(false, 2, 200, Verb::Add(1), Overflow::Fail);
    assert_eq!(fields(&mut store, &[sat, sat, fail, field(false, 2, 200, Verb::Add(1), wrap)]).0, "[3, 3, nil, 0]");
    let set = |number| field(true, 8, 0, Verb::Set(number), wrap);
    assert_eq!(fields(&mut store, &[set(-1), set(300), get(8, 0)]).0, "[32, -1, 44]");
    // What changes nothing writes nothing.
    assert_eq!(fields(&mut store, &[field(true, 8, 0, Verb::Set(44), wrap)]), ("[44]".into(), None));
    check_accounts(&mut store);
}

#[test]
fn a_write_that_fails_has_made_room_for_itself_as_in_redis() {
    let mut store = store();
    let fail = Field { signed: false, bits: 2, offset: 14, verb: Verb::Add(4), overflow: Overflow::Fail };
    assert_eq!(fields(&mut store, &[fail]).0, "[nil]");
    assert_eq!(run(&mut store, &op("k", Act::Strlen, ""), T0).0, "2");
}

#[test]
fn operations_on_fields_beyond_bounds_or_reason_are_refused() {
    let mut store = store();
    let at = |offset| Field { signed: true, bits: 64, offset, verb: Verb::Set(1), overflow: Overflow::Wrap };
    let far = at((8 << 20) + 1);
    let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(fields(&mut store, &[far]), (too_long.into(), None));
    assert_eq!(run(&mut store, &op("k", Act::BitField, "no field"), T0).0, "-ERR malformed operation");
    assert_eq!(store.len(), 0);
    assert_eq!(fields(&mut store, &[at((8 << 20) - 1)]).0, "[0]");
    assert_eq!(run(&mut store, &op("k", Act::Strlen, ""), T0).0, ((1 << 20) + 8).to_string());
}

#[test]
fn bits_that_have_no_room_in_memory_are_refused() {
    let mut store = store_of(1, 20_000, false);
    let far = Field { signed: false, bits: 8, offset: 1 << 20, verb: Verb::Set(1), overflow: Overflow::Wrap };
    assert!(fields(&mut store, &[far]).0.starts_with("-OOM"));
    let set = op("k", Act::SetBit { at: 1 << 20, on: true }, "");
    assert!(run(&mut store, &set, T0).0.starts_with("-OOM"));
    assert_eq!((store.len(), store.counters().count(Counter::OutOfMemory)), (0, 2));
}
