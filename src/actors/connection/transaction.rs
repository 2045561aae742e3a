//! `MULTI` to `EXEC` on one connection: queues commands, watches keys, and has the router execute the whole, in one go where all keys are of
//! one partition. What is queued and when it is refused stands in `resp::transaction`. Tested by the process tests and by clients.

use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::base::counters::Counter;
use crate::base::limits::{BATCH_OPS_MAX, BATCH_REPLY_BYTES_MAX};
use crate::base::op::{Act, Op};
use crate::base::reply::{BUSY, ReplyKind, ReplyRef, ReplySink};
use crate::base::seen::Seen;
use crate::protocol::request::{ClusterOp, Request};
use crate::protocol::resp::command::{Command, ParseError, Parsed};
use crate::protocol::resp::encode::ReplyBuf;
use crate::protocol::resp::session::SessionCommand;
use crate::protocol::resp::transaction::{Queued, Taken, TransactionCommand};

use super::super::admission::Share;
use super::execute::{self, Run};
use super::{Door, Entry, pubsub};

const UNSEEN: &str = "ERR a key could not be watched";
const TOO_LARGE: &str = "BUSY the replies to the transaction are too large, nothing was done with this command";

/// What a command is that came in: what [`parse`](crate::protocol::resp::command::parse) makes of it.
pub(super) type Incoming = Result<(&'static Command, Parsed), ParseError>;

/// Takes a command into the open transaction and says so, or gives it back if it is one to be executed at once.
pub(super) fn queue(
    door: &Door,
    entry: &Entry,
    parsed: Incoming,
    bytes: usize,
    out: &mut ReplyBuf,
) -> Option<Incoming> {
    let mut transaction = entry.transaction.borrow_mut();
    let counted = transaction.count(bytes);
    let queued = match parsed {
        Ok((_, Parsed::Session(SessionCommand::Quit | SessionCommand::Reset))) => return Some(parsed),
        Ok((_, Parsed::Transaction(ref asked))) if *asked != TransactionCommand::Unwatch => return Some(parsed),
        Ok((command, parsed)) => Queued { command, parsed: Ok(parsed) },
        Err(ref error) => match error.command.filter(|_| error.is_late) {
            Some(command) => Queued { command, parsed: parsed.map(|(_, parsed)| parsed) },
            None => return Some(parsed),
        },
    };
    // Small transactions go on whatever others hold.
    let has_room = transaction.held_bytes() <= Share::FREE_BYTES || !door.budget.is_used_up();
    let mut session = entry.session.borrow_mut();
    session.note(queued.command.name, door.now());
    match counted.and_then(|()| transaction.queue(queued)) {
        Ok(()) if has_room => out.reply(ReplyRef::Simple("QUEUED".into())),
        Ok(()) => {
            transaction.spoil();
            execute::refuse(door, Counter::Busy, BUSY, 1, out);
        }
        Err(text) => {
            door.count(Counter::TransactionsRefused);
            out.push_error(text.as_bytes());
        }
    }
    session.note_queued(transaction.queued());
    None
}

/// Notes that a command was refused before it could be queued.
pub(super) fn refused(entry: &Entry, error: &ParseError) {
    let mut transaction = entry.transaction.borrow_mut();
    if error.command.is_some_and(|command| command.name == "exec") {
        transaction.reset();
        entry.session.borrow_mut().note_queued(None);
    } else if transaction.is_open() {
        transaction.spoil();
    }
}

/// Does what a command about the transaction asks. False if the connection is to end.
pub(super) async fn execute(
    door: &Rc<Door>,
    entry: &Entry,
    command: &'static Command,
    asked: TransactionCommand,
    out: &mut ReplyBuf,
) -> bool {
    let started = door.handles.clock.monotonic();
    let open = obey(door, entry, asked, out).await.unwrap_or_else(|text| {
        door.count(Counter::CommandErrors);
        out.push_error(text.as_bytes());
        true
    });
    entry.session.borrow_mut().note_queued(entry.transaction.borrow().queued());
    execute::record(door, &[command], started.elapsed());
    open
}

/// Does it, or says why not.
async fn obey(
    door: &Rc<Door>,
    entry: &Entry,
    asked: TransactionCommand,
    out: &mut ReplyBuf,
) -> Result<bool, &'static str> {
    match asked {
        TransactionCommand::Multi => entry.transaction.borrow_mut().open()?,
        TransactionCommand::Discard => entry.transaction.borrow_mut().discard()?,
        TransactionCommand::Unwatch => entry.transaction.borrow_mut().unwatch(),
        TransactionCommand::Watch(keys) => {
            let (allowed, inside) = {
                let transaction = entry.transaction.borrow();
                (transaction.may_watch(&keys), transaction.is_open())
            };
            if allowed.is_err() && !inside {
                door.count(Counter::TransactionsRefused);
            }
            allowed?;
            watch(door, entry, keys, out).await;
            return Ok(true);
        }
        TransactionCommand::Exec => {
            let taken = entry.transaction.borrow_mut().take()?;
            return Ok(exec(door, entry, taken, out).await);
        }
    }
    out.reply(ReplyRef::Ok);
    Ok(true)
}

