//! Expiry: never returned late, swept soon, in bounded turns.

use super::*;

fn put_for(store: &mut Store, key: &str, ms: i64, now: UnixMs) {
    let act = set(Expiry::Until(Deadline::In(ms)), When::Always, SetAnswer::Done);
    run(store, &op(key, act, "v"), now);
}

/// Turns when they are due until `until`; the worst lateness and the largest number swept at once.
fn turns(store: &mut Store, from: UnixMs, until: UnixMs) -> (u64, usize) {
    let (mut now, mut worst) = (from, (0, 0));
    loop {
        let turn = store.turn(now);
        worst = (worst.0.max(turn.late_ms_max), worst.1.max(turn.expired));
        match turn.next {
            Some(next) if next <= until => now = next.max(now + 1),
            _ => return worst,
        }
    }
}

#[test]
fn a_value_is_there_until_its_deadline_and_not_at_it() {
    let mut store = store();
    put_for(&mut store, "k", 100, T0);
    assert_eq!(get(&mut store, "k", T0 + 99), "\"v\"");
    assert_eq!(get(&mut store, "k", T0 + 100), "nil");
    assert_eq!((store.len(), store.with_deadline(), store.tombstones()), (0, 0, 1));
    assert_eq!(store.counters().count(Counter::Expired), 1);
}

#[test]
fn keys_nobody_reads_are_swept_within_a_second() {
    let mut store = store();
    for n in 0..20_000 {
        put_for(&mut store, &format!("k{n}"), 1_000 + n % 3_000, T0);
        put(&mut store, &format!("stays{n}"), "v", T0);
    }
    assert_eq!(store.with_deadline(), 20_000);
    let (late_ms, most) = turns(&mut store, T0, T0 + 6_000);
    assert_eq!((store.len(), store.with_deadline()), (20_000, 0));
    assert!(late_ms <= 1_000, "{late_ms}");
    assert!(most <= 500, "{most}");
    assert_eq!(store.turn(T0 + 6_000).next, None);
    check_accounts(&mut store);
}

#[test]
fn a_hundred_thousand_deadlines_at_one_instant_are_swept_in_bounded_turns() {
    let mut store = store_of(1, 0, true);
    for n in 0..100_000 {
        put_for(&mut store, &format!("{{one}}{n}"), 5_000, T0);
    }
    let (late_ms, most) = turns(&mut store, T0, T0 + 8_000);
    assert_eq!((store.len(), store.memory_bytes()), (0, 0));
    assert!(late_ms <= 1_000, "{late_ms}");
    assert!(most <= 500, "{most}");
}

#[test]
fn far_and_odd_deadlines_hold_as_well() {
    let mut store = store();
    let day_ms = 24 * 3_600_000;
    for (n, ms) in [1, 1 << 31, (1 << 31) - 1, 60 * day_ms, 1 << 32, 1 << 40].into_iter().enumerate() {
        let key = format!("k{n}");
        put_for(&mut store, &key, ms, T0);
        let deadline = T0 + ms as u64;
        assert_eq!(run(&mut store, &op(&key, Act::Ttl { ms: true, absolute: true }, ""), T0).0, deadline.to_string());
        store.turn(deadline - 1);
        assert_eq!(store.len(), 1, "{ms}");
        store.turn(deadline + 1);
        assert_eq!(store.len(), 0, "{ms}");
    }
}
