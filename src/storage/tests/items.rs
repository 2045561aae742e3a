//! Acts on whole items, against the answers of memcached 1.6 to the same commands, and the state of two replicas after them.

use super::*;
use crate::base::item::{ItemAct, ItemOutcome, ItemTerms, ItemValue, Mode, Only};
use std::num::NonZeroU64;

/// What was answered, owned.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    outcome: Option<ItemOutcome>,
    value: Option<Vec<u8>>,
    cas: u64,
    version: Version,
    marks: Marks,
    ttl_ms: Option<u64>,
    won: bool,
    was_hit: bool,
    len: u32,
    error: Option<String>,
}

impl ReplySink for Vec<Seen> {
    fn reply(&mut self, reply: ReplyRef<'_>) {
        self.push(match reply {
            ReplyRef::Item(item) => Seen {
                outcome: Some(item.outcome),
                value: item.value.as_ref().map(|value| match value {
                    ItemValue::Copied(bytes) => bytes.to_vec(),
                    ItemValue::Shared(bytes) => bytes.to_vec(),
                }),
                cas: crate::base::item::cas_unique(item.version, item.marks),
                version: item.version,
                marks: item.marks,
                ttl_ms: item.ttl_ms,
                won: item.won,
                was_hit: item.was_hit,
                len: item.len,
                error: None,
            },
            ReplyRef::Null => Seen::default(),
            other => Seen { error: Some(format!("{other:?}")), ..Seen::default() },
        });
    }
}

/// A store and another that is told of everything.
struct Pair {
    store: Store,
    other: Store,
    now: UnixMs,
}

impl Pair {
    fn new() -> Self {
        let mut other = store_of(2, 0, true);
        other.set_replicated(true);
        Self { store: store(), other, now: T0 }
    }

    fn ask(&mut self, act: ItemAct, data: &[u8], terms: ItemTerms) -> Seen {
        let mut value = data.to_vec();
        if !data.is_empty() || terms != ItemTerms::default() {
            terms.append_to(&mut value);
        }
        let op = Op { key: Bytes::from_static(b"k"), act: Act::Item(act), value: value.into() };
        let (mut seen, mut told) = (Vec::new(), Vec::new());
        self.store.execute(&op, self.now, &mut seen, &mut |_, entry| told.push(entry.to_entry()));
        assert!(seen.len() == 1 && told.len() <= usize::from(act.writes()), "one answer, at most one change");
        if let Some(entry) = told.pop() {
            self.other.apply(b"k", &entry, self.now);
            let live = |entry: EntryRef<'_>| matches!(entry.body, BodyRef::Live { .. });
            assert_eq!(self.store.peek(b"k").filter(|e| live(*e)), self.other.peek(b"k").filter(|e| live(*e)));
        }
        check_accounts(&mut self.store);
        seen.remove(0)
    }

    fn read(&mut self) -> Seen {
        self.ask(ItemAct::Read, b"", ItemTerms::default())
    }

    fn outcome(&mut self, act: ItemAct, data: &[u8], terms: ItemTerms) -> ItemOutcome {
        self.ask(act, data, terms).outcome.expect("an item's answer")
    }
}

fn in_seconds(seconds: i64) -> Expiry {
    Expiry::Until(Deadline::In(seconds * 1_000))
}

fn terms() -> ItemTerms {
    ItemTerms::default()
}

#[test]
fn modes_and_conditions_store_as_memcached_does() {
    use ItemOutcome::{Created, Differs, Done, Missing, NotStored};
    let mut pair = Pair::new();
    let store = |mode| ItemTerms { mode, ..terms() };
    for mode in [Mode::Replace, Mode::Append, Mode::Prepend] {
        assert_eq!(pair.outcome(ItemAct::Store, b"v", store(mode)), NotStored);
    }
    let only = |cas| ItemTerms { only: Some(Only::Cas(cas)), ..terms() };
    assert_eq!(pair.outcome(ItemAct::Store, b"v", only(1)), Missing);
    assert_eq!(pair.outcome(ItemAct::Store, b"b", ItemTerms { flags: 7, ..store(Mode::Add) }), Created);
    assert_eq!(pair.outcome(ItemAct::Store, b"v", store(Mode::Add)), NotStored);
    assert_eq!(pair.outcome(ItemAct::Store, b"c", store(Mode::Append)), Done);
    assert_eq!(pair.outcome(ItemAct::Store, b"a", store(Mode::Prepend)), Done);
    let seen = pair.read();
    assert_eq!((seen.value.as_deref(), seen.marks.flags, seen.len), (Some(&b"abc"[..]), 7, 3));
    assert_eq!(pair.outcome(ItemAct::Store, b"x", only(seen.cas + 1)), Differs);
    assert_eq!(pair.outcome(ItemAct::Store, b"x", only(0)), Differs);
    let stored = pair.ask(ItemAct::Store, b"x", only(seen.cas));
    assert!(stored.outcome == Some(Done) && stored.cas != seen.cas && stored.cas == pair.read().cas);
    let version = |version| ItemTerms { only: Some(Only::Version(version)), ..terms() };
    assert_eq!(pair.outcome(ItemAct::Store, b"y", version(seen.version)), Differs);
    assert_eq!(pair.outcome(ItemAct::Store, b"y", version(stored.version)), Done);
    assert_eq!(pair.outcome(ItemAct::Remove, b"", version(stored.version)), Differs);
    let now = pair.read().version;
    assert_eq!(pair.outcome(ItemAct::Remove, b"", version(now)), Done);
    assert_eq!(pair.outcome(ItemAct::Remove, b"", version(now)), Missing);
    assert_eq!(pair.read(), Seen::default());
    let vivify = ItemTerms { vivify: Some(in_seconds(9)), ..store(Mode::Append) };
    assert_eq!(pair.outcome(ItemAct::Store, b"made", vivify), Created);
    assert_eq!(pair.read().ttl_ms, Some(9_000));
    let short = ItemTerms { bytes_max: 5, ..store(Mode::Append) };
    assert_eq!(pair.outcome(ItemAct::Store, b"ab", short), NotStored);
}

