//! Answers of the router to what a memcached client reads: the one place that writes lines of this protocol. Never decides what was done.
//! Tested below and in `decode/tests.rs`.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{FLAGS_BYTES, ITEM_BYTES_BESIDES, NOT_A_NUMBER};
use crate::base::item::ItemOutcome;
use crate::base::reply::ReplyKind;
use crate::protocol::item::{Answer, Content, Item};
use crate::protocol::resp::encode::ReplyBuf;

/// What the answers to a command's operations are made into. `quiet` ones say nothing where memcached's `noreply` would not.
#[derive(Debug)]
pub enum Dress {
    /// `VALUE` lines, and `END`.
    Values {
        /// What was asked for, in order.
        keys: SmallVec<[Bytes; 1]>,
        /// With CAS uniques.
        cas: bool,
    },
    /// `STORED` and its sisters.
    Stored {
        /// See above.
        quiet: bool,
    },
    /// `DELETED`.
    Deleted {
        /// See above.
        quiet: bool,
    },
    /// `TOUCHED`.
    Touched {
        /// See above.
        quiet: bool,
    },
    /// The number.
    Counted {
        /// See above.
        quiet: bool,
    },
    /// This, whatever they were.
    Line {
        /// The line.
        line: &'static str,
        /// See above.
        quiet: bool,
    },
    /// The answer to a meta command.
    Meta(Box<Meta>),
    /// The answer to `me`.
    Debug {
        /// The key as it was named.
        shown: Bytes,
        /// Bytes of the key.
        key_len: u32,
    },
}

/// How a meta command is answered.
#[derive(Debug)]
pub struct Meta {
    /// Which.
    pub(super) kind: MetaKind,
    /// The key as it is told.
    pub(super) key: Bytes,
    /// Whether that is in base64.
    pub(super) binary: bool,
    /// With the value.
    pub(super) value: bool,
    /// But without it if this is its CAS unique: the client has it.
    pub(super) unless: Option<u64>,
    /// Without the usual answer.
    pub(super) quiet: bool,
    /// What to tell, in the order asked for.
    pub(super) shown: SmallVec<[Shown; 4]>,
    /// Bytes of the data that were to be stored.
    pub(super) len: u32,
}

/// The meta commands that have a [`Meta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaKind {
    Get,
    Set,
    Delete,
    Count,
}

/// A letter that asks to be told something.
#[derive(Debug)]
pub(super) enum Shown {
    Size,
    /// Time left: of an item that was there, where `T` stands before, and of one that was made.
    Ttl {
        present: Option<Left>,
        made: Left,
    },
    Cas,
    Flags,
    Access,
    Hit,
    Opaque(Bytes),
    Key,
}

/// Time left.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    Never,
    Seconds(u64),
}

impl Dress {
    /// Appends what the answers `range` of `answers` come to. Whether it is an error.
    ///
    /// # Panics
    /// When there are fewer answers.
    pub fn put(&self, answers: &ReplyBuf, range: Range<usize>, out: &mut ReplyBuf) -> bool {
        let failed = range.clone().find(|n| answers.kind(*n) == Some(ReplyKind::Error));
        if let Some(failed) = failed {
            if let Answer::Error(text) = answers.answer(failed)
                && !self.is_silent()
            {
                put_error(text, out);
            }
            out.close(ReplyKind::Error);
            return true;
        }
        match self {
            Self::Values { keys, cas } => {
                for (key, n) in keys.iter().zip(range) {
                    if let Answer::Item(item) = answers.answer(n) {
                        put_value(key, item, *cas, out);
                    }
                }
                out.write(b"END\r\n");
            }
            Self::Meta(meta) => meta.put(answers.answer(range.start), out),
            Self::Debug { shown, key_len } => put_debug(shown, *key_len, answers.answer(range.start), out),
            Self::Counted { quiet } => match answers.answer(range.start) {
                _ if *quiet => {}
                Answer::Item(Item { value: Some(number), .. }) => {
                    out.write(number.bytes());
                    out.write(b"\r\n");
                }
                Answer::Item(Item { outcome: ItemOutcome::NotNumber, .. }) => put_line(NOT_A_NUMBER, out),
                _ => put_line("NOT_FOUND", out),
            },
            _ if self.is_silent() => {}
            Self::Line { line, .. } => put_line(line, out),
            Self::Stored { .. } => put_line(stored(&answers.answer(range.start)), out),
            Self::Deleted { .. } => {
                let done = answers.answer(range.start) == Answer::Int(1);
                put_line(if done { "DELETED" } else { "NOT_FOUND" }, out);
            }
            Self::Touched { .. } => {
                let done = matches!(answers.answer(range.start), Answer::Item(_));
                put_line(if done { "TOUCHED" } else { "NOT_FOUND" }, out);
            }
        }
        out.close(ReplyKind::Value);
        false
    }

