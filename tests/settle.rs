//! Replicas whose messages are lost, late and doubled, which forget what is settled: whatever happens, they end with what the last writer
//! wrote, and what was deleted stays deleted. Real stores, the real walk that finds out how they differ, the real rules of `cluster::settle` and
//! `cluster::sync`'s conditions for them; what sessions do about differences is a model of `actors::sync`.

use std::collections::BTreeMap;

use proptest::prelude::*;
use trellis::base::entry::{Body, Entry};
use trellis::base::hlc::{Hlc, Version};
use trellis::base::op::{Act, Deadline, Expiry, Op, SetAnswer, When};
use trellis::base::reply::{ReplyRef, ReplySink};
use trellis::base::slot::Partition;
use trellis::cluster::settle::{self, Difference, Standing};
use trellis::protocol::native::{Scope, apart};
use trellis::storage::{Differing, Job, Store, StoreConfig, Walk, pair};

const T0: u64 = 1_700_000_000_000;
const KEYS: [&str; 4] = ["{t}a", "{t}b", "{t}c", "{t}d"];
const REPLICAS: usize = 3;

/// Takes replies and keeps none.
struct Unheard;

impl ReplySink for Unheard {
    fn reply(&mut self, _: ReplyRef<'_>) {}
}

struct Replica {
    store: Store,
    /// By peer: whether it has, or is being sent, all that is here.
    level: [bool; REPLICAS],
}

/// A write on its way.
struct Parcel {
    from: usize,
    to: usize,
    key: &'static str,
    entry: Entry,
}

struct World {
    now: u64,
    /// What each store may take; 0 is no limit.
    budget: usize,
    replicas: Vec<Replica>,
    under_way: Vec<Parcel>,
    /// Every write there was, for late doubles.
    past: Vec<(&'static str, Entry)>,
    /// One that the others have forgotten, and that has not heard.
    away: Option<usize>,
    /// The last write to each key.
    truth: BTreeMap<&'static str, Entry>,
}

fn partition() -> Partition {
    Partition::of(KEYS[0].as_bytes())
}

/// Bytes of a value, in stores that have room for two or three.
const LARGE: usize = 16 << 10;

fn store(origin: u32, budget: usize) -> Store {
    let config = StoreConfig {
        shard: 0,
        shards: 1,
        memory_bytes_max: budget,
        evict: budget > 0,
        value_bytes_max: 1 << 20,
        hash_seed: u64::from(origin),
    };
    let mut store = Store::new(config, Hlc::new(origin, 500));
    store.set_replicated(true);
    store
}

impl World {
    fn new(evicts: bool) -> Self {
        let budget = if evicts { store(1, 0).memory_bytes() + 3 * LARGE } else { 0 };
        let replica = |n| Replica { store: store(n, budget), level: [true; REPLICAS] };
        let replicas = (1..=REPLICAS as u32).map(replica).collect();
        Self { now: T0, budget, replicas, under_way: Vec::new(), past: Vec::new(), away: None, truth: BTreeMap::new() }
    }

    fn write(&mut self, by: usize, key: &'static str, act: Act) {
        if self.away == Some(by) {
            return;
        }
        let width = if self.budget > 0 { LARGE } else { 0 };
        let value = format!("{:width$}", self.past.len()).into();
        let op = Op { key: key.into(), act, value };
        let mut written = None;
        let mut note = |_: &[u8], entry: trellis::base::entry::EntryRef<'_>| written = Some(entry.to_entry());
        self.replicas[by].store.execute(&op, self.now, &mut Unheard, &mut note);
        let Some(entry) = written else { return };
        for to in (0..REPLICAS).filter(|to| *to != by && self.away != Some(*to)) {
            self.under_way.push(Parcel { from: by, to, key, entry: entry.clone() });
        }
        let newest = self.truth.entry(key).or_insert_with(|| entry.clone());
        if entry.version > newest.version {
            *newest = entry.clone();
        }
        self.past.push((key, entry));
    }

