//! Commands on deadlines. Parses only; tested in `command/tests.rs`.

use super::deadline::{self, Form};
use super::table::{Command, c_text};
use super::{Context, ErrorText, Parsed, is, one, take};
use crate::base::op::{Act, ExpireWhen};
use crate::protocol::resp::Args;

pub(super) const COMMANDS: &[Command] =
    &[
        Command::new("expire", -3, expire)
            .flags("write fast", "@keyspace @write @fast")
            .keys(1, 1, 1, "RW update")
            .about("generic", "1.0.0", "O(1)", "Set a key's time to live in seconds"),
        Command::new("pexpire", -3, pexpire)
            .flags("write fast", "@keyspace @write @fast")
            .keys(1, 1, 1, "RW update")
            .about("generic", "2.6.0", "O(1)", "Set a key's time to live in milliseconds"),
        Command::new("expireat", -3, expireat)
            .flags("write fast", "@keyspace @write @fast")
            .keys(1, 1, 1, "RW update")
            .about("generic", "1.2.0", "O(1)", "Set the expiration for a key as a UNIX timestamp"),
        Command::new("pexpireat", -3, pexpireat)
            .flags("write fast", "@keyspace @write @fast")
            .keys(1, 1, 1, "RW update")
            .about("generic", "2.6.0", "O(1)", "Set the expiration for a key as a UNIX timestamp in milliseconds"),
        Command::new("ttl", 2, ttl)
            .flags("readonly fast", "@keyspace @read @fast")
            .keys(1, 1, 1, "RO access")
            .tips("nondeterministic_output")
            .about("generic", "1.0.0", "O(1)", "Get the time to live for a key in seconds"),
        Command::new("pttl", 2, pttl)
            .flags("readonly fast", "@keyspace @read @fast")
            .keys(1, 1, 1, "RO access")
            .tips("nondeterministic_output")
            .about("generic", "2.6.0", "O(1)", "Get the time to live for a key in milliseconds"),
        Command::new("expiretime", 2, expiretime)
            .flags("readonly fast", "@keyspace @read @fast")
            .keys(1, 1, 1, "RO access")
            .about("generic", "7.0.0", "O(1)", "Get the expiration Unix timestamp for a key"),
        Command::new("pexpiretime", 2, pexpiretime)
            .flags("readonly fast", "@keyspace @read @fast")
            .keys(1, 1, 1, "RO access")
            .about("generic", "7.0.0", "O(1)", "Get the expiration Unix timestamp for a key in milliseconds"),
        Command::new("persist", 2, persist)
            .flags("write fast", "@keyspace @write @fast")
            .keys(1, 1, 1, "RW update")
            .about("generic", "2.2.0", "O(1)", "Remove the expiration from a key"),
    ];

fn expire_in(args: &mut Args, context: &Context, form: Form, command: &str) -> Result<Parsed, ErrorText> {
    let when = condition(&args[3..])?;
    let at = deadline::any(&args[2], form, command, context)?;
    Ok(one(take(args, 1), Act::Expire { at, when }))
}

fn condition(options: &[bytes::Bytes]) -> Result<ExpireWhen, ErrorText> {
    let mut when = ExpireWhen::default();
    for option in options {
        let flag = match () {
            () if is(option, "nx") => &mut when.no_deadline,
            () if is(option, "xx") => &mut when.deadline,
            () if is(option, "gt") => &mut when.later,
            () if is(option, "lt") => &mut when.earlier,
            () => return Err(ErrorText([b"ERR Unsupported option ", c_text(option, option.len())].concat().into())),
        };
        *flag = true;
    }
    if when.no_deadline && (when.deadline || when.later || when.earlier) {
        return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
    }
    if when.later && when.earlier {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    Ok(when)
}

fn expire(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    expire_in(args, context, Form::EX, "expire")
}

fn pexpire(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    expire_in(args, context, Form::PX, "pexpire")
}

fn expireat(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    expire_in(args, context, Form::EXAT, "expireat")
}

fn pexpireat(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    expire_in(args, context, Form::PXAT, "pexpireat")
}

fn ttl(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Ttl { ms: false, absolute: false }))
}

fn pttl(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Ttl { ms: true, absolute: false }))
}

fn expiretime(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Ttl { ms: false, absolute: true }))
}

fn pexpiretime(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Ttl { ms: true, absolute: true }))
}

fn persist(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Persist))
}
