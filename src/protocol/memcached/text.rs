//! Lines of the text protocol to commands. Which words a command takes, in which order they are looked at and what each refusal says is
//! memcached 1.6.45's `process_request` and below. Tested in `decode/tests.rs`.

use bytes::Bytes;
use smallvec::SmallVec;

use super::dress::Dress;
use super::number::{i32_of, loose_i32, loose_u32, u32_of, u64_of};
use super::stats::Stats;
use super::{
    Asked, BAD_FORMAT, Command, Draft, KEY_BYTES_MAX, MEMCACHED_VERSION, Parsed, RELATIVE_SECONDS_MAX, Store,
    TOO_LARGE, WORDS_MAX, expiry, fits, meta, value_bytes_max,
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
    let all = || line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    // These are not looked for behind spaces.
    let name = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    match name {
        b"get" => return get(line, all().skip(1), "memcached_get", false),
        b"gets" => return get(line, all().skip(1), "memcached_gets", true),
        b"gat" => return touch_and_get(line, all().skip(1), "memcached_gat", false),
        b"gats" => return touch_and_get(line, all().skip(1), "memcached_gats", true),
        _ => {}
    }
    let words: Words<'_> = all().take(WORDS_MAX).collect();
    let whole = match name {
        b"set" => return store(line, &words, ("memcached_set", Mode::Set), context),
        b"add" => return store(line, &words, ("memcached_add", Mode::Add), context),
        b"replace" => return store(line, &words, ("memcached_replace", Mode::Replace), context),
        b"append" => return store(line, &words, ("memcached_append", Mode::Append), context),
        b"prepend" => return store(line, &words, ("memcached_prepend", Mode::Prepend), context),
        b"cas" => return store(line, &words, (CAS, Mode::Set), context),
        [b'm', which @ (b'g' | b's' | b'd' | b'a' | b'n' | b'e')] => return meta::parse(line, &words, *which, context),
        b"delete" => delete(line, &words),
        b"incr" => count(line, &words, "memcached_incr", false),
        b"decr" => count(line, &words, "memcached_decr", true),
        b"touch" => touch(line, &words),
        b"stats" => Stats::parse(&words[1..]),
        b"version" => {
            let line = format!("VERSION {MEMCACHED_VERSION}");
            Command { name: "memcached_version", asked: Asked::Say(line.into(), false) }
        }
        b"quit" => Command { name: "memcached_quit", asked: Asked::Quit },
        b"watch" => Command::refuse("memcached_watch", "CLIENT_ERROR watch commands not allowed", false),
        _ => about_the_server(&words, context),
    };
    Parsed::Whole(whole)
}

const CAS: &str = "memcached_cas";

/// The answer to a command that lacks words, whatever else it says.
pub(super) fn malformed(name: &'static str) -> Command {
    Command::refuse(name, BAD_FORMAT, false)
}

fn is_noreply(words: &[&[u8]]) -> bool {
    words.last() == Some(&&b"noreply"[..])
}

fn get<'a>(line: &Bytes, keys: impl Iterator<Item = &'a [u8]>, name: &'static str, cas: bool) -> Parsed {
    values(line, keys, (name, cas), |key| Op::new(key, Act::Item(ItemAct::Read)))
}

fn touch_and_get<'a>(line: &Bytes, mut words: impl Iterator<Item = &'a [u8]>, name: &'static str, cas: bool) -> Parsed {
    let seconds = words.next().map(i32_of);
    let mut keys = words.peekable();
    let Some(seconds) = seconds.filter(|_| keys.peek().is_some()) else { return Parsed::Whole(malformed(name)) };
    let Some(seconds) = seconds else { return Parsed::Whole(Command::refuse(name, BAD_TIME, false)) };
    let value = ItemTerms { expiry: expiry(seconds), ..ItemTerms::default() }.alone();
    values(line, keys, (name, cas), |key| Op { key, act: Act::Item(ItemAct::Touch), value: value.clone() })
}