    fn deliver(&mut self, n: usize) {
        if !self.under_way.is_empty() {
            let parcel = self.under_way.remove(n % self.under_way.len());
            self.replicas[parcel.to].store.apply(parcel.key.as_bytes(), &parcel.entry, self.now);
        }
    }

    fn lose(&mut self, n: usize) {
        if !self.under_way.is_empty() {
            let parcel = self.under_way.remove(n % self.under_way.len());
            self.replicas[parcel.from].level[parcel.to] = false;
        }
    }

    /// What somebody sent long ago arrives once more.
    fn double(&mut self, n: usize, to: usize) {
        if !self.past.is_empty() && self.away != Some(to) {
            let (key, entry) = &self.past[n % self.past.len()];
            self.replicas[to].store.apply(key.as_bytes(), entry, self.now);
        }
    }

    /// Others hold all that it had.
    fn is_dispensable(&self, n: usize) -> bool {
        self.away.is_none() && self.under_way.is_empty() && self.replicas[n].level == [true; REPLICAS]
    }

    /// It is cut off for so long that the others go on as a cluster of their own.
    fn leave(&mut self, n: usize) {
        self.away = Some(n);
        self.replicas.iter_mut().for_each(|replica| replica.level = [false; REPLICAS]);
    }

    fn come_back(&mut self) {
        if let Some(n) = self.away.take() {
            self.replicas[n].store.lapse(partition(), self.now);
            self.replicas.iter_mut().for_each(|replica| replica.level = [false; REPLICAS]);
            for other in (0..REPLICAS).filter(|other| *other != n) {
                self.compare(n, other);
            }
        }
    }

    /// The process ends and another begins: its memory is gone, and so is what it had under way. The set of replicas is another one now.
    fn restart(&mut self, n: usize) {
        self.under_way.retain(|parcel| parcel.from != n && parcel.to != n);
        self.replicas[n].store = store(self.past.len() as u32 + 100 + n as u32, self.budget);
        self.replicas.iter_mut().for_each(|replica| replica.level = [false; REPLICAS]);
        // It counts for nothing until it has compared itself.
        for other in (0..REPLICAS).filter(|other| *other != n) {
            self.compare(n, other);
        }
    }

    /// How two replicas differ, found out as a session of `actors::sync` does.
    fn differing(&mut self, me: usize, peer: usize, above: Version) -> Vec<Differing> {
        let scope = Scope { salt: self.past.len() as u32, above };
        let (mut walk, mut found, now) = (Walk::new(scope), Vec::new(), self.now);
        let [mine, its] = self.replicas.get_disjoint_mut([me, peer]).expect("two replicas");
        while let Some(job) = walk.next_job() {
            match job {
                Job::Sums(ranges) => {
                    let ours = mine.store.sums(partition(), scope, &ranges, now);
                    let theirs = its.store.sums(partition(), scope, &ranges, now);
                    let (compared, apart) = apart(&ours.sums, &theirs.sums);
                    // Go down as far as it goes, however few there are.
                    let each = if ranges.depth() < 12 { 9 } else { 0 };
                    walk.compared(&ranges, compared, &apart, each).expect("it gets on");
                }
                Job::List(ranges, from) => {
                    let page = mine.store.prints(partition(), scope, &ranges, from, now);
                    let within = (from, page.end);
                    let its = its.store.unmatched(partition(), scope, &ranges, within, &page.prints, now);
                    let end = its.end;
                    found.extend(pair(&page, its));
                    walk.listed(ranges, from, end).expect("it gets on");
                }
            }
        }
        found
    }

