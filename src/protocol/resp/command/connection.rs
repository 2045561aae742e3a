//! Commands about the connection. Parses only; `session` executes. Tested in `command/tests.rs`.

use bytes::Bytes;

use super::table::{Command, c_text};
use super::{Context, ErrorText, Parsed, SYNTAX, introspect, is, take, wrong_arity};
use crate::base::reply::Wire;
use crate::protocol::resp::session::{ClientFilter, Hello, SessionCommand};
use crate::protocol::resp::value::Value;
use crate::protocol::resp::{Args, number};

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

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
        Command::new("client", -2, client)
            .flags("", "@slow")
            .about("connection", "2.4.0", "Depends on subcommand.", "A container for client connection commands")
            .subcommands(&[
                Command::new("client|id", 2, client_id).flags("noscript loading stale", "@slow @connection").about(
                    "connection",
                    "5.0.0",
                    "O(1)",
                    "Returns the client ID for the current connection",
                ),
                Command::new("client|setname", 3, client_setname)
                    .flags("noscript loading stale", "@slow @connection")
                    .about("connection", "2.6.9", "O(1)", "Set the current connection name"),
                Command::new("client|getname", 2, client_getname)
                    .flags("noscript loading stale", "@slow @connection")
                    .about("connection", "2.6.9", "O(1)", "Get the current connection name"),
                Command::new("client|setinfo", 4, client_setinfo)
                    .flags("noscript loading stale", "@slow @connection")
                    .about("connection", "7.2.0", "O(1)", "Sets information specific to the client or connection"),
                Command::new("client|info", 2, client_info)
                    .flags("noscript loading stale", "@slow @connection")
                    .tips("nondeterministic_output")
                    .about("connection", "6.2.0", "O(1)", "Returns information about the current client connection."),
                Command::new("client|list", -2, client_list)
                    .flags("admin noscript loading stale", "@admin @slow @dangerous @connection")
                    .tips("nondeterministic_output")
                    .about("connection", "2.4.0", "O(N)", "Get the list of client connections"),
                Command::new("client|help", 2, client_help).flags("loading stale", "@slow @connection").about(
                    "connection",
                    "5.0.0",
                    "O(1)",
                    "Show helpful text about the different subcommands",
                ),
            ]),
    ];

fn session(command: SessionCommand) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Session(command))
}

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

/// Unreachable by a client: a container without a subcommand has the wrong arity.
fn client(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(wrong_arity("client"))
}

fn client_id(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::ClientId)
}

fn client_getname(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::ClientName)
}

fn client_setname(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::ClientSetName(client_name(take(args, 2))?))
}

fn client_setinfo(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let (what, text) = (take(args, 2), take(args, 3));
    let of_library = [("lib-name", true), ("lib-ver", false)].into_iter().find(|(name, _)| is(&what, name));
    let Some((name, is_name)) = of_library else {
        let shown = c_text(&what, usize::MAX);
        return Err(ErrorText([b"ERR Unrecognized option '", shown, b"'"].concat().into()));
    };
    if !printable(&text) {
        return Err(format!("ERR {name} cannot contain spaces, newlines or special characters.").into());
    }
    session(if is_name { SessionCommand::ClientLibName(text) } else { SessionCommand::ClientLibVersion(text) })
}

fn client_info(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::ClientInfo)
}

fn client_list(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let filter = match (args.len(), args.get(2)) {
        (2, _) => ClientFilter::All,
        (4, Some(option)) if is(option, "type") => match &args[3].to_ascii_lowercase()[..] {
            b"normal" => ClientFilter::All,
            b"master" | b"slave" | b"replica" | b"pubsub" => ClientFilter::Ids(Vec::new()),
            _ => {
                let shown = c_text(&args[3], usize::MAX);
                return Err(ErrorText([b"ERR Unknown client type '", shown, b"'"].concat().into()));
            }
        },
        (4.., Some(option)) if is(option, "id") => {
            let ids = args[3..].iter().map(|id| number::integer(id).ok_or("ERR Invalid client ID"));
            // A negative id is nobody's.
            let ids = ids.map(|id| id.map(|id| u64::try_from(id).unwrap_or(0)));
            ClientFilter::Ids(ids.collect::<Result<_, _>>()?)
        }
        _ => return Err(SYNTAX.into()),
    };
    session(SessionCommand::ClientList(filter))
}

fn client_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Answer(introspect::help(
        "CLIENT",
        &[
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are:",
            "    * LIB-NAME: the client lib name.",
            "    * LIB-VER: the client lib version.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
        ],
    )))
}

fn client_name(name: Bytes) -> Result<Bytes, ErrorText> {
    if printable(&name) { Ok(name) } else { Err(BAD_NAME.into()) }
}

/// Only what one word of a `CLIENT LIST` line may hold.
fn printable(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'!'..=b'~'))
}
