//! Commands whose result depends on several keys. Parses only; tested in `command/tests.rs`.

use super::connection::database;
use super::table::Command;
use super::{Context, ErrorText, Parsed, SYNTAX, integer, is, take};
use crate::base::op::BitOp;
use crate::protocol::request::{LcsAsk, LcsWant, Request, Several};
use crate::protocol::resp::Args;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("copy", -3, copy)
        .flags("write denyoom", "@keyspace @write @slow")
        .keys(1, 2, 1, "RW access update")
        .key_notes("the first is read, the second is written")
        .about(
            "generic",
            "6.2.0",
            "O(N) worst case for collections, where N is the number of nested items. O(1) for string values.",
            "Copy a key",
        ),
    Command::new("rename", 3, rename)
        .flags("write", "@keyspace @write @slow")
        .keys(1, 2, 1, "RW access delete update")
        .about("generic", "1.0.0", "O(1)", "Rename a key"),
    Command::new("renamenx", 3, renamenx)
        .flags("write fast", "@keyspace @write @fast")
        .keys(1, 2, 1, "RW access delete insert")
        .about("generic", "1.0.0", "O(1)", "Rename a key, only if the new key does not exist"),
    Command::new("lcs", -3, lcs).flags("readonly", "@read @string @slow").keys(1, 2, 1, "RO access").about(
        "string",
        "7.0.0",
        "O(N*M) where N and M are the lengths of s1 and s2, respectively",
        "Find longest common substring",
    ),
    Command::new("bitop", -4, bitop)
        .flags("write denyoom", "@write @bitmap @slow")
        .keys(2, -1, 1, "RW access update")
        .key_notes("the first is written, the others are read")
        .about("bitmap", "2.6.0", "O(N)", "Perform bitwise operations between strings"),
];

fn several(several: Several) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Request(Request::Several(Box::new(several))))
}

fn copy(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let (mut replace, mut at) = (false, 3);
    while let Some(option) = args.get(at) {
        if is(option, "replace") {
            replace = true;
        } else if is(option, "db") && at + 1 < args.len() {
            at += 1;
            database(&args[at])?;
        } else {
            return Err(SYNTAX.into());
        }
        at += 1;
    }
    if args[1] == args[2] {
        return Err("ERR source and destination objects are the same".into());
    }
    several(Several::Copy { from: take(args, 1), to: take(args, 2), replace })
}

fn rename(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    several(Several::Rename { from: take(args, 1), to: take(args, 2), if_absent: false })
}

fn renamenx(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    several(Several::Rename { from: take(args, 1), to: take(args, 2), if_absent: true })
}

fn bitop(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let named = [("and", BitOp::And), ("or", BitOp::Or), ("xor", BitOp::Xor), ("not", BitOp::Not)];
    let (_, how) = named.into_iter().find(|(name, _)| is(&args[1], name)).ok_or(SYNTAX)?;
    if how == BitOp::Not && args.len() != 4 {
        return Err("ERR BITOP NOT must be called with a single source key.".into());
    }
    let to = take(args, 2);
    several(Several::BitOp { how, to, from: args.drain(3..).collect() })
}

fn lcs(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let (mut idx, mut len, mut with_length, mut shortest) = (false, false, false, 0);
    let mut at = 3;
    while let Some(option) = args.get(at) {
        if is(option, "idx") {
            idx = true;
        } else if is(option, "len") {
            len = true;
        } else if is(option, "withmatchlen") {
            with_length = true;
        } else if is(option, "minmatchlen") && at + 1 < args.len() {
            at += 1;
            shortest = usize::try_from(integer(&args[at])?).unwrap_or(0);
        } else {
            return Err(SYNTAX.into());
        }
        at += 1;
    }
    let want = match (idx, len) {
        (true, true) => return Err("ERR If you want both the length and indexes, please just use IDX.".into()),
        (true, false) => LcsWant::Matches { shortest, with_length },
        (false, true) => LcsWant::Length,
        (false, false) => LcsWant::Text,
    };
    let ask = LcsAsk { want, table_bytes_max: context.value_bytes_max };
    several(Several::Lcs { keys: [take(args, 1), take(args, 2)], ask })
}
