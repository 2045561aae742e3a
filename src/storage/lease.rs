//! Whose turn it is to change a key above level one: the acceptor's side of single-decree Paxos, per key and in memory. Never decides
//! who should coordinate, and never waits. Tested below, and with whole coordinators in the simulation.
//!
//! A coordinator whose operation reads what it changes first surveys a majority. Each replica that answers promises it the key for
//! [`LEASE_MAX`]: until then it takes changes from nobody else, and changes under the lease only while the lease is the coordinator's.
//! Two coordinators that take turns, each believing itself alone, so never both change what the other has read. After "CASPaxos"
//! (Rystsov, 2018), except that versions order by time, not by ballot, so that the last writer wins everywhere else. Hence a
//! holder stamps within [`LEASE_STAMPS_MAX`] of its ballot, and the next one's ballot lies above that: what a holder left on a minority
//! loses to what its successor writes.
//!
//! A request is not done again where its effect may be in the value already. A replica therefore notes since when it has taken every write
//! to a key, one upon the other: what it does not remember of that time has not happened.
//!
//! Forgetting is safe: a change under a lease that is not known here is refused, and ballots below what was forgotten are.

use foldhash::fast::FixedState;
use lru::LruCache;
use std::hash::BuildHasher;

use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::{LEASE_MAX, LEASE_STAMPS_MAX, LEASES_MAX};

const LEASE_MS: u64 = LEASE_MAX.as_millis() as u64;
const STAMPS_MS: u64 = LEASE_STAMPS_MAX.as_millis() as u64;
/// A holder stands back for one who asked this short a time ago.
const WANTED_MS: u64 = 100;
/// A lease that ended this long ago is forgotten when there is a new one to remember.
const KEPT_MS: u64 = 5_000;
/// Forgotten at most per new lease, so that a lull does not make one request pay for all before it.
const PURGED_PER_LEASE: usize = 2;

/// The key is another coordinator's for now. Nothing was promised or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Whoever is next must stamp above this.
    pub above: Version,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// [`Version::origin`] of the coordinator.
    holder: u32,
    /// Its first ballot after another's lease.
    since: Version,
    /// All its stamps lie below.
    stamps_below: Version,
    until: UnixMs,
    /// When another last asked.
    wanted: Option<UnixMs>,
    /// The first and the last of the writes that came here one upon the other, none left out.
    chain: (Version, Version),
}

impl Lease {
    fn new(ballot: Version, now: UnixMs) -> Self {
        Self {
            holder: ballot.origin,
            since: ballot,
            stamps_below: stamps_below(ballot),
            until: now + LEASE_MS,
            wanted: None,
            chain: (Version::ZERO, Version::ZERO),
        }
    }

    /// A lease that ends later than any given now is one from before the clock went back.
    fn is_active(&self, now: UnixMs) -> bool {
        now < self.until && self.until <= now + LEASE_MS
    }

    fn is_wanted(&self, now: UnixMs) -> bool {
        self.wanted.is_some_and(|at| now.abs_diff(at) < WANTED_MS)
    }
}

/// Everything stamped under this ballot is older than this.
pub fn stamps_below(ballot: Version) -> Version {
    Version::earliest_at(ballot.unix_ms() + STAMPS_MS)
}

/// The leases one store has given, at most [`LEASES_MAX`].
#[derive(Debug)]
pub struct Leases {
    /// By the hash of the key: two keys that share one share their leases, which costs a wait and nothing else.
    held: LruCache<u64, Lease, FixedState>,
    hash: FixedState,
    /// All stamps under forgotten leases lie below.
    forgotten: Version,
}

impl Leases {
    /// No leases. `seed` is unknown to clients, so that they cannot make keys share.
    pub fn new(seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        Self {
            held: LruCache::unbounded_with_hasher(hash),
            hash: FixedState::with_seed(!seed),
            forgotten: Version::ZERO,
        }
    }

