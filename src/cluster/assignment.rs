//! Gives every partition its owners: the nearest tokens clockwise, other zones first, within bounds. Knows members as numbers and
//! never looks at ids or states. Tested in `ring/tests.rs`.

use super::balance::{self, Board, Bounds, Pass};
use super::placement::{ONE_COPY, bounds, fair_shares, split};
use crate::base::slot::PARTITIONS;

const P: usize = PARTITIONS as usize;

/// What an assignment is made from. Members are those with a weight, in order of id.
pub(super) struct Input {
    /// Virtual nodes times weight of each member, none zero.
    pub(super) weights: Vec<u64>,
    /// The zone of each member, below `zone_count`.
    pub(super) zones: Vec<usize>,
    pub(super) zone_count: usize,
    /// Copies of each partition, from 1 to the number of members.
    pub(super) copies: usize,
    /// How far each member is from each partition, by partition and member; the nearest claims strongest.
    pub(super) distances: Vec<u64>,
}

impl Input {
    fn members(&self) -> usize {
        self.weights.len()
    }

    fn distance(&self, partition: usize, member: usize) -> u64 {
        self.distances[partition * self.members() + member]
    }

    fn pass(&self, partition: usize, from: usize, to: usize) -> Pass {
        let regret = i128::from(self.distance(partition, to)) - i128::from(self.distance(partition, from));
        Pass { partition, from, to, regret }
    }
}

/// The owners of each partition, `copies` in a row, the coordinator first and the others by distance.
pub(super) fn assign(input: &Input) -> Vec<usize> {
    let shares = fair_shares(&input.weights, &input.zones, input.zone_count, input.copies);
    let mut places = Places::nearest(input);
    if input.copies < input.members() {
        let within: Vec<Bounds> = shares.iter().map(|&share| bounds(share, u32::from(PARTITIONS))).collect();
        balance::settle(&mut places, &within);
    }
    let first_shares = split(ONE_COPY, &input.weights, &shares);
    let within: Vec<Bounds> =
        first_shares.iter().zip(&places.loads).map(|(&share, &load)| bounds(share, load)).collect();
    let mut firsts = Firsts::nearest(input, places.owners);
    balance::settle(&mut firsts, &within);
    for (partition, row) in firsts.owners.chunks_exact_mut(input.copies).enumerate() {
        row[1..].sort_unstable_by_key(|&member| (input.distance(partition, member), member));
    }
    firsts.owners
}

/// Which members have a copy of each partition.
struct Places<'a> {
    input: &'a Input,
    /// `copies` members a partition.
    owners: Vec<usize>,
    /// The same as a table, by partition and member.
    has: Vec<bool>,
    /// Copies in each zone, by partition and zone.
    in_zone: Vec<u16>,
    loads: Vec<u32>,
}

impl<'a> Places<'a> {
    /// Every partition at its nearest members: first one in each zone, in the order their tokens are met, then whoever is met.
    fn nearest(input: &'a Input) -> Self {
        let members = input.members();
        let mut places = Self {
            input,
            owners: Vec::with_capacity(P * input.copies),
            has: vec![false; P * members],
            in_zone: vec![0; P * input.zone_count],
            loads: vec![0; members],
        };
        let mut walk: Vec<usize> = (0..members).collect();
        for partition in 0..P {
            walk.sort_unstable_by_key(|&member| (input.distance(partition, member), member));
            let full = (partition + 1) * input.copies;
            for new_zones_only in [true, false] {
                for &member in &walk {
                    let zone_has_one = places.in_zone(partition, member) > 0;
                    let skip = places.has(partition, member) || new_zones_only && zone_has_one;
                    if places.owners.len() < full && !skip {
                        places.owners.push(member);
                        places.enter(partition, member);
                    }
                }
            }
        }
        places
    }

    fn has(&self, partition: usize, member: usize) -> bool {
        self.has[partition * self.input.members() + member]
    }

