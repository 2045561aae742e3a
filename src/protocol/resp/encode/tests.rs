//! Replies encoded, reordered, and written in pieces of any size.

use super::*;
use crate::base::hlc::Version;
use crate::base::item::ItemOutcome;
use crate::base::marks::Marks;
use proptest::prelude::*;

fn written(replies: &ReplyBuf) -> Vec<u8> {
    replies.between(replies.written, replies.end()).flatten().copied().collect()
}

fn filled(replies: &[ReplyRef<'_>]) -> ReplyBuf {
    let mut buf = ReplyBuf::new(Wire::Resp2);
    for reply in replies {
        buf.reply(reply.clone());
    }
    buf
}

#[test]
fn each_reply_has_its_bytes() {
    let replies = [
        ReplyRef::Ok,
        ReplyRef::Null,
        ReplyRef::Int(-7),
        ReplyRef::Bulk(b"a\r\nb"),
        ReplyRef::Simple("PONG".into()),
        ReplyRef::Error("ERR x".into()),
        ReplyRef::Ints(&[Some(-7), None]),
    ];
    let bytes = b"+OK\r\n$-1\r\n:-7\r\n$4\r\na\r\nb\r\n+PONG\r\n-ERR x\r\n*2\r\n:-7\r\n$-1\r\n";
    assert_eq!(written(&filled(&replies)), bytes);
    let mut buf = ReplyBuf::new(Wire::Resp3);
    buf.reply(ReplyRef::Null);
    buf.reply(ReplyRef::Ints(&[None]));
    assert_eq!(written(&buf), b"_\r\n*1\r\n_\r\n");
}

#[test]
fn a_large_shared_value_is_not_copied() {
    let value = Bytes::from(vec![b'x'; LARGE_VALUE_BYTES]);
    let buf = filled(&[ReplyRef::Int(1), ReplyRef::Shared(&value), ReplyRef::Int(2)]);
    let pieces: Vec<_> = buf.slices(0..3).collect();
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces[1].as_ptr(), value.as_ptr());
    assert_eq!(buf.slices_len(1..2), value.len() + 8 + 2);
    assert_eq!((buf.copied_bytes(), buf.remaining()), (18, value.len() + 18));
}

#[test]
fn arrays_are_built_of_encoded_replies() {
    let other = filled(&[ReplyRef::Int(1), ReplyRef::Bulk(b"a"), ReplyRef::Null]);
    let mut buf = ReplyBuf::new(Wire::Resp2);
    buf.open_array(2);
    buf.element(&other, 2);
    buf.element(&other, 1);
    buf.close(ReplyKind::Value);
    assert_eq!(written(&buf), b"*2\r\n$-1\r\n$1\r\na\r\n");
    assert_eq!((buf.replies(), buf.kind(0), other.kind(0)), (1, Some(ReplyKind::Value), Some(ReplyKind::Int(1))));
}

#[test]
fn clearing_leaves_nothing() {
    let mut buf = filled(&[ReplyRef::Ok]);
    buf.advance(2);
    buf.clear();
    assert!(!buf.has_remaining());
    assert_eq!((buf.replies(), buf.remaining()), (0, 0));
}

#[test]
fn a_reader_that_is_never_quite_done_holds_up_nothing_but_what_it_has_yet_to_read() {
    let (mut buf, value) = (ReplyBuf::new(Wire::Resp2), Bytes::from(vec![b'x'; LARGE_VALUE_BYTES]));
    let round = value.len() + 10 + 8;
    for n in 1i64..=10_000 {
        buf.reply(ReplyRef::Shared(&value));
        buf.reply(ReplyRef::Bulk(b"ab"));
        assert_eq!(buf.kind(buf.replies() - 1), Some(ReplyKind::Value), "round {n}");
        buf.advance(if n == 1 { 100 } else { round });
        assert_eq!(buf.remaining(), round - 100);
    }
    assert!(buf.copied_bytes() < 3 * RELEASED_MIN && buf.replies() < 3 * RELEASED_MIN, "{}", buf.copied_bytes());
    assert_eq!(written(&buf).len(), round - 100);
}

#[test]
fn a_value_that_was_written_is_not_held() {
    let value = Bytes::from(vec![b'x'; LARGE_VALUE_BYTES]);
    let mut buf = filled(&[ReplyRef::Shared(&value), ReplyRef::Int(1)]);
    assert!(!value.is_unique());
    buf.advance(8 + value.len());
    assert!(value.is_unique());
    assert_eq!(written(&buf), b"\r\n:1\r\n");
}

#[derive(Clone, Debug)]
enum Sample {
    Int(i64),
    Bulk(Vec<u8>),
    Large(u8),
    Encoded(u8),
}

fn sample() -> impl Strategy<Value = Sample> {
    prop_oneof![
        any::<i64>().prop_map(Sample::Int),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Sample::Bulk),
        any::<u8>().prop_map(Sample::Large),
        any::<u8>().prop_map(Sample::Encoded),
    ]
}

