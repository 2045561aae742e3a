//! What a node answers to `CLUSTER`: turns the view into the plain facts that `protocol::resp::topology` shows. Decides nothing: who is
//! asked for a slot stands in `cluster::slots`. Exercised by `tests/process.rs` and `tests/clients/check_cluster_clients.py`.

use crate::base::counters::Counter;
use crate::base::id::NodeId;
use crate::cluster::slots::{self, SlotRange};
use crate::cluster::view::{Liveness, Peer, PeerIx, View};
use crate::protocol::resp::topology::{ClusterAsk, Health, Link, Node, Range, Topology, links};
use crate::protocol::resp::value::Value;

use super::handles::Handles;

/// The answer.
pub(super) async fn answer(handles: &Handles, ask: ClusterAsk) -> Value {
    let view = handles.view.load_full();
    match ask {
        ClusterAsk::Slots => topology(&view, slots::introduced(slots::evened(slots::ranges(&view)))).slots(),
        ClusterAsk::Shards => whole(&view).shards(),
        ClusterAsk::Nodes => whole(&view).nodes(),
        ClusterAsk::Info => {
            let counters = handles.report().await.counters;
            whole(&view).info((counters.count(Counter::DatagramsSent), counters.count(Counter::Datagrams)))
        }
        ClusterAsk::MyId => Value::Bulk(handles.identity.node.cluster_id().into()),
        ClusterAsk::MyShardId => Value::Bulk(shard_id(&handles.identity.node).into()),
        ClusterAsk::Links => links(&open_links(handles, &view).await),
        ClusterAsk::Replicas(id) => whole(&view).replicas(&id),
        ClusterAsk::FailureReports(id) => whole(&view).failure_reports(&id),
    }
}

/// Each member is a shard of its own: no two lead and follow in the same slots.
fn shard_id(node: &NodeId) -> String {
    let mut id = node.cluster_id().into_bytes();
    id.reverse();
    String::from_utf8(id).expect("digits in any order")
}

fn whole(view: &View) -> Topology {
    topology(view, slots::ranges(view))
}

fn topology(view: &View, ranges: Vec<SlotRange>) -> Topology {
    let places: Vec<PeerIx> = view.peers().map(|(ix, _)| ix).collect();
    let place = |ix: &PeerIx| places.binary_search(ix).ok();
    let nodes = view.peers().map(|(ix, peer)| node(peer, slots::led_by(&ranges, ix).to_vec())).collect();
    let range = |range: &SlotRange| Range {
        first: range.first.0,
        last: range.last.0,
        serving: range.serving.iter().filter_map(place).collect(),
        absent: range.absent.iter().filter_map(place).collect(),
    };
    let me = place(&view.me).unwrap_or_default();
    Topology { nodes, me, ranges: ranges.iter().map(range).collect(), epoch: view.epoch }
}

fn node(peer: &Peer, leads: Vec<(u16, u16)>) -> Node {
    // Membership takes no address without a port.
    let (host, port) = peer.member.address.rsplit_once(':').unwrap_or((&peer.member.address, ""));
    let health = match peer.liveness {
        Liveness::Alive => Health::Online,
        Liveness::Suspect => Health::Suspected,
        Liveness::Down => Health::Failed,
    };
    Node {
        id: peer.member.id.cluster_id(),
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: port.parse().unwrap_or_default(),
        health,
        leads,
    }
}

/// Links that this node opened, by its data arbiters.
async fn open_links(handles: &Handles, view: &View) -> Vec<Link> {
    let now_ms = handles.clock.unix_ms();
    let report = handles.report().await;
    let link = |link: &super::replication::OpenLink| {
        let age_ms = u64::try_from(link.age.as_millis()).unwrap_or(u64::MAX);
        Some(Link {
            node: view.peer(link.peer)?.member.id.cluster_id(),
            opened_ms: now_ms.saturating_sub(age_ms),
            queued_bytes: link.queued_bytes,
        })
    };
    report.replication.links.iter().filter_map(link).collect()
}
