//! Replicas that compare themselves find all that differs and nothing else, say little in doing so, and lose nothing when they are interrupted.

use super::*;
use crate::protocol::native::{SUM_BYTES, Scope, apart};
use crate::storage::digest::place;

/// What a comparison came to.
#[derive(Debug, Default)]
struct Talk {
    /// Bytes of sums, numbers, prints, keys and versions.
    bytes: usize,
    /// Questions.
    questions: usize,
    /// Keys that differed.
    differing: Vec<Differing>,
}

fn scope(salt: u32) -> Scope {
    Scope { salt, above: Version::ZERO }
}

/// One question and what follows from its answer. `page` gets what differs.
fn step(
    (a, b): (&mut Store, &mut Store),
    p: Partition,
    scope: Scope,
    (job, walk): (Job, &mut Walk),
    talk: &mut Talk,
) -> Vec<Differing> {
    talk.questions += 1;
    match job {
        Job::Sums(ranges) => {
            let (ours, theirs) = (a.sums(p, scope, &ranges, T0), b.sums(p, scope, &ranges, T0));
            let (compared, apart) = apart(&ours.sums, &theirs.sums);
            talk.bytes += ours.sums.len() + 2 * ranges.count() + 2 * apart.len();
            let each = ours.entries * SUM_BYTES / ours.sums.len();
            walk.compared(&ranges, compared, &apart, each).unwrap();
            vec![]
        }
        Job::List(ranges, from) => {
            let page = a.prints(p, scope, &ranges, from, T0);
            let found = b.unmatched(p, scope, &ranges, (from, page.end), &page.prints, T0);
            let named = found.entries.iter().map(|(key, _)| key.len() + 14).sum::<usize>();
            talk.bytes += page.prints.len() + 2 * ranges.count() + 2 * found.lacking.len() + named;
            assert!(page.entries.len() <= SYNC_ENTRIES_PER_FRAME && found.entries.len() <= SYNC_ENTRIES_PER_FRAME);
            let end = found.end;
            let differing = pair(&page, found);
            walk.listed(ranges, from, end).unwrap();
            differing
        }
    }
}

