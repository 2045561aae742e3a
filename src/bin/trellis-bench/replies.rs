//! Replies, counted as they go by: what each came to, without a copy of it and across any cuts that the network makes. A reply that does
//! not belong to its request is never taken for a success. Never reads a socket. Tested below.

use memchr::memchr;

use super::command::{Command, Protocol};
use super::encode::Encoder;

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, or found.
    Done,
    /// There was no such key, or (`add`) there was.
    Miss,
    /// The server said no; its first word.
    Refused(String),
    /// A whole reply, but none to this request.
    Wrong,
}

/// Why nothing that follows can be read. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// How far a look into the bytes went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes are read; the rest of the reply has not come.
    More(usize),
    /// So many bytes are read, and with them the reply.
    Whole(usize, Outcome),
}

/// A reply that is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) command: Command,
    pub(crate) key: u64,
}

/// The most bytes of a line; longer than any error of the servers that we know.
pub(crate) const LINE_BYTES_MAX: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Line,
    /// Of a value: its length, what is left of it and its line end, and whether all was right so far.
    Value {
        bytes: usize,
        left: usize,
        is_right: bool,
    },
    /// `END` after a value of memcached's text protocol.
    End {
        is_right: bool,
    },
}

/// What the first line of a reply says.
enum Said {
    All(Outcome),
    Value(usize),
}

/// Reads the replies of one connection.
#[derive(Debug)]
pub(crate) struct ReplyCounter {
    protocol: Protocol,
    verifies: bool,
    awaited: Awaited,
}

impl ReplyCounter {
    /// A counter that, if it `verifies`, compares values with what is stored under their keys.
    pub(crate) fn new(protocol: Protocol, verifies: bool) -> Self {
        Self { protocol, verifies, awaited: Awaited::Line }
    }

    /// Reads on in the reply to `expected`, of which `bytes` are those that were not read yet.
    ///
    /// # Errors
    /// [`Unreadable`]; this must not be used any more.
    pub(crate) fn step(&mut self, bytes: &[u8], expected: Expected, encoder: &Encoder) -> Result<Step, Unreadable> {
        let mut at = 0;
        loop {
            match self.awaited {
                Awaited::Line => {
                    let Some(line) = line(&bytes[at..])? else { return Ok(Step::More(at)) };
                    at += line.len() + 2;
                    match self.said(line, expected.command)? {
                        Said::All(outcome) => return Ok(Step::Whole(at, outcome)),
                        Said::Value(bytes) => self.awaited = Awaited::Value { bytes, left: bytes + 2, is_right: true },
                    }
                }
                Awaited::Value { bytes: length, left, is_right } => {
                    let chunk = &bytes[at..at + left.min(bytes.len() - at)];
                    at += chunk.len();
                    let is_right = is_right && self.is_right(chunk, (length, left), expected, encoder)?;
                    if chunk.len() < left {
                        self.awaited = Awaited::Value { bytes: length, left: left - chunk.len(), is_right };
                        return Ok(Step::More(at));
                    }
                    if self.protocol == Protocol::Resp || expected.command == Command::MetaGet {
                        self.awaited = Awaited::Line;
                        return Ok(Step::Whole(at, found(is_right)));
                    }
                    self.awaited = Awaited::End { is_right };
                }
                Awaited::End { is_right } => {
                    let Some(line) = line(&bytes[at..])? else { return Ok(Step::More(at)) };
                    if line != b"END" {
                        return Err(Unreadable);
                    }
                    self.awaited = Awaited::Line;
                    return Ok(Step::Whole(at + 5, found(is_right)));
                }
            }
        }
    }

    /// Whether a chunk of a value and its line end is as it should be.
    fn is_right(
        &self,
        chunk: &[u8],
        (length, left): (usize, usize),
        expected: Expected,
        encoder: &Encoder,
    ) -> Result<bool, Unreadable> {
        let (value, end) = chunk.split_at(left.saturating_sub(2).min(chunk.len()));
        let from = 2 - (left - value.len()).min(2);
        if b"\r\n".iter().skip(from).zip(end).any(|(own, there)| own != there) {
            return Err(Unreadable);
        }
        Ok(!self.verifies || encoder.is_value(expected.key, length + 2 - left, value))
    }

    fn said(&self, line: &[u8], command: Command) -> Result<Said, Unreadable> {
        match self.protocol {
            Protocol::Resp => resp(line, command),
            Protocol::Memcached => memcached(line, command),
        }
    }
}

fn found(is_right: bool) -> Outcome {
    if is_right { Outcome::Done } else { Outcome::Wrong }
}

/// The line that `bytes` begin with, without its end, once it is whole.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Unreadable> {
    match memchr(b'\n', &bytes[..bytes.len().min(LINE_BYTES_MAX)]) {
        Some(end) if end > 0 && bytes[end - 1] == b'\r' => Ok(Some(&bytes[..end - 1])),
        None if bytes.len() < LINE_BYTES_MAX => Ok(None),
        _ => Err(Unreadable),
    }
}

