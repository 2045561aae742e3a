//! Who owns what: a pure function of the membership. Never knows who is alive. Tested in `ring/tests.rs`.

use std::collections::BTreeMap;

use super::balance::{self, Board, Bounds};
use super::membership::Membership;
use super::placement::{self, PLACE};
use crate::base::id::NodeId;
use crate::base::slot::{PARTITIONS, Partition};

#[cfg(test)]
mod tests;

const P: usize = PARTITIONS as usize;

/// A member as the ring knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingMember {
    /// Its identity.
    pub id: NodeId,
    /// `host:port` for clients and peers.
    pub address: String,
    /// Its share relative to others; 0 owns nothing.
    pub weight: u16,
    /// Its failure domain.
    pub zone: Option<String>,
}

/// The owners of every partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    epoch: u64,
    members: Vec<RingMember>,
    copies: usize,
    owners: Vec<u16>,
}

impl Ring {
    /// The ring of `membership`.
    pub fn build(membership: &Membership) -> Self {
        build_with(membership, false)
    }

    /// The epoch of the membership it was built from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Joined members in order of id, gateways included.
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// The owners of `partition` as indices into [`members`](Self::members), the preferred coordinator first.
    pub fn replicas(&self, partition: Partition) -> &[u16] {
        let at = partition.index() * self.copies;
        self.owners.get(at..at + self.copies).unwrap_or(&[])
    }
}

pub fn build_with(membership: &Membership, rendezvous: bool) -> Ring {
    let joined: Vec<_> = membership.joined().collect();
    let members: Vec<RingMember> = joined
        .iter()
        .map(|m| RingMember { id: m.id.clone(), address: m.address.clone(), weight: m.weight, zone: m.zone.clone() })
        .collect();
    let owning: Vec<usize> = (0..joined.len()).filter(|&i| joined[i].weight > 0).collect();
    let wanted = joined.iter().map(|m| usize::from(m.replication)).max().unwrap_or(0);
    let copies = wanted.min(owning.len());
    let epoch = membership.epoch();
    if copies == 0 {
        return Ring { epoch, members, copies: 0, owners: Vec::new() };
    }
    let k = owning.len();
    let mut zone_ids: BTreeMap<&Option<String>, usize> = BTreeMap::new();
    for &i in &owning {
        let n = zone_ids.len();
        zone_ids.entry(&joined[i].zone).or_insert(n);
    }
    let zones: Vec<usize> = owning.iter().map(|&i| zone_ids[&joined[i].zone]).collect();
    let weights: Vec<u64> = owning.iter().map(|&i| u64::from(joined[i].weight) * u64::from(joined[i].vnodes)).collect();
    let mut claims = vec![0u64; P * k];
    for (m, &i) in owning.iter().enumerate() {
        let c = if rendezvous {
            placement::draw_claims(&joined[i].id, weights[m] as u32)
        } else {
            placement::circle_claims(&joined[i].id, weights[m] as u32)
        };
        for p in 0..P {
            claims[p * k + m] = c[p];
        }
    }
    let shares = fair_places(&weights, &zones, zone_ids.len(), copies);
    let firsts = placement::fill(P as u64 * PLACE, &weights, &shares);
    let spread = copies.min(zone_ids.len());
    let mut sets = Copies {
        k,
        claims: &claims,
        zones: &zones,
        nz: zone_ids.len(),
        holds: vec![false; P * k],
        in_zone: vec![0; P * zone_ids.len()],
        loads: vec![0; k],
    };
    let mut order: Vec<usize> = Vec::new();
    for p in 0..P {
        order.clear();
        order.extend(0..k);
        order.sort_unstable_by_key(|&m| (claims[p * k + m], m));
        let mut taken = 0;
        let mut spread_left = spread;
        for &m in &order {
            if spread_left > 0 && sets.in_zone[p * sets.nz + zones[m]] == 0 {
                sets.take(p, m);
                taken += 1;
                spread_left -= 1;
            }
        }
        for &m in &order {
            if taken < copies && !sets.holds[p * k + m] {
                sets.take(p, m);
                taken += 1;
            }
        }
    }
    let place_bounds: Vec<Bounds> = shares.iter().map(|&s| bounds(s, P as u32)).collect();
    if copies < k {
        balance::settle(&mut sets, &place_bounds);
    }
    let mut first_board = Firsts { k, claims: &claims, holds: &sets.holds, first: vec![0; P], loads: vec![0; k] };
    for p in 0..P {
        let m = (0..k).filter(|&m| sets.holds[p * k + m]).min_by_key(|&m| (claims[p * k + m], m)).expect("copies > 0");
        first_board.first[p] = m;
        first_board.loads[m] += 1;
    }
    let first_bounds: Vec<Bounds> = (0..k).map(|m| bounds(firsts[m], sets.loads[m])).collect();
    balance::settle(&mut first_board, &first_bounds);
    let mut owners = Vec::with_capacity(P * copies);
    for p in 0..P {
        let mut row: Vec<usize> = (0..k).filter(|&m| sets.holds[p * k + m]).collect();
        row.sort_unstable_by_key(|&m| (m != first_board.first[p], claims[p * k + m], m));
        owners.extend(row.iter().map(|&m| owning[m] as u16));
    }
    Ring { epoch, members, copies, owners }
}

