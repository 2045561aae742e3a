//! Commands on keys whatever they hold, and on all keys. Parses only; tested in `command/tests.rs`.

use super::table::Command;
use super::{Context, ErrorText, Parsed, SYNTAX, integer, is, one, take};
use crate::base::op::{Act, Op};
use crate::protocol::request::{ClusterOp, Gather, Request};
use crate::protocol::resp::{Args, number};

/// Keys a `SCAN` page holds unless it says otherwise.
const SCAN_COUNT_DEFAULT: u64 = 10;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("del", -2, del)
        .flags("write", "@keyspace @write @slow")
        .keys(1, -1, 1, "RM delete")
        .tips("request_policy:multi_shard response_policy:agg_sum")
        .about("generic", "1.0.0", "O(N)", "Delete a key"),
    Command::new("unlink", -2, unlink)
        .flags("write fast", "@keyspace @write @fast")
        .keys(1, -1, 1, "RM delete")
        .tips("request_policy:multi_shard response_policy:agg_sum")
        .about("generic", "4.0.0", "O(1)", "Delete a key asynchronously in another thread"),
    Command::new("exists", -2, exists)
        .flags("readonly fast", "@keyspace @read @fast")
        .keys(1, -1, 1, "RO")
        .tips("request_policy:multi_shard response_policy:agg_sum")
        .about("generic", "1.0.0", "O(N)", "Determine if a key exists"),
    Command::new("type", 2, key_type).flags("readonly fast", "@keyspace @read @fast").keys(1, 1, 1, "RO").about(
        "generic",
        "1.0.0",
        "O(1)",
        "Determine the type stored at key",
    ),
    Command::new("touch", -2, touch)
        .flags("readonly fast", "@keyspace @read @fast")
        .keys(1, -1, 1, "RO")
        .tips("request_policy:multi_shard response_policy:agg_sum")
        .about("generic", "3.2.1", "O(N)", "Alters the last access time of a key(s)"),
    Command::new("keys", 2, keys_matching)
        .flags("readonly", "@keyspace @read @slow @dangerous")
        .tips("request_policy:all_shards nondeterministic_output_order")
        .about("generic", "1.0.0", "O(N)", "Find all keys matching the given pattern"),
    Command::new("scan", -2, scan)
        .flags("readonly", "@keyspace @read @slow")
        .tips("nondeterministic_output request_policy:special")
        .about("generic", "2.8.0", "O(1)", "Incrementally iterate the keys space"),
    Command::new("randomkey", 1, randomkey)
        .flags("readonly", "@keyspace @read @slow")
        .tips("request_policy:all_shards nondeterministic_output")
        .about("generic", "1.0.0", "O(1)", "Return a random key from the keyspace"),
];

/// One key is one operation; several are counted together.
fn counted(args: &mut Args, act: Act) -> Parsed {
    if args.len() == 2 {
        return one(take(args, 1), act);
    }
    let ops = args.drain(1..).map(|key| Op::new(key, act)).collect();
    Parsed::Request(Request::Many(Gather::Sum, ops))
}

fn del(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(counted(args, Act::Delete))
}

fn unlink(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(counted(args, Act::Delete))
}

fn exists(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(counted(args, Act::Exists))
}

fn touch(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(counted(args, Act::Touch))
}

fn key_type(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Type))
}

fn keys_matching(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Request(Request::Cluster(ClusterOp::Keys { pattern: take(args, 1) })))
}

fn scan(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let cursor = number::cursor(&args[1]).ok_or("ERR invalid cursor")?;
    let (mut pattern, mut count, mut nothing) = (None, SCAN_COUNT_DEFAULT, false);
    let mut at = 2;
    while at < args.len() {
        if at + 1 == args.len() {
            return Err(SYNTAX.into());
        }
        if is(&args[at], "count") {
            let asked = integer(&args[at + 1])?;
            count = u64::try_from(asked).ok().filter(|count| *count > 0).ok_or(SYNTAX)?;
        } else if is(&args[at], "match") {
            let asked = take(args, at + 1);
            pattern = (asked != "*").then_some(asked);
        } else if is(&args[at], "type") {
            nothing = !is(&args[at + 1], "string");
        } else {
            return Err(SYNTAX.into());
        }
        at += 2;
    }
    Ok(Parsed::Request(Request::Cluster(ClusterOp::Scan { cursor, pattern, count, nothing })))
}

fn randomkey(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Request(Request::Cluster(ClusterOp::RandomKey)))
}
