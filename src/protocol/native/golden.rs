//! The bytes of native frames, pinned: a change here is a new protocol version. `docs/PROTOCOL.md` shows the same bytes, and a test here
//! holds it to that. Every variant of everything that is numbered is pinned: one that is new does not compile before it has a number, and
//! fails before it has an example.

mod acts;
mod numbers;
mod repair;

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::frame::{LENGTH_BYTES, decode, to_bytes};
use super::*;
use crate::base::channel::Kind;
use crate::base::entry::BodyRef;
use crate::base::marks::Marks;
use crate::base::notify::Classes;
use crate::base::op::Act;
use acts::*;
use numbers::*;
use repair::*;

/// An example of one variant.
struct Pin {
    /// As the document calls it.
    name: &'static str,
    number: usize,
    bytes: Vec<u8>,
    expected: &'static str,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

/// A whole frame. `number` is that of the variant it is an example of, which stands at `at` in its payload.
fn frame(name: &'static str, message: &Message<'_>, (at, number): (usize, usize), expected: &'static str) -> Pin {
    let bytes = to_bytes(message);
    assert_eq!(decode(&bytes[LENGTH_BYTES..]).as_ref(), Ok(message));
    assert_eq!(usize::from(bytes[LENGTH_BYTES + at]), number, "{message:?}");
    Pin { name, number, bytes: bytes.to_vec(), expected }
}

fn message(name: &'static str, example: Message<'_>, expected: &'static str) -> Pin {
    frame(name, &example, (0, message_number(&example)), expected)
}

fn ask(name: &'static str, ask: Ask<'_>, expected: &'static str) -> Pin {
    let number = ask_number(&ask);
    frame(name, &Message::Ask { id: 1, ask }, (2, number), expected)
}

fn answer(name: &'static str, answer: Answer<'_>, expected: &'static str) -> Pin {
    let number = answer_number(&answer);
    frame(name, &Message::Answer { id: 1, answer }, (2, number), expected)
}

/// Something that stands inside a frame.
fn part<T>(name: &'static str, value: T, number: impl Fn(&T) -> usize, expected: &'static str) -> Pin
where
    T: Serialize + Deserialize<'static> + Debug + PartialEq,
{
    let bytes = encode_payload(&value);
    // Kept for good, because a decoded value borrows it.
    assert_eq!(decode_payload(Vec::leak(bytes.clone())).as_ref(), Ok(&value));
    assert_eq!(usize::from(bytes[0]), number(&value), "{value:?}");
    Pin { name, number: number(&value), bytes, expected }
}

/// Holds a family to its bytes, and to an example of each of its `count` variants.
fn check(pins: &[Pin], count: usize) {
    for pin in pins {
        assert_eq!(hex(&pin.bytes), pin.expected, "{}", pin.name);
    }
    let numbers: BTreeSet<usize> = pins.iter().map(|pin| pin.number).collect();
    assert_eq!(numbers, (0..count).collect(), "a variant has no example: {}", pins[0].name);
}

const VERSION_OF_7: Version = Version { time: 7 << 16, origin: 9 };
const REQUEST: RequestId = RequestId { router: 1, sequence: 2 };

fn live() -> EntryRef<'static> {
    EntryRef { version: VERSION_OF_7, body: BodyRef::Live { value: b"v", deadline: None, marks: Marks::default() } }
}

fn forward() -> Forward<'static> {
    let op = OpRef { key: b"k", act: Act::Incr { by: 1 }, value: b"" };
    Forward {
        epoch: 5,
        timeout_ms: 500,
        level: Level::Quorum,
        wire: Wire::Resp3,
        router: 6,
        together: false,
        retry: true,
        begun_ms: 300,
        ops: vec![(2, op)],
    }
}

