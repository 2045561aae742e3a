//! Tests of leases: one at a time, and three replicas that coordinate a list in any order of events.

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
    assert_eq!(leases.known_since(b"k", v(5)), Some(v(4)), "what led to the fourth is not known");
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
        let in_time = self.now <= begun + 200 && me.hlc.next(at) < stamps_below(ballot);
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
        if me.leases.admits(b"k", me.hlc.next(at), at).is_err() {
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

impl World {
    /// Whatever a majority took is in the newest list, or was replaced since.
    fn check(&self) -> Result<(), TestCaseError> {
        let (_, list) = self.replicas.iter().map(|replica| &replica.held).max().unwrap();
        let replaced = list.first().map(|n| &self.appends[*n]).filter(|first| first.ballot.is_none());
        for (n, append) in self.appends.iter().enumerate().filter(|(_, append)| append.taken.len() >= 2) {
            let overwritten = replaced.is_some_and(|by| by.version > append.version);
            prop_assert!(list.contains(&n) || overwritten, "{n}, taken by {:?}, is not in {list:?}", append.taken);
        }
        Ok(())
    }
}

/// A blind write was on its way to a replica that then promised the key to another, who read and wrote, and at last to the blind writer.
#[test]
fn what_a_holder_stamped_before_its_lease_is_not_let_in_by_it() {
    let mut world = World::new([78, 0, 0]);
    let (nobody, last) = ([false; 3], [false, false, true]);
    for step in [
        Step::Replace { by: 0, reaches: nobody },
        Step::Both { by: 1, surveys: last, ms: 0, reaches: nobody },
        Step::Sleep { ms: 400 },
        Step::Both { by: 0, surveys: [false, true, false], ms: 141, reaches: nobody },
        Step::Sleep { ms: 36 },
        Step::Replace { by: 2, reaches: nobody },
        Step::Sleep { ms: 65 },
        Step::Both { by: 0, surveys: last, ms: 158, reaches: nobody },
        Step::Survey { by: 2, reaches: [false, true, false] },
        Step::Arrive { which: 3, at: 1 },
    ] {
        world.take(&step);
    }
    world.check().unwrap();
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
        world.check()?;
    }
}
