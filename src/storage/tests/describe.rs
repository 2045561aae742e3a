//! What is told of a value, and a value carried away and back, against the replies of redis-server 7.0.

use super::acts::check;
use super::*;
use crate::base::op::Aspect;
use crate::protocol::dump;

fn describe(aspect: Aspect) -> Act {
    Act::Describe { aspect }
}

#[test]
fn objects_are_described_as_in_redis() {
    check(&[
        (describe(Aspect::Encoding), "", "nil"),
        (describe(Aspect::Frequency), "", "nil"),
        (describe(Aspect::MemoryBytes), "", "nil"),
        (describe(Aspect::Dump), "", "nil"),
        (plain_set(), "12", "+OK"),
        (describe(Aspect::Encoding), "", "\"int\""),
        (describe(Aspect::References), "", "1"),
        (
            describe(Aspect::Frequency),
            "",
            "-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
             between policies at runtime LRU and LFU data will take some time to adjust.",
        ),
        (plain_set(), "x", "+OK"),
        (describe(Aspect::Encoding), "", "\"embstr\""),
    ]);
}

#[test]
fn a_key_is_idle_since_its_last_change() {
    let mut store = store();
    put(&mut store, "k", "v", T0);
    get(&mut store, "k", T0 + 5_000);
    assert_eq!(run(&mut store, &op("k", describe(Aspect::IdleSeconds), ""), T0 + 9_999).0, "9");
    run(&mut store, &op("k", Act::Append, "w"), T0 + 10_000);
    assert_eq!(run(&mut store, &op("k", describe(Aspect::IdleSeconds), ""), T0 + 10_500).0, "0");
}

#[test]
fn a_keys_memory_is_what_it_adds_to_the_account() {
    let mut store = store();
    let mut told = 0;
    for (n, len) in [1, 60, 700, LARGE_VALUE_BYTES, 3 * LARGE_VALUE_BYTES].into_iter().enumerate() {
        let key = format!("{{tag}}{n}");
        put(&mut store, &key, &"x".repeat(len), T0);
        told += run(&mut store, &op(&key, describe(Aspect::MemoryBytes), ""), T0).0.parse::<usize>().unwrap();
    }
    // Five of the eight slots of a line.
    assert_eq!(store.memory_bytes(), told + 3 * 8);
}

#[test]
fn a_dump_holds_the_value_and_its_flags_and_comes_back_where_nothing_is() {
    let mut store = store();
    let flagged = Act::Set { expiry: until(9_000), when: When::Always, answer: SetAnswer::Done, flags: 7 };
    run(&mut store, &op("k", flagged, "value"), T0);
    struct Payload(Bytes);
    impl ReplySink for Payload {
        fn reply(&mut self, reply: ReplyRef<'_>) {
            let ReplyRef::Shared(bytes) = reply else { panic!("{reply:?}") };
            self.0 = bytes.clone();
        }
    }
    let mut payload = Payload(Bytes::new());
    store.execute(&op("k", describe(Aspect::Dump), ""), T0, &mut payload, &mut |_, _| panic!("no change"));
    assert_eq!(dump::unpack(&payload.0), Some((Bytes::from_static(b"value"), 7)));
    let restored = set(Expiry::Clear, When::Absent, SetAnswer::Restored);
    assert_eq!(run(&mut store, &op("k", restored, "new"), T0).0, "-BUSYKEY Target key name already exists.");
    assert_eq!(run(&mut store, &op("l", restored, "new"), T0).0, "+OK");
    assert_eq!(get(&mut store, "k", T0) + &get(&mut store, "l", T0), "\"value\"\"new\"");
}

fn until(ms: i64) -> Expiry {
    Expiry::Until(Deadline::In(ms))
}