#[test]
fn put_answers_the_version_it_wrote_and_takes_a_cas_unique() {
    let mut pair = Pair::new();
    let put = pair.ask(ItemAct::Put, b"v", ItemTerms { flags: 1, expiry: in_seconds(5), ..terms() });
    let seen = pair.read();
    assert_eq!((put.version, put.cas, seen.ttl_ms), (seen.version, seen.cas, Some(5_000)));
    pair.ask(ItemAct::Put, b"v", ItemTerms { cas: NonZeroU64::new(77), ..terms() });
    assert_eq!((pair.read().cas, pair.read().ttl_ms), (77, None));
    let older = |cas| ItemTerms { only: Some(Only::Cas(cas)), stale: true, ..terms() };
    assert_eq!(pair.outcome(ItemAct::Store, b"w", older(78)), ItemOutcome::Differs);
    assert_eq!(pair.outcome(ItemAct::Store, b"w", older(76)), ItemOutcome::Done);
    assert!(pair.read().marks.is_stale);
    pair.ask(ItemAct::Put, b"gone", ItemTerms { expiry: in_seconds(-1), ..terms() });
    assert_eq!(pair.read(), Seen::default());
}

#[test]
fn a_stale_item_is_promised_to_one_and_taken_back_by_a_set() {
    let mut pair = Pair::new();
    pair.ask(ItemAct::Put, b"v", ItemTerms { expiry: in_seconds(100), ..terms() });
    let before = pair.read().cas;
    assert_eq!(pair.outcome(ItemAct::Remove, b"", ItemTerms { stale: true, ..terms() }), ItemOutcome::Done);
    let touch = ItemTerms { expiry: in_seconds(100), ..terms() };
    assert!(!pair.ask(ItemAct::Touch, b"", touch).won, "a touch promises nothing");
    let first = pair.ask(ItemAct::Fetch, b"", terms());
    assert!(first.won && first.marks.is_stale && !first.marks.is_promised && first.cas != before);
    let second = pair.ask(ItemAct::Fetch, b"", terms());
    assert!(!second.won && second.marks.is_stale && second.marks.is_promised);
    assert_eq!((second.cas, second.ttl_ms), (first.cas, Some(100_000)), "a promise leaves both alone");
    assert_eq!((first.was_hit, second.was_hit), (true, true));
    // Who began before the invalidation may still store, as stale; who was promised it may store.
    let late = ItemTerms { only: Some(Only::Cas(before)), stale: true, ..terms() };
    assert_eq!(pair.outcome(ItemAct::Store, b"late", late), ItemOutcome::Done);
    let seen = pair.read();
    assert!(seen.marks.is_stale && seen.marks.is_promised && seen.ttl_ms == Some(100_000));
    assert_eq!(
        pair.outcome(ItemAct::Store, b"w", ItemTerms { only: Some(Only::Cas(first.cas)), ..terms() }),
        ItemOutcome::Differs
    );
    assert_eq!(
        pair.outcome(ItemAct::Store, b"w", ItemTerms { only: Some(Only::Cas(seen.cas)), ..terms() }),
        ItemOutcome::Done
    );
    assert_eq!(pair.read().marks, Marks::default());
}

