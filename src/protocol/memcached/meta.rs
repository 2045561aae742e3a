//! Lines of the meta protocol to commands: a key and single letters, each with a value behind it or none. What each means, in which order they
//! are looked at and what each refusal says is memcached's. Tested in `decode/tests.rs`.

use std::num::NonZeroU64;

use bytes::Bytes;
use smallvec::SmallVec;

use super::dress::{Dress, Left, Meta, MetaKind, Shown};
use super::number::{i32_of, u32_of, u64_of};
use super::text::{Context, data_bytes, malformed, too_large};
use super::{
    Asked, BAD_FORMAT, Command, Draft, KEY_BYTES_MAX, Parsed, RELATIVE_SECONDS_MAX, Store, expiry, fits,
    value_bytes_max,
};
use crate::base::item::{ItemAct, ItemTerms, Mode, Only};
use crate::base::op::{Act, Deadline, Expiry, Op, When};
use crate::protocol::base64;

/// Words a command may have.
const WORDS_MAX: usize = 20;
/// Longest opaque, its letter included.
const OPAQUE_BYTES_MAX: usize = 32;

const TOO_MANY: &str = "CLIENT_ERROR options flags are too long";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const BAD_FLAG: &str = "CLIENT_ERROR invalid or duplicate flag";
const LONG_OPAQUE: &str = "CLIENT_ERROR opaque token too long";

/// The terms of one that does without the value, and wants nothing else: they stand for themselves.
const BARE: &[u8] = b"b\x01";

/// What the letters say.
#[derive(Default)]
struct Flags {
    value: bool,
    quiet: bool,
    binary: bool,
    unseen: bool,
    stale: bool,
    strip: bool,
    mode: Option<u8>,
    client_flags: u32,
    ttl: Option<i32>,
    vivify: Option<i32>,
    /// What an item that is made expires by: the last of `T` and `N`.
    made: Option<i32>,
    recache: Option<i32>,
    recache_last: bool,
    only: Option<u64>,
    cas: Option<u64>,
    delta: Option<u64>,
    initial: u64,
    long_opaque: bool,
    wants_cas: bool,
    shown: SmallVec<[Shown; 4]>,
}

/// Reads a meta command. `words` has its name at least.
pub(super) fn parse(line: &Bytes, words: &[&[u8]], which: u8, context: Context) -> Parsed {
    let (name, kind) = match which {
        b'g' => ("memcached_mg", MetaKind::Get),
        b's' => ("memcached_ms", MetaKind::Set),
        b'd' => ("memcached_md", MetaKind::Delete),
        b'a' => ("memcached_ma", MetaKind::Count),
        b'e' => return Parsed::Whole(debug(line, words)),
        _ => return Parsed::Whole(Command::say("memcached_mn", "MN")),
    };
    let first_flag = if kind == MetaKind::Set { 3 } else { 2 };
    if words.len() < first_flag || !are_flags(&words[first_flag..]) {
        return Parsed::Whole(malformed(name));
    }
    let mut bytes = 0;
    if kind == MetaKind::Set {
        let Some(announced) = i32_of(words[2]).and_then(data_bytes) else { return Parsed::Whole(malformed(name)) };
        bytes = announced;
    }
    // From here on the data of a refused `ms` is thrown away.
    let refuse = |text| {
        let command = Command::refuse(name, text, false);
        if kind == MetaKind::Set { Parsed::Swallow(command, bytes + 2) } else { Parsed::Whole(command) }
    };
    let (key, flags) = match flags(line, words, first_flag, context) {
        Ok(read) => read,
        Err(_) if kind == MetaKind::Count => return refuse(BAD_FLAG),
        Err(text) => return refuse(text),
    };
    match kind {
        MetaKind::Set => set((key, flags, bytes), context).unwrap_or_else(refuse),
        MetaKind::Get | MetaKind::Delete if flags.long_opaque => refuse(LONG_OPAQUE),
        MetaKind::Get => Parsed::Whole(get(key, flags)),
        MetaKind::Delete => Parsed::Whole(delete(key, flags)),
        MetaKind::Count => count(key, flags).map_or_else(refuse, Parsed::Whole),
    }
}

/// Whether these words may be letters with something behind them at all.
fn are_flags(words: &[&[u8]]) -> bool {
    words.iter().all(|word| matches!(word[0], b'0'..=b'9' | b'A'..=b'z'))
}

