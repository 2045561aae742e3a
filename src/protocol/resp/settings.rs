//! What `CONFIG` shows of a node's settings and may change while it runs, in Redis's names, checks and error texts. Changes nothing
//! itself. Tested below.

use bytes::Bytes;

use super::number;
use super::slowlog::SLOWLOG_LEN_MAX;
use super::value::Value;
use crate::base::glob;
use crate::base::notify::Classes;

/// Longest `timeout`, in seconds: Redis's own bound.
const TIMEOUT_S_MAX: i64 = i32::MAX as i64;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `maxmemory`, in bytes; 0 for no limit.
    MaxMemory(u64),
    /// `maxmemory-policy`: whether the least recently used go, else writes are refused.
    Evicts(bool),
    /// `timeout`, in seconds; 0 for never.
    Timeout(u64),
    /// `slowlog-log-slower-than`, in microseconds; negative for nothing.
    SlowerThan(i64),
    /// `slowlog-max-len`.
    SlowLogLen(u64),
    /// `notify-keyspace-events`.
    Notify(Classes),
}

/// What each setting that can change takes.
type Parse = fn(&[u8]) -> Result<Change, String>;

const CHANGING: [(&str, Parse); 6] = [
    ("maxmemory", |text| memory(text).map(Change::MaxMemory).ok_or_else(|| "argument must be a memory value".into())),
    ("maxmemory-policy", |text| match &text.to_ascii_lowercase()[..] {
        b"allkeys-lru" => Ok(Change::Evicts(true)),
        b"noeviction" => Ok(Change::Evicts(false)),
        _ => Err("argument(s) must be one of the following: allkeys-lru, noeviction".into()),
    }),
    ("timeout", |text| within(text, 0, TIMEOUT_S_MAX).map(|seconds| Change::Timeout(seconds.unsigned_abs()))),
    ("notify-keyspace-events", |text| {
        let refusal = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
        Classes::parse(text).map(Change::Notify).ok_or_else(|| refusal.into())
    }),
    ("slowlog-log-slower-than", |text| within(text, -1, i64::MAX).map(Change::SlowerThan)),
    ("slowlog-max-len", |text| {
        within(text, 0, SLOWLOG_LEN_MAX as i64).map(|len| Change::SlowLogLen(len.unsigned_abs()))
    }),
];

/// `CONFIG GET`: the settings whose names match. A plain name is answered as it was asked, as in Redis.
pub fn matching(patterns: &[Bytes], settings: &[(String, String)]) -> Value {
    let mut found: Vec<(Value, Value)> = Vec::new();
    let mut seen = vec![false; settings.len()];
    for pattern in patterns {
        let lower = pattern.to_ascii_lowercase();
        let is_glob = pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
        for ((name, setting), seen) in settings.iter().zip(&mut seen) {
            let fits = if is_glob { glob::matches(&lower, name.as_bytes()) } else { lower == name.as_bytes() };
            if fits && !*seen {
                *seen = true;
                let shown = if is_glob { name.clone().into() } else { pattern.clone() };
                found.push((Value::Bulk(shown), Value::Bulk(setting.clone().into())));
            }
        }
    }
    Value::Map(found)
}

/// The changes that `pairs` ask for, in order; all or none. `known` are the settings that `CONFIG GET` shows.
///
/// # Errors
/// The error reply.
pub fn changes(pairs: &[(Bytes, Bytes)], known: &[(String, String)]) -> Result<Vec<Change>, Value> {
    let mut found: Vec<(&str, &Bytes, Parse)> = Vec::new();
    for (name, value) in pairs {
        let lower = name.to_ascii_lowercase();
        let is = |setting: &str| setting.as_bytes() == lower;
        let Some((setting, parse)) = CHANGING.iter().find(|(setting, _)| is(setting)) else {
            return Err(match known.iter().find(|(setting, _)| is(setting)) {
                Some((setting, _)) => failed(setting, "can't set immutable config"),
                None => {
                    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                    Value::error([b"ERR Unknown option or number of arguments for CONFIG SET - '", name, b"'"].concat())
                }
            });
        };
        if found.iter().any(|(other, ..)| other == setting) {
            return Err(failed(setting, "duplicate parameter"));
        }
        found.push((setting, value, *parse));
    }
    found.into_iter().map(|(name, value, parse)| parse(value).map_err(|reason| failed(name, &reason))).collect()
}

