//! What memcached clients keep beside a value: their flags, and the state of an item that is being fetched anew. Never interprets them.
//! Tested below.

use std::num::NonZeroU64;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// See the file's head. The default is what the values of every other client have. It travels as one number: the flags in its lower 32 bits,
/// then a bit each for `is_stale`, `is_promised` and a CAS unique of its own, then that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marks {
    /// Opaque to everybody else.
    pub flags: u32,
    /// Invalidated, and still handed out until somebody has fetched it anew (`md` with `I`).
    pub is_stale: bool,
    /// Somebody was told to fetch it anew; the others are told so (`W` and `Z` of `mg`).
    pub is_promised: bool,
    /// The CAS unique, where it is not that of the version: given by a client (`E`), or kept through a change that memcached makes without
    /// a new one.
    pub cas: Option<NonZeroU64>,
}

const STALE: u128 = 1 << 32;
const PROMISED: u128 = 1 << 33;
const OWN_CAS: u128 = 1 << 34;
const CAS_AT: u32 = 35;

impl Marks {
    /// Nothing but flags.
    pub fn of(flags: u32) -> Self {
        Self { flags, ..Self::default() }
    }

    fn to_number(self) -> u128 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let cas = self.cas.map_or(0, |cas| OWN_CAS | u128::from(cas.get()) << CAS_AT);
        u128::from(self.flags) | bit(self.is_stale, STALE) | bit(self.is_promised, PROMISED) | cas
    }

    fn from_number(number: u128) -> Option<Self> {
        let cas = if number & OWN_CAS == 0 { None } else { Some(u64::try_from(number >> CAS_AT).ok()?) };
        let marks = Self {
            flags: number as u32,
            is_stale: number & STALE != 0,
            is_promised: number & PROMISED != 0,
            cas: cas.and_then(NonZeroU64::new),
        };
        // One spelling each: what does not read back as it was written is none.
        (marks.to_number() == number).then_some(marks)
    }
}

impl Serialize for Marks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u128(self.to_number())
    }
}

impl<'de> Deserialize<'de> for Marks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u128::deserialize(deserializer)?;
        Self::from_number(number).ok_or_else(|| D::Error::custom("marks that nobody makes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn marks_read_back_and_flags_alone_are_their_number(flags: u32, is_stale: bool, is_promised: bool, cas: u64) {
            let marks = Marks { flags, is_stale, is_promised, cas: NonZeroU64::new(cas) };
            prop_assert_eq!(Marks::from_number(marks.to_number()), Some(marks));
            let bytes = postcard::to_allocvec(&marks).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Marks>(&bytes).unwrap(), marks);
            prop_assert_eq!(postcard::to_allocvec(&Marks::of(flags)).unwrap(), postcard::to_allocvec(&flags).unwrap());
        }

        #[test]
        fn any_number_is_marks_or_refused(number: u128) {
            if let Some(marks) = Marks::from_number(number) {
                prop_assert_eq!(marks.to_number(), number);
            }
        }
    }

    #[test]
    fn they_take_little_room() {
        assert_eq!(size_of::<Marks>(), 16);
        assert_eq!(Marks::from_number(OWN_CAS), None);
    }
}
