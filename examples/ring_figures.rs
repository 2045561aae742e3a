//! Prints the figures of `docs/adr/0002-placement.md`: balance, moves on a join and a leave, build times.
//! `cargo run --release --example ring_figures`. Deterministic but for the times. Asserts nothing; `src/cluster/ring/tests.rs` does.

use std::time::Instant;

use comfy_table::Table;
use trellis::base::slot::{PARTITIONS, Partition};
use trellis::cluster::membership::{Member, Membership, REPLICATE_TO_ALL};
use trellis::cluster::ring::Ring;

const RUNS: u64 = 200;

fn member(seed: u64, number: usize, weight: u16, zone: Option<String>, replication: u16) -> Member {
    // Ids as random as UUIDs: the golden-ratio sequence through XXH3.
    let draw = xxhash_rust::xxh3::xxh3_128(&[seed.to_le_bytes(), (number as u64).to_le_bytes()].concat());
    let id = format!("{draw:032x}").parse().expect("hexadecimal digits make a name");
    Member { weight, zone, replication, ..Member::new(id, format!("10.0.{}.{}:5000", number / 256, number % 256)) }
}

fn cluster(seed: u64, weights: &[u16], zones: usize, replication: u16) -> Membership {
    let mut membership = Membership::default();
    for (number, &weight) in weights.iter().enumerate() {
        let zone = (zones > 0).then(|| format!("z{}", number % zones));
        membership.join(member(seed, number, weight, zone, replication)).expect("a member within bounds");
    }
    membership
}

/// Smallest and largest share over the fair one, of all places and of first places.
fn shares(ring: &Ring) -> [f64; 4] {
    let weights: f64 = ring.members().iter().map(|member| f64::from(member.weight)).sum();
    let mut figures = [f64::MAX, 0.0, f64::MAX, 0.0];
    for member in ring.members() {
        let fair = f64::from(PARTITIONS) * f64::from(member.weight) / weights;
        let places = f64::from(member.places) / (fair * ring.copies() as f64);
        let firsts = f64::from(member.firsts) / fair;
        let [a, b, c, d] = figures;
        figures = [a.min(places), b.max(places), c.min(firsts), d.max(firsts)];
    }
    figures
}

/// Worst and mean over the runs.
fn over_runs(figure: impl Fn(u64) -> f64) -> (f64, f64) {
    let all: Vec<f64> = (0..RUNS).map(figure).collect();
    (all.iter().copied().fold(0.0, f64::max), all.iter().sum::<f64>() / RUNS as f64)
}

fn main() {
    let mut balance = Table::new();
    balance.set_header(["members", "copies", "least places", "most places", "least firsts", "most firsts"]);
    let cases: [(&str, Vec<u16>, usize, u16); 7] = [
        ("10 equal", vec![1; 10], 0, 3),
        ("100 equal", vec![1; 100], 0, 3),
        ("9 equal in 3 zones", vec![1; 9], 3, 3),
        ("12 equal in 4 zones", vec![1; 12], 4, 3),
        ("weights 1 2 4", vec![1, 2, 4], 0, 1),
        ("4 each of weights 1 2 4", [1, 2, 4].repeat(4), 0, 1),
        ("4 each of weights 1 2 4", [1, 2, 4].repeat(4), 0, 3),
    ];
    for (name, weights, zones, copies) in cases {
        let mut worst = [f64::MAX, 0.0, f64::MAX, 0.0];
        for seed in 0..if weights.len() > 50 { 20 } else { RUNS } {
            let [a, b, c, d] = shares(&Ring::build(&cluster(seed, &weights, zones, copies)));
            worst = [worst[0].min(a), worst[1].max(b), worst[2].min(c), worst[3].max(d)];
        }
        balance
            .add_row([name.into(), copies.to_string()].into_iter().chain(worst.map(|figure| format!("{figure:.3}"))));
    }
    println!("Worst share over the fair one, {RUNS} sets of ids (20 of a hundred members)\n{balance}");

    let mut moves = Table::new();
    moves.set_header(["change", "zones", "fair share", "worst", "mean"]);
    for (from, zones) in [(3, 0), (5, 0), (10, 0), (12, 4), (30, 0)] {
        let fair = f64::from(PARTITIONS) * 3.0 / (from + 1) as f64;
        let rings = |seed| [from, from + 1].map(|size| Ring::build(&cluster(seed, &vec![1; size], zones, 3)));
        for (change, back) in [("join", false), ("leave", true)] {
            let (worst, mean) = over_runs(|seed| {
                let [few, many] = rings(seed);
                let moved = if back { many.copies_moved_to(&few) } else { few.copies_moved_to(&many) };
                moved as f64 / fair
            });
            let name = if back {
                format!("{change}: {} to {from}", from + 1)
            } else {
                format!("{change}: {from} to {}", from + 1)
            };
            moves.add_row([name, zones.to_string(), format!("{fair:.0}"), format!("{worst:.3}"), format!("{mean:.3}")]);
        }
    }
    println!(
        "Copies made anew over the fair share of the member that comes or goes, {RUNS} sets of ids, 3 copies\n{moves}"
    );

    let mut times = Table::new();
    times.set_header(["members", "copies", "build"]);
    for (size, copies) in [(3, 3), (10, 3), (100, 3), (1000, 3), (1000, 500), (1000, REPLICATE_TO_ALL)] {
        let membership = cluster(1, &vec![1; size], 0, copies);
        let best = (0..5).map(|_| {
            let start = Instant::now();
            assert!(!Ring::build(&membership).replicas(Partition(0)).is_empty());
            start.elapsed()
        });
        times.add_row([
            size.to_string(),
            copies.min(size as u16).to_string(),
            format!("{:.3} ms", best.min().expect("five runs").as_secs_f64() * 1e3),
        ]);
    }
    println!("Time to build a ring, best of five\n{times}");
}
