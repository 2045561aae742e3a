//! Commands on strings as bytes. Parses only; tested in `command/tests.rs`.

use std::collections::BTreeMap;

use super::conditions;
use super::deadline::{self, Form};
use super::table::Command;
use super::{Context, ErrorText, Parsed, SYNTAX, integer, is, one, take, wrong_arity};
use crate::base::op::{Act, Comparison, Expiry, Op, SetAnswer, When};
use crate::base::reply::TOO_LONG;
use crate::protocol::request::{Gather, Request};
use crate::protocol::resp::Args;

/// Where `GET` is in the table.
pub(super) const GET: usize = 0;
/// Where `SET` is in the table.
pub(super) const SET: usize = 1;

pub(super) const COMMANDS: &[Command] =
    &[
        Command::new("get", 2, get).flags("readonly fast", "@read @string @fast").keys(1, 1, 1, "RO access").about(
            "string",
            "1.0.0",
            "O(1)",
            "Get the value of a key",
        ),
        Command::new("set", -3, set_with_options)
            .flags("write denyoom", "@write @string @slow")
            .keys(1, 1, 1, "RW access update variable_flags")
            .key_notes("RW and ACCESS due to the optional `GET` argument")
            .about("string", "1.0.0", "O(1)", "Set the string value of a key"),
        Command::new("setnx", 3, setnx)
            .flags("write denyoom fast", "@write @string @fast")
            .keys(1, 1, 1, "OW insert")
            .about("string", "1.0.0", "O(1)", "Set the value of a key, only if the key does not exist"),
        Command::new("setex", 4, setex)
            .flags("write denyoom", "@write @string @slow")
            .keys(1, 1, 1, "OW update")
            .about("string", "2.0.0", "O(1)", "Set the value and expiration of a key"),
        Command::new("psetex", 4, psetex)
            .flags("write denyoom", "@write @string @slow")
            .keys(1, 1, 1, "OW update")
            .about("string", "2.6.0", "O(1)", "Set the value and expiration in milliseconds of a key"),
        Command::new("getset", 3, getset)
            .flags("write denyoom fast", "@write @string @fast")
            .keys(1, 1, 1, "RW access update")
            .about("string", "1.0.0", "O(1)", "Set the string value of a key and return its old value"),
        Command::new("getdel", 2, getdel)
            .flags("write fast", "@write @string @fast")
            .keys(1, 1, 1, "RW access delete")
            .about("string", "6.2.0", "O(1)", "Get the value of a key and delete the key"),
        Command::new("getex", -2, getex)
            .flags("write fast", "@write @string @fast")
            .keys(1, 1, 1, "RW access update")
            .key_notes("RW and UPDATE because it changes the TTL")
            .about("string", "6.2.0", "O(1)", "Get the value of a key and optionally set its expiration"),
        Command::new("mget", -2, mget)
            .flags("readonly fast", "@read @string @fast")
            .keys(1, -1, 1, "RO access")
            .tips("request_policy:multi_shard")
            .about("string", "1.0.0", "O(N)", "Get the values of all the given keys"),
        Command::new("mset", -3, mset)
            .flags("write denyoom", "@write @string @slow")
            .keys(1, -1, 2, "OW update")
            .tips("request_policy:multi_shard response_policy:all_succeeded")
            .about("string", "1.0.1", "O(N)", "Set multiple keys to multiple values"),
        Command::new("msetnx", -3, msetnx)
            .flags("write denyoom", "@write @string @slow")
            .keys(1, -1, 2, "OW insert")
            .tips("request_policy:multi_shard response_policy:agg_min")
            .about("string", "1.0.1", "O(N)", "Set multiple keys to multiple values, only if none of the keys exist"),
        Command::new("append", 3, append)
            .flags("write denyoom fast", "@write @string @fast")
            .keys(1, 1, 1, "RW insert")
            .about("string", "2.0.0", "O(1)", "Append a value to a key"),
        Command::new("strlen", 2, strlen).flags("readonly fast", "@read @string @fast").keys(1, 1, 1, "RO").about(
            "string",
            "2.2.0",
            "O(1)",
            "Get the length of the value stored in a key",
        ),
        Command::new("getrange", 4, getrange)
            .flags("readonly", "@read @string @slow")
            .keys(1, 1, 1, "RO access")
            .about("string", "2.4.0", "O(N)", "Get a substring of the string stored at a key"),
        Command::new("substr", 4, substr).flags("readonly", "@read @string @slow").keys(1, 1, 1, "RO access").about(
            "string",
            "1.0.0",
            "O(N)",
            "Get a substring of the string stored at a key",
        ),
        Command::new("setrange", 4, setrange)
            .flags("write denyoom", "@write @string @slow")
            .keys(1, 1, 1, "RW update")
            .about("string", "2.2.0", "O(1)", "Overwrite part of a string at key starting at the specified offset"),
    ];

