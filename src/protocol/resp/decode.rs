//! Bytes to commands: multibulk and inline requests, incrementally. Never interprets a command and never trusts an announced number
//! with memory. Tested in `decode/tests.rs`.
//!
//! The buffer is scanned by index and nothing is scanned twice, so a pipeline or a value may arrive in any number of pieces. Complete
//! commands are cut off together and share one reference-counted buffer. A value of [`LARGE_VALUE_BYTES`] or more gets an allocation
//! of its own, which the connection reads into directly ([`Decoder::read_target`]).

use bytes::{Buf, Bytes, BytesMut};

use super::{Args, inline, number, value::Value};
use crate::base::limits::{ARGS_MAX, COMMAND_BYTES_MAX, INLINE_BYTES_MAX, LARGE_VALUE_BYTES};

#[cfg(test)]
mod tests;

/// First allocation for a large value, whatever length was announced. It grows fourfold, so at most a third of a value is copied.
const LARGE_VALUE_START_BYTES: usize = 2 * LARGE_VALUE_BYTES;
/// Room for bookkeeping kept between batches, in arguments; a larger batch's is given back.
const PARTS_KEPT: usize = 8 * 1024;
/// After a value: CR LF.
const LINE_END: usize = 2;

/// The client broke the protocol. Commands before the break were decoded; none after will be. Answer, then close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line without end.
    #[error("too big inline request")]
    InlineTooBig,
    /// A `*` line without end.
    #[error("too big mbulk count string")]
    MultibulkCountTooBig,
    /// A `$` line without end.
    #[error("too big bulk count string")]
    BulkCountTooBig,
    /// Not a number, or more than [`ARGS_MAX`].
    #[error("invalid multibulk length")]
    MultibulkLength,
    /// Not a number, negative, or more than the longest value.
    #[error("invalid bulk length")]
    BulkLength,
    /// An argument that does not begin with `$`.
    #[error("expected '$', got '{}'", *.0 as char)]
    ExpectedBulk(u8),
    /// Quotes in an inline request.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// More than [`COMMAND_BYTES_MAX`] in one command.
    #[error("too big command")]
    CommandTooBig,
}

impl ProtocolError {
    /// What the client is told, byte for byte as Redis says it.
    pub fn reply(self) -> Value {
        match self {
            // The byte goes out as it came, which text could not carry.
            Self::ExpectedBulk(byte) => {
                Value::error([&b"ERR Protocol error: expected '$', got '"[..], &[byte], b"'"].concat())
            }
            other => Value::error(format!("ERR Protocol error: {other}")),
        }
    }
}

/// Finds commands in what a connection has read. One per connection.
#[derive(Debug)]
pub struct Decoder {
    value_bytes_max: usize,
    state: State,
    /// Arguments found so far, of complete commands and of the one under way.
    parts: Vec<Part>,
    /// Where in `parts` each complete command ends.
    ends: Vec<usize>,
    /// Where in the buffer the command under way begins.
    start: usize,
    /// The first byte of the buffer not yet understood.
    at: usize,
    /// No line ends in the buffer before this.
    searched: usize,
    /// Bytes of the command under way that live outside the buffer.
    outside: usize,
    failed: Option<ProtocolError>,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum State {
    /// A new command.
    Command,
    /// An argument's `$` line, `left` arguments before the end.
    Header { left: usize },
    /// An argument's `len` bytes.
    Body { left: usize, len: usize },
    /// The same with a large argument, gathered in an allocation of its own.
    Large { left: usize, len: usize, bytes: BytesMut },
}

#[derive(Debug)]
enum Part {
    /// In the buffer.
    Span { start: usize, end: usize },
    /// In an allocation of its own.
    Own(Bytes),
}

impl Decoder {
    /// A decoder that refuses arguments above `value_bytes_max`.
    pub fn new(value_bytes_max: usize) -> Self {
        Self {
            value_bytes_max,
            state: State::Command,
            parts: Vec::new(),
            ends: Vec::new(),
            start: 0,
            at: 0,
            searched: 0,
            outside: 0,
            failed: None,
        }
    }

