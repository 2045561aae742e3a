//! How long a ring takes to build at several sizes, and a lookup in it. Balance and moves are in `examples/ring_figures.rs`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use trellis::base::slot::Partition;
use trellis::cluster::membership::{Member, Membership};
use trellis::cluster::ring::Ring;

fn membership(size: usize) -> Membership {
    let mut membership = Membership::default();
    for number in 0..size {
        let id = format!("node-{number}").parse().expect("a plain name");
        let member = Member::new(id, format!("node-{number}:5000"));
        membership.join(member).expect("a member within bounds");
    }
    membership
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/build");
    group.sample_size(10);
    for size in [3, 10, 100, 1000] {
        let membership = membership(size);
        group.bench_with_input(BenchmarkId::from_parameter(size), &membership, |bencher, membership| {
            bencher.iter(|| Ring::build(black_box(membership)));
        });
    }
}

fn lookup(criterion: &mut Criterion) {
    let ring = Ring::build(&membership(10));
    criterion.bench_function("ring/lookup of a 16-byte key", |bencher| {
        bencher.iter(|| ring.replicas(Partition::of(black_box(b"key:000000000042"))));
    });
    criterion.bench_function("ring/lookup of a partition", |bencher| {
        bencher.iter(|| ring.replicas(black_box(Partition(512))));
    });
}

criterion_group!(benches, build, lookup);
criterion_main!(benches);
