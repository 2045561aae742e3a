//! `SLOWLOG`, `LATENCY` and `DEBUG`, and the commands about a second database. Parses only; the connections execute. Tested in
//! `command/tests.rs`.

use super::table::{Command, Parse};
use super::{Context, ErrorText, Parsed, answer, integer, introspect, session, wrong_arity};
use crate::protocol::resp::session::SessionCommand;
use crate::protocol::resp::slowlog::{SLOWLOG_SHOWN_DEFAULT, SlowAsk};
use crate::protocol::resp::value::Value;
use crate::protocol::resp::{Args, number};

const NO_DEBUG: &str = "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from \
                        a local connection, otherwise you need to set this option in the configuration file, and then restart the \
                        server.";
const NO_DATABASE: &str = "ERR DB index is out of range";
/// Redis's analyst has no events to look at here.
const DOCTOR: &str = "I'm sorry, Dave, I can't do that. Trellis does not sample latency events. LATENCY HISTOGRAM, SLOWLOG GET and \
                      the metrics page of the admin endpoint say how long commands take.\n";

pub(super) const COMMANDS: &[Command] = &[
    Command::new("slowlog", -2, container)
        .flags("", "@slow")
        .about("server", "2.2.12", "Depends on subcommand.", "A container for slow log commands")
        .subcommands(&[
            Command::new("slowlog|get", -2, slowlog_get)
                .flags("admin loading stale", "@admin @slow @dangerous")
                .tips("request_policy:all_nodes nondeterministic_output")
                .about("server", "2.2.12", "O(N)", "Get the slow log's entries"),
            Command::new("slowlog|len", 2, slowlog_len)
                .flags("admin loading stale", "@admin @slow @dangerous")
                .tips("request_policy:all_nodes response_policy:agg_sum nondeterministic_output")
                .about("server", "2.2.12", "O(1)", "Get the slow log's length"),
            Command::new("slowlog|reset", 2, slowlog_reset)
                .flags("admin loading stale", "@admin @slow @dangerous")
                .tips("request_policy:all_nodes response_policy:all_succeeded")
                .about("server", "2.2.12", "O(N)", "Clear all entries from the slow log"),
            help("slowlog|help", slowlog_help),
        ]),
    Command::new("latency", -2, container)
        .flags("", "@slow")
        .about("server", "2.8.13", "Depends on subcommand.", "A container for latency diagnostics commands")
        .subcommands(&[
            latency("latency|latest", 2, none, "Return the latest latency samples for all events."),
            latency("latency|history", 3, none, "Return timestamp-latency samples for the event."),
            latency("latency|reset", -2, latency_reset, "Reset latency data for one or more events.")
                .tips("request_policy:all_nodes response_policy:all_succeeded"),
            latency("latency|doctor", 2, doctor, "Return a human readable latency analysis report."),
            latency("latency|graph", 3, graph, "Return a latency graph for the event."),
            latency("latency|histogram", -2, histogram, "Return the cumulative distribution of latencies of commands."),
            help("latency|help", latency_help),
        ]),
    Command::new("debug", -2, debug).flags("admin noscript loading stale", "@admin @slow @dangerous").about(
        "server",
        "1.0.0",
        "Depends on subcommand.",
        "Refused: a command for Redis's own developers",
    ),
    Command::new("swapdb", 3, swapdb).flags("write fast", "@keyspace @write @fast @dangerous").about(
        "server",
        "4.0.0",
        "O(1)",
        "Swaps two databases, of which there is one",
    ),
    Command::new("move", 3, move_key)
        .flags("write fast", "@keyspace @write @fast")
        .keys(1, 1, 1, "RW access update")
        .about("generic", "1.0.0", "O(1)", "Moves a key to another database, of which there is none"),
];

const fn latency(name: &'static str, arity: i32, parse: Parse, summary: &'static str) -> Command {
    Command::new(name, arity, parse)
        .flags("admin noscript loading stale", "@admin @slow @dangerous")
        .tips("nondeterministic_output request_policy:all_nodes response_policy:special")
        .about("server", "2.8.13", "O(N)", summary)
}

const fn help(name: &'static str, parse: Parse) -> Command {
    Command::new(name, 2, parse).flags("loading stale", "@slow").about(
        "server",
        "6.2.0",
        "O(1)",
        "Show helpful text about the different subcommands",
    )
}

/// Unreachable by a client: a container without a subcommand has the wrong arity.
fn container(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(wrong_arity(&String::from_utf8_lossy(&args[0]).to_lowercase()))
}

fn slowlog_get(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let count = match &args[2..] {
        [] => SLOWLOG_SHOWN_DEFAULT,
        [count] => match number::integer(count) {
            Some(-1) => usize::MAX,
            Some(count @ 0..) => usize::try_from(count).unwrap_or(usize::MAX),
            _ => return Err("ERR count should be greater than or equal to -1".into()),
        },
        _ => {
            let text = "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.";
            return Err(text.into());
        }
    };
    session(SessionCommand::SlowLog(SlowAsk::Entries(count)))
}

fn slowlog_len(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::SlowLog(SlowAsk::Len))
}

fn slowlog_reset(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::SlowLog(SlowAsk::Reset))
}

/// No event is ever sampled.
fn none(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(Value::Array(Vec::new()))
}

fn latency_reset(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(Value::Int(0))
}

fn doctor(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(Value::Verbatim(DOCTOR.into()))
}

fn graph(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let event = args[2].split(|byte| *byte == 0).next().unwrap_or_default();
    Err(ErrorText([b"ERR No samples available for event '", event, b"'"].concat().into()))
}

fn histogram(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Histograms(args.drain(2..).collect()))
}

fn debug(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(NO_DEBUG.into())
}

/// What a Redis of one database says.
fn swapdb(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let database = |arg: &[u8], error: &'static str| -> Result<i32, ErrorText> {
        number::integer(arg).and_then(|number| i32::try_from(number).ok()).ok_or_else(|| error.into())
    };
    let first = database(&args[1], "ERR invalid first DB index")?;
    let second = database(&args[2], "ERR invalid second DB index")?;
    if (first, second) == (0, 0) { answer(Value::OK) } else { Err(NO_DATABASE.into()) }
}

fn move_key(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    match i32::try_from(integer(&args[2])?) {
        Ok(0) => Err("ERR source and destination objects are the same".into()),
        Ok(_) => Err(NO_DATABASE.into()),
        Err(_) => Err("ERR value is out of range, value must between -2147483648 and 2147483647".into()),
    }
}

fn slowlog_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::help(
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
            "    Entries are made of:",
            "    id, timestamp, time in microseconds, arguments array, client IP and port,",
            "    client name",
            "LEN",
            "    Return the length of the slowlog.",
            "RESET",
            "    Reset the slowlog.",
        ],
    ))
}

fn latency_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::help(
        "LATENCY",
        &[
            "DOCTOR",
            "    Return a human readable latency analysis report.",
            "GRAPH <event>",
            "    Return an ASCII latency graph for the <event> class.",
            "HISTORY <event>",
            "    Return time-latency samples for the <event> class.",
            "LATEST",
            "    Return the latest latency samples for all events.",
            "RESET [<event> ...]",
            "    Reset latency data of one or more <event> classes.",
            "    (default: reset all data for all event classes)",
            "HISTOGRAM [COMMAND ...]",
            "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
            "    If no commands are specified then all histograms are replied.",
        ],
    ))
}
