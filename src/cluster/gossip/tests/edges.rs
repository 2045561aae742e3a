//! Odd neighbours: strangers, twins, floods, seeds that are not; bounds, digests, and one seed, one run.

use std::net::SocketAddr;

use proptest::prelude::*;
use rand::RngExt;

use super::super::*;
use super::network::{Network, address, config, name, seeds};
use crate::protocol::datagram::{self, HEADER_BYTES, Kind};

fn alone(n: usize) -> Gossip {
    Gossip::new(0, config(n, &[]), n as u64).unwrap()
}

fn effects(gossip: &mut Gossip) -> Vec<Effect> {
    std::iter::from_fn(|| gossip.next_effect()).collect()
}

fn sends(gossip: &mut Gossip) -> Vec<(SocketAddr, Vec<u8>)> {
    let sent = |effect| if let Effect::Send { to, bytes } = effect { Some((to, bytes)) } else { None };
    effects(gossip).into_iter().filter_map(sent).collect()
}

fn is_refusal(effect: &Effect, wanted: Refusal) -> bool {
    matches!(effect, Effect::Refused { refusal, .. } if *refusal == wanted)
}

#[test]
fn a_node_whose_seeds_are_itself_the_dead_and_strangers_joins_through_the_one_that_is_none() {
    for seed in 0..seeds(50) {
        let mut network = Network::new(seed);
        let mut stranger = config(8, &[]);
        stranger.cluster = "other".parse().unwrap();
        network.start(stranger);
        network.start(config(0, &[0, 8, 9]));
        network.start(config(1, &[1, 8, 9, 0]));
        network.run_until_agreed(&[0, 1], 5_000);
        network.run(60_000);
        network.assert_agreed(&[0, 1]);
        assert_eq!(network.gossip(8).members().count(), 0);
        assert!(network.reports.iter().any(|(_, at, e)| *at == name(8) && is_refusal(e, Refusal::Cluster)));
        assert!(!network.reports.iter().any(|(_, _, e)| is_refusal(e, Refusal::Garbage)));
    }
}

#[test]
fn a_seed_reached_by_another_address_than_it_advertises_is_joined() {
    let (mut old, mut new) = (alone(0), alone(1));
    new.seeds(0, vec!["127.0.0.1:5000".parse().unwrap()]);
    new.tick(0);
    let (_, hello) = sends(&mut new).pop().unwrap();
    old.receive(1, address(1), &hello);
    let (to, feed) = sends(&mut old).pop().unwrap();
    assert_eq!(to, address(1));
    new.receive(2, address(0), &feed);
    assert_eq!(new.member(&name(0)).map(|m| (m.address, m.state)), Some((address(0), MemberState::Alive)));
    assert!(new.connected() && old.connected());
}

#[test]
fn refusals_have_reasons_and_few_of_them_a_log_line() {
    let mut gossip = alone(0);
    let stamp = |cluster| datagram::Stamp { cluster, ..datagram::Stamp::default() };
    let ours = config(0, &[]).cluster.fingerprint();
    let mut old_version = datagram::encode(stamp(ours), Kind::Packet, b"");
    old_version[3] = 0;
    let refused: [(Vec<u8>, Refusal); 5] = [
        (b"GET / HTTP/1.0".to_vec(), Refusal::Garbage),
        (old_version, Refusal::Version(0)),
        (datagram::encode(stamp(1), Kind::Packet, b""), Refusal::Cluster),
        (datagram::encode(stamp(ours), Kind::Packet, b"nonsense"), Refusal::Garbage),
        (datagram::encode(stamp(ours), Kind::Challenge, b""), Refusal::Garbage),
    ];
    let mut logged = 0;
    for now_ms in 0..1_000 {
        for (bytes, reason) in &refused {
            gossip.receive(now_ms, address(7), bytes);
            let all = effects(&mut gossip);
            assert!(all.len() == 1 && is_refusal(&all[0], *reason), "{all:?}");
            logged += usize::from(matches!(all[0], Effect::Refused { log: true, .. }));
        }
    }
    assert_eq!(logged, 3);
    assert_eq!(gossip.members().count(), 0);
}

