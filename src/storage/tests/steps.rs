//! Looking at keys, and conditions, as transactions are made of them.

use super::*;
use crate::base::op::BitOp;
use crate::base::seen::Seen;
use crate::base::whole::Whole;

fn look(store: &mut Store, now: UnixMs) -> Seen {
    let (text, told) = run(store, &op("k", Act::Look, ""), now);
    assert!(told.is_none());
    Seen::from_text(text.trim_matches('"').as_bytes()).expect("a look answers in its own form")
}

fn is_unchanged(store: &mut Store, since: Seen, now: UnixMs) -> bool {
    let (reply, told) = run(store, &op("k", Act::Unchanged { since }, ""), now);
    assert!(told.is_none());
    // What fails passes over all there is.
    assert_eq!(store.take_skip() == usize::MAX, reply == "0");
    assert_eq!(store.take_skip(), 0, "it is told once");
    reply == "1"
}

#[test]
fn a_key_has_changed_when_anything_was_written_to_it() {
    let until = Expiry::Until(Deadline::In(1_000));
    for (act, value, changes) in [
        (Act::Get, "", false),
        (Act::Touch, "", false),
        (Act::Persist, "", false),
        (set(Expiry::Clear, When::Absent, SetAnswer::Flag), "w", false),
        (Act::SetRange { offset: 9 }, "", false),
        // The same value is a change, as in Redis.
        (plain_set(), "v", true),
        (Act::Append, "", true),
        (Act::GetEx { expiry: until }, "", true),
        (Act::Delete, "", true),
    ] {
        let mut store = store();
        put(&mut store, "k", "v", T0);
        let since = look(&mut store, T0);
        assert!(since.live && is_unchanged(&mut store, since, T0));
        run(&mut store, &op("k", act, value), T0);
        assert_eq!(is_unchanged(&mut store, since, T0), !changes, "{act:?}");
    }
}

#[test]
fn a_key_that_was_absent_has_changed_when_it_is_there_or_was_in_between() {
    for (replicated, flushed) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut store = store_of(1, 0, true);
        store.set_replicated(replicated);
        let since = look(&mut store, T0);
        put(&mut store, "k", "v", T0);
        if flushed {
            store.flush(Partition::of(b"k"), T0);
        } else {
            run(&mut store, &op("k", Act::Delete, ""), T0);
        }
        assert!(!is_unchanged(&mut store, since, T0), "{replicated} {flushed}");
        let since = look(&mut store, T0);
        store.flush(Partition::of(b"k"), T0);
        assert!(is_unchanged(&mut store, since, T0), "{replicated} {flushed}");
        // Set with a deadline that is over: gone at once, and written all the same.
        let over = set(Expiry::Until(Deadline::At(1)), When::Always, SetAnswer::Done);
        run(&mut store, &op("k", over, "v"), T0);
        assert!(!is_unchanged(&mut store, since, T0), "{replicated} {flushed}");
    }
    let mut store = store();
    let since = look(&mut store, T0);
    run(&mut store, &op("k", Act::Delete, ""), T0);
    run(&mut store, &op("k", Act::Get, ""), T0);
    assert!(!since.live && is_unchanged(&mut store, since, T0));
    put(&mut store, "k", "v", T0);
    assert!(!is_unchanged(&mut store, since, T0));
    run(&mut store, &op("k", Act::Delete, ""), T0);
    assert!(!is_unchanged(&mut store, since, T0));
    let deleted = look(&mut store, T0);
    assert!(is_unchanged(&mut store, deleted, T0));
}

#[test]
fn expiry_is_a_change_for_who_saw_the_value_and_none_for_who_saw_it_expired() {
    for replicated in [true, false] {
        let mut store = store_of(1, 0, true);
        store.set_replicated(replicated);
        let until = set(Expiry::Until(Deadline::In(100)), When::Always, SetAnswer::Done);
        run(&mut store, &op("k", until, "v"), T0);
        let before = look(&mut store, T0);
        assert!(is_unchanged(&mut store, before, T0 + 99));
        let after = look(&mut store, T0 + 100);
        assert!(!after.live && is_unchanged(&mut store, after, T0 + 200));
        assert!(!is_unchanged(&mut store, before, T0 + 200));
        put(&mut store, "k", "w", T0 + 300);
        assert!(!is_unchanged(&mut store, after, T0 + 300));
    }
}

#[test]
fn a_condition_that_fails_passes_over_as_many_as_it_says() {
    let mut store = store();
    let absent = op("k", Act::Absent { skip: 3 }, "");
    assert_eq!((run(&mut store, &absent, T0).0.as_str(), store.take_skip()), ("1", 0));
    put(&mut store, "k", "v", T0);
    assert_eq!((run(&mut store, &absent, T0).0.as_str(), store.take_skip()), ("0", 3));
}

