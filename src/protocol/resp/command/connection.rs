//! Commands about the connection. Parses only; `session` executes. Tested in `command/tests.rs`.

use super::client::client_name;
use super::table::{Command, c_text};
use super::{Context, ErrorText, Parsed, SYNTAX, is, session, take, wrong_arity};
use crate::base::reply::Wire;
use crate::protocol::resp::session::{Hello, SessionCommand};
use crate::protocol::resp::value::Value;
use crate::protocol::resp::{Args, number};

pub(super) const COMMANDS: &[Command] =
    &[
        Command::new("ping", -1, ping)
            .flags("fast", "@fast @connection")
            .tips("request_policy:all_shards response_policy:all_succeeded")
            .about("connection", "1.0.0", "O(1)", "Ping the server"),
        Command::new("echo", 2, echo).flags("loading stale fast", "@fast @connection").about(
            "connection",
            "1.0.0",
            "O(1)",
            "Echo the given string",
        ),
        Command::new("hello", -1, hello)
            .flags("noscript loading stale fast no_auth allow_busy", "@fast @connection")
            .about("connection", "6.0.0", "O(1)", "Handshake with Redis"),
        Command::new("select", 2, select).flags("loading stale fast", "@fast @connection").about(
            "connection",
            "1.0.0",
            "O(1)",
            "Change the selected database for the current connection",
        ),
        Command::new("quit", -1, quit)
            .flags("noscript loading stale fast no_auth allow_busy", "@fast @connection")
            .about("connection", "1.0.0", "O(1)", "Close the connection"),
        Command::new("reset", 1, reset)
            .flags("noscript loading stale fast no_auth allow_busy", "@fast @connection")
            .about("connection", "6.2.0", "O(1)", "Reset the connection"),
        Command::new("auth", -2, auth)
            .flags("noscript loading stale fast no_auth allow_busy", "@fast @connection")
            .about("connection", "1.0.0", "O(N)", "Authenticate to the server"),
    ];

fn ping(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    match args.len() {
        1 => session(SessionCommand::Ping(None)),
        2 => session(SessionCommand::Ping(Some(take(args, 1)))),
        _ => Err(wrong_arity("ping")),
    }
}

fn echo(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Answer(Value::Bulk(take(args, 1))))
}

fn hello(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let mut hello = Hello::default();
    if let Some(version) = args.get(1) {
        let version = number::integer(version).ok_or("ERR Protocol version is not an integer or out of range")?;
        hello.wire = Some(match version {
            2 => Wire::Resp2,
            3 => Wire::Resp3,
            _ => return Err("NOPROTO unsupported protocol version".into()),
        });
    }
    let mut at = 2;
    while at < args.len() {
        let more = args.len() - at - 1;
        if more >= 2 && is(&args[at], "auth") {
            hello.auth = Some((take(args, at + 1), take(args, at + 2)));
            at += 3;
        } else if more >= 1 && is(&args[at], "setname") {
            hello.name = Some(client_name(take(args, at + 1))?);
            at += 2;
        } else {
            let option = c_text(&args[at], usize::MAX);
            return Err(ErrorText([b"ERR Syntax error in HELLO option '", option, b"'"].concat().into()));
        }
    }
    session(SessionCommand::Hello(hello))
}

fn select(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    database(&args[1])?;
    session(SessionCommand::Answer(Value::OK))
}

/// Reads the number of the only database there is.
pub(super) fn database(number: &[u8]) -> Result<(), ErrorText> {
    match i32::try_from(super::integer(number)?) {
        Ok(0) => Ok(()),
        Ok(_) => Err("ERR DB index is out of range".into()),
        Err(_) => Err("ERR value is out of range, value must between -2147483648 and 2147483647".into()),
    }
}

fn quit(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Quit)
}

fn reset(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Reset)
}

fn auth(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    match args.len() {
        2 => session(SessionCommand::Auth { user: None, password: take(args, 1) }),
        3 => session(SessionCommand::Auth { user: Some(take(args, 1)), password: take(args, 2) }),
        _ => Err(SYNTAX.into()),
    }
}
