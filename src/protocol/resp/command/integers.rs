//! Commands on strings as numbers. Parses only; tested in `command/tests.rs`.

use super::strings::one_with_value;
use super::table::Command;
use super::{Context, ErrorText, Parsed, integer, one, take};
use crate::base::op::Act;
use crate::protocol::resp::{Args, number};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("incr", 2, incr)
        .flags("write denyoom fast", "@write @string @fast")
        .keys(1, 1, 1, "RW access update")
        .about("string", "1.0.0", "O(1)", "Increment the integer value of a key by one"),
    Command::new("decr", 2, decr)
        .flags("write denyoom fast", "@write @string @fast")
        .keys(1, 1, 1, "RW access update")
        .about("string", "1.0.0", "O(1)", "Decrement the integer value of a key by one"),
    Command::new("incrby", 3, incrby)
        .flags("write denyoom fast", "@write @string @fast")
        .keys(1, 1, 1, "RW access update")
        .about("string", "1.0.0", "O(1)", "Increment the integer value of a key by the given amount"),
    Command::new("decrby", 3, decrby)
        .flags("write denyoom fast", "@write @string @fast")
        .keys(1, 1, 1, "RW access update")
        .about("string", "1.0.0", "O(1)", "Decrement the integer value of a key by the given number"),
    Command::new("incrbyfloat", 3, incrbyfloat)
        .flags("write denyoom fast", "@write @string @fast")
        .keys(1, 1, 1, "RW access update")
        .about("string", "2.6.0", "O(1)", "Increment the float value of a key by the given amount"),
];

fn incr(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Incr { by: 1 }))
}

fn decr(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Incr { by: -1 }))
}

fn incrby(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let by = integer(&args[2])?;
    Ok(one(take(args, 1), Act::Incr { by }))
}

fn decrby(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let by = integer(&args[2])?.checked_neg().ok_or("ERR decrement would overflow")?;
    Ok(one(take(args, 1), Act::Incr { by }))
}

fn incrbyfloat(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    // The text goes on as it is: 80 bits, in which it is added, hold more of it than 64. What infinity comes to is found out there, for a
    // value that is no number is refused first.
    number::float(&args[2]).ok_or("ERR value is not a valid float")?;
    Ok(one_with_value(args, Act::IncrFloat, 2))
}
