//! Tests of the packed entry and its slot: round trips at every boundary, changes in place, ownership of what is held.

use super::*;
use crate::base::limits::{KEY_BYTES_MAX, LARGE_VALUE_BYTES};

fn live(value: Value<'_>, deadline: Option<UnixMs>, flags: u32) -> Content<'_> {
    Content {
        version: Version { time: 5_000 << 16 | 3, origin: 9 },
        body: ContentBody::Live { value, deadline, marks: Marks::of(flags) },
    }
}

fn slot(key: &[u8], content: &Content<'_>) -> Slot {
    Slot::holding(Packed::new(key, content), 0xa5, Stamp::default().after(Stamp::COUNT - 1))
}

/// What lies beside an entry's address must not change with the entry.
fn assert_beside(slot: &Slot, content: &Content<'_>) {
    assert!(slot.is_full() && !slot.is_empty() && slot.has_tag(0xa5) && !slot.has_tag(0xa4));
    assert_eq!(slot.stamp(), Stamp::default().after(Stamp::COUNT - 1));
    assert_eq!(slot.has_deadline(), content.has_deadline());
}

#[test]
fn entries_read_back_as_written_around_every_boundary() {
    let keys = [0, 1, 16, 255, 256, KEY_BYTES_MAX];
    let values = [0, 1, 64, 255, 256, LARGE_VALUE_BYTES - 1, LARGE_VALUE_BYTES, LARGE_VALUE_BYTES + 1];
    let deadlines = [None, Some(0), Some(5_000), Some(u64::MAX)];
    for key_len in keys {
        for value_len in values {
            for deadline in deadlines {
                for flags in [0, u32::MAX] {
                    let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                    let content = live(Value::Copied(&value), deadline, flags);
                    let packed = Packed::new(&key, &content);
                    assert_eq!(packed.get().key(), key);
                    assert_eq!(packed.get().entry(), content.entry());
                    assert_eq!(packed.get().memory(), content.memory(key_len));
                }
            }
        }
        let buried = Content { version: Version { time: 1, origin: 2 }, body: ContentBody::Tombstone };
        assert_eq!(Packed::new(&vec![1; key_len], &buried).get().entry(), buried.entry());
    }
}

#[test]
fn marks_and_hits_are_kept_until_the_value_changes() {
    let large = Bytes::from(vec![b'L'; LARGE_VALUE_BYTES]);
    let all = Marks { flags: 7, is_stale: true, is_promised: true, cas: NonZeroU64::new(u64::MAX) };
    let some = [all, Marks { flags: 0, ..all }, Marks { is_stale: false, cas: None, ..all }, Marks::of(0)];
    for value in [Value::Copied(b""), Value::Copied(b"v"), Value::Owned(&large)] {
        for (from, to) in some.iter().flat_map(|from| some.map(|to| (*from, to))) {
            let content = |marks| Content {
                version: Version { time: 1, origin: 1 },
                body: ContentBody::Live { value, deadline: Some(9), marks },
            };
            let mut s = slot(b"key", &content(from));
            assert_eq!(s.get().unwrap().entry(), content(from).entry());
            assert_eq!((s.note_hit(), s.note_hit(), s.get().unwrap().was_hit()), (false, true, true));
            assert_eq!(s.get().unwrap().memory(), content(from).memory(3));
            for deadline in [Some(8), None] {
                s.restamp(Version { time: 2, origin: 1 }, deadline);
                assert!(s.get().unwrap().was_hit() && s.get().unwrap().marks() == from);
            }
            s.overwrite(&content(to));
            assert!(!s.get().unwrap().was_hit());
            assert_eq!(s.get().unwrap().entry(), content(to).entry());
        }
    }
    assert!(large.is_unique());
}

#[test]
fn a_session_takes_96_bytes_and_16_more_with_a_deadline() {
    for (deadline, bytes) in [(None, 96), (Some(6_000), 112)] {
        assert_eq!(live(Value::Copied(&[0; 64]), deadline, 0).memory(16), bytes);
    }
    assert_eq!(size_of::<Slot>(), 8);
}

#[test]
fn a_value_of_the_same_class_is_written_in_place() {
    let mut s = slot(b"k", &live(Value::Copied(b"99"), None, 0));
    let before = s.get().unwrap().at;
    s.overwrite(&live(Value::Copied(b"100"), Some(9_000), 0));
    let entry = s.get().unwrap();
    assert_eq!((entry.at, entry.value(), entry.deadline()), (before, &b"100"[..], Some(9_000)));
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
    for from in &forms {
        for to in &forms {
            let mut s = slot(b"key", from);
            s.overwrite(from);
            s.overwrite(to);
            assert_eq!(s.get().unwrap().entry(), to.entry());
            assert_beside(&s, to);
            let version = Version { time: 77 << 16, origin: 1 };
            for deadline in [None, Some(3), Some(100), Some(1 << 40), None] {
                s.restamp(version, deadline);
                let ContentBody::Live { value, marks, .. } = to.body else { unreachable!() };
                let expected = Content { version, body: ContentBody::Live { value, deadline, marks } };
                assert_eq!(s.get().unwrap().entry(), expected.entry());
                assert_eq!(s.get().unwrap().key(), b"key");
                assert_beside(&s, &expected);
            }
        }
    }
    assert!(large.is_unique());
}

#[test]
fn a_large_value_is_shared_and_released() {
    let large = Bytes::from(vec![1; LARGE_VALUE_BYTES]);
    let mut s = slot(b"k", &live(Value::Owned(&large), None, 0));
    assert_eq!(s.get().unwrap().shared().unwrap().as_ptr(), large.as_ptr());
    assert!(!large.is_unique());
    s.overwrite(&live(Value::Copied(b"x"), None, 0));
    assert!(large.is_unique());
    for leave in [Slot::clear, Slot::erase] {
        s = slot(b"l", &live(Value::Owned(&large), None, 0));
        let taken = leave(&mut s).unwrap();
        assert!(!large.is_unique() && taken.get().key() == b"l");
        drop(taken);
        assert!(large.is_unique());
    }
    drop(slot(b"m", &live(Value::Owned(&large), None, 0)));
    assert!(large.is_unique());
}

#[test]
fn a_slot_without_an_entry_is_empty_or_marked() {
    let content = live(Value::Copied(b"v"), Some(1), 0);
    let (mut cleared, mut erased) = (slot(b"k", &content), slot(b"k", &content));
    assert!(cleared.clear().is_some() && erased.erase().is_some());
    assert!(cleared.is_empty() && !erased.is_empty() && Slot::EMPTY.is_empty());
    for mut vacant in [cleared, erased, Slot::EMPTY] {
        assert!(!vacant.is_full() && !vacant.has_deadline() && vacant.get().is_none());
        vacant.prefetch();
        assert!(vacant.clear().is_none());
    }
}

#[test]
fn a_stamp_is_written_once_and_ages_around_the_clock() {
    let mut s = slot(b"k", &live(Value::Copied(b"v"), None, 0));
    let mut now = Stamp::default();
    for _ in 0..Stamp::COUNT + 3 {
        now = now.after(1);
        assert!(s.stamp_with(now) && !s.stamp_with(now));
        assert_eq!((s.stamp(), s.get().unwrap().key()), (now, &b"k"[..]));
        assert_eq!(s.stamp().age(now.after(7)), 7);
    }
    assert_eq!(now.age(now.after(Stamp::COUNT - 1)), Stamp::COUNT - 1);
}
