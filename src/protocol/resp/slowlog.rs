//! The slow log: which commands took long, with the beginning of their arguments. Reads no clock and decides nothing: what is slow is the
//! caller's to say. Tested below; the shape of an entry is that of `redis-server` 7.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Args;
use super::value::Value;

/// Arguments an entry shows, Redis's own bound. Where there are more, the last one says how many.
const ARGS_SHOWN_MAX: usize = 32;
/// Bytes of an argument it shows, Redis's own bound.
const ARG_BYTES_MAX: usize = 128;
/// Most entries that `slowlog-max-len` may ask for: some 50 MB of the longest.
pub const SLOWLOG_LEN_MAX: u64 = 10_000;
/// Entries `SLOWLOG GET` shows unless told how many.
pub const SLOWLOG_SHOWN_DEFAULT: usize = 10;

const REDACTED: &[u8] = b"(redacted)";

/// A question about the slow log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowAsk {
    /// The newest entries, so many.
    Entries(usize),
    /// How many there are.
    Len,
    /// Forget all.
    Reset,
}

/// The beginning of a command, kept while it is not known yet whether it is slow.
#[derive(Clone, Debug)]
pub struct Told {
    args: SmallVec<[Bytes; 4]>,
    total: usize,
}

impl Told {
    /// Of a command as it came. Shares its bytes.
    pub fn of(args: &Args) -> Self {
        Self { args: args.iter().take(ARGS_SHOWN_MAX).cloned().collect(), total: args.len() }
    }

    /// The arguments as an entry shows them: copies, so that none keeps the buffer it came in. Passwords are left out.
    fn shown(&self) -> Vec<Bytes> {
        let secret_from = match self.args.first().map(|name| name.to_ascii_lowercase()) {
            Some(name) if name == b"auth" => 1,
            Some(name) if name == b"hello" => 2,
            _ => usize::MAX,
        };
        let show = |(n, arg): (usize, &Bytes)| {
            if n >= secret_from {
                Bytes::from_static(REDACTED)
            } else if arg.len() > ARG_BYTES_MAX {
                let more = format!("... ({} more bytes)", arg.len() - ARG_BYTES_MAX);
                [&arg[..ARG_BYTES_MAX], more.as_bytes()].concat().into()
            } else {
                Bytes::copy_from_slice(arg)
            }
        };
        let mut shown: Vec<Bytes> = self.args.iter().enumerate().map(show).collect();
        if self.total > ARGS_SHOWN_MAX {
            let more = self.total - ARGS_SHOWN_MAX + 1;
            shown.truncate(ARGS_SHOWN_MAX - 1);
            shown.push(format!("... ({more} more arguments)").into());
        }
        shown
    }
}

/// One slow command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowEntry {
    /// Counts up over the whole node.
    pub id: u64,
    /// When, in Unix seconds.
    pub unix_s: u64,
    /// How long it took.
    pub took_us: u64,
    /// Its arguments, shortened.
    pub args: Vec<Bytes>,
    /// Who asked.
    pub addr: String,
    /// What it calls itself.
    pub name: Bytes,
}

impl SlowEntry {
    fn value(&self) -> Value {
        let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        Value::Array(vec![
            int(self.id),
            int(self.unix_s),
            int(self.took_us),
            Value::Array(self.args.iter().cloned().map(Value::Bulk).collect()),
            Value::Bulk(self.addr.clone().into()),
            Value::Bulk(self.name.clone()),
        ])
    }
}

/// The newest slow commands of one data arbiter.
#[derive(Debug, Default)]
pub struct SlowLog {
    entries: VecDeque<SlowEntry>,
}

impl SlowLog {
    /// Notes one; the oldest beyond `len_max` go.
    pub fn note(&mut self, told: &Told, entry: SlowEntry, len_max: usize) {
        self.entries.push_back(SlowEntry { args: told.shown(), ..entry });
        self.entries.drain(..self.entries.len().saturating_sub(len_max));
    }

    /// All of them, the oldest first.
    pub fn entries(&self) -> Vec<SlowEntry> {
        self.entries.iter().cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

/// `SLOWLOG GET`: of the entries of all arbiters, of which the node keeps the newest `len_max`, the newest `count`.
pub fn newest(mut entries: Vec<SlowEntry>, len_max: usize, count: usize) -> Value {
    entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.id));
    Value::Array(entries.iter().take(len_max.min(count)).map(SlowEntry::value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(args: &[&str]) -> Told {
        let args: Args = args.iter().map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
        Told::of(&args)
    }

    fn shown(args: &[&str]) -> Vec<String> {
        told(args).shown().iter().map(|arg| String::from_utf8(arg.to_vec()).unwrap()).collect()
    }

    fn entry(id: u64) -> SlowEntry {
        SlowEntry { id, unix_s: 5, took_us: 7, args: Vec::new(), addr: "1.2.3.4:5".into(), name: "bob".into() }
    }

    #[test]
    fn arguments_are_shortened_as_redis_shortens_them() {
        let long = "y".repeat(200);
        assert_eq!(shown(&["SET", "x", &long])[2], format!("{} (72 more bytes)", "y".repeat(128) + "..."));
        assert_eq!(shown(&["SET", "x", &long[..128]])[2], long[..128]);
        let many: Vec<String> = (0..37).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let cut = shown(&many);
        assert_eq!((cut.len(), cut[30].as_str(), cut[31].as_str()), (32, "30", "... (6 more arguments)"));
        assert_eq!(shown(&many[..32]).last().map(String::as_str), Some("31"));
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown(&["AUTH", "bob", "secret"]), ["AUTH", "(redacted)", "(redacted)"]);
        assert_eq!(shown(&["hello", "3", "AUTH", "bob", "secret"])[..2], ["hello", "3"]);
        assert!(!shown(&["hello", "3", "AUTH", "bob", "secret"]).contains(&"secret".to_owned()));
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let mut log = SlowLog::default();
        for id in 0..5 {
            log.note(&told(&["GET", "k"]), entry(id), 3);
        }
        let ids: Vec<u64> = log.entries().iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [2, 3, 4]);
        let mut out = Vec::new();
        newest(log.entries(), 3, 1).encode(crate::base::reply::Wire::Resp2, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "*1\r\n*6\r\n:4\r\n:5\r\n:7\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n$9\r\n1.2.3.4:5\r\n$3\r\nbob\r\n"
        );
        log.clear();
        assert!(log.entries().is_empty());
        log.note(&told(&["GET", "k"]), entry(9), 0);
        assert!(log.entries().is_empty());
    }
}
