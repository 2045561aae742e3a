//! Tests of the store as a whole: against a model of hash maps, between replicas, at the budget, over time.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use proptest::prelude::*;

use super::segment::Tally;
use super::*;
use crate::base::counters::Counter;
use crate::base::entry::{Body, BodyRef, Entry, EntryRef};
use crate::base::hlc::{Hlc, UnixMs, Version};
use crate::base::limits::{LARGE_VALUE_BYTES, SYNC_ENTRIES_PER_FRAME};
use crate::base::marks::Marks;
use crate::base::op::{Act, Comparison, Deadline, ExpireWhen, Expiry, Op, SetAnswer, When};
use crate::base::reply::{ReplyRef, ReplySink};
use crate::base::slot::Partition;

mod acts;
mod bits;
mod budget;
mod compare;
mod conditions;
mod describe;
mod eviction;
mod items;
mod notices;
mod replicas;
mod steps;
mod time;

/// The clock's start in these tests.
const T0: UnixMs = 1_700_000_000_000;

fn store_of(origin: u32, memory_bytes_max: usize, evict: bool) -> Store {
    let value_bytes_max = 1 << 20;
    let config = StoreConfig { shard: 0, shards: 1, memory_bytes_max, evict, value_bytes_max, hash_seed: 42 };
    Store::new(config, Hlc::new(origin, 500))
}

fn store() -> Store {
    let mut store = store_of(1, 0, true);
    store.set_replicated(true);
    store
}

/// Replies as text.
#[derive(Default)]
struct Replies(Vec<String>);

impl ReplySink for Replies {
    fn reply(&mut self, reply: ReplyRef<'_>) {
        let text = |bytes: &[u8]| format!("\"{}\"", String::from_utf8_lossy(bytes));
        self.0.push(match reply {
            ReplyRef::Ok => "+OK".into(),
            ReplyRef::Null => "nil".into(),
            ReplyRef::Int(n) => n.to_string(),
            ReplyRef::Bulk(bytes) => text(bytes),
            ReplyRef::Shared(bytes) => text(bytes),
            ReplyRef::Ints(ints) => {
                let ints = ints.iter().map(|int| int.map_or("nil".into(), |int| int.to_string()));
                format!("[{}]", ints.collect::<Vec<_>>().join(", "))
            }
            ReplyRef::Simple(simple) => format!("+{simple}"),
            ReplyRef::Error(error) => format!("-{error}"),
            ReplyRef::Item(item) => format!("{:?} {:?}", item.outcome, item.value),
        });
    }
}

fn op(key: &str, act: Act, value: &str) -> Op {
    Op { key: Bytes::copy_from_slice(key.as_bytes()), act, value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// Executes and answers the reply and what was told to replicas.
fn run(store: &mut Store, op: &Op, now: UnixMs) -> (String, Option<Entry>) {
    let (mut replies, mut told) = (Replies::default(), Vec::new());
    store.execute(op, now, &mut replies, &mut |key, entry| {
        assert_eq!(key, &op.key[..]);
        told.push(entry.to_entry());
    });
    assert!(replies.0.len() == 1 && told.len() <= 1, "one answer, at most one change");
    (replies.0.remove(0), told.pop())
}

fn set(expiry: Expiry, when: When, answer: SetAnswer) -> Act {
    Act::Set { expiry, when, answer, flags: 0 }
}

fn plain_set() -> Act {
    set(Expiry::Clear, When::Always, SetAnswer::Done)
}

fn put(store: &mut Store, key: &str, value: &str, now: UnixMs) -> Entry {
    run(store, &op(key, plain_set(), value), now).1.expect("a plain set changes the key")
}

fn get(store: &mut Store, key: &str, now: UnixMs) -> String {
    run(store, &op(key, Act::Get, ""), now).0
}

/// What incremental accounts say must be what a recount says.
fn check_accounts(store: &mut Store) {
    let mut total = Tally::default();
    for table in &store.tables {
        for segment in table.segments() {
            assert_eq!(segment.tally(), segment.recount());
            total.update(Tally::default(), segment.recount());
        }
    }
    assert_eq!(store.tally, total);
    for table in &mut store.tables {
        if table.has_digest() {
            let scratch = table.digest_from_scratch();
            assert_eq!(*table.digest(), scratch);
        }
    }
}
