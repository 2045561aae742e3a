//! What a key holds, in the owned form messages carry, and the one rule by which two of them merge. Never stores anything. Tested below.

use std::cmp::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::hlc::{UnixMs, Version};
use super::marks::Marks;

/// A versioned value or a versioned delete, borrowing its bytes. The wire and the store both speak it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRef<'a> {
    /// Decides merges.
    pub version: Version,
    /// A value, or the fact that there is none.
    #[serde(borrow)]
    pub body: BodyRef<'a>,
}

/// The content of an [`EntryRef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyRef<'a> {
    /// Deleted (or expired) at the entry's version.
    Tombstone,
    /// A value.
    Live {
        /// Its bytes.
        #[serde(borrow, with = "serde_bytes")]
        value: &'a [u8],
        /// Absolute expiry; `None` never expires.
        deadline: Option<UnixMs>,
        /// What memcached clients keep beside it.
        marks: Marks,
    },
}

/// The owned form of [`EntryRef`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Decides merges.
    pub version: Version,
    /// A value, or the fact that there is none.
    pub body: Body,
}

/// The content of an [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Deleted (or expired) at the entry's version.
    Tombstone,
    /// A value.
    Live {
        /// Its bytes.
        value: Bytes,
        /// Absolute expiry; `None` never expires.
        deadline: Option<UnixMs>,
        /// What memcached clients keep beside it.
        marks: Marks,
    },
}

impl Entry {
    /// A view of this entry.
    pub fn as_ref(&self) -> EntryRef<'_> {
        let body = match &self.body {
            Body::Tombstone => BodyRef::Tombstone,
            Body::Live { value, deadline, marks } => BodyRef::Live { value, deadline: *deadline, marks: *marks },
        };
        EntryRef { version: self.version, body }
    }
}

impl EntryRef<'_> {
    /// Copies the bytes into an owned entry.
    pub fn to_entry(self) -> Entry {
        self.to_entry_with(Bytes::copy_from_slice)
    }

    /// An owned entry whose value `own` makes, for bytes that need no copy.
    pub fn to_entry_with(self, own: impl FnOnce(&[u8]) -> Bytes) -> Entry {
        let body = match self.body {
            BodyRef::Tombstone => Body::Tombstone,
            BodyRef::Live { value, deadline, marks } => Body::Live { value: own(value), deadline, marks },
        };
        Entry { version: self.version, body }
    }

    /// Last writer wins: `Greater` means `self` replaces `other`. Versions decide; should two ever be equal, the content does, a delete
    /// before a value, so that the order is total and every replica ends with the same bytes: to keep the greater commutes, associates and
    /// is idempotent.
    pub fn merge_order(&self, other: &EntryRef<'_>) -> Ordering {
        #[cfg(feature = "sim")]
        if super::plant::Plant::OriginBlindMerge.is_sown() {
            return self.version.time.cmp(&other.version.time);
        }
        self.version.cmp(&other.version).then_with(|| match (&self.body, &other.body) {
            (BodyRef::Tombstone, BodyRef::Tombstone) => Ordering::Equal,
            (BodyRef::Tombstone, BodyRef::Live { .. }) => Ordering::Greater,
            (BodyRef::Live { .. }, BodyRef::Tombstone) => Ordering::Less,
            (
                BodyRef::Live { value: a, deadline: ad, marks: am },
                BodyRef::Live { value: b, deadline: bd, marks: bm },
            ) => a.cmp(b).then(ad.cmp(bd)).then(am.cmp(bm)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a replica keeps of the two.
    fn merge<'a>(a: EntryRef<'a>, b: EntryRef<'a>) -> EntryRef<'a> {
        if b.merge_order(&a).is_gt() { b } else { a }
    }

    // Few distinct versions and values, so that ties are common.
    fn entry() -> impl Strategy<Value = Entry> {
        let body = prop_oneof![
            Just(Body::Tombstone),
            (0u8..3, prop::option::of(0u64..3), 0u32..2).prop_map(|(byte, deadline, flags)| Body::Live {
                value: Bytes::from(vec![byte]),
                deadline,
                marks: Marks::of(flags),
            }),
        ];
        (0u64..3, 0u32..3, body).prop_map(|(time, origin, body)| Entry { version: Version { time, origin }, body })
    }

    proptest! {
        #[test]
        fn merge_commutes_associates_and_repeats_without_effect(a in entry(), b in entry(), c in entry()) {
            let (a, b, c) = (a.as_ref(), b.as_ref(), c.as_ref());
            prop_assert_eq!(merge(a, b), merge(b, a));
            prop_assert_eq!(merge(merge(a, b), c), merge(a, merge(b, c)));
            prop_assert_eq!(merge(a, a), a);
        }

        #[test]
        fn the_newer_version_wins(a in entry(), b in entry()) {
            let winner = merge(a.as_ref(), b.as_ref());
            prop_assert_eq!(winner.version, a.version.max(b.version));
        }
    }
}
