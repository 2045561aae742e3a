//! The memory budget: never exceeded, and what does not fit is refused. What goes is in `eviction`.

use super::*;

#[test]
fn a_value_larger_than_the_budget_is_refused_and_the_old_one_stays() {
    for evict in [true, false] {
        let mut store = store_of(1, 50_000, evict);
        put(&mut store, "k", "old", T0);
        put(&mut store, "other", "here", T0);
        let (reply, told) = run(&mut store, &op("k", plain_set(), &"v".repeat(60_000)), T0);
        assert_eq!(reply, "-OOM command not allowed when used memory > 'maxmemory'.");
        assert_eq!(told, None);
        assert_eq!(get(&mut store, "k", T0), "\"old\"");
        assert_eq!(get(&mut store, "other", T0), "\"here\"");
        assert_eq!(store.counters().count(Counter::OutOfMemory), 1);
    }
}

#[test]
fn without_eviction_a_full_store_refuses_writes_but_deletes_and_shrinks() {
    let mut store = store_of(1, 20_000, false);
    let mut n = 0;
    let full = loop {
        let (reply, _) = run(&mut store, &op(&format!("k{n}"), plain_set(), &"v".repeat(200)), T0);
        if reply != "+OK" {
            break n;
        }
        n += 1;
    };
    assert!(full > 20);
    assert_eq!(store.len(), full);
    assert_eq!(run(&mut store, &op("k0", plain_set(), "small"), T0).0, "+OK");
    assert_eq!(run(&mut store, &op("k1", Act::Delete, ""), T0).0, "1");
    assert_eq!(run(&mut store, &op("k1", plain_set(), &"v".repeat(200)), T0).0, "+OK");
    assert_eq!(store.counters().count(Counter::Evicted), 0);
    let applied = Entry {
        version: Version { time: T0 << 16, origin: 9 },
        body: Body::Live { value: vec![0; 9_000].into(), deadline: None, marks: Marks::default() },
    };
    assert_eq!(store.apply(b"from a replica", &applied, T0), Applied::Newer);
}

#[test]
fn a_value_just_written_is_not_the_one_that_goes() {
    let mut store = store_of(1, 100_000, true);
    for n in 0..100 {
        let key = format!("k{n}");
        put(&mut store, &key, &"v".repeat(40_000), T0);
        assert!(store.peek(key.as_bytes()).is_some(), "{key}");
        assert!(store.memory_bytes() <= 100_000);
    }
    check_accounts(&mut store);
}

#[test]
fn what_a_flush_left_to_free_goes_before_anything_else() {
    let mut store = store_of(1, 100_000, true);
    for n in 0..200 {
        put(&mut store, &format!("{{a}}{n}"), &"v".repeat(200), T0);
    }
    let before = store.memory_bytes();
    store.flush(Partition::of(b"{a}"), T0);
    assert_eq!((store.len(), store.memory_bytes()), (0, before));
    for n in 0..200 {
        put(&mut store, &format!("{{b}}{n}"), &"v".repeat(200), T0);
    }
    assert_eq!((store.len(), store.counters().count(Counter::Evicted)), (200, 0));
    while store.turn(T0).next.is_some() {}
    check_accounts(&mut store);
    assert_eq!(store.memory_bytes(), store.tally.bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_budget_holds_after_every_write(
        budget in 3_000usize..200_000,
        writes in prop::collection::vec((0u16..500, 0usize..3_000, any::<bool>(), 0u64..200), 1..300),
        replicated: bool,
    ) {
        let mut store = store_of(1, budget, true);
        store.set_replicated(replicated);
        let mut now = T0;
        for (n, (key, len, tagged, wait_ms)) in writes.into_iter().enumerate() {
            now += wait_ms;
            let key = if tagged { format!("{{t}}{key}") } else { format!("k{key}") };
            if n % 9 == 8 {
                run(&mut store, &op(&key, Act::Delete, ""), now);
            } else {
                let (reply, _) = run(&mut store, &op(&key, plain_set(), &"v".repeat(len)), now);
                if reply == "+OK" {
                    prop_assert!(store.peek(key.as_bytes()).is_some());
                    prop_assert!(store.memory_bytes() <= budget);
                }
            }
        }
        check_accounts(&mut store);
    }
}

#[test]
fn a_smaller_budget_is_come_down_to_by_turns() {
    let mut store = store_of(1, 0, true);
    for n in 0..5_000 {
        put(&mut store, &format!("k{n}"), &"v".repeat(200), T0);
    }
    let before = store.memory_bytes();
    store.set_budget(before / 4, true);
    assert_eq!(store.memory_bytes(), before, "nothing goes at once");
    let mut turns = 0;
    while store.memory_bytes() > before / 4 {
        let held = store.len();
        store.turn(T0);
        put(&mut store, "written meanwhile", "v", T0);
        assert!(held - store.len() <= 510, "a turn is bounded");
        turns += 1;
        assert!(turns < 100, "it gets there");
    }
    assert!(turns > 3 && store.turn(T0).next.is_none_or(|next| next > T0 + 1));
    put(&mut store, "k", &"v".repeat(200), T0);
    assert!(store.memory_bytes() <= before / 4);
    check_accounts(&mut store);
}

#[test]
fn the_budget_and_what_happens_at_it_change_while_it_runs() {
    let mut store = store_of(1, 0, true);
    for n in 0..100 {
        put(&mut store, &format!("k{n}"), &"v".repeat(200), T0);
    }
    store.set_budget(1_000, false);
    let written = |store: &mut Store| run(store, &op("new", plain_set(), "v"), T0).0;
    assert!(written(&mut store).starts_with("-OOM"));
    assert_eq!(store.len(), 100, "without eviction nothing goes");
    store.set_budget(0, false);
    assert_eq!(written(&mut store), "+OK");
}
