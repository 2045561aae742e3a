//! Requests of clients whose connections are kept elsewhere: those of HTTP. They pass the same door as all others, are refused with the same
//! words, and go to the same router. Exercised by `admin/tests.rs` and `tests/clients/check_http.py`.

use std::rc::Rc;

use actix::prelude::*;

use crate::base::counters::Counter;
use crate::base::level::Level;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::base::reply::{BUSY, ReplyRef, ReplySink, STOPPING, Wire};
use crate::protocol::request::{ClusterOp, Request};
use crate::protocol::resp::encode::ReplyBuf;

use super::super::router::Batch;
use super::{Connections, Door, pause};

/// A request, to be answered by one reply.
#[derive(Message, Debug)]
#[rtype(result = "ReplyBuf")]
pub struct Outside {
    /// The request.
    pub request: Request,
    /// Under which name its latency is recorded.
    pub name: &'static str,
    /// How to encode the reply.
    pub wire: Wire,
    /// Wanted acknowledgements.
    pub level: Level,
}

/// Something that was refused before it became a request.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Note(pub Counter);

/// Whether it can change anything, and the bytes it brings.
fn weigh(request: &Request) -> (bool, usize) {
    let of_op = |op: &crate::base::op::Op| op.key.len() + op.value.len();
    match request {
        Request::One(op) => (op.act.writes(), of_op(op)),
        Request::Many(_, ops) => (ops.iter().any(|op| op.act.writes()), ops.iter().map(of_op).sum()),
        Request::Several(several) => (true, several.keys().iter().map(|key| key.len()).sum()),
        Request::Cluster(ClusterOp::Scan { pattern, .. }) => (false, pattern.as_ref().map_or(0, |glob| glob.len())),
        Request::Cluster(_) => (true, 0),
    }
}

async fn answer(door: Rc<Door>, Outside { request, name, wire, level }: Outside) -> ReplyBuf {
    let (writes, bytes) = weigh(&request);
    if door.handles.census.pausing.is_set() {
        pause::wait_out(&door, writes).await;
    }
    door.count(Counter::Commands);
    if door.is_stopping() {
        return refusal(&door, Counter::Shutdown, STOPPING, wire);
    }
    let room = if door.budget.is_overdrawn() { None } else { door.admission.admit(request.ops(), bytes) };
    let Some(_permit) = room else { return refusal(&door, Counter::Busy, BUSY, wire) };
    let started = door.handles.clock.monotonic();
    let batch = Batch { requests: vec![request], together: false, wire, level, deadline: started + REQUEST_TIMEOUT };
    let answered = door.handles.routers[door.shard].send(batch).await;
    door.latencies.borrow_mut().entry(name).or_default().record(started.elapsed(), 1);
    answered.unwrap_or_else(|_| refusal(&door, Counter::Shutdown, STOPPING, wire))
}

fn refusal(door: &Door, counter: Counter, text: &'static str, wire: Wire) -> ReplyBuf {
    door.count(counter);
    let mut replies = ReplyBuf::new(wire);
    replies.reply(ReplyRef::Error(text.into()));
    replies
}

impl Handler<Outside> for Connections {
    type Result = ResponseFuture<ReplyBuf>;

    fn handle(&mut self, outside: Outside, _: &mut Self::Context) -> Self::Result {
        Box::pin(answer(self.door.clone(), outside))
    }
}

impl Handler<Note> for Connections {
    type Result = ();

    fn handle(&mut self, Note(counter): Note, _: &mut Self::Context) {
        self.door.count(counter);
    }
}