fn push(buf: &mut ReplyBuf, sample: &Sample) -> Vec<u8> {
    match sample {
        Sample::Int(n) => {
            buf.reply(ReplyRef::Int(*n));
            format!(":{n}\r\n").into_bytes()
        }
        Sample::Bulk(value) => {
            buf.reply(ReplyRef::Bulk(value));
            [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
        }
        Sample::Large(byte) => {
            let value = Bytes::from(vec![*byte; LARGE_VALUE_BYTES]);
            buf.reply(ReplyRef::Shared(&value));
            [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat()
        }
        Sample::Encoded(byte) => {
            let value = Bytes::from(vec![*byte; LARGE_VALUE_BYTES + 1]);
            buf.push_encoded(value.clone(), ReplyKind::Value);
            value.to_vec()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn replies_survive_any_reordering_and_any_writes(
        samples in prop::collection::vec(sample(), 1..8),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
        steps in prop::collection::vec(1usize..40_000, 1..20),
    ) {
        let mut source = ReplyBuf::new(Wire::Resp2);
        let encoded: Vec<Vec<u8>> = samples.iter().map(|sample| push(&mut source, sample)).collect();
        prop_assert_eq!(written(&source), encoded.concat());
        let mut target = ReplyBuf::new(Wire::Resp2);
        let mut expected = Vec::new();
        for (a, b) in picks {
            let (a, b) = (a.index(samples.len()), b.index(samples.len()));
            let range = a.min(b)..a.max(b) + 1;
            prop_assert_eq!(source.slices(range.clone()).flatten().copied().collect::<Vec<u8>>(), encoded[range.clone()].concat());
            target.append(&source, range.clone());
            expected.extend(encoded[range].concat());
        }
        prop_assert_eq!(target.remaining(), expected.len());
        let mut out = Vec::new();
        for step in steps.iter().cycle() {
            let mut slices = [std::io::IoSlice::new(&[]); 4];
            let filled = target.chunks_vectored(&mut slices);
            let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).take(*step).collect();
            out.extend_from_slice(&bytes);
            target.advance(bytes.len());
            prop_assert_eq!(target.remaining(), expected.len() - out.len());
            if !target.has_remaining() {
                break;
            }
        }
        prop_assert_eq!(out, expected);
    }
}

#[test]
fn what_others_hold_as_well_is_not_counted_as_held() {
    let value = Bytes::from(vec![7; 1 << 20]);
    let mut out = ReplyBuf::new(Wire::Resp2);
    out.push_encoded(value.clone(), ReplyKind::Value);
    assert!(out.held_bytes() < 1_000);
    drop(value);
    assert!(out.held_bytes() >= 1 << 20);
    out.advance(out.remaining());
    assert!(out.held_bytes() < 1_000);
}

fn item<'a>(value: Option<ItemValue<'a>>, len: usize) -> ItemReply<ItemValue<'a>> {
    ItemReply {
        outcome: ItemOutcome::Created,
        version: Version { time: 1 << 60, origin: u32::MAX },
        marks: Marks { flags: 5, is_stale: true, is_promised: true, cas: std::num::NonZeroU64::new(9) },
        ttl_ms: Some(3),
        age_ms: 4,
        won: true,
        was_hit: true,
        len: len as u32,
        value,
    }
}

#[test]
fn items_read_back_whatever_their_size_and_whoever_encoded_them() {
    let large = Bytes::from(vec![b'x'; LARGE_VALUE_BYTES]);
    let small = Bytes::from_static(b"small\r\n");
    let plain = ItemReply { value: Some(ItemValue::Copied(b"")), ..ItemReply::only(ItemOutcome::Done) };
    let replies = [
        item(None, 70),
        item(Some(ItemValue::Shared(&large)), large.len()),
        item(Some(ItemValue::Copied(&small)), small.len()),
        item(Some(ItemValue::Shared(&small)), small.len()),
        plain,
        item(Some(ItemValue::Shared(&large)), large.len()),
        ItemReply::only(ItemOutcome::NotNumber),
    ];
    let mut here = ReplyBuf::new(Wire::Item);
    replies.iter().for_each(|reply| here.reply(ReplyRef::Item(reply)));
    here.reply(ReplyRef::Error("BUSY no".into()));
    here.reply(ReplyRef::Null);
    let mut elsewhere = ReplyBuf::new(Wire::Item);
    for n in 0..here.replies() {
        let encoded: Vec<u8> = here.slices(n..n + 1).flatten().copied().collect();
        elsewhere.push_encoded(encoded.into(), here.kind(n).unwrap());
    }
    for buf in [&here, &elsewhere] {
        for (n, reply) in replies.iter().enumerate() {
            let Answer::Item(read) = buf.answer(n) else { panic!("{n} is no item") };
            let value = reply.value.as_ref().map(|value| match value {
                ItemValue::Copied(bytes) => *bytes,
                ItemValue::Shared(bytes) => &bytes[..],
            });
            assert_eq!(read.value.as_ref().map(Content::bytes), value);
            let shared = matches!(read.value, Some(Content::Shared(_)));
            assert_eq!(shared, reply.len as usize >= LARGE_VALUE_BYTES, "{n}");
            assert_eq!((read.outcome, read.version, read.marks), (reply.outcome, reply.version, reply.marks));
            assert_eq!((read.ttl_ms, read.age_ms, read.len), (reply.ttl_ms, reply.age_ms, reply.len));
            assert_eq!((read.won, read.was_hit), (reply.won, reply.was_hit));
        }
        assert_eq!(buf.answer(7), Answer::Error(b"BUSY no"));
        assert_eq!(buf.answer(8), Answer::Null);
    }
}

#[test]
fn who_speaks_resp_is_never_given_what_only_we_can_read() {
    let mut buf = ReplyBuf::new(Wire::Resp2);
    buf.reply(ReplyRef::Item(&item(Some(ItemValue::Copied(b"v")), 1)));
    buf.reply(ReplyRef::Item(&ItemReply::only(ItemOutcome::Missing)));
    assert_eq!(written(&buf), b"$1\r\nv\r\n$-1\r\n");
}