/// Compares and, page by page, brings the newer of each entry to the other side; at most so many questions.
fn compare(a: &mut Store, b: &mut Store, p: Partition, scope: Scope, questions_max: usize) -> Talk {
    let (mut talk, mut walk) = (Talk::default(), Walk::new(scope));
    while let Some(job) = walk.next_job().filter(|_| talk.questions < questions_max) {
        let differing = step((a, b), p, scope, (job, &mut walk), &mut talk);
        for Differing { key, ours, theirs } in &differing {
            assert_eq!((a.peek(key).map(|e| e.version), b.peek(key).map(|e| e.version)), (*ours, *theirs));
            let (from, to) = if ours > theirs { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            let entry = from.peek_owned(key).unwrap();
            assert_eq!(to.apply(key, &entry, T0), Applied::Newer);
        }
        talk.differing.extend(differing);
    }
    talk
}

fn version(time: u64) -> Version {
    Version { time: (T0 << 16) + time, origin: 1 }
}

fn value(time: u64) -> Entry {
    Entry {
        version: version(time),
        body: Body::Live { value: vec![b'v'; 10].into(), deadline: None, marks: Marks::default() },
    }
}

fn key(n: u32) -> String {
    format!("{{t}}{n}")
}

/// Two replicas with the same `count` keys of one partition.
fn equals(count: u32) -> (Store, Store, Partition) {
    let (mut a, mut b) = (store(), store_of(2, 0, true));
    b.set_replicated(true);
    for store in [&mut a, &mut b] {
        for n in 0..count {
            store.apply(key(n).as_bytes(), &value(1), T0);
        }
    }
    (a, b, Partition::of(b"t"))
}

fn assert_equal(a: &mut Store, b: &mut Store, p: Partition) {
    assert_eq!(a.partition_digest(p), b.partition_digest(p));
    assert_eq!(compare(a, b, p, scope(9), 10).bytes, 16 * (SUM_BYTES + 2), "equal replicas say little");
}

#[derive(Clone, Debug)]
struct Change {
    on_a: bool,
    key: u32,
    time: u64,
    deletes: bool,
}

fn changes(keys: u32) -> impl Strategy<Value = Vec<Change>> {
    let one = (any::<bool>(), 0..keys, 2..9u64, any::<bool>());
    let one =
        one.prop_map(|(on_a, key, time, deletes)| Change { on_a, key, time: time * 2 + u64::from(on_a), deletes });
    prop::collection::vec(one, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Some keys are new on a side, some are on both; sides may have nothing at all.
    #[test]
    fn whatever_differs_is_found_and_brought_together_whatever_interrupts(
        (count_a, count_b) in (0..600u32, 0..600u32),
        changes in changes(800),
        interrupted_after in prop::collection::vec(0..20usize, 0..4),
        salt: u32,
    ) {
        let (mut a, mut b) = (store(), store_of(2, 0, true));
        b.set_replicated(true);
        for (store, count) in [(&mut a, count_a), (&mut b, count_b)] {
            (0..count).for_each(|n| { store.apply(key(n).as_bytes(), &value(1), T0); });
        }
        for Change { on_a, key: n, time, deletes } in &changes {
            let entry = if *deletes { Entry { body: Body::Tombstone, ..value(*time) } } else { value(*time) };
            if *on_a { &mut a } else { &mut b }.apply(key(*n).as_bytes(), &entry, T0);
        }
        let p = Partition::of(b"t");
        let versions = |store: &Store| (0..800).map(|n| store.version(key(n).as_bytes())).collect::<Vec<_>>();
        let (before_a, before_b) = (versions(&a), versions(&b));
        let truth = before_a.iter().zip(&before_b).map(|(a, b)| *a.max(b)).collect::<Vec<_>>();
        let mut found = 0;
        for questions in interrupted_after {
            found += compare(&mut a, &mut b, p, scope(salt), questions).differing.len();
        }
        found += compare(&mut a, &mut b, p, scope(salt.wrapping_add(1)), usize::MAX).differing.len();
        prop_assert_eq!(found, before_a.iter().zip(&before_b).filter(|(a, b)| a != b).count(), "each once");
        prop_assert_eq!(versions(&a), truth.clone());
        prop_assert_eq!(versions(&b), truth);
        assert_equal(&mut a, &mut b, p);
    }
}

#[test]
fn what_is_said_is_in_proportion_to_the_difference_and_not_to_the_data() {
    for count in [1_000, 100_000] {
        let (mut a, mut b, p) = equals(count);
        for differing in [1u32, 10, 100] {
            for n in 0..differing {
                b.apply(key(n * (count / differing)).as_bytes(), &value(u64::from(differing) + 1), T0);
            }
            let talk = compare(&mut a, &mut b, p, scope(differing), usize::MAX);
            assert_eq!(talk.differing.len(), differing as usize);
            let bytes_max = 16 * (SUM_BYTES + 2) + 450 * differing as usize;
            assert!(talk.bytes < bytes_max, "{count} keys, {differing} differ: {} bytes", talk.bytes);
            assert_equal(&mut a, &mut b, p);
        }
    }
}

#[test]
fn a_side_that_has_nothing_is_told_of_every_key_once() {
    for empty_asks in [true, false] {
        let (full, mut empty, p) = equals(9_000);
        empty.drop_partition(p);
        let (mut a, mut b) = if empty_asks { (empty, full) } else { (full, empty) };
        let talk = compare(&mut a, &mut b, p, scope(1), usize::MAX);
        assert_eq!(talk.differing.len(), 9_000);
        assert_eq!((a.len_of(p), b.len_of(p)), (9_000, 9_000));
        assert_equal(&mut a, &mut b, p);
    }
}

#[test]
fn what_looks_equal_by_accident_does_not_under_another_salt() {
    let (mut a, _, p) = equals(1);
    let ranges = Ranges::new(0, vec![0]).unwrap();
    let sums = |store: &mut Store, salt| store.sums(p, scope(salt), &ranges, T0).sums;
    let prints = |store: &Store, salt| store.prints(p, scope(salt), &ranges, 0, T0).prints;
    assert_ne!(sums(&mut a, 1), sums(&mut a, 2));
    assert_ne!(prints(&a, 1), prints(&a, 2));
    assert_eq!((sums(&mut a, 1).len(), prints(&a, 1).len()), (SUM_BYTES, SUM_BYTES));
}

#[test]
fn what_was_evicted_is_not_missed() {
    let (mut a, mut b, p) = equals(2_000);
    let newest = version(1);
    for store in [&mut a, &mut b] {
        store.settle(p, newest, T0);
        assert!(!store.is_unsettled(p));
    }
    // Each has evicted others, and one key was written since.
    for n in 0..500 {
        for (store, n) in [(&mut a, n), (&mut b, n + 700)] {
            let version = store.version(key(n).as_bytes());
            store.outlive(key(n).as_bytes(), version);
        }
    }
    b.apply(key(3).as_bytes(), &value(5), T0);
    assert!(b.is_unsettled(p) && a.partition_digest(p) != b.partition_digest(p));
    let recent = Scope { salt: 1, above: newest };
    let talk = compare(&mut a, &mut b, p, recent, usize::MAX);
    let found = Differing { key: key(3).into(), ours: None, theirs: Some(version(5)) };
    assert_eq!((talk.differing, a.len_of(p)), (vec![found], 1_501));
    assert!(talk.bytes < 60, "{}", talk.bytes);
    assert_eq!(compare(&mut a, &mut b, p, recent, usize::MAX).bytes, SUM_BYTES + 2);
}

#[test]
fn settled_and_dead_is_not_missed() {
    let (mut a, mut b, p) = equals(100);
    let tombstone = Entry { body: Body::Tombstone, ..value(3) };
    a.apply(key(1).as_bytes(), &tombstone, T0);
    b.apply(key(1).as_bytes(), &tombstone, T0);
    // Both may forget it, and one has.
    for store in [&mut a, &mut b] {
        store.settle(p, version(3), T0);
    }
    a.turn(T0);
    assert_eq!((a.tombstones(), b.tombstones()), (0, 1));
    assert_eq!(compare(&mut a, &mut b, p, scope(1), usize::MAX).differing, []);
}

#[test]
fn a_question_looks_at_a_bounded_number_of_entries_and_goes_on_from_there() {
    let (mut a, _, p) = equals(40_000);
    let quarter = Ranges::new(8, (0..64).collect()).unwrap();
    let all = Ranges::new(8, (0..256).collect()).unwrap();
    let summed = |store: &mut Store, ranges: &Ranges| store.sums(p, scope(1), ranges, T0).sums.len() / SUM_BYTES;
    let first = summed(&mut a, &all);
    assert!(first > 0 && first < 128, "{first}");
    assert_eq!(summed(&mut a, &all.after(first).unwrap()), first.min(256 - first), "segments are of equal size here");
    // One key in each of many segments: few are listed, many are looked at.
    let sparse = Ranges::new(20, (0..256).map(|n| n << 12).collect()).unwrap();
    let page = a.prints(p, scope(1), &sparse, 0, T0);
    assert!(page.end.is_some() && page.entries.len() < 64);
    let found = a.unmatched(p, scope(1), &sparse, (0, None), &[], T0);
    assert_eq!(found.end, page.end);
    let pages = std::iter::successors(Some(a.prints(p, scope(1), &quarter, 0, T0)), |page| {
        page.end.map(|from| a.prints(p, scope(1), &quarter, from, T0))
    });
    let listed: Vec<Bytes> = pages.flat_map(|page| page.entries).map(|(key, _)| key).collect();
    let expected = (0..40_000).map(key).filter(|key| place(key.as_bytes()) >> 62 == 0).count();
    assert_eq!(listed.len(), expected);
    assert!(listed.is_sorted_by_key(|key| place(key)));
}
