//! What operations amount to as events. The names and their order are those of redis-server 7.0.

use super::*;

use crate::base::item::{ItemAct, ItemTerms, Mode};
use crate::base::notify::Classes;
use crate::base::op::Renaming;

fn noticing(replicated: bool) -> Store {
    let mut store = store_of(1, 0, true);
    store.set_replicated(replicated);
    store.set_noticed(Classes::parse(b"KEAmn").unwrap());
    store
}

/// The events since this was last asked, as `event key`.
fn told(store: &mut Store) -> String {
    let notices = store.take_notices();
    let each = notices.iter().map(|n| format!("{} {}", n.event, String::from_utf8_lossy(&n.key)));
    each.collect::<Vec<_>>().join(", ")
}

#[test]
fn each_act_is_told_as_redis_tells_it() {
    let (soon, past) = (Expiry::Until(Deadline::In(1_000)), Expiry::Until(Deadline::At(1)));
    let expire = |at| Act::Expire { at, when: ExpireWhen::default() };
    let with = |expiry, answer| set(expiry, When::Always, answer);
    let clear = Expiry::Clear;
    for (act, value, absent, present) in [
        (Act::Get, "", "keymiss k", ""),
        (Act::Look, "", "", ""),
        (plain_set(), "v", "new k, set k", "set k"),
        (with(soon, SetAnswer::Done), "v", "new k, set k, expire k", "set k, expire k"),
        (with(Expiry::Keep, SetAnswer::Done), "v", "new k, set k", "set k"),
        (with(clear, SetAnswer::Old), "v", "keymiss k, new k, set k", "set k"),
        (with(past, SetAnswer::Done), "v", "new k, set k, expire k, expired k", "set k, expire k, expired k"),
        (set(clear, When::Absent, SetAnswer::Flag), "v", "new k, set k", ""),
        (set(clear, When::Present, SetAnswer::Done), "v", "", "set k"),
        (with(clear, SetAnswer::Restored), "v", "new k, restore k", "new k, restore k"),
        (with(past, SetAnswer::Restored), "v", "", "del k"),
        (with(clear, SetAnswer::Copied), "v", "new k, copy_to k", "new k, copy_to k"),
        (with(clear, SetAnswer::Moved), "v", "new k, rename_to k", "new k, rename_to k"),
        (Act::GetDel, "", "keymiss k", "del k"),
        (Act::GetEx { expiry: Expiry::Keep }, "", "keymiss k", ""),
        (Act::GetEx { expiry: soon }, "", "keymiss k", "expire k"),
        (Act::GetEx { expiry: past }, "", "keymiss k", "del k"),
        (Act::Delete, "", "", "del k"),
        (Act::Renaming(Renaming::Depart), "", "", "rename_from k"),
        (Act::Append, "x", "new k, append k", "append k"),
        (Act::SetRange { offset: 2 }, "x", "new k, setrange k", "setrange k"),
        (Act::SetRange { offset: 2 }, "", "", ""),
        (Act::Incr { by: 1 }, "", "new k, incrby k", "incrby k"),
        (Act::IncrFloat, "1", "new k, incrbyfloat k", "incrbyfloat k"),
        (Act::SetBit { at: 0, on: true }, "", "new k, setbit k", "setbit k"),
        (expire(Deadline::In(5)), "", "", "expire k"),
        (expire(Deadline::In(-5)), "", "", "del k"),
        (Act::Persist, "", "", ""),
    ] {
        for (replicated, is_there) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut store = noticing(replicated);
            if is_there {
                put(&mut store, "k", "5", T0);
                told(&mut store);
            }
            run(&mut store, &op("k", act, value), T0);
            let expected = if is_there { present } else { absent };
            assert_eq!(told(&mut store), expected, "{act:?} {replicated} {is_there}");
        }
    }
}

