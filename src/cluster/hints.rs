//! What replicas could not be sent, by key: once they are back it is handed over at once, where a comparison would have to find it first. A
//! hint names a key and a version, never a value: what is handed over is the newest there is, so that a key written a thousand times while a
//! replica is away goes once. Bounded in bytes and age. What is given up is told, and left to comparison; nothing rests on a hint. Never
//! sends anything. Tested below.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use lru::LruCache;

use crate::base::counters::{Counter, Counters};
use crate::base::hlc::Version;
use crate::base::slot::Partition;

use super::link::Moment;
use super::view::PeerIx;

/// A replica that has been away for longer is compared: by then others may have more to tell it than these.
const HINT_AGE_MAX: Duration = Duration::from_secs(3_600);
/// What a hint takes besides its key: its node in the order of age, its part of the table, and what allocations round up.
const HINT_BYTES_BESIDES: usize = 112;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The key.
    pub key: Bytes,
    /// The newest version that was missed.
    pub version: Version,
}

/// Hints on their way to one replica.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// To be named when it is over.
    pub number: u64,
    /// The oldest first.
    pub hints: Vec<Hint>,
}

/// Where a replica has missed something of which there is no hint any more.
pub type GivenUp = Vec<(PeerIx, Partition)>;

#[derive(Clone, Copy, Debug)]
struct Missed {
    version: Version,
    at: Moment,
}

/// One replica's.
#[derive(Debug)]
struct Target {
    /// In the order in which they were last missed.
    missed: LruCache<Box<[u8]>, Missed, FixedState>,
    bytes: usize,
    /// The number of the page that is under way. What it has stays here until it is over.
    page: Option<u64>,
}

/// All hints of one data arbiter.
#[derive(Debug)]
pub struct Hints {
    bytes_max: usize,
    bytes: usize,
    hash: FixedState,
    next_page: u64,
    targets: BTreeMap<PeerIx, Target>,
    counters: Counters,
}

fn bytes_of(key: &[u8]) -> usize {
    key.len() + HINT_BYTES_BESIDES
}

impl Hints {
    /// None yet. They take at most `bytes_max` bytes; 0 is for none at all. Clients must not know `hash_seed`.
    pub fn new(bytes_max: usize, hash_seed: u64) -> Self {
        let (hash, targets) = (FixedState::with_seed(hash_seed), BTreeMap::new());
        Self { bytes_max, bytes: 0, hash, next_page: 1, targets, counters: Counters::default() }
    }

    /// Whether there may be any.
    pub fn are_kept(&self) -> bool {
        self.bytes_max > 0
    }

    /// Notes that a replica has missed a version of a key. Beyond the bound the oldest of whoever has most go, so that nobody's are driven
    /// out by one who is away for long.
    #[must_use]
    pub fn note(&mut self, peer: PeerIx, key: &[u8], version: Version, now: Moment) -> GivenUp {
        if bytes_of(key) > self.bytes_max {
            return vec![(peer, Partition::of(key))];
        }
        let mut given_up = self.expire(peer, now);
        let hash = self.hash.clone();
        let new = || Target { missed: LruCache::unbounded_with_hasher(hash), bytes: 0, page: None };
        let target = self.targets.entry(peer).or_insert_with(new);
        if let Some(missed) = target.missed.get_mut(key) {
            *missed = Missed { version: missed.version.max(version), at: now };
            return given_up;
        }
        target.missed.put(key.into(), Missed { version, at: now });
        target.bytes += bytes_of(key);
        self.bytes += bytes_of(key);
        self.counters.inc(Counter::HintsStored);
        while self.bytes > self.bytes_max {
            let (fullest, _) = self.targets.iter().max_by_key(|(_, target)| target.bytes).expect("one was just noted");
            given_up.extend(self.give_up_oldest(*fullest));
        }
        given_up
    }

