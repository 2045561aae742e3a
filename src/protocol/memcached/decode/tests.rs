//! Command lines, as memcached 1.6.45 answered them, in pieces of any size, and bytes that are no commands.

use super::*;
use crate::base::item::{ItemAct, ItemTerms, Only};
use crate::base::op::{Deadline, Expiry, When};
use crate::base::reply::{ReplyRef, ReplySink, Wire};
use crate::protocol::resp::encode::ReplyBuf;
use bytes::Buf;
use proptest::prelude::*;

const NOW: UnixMs = 1_700_000_000_000;

fn decoded(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Command> {
    let (mut buf, mut commands) = (BytesMut::from(bytes), Vec::new());
    while decoder.decode(&mut buf, NOW, 3, &mut commands) {}
    commands
}

fn all(bytes: &[u8]) -> Vec<Command> {
    decoded(&mut Decoder::new(1 << 20), bytes)
}

/// What is said without asking the router, `?` for what is asked of it.
fn said(text: &str) -> Vec<String> {
    let said = |command: Command| match command.asked {
        Asked::Say(line, _) => line.into_owned(),
        Asked::Keys(..) | Asked::Stats(_) => "?".to_owned(),
        Asked::Flush { after_s, quiet } => format!("flush {after_s} {quiet}"),
        Asked::Quit => "quit".to_owned(),
        Asked::HangUp => "hang up".to_owned(),
    };
    all(text.as_bytes()).into_iter().map(said).collect()
}

fn op(text: &str) -> Op {
    let mut commands = all(text.as_bytes());
    assert_eq!(commands.len(), 1, "{text:?}");
    match commands.remove(0).asked {
        Asked::Keys(mut ops, _) if ops.len() == 1 => ops.remove(0),
        other => panic!("{text:?}: {other:?}"),
    }
}

const FORMAT: &str = "CLIENT_ERROR bad command line format";

fn answered(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(said(text), *expected, "{text:?}");
    }
}

#[test]
fn what_is_refused_is_refused_in_memcacheds_words() {
    const TIME: &str = "CLIENT_ERROR invalid exptime argument";
    let cases: &[(&str, &[&str])] = &[
        ("\r\n \r\na\r\nab\nmn\nget\r\nget \r\ngat 0\r\ngets\r\n", &[FORMAT; 9]),
        ("gex\r\nGET a\r\n get a\r\nbget a\r\n   \r\n", &["ERROR"; 5]),
        ("get  a\r\nget a \r\nget a\n", &["?"; 3]),
        ("nonsense noreply\r\nnoreply\r\nmx a noreply\r\n", &[""; 3]),
        ("GET / HTTP/1.0\r\nget a\r\n", &["hang up"]),
        ("gx HTTP/1\r\n", &["hang up"]),
        ("get / HTTP/1.0\r\n", &["?"]),
        ("set a 0 0 -1 noreply\r\nx\r\n", &[FORMAT; 2]),
        ("set a 0 0 1\r\nxyz\r\nget a\r\n", &["CLIENT_ERROR bad data chunk", FORMAT, "?"]),
        ("set a 0 0 1 noreply\r\nxx\r\n", &["", FORMAT]),
        ("set a x 0 1\r\nx\r\nset a 0 x 1\r\nx\r\nset a -1 0 1\r\nx\r\n", &[FORMAT; 3]),
        ("set a 0 0 +1\r\nset a 0 0\r\nset a 0 0 2147483647\r\n", &[FORMAT; 3]),
        ("cas a 0 0 1 x\r\nx\r\ncas a 0 0 1\r\nx\r\ncas a 0 0 1 noreply\r\nx\r\n", &[FORMAT, FORMAT, ""]),
        ("set a 0 0 1 2 3\r\nx\r\nset a +1 4294967296 1 b c d\r\nx\r\n", &["?"; 2]),
        ("incr a x\r\n", &["CLIENT_ERROR invalid numeric delta argument"]),
        ("incr a\r\ntouch a\r\ndelete\r\ngat\r\nverbosity\r\nverbosity x\r\nset a 0 0 noreply\r\n", &[FORMAT; 7]),
        ("incr a 1 2 3\r\ntouch a 0 1 2\r\ndelete a 1\r\ndelete a b c\r\nget noreply\r\n", &["?"; 5]),
        ("delete a b c d\r\n", &[FORMAT]),
        ("incr a -1\r\nincr a noreply\r\n", &["CLIENT_ERROR invalid numeric delta argument", ""]),
        ("touch a x\r\ngat x a\r\nflush_all x\r\n", &[TIME; 3]),
        (
            "flush_all\r\n flush_all 5 noreply\r\nflush_all 1700000009 2 3\r\n",
            &["flush 0 false", "flush 5 true", "flush 9 false"],
        ),
        ("set big 0 0 1048576\r\n", &["?"]),
        ("add big 0 0 1048576\r\n", &["SERVER_ERROR object too large for cache"]),
    ];
    answered(cases);
    let long = "k".repeat(251);
    for text in [
        "get a LONG b\r\n",
        "set LONG 0 0 1\r\nx\r\n",
        "ms LONG 1\r\nx\r\n",
        "incr LONG 1\r\n",
        "touch LONG 1\r\n",
        "delete LONG\r\n",
        "mg LONG\r\n",
    ] {
        assert_eq!(said(&text.replace("LONG", &long)), [FORMAT], "{text:?}");
    }
}

