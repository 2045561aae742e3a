//! `CLIENT`. Parses only; `session` and the connections of this node execute. Tested in `command/tests.rs`.

use bytes::Bytes;

use super::table::{Command, Parse, c_text};
use super::{Context, ErrorText, Parsed, SYNTAX, answer, integer, introspect, is, session, take, wrong_arity};
use crate::protocol::resp::control::{ClientFilter, ClientKind, KillFilter, Pause, Replies};
use crate::protocol::resp::session::SessionCommand;
use crate::protocol::resp::value::Value;
use crate::protocol::resp::{Args, number};

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

const NO_TRACKING: &str = "ERR CLIENT TRACKING is not supported: nothing tells clients when keys change";
const NOT_TRACKING: &str =
    "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";

pub(super) const COMMANDS: &[Command] = &[Command::new("client", -2, client)
    .flags("", "@slow")
    .about("connection", "2.4.0", "Depends on subcommand.", "A container for client connection commands")
    .subcommands(&[
        Command::new("client|id", 2, client_id).flags("noscript loading stale", "@slow @connection").about(
            "connection",
            "5.0.0",
            "O(1)",
            "Returns the client ID for the current connection",
        ),
        Command::new("client|setname", 3, client_setname).flags("noscript loading stale", "@slow @connection").about(
            "connection",
            "2.6.9",
            "O(1)",
            "Set the current connection name",
        ),
        Command::new("client|getname", 2, client_getname).flags("noscript loading stale", "@slow @connection").about(
            "connection",
            "2.6.9",
            "O(1)",
            "Get the current connection name",
        ),
        Command::new("client|setinfo", 4, client_setinfo).flags("noscript loading stale", "@slow @connection").about(
            "connection",
            "7.2.0",
            "O(1)",
            "Sets information specific to the client or connection",
        ),
        Command::new("client|info", 2, client_info)
            .flags("noscript loading stale", "@slow @connection")
            .tips("nondeterministic_output")
            .about("connection", "6.2.0", "O(1)", "Returns information about the current client connection."),
        Command::new("client|list", -2, client_list)
            .flags("admin noscript loading stale", "@admin @slow @dangerous @connection")
            .tips("nondeterministic_output")
            .about("connection", "2.4.0", "O(N)", "Get the list of client connections"),
        administered("client|kill", -3, client_kill, "2.4.0", "O(N)", "Kill the connection of a client"),
        administered(
            "client|pause",
            -3,
            client_pause,
            "3.0.0",
            "O(1)",
            "Stop processing commands from clients for some time",
        ),
        administered(
            "client|unpause",
            2,
            client_unpause,
            "6.2.0",
            "O(N)",
            "Resume processing of clients that were paused",
        ),
        administered(
            "client|no-evict",
            3,
            client_no_evict,
            "7.0.0",
            "O(1)",
            "Set client eviction mode for the current connection",
        ),
        administered(
            "client|unblock",
            -3,
            client_unblock,
            "5.0.0",
            "O(log N)",
            "Unblock a client blocked in a blocking command",
        ),
        connected("client|reply", 3, client_reply, "3.2.0", "O(1)", "Instruct the server whether to reply to commands"),
        connected(
            "client|no-touch",
            3,
            client_no_touch,
            "7.2.0",
            "O(1)",
            "Refused, but OFF: every command counts as a use",
        ),
        connected(
            "client|tracking",
            -3,
            client_tracking,
            "6.0.0",
            "O(1)",
            "Refused, but OFF: caching by clients is not assisted",
        ),
        connected(
            "client|trackinginfo",
            2,
            client_tracking_info,
            "6.2.0",
            "O(1)",
            "Return information about server assisted caching",
        ),
        connected(
            "client|getredir",
            2,
            client_getredir,
            "6.0.0",
            "O(1)",
            "Get tracking notifications redirection client ID if any",
        ),
        connected("client|caching", 3, client_caching, "6.0.0", "O(1)", "Refused: caching by clients is not assisted"),
        Command::new("client|help", 2, client_help).flags("loading stale", "@slow @connection").about(
            "connection",
            "5.0.0",
            "O(1)",
            "Show helpful text about the different subcommands",
        ),
    ])];

/// A subcommand that concerns the connection alone.
const fn connected(
    name: &'static str,
    arity: i32,
    parse: Parse,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, parse).flags("noscript loading stale", "@slow @connection").about(
        "connection",
        since,
        complexity,
        summary,
    )
}

/// A subcommand for those who look after the server.
const fn administered(
    name: &'static str,
    arity: i32,
    parse: Parse,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, parse).flags("admin noscript loading stale", "@admin @slow @dangerous @connection").about(
        "connection",
        since,
        complexity,
        summary,
    )
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
        (4, Some(option)) if is(option, "type") => ClientFilter::Kind(kind(&args[3])?),
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