fn resp(line: &[u8], command: Command) -> Result<Said, Unreadable> {
    let (kind, rest) = line.split_first().ok_or(Unreadable)?;
    let right = match (kind, command) {
        (b'-', _) => return Ok(Said::All(refused(rest))),
        (b'$', Command::Get) if rest != b"-1" => return decimal(rest).map(Said::Value).ok_or(Unreadable),
        // A value that nobody asked for can't be told from what follows it.
        (b'$', _) if rest != b"-1" => return Err(Unreadable),
        (b'$', Command::Get) => return Ok(Said::All(Outcome::Miss)),
        (b':', Command::Delete) if rest == b"0" => return Ok(Said::All(Outcome::Miss)),
        (b':', Command::Delete) => rest == b"1",
        (b':', Command::Incr) => decimal(rest.strip_prefix(b"-").unwrap_or(rest)).is_some(),
        (b'+', Command::Set) => rest == b"OK",
        (b'+', Command::Ping) => rest == b"PONG",
        (b'+' | b':' | b'$', _) => false,
        _ => return Err(Unreadable),
    };
    Ok(Said::All(found(right)))
}

fn memcached(line: &[u8], command: Command) -> Result<Said, Unreadable> {
    let (first, rest) = line.split_at(memchr(b' ', line).unwrap_or(line.len()));
    let value = |words: usize| {
        let word = rest.split(|byte| *byte == b' ').nth(words).ok_or(Unreadable)?;
        decimal(word).map(Said::Value).ok_or(Unreadable)
    };
    let outcome = match (first, command) {
        (b"VALUE", Command::Get | Command::Gets) => return value(3),
        (b"VA", Command::MetaGet) => return value(1),
        (b"VALUE" | b"VA", _) => return Err(Unreadable),
        (b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR", _) => refused(line),
        (b"END", Command::Get | Command::Gets)
        | (b"EN", Command::MetaGet)
        | (b"NOT_STORED", Command::Add)
        | (b"NOT_FOUND", Command::Delete | Command::Incr | Command::Touch)
        | (b"NF", Command::MetaDelete) => Outcome::Miss,
        (b"STORED", Command::Set | Command::Add)
        | (b"DELETED", Command::Delete)
        | (b"TOUCHED", Command::Touch)
        | (b"HD", Command::MetaSet | Command::MetaDelete | Command::MetaArithmetic)
        | (b"MN", Command::MetaNoop) => Outcome::Done,
        (digits, Command::Incr) => found(decimal(digits).is_some()),
        _ => Outcome::Wrong,
    };
    Ok(Said::All(outcome))
}

fn refused(line: &[u8]) -> Outcome {
    let word = line.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').next().unwrap_or_default();
    Outcome::Refused(String::from_utf8_lossy(word).into_owned())
}

/// Up to 20 digits. A value's length may say anything; nothing is reserved for it.
fn decimal(text: &[u8]) -> Option<usize> {
    let digits = !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| digits)?.parse::<u64>().ok()?;
    usize::try_from(number).ok().filter(|number| *number < usize::MAX - 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoder() -> Encoder {
        Encoder::new(Protocol::Resp, "k:", 64)
    }

    /// Outcomes of replies that arrive in these pieces, and what is left over.
    fn counted(protocol: Protocol, commands: &[Command], pieces: &[&[u8]]) -> Result<Vec<Outcome>, Unreadable> {
        let (encoder, mut counter, mut rest) = (encoder(), ReplyCounter::new(protocol, true), Vec::new());
        let (mut outcomes, mut commands) = (Vec::new(), commands.iter().peekable());
        for piece in pieces {
            rest.extend_from_slice(piece);
            while let Some(command) = commands.peek().filter(|_| !rest.is_empty()) {
                match counter.step(&rest, Expected { command: **command, key: 42 }, &encoder)? {
                    Step::More(read) => {
                        rest.drain(..read);
                        break;
                    }
                    Step::Whole(read, outcome) => {
                        rest.drain(..read);
                        commands.next();
                        outcomes.push(outcome);
                    }
                }
            }
        }
        assert!(rest.is_empty() || commands.peek().is_some(), "left over: {rest:?}");
        Ok(outcomes)
    }

    const RESP: [(Command, &str, Outcome); 8] = [
        (Command::Get, "$16\r\nk:000000000042xx\r\n", Outcome::Done),
        (Command::Get, "$16\r\nk:000000000043xx\r\n", Outcome::Wrong),
        (Command::Get, "$0\r\n\r\n", Outcome::Done),
        (Command::Get, "$-1\r\n", Outcome::Miss),
        (Command::Set, "+OK\r\n", Outcome::Done),
        (Command::Incr, ":-17\r\n", Outcome::Done),
        (Command::Delete, ":0\r\n", Outcome::Miss),
        (Command::Ping, "+PONG\r\n", Outcome::Done),
    ];
    const MEMCACHED: [(Command, &str, Outcome); 10] = [
        (Command::Get, "VALUE k:000000000042 0 16\r\nk:000000000042xx\r\nEND\r\n", Outcome::Done),
        (Command::Gets, "VALUE k:000000000042 0 3 77\r\nk:0\r\nEND\r\n", Outcome::Done),
        (Command::Get, "VALUE k:000000000042 0 3\r\nk:1\r\nEND\r\n", Outcome::Wrong),
        (Command::Get, "END\r\n", Outcome::Miss),
        (Command::Set, "STORED\r\n", Outcome::Done),
        (Command::Incr, "17\r\n", Outcome::Done),
        (Command::MetaGet, "VA 3\r\nk:0\r\n", Outcome::Done),
        (Command::MetaGet, "EN\r\n", Outcome::Miss),
        (Command::MetaSet, "HD\r\n", Outcome::Done),
        (Command::MetaNoop, "MN\r\n", Outcome::Done),
    ];

    proptest! {
        #[test]
        fn cuts_between_packets_change_nothing(picks in prop::collection::vec(0usize..80, 1..12), cuts in prop::collection::vec(0usize..400, 0..12)) {
            let tables = [(Protocol::Resp, &RESP[..]), (Protocol::Memcached, &MEMCACHED[..])];
            for (protocol, table) in tables {
                let picked: Vec<_> = picks.iter().map(|pick| &table[pick % table.len()]).collect();
                let bytes: Vec<u8> = picked.iter().flat_map(|(_, text, _)| text.bytes()).collect();
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).collect();
                cuts.extend([0, bytes.len()]);
                cuts.sort_unstable();
                let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
                let commands: Vec<Command> = picked.iter().map(|(command, ..)| *command).collect();
                let expected: Vec<Outcome> = picked.iter().map(|(.., outcome)| outcome.clone()).collect();
                prop_assert_eq!(counted(protocol, &commands, &pieces), Ok(expected));
            }
        }

        #[test]
        fn noise_neither_stops_the_reader_nor_is_a_loop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for protocol in [Protocol::Resp, Protocol::Memcached] {
                let _ = counted(protocol, &[Command::Get; 200], &[&bytes]);
            }
        }
    }

    #[test]
    fn an_answer_to_another_question_is_no_success() {
        for (protocol, table) in [(Protocol::Resp, &RESP[..]), (Protocol::Memcached, &MEMCACHED[..])] {
            for (asked, ..) in table {
                for (command, text, _) in table.iter().filter(|(command, ..)| command != asked) {
                    let told = counted(protocol, &[*asked], &[text.as_bytes()]);
                    let is_success = |outcome: &Outcome| matches!(outcome, Outcome::Done | Outcome::Miss);
                    // `get` and `gets` are answered alike, and so are commands that only say whether there was a key.
                    let alike = (matches!(asked, Command::Get | Command::Gets)
                        && matches!(command, Command::Get | Command::Gets))
                        || text.starts_with(':');
                    assert!(alike || !told.is_ok_and(|told| told.iter().any(is_success)), "{asked:?}: {text}");
                }
            }
        }
    }

    #[test]
    fn refusals_are_told_by_their_first_word() {
        for (protocol, command, text, word) in [
            (Protocol::Resp, Command::Set, "-BUSY too much, applied: no\r\n", "BUSY"),
            (Protocol::Memcached, Command::Set, "SERVER_ERROR out of memory\r\n", "SERVER_ERROR"),
            (Protocol::Memcached, Command::MetaGet, "ERROR\r\n", "ERROR"),
        ] {
            let refused = Outcome::Refused(word.to_owned());
            assert_eq!(counted(protocol, &[command], &[text.as_bytes()]), Ok(vec![refused]));
        }
    }

    #[test]
    fn what_can_not_be_read_ends_the_connection() {
        for (protocol, command, text) in [
            (Protocol::Resp, Command::Get, "HTTP/1.1 400 Bad Request\r\n"),
            (Protocol::Resp, Command::Get, "$3\r\nabcd\r\n"),
            (Protocol::Resp, Command::Get, "$99999999999999999999\r\n"),
            (Protocol::Resp, Command::Set, "$3\r\nabc\r\n"),
            (Protocol::Resp, Command::Set, "+OK\n"),
            (Protocol::Memcached, Command::Get, "VALUE k 0 3\r\nk:0\r\nEN\r\n"),
            (Protocol::Memcached, Command::Get, "VALUE k 0\r\n"),
        ] {
            assert_eq!(counted(protocol, &[command], &[text.as_bytes()]), Err(Unreadable), "{text}");
        }
        let endless = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(counted(Protocol::Memcached, &[Command::Set], &[&endless]), Err(Unreadable));
    }
}