fn messages() -> Vec<Pin> {
    vec![
        message(
            "Message::Hello",
            Message::Hello(Hello { cluster: "trellis", peer: None }),
            "0a 00 00 00 00 07 74 72 65 6c 6c 69 73 00",
        ),
        message(
            "Message::Welcome",
            Message::Welcome(Welcome { node: "n1", incarnation: 300, now_ms: 5 }),
            "07 00 00 00 01 02 6e 31 ac 02 05",
        ),
        message("Message::Refused", Message::Refused { reason: "no" }, "04 00 00 00 02 02 6e 6f"),
        message(
            "Message::Forward",
            Message::Forward { id: 1, start_by: 9, forward: forward() },
            "14 00 00 00 03 01 09 05 f4 03 01 01 06 00 01 ac 02 01 02 01 6b 0d 02 00",
        ),
        message(
            "Message::Forwarded",
            Message::Forwarded {
                id: 1,
                result: Ok(Replies {
                    marks: vec![(5, ReplyKind::Value), (9, ReplyKind::Int(7))],
                    bytes: b"+OK\r\n:7\r\n",
                }),
            },
            "13 00 00 00 04 01 00 02 05 03 09 00 0e 09 2b 4f 4b 0d 0a 3a 37 0d 0a",
        ),
        message(
            "Message::Replicate",
            Message::Replicate { sequence: 4, records: vec![RecordRef::Floor { partition: 3, version: VERSION_OF_7 }] },
            "09 00 00 00 05 04 01 01 03 80 80 1c 09",
        ),
        message(
            "Message::Acknowledge",
            Message::Acknowledge { sequence: 4, newer: vec![(0, VERSION_OF_7)], refused: vec![(1, Refusal::Lease)] },
            "0b 00 00 00 06 04 01 00 80 80 1c 09 01 01 01",
        ),
        message("Message::Ask", Message::Ask { id: 1, ask: Ask::Ping }, "03 00 00 00 07 01 00"),
        message("Message::Answer", Message::Answer { id: 1, answer: Answer::Pong }, "03 00 00 00 08 01 00"),
        message(
            "Message::Relay",
            Message::Relay { id: 1, start_by: 9, forward: forward() },
            "14 00 00 00 09 01 09 05 f4 03 01 01 06 00 01 ac 02 01 02 01 6b 0d 02 00",
        ),
        message(
            "Message::Hello of a peer",
            Message::Hello(Hello {
                cluster: "trellis",
                peer: Some(PeerHello { node: "n1", incarnation: 300, expects: Some("n2") }),
            }),
            "13 00 00 00 00 07 74 72 65 6c 6c 69 73 01 02 6e 31 ac 02 01 02 6e 32",
        ),
        message(
            "Message::Forwarded, misdirected",
            Message::Forwarded { id: 1, result: Err(Misdirected { epoch: 5 }) },
            "04 00 00 00 04 01 01 05",
        ),
    ]
}