/// Remembers what these keys hold. If that can't be found out, none is watched, and the error says so.
async fn watch(door: &Rc<Door>, entry: &Entry, keys: Vec<Bytes>, out: &mut ReplyBuf) {
    let looks = keys.iter().map(|key| Op::new(key.clone(), Act::Look)).collect();
    let replies = look(door, entry, looks).await;
    let error = (0..replies.replies()).find(|n| replies.kind(*n) == Some(ReplyKind::Error));
    if let Some(n) = error {
        return out.append(&replies, n..n + 1);
    }
    let Some(seen) = (0..keys.len()).map(|n| seen(&replies, n)).collect::<Option<Vec<Seen>>>() else {
        return out.push_error(UNSEEN.as_bytes());
    };
    let mut transaction = entry.transaction.borrow_mut();
    keys.iter().zip(seen).for_each(|(key, seen)| transaction.watch(key, seen));
    out.reply(ReplyRef::Ok);
}

/// Takes what was seen out of a bulk reply.
fn seen(replies: &ReplyBuf, n: usize) -> Option<Seen> {
    let reply = replies.slices(n..n + 1).collect::<Vec<_>>().concat();
    let (_, text) = reply.strip_suffix(b"\r\n")?.split_at_checked(reply.iter().position(|byte| *byte == b'\n')? + 1)?;
    Seen::from_text(text)
}

/// Executes operations on watched keys, each by itself.
async fn look(door: &Rc<Door>, entry: &Entry, ops: Vec<Op>) -> ReplyBuf {
    let mut replies = ReplyBuf::new(entry.session.borrow().wire());
    let bytes = ops.iter().map(|op| op.key.len()).sum();
    let requests = ops.into_iter().map(Request::One).collect();
    execute::flush(door, entry, &mut Run { requests, bytes, ..Run::default() }, &mut replies).await;
    replies
}

/// What comparisons say together.
enum Verdict {
    Unchanged,
    Changed,
    /// This one could not be made.
    Unsure(usize),
}

fn verdict(replies: &ReplyBuf, count: usize) -> Verdict {
    let find = |kind| (0..count).find(|n| replies.kind(*n) == Some(kind));
    match (find(ReplyKind::Int(0)), find(ReplyKind::Error)) {
        (Some(_), _) => Verdict::Changed,
        (None, Some(n)) => Verdict::Unsure(n),
        (None, None) => Verdict::Unchanged,
    }
}

/// `EXEC`. False if the connection is to end.
async fn exec(door: &Rc<Door>, entry: &Entry, taken: Taken, out: &mut ReplyBuf) -> bool {
    let partition = taken.partition();
    if let Err(text) = taken.fits_one_go()
        && partition.is_some()
    {
        door.count(Counter::TransactionsRefused);
        out.push_error(text.as_bytes());
        return true;
    }
    let (inside, before) = taken.conditions(partition);
    let looked = look(door, entry, before).await;
    match verdict(&looked, looked.replies()) {
        Verdict::Unchanged => {}
        Verdict::Changed => return failed(door, out),
        Verdict::Unsure(n) => {
            out.append(&looked, n..n + 1);
            return true;
        }
    }
    let mut answers = ReplyBuf::new(entry.session.borrow().wire());
    let (open, first) = if partition.is_some() {
        let conditions = inside.len();
        let (replies, between) = in_one_go(door, entry, taken, inside).await;
        let done = |n| !matches!(replies.kind(n), Some(ReplyKind::Error | ReplyKind::Null));
        match verdict(&replies, conditions) {
            Verdict::Changed => return failed(door, out),
            // Where something was done, each command has its own answer.
            Verdict::Unsure(n) if !(conditions..replies.replies()).any(done) => {
                out.append(&replies, n..n + 1);
                return true;
            }
            Verdict::Unsure(_) | Verdict::Unchanged => {}
        }
        interleave(door, entry, (replies, conditions), between, &mut answers).await
    } else {
        (in_order(door, entry, taken, &mut answers).await, 0)
    };
    out.set_wire(entry.session.borrow().wire());
    out.open_array(answers.replies() - first);
    out.elements(&answers, first..answers.replies());
    out.close(ReplyKind::Value);
    open
}

