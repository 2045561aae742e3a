//! Commands to requests: the table, one file per family, and the way from arguments to something the router or the session answers.
//! Errors are Redis's to the letter and in its order of checks. Never executes. Tested in `command/tests.rs`.

use bytes::Bytes;

use super::subscriptions::PubSubCommand;
use super::{Args, session::SessionCommand, transaction::TransactionCommand, value::Value};
use crate::base::hlc::UnixMs;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::number::{self, NOT_AN_INTEGER};
use crate::base::op::{Act, Expiry, Op, SetAnswer, When};
use crate::protocol::request::Request;

mod bits;
mod client;
mod cluster;
mod conditions;
mod connection;
mod deadline;
mod expiry;
mod integers;
pub mod introspect;
mod keys;
mod objects;
mod observe;
mod pubsub;
mod server;
mod several;
mod strings;
mod table;
#[cfg(test)]
mod tests;
mod transaction;

pub use table::{COMMANDS, Command, Keys, lookup, lookup_full};

/// What a command asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// For the router.
    Request(Request),
    /// For the connection itself.
    Session(SessionCommand),
    /// For its transaction.
    Transaction(TransactionCommand),
    /// For what it has subscribed to, and who else has.
    PubSub(PubSubCommand),
}

/// A command that can't be done. Nothing was.
#[derive(Clone, Debug)]
pub struct ParseError {
    /// Which, if it is one of ours.
    pub command: Option<&'static Command>,
    /// The error line, first word included.
    pub text: Bytes,
    /// Whether Redis finds it only when it executes the command, which a transaction takes and answers with this in its turn.
    pub is_late: bool,
}

impl ParseError {
    /// The reply.
    pub fn reply(&self) -> Value {
        Value::error(self.text.clone())
    }
}

/// What parsing depends on beyond the arguments.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The wall clock, which bounds relative deadlines.
    pub now: UnixMs,
    /// The longest value.
    pub value_bytes_max: usize,
}

/// An error line, first word included.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ErrorText(Bytes);

impl From<&'static str> for ErrorText {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for ErrorText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

const SYNTAX: &str = "ERR syntax error";

/// What the command in `args` asks for, and which command it is. Takes the arguments it needs out of `args`.
///
/// # Errors
/// [`ParseError`], with the text for the client.
///
/// # Panics
/// When `args` is empty, which the decoder never gives.
#[inline]
pub fn parse(args: &mut Args, context: &Context) -> Result<(&'static Command, Parsed), ParseError> {
    let name = args.first().expect("a command has a name");
    if let &[a, b, c] = &name[..] {
        // The two commands that make up most traffic, in their plain forms.
        match ([a | 0x20, b | 0x20, c | 0x20], args.len()) {
            ([b'g', b'e', b't'], 2) if args[1].len() <= KEY_BYTES_MAX => {
                return Ok((&COMMANDS[strings::GET], one(take(args, 1), Act::Get)));
            }
            ([b's', b'e', b't'], 3) if args[1].len() <= KEY_BYTES_MAX => {
                let act = strings::set(Expiry::Clear, When::Always, SetAnswer::Done);
                let op = Op { key: take(args, 1), act, value: take(args, 2) };
                return Ok((&COMMANDS[strings::SET], Parsed::Request(Request::One(op))));
            }
            _ => {}
        }
    }
    parse_any(args, context)
}

fn parse_any(args: &mut Args, context: &Context) -> Result<(&'static Command, Parsed), ParseError> {
    let Some(mut command) = lookup(&args[0]) else {
        return Err(ParseError { command: None, text: table::unknown_command(args), is_late: false });
    };
    let fail = |command, text| Err(ParseError { command: Some(command), text, is_late: false });
    if !command.subcommands.is_empty() && args.len() > 1 {
        match command.subcommand(&args[1]) {
            Some(sub) => command = sub,
            None => return fail(command, unknown_subcommand(command, &args[1])),
        }
    }
    if !command.takes(args.len()) {
        return fail(command, wrong_arity(command.name).0);
    }
    if command.key_indices(args.len()).any(|index| args[index].len() > KEY_BYTES_MAX) {
        return fail(command, format!("ERR key exceeds the limit of {KEY_BYTES_MAX} bytes").into());
    }
    match (command.parse)(args, context) {
        Ok(parsed) => Ok((command, parsed)),
        Err(text) => Err(ParseError { command: Some(command), text: text.0, is_late: true }),
    }
}

fn unknown_subcommand(command: &Command, name: &[u8]) -> Bytes {
    let container = command.name.to_uppercase();
    let name = table::c_text(name, 128);
    [b"ERR unknown subcommand '", name, b"'. Try ", container.as_bytes(), b" HELP."].concat().into()
}

fn wrong_arity(name: &str) -> ErrorText {
    // A wrong EXEC ends its transaction, and says so.
    let word = if name == "exec" { "EXECABORT Transaction discarded because of:" } else { "ERR" };
    format!("{word} wrong number of arguments for '{name}' command").into()
}

/// Moves an argument out.
fn take(args: &mut Args, index: usize) -> Bytes {
    std::mem::take(&mut args[index])
}

/// What the connection answers.
fn session(command: SessionCommand) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Session(command))
}

fn answer(value: Value) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Answer(value))
}

fn one(key: Bytes, act: Act) -> Parsed {
    Parsed::Request(Request::One(Op::new(key, act)))
}

/// Whether an argument is the option `name` (lower case), in any case.
fn is(arg: &[u8], name: &str) -> bool {
    arg.eq_ignore_ascii_case(name.as_bytes())
}

fn integer(arg: &[u8]) -> Result<i64, ErrorText> {
    number::integer(arg).ok_or_else(|| NOT_AN_INTEGER.into())
}
