//! Bytes as they arrive, to commands: finds lines and the data behind them, whatever pieces they come in. Tested in `decode/tests.rs`.

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use super::dress::Dress;
use super::text::{Context, parse};
use super::{Asked, BAD_FORMAT, Command, Draft, LINE_BYTES_MAX, LINE_BYTES_MIN, MANY_KEYS_BYTES_MAX, Parsed, Store};
use crate::base::hlc::UnixMs;
use crate::base::item::TERMS_BYTES_MAX;
use crate::base::limits::LARGE_VALUE_BYTES;
use crate::base::op::{Act, Op, SetAnswer};

#[cfg(test)]
mod tests;

/// Spaces a line of many keys may begin with.
const LEADING_SPACES_MAX: usize = 100;

/// What of a command has arrived.
#[derive(Debug)]
enum State {
    /// Not its whole line. So many bytes have been searched for the end.
    Line { searched: usize },
    /// Its line.
    Data(Box<Draft>),
    /// Its line, and it is answered; so many bytes of data are still to be thrown away.
    Swallow(usize),
    /// No more is read.
    Closed,
}

/// See the file's head.
#[derive(Debug)]
pub struct Decoder {
    item_bytes_max: usize,
    state: State,
}

impl Decoder {
    /// A decoder that refuses items larger than this, as memcached counts them.
    pub fn new(item_bytes_max: usize) -> Self {
        Self { item_bytes_max, state: State::Line { searched: 0 } }
    }

    /// Whether nothing of a command has arrived that is not complete.
    pub fn is_idle(&self, buf: &BytesMut) -> bool {
        matches!(self.state, State::Line { .. } | State::Closed) && buf.is_empty()
    }

    /// Takes whole commands out of `buf`, until they have `ops_max` operations or there are no more. Whether there may be more.
    pub fn decode(&mut self, buf: &mut BytesMut, now: UnixMs, ops_max: usize, commands: &mut Vec<Command>) -> bool {
        let context =
            Context { now_s: i64::try_from(now / 1_000).unwrap_or(i64::MAX), item_bytes_max: self.item_bytes_max };
        let mut ops = 0;
        while ops < ops_max {
            let Some(command) = self.next(buf, context) else { return false };
            ops += command.ops();
            let ends = matches!(command.asked, Asked::Quit | Asked::HangUp);
            commands.push(command);
            if ends {
                self.state = State::Closed;
                return false;
            }
        }
        true
    }

    fn next(&mut self, buf: &mut BytesMut, context: Context) -> Option<Command> {
        loop {
            match std::mem::replace(&mut self.state, State::Line { searched: 0 }) {
                State::Closed => {
                    self.state = State::Closed;
                    return None;
                }
                State::Swallow(left) => {
                    let taken = left.min(buf.len());
                    buf.advance(taken);
                    if taken < left {
                        self.state = State::Swallow(left - taken);
                        return None;
                    }
                }
                State::Data(draft) => {
                    if buf.len() < draft.bytes + 2 {
                        self.state = State::Data(draft);
                        return None;
                    }
                    return Some(complete(*draft, buf));
                }
                State::Line { searched } => {
                    let Some(line) = take_line(buf, searched) else {
                        if is_too_long(buf) {
                            return Some(Command { name: "memcached_unknown", asked: Asked::HangUp });
                        }
                        self.state = State::Line { searched: buf.len() };
                        return None;
                    };
                    let Some(line) = line else {
                        return Some(Command::refuse("memcached_unknown", BAD_FORMAT, false));
                    };
                    match parse(&line, context) {
                        Parsed::Whole(command) => return Some(command),
                        Parsed::Data(draft) => self.state = State::Data(draft),
                        Parsed::Swallow(command, bytes) => {
                            self.state = State::Swallow(bytes);
                            return Some(command);
                        }
                    }
                }
            }
        }
    }
}

/// Takes a line out of `buf`, without its end; nothing of one that is too short to be looked at.
fn take_line(buf: &mut BytesMut, searched: usize) -> Option<Option<Bytes>> {
    let end = searched + memchr::memchr(b'\n', &buf[searched..])?;
    let mut line = buf.split_to(end + 1);
    if line.len() < LINE_BYTES_MIN {
        return Some(None);
    }
    line.truncate(if line[end - 1] == b'\r' { end - 1 } else { end });
    Some(Some(line.freeze()))
}

/// Whether what has no end yet is to be given up.
fn is_too_long(buf: &[u8]) -> bool {
    if buf.len() <= LINE_BYTES_MAX {
        return false;
    }
    let spaces = buf.iter().take_while(|byte| **byte == b' ').count();
    let asks_many = buf[spaces..].starts_with(b"get ") || buf[spaces..].starts_with(b"gets ");
    spaces > LEADING_SPACES_MAX || !asks_many || buf.len() > MANY_KEYS_BYTES_MAX
}

/// The command of a draft whose data is all there.
fn complete(draft: Draft, buf: &mut BytesMut) -> Command {
    let Draft { name, key, bytes, store, dress } = draft;
    let data = buf.split_to(bytes + 2);
    if !data.ends_with(b"\r\n") {
        let quiet = matches!(dress, Dress::Stored { quiet: true });
        return Command::refuse(name, "CLIENT_ERROR bad data chunk", quiet);
    }
    let (act, value) = match store {
        Store::Plain(when, expiry, flags) => {
            let act = Act::Set { expiry, when, answer: SetAnswer::Done, flags };
            // A large value is kept as it comes, so it must not keep what was read beside it.
            let value = if bytes < LARGE_VALUE_BYTES {
                data.freeze().slice(..bytes)
            } else {
                Bytes::copy_from_slice(&data[..bytes])
            };
            (act, value)
        }
        Store::Item(act, terms) => {
            let mut value = Vec::with_capacity(bytes + TERMS_BYTES_MAX);
            value.extend_from_slice(&data[..bytes]);
            terms.append_to(&mut value);
            (Act::Item(act), value.into())
        }
    };
    Command { name, asked: Asked::Keys(SmallVec::from_buf([Op { key, act, value }]), dress) }
}
