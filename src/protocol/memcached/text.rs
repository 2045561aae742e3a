//! Lines of the text protocol to commands. Which words a command takes, in which order they are looked at and what each refusal says is
//! memcached's `process_command_ascii` and below. Tested in `decode/tests.rs`.

use bytes::Bytes;
use smallvec::SmallVec;

use super::dress::Dress;
use super::number::{i32_of, u32_of, u64_of};
use super::stats::Stats;
use super::{
    Asked, BAD_FORMAT, Command, Draft, KEY_BYTES_MAX, MEMCACHED_VERSION, Parsed, RELATIVE_SECONDS_MAX, Store,
    TOO_LARGE, expiry, fits, meta, value_bytes_max,
};
use crate::base::item::{ItemAct, ItemTerms, Mode, Only};
use crate::base::op::{Act, Op, When};

/// What parsing depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// Unix seconds.
    pub(super) now_s: i64,
    /// memcached's `-I`.
    pub(super) item_bytes_max: usize,
}

/// The words of a line, which spaces part.
pub(super) type Words<'a> = SmallVec<[&'a [u8]; 8]>;

const ERROR: &str = "ERROR";
const BAD_TIME: &str = "CLIENT_ERROR invalid exptime argument";

/// Reads a line without its end.
pub(super) fn parse(line: &Bytes, context: Context) -> Parsed {
    // memcached keeps lines as C does: they end at a zero.
    let end = memchr::memchr(0, line).unwrap_or(line.len());
    let words: Words<'_> = line[..end].split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
    let Some(name) = words.first().filter(|name| name.len() >= 2) else { return error() };
    match *name {
        b"get" | b"bget" => get(line, &words, "memcached_get", false),
        b"gets" => get(line, &words, "memcached_gets", true),
        b"gat" => touch_and_get(line, &words, "memcached_gat", false),
        b"gats" => touch_and_get(line, &words, "memcached_gats", true),
        b"set" => store(line, &words, ("memcached_set", Mode::Set), context),
        b"add" => store(line, &words, ("memcached_add", Mode::Add), context),
        b"replace" => store(line, &words, ("memcached_replace", Mode::Replace), context),
        b"append" => store(line, &words, ("memcached_append", Mode::Append), context),
        b"prepend" => store(line, &words, ("memcached_prepend", Mode::Prepend), context),
        b"cas" => store(line, &words, (CAS, Mode::Set), context),
        b"delete" => Parsed::Whole(delete(line, &words)),
        b"incr" => Parsed::Whole(count(line, &words, "memcached_incr", false)),
        b"decr" => Parsed::Whole(count(line, &words, "memcached_decr", true)),
        b"touch" => Parsed::Whole(touch(line, &words)),
        [b'm', which] => meta::parse(line, &words, *which, context),
        _ => Parsed::Whole(about_the_server(&words, context)),
    }
}

const CAS: &str = "memcached_cas";

/// The answer to what is no command.
pub(super) fn error() -> Parsed {
    Parsed::Whole(Command::refuse("memcached_unknown", ERROR, false))
}

fn is_noreply(words: &[&[u8]]) -> bool {
    words.last() == Some(&&b"noreply"[..])
}

fn get(line: &Bytes, words: &[&[u8]], name: &'static str, cas: bool) -> Parsed {
    if words.len() < 2 {
        return error();
    }
    let ops = |key| Op::new(key, Act::Item(ItemAct::Read));
    values(line, &words[1..], (name, cas), ops)
}

fn touch_and_get(line: &Bytes, words: &[&[u8]], name: &'static str, cas: bool) -> Parsed {
    if words.len() < 2 {
        return error();
    }
    let Some(seconds) = i32_of(words[1]) else { return Parsed::Whole(Command::refuse(name, BAD_TIME, false)) };
    let value = ItemTerms { expiry: expiry(seconds), ..ItemTerms::default() }.alone();
    values(line, &words[2..], (name, cas), |key| Op { key, act: Act::Item(ItemAct::Touch), value: value.clone() })
}