#[test]
fn commands_about_the_server_are_refused_as_there() {
    answered(&[
        ("version x\r\nverbosity 1 2 3\r\nverbosity 1 noreply\r\n", &["VERSION 1.6.45", "OK", ""]),
        ("shutdown\r\nquit 1\r\nget a\r\n", &["SERVER_ERROR: shutdown not enabled", "quit"]),
        (
            "cache_memlimit\r\ncache_memlimit 1\r\nslabs\r\nslabs reassign 1 2\r\nlru_crawler\r\nlru_crawler crawl 1\r\n",
            &[
                "ERROR",
                "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m",
                "ERROR",
                "CLIENT_ERROR slab reassignment disabled",
                "ERROR",
                "CLIENT_ERROR lru crawler disabled",
            ],
        ),
        (
            "stats\r\nstats slabs\r\nstats foo\r\nstats cachedump\r\nstats se\r\nstats slab\r\nstats detail of\r\n stats\r\n",
            &["?", "?", "ERROR", "CLIENT_ERROR bad command line", "?", "ERROR", "OK", "ERROR"],
        ),
    ]);
}

#[test]
fn meta_commands_are_refused_as_there() {
    const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
    answered(&[
        ("mn\r\nmn x\r\nmx\r\nmg\r\nms\r\nme\r\n", &["MN", "MN", "ERROR", FORMAT, FORMAT, FORMAT]),
        ("mg a \u{7f}\r\nmg a {\r\nmd a @\r\nme a !\r\n", &[FORMAT; 4]),
        ("ms a\r\nms a x\r\nms a -1\r\n", &[FORMAT; 3]),
        ("mg a v v\r\nmg a Q\r\n", &["CLIENT_ERROR duplicate flag", "CLIENT_ERROR invalid flag"]),
        ("md a v v\r\nma a Q\r\n", &["CLIENT_ERROR duplicate flag", "CLIENT_ERROR invalid or duplicate flag"]),
        ("ms a 1 Fx\r\nx\r\nms a 1 Tx\r\nx\r\nms a 1 Cx\r\nx\r\n", &[FORMAT, BAD_TOKEN, BAD_TOKEN]),
        ("ms a 1 MQ\r\nx\r\nmn\r\n", &["CLIENT_ERROR invalid mode for ms M token", "MN"]),
        (
            "ms a 1 M\r\nx\r\nma a Mi\r\nms a 1 MSx\r\nx\r\n",
            &["CLIENT_ERROR invalid mode for ms M token", "CLIENT_ERROR invalid mode for ma M token", "?"],
        ),
        ("ms !! 1 b\r\nx\r\nmg a b\r\n", &["CLIENT_ERROR error decoding key"; 2]),
        ("ms a 1 q\r\nxyz\r\n", &["CLIENT_ERROR bad data chunk", FORMAT]),
        ("ms a -\r\n\r\nms a -0\r\n\r\n", &["?"; 2]),
    ]);
    let flags = "mg a 1 2 3 4 5 6 7 8 9 0 q w e r t y u i o\r\n";
    assert_eq!(said(flags), ["CLIENT_ERROR options flags are too long"]);
    assert_eq!(said(&format!("mg a O{}\r\n", "1".repeat(32))), ["CLIENT_ERROR opaque token too long"]);
}

