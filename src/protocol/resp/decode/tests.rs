//! Tests of the request decoder: Redis's answers to broken input, and that neither the cut of a stream nor its content matters.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::base::limits::VALUE_BYTES_DEFAULT;

fn owned(commands: &[Args]) -> Vec<Vec<Vec<u8>>> {
    commands.iter().map(|args| args.iter().map(|arg| arg.to_vec()).collect()).collect()
}

fn multibulk(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn whole(bytes: &[u8]) -> (Vec<Vec<Vec<u8>>>, Result<(), ProtocolError>) {
    let (mut buf, mut out) = (BytesMut::from(bytes), Vec::new());
    let result = Decoder::new(VALUE_BYTES_DEFAULT).decode(&mut buf, usize::MAX, &mut out);
    (owned(&out), result)
}

/// Feeds `bytes` in pieces of the given sizes, as a connection does.
fn in_pieces(bytes: &[u8], sizes: &[usize], ops_max: usize) -> (Vec<Vec<Vec<u8>>>, Result<(), ProtocolError>) {
    let (mut decoder, mut buf, mut out) = (Decoder::new(VALUE_BYTES_DEFAULT), BytesMut::new(), Vec::new());
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let large = matches!(decoder.state, State::Large { .. });
        let target = decoder.read_target(&mut buf);
        let room = if large { target.capacity() - target.len() } else { usize::MAX };
        let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()).min(room));
        target.put_slice(now);
        rest = later;
        loop {
            let before = out.len();
            if let Err(error) = decoder.decode(&mut buf, ops_max, &mut out) {
                return (owned(&out), Err(error));
            }
            if out.len() - before < ops_max {
                break;
            }
        }
    }
    (owned(&out), Ok(()))
}