    /// What a session of `actors::sync` does. How many entries it brought.
    fn compare(&mut self, me: usize, peer: usize) -> usize {
        if [Some(me), Some(peer)].contains(&self.away) {
            return 0;
        }
        let mut brought = 0;
        let evicted = [me, peer].map(|n| self.replicas[n].store.evicted(partition()));
        let standing = Standing {
            ours: self.replicas[me].store.settled(partition()),
            theirs: self.replicas[peer].store.settled(partition()),
            evicts: self.budget > 0,
            evicted: evicted.into(),
        };
        if standing.theirs > standing.ours {
            self.replicas[me].store.guard(partition(), standing.theirs);
        }
        for Differing { key, ours, theirs } in self.differing(me, peer, standing.compared_above()) {
            match standing.difference(ours, theirs) {
                Difference::Wanted => {
                    let Some(entry) = self.replicas[peer].store.peek_owned(&key) else { continue };
                    brought += 1;
                    let store = &mut self.replicas[me].store;
                    if standing.vouched(entry.version) {
                        store.restore(&key, &entry, self.now);
                    } else {
                        store.apply(&key, &entry, self.now);
                    }
                }
                Difference::Offered => {
                    let Some(entry) = self.replicas[me].store.peek_owned(&key) else { continue };
                    brought += 1;
                    self.replicas[peer].store.apply(&key, &entry, self.now);
                }
                Difference::Dead => self.replicas[me].store.outlive(&key, ours.unwrap_or_default()),
                Difference::Left => {}
            }
        }
        if standing.theirs > standing.ours {
            self.replicas[me].store.settle(partition(), standing.theirs, self.now);
        }
        self.replicas[me].level[peer] = true;
        brought
    }

    /// Everybody compares itself with everybody. How many entries were brought.
    fn compare_all(&mut self) -> usize {
        [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)].map(|(me, peer)| self.compare(me, peer)).iter().sum()
    }

    fn happen(&mut self, event: Event) {
        let set = |expiry| Act::Set { expiry, when: When::Always, answer: SetAnswer::Done, flags: 0 };
        match event {
            Event::Set(by, key) => self.write(by, KEYS[key], set(Expiry::Clear)),
            Event::SetFor(by, key, ms) => self.write(by, KEYS[key], set(Expiry::Until(Deadline::In(ms)))),
            Event::Delete(by, key) => self.write(by, KEYS[key], Act::Delete),
            Event::Deliver(n) => self.deliver(n),
            Event::Lose(n) => self.lose(n),
            Event::Double(n, to) => self.double(n, to),
            Event::Compare(me, peer) if me != peer => {
                self.compare(me, peer);
            }
            Event::Compare(..) => {}
            Event::Settle(hear) => self.settle(hear),
            Event::Restart(n) if self.is_dispensable(n) => self.restart(n),
            Event::Leave(n) if self.is_dispensable(n) => self.leave(n),
            Event::Restart(_) | Event::Leave(_) => {}
            Event::ComeBack => self.come_back(),
            Event::Turn(n) => {
                self.replicas[n].store.turn(self.now);
            }
            Event::Pass(ms) => self.now += ms,
        }
    }

    /// Everybody is back, and all that was under way has arrived.
    fn quiet_down(&mut self) {
        self.come_back();
        while !self.under_way.is_empty() {
            self.deliver(0);
        }
    }

    /// A round: nothing under way, everybody compared with everybody. Of the replicas that `hear` of it each takes it over.
    fn settle(&mut self, hear: [bool; REPLICAS]) {
        let up_to = settle::up_to(self.now);
        let here: Vec<usize> = (0..REPLICAS).filter(|n| self.away != Some(*n)).collect();
        let vouches = |n: &usize| here.iter().all(|peer| peer == n || self.replicas[*n].level[*peer]);
        let proven = self.under_way.is_empty() && here.iter().all(vouches);
        for n in here {
            let (replica, hears) = (&mut self.replicas[n], hear[n]);
            assert!(replica.store.stamps_above(up_to, self.now));
            if proven && hears {
                replica.store.settle(partition(), up_to, self.now);
            }
        }
    }

