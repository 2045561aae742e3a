//! Tests of command parsing. The error texts are the replies of `redis-server` 7.0.15 to the same lines, but where 7.2 or our own
//! limits differ.

use proptest::prelude::*;

use super::*;
use crate::base::level::Level;
use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::op::{BitOp, Comparison, Deadline, ExpireWhen};
use crate::base::reply::Wire;
use crate::protocol::request::{ClusterOp, Gather, LcsAsk, LcsWant, Several};
use crate::protocol::resp::control::{ClientFilter, ClientKind};
use crate::protocol::resp::inline;
use crate::protocol::resp::session::Hello;

mod control;
mod pubsub;

const CONTEXT: Context = Context { now: 1_700_000_000_000, value_bytes_max: VALUE_BYTES_MAX };

fn parsed(line: &str) -> Result<(&'static Command, Parsed), ParseError> {
    parse(&mut inline::split(line.as_bytes()).unwrap(), &CONTEXT)
}

fn request(line: &str) -> Request {
    match parsed(line) {
        Ok((_, Parsed::Request(request))) => request,
        other => panic!("{line}: {other:?}"),
    }
}

fn session(line: &str) -> SessionCommand {
    match parsed(line) {
        Ok((_, Parsed::Session(command))) => command,
        other => panic!("{line}: {other:?}"),
    }
}

/// What a command that depends on nothing answers.
fn answer(line: &str, wire: Wire) -> String {
    let SessionCommand::Answer(value) = session(line) else { panic!("{line}") };
    let mut out = Vec::new();
    value.encode(wire, &mut out);
    String::from_utf8(out).unwrap()
}

fn op(key: &str, act: Act) -> Op {
    Op::new(key.to_owned().into(), act)
}

fn op_with(key: &str, act: Act, value: &str) -> Op {
    Op { key: key.to_owned().into(), act, value: value.to_owned().into() }
}

const INTEGER: &str = "ERR value is not an integer or out of range";
const INCOMPATIBLE: &str = "ERR NX and XX, GT or LT options at the same time are not compatible";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn expect_errors(lines: &[(&str, &str)]) {
    for (line, text) in lines {
        let error = parsed(line).expect_err(line);
        assert_eq!(error.reply(), Value::error(text.to_string()), "{line}");
        assert_eq!(error.command.is_some(), !text.starts_with("ERR unknown command"));
    }
}

