//! What goes at the budget: nearly the least recently used, whatever its partition, and the same in each run.

use super::*;

/// The same numbers in each run.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Zipf's law with exponent `s` over `sums`, the cumulated weights.
    fn zipf(&mut self, sums: &[f64]) -> usize {
        let draw = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * sums[sums.len() - 1];
        sums.partition_point(|sum| *sum < draw)
    }
}

fn zipf_sums(keys: usize, s: f64) -> Vec<f64> {
    let weights = (1..=keys).map(|rank| (rank as f64).powf(-s));
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

/// The plainest least-recently-used cache.
struct Exact {
    capacity: usize,
    used: HashMap<usize, u64>,
    order: std::collections::BTreeMap<u64, usize>,
    time: u64,
}

impl Exact {
    fn new(capacity: usize) -> Self {
        Self { capacity, used: HashMap::new(), order: std::collections::BTreeMap::new(), time: 0 }
    }

    /// Uses a key, bringing it in if need be; whether it was there.
    fn hit(&mut self, key: usize) -> bool {
        self.time += 1;
        let before = self.used.insert(key, self.time);
        before.map(|time| self.order.remove(&time));
        self.order.insert(self.time, key);
        if self.used.len() > self.capacity {
            let (_, oldest) = self.order.pop_first().expect("a full cache has an oldest entry");
            self.used.remove(&oldest);
        }
        before.is_some()
    }
}

/// A cache of about `capacity` entries.
struct Cache {
    store: Store,
    name: fn(usize) -> String,
}

impl Cache {
    fn new(capacity: usize, name: fn(usize) -> String) -> Self {
        let mut sample = store_of(1, 0, true);
        for key in 0..capacity {
            put(&mut sample, &name(key), "0123456789012345678901234567890123456789", T0);
        }
        Self { store: store_of(1, sample.memory_bytes(), true), name }
    }

    fn hit(&mut self, key: usize) -> bool {
        let key = (self.name)(key);
        let hit = get(&mut self.store, &key, T0) != "nil";
        if !hit {
            put(&mut self.store, &key, "0123456789012345678901234567890123456789", T0);
        }
        hit
    }
}

fn spread(key: usize) -> String {
    format!("key:{key:012}")
}

fn tagged(key: usize) -> String {
    format!("{{t}}:{key:012}")
}

/// Hits in a thousand of both over the second half of `uses`, the exact cache with as many entries as the store keeps.
fn hit_rates(capacity: usize, name: fn(usize) -> String, uses: impl Iterator<Item = usize>) -> (f64, f64) {
    let uses: Vec<usize> = uses.collect();
    let (warm, counted) = uses.split_at(uses.len() / 2);
    let mut cache = Cache::new(capacity, name);
    warm.iter().for_each(|key| {
        cache.hit(*key);
    });
    let mut exact = Exact::new(cache.store.len());
    warm.iter().for_each(|key| {
        exact.hit(*key);
    });
    let ours = counted.iter().filter(|key| cache.hit(**key)).count();
    let best = counted.iter().filter(|key| exact.hit(**key)).count();
    check_accounts(&mut cache.store);
    let of = |hits: usize| 1_000.0 * hits as f64 / counted.len() as f64;
    (of(ours), of(best))
}

#[test]
fn hits_of_a_skewed_load_are_within_three_in_a_thousand_of_those_of_exact_order() {
    for (capacity, keys, exponent) in [(2_000, 20_000, 0.8), (2_000, 20_000, 1.1), (500, 2_000, 0.99), (60, 500, 0.9)] {
        for name in [spread, tagged] {
            let (sums, mut draws) = (zipf_sums(keys, exponent), Draws(9));
            let (ours, exact) = hit_rates(capacity, name, (0..120_000).map(|_| draws.zipf(&sums)));
            assert!((exact - ours).abs() < 3.0, "{capacity} of {keys}, {exponent}: {ours} against {exact}");
        }
    }
}

#[test]
fn hits_of_a_moving_load_are_within_three_in_a_thousand_of_those_of_exact_order() {
    // What is asked for drifts through the keys, so that old favourites must go.
    let (sums, mut draws) = (zipf_sums(4_000, 0.9), Draws(5));
    let uses = (0..120_000).map(|n| n / 20 + draws.zipf(&sums));
    let (ours, exact) = hit_rates(1_500, spread, uses);
    assert!((exact - ours).abs() < 3.0, "{ours} against {exact}");
}

#[test]
fn what_was_read_lately_stays_when_as_much_again_is_written() {
    let mut cache = Cache::new(3_000, spread);
    for key in 0..3_000 {
        cache.hit(key);
    }
    // Half of it is read, again and again, so that the clock goes round more than once.
    for _ in 0..40 {
        for key in 1_500..3_000 {
            cache.hit(key);
        }
    }
    for key in 3_000..4_200 {
        cache.hit(key);
    }
    let there =
        |keys: std::ops::Range<usize>| keys.filter(|key| cache.store.peek(spread(*key).as_bytes()).is_some()).count();
    let (unread, read, new) = (there(0..1_500), there(1_500..3_000), there(3_000..4_200));
    assert!(unread < 330 && read > 1_480 && new > 1_190, "{unread} {read} {new}");
}

#[test]
fn a_partition_of_many_keys_gives_as_it_has() {
    let mut store = store_of(1, 0, true);
    for key in 0..10_000 {
        put(&mut store, &tagged(key), "v", T0);
    }
    for key in 0..2_000 {
        put(&mut store, &spread(key), "v", T0);
    }
    let budget = store.memory_bytes();
    let mut store = store_of(1, budget, true);
    for key in 0..10_000 {
        put(&mut store, &tagged(key), "v", T0);
    }
    for key in 0..6_000 {
        put(&mut store, &spread(key), "v", T0);
    }
    let young = (0..6_000).filter(|key| store.peek(spread(*key).as_bytes()).is_some()).count();
    let old = (0..5_000).filter(|key| store.peek(tagged(*key).as_bytes()).is_some()).count();
    assert!(young > 5_900 && old < 3_000, "{young} {old}");
    check_accounts(&mut store);
}

#[test]
fn what_comes_late_and_may_have_been_evicted_is_refused() {
    let entry = |time: u64| Entry {
        version: Version { time: (T0 << 16) + time, origin: 1 },
        body: Body::Live { value: vec![b'v'; 100].into(), deadline: None, marks: Marks::default() },
    };
    let mut full = store_of(2, 0, true);
    (0..1_000u64).for_each(|n| {
        full.apply(tagged(n as usize).as_bytes(), &entry(n + 10), T0);
    });
    let mut store = store_of(2, full.memory_bytes(), true);
    (0..2_000u64).for_each(|n| {
        store.apply(tagged(n as usize).as_bytes(), &entry(n + 10), T0);
    });
    let partition = Partition::of(tagged(0).as_bytes());
    let evicted = store.evicted(partition);
    assert!(evicted > entry(500).version && evicted < entry(1_500).version, "{evicted:?}");
    let gone = (0..2_000).map(tagged).find(|key| store.peek(key.as_bytes()).is_none()).unwrap();
    assert_eq!(store.apply(gone.as_bytes(), &entry(9), T0), Applied::Stale(evicted));
    assert_eq!(store.apply(b"elsewhere", &entry(9), T0), Applied::Newer, "nothing was evicted there");
    assert_eq!(store.apply(gone.as_bytes(), &entry(3_000), T0), Applied::Newer);
    // What has settled is not missed anyway.
    store.settle(partition, entry(3_000).version, T0);
    assert_eq!(store.evicted(partition), Version::ZERO);
}

#[test]
fn the_same_seed_evicts_the_same() {
    let left = || {
        let (mut cache, mut draws) = (Cache::new(300, spread), Draws(3));
        for _ in 0..5_000 {
            cache.hit(draws.below(1_000) as usize);
        }
        (0..1_000).filter(|key| cache.store.peek(spread(*key).as_bytes()).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(left(), left());
}