/// A command that answers the values of these keys.
fn values<'a>(
    line: &Bytes,
    keys: impl Iterator<Item = &'a [u8]>,
    (name, cas): (&'static str, bool),
    op: impl Fn(Bytes) -> Op,
) -> Parsed {
    let keys: SmallVec<[Bytes; 1]> = keys.map(|key| line.slice_ref(key)).collect();
    if keys.is_empty() || keys.iter().any(|key| key.len() > KEY_BYTES_MAX) {
        return Parsed::Whole(malformed(name));
    }
    let ops = keys.iter().map(|key| op(key.clone())).collect();
    Parsed::Whole(Command { name, asked: Asked::Keys(ops, Dress::Values { keys, cas }) })
}

fn store(line: &Bytes, words: &[&[u8]], (name, mode): (&'static str, Mode), context: Context) -> Parsed {
    let Some(bytes) = words.get(4).and_then(|word| i32_of(word)).and_then(data_bytes) else {
        return Parsed::Whole(malformed(name));
    };
    // From here on the data of what is refused is thrown away.
    let quiet = is_noreply(words);
    let refuse = || Parsed::Swallow(Command::refuse(name, BAD_FORMAT, quiet), bytes + 2);
    let key = words[1];
    if key.len() > KEY_BYTES_MAX {
        return refuse();
    }
    let (Some(flags), Some(seconds)) = (loose_u32(words[2]), loose_i32(words[3])) else { return refuse() };
    let only = if name == CAS {
        let Some(cas) = words.get(5).and_then(|word| u64_of(word)) else { return refuse() };
        Some(Only::Cas(cas))
    } else {
        None
    };
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
    // memcached 1.6.45 deletes however many words follow. libmemcached's `memccapable` wants many refused, as 1.6.18 did.
    if !(2..=4).contains(&words.len()) {
        return malformed(name);
    }
    let quiet = is_noreply(words);
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
    if words.len() < 3 {
        return malformed(name);
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
    if words.len() < 3 {
        return malformed(name);
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

/// What concerns no key and is found behind spaces too, and what is no command at all.
fn about_the_server(words: &[&[u8]], context: Context) -> Command {
    let quiet = is_noreply(words);
    let argument = words.get(1).copied().unwrap_or_default();
    match words.first().copied().unwrap_or_default() {
        b"flush_all" => flush_all(words, context),
        b"verbosity" => match u32_of(argument) {
            Some(_) => Command::say("memcached_verbosity", if quiet { "" } else { "OK" }),
            None => Command::refuse("memcached_verbosity", BAD_FORMAT, quiet),
        },
        b"shutdown" => Command::refuse("memcached_shutdown", "SERVER_ERROR: shutdown not enabled", quiet),
        // What looks after memory that does not exist here.
        b"cache_memlimit" => {
            let line = match u32_of(argument) {
                None => ERROR,
                Some(..8) => "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m",
                Some(..=1_000_000_000) => "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust",
                Some(_) => "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes",
            };
            Command::refuse("memcached_cache_memlimit", line, quiet)
        }
        b"lru_crawler" if (2..=3).contains(&words.len()) => {
            Command::refuse("memcached_lru_crawler", "CLIENT_ERROR lru crawler disabled", quiet)
        }
        b"slabs" if words.len() == 4 && b"reassign".starts_with(argument) => {
            Command::refuse("memcached_slabs", "CLIENT_ERROR slab reassignment disabled", quiet)
        }
        b"slabs" | b"lru" | b"lru_crawler" | b"extstore" => Command::refuse("memcached_unknown", ERROR, quiet),
        _ if words.len() > 1 && words.last().is_some_and(|word| word.starts_with(b"HTTP/")) => {
            Command { name: "memcached_unknown", asked: Asked::HangUp }
        }
        _ => Command::refuse("memcached_unknown", ERROR, quiet),
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
