//! Tests of the membership: the laws of merging, the changes, the bounds.

use proptest::prelude::*;

use super::*;
use crate::base::slot::Partition;
use crate::cluster::specimen::{id, member};

fn of(names: &[&str]) -> Membership {
    let mut membership = Membership::default();
    for name in names {
        membership.join(member(name)).unwrap();
    }
    membership
}

fn merged(a: &Membership, b: &Membership) -> Membership {
    let mut all = a.clone();
    all.merge(b).unwrap();
    all
}

fn any_member(name: &'static str) -> impl Strategy<Value = Member> {
    let states = prop_oneof![
        Just(MemberState::Joined),
        Just(MemberState::Leaving),
        Just(MemberState::Left),
        Just(MemberState::Forgotten)
    ];
    let held = (0..3u64, 0..3u64, 0..3u16);
    (1..4u64, states, 0..3u16, prop::option::of("[ab]"), 0..3u64, held, 1..4u64).prop_map(
        move |(revision, state, weight, zone, incarnation, (life, held_revision, partition), ended)| {
            let partitions = [Partition(partition)].into_iter().collect();
            let held = Held { incarnation: life, held_revision, partitions, founding: u64::from(partition % 2) };
            let tombstone = state >= MemberState::Left;
            let ended_epoch = if tombstone { ended } else { 0 };
            Member { revision, state, weight, zone, incarnation, held, ended_epoch, ..member(name) }
        },
    )
}

/// Any membership of up to three members whose records clash in every way, honest or not.
fn any_membership() -> impl Strategy<Value = Membership> {
    let records = ["a", "b", "c"].map(|name| prop::option::of(any_member(name)));
    records.prop_map(|records| Membership {
        floor: 0,
        members: records.into_iter().flatten().map(|member| (member.id.clone(), member)).collect(),
    })
}

proptest! {
    #[test]
    fn merging_is_commutative(a in any_membership(), b in any_membership()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
    }

    #[test]
    fn merging_is_associative(a in any_membership(), b in any_membership(), c in any_membership()) {
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn merging_is_idempotent_and_tells_what_changed(a in any_membership(), b in any_membership()) {
        let mut all = a.clone();
        let changes = all.merge(&b).unwrap();
        prop_assert_eq!(changes.is_empty(), all == a);
        prop_assert_eq!(changes.is_empty(), all.digest() == a.digest());
        prop_assert!(all.epoch() >= a.epoch().max(b.epoch()));
        let once = all.clone();
        prop_assert!(all.merge(&b).unwrap().is_empty());
        prop_assert!(all.merge(&a).unwrap().is_empty());
        prop_assert_eq!(once, all);
    }

    #[test]
    fn it_travels_and_arrives_as_it_was(a in any_membership()) {
        let bytes = postcard::to_stdvec(&a).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Membership>(&bytes).unwrap(), a);
    }

    #[test]
    fn random_bytes_are_refused_or_valid_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(hostile) = postcard::from_bytes::<Membership>(&bytes) {
            let mut ours = of(&["a"]);
            let before = ours.clone();
            if ours.merge(&hostile).is_err() {
                prop_assert_eq!(ours, before);
            }
        }
    }
}

#[test]
fn every_change_raises_the_epoch_and_changes_the_digest() {
    let mut all = of(&["a", "b"]);
    let mut last = (all.epoch(), all.digest());
    let a = id("a");
    type Change<'a> = &'a dyn Fn(&mut Membership) -> Result<bool, Refused>;
    let changes: [Change<'_>; 5] = [
        &|all| all.join(Member { weight: 2, ..member("a") }),
        &|all| all.leave(&a),
        &|all| all.left(&a),
        &|all| all.forget(&a),
        &|all| all.join(member("a")),
    ];
    for change in changes {
        assert!(change(&mut all).unwrap());
        assert!(all.epoch() > last.0);
        assert_ne!(all.digest(), last.1);
        last = (all.epoch(), all.digest());
    }
    assert!(!all.join(member("a")).unwrap(), "nothing new in it");
    assert_eq!((all.epoch(), all.digest()), last);
}

#[test]
fn what_a_member_holds_changes_the_digest_and_not_the_epoch() {
    let mut all = of(&["a"]);
    let (epoch, digest) = (all.epoch(), all.digest());
    assert!(all.set_held(&id("a"), 10, PartitionSet::FULL, 5).unwrap());
    assert!(!all.set_held(&id("a"), 10, PartitionSet::FULL, 5).unwrap());
    assert!(all.set_held(&id("a"), 10, PartitionSet::FULL, 6).unwrap(), "another founding is another claim");
    assert_eq!(all.epoch(), epoch);
    assert_ne!(all.digest(), digest);
}

#[test]
fn a_member_that_was_forgotten_comes_back_against_those_who_still_say_so() {
    let mut all = of(&["a", "b"]);
    all.forget(&id("a")).unwrap();
    let others = all.clone();
    assert!(all.join(member("a")).unwrap());
    all.merge(&others).unwrap();
    assert_eq!(all.joined().count(), 2);
    assert_eq!(all.member(&id("a")).unwrap().ended_epoch, 0);
}

#[test]
fn of_two_changes_made_at_once_the_more_final_wins() {
    let start = of(&["a"]);
    let (mut heavier, mut forgotten) = (start.clone(), start);
    heavier.join(Member { weight: 9, ..member("a") }).unwrap();
    forgotten.forget(&id("a")).unwrap();
    assert_eq!(merged(&heavier, &forgotten).member(&id("a")).unwrap().state, MemberState::Forgotten);
}

