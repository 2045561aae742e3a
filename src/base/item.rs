//! Items: a value with all that is kept about it, and what may be asked of one on conditions. This is what memcached, HTTP and clients that
//! know versions speak of. Plain data: executed in `storage::execute::item`, encoded in `protocol::item`. Tested below.
//!
//! What is asked of an item does not fit an [`Act`](super::op::Act), which every operation carries. It stands in `Op::value` instead, behind
//! the data, where there is room for it without moving the data. See [`ItemTerms::append_to`].

use std::num::NonZeroU64;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::hlc::Version;
use super::marks::Marks;
use super::op::{Deadline, Expiry};

/// What to do with an item. Append-only: peers number the variants. The reply is an [`ItemReply`], or null where nothing is there to be
/// read. `Op::value` is the data (empty unless something is stored) and then [`ItemTerms`], or empty for the default of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemAct {
    /// The item.
    Read,
    /// The item, not counted as a use. Terms: `bare`.
    Peek,
    /// The item, changed on the way: touched, made where there is none, promised to be fetched anew (`mg`).
    Fetch,
    /// Store without looking. Terms: `expiry`, `flags`, `cas`.
    Put,
    /// Store by `mode` and `only`.
    Store,
    /// Delete, or mark as stale, by `only`.
    Remove,
    /// Count up or down in the unsigned decimal there.
    Count,
    /// The item, with the deadline changed and nothing else. Terms: `expiry`, `bare`.
    Touch,
}

impl ItemAct {
    /// Whether it can change the key.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::Peek)
    }

    /// Whether what it does or answers depends on what the key holds.
    pub fn reads(self) -> bool {
        self != Self::Put
    }
}

/// What [`ItemAct::Store`] does with what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Replaces it.
    #[default]
    Set,
    /// Refuses to.
    Add,
    /// Replaces it, and refuses where nothing is.
    Replace,
    /// Puts the data behind it, and refuses where nothing is, unless `vivify` says otherwise.
    Append,
    /// Puts the data before it, likewise.
    Prepend,
}

/// What an item must be for a change to it to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// Of this CAS unique.
    Cas(u64),
    /// Of this version.
    Version(Version),
}

/// The particulars of an [`ItemAct`]. Each act says which it minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemTerms {
    /// `Store`.
    pub mode: Mode,
    /// All but `Read` and `Peek`: the deadline afterwards. To keep it means none where something is stored anew.
    pub expiry: Expiry,
    /// Client flags of what is stored.
    pub flags: u32,
    /// `Store`, `Remove`, `Count`: the condition.
    pub only: Option<Only>,
    /// The CAS unique afterwards, in the place of the version's.
    pub cas: Option<NonZeroU64>,
    /// `Remove`: mark it as stale instead. `Store` under a [`Only::Cas`]: what is older than the item may be stored as stale.
    pub stale: bool,
    /// `Fetch`, `Count`, `Store` that appends: what is not there is made, with this deadline.
    pub vivify: Option<Expiry>,
    /// `Fetch`: promise an item that expires before this.
    pub recache: Option<Deadline>,
    /// `Fetch`: `recache` looks at the deadline after `expiry` rather than before.
    pub recache_last: bool,
    /// `Count`: by how much. 1 by default.
    pub delta: u64,
    /// `Count`: what an item that is made holds.
    pub initial: u64,
    /// `Count`: down, to 0 at the least, rather than up, which wraps.
    pub down: bool,
    /// `Remove`: keep the item, without its value.
    pub strip: bool,
    /// `Fetch`: not a use.
    pub unseen: bool,
    /// The reply does without the value.
    pub bare: bool,
    /// `Store` that appends: longest value it may make, in bytes; 0 for the node's own limit.
    pub bytes_max: u32,
}

impl Default for ItemTerms {
    fn default() -> Self {
        Self {
            mode: Mode::Set,
            expiry: Expiry::Keep,
            flags: 0,
            only: None,
            cas: None,
            stale: false,
            vivify: None,
            recache: None,
            recache_last: false,
            delta: 1,
            initial: 0,
            down: false,
            strip: false,
            unseen: false,
            bare: false,
            bytes_max: 0,
        }
    }
}

/// Longest form of terms, its length included.
pub const TERMS_BYTES_MAX: usize = 128;

// Each field that is not at its default is a letter and, for most, a little-endian number.
const MODES: [(u8, Mode); 4] = [(b'a', Mode::Add), (b'r', Mode::Replace), (b'>', Mode::Append), (b'<', Mode::Prepend)];
const EXPIRY: u8 = b'T';
const VIVIFY: u8 = b'N';
const RECACHE: u8 = b'R';
const FLAGS: u8 = b'F';
const ONLY_CAS: u8 = b'C';
const ONLY_VERSION: u8 = b'V';
const CAS: u8 = b'E';
const DELTA: u8 = b'D';
const INITIAL: u8 = b'J';
const BYTES_MAX: u8 = b'M';
const STALE: u8 = b'I';
const RECACHE_LAST: u8 = b'L';
const DOWN: u8 = b'-';
const STRIP: u8 = b'x';
const UNSEEN: u8 = b'u';
const BARE: u8 = b'b';