    fn give_up_oldest(&mut self, peer: PeerIx) -> Option<(PeerIx, Partition)> {
        let target = self.targets.get_mut(&peer)?;
        let (key, _) = target.missed.pop_lru()?;
        target.bytes -= bytes_of(&key);
        self.bytes -= bytes_of(&key);
        self.counters.inc(Counter::HintsDropped);
        Some((peer, Partition::of(&key)))
    }

    /// Gives up those of a replica that are too old.
    #[must_use]
    pub fn expire(&mut self, peer: PeerIx, now: Moment) -> GivenUp {
        let mut given_up = Vec::new();
        let is_old = |missed: &Missed| missed.at + HINT_AGE_MAX < now;
        while let Some(target) = self.targets.get(&peer)
            && target.missed.peek_lru().is_some_and(|(_, missed)| is_old(missed))
        {
            given_up.extend(self.give_up_oldest(peer));
        }
        given_up
    }

    /// The oldest of a replica's hints, to be handed over, at most `hints_max`; `None` if there is none, or others are under way.
    pub fn page(&mut self, peer: PeerIx, hints_max: usize) -> Option<Page> {
        let target = self.targets.get_mut(&peer).filter(|target| target.page.is_none())?;
        let oldest = target.missed.iter().rev().take(hints_max);
        let hint = |key: &[u8], missed: &Missed| Hint { key: Bytes::copy_from_slice(key), version: missed.version };
        let hints: Vec<Hint> = oldest.map(|(key, missed)| hint(key, missed)).collect();
        if hints.is_empty() {
            return None;
        }
        let number = self.next_page;
        self.next_page += 1;
        target.page = Some(number);
        Some(Page { number, hints })
    }

    /// A page is over: the replica has these, these are given up, and the others of it are left for the next. What was missed once more
    /// meanwhile is left, too.
    pub fn page_over(&mut self, peer: PeerIx, number: u64, handed_over: &[Hint], given_up: &[Hint]) {
        // That of a member which was forgotten meanwhile is nobody's.
        let Some(target) = self.targets.get_mut(&peer).filter(|target| target.page == Some(number)) else { return };
        target.page = None;
        let outcomes = [(Counter::HintsHandedOver, handed_over), (Counter::HintsDropped, given_up)];
        for (counter, hint) in outcomes.iter().flat_map(|(counter, hints)| hints.iter().map(|hint| (*counter, hint))) {
            let key = &hint.key[..];
            if target.missed.peek(key).is_some_and(|missed| missed.version == hint.version) {
                target.missed.pop(key);
                target.bytes -= bytes_of(key);
                self.bytes -= bytes_of(key);
                self.counters.inc(counter);
            }
        }
    }

    /// Who is no member any more needs nothing.
    pub fn forget(&mut self, peer: PeerIx) {
        if let Some(target) = self.targets.remove(&peer) {
            self.bytes -= target.bytes;
            self.counters.add(Counter::HintsDropped, target.missed.len() as u64);
        }
    }

    /// Those who have missed something.
    pub fn targets(&self) -> impl Iterator<Item = PeerIx> {
        self.targets.iter().filter(|(_, target)| !target.missed.is_empty()).map(|(peer, _)| *peer)
    }

    /// Hints for a replica that it has not acknowledged.
    pub fn pending_for(&self, peer: PeerIx) -> usize {
        self.targets.get(&peer).map_or(0, |target| target.missed.len())
    }

    /// Hints that nobody has acknowledged.
    pub fn pending(&self) -> usize {
        self.targets.values().map(|target| target.missed.len()).sum()
    }

    /// Bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was stored so far, and what became of it.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: PeerIx = PeerIx(1);
    const B: PeerIx = PeerIx(2);
    const ONE: usize = 1 + HINT_BYTES_BESIDES;

    fn version(time: u64) -> Version {
        Version { time, origin: 1 }
    }

    fn seconds(n: u64) -> Moment {
        Moment::from_secs(n)
    }

    fn keys(page: Option<Page>) -> Vec<Bytes> {
        page.map_or_else(Vec::new, |page| page.hints.into_iter().map(|hint| hint.key).collect())
    }

