//! The last look of a node that leaves before it goes: whether there is really nothing here, and nothing on its way from here. When it is
//! time to look is planned in `cluster::sync`. Exercised by the simulation.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::try_join_all;

use super::SyncActor;
use super::line::Ended;
use crate::actors::local::Local;
use crate::actors::replication::Drain;
use crate::actors::ring::Depart;
use crate::actors::store;
use crate::cluster::view::PeerIx;

/// Patience with acknowledgements of what was sent last.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// The look is over; whether the node may go.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Looked {
    is_empty: bool,
}

impl SyncActor {
    /// Looks for anything left, unless that is under way.
    pub(super) fn depart(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.departing, true) {
            return;
        }
        let peers = self.view.others().map(|(ix, _)| ix).filter(|ix| self.view.is_alive(*ix)).collect();
        let (local, me) = (self.local.clone(), ctx.address());
        actix::spawn(async move {
            let is_empty = is_empty(&local, peers).await.unwrap_or(false);
            me.do_send(Looked { is_empty });
        });
    }
}

/// Whether the stores are empty, and every living peer has acknowledged all that was sent to it.
async fn is_empty(local: &Local, peers: BTreeSet<PeerIx>) -> Result<bool, Ended> {
    let stats = try_join_all(local.stores.iter().map(|store| store.send(store::AskStats))).await?;
    if stats.iter().any(|stats| !stats.filled.is_empty()) {
        return Ok(false);
    }
    let drain = || Drain { peers: peers.clone(), timeout: DRAIN_MAX };
    let drained = try_join_all(local.replications.iter().map(|sender| sender.send(drain()))).await?;
    Ok(drained.iter().all(|drained| *drained == peers))
}

impl Handler<Looked> for SyncActor {
    type Result = ();

    fn handle(&mut self, looked: Looked, _: &mut Self::Context) {
        self.departing = false;
        if looked.is_empty {
            self.ring.do_send(Depart);
        }
    }
}
