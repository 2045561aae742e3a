//! Classes of keyspace events, by the letters that Redis gives them, and the channels they are published on. Decides nothing; what happens
//! to a key is told by `storage::notice`. Tested below.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A set of classes of events, and of the ways to publish them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Classes(u16);

/// The letters in the order of `CONFIG GET`, but for `A`; the last is not shown in it.
const LETTERS: [(u8, Classes); 14] = [
    (b'g', Classes::GENERIC),
    (b'$', Classes::STRING),
    (b'l', Classes(1 << 2)),
    (b's', Classes(1 << 3)),
    (b'h', Classes(1 << 4)),
    (b'z', Classes(1 << 5)),
    (b'x', Classes::EXPIRED),
    (b'e', Classes::EVICTED),
    (b't', Classes(1 << 8)),
    (b'd', Classes(1 << 9)),
    (b'n', Classes::NEW),
    (b'K', Classes::BY_KEY),
    (b'E', Classes::BY_EVENT),
    (b'm', Classes::MISS),
];

/// What a channel of events of one key begins with.
pub const KEYSPACE: &[u8] = b"__keyspace@0__:";
/// What a channel of events of one kind begins with.
pub const KEYEVENT: &[u8] = b"__keyevent@0__:";

impl Classes {
    /// None.
    pub const NONE: Self = Self(0);
    /// `g`: `DEL`, `EXPIRE`, `RENAME` and others that any type of value has.
    pub const GENERIC: Self = Self(1);
    /// `$`: commands on strings.
    pub const STRING: Self = Self(1 << 1);
    /// `x`: a deadline passed.
    pub const EXPIRED: Self = Self(1 << 6);
    /// `e`: dropped for want of memory.
    pub const EVICTED: Self = Self(1 << 7);
    /// `A`: what had a letter in Redis before the others came.
    pub const ALL: Self = Self((1 << 10) - 1);
    /// `n`: a key was added.
    pub const NEW: Self = Self(1 << 10);
    /// `m`: a key was read and not there.
    pub const MISS: Self = Self(1 << 11);
    /// `K`: publish to the key's channel.
    pub const BY_KEY: Self = Self(1 << 12);
    /// `E`: publish to the event's channel.
    pub const BY_EVENT: Self = Self(1 << 13);

    /// The classes that `text` names; `None` if a letter is nobody's.
    pub fn parse(text: &[u8]) -> Option<Self> {
        text.iter().try_fold(Self::NONE, |all, byte| {
            let named = LETTERS.iter().find(|(letter, _)| letter == byte).map(|(_, classes)| *classes);
            named.or((*byte == b'A').then_some(Self::ALL)).map(|classes| all | classes)
        })
    }

    /// Whether there is anything in both.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of `other` is in this.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Nothing, unless something would be published: that takes a class and a way.
    #[must_use]
    pub fn effective(self) -> Self {
        let ways = Self::BY_KEY | Self::BY_EVENT;
        if self.meets(ways) && self.without(ways) != Self::NONE { self } else { Self::NONE }
    }
}

impl std::ops::BitOr for Classes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// As Redis 7.0 writes them, which leaves out `n` beside `A`.
impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.has(Self::ALL);
        if all {
            f.write_str("A")?;
        }
        let in_all = |classes: Self| Self::ALL.has(classes) || classes == Self::NEW;
        for (letter, classes) in LETTERS.iter().filter(|(_, classes)| self.has(*classes) && !(all && in_all(*classes)))
        {
            debug_assert_ne!(*classes, Self::NONE);
            write!(f, "{}", *letter as char)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_shown_as_redis_shows_them() {
        for (text, shown) in [
            ("KEA", "AKE"),
            ("KEAn", "AKE"),
            ("Kn", "nK"),
            ("Em", "Em"),
            ("KEg$", "g$KE"),
            ("xeK", "xeK"),
            ("KEAmn", "AKEm"),
            ("g$lshzxetd", "A"),
            ("g$lshzxet", "g$lshzxet"),
            ("dK", "dK"),
            ("", ""),
            ("KKEE", "KE"),
        ] {
            assert_eq!(Classes::parse(text.as_bytes()).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(Classes::parse(b"Kq"), None);
    }

    #[test]
    fn nothing_is_published_without_a_class_and_a_way() {
        let effective = |text: &str| Classes::parse(text.as_bytes()).unwrap().effective() != Classes::NONE;
        assert!(effective("K$") && effective("EA") && effective("Km"));
        assert!(!effective("KE") && !effective("Amn") && !effective(""));
    }
}
