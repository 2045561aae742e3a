//! Commands on strings as bits. Parses only; tested below and in `command/tests.rs`.

use bytes::Bytes;

use super::table::{Command, c_text};
use super::{Context, ErrorText, Parsed, SYNTAX, integer, is, one, take};
use crate::base::bitfield::{self, Field, Overflow, Verb};
use crate::base::limits::BITFIELD_OPS_MAX;
use crate::base::number;
use crate::base::op::{Act, BitUnit, Op};
use crate::protocol::request::Request;
use crate::protocol::resp::Args;

const BAD_OFFSET: &str = "ERR bit offset is not an integer or out of range";
const BAD_BIT: &str = "ERR bit is not an integer or out of range";
const BAD_TYPE: &str =
    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.";

pub(super) const COMMANDS: &[Command] =
    &[
        Command::new("setbit", 4, setbit)
            .flags("write denyoom", "@write @bitmap @slow")
            .keys(1, 1, 1, "RW access update")
            .about("bitmap", "2.2.0", "O(1)", "Sets or clears the bit at offset in the string value stored at key"),
        Command::new("getbit", 3, getbit)
            .flags("readonly fast", "@read @bitmap @fast")
            .keys(1, 1, 1, "RO access")
            .about("bitmap", "2.2.0", "O(1)", "Returns the bit value at offset in the string value stored at key"),
        Command::new("bitcount", -2, bitcount)
            .flags("readonly", "@read @bitmap @slow")
            .keys(1, 1, 1, "RO access")
            .about("bitmap", "2.6.0", "O(N)", "Count set bits in a string"),
        Command::new("bitpos", -3, bitpos).flags("readonly", "@read @bitmap @slow").keys(1, 1, 1, "RO access").about(
            "bitmap",
            "2.8.7",
            "O(N)",
            "Find first bit set or clear in a string",
        ),
        Command::new("bitfield", -2, bitfield)
            .flags("write denyoom", "@write @bitmap @slow")
            .keys(1, 1, 1, "RW access update variable_flags")
            .key_notes("This command allows both access and modification of the key")
            .about(
                "bitmap",
                "3.2.0",
                "O(1) for each subcommand specified",
                "Perform arbitrary bitfield integer operations on strings",
            ),
        Command::new("bitfield_ro", -2, bitfield_ro)
            .flags("readonly fast", "@read @bitmap @fast")
            .keys(1, 1, 1, "RO access")
            .about(
                "bitmap",
                "6.0.0",
                "O(1) for each subcommand specified",
                "Perform arbitrary bitfield integer operations on strings. Read-only variant of BITFIELD",
            ),
    ];

/// An offset whose byte a string may have; with `#`, which fields allow, in fields of so many bits.
fn offset(arg: &[u8], field_bits: Option<u8>, context: &Context) -> Result<u64, ErrorText> {
    let (digits, unit) = match (arg, field_bits) {
        ([b'#', digits @ ..], Some(bits)) => (digits, i64::from(bits)),
        _ => (arg, 1),
    };
    let bits = number::integer(digits).and_then(|number| number.checked_mul(unit));
    let bits = bits.and_then(|bits| u64::try_from(bits).ok());
    bits.filter(|bits| bits / 8 < context.value_bytes_max as u64).ok_or(BAD_OFFSET.into())
}

fn setbit(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let at = offset(&args[2], None, context)?;
    let on = match number::integer(&args[3]) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(BAD_BIT.into()),
    };
    Ok(one(take(args, 1), Act::SetBit { at, on }))
}

fn getbit(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let at = offset(&args[2], None, context)?;
    Ok(one(take(args, 1), Act::GetBit { at }))
}

fn unit(arg: Option<&Bytes>) -> Result<BitUnit, ErrorText> {
    match arg {
        None => Ok(BitUnit::Byte),
        Some(arg) if is(arg, "byte") => Ok(BitUnit::Byte),
        Some(arg) if is(arg, "bit") => Ok(BitUnit::Bit),
        Some(_) => Err(SYNTAX.into()),
    }
}

/// Redis 7.0 answers 0 of a key that is not there whatever the range is; 7.2 reads the range first, and so does this.
fn bitcount(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let (start, end) = match args.len() {
        2 => (0, -1),
        4 | 5 => (integer(&args[2])?, integer(&args[3])?),
        _ => return Err(SYNTAX.into()),
    };
    let unit = unit(args.get(4))?;
    Ok(one(take(args, 1), Act::BitCount { start, end, unit }))
}

