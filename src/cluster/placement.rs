//! What placement starts from: how strongly each member claims each partition, and how many places are fair. Knows nothing of
//! bounds or of other rings. Pure integer arithmetic, the same on every CPU. Tested below; tokens by golden values.

use xxhash_rust::xxh3::xxh3_64;

use super::balance::Bounds;
use crate::base::id::NodeId;
use crate::base::slot::{PARTITIONS, Partition};

/// Shares are counted in this many parts of one place, fine enough that rounding never moves a bound by a place.
pub(super) const PLACE: u64 = 1 << 20;
/// One copy of every partition, in parts.
pub(super) const ONE_COPY: u64 = PARTITIONS as u64 * PLACE;
/// Tokens on the circle in all. Members whose weights ask for more are cut in proportion: it bounds what a hostile weight costs.
pub const TOKENS_MAX: u64 = 1 << 20;

/// Virtual node `index` of `id` on the 64-bit circle: XXH3-64 (seed 0) of the id, a zero byte, and the index in four little-endian
/// bytes. A contract between versions.
pub fn token(id: &NodeId, index: u32) -> u64 {
    let mut bytes = id.as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(&index.to_le_bytes());
    xxh3_64(&bytes)
}

/// Where `partition` stands on the circle: even points, 2^54 apart.
pub fn point(partition: Partition) -> u64 {
    u64::from(partition.0) << (64 - PARTITIONS.ilog2())
}

/// How far clockwise from the point of each partition the nearest of the member's first `tokens` tokens is. The nearest claims strongest.
pub(super) fn distances(id: &NodeId, tokens: u32) -> impl Iterator<Item = u64> {
    let mut circle: Vec<u64> = (0..tokens.max(1)).map(|index| token(id, index)).collect();
    circle.sort_unstable();
    let mut next = 0;
    Partition::all().map(move |partition| {
        let at = point(partition);
        while next < circle.len() && circle[next] < at {
            next += 1;
        }
        circle[next % circle.len()].wrapping_sub(at)
    })
}

/// How many tokens each member puts on the circle, given its virtual nodes times its weight.
pub(super) fn token_counts(weights: &[u64]) -> Vec<u32> {
    let all: u64 = weights.iter().sum();
    let cut = |weight: u64| {
        if all > TOKENS_MAX { u128::from(weight) * u128::from(TOKENS_MAX) / u128::from(all) } else { weight.into() }
    };
    weights.iter().map(|&weight| cut(weight).max(1) as u32).collect()
}

/// Splits `total` in proportion to the weights, no part above its cap: what one cannot take the others share (water-filling).
pub(super) fn split(total: u64, weights: &[u64], caps: &[u64]) -> Vec<u64> {
    let mut shares = vec![0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0).collect();
    let mut left = total;
    loop {
        let sum: u128 = open.iter().map(|&i| u128::from(weights[i])).sum();
        for &i in &open {
            shares[i] = (u128::from(left) * u128::from(weights[i]) / sum) as u64;
        }
        let (full, rest): (Vec<_>, Vec<_>) = open.iter().partition(|&&i| shares[i] >= caps[i]);
        if full.is_empty() {
            return shares;
        }
        for i in full {
            shares[i] = caps[i];
            left = left.saturating_sub(caps[i]);
        }
        open = rest;
    }
}

/// The fair share of each member in `copies` copies of every partition: in proportion to weight, as far as a member can hold each
/// partition but once and each partition must be in as many zones as can be. `zones[m]` is the zone of member `m`, below `zone_count`.
pub(super) fn fair_shares(weights: &[u64], zones: &[usize], zone_count: usize, copies: usize) -> Vec<u64> {
    let caps = vec![ONE_COPY; weights.len()];
    let only = |zone: &dyn Fn(usize) -> bool| -> Vec<u64> {
        weights.iter().zip(zones).map(|(&weight, &at)| if zone(at) { weight } else { 0 }).collect()
    };
    let per_zone = |values: &[u64]| {
        let mut sums = vec![0u64; zone_count];
        zones.iter().zip(values).for_each(|(&zone, value)| sums[zone] += value);
        sums
    };
    let mut shares = vec![0; weights.len()];
    let mut add = |part: Vec<u64>| shares.iter_mut().zip(part).for_each(|(share, part)| *share += part);
    let total = copies as u64 * ONE_COPY;
    if zone_count >= copies {
        // At most one copy in a zone.
        let zone_shares = split(total, &per_zone(weights), &vec![ONE_COPY; zone_count]);
        for (zone, share) in zone_shares.into_iter().enumerate() {
            add(split(share, &only(&|at| at == zone), &caps));
        }
        return shares;
    }
    // At least one copy in a zone: zones too light for that get one, the others share the rest.
    let mut light = vec![false; zone_count];
    let mut left = total;
    loop {
        let part = split(left, &only(&|at| !light[at]), &caps);
        let sums = per_zone(&part);
        let short: Vec<usize> = (0..zone_count).filter(|&z| !light[z] && sums[z] + PLACE / 2 < ONE_COPY).collect();
        if short.is_empty() {
            add(part);
            return shares;
        }
        for zone in short {
            light[zone] = true;
            left -= ONE_COPY;
            add(split(ONE_COPY, &only(&|at| at == zone), &caps));
        }
    }
}

