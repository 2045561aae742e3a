//! Requests to bytes, appended to one buffer. A key is a prefix and twelve digits, as `redis-benchmark` spells them; a value begins with
//! its key, as much of it as has room. Never allocates for a request. Tested below.

use super::command::{Command, Protocol};

/// Of a key's number.
const DIGITS: usize = 12;
/// Between the prefix and the digits of a key that holds a number.
const COUNTER: &[u8] = b"counter:";

/// Encodes for one protocol.
#[derive(Debug)]
pub(crate) struct Encoder {
    protocol: Protocol,
    /// Of keys that hold values, and of keys that hold numbers.
    prefixes: [Vec<u8>; 2],
    /// What a value is made of after its key.
    filler: Vec<u8>,
}

impl Encoder {
    /// An encoder for keys with this prefix and values of up to `value_bytes_max`.
    pub(crate) fn new(protocol: Protocol, prefix: &str, value_bytes_max: usize) -> Self {
        let prefixes = [prefix.as_bytes().to_vec(), [prefix.as_bytes(), COUNTER].concat()];
        Self { protocol, prefixes, filler: vec![b'x'; value_bytes_max] }
    }

    /// Appends the key of a command.
    pub(crate) fn key(&self, out: &mut Vec<u8>, command: Command, key: u64) {
        out.extend_from_slice(&self.prefixes[usize::from(command.counts())]);
        out.extend_from_slice(&digits(key));
    }

    /// Appends a request; `value_bytes` counts for those that store.
    pub(crate) fn request(&self, out: &mut Vec<u8>, command: Command, key: u64, value_bytes: usize) {
        match self.protocol {
            Protocol::Resp => self.resp(out, command, key, value_bytes),
            Protocol::Memcached => self.memcached(out, command, key, value_bytes),
        }
    }