/// As with `bitcount`, the range is read whether or not there is a key.
fn bitpos(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let on = match integer(&args[2])? {
        0 => false,
        1 => true,
        _ => return Err("ERR The bit argument must be 1 or 0.".into()),
    };
    if args.len() > 6 {
        return Err(SYNTAX.into());
    }
    let start = args.get(3).map_or(Ok(0), |arg| integer(arg))?;
    let unit = unit(args.get(5))?;
    let end = args.get(4).map_or(Ok(-1), |arg| integer(arg))?;
    let open = args.len() < 5;
    Ok(one(take(args, 1), Act::BitPos { on, open, start, end, unit }))
}

fn field_type(arg: &[u8]) -> Option<(bool, u8)> {
    let signed = match arg.first()? {
        b'i' => true,
        b'u' => false,
        _ => return None,
    };
    let bits = number::integer(c_text(&arg[1..], arg.len()))?;
    Field::is_width(signed, bits).then_some((signed, bits as u8))
}

/// The operations in `args[2..]`.
fn fields(args: &Args, context: &Context) -> Result<Vec<Field>, ErrorText> {
    let mut fields = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut at = 2;
    while let Some(arg) = args.get(at) {
        let left = args.len() - at - 1;
        if is(arg, "overflow") && left >= 1 {
            overflow = match &args[at + 1] {
                how if is(how, "wrap") => Overflow::Wrap,
                how if is(how, "sat") => Overflow::Saturate,
                how if is(how, "fail") => Overflow::Fail,
                _ => return Err("ERR Invalid OVERFLOW type specified".into()),
            };
            at += 2;
            continue;
        }
        let verb: fn(i64) -> Verb = match arg {
            arg if is(arg, "get") && left >= 2 => |_| Verb::Get,
            arg if is(arg, "set") && left >= 3 => Verb::Set,
            arg if is(arg, "incrby") && left >= 3 => Verb::Add,
            _ => return Err(SYNTAX.into()),
        };
        let reads = verb(0) == Verb::Get;
        let (signed, bits) = field_type(&args[at + 1]).ok_or(BAD_TYPE)?;
        let offset = offset(&args[at + 2], Some(bits), context)?;
        let verb = verb(if reads { 0 } else { integer(&args[at + 3])? });
        let field = Field { signed, bits, offset, verb, overflow };
        if fields.len() == BITFIELD_OPS_MAX {
            return Err(format!("ERR more than {BITFIELD_OPS_MAX} operations in one command").into());
        }
        fields.push(field);
        at += if reads { 3 } else { 4 };
    }
    Ok(fields)
}

fn bitfield_of(args: &mut Args, fields: &[Field]) -> Parsed {
    let act = if fields.iter().any(Field::writes) { Act::BitField } else { Act::BitFieldGet };
    Parsed::Request(Request::One(Op { key: take(args, 1), act, value: bitfield::encode(fields).into() }))
}

fn bitfield(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let fields = fields(args, context)?;
    Ok(bitfield_of(args, &fields))
}

