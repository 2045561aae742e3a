//! Acts against the replies of redis-server 7.0, and random sequences against a model.

use super::*;

fn until(ms: i64) -> Expiry {
    Expiry::Until(Deadline::In(ms))
}

/// Each line: act, value, reply. The replies are those redis-server 7.0 gives to the same commands.
pub(super) fn check(script: &[(Act, &str, &str)]) {
    let mut store = store();
    for (line, (act, value, expected)) in script.iter().enumerate() {
        let (reply, told) = run(&mut store, &op("k", *act, value), T0);
        assert_eq!(reply, *expected, "line {line}: {act:?} {value}");
        assert!(told.is_none() || act.writes());
        check_accounts(&mut store);
    }
}

#[test]
fn set_and_its_conditions_answer_as_redis() {
    use SetAnswer::{Done, Flag, Old};
    use When::{Absent, Always, Present};
    check(&[
        (Act::Get, "", "nil"),
        (set(Expiry::Clear, Present, Done), "a", "nil"),
        (set(Expiry::Clear, Absent, Done), "a", "+OK"),
        (set(Expiry::Clear, Absent, Done), "b", "nil"),
        (set(Expiry::Clear, Absent, Flag), "b", "0"),
        (set(Expiry::Clear, Absent, Old), "b", "\"a\""),
        (Act::Get, "", "\"a\""),
        (set(until(1_500), Always, Old), "c", "\"a\""),
        (Act::Ttl { ms: false, absolute: false }, "", "2"),
        (set(Expiry::Keep, Always, Done), "d", "+OK"),
        (Act::Ttl { ms: true, absolute: false }, "", "1500"),
        (set(Expiry::Clear, Present, Done), "e", "+OK"),
        (Act::Ttl { ms: true, absolute: false }, "", "-1"),
        (set(Expiry::Until(Deadline::At(1)), Always, Done), "f", "+OK"),
        (Act::Get, "", "nil"),
        (set(Expiry::Clear, Absent, Old), "g", "nil"),
        (Act::GetDel, "", "\"g\""),
        (Act::GetDel, "", "nil"),
        (Act::Type, "", "+none"),
        (Act::Ttl { ms: true, absolute: true }, "", "-2"),
        (Act::Delete, "", "0"),
    ]);
}