pub(super) fn set(expiry: Expiry, when: When, answer: SetAnswer) -> Act {
    Act::Set { expiry, when, answer, flags: 0 }
}

pub(super) fn one_with_value(args: &mut Args, act: Act, value: usize) -> Parsed {
    Parsed::Request(Request::One(Op { key: take(args, 1), act, value: take(args, value) }))
}

fn get(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Get))
}

/// Options of `SET` and `GETEX`, which share a grammar in Redis.
#[derive(Default)]
struct Options {
    when: Option<When>,
    /// And the index of its operand.
    comparison: Option<(Comparison, usize)>,
    old: bool,
    keep: bool,
    persist: bool,
    deadline: Option<(Form, usize)>,
}

impl Options {
    /// Reads `args[first..]`. An option that doesn't go with an earlier one, or not with the command, is a syntax error; the same one
    /// twice is not.
    fn parse(args: &Args, first: usize, setting: bool) -> Result<Self, ErrorText> {
        let mut options = Self::default();
        let mut at = first;
        while let Some(arg) = args.get(at) {
            let form = options.form(arg);
            let comparison = options.comparison(arg).filter(|_| setting && at + 1 < args.len());
            if setting && is(arg, "nx") && options.when != Some(When::Present) && options.comparison.is_none() {
                options.when = Some(When::Absent);
            } else if setting && is(arg, "xx") && options.when != Some(When::Absent) && options.comparison.is_none() {
                options.when = Some(When::Present);
            } else if let Some(comparison) = comparison {
                at += 1;
                options.comparison = Some((comparison, at));
            } else if setting && is(arg, "get") {
                options.old = true;
            } else if setting && is(arg, "keepttl") && options.deadline.is_none() {
                options.keep = true;
            } else if !setting && is(arg, "persist") && options.deadline.is_none() {
                options.persist = true;
            } else if let (Some(form), true) = (form, at + 1 < args.len()) {
                at += 1;
                options.deadline = Some((form, at));
            } else {
                return Err(SYNTAX.into());
            }
            at += 1;
        }
        Ok(options)
    }

    /// The comparison `arg` names, unless an earlier option forbids it.
    fn comparison(&self, arg: &[u8]) -> Option<Comparison> {
        let named = conditions::named(arg)?;
        let free = self.when.is_none() && self.comparison.is_none_or(|(earlier, _)| earlier == named);
        free.then_some(named)
    }

    /// The form of deadline `arg` names, unless an earlier option forbids it.
    fn form(&self, arg: &[u8]) -> Option<Form> {
        let named = [("ex", Form::EX), ("px", Form::PX), ("exat", Form::EXAT), ("pxat", Form::PXAT)];
        let (_, form) = named.into_iter().find(|(name, _)| is(arg, name))?;
        let free = !self.keep && !self.persist && self.deadline.is_none_or(|(earlier, _)| earlier == form);
        free.then_some(form)
    }

    /// What becomes of the deadline; `otherwise` when no option says.
    fn expiry(&self, args: &Args, command: &str, context: &Context, otherwise: Expiry) -> Result<Expiry, ErrorText> {
        match self.deadline {
            Some((form, index)) => Ok(Expiry::Until(deadline::positive(&args[index], form, command, context)?)),
            None if self.keep => Ok(Expiry::Keep),
            None if self.persist => Ok(Expiry::Clear),
            None => Ok(otherwise),
        }
    }
}

