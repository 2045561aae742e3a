//! Transactions: operations executed in one go, with nothing in between, some of which may pass over those after them. A transaction that
//! was done before is answered from memory, never done in part. What an act does is in `storage::execute`. Tested in `store::tests`.

use crate::base::counters::Counter;
use crate::base::hlc::UnixMs;
use crate::base::id::RequestId;
use crate::base::outcome::Outcome;
use crate::base::reply::{ReplyRef, ReplySink};
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::OPS_AHEAD;

use super::{Execute, Outbound, StoreActor};

const NOT_KEPT: &str =
    "NOQUORUM the link broke, and this part of the transaction was not kept for a second attempt, applied: unknown";

impl StoreActor {
    /// Executes the operations of `batch` in order, but for those that are passed over, which answer null.
    pub(super) fn execute_together(
        &mut self,
        batch: &Execute,
        now: UnixMs,
        replies: &mut ReplyBuf,
        out: &mut Outbound,
    ) {
        if batch.requests.iter().flatten().any(|request| self.done(batch, request, now).is_some()) {
            return self.answer_again(batch, now, replies);
        }
        // A condition that failed by itself passes over nothing.
        self.core.take_skip();
        let mut skip = 0;
        for (n, ops) in batch.ops.chunks(OPS_AHEAD).enumerate() {
            let aims = self.core.aim(ops);
            for (aimed, aim) in (n * OPS_AHEAD..).zip(aims.into_iter().take(ops.len())) {
                if skip > 0 {
                    skip -= 1;
                    replies.reply(ReplyRef::Null);
                } else {
                    self.execute_one((aimed, aim), batch, now, replies, out);
                    skip = self.core.take_skip();
                }
            }
        }
        self.core.let_go();
    }

    /// What is remembered of a request. Above level one what is remembered here alone may have been overruled; the survey has asked a majority.
    pub(super) fn done<'a>(&'a self, batch: &'a Execute, request: &RequestId, now: UnixMs) -> Option<&'a Outcome> {
        match &batch.grounds {
            Some(grounds) => grounds.settled.get(request),
            None => self.recent.recall(*request, now),
        }
    }

    /// Answers a transaction that was done before. What it read then, and what it left as it was, nobody knows any more.
    fn answer_again(&mut self, batch: &Execute, now: UnixMs, replies: &mut ReplyBuf) {
        for n in 0..batch.ops.len() {
            let request = batch.requests.get(n).and_then(Option::as_ref);
            match request.and_then(|request| self.done(batch, request, now)) {
                Some(done) => replies.push_encoded(done.reply.clone(), done.kind),
                None => replies.reply(ReplyRef::Error(NOT_KEPT.into())),
            }
        }
        self.counters.add(Counter::OpsDeduplicated, batch.ops.len() as u64);
    }
}