#[test]
fn what_is_moved_is_told_of_both_keys_in_the_order_of_redis() {
    let mut store = noticing(true);
    put(&mut store, "from", "v", T0);
    told(&mut store);
    for (key, act) in [
        ("from", Act::Renaming(Renaming::Load { skip: 2 })),
        ("to", Act::Renaming(Renaming::Unload { skip: 1 })),
        ("from", Act::Renaming(Renaming::Delete)),
    ] {
        run(&mut store, &op(key, act, ""), T0);
    }
    assert_eq!(told(&mut store), "new to, rename_from from, rename_to to");
    for (key, act) in [("to", Act::Load { skip: 1 }), ("copy", Act::Unload { skip: 0 })] {
        run(&mut store, &op(key, act, ""), T0);
    }
    assert_eq!(told(&mut store), "new copy, copy_to copy");
    for (key, act) in [("copy", Act::Fold(crate::base::op::BitOp::Or)), ("sum", Act::Unload { skip: 0 })] {
        run(&mut store, &op(key, act, ""), T0);
    }
    assert_eq!(told(&mut store), "new sum, set sum");
    for (key, act) in [("none", Act::Fold(crate::base::op::BitOp::Or)), ("sum", Act::Unload { skip: 0 })] {
        run(&mut store, &op(key, act, ""), T0);
    }
    assert_eq!(told(&mut store), "keymiss none, del sum");
}

#[test]
fn a_key_that_expired_is_told_of_once_whoever_finds_it() {
    for finds in [Act::Get, plain_set(), Act::Delete] {
        for replicated in [false, true] {
            let mut store = noticing(replicated);
            run(&mut store, &op("k", set(Expiry::Until(Deadline::In(5)), When::Always, SetAnswer::Done), "v"), T0);
            told(&mut store);
            run(&mut store, &op("k", finds, "w"), T0 + 6);
            let events = told(&mut store);
            assert!(events.starts_with("expired k"), "{finds:?}: {events}");
            store.turn(T0 + 5_000);
            assert_eq!(told(&mut store), "", "{finds:?}");
        }
    }
    let mut store = noticing(true);
    run(&mut store, &op("k", set(Expiry::Until(Deadline::In(5)), When::Always, SetAnswer::Done), "v"), T0);
    told(&mut store);
    store.turn(T0 + 5_000);
    assert_eq!(told(&mut store), "expired k", "nobody looked");
}

#[test]
fn items_are_told_of_in_the_terms_of_redis() {
    let terms = |terms: ItemTerms, data: &str| {
        let mut value = data.as_bytes().to_vec();
        terms.append_to(&mut value);
        value
    };
    let of = |mode| ItemTerms { mode, ..ItemTerms::default() };
    let until = ItemTerms { expiry: Expiry::Until(Deadline::In(1_000)), ..ItemTerms::default() };
    for (act, value, absent, present) in [
        (ItemAct::Read, Vec::new(), "keymiss k", ""),
        (ItemAct::Store, terms(of(Mode::Set), "5"), "new k, set k", "set k"),
        (ItemAct::Store, terms(of(Mode::Add), "5"), "new k, set k", ""),
        (ItemAct::Store, terms(of(Mode::Append), "5"), "", "append k"),
        (ItemAct::Put, terms(until, "5"), "new k, set k, expire k", "set k, expire k"),
        (ItemAct::Touch, terms(until, ""), "", "expire k"),
        (ItemAct::Count, terms(ItemTerms { delta: 1, ..ItemTerms::default() }, ""), "", "incrby k"),
        (ItemAct::Remove, terms(ItemTerms::default(), ""), "", "del k"),
    ] {
        for is_there in [false, true] {
            let mut store = noticing(true);
            if is_there {
                put(&mut store, "k", "5", T0);
                told(&mut store);
            }
            let act = Act::Item(act);
            run(&mut store, &Op { key: "k".into(), act, value: value.clone().into() }, T0);
            assert_eq!(told(&mut store), if is_there { present } else { absent }, "{act:?} {is_there}");
        }
    }
}

#[test]
fn replicas_and_refusals_are_told_of_nothing_and_evictions_are() {
    let mut store = noticing(true);
    let entry = put(&mut store_of(2, 0, true), "k", "v", T0);
    store.apply(b"k", &entry, T0);
    run(&mut store, &op("k", Act::Incr { by: 1 }, ""), T0);
    assert_eq!(told(&mut store), "");
    let mut small = store_of(1, 100_000, true);
    small.set_noticed(Classes::parse(b"Ke").unwrap());
    for n in 0..2_000 {
        put(&mut small, &format!("key {n}"), &"x".repeat(100), T0);
    }
    let evicted = small.counters().count(Counter::Evicted) as usize;
    let notices = small.take_notices();
    assert!(evicted > 0 && notices.len() == evicted && notices.iter().all(|notice| notice.event == "evicted"));
}
