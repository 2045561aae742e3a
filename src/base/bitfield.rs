//! The operations of a `BITFIELD`, and how they travel in the value of the one operation they are. Plain data: parsed in `protocol`, executed in
//! `storage`. Tested below.
//!
//! ```text
//! 0  verb 0-2 (get, set, add) + 4 x overflow 0-2 (wrap, saturate, fail) + 16 if signed
//! 1  width in bits
//! 2  offset in bits, little endian   8
//! 10 operand, little endian          8
//! ```

use super::limits::BITFIELD_OPS_MAX;

/// Bytes of one operation on its way.
const FIELD_BYTES: usize = 18;

/// One operation on an integer of some bits at any offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Whether its highest bit is a sign.
    pub signed: bool,
    /// Its width: 1 to 64, or to 63 if not signed.
    pub bits: u8,
    /// Bits before it in the string.
    pub offset: u64,
    /// What to do with it.
    pub verb: Verb,
    /// What becomes of a number that it is too narrow for.
    pub overflow: Overflow,
}

/// What to do with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Answer it.
    Get,
    /// Replace it, and answer what it was.
    Set(i64),
    /// Add to it, and answer the sum.
    Add(i64),
}

/// What becomes of a number outside a field's range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The bits that have no room are lost.
    #[default]
    Wrap,
    /// The nearest number in range.
    Saturate,
    /// Nothing is done, and the answer is null.
    Fail,
}

impl Field {
    /// Whether there is an integer of so many bits: 64 are too many for Redis's replies when they have no sign.
    pub fn is_width(signed: bool, bits: i64) -> bool {
        (1..=if signed { 64 } else { 63 }).contains(&bits)
    }

    /// Whether it may change the string.
    pub fn writes(&self) -> bool {
        self.verb != Verb::Get
    }

    /// Bytes of a string that reaches to its last bit, for offsets within strings of any length there is.
    pub fn end_bytes(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.bits)).div_ceil(8)
    }

    fn to_bytes(self) -> [u8; FIELD_BYTES] {
        let (verb, operand) = match self.verb {
            Verb::Get => (0, 0),
            Verb::Set(operand) => (1, operand),
            Verb::Add(operand) => (2, operand),
        };
        let overflow = match self.overflow {
            Overflow::Wrap => 0,
            Overflow::Saturate => 1,
            Overflow::Fail => 2,
        };
        let mut bytes = [0; FIELD_BYTES];
        bytes[0] = verb + 4 * overflow + 16 * u8::from(self.signed);
        bytes[1] = self.bits;
        bytes[2..10].copy_from_slice(&self.offset.to_le_bytes());
        bytes[10..].copy_from_slice(&operand.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; FIELD_BYTES]) -> Option<Self> {
        let [head, bits, ..] = *bytes;
        let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let operand = number(10)?.cast_signed();
        let verb = match head % 4 {
            0 => Verb::Get,
            1 => Verb::Set(operand),
            2 => Verb::Add(operand),
            _ => return None,
        };
        let overflow = match head / 4 % 4 {
            0 => Overflow::Wrap,
            1 => Overflow::Saturate,
            2 => Overflow::Fail,
            _ => return None,
        };
        let signed = head / 16 == 1;
        let known = head < 32 && Self::is_width(signed, i64::from(bits));
        known.then_some(Self { signed, bits, offset: number(2)?, verb, overflow })
    }
}

/// The operations as they travel.
pub fn encode(fields: &[Field]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_bytes()).collect()
}

/// The operations of such a value; `None` if it is none, or has more of them than there may be.
pub fn decode(value: &[u8]) -> Option<Vec<Field>> {
    let (fields, rest) = value.as_chunks::<FIELD_BYTES>();
    if !rest.is_empty() || fields.len() > BITFIELD_OPS_MAX {
        return None;
    }
    fields.iter().map(Field::from_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field() -> impl Strategy<Value = Field> {
        let verb = prop_oneof![Just(Verb::Get), any::<i64>().prop_map(Verb::Set), any::<i64>().prop_map(Verb::Add)];
        let overflow = prop_oneof![Just(Overflow::Wrap), Just(Overflow::Saturate), Just(Overflow::Fail)];
        (any::<bool>(), 1u8..=63, any::<u64>(), verb, overflow).prop_map(|(signed, bits, offset, verb, overflow)| {
            Field { signed, bits: bits + u8::from(signed), offset, verb, overflow }
        })
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives(fields in prop::collection::vec(field(), 0..9)) {
            prop_assert_eq!(decode(&encode(&fields)), Some(fields));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(fields) = decode(&value) {
                prop_assert!(fields.iter().all(|field| Field::is_width(field.signed, i64::from(field.bits))));
            }
        }
    }

    #[test]
    fn there_is_a_bound() {
        let field = Field { signed: true, bits: 8, offset: 0, verb: Verb::Get, overflow: Overflow::Wrap };
        assert!(decode(&encode(&vec![field; BITFIELD_OPS_MAX])).is_some());
        assert!(decode(&encode(&vec![field; BITFIELD_OPS_MAX + 1])).is_none());
    }
}