#[test]
fn what_an_earlier_life_held_counts_for_nothing() {
    let mut all = of(&["a"]);
    all.set_held(&id("a"), 10, PartitionSet::FULL, 5).unwrap();
    let old = all.clone();
    all.join(Member { incarnation: 11, ..member("a") }).unwrap();
    assert!(all.member(&id("a")).unwrap().held_now().is_empty());
    let one: PartitionSet = [Partition(7)].into_iter().collect();
    all.set_held(&id("a"), 11, one, 5).unwrap();
    all.merge(&old).unwrap();
    assert_eq!(all.member(&id("a")).unwrap().held_now(), one, "revision 1 of the later life beats any of the earlier");
    assert_eq!(all.set_held(&id("a"), 10, one, 5), Err(Refused::LaterLife(id("a"))));
    assert_eq!(all.join(member("a")), Err(Refused::LaterLife(id("a"))));
}

#[test]
fn who_takes_an_address_over_supersedes_whoever_was_there_before() {
    let at = |name: &str, incarnation| Member { incarnation, address: "shared:5000".into(), ..member(name) };
    let mut all = of(&["b", "c"]);
    for joining in [at("x", 12), at("y", 13), at("a", 11), at("z", 13)] {
        all.join(joining).unwrap();
    }
    let names = |all: &Membership| all.superseded().iter().map(|id| id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&all), ["a", "x", "y"]);
    all.forget(&id("z")).unwrap();
    assert_eq!(names(&all), ["a", "x"]);
    all.join(Member { incarnation: 14, ..member("x") }).unwrap();
    assert_eq!(names(&all), ["a"], "it came back elsewhere");
}

#[test]
fn changes_of_members_that_are_not_there_are_refused() {
    let mut all = of(&["a"]);
    assert_eq!(all.leave(&id("x")), Err(Refused::Unknown(id("x"))));
    all.left(&id("a")).unwrap();
    assert!(!all.leave(&id("a")).unwrap(), "it has left already");
}

#[test]
fn one_bad_record_refuses_the_whole() {
    type Spoil = fn(&mut Member);
    let spoils: [(Spoil, Refused); 12] = [
        (|m| m.id = id("z"), Refused::WrongId(id("b"))),
        (|m| m.revision = 0, Refused::BadRevision(id("b"))),
        (|m| m.revision = REVISION_MAX + 1, Refused::BadRevision(id("b"))),
        (|m| m.address = String::new(), Refused::BadAddress(id("b"))),
        (|m| m.address = "no port".into(), Refused::BadAddress(id("b"))),
        (|m| m.address = "h:70000".into(), Refused::BadAddress(id("b"))),
        (|m| m.address = format!("{}:1", "h".repeat(ADDRESS_BYTES_MAX)), Refused::BadAddress(id("b"))),
        (|m| m.admin = Some("h:\n".into()), Refused::BadAddress(id("b"))),
        (|m| m.zone = Some("z".repeat(ZONE_BYTES_MAX + 1)), Refused::BadZone(id("b"))),
        (|m| m.vnodes = 0, Refused::BadShare(id("b"))),
        (|m| m.replication = 0, Refused::BadShare(id("b"))),
        (|m| m.ended_epoch = 4, Refused::BadEnd(id("b"))),
    ];
    for (spoil, refused) in spoils {
        let mut hostile = of(&["a", "b", "c"]);
        spoil(hostile.members.get_mut(&id("b")).unwrap());
        let mut ours = of(&["a"]);
        let before = ours.clone();
        assert_eq!(ours.merge(&hostile), Err(refused));
        assert_eq!(ours, before);
    }
}

#[test]
fn members_beyond_the_bound_are_refused_from_within_and_without() {
    let mut full = Membership::default();
    for number in 0..MEMBERS_MAX {
        full.join(member(&format!("m{number}"))).unwrap();
    }
    assert_eq!(full.join(member("one-more")), Err(Refused::TooManyMembers));
    let before = full.digest();
    assert_eq!(full.merge(&of(&["one-more"])), Err(Refused::TooManyMembers));
    assert_eq!(full.digest(), before);
    full.forget(&id("m0")).unwrap();
    assert!(full.join(member("one-more")).unwrap());
}

#[test]
fn the_oldest_tombstones_go_everywhere_and_the_epoch_never_falls() {
    let mut all = of(&["a"]);
    let mut sleeper = Membership::default();
    let mut epoch = all.epoch();
    for number in 0..TOMBSTONES_MAX + 50 {
        let name = format!("m{number}");
        all.join(member(&name)).unwrap();
        all.forget(&id(&name)).unwrap();
        assert!(all.epoch() > epoch);
        epoch = all.epoch();
        if number == 40 {
            sleeper = all.clone();
        }
    }
    assert_eq!(all.iter().filter(|member| member.is_tombstone()).count(), TOMBSTONES_MAX);
    all.validate().unwrap();
    assert!(all.member(&id("m0")).is_none());
    let before = all.digest();
    assert!(all.merge(&sleeper).unwrap().is_empty(), "what was dropped stays dropped");
    assert_eq!(all.digest(), before);
    assert!(sleeper.merge(&all).unwrap().floor);
    assert_eq!(sleeper.digest(), before);
}

#[test]
fn no_change_makes_a_record_that_peers_would_refuse() {
    let mut all = of(&["a"]);
    all.members.get_mut(&id("a")).unwrap().revision = REVISION_MAX;
    let before = all.clone();
    let refused = Err(Refused::BadRevision(id("a")));
    assert_eq!(all.forget(&id("a")), refused);
    assert_eq!(all.join(Member { weight: 5, ..member("a") }), refused);
    assert_eq!(all, before);
}
