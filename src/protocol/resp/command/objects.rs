//! Commands that tell of a key's value, or carry it away and back: `OBJECT`, `MEMORY`, `DUMP`, `RESTORE`. Parses only; tested below and in
//! `command/tests.rs`.

use super::deadline::{self, Form};
use super::table::Command;
use super::{Context, ErrorText, Parsed, SYNTAX, integer, introspect, is, one, take, wrong_arity};
use crate::base::op::{Act, Aspect, Expiry, Op, SetAnswer, When};
use crate::protocol::dump;
use crate::protocol::request::Request;
use crate::protocol::resp::Args;
use crate::protocol::resp::session::SessionCommand;

const BAD_PAYLOAD: &str = "ERR DUMP payload version or checksum are wrong";
const BAD_TTL: &str = "ERR Invalid TTL value, must be >= 0";
const BAD_IDLE_TIME: &str = "ERR Invalid IDLETIME value, must be >= 0";
const BAD_FREQUENCY: &str = "ERR Invalid FREQ value, must be >= 0 and <= 255";

const fn of_key(name: &'static str, parse: super::table::Parse) -> Command {
    Command::new(name, 3, parse)
        .flags("readonly", "@keyspace @read @slow")
        .keys(2, 2, 1, "RO")
        .tips("nondeterministic_output")
}

pub(super) const COMMANDS: &[Command] =
    &[
        Command::new("dump", 2, dump_key)
            .flags("readonly", "@keyspace @read @slow")
            .keys(1, 1, 1, "RO access")
            .tips("nondeterministic_output")
            .about("generic", "2.6.0", "O(N)", "Return a serialized version of the value stored at the specified key."),
        Command::new("restore", -4, restore)
            .flags("write denyoom", "@keyspace @write @slow @dangerous")
            .keys(1, 1, 1, "OW update")
            .about(
                "generic",
                "2.6.0",
                "O(N)",
                "Create a key using the provided serialized value, previously obtained using DUMP.",
            ),
        Command::new("object", -2, object)
            .flags("", "@slow")
            .about("generic", "2.2.3", "Depends on subcommand.", "A container for object introspection commands")
            .subcommands(&[
                of_key("object|encoding", object_encoding).about(
                    "generic",
                    "2.2.3",
                    "O(1)",
                    "Inspect the internal encoding of a Redis object",
                ),
                of_key("object|freq", object_freq).about(
                    "generic",
                    "4.0.0",
                    "O(1)",
                    "Get the logarithmic access frequency counter of a Redis object",
                ),
                of_key("object|idletime", object_idletime).about(
                    "generic",
                    "2.2.3",
                    "O(1)",
                    "Get the time since a Redis object was last accessed",
                ),
                of_key("object|refcount", object_refcount).about(
                    "generic",
                    "2.2.3",
                    "O(1)",
                    "Get the number of references to the value of the key",
                ),
                Command::new("object|help", 2, object_help).flags("loading stale", "@keyspace @slow").about(
                    "generic",
                    "6.2.0",
                    "O(1)",
                    "Show helpful text about the different subcommands",
                ),
            ]),
        Command::new("memory", -2, memory)
            .flags("", "@slow")
            .about("server", "4.0.0", "Depends on subcommand.", "A container for memory diagnostics commands")
            .subcommands(&[
                Command::new("memory|usage", -3, memory_usage)
                    .flags("readonly", "@read @slow")
                    .keys(2, 2, 1, "RO")
                    .about("server", "4.0.0", "O(1)", "Estimate the memory usage of a key"),
                Command::new("memory|help", 2, memory_help).flags("loading stale", "@slow").about(
                    "server",
                    "4.0.0",
                    "O(1)",
                    "Show helpful text about the different subcommands",
                ),
                Command::new("memory|doctor", 2, memory_of_node).flags("", "@slow").about(
                    "server",
                    "4.0.0",
                    "O(1)",
                    "Refused: see INFO memory",
                ),
                Command::new("memory|malloc-stats", 2, memory_of_node).flags("", "@slow").about(
                    "server",
                    "4.0.0",
                    "O(1)",
                    "Refused: see INFO memory",
                ),
                Command::new("memory|purge", 2, memory_of_node).flags("", "@slow").about(
                    "server",
                    "4.0.0",
                    "O(1)",
                    "Refused: see INFO memory",
                ),
                Command::new("memory|stats", 2, memory_of_node).flags("", "@slow").about(
                    "server",
                    "4.0.0",
                    "O(1)",
                    "Refused: see INFO memory",
                ),
            ]),
    ];

