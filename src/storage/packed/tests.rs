//! Tests of the packed entry: round trips at every boundary, in-place changes, ownership of shared values.

use lru::LruCache;

use super::*;
use crate::base::limits::{KEY_BYTES_MAX, LARGE_VALUE_BYTES};

type Table = LruCache<Packed, Slot, foldhash::fast::FixedState>;

fn table() -> Table {
    LruCache::unbounded_with_hasher(foldhash::fast::FixedState::with_seed(7))
}

fn live(value: Value<'_>, deadline: Option<UnixMs>, flags: u32) -> Content<'_> {
    Content {
        version: Version { time: 5_000 << 16 | 3, origin: 9 },
        body: ContentBody::Live { value, deadline, flags },
    }
}

fn put(table: &mut Table, key: &[u8], content: &Content<'_>) {
    table.put(Packed::new(key, content), Slot { used: 0, due: content.due() });
}

#[test]
fn entries_read_back_as_written_around_every_boundary() {
    let keys = [0, 1, 16, 255, 256, KEY_BYTES_MAX];
    let values = [0, 1, 64, 255, 256, LARGE_VALUE_BYTES - 1, LARGE_VALUE_BYTES, LARGE_VALUE_BYTES + 1];
    let far = 5_000 + Due::NARROW_MS_MAX;
    let deadlines = [None, Some(0), Some(1), Some(4_999), Some(5_000), Some(far), Some(far + 1), Some(u64::MAX)];
    for key_len in keys {
        for value_len in values {
            for deadline in deadlines {
                for flags in [0, u32::MAX] {
                    let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                    let content = live(Value::Copied(&value), deadline, flags);
                    let packed = Packed::new(&key, &content);
                    assert_eq!(packed.key(), key);
                    assert_eq!(packed.content(content.due()).entry(), content.entry());
                    assert_eq!(packed.memory(), content.memory(key_len));
                }
            }
        }
        let buried = Content { version: Version { time: 1, origin: 2 }, body: ContentBody::Tombstone };
        assert_eq!(Packed::new(&vec![1; key_len], &buried).content(Due::default()).entry(), buried.entry());
    }
}

#[test]
fn a_session_takes_96_bytes_with_or_without_a_deadline() {
    for deadline in [None, Some(6_000)] {
        assert_eq!(live(Value::Copied(&[0; 64]), deadline, 0).memory(16), 96);
    }
    assert_eq!(size_of::<(Packed, Slot)>(), 16);
}

#[test]
fn a_value_of_the_same_class_is_written_in_place() {
    let mut t = table();
    put(&mut t, b"k", &live(Value::Copied(b"99"), None, 0));
    let before = peek(&t, b"k").unwrap().0.at();
    find_mut(&mut t, b"k", false).unwrap().overwrite(&live(Value::Copied(b"100"), Some(9_000), 0));
    let (packed, slot) = peek(&t, b"k").unwrap();
    assert_eq!(packed.at(), before);
    assert_eq!((packed.value(), packed.deadline(slot.due)), (&b"100"[..], Some(9_000)));
}

#[test]
fn overwriting_goes_from_any_form_to_any_other() {
    let large = Bytes::from(vec![b'L'; LARGE_VALUE_BYTES]);
    let forms: Vec<Content<'_>> = [None, Some(9_000), Some(1)]
        .into_iter()
        .flat_map(|deadline| {
            [Value::Copied(b""), Value::Copied(b"small"), Value::Copied(&[7; 300]), Value::Owned(&large)]
                .into_iter()
                .flat_map(move |value| [live(value, deadline, 0), live(value, deadline, 5)])
        })
        .collect();
    let mut t = table();
    for from in &forms {
        for to in &forms {
            put(&mut t, b"key", from);
            let mut entry = find_mut(&mut t, b"key", true).unwrap();
            entry.overwrite(from);
            entry.overwrite(to);
            let version = Version { time: 77 << 16, origin: 1 };
            assert_eq!(entry.packed().content(entry.slot.due).entry(), to.entry());
            for deadline in [None, Some(3), Some(100), Some(1 << 40)] {
                entry.restamp(version, deadline);
                let content = entry.packed().content(entry.slot.due);
                let ContentBody::Live { value, flags, .. } = to.body else { unreachable!() };
                let expected = Content { version, body: ContentBody::Live { value, deadline, flags } };
                assert_eq!(content.entry(), expected.entry());
                assert_eq!(entry.packed().key(), b"key");
            }
            remove(&mut t, b"key").unwrap();
        }
    }
}

#[test]
fn a_large_value_is_shared_and_released() {
    let large = Bytes::from(vec![1; LARGE_VALUE_BYTES]);
    let mut t = table();
    put(&mut t, b"k", &live(Value::Owned(&large), None, 0));
    assert_eq!(peek(&t, b"k").unwrap().0.shared().unwrap().as_ptr(), large.as_ptr());
    assert!(!large.is_unique());
    find_mut(&mut t, b"k", false).unwrap().overwrite(&live(Value::Copied(b"x"), None, 0));
    assert!(large.is_unique());
    put(&mut t, b"l", &live(Value::Owned(&large), None, 0));
    drop(t);
    assert!(large.is_unique());
}

#[test]
fn a_lookup_without_promotion_leaves_the_order_of_use() {
    let mut t = table();
    for key in [b"a", b"b", b"c"] {
        put(&mut t, key, &live(Value::Copied(key), None, 0));
    }
    assert!(peek(&t, b"a").is_some() && peek(&t, b"d").is_none());
    find_mut(&mut t, b"a", false).unwrap();
    assert_eq!(t.peek_lru().unwrap().0.key(), b"a");
    find_mut(&mut t, b"a", true).unwrap();
    assert_eq!(t.peek_lru().unwrap().0.key(), b"b");
}

#[test]
fn nodes_can_rule_a_deadline_out_without_the_entry() {
    let version = Version { time: 5_000 << 16, origin: 1 };
    for (deadline, now, may) in
        [(None, u64::MAX, false), (Some(6_000), 5_999, false), (Some(6_000), 6_000, true), (Some(1), 0, true)]
    {
        assert_eq!(Due::of(version, deadline).may_have_passed(now), may, "{deadline:?} {now}");
    }
}