    fn resp(&self, out: &mut Vec<u8>, command: Command, key: u64, value_bytes: usize) {
        out.extend_from_slice(match command {
            Command::Get => b"*2\r\n$3\r\nGET\r\n$",
            Command::Set => b"*3\r\n$3\r\nSET\r\n$",
            Command::Incr => b"*2\r\n$4\r\nINCR\r\n$",
            Command::Delete => b"*2\r\n$3\r\nDEL\r\n$",
            Command::Ping => return out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n"),
            other => unreachable!("{other:?} is memcached's"),
        });
        number(out, self.prefixes[usize::from(command.counts())].len() + DIGITS);
        out.extend_from_slice(b"\r\n");
        self.key(out, command, key);
        if command.stores() {
            out.extend_from_slice(b"\r\n$");
            number(out, value_bytes);
            out.extend_from_slice(b"\r\n");
            self.value(out, command, key, value_bytes);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn memcached(&self, out: &mut Vec<u8>, command: Command, key: u64, value_bytes: usize) {
        let (before, after): (&[u8], &[u8]) = match command {
            Command::Get => (b"get ", b"\r\n"),
            Command::Gets => (b"gets ", b"\r\n"),
            Command::Set => (b"set ", b" 0 0 "),
            Command::Add => (b"add ", b" 0 0 "),
            Command::Delete => (b"delete ", b"\r\n"),
            Command::Incr => (b"incr ", b" 1\r\n"),
            Command::Touch => (b"touch ", b" 0\r\n"),
            Command::MetaGet => (b"mg ", b" v\r\n"),
            Command::MetaSet => (b"ms ", b" "),
            Command::MetaDelete => (b"md ", b"\r\n"),
            // A counter that is not there begins with 0 and lives on.
            Command::MetaArithmetic => (b"ma ", b" N0\r\n"),
            Command::MetaNoop => return out.extend_from_slice(b"mn\r\n"),
            Command::Ping => unreachable!("it is Redis's"),
        };
        out.extend_from_slice(before);
        self.key(out, command, key);
        out.extend_from_slice(after);
        if command.stores() {
            number(out, value_bytes);
            out.extend_from_slice(b"\r\n");
            self.value(out, command, key, value_bytes);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn value(&self, out: &mut Vec<u8>, command: Command, key: u64, bytes: usize) {
        let (start, end) = (out.len(), out.len() + bytes);
        self.key(out, command, key);
        match out.len() {
            filled if filled < end => out.extend_from_slice(&self.filler[filled - start..bytes]),
            _ => out.truncate(end),
        }
    }

    /// Whether `chunk`, which stands at `at` in the value of a key, is what was stored there.
    pub(crate) fn is_value(&self, key: u64, at: usize, chunk: &[u8]) -> bool {
        let (prefix, digits) = (&self.prefixes[0], digits(key));
        let own = prefix.iter().chain(&digits).skip(at);
        let in_key = (prefix.len() + DIGITS).saturating_sub(at).min(chunk.len());
        own.zip(chunk).all(|(own, there)| own == there) && chunk[in_key..].iter().all(|byte| *byte == b'x')
    }
}

/// The last twelve digits of a number.
fn digits(number: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

fn number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(protocol: Protocol, command: Command, value_bytes: usize) -> String {
        let mut out = Vec::new();
        Encoder::new(protocol, "k:", 64).request(&mut out, command, 42, value_bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_are_spelled_as_their_servers_read_them() {
        for (command, expected) in [
            (Command::Get, "*2\r\n$3\r\nGET\r\n$14\r\nk:000000000042\r\n"),
            (Command::Set, "*3\r\n$3\r\nSET\r\n$14\r\nk:000000000042\r\n$16\r\nk:000000000042xx\r\n"),
            (Command::Incr, "*2\r\n$4\r\nINCR\r\n$22\r\nk:counter:000000000042\r\n"),
            (Command::Delete, "*2\r\n$3\r\nDEL\r\n$14\r\nk:000000000042\r\n"),
            (Command::Ping, "*1\r\n$4\r\nPING\r\n"),
        ] {
            assert_eq!(encoded(Protocol::Resp, command, 16), expected);
        }
        for (command, expected) in [
            (Command::Get, "get k:000000000042\r\n"),
            (Command::Set, "set k:000000000042 0 0 3\r\nk:0\r\n"),
            (Command::Add, "add k:000000000042 0 0 3\r\nk:0\r\n"),
            (Command::Incr, "incr k:counter:000000000042 1\r\n"),
            (Command::Touch, "touch k:000000000042 0\r\n"),
            (Command::MetaGet, "mg k:000000000042 v\r\n"),
            (Command::MetaSet, "ms k:000000000042 3\r\nk:0\r\n"),
            (Command::MetaArithmetic, "ma k:counter:000000000042 N0\r\n"),
            (Command::MetaNoop, "mn\r\n"),
        ] {
            assert_eq!(encoded(Protocol::Memcached, command, 3), expected);
        }
    }

    proptest! {
        #[test]
        fn digits_are_those_of_the_number(number in 0u64..1_000_000_000_000) {
            prop_assert_eq!(digits(number).to_vec(), format!("{number:012}").into_bytes());
        }

        #[test]
        fn a_value_is_recognised_in_any_pieces_and_no_other_is(key in 0u64..1_000_000, bytes in 0usize..64, at in 0usize..64, broken in 0usize..64) {
            let (encoder, mut value) = (Encoder::new(Protocol::Resp, "k:", 64), Vec::new());
            encoder.value(&mut value, Command::Set, key, bytes);
            prop_assert_eq!(value.len(), bytes);
            let at = at.min(bytes);
            prop_assert!(encoder.is_value(key, 0, &value[..at]) && encoder.is_value(key, at, &value[at..]));
            if let Some(byte) = value.get_mut(broken) {
                *byte ^= 1;
                prop_assert!(!encoder.is_value(key, 0, &value));
            }
        }
    }
}
