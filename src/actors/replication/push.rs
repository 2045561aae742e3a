//! Sends entries to one peer, whatever the ring says, and tells what came of them: what repair brings and what is handed over. Nothing of them is
//! noted as a hint when it can't be sent; whoever sends them will see. Exercised by the simulation.

use actix::prelude::*;
use tokio::sync::oneshot;

use super::outlet::Verdict;
use super::{Committed, Push, Replication};
use crate::cluster::outbox::{Posted, Ticket};
use crate::cluster::tally::Tally;
use crate::cluster::view::Required;

impl Replication {
    /// Sends entries to one peer. Completes with what came of them.
    pub(super) fn push(&mut self, push: &Push, ctx: &mut Context<Self>) -> oneshot::Receiver<Committed> {
        let (commit, committed) = oneshot::channel();
        let alone = || Tally::new(Required::one_of(push.peer));
        let id = self.count(push.records.iter().map(|record| (alone(), record.op)).collect(), Vec::new(), commit);
        self.begin_batch();
        let mut start = 0;
        for (n, record) in push.records.iter().enumerate() {
            let ticket = Ticket { tally: id, op: u32::try_from(n).expect("pages are bounded") };
            let posted = Posted { partition: record.partition, ticket: Some(ticket) };
            if !self.post(push.peer, &push.bytes[start..record.end], posted, ctx) {
                self.settle(ticket, push.peer, Verdict::Lost);
            }
            start = record.end;
        }
        self.conclude(id);
        self.flush();
        committed
    }
}

impl Handler<Push> for Replication {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, push: Push, ctx: &mut Self::Context) -> Self::Result {
        let committed = self.push(&push, ctx);
        Box::pin(async move { committed.await.is_ok_and(|outcome| outcome.is_met()) })
    }
}