fn failed(name: &str, reason: &str) -> Value {
    Value::error(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"))
}

fn within(text: &[u8], min: i64, max: i64) -> Result<i64, String> {
    match number::integer(text) {
        None => Err("argument couldn't be parsed into an integer".into()),
        Some(number) if (min..=max).contains(&number) => Ok(number),
        Some(_) => Err(format!("argument must be between {min} and {max} inclusive")),
    }
}

/// Digits and a unit, as Redis's `memtoull` reads them: `k` is a thousand, `kb` 1024.
fn memory(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number: u64 = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    let unit = match &text[digits..].to_ascii_lowercase()[..] {
        b"" | b"b" => 1,
        b"k" => 1_000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &str) -> Result<Vec<Change>, String> {
        let words: Vec<Bytes> = words.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let pairs: Vec<(Bytes, Bytes)> = words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let known = ["databases", "maxmemory", "port"].map(|name| (name.to_owned(), String::new()));
        changes(&pairs, &known).map_err(|error| match error {
            Value::Error(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn settings_change_in_the_order_given() {
        for (words, expected) in [
            ("maxmemory 100k", vec![Change::MaxMemory(100_000)]),
            ("MAXMEMORY 2GB", vec![Change::MaxMemory(2 << 30)]),
            ("maxmemory 0 maxmemory-policy NoEviction", vec![Change::MaxMemory(0), Change::Evicts(false)]),
            ("timeout 5 maxmemory-policy allkeys-lru", vec![Change::Timeout(5), Change::Evicts(true)]),
            ("notify-keyspace-events KEA", vec![Change::Notify(Classes::parse(b"AKE").unwrap())]),
            ("slowlog-log-slower-than -1 slowlog-max-len 0", vec![Change::SlowerThan(-1), Change::SlowLogLen(0)]),
        ] {
            assert_eq!(asked(words), Ok(expected), "{words}");
        }
    }

    #[test]
    fn refusals_are_those_of_redis() {
        let failed = |name: &str, reason: &str| {
            Err(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"))
        };
        let unknown = |name: &str| Err(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"));
        let not_memory = "argument must be a memory value";
        let not_integer = "argument couldn't be parsed into an integer";
        for (words, expected) in [
            ("a b", unknown("a")),
            ("TIMEOUT 0 a b", unknown("a")),
            ("databases 3", failed("databases", "can't set immutable config")),
            ("PORT 1 timeout 0", failed("port", "can't set immutable config")),
            ("maxmemory 0 maxmemory 1", failed("maxmemory", "duplicate parameter")),
            ("maxmemory x", failed("maxmemory", not_memory)),
            ("maxmemory -1", failed("maxmemory", not_memory)),
            ("maxmemory 1.5mb", failed("maxmemory", not_memory)),
            ("maxmemory 10zb", failed("maxmemory", not_memory)),
            ("maxmemory 99999999999999999999", failed("maxmemory", not_memory)),
            ("timeout x", failed("timeout", not_integer)),
            ("timeout -1", failed("timeout", "argument must be between 0 and 2147483647 inclusive")),
            ("timeout 99999999999", failed("timeout", "argument must be between 0 and 2147483647 inclusive")),
            (
                "slowlog-log-slower-than -5",
                failed("slowlog-log-slower-than", "argument must be between -1 and 9223372036854775807 inclusive"),
            ),
            (
                "notify-keyspace-events Kq",
                failed("notify-keyspace-events", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
            ),
            ("slowlog-max-len -1", failed("slowlog-max-len", "argument must be between 0 and 10000 inclusive")),
            (
                "maxmemory-policy volatile-lru",
                failed("maxmemory-policy", "argument(s) must be one of the following: allkeys-lru, noeviction"),
            ),
        ] {
            assert_eq!(asked(words), expected, "{words}");
        }
    }
}