fn aspect(args: &mut Args, key: usize, aspect: Aspect) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, key), Act::Describe { aspect }))
}

fn dump_key(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    aspect(args, 1, Aspect::Dump)
}

/// Redis looks for the key before it reads deadline and payload; here these are refused whether or not there is a key. Nothing is done with
/// `IDLETIME` and `FREQ`: the value was used now.
fn restore(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let (mut replaces, mut form, mut idle, mut frequency) = (false, Form::PX, false, false);
    let mut at = 4;
    while let Some(option) = args.get(at) {
        let more = at + 1 < args.len();
        if is(option, "replace") {
            replaces = true;
        } else if is(option, "absttl") {
            form = Form::PXAT;
        } else if is(option, "idletime") && more && !frequency {
            at += 1;
            idle = integer(&args[at]).and_then(|idle| if idle < 0 { Err(BAD_IDLE_TIME.into()) } else { Ok(true) })?;
        } else if is(option, "freq") && more && !idle {
            at += 1;
            let known = integer(&args[at])?;
            frequency = (0..=255).contains(&known).then_some(true).ok_or(BAD_FREQUENCY)?;
        } else {
            return Err(SYNTAX.into());
        }
        at += 1;
    }
    let expiry = match integer(&args[2])? {
        ..0 => return Err(BAD_TTL.into()),
        0 => Expiry::Clear,
        _ => Expiry::Until(deadline::any(&args[2], form, "restore", context)?),
    };
    let (value, flags) = dump::unpack(&args[3]).ok_or(BAD_PAYLOAD)?;
    let (when, answer) = if replaces { (When::Always, SetAnswer::Done) } else { (When::Absent, SetAnswer::Restored) };
    let act = Act::Set { expiry, when, answer, flags };
    Ok(Parsed::Request(Request::One(Op { key: take(args, 1), act, value })))
}

/// Unreachable by a client: a container without a subcommand has the wrong arity.
fn object(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(wrong_arity("object"))
}

fn object_encoding(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    aspect(args, 2, Aspect::Encoding)
}

fn object_freq(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    aspect(args, 2, Aspect::Frequency)
}

fn object_idletime(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    aspect(args, 2, Aspect::IdleSeconds)
}

fn object_refcount(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    aspect(args, 2, Aspect::References)
}

fn object_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Session(SessionCommand::Answer(introspect::help(
        "OBJECT",
        &[
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
        ],
    ))))
}

/// Unreachable by a client: a container without a subcommand has the wrong arity.
fn memory(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(wrong_arity("memory"))
}

/// There is nothing to sample in a string.
fn memory_usage(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    for option in args[3..].chunks(2) {
        match option {
            [name, count] if is(name, "samples") => {
                if integer(count)? < 0 {
                    return Err(SYNTAX.into());
                }
            }
            _ => return Err(SYNTAX.into()),
        }
    }
    aspect(args, 2, Aspect::MemoryBytes)
}

fn memory_of_node(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let name = String::from_utf8_lossy(&args[1]).to_uppercase();
    Err(format!("ERR MEMORY {name} is not supported, see INFO memory").into())
}