#[test]
fn lines_without_an_end_are_given_up() {
    let mut decoder = Decoder::new(1 << 20);
    assert!(decoded(&mut decoder, &[b'x'; 2048]).is_empty());
    let hang_up = |bytes: &[u8]| matches!(all(bytes)[..], [Command { asked: Asked::HangUp, .. }]);
    assert!(hang_up(&[b'x'; 2049]) && hang_up(&[b' '; 2049]));
    let many = [b"get ".as_slice(), &b"key ".repeat(1_000)].concat();
    assert!(all(&many).is_empty() && hang_up(&many.repeat(3_000)));
    assert_eq!(all(&[&many[..], b"\r\n"].concat())[0].ops(), 1_000);
}

#[test]
fn commands_ask_for_operations() {
    let set = |when, expiry, flags| Act::Set { expiry, when, answer: SetAnswer::Done, flags };
    let plain = op("set a 7 0 3\r\nv\0\n\r\n");
    assert_eq!(
        (&plain.key[..], plain.act, &plain.value[..]),
        (&b"a"[..], set(When::Always, Expiry::Clear, 7), &b"v\0\n"[..])
    );
    assert_eq!(op("add a 0 10 0\r\n\r\n").act, set(When::Absent, Expiry::Until(Deadline::In(10_000)), 0));
    assert_eq!(
        op("ms a 1 MR T-1 F4294967295\r\nx\r\n").act,
        set(When::Present, Expiry::Until(Deadline::At(0)), u32::MAX)
    );
    assert_eq!(op("get a\0b\r\n").key, "a\0b");
    assert_eq!((op("mg YWI= b\r\n").key, op("me YWI= b\r\n").key), ("ab".into(), "YWI=".into()));
    assert_eq!(op("me YWI= b b\r\n").key, "ab");
    let words = "x ".repeat(18);
    assert_eq!(op(&format!("set a 0 0 1 {words} noreply\r\nx\r\n")).key, "a", "what is behind word 23 does not count");
    let (act, terms) = (op("mg a\r\n").act, ItemTerms::split(&op("mg a\r\n").value).unwrap().1);
    assert_eq!((act, terms), (Act::Item(ItemAct::Fetch), ItemTerms { bare: true, ..ItemTerms::default() }));
    assert!(op("mg a v\r\n").value.is_empty());
    let cas = op("cas a 1 0 2 99\r\nxy\r\n");
    let (data, terms) = ItemTerms::split(&cas.value).unwrap();
    assert_eq!((data, terms.only, terms.flags), (Bytes::from_static(b"xy"), Some(Only::Cas(99)), 1));
    assert_eq!(op("ms a 1 c\r\nx\r\n").act, Act::Item(ItemAct::Put));
    assert_eq!(op("ms a 1 C5 I\r\nx\r\n").act, Act::Item(ItemAct::Store));
    assert_eq!((op("md a q\r\n").act, op("md a I\r\n").act), (Act::Delete, Act::Item(ItemAct::Remove)));
    let recache = |text| ItemTerms::split(&op(text).value).unwrap().1;
    let terms = recache("mg a N30 R60 T5 v\r\n");
    assert_eq!((terms.vivify, terms.recache_last), (Some(Expiry::Until(Deadline::In(5_000))), false));
    assert!(recache("mg a T5 R60\r\n").recache_last);
    assert_eq!(op("set big 0 0 1048576\r\n").act, Act::Delete, "too large: what was there goes");
}

