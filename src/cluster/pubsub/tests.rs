//! Nodes that subscribe, are told of it, miss changes and start anew, against the simplest of models: what is wanted is known once everybody
//! has answered.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cluster::view::PeerIx;

const PEER: PeerIx = PeerIx(1);

/// One node that is told things, and another that tells.
#[derive(Default)]
struct Pair {
    roster: Roster<()>,
    ledger: Ledger,
    told: Interest,
    incarnation: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(Kind, u8, u64),
    Unsubscribe(Kind, u8, u64),
    /// A change goes over and its answer comes back, or the answer is lost, or both are.
    Tell {
        arrives: bool,
        answered: bool,
    },
    Restart,
    Dies(bool),
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (kinds(), 0..6u8, 0..3u64).prop_map(|(kind, name, id)| Step::Subscribe(kind, name, id)),
        3 => (kinds(), 0..6u8, 0..3u64).prop_map(|(kind, name, id)| Step::Unsubscribe(kind, name, id)),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(arrives, answered)| Step::Tell { arrives, answered }),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Dies),
    ]
}

fn name(n: u8) -> Bytes {
    Bytes::copy_from_slice(&[b'a' + n])
}

impl Pair {
    fn follow(&mut self, alive: bool) {
        self.ledger.follow([(PEER, self.incarnation, alive)].into_iter());
    }

    fn tell(&mut self, arrives: bool, answered: bool) {
        let Some((incarnation, change)) = self.ledger.next(PEER, &self.roster) else { return };
        assert_eq!(incarnation, self.incarnation);
        let taken = arrives && self.told.take(change).is_ok();
        self.ledger.answered(PEER, incarnation, taken && answered);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Subscribe(kind, n, id) => {
                if self.roster.add((kind, &name(n)), id, ()) {
                    self.ledger.changed(&[(kind, name(n))], &self.roster, Classes::NONE);
                }
            }
            Step::Unsubscribe(kind, n, id) => {
                if self.roster.remove((kind, &name(n)), id) {
                    self.ledger.changed(&[(kind, name(n))], &self.roster, Classes::NONE);
                }
            }
            Step::Tell { arrives, answered } => self.tell(arrives, answered),
            Step::Restart => {
                self.incarnation += 1;
                self.told = Interest::default();
                self.follow(true);
            }
            Step::Dies(alive) => self.follow(alive),
        }
    }
}

proptest! {
    #[test]
    fn what_is_wanted_is_known_once_all_have_answered(steps in prop::collection::vec(step(), 0..60)) {
        let mut pair = Pair::default();
        pair.follow(true);
        for step in &steps {
            pair.step(step);
        }
        pair.follow(true);
        let version = pair.ledger.changed(&[], &pair.roster, Classes::NONE);
        for _ in 0..3 {
            pair.tell(true, true);
        }
        prop_assert_eq!(pair.ledger.known(), version);
        prop_assert_eq!(pair.ledger.next(PEER, &pair.roster), None);
        for n in 0..6 {
            for kind in [Kind::Channel, Kind::Shard] {
                let wanted = pair.roster.matching(kind, &name(n)).next().is_some();
                prop_assert_eq!(pair.told.wants(kind, &name(n)), wanted, "{:?} {}", kind, n);
            }
        }
    }

    #[test]
    fn a_change_that_was_acknowledged_is_never_unknown(steps in prop::collection::vec(step(), 0..60)) {
        let mut pair = Pair::default();
        pair.follow(true);
        for step in &steps {
            pair.step(step);
            // Only a member that may miss something has to be told more.
            if pair.ledger.known() == pair.ledger.changed(&[], &pair.roster, Classes::NONE) {
                for n in 0..6 {
                    let wanted = pair.roster.matching(Kind::Channel, &name(n)).next().is_some();
                    prop_assert_eq!(pair.told.wants(Kind::Channel, &name(n)), wanted);
                }
            }
        }
    }
}

#[test]
fn with_too_many_names_everything_is_asked_for_until_half_are_gone() {
    let mut pair = Pair::default();
    pair.follow(true);
    let long = |n: usize| (Kind::Channel, Bytes::from(format!("channel {n}")));
    let change = |pair: &mut Pair, n: usize, on: bool| {
        let name = long(n);
        let changed =
            if on { pair.roster.add((name.0, &name.1), 1, ()) } else { pair.roster.remove((name.0, &name.1), 1) };
        assert!(changed);
        pair.ledger.changed(&[name], &pair.roster, Classes::NONE);
        pair.tell(true, true);
    };
    for n in 0..INTEREST_NAMES_MAX {
        change(&mut pair, n, true);
    }
    assert!(!pair.told.wants(Kind::Channel, b"another") && pair.told.wants(Kind::Channel, b"channel 7"));
    change(&mut pair, INTEREST_NAMES_MAX, true);
    assert!(pair.told.wants(Kind::Channel, b"another") && pair.told.wants(Kind::Shard, b"another"));
    for n in INTEREST_NAMES_MAX / 2 + 1..=INTEREST_NAMES_MAX {
        assert!(pair.told.wants(Kind::Channel, b"another"));
        change(&mut pair, n, false);
    }
    change(&mut pair, 0, false);
    assert!(!pair.told.wants(Kind::Channel, b"another") && pair.told.wants(Kind::Channel, b"channel 7"));
    assert!(!pair.told.wants(Kind::Channel, b"channel 0"));
}

#[test]
fn names_that_come_and_go_while_a_member_is_away_are_not_kept_beyond_what_it_would_be_told_anew() {
    let mut pair = Pair::default();
    pair.follow(true);
    pair.tell(true, true);
    pair.follow(false);
    let bytes = 64 * 1024;
    for n in 0..2 * INTEREST_BYTES_MAX / bytes {
        let name = (Kind::Channel, Bytes::from(vec![n as u8; bytes]));
        assert!(pair.roster.add((name.0, &name.1), 1, ()));
        pair.ledger.changed(std::slice::from_ref(&name), &pair.roster, Classes::NONE);
        assert!(pair.roster.remove((name.0, &name.1), 1));
        pair.ledger.changed(&[name], &pair.roster, Classes::NONE);
    }
    pair.follow(true);
    let (_, change) = pair.ledger.next(PEER, &pair.roster).expect("it is to be told");
    assert_eq!((change.base, change.added.len(), change.removed.len()), (0, 0, 0), "all anew, which is nothing");
}