fn bitfield_ro(args: &mut Args, context: &Context) -> Result<Parsed, ErrorText> {
    let fields = fields(args, context)?;
    if fields.iter().any(Field::writes) {
        return Err("ERR BITFIELD_RO only supports the GET subcommand".into());
    }
    Ok(bitfield_of(args, &fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::VALUE_BYTES_MAX;
    use crate::protocol::resp::command::parse;
    use crate::protocol::resp::inline;

    fn parsed(line: &str) -> Result<Request, Bytes> {
        let context = Context { now: 1_700_000_000_000, value_bytes_max: VALUE_BYTES_MAX };
        match parse(&mut inline::split(line.as_bytes()).unwrap(), &context) {
            Ok((_, Parsed::Request(request))) => Ok(request),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.text),
        }
    }

    #[test]
    fn errors_are_those_of_redis() {
        const INTEGER: &str = "ERR value is not an integer or out of range";
        for (line, text) in [
            ("SETBIT k a 1", BAD_OFFSET),
            ("SETBIT k -1 1", BAD_OFFSET),
            ("SETBIT k 4294967296 1", BAD_OFFSET),
            ("SETBIT k #1 1", BAD_OFFSET),
            ("SETBIT k a 2", BAD_OFFSET),
            ("SETBIT k 1 2", BAD_BIT),
            ("SETBIT k 1 x", BAD_BIT),
            ("GETBIT k -1", BAD_OFFSET),
            ("BITCOUNT k 1", SYNTAX),
            ("BITCOUNT k a 1 foo", INTEGER),
            ("BITCOUNT k 1 1 foo", SYNTAX),
            ("BITCOUNT k 1 1 bit x", SYNTAX),
            ("BITPOS k x", INTEGER),
            ("BITPOS k 2", "ERR The bit argument must be 1 or 0."),
            ("BITPOS k 1 a", INTEGER),
            ("BITPOS k 1 a b foo", INTEGER),
            ("BITPOS k 1 1 b foo", SYNTAX),
            ("BITPOS k 1 1 1 bit x", SYNTAX),
            ("BITFIELD k foo", SYNTAX),
            ("BITFIELD k GET u8", SYNTAX),
            ("BITFIELD k SET u8 0", SYNTAX),
            ("BITFIELD k OVERFLOW", SYNTAX),
            ("BITFIELD k OVERFLOW x", "ERR Invalid OVERFLOW type specified"),
            ("BITFIELD k GET u64 0", BAD_TYPE),
            ("BITFIELD k GET i65 0", BAD_TYPE),
            ("BITFIELD k GET U8 0", BAD_TYPE),
            ("BITFIELD k GET u0 0", BAD_TYPE),
            ("BITFIELD k GET '' 0", BAD_TYPE),
            ("BITFIELD k GET u8 #x", BAD_OFFSET),
            ("BITFIELD k GET u8 #-1", BAD_OFFSET),
            ("BITFIELD k GET u8 #9223372036854775807", BAD_OFFSET),
            ("BITFIELD k SET u8 0 x", INTEGER),
            ("BITFIELD k SET u8 4294967296 1", BAD_OFFSET),
            ("BITFIELD_RO k SET u8 0 1", "ERR BITFIELD_RO only supports the GET subcommand"),
        ] {
            assert_eq!(parsed(line), Err(Bytes::from(text)), "{line}");
        }
        let many = format!("BITFIELD k{}", " GET u8 0".repeat(BITFIELD_OPS_MAX + 1));
        assert_eq!(parsed(&many), Err(Bytes::from("ERR more than 16384 operations in one command")));
    }

    #[test]
    fn bits_and_ranges_are_understood() {
        let (start, end) = (0, -1);
        let byte = BitUnit::Byte;
        for (line, act) in [
            ("SETBIT k 4294967295 1", Act::SetBit { at: 4_294_967_295, on: true }),
            ("GETBIT k 7", Act::GetBit { at: 7 }),
            ("BITCOUNT k", Act::BitCount { start, end, unit: byte }),
            ("BITCOUNT k 1 -2 bit", Act::BitCount { start: 1, end: -2, unit: BitUnit::Bit }),
            ("BITPOS k 0", Act::BitPos { on: false, open: true, start, end, unit: byte }),
            ("BITPOS k 1 2", Act::BitPos { on: true, open: true, start: 2, end, unit: byte }),
            ("BITPOS k 1 2 3 BYTE", Act::BitPos { on: true, open: false, start: 2, end: 3, unit: byte }),
        ] {
            assert_eq!(parsed(line), Ok(Request::One(Op::new(Bytes::from_static(b"k"), act))), "{line}");
        }
    }

    #[test]
    fn operations_on_fields_are_understood() {
        let field = |signed, bits, offset, verb, overflow| Field { signed, bits, offset, verb, overflow };
        let (wrap, fail) = (Overflow::Wrap, Overflow::Fail);
        for (line, act, fields) in [
            ("BITFIELD k", Act::BitFieldGet, vec![]),
            ("BITFIELD k overflow SAT", Act::BitFieldGet, vec![]),
            ("BITFIELD_RO k GET i64 #2", Act::BitFieldGet, vec![field(true, 64, 128, Verb::Get, wrap)]),
            (
                "BITFIELD k set u8 5 -1 OVERFLOW fail INCRBY i5 #3 9 GET u63 1",
                Act::BitField,
                vec![
                    field(false, 8, 5, Verb::Set(-1), wrap),
                    field(true, 5, 15, Verb::Add(9), fail),
                    field(false, 63, 1, Verb::Get, fail),
                ],
            ),
        ] {
            let value = Bytes::from(bitfield::encode(&fields));
            assert_eq!(parsed(line), Ok(Request::One(Op { key: Bytes::from_static(b"k"), act, value })), "{line}");
        }
    }
}
