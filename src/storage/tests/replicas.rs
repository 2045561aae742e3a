//! Replicas that see the same entries end alike; floors, synchronisation and pages of keys.

use super::*;

fn entry(time: u64, origin: u32, value: Option<u8>, deadline: Option<UnixMs>) -> Entry {
    let body = value.map_or(Body::Tombstone, |byte| Body::Live {
        value: vec![byte; usize::from(byte)].into(),
        deadline,
        marks: Marks::default(),
    });
    Entry { version: Version { time: (T0 << 16) + time, origin }, body }
}

fn digests(store: &mut Store) -> Vec<PartitionDigest> {
    store.partitions().map(|p| store.partition_digest(p)).collect()
}

// Equal versions carry equal content, as nodes never stamp twice; so content follows from the version.
fn entries() -> impl Strategy<Value = Vec<(u8, Entry)>> {
    let one = (0u8..4, 0u64..6, 0u32..3).prop_map(|(key, time, origin)| {
        let mix = time * 3 + u64::from(origin);
        let value = (mix % 4 != 0).then_some(mix as u8);
        (key, entry(time, origin, value, (mix % 3 == 1).then_some(T0 + mix)))
    });
    prop::collection::vec(one, 0..30)
}

proptest! {
    #[test]
    fn any_order_and_repetition_of_the_same_entries_gives_equal_stores(
        entries in entries(),
        order in any::<prop::sample::Index>(),
        later in 0u64..20,
    ) {
        let (mut a, mut b) = (store(), store_of(2, 0, true));
        b.set_replicated(true);
        digests(&mut a);
        for (key, entry) in &entries {
            a.apply(&[*key], entry, T0);
        }
        let mut shuffled = entries.clone();
        if !shuffled.is_empty() {
            let at = order.index(shuffled.len());
            shuffled.rotate_left(at);
            shuffled.reverse();
        }
        for (key, entry) in shuffled.iter().chain(&entries) {
            b.apply(&[*key], entry, T0 + later);
            b.turn(T0 + later);
        }
        prop_assert_eq!(digests(&mut a), digests(&mut b));
        a.turn(T0 + 1_000);
        b.turn(T0 + 1_000);
        prop_assert_eq!(digests(&mut a), digests(&mut b));
        for (key, _) in &entries {
            prop_assert_eq!(a.peek(&[*key]), b.peek(&[*key]));
        }
        check_accounts(&mut a);
        check_accounts(&mut b);
    }
}

#[test]
fn applying_says_what_became_of_an_entry() {
    let mut store = store();
    assert_eq!(store.apply(b"k", &entry(5, 1, Some(3), None), T0), Applied::Newer);
    assert_eq!(store.apply(b"k", &entry(5, 1, Some(3), None), T0), Applied::Same);
    let newest = entry(5, 1, None, None).version;
    assert_eq!(store.apply(b"k", &entry(4, 9, None, None), T0), Applied::Stale(newest));
    let far = Entry { version: Version { time: (T0 + 501) << 16, origin: 1 }, ..entry(0, 1, None, None) };
    assert_eq!(store.apply(b"k", &far, T0), Applied::FarFuture);
    assert_eq!(store.peek(b"k").unwrap().version, newest);
    let counted = |counter| store.counters().count(counter);
    assert_eq!(counted(Counter::EntriesApplied), 1);
    assert_eq!((counted(Counter::EntriesStale), counted(Counter::EntriesFarFuture)), (1, 1));
}

#[test]
fn a_write_rises_above_what_was_seen_and_a_tombstone_too() {
    let mut store = store();
    store.apply(b"k", &entry(400 << 16, 7, None, None), T0);
    let written = put(&mut store, "k", "v", T0);
    assert!(written.version > entry(400 << 16, 7, None, None).version);
    let (_, told) = run(&mut store, &op("k", Act::Delete, ""), T0);
    assert!(told.unwrap().version > written.version);
    assert_eq!(store.tombstones(), 1);
    assert!(put(&mut store, "k", "v", T0).version > written.version);
    assert_eq!(store.tombstones(), 0);
}

#[test]
fn an_expired_value_arrives_as_a_tombstone_and_differs_from_no_replica() {
    let (mut early, mut late) = (store(), store());
    let expiring = entry(1, 1, Some(5), Some(T0 + 10));
    early.apply(b"k", &expiring, T0);
    assert_eq!(late.apply(b"k", &expiring, T0 + 10), Applied::Newer);
    assert_eq!((late.len(), late.tombstones()), (0, 1));
    assert_eq!(late.apply(b"k", &expiring, T0 + 10), Applied::Same);
    assert_eq!(early.apply(b"k", &Entry { body: Body::Tombstone, ..expiring }, T0 + 10), Applied::Same);
    assert_eq!(digests(&mut early), digests(&mut late));
    assert_eq!(get(&mut early, "k", T0 + 10), "nil");
    assert_eq!(digests(&mut early), digests(&mut late));
}