impl ItemTerms {
    /// Appends them to `data`, and how many bytes they take: `Op::value` of the act.
    pub fn append_to(&self, data: &mut Vec<u8>) {
        let begin = data.len();
        data.extend(MODES.iter().filter(|(_, mode)| *mode == self.mode).map(|(letter, _)| *letter));
        if self.expiry != Expiry::Keep {
            put_expiry(data, EXPIRY, self.expiry);
        }
        if let Some(expiry) = self.vivify {
            put_expiry(data, VIVIFY, expiry);
        }
        if let Some(deadline) = self.recache {
            put_expiry(data, RECACHE, Expiry::Until(deadline));
        }
        match self.only {
            None => {}
            Some(Only::Cas(cas)) => put(data, ONLY_CAS, &cas.to_le_bytes()),
            Some(Only::Version(Version { time, origin })) => {
                put(data, ONLY_VERSION, &time.to_le_bytes());
                data.extend_from_slice(&origin.to_le_bytes());
            }
        }
        if let Some(cas) = self.cas {
            put(data, CAS, &cas.get().to_le_bytes());
        }
        for (letter, number, default) in [(DELTA, self.delta, 1), (INITIAL, self.initial, 0)] {
            if number != default {
                put(data, letter, &number.to_le_bytes());
            }
        }
        for (letter, number) in [(FLAGS, self.flags), (BYTES_MAX, self.bytes_max)] {
            if number != 0 {
                put(data, letter, &number.to_le_bytes());
            }
        }
        let switches = [
            (STALE, self.stale),
            (RECACHE_LAST, self.recache_last),
            (DOWN, self.down),
            (STRIP, self.strip),
            (UNSEEN, self.unseen),
            (BARE, self.bare),
        ];
        data.extend(switches.iter().filter(|(_, on)| *on).map(|(letter, _)| *letter));
        data.push(u8::try_from(data.len() - begin).expect("terms are shorter than TERMS_BYTES_MAX"));
    }

    /// The value of an operation on an item that takes no data.
    pub fn alone(&self) -> Bytes {
        let mut value = Vec::with_capacity(TERMS_BYTES_MAX);
        self.append_to(&mut value);
        value.into()
    }

    /// The data of an operation's value, and its terms. `None` if nobody makes such.
    pub fn split(value: &Bytes) -> Option<(Bytes, Self)> {
        let Some((length, rest)) = value.split_last() else { return Some((Bytes::new(), Self::default())) };
        let data = rest.len().checked_sub(usize::from(*length))?;
        Some((value.slice(..data), Self::parse(&rest[data..])?))
    }

    fn parse(mut from: &[u8]) -> Option<Self> {
        let mut terms = Self::default();
        let from = &mut from;
        while let Some((letter, rest)) = from.split_first() {
            *from = rest;
            match *letter {
                EXPIRY => terms.expiry = take_expiry(from)?,
                VIVIFY => terms.vivify = Some(take_expiry(from)?),
                RECACHE => {
                    let Expiry::Until(deadline) = take_expiry(from)? else { return None };
                    terms.recache = Some(deadline);
                }
                FLAGS => terms.flags = u32::from_le_bytes(take(from)?),
                BYTES_MAX => terms.bytes_max = u32::from_le_bytes(take(from)?),
                ONLY_CAS => terms.only = Some(Only::Cas(u64::from_le_bytes(take(from)?))),
                ONLY_VERSION => {
                    let (time, origin) = (u64::from_le_bytes(take(from)?), u32::from_le_bytes(take(from)?));
                    terms.only = Some(Only::Version(Version { time, origin }));
                }
                CAS => terms.cas = Some(NonZeroU64::new(u64::from_le_bytes(take(from)?))?),
                DELTA => terms.delta = u64::from_le_bytes(take(from)?),
                INITIAL => terms.initial = u64::from_le_bytes(take(from)?),
                STALE => terms.stale = true,
                RECACHE_LAST => terms.recache_last = true,
                DOWN => terms.down = true,
                STRIP => terms.strip = true,
                UNSEEN => terms.unseen = true,
                BARE => terms.bare = true,
                other => terms.mode = MODES.iter().find(|(letter, _)| *letter == other)?.1,
            }
        }
        Some(terms)
    }
}

fn put(data: &mut Vec<u8>, letter: u8, number: &[u8]) {
    data.push(letter);
    data.extend_from_slice(number);
}

fn put_expiry(data: &mut Vec<u8>, letter: u8, expiry: Expiry) {
    let (how, ms) = match expiry {
        Expiry::Keep => (0, None),
        Expiry::Clear => (1, None),
        Expiry::Until(Deadline::In(ms)) => (2, Some(ms)),
        Expiry::Until(Deadline::At(ms)) => (3, Some(ms)),
    };
    data.extend_from_slice(&[letter, how]);
    data.extend(ms.into_iter().flat_map(i64::to_le_bytes));
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}