fn memory_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Session(SessionCommand::Answer(introspect::help(
        "MEMORY",
        &[
            "USAGE <key> [SAMPLES <count>]",
            "    Return memory in bytes used by <key> and its value. Nested values are",
            "    sampled up to <count> times (default: 5, 0 means sample all).",
        ],
    ))))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::op::Deadline;
    use crate::protocol::resp::command::parse;

    fn parsed(args: &[&[u8]]) -> Result<Parsed, Bytes> {
        let context = Context { now: 1_700_000_000_000, value_bytes_max: 1 << 20 };
        let mut args: Args = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        parse(&mut args, &context).map(|(_, parsed)| parsed).map_err(|error| error.text)
    }

    fn words(line: &str) -> Result<Parsed, Bytes> {
        parsed(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn errors_are_those_of_redis() {
        const INTEGER: &str = "ERR value is not an integer or out of range";
        for (line, text) in [
            ("OBJECT", "ERR wrong number of arguments for 'object' command"),
            ("OBJECT FOO k", "ERR unknown subcommand 'FOO'. Try OBJECT HELP."),
            ("OBJECT FREQ", "ERR wrong number of arguments for 'object|freq' command"),
            ("MEMORY USAGE", "ERR wrong number of arguments for 'memory|usage' command"),
            ("MEMORY USAGE k SAMPLES", SYNTAX),
            ("MEMORY USAGE k FOO 1", SYNTAX),
            ("MEMORY USAGE k SAMPLES x", INTEGER),
            ("MEMORY USAGE k SAMPLES 1 SAMPLES -1", SYNTAX),
            ("MEMORY doctor", "ERR MEMORY DOCTOR is not supported, see INFO memory"),
            ("RESTORE k 0", "ERR wrong number of arguments for 'restore' command"),
            ("RESTORE k x p", INTEGER),
            ("RESTORE k -1 p", BAD_TTL),
            ("RESTORE k 0 p", BAD_PAYLOAD),
            ("RESTORE k -1 p FOO", SYNTAX),
            ("RESTORE k 0 p IDLETIME", SYNTAX),
            ("RESTORE k 0 p IDLETIME x", INTEGER),
            ("RESTORE k 0 p IDLETIME -1", BAD_IDLE_TIME),
            ("RESTORE k 0 p FREQ 256", BAD_FREQUENCY),
            ("RESTORE k 0 p FREQ 1 IDLETIME 1", SYNTAX),
            ("RESTORE k 0 p IDLETIME 1 FREQ 1", SYNTAX),
        ] {
            assert_eq!(words(line), Err(Bytes::from(text)), "{line}");
        }
    }

    #[test]
    fn what_is_asked_of_a_key_becomes_one_operation() {
        for (line, aspect) in [
            ("DUMP k", Aspect::Dump),
            ("OBJECT ENCODING k", Aspect::Encoding),
            ("object freq k", Aspect::Frequency),
            ("OBJECT IDLETIME k", Aspect::IdleSeconds),
            ("OBJECT REFCOUNT k", Aspect::References),
            ("MEMORY USAGE k", Aspect::MemoryBytes),
            ("MEMORY USAGE k SAMPLES 0 samples 5", Aspect::MemoryBytes),
        ] {
            let op = Op::new(Bytes::from_static(b"k"), Act::Describe { aspect });
            assert_eq!(words(line), Ok(Parsed::Request(Request::One(op))), "{line}");
        }
    }

    #[test]
    fn a_dump_is_restored_as_a_set() {
        let payload = dump::pack(b"value", 9);
        let restored = |ttl: &str, options: &str| {
            let mut args: Vec<&[u8]> = vec![b"RESTORE", b"k", ttl.as_bytes(), &payload];
            args.extend(options.split(' ').filter(|option| !option.is_empty()).map(str::as_bytes));
            parsed(&args)
        };
        let (absent, always) = ((When::Absent, SetAnswer::Restored), (When::Always, SetAnswer::Done));
        for (ttl, options, expiry, (when, answer)) in [
            ("0", "", Expiry::Clear, absent),
            ("0", "ABSTTL REPLACE IDLETIME 5", Expiry::Clear, always),
            ("500", "", Expiry::Until(Deadline::In(500)), absent),
            ("500", "absttl freq 255", Expiry::Until(Deadline::At(500)), absent),
        ] {
            let act = Act::Set { expiry, when, answer, flags: 9 };
            let op = Op { key: Bytes::from_static(b"k"), act, value: Bytes::from_static(b"value") };
            assert_eq!(restored(ttl, options), Ok(Parsed::Request(Request::One(op))), "{ttl} {options}");
        }
        assert!(restored("9223372036854775807", "").unwrap_err().starts_with(b"ERR invalid expire time in 'restore'"));
    }
}
