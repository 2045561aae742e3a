//! What placement starts from: how strongly each member claims each partition, and what share of the places is fair. Pure integer
//! arithmetic, the same on every CPU; the formulas are a contract between versions. Tested below and in `ring/tests.rs`.

use xxhash_rust::xxh3::xxh3_64;

use crate::base::id::NodeId;
use crate::base::slot::{PARTITIONS, Partition};

/// Shares are counted in this many parts of one place.
pub const PLACE: u64 = 1 << 20;

/// Virtual node `index` of a member on the circle.
pub fn token(id: &NodeId, index: u32) -> u64 {
    let mut bytes = id.as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(&index.to_le_bytes());
    xxh3_64(&bytes)
}

/// Where `partition` stands on the circle.
pub fn point(partition: Partition) -> u64 {
    u64::from(partition.0) * (u64::MAX / u64::from(PARTITIONS) + 1)
}

/// Clockwise distance from each partition to the nearest of the member's first `count` tokens.
pub fn circle_claims(id: &NodeId, count: u32) -> Vec<u64> {
    let mut tokens: Vec<u64> = (0..count).map(|index| token(id, index)).collect();
    tokens.sort_unstable();
    Partition::all()
        .map(|partition| {
            let at = point(partition);
            let next = tokens.partition_point(|&token| token < at);
            tokens[if next == tokens.len() { 0 } else { next }].wrapping_sub(at)
        })
        .collect()
}

const LOG: [u32; 257] = {
    // log2(1 + i/256) in 2^-31, bit by bit: square, and a result of 2 or more is a one.
    let mut table = [0u32; 257];
    let mut i = 0;
    while i < 257 {
        let mut x: u128 = (256 + i as u128) << 54; // 1.0 = 2^62
        let mut log: u64 = 0;
        if x >= 1 << 63 {
            log = 1 << 31;
            x >>= 1;
        }
        let mut bit = 30i32;
        while bit >= 0 {
            x = (x * x) >> 62;
            if x >= 1 << 63 {
                x >>= 1;
                log |= 1 << bit;
            }
            bit -= 1;
        }
        table[i] = log as u32;
        i += 1;
    }
    table
};

/// `-log2(draw / 2^64)` in units of 2^-31, below 2^37.
pub fn negative_log2(draw: u64) -> u64 {
    let draw = draw.max(1);
    let zeros = u64::from(draw.leading_zeros());
    let mantissa = draw << zeros << 1; // the 64 bits after the leading one; a shift by 64 - zeros
    let (at, rest) = ((mantissa >> 56) as usize, (mantissa >> 24) & 0xffff_ffff);
    let (low, high) = (u64::from(LOG[at]), u64::from(LOG[at + 1]));
    let fraction = low + ((high - low) * rest >> 32);
    ((zeros + 1) << 31) - fraction
}

/// Weighted rendezvous.
pub fn draw_claims(id: &NodeId, count: u32) -> Vec<u64> {
    let seed = xxh3_64(id.as_str().as_bytes());
    Partition::all()
        .map(|partition| {
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            bytes[8..].copy_from_slice(&partition.0.to_le_bytes());
            (negative_log2(xxh3_64(&bytes)) << 26) / u64::from(count)
        })
        .collect()
}

/// Splits `total` in proportion to the weights, none above its cap: what one cannot take is shared by the others.
pub fn fill(total: u64, weights: &[u64], caps: &[u64]) -> Vec<u64> {
    let mut shares = vec![0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0).collect();
    let mut left = total;
    loop {
        let sum: u128 = open.iter().map(|&i| u128::from(weights[i])).sum();
        let part = |i: usize| if sum == 0 { 0 } else { (u128::from(left) * u128::from(weights[i]) / sum) as u64 };
        let full: Vec<usize> = open.iter().copied().filter(|&i| part(i) >= caps[i]).collect();
        if full.is_empty() {
            for &i in &open {
                shares[i] = part(i);
            }
            return shares;
        }
        for i in full {
            shares[i] = caps[i];
            left = left.saturating_sub(caps[i]);
            open.retain(|&other| other != i);
        }
    }
}
