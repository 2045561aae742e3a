//! What stands in a URL: keys of any bytes, and parameters. Strict, so that a text has one meaning. Tested below.

use bytes::Bytes;

use super::refusal::Refusal;
use crate::base::limits::KEY_BYTES_MAX;

/// The bytes that `text` stands for; a `%` without two hexadecimal digits behind it stands for nothing.
fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    let lone =
        |at: usize| !text.as_bytes().get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if memchr::memchr_iter(b'%', text.as_bytes()).any(lone) {
        return Err(Refusal::malformed("a percent sign must be followed by two hexadecimal digits"));
    }
    Ok(percent_encoding::percent_decode_str(text).collect())
}

/// The key that the rest of a path names, slashes and all.
pub(super) fn key(text: &str) -> Result<Bytes, Refusal> {
    let key = decoded(text)?;
    if key.is_empty() {
        return Err(Refusal::malformed("a key over HTTP has at least one byte"));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(Refusal::LongKey);
    }
    Ok(key.into())
}

/// The parameters of a request, as browsers encode forms.
#[derive(Debug)]
pub(super) struct Query(Vec<(&'static str, Vec<u8>)>);

impl Query {
    /// Reads parameters of these names, each given once at the most.
    pub(super) fn parse(text: &str, names: &[&'static str]) -> Result<Self, Refusal> {
        let mut query = Self(Vec::new());
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(name) = names.iter().find(|known| **known == name) else {
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(Refusal::Malformed(format!("an unknown parameter; known are: {known}")));
            };
            if query.0.iter().any(|(known, _)| known == name) {
                return Err(Refusal::Malformed(format!("`{name}` is given twice")));
            }
            query.0.push((name, decoded(&value.replace('+', " "))?));
        }
        Ok(query)
    }

    /// The value of a parameter. An empty one counts as not given.
    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, value)| *known == name && !value.is_empty());
        found.map(|(_, value)| value.as_slice())
    }

    /// What `read` makes of a parameter, which it must make something of. An empty one is given.
    pub(super) fn read<T>(
        &self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some((_, value)) = self.0.iter().find(|(known, _)| *known == name) else { return Ok(None) };
        let read = std::str::from_utf8(value).ok().and_then(read);
        read.map(Some).ok_or_else(|| Refusal::Malformed(format!("`{name}` is {wanted}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_bytes_but_none_and_not_too_many() {
        for (text, bytes) in
            [("a", &b"a"[..]), ("a/b", b"a/b"), ("a%2Fb", b"a/b"), ("%00%ff%FF", b"\0\xff\xff"), ("a+b", b"a+b")]
        {
            assert_eq!(key(text).expect("a key"), bytes);
        }
        for bad in ["", "%", "%4", "a%zz", "%%41", "%+1"] {
            assert!(matches!(key(bad), Err(Refusal::Malformed(_))), "{bad}");
        }
        assert!(key(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        assert!(matches!(key(&"k".repeat(KEY_BYTES_MAX + 1)), Err(Refusal::LongKey)));
    }

    #[test]
    fn parameters_are_known_given_once_and_any_bytes() {
        let query = Query::parse("a=x+y%ff&&b=&", &["a", "b", "c"]).expect("a query");
        assert_eq!((query.value("a"), query.value("b"), query.value("c")), (Some(&b"x y\xff"[..]), None, None));
        for bad in ["d=1", "a=1&a=2", "a=%", "A=1", "=1"] {
            assert!(Query::parse(bad, &["a", "b"]).is_err(), "{bad}");
        }
        let number = |text: &str| text.parse::<u8>().ok();
        let query = Query::parse("a=7&b=x&c=%ff", &["a", "b", "c", "d"]).expect("a query");
        assert_eq!(query.read("a", "a number", number).expect("one"), Some(7));
        assert_eq!(query.read("d", "a number", number).expect("none"), None);
        assert!(query.read("b", "a number", number).is_err() && query.read("c", "a number", number).is_err());
    }
}