    fn shown(&self, n: usize) -> BTreeMap<&'static str, Entry> {
        let read = |key: &'static str| Some((key, self.replicas[n].store.peek_owned(key.as_bytes())?));
        let is_live = |entry: &Entry| match &entry.body {
            Body::Live { deadline, .. } => deadline.is_none_or(|deadline| deadline > self.now),
            Body::Tombstone => false,
        };
        KEYS.into_iter().filter_map(read).filter(|(_, entry)| is_live(entry)).collect()
    }
}

#[derive(Clone, Debug)]
enum Event {
    Set(usize, usize),
    SetFor(usize, usize, i64),
    Delete(usize, usize),
    Deliver(usize),
    Lose(usize),
    Double(usize, usize),
    Compare(usize, usize),
    Settle([bool; REPLICAS]),
    Restart(usize),
    Leave(usize),
    ComeBack,
    Turn(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let (replica, key) = (0..REPLICAS, 0..KEYS.len());
    prop_oneof![
        4 => (replica.clone(), key.clone()).prop_map(|(by, key)| Event::Set(by, key)),
        2 => (replica.clone(), key.clone(), 1..30_000i64).prop_map(|(by, key, ms)| Event::SetFor(by, key, ms)),
        4 => (replica.clone(), key).prop_map(|(by, key)| Event::Delete(by, key)),
        12 => any::<usize>().prop_map(Event::Deliver),
        1 => any::<usize>().prop_map(Event::Lose),
        6 => (any::<usize>(), replica.clone()).prop_map(|(n, to)| Event::Double(n, to)),
        6 => (replica.clone(), replica.clone()).prop_map(|(me, peer)| Event::Compare(me, peer)),
        6 => any::<[bool; REPLICAS]>().prop_map(Event::Settle),
        1 => replica.clone().prop_map(Event::Restart),
        1 => replica.clone().prop_map(Event::Leave),
        1 => Just(Event::ComeBack),
        6 => replica.prop_map(Event::Turn),
        4 => (1..15_000u64).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn replicas_that_forget_what_is_settled_end_with_the_last_write_of_each_key(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new(false);
        events.into_iter().for_each(|event| world.happen(event));
        world.quiet_down();
        (0..3).for_each(|_| { world.compare_all(); });
        let is_live = |entry: &Entry| matches!(&entry.body, Body::Live { deadline, .. } if deadline.is_none_or(|at| at > world.now));
        let truth: BTreeMap<_, _> = world.truth.iter().filter(|(_, e)| is_live(e)).map(|(k, e)| (*k, e.clone())).collect();
        for n in 0..REPLICAS {
            prop_assert_eq!(&world.shown(n), &truth, "replica {}", n);
        }
        // And when all is settled, nothing of the dead remains.
        world.now += 60_000;
        world.settle([true; REPLICAS]);
        for replica in &mut world.replicas {
            replica.store.turn(world.now);
            replica.store.turn(world.now + 1_000);
            prop_assert_eq!(replica.store.tombstones(), 0);
        }
    }

    /// What a full cache may do is miss.
    #[test]
    fn caches_that_evict_come_to_rest_and_show_nothing_old_or_deleted(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new(true);
        events.into_iter().for_each(|event| world.happen(event));
        world.quiet_down();
        let rounds = (0..10).find(|_| world.compare_all() == 0);
        prop_assert!(rounds.is_some(), "they bring and evict the same for ever");
        for (key, newest) in &world.truth {
            let shown: Vec<_> = (0..REPLICAS).filter_map(|n| world.shown(n).remove(key)).collect();
            prop_assert!(newest.body != Body::Tombstone || shown.is_empty(), "{} is back", key);
            // Where the newest is still, nothing older is.
            let newest = shown.iter().any(|entry| entry.version == newest.version).then_some(newest.version);
            prop_assert!(shown.iter().all(|entry| newest.is_none_or(|newest| entry.version == newest)), "{}", key);
        }
    }
}
