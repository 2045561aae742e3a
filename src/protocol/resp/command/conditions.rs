//! Commands that compare before they act, and the digest they compare by: of Redis 8.4, and Valkey's `DELIFEQ`. The conditions of `SET` are
//! with `SET`. Parses only; tested in `command/tests.rs`.

use bytes::{BufMut, Bytes, BytesMut};

use super::strings::one_with_value;
use super::table::Command;
use super::{Context, ErrorText, Parsed, is, one, take, wrong_arity};
use crate::base::op::{Act, Comparison};
use crate::protocol::resp::Args;

const BAD_CONDITION: &str = "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE";
const TOO_LONG_TOGETHER: &str =
    "ERR the value and what to compare with exceed the maximum allowed size together (proto-max-bulk-len)";

pub(super) const COMMANDS: &[Command] = &[
    Command::new("delex", -2, delex)
        .flags("write fast", "@write @string @fast")
        .keys(1, 1, 1, "RW delete variable_flags")
        .about(
            "string",
            "8.4.0",
            "O(1) for IFEQ/IFNE, O(N) for IFDEQ/IFDNE where N is the length of the string value.",
            "Conditionally removes the specified key based on value or digest comparison.",
        ),
    Command::new("delifeq", 3, delifeq).flags("write fast", "@write @string @fast").keys(1, 1, 1, "RM delete").about(
        "string",
        "9.0.0",
        "O(1)",
        "Delete key if value matches string.",
    ),
    Command::new("digest", 2, digest).flags("readonly fast", "@read @string @fast").keys(1, 1, 1, "RO access").about(
        "string",
        "8.4.0",
        "O(N) where N is the length of the string value.",
        "Returns the XXH3 hash of a string value.",
    ),
];

/// The comparison an argument names.
pub(super) fn named(arg: &[u8]) -> Option<Comparison> {
    let all = [
        ("ifeq", Comparison::Equal),
        ("ifne", Comparison::Differs),
        ("ifdeq", Comparison::DigestEqual),
        ("ifdne", Comparison::DigestDiffers),
    ];
    all.into_iter().find(|(name, _)| is(arg, name)).map(|(_, comparison)| comparison)
}

/// The value of an [`Act::SetIf`] and the length of the operand in it. Both travel together, so both together have the bound of a value.
pub(super) fn joined(operand: &Bytes, value: &Bytes, context: &Context) -> Result<(u32, Bytes), ErrorText> {
    let bytes = operand.len().saturating_add(value.len());
    let operand_bytes = u32::try_from(operand.len()).map_err(|_| TOO_LONG_TOGETHER)?;
    if bytes > context.value_bytes_max {
        return Err(TOO_LONG_TOGETHER.into());
    }
    let mut joined = BytesMut::with_capacity(bytes);
    joined.put_slice(operand);
    joined.put_slice(value);
    Ok((operand_bytes, joined.freeze()))
}

/// Redis reads the condition only if there is a key; here a wrong one is an error in any case.
fn delex(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    match args.len() {
        2 => Ok(one(take(args, 1), Act::Delete)),
        4 => {
            let comparison = named(&args[2]).ok_or(BAD_CONDITION)?;
            Ok(one_with_value(args, Act::DeleteIf { comparison }, 3))
        }
        _ => Err(wrong_arity("delex")),
    }
}

fn delifeq(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one_with_value(args, Act::DeleteIf { comparison: Comparison::Equal }, 2))
}

fn digest(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Ok(one(take(args, 1), Act::Digest))
}