fn asks() -> Vec<Pin> {
    vec![
        ask("Ask::Ping", Ask::Ping, "03 00 00 00 07 01 00"),
        ask("Ask::Membership", Ask::Membership(b"m"), "05 00 00 00 07 01 01 01 6d"),
        ask("Ask::Entries", Ask::Entries(vec![(Key(b"k"), VERSION_OF_7)]), "0a 00 00 00 07 01 02 01 01 6b 80 80 1c 09"),
        ask("Ask::Count", Ask::Count(&[1, 0x80]), "06 00 00 00 07 01 03 02 01 80"),
        ask("Ask::Keys", Ask::Keys { partitions: &[1, 0x80], pattern: b"*" }, "08 00 00 00 07 01 04 02 01 80 01 2a"),
        ask(
            "Ask::Scan",
            Ask::Scan { partitions: &[1, 0x80], from: 9, count: 10, pattern: b"" },
            "09 00 00 00 07 01 05 02 01 80 09 0a 00",
        ),
        ask("Ask::RandomKey", Ask::RandomKey(&[1, 0x80]), "06 00 00 00 07 01 06 02 01 80"),
        ask(
            "Ask::Flush",
            Ask::Flush { partitions: &[1, 0x80], level: Level::Quorum },
            "07 00 00 00 07 01 07 02 01 80 01",
        ),
        ask(
            "Ask::Wait",
            Ask::Wait { partitions: &[1, 0x80], replicas: 2, timeout_ms: 100 },
            "08 00 00 00 07 01 08 02 01 80 02 64",
        ),
        ask(
            "Ask::Command",
            Ask::Command { level: Some(Level::One), args: vec![Key(b"GET"), Key(b"k")] },
            "0c 00 00 00 07 01 0c 01 00 02 03 47 45 54 01 6b",
        ),
        ask("Ask::Admin", Ask::Admin(b"health"), "0a 00 00 00 07 01 0d 06 68 65 61 6c 74 68"),
        ask(
            "Ask::Survey",
            Ask::Survey {
                ballot: VERSION_OF_7,
                keys: vec![Surveyed { key: Key(b"k"), have: Version::ZERO, route: 300, lease: true }],
                requests: vec![(0, REQUEST)],
            },
            "13 00 00 00 07 01 0e 80 80 1c 09 01 01 6b 00 00 ac 02 01 01 00 01 02",
        ),
        ask("Ask::Routes", Ask::Routes(300), "05 00 00 00 07 01 0f ac 02"),
        ask(
            "Ask::Interest",
            Ask::Interest(wanted()),
            "18 00 00 00 07 01 10 02 6e 31 ac 02 04 05 00 83 60 02 00 01 61 01 01 2a 01 02 01 62",
        ),
        ask(
            "Ask::Publish",
            Ask::Publish(vec![Published { kind: Kind::Channel, channel: Key(b"a"), payload: Key(b"hi") }]),
            "0a 00 00 00 07 01 11 01 00 01 61 02 68 69",
        ),
        ask("Ask::Channels", Ask::Channels { kind: Kind::Shard, pattern: b"*" }, "06 00 00 00 07 01 12 02 01 2a"),
        ask(
            "Ask::Subscribers",
            Ask::Subscribers { kind: Kind::Channel, names: vec![Key(b"a")] },
            "07 00 00 00 07 01 13 00 01 01 61",
        ),
    ]
}

fn wanted() -> Wanted<'static> {
    Wanted {
        node: "n1",
        incarnation: 300,
        base: 4,
        version: 5,
        everything: false,
        classes: Classes::parse(b"KEg$").expect("letters of classes"),
        added: vec![(Kind::Channel, Key(b"a")), (Kind::Pattern, Key(b"*"))],
        removed: vec![(Kind::Shard, Key(b"b"))],
    }
}

fn kinds() -> Vec<Pin> {
    vec![
        part("Kind::Channel", Kind::Channel, kind_number, "00"),
        part("Kind::Pattern", Kind::Pattern, kind_number, "01"),
        part("Kind::Shard", Kind::Shard, kind_number, "02"),
    ]
}

