//! The command table: what every command is called, takes and is for, and how to find one by name. Never parses arguments.
//! Tested below; `introspect` shows it to clients.

use bytes::Bytes;

use super::{
    Context, ErrorText, Parsed, bits, client, cluster, conditions, connection, expiry, integers, keys, objects,
    observe, pubsub, server, several, strings, transaction,
};
use crate::protocol::resp::Args;

/// Makes a request of a command's arguments, whose number and key lengths have been checked. It may take them.
pub(super) type Parse = fn(&mut Args, &Context) -> Result<Parsed, ErrorText>;

/// A command or subcommand, in the terms of `COMMAND INFO` and `COMMAND DOCS`. Lists are separated by spaces.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Lower case; of a subcommand `container|name`.
    pub name: &'static str,
    /// Arguments it takes, its name (a subcommand: both) included; negative: at least so many.
    pub arity: i32,
    /// Redis's flags.
    pub flags: &'static str,
    /// ACL categories.
    pub categories: &'static str,
    /// Where its keys are.
    pub keys: Option<Keys>,
    /// Hints for cluster clients and proxies.
    pub tips: &'static str,
    /// Documentation group.
    pub group: &'static str,
    /// Redis version it came with.
    pub since: &'static str,
    /// Its cost.
    pub complexity: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Its subcommands.
    pub subcommands: &'static [Command],
    pub(super) parse: Parse,
}

/// Where a command's keys are among its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Index of the first.
    pub first: usize,
    /// Index of the last; negative counts from the end.
    pub last: isize,
    /// Distance between two.
    pub step: usize,
    /// How they are used.
    pub flags: &'static str,
    /// A remark on that, or nothing.
    pub notes: &'static str,
}

impl Command {
    pub(super) const fn new(name: &'static str, arity: i32, parse: Parse) -> Self {
        Self {
            name,
            arity,
            flags: "",
            categories: "",
            keys: None,
            tips: "",
            group: "",
            since: "",
            complexity: "",
            summary: "",
            subcommands: &[],
            parse,
        }
    }

    pub(super) const fn flags(mut self, flags: &'static str, categories: &'static str) -> Self {
        self.flags = flags;
        self.categories = categories;
        self
    }

    pub(super) const fn keys(mut self, first: usize, last: isize, step: usize, flags: &'static str) -> Self {
        self.keys = Some(Keys { first, last, step, flags, notes: "" });
        self
    }

    pub(super) const fn key_notes(mut self, notes: &'static str) -> Self {
        if let Some(keys) = &mut self.keys {
            keys.notes = notes;
        }
        self
    }

    pub(super) const fn tips(mut self, tips: &'static str) -> Self {
        self.tips = tips;
        self
    }

    pub(super) const fn about(
        mut self,
        group: &'static str,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Self {
        self.group = group;
        self.since = since;
        self.complexity = complexity;
        self.summary = summary;
        self
    }

    pub(super) const fn subcommands(mut self, subcommands: &'static [Command]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Whether it may have `count` arguments, its name included.
    pub fn takes(&self, count: usize) -> bool {
        let bound = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { count >= bound } else { count == bound }
    }

    /// The indices of the keys among `count` arguments.
    pub fn key_indices(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let (range, step) = match self.keys {
            None => (0..0, 1),
            Some(keys) => {
                let end =
                    if keys.last < 0 { count.saturating_add_signed(keys.last + 1) } else { keys.last as usize + 1 };
                (keys.first..end.min(count), keys.step)
            }
        };
        range.step_by(step)
    }

    /// Whether it may change keys.
    pub fn writes(&self) -> bool {
        self.flags.split(' ').any(|flag| flag == "write")
    }

    /// The subcommand called `name`, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Command> {
        let own = self.name.len() + 1;
        self.subcommands.iter().find(|sub| sub.name.as_bytes()[own..].eq_ignore_ascii_case(name))
    }
}

const FAMILIES: [&[Command]; 15] = [
    strings::COMMANDS,
    integers::COMMANDS,
    keys::COMMANDS,
    expiry::COMMANDS,
    connection::COMMANDS,
    server::COMMANDS,
    conditions::COMMANDS,
    bits::COMMANDS,
    objects::COMMANDS,
    transaction::COMMANDS,
    several::COMMANDS,
    cluster::COMMANDS,
    client::COMMANDS,
    observe::COMMANDS,
    pubsub::COMMANDS,
];

const COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};

/// Every command, subcommands within.
pub static COMMANDS: [Command; COUNT] = {
    let mut all = [FAMILIES[0][0]; COUNT];
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut at = 0;
        while at < FAMILIES[family].len() {
            all[count] = FAMILIES[family][at];
            count += 1;
            at += 1;
        }
        family += 1;
    }
    all
};

/// Slots of the name index: a power of two, several times the number of commands, so that most names are found at the first look.
const INDEX_SLOTS: usize = 512;
const EMPTY: u8 = u8::MAX;
/// The longest command name, and then some.
const NAME_BYTES_MAX: usize = 32;

/// Open addressing over [`COMMANDS`], made by the compiler.
static INDEX: [u8; INDEX_SLOTS] = {
    assert!(COUNT < EMPTY as usize && COUNT * 2 < INDEX_SLOTS);
    let mut index = [EMPTY; INDEX_SLOTS];
    let mut command = 0;
    while command < COUNT {
        let mut slot = hash(COMMANDS[command].name.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % INDEX_SLOTS;
        }
        index[slot] = command as u8;
        command += 1;
    }
    index
};

/// FNV-1a over the lower-case name, folded to a slot.
const fn hash(name: &[u8]) -> usize {
    let mut hash = 0x811c_9dc5_u32;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ (name[at] | 0x20) as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    ((hash >> 16) ^ hash) as usize % INDEX_SLOTS
}

/// The command called `name`, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut slot = hash(name);
    loop {
        let command = COMMANDS.get(usize::from(INDEX[slot]))?;
        if command.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(command);
        }
        slot = (slot + 1) % INDEX_SLOTS;
    }
}

/// The command or, written `container|name`, the subcommand.
pub fn lookup_full(name: &[u8]) -> Option<&'static Command> {
    match memchr::memchr(b'|', name) {
        None => lookup(name),
        Some(bar) => lookup(&name[..bar])?.subcommand(&name[bar + 1..]),
    }
}

/// What Redis says about a command it does not know: its name and the beginning of its arguments.
pub(super) fn unknown_command(args: &Args) -> Bytes {
    const SHOWN_BYTES_MAX: usize = 128;
    let mut shown = Vec::new();
    for arg in args.iter().skip(1) {
        if shown.len() >= SHOWN_BYTES_MAX {
            break;
        }
        let room = SHOWN_BYTES_MAX - shown.len();
        shown.push(b'\'');
        shown.extend_from_slice(c_text(arg, room));
        shown.extend_from_slice(b"' ");
    }
    let name = c_text(args.first().map_or(&[], |name| name), SHOWN_BYTES_MAX);
    [b"ERR unknown command '", name, b"', with args beginning with: ", &shown].concat().into()
}

/// `text` as C prints it with `%.*s`: up to `bytes_max` bytes, or a NUL.
pub(super) fn c_text(text: &[u8], bytes_max: usize) -> &[u8] {
    let end = text.len().min(bytes_max);
    &text[..memchr::memchr(0, &text[..end]).unwrap_or(end)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_in_any_case() {
        for command in &COMMANDS {
            for name in [command.name.to_owned(), command.name.to_uppercase()] {
                assert_eq!(lookup(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
            for sub in command.subcommands {
                assert_eq!(lookup_full(sub.name.as_bytes()).map(|found| found.name), Some(sub.name));
            }
        }
        for name in ["", "foo", "get\0", "GEU", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "client|", "@%4"] {
            assert!(lookup_full(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn keys_are_where_the_table_says() {
        let indices = |name: &[u8], count| lookup(name).unwrap().key_indices(count).collect::<Vec<_>>();
        assert_eq!(indices(b"get", 2), [1]);
        assert_eq!(indices(b"mset", 5), [1, 3]);
        assert_eq!(indices(b"del", 4), [1, 2, 3]);
        assert_eq!(indices(b"ping", 2), [0; 0]);
        assert_eq!(indices(b"get", 1), [0; 0]);
    }
}