    /// Promises `key` to the coordinator with this ballot. One that has it keeps it, unless another has asked for it meanwhile.
    ///
    /// # Errors
    /// [`Leased`] if it is another's, or if `ballot` is not above all that was stamped under the lease before it.
    pub fn ask(&mut self, key: &[u8], ballot: Version, now: UnixMs) -> Result<(), Leased> {
        let id = self.hash.hash_one(key);
        let Some(lease) = self.held.get_mut(&id) else {
            if ballot < self.forgotten {
                return Err(Leased { above: self.forgotten });
            }
            self.make_room(now);
            self.held.put(id, Lease::new(ballot, now));
            return Ok(());
        };
        let refused = Err(Leased { above: lease.stamps_below });
        let (active, wanted) = (lease.is_active(now), lease.is_wanted(now));
        if lease.holder == ballot.origin {
            if ballot < lease.since || wanted && !active {
                return refused;
            }
            lease.stamps_below = lease.stamps_below.max(stamps_below(ballot));
            if !wanted {
                lease.until = now + LEASE_MS;
            }
            return Ok(());
        }
        if active {
            lease.wanted = Some(now);
        }
        if active || ballot < lease.stamps_below {
            return refused;
        }
        *lease = Lease { chain: lease.chain, ..Lease::new(ballot, now) };
        Ok(())
    }

    /// Notes a write that was taken, and what it was written upon, [`Version::ZERO`] if that is not known. Of keys that were never leased
    /// nothing is noted.
    pub fn taken(&mut self, key: &[u8], base: Version, version: Version) {
        if let Some(lease) = self.held.peek_mut(&self.hash.hash_one(key)) {
            let follows = base > Version::ZERO && lease.chain.1 == base;
            let first = if follows { lease.chain.0 } else { version };
            lease.chain = (first, version);
        }
    }

    /// Since which version every write that led to `held` was taken here.
    pub fn known_since(&self, key: &[u8], held: Version) -> Option<Version> {
        let lease = self.held.peek(&self.hash.hash_one(key))?;
        (lease.chain.1 == held && held > Version::ZERO).then_some(lease.chain.0)
    }

    /// Whether what a coordinator decided on under this ballot may still be done.
    pub fn covers(&self, key: &[u8], ballot: Version, now: UnixMs) -> bool {
        #[cfg(feature = "sim")]
        if crate::base::plant::Plant::IgnoredLease.is_sown() {
            return true;
        }
        let lease = self.held.peek(&self.hash.hash_one(key));
        lease.is_some_and(|l| l.holder == ballot.origin && l.since <= ballot && l.is_active(now))
    }