/// Executes a step on a key: its reply, and how many it passes over.
fn step(store: &mut Store, key: &str, act: Act) -> (String, usize) {
    let (reply, _) = run(store, &op(key, act, ""), T0);
    (reply, store.take_skip())
}

#[test]
fn a_value_is_carried_with_its_deadline_and_flags() {
    let mut store = store();
    let until = Expiry::Until(Deadline::In(5_000));
    let act = Act::Set { expiry: until, when: When::Always, answer: SetAnswer::Done, flags: 7 };
    run(&mut store, &op("from", act, "value"), T0);
    put(&mut store, "to", "other", T0);
    assert_eq!(step(&mut store, "from", Act::Load { skip: 2 }), ("1".into(), 0));
    assert_eq!(step(&mut store, "to", Act::Unload { skip: 0 }), ("5".into(), 0));
    let of = |key: &str| store.peek_owned(key.as_bytes()).expect("it is there").body;
    assert_eq!(of("to"), of("from"));
    assert_eq!(of("to"), Body::Live { value: "value".into(), deadline: Some(T0 + 5_000), marks: Marks::of(7) });
    assert_eq!(step(&mut store, "to", Act::Unload { skip: 0 }), ("nil".into(), 0), "the hand is empty");
    assert_eq!(step(&mut store, "none", Act::Load { skip: 2 }), ("0".into(), 2));
    check_accounts(&mut store);
}

#[test]
fn a_large_value_is_shared_by_its_copies() {
    let mut store = store();
    let large = "x".repeat(LARGE_VALUE_BYTES);
    put(&mut store, "from", &large, T0);
    step(&mut store, "from", Act::Load { skip: 0 });
    step(&mut store, "to", Act::Unload { skip: 0 });
    let value = |key: &str| match store.peek_owned(key.as_bytes()).expect("it is there").body {
        Body::Live { value, .. } => value,
        Body::Tombstone => panic!("deleted"),
    };
    assert_eq!(value("from").as_ptr(), value("to").as_ptr());
}

#[test]
fn what_has_no_room_is_passed_over_and_loses_nothing() {
    let mut store = store_of(1, 40_000, false);
    put(&mut store, "from", &"x".repeat(25_000), T0);
    assert_eq!(step(&mut store, "from", Act::Load { skip: 2 }).0, "1");
    let (reply, skip) = step(&mut store, "to", Act::Unload { skip: 1 });
    assert!(reply.starts_with("-OOM") && skip == 1, "{reply} {skip}");
    assert_eq!(get(&mut store, "from", T0).len(), 25_002);
}

#[test]
fn values_are_combined_bit_by_bit_and_nothing_deletes() {
    let mut store = store();
    put(&mut store, "a", "\x0f\x3c", T0);
    put(&mut store, "b", "\x3c", T0);
    run(&mut store, &op("to", set(Expiry::Until(Deadline::In(9_000)), When::Always, SetAnswer::Done), "old"), T0);
    for (key, act, reply) in [
        ("a", Act::Fold(BitOp::And), "2"),
        ("b", Act::Fold(BitOp::And), "2"),
        ("to", Act::Unload { skip: 0 }, "2"),
        ("to", Act::Get, "\"\x0c\0\""),
        ("to", Act::Ttl { ms: true, absolute: false }, "-1"),
        ("none", Act::Fold(BitOp::Or), "0"),
        ("to", Act::Unload { skip: 0 }, "0"),
        ("to", Act::Exists, "0"),
        ("none", Act::Fold(BitOp::Not), "0"),
        ("to", Act::Unload { skip: 0 }, "0"),
    ] {
        assert_eq!(step(&mut store, key, act).0, reply, "{key} {act:?}");
    }
    // What is at hand from another command is no part of a combination.
    step(&mut store, "a", Act::Load { skip: 0 });
    assert_eq!(step(&mut store, "b", Act::Fold(BitOp::Or)).0, "1");
    store.let_go();
    assert_eq!(step(&mut store, "to", Act::Unload { skip: 0 }).0, "nil");
}

#[test]
fn a_whole_value_says_all_that_a_copy_needs() {
    let mut store = store();
    let until = Expiry::Until(Deadline::In(5_000));
    let act = Act::Set { expiry: until, when: When::Always, answer: SetAnswer::Done, flags: 7 };
    run(&mut store, &op("k", act, "value"), T0);
    let seen = look(&mut store, T0);
    let (text, _) = run(&mut store, &op("k", Act::Whole, ""), T0);
    let whole = Whole::from_bytes(&Bytes::from(text.trim_matches('"').to_owned())).expect("it reads back");
    assert_eq!(whole, Whole { seen, deadline: Some(T0 + 5_000), flags: 7, value: "value".into() });
    assert_eq!(run(&mut store, &op("none", Act::Whole, ""), T0).0, "nil");
}