/// The answer of a transaction of which a watched key has changed.
fn failed(door: &Door, out: &mut ReplyBuf) -> bool {
    door.count(Counter::TransactionsFailed);
    out.push_null_array();
    true
}

/// Has the router execute conditions and commands together. Also returns the commands that the connection itself answers, each with the
/// number of the reply before which it stands.
async fn in_one_go(
    door: &Rc<Door>,
    entry: &Entry,
    taken: Taken,
    conditions: Vec<Op>,
) -> (ReplyBuf, Vec<(usize, Queued)>) {
    let requests = conditions.into_iter().map(Request::One).collect();
    let mut run = Run { requests, bytes: taken.bytes, together: true, ..Run::default() };
    let mut between = Vec::new();
    for queued in taken.queue {
        if let Queued { command, parsed: Ok(Parsed::Request(request)) } = queued {
            run.requests.push(request);
            run.commands.push(command);
        } else {
            between.push((run.requests.len(), queued));
        }
    }
    let mut replies = ReplyBuf::new(entry.session.borrow().wire());
    execute::flush(door, entry, &mut run, &mut replies).await;
    (replies, between)
}

/// Puts the router's replies from `first` on and those of the connection together. Also returns where among the answers the first stands.
async fn interleave(
    door: &Rc<Door>,
    entry: &Entry,
    (replies, first): (ReplyBuf, usize),
    between: Vec<(usize, Queued)>,
    answers: &mut ReplyBuf,
) -> (bool, usize) {
    if between.is_empty() {
        *answers = replies;
        return (true, first);
    }
    let (mut open, mut at) = (true, first);
    for (upto, queued) in between {
        answers.append(&replies, at..upto);
        at = upto;
        open &= answer(door, entry, queued, answers).await;
    }
    answers.append(&replies, at..replies.replies());
    (open, 0)
}

/// Executes commands one after another, those between two that the connection answers as a pipeline. False if the connection is to end.
async fn in_order(door: &Rc<Door>, entry: &Entry, taken: Taken, answers: &mut ReplyBuf) -> bool {
    let mut open = true;
    let mut run = Run::default();
    for queued in taken.queue {
        match queued {
            Queued { command, parsed: Ok(Parsed::Request(request)) } => {
                run.requests.push(unhurried(request));
                run.commands.push(command);
                run.bytes = taken.bytes;
                if run.requests.len() == BATCH_OPS_MAX {
                    flush(door, entry, &mut run, answers).await;
                }
            }
            other => {
                flush(door, entry, &mut run, answers).await;
                open &= answer(door, entry, other, answers).await;
            }
        }
    }
    flush(door, entry, &mut run, answers).await;
    open
}

async fn flush(door: &Rc<Door>, entry: &Entry, run: &mut Run, answers: &mut ReplyBuf) {
    if answers.remaining() > BATCH_REPLY_BYTES_MAX {
        let count = std::mem::take(run).requests.len();
        execute::refuse(door, Counter::Busy, TOO_LARGE, count, answers);
    } else {
        execute::flush(door, entry, run, answers).await;
    }
}

/// In a transaction nothing waits, as in Redis: `WAIT` tells what is so.
fn unhurried(request: Request) -> Request {
    match request {
        Request::Cluster(ClusterOp::Wait { replicas, .. }) => {
            Request::Cluster(ClusterOp::Wait { replicas, timeout_ms: 1 })
        }
        other => other,
    }
}

/// Answers a command that the router has no part in. False if the connection is to end.
async fn answer(door: &Rc<Door>, entry: &Entry, queued: Queued, answers: &mut ReplyBuf) -> bool {
    match queued.parsed {
        Ok(Parsed::Session(asked)) => return execute::session(door, entry, queued.command, asked, answers).await,
        Ok(Parsed::PubSub(asked)) => pubsub::execute(door, entry, queued.command, asked, answers).await,
        // Nothing is watched any more.
        Ok(Parsed::Transaction(_)) => answers.reply(ReplyRef::Ok),
        Ok(Parsed::Request(_)) => unreachable!("the router answers these"),
        Err(error) => {
            door.count(Counter::CommandErrors);
            answers.push_value(&error.reply());
        }
    }
    true
}
