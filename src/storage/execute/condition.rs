//! Conditions on what a key holds, and the acts that are nothing else: compare and delete, digest. What a comparison means is Redis 8.4's
//! `IFEQ`, `IFNE`, `IFDEQ` and `IFDNE`. Never stores anything. Tested below, and in `storage::tests`.

use xxhash_rust::xxh3::xxh3_64;

use super::{Mutated, Target, error};
use crate::base::op::{Comparison, When};
use crate::base::reply::{ReplyRef, ReplySink};
use crate::storage::store::Store;

/// Hexadecimal digits of a digest.
const DIGEST_DIGITS: usize = 16;
const BAD_DIGEST: &str = "ERR must be exactly 16 hexadecimal characters";

/// The condition of a `Set` or a `SetIf`.
#[derive(Clone, Copy)]
pub(super) enum Condition<'a> {
    /// On whether there is a value.
    When(When),
    /// On the value, compared with an operand.
    If(Comparison, &'a [u8]),
}

impl Condition<'_> {
    /// Whether it holds where the key has this value, or none. As in Redis an operand is looked at only where there is one.
    ///
    /// # Errors
    /// The refusal of an operand that is no digest.
    pub(super) fn holds(self, value: Option<&[u8]>) -> Result<bool, &'static str> {
        match (self, value) {
            (Self::When(When::Always), _) => Ok(true),
            (Self::When(When::Absent), value) => Ok(value.is_none()),
            (Self::When(When::Present), value) => Ok(value.is_some()),
            (Self::If(comparison, _), None) => {
                Ok(matches!(comparison, Comparison::Differs | Comparison::DigestDiffers))
            }
            (Self::If(comparison, operand), Some(value)) => compares(comparison, value, operand),
        }
    }
}

fn compares(comparison: Comparison, value: &[u8], operand: &[u8]) -> Result<bool, &'static str> {
    let is_digest = || match operand.len() {
        DIGEST_DIGITS => Ok(digest(value).eq_ignore_ascii_case(operand)),
        _ => Err(BAD_DIGEST),
    };
    match comparison {
        Comparison::Equal => Ok(value == operand),
        Comparison::Differs => Ok(value != operand),
        Comparison::DigestEqual => is_digest(),
        Comparison::DigestDiffers => is_digest().map(|equal| !equal),
    }
}

/// XXH3-64 as `DIGEST` shows it.
fn digest(value: &[u8]) -> [u8; DIGEST_DIGITS] {
    let hash = xxh3_64(value);
    std::array::from_fn(|n| b"0123456789abcdef"[(hash >> (4 * (DIGEST_DIGITS - 1 - n))) as usize & 0xf])
}

impl Store {
    pub(super) fn delete_if(
        &mut self,
        to: Target<'_>,
        comparison: Comparison,
        operand: &[u8],
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        let found = self.value(to).map(|live| compares(comparison, live.value(), operand));
        self.count_lookup(found.is_some());
        match found {
            Some(Ok(true)) => {
                self.remove(to, mutated);
                sink.reply(ReplyRef::Int(1));
            }
            None | Some(Ok(false)) => sink.reply(ReplyRef::Int(0)),
            Some(Err(refusal)) => sink.reply(error(refusal)),
        }
    }

    pub(super) fn digest(&mut self, to: Target<'_>, sink: &mut impl ReplySink) {
        let found = self.value(to).map(|live| digest(live.value()));
        self.count_lookup(found.is_some());
        sink.reply(found.as_ref().map_or(ReplyRef::Null, |digits| ReplyRef::Bulk(digits)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Comparison::{Differs, DigestDiffers, DigestEqual, Equal};
    use proptest::prelude::*;

    #[test]
    fn digests_are_those_of_redis() {
        for (value, digits) in [
            ("", "2d06800538d394c2"),
            ("hello", "9555e8555c62dcfd"),
            ("123", "404a763b3f4c8c9a"),
            // Leading zeros are digits.
            ("v8", "0cc76dbb41381419"),
        ] {
            assert_eq!(digest(value.as_bytes()), digits.as_bytes(), "{value}");
        }
    }

    #[test]
    fn comparisons_are_those_of_redis() {
        for (comparison, value, operand, expected) in [
            (Equal, Some("a"), "a", Ok(true)),
            (Equal, Some("a"), "A", Ok(false)),
            (Equal, None, "", Ok(false)),
            (Differs, Some(""), "", Ok(false)),
            (Differs, None, "", Ok(true)),
            (DigestEqual, Some("hello"), "9555E8555c62dcfd", Ok(true)),
            (DigestEqual, Some("hello"), "zzzzzzzzzzzzzzzz", Ok(false)),
            (DigestEqual, Some("hello"), "hello", Err(BAD_DIGEST)),
            (DigestEqual, None, "hello", Ok(false)),
            (DigestDiffers, Some("hello"), "9555e8555c62dcfd", Ok(false)),
            (DigestDiffers, Some("hello"), "", Err(BAD_DIGEST)),
            (DigestDiffers, None, "", Ok(true)),
        ] {
            let condition = Condition::If(comparison, operand.as_bytes());
            assert_eq!(condition.holds(value.map(str::as_bytes)), expected, "{comparison:?} {value:?} {operand}");
        }
    }

    proptest! {
        #[test]
        fn each_comparison_has_its_opposite(value: Option<Vec<u8>>, operand: Vec<u8>) {
            let holds = |comparison| Condition::If(comparison, &operand).holds(value.as_deref());
            prop_assert_eq!(holds(Equal), holds(Differs).map(|differs| !differs));
            prop_assert_eq!(holds(DigestEqual), holds(DigestDiffers).map(|differs| !differs));
            let own = value.as_deref().map(digest);
            if let (Some(value), Some(own)) = (&value, own) {
                prop_assert_eq!(Condition::If(DigestEqual, &own).holds(Some(value)), Ok(true));
            }
        }
    }
}