/// The bounds of a member with this fair share: a tenth to either side, whole places, at least one place, never above `limit`.
pub(super) fn bounds(share: u64, limit: u32) -> Bounds {
    let tenth_above = share * 11 / (10 * PLACE);
    let tenth_below = (share * 9).div_ceil(10 * PLACE);
    let most = (share.div_ceil(PLACE).max(tenth_above) as u32).clamp(1, limit.max(1));
    let least = ((share / PLACE).min(tenth_below) as u32).clamp(1, most);
    Bounds { least, most }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_points_never_change() {
        let tokens = |id: &str| [0, 1, 127].map(|index| token(&id.parse().unwrap(), index));
        assert_eq!(tokens("a"), [7978727645958045335, 9273553362711748833, 8380920927937105602]);
        assert_eq!(tokens("node-1"), [9598893470543336400, 5220877129841048396, 3540936757580945101]);
        assert_eq!(point(Partition(0)), 0);
        assert_eq!(point(Partition(1)), 1 << 54);
        assert_eq!(point(Partition(1023)), 1023 << 54);
    }

    #[test]
    fn a_distance_is_to_the_nearest_token_clockwise_round_the_circle() {
        let id: NodeId = "a".parse().unwrap();
        let tokens: Vec<u64> = (0..7).map(|index| token(&id, index)).collect();
        for (partition, distance) in Partition::all().zip(distances(&id, 7)) {
            let nearest = tokens.iter().map(|token| token.wrapping_sub(point(partition))).min();
            assert_eq!(Some(distance), nearest);
        }
    }

    #[test]
    fn a_fair_share_follows_weight_distinctness_and_zones() {
        let shares = |weights: &[u64], zones: &[usize], copies: usize| -> Vec<u64> {
            let zone_count = zones.iter().max().map_or(0, |max| max + 1);
            fair_shares(weights, zones, zone_count, copies).iter().map(|share| (share + PLACE / 2) / PLACE).collect()
        };
        assert_eq!(shares(&[1, 1, 2], &[0, 0, 0], 1), [256, 256, 512]);
        assert_eq!(shares(&[1, 1, 4], &[0, 0, 0], 3), [1024; 3], "each must hold all");
        assert_eq!(shares(&[1, 1, 4], &[0, 0, 0], 2), [512, 512, 1024], "the heavy one can hold no more than all");
        assert_eq!(
            shares(&[1, 1, 1, 1], &[0, 0, 0, 1], 2),
            [341, 341, 341, 1024],
            "the lone one is in the only other zone"
        );
        assert_eq!(shares(&[1, 1, 1, 1], &[0, 0, 0, 1], 3), [683, 683, 683, 1024], "and holds all of one copy");
        assert_eq!(shares(&[1, 1, 1, 1, 2], &[0, 0, 1, 1, 2], 3), [512, 512, 512, 512, 1024]);
        assert_eq!(
            shares(&[10, 10, 10, 10, 1, 1], &[0, 0, 0, 0, 1, 1], 3),
            [512, 512, 512, 512, 512, 512],
            "a light zone has its copy"
        );
    }

    #[test]
    fn tokens_are_cut_in_proportion_when_weights_ask_for_too_many() {
        assert_eq!(token_counts(&[128, 256]), [128, 256]);
        let all = token_counts(&[u64::from(u32::MAX); 1024]);
        assert!(all.iter().map(|&count| u64::from(count)).sum::<u64>() <= TOKENS_MAX);
        assert_eq!(token_counts(&[u64::from(u32::MAX), 1])[1], 1);
    }

    #[test]
    fn bounds_are_a_tenth_to_either_side_in_whole_places() {
        assert_eq!(bounds(3072 * PLACE / 10, 1024), Bounds { least: 277, most: 337 });
        assert_eq!(bounds(3 * PLACE + 1, 1024), Bounds { least: 3, most: 4 });
        assert_eq!(bounds(1024 * PLACE, 1024), Bounds { least: 922, most: 1024 });
        assert_eq!(bounds(1, 1024), Bounds { least: 1, most: 1 });
    }
}