fn set_with_options(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let options = Options::parse(args, 3, true)?;
    let expiry = options.expiry(args, "set", context, Expiry::Clear)?;
    let answer = if options.old { SetAnswer::Old } else { SetAnswer::Done };
    if let Some((comparison, operand)) = options.comparison {
        let (operand_bytes, value) = conditions::joined(&args[operand], &args[2], context)?;
        let act = Act::SetIf { expiry, comparison, answer, operand_bytes };
        return Ok(Parsed::Request(Request::One(Op { key: take(args, 1), act, value })));
    }
    Ok(one_with_value(args, set(expiry, options.when.unwrap_or(When::Always), answer), 2))
}

fn setnx(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one_with_value(args, set(Expiry::Clear, When::Absent, SetAnswer::Flag), 2))
}

fn setex(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let until = deadline::positive(&args[2], Form::EX, "setex", context)?;
    Ok(one_with_value(args, set(Expiry::Until(until), When::Always, SetAnswer::Done), 3))
}

fn psetex(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let until = deadline::positive(&args[2], Form::PX, "psetex", context)?;
    Ok(one_with_value(args, set(Expiry::Until(until), When::Always, SetAnswer::Done), 3))
}

fn getset(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one_with_value(args, set(Expiry::Clear, When::Always, SetAnswer::Old), 2))
}

fn getdel(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::GetDel))
}

/// Redis looks the key up before it reads the number of an option; here a bad number is an error whether or not the key exists.
fn getex(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let options = Options::parse(args, 2, false)?;
    let expiry = options.expiry(args, "getex", context, Expiry::Keep)?;
    Ok(one(take(args, 1), Act::GetEx { expiry }))
}

fn mget(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let ops = args.drain(1..).map(|key| Op::new(key, Act::Get)).collect();
    Ok(Parsed::Request(Request::Many(Gather::Array, ops)))
}

fn pairs(args: &mut Args, act: Act) -> Vec<Op> {
    let mut rest = args.drain(1..);
    let mut ops = Vec::with_capacity(rest.len() / 2);
    while let (Some(key), Some(value)) = (rest.next(), rest.next()) {
        ops.push(Op { key, act, value });
    }
    ops
}

fn mset(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    if args.len().is_multiple_of(2) {
        return Err(wrong_arity("mset"));
    }
    let ops = pairs(args, set(Expiry::Clear, When::Always, SetAnswer::Done));
    Ok(Parsed::Request(Request::Many(Gather::AllOk, ops)))
}

/// Of a key named twice the last value counts, and only that one is asked for: the others would find it present.
fn msetnx(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    if args.len().is_multiple_of(2) {
        return Err(wrong_arity("msetnx"));
    }
    let mut ops = pairs(args, set(Expiry::Clear, When::Absent, SetAnswer::Flag));
    let last: BTreeMap<_, _> = ops.iter().enumerate().map(|(index, op)| (op.key.clone(), index)).collect();
    let mut index = 0;
    ops.retain(|op| {
        index += 1;
        last.get(&op.key) == Some(&(index - 1))
    });
    Ok(Parsed::Request(Request::Many(Gather::SetAllIfAbsent, ops)))
}

fn append(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one_with_value(args, Act::Append, 2))
}

fn strlen(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Strlen))
}

fn getrange(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    Ok(one(take(args, 1), Act::GetRange { start, end }))
}

fn substr(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    getrange(args, context)
}

fn setrange(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let offset = u64::try_from(integer(&args[2])?).map_err(|_| "ERR offset is out of range")?;
    let len = args[3].len() as u64;
    if len > 0 && offset.saturating_add(len) > context.value_bytes_max as u64 {
        return Err(TOO_LONG.into());
    }
    Ok(one_with_value(args, Act::SetRange { offset }, 3))
}