    fn in_zone(&self, partition: usize, member: usize) -> u16 {
        self.in_zone[partition * self.input.zone_count + self.input.zones[member]]
    }

    fn enter(&mut self, partition: usize, member: usize) {
        self.has[partition * self.input.members() + member] = true;
        self.in_zone[partition * self.input.zone_count + self.input.zones[member]] += 1;
        self.loads[member] += 1;
    }

    /// Whether `to` may have the copy `from` has: no second copy on one member, and no zone lost.
    fn may(&self, partition: usize, from: usize, to: usize) -> bool {
        let zones = &self.input.zones;
        let loses_zone = zones[from] != zones[to] && self.in_zone(partition, from) == 1;
        !self.has(partition, to) && (!loses_zone || self.in_zone(partition, to) == 0)
    }

    fn row(&self, partition: usize) -> &[usize] {
        &self.owners[partition * self.input.copies..][..self.input.copies]
    }
}

impl Board for Places<'_> {
    fn loads(&self) -> &[u32] {
        &self.loads
    }

    fn each_from(&self, from: usize, mut visit: impl FnMut(Pass)) {
        for partition in (0..P).filter(|&partition| self.has(partition, from)) {
            for to in (0..self.input.members()).filter(|&to| self.may(partition, from, to)) {
                visit(self.input.pass(partition, from, to));
            }
        }
    }

    fn each_to(&self, to: usize, mut visit: impl FnMut(Pass)) {
        for partition in (0..P).filter(|&partition| !self.has(partition, to)) {
            for &from in self.row(partition).iter().filter(|&&from| self.may(partition, from, to)) {
                visit(self.input.pass(partition, from, to));
            }
        }
    }

    fn pass(&mut self, Pass { partition, from, to, .. }: Pass) {
        let start = partition * self.input.copies;
        let row = &mut self.owners[start..start + self.input.copies];
        let at = row.iter().position(|&member| member == from).expect("who passes a place on has it");
        row[at] = to;
        self.has[partition * self.input.members() + from] = false;
        self.in_zone[partition * self.input.zone_count + self.input.zones[from]] -= 1;
        self.loads[from] -= 1;
        self.enter(partition, to);
    }
}

/// Which owner of each partition comes first and so coordinates. Moving that moves no data.
struct Firsts<'a> {
    input: &'a Input,
    /// `copies` members a partition, the first of them first.
    owners: Vec<usize>,
    loads: Vec<u32>,
}

impl<'a> Firsts<'a> {
    /// Every partition led by its nearest owner.
    fn nearest(input: &'a Input, mut owners: Vec<usize>) -> Self {
        let mut loads = vec![0; input.members()];
        for (partition, row) in owners.chunks_exact_mut(input.copies).enumerate() {
            row.sort_unstable_by_key(|&member| (input.distance(partition, member), member));
            loads[row[0]] += 1;
        }
        Self { input, owners, loads }
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &[usize])> {
        self.owners.chunks_exact(self.input.copies).enumerate()
    }
}

impl Board for Firsts<'_> {
    fn loads(&self) -> &[u32] {
        &self.loads
    }

    fn each_from(&self, from: usize, mut visit: impl FnMut(Pass)) {
        for (partition, row) in self.rows().filter(|(_, row)| row[0] == from) {
            row[1..].iter().for_each(|&to| visit(self.input.pass(partition, from, to)));
        }
    }

    fn each_to(&self, to: usize, mut visit: impl FnMut(Pass)) {
        for (partition, row) in self.rows().filter(|(_, row)| row[1..].contains(&to)) {
            visit(self.input.pass(partition, row[0], to));
        }
    }

    fn pass(&mut self, Pass { partition, from, to, .. }: Pass) {
        let start = partition * self.input.copies;
        let row = &mut self.owners[start..start + self.input.copies];
        let at = row.iter().position(|&member| member == to).expect("only an owner can come first");
        row.swap(0, at);
        self.loads[from] -= 1;
        self.loads[to] += 1;
    }
}
