//! Waiting until peers have acknowledged what was posted to them: for `WAIT`, and for those who want to know that nothing is under way.
//! Never sends anything by itself. Exercised by the simulation and the client tests.

use std::collections::{BTreeMap, BTreeSet};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::outlet::{self, Outlet};
use super::{AwaitReplicas, Diverged, Drain, Replication};
use crate::cluster::view::PeerIx;

impl Handler<AwaitReplicas> for Replication {
    type Result = ResponseFuture<usize>;

    fn handle(&mut self, wait: AwaitReplicas, ctx: &mut Self::Context) -> Self::Result {
        // Per partition, whose acknowledgement of all that was posted so far would count.
        let mut waits: BTreeMap<PeerIx, oneshot::Receiver<()>> = BTreeMap::new();
        let mut routes: Vec<Vec<PeerIx>> = wait
            .partitions
            .iter()
            .map(|partition| {
                let route = self.view.route(partition);
                route.replicas().filter(|p| *p != self.view.me && self.view.is_alive(*p)).collect()
            })
            .collect();
        routes.sort_unstable();
        routes.dedup();
        for peer in routes.iter().flatten().copied().collect::<BTreeSet<PeerIx>>() {
            // A peer that nothing was ever sent to has all of it.
            let outlet = self.outlets.entry(peer).or_insert_with(|| Outlet::new(self.outbox_bytes_max));
            let drained = outlet.drained();
            waits.insert(peer, both(drained, self.handed_over(peer, ctx)));
        }
        Box::pin(outlet::count_drained(routes, waits, wait.replicas, self.clock.monotonic() + wait.timeout))
    }
}

/// Completes when both have, if there are two; fails if either does.
fn both(first: oneshot::Receiver<()>, second: Option<oneshot::Receiver<()>>) -> oneshot::Receiver<()> {
    let Some(second) = second else { return first };
    let (both, told) = oneshot::channel();
    actix::spawn(async move {
        if first.await.is_ok() && second.await.is_ok() {
            // Whoever waited may have gone.
            let _ = both.send(());
        }
    });
    told
}

impl Handler<Drain> for Replication {
    type Result = ResponseFuture<BTreeSet<PeerIx>>;

    fn handle(&mut self, drain: Drain, _: &mut Self::Context) -> Self::Result {
        let mut waits = Vec::new();
        for peer in drain.peers {
            // A peer that nothing was ever sent to has all of it.
            let outlet = self.outlets.entry(peer).or_insert_with(|| Outlet::new(self.outbox_bytes_max));
            let partitions = outlet.take_diverged();
            if let Some(recipient) = self.diverged.as_ref().filter(|_| !partitions.is_empty()) {
                recipient.do_send(Diverged { peer, partitions });
            }
            // What it was not sent is not under way, but it lacks it.
            if self.hints.pending_for(peer) == 0 {
                waits.push((peer, outlet.drained()));
            }
        }
        let deadline = self.clock.monotonic() + drain.timeout;
        Box::pin(async move {
            let mut drained = BTreeSet::new();
            for (peer, wait) in waits {
                if matches!(tokio::time::timeout_at(deadline, wait).await, Ok(Ok(()))) {
                    drained.insert(peer);
                }
            }
            drained
        })
    }
}
