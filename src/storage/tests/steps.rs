//! Looking at keys, and conditions, as transactions are made of them.

use super::*;
use crate::base::seen::Seen;

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