    /// Whether not even an error is told, as memcached has it with `noreply`.
    fn is_silent(&self) -> bool {
        match self {
            Self::Stored { quiet }
            | Self::Deleted { quiet }
            | Self::Touched { quiet }
            | Self::Counted { quiet }
            | Self::Line { quiet, .. } => *quiet,
            Self::Values { .. } | Self::Meta(_) | Self::Debug { .. } => false,
        }
    }
}

/// Appends a line.
pub fn put_line(line: &str, out: &mut ReplyBuf) {
    out.write(line.as_bytes());
    out.write(b"\r\n");
}

/// Appends an error of the router, by its first word.
pub fn put_error(text: &[u8], out: &mut ReplyBuf) {
    if text.starts_with(b"OOM ") {
        return put_line("SERVER_ERROR out of memory storing object", out);
    }
    out.write(b"SERVER_ERROR ");
    out.write(text);
    out.write(b"\r\n");
}

fn stored(answer: &Answer<'_>) -> &'static str {
    match answer {
        Answer::Ok => "STORED",
        Answer::Item(item) => match item.outcome {
            ItemOutcome::Done | ItemOutcome::Created => "STORED",
            ItemOutcome::Differs => "EXISTS",
            ItemOutcome::Missing => "NOT_FOUND",
            ItemOutcome::NotStored | ItemOutcome::NotNumber => "NOT_STORED",
        },
        _ => "NOT_STORED",
    }
}

fn number(number: u64, out: &mut ReplyBuf) {
    out.write(itoa::Buffer::new().format(number).as_bytes());
}

fn put_content(value: Option<Content<'_>>, out: &mut ReplyBuf) {
    match value {
        None => {}
        Some(Content::Copied(bytes)) => out.write(bytes),
        Some(Content::Shared(bytes)) => out.write_shared(bytes),
    }
    out.write(b"\r\n");
}

fn put_value(key: &[u8], item: Item<'_>, cas: bool, out: &mut ReplyBuf) {
    out.write(b"VALUE ");
    out.write(key);
    out.write(b" ");
    number(u64::from(item.marks.flags), out);
    out.write(b" ");
    number(u64::from(item.len), out);
    if cas {
        out.write(b" ");
        number(item.cas_unique(), out);
    }
    out.write(b"\r\n");
    put_content(item.value, out);
}

/// `ME`. `size` is what memcached would reckon, `la` the time since it was written, and there is one class.
fn put_debug(shown: &[u8], key_len: u32, answer: Answer<'_>, out: &mut ReplyBuf) {
    let Answer::Item(item) = answer else { return put_line("EN", out) };
    let flags = if item.marks.flags == 0 { 0 } else { FLAGS_BYTES };
    let size = u64::from(item.len) + u64::from(key_len) + (ITEM_BYTES_BESIDES + 2 + flags) as u64;
    out.write(b"ME ");
    out.write(shown);
    let exp = item.ttl_ms.map_or_else(|| "-1".to_owned(), |ms| ms.div_ceil(1_000).to_string());
    let (la, cas, fetch) = (item.age_ms / 1_000, item.cas_unique(), if item.was_hit { "yes" } else { "no" });
    put_line(&format!(" exp={exp} la={la} cas={cas} fetch={fetch} cls=1 size={size}"), out);
}

impl Meta {
    fn put(&self, answer: Answer<'_>, out: &mut ReplyBuf) {
        match self.kind {
            MetaKind::Get => self.put_get(answer, out),
            MetaKind::Count => self.put_count(answer, out),
            MetaKind::Set | MetaKind::Delete => self.put_change(&answer, out),
        }
    }

    fn put_get(&self, answer: Answer<'_>, out: &mut ReplyBuf) {
        let Answer::Item(item) = answer else {
            if !self.quiet {
                out.write(b"EN");
                self.put_names(out);
                out.write(b"\r\n");
            }
            return;
        };
        let value = self.value && self.unless != Some(item.cas_unique());
        self.put_item(&item, value, out);
        for (is_so, letter) in [(item.marks.is_promised, b" Z"), (item.marks.is_stale, b" X"), (item.won, b" W")] {
            if is_so {
                out.write(letter);
            }
        }
        out.write(b"\r\n");
        if value {
            put_content(item.value, out);
        }
    }

    fn put_count(&self, answer: Answer<'_>, out: &mut ReplyBuf) {
        let item = match answer {
            Answer::Item(item) if item.outcome == ItemOutcome::NotNumber => return put_line(NOT_A_NUMBER, out),
            Answer::Item(item) if matches!(item.outcome, ItemOutcome::Done | ItemOutcome::Created) => item,
            Answer::Item(Item { outcome: ItemOutcome::Differs, .. }) => return self.put_refusal(b"EX", out),
            _ => return self.put_refusal(b"NF", out),
        };
        if self.quiet {
            return;
        }
        self.put_item(&item, self.value, out);
        out.write(b"\r\n");
        if self.value {
            put_content(item.value, out);
        }
    }

    fn put_refusal(&self, word: &[u8], out: &mut ReplyBuf) {
        out.write(word);
        self.put_names(out);
        out.write(b"\r\n");
    }

    fn put_change(&self, answer: &Answer<'_>, out: &mut ReplyBuf) {
        let outcome = match (self.kind, answer) {
            (_, Answer::Item(item)) => item.outcome,
            (_, Answer::Ok | Answer::Int(1)) => ItemOutcome::Done,
            (MetaKind::Delete, _) => ItemOutcome::Missing,
            _ => ItemOutcome::NotStored,
        };
        let word = match outcome {
            ItemOutcome::Done | ItemOutcome::Created if self.quiet => return,
            ItemOutcome::Done | ItemOutcome::Created => b"HD",
            ItemOutcome::Differs => b"EX",
            ItemOutcome::Missing => b"NF",
            ItemOutcome::NotStored | ItemOutcome::NotNumber => b"NS",
        };
        if self.kind == MetaKind::Delete {
            return self.put_refusal(word, out);
        }
        out.write(word);
        for shown in &self.shown {
            match (shown, answer) {
                (Shown::Cas, Answer::Item(item)) if word == b"HD" => {
                    out.write(b" c");
                    number(item.cas_unique(), out);
                }
                (Shown::Cas, _) => out.write(b" c0"),
                (Shown::Size, Answer::Item(item)) if word == b"HD" => {
                    out.write(b" s");
                    number(u64::from(item.len), out);
                }
                (Shown::Size, _) => {
                    out.write(b" s");
                    number(u64::from(self.len), out);
                }
                _ => self.put_name(shown, out),
            }
        }
        out.write(b"\r\n");
    }

    /// Opaque and key, which every answer has.
    fn put_names(&self, out: &mut ReplyBuf) {
        self.shown.iter().for_each(|shown| self.put_name(shown, out));
    }

    fn put_name(&self, shown: &Shown, out: &mut ReplyBuf) {
        match shown {
            Shown::Opaque(opaque) => {
                out.write(b" ");
                out.write(opaque);
            }
            Shown::Key => {
                out.write(b" k");
                out.write(&self.key);
                if self.binary {
                    out.write(b" b");
                }
            }
            _ => {}
        }
    }

    /// `VA` or `HD`, and what is asked of the item.
    fn put_item(&self, item: &Item<'_>, value: bool, out: &mut ReplyBuf) {
        if value {
            out.write(b"VA ");
            number(u64::from(item.len), out);
        } else {
            out.write(b"HD");
        }
        for shown in &self.shown {
            let (letter, value) = match shown {
                // `ma` knows the first three of what follows.
                Shown::Cas => (b" c", item.cas_unique()),
                Shown::Ttl { present, made } => {
                    let before = || item.ttl_ms.map_or(Left::Never, |ms| Left::Seconds(ms.div_ceil(1_000)));
                    let is_made = item.outcome == ItemOutcome::Created;
                    match if is_made { *made } else { present.unwrap_or_else(before) } {
                        Left::Seconds(seconds) => (b" t", seconds),
                        Left::Never => {
                            out.write(b" t-1");
                            continue;
                        }
                    }
                }
                Shown::Opaque(_) | Shown::Key => {
                    self.put_name(shown, out);
                    continue;
                }
                _ if self.kind != MetaKind::Get => continue,
                Shown::Size => (b" s", u64::from(item.len)),
                Shown::Flags => (b" f", u64::from(item.marks.flags)),
                Shown::Access => (b" l", item.age_ms / 1_000),
                Shown::Hit => (b" h", u64::from(item.was_hit)),
            };
            out.write(letter);
            number(value, out);
        }
    }
}
