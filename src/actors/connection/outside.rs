//! Requests of clients whose connections are kept elsewhere: those of HTTP. They pass the same door as all others, are refused with the same
//! words, and go to the same router. Exercised by `admin/tests.rs` and `tests/clients/check_http.py`.

use std::rc::Rc;

use actix::prelude::*;

use crate::base::counters::Counter;
use crate::base::level::Level;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::base::op::Op;
use crate::base::reply::{BUSY, ReplyRef, ReplySink, STOPPING, Wire};
use crate::protocol::request::{ClusterOp, Request};
use crate::protocol::resp::encode::ReplyBuf;

use super::super::router::Batch;
use super::{Connections, Door, pause};

/// A request, to be answered by one reply.
#[derive(Message, Debug)]
#[rtype(result = "ReplyBuf")]
pub struct Outside {
    /// What is asked for.
    pub wanted: Wanted,
    /// Under which name its latency is recorded.
    pub name: &'static str,
    /// How to encode the reply.
    pub wire: Wire,
    /// Wanted acknowledgements.
    pub level: Level,
}

/// What such clients can ask for.
#[derive(Debug)]
pub enum Wanted {
    /// One operation on one key.
    Key(Op),
    /// Keys of the whole cluster, page by page.
    Scan(ClusterOp),
}

/// Something that was refused before it became a request.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Note(pub Counter);

async fn answer(door: Rc<Door>, Outside { wanted, name, wire, level }: Outside) -> ReplyBuf {
    let (writes, bytes, request) = match wanted {
        Wanted::Key(op) => (op.act.writes(), op.key.len() + op.value.len(), Request::One(op)),
        Wanted::Scan(scan) => (false, 0, Request::Cluster(scan)),
    };
    door.count(Counter::Commands);
    let deadline = door.handles.clock.monotonic() + REQUEST_TIMEOUT;
    if let Err(text) = pause::wait_out_until(&door, writes, deadline).await {
        return error(text, wire);
    }
    if door.is_stopping() {
        return refusal(&door, Counter::Shutdown, STOPPING, wire);
    }
    let room = if door.budget.is_overdrawn() { None } else { door.admission.admit(request.ops(), bytes) };
    let Some(_permit) = room else { return refusal(&door, Counter::Busy, BUSY, wire) };
    let started = door.handles.clock.monotonic();
    let batch = Batch { requests: vec![request], together: false, wire, level, deadline };
    let answered = door.handles.routers[door.shard].send(batch).await;
    door.latencies.borrow_mut().entry(name).or_default().record(started.elapsed(), 1);
    answered.unwrap_or_else(|_| refusal(&door, Counter::Shutdown, STOPPING, wire))
}

fn refusal(door: &Door, counter: Counter, text: &'static str, wire: Wire) -> ReplyBuf {
    door.count(counter);
    error(text, wire)
}

fn error(text: &'static str, wire: Wire) -> ReplyBuf {
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