#[test]
fn a_restamp_rises_above_a_ballot_unless_the_key_moved() {
    let mut store = store();
    let ours = put(&mut store, "k", "v", T0).version;
    let seen = entry(240 << 16, 9, None, None).version;
    let ballot = store.ballot(seen, T0).unwrap();
    assert!(ballot > seen && ballot > ours);
    let mut told = None;
    assert!(store.restamp(b"k", ours, T0, &mut |_, entry: EntryRef<'_>| told = Some(entry.to_entry())));
    let told = told.unwrap();
    assert!(told.version > ballot && matches!(&told.body, Body::Live { value, .. } if &value[..] == b"v"));
    assert!(!store.restamp(b"k", ours, T0, &mut |_, _: EntryRef<'_>| {}));
    assert_eq!(store.version(b"k"), told.version);
    let edge = Version { time: (T0 + 260) << 16, origin: 1 };
    assert_eq!(store.ballot(edge, T0), None, "those behind this clock might refuse what follows");
    assert!(store.ballot(edge, T0 + 10).is_some());
    assert_eq!(store.ballot(Version { time: (T0 + 9_000) << 16, origin: 1 }, T0), None, "that clock is far ahead");
    check_accounts(&mut store);
}

#[test]
fn a_flush_kills_what_is_there_and_what_comes_late() {
    let (mut store, mut replica) = (store(), store());
    let p = Partition::of(b"k");
    let old = put(&mut store, "k", "v", T0);
    replica.apply(b"k", &old, T0);
    let floor = store.flush(p, T0);
    assert_eq!((store.len(), get(&mut store, "k", T0)), (0, "nil".into()));
    assert_eq!(store.apply(b"k", &old, T0), Applied::Stale(floor));
    let new = put(&mut store, "k", "w", T0);
    assert!(new.version > floor);
    // The replica hears of the new value first.
    replica.apply(b"k", &new, T0);
    assert_eq!(replica.apply_floor(p, floor, T0), Applied::Newer);
    assert_eq!(replica.apply_floor(p, floor, T0), Applied::Same);
    assert_eq!(get(&mut replica, "k", T0), "\"w\"");
    assert_eq!(store.partition_digest(p), replica.partition_digest(p));
    for side in [&mut store, &mut replica] {
        side.turn(T0);
        check_accounts(side);
        side.drop_partition(p);
        side.turn(T0);
        assert_eq!((side.len(), side.memory_bytes(), side.floor(p)), (0, 0, Version::ZERO));
    }
}

#[test]
fn tombstones_are_kept_only_while_others_may_hold_copies() {
    let mut alone = store_of(1, 0, true);
    put(&mut alone, "k", "v", T0);
    let (_, told) = run(&mut alone, &op("k", Act::Delete, ""), T0);
    assert_eq!((alone.tombstones(), alone.memory_bytes()), (0, 0));
    assert_eq!(told.unwrap().body, Body::Tombstone);
    let mut store = store();
    put(&mut store, "k", "v", T0);
    let (_, told) = run(&mut store, &op("k", Act::Delete, ""), T0);
    let version = told.unwrap().version;
    let p = Partition::of(b"k");
    let older = Version { time: version.time - 1, ..version };
    store.settle(p, older, T0);
    store.turn(T0);
    assert_eq!(store.tombstones(), 1);
    store.settle(p, version, T0);
    store.turn(T0);
    assert_eq!((store.tombstones(), store.memory_bytes()), (0, 0));
}

/// Found by the simulator (`combined`, seed 3): of partitions given away that held nothing but tombstones, these stayed for ever.
#[test]
fn a_partition_of_tombstones_alone_is_filled_until_it_is_dropped() {
    let mut store = store();
    let p = Partition::of(b"k");
    assert!(!store.is_filled(p));
    put(&mut store, "k", "v", T0);
    assert!(store.is_filled(p));
    run(&mut store, &op("k", Act::Delete, ""), T0);
    assert_eq!((store.len_of(p), store.is_filled(p)), (0, true));
    store.drop_partition(p);
    assert!(!store.is_filled(p));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_scan_returns_every_key_that_stays_whatever_comes_and_goes(stay in 1usize..4_000, churn in 0usize..400, seed: u64) {
        let mut store = store();
        let p = Partition::of(b"{t}");
        let staying: BTreeSet<String> = (0..stay).map(|n| format!("{{t}}stay{n}")).collect();
        for key in &staying {
            put(&mut store, key, "v", T0);
        }
        let (mut found, mut position, mut step) = (BTreeSet::new(), 0, seed);
        loop {
            let page = store.scan(p, position, 10, Some(b"*stay*"), T0);
            found.extend(page.keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()));
            for _ in 0..churn {
                step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = format!("{{t}}churn{}", step >> 52);
                let act = if step >> 50 & 1 == 0 { plain_set() } else { Act::Delete };
                run(&mut store, &op(&key, act, "v"), T0);
            }
            let Some(next) = page.next else { break };
            prop_assert!(next > position && next < 1 << 48);
            position = next;
        }
        prop_assert_eq!(found, staying);
        check_accounts(&mut store);
    }
}

#[test]
fn keys_and_random_keys_are_live_ones() {
    let mut store = store();
    let any = |_| true;
    assert_eq!(store.random_key(any, 7, T0), None);
    put(&mut store, "b", "v", T0);
    run(&mut store, &op("gone", set(Expiry::Until(Deadline::In(5)), When::Always, SetAnswer::Done), "v"), T0);
    let mut keys = Vec::new();
    for p in store.partitions() {
        store.keys(p, b"*", T0 + 5, &mut keys);
    }
    assert_eq!(keys, ["b"]);
    for draw in 0..10 {
        assert_eq!(store.random_key(any, draw, T0 + 5).unwrap(), "b");
    }
    assert!((0..10).any(|draw| store.random_key(any, draw, T0).unwrap() == "gone"));
    let (b, gone) = (Partition::of(b"b"), Partition::of(b"gone"));
    assert!((0..10).all(|draw| store.random_key(|p| p == b, draw, T0).unwrap() == "b"));
    assert_eq!(store.random_key(|p| p != b && p != gone, 0, T0), None);
}