    /// Whether a new write that rests on no lease may be taken, stamped `version`.
    ///
    /// # Errors
    /// [`Leased`] if the key is promised to another than who stamped it, or was, and the stamp is not above what that one may have stamped.
    pub fn admits(&self, key: &[u8], version: Version, now: UnixMs) -> Result<(), Leased> {
        // Nearly always: no operation that reads what it changes is under way.
        if self.held.is_empty() && version >= self.forgotten {
            return Ok(());
        }
        match self.held.peek(&self.hash.hash_one(key)) {
            Some(lease) if lease.holder == version.origin => Ok(()),
            Some(lease) if lease.is_active(now) || version < lease.stamps_below => {
                Err(Leased { above: lease.stamps_below })
            }
            None if version < self.forgotten => Err(Leased { above: self.forgotten }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the key is promised to another coordinator than `origin`.
    pub fn is_anothers(&self, key: &[u8], origin: u32, now: UnixMs) -> bool {
        let lease = self.held.peek(&self.hash.hash_one(key));
        lease.is_some_and(|lease| lease.holder != origin && lease.is_active(now))
    }

    fn make_room(&mut self, now: UnixMs) {
        for _ in 0..PURGED_PER_LEASE {
            let Some((_, oldest)) = self.held.peek_lru() else { return };
            if self.held.len() < LEASES_MAX && now < oldest.until.saturating_add(KEPT_MS) {
                return;
            }
            self.forgotten = self.forgotten.max(oldest.stamps_below);
            self.held.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hlc::Hlc;
    use proptest::prelude::*;

    const T0: UnixMs = 1_000_000;

    fn ballot(ms: u64, origin: u32) -> Version {
        Version { origin, ..Version::earliest_at(ms) }
    }

    #[test]
    fn a_lease_ends_and_the_next_holder_stamps_above_it() {
        let mut leases = Leases::new(7);
        let (ours, theirs) = (ballot(T0, 1), ballot(T0 + 10, 2));
        assert_eq!(leases.ask(b"k", ours, T0), Ok(()));
        assert_eq!(leases.ask(b"k", theirs, T0 + 10), Err(Leased { above: stamps_below(ours) }));
        assert_eq!(leases.ask(b"other", theirs, T0 + 10), Ok(()));
        assert!(leases.covers(b"k", ours, T0 + LEASE_MS - 1) && !leases.covers(b"k", ours, T0 + LEASE_MS));
        assert_eq!(leases.ask(b"k", theirs, T0 + LEASE_MS), Err(Leased { above: stamps_below(ours) }));
        let theirs = Version { origin: 2, ..stamps_below(ours) };
        assert_eq!(leases.ask(b"k", theirs, T0 + LEASE_MS), Ok(()));
        assert!(!leases.covers(b"k", ours, T0 + LEASE_MS) && leases.covers(b"k", theirs, T0 + LEASE_MS));
    }

    #[test]
    fn a_holder_stands_back_for_whoever_waits() {
        let mut leases = Leases::new(7);
        assert_eq!(leases.ask(b"k", ballot(T0, 1), T0), Ok(()));
        assert_eq!(leases.ask(b"k", ballot(T0 + 300, 1), T0 + 300), Ok(()), "nobody waits: it goes on");
        assert!(leases.ask(b"k", ballot(T0 + 650, 2), T0 + 650).is_err());
        assert_eq!(leases.ask(b"k", ballot(T0 + 660, 1), T0 + 660), Ok(()));
        assert!(leases.ask(b"k", ballot(T0 + 710, 1), T0 + 710).is_err(), "what it had is over");
        assert_eq!(leases.ask(b"k", ballot(T0 + 1_000, 2), T0 + 1_000), Ok(()));
    }

    #[test]
    fn other_writes_wait_for_the_lease_and_stamp_above_it() {
        let mut leases = Leases::new(7);
        assert_eq!(leases.admits(b"k", ballot(T0, 2), T0), Ok(()));
        leases.ask(b"k", ballot(T0, 1), T0).unwrap();
        assert!(leases.is_anothers(b"k", 2, T0) && !leases.is_anothers(b"k", 1, T0));
        assert_eq!(leases.admits(b"k", ballot(T0 + 1, 1), T0 + 1), Ok(()));
        let above = stamps_below(ballot(T0, 1));
        assert_eq!(leases.admits(b"k", ballot(T0 + 1, 2), T0 + 1), Err(Leased { above }));
        assert_eq!(leases.admits(b"k", ballot(T0 + 1, 2), T0 + LEASE_MS), Err(Leased { above }), "stamped too low");
        assert_eq!(leases.admits(b"k", ballot(T0 + LEASE_MS, 2), T0 + LEASE_MS), Ok(()));
    }

    #[test]
    fn what_is_forgotten_stays_a_floor_and_the_number_stays_bounded() {
        let mut leases = Leases::new(7);
        for n in 0..LEASES_MAX as u64 + 10 {
            let at = T0 + n / 20;
            leases.ask(&n.to_le_bytes(), ballot(at, 1), at).unwrap();
        }
        assert_eq!(leases.held.len(), LEASES_MAX);
        let gone = 0u64.to_le_bytes();
        assert!(!leases.covers(&gone, ballot(T0, 1), T0), "its holder surveys again");
        assert!(
            leases.ask(&gone, ballot(T0 + 10, 2), T0 + 10).is_err() && leases.admits(&gone, ballot(T0, 2), T0).is_err()
        );
        leases.ask(b"later", ballot(T0 + 60_000, 1), T0 + 60_000).unwrap();
        leases.ask(b"later still", ballot(T0 + 60_000, 1), T0 + 60_000).unwrap();
        assert!(leases.held.len() < LEASES_MAX, "old ones make room for new ones");
    }

    #[test]
    fn a_chain_holds_while_no_link_is_missing() {
        let mut leases = Leases::new(7);
        let v = |n| ballot(T0 + n, 1);
        leases.taken(b"k", v(0), v(1));
        assert_eq!(leases.known_since(b"k", v(1)), None, "never leased");
        leases.ask(b"k", v(1), T0).unwrap();
        leases.taken(b"k", Version::ZERO, v(2));
        assert_eq!(leases.known_since(b"k", v(2)), Some(v(2)), "what led there is not known");
        leases.taken(b"k", v(2), v(3));
        assert_eq!(leases.known_since(b"k", v(3)), Some(v(2)));
        assert_eq!(leases.known_since(b"k", v(4)), None, "that came another way");
        leases.taken(b"k", v(4), v(5));
        assert_eq!(leases.known_since(b"k", v(5)), Some(v(5)));
    }

    /// One of three replicas of a list that can be appended to, and replaced by one of a single number, each of which may coordinate.
    struct Replica {
        leases: Leases,
        hlc: Hlc,
        held: (Version, Vec<usize>),
        /// A survey it rests on: ballot and time.
        flow: Option<(Version, UnixMs)>,
        above: Version,
        skew_ms: u64,
    }

    /// The list with one more number, or replaced blindly, on its way, and who has taken it.
    struct Append {
        version: Version,
        list: Vec<usize>,
        /// `None` for a blind write.
        ballot: Option<Version>,
        taken: Vec<usize>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Survey { by: usize, reaches: [bool; 3] },
        Append { by: usize, reaches: [bool; 3] },
        Replace { by: usize, reaches: [bool; 3] },
        Both { by: usize, surveys: [bool; 3], ms: u64, reaches: [bool; 3] },
        Arrive { which: usize, at: usize },
        Repair { from: usize, to: usize },
        Forget { at: usize },
        Sleep { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (0..3usize, any::<[bool; 3]>()).prop_map(|(by, reaches)| Step::Survey { by, reaches }),
            1 => (0..3usize, any::<[bool; 3]>()).prop_map(|(by, reaches)| Step::Append { by, reaches }),
            2 => (0..3usize, any::<[bool; 3]>()).prop_map(|(by, reaches)| Step::Replace { by, reaches }),
            6 => (0..3usize, any::<[bool; 3]>(), 0..190u64, any::<[bool; 3]>())
                .prop_map(|(by, surveys, ms, reaches)| Step::Both { by, surveys, ms, reaches }),
            3 => (0..64usize, 0..3usize).prop_map(|(which, at)| Step::Arrive { which, at }),
            1 => (0..3usize, 0..3usize).prop_map(|(from, to)| Step::Repair { from, to }),
            1 => (0..3usize).prop_map(|at| Step::Forget { at }),
            3 => prop_oneof![0..30u64, 100..500u64].prop_map(|ms| Step::Sleep { ms }),
        ]
    }

    struct World {
        now: UnixMs,
        replicas: Vec<Replica>,
        appends: Vec<Append>,
    }

    impl World {
        fn new(skews: [u64; 3]) -> Self {
            let replica = |(origin, skew_ms): (u32, u64)| Replica {
                leases: Leases::new(1),
                hlc: Hlc::new(origin, 500),
                held: (Version::ZERO, Vec::new()),
                flow: None,
                above: Version::ZERO,
                skew_ms,
            };
            let replicas = (1..).zip(skews).map(replica).collect();
            Self { now: T0, replicas, appends: Vec::new() }
        }

        fn survey(&mut self, by: usize, reaches: [bool; 3]) {
            let me = &mut self.replicas[by];
            me.flow = None;
            let at = self.now + me.skew_ms;
            if me.hlc.observe(at, me.above).is_err() {
                return;
            }
            let ballot = me.hlc.stamp(at, me.above);
            let (mut promised, mut newest) = (0, me.held.clone());
            let mut above = me.above;
            for (_, replica) in self.replicas.iter_mut().enumerate().filter(|(n, _)| *n == by || reaches[*n]) {
                let now = self.now + replica.skew_ms;
                match replica.leases.ask(b"k", ballot, now) {
                    Ok(()) => {
                        promised += 1;
                        newest = newest.max(replica.held.clone());
                    }
                    Err(leased) => above = above.max(leased.above),
                }
            }
            let me = &mut self.replicas[by];
            me.above = above;
            if promised >= 2 && me.leases.covers(b"k", ballot, at) && me.hlc.observe(at, newest.0).is_ok() {
                me.held = newest;
                me.flow = Some((ballot, self.now));
            }
        }

        fn append(&mut self, by: usize, reaches: [bool; 3]) {
            let me = &mut self.replicas[by];
            let at = self.now + me.skew_ms;
            let Some((ballot, begun)) = me.flow.take() else { return };
            let in_time = self.now <= begun + 200 && me.hlc.is_before(at, stamps_below(ballot));
            if !in_time || !me.leases.covers(b"k", ballot, at) {
                return;
            }
            let which = self.appends.len();
            me.held.0 = me.hlc.stamp(at, me.held.0);
            me.held.1.push(which);
            let (version, list) = me.held.clone();
            self.appends.push(Append { version, list, ballot: Some(ballot), taken: vec![by] });
            (0..3).filter(|n| reaches[*n]).for_each(|n| self.arrive(which, n));
        }

        fn replace(&mut self, by: usize, reaches: [bool; 3]) {
            let me = &mut self.replicas[by];
            let at = self.now + me.skew_ms;
            let stamp = Version { origin: me.hlc.origin(), ..Version::earliest_at(at) };
            if me.leases.admits(b"k", stamp, at).is_err() {
                return;
            }
            let which = self.appends.len();
            me.held = (me.hlc.stamp(at, me.held.0), vec![which]);
            let (version, list) = me.held.clone();
            self.appends.push(Append { version, list, ballot: None, taken: vec![by] });
            (0..3).filter(|n| reaches[*n]).for_each(|n| self.arrive(which, n));
        }

        fn arrive(&mut self, which: usize, at: usize) {
            let replica = &mut self.replicas[at];
            let Some(append) = self.appends.get_mut(which) else { return };
            let now = self.now + replica.skew_ms;
            let admitted = match append.ballot {
                Some(ballot) => replica.leases.covers(b"k", ballot, now),
                None => replica.leases.admits(b"k", append.version, now).is_ok(),
            };
            if admitted && append.version > replica.held.0 && replica.hlc.observe(now, append.version).is_ok() {
                replica.held = (append.version, append.list.clone());
                append.taken.push(at);
            }
        }

        fn repair(&mut self, from: usize, to: usize) {
            let (held, replica) = (self.replicas[from].held.clone(), &mut self.replicas[to]);
            let now = self.now + replica.skew_ms;
            if held > replica.held
                && !replica.leases.is_anothers(b"k", held.0.origin, now)
                && replica.hlc.observe(now, held.0).is_ok()
            {
                replica.held = held;
            }
        }

        fn take(&mut self, step: &Step) {
            match *step {
                Step::Survey { by, reaches } => self.survey(by, reaches),
                Step::Append { by, reaches } => self.append(by, reaches),
                Step::Replace { by, reaches } => self.replace(by, reaches),
                Step::Both { by, surveys, ms, reaches } => {
                    self.survey(by, surveys);
                    self.now += ms;
                    self.append(by, reaches);
                }
                Step::Arrive { which, at } => self.arrive(which, at),
                Step::Repair { from, to } => self.repair(from, to),
                Step::Forget { at } => {
                    let leases = &mut self.replicas[at].leases;
                    if let Some((_, lease)) = leases.held.pop_lru() {
                        leases.forgotten = leases.forgotten.max(lease.stamps_below);
                    }
                }
                Step::Sleep { ms } => self.now += ms,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn what_a_majority_took_is_never_lost_whoever_coordinates(
            skews in prop::array::uniform3(0..450u64),
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let mut world = World::new(skews);
            steps.iter().for_each(|step| world.take(step));
            let (_, list) = world.replicas.iter().map(|replica| &replica.held).max().unwrap();
            let replaced = list.first().map(|n| &world.appends[*n]).filter(|first| first.ballot.is_none());
            for (n, append) in world.appends.iter().enumerate().filter(|(_, append)| append.taken.len() >= 2) {
                let overwritten = replaced.is_some_and(|by| by.version > append.version);
                prop_assert!(list.contains(&n) || overwritten, "{n}, taken by {:?}, is not in {list:?}", append.taken);
            }
        }
    }
}