/// A command that answers the values of these keys.
fn values(line: &Bytes, keys: &[&[u8]], (name, cas): (&'static str, bool), op: impl Fn(Bytes) -> Op) -> Parsed {
    if keys.iter().any(|key| key.len() > KEY_BYTES_MAX) {
        return Parsed::Whole(Command::refuse(name, BAD_FORMAT, false));
    }
    let keys: SmallVec<[Bytes; 1]> = keys.iter().map(|key| line.slice_ref(key)).collect();
    let ops = keys.iter().map(|key| op(key.clone())).collect();
    Parsed::Whole(Command { name, asked: Asked::Keys(ops, Dress::Values { keys, cas }) })
}

fn store(line: &Bytes, words: &[&[u8]], (name, mode): (&'static str, Mode), context: Context) -> Parsed {
    let count = if name == CAS { 6 } else { 5 };
    if !(count..=count + 1).contains(&words.len()) {
        return error();
    }
    let quiet = is_noreply(words);
    let refuse = || Parsed::Whole(Command::refuse(name, BAD_FORMAT, quiet));
    let key = words[1];
    let numbers = (u32_of(words[2]), i32_of(words[3]), i32_of(words[4]));
    let (Some(flags), Some(seconds), Some(bytes)) = numbers else { return refuse() };
    let only = if name == CAS { u64_of(words[5]).map(|cas| Some(Only::Cas(cas))) } else { Some(None) };
    let (Some(only), Some(bytes)) = (only, data_bytes(bytes)) else { return refuse() };
    if key.len() > KEY_BYTES_MAX {
        return refuse();
    }
    let key = line.slice_ref(key);
    if !fits(context.item_bytes_max, key.len(), bytes, flags) {
        return Parsed::Swallow(too_large(name, key, mode == Mode::Set && only.is_none(), quiet), bytes + 2);
    }
    let expiry = expiry(seconds);
    let by_item = |terms| Store::Item(ItemAct::Store, Box::new(terms));
    let terms = ItemTerms { mode, expiry, flags, only, ..ItemTerms::default() };
    let store = match (mode, only) {
        (Mode::Set, None) => Store::Plain(When::Always, expiry, flags),
        (Mode::Add, _) => Store::Plain(When::Absent, expiry, flags),
        (Mode::Replace, _) => Store::Plain(When::Present, expiry, flags),
        (Mode::Set, Some(_)) => by_item(terms),
        (Mode::Append | Mode::Prepend, _) => {
            let bytes_max = value_bytes_max(context.item_bytes_max, key.len(), 0);
            by_item(ItemTerms { bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX), ..terms })
        }
    };
    Parsed::Data(Box::new(Draft { name, key, bytes, store, dress: Dress::Stored { quiet } }))
}

/// The length of data that a client announces, if there can be such.
pub(super) fn data_bytes(bytes: i32) -> Option<usize> {
    usize::try_from(bytes).ok().filter(|bytes| *bytes <= i32::MAX as usize - 2)
}

/// The answer to data that is too large. What was there goes, where it would have been replaced: it is out of date.
pub(super) fn too_large(name: &'static str, key: Bytes, replaces: bool, quiet: bool) -> Command {
    if !replaces {
        return Command::refuse(name, TOO_LARGE, quiet);
    }
    let ops = SmallVec::from_buf([Op::new(key, Act::Delete)]);
    Command { name, asked: Asked::Keys(ops, Dress::Line { line: TOO_LARGE, quiet }) }
}

fn delete(line: &Bytes, words: &[&[u8]]) -> Command {
    let name = "memcached_delete";
    if !(2..=4).contains(&words.len()) {
        return Command::refuse(name, ERROR, false);
    }
    let mut quiet = false;
    if words.len() > 2 {
        let hold_is_zero = words[2] == b"0";
        quiet = is_noreply(words);
        let is_valid = if words.len() == 3 { hold_is_zero || quiet } else { hold_is_zero && quiet };
        if !is_valid {
            let usage = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
            return Command::refuse(name, usage, quiet);
        }
    }
    one(line, words[1], name, quiet, |key| Op::new(key, Act::Delete), Dress::Deleted { quiet })
}

/// A command of one operation on one key, unless the key is too long.
fn one(
    line: &Bytes,
    key: &[u8],
    name: &'static str,
    quiet: bool,
    op: impl FnOnce(Bytes) -> Op,
    dress: Dress,
) -> Command {
    if key.len() > KEY_BYTES_MAX {
        return Command::refuse(name, BAD_FORMAT, quiet);
    }
    Command { name, asked: Asked::Keys(SmallVec::from_buf([op(line.slice_ref(key))]), dress) }
}

fn count(line: &Bytes, words: &[&[u8]], name: &'static str, down: bool) -> Command {
    if !(3..=4).contains(&words.len()) {
        return Command::refuse(name, ERROR, false);
    }
    let quiet = is_noreply(words);
    if words[1].len() > KEY_BYTES_MAX {
        return Command::refuse(name, BAD_FORMAT, quiet);
    }
    let Some(delta) = u64_of(words[2]) else {
        return Command::refuse(name, "CLIENT_ERROR invalid numeric delta argument", quiet);
    };
    let value = ItemTerms { delta, down, ..ItemTerms::default() }.alone();
    let op = |key| Op { key, act: Act::Item(ItemAct::Count), value };
    one(line, words[1], name, quiet, op, Dress::Counted { quiet })
}

fn touch(line: &Bytes, words: &[&[u8]]) -> Command {
    let name = "memcached_touch";
    if !(3..=4).contains(&words.len()) {
        return Command::refuse(name, ERROR, false);
    }
    let quiet = is_noreply(words);
    if words[1].len() > KEY_BYTES_MAX {
        return Command::refuse(name, BAD_FORMAT, quiet);
    }
    let Some(seconds) = i32_of(words[2]) else { return Command::refuse(name, BAD_TIME, quiet) };
    let value = ItemTerms { expiry: expiry(seconds), bare: true, ..ItemTerms::default() }.alone();
    let op = |key| Op { key, act: Act::Item(ItemAct::Touch), value };
    one(line, words[1], name, quiet, op, Dress::Touched { quiet })
}

/// What concerns no key, and what is no command at all.
fn about_the_server(words: &[&[u8]], context: Context) -> Command {
    let count = words.len();
    match words[0] {
        b"flush_all" if (1..=3).contains(&count) => flush_all(words, context),
        b"version" => {
            let line = format!("VERSION {MEMCACHED_VERSION}");
            Command { name: "memcached_version", asked: Asked::Say(line.into(), false) }
        }
        b"verbosity" if (2..=3).contains(&count) => {
            let quiet = is_noreply(words);
            match u32_of(words[1]) {
                Some(_) => Command::say("memcached_verbosity", if quiet { "" } else { "OK" }),
                None => Command::refuse("memcached_verbosity", BAD_FORMAT, quiet),
            }
        }
        b"stats" => Stats::parse(&words[1..]),
        b"quit" => Command { name: "memcached_quit", asked: Asked::Quit },
        b"shutdown" => Command::refuse("memcached_shutdown", "ERROR: shutdown not enabled", false),
        // What looks after memory that does not exist here.
        b"cache_memlimit" if (2..=3).contains(&count) => {
            let line = "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust";
            Command::refuse("memcached_cache_memlimit", line, is_noreply(words))
        }
        b"watch" => Command::refuse("memcached_watch", "CLIENT_ERROR watch commands not allowed", is_noreply(words)),
        b"lru_crawler" if count > 1 => {
            Command::refuse("memcached_lru_crawler", "CLIENT_ERROR lru crawler disabled", false)
        }
        b"slabs" if count == 4 && words[1] == b"reassign" => {
            Command::refuse("memcached_slabs", "CLIENT_ERROR slab reassignment disabled", false)
        }
        // As memcached: not of commands whose first letter it goes by.
        [first, ..] if !b"gsacidt".contains(first) && words.last().is_some_and(|word| word.starts_with(b"HTTP/")) => {
            Command { name: "memcached_unknown", asked: Asked::HangUp }
        }
        _ => Command::refuse("memcached_unknown", ERROR, false),
    }
}

fn flush_all(words: &[&[u8]], context: Context) -> Command {
    let name = "memcached_flush_all";
    let quiet = is_noreply(words);
    let mut seconds = 0;
    if words.len() != if quiet { 2 } else { 1 } {
        match i32_of(words[1]) {
            Some(parsed) => seconds = i64::from(parsed),
            None => return Command::refuse(name, BAD_TIME, quiet),
        }
    }
    let after = if seconds > RELATIVE_SECONDS_MAX { seconds - context.now_s } else { seconds };
    Command { name, asked: Asked::Flush { after_s: u64::try_from(after).unwrap_or(0), quiet } }
}
