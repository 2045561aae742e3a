//! Acts that tell of a value rather than its bytes: `OBJECT`, `MEMORY USAGE`, `DUMP`. No use of the key. Compared with redis-server in
//! `storage::tests`.

use super::{Target, error};
use crate::base::number::integer;
use crate::base::op::Aspect;
use crate::base::reply::{ReplyRef, ReplySink};
use crate::protocol::dump;
use crate::storage::packed::{PackedRef, Slot};
use crate::storage::store::Store;

/// Longest text that Redis keeps as a number.
const INT_BYTES_MAX: usize = 20;
/// Longest string that Redis keeps in one allocation with its header.
const EMBEDDED_BYTES_MAX: usize = 44;
const NOT_LFU: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between \
                       policies at runtime LRU and LFU data will take some time to adjust.";

impl Store {
    pub(super) fn describe(&mut self, to: Target<'_>, aspect: Aspect, sink: &mut impl ReplySink) {
        let found = self.glance(to).map(|live| match aspect {
            Aspect::Encoding => sink.reply(ReplyRef::Bulk(encoding(live.value()).as_bytes())),
            Aspect::Frequency => sink.reply(error(NOT_LFU)),
            Aspect::IdleSeconds => {
                let idle_ms = to.now.saturating_sub(live.version().unix_ms());
                sink.reply(ReplyRef::Int((idle_ms / 1_000).cast_signed()));
            }
            Aspect::References => sink.reply(ReplyRef::Int(1)),
            Aspect::MemoryBytes => sink.reply(ReplyRef::Int(memory_bytes(live) as i64)),
            Aspect::Dump => sink.reply(ReplyRef::Shared(&dump::pack(live.value(), live.client_flags()))),
        });
        self.count_lookup(found.is_some());
        if found.is_none() {
            sink.reply(ReplyRef::Null);
        }
    }
}

/// As Redis encodes what a `SET` has stored.
fn encoding(value: &[u8]) -> &'static str {
    match value.len() {
        ..=INT_BYTES_MAX if integer(value).is_some() => "int",
        ..=EMBEDDED_BYTES_MAX => "embstr",
        _ => "raw",
    }
}

/// What an entry is accounted for: its allocations, and its slot in the table.
fn memory_bytes(live: PackedRef<'_>) -> usize {
    live.memory() + size_of::<Slot>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_of_redis() {
        for (value, expected) in [
            ("", "embstr"),
            ("0", "int"),
            ("-9223372036854775808", "int"),
            ("9223372036854775808", "embstr"),
            ("01", "embstr"),
            ("1.5", "embstr"),
            (&"x".repeat(44), "embstr"),
            (&"x".repeat(45), "raw"),
        ] {
            assert_eq!(encoding(value.as_bytes()), expected, "{value}");
        }
    }
}