/// Reads key and letters. Of several refusals the last is told, but for a letter twice or unknown, which end the reading.
fn flags(line: &Bytes, words: &[&[u8]], first: usize, context: Context) -> Result<(Bytes, Flags), &'static str> {
    if words[1].len() > KEY_BYTES_MAX {
        return Err(BAD_FORMAT);
    }
    if words.len() > WORDS_MAX {
        return Err(TOO_MANY);
    }
    let mut flags = Flags::default();
    let mut key = line.slice_ref(words[1]);
    let mut seen = [false; 127];
    let mut refusal = None;
    for word in words.iter().skip(first) {
        let (letter, rest) = (word[0], &word[1..]);
        match seen.get_mut(usize::from(letter)) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err("CLIENT_ERROR duplicate flag"),
        }
        let done = match letter {
            b'b' => {
                flags.binary = true;
                let decoded = base64::decode_what_is(words[1]).map(|decoded| key = decoded.into());
                decoded.ok_or("CLIENT_ERROR error decoding key")
            }
            b'N' | b'T' | b'R' => i32_of(rest).map(|seconds| flags.time(letter, seconds)).ok_or(BAD_TOKEN),
            b'C' => u64_of(rest).map(|cas| flags.only = Some(cas)).ok_or(BAD_TOKEN),
            b'E' => u64_of(rest).map(|cas| flags.cas = Some(cas)).ok_or(BAD_TOKEN),
            b'J' => u64_of(rest).map(|n| flags.initial = n).ok_or("CLIENT_ERROR invalid numeric initial value"),
            b'D' => u64_of(rest).map(|n| flags.delta = Some(n)).ok_or("CLIENT_ERROR invalid numeric delta value"),
            b'F' => u32_of(rest).map(|n| flags.client_flags = n).ok_or(refusal.unwrap_or(BAD_FORMAT)),
            b'M' => {
                // The first letter counts. None is taken for one that is unknown, and a zero for no `M`.
                flags.mode = Some(rest.first().copied().unwrap_or(b' ')).filter(|mode| *mode != 0);
                Ok(())
            }
            _ => flags.letter(letter, line.slice_ref(word), context)?,
        };
        if let Err(text) = done {
            refusal = Some(text);
        }
    }
    refusal.map_or(Ok((key, flags)), Err)
}

impl Flags {
    /// `N`, `T` and `R`.
    fn time(&mut self, letter: u8, seconds: i32) {
        match letter {
            b'N' => (self.vivify, self.made) = (Some(seconds), Some(seconds)),
            b'T' => (self.ttl, self.made) = (Some(seconds), Some(seconds)),
            _ => (self.recache, self.recache_last) = (Some(seconds), self.ttl.is_some()),
        }
    }

    /// Letters with nothing to be parsed behind them. The outer result is for unknown ones.
    fn letter(&mut self, letter: u8, word: Bytes, context: Context) -> Result<Result<(), &'static str>, &'static str> {
        let mut show = |shown| self.shown.push(shown);
        match letter {
            b'k' => show(Shown::Key),
            b's' => show(Shown::Size),
            b't' => show(Shown::Ttl {
                present: self.ttl.map(|seconds| left(seconds, context)),
                // Made without a deadline, until `T` or `N` gives it one.
                made: self.made.map_or(Left::Never, |seconds| left(seconds, context)),
            }),
            b'f' => show(Shown::Flags),
            b'l' => show(Shown::Access),
            b'h' => show(Shown::Hit),
            b'c' => {
                show(Shown::Cas);
                self.wants_cas = true;
            }
            b'O' => {
                self.long_opaque = word.len() > OPAQUE_BYTES_MAX;
                show(Shown::Opaque(word));
            }
            b'v' => self.value = true,
            b'q' => self.quiet = true,
            b'u' => self.unseen = true,
            b'x' => self.strip = true,
            b'I' => self.stale = true,
            b'P' | b'L' => {}
            _ => return Err("CLIENT_ERROR invalid flag"),
        }
        Ok(Ok(()))
    }

    fn expiry(&self) -> Expiry {
        self.ttl.map_or(Expiry::Keep, expiry)
    }

    fn own_cas(&self) -> Option<NonZeroU64> {
        self.cas.and_then(NonZeroU64::new)
    }

    fn dress(self, kind: MetaKind, key: &Bytes, len: usize) -> Dress {
        Dress::Meta(Box::new(Meta {
            kind,
            key: if self.binary { base64::encode(key).into() } else { key.clone() },
            binary: self.binary,
            value: self.value,
            unless: self.only.filter(|_| kind == MetaKind::Get),
            quiet: self.quiet,
            shown: self.shown,
            len: len as u32,
        }))
    }
}

/// What a time given a moment ago leaves.
fn left(seconds: i32, context: Context) -> Left {
    match i64::from(seconds) {
        0 => Left::Never,
        ..0 => Left::Seconds(0),
        seconds @ 1..=RELATIVE_SECONDS_MAX => Left::Seconds(seconds as u64),
        seconds => Left::Seconds(u64::try_from(seconds - context.now_s).unwrap_or(0)),
    }
}

fn one(name: &'static str, op: Op, dress: Dress) -> Command {
    Command { name, asked: Asked::Keys(SmallVec::from_buf([op]), dress) }
}

fn get(key: Bytes, flags: Flags) -> Command {
    let recache = flags.recache.and_then(|seconds| match expiry(seconds) {
        Expiry::Until(deadline) if deadline != Deadline::At(0) => Some(deadline),
        _ => None,
    });
    let terms = ItemTerms {
        expiry: flags.expiry(),
        cas: flags.own_cas(),
        vivify: flags.vivify.and(flags.made).map(expiry),
        recache,
        recache_last: flags.recache_last,
        unseen: flags.unseen,
        bare: !flags.value,
        ..ItemTerms::default()
    };
    let value = if terms == ItemTerms::default() {
        Bytes::new()
    } else if terms == (ItemTerms { bare: true, ..ItemTerms::default() }) {
        Bytes::from_static(BARE)
    } else {
        terms.alone()
    };
    let dress = flags.dress(MetaKind::Get, &key, 0);
    one("memcached_mg", Op { key, act: Act::Item(ItemAct::Fetch), value }, dress)
}

