//! Commands about the server and all its data. Parses only; the router or `session` executes. Tested in `command/tests.rs`.

use super::table::Command;
use super::{Context, ErrorText, Parsed, SYNTAX, answer, integer, introspect, is, session, wrong_arity};
use crate::protocol::request::{ClusterOp, Request};
use crate::protocol::resp::session::SessionCommand;
use crate::protocol::resp::{Args, number};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("command", -1, command)
        .flags("loading stale", "@slow @connection")
        .tips("nondeterministic_output_order")
        .about("server", "2.8.13", "O(N)", "Get array of Redis command details")
        .subcommands(&[
            Command::new("command|count", 2, command_count).flags("loading stale", "@slow @connection").about(
                "server",
                "2.8.13",
                "O(1)",
                "Get total number of Redis commands",
            ),
            Command::new("command|docs", -2, command_docs)
                .flags("loading stale", "@slow @connection")
                .tips("nondeterministic_output_order")
                .about("server", "7.0.0", "O(N)", "Get array of specific Redis command documentation"),
            Command::new("command|info", -2, command_info)
                .flags("loading stale", "@slow @connection")
                .tips("nondeterministic_output_order")
                .about("server", "2.8.13", "O(N)", "Get array of specific Redis command details"),
            Command::new("command|list", -2, command_list)
                .flags("loading stale", "@slow @connection")
                .tips("nondeterministic_output_order")
                .about("server", "7.0.0", "O(N)", "Get an array of Redis command names"),
            Command::new("command|getkeys", -4, command_getkeys).flags("loading stale", "@slow @connection").about(
                "server",
                "2.8.13",
                "O(N)",
                "Extract keys given a full Redis command",
            ),
            Command::new("command|getkeysandflags", -4, command_getkeysandflags)
                .flags("loading stale", "@slow @connection")
                .about("server", "7.0.0", "O(N)", "Extract keys and access flags given a full Redis command"),
            Command::new("command|help", 2, command_help).flags("loading stale", "@slow @connection").about(
                "server",
                "5.0.0",
                "O(1)",
                "Show helpful text about the different subcommands",
            ),
        ]),
    Command::new("info", -1, info)
        .flags("loading stale", "@slow @dangerous")
        .tips("nondeterministic_output request_policy:all_shards response_policy:special")
        .about("server", "1.0.0", "O(1)", "Get information and statistics about the server"),
    Command::new("config", -2, config)
        .flags("", "@slow")
        .about("server", "2.0.0", "Depends on subcommand.", "A container for server configuration commands")
        .subcommands(&[
            Command::new("config|get", -3, config_get)
                .flags("admin noscript loading stale", "@admin @slow @dangerous")
                .about("server", "2.0.0", "O(N)", "Get the values of configuration parameters"),
            Command::new("config|set", -4, config_set)
                .flags("admin noscript loading stale", "@admin @slow @dangerous")
                .tips("request_policy:all_nodes response_policy:all_succeeded")
                .about("server", "2.0.0", "O(N)", "Set configuration parameters to the given values"),
            Command::new("config|resetstat", 2, config_resetstat)
                .flags("admin noscript loading stale", "@admin @slow @dangerous")
                .about("server", "2.0.0", "O(1)", "Reset the stats returned by INFO"),
            Command::new("config|rewrite", 2, config_rewrite)
                .flags("admin noscript loading stale", "@admin @slow @dangerous")
                .about("server", "2.8.0", "O(N)", "Refused: settings are not written to a file"),
            Command::new("config|help", 2, config_help).flags("loading stale", "@slow").about(
                "server",
                "5.0.0",
                "O(1)",
                "Show helpful text about the different subcommands",
            ),
        ]),
    Command::new("dbsize", 1, dbsize)
        .flags("readonly fast", "@keyspace @read @fast")
        .tips("request_policy:all_shards response_policy:agg_sum")
        .about("server", "1.0.0", "O(1)", "Return the number of keys in the selected database"),
    Command::new("flushall", -1, flushall)
        .flags("write", "@keyspace @write @slow @dangerous")
        .tips("request_policy:all_shards response_policy:all_succeeded")
        .about("server", "1.0.0", "O(N)", "Remove all keys from all databases"),
    Command::new("flushdb", -1, flushdb)
        .flags("write", "@keyspace @write @slow @dangerous")
        .tips("request_policy:all_shards response_policy:all_succeeded")
        .about("server", "1.0.0", "O(N)", "Remove all keys from the current database"),
    Command::new("time", 1, time).flags("loading stale fast", "@fast").tips("nondeterministic_output").about(
        "server",
        "2.6.0",
        "O(1)",
        "Return the current server time",
    ),
    Command::new("wait", 3, wait)
        .flags("noscript", "@slow @connection")
        .tips("request_policy:all_shards response_policy:agg_min")
        .about("generic", "3.0.0", "O(1)", "Wait for replicas to hold all writes so far"),
    Command::new("trellis", -2, trellis)
        .flags("loading stale", "@slow @connection")
        .about("server", "7.0.0", "Depends on subcommand.", "A container for commands of Trellis's own")
        .subcommands(&[
            Command::new("trellis|consistency", -2, trellis_consistency)
                .flags("noscript loading stale fast", "@fast @connection")
                .about("server", "7.0.0", "O(1)", "Show or set the acknowledgement level of the connection"),
            Command::new("trellis|help", 2, trellis_help).flags("loading stale", "@slow @connection").about(
                "server",
                "7.0.0",
                "O(1)",
                "Show helpful text about the different subcommands",
            ),
        ]),
];