/// What a client reads when the router gives these answers.
fn dressed(text: &str, answers: &[ReplyRef<'_>]) -> String {
    let (mut from, mut out) = (ReplyBuf::new(Wire::Item), ReplyBuf::new(Wire::Item));
    answers.iter().for_each(|answer| from.reply(answer.clone()));
    let Asked::Keys(ops, dress) = all(text.as_bytes()).remove(0).asked else { panic!("{text:?}") };
    assert_eq!(ops.len(), answers.len());
    dress.put(&from, 0..answers.len(), &mut out);
    String::from_utf8(out.copy_to_bytes(out.remaining()).to_vec()).unwrap()
}

#[test]
fn answers_are_dressed_as_memcacheds() {
    use crate::base::item::{ItemOutcome, ItemReply, ItemValue};
    use crate::base::marks::Marks;
    let marks = Marks { flags: 7, is_stale: true, is_promised: true, cas: std::num::NonZeroU64::new(42) };
    let item = ItemReply {
        marks,
        ttl_ms: Some(29_001),
        age_ms: 1_999,
        was_hit: true,
        len: 2,
        value: Some(ItemValue::Copied(b"xy")),
        ..ItemReply::only(ItemOutcome::Done)
    };
    let here = ReplyRef::Item(&item);
    let not = |outcome| ItemReply::only(outcome);
    let (differs, missing, not_stored, no_number) = (
        not(ItemOutcome::Differs),
        not(ItemOutcome::Missing),
        not(ItemOutcome::NotStored),
        not(ItemOutcome::NotNumber),
    );
    let made =
        ItemReply { won: true, marks: Marks::default(), ttl_ms: None, outcome: ItemOutcome::Created, ..item.clone() };
    let busy = ReplyRef::Error("BUSY no room".into());
    let set = "set a 0 0 1\r\nx\r\n";
    for (text, answers, expected) in [
        ("get a b\r\n", vec![here.clone(), ReplyRef::Null], "VALUE a 7 2\r\nxy\r\nEND\r\n"),
        ("gets a\r\n", vec![here.clone()], "VALUE a 7 2 42\r\nxy\r\nEND\r\n"),
        ("get a b\r\n", vec![here.clone(), busy.clone()], "SERVER_ERROR BUSY no room\r\n"),
        (set, vec![ReplyRef::Ok], "STORED\r\n"),
        (set, vec![ReplyRef::Null], "NOT_STORED\r\n"),
        (set, vec![ReplyRef::Error("OOM x".into())], "SERVER_ERROR out of memory storing object\r\n"),
        ("set a 0 0 1 noreply\r\nx\r\n", vec![busy.clone()], ""),
        ("cas a 0 0 1 5\r\nx\r\n", vec![ReplyRef::Item(&differs)], "EXISTS\r\n"),
        ("cas a 0 0 1 5\r\nx\r\n", vec![ReplyRef::Item(&missing)], "NOT_FOUND\r\n"),
        ("append a 0 0 1\r\nx\r\n", vec![ReplyRef::Item(&not_stored)], "NOT_STORED\r\n"),
        ("delete a\r\n", vec![ReplyRef::Int(1)], "DELETED\r\n"),
        ("touch a 1\r\n", vec![ReplyRef::Null], "NOT_FOUND\r\n"),
        ("incr a 1\r\n", vec![here.clone()], "xy\r\n"),
        (
            "incr a 1\r\n",
            vec![ReplyRef::Item(&no_number)],
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ),
        ("mg a s v f t k O1 c l h\r\n", vec![here.clone()], "VA 2 s2 f7 t30 ka O1 c42 l1 h1 Z X\r\nxy\r\n"),
        ("mg Y-Q== b k t T-1\r\n", vec![here.clone()], "HD kYQ== b t30 Z X\r\n"),
        ("mg a v C42 s\r\n", vec![here.clone()], "HD s2 Z X\r\n"),
        ("mg a v C43\r\n", vec![here.clone()], "VA 2 Z X\r\nxy\r\n"),
        ("mg a T0 t\r\n", vec![here.clone()], "HD t-1 Z X\r\n"),
        ("mg a N30 t v\r\n", vec![ReplyRef::Item(&made)], "VA 2 t30 W\r\nxy\r\n"),
        ("mg a t N30\r\n", vec![ReplyRef::Item(&made)], "HD t-1 W\r\n"),
        ("mg a k Ox\r\n", vec![ReplyRef::Null], "EN ka Ox\r\n"),
        ("mg a q k\r\n", vec![ReplyRef::Null], ""),
        ("ms a 1 k c s Ox\r\nx\r\n", vec![here.clone()], "HD ka c42 s2 Ox\r\n"),
        ("ms a 1 c s C5\r\nx\r\n", vec![ReplyRef::Item(&differs)], "EX c0 s1\r\n"),
        ("ms a 1 q\r\nx\r\n", vec![ReplyRef::Ok], ""),
        ("ms a 1 q ME\r\nx\r\n", vec![ReplyRef::Null], "NS\r\n"),
        ("md a q k\r\n", vec![ReplyRef::Int(0)], "NF ka\r\n"),
        ("md a q\r\n", vec![ReplyRef::Int(1)], ""),
        ("ma a v t s\r\n", vec![here.clone()], "VA 2 t30\r\nxy\r\n"),
        ("ma a q\r\n", vec![here.clone()], ""),
        ("ma a q N0\r\n", vec![ReplyRef::Item(&made)], ""),
        ("ma a q k\r\n", vec![ReplyRef::Item(&missing)], "NF ka\r\n"),
        ("ma a q\r\n", vec![busy.clone()], "SERVER_ERROR BUSY no room\r\n"),
        ("me a\r\n", vec![here.clone()], "ME a exp=30 la=1 cas=42 fetch=yes cls=1 size=66\r\n"),
        ("me a\r\n", vec![ReplyRef::Null], "EN\r\n"),
    ] {
        assert_eq!(dressed(text, &answers), expected, "{text:?}");
    }
}

#[test]
fn a_large_value_goes_out_as_it_is() {
    use crate::base::item::{ItemOutcome, ItemReply, ItemValue};
    let value = Bytes::from(vec![b'x'; LARGE_VALUE_BYTES]);
    let item = ItemReply {
        len: value.len() as u32,
        value: Some(ItemValue::Shared(&value)),
        ..ItemReply::only(ItemOutcome::Done)
    };
    let (mut from, mut out) = (ReplyBuf::new(Wire::Item), ReplyBuf::new(Wire::Item));
    from.reply(ReplyRef::Item(&item));
    let Asked::Keys(_, dress) = all(b"get a\r\n").remove(0).asked else { panic!() };
    dress.put(&from, 0..1, &mut out);
    let pieces: Vec<&[u8]> = out.slices(0..1).collect();
    assert_eq!((pieces.len(), pieces[1].as_ptr()), (3, value.as_ptr()));
}

fn shown(commands: &[Command]) -> Vec<String> {
    commands.iter().map(|command| format!("{command:?}")).collect()
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("a".to_owned()),
        "[a-z]{1,3}",
        "-?[0-9]{1,3}",
        "[A-Za-z][0-9]{0,2}",
        Just("noreply".to_owned()),
        Just("YWI=".to_owned()),
    ];
    let name = prop::sample::select(vec![
        "get",
        "gets",
        "gat",
        "gats",
        "set",
        "add",
        "replace",
        "append",
        "prepend",
        "cas",
        "delete",
        "incr",
        "decr",
        "touch",
        "flush_all",
        "stats",
        "version",
        "verbosity",
        "mg",
        "ms",
        "md",
        "ma",
        "mn",
        "me",
        "nonsense",
    ]);
    let args = prop::collection::vec(word, 0..7);
    let data = prop::collection::vec(prop::sample::select(b"ab \r\n\0".to_vec()), 0..8);
    (name, args, data, any::<bool>()).prop_map(|(name, args, data, end)| {
        let mut line = format!("{name} {}{}", args.join(" "), if end { "\r\n" } else { "\n" }).into_bytes();
        line.extend_from_slice(&data);
        line.extend_from_slice(b"\r\n");
        line
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn however_bytes_are_parted_the_commands_are_the_same(
        lines in prop::collection::vec(line(), 1..6),
        cuts in prop::collection::vec(1usize..12, 1..60),
    ) {
        let bytes = lines.concat();
        let whole = all(&bytes);
        let (mut decoder, mut buf, mut commands) = (Decoder::new(1 << 20), BytesMut::new(), Vec::new());
        let (mut left, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !left.is_empty() {
            let (part, rest) = left.split_at(left.len().min(*cuts.next().unwrap()));
            buf.extend_from_slice(part);
            while decoder.decode(&mut buf, NOW, 2, &mut commands) {}
            left = rest;
        }
        prop_assert_eq!(shown(&commands), shown(&whole));
    }

    #[test]
    fn any_bytes_are_commands_or_refused(bytes: Vec<u8>, limit in 0usize..2_000) {
        decoded(&mut Decoder::new(limit), &bytes);
        decoded(&mut Decoder::new(limit), &[b"ms a 9 ", &bytes[..], b"\r\n"].concat());
        decoded(&mut Decoder::new(limit), &[b"mg a ", &bytes[..], b"\r\n"].concat());
    }
}