    #[test]
    fn a_key_that_is_missed_often_is_handed_over_once_in_its_newest_version() {
        let mut hints = Hints::new(10 * ONE, 7);
        for time in [5, 9, 7] {
            assert_eq!(hints.note(A, b"k", version(time), seconds(1)), []);
        }
        let page = hints.page(A, 10).expect("one waits");
        assert_eq!(page.hints, [Hint { key: Bytes::from_static(b"k"), version: version(9) }]);
        assert_eq!(hints.page(A, 10), None);
        assert_eq!((hints.pending(), hints.bytes()), (1, ONE), "until it is acknowledged");
        assert_eq!(hints.note(A, b"k", version(10), seconds(2)), [], "it is missed again");
        hints.page_over(A, page.number, &page.hints, &[]);
        let page = hints.page(A, 10).expect("it has to go again");
        hints.page_over(A, page.number, &page.hints, &[]);
        assert_eq!((hints.pending(), hints.bytes(), hints.targets().count()), (0, 0, 0));
    }

    #[test]
    fn when_it_is_full_the_oldest_of_whoever_has_most_goes() {
        let mut hints = Hints::new(4 * ONE, 7);
        for key in [b"1", b"2", b"3"] {
            assert_eq!(hints.note(A, key, version(1), seconds(1)), []);
        }
        assert_eq!(hints.note(B, b"1", version(1), seconds(1)), []);
        assert_eq!(hints.note(A, b"1", version(2), seconds(2)), [], "it is there already, and now the youngest");
        assert_eq!(hints.note(B, b"2", version(1), seconds(2)), [(A, Partition::of(b"2"))]);
        assert_eq!(keys(hints.page(A, 10)), ["3", "1"]);
        assert_eq!(keys(hints.page(B, 1)), ["1"]);
        let large = [0; 4 * ONE];
        assert_eq!(hints.note(A, &large, version(1), seconds(2)), [(A, Partition::of(&large))], "it alone is too much");
    }

    #[test]
    fn what_is_too_old_goes() {
        let mut hints = Hints::new(4 * ONE, 7);
        assert_eq!(hints.note(A, b"1", version(1), seconds(0)), []);
        assert_eq!(hints.note(A, b"2", version(1), seconds(1)), []);
        assert_eq!(hints.expire(A, HINT_AGE_MAX), []);
        assert_eq!(hints.note(A, b"3", version(1), HINT_AGE_MAX + seconds(1)), [(A, Partition::of(b"1"))]);
        assert_eq!(keys(hints.page(A, 10)), ["2", "3"]);
    }

    #[test]
    fn a_page_of_a_member_that_was_forgotten_ends_nothing_of_its_next_life() {
        let mut hints = Hints::new(4 * ONE, 7);
        assert_eq!(hints.note(A, b"1", version(1), seconds(0)), []);
        let old = hints.page(A, 10).expect("one waits");
        hints.forget(A);
        assert_eq!((hints.pending(), hints.bytes()), (0, 0));
        assert_eq!(hints.note(A, b"2", version(1), seconds(0)), []);
        let new = hints.page(A, 10).expect("one waits");
        hints.page_over(A, old.number, &old.hints, &[]);
        assert_eq!(hints.pending_for(A), 1);
        hints.page_over(A, new.number, &new.hints, &[]);
        assert_eq!(hints.pending_for(A), 0);
    }

