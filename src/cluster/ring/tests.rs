//! Tests of the ring: golden replica sets, the figures promised, and properties over random clusters.

use std::collections::BTreeSet;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::cluster::membership::REPLICATE_TO_ALL;
use crate::cluster::placement::{PLACE, bounds, fair_shares};
use crate::cluster::specimen;

const P: usize = PARTITIONS as usize;

fn member(id: &str, weight: u16, zone: Option<u8>, replication: u16) -> Member {
    Member { weight, zone: zone.map(|zone| format!("zone-{zone}")), replication, ..specimen::member(id) }
}

fn id(seed: u64, number: usize) -> String {
    format!("{:016x}", xxh3_64(&[seed.to_le_bytes(), (number as u64).to_le_bytes()].concat()))
}

/// A membership of members with these weights and zones, their ids drawn from `seed`.
fn cluster(seed: u64, members: &[(u16, Option<u8>)], replication: u16) -> Membership {
    let mut membership = Membership::default();
    for (number, &(weight, zone)) in members.iter().enumerate() {
        assert!(membership.join(member(&id(seed, number), weight, zone, replication)).unwrap());
    }
    membership
}

fn equal(seed: u64, size: usize, replication: u16) -> Ring {
    Ring::build(&cluster(seed, &vec![(1, None); size], replication))
}

/// Copies that the member of that id owns.
fn places(ring: &Ring, id: &str) -> usize {
    ring.members().iter().find(|member| member.id.as_str() == id).map_or(0, |member| usize::from(member.places))
}

/// Members, then as many as fit, then copies.
fn any_cluster() -> impl Strategy<Value = (u64, Vec<(u16, Option<u8>)>, u16)> {
    let zones = prop_oneof![Just(0u8), 1..6u8];
    let members = zones
        .prop_flat_map(|zones| prop::collection::vec((0..6u16, prop::option::weighted(0.9, 0..zones.max(1))), 1..24));
    (any::<u64>(), members, prop_oneof![1..6u16, Just(REPLICATE_TO_ALL)])
}

/// Bounds of the members that own something, in order, as `docs/adr/0002-placement.md` promises them.
fn promised_most(ring: &Ring) -> Vec<(u32, u16)> {
    let owning: Vec<&RingMember> = ring.members().iter().filter(|member| member.weight > 0).collect();
    let mut names: Vec<_> = owning.iter().map(|member| &member.zone).collect();
    names.sort();
    names.dedup();
    let zones: Vec<usize> = owning.iter().map(|member| names.binary_search(&&member.zone).unwrap()).collect();
    let weights: Vec<u64> = owning.iter().map(|member| u64::from(member.weight)).collect();
    let shares = fair_shares(&weights, &zones, names.len(), ring.copies());
    shares.iter().zip(owning).map(|(&share, member)| (bounds(share, P as u32).most, member.places)).collect()
}

#[test]
fn a_member_whose_address_was_taken_over_owns_nothing() {
    let mut membership = cluster(1, &[(1, None); 3], 3);
    let former = membership.iter().next().unwrap().clone();
    let heir =
        Member { address: former.address.clone(), incarnation: former.incarnation + 1, ..member("heir", 1, None, 3) };
    assert!(membership.join(heir).unwrap());
    let ring = Ring::build(&membership);
    assert_eq!((ring.members().len(), ring.copies()), (4, 3));
    assert_eq!(places(&ring, former.id.as_str()), 0);
    assert_eq!(places(&ring, "heir"), P);
}

