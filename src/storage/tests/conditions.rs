//! Conditional acts against the replies of redis-server 8.6, and what they leave behind.

use super::acts::check;
use super::*;
use Comparison::{Differs, DigestDiffers, DigestEqual, Equal};
use SetAnswer::{Done, Old};

fn set_if(expiry: Expiry, comparison: Comparison, answer: SetAnswer, operand: &str) -> Act {
    Act::SetIf { expiry, comparison, answer, operand_bytes: operand.len() as u32 }
}

fn delete_if(comparison: Comparison) -> Act {
    Act::DeleteIf { comparison }
}

#[test]
fn sets_compare_as_in_redis() {
    let clear = |comparison, answer, operand| set_if(Expiry::Clear, comparison, answer, operand);
    let ttl = Act::Ttl { ms: false, absolute: false };
    check(&[
        (clear(Equal, Done, "x"), "xv", "nil"),
        (clear(DigestEqual, Done, "short"), "shortv", "nil"),
        (Act::Exists, "", "0"),
        (clear(DigestDiffers, Done, "short"), "shortv", "+OK"),
        (Act::Get, "", "\"v\""),
        (clear(DigestDiffers, Done, "short"), "shortw", "-ERR must be exactly 16 hexadecimal characters"),
        (clear(DigestDiffers, Done, "zzzzzzzzzzzzzzzz"), "zzzzzzzzzzzzzzzzv2", "+OK"),
        (Act::Digest, "", "\"2225df3932692638\""),
        (clear(DigestEqual, Done, "2225DF3932692638"), "2225DF3932692638v3", "+OK"),
        (clear(Equal, Old, "v2"), "v2v4", "\"v3\""),
        (clear(Equal, Old, "v3"), "v3v4", "\"v3\""),
        (clear(Differs, Done, "v4"), "v4v5", "nil"),
        (set_if(Expiry::Until(Deadline::In(9_000)), Equal, Done, "v4"), "v4v5", "+OK"),
        (set_if(Expiry::Keep, Equal, Done, "v5"), "v5v6", "+OK"),
        (ttl, "", "9"),
        (clear(Equal, Done, "no"), "nov7", "nil"),
        (ttl, "", "9"),
        (clear(Equal, Done, "v6"), "v6", "+OK"),
        (Act::Get, "", "\"\""),
        (clear(Equal, Done, ""), "v8", "+OK"),
        (ttl, "", "-1"),
        (set_if(Expiry::Until(Deadline::At(1)), Equal, Done, "v8"), "v8v9", "+OK"),
        (Act::Get, "", "nil"),
        (clear(Differs, Old, "v8"), "v8v9", "nil"),
        (Act::Get, "", "\"v9\""),
        (clear(Equal, Done, "longer than all"), "short", "-ERR malformed operation"),
    ]);
}

#[test]
fn deletes_compare_as_in_redis() {
    check(&[
        (delete_if(Differs), "x", "0"),
        (delete_if(DigestEqual), "short", "0"),
        (plain_set(), "5", "+OK"),
        (delete_if(Equal), "6", "0"),
        (delete_if(Differs), "5", "0"),
        (delete_if(DigestEqual), "short", "-ERR must be exactly 16 hexadecimal characters"),
        (delete_if(DigestDiffers), "zzzzzzzzzzzzzzzz", "1"),
        (Act::Digest, "", "nil"),
        (plain_set(), "hello", "+OK"),
        (delete_if(DigestEqual), "9555E8555c62dcfd", "1"),
        (plain_set(), "token", "+OK"),
        (delete_if(Equal), "token", "1"),
        (delete_if(Equal), "token", "0"),
    ]);
}

#[test]
fn an_operand_does_not_stay_in_memory_with_the_value() {
    let mut store = store();
    let operand = vec![b'o'; 3 * LARGE_VALUE_BYTES];
    let old = Op { key: Bytes::from_static(b"k"), act: plain_set(), value: operand.clone().into() };
    run(&mut store, &old, T0);
    let both = Bytes::from([operand.clone(), vec![b'n'; LARGE_VALUE_BYTES]].concat());
    let act = set_if(Expiry::Clear, Equal, Done, std::str::from_utf8(&operand).unwrap());
    assert_eq!(run(&mut store, &Op { key: old.key, act, value: both.clone() }, T0).0, "+OK");
    let Some(Entry { body: Body::Live { value, .. }, .. }) = store.peek_owned(b"k") else { unreachable!() };
    assert_eq!(value, vec![b'n'; LARGE_VALUE_BYTES]);
    assert!(both.is_unique(), "the store holds a part of what the operation carried");
}