#[test]
fn a_missing_item_is_made_for_one_and_one_about_to_expire_is_promised() {
    let mut pair = Pair::new();
    assert_eq!(pair.ask(ItemAct::Fetch, b"", terms()), Seen::default());
    let vivify = ItemTerms { vivify: Some(in_seconds(30)), ..terms() };
    let made = pair.ask(ItemAct::Fetch, b"", vivify);
    assert!(made.won && made.outcome == Some(ItemOutcome::Created) && made.value.as_deref() == Some(b""));
    let again = pair.ask(ItemAct::Fetch, b"", vivify);
    assert!(!again.won && again.marks.is_promised && again.ttl_ms == Some(30_000));
    pair.ask(ItemAct::Put, b"v", ItemTerms { expiry: in_seconds(30), ..terms() });
    let recache = |seconds: i64| ItemTerms { recache: Some(Deadline::In(seconds * 1_000)), ..terms() };
    assert!(!pair.ask(ItemAct::Fetch, b"", recache(30)).won);
    pair.now += 500;
    assert!(!pair.ask(ItemAct::Fetch, b"", recache(30)).won, "half a second is a whole one to memcached");
    pair.now += 500;
    assert!(pair.ask(ItemAct::Fetch, b"", recache(30)).won);
    assert!(!pair.ask(ItemAct::Fetch, b"", recache(60)).won);
}

#[test]
fn a_touch_changes_the_deadline_and_not_the_cas_unique() {
    let mut pair = Pair::new();
    pair.ask(ItemAct::Put, b"v", ItemTerms { flags: 3, ..terms() });
    let before = pair.read();
    let touched = pair.ask(ItemAct::Fetch, b"", ItemTerms { expiry: in_seconds(50), bare: true, ..terms() });
    assert_eq!((touched.value, touched.ttl_ms, touched.cas), (None, None, before.cas));
    assert_ne!(touched.version, before.version);
    let after = pair.read();
    assert_eq!((after.ttl_ms, after.cas, after.marks.flags), (Some(50_000), before.cas, 3));
    pair.ask(ItemAct::Fetch, b"", ItemTerms { expiry: Expiry::Clear, ..terms() });
    assert_eq!(pair.read().ttl_ms, None);
    assert_eq!(pair.ask(ItemAct::Fetch, b"", ItemTerms { expiry: in_seconds(-1), ..terms() }).len, 1);
    assert_eq!(pair.read(), Seen::default());
}

#[test]
fn counters_count_as_memcached_does() {
    use ItemOutcome::{Created, Differs, Done, Missing, NotNumber};
    let mut pair = Pair::new();
    let by = |delta, down| ItemTerms { delta, down, ..terms() };
    assert_eq!(pair.outcome(ItemAct::Count, b"", by(1, false)), Missing);
    let made = pair.ask(ItemAct::Count, b"", ItemTerms { vivify: Some(in_seconds(9)), initial: 100, ..terms() });
    assert_eq!((made.outcome, made.value.as_deref()), (Some(Created), Some(&b"100"[..])));
    let down = pair.ask(ItemAct::Count, b"", by(1, true));
    assert_eq!((down.value.as_deref(), down.len), (Some(&b"99"[..]), 2));
    let seen = pair.read();
    assert_eq!((seen.value.as_deref(), seen.ttl_ms), (Some(&b"99 "[..]), Some(9_000)), "spaces up to the old length");
    assert_eq!(pair.ask(ItemAct::Count, b"", by(500, true)).value.as_deref(), Some(&b"0"[..]));
    assert_eq!(
        pair.ask(ItemAct::Count, b"", by(u64::MAX, false)).value.as_deref(),
        Some(u64::MAX.to_string().as_bytes())
    );
    assert_eq!(pair.ask(ItemAct::Count, b"", by(2, false)).value.as_deref(), Some(&b"1"[..]), "it wraps");
    assert_eq!(pair.read().len, 20);
    assert_eq!(pair.outcome(ItemAct::Count, b"", ItemTerms { only: Some(Only::Cas(5)), ..terms() }), Differs);
    let same = ItemTerms { only: Some(Only::Cas(pair.read().cas)), cas: NonZeroU64::new(5), ..terms() };
    assert_eq!(pair.outcome(ItemAct::Count, b"", same), Done);
    assert_eq!(pair.read().cas, 5);
    for bad in [&b""[..], b"x", b"1x", b"-1"] {
        pair.ask(ItemAct::Put, bad, terms());
        assert_eq!(pair.outcome(ItemAct::Count, b"", by(1, false)), NotNumber, "{bad:?}");
    }
}

#[test]
fn a_stripped_item_keeps_its_place_and_its_cas_unique() {
    let mut pair = Pair::new();
    pair.ask(ItemAct::Put, b"value", ItemTerms { flags: 3, expiry: in_seconds(9), ..terms() });
    let before = pair.read().cas;
    assert_eq!(pair.outcome(ItemAct::Remove, b"", ItemTerms { strip: true, ..terms() }), ItemOutcome::Done);
    let seen = pair.read();
    assert_eq!((seen.len, seen.marks.flags, seen.ttl_ms, seen.cas), (0, 0, None, before));
}

#[test]
fn what_nobody_makes_is_refused() {
    let mut store = store();
    let op = Op { key: Bytes::from_static(b"k"), act: Act::Item(ItemAct::Store), value: Bytes::from_static(b"\xff") };
    let mut seen: Vec<Seen> = Vec::new();
    store.execute(&op, T0, &mut seen, &mut |_, _| panic!("nothing changes"));
    assert!(seen[0].error.is_some());
}