fn answers() -> Vec<Pin> {
    vec![
        answer("Answer::Pong", Answer::Pong, "03 00 00 00 08 01 00"),
        answer("Answer::Membership", Answer::Membership(b"m"), "05 00 00 00 08 01 01 01 6d"),
        answer(
            "Answer::Entries",
            Answer::Entries(vec![Holding::Nothing, Holding::Same]),
            "06 00 00 00 08 01 02 02 00 01",
        ),
        answer("Answer::Count", Answer::Count(300), "05 00 00 00 08 01 03 ac 02"),
        answer("Answer::Keys", Answer::Keys(vec![Key(b"a"), Key(b"b")]), "08 00 00 00 08 01 04 02 01 61 01 62"),
        answer(
            "Answer::Scanned",
            Answer::Scanned(vec![Page { partition: 3, keys: vec![Key(b"a")], next: Some(9) }]),
            "0a 00 00 00 08 01 05 01 03 01 01 61 01 09",
        ),
        answer("Answer::Done", Answer::Done, "03 00 00 00 08 01 06"),
        answer("Answer::Reply", Answer::Reply(b"+OK\r\n"), "09 00 00 00 08 01 0a 05 2b 4f 4b 0d 0a"),
        answer("Answer::Admin", Answer::Admin { status: 404, body: b"{}" }, "08 00 00 00 08 01 0b 94 03 02 7b 7d"),
        answer("Answer::Failed", Answer::Failed("ERR no"), "0a 00 00 00 08 01 0c 06 45 52 52 20 6e 6f"),
        answer(
            "Answer::Survey",
            Answer::Survey {
                holdings: vec![Holding::Same],
                answered: vec![(
                    Answered { request: REQUEST, kind: ReplyKind::Int(5), reply: b":5\r\n" },
                    VERSION_OF_7,
                )],
                known: vec![(0, Version::ZERO)],
            },
            "17 00 00 00 08 01 0d 01 01 01 01 02 00 0a 04 3a 35 0d 0a 80 80 1c 09 01 00 00 00",
        ),
        answer(
            "Answer::Routes",
            Answer::Routes(Routes {
                mark: 300,
                epoch: 5,
                level: Level::Quorum,
                value_bytes_max: 300,
                members: vec!["h:1", "h:2"],
                serving: vec![vec![1, 0], vec![]],
            }),
            "17 00 00 00 08 01 0e ac 02 05 01 ac 02 02 03 68 3a 31 03 68 3a 32 02 02 01 00 00",
        ),
        answer("Answer::Counts", Answer::Counts(vec![0, 300]), "07 00 00 00 08 01 0f 02 00 ac 02"),
        answer("Answer::Names", Answer::Names(vec![Key(b"a")]), "06 00 00 00 08 01 10 01 01 61"),
        answer("Answer::Partitions", Answer::Partitions(&[1, 0x80]), "06 00 00 00 08 01 11 02 01 80"),
    ]
}

fn records() -> Vec<Pin> {
    vec![
        part(
            "RecordRef::Entry",
            RecordRef::Entry {
                key: b"k",
                entry: live(),
                answered: Some(Answered { request: REQUEST, kind: ReplyKind::Int(5), reply: b":5\r\n" }),
                counted: Some(Counted { route: 300, base: Version::ZERO, lease: Some(VERSION_OF_7) }),
            },
            record_ref_number,
            "00 01 6b 80 80 1c 09 01 01 76 00 00 01 01 02 00 0a 04 3a 35 0d 0a 01 ac 02 00 00 01 80 80 1c 09",
        ),
        part(
            "RecordRef::Floor",
            RecordRef::Floor { partition: 3, version: VERSION_OF_7 },
            record_ref_number,
            "01 03 80 80 1c 09",
        ),
    ]
}

fn holdings() -> Vec<Pin> {
    vec![
        part("Holding::Nothing", Holding::Nothing, holding_number, "00"),
        part("Holding::Same", Holding::Same, holding_number, "01"),
        part("Holding::Entry", Holding::Entry(live()), holding_number, "02 80 80 1c 09 01 01 76 00 00"),
        part("Holding::Leased", Holding::Leased { above: VERSION_OF_7 }, holding_number, "03 80 80 1c 09"),
        part("Holding::OtherRoute", Holding::OtherRoute, holding_number, "04"),
    ]
}

fn refusals() -> Vec<Pin> {
    vec![
        part("Refusal::FarFuture", Refusal::FarFuture, refusal_number, "00"),
        part("Refusal::Lease", Refusal::Lease, refusal_number, "01"),
        part("Refusal::Route", Refusal::Route, refusal_number, "02"),
    ]
}

fn bodies() -> Vec<Pin> {
    vec![
        part("BodyRef::Tombstone", BodyRef::Tombstone, body_ref_number, "00"),
        part(
            "BodyRef::Live",
            BodyRef::Live { value: b"v", deadline: Some(1000), marks: Marks::of(7) },
            body_ref_number,
            "01 01 76 01 e8 07 07",
        ),
    ]
}