fn take_expiry(from: &mut &[u8]) -> Option<Expiry> {
    Some(match take::<1>(from)? {
        [0] => Expiry::Keep,
        [1] => Expiry::Clear,
        [2] => Expiry::Until(Deadline::In(i64::from_le_bytes(take(from)?))),
        [3] => Expiry::Until(Deadline::At(i64::from_le_bytes(take(from)?))),
        _ => return None,
    })
}

/// What came of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// It is there, or was done.
    Done,
    /// Something is there now where nothing was. Not told by [`ItemAct::Put`], which does not look.
    Created,
    /// Not done, because of what `mode` wants.
    NotStored,
    /// Not done: the item is not the one that `only` names. The reply says which it is.
    Differs,
    /// Not done: nothing is there.
    Missing,
    /// Not done: what is there is no number.
    NotNumber,
}

/// The answer to an [`ItemAct`]: what came of it, and the item as it is afterwards, or what is there instead; with the value as the store has
/// it ([`ItemValue`]), or as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemReply<V> {
    /// What came of it.
    pub outcome: ItemOutcome,
    /// Of the item; [`Version::ZERO`] where there is none.
    pub version: Version,
    /// Flags, and for [`ItemAct::Fetch`] the state before it.
    pub marks: Marks,
    /// Milliseconds until it expires, as it was before `expiry` of the terms was applied; `None` never.
    pub ttl_ms: Option<u64>,
    /// Milliseconds since it was written.
    pub age_ms: u64,
    /// Whether whoever asked was promised the item with this reply: it is to fetch it anew.
    pub won: bool,
    /// Whether it had been read as an item before, on the node that answers, since it was stored there.
    pub was_hit: bool,
    /// Length of the value in bytes.
    pub len: u32,
    /// The value, or the number it was counted to; `None` where the terms or the act do without.
    pub value: Option<V>,
}

/// The bytes of an item, as the store has them.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemValue<'a> {
    /// To be copied.
    Copied(&'a [u8]),
    /// Large enough to be shared.
    Shared(&'a Bytes),
}

impl<V> ItemReply<V> {
    /// The reply that says no more than this.
    pub fn only(outcome: ItemOutcome) -> Self {
        Self {
            outcome,
            version: Version::ZERO,
            marks: Marks::default(),
            ttl_ms: None,
            age_ms: 0,
            won: false,
            was_hit: false,
            len: 0,
            value: None,
        }
    }

    /// The CAS unique of the item.
    pub fn cas_unique(&self) -> u64 {
        cas_unique(self.version, self.marks)
    }
}

/// The CAS unique of an item: its own, or that of its version.
pub fn cas_unique(version: Version, marks: Marks) -> u64 {
    marks.cas.map_or_else(|| version.cas_unique(), NonZeroU64::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expiry() -> impl Strategy<Value = Expiry> {
        prop_oneof![
            Just(Expiry::Keep),
            Just(Expiry::Clear),
            any::<i64>().prop_map(|ms| Expiry::Until(Deadline::In(ms))),
            any::<i64>().prop_map(|ms| Expiry::Until(Deadline::At(ms))),
        ]
    }

    fn only() -> impl Strategy<Value = Only> {
        prop_oneof![
            any::<u64>().prop_map(Only::Cas),
            any::<(u64, u32)>().prop_map(|(time, origin)| Only::Version(Version { time, origin })),
        ]
    }

    prop_compose! {
        fn terms()(
            mode in prop::sample::select(vec![Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend]),
            (expiry, vivify) in (expiry(), prop::option::of(expiry())),
            (only, recache) in (prop::option::of(only()), prop::option::of(any::<i64>().prop_map(Deadline::In))),
            (flags, bytes_max, cas, delta, initial) in any::<(u32, u32, u64, u64, u64)>(),
            [stale, recache_last, down, strip, unseen, bare] in any::<[bool; 6]>(),
        ) -> ItemTerms {
            let cas = NonZeroU64::new(cas);
            ItemTerms {
                mode, expiry, flags, only, cas, stale, vivify, recache, recache_last, delta, initial, down, strip, unseen, bare,
                bytes_max,
            }
        }
    }

    proptest! {
        #[test]
        fn data_and_terms_read_back(data: Vec<u8>, terms in terms()) {
            let mut value = data.clone();
            terms.append_to(&mut value);
            prop_assert!(value.len() - data.len() <= TERMS_BYTES_MAX);
            prop_assert_eq!(ItemTerms::split(&value.into()), Some((Bytes::from(data), terms)));
        }

        #[test]
        fn any_bytes_are_terms_or_refused(bytes: Vec<u8>) {
            let _ = ItemTerms::split(&bytes.into());
        }
    }

    #[test]
    fn the_default_takes_no_bytes_or_one() {
        assert_eq!(ItemTerms::split(&Bytes::new()), Some((Bytes::new(), ItemTerms::default())));
        assert_eq!(ItemTerms::default().alone(), Bytes::from_static(&[0]));
    }
}