fn client_kill(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    if args.len() == 3 {
        let addr = Some(take(args, 2));
        return session(SessionCommand::ClientKill(KillFilter { addr, by_address: true, ..KillFilter::default() }));
    }
    let mut filter = KillFilter { skip_me: true, ..KillFilter::default() };
    let mut at = 2;
    while at < args.len() {
        if at + 1 == args.len() {
            return Err(SYNTAX.into());
        }
        let value = take(args, at + 1);
        match &args[at].to_ascii_lowercase()[..] {
            b"id" => {
                let id = number::integer(&value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
                filter.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
            }
            b"addr" => filter.addr = Some(value),
            b"laddr" => filter.laddr = Some(value),
            b"type" => filter.kind = Some(kind(&value)?),
            b"user" if &value[..] == b"default" => {}
            b"user" => {
                let user = c_text(&value, usize::MAX);
                return Err(ErrorText([b"ERR No such user '", user, b"'"].concat().into()));
            }
            b"skipme" if is(&value, "yes") => filter.skip_me = true,
            b"skipme" if is(&value, "no") => filter.skip_me = false,
            _ => return Err(SYNTAX.into()),
        }
        at += 2;
    }
    session(SessionCommand::ClientKill(filter))
}

fn kind(name: &[u8]) -> Result<ClientKind, ErrorText> {
    match &name.to_ascii_lowercase()[..] {
        b"normal" => Ok(ClientKind::Normal),
        b"pubsub" => Ok(ClientKind::PubSub),
        b"master" | b"slave" | b"replica" => Ok(ClientKind::Nobody),
        _ => Err(ErrorText([b"ERR Unknown client type '", c_text(name, usize::MAX), b"'"].concat().into())),
    }
}

fn client_pause(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let writes_only = match args.get(3) {
        _ if args.len() > 4 => return Err(unfit("PAUSE")),
        None => false,
        Some(mode) if is(mode, "all") => false,
        Some(mode) if is(mode, "write") => true,
        Some(_) => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
    };
    let timeout = number::integer(&args[2]).ok_or("ERR timeout is not an integer or out of range")?;
    let timeout_ms = u64::try_from(timeout).map_err(|_| "ERR timeout is negative")?;
    session(SessionCommand::ClientPause(Pause { timeout_ms, writes_only }))
}

fn unfit(name: &str) -> ErrorText {
    format!("ERR unknown subcommand or wrong number of arguments for '{name}'. Try CLIENT HELP.").into()
}

fn client_unpause(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::ClientUnpause)
}

fn client_reply(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let modes = [("on", Replies::On), ("off", Replies::Off), ("skip", Replies::SkipNext)];
    let mode = modes.into_iter().find(|(name, _)| is(&args[2], name)).ok_or(SYNTAX)?;
    session(SessionCommand::ClientReply(mode.1))
}

fn switch(arg: &[u8]) -> Result<bool, ErrorText> {
    match arg {
        arg if is(arg, "on") => Ok(true),
        arg if is(arg, "off") => Ok(false),
        _ => Err(SYNTAX.into()),
    }
}

/// Clients are not evicted for memory, so there is nothing to protect one from.
fn client_no_evict(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    switch(&args[2]).and_then(|_| answer(Value::OK))
}

fn client_no_touch(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    if switch(&args[2])? {
        return Err("ERR CLIENT NO-TOUCH ON is not supported: every command counts as a use of its keys".into());
    }
    answer(Value::OK)
}

fn client_tracking(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let mut at = 3;
    while at < args.len() {
        let takes_one = is(&args[at], "redirect") || is(&args[at], "prefix");
        if takes_one && at + 1 < args.len() {
            if is(&args[at], "redirect") {
                integer(&args[at + 1])?;
            }
            at += 2;
        } else if ["bcast", "optin", "optout", "noloop"].iter().any(|name| is(&args[at], name)) {
            at += 1;
        } else {
            return Err(SYNTAX.into());
        }
    }
    if switch(&args[2])? { Err(NO_TRACKING.into()) } else { answer(Value::OK) }
}

fn client_tracking_info(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let fields = [
        ("flags", Value::Set(vec![Value::bulk("off")])),
        ("redirect", Value::Int(-1)),
        ("prefixes", Value::Array(Vec::new())),
    ];
    answer(Value::Map(fields.into_iter().map(|(name, value)| (Value::bulk(name), value)).collect()))
}

fn client_getredir(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(Value::Int(-1))
}

fn client_caching(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(NOT_TRACKING.into())
}

/// No command of a client blocks but `WAIT`, which ends by itself.
fn client_unblock(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    match &args[3..] {
        [] => {}
        [reason] if is(reason, "timeout") || is(reason, "error") => {}
        [_] => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
        _ => return Err(unfit("UNBLOCK")),
    }
    integer(&args[2])?;
    answer(Value::Int(0))
}

fn client_help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::help(
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
            "GETREDIR",
            "    Return the client ID we are redirecting to when tracking is enabled.",
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Kill connections. Options are:",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made from the specified address",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made to specified local address",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Kill connections by type.",
            "    * USER <username>",
            "      Kill connections authenticated by <username>.",
            "    * SKIPME (YES|NO)",
            "      Skip killing current connection (default: yes).",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "UNPAUSE",
            "    Stop the current client pause, resuming traffic.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Suspend all, or just write, clients for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are:",
            "    * LIB-NAME: the client lib name.",
            "    * LIB-VER: the client lib version.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    Unblock the specified blocked client.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Control server assisted client side caching.",
            "TRACKINGINFO",
            "    Report tracking status for the current connection.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
        ],
    ))
}

/// A name that fits one word of a `CLIENT LIST` line.
pub(super) fn client_name(name: Bytes) -> Result<Bytes, ErrorText> {
    if printable(&name) { Ok(name) } else { Err(BAD_NAME.into()) }
}

/// Only what one word of a `CLIENT LIST` line may hold.
fn printable(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'!'..=b'~'))
}