fn bounds(share: u64, limit: u32) -> Bounds {
    let low = (share / PLACE) as u32;
    let high = share.div_ceil(PLACE) as u32;
    let most = high.max((share * 11 / (10 * PLACE)) as u32).min(limit);
    let least = low.min((share * 9).div_ceil(10 * PLACE) as u32).max(1).min(most);
    Bounds { least, most }
}

fn fair_places(weights: &[u64], zones: &[usize], nz: usize, copies: usize) -> Vec<u64> {
    let one = P as u64 * PLACE;
    let caps = vec![one; weights.len()];
    let total = copies as u64 * one;
    let zone_sum = |values: &[u64]| {
        let mut sums = vec![0u64; nz];
        for (m, v) in values.iter().enumerate() {
            sums[zones[m]] += v;
        }
        sums
    };
    let masked = |keep: &dyn Fn(usize) -> bool| -> Vec<u64> {
        weights.iter().enumerate().map(|(m, &w)| if keep(m) { w } else { 0 }).collect()
    };
    let mut shares = vec![0; weights.len()];
    let fill_zone = |z: usize, total: u64, shares: &mut Vec<u64>| {
        let part = placement::fill(total, &masked(&|m| zones[m] == z), &caps);
        for (m, s) in part.into_iter().enumerate() {
            if zones[m] == z {
                shares[m] = s;
            }
        }
    };
    if nz >= copies {
        let by_zone = placement::fill(total, &zone_sum(weights), &vec![one; nz]);
        for (z, t) in by_zone.into_iter().enumerate() {
            fill_zone(z, t, &mut shares);
        }
        return shares;
    }
    let mut fixed = vec![false; nz];
    loop {
        let left = total - fixed.iter().filter(|&&f| f).count() as u64 * one;
        let part = placement::fill(left, &masked(&|m| !fixed[zones[m]]), &caps);
        let sums = zone_sum(&part);
        let short: Vec<usize> = (0..nz).filter(|&z| !fixed[z] && sums[z] + PLACE / 2 < one).collect();
        if short.is_empty() {
            for m in 0..weights.len() {
                if !fixed[zones[m]] {
                    shares[m] = part[m];
                }
            }
            return shares;
        }
        for z in short {
            fixed[z] = true;
            fill_zone(z, one, &mut shares);
        }
    }
}

struct Copies<'a> {
    k: usize,
    claims: &'a [u64],
    zones: &'a [usize],
    nz: usize,
    holds: Vec<bool>,
    in_zone: Vec<u16>,
    loads: Vec<u32>,
}

impl Copies<'_> {
    fn take(&mut self, p: usize, m: usize) {
        self.holds[p * self.k + m] = true;
        self.in_zone[p * self.nz + self.zones[m]] += 1;
        self.loads[m] += 1;
    }
}

impl Board for Copies<'_> {
    fn loads(&self) -> &[u32] {
        &self.loads
    }
    fn offers(&self, from: usize, mut visit: impl FnMut(usize, usize, i128)) {
        for p in (0..P).filter(|p| self.holds[p * self.k + from]) {
            let alone = self.in_zone[p * self.nz + self.zones[from]] == 1;
            let mine = i128::from(self.claims[p * self.k + from]);
            for to in 0..self.k {
                let same = self.zones[to] == self.zones[from];
                if self.holds[p * self.k + to] || (alone && !same && self.in_zone[p * self.nz + self.zones[to]] > 0) {
                    continue;
                }
                visit(p, to, i128::from(self.claims[p * self.k + to]) - mine);
            }
        }
    }
    fn pass(&mut self, p: usize, from: usize, to: usize) {
        self.holds[p * self.k + from] = false;
        self.in_zone[p * self.nz + self.zones[from]] -= 1;
        self.loads[from] -= 1;
        self.take(p, to);
    }
}

struct Firsts<'a> {
    k: usize,
    claims: &'a [u64],
    holds: &'a [bool],
    first: Vec<usize>,
    loads: Vec<u32>,
}

impl Board for Firsts<'_> {
    fn loads(&self) -> &[u32] {
        &self.loads
    }
    fn offers(&self, from: usize, mut visit: impl FnMut(usize, usize, i128)) {
        for p in (0..P).filter(|&p| self.first[p] == from) {
            let mine = i128::from(self.claims[p * self.k + from]);
            for to in (0..self.k).filter(|&to| to != from && self.holds[p * self.k + to]) {
                visit(p, to, i128::from(self.claims[p * self.k + to]) - mine);
            }
        }
    }
    fn pass(&mut self, p: usize, from: usize, to: usize) {
        self.first[p] = to;
        self.loads[from] -= 1;
        self.loads[to] += 1;
    }
}