#[test]
fn strings_change_as_in_redis() {
    let range = |start, end| Act::GetRange { start, end };
    check(&[
        (Act::SetRange { offset: 5 }, "", "0"),
        (Act::Exists, "", "0"),
        (Act::SetRange { offset: 2 }, "ab", "4"),
        (Act::Get, "", "\"\0\0ab\""),
        (plain_set(), "Hello World", "+OK"),
        (Act::Expire { at: Deadline::In(9_000), when: ExpireWhen::default() }, "", "1"),
        (Act::SetRange { offset: 6 }, "Redis", "11"),
        (Act::Append, "!", "12"),
        (Act::Ttl { ms: false, absolute: false }, "", "9"),
        (range(0, 4), "", "\"Hello\""),
        (range(-6, -2), "", "\"Redis\""),
        (range(50, 60), "", "\"\""),
        (Act::Strlen, "", "12"),
        (Act::SetRange { offset: 1 << 20 }, "x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        (Act::SetRange { offset: u64::MAX }, "x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        (Act::SetRange { offset: u64::MAX }, "", "12"),
        (Act::Type, "", "+string"),
        (Act::Delete, "", "1"),
        (Act::Append, "new", "3"),
        (Act::Touch, "", "1"),
    ]);
}

#[test]
fn counters_count_as_in_redis() {
    check(&[
        (Act::Incr { by: 5 }, "", "5"),
        (Act::Incr { by: -7 }, "", "-2"),
        (Act::Get, "", "\"-2\""),
        (plain_set(), "9223372036854775807", "+OK"),
        (Act::Incr { by: 1 }, "", "-ERR increment or decrement would overflow"),
        (plain_set(), "01", "+OK"),
        (Act::Incr { by: 1 }, "", "-ERR value is not an integer or out of range"),
        (plain_set(), "10.5", "+OK"),
        (Act::IncrFloat, "0.1", "\"10.6\""),
        (plain_set(), "5.0e3", "+OK"),
        (Act::IncrFloat, "200.0", "\"5200\""),
        (plain_set(), "abc", "+OK"),
        (Act::IncrFloat, "1.0", "-ERR value is not a valid float"),
        (Act::IncrFloat, "-inf", "-ERR value is not a valid float"),
        (plain_set(), "inf", "+OK"),
        (Act::IncrFloat, "1.0", "-ERR increment would produce NaN or Infinity"),
        (Act::Delete, "", "1"),
        (Act::IncrFloat, "inf", "-ERR increment would produce NaN or Infinity"),
        (Act::Exists, "", "0"),
        (Act::IncrFloat, "-1.5", "\"-1.5\""),
    ]);
}

#[test]
fn deadlines_change_as_in_redis() {
    let expire = |ms, when| Act::Expire { at: Deadline::In(ms), when };
    let (any, gt) = (ExpireWhen::default(), ExpireWhen { later: true, ..ExpireWhen::default() });
    check(&[
        (expire(1_000, any), "", "0"),
        (plain_set(), "v", "+OK"),
        (Act::Persist, "", "0"),
        (expire(1_000, gt), "", "0"),
        (expire(1_000, any), "", "1"),
        (expire(999, gt), "", "0"),
        (expire(2_499, gt), "", "1"),
        (Act::Ttl { ms: false, absolute: false }, "", "2"),
        (Act::Ttl { ms: false, absolute: true }, "", "1700000002"),
        (Act::GetEx { expiry: Expiry::Keep }, "", "\"v\""),
        (Act::GetEx { expiry: Expiry::Clear }, "", "\"v\""),
        (Act::Ttl { ms: true, absolute: false }, "", "-1"),
        (Act::GetEx { expiry: until(70) }, "", "\"v\""),
        (Act::Ttl { ms: true, absolute: false }, "", "70"),
        (Act::Persist, "", "1"),
        (expire(-1, any), "", "1"),
        (Act::Exists, "", "0"),
        (plain_set(), "v", "+OK"),
        (Act::GetEx { expiry: until(-5) }, "", "\"v\""),
        (Act::GetEx { expiry: until(5) }, "", "nil"),
    ]);
}

#[test]
fn a_large_value_is_never_copied() {
    let mut store = store();
    let value = Bytes::from(vec![7; LARGE_VALUE_BYTES]);
    let set = Op { key: Bytes::from_static(b"k"), act: plain_set(), value: value.clone() };
    run(&mut store, &set, T0);
    struct Pointer(Option<*const u8>);
    impl ReplySink for Pointer {
        fn reply(&mut self, reply: ReplyRef<'_>) {
            if let ReplyRef::Shared(bytes) = reply {
                self.0 = Some(bytes.as_ptr());
            }
        }
    }
    let mut pointer = Pointer(None);
    store.execute(&op("k", Act::Get, ""), T0, &mut pointer, &mut |_, _| {});
    assert_eq!(pointer.0, Some(value.as_ptr()));
    let Some(Entry { body: Body::Live { value: owned, .. }, .. }) = store.peek_owned(b"k") else { unreachable!() };
    assert_eq!(owned.as_ptr(), value.as_ptr());
    let mut other = super::store();
    other.apply(b"k", &store.peek_owned(b"k").unwrap(), T0);
    let Some(Entry { body: Body::Live { value: there, .. }, .. }) = other.peek_owned(b"k") else { unreachable!() };
    assert_eq!(there.as_ptr(), value.as_ptr());
}

#[derive(Clone, Debug)]
struct Step {
    key: u8,
    act: Act,
    value: Vec<u8>,
    wait_ms: u64,
}

fn act() -> impl Strategy<Value = Act> {
    let expiry = prop_oneof![
        Just(Expiry::Keep),
        Just(Expiry::Clear),
        (-5i64..200).prop_map(|ms| Expiry::Until(Deadline::In(ms))),
    ];
    let when = prop_oneof![Just(When::Always), Just(When::Absent), Just(When::Present)];
    let answer = prop_oneof![Just(SetAnswer::Done), Just(SetAnswer::Flag), Just(SetAnswer::Old)];
    prop_oneof![
        3 => (expiry.clone(), when, answer, 0u32..2)
            .prop_map(|(expiry, when, answer, flags)| Act::Set { expiry, when, answer, flags }),
        2 => Just(Act::Get),
        1 => Just(Act::Delete),
        1 => Just(Act::Append),
        1 => (0u64..40).prop_map(|offset| Act::SetRange { offset }),
        1 => (-5i64..200, any::<bool>(), any::<bool>()).prop_map(|(ms, later, deadline)| Act::Expire {
            at: Deadline::In(ms),
            when: ExpireWhen { later, deadline, ..ExpireWhen::default() },
        }),
        1 => Just(Act::Persist),
        1 => expiry.prop_map(|expiry| Act::GetEx { expiry }),
        1 => Just(Act::GetDel),
        1 => (-9i64..9).prop_map(|by| Act::Incr { by }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![
        Just(b"12".to_vec()),
        prop::collection::vec(any::<u8>(), 0..300),
        Just(vec![b'x'; LARGE_VALUE_BYTES]),
    ];
    let step = (0u8..5, act(), value, prop_oneof![Just(0u64), 0u64..100]).prop_map(|(key, act, value, wait_ms)| Step {
        key,
        act,
        value,
        wait_ms,
    });
    prop::collection::vec(step, 1..60)
}

/// The plainest store there is: value and deadline by key.
#[derive(Default)]
struct Model(HashMap<u8, (Vec<u8>, Option<UnixMs>)>);

impl Model {
    fn run(&mut self, step: &Step, now: UnixMs) {
        self.0.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
        let old = self.0.get(&step.key).cloned();
        let kept = old.as_ref().and_then(|(_, deadline)| *deadline);
        let of = |expiry, kept| match expiry {
            Expiry::Keep => kept,
            Expiry::Clear => None,
            Expiry::Until(Deadline::In(ms)) => Some(now.saturating_add_signed(ms)),
            Expiry::Until(Deadline::At(_)) => unreachable!(),
        };
        let next = match (step.act, old.clone()) {
            (Act::Set { expiry, when, .. }, old)
                if match when {
                    When::Always => true,
                    When::Absent => old.is_none(),
                    When::Present => old.is_some(),
                } =>
            {
                Some((step.value.clone(), of(expiry, kept)))
            }
            (Act::Delete | Act::GetDel, _) => None,
            (Act::Append, old) => Some(([old.map_or(vec![], |o| o.0), step.value.clone()].concat(), kept)),
            (Act::SetRange { offset }, old) if !step.value.is_empty() => {
                let mut value = old.map_or(vec![], |o| o.0);
                let end = offset as usize + step.value.len();
                value.resize(value.len().max(end), 0);
                value[offset as usize..end].copy_from_slice(&step.value);
                Some((value, kept))
            }
            (Act::Expire { at: Deadline::In(ms), when }, Some((value, deadline))) => {
                let at = now.saturating_add_signed(ms);
                let fails = when.deadline && deadline.is_none() || when.later && deadline.is_none_or(|d| at <= d);
                Some((value, if fails { deadline } else { Some(at) }))
            }
            (Act::Persist, Some((value, _))) => Some((value, None)),
            (Act::GetEx { expiry }, Some((value, deadline))) => Some((value, of(expiry, deadline))),
            (Act::Incr { by }, old) => {
                let text = old.as_ref().map_or("0".into(), |o| String::from_utf8_lossy(&o.0).into_owned());
                let number = text.parse::<i64>().ok().filter(|n| n.to_string() == text);
                number.and_then(|n| n.checked_add(by)).map(|n| (n.to_string().into_bytes(), kept)).or(old)
            }
            (_, old) => old,
        };
        self.0.remove(&step.key);
        if let Some((value, deadline)) = next.filter(|(_, deadline)| deadline.is_none_or(|deadline| deadline > now)) {
            self.0.insert(step.key, (value, deadline));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sequence_leaves_what_the_model_has_and_the_replica_has_it_too(steps in steps(), turns: bool, replicated: bool) {
        let (mut store, mut replica, mut model) = (store(), store_of(2, 0, true), Model::default());
        store.set_replicated(replicated);
        replica.set_replicated(true);
        for p in store.partitions().filter(|_| replicated) {
            store.partition_digest(p);
        }
        let mut now = T0;
        let mut last = Version::ZERO;
        for step in &steps {
            now += step.wait_ms;
            if turns {
                store.turn(now);
            }
            let key = format!("key{}", step.key);
            let op = Op { key: key.clone().into(), act: step.act, value: step.value.clone().into() };
            model.run(step, now);
            if let (_, Some(told)) = run(&mut store, &op, now) {
                prop_assert!(told.version > last, "versions rise");
                last = told.version;
                prop_assert_eq!(replica.apply(key.as_bytes(), &told, now), Applied::Newer);
            }
            for n in 0..5u8 {
                let key = format!("key{n}");
                for side in [&store, &replica] {
                    let here = side.peek(key.as_bytes()).and_then(|entry| match entry.body {
                        BodyRef::Live { value, deadline, .. } if deadline.is_none_or(|d| d > now) => {
                            Some((value.to_vec(), deadline))
                        }
                        _ => None,
                    });
                    prop_assert_eq!(&here, &model.0.get(&n).cloned(), "{} after {:?}", key, step);
                }
            }
        }
        check_accounts(&mut store);
        if replicated {
            for p in store.partitions() {
                prop_assert_eq!(store.partition_digest(p), replica.partition_digest(p));
            }
        }
    }
}