#[test]
fn broken_input_is_refused_in_the_words_of_redis() {
    for (input, text) in [
        (&b"*3\r\n$3\r\nSET\r\nx3\r\n"[..], &b"expected '$', got 'x'"[..]),
        (b"*1\r\n\xff\r\n", b"expected '$', got '\xff'"),
        (b"*1\r\n\n\r\n", b"expected '$', got ' '"),
        (b"*a\r\n", b"invalid multibulk length"),
        (b"*\r\n", b"invalid multibulk length"),
        (b"*+1\r\n", b"invalid multibulk length"),
        (b"*01\r\n", b"invalid multibulk length"),
        (b"*2147483648\r\n", b"invalid multibulk length"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*1\r\n$-0\r\n", b"invalid bulk length"),
        (b"*1\r\n$x\r\n", b"invalid bulk length"),
        (b"*1\r\n$600000000\r\n", b"invalid bulk length"),
        (b"set \"a\r\n", b"unbalanced quotes in request"),
    ] {
        let (commands, result) = whole(input);
        let expected = [b"ERR Protocol error: ", text].concat();
        assert_eq!(result.unwrap_err().reply(), Value::Error(expected.into()), "{}", input.escape_ascii());
        assert!(commands.is_empty());
    }
    for (input, error) in [
        ([&b"*"[..], &[b'1'; 70_000]].concat(), ProtocolError::MultibulkCountTooBig),
        ([&b"*1\r\n$"[..], &[b'1'; 70_000]].concat(), ProtocolError::BulkCountTooBig),
        (vec![b'a'; 70_000], ProtocolError::InlineTooBig),
    ] {
        assert_eq!(whole(&input).1, Err(error));
    }
}

#[test]
fn no_command_is_made_of_nothing() {
    for input in [&b"*0\r\nPING\r\n"[..], b"*-5\r\nPING\r\n", b"\r\n\r\n \r\n PING \r\n", b"*1\r\r$4\r\nPING\r\n"] {
        assert_eq!(whole(input), (vec![vec![b"PING".to_vec()]], Ok(())));
    }
}

#[test]
fn commands_before_a_broken_one_are_decoded_and_none_after() {
    let (mut buf, mut out) = (BytesMut::from(&b"PING\r\n*1\r\n$4\r\nECHO\r\n*x\r\nPING\r\n"[..]), Vec::new());
    let mut decoder = Decoder::new(VALUE_BYTES_DEFAULT);
    for _ in 0..2 {
        assert_eq!(decoder.decode(&mut buf, usize::MAX, &mut out), Err(ProtocolError::MultibulkLength));
        assert_eq!(out.len(), 2);
    }
}

#[test]
fn a_batch_shares_one_buffer() {
    let (mut buf, mut out) =
        (BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\n*2"[..]), Vec::new());
    let base = buf.as_ptr();
    Decoder::new(VALUE_BYTES_DEFAULT).decode(&mut buf, usize::MAX, &mut out).unwrap();
    assert_eq!(out[0][0].as_ptr(), base.wrapping_add(8));
    assert_eq!(out[1][0].as_ptr(), base.wrapping_add(20 + 8));
    assert_eq!(&buf[..], b"*2");
}

#[test]
fn a_batch_ends_at_its_limit() {
    let (mut buf, mut out) = (BytesMut::from(&b"PING\r\n".repeat(5)[..]), Vec::new());
    let mut decoder = Decoder::new(VALUE_BYTES_DEFAULT);
    decoder.decode(&mut buf, 3, &mut out).unwrap();
    assert_eq!((out.len(), buf.len(), decoder.is_idle(&buf)), (3, 12, false));
    decoder.decode(&mut buf, 3, &mut out).unwrap();
    assert_eq!((out.len(), buf.len(), decoder.is_idle(&buf)), (5, 0, true));
}

#[test]
fn a_large_value_is_read_into_memory_of_its_own_that_grows_as_it_arrives() {
    let mut decoder = Decoder::new(VALUE_BYTES_DEFAULT);
    let len = 1_000_000;
    let (mut buf, mut out) =
        (BytesMut::from(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${len}\r\nabc").as_str()), Vec::new());
    decoder.decode(&mut buf, 1, &mut out).unwrap();
    assert!(decoder.held_bytes() < 2 * LARGE_VALUE_START_BYTES);
    let mut sent = 3;
    while sent < len + LINE_END {
        let target = decoder.read_target(&mut buf);
        let room = target.capacity() - target.len();
        assert!(room > 0 && room <= len + LINE_END - sent);
        target.put_bytes(b'x', room);
        sent += room;
        assert!(decoder.held_bytes() <= 4 * sent + LARGE_VALUE_START_BYTES);
        decoder.decode(&mut buf, 1, &mut out).unwrap();
    }
    assert_eq!((out[0][2].len(), &out[0][1][..]), (len, &b"k"[..]));
    assert!(decoder.is_idle(&buf));
}

#[test]
fn an_announced_number_takes_no_memory() {
    let mut decoder = Decoder::new(VALUE_BYTES_DEFAULT);
    let mut buf = BytesMut::from(format!("*{ARGS_MAX}\r\n$3\r\nSET\r\n${VALUE_BYTES_DEFAULT}\r\n").as_str());
    decoder.decode(&mut buf, 1, &mut Vec::new()).unwrap();
    assert!(decoder.held_bytes() < 1024);
}

#[test]
fn a_command_is_bounded_as_a_whole() {
    let mut decoder = Decoder::new(COMMAND_BYTES_MAX);
    let mut buf = BytesMut::from(format!("*2\r\n$1\r\na\r\n${COMMAND_BYTES_MAX}\r\n").as_str());
    assert_eq!(decoder.decode(&mut buf, 1, &mut Vec::new()), Err(ProtocolError::CommandTooBig));
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (LARGE_VALUE_BYTES - 2..3 * LARGE_VALUE_BYTES, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

/// Commands and how each is sent: inline (of hex escapes) or multibulk.
fn stream() -> impl Strategy<Value = (Vec<Vec<Vec<u8>>>, Vec<u8>)> {
    let command = (prop::collection::vec(argument(), 1..6), any::<bool>());
    prop::collection::vec(command, 1..8).prop_map(|commands| {
        let mut bytes = Vec::new();
        for (args, inline) in &commands {
            if *inline && args.iter().all(|arg| arg.len() < 1_000) {
                let mut line = String::new();
                for arg in args {
                    let escaped: String = arg.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                    write!(line, "\"{escaped}\" ").unwrap();
                }
                bytes.extend_from_slice(format!("{line}\r\n").as_bytes());
            } else {
                bytes.extend(multibulk(args));
            }
        }
        (commands.into_iter().map(|(args, _)| args).collect(), bytes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn however_a_stream_is_cut_the_commands_are_the_same(
        (commands, bytes) in stream(),
        sizes in prop::collection::vec(prop_oneof![1usize..60, 1_000usize..80_000], 1..8),
        ops_max in 1usize..5,
    ) {
        prop_assert_eq!(whole(&bytes), (commands.clone(), Ok(())));
        prop_assert_eq!(in_pieces(&bytes, &sizes, ops_max), (commands, Ok(())));
    }

    #[test]
    fn another_implementation_finds_the_same_commands(commands in prop::collection::vec(prop::collection::vec(argument(), 1..6), 1..6)) {
        let bytes: Vec<u8> = commands.iter().flat_map(|args| multibulk(args)).collect();
        let mut input = Bytes::from(bytes.clone());
        let mut theirs = Vec::new();
        while !input.is_empty() {
            let (frame, rest) = resp_rs::resp2::parse_frame(input).unwrap();
            let args = frame.into_array().unwrap().into_iter();
            theirs.push(args.map(|arg| arg.into_bulk_string().unwrap().to_vec()).collect::<Vec<_>>());
            input = rest;
        }
        prop_assert_eq!(whole(&bytes).0, theirs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn hostile_bytes_give_the_same_commands_and_error_however_they_are_cut(
        bytes in prop::collection::vec(prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            prop::sample::select(vec![
                "*", "$", "\r\n", "*2\r\n", "$3\r\n", "$0\r\n\r\n", "abc\r\n", "\"", "'", "-1", "40000", "$70000\r\n", "*1000000\r\n", " ",
            ]).prop_map(|text| text.as_bytes().to_vec()),
        ], 0..60),
        sizes in prop::collection::vec(1usize..30, 1..5),
        ops_max in 1usize..4,
    ) {
        let bytes = bytes.concat();
        prop_assert_eq!(in_pieces(&bytes, &sizes, ops_max), whole(&bytes));
    }
}