#[test]
fn a_flood_of_invented_members_is_bounded_and_the_dead_make_room() {
    let mut network = Network::new(1);
    network.start(config(0, &[]));
    for n in 1..=1_500 {
        let mut stranger = alone(n);
        stranger.seeds(0, vec![address(0)]);
        stranger.tick(0);
        for (_, bytes) in sends(&mut stranger) {
            network.with(&name(0), |gossip, now| gossip.receive(now, address(n), &bytes));
        }
    }
    assert_eq!(network.gossip(0).members().count(), MEMBERS_MAX);
    assert!(network.reports.iter().any(|(_, _, e)| is_refusal(e, Refusal::Full)));
    // None of them ever answers; probed one by one they are all dead in the end, and forgotten for someone real.
    network.run(400_000);
    network.start(config(2_000, &[0]));
    network.run_until_agreed(&[0, 2_000], 5_000);
    assert_eq!(network.gossip(0).members().count(), MEMBERS_MAX);
    assert!(network.reports.iter().any(|(_, _, e)| matches!(e, Effect::Forgotten(_))));
}

#[test]
fn another_process_under_our_id_is_reported_now_and_then() {
    let mut gossip = alone(0);
    let mut twin = config(0, &[]);
    (twin.address, twin.incarnation) = (address(5), 7);
    let mut twin = Gossip::new(0, twin, 9).unwrap();
    gossip.seeds(0, vec![address(5)]);
    let (mut reports, mut answers) = (0, Vec::new());
    for now_ms in 0..100 {
        twin.announce_to(address(0));
        for (_, bytes) in sends(&mut twin) {
            gossip.receive(now_ms, address(5), &bytes);
            for effect in effects(&mut gossip) {
                match effect {
                    Effect::Twin { address: at, incarnation: 7 } if at == address(5) => reports += 1,
                    Effect::Send { to, bytes: answer } if to == address(5) && answer.len() < 2 * bytes.len() => {
                        answers.push(answer);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert_eq!((reports, answers.len(), gossip.answered()), (1, 1, false));
    // So that the other process hears of it as well; and there it ends.
    let own = gossip.address();
    twin.receive(100, own, &answers[0]);
    let told = effects(&mut twin);
    assert!(told.iter().any(|e| matches!(e, Effect::Twin { address, .. } if *address == own)), "{told:?}");
    for effect in told {
        if let Effect::Send { bytes, .. } = effect {
            gossip.receive(101, address(5), &bytes);
        }
    }
    assert_eq!(effects(&mut gossip), []);
}

#[test]
fn a_new_digest_reaches_some_at_once_and_all_by_the_probes_and_is_reported_seldom() {
    for seed in 0..seeds(50) {
        let mut network = Network::formed(seed, 5);
        let seen = |network: &Network, at: usize| {
            let from_2 = Effect::DigestDiffers { from: address(2), digest: 77, epoch: 3 };
            network.reports.iter().filter(|(_, id, e)| *id == name(at) && *e == from_2).count()
        };
        network.reports.clear();
        network.with(&name(2), |gossip, _| gossip.local_digest(77, 3));
        network.run(10);
        assert!([0, 1, 3, 4].iter().filter(|&&n| seen(&network, n) == 1).count() >= 3, "seed {seed}");
        network.run(1_990);
        for n in [0, 1, 3, 4] {
            assert!((1..=10).contains(&seen(&network, n)), "seed {seed}, node {n}");
            network.with(&name(n), |gossip, _| gossip.local_digest(77, 3));
        }
        network.run(10);
        network.reports.clear();
        network.run(5_000);
        assert!(network.reports.is_empty(), "{:?}", network.reports);
    }
}

#[test]
fn one_seed_is_one_run_and_extra_ticks_change_nothing() {
    let run = |extra: bool| {
        let mut network = Network::new(42);
        (network.loss_percent, network.delay_ms) = (20, 0..=30);
        for n in 0..5 {
            network.start(config(n, &[0]));
        }
        for _ in 0..30 {
            network.run(500);
            if extra {
                network.with(&name(1), |gossip, now| gossip.tick(now));
            }
        }
        network.crash(&name(3));
        network.run(10_000);
        (network.bytes_sent, network.reports)
    };
    let (first, second) = (run(false), run(true));
    assert!(first == second && !first.1.is_empty());
}

#[test]
fn nothing_sent_exceeds_a_datagram_however_long_the_names() {
    let mut network = Network::new(3);
    for n in 0..40 {
        let mut long = config(n, &[0]);
        long.node = format!("{n:-<64}").parse().unwrap();
        // The network asserts the size of each datagram.
        network.start(long);
        network.run(100);
    }
    network.run(10_000);
}

/// Datagrams of every kind, as a cluster with faults sends them.
fn real_datagrams() -> Vec<Vec<u8>> {
    let mut nodes: Vec<Gossip> = (0..3).map(alone).collect();
    let mut wire: Vec<(SocketAddr, SocketAddr, Vec<u8>)> = Vec::new();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for node in &mut nodes[1..] {
        node.seeds(0, vec![address(0)]);
    }
    for now_ms in 0..8_000 {
        for (n, node) in nodes.iter_mut().enumerate() {
            if n == 1 && now_ms > 3_000 {
                continue;
            }
            node.tick(now_ms);
            for (to, from, bytes) in &wire {
                if *to == address(n) {
                    node.receive(now_ms, *from, bytes);
                }
            }
        }
        wire.clear();
        for (n, node) in nodes.iter_mut().enumerate() {
            wire.extend(sends(node).into_iter().map(|(to, bytes)| (to, address(n), bytes)));
        }
        seen.extend(wire.iter().map(|(_, _, bytes)| bytes.clone()));
    }
    assert!((0..3).all(|kind| seen.iter().any(|bytes| bytes[12] == kind)));
    seen
}

#[test]
fn damaged_datagrams_never_panic_and_leave_the_node_working() {
    let real = real_datagrams();
    let mut rng = StdRng::seed_from_u64(5);
    let mut victim = alone(0);
    for round in 0..50_000_u64 {
        let mut bytes = real[rng.random_range(0..real.len())].clone();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(HEADER_BYTES..bytes.len());
            bytes[at] = rng.random();
        }
        if rng.random_range(0..4) == 0 {
            bytes.truncate(rng.random_range(HEADER_BYTES..=bytes.len()));
        }
        victim.receive(round, address(9), &bytes);
        victim.tick(round);
        effects(&mut victim);
        assert!(victim.members().count() <= MEMBERS_MAX);
    }
    assert_eq!(victim.faults(), 0);
    let now_ms = 50_001;
    let friend: NodeId = "no-mutation-makes-this-name".parse().unwrap();
    let known = GossipConfig { node: friend.clone(), ..config(7, &[0]) };
    let mut other = Gossip::new(now_ms, known, 7).unwrap();
    other.tick(now_ms);
    let (_, hello) = sends(&mut other).pop().unwrap();
    victim.receive(now_ms, address(7), &hello);
    assert_eq!(victim.member(&friend).map(|m| m.state), Some(MemberState::Alive));
}

proptest! {
    #[test]
    fn random_payloads_never_panic(kind in 0u8..3, payload in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut gossip = alone(0);
        let stamp = datagram::Stamp { cluster: config(0, &[]).cluster.fingerprint(), digest: 0, epoch: 0 };
        let mut bytes = datagram::encode(stamp, Kind::Packet, &payload);
        bytes[12] = kind;
        gossip.receive(0, address(1), &bytes);
        gossip.tick(1);
        prop_assert_eq!(gossip.faults(), 0);
    }
}