fn set((key, flags, bytes): (Bytes, Flags, usize), context: Context) -> Result<Parsed, &'static str> {
    let name = "memcached_ms";
    let mode = match flags.mode {
        None | Some(b'S') => Mode::Set,
        Some(b'E') => Mode::Add,
        Some(b'A') => Mode::Append,
        Some(b'P') => Mode::Prepend,
        Some(b'R') => Mode::Replace,
        Some(_) => return Err("CLIENT_ERROR invalid mode for ms M token"),
    };
    if !fits(context.item_bytes_max, key.len(), bytes, flags.client_flags) {
        return Ok(Parsed::Swallow(too_large(name, key, true, false), bytes + 2));
    }
    if flags.long_opaque {
        return Err(LONG_OPAQUE);
    }
    let expiry_of = |seconds: Option<i32>| seconds.map_or(Expiry::Clear, expiry);
    let is_plain = flags.only.is_none() && flags.cas.is_none() && !flags.wants_cas;
    let joins = matches!(mode, Mode::Append | Mode::Prepend);
    let bytes_max = if joins { value_bytes_max(context.item_bytes_max, key.len(), 0) } else { 0 };
    let terms = || ItemTerms {
        mode,
        expiry: expiry_of(flags.ttl),
        flags: flags.client_flags,
        only: flags.only.map(Only::Cas),
        cas: flags.own_cas(),
        stale: flags.stale,
        vivify: flags.vivify.map(expiry),
        bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX),
        ..ItemTerms::default()
    };
    let store = match mode {
        Mode::Set if is_plain => Store::Plain(When::Always, expiry_of(flags.ttl), flags.client_flags),
        Mode::Add if is_plain => Store::Plain(When::Absent, expiry_of(flags.ttl), flags.client_flags),
        Mode::Replace if is_plain => Store::Plain(When::Present, expiry_of(flags.ttl), flags.client_flags),
        Mode::Set if flags.only.is_none() => Store::Item(ItemAct::Put, Box::new(terms())),
        _ => Store::Item(ItemAct::Store, Box::new(terms())),
    };
    let dress = flags.dress(MetaKind::Set, &key, bytes);
    Ok(Parsed::Data(Box::new(Draft { name, key, bytes, store, dress })))
}

fn delete(key: Bytes, flags: Flags) -> Command {
    let shown = key.clone();
    let op = if flags.only.is_none() && !flags.stale && !flags.strip {
        Op::new(key, Act::Delete)
    } else {
        let terms = ItemTerms {
            expiry: flags.expiry(),
            flags: flags.client_flags,
            only: flags.only.map(Only::Cas),
            cas: flags.own_cas(),
            stale: flags.stale,
            strip: flags.strip,
            ..ItemTerms::default()
        };
        Op { key, act: Act::Item(ItemAct::Remove), value: terms.alone() }
    };
    one("memcached_md", op, flags.dress(MetaKind::Delete, &shown, 0))
}

fn count(key: Bytes, flags: Flags) -> Result<Command, &'static str> {
    let down = match flags.mode {
        None | Some(b'I' | b'+') => false,
        Some(b'D' | b'-') => true,
        Some(_) => return Err("CLIENT_ERROR invalid mode for ma M token"),
    };
    if flags.long_opaque {
        return Err(LONG_OPAQUE);
    }
    let terms = ItemTerms {
        expiry: flags.expiry(),
        only: flags.only.map(Only::Cas),
        cas: flags.own_cas(),
        vivify: flags.vivify.and(flags.made).map(expiry),
        delta: flags.delta.unwrap_or(1),
        initial: flags.initial,
        down,
        ..ItemTerms::default()
    };
    let dress = flags.dress(MetaKind::Count, &key, 0);
    Ok(one("memcached_ma", Op { key, act: Act::Item(ItemAct::Count), value: terms.alone() }, dress))
}

/// `me`. As in memcached 1.6.45, a key in base64 is one if something stands behind the `b`.
fn debug(line: &Bytes, words: &[&[u8]]) -> Command {
    let name = "memcached_me";
    let Some(text) = words.get(1).filter(|key| key.len() <= KEY_BYTES_MAX) else { return malformed(name) };
    if !are_flags(&words[2..]) {
        return malformed(name);
    }
    let shown = line.slice_ref(text);
    let is_binary = words.len() >= 4 && words[2] == b"b";
    let key = if is_binary { base64::decode_what_is(text).map(Bytes::from) } else { Some(shown.clone()) };
    let Some(key) = key else { return malformed(name) };
    let shown = if is_binary { base64::encode(&key).into() } else { shown };
    let dress = Dress::Debug { shown, key_len: key.len() as u32 };
    one(name, Op::new(key, Act::Item(ItemAct::Peek)), dress)
}
