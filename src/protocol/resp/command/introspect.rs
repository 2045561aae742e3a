//! Shows the command table to clients: `COMMAND INFO`, `DOCS`, `LIST`, `COUNT`, `GETKEYS`, and the `HELP` texts. Never executes
//! anything. Tested in `command/tests.rs`.

use bytes::Bytes;

use super::ErrorText;
use super::table::{COMMANDS, Command, Keys, lookup, lookup_full};
use crate::base::glob;
use crate::protocol::resp::value::Value;

/// Which commands `COMMAND LIST` names.
pub(super) enum Filter<'a> {
    /// Those of the table itself.
    None,
    /// Those of a module: there are none.
    Module,
    /// Those of an ACL category.
    Category(&'a [u8]),
    /// Those whose name matches a glob.
    Pattern(&'a [u8]),
}

/// `COMMAND COUNT`.
pub(super) fn count() -> Value {
    Value::Int(COMMANDS.len() as i64)
}

/// `COMMAND INFO`; of all commands when none is named.
pub(super) fn info(names: &[Bytes]) -> Value {
    if names.is_empty() {
        return Value::Array(COMMANDS.iter().map(command_info).collect());
    }
    Value::Array(names.iter().map(|name| lookup_full(name).map_or(Value::Null, command_info)).collect())
}

/// `COMMAND DOCS`; of all commands when none is named, without those that don't exist.
pub(super) fn docs(names: &[Bytes]) -> Value {
    if names.is_empty() {
        return Value::Map(COMMANDS.iter().map(command_docs).collect());
    }
    Value::Map(names.iter().filter_map(|name| lookup_full(name)).map(command_docs).collect())
}

/// `COMMAND LIST`: with subcommands, as Redis lists them.
pub(super) fn list(filter: &Filter<'_>) -> Value {
    let fits = |command: &Command| match filter {
        Filter::None => true,
        Filter::Module => false,
        Filter::Category(wanted) => {
            command.categories.split(' ').any(|category| category.as_bytes()[1..].eq_ignore_ascii_case(wanted))
        }
        Filter::Pattern(pattern) => glob::matches(&pattern.to_ascii_lowercase(), command.name.as_bytes()),
    };
    let with_subcommands = COMMANDS.iter().flat_map(|command| std::iter::once(command).chain(command.subcommands));
    Value::Array(with_subcommands.filter(|command| fits(command)).map(|command| Value::bulk(command.name)).collect())
}

/// `COMMAND GETKEYS` of a whole command.
pub(super) fn keys_of(args: &[Bytes]) -> Result<Value, ErrorText> {
    let (command, _) = command_with_keys(args)?;
    Ok(Value::Array(command.key_indices(args.len()).map(|index| Value::Bulk(args[index].clone())).collect()))
}

/// `COMMAND GETKEYSANDFLAGS` of a whole command.
pub(super) fn keys_and_flags_of(args: &[Bytes]) -> Result<Value, ErrorText> {
    let (command, keys) = command_with_keys(args)?;
    let key = |index: usize| {
        let flags = match (command.name, index) {
            // Its key is read only if it is asked for.
            ("set", _) if args[3..].iter().any(|arg| arg.eq_ignore_ascii_case(b"get")) => "RW access update",
            ("set", _) | ("copy" | "rename" | "bitop", 2) => "OW update",
            ("renamenx", 2) => "OW insert",
            ("rename" | "renamenx", _) => "RW access delete",
            ("copy" | "bitop", _) => "RO access",
            ("bitfield", _) if bitfield_reads(args) => "RO access",
            _ => keys.flags,
        };
        // What varies is told as it is here.
        let flags = words(flags).filter(|flag| *flag != "variable_flags").map(Value::simple).collect();
        Value::Array(vec![Value::Bulk(args[index].clone()), Value::Set(flags)])
    };
    Ok(Value::Array(command.key_indices(args.len()).map(key).collect()))
}

/// Whether the operations of a `BITFIELD` are `GET`s, as far as they are well formed.
fn bitfield_reads(args: &[Bytes]) -> bool {
    let mut rest = &args[2..];
    while let [verb, operands @ ..] = rest {
        let takes = match () {
            () if verb.eq_ignore_ascii_case(b"get") => 2,
            () if verb.eq_ignore_ascii_case(b"overflow") => 1,
            () => return false,
        };
        let Some(after) = operands.get(takes..) else { return false };
        rest = after;
    }
    true
}

/// The command in `args`, which must have keys, and where they are.
fn command_with_keys(args: &[Bytes]) -> Result<(&'static Command, &'static Keys), ErrorText> {
    let mut command = args.first().and_then(|name| lookup(name)).ok_or("ERR Invalid command specified")?;
    if let Some(sub) = args.get(1).and_then(|name| command.subcommand(name)) {
        command = sub;
    }
    let keys = command.keys.as_ref().ok_or("ERR The command has no key arguments")?;
    if !command.takes(args.len()) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    Ok((command, keys))
}

/// The answer to `HELP` of a container.
pub(super) fn help(container: &str, lines: &[&'static str]) -> Value {
    let title = format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let lines = lines.iter().chain(&["HELP", "    Prints this help."]).map(|line| Value::simple(line));
    Value::Array(std::iter::once(Value::Simple(title.into())).chain(lines).collect())
}

/// The parts of a space-separated list.
fn words(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split(' ').filter(|word| !word.is_empty())
}

/// Its tips, but for those to ask every shard and to put the answers together: any node answers for the whole cluster.
fn tips(command: &Command) -> impl Iterator<Item = &'static str> {
    let asks_all = ["request_policy:all_shards", "request_policy:special"].iter().any(|tip| command.tips.contains(tip));
    words(command.tips).filter(move |tip| !asks_all || !tip.contains("_policy:"))
}

fn command_info(command: &Command) -> Value {
    let keys = command.keys;
    let last = keys.map_or(0, |keys| keys.last as i64);
    Value::Array(vec![
        Value::bulk(command.name),
        Value::Int(i64::from(command.arity)),
        Value::Set(words(command.flags).map(Value::simple).collect()),
        Value::Int(keys.map_or(0, |keys| keys.first as i64)),
        Value::Int(last),
        Value::Int(keys.map_or(0, |keys| keys.step as i64)),
        Value::Set(words(command.categories).map(Value::simple).collect()),
        Value::Set(tips(command).map(Value::bulk).collect()),
        Value::Set(keys.as_ref().map(key_spec).into_iter().collect()),
        // An array when there are some and a set when there are none: Redis's own inconsistency, which RESP3 shows.
        match command.subcommands {
            [] => Value::Set(Vec::new()),
            subcommands => Value::Array(subcommands.iter().map(command_info).collect()),
        },
    ])
}

fn key_spec(keys: &Keys) -> Value {
    let pair = |name, value| (Value::bulk(name), value);
    let mut spec = Vec::new();
    if !keys.notes.is_empty() {
        spec.push(pair("notes", Value::bulk(keys.notes)));
    }
    spec.push(pair("flags", Value::Set(words(keys.flags).map(Value::simple).collect())));
    let index = Value::Map(vec![pair("index", Value::Int(keys.first as i64))]);
    spec.push(pair("begin_search", Value::Map(vec![pair("type", Value::bulk("index")), pair("spec", index)])));
    // A key specification counts its last key from the first one, not from the command's name.
    let last = if keys.last < 0 { keys.last as i64 } else { keys.last as i64 - keys.first as i64 };
    let range = Value::Map(vec![
        pair("lastkey", Value::Int(last)),
        pair("keystep", Value::Int(keys.step as i64)),
        pair("limit", Value::Int(0)),
    ]);
    spec.push(pair("find_keys", Value::Map(vec![pair("type", Value::bulk("range")), pair("spec", range)])));
    Value::Map(spec)
}

fn command_docs(command: &Command) -> (Value, Value) {
    let mut docs: Vec<_> = [
        ("summary", command.summary),
        ("since", command.since),
        ("group", command.group),
        ("complexity", command.complexity),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .map(|(name, text)| (Value::bulk(name), Value::bulk(text)))
    .collect();
    if !command.subcommands.is_empty() {
        let subcommands = command.subcommands.iter().map(command_docs).collect();
        docs.push((Value::bulk("subcommands"), Value::Map(subcommands)));
    }
    (Value::bulk(command.name), Value::Map(docs))
}
