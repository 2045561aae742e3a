//! The text and meta protocols of memcached 1.6, from the server's side: bytes to commands, answers to bytes, to the letter. Pure: never
//! does I/O and never reads a clock. Tested beside each file, and against memcached by `tests/clients/differential_memcached.py`.

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::base::op::{Expiry, Op};

pub mod decode;
pub mod dress;
mod meta;
mod number;
pub mod stats;
mod text;

use dress::Dress;

/// The version whose behaviour this is. Clients choose features by it.
pub const MEMCACHED_VERSION: &str = "1.6.45";
/// Longest key.
const KEY_BYTES_MAX: usize = 250;
/// What memcached keeps beside key and value, which counts towards the longest item: its header, a CAS unique, and a zero behind the key.
const ITEM_BYTES_BESIDES: usize = 48 + 8 + 1;
/// And for flags that are not 0.
const FLAGS_BYTES: usize = 4;
/// Seconds up to which a time is counted from now; beyond, from 1970.
const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;
/// Shortest line, its end included, that is looked at.
const LINE_BYTES_MIN: usize = 4;
/// Words of a line that count. What stands behind them is not looked at, unless they are keys to be read.
const WORDS_MAX: usize = 23;
/// A line that has no end after so many bytes is given up, unless it asks for many keys.
const LINE_BYTES_MAX: usize = 2048;
/// The same for one that does. memcached has no bound there; this is room for 30,000 of the longest keys.
const MANY_KEYS_BYTES_MAX: usize = 8 * 1024 * 1024;

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";
const NOT_A_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// One command.
#[derive(Debug)]
pub struct Command {
    /// As it is called in statistics.
    pub name: &'static str,
    /// What it asks for.
    pub asked: Asked,
}

/// What a command asks for.
#[derive(Debug)]
pub enum Asked {
    /// Operations on keys, and what their answers are made into.
    Keys(SmallVec<[Op; 1]>, Dress),
    /// Nothing; this line is the answer, or none if it is empty. The flag says whether it is a refusal.
    Say(Cow<'static, str>, bool),
    /// To delete everything after so many seconds.
    Flush {
        /// Seconds.
        after_s: u64,
        /// Without an answer.
        quiet: bool,
    },
    /// Statistics.
    Stats(stats::Stats),
    /// To close the connection without another word.
    Quit,
    /// The same, for a client that does not speak this protocol.
    HangUp,
}

impl Command {
    fn say(name: &'static str, line: &'static str) -> Self {
        Self { name, asked: Asked::Say(Cow::Borrowed(line), false) }
    }

    fn refuse(name: &'static str, line: &'static str, quiet: bool) -> Self {
        Self { name, asked: Asked::Say(Cow::Borrowed(if quiet { "" } else { line }), true) }
    }

    /// Whether it may change keys.
    pub fn writes(&self) -> bool {
        match &self.asked {
            Asked::Keys(ops, _) => ops.iter().any(|op| op.act.writes()),
            Asked::Flush { .. } => true,
            Asked::Say(..) | Asked::Stats(_) | Asked::Quit | Asked::HangUp => false,
        }
    }

    /// Whether its data is refused for its length.
    pub fn is_too_large(&self) -> bool {
        match &self.asked {
            Asked::Keys(_, Dress::Line { line, .. }) => *line == TOO_LARGE,
            Asked::Say(line, _) => line == TOO_LARGE,
            _ => false,
        }
    }

    /// Operations it takes; at least one, for the room a command needs.
    pub fn ops(&self) -> usize {
        if let Asked::Keys(ops, _) = &self.asked { ops.len().max(1) } else { 1 }
    }
}

/// What was made of a line.
#[derive(Debug)]
enum Parsed {
    /// A command.
    Whole(Command),
    /// A command whose data follows.
    Data(Box<Draft>),
    /// A command that is answered already, whose data is to be thrown away: so many bytes.
    Swallow(Command, usize),
}

/// A storing command that waits for its data.
#[derive(Debug)]
struct Draft {
    name: &'static str,
    key: Bytes,
    /// Length of the data without its line end.
    bytes: usize,
    store: Store,
    dress: Dress,
}

/// How a [`Draft`] stores.
#[derive(Debug)]
enum Store {
    /// By the act that Redis clients set values with.
    Plain(crate::base::op::When, Expiry, u32),
    /// By an act on items.
    Item(crate::base::item::ItemAct, Box<crate::base::item::ItemTerms>),
}

/// The deadline a client means by a number of seconds.
fn expiry(seconds: i32) -> Expiry {
    use crate::base::op::Deadline;
    match i64::from(seconds) {
        0 => Expiry::Clear,
        ..0 => Expiry::Until(Deadline::At(0)),
        1..=RELATIVE_SECONDS_MAX => Expiry::Until(Deadline::In(i64::from(seconds) * 1_000)),
        _ => Expiry::Until(Deadline::At(i64::from(seconds) * 1_000)),
    }
}

/// Whether memcached would have room for such an item; `item_bytes_max` is its `-I`.
fn fits(item_bytes_max: usize, key: usize, value: usize, flags: u32) -> bool {
    value <= value_bytes_max(item_bytes_max, key, flags)
}

/// The longest value of an item under a key of this length.
fn value_bytes_max(item_bytes_max: usize, key: usize, flags: u32) -> usize {
    let besides = ITEM_BYTES_BESIDES + key + 2 + if flags == 0 { 0 } else { FLAGS_BYTES };
    item_bytes_max.saturating_sub(besides)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::op::Deadline;

    #[test]
    fn times_are_relative_up_to_thirty_days() {
        for (seconds, expected) in [
            (0, Expiry::Clear),
            (-1, Expiry::Until(Deadline::At(0))),
            (i32::MIN, Expiry::Until(Deadline::At(0))),
            (1, Expiry::Until(Deadline::In(1_000))),
            (2_592_000, Expiry::Until(Deadline::In(2_592_000_000))),
            (2_592_001, Expiry::Until(Deadline::At(2_592_001_000))),
        ] {
            assert_eq!(expiry(seconds), expected);
        }
    }

    #[test]
    fn the_longest_value_leaves_room_for_what_memcached_keeps_beside_it() {
        // What memcached 1.6 stores under a key of one byte at the most.
        assert!(fits(1 << 20, 1, (1 << 20) - 60, 0) && !fits(1 << 20, 1, (1 << 20) - 59, 0));
        assert!(!fits(1 << 20, 1, (1 << 20) - 60, 1) && !fits(0, 1, 1, 0));
    }
}