    /// Appends to `out` the complete commands at the front of `buf`, at most `ops_max`, and takes their bytes out of it. When it found
    /// `ops_max`, there may be more: call again. Between calls `buf` may only be appended to.
    ///
    /// # Errors
    /// The client broke the protocol. `out` got the commands before the break; every later call fails the same way.
    pub fn decode(&mut self, buf: &mut BytesMut, ops_max: usize, out: &mut Vec<Args>) -> Result<(), ProtocolError> {
        if self.failed.is_none() {
            self.failed = self.scan(buf, ops_max).err();
            self.hand_over(buf, out);
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// Where the next bytes from the socket belong: `buf`, or the large value under way, which has room for at least one byte and for no
    /// more than it lacks. To be asked after [`Self::decode`], before each read; making room in `buf` is the caller's.
    pub fn read_target<'a>(&'a mut self, buf: &'a mut BytesMut) -> &'a mut BytesMut {
        match &mut self.state {
            State::Large { len, bytes, .. } if buf.len() == self.at && bytes.len() < *len + LINE_END => {
                make_room(bytes, 1, *len + LINE_END);
                bytes
            }
            _ => buf,
        }
    }

    /// Whether the decoder stands between commands: nothing of a next one has arrived in `buf`.
    pub fn is_idle(&self, buf: &BytesMut) -> bool {
        matches!(self.state, State::Command) && buf.is_empty()
    }

    /// Bytes held outside the read buffer for the command under way.
    pub fn held_bytes(&self) -> usize {
        let large = if let State::Large { bytes, .. } = &self.state { bytes.capacity() } else { 0 };
        self.outside + large + self.parts.len() * size_of::<Part>()
    }

    fn scan(&mut self, buf: &mut BytesMut, ops_max: usize) -> Result<(), ProtocolError> {
        while self.ends.len() < ops_max {
            let went_on = match self.state {
                State::Command => self.command(buf)?,
                State::Header { left } => self.header(buf, left)?,
                State::Body { left, len } => self.body(buf, left, len),
                State::Large { .. } => self.large(buf),
            };
            if !went_on {
                break;
            }
        }
        Ok(())
    }

    /// The first line of a command; whether it was there.
    fn command(&mut self, buf: &BytesMut) -> Result<bool, ProtocolError> {
        self.start = self.at;
        match buf.get(self.at) {
            None => Ok(false),
            Some(b'*') => {
                let Some((count, end)) = self.number(buf, ProtocolError::MultibulkCountTooBig)? else {
                    return Ok(false);
                };
                let count = count.ok_or(ProtocolError::MultibulkLength)?;
                self.at = end;
                // Nothing and less are no command at all, as in Redis.
                let left = usize::try_from(count).unwrap_or(0);
                if left > ARGS_MAX {
                    return Err(ProtocolError::MultibulkLength);
                }
                if left > 0 {
                    self.state = State::Header { left };
                }
                Ok(true)
            }
            Some(_) => self.inline(buf),
        }
    }

    fn inline(&mut self, buf: &BytesMut) -> Result<bool, ProtocolError> {
        let from = self.searched.max(self.at);
        let found = memchr::memchr(b'\n', &buf[from..]).map(|offset| from + offset);
        if found.unwrap_or(buf.len()) - self.at > INLINE_BYTES_MAX {
            return Err(ProtocolError::InlineTooBig);
        }
        let Some(end) = found else {
            self.searched = buf.len();
            return Ok(false);
        };
        let line = &buf[self.at..end];
        let args =
            inline::split(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| ProtocolError::UnbalancedQuotes)?;
        self.at = end + 1;
        if !args.is_empty() {
            self.parts.extend(args.into_iter().map(Part::Own));
            self.ends.push(self.parts.len());
        }
        Ok(true)
    }

    /// The `$` line of an argument, and the argument when it is all there.
    fn header(&mut self, buf: &mut BytesMut, left: usize) -> Result<bool, ProtocolError> {
        let Some((len, end)) = self.number(buf, ProtocolError::BulkCountTooBig)? else { return Ok(false) };
        if buf[self.at] != b'$' {
            return Err(ProtocolError::ExpectedBulk(buf[self.at]));
        }
        let len = len
            .and_then(|len| usize::try_from(len).ok())
            .filter(|len| *len <= self.value_bytes_max)
            .ok_or(ProtocolError::BulkLength)?;
        self.at = end;
        if self.at - self.start + self.outside + len > COMMAND_BYTES_MAX {
            return Err(ProtocolError::CommandTooBig);
        }
        if len >= LARGE_VALUE_BYTES && buf.len() - self.at < len + LINE_END {
            self.state = State::Large { left, len, bytes: BytesMut::new() };
            return Ok(self.large(buf));
        }
        Ok(self.body(buf, left, len))
    }

    /// An argument's bytes; whether they were all there.
    fn body(&mut self, buf: &BytesMut, left: usize, len: usize) -> bool {
        let end = self.at + len;
        if buf.len() < end + LINE_END {
            self.state = State::Body { left, len };
            return false;
        }
        let part = if len >= LARGE_VALUE_BYTES {
            // Copied, so that a long-lived value does not pin the batch it came in.
            Part::Own(Bytes::copy_from_slice(&buf[self.at..end]))
        } else {
            Part::Span { start: self.at, end }
        };
        self.at = end + LINE_END;
        self.argument(left, part);
        true
    }

    /// Bytes of a large argument, wherever they were read to; whether they are all there now.
    fn large(&mut self, buf: &mut BytesMut) -> bool {
        let State::Large { left, len, bytes } = &mut self.state else { return false };
        let (left, len, whole) = (*left, *len, *len + LINE_END);
        let taken = (whole - bytes.len()).min(buf.len() - self.at);
        make_room(bytes, taken, whole);
        bytes.extend_from_slice(&buf[self.at..self.at + taken]);
        if self.at + taken == buf.len() {
            buf.truncate(self.at);
        } else {
            self.at += taken;
        }
        if bytes.len() < whole {
            return false;
        }
        let mut value = std::mem::take(bytes);
        value.truncate(len);
        self.outside += len;
        self.argument(left, Part::Own(value.freeze()));
        true
    }

    fn argument(&mut self, left: usize, part: Part) {
        self.parts.push(part);
        self.state = if left > 1 { State::Header { left: left - 1 } } else { State::Command };
        if left == 1 {
            self.ends.push(self.parts.len());
            self.outside = 0;
        }
    }

    /// The number after the type byte at `at`, if it is one, and where the next line begins; nothing while the line is incomplete. A
    /// line ends at a CR that at least one more byte follows, as Redis looks for it.
    #[inline]
    fn number(
        &mut self,
        buf: &BytesMut,
        too_big: ProtocolError,
    ) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
        // Nearly every number has one digit or two.
        match buf[self.at..] {
            [_, a @ b'0'..=b'9', b'\r', _, ..] => Ok(Some((Some(i64::from(a - b'0')), self.at + 2 + LINE_END))),
            [_, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => {
                Ok(Some((Some(i64::from(a - b'0') * 10 + i64::from(b - b'0')), self.at + 3 + LINE_END)))
            }
            _ => self.long_number(buf, too_big),
        }
    }

    fn long_number(
        &mut self,
        buf: &BytesMut,
        too_big: ProtocolError,
    ) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
        let from = self.searched.max(self.at);
        let found = memchr::memchr(b'\r', &buf[from..]);
        let end = from + found.unwrap_or(buf.len() - from);
        if end - self.at > INLINE_BYTES_MAX {
            return Err(too_big);
        }
        if found.is_none() || end + 1 >= buf.len() {
            self.searched = end;
            return Ok(None);
        }
        // A line may be empty, its CR standing where the type should be.
        Ok(Some((number::integer(buf.get(self.at + 1..end).unwrap_or(&[])), end + LINE_END)))
    }

    /// Cuts the complete commands off `buf` at once and slices them into arguments.
    fn hand_over(&mut self, buf: &mut BytesMut, out: &mut Vec<Args>) {
        let cut = if matches!(self.state, State::Command) { self.at } else { self.start }.min(buf.len());
        if self.ends.is_empty() {
            buf.advance(cut);
        } else {
            let batch = buf.split_to(cut).freeze();
            let done = self.ends.last().copied().unwrap_or(0);
            let mut parts = self.parts.drain(..done);
            let mut begin = 0;
            out.reserve(self.ends.len());
            for end in self.ends.drain(..) {
                let mut args = Args::with_capacity(end - begin);
                for part in parts.by_ref().take(end - begin) {
                    args.push(match part {
                        Part::Span { start, end } => batch.slice(start..end),
                        Part::Own(bytes) => bytes,
                    });
                }
                out.push(args);
                begin = end;
            }
        }
        if cut > 0 {
            for part in &mut self.parts {
                if let Part::Span { start, end } = part {
                    *start -= cut;
                    *end -= cut;
                }
            }
        }
        if self.parts.is_empty() {
            self.parts.shrink_to(PARTS_KEPT);
        }
        self.start = self.start.saturating_sub(cut);
        self.at -= cut;
        self.searched = self.searched.saturating_sub(cut);
    }
}

/// Makes room for `more` bytes: fourfold, up to exactly `whole`.
fn make_room(bytes: &mut BytesMut, more: usize, whole: usize) {
    if bytes.capacity() - bytes.len() < more {
        let room = (bytes.capacity() * 4).max(LARGE_VALUE_START_BYTES).max(bytes.len() + more).min(whole);
        let mut larger = BytesMut::with_capacity(room);
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
}