#[test]
fn replica_sets_never_change_silently() {
    let mut membership = Membership::default();
    for (name, weight) in [("node-1", 1), ("node-2", 1), ("node-3", 2), ("node-4", 1), ("node-5", 1)] {
        membership.join(member(name, weight, None, 3)).unwrap();
    }
    let ring = Ring::build(&membership);
    let sets = [0, 1, 511, 1023].map(|partition| ring.replicas(Partition(partition)).to_vec());
    assert_eq!(sets, [[0, 2, 3], [2, 1, 3], [0, 3, 4], [0, 2, 3]].map(Vec::from));
    let all: Vec<u8> = Partition::all().flat_map(|p| ring.replicas(p)).flat_map(|owner| owner.to_le_bytes()).collect();
    assert_eq!(xxh3_64(&all), 14710526548271805115, "all 1024 of them");
}

#[test]
fn ten_equal_members_own_at_most_a_tenth_over_the_mean() {
    for seed in 0..20 {
        let ring = equal(seed, 10, 3);
        for member in ring.members() {
            assert!(f64::from(member.places) <= 1.10 * 307.2 && f64::from(member.places) >= 0.90 * 307.2, "{member:?}");
            assert!(f64::from(member.firsts) <= 1.10 * 102.4 && f64::from(member.firsts) >= 0.90 * 102.4, "{member:?}");
        }
    }
}

#[test]
fn an_eleventh_member_moves_little_more_than_its_share_and_so_does_its_leaving() {
    for seed in 100..140 {
        let (ten, eleven) = (equal(seed, 10, 3), equal(seed, 11, 3));
        let fair = 3072.0 / 11.0;
        let moved = ten.copies_moved_to(&eleven);
        assert!(moved as f64 <= 1.25 * fair, "seed {seed}: {moved}");
        assert_eq!(eleven.copies_moved_to(&ten), moved, "the way back is the same");
        assert!(moved >= places(&eleven, &id(seed, 10)));
    }
}

#[test]
fn weights_one_two_four_get_their_shares_within_a_tenth() {
    for seed in 0..20 {
        for (members, copies) in [(vec![1u16, 2, 4], 1u16), ([1, 2, 4].repeat(4), 3)] {
            let with: Vec<_> = members.iter().map(|&weight| (weight, None)).collect();
            let all: f64 = members.iter().map(|&weight| f64::from(weight)).sum();
            for member in Ring::build(&cluster(seed, &with, copies)).members() {
                let fair = 1024.0 * f64::from(copies) * f64::from(member.weight) / all;
                assert!((f64::from(member.places) / fair - 1.0).abs() <= 0.10, "{member:?} of {fair}");
                assert!(
                    (f64::from(member.firsts) * f64::from(copies) / fair - 1.0).abs() <= 0.10,
                    "{member:?} of {fair}"
                );
            }
        }
    }
}

#[test]
fn a_heavy_member_of_few_owns_everything_and_leads_by_its_weight() {
    let ring = Ring::build(&cluster(1, &[(1, None), (1, None), (4, None)], 3));
    for member in ring.members() {
        assert_eq!(member.places, PARTITIONS);
        let fair = 1024.0 * f64::from(member.weight) / 6.0;
        assert!((f64::from(member.firsts) / fair - 1.0).abs() <= 0.10, "{member:?}");
    }
}

#[test]
fn no_members_or_gateways_alone_own_nothing() {
    let empty = Ring::build(&Membership::default());
    assert_eq!((empty.copies(), empty.replicas(Partition(5))), (0, &[][..]));
    let gateway = Ring::build(&cluster(1, &[(0, None)], 3));
    assert_eq!((gateway.members().len(), gateway.replicas(Partition(5))), (1, &[][..]));
}

#[test]
fn members_that_leave_own_nothing_and_the_ring_knows_the_rest() {
    let mut membership = cluster(1, &[(1, None); 5], 2);
    let gone: NodeId = id(1, 3).parse().unwrap();
    let before = Ring::build(&membership);
    membership.leave(&gone).unwrap();
    let after = Ring::build(&membership);
    assert!(after.epoch() > before.epoch());
    assert_eq!(after.index_of(&gone), None);
    assert!(Partition::all().all(|partition| after.replicas(partition).len() == 2));
    assert!(before.copies_moved_to(&after) >= places(&before, &gone.to_string()));
}