#[test]
fn errors_of_values_are_those_of_redis() {
    expect_errors(&[
        ("foo", "ERR unknown command 'foo', with args beginning with: "),
        ("foo a b", "ERR unknown command 'foo', with args beginning with: 'a' 'b' "),
        (r#""f\r\noo" "x\ny""#, "ERR unknown command 'f  oo', with args beginning with: 'x y' "),
        (r#""f\x00oo""#, "ERR unknown command 'f', with args beginning with: "),
        ("SET k", "ERR wrong number of arguments for 'set' command"),
        ("get", "ERR wrong number of arguments for 'get' command"),
        ("GETEX", "ERR wrong number of arguments for 'getex' command"),
        ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
        ("SET k v EX -1", "ERR invalid expire time in 'set' command"),
        ("SET k v EX x", INTEGER),
        ("SET k v EX", SYNTAX),
        ("SET k v EX 10 PX 10", SYNTAX),
        ("SET k v NX XX", SYNTAX),
        ("SET k v KEEPTTL EX 1", SYNTAX),
        ("SET k v EX 1 KEEPTTL", SYNTAX),
        ("SET k v PERSIST", SYNTAX),
        ("SET k v EX x FOO", SYNTAX),
        ("SET k v PX 9223372036854775807", "ERR invalid expire time in 'set' command"),
        ("SET k v EX 9223372036854775807", "ERR invalid expire time in 'set' command"),
        ("SET k v EXAT 9223372036854776", "ERR invalid expire time in 'set' command"),
        ("SET k v IFEQ", SYNTAX),
        ("SET k v NX IFEQ a", SYNTAX),
        ("SET k v IFEQ a XX", SYNTAX),
        ("SET k v IFEQ a IFNE b", SYNTAX),
        ("SET k v IFEQ a EX 0", "ERR invalid expire time in 'set' command"),
        ("GETEX k IFEQ a", SYNTAX),
        ("DELEX k IFEQ", "ERR wrong number of arguments for 'delex' command"),
        ("DELEX k IFEQ a b", "ERR wrong number of arguments for 'delex' command"),
        ("DELEX k FOO a", "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"),
        ("GETEX k PERSIST EX 1", SYNTAX),
        ("GETEX k EX x", INTEGER),
        ("GETEX k EX 0", "ERR invalid expire time in 'getex' command"),
        ("GETEX k KEEPTTL", SYNTAX),
        ("GETEX k NX", SYNTAX),
        ("SETEX k 0 v", "ERR invalid expire time in 'setex' command"),
        ("SETEX k x v", INTEGER),
        ("PSETEX k -1 v", "ERR invalid expire time in 'psetex' command"),
        ("EXPIRE k x", INTEGER),
        ("EXPIRE k 1 FOO", "ERR Unsupported option FOO"),
        ("EXPIRE k x FOO", "ERR Unsupported option FOO"),
        ("EXPIRE k 1 NX XX", INCOMPATIBLE),
        ("EXPIRE k 1 NX GT", INCOMPATIBLE),
        ("EXPIRE k 1 GT LT", "ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE k 9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("EXPIRE k -9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("PEXPIRE k 9223372036854775807", "ERR invalid expire time in 'pexpire' command"),
        ("EXPIREAT k 9223372036854775807", "ERR invalid expire time in 'expireat' command"),
    ]);
}

#[test]
fn errors_of_numbers_and_of_many_keys_are_those_of_redis() {
    expect_errors(&[
        ("INCRBY k x", INTEGER),
        ("INCRBY k +1", INTEGER),
        ("INCRBY k 01", INTEGER),
        ("INCRBY k ' 1'", INTEGER),
        ("DECRBY k -9223372036854775808", "ERR decrement would overflow"),
        ("INCRBYFLOAT k x", "ERR value is not a valid float"),
        ("INCRBYFLOAT k nan", "ERR value is not a valid float"),
        ("INCRBYFLOAT k 1e99999", "ERR value is not a valid float"),
        ("SETRANGE k -1 a", "ERR offset is out of range"),
        ("SETRANGE k x a", INTEGER),
        ("SETRANGE k 536870912 a", "ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        ("SETRANGE k 9223372036854775807 a", "ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        ("GETRANGE k a 1", INTEGER),
        ("MSET a", "ERR wrong number of arguments for 'mset' command"),
        ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
        ("MSETNX a 1 b", "ERR wrong number of arguments for 'msetnx' command"),
        ("SCAN x", "ERR invalid cursor"),
        ("SCAN 99999999999999999999999", "ERR invalid cursor"),
        ("SCAN x FOO", "ERR invalid cursor"),
        ("SCAN 0 COUNT 0", SYNTAX),
        ("SCAN 0 COUNT x", INTEGER),
        ("SCAN 0 MATCH", SYNTAX),
        ("SCAN 0 FOO 1", SYNTAX),
        ("WAIT x 1", INTEGER),
        ("WAIT 0 x", "ERR timeout is not an integer or out of range"),
        ("WAIT 0 -1", "ERR timeout is negative"),
        ("FLUSHALL FOO", SYNTAX),
        ("FLUSHALL ASYNC SYNC", SYNTAX),
        ("FLUSHDB x y", SYNTAX),
        ("DBSIZE x", "ERR wrong number of arguments for 'dbsize' command"),
    ]);
}

#[test]
fn commands_of_transactions_are_told_apart() {
    let transaction = |line: &str| match parsed(line) {
        Ok((_, Parsed::Transaction(command))) => command,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(transaction("MULTI"), TransactionCommand::Multi);
    assert_eq!(transaction("exec"), TransactionCommand::Exec);
    assert_eq!(transaction("Discard"), TransactionCommand::Discard);
    assert_eq!(transaction("UNWATCH"), TransactionCommand::Unwatch);
    assert_eq!(transaction("WATCH a b a"), TransactionCommand::Watch(vec!["a".into(), "b".into(), "a".into()]));
    expect_errors(&[
        ("MULTI x", "ERR wrong number of arguments for 'multi' command"),
        ("EXEC x", "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command"),
        ("WATCH", "ERR wrong number of arguments for 'watch' command"),
    ]);
}

#[test]
fn errors_that_a_transaction_takes_are_those_that_redis_finds_when_it_executes() {
    for (line, is_late) in [
        ("foo", false),
        ("GET", false),
        ("CLIENT FOO", false),
        ("CLIENT ID a", false),
        ("MSET a 1 b", true),
        ("PING a b", true),
        ("INCRBY k x", true),
        ("SET k v EX 0", true),
        ("SELECT x", true),
    ] {
        assert_eq!(parsed(line).expect_err(line).is_late, is_late, "{line}");
    }
}

#[test]
fn commands_on_several_keys_are_understood() {
    let several = |line: &str| match request(line) {
        Request::Several(several) => *several,
        other => panic!("{line}: {other:?}"),
    };
    let copy = |replace| Several::Copy { from: "a".into(), to: "b".into(), replace };
    assert_eq!(several("COPY a b"), copy(false));
    assert_eq!(several("copy a b DB 0 replace REPLACE"), copy(true));
    let rename = |if_absent| Several::Rename { from: "a".into(), to: "a".into(), if_absent };
    assert_eq!((several("RENAME a a"), several("RENAMENX a a")), (rename(false), rename(true)));
    let from = vec!["a".into(), "b".into()];
    assert_eq!(several("BITOP xor d a b"), Several::BitOp { how: BitOp::Xor, to: "d".into(), from });
    let lcs =
        |want| Several::Lcs { keys: ["a".into(), "b".into()], ask: LcsAsk { want, table_bytes_max: VALUE_BYTES_MAX } };
    assert_eq!(several("LCS a b"), lcs(LcsWant::Text));
    assert_eq!(several("LCS a b MINMATCHLEN 4 LEN WITHMATCHLEN"), lcs(LcsWant::Length));
    let matches = |shortest, with_length| lcs(LcsWant::Matches { shortest, with_length });
    assert_eq!(several("LCS a b idx MINMATCHLEN -4"), matches(0, false));
    assert_eq!(several("LCS a b minmatchlen 4 withmatchlen IDX"), matches(4, true));
    expect_errors(&[
        ("COPY a", "ERR wrong number of arguments for 'copy' command"),
        ("COPY a a", "ERR source and destination objects are the same"),
        ("COPY a a REPLACE", "ERR source and destination objects are the same"),
        ("COPY a b FOO", SYNTAX),
        ("COPY a b DB", SYNTAX),
        ("COPY a b DB x", INTEGER),
        ("COPY a b DB 16", "ERR DB index is out of range"),
        ("COPY a b DB 9999999999", "ERR value is out of range, value must between -2147483648 and 2147483647"),
        ("RENAME a", "ERR wrong number of arguments for 'rename' command"),
        ("BITOP FOO d a", SYNTAX),
        ("BITOP NOT d a b", "ERR BITOP NOT must be called with a single source key."),
        ("BITOP AND d", "ERR wrong number of arguments for 'bitop' command"),
        ("LCS a b FOO", SYNTAX),
        ("LCS a b MINMATCHLEN", SYNTAX),
        ("LCS a b MINMATCHLEN x", INTEGER),
        ("LCS a b IDX LEN", "ERR If you want both the length and indexes, please just use IDX."),
    ]);
}

#[test]
fn connection_errors_are_those_of_redis() {
    for (line, text) in [
        ("SELECT x", INTEGER),
        ("SELECT 9999999999", "ERR value is out of range, value must between -2147483648 and 2147483647"),
        ("SELECT 16", "ERR DB index is out of range"),
        ("SELECT -1", "ERR DB index is out of range"),
        ("AUTH a b c", SYNTAX),
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 2 AUTH a", "ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 2 FOO", "ERR Syntax error in HELLO option 'FOO'"),
        ("HELLO 2 SETNAME", "ERR Syntax error in HELLO option 'SETNAME'"),
        (r#"HELLO 2 SETNAME "a\nb""#, BAD_NAME),
        ("PING a b", "ERR wrong number of arguments for 'ping' command"),
        ("CLIENT", "ERR wrong number of arguments for 'client' command"),
        ("CLIENT FOO", "ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        ("CLIENT ID a", "ERR wrong number of arguments for 'client|id' command"),
        ("client SetName", "ERR wrong number of arguments for 'client|setname' command"),
        (r#"CLIENT SETNAME "a\tb""#, BAD_NAME),
        ("CLIENT SETINFO foo x", "ERR Unrecognized option 'foo'"),
        ("CLIENT SETINFO LIB-NAME 'a b'", "ERR lib-name cannot contain spaces, newlines or special characters."),
        ("CLIENT LIST TYPE foo", "ERR Unknown client type 'foo'"),
        ("CLIENT LIST ID 1 x", "ERR Invalid client ID"),
        ("CLIENT LIST ID", SYNTAX),
        ("CLIENT LIST FOO", SYNTAX),
        ("COMMAND FOO", "ERR unknown subcommand 'FOO'. Try COMMAND HELP."),
        ("COMMAND COUNT a", "ERR wrong number of arguments for 'command|count' command"),
        ("COMMAND GETKEYS get", "ERR wrong number of arguments for 'command|getkeys' command"),
        ("COMMAND GETKEYS foo a", "ERR Invalid command specified"),
        ("COMMAND GETKEYS ping x", "ERR The command has no key arguments"),
        ("COMMAND GETKEYS get a b", "ERR Invalid number of arguments specified for command"),
        ("COMMAND LIST FILTERBY", SYNTAX),
        ("COMMAND LIST FILTERBY FOO x", SYNTAX),
        ("CONFIG GET", "ERR wrong number of arguments for 'config|get' command"),
        ("CONFIG FOO", "ERR unknown subcommand 'FOO'. Try CONFIG HELP."),
        ("TRELLIS", "ERR wrong number of arguments for 'trellis' command"),
        ("TRELLIS CONSISTENCY two", "ERR a consistency level is one, quorum or all"),
    ] {
        assert_eq!(parsed(line).expect_err(line).reply(), Value::error(text), "{line}");
    }
}

#[test]
fn an_unknown_command_shows_a_bounded_part_of_its_arguments() {
    let (long, a, b) = ("f".repeat(300), "a".repeat(200), "b".repeat(200));
    let error = parsed(&format!("{long} {a} {b} c")).unwrap_err();
    let (name, shown) = ("f".repeat(128), "a".repeat(128));
    assert_eq!(error.text, format!("ERR unknown command '{name}', with args beginning with: '{shown}' "));
}

#[test]
fn every_option_of_set_is_understood() {
    let until = |deadline| Expiry::Until(deadline);
    for (options, expiry, when, answer) in [
        ("", Expiry::Clear, When::Always, SetAnswer::Done),
        ("EX 10", until(Deadline::In(10_000)), When::Always, SetAnswer::Done),
        ("px 10 nx", until(Deadline::In(10)), When::Absent, SetAnswer::Done),
        ("EXAT 10 XX", until(Deadline::At(10_000)), When::Present, SetAnswer::Done),
        ("PXAT 9223372036854775807", until(Deadline::At(i64::MAX)), When::Always, SetAnswer::Done),
        ("KEEPTTL GET", Expiry::Keep, When::Always, SetAnswer::Old),
        ("NX GET", Expiry::Clear, When::Absent, SetAnswer::Old),
        ("EX 10 EX 20 NX NX", until(Deadline::In(20_000)), When::Absent, SetAnswer::Done),
    ] {
        let expected = Request::One(op_with("k", strings::set(expiry, when, answer), "v"));
        assert_eq!(request(&format!("SET k v {options}")), expected, "{options}");
    }
}

#[test]
fn a_condition_travels_before_the_value() {
    use Comparison::{Differs, DigestEqual, Equal};
    for (line, expiry, comparison, answer, value) in [
        ("SET k new IFEQ old", Expiry::Clear, Equal, SetAnswer::Done, "oldnew"),
        ("SET k new GET KEEPTTL ifne old", Expiry::Keep, Differs, SetAnswer::Old, "oldnew"),
        ("SET k new IFDEQ foo IFDEQ bar", Expiry::Clear, DigestEqual, SetAnswer::Done, "barnew"),
        ("SET k new IFEQ IFEQ PX 5", Expiry::Until(Deadline::In(5)), Equal, SetAnswer::Done, "IFEQnew"),
    ] {
        let operand_bytes = value.len() as u32 - 3;
        let act = Act::SetIf { expiry, comparison, answer, operand_bytes };
        assert_eq!(request(line), Request::One(op_with("k", act, value)), "{line}");
    }
    let mut args: Args = ["SET", "k", "five5", "IFEQ", "six666"].into_iter().map(Bytes::from).collect();
    let context = Context { value_bytes_max: 10, ..CONTEXT };
    assert!(parse(&mut args, &context).unwrap_err().text.starts_with(b"ERR the value and what to compare with exceed"));
}

#[test]
fn commands_on_one_key_become_one_operation() {
    let set = strings::set;
    let ttl = |ms, absolute| Act::Ttl { ms, absolute };
    for (line, expected) in [
        ("GET k", op("k", Act::Get)),
        ("get k", op("k", Act::Get)),
        ("SETNX k v", op_with("k", set(Expiry::Clear, When::Absent, SetAnswer::Flag), "v")),
        ("SETEX k 2 v", op_with("k", set(Expiry::Until(Deadline::In(2_000)), When::Always, SetAnswer::Done), "v")),
        ("PSETEX k 2 v", op_with("k", set(Expiry::Until(Deadline::In(2)), When::Always, SetAnswer::Done), "v")),
        ("GETSET k v", op_with("k", set(Expiry::Clear, When::Always, SetAnswer::Old), "v")),
        ("GETDEL k", op("k", Act::GetDel)),
        ("GETEX k", op("k", Act::GetEx { expiry: Expiry::Keep })),
        ("GETEX k PERSIST", op("k", Act::GetEx { expiry: Expiry::Clear })),
        ("GETEX k PXAT 5", op("k", Act::GetEx { expiry: Expiry::Until(Deadline::At(5)) })),
        ("DEL k", op("k", Act::Delete)),
        ("DELEX k", op("k", Act::Delete)),
        ("DELEX k ifdne x", op_with("k", Act::DeleteIf { comparison: Comparison::DigestDiffers }, "x")),
        ("DELIFEQ k x", op_with("k", Act::DeleteIf { comparison: Comparison::Equal }, "x")),
        ("DIGEST k", op("k", Act::Digest)),
        ("UNLINK k", op("k", Act::Delete)),
        ("EXISTS k", op("k", Act::Exists)),
        ("TOUCH k", op("k", Act::Touch)),
        ("TYPE k", op("k", Act::Type)),
        ("INCR k", op("k", Act::Incr { by: 1 })),
        ("DECR k", op("k", Act::Incr { by: -1 })),
        ("INCRBY k -5", op("k", Act::Incr { by: -5 })),
        ("DECRBY k 5", op("k", Act::Incr { by: -5 })),
        ("INCRBYFLOAT k 1.5e3", op_with("k", Act::IncrFloat, "1.5e3")),
        ("INCRBYFLOAT k -inf", op_with("k", Act::IncrFloat, "-inf")),
        ("APPEND k v", op_with("k", Act::Append, "v")),
        ("STRLEN k", op("k", Act::Strlen)),
        ("GETRANGE k 0 -1", op("k", Act::GetRange { start: 0, end: -1 })),
        ("SUBSTR k 0 -1", op("k", Act::GetRange { start: 0, end: -1 })),
        ("SETRANGE k 536870912 ''", op("k", Act::SetRange { offset: 536_870_912 })),
        ("SETRANGE k 3 v", op_with("k", Act::SetRange { offset: 3 }, "v")),
        ("TTL k", op("k", ttl(false, false))),
        ("PTTL k", op("k", ttl(true, false))),
        ("EXPIRETIME k", op("k", ttl(false, true))),
        ("PEXPIRETIME k", op("k", ttl(true, true))),
        ("PERSIST k", op("k", Act::Persist)),
    ] {
        assert_eq!(request(line), Request::One(expected), "{line}");
    }
}

#[test]
fn deadlines_of_expire_may_lie_in_the_past_and_carry_conditions() {
    let none = ExpireWhen::default();
    for (line, at, when) in [
        ("EXPIRE k 5", Deadline::In(5_000), none),
        ("PEXPIRE k -5 NX", Deadline::In(-5), ExpireWhen { no_deadline: true, ..none }),
        ("EXPIREAT k 5 xx gt", Deadline::At(5_000), ExpireWhen { deadline: true, later: true, ..none }),
        ("PEXPIREAT k 9223372036854775807 LT", Deadline::At(i64::MAX), ExpireWhen { earlier: true, ..none }),
    ] {
        assert_eq!(request(line), Request::One(op("k", Act::Expire { at, when })), "{line}");
    }
}

#[test]
fn commands_on_several_keys_say_how_their_answers_become_one() {
    let set = |key, when, answer, value| op_with(key, strings::set(Expiry::Clear, when, answer), value);
    let done = |key, value| set(key, When::Always, SetAnswer::Done, value);
    let flag = |key, value| set(key, When::Absent, SetAnswer::Flag, value);
    for (line, gather, ops) in [
        ("DEL a b", Gather::Sum, vec![op("a", Act::Delete), op("b", Act::Delete)]),
        ("EXISTS a a", Gather::Sum, vec![op("a", Act::Exists), op("a", Act::Exists)]),
        ("MGET a", Gather::Array, vec![op("a", Act::Get)]),
        ("MSET a 1 b 2", Gather::AllOk, vec![done("a", "1"), done("b", "2")]),
        ("MSETNX a 1 b 2", Gather::SetAllIfAbsent, vec![flag("a", "1"), flag("b", "2")]),
        ("MSETNX a 1 b 2 a 3", Gather::SetAllIfAbsent, vec![flag("b", "2"), flag("a", "3")]),
    ] {
        assert_eq!(request(line), Request::Many(gather, ops), "{line}");
    }
}

#[test]
fn commands_on_all_keys_go_to_the_cluster() {
    let scan = |cursor, pattern: Option<&'static str>, count, nothing| ClusterOp::Scan {
        cursor,
        pattern: pattern.map(Bytes::from),
        count,
        nothing,
    };
    for (line, expected) in [
        ("DBSIZE", ClusterOp::DbSize),
        ("FLUSHALL", ClusterOp::Flush),
        ("flushdb async", ClusterOp::Flush),
        ("RANDOMKEY", ClusterOp::RandomKey),
        ("KEYS a*", ClusterOp::Keys { pattern: "a*".into() }),
        ("SCAN 0", scan(0, None, 10, false)),
        ("SCAN 7 MATCH a* COUNT 50 TYPE STRING", scan(7, Some("a*"), 50, false)),
        ("SCAN 0 MATCH * TYPE hash", scan(0, None, 10, true)),
        ("WAIT -1 0", ClusterOp::Wait { replicas: -1, timeout_ms: 0 }),
    ] {
        assert_eq!(request(line), Request::Cluster(expected), "{line}");
    }
}

#[test]
fn commands_of_the_connection_go_to_the_session() {
    let hello = Hello { wire: Some(Wire::Resp3), auth: Some(("u".into(), "p".into())), name: Some("n".into()) };
    for (line, expected) in [
        ("PING", SessionCommand::Ping(None)),
        ("ping hi", SessionCommand::Ping(Some("hi".into()))),
        ("ECHO hi", SessionCommand::Answer(Value::bulk("hi"))),
        ("SELECT 0", SessionCommand::Answer(Value::OK)),
        ("HELLO", SessionCommand::Hello(Hello::default())),
        ("HELLO 3 auth u p SETNAME n", SessionCommand::Hello(hello)),
        ("QUIT", SessionCommand::Quit),
        ("QUIT now", SessionCommand::Quit),
        ("CLIENT LIST TYPE normal", SessionCommand::ClientList(ClientFilter::Kind(ClientKind::Normal))),
        ("CLIENT LIST ID 1 2", SessionCommand::ClientList(ClientFilter::Ids(vec![1, 2]))),
        ("CLIENT SETINFO LIB-VER 1.0", SessionCommand::ClientLibVersion("1.0".into())),
        ("INFO cpu memory", SessionCommand::Info(vec!["cpu".into(), "memory".into()])),
        ("CONFIG GET a b", SessionCommand::ConfigGet(vec!["a".into(), "b".into()])),
        ("TRELLIS CONSISTENCY QUORUM", SessionCommand::Consistency(Some(Level::Quorum))),
        ("TRELLIS CONSISTENCY", SessionCommand::Consistency(None)),
    ] {
        assert_eq!(session(line), expected, "{line}");
    }
}

#[test]
fn a_key_is_at_most_the_limit() {
    let (fits, long) = ("k".repeat(KEY_BYTES_MAX), "k".repeat(KEY_BYTES_MAX + 1));
    for command in ["GET {}", "SET {} v", "MSET a 1 {} 2", "DEL a {}", "SET {} v NX"] {
        assert!(parsed(&command.replace("{}", &fits)).is_ok());
        let error = parsed(&command.replace("{}", &long)).unwrap_err();
        assert_eq!(error.text, "ERR key exceeds the limit of 65536 bytes");
    }
    assert!(parsed(&format!("SET k {long}")).is_ok());
}

#[test]
fn the_command_told_is_the_subcommand() {
    assert_eq!(parsed("CLIENT ID").unwrap().0.name, "client|id");
    assert_eq!((parsed("get k").unwrap().0.name, parsed("SET k v").unwrap().0.name), ("get", "set"));
}

#[test]
fn the_table_is_shown_as_redis_shows_it() {
    let spec2 = "*1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RO\r\n+access\r\n$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n\
                 *2\r\n$5\r\nindex\r\n:1\r\n$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n*6\r\n$7\r\nlastkey\r\n:0\r\n\
                 $7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n";
    let info2 = "*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n+@read\r\n+@string\r\n+@fast\r\n*0\r\n";
    assert_eq!(answer("COMMAND INFO get nope", Wire::Resp2), format!("*2\r\n{info2}{spec2}*0\r\n$-1\r\n"));
    let info3 = "*1\r\n*10\r\n$4\r\necho\r\n:2\r\n~3\r\n+loading\r\n+stale\r\n+fast\r\n:0\r\n:0\r\n:0\r\n~2\r\n+@fast\r\n+@connection\r\n\
                 ~0\r\n~0\r\n~0\r\n";
    assert_eq!(answer("COMMAND INFO echo", Wire::Resp3), info3);
    let docs = "%1\r\n$4\r\ntime\r\n%4\r\n$7\r\nsummary\r\n$30\r\nReturn the current server time\r\n$5\r\nsince\r\n$5\r\n2.6.0\r\n\
                $5\r\ngroup\r\n$6\r\nserver\r\n$10\r\ncomplexity\r\n$4\r\nO(1)\r\n";
    assert_eq!(answer("COMMAND DOCS time foo", Wire::Resp3), docs);
    assert_eq!(answer("COMMAND COUNT", Wire::Resp2), format!(":{}\r\n", COMMANDS.len()));
    assert_eq!(answer("COMMAND GETKEYS mset a b c d", Wire::Resp2), "*2\r\n$1\r\na\r\n$1\r\nc\r\n");
    assert_eq!(answer("COMMAND LIST FILTERBY PATTERN GETR*", Wire::Resp2), "*1\r\n$8\r\ngetrange\r\n");
    assert_eq!(answer("COMMAND LIST FILTERBY ACLCAT foo", Wire::Resp2), "*0\r\n");
    assert_eq!(answer("COMMAND LIST FILTERBY MODULE foo", Wire::Resp2), "*0\r\n");
}

proptest! {
    #[test]
    fn any_arguments_are_understood_or_refused(
        command in prop::sample::select(COMMANDS.iter().flat_map(|command| std::iter::once(command).chain(command.subcommands))
            .map(|command| command.name).collect::<Vec<_>>()),
        args in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..6),
            prop::sample::select(vec!["0", "-1", "10", "EX", "PX", "NX", "GET", "COUNT", "MATCH", "TYPE", "ID", "AUTH"])
                .prop_map(|text| text.as_bytes().to_vec()),
        ], 0..6),
    ) {
        let mut all: Args = command.split('|').map(Bytes::from).collect();
        all.extend(args.into_iter().map(Bytes::from));
        if let Err(error) = parse(&mut all, &CONTEXT) {
            prop_assert!(!error.text.is_empty());
        }
    }
}
