//! The commands of transactions. Parses only; `resp::transaction` keeps what they are about. Tested in `command/tests.rs`.

use super::table::Command;
use super::{Context, ErrorText, Parsed};
use crate::protocol::resp::Args;
use crate::protocol::resp::transaction::TransactionCommand;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("multi", 1, multi).flags("noscript loading stale fast allow_busy", "@fast @transaction").about(
        "transactions",
        "1.2.0",
        "O(1)",
        "Mark the start of a transaction block",
    ),
    Command::new("exec", 1, exec).flags("noscript loading stale skip_slowlog", "@slow @transaction").about(
        "transactions",
        "1.2.0",
        "Depends on commands in the transaction",
        "Execute all commands issued after MULTI",
    ),
    Command::new("discard", 1, discard).flags("noscript loading stale fast allow_busy", "@fast @transaction").about(
        "transactions",
        "2.0.0",
        "O(N), when N is the number of queued commands",
        "Discard all commands issued after MULTI",
    ),
    Command::new("watch", -2, watch)
        .flags("noscript loading stale fast allow_busy", "@fast @transaction")
        .keys(1, -1, 1, "RO")
        .about(
            "transactions",
            "2.2.0",
            "O(1) for every key.",
            "Watch the given keys to determine execution of the MULTI/EXEC block",
        ),
    Command::new("unwatch", 1, unwatch).flags("noscript loading stale fast allow_busy", "@fast @transaction").about(
        "transactions",
        "2.2.0",
        "O(1)",
        "Forget about all watched keys",
    ),
];

fn of(command: TransactionCommand) -> Result<Parsed, ErrorText> {
    Ok(Parsed::Transaction(command))
}

fn multi(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    of(TransactionCommand::Multi)
}

fn exec(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    of(TransactionCommand::Exec)
}

fn discard(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    of(TransactionCommand::Discard)
}

fn watch(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    of(TransactionCommand::Watch(args.drain(1..).collect()))
}

fn unwatch(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    of(TransactionCommand::Unwatch)
}