fn cluster(op: ClusterOp) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Request(Request::Cluster(op)))
}

fn command(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::info(&[]))
}

fn command_count(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::count())
}

fn command_docs(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::docs(&args[2..]))
}

fn command_info(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::info(&args[2..]))
}

fn command_list(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    use introspect::Filter;
    let filter = match &args[2..] {
        [] => Filter::None,
        [by, kind, _] if is(by, "filterby") && is(kind, "module") => Filter::Module,
        [by, kind, category] if is(by, "filterby") && is(kind, "aclcat") => Filter::Category(category),
        [by, kind, pattern] if is(by, "filterby") && is(kind, "pattern") => Filter::Pattern(pattern),
        _ => return Err(SYNTAX.into()),
    };
    answer(introspect::list(&filter))
}

fn command_getkeys(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::keys_of(&args[2..])?)
}

fn command_getkeysandflags(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::keys_and_flags_of(&args[2..])?)
}

fn command_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::help(
        "COMMAND",
        &[
            "(no subcommand)",
            "    Return details about all Redis commands.",
            "COUNT",
            "    Return the total number of commands in this Redis server.",
            "LIST",
            "    Return a list of all commands in this Redis server.",
            "INFO [<command-name> ...]",
            "    Return details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "GETKEYS <full-command>",
            "    Return the keys from a full Redis command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys and the access flags from a full Redis command.",
        ],
    ))
}

fn info(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Info(args.drain(1..).collect()))
}

/// Unreachable by a client: a container without a subcommand has the wrong arity.
fn config(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(wrong_arity("config"))
}

fn config_get(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::ConfigGet(args.drain(2..).collect()))
}

fn config_set(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    if !args.len().is_multiple_of(2) {
        return Err(SYNTAX.into());
    }
    let pairs = args[2..].chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    session(SessionCommand::ConfigSet(pairs.collect()))
}

fn config_resetstat(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::ResetStatistics)
}

/// What `CONFIG SET` changed lasts until the node stops.
fn config_rewrite(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err("ERR The server is running without a config file".into())
}

fn config_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::help(
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
            "REWRITE",
            "    Rewrite the configuration file.",
        ],
    ))
}

fn dbsize(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    cluster(ClusterOp::DbSize)
}

fn flushall(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    match &args[1..] {
        [] => cluster(ClusterOp::Flush),
        [how] if is(how, "sync") || is(how, "async") => cluster(ClusterOp::Flush),
        _ => Err(SYNTAX.into()),
    }
}

/// There is one database.
fn flushdb(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    flushall(args, context)
}

fn time(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Time)
}

fn wait(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let replicas = integer(&args[1])?;
    let timeout = number::integer(&args[2]).ok_or("ERR timeout is not an integer or out of range")?;
    let timeout_ms = u64::try_from(timeout).map_err(|_| "ERR timeout is negative")?;
    cluster(ClusterOp::Wait { replicas, timeout_ms })
}

/// Unreachable by a client: a container without a subcommand has the wrong arity.
fn trellis(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(wrong_arity("trellis"))
}

fn trellis_consistency(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let level = match &args[2..] {
        [] => None,
        [name] => Some(std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(BAD_LEVEL)?),
        _ => return Err(wrong_arity("trellis|consistency")),
    };
    session(SessionCommand::Consistency(level))
}

const BAD_LEVEL: &str = "ERR a consistency level is one, quorum or all";

fn trellis_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::help(
        "TRELLIS",
        &[
            "CONSISTENCY [ONE|QUORUM|ALL]",
            "    Show or set how many replicas take part before this connection is answered.",
        ],
    ))
}