fn levels() -> Vec<Pin> {
    vec![
        part("Level::One", Level::One, level_number, "00"),
        part("Level::Quorum", Level::Quorum, level_number, "01"),
        part("Level::All", Level::All, level_number, "02"),
    ]
}

fn wires() -> Vec<Pin> {
    vec![
        part("Wire::Resp2", Wire::Resp2, wire_number, "00"),
        part("Wire::Resp3", Wire::Resp3, wire_number, "01"),
        part("Wire::Item", Wire::Item, wire_number, "02"),
    ]
}

fn reply_kinds() -> Vec<Pin> {
    vec![
        part("ReplyKind::Int", ReplyKind::Int(7), reply_kind_number, "00 0e"),
        part("ReplyKind::Error", ReplyKind::Error, reply_kind_number, "01"),
        part("ReplyKind::Null", ReplyKind::Null, reply_kind_number, "02"),
        part("ReplyKind::Value", ReplyKind::Value, reply_kind_number, "03"),
    ]
}

#[test]
fn frames_keep_their_bytes() {
    check(&messages(), MESSAGES);
}

#[test]
fn questions_keep_their_bytes() {
    check(&asks().into_iter().chain(asks_of_repair()).collect::<Vec<_>>(), ASKS);
}

#[test]
fn answers_keep_their_bytes() {
    check(&answers().into_iter().chain(answers_of_repair()).collect::<Vec<_>>(), ANSWERS);
}

#[test]
fn records_and_holdings_keep_their_bytes() {
    check(&records(), RECORD_REFS);
    check(&holdings(), HOLDINGS);
    check(&refusals(), REFUSALS);
    check(&bodies(), BODY_REFS);
}

#[test]
fn acts_keep_their_bytes() {
    check(&acts(), ACTS);
    check(&bit_ops(), BIT_OPS);
    check(&renamings(), RENAMINGS);
    check(&item_acts(), ITEM_ACTS);
    check(&expiries(), EXPIRYS);
    check(&deadlines(), DEADLINES);
    check(&conditions(), WHENS);
    check(&set_answers(), SET_ANSWERS);
    check(&comparisons(), COMPARISONS);
    check(&bit_units(), BIT_UNITS);
    check(&aspects(), ASPECTS);
}

#[test]
fn levels_wires_and_kinds_of_reply_keep_their_bytes() {
    check(&levels(), LEVELS);
    check(&wires(), WIRES);
    check(&reply_kinds(), REPLY_KINDS);
    check(&kinds(), KINDS);
}

/// Rows of the document's tables that carry an example: number, name and bytes.
fn documented() -> BTreeSet<(usize, String, String)> {
    let text = include_str!("../../../docs/PROTOCOL.md");
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::trim).collect();
        let [number, name, _, example] = cells[..] else { return None };
        Some((number.parse().ok()?, name.trim_matches('`').to_owned(), example.trim_matches('`').to_owned()))
    });
    rows.collect()
}

#[test]
fn the_document_shows_these_bytes_and_no_others() {
    let families: [fn() -> Vec<Pin>; 24] = [
        messages,
        asks,
        asks_of_repair,
        answers,
        answers_of_repair,
        records,
        holdings,
        refusals,
        bodies,
        acts,
        bit_ops,
        renamings,
        item_acts,
        expiries,
        deadlines,
        conditions,
        set_answers,
        comparisons,
        bit_units,
        aspects,
        levels,
        wires,
        reply_kinds,
        kinds,
    ];
    let pinned: BTreeSet<(usize, String, String)> = families
        .iter()
        .flat_map(|family| family())
        .map(|pin| (pin.number, pin.name.to_owned(), pin.expected.to_owned()))
        .collect();
    assert_eq!(documented(), pinned);
    let preface = format!("`{}`", hex(&PREFACE));
    assert!(include_str!("../../../docs/PROTOCOL.md").contains(&preface), "{preface}");
}
