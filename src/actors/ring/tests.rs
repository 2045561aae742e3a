//! Tests of the ring owner, alone: what it publishes of what others tell it.

use arc_swap::ArcSwap;

use super::*;
use crate::actors::node::block_on;
use crate::cluster::specimen::{id, member};
use crate::net::Net;

/// Found by the simulator (`combined`, seed 2): a node that returned with another weight, before it heard of its former life, kept its old
/// share in the eyes of all others for ever.
#[test]
fn a_later_life_with_another_weight_changes_the_ring_though_not_the_epoch() {
    let (former, later) = (member("b"), Member { weight: 3, incarnation: 11, ..member("b") });
    let weights = block_on(async move {
        let (membership, cartographer, view) = alone(&member("a"));
        let view: SharedView = Arc::new(ArcSwap::from_pointee(view));
        let identity = Identity { net: Net::Os, cluster: "c".parse().expect("a name"), node: id("a"), incarnation: 10 };
        let config =
            RingConfig { identity, clock: Clock::os(), me: member("a"), forget_after: None, departed: Arc::default() };
        let ring = RingActor::new(config, membership, cartographer, view.clone()).start();
        let mut seen = Vec::new();
        for life in [former, later] {
            let mut theirs = Membership::default();
            theirs.join(life).expect("a valid member");
            ring.send(Exchange(exchange::encode(&theirs))).await.expect("it runs");
            let view = view.load();
            assert_eq!(view.epoch, view.ring.epoch());
            seen.push((view.epoch, view.ring.members().iter().map(|member| member.weight).collect::<Vec<_>>()));
        }
        seen
    });
    assert_eq!(weights, [(2, vec![1, 1]), (2, vec![1, 3])]);
}