#[test]
fn the_most_members_with_the_largest_weights_still_make_a_ring() {
    let members: Vec<_> =
        (0..1024u32).map(|number| (if number % 2 == 0 { u16::MAX } else { 1 }, Some((number % 5) as u8))).collect();
    let ring = Ring::build(&cluster(9, &members, 3));
    assert!(promised_most(&ring).iter().all(|&(most, places)| u32::from(places) <= most));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn replica_sets_are_distinct_complete_and_spread_over_zones((seed, members, copies) in any_cluster()) {
        let ring = Ring::build(&cluster(seed, &members, copies));
        let owning: Vec<_> = members.iter().filter(|member| member.0 > 0).collect();
        let zones: BTreeSet<_> = owning.iter().map(|member| member.1).collect();
        prop_assert_eq!(ring.copies(), owning.len().min(copies.into()));
        for partition in Partition::all() {
            let set: BTreeSet<u16> = ring.replicas(partition).iter().copied().collect();
            prop_assert_eq!(set.len(), ring.copies());
            let reached: BTreeSet<_> = ring.owners(partition).map(|owner| &owner.zone).collect();
            prop_assert_eq!(reached.len(), zones.len().min(ring.copies()));
            prop_assert!(ring.owners(partition).all(|owner| owner.weight > 0));
        }
    }

    #[test]
    fn no_member_is_above_its_bound_and_each_with_a_weight_owns_something((seed, members, copies) in any_cluster()) {
        let ring = Ring::build(&cluster(seed, &members, copies));
        for (most, places) in promised_most(&ring) {
            prop_assert!(u32::from(places) <= most, "{places} of {most}");
            prop_assert!(places > 0);
        }
        for member in ring.members() {
            prop_assert!(member.weight > 0 || member.places == 0);
            prop_assert!(member.firsts <= member.places);
        }
    }

    #[test]
    fn first_places_are_within_their_bound_where_zones_leave_the_choice(seed: u64, weights in prop::collection::vec(1..5u16, 2..16), copies in 1..5u16) {
        let members: Vec<_> = weights.iter().map(|&weight| (weight, None)).collect();
        let ring = Ring::build(&cluster(seed, &members, copies));
        let all: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        for member in ring.members() {
            let fair = P as u64 * PLACE * u64::from(member.weight) / all;
            prop_assert!(u32::from(member.firsts) <= bounds(fair, P as u32).most, "{member:?}");
        }
    }

    #[test]
    fn memberships_merged_in_any_order_give_one_ring((seed, members, copies) in any_cluster(), cut in 0usize..24) {
        let alone: Vec<Membership> = members.iter().enumerate().map(|(number, &(weight, zone))| {
            let mut one = Membership::default();
            one.join(member(&id(seed, number), weight, zone, copies)).unwrap();
            one
        }).collect();
        let cut = cut % alone.len();
        let merged = |order: &mut dyn Iterator<Item = &Membership>| order.fold(Membership::default(), |mut all, one| { all.merge(one).unwrap(); all });
        let forth = merged(&mut alone.iter());
        let back = merged(&mut alone[..cut].iter().rev().chain(alone[cut..].iter().rev()));
        prop_assert_eq!(Ring::build(&forth), Ring::build(&back));
    }

    #[test]
    fn a_join_and_a_leave_move_their_places_and_little_more(seed: u64, size in 4usize..16, copies in 1..4u16) {
        let (few, many) = (equal(seed, size, copies), equal(seed, size + 1, copies));
        let places = places(&many, &id(seed, size));
        let fair = P * usize::from(copies) / (size + 1);
        let moved = few.copies_moved_to(&many);
        prop_assert!(moved >= places);
        // A third of a share on top is already rare; of a few thousand rings one needs more.
        prop_assert!(moved <= places + fair / 2, "{moved} for {places} places, {fair} fair");
    }
}