    #[test]
    fn none_are_kept_where_none_may_be() {
        let mut hints = Hints::new(0, 7);
        assert_eq!(hints.note(A, b"1", version(1), seconds(0)), [(A, Partition::of(b"1"))]);
        assert_eq!((hints.pending(), hints.page(A, 1)), (0, None));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Note(u32, u8, u64),
        Page(u32, usize),
        Over(u32, usize, usize),
        Forget(u32),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let peer = 0u32..3;
        prop_oneof![
            12 => (peer.clone(), 0u8..40, 1u64..100).prop_map(|(peer, key, time)| Step::Note(peer, key, time)),
            3 => (peer.clone(), 0usize..6).prop_map(|(peer, max)| Step::Page(peer, max)),
            3 => (peer.clone(), 0usize..6, 0usize..6).prop_map(|(peer, n, lost)| Step::Over(peer, n, lost)),
            1 => peer.prop_map(Step::Forget),
            1 => (1u64..2_000).prop_map(Step::Pass),
        ]
    }

    /// What each replica has missed, and when last.
    type Model = BTreeMap<(PeerIx, Vec<u8>), (u64, Moment)>;

    fn give_up(model: &mut Model, given_up: GivenUp) {
        for (whose, partition) in given_up {
            let is_it = |(peer, key): &&(PeerIx, Vec<u8>)| *peer == whose && Partition::of(key) == partition;
            let oldest = model.keys().filter(is_it).min_by_key(|key| model[*key].1);
            let oldest = oldest.expect("one that was noted").clone();
            model.remove(&oldest);
        }
    }

    proptest! {
        /// What was noted is there in its newest version, was handed over, or was told to be given up; and it takes no more than it may.
        #[test]
        fn hints_are_kept_within_bounds_or_given_up_aloud(
            room in 1usize..30,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let mut hints = Hints::new(room * ONE, 7);
            let (mut model, mut pages) = (Model::new(), BTreeMap::<PeerIx, Page>::new());
            let mut now = Moment::ZERO;
            for step in steps {
                match step {
                    Step::Note(peer, key, time) => {
                        let (peer, key) = (PeerIx(peer), vec![key]);
                        give_up(&mut model, hints.expire(peer, now));
                        prop_assert!(model.iter().all(|((known, _), (_, at))| *known != peer || *at + HINT_AGE_MAX >= now));
                        let noted = model.entry((peer, key.clone())).or_default();
                        *noted = (noted.0.max(time), now);
                        give_up(&mut model, hints.note(peer, &key, version(time), now));
                    }
                    Step::Page(peer, max) => {
                        let Some(page) = hints.page(PeerIx(peer), max) else { continue };
                        prop_assert!(!page.hints.is_empty() && page.hints.len() <= max);
                        for hint in &page.hints {
                            let missed = model.get(&(PeerIx(peer), hint.key.to_vec())).expect("it was noted");
                            prop_assert_eq!(hint.version, version(missed.0));
                        }
                        prop_assert!(pages.insert(PeerIx(peer), page).is_none(), "one page at a time");
                    }
                    Step::Over(peer, arrived, refused) => {
                        let Some(Page { number, hints: sent }) = pages.remove(&PeerIx(peer)) else { continue };
                        let (arrived, rest) = sent.split_at(arrived.min(sent.len()));
                        let refused = &rest[..refused.min(rest.len())];
                        for hint in arrived.iter().chain(refused) {
                            let key = (PeerIx(peer), hint.key.to_vec());
                            if model.get(&key).is_some_and(|missed| version(missed.0) == hint.version) {
                                model.remove(&key);
                            }
                        }
                        hints.page_over(PeerIx(peer), number, arrived, refused);
                    }
                    Step::Forget(peer) => {
                        pages.remove(&PeerIx(peer));
                        model.retain(|(known, _), _| *known != PeerIx(peer));
                        hints.forget(PeerIx(peer));
                    }
                    Step::Pass(time) => now += seconds(time),
                }
                prop_assert_eq!(hints.pending(), model.len());
                prop_assert_eq!(hints.bytes(), hints.pending() * ONE);
                prop_assert!(hints.bytes() <= room * ONE);
                let count = |counter| hints.counters().count(counter) as usize;
                let gone = count(Counter::HintsHandedOver) + count(Counter::HintsDropped);
                prop_assert_eq!(count(Counter::HintsStored), hints.pending() + gone);
            }
        }
    }
}
