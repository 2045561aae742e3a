//! What the store costs: reads and writes of a million keys of 16 bytes with 64-byte values, in random order, one at a time and in batches as a
//! pipeline brings them; and writes at the memory budget, each of which evicts.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trellis::base::hlc::Hlc;
use trellis::base::op::{Act, Expiry, Op, SetAnswer, When};
use trellis::base::reply::{ReplyRef, ReplySink};
use trellis::storage::{OPS_AHEAD, Store, StoreConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const BATCH: usize = 64;
const NOW: u64 = 1_700_000_000_000;
const SET: Act = Act::Set { expiry: Expiry::Clear, when: When::Always, answer: SetAnswer::Done, flags: 0 };

/// Looks at every reply and keeps none.
struct Sink(usize);

impl ReplySink for Sink {
    fn reply(&mut self, reply: ReplyRef<'_>) {
        self.0 += match black_box(reply) {
            ReplyRef::Bulk(bytes) => usize::from(bytes[0]),
            _ => 1,
        };
    }
}

/// The same numbers in each run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn op(number: u64, act: Act) -> Op {
    let value = if act == SET { Bytes::from_static(&[b'x'; 64]) } else { Bytes::new() };
    Op { key: format!("key:{number:012}").into(), act, value }
}

fn store(memory_bytes_max: usize) -> Store {
    let config =
        StoreConfig { shard: 0, shards: 1, memory_bytes_max, evict: true, value_bytes_max: 1 << 20, hash_seed: 7 };
    let mut store = Store::new(config, Hlc::new(1, 500));
    for number in 0..KEYS {
        store.execute(&op(number, SET), NOW, &mut Sink(0), &mut |_, _| {});
    }
    store
}

/// Batches of operations on random keys, more than the caches hold.
fn batches(act: Act, keys: u64) -> Vec<Vec<Op>> {
    let mut draws = Draws(42);
    (0..2_000).map(|_| (0..BATCH).map(|_| op(draws.below(keys), act)).collect()).collect()
}

fn single(store: &mut Store, ops: &[Op]) {
    let mut sink = Sink(0);
    for op in ops {
        store.execute(op, NOW, &mut sink, &mut |_, _| {});
    }
    black_box(sink.0);
}

fn batched(store: &mut Store, ops: &[Op]) {
    let mut sink = Sink(0);
    for window in ops.chunks(OPS_AHEAD) {
        for (op, aim) in window.iter().zip(store.aim(window)) {
            store.execute_at(aim, op, NOW, &mut sink, &mut |_, _| {});
        }
    }
    black_box(sink.0);
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut run = |name: &str, store: &mut Store, batches: &[Vec<Op>], execute: fn(&mut Store, &[Op])| {
        let mut next = batches.iter().cycle();
        group.bench_function(name, |bencher| bencher.iter(|| execute(store, next.next().expect("endless"))));
    };
    let mut full = store(0);
    for (name, act) in [("get", Act::Get), ("set", SET)] {
        let batches = batches(act, KEYS);
        run(&format!("{name}, one at a time"), &mut full, &batches, single);
        run(&format!("{name}, in batches"), &mut full, &batches, batched);
    }
    drop(full);
    let mut tight = store(64 << 20);
    run("set at the budget, in batches", &mut tight, &batches(SET, KEYS), batched);
}

criterion_group!(benches, bench);
criterion_main!(benches);
