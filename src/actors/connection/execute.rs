//! From decoded commands to encoded replies: parses each, answers what concerns the connection itself, and hands runs of requests to the
//! router, in order. Never reads or writes a socket.

use std::rc::Rc;

use bytes::Bytes;

use crate::base::counters::Counter;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::base::reply::{BUSY, ReplyKind, ReplyRef, ReplySink, STOPPING};
use crate::protocol::request::Request;
use crate::protocol::resp::command::{Command, Context, Parsed, parse};
use crate::protocol::resp::encode::ReplyBuf;
use crate::protocol::resp::session::{ClientFilter, Facts, Outcome, SessionCommand};
use crate::protocol::resp::value::Value;
use crate::protocol::resp::{Args, info};

use super::super::router::Batch;
use super::{Door, Entry};

/// Requests waiting to go to the router together, and the commands they came from.
#[derive(Default)]
struct Run {
    requests: Vec<Request>,
    commands: Vec<&'static Command>,
}

/// Executes `commands`, which took `bytes` on the wire, and appends their replies. False if the connection is to end.
pub(super) async fn batch(
    door: &Rc<Door>,
    entry: &Rc<Entry>,
    commands: &mut Vec<Args>,
    bytes: usize,
    out: &mut ReplyBuf,
) -> bool {
    let now = door.now();
    let context = Context { now, value_bytes_max: door.handles.settings.value_bytes_max };
    let mut run = Run::default();
    door.counters.borrow_mut().add(Counter::Commands, commands.len() as u64);
    let share = bytes / commands.len().max(1);
    for mut args in commands.drain(..) {
        match parse(&mut args, &context) {
            Ok((command, Parsed::Request(request))) => {
                run.requests.push(request);
                run.commands.push(command);
                entry.session.borrow_mut().note(command.name, now);
            }
            Ok((command, Parsed::Session(asked))) => {
                flush(door, entry, &mut run, share, out).await;
                entry.session.borrow_mut().note(command.name, now);
                if !session(door, entry, command, asked, out).await {
                    return false;
                }
            }
            Err(error) => {
                flush(door, entry, &mut run, share, out).await;
                door.count(Counter::CommandErrors);
                out.push_value(&error.reply());
            }
        }
    }
    flush(door, entry, &mut run, share, out).await;
    true
}

/// Has the router answer the requests gathered so far.
async fn flush(door: &Rc<Door>, entry: &Entry, run: &mut Run, share: usize, out: &mut ReplyBuf) {
    if run.requests.is_empty() {
        return;
    }
    let Run { requests, commands } = std::mem::take(run);
    let count = requests.len();
    if door.is_stopping() {
        return refuse(door, Counter::Shutdown, STOPPING, count, out);
    }
    let Some(_permit) = door.admission.admit(count, share * count) else {
        return refuse(door, Counter::Busy, BUSY, count, out);
    };
    let (wire, level) = {
        let session = entry.session.borrow();
        (session.wire(), session.level())
    };
    let started = door.handles.clock.monotonic();
    let batch = Batch { requests, wire, level, deadline: started + REQUEST_TIMEOUT };
    match door.handles.routers[door.shard].send(batch).await {
        Ok(replies) => out.append_all(replies),
        Err(_) => refuse(door, Counter::Shutdown, STOPPING, count, out),
    }
    record(door, &commands, started.elapsed());
}

fn refuse(door: &Door, counter: Counter, text: &'static str, count: usize, out: &mut ReplyBuf) {
    door.counters.borrow_mut().add(counter, count as u64);
    for _ in 0..count {
        out.reply(ReplyRef::Error(text.into()));
    }
}

/// Notes the latency of each command: that of the batch it travelled in, which is what its client saw.
fn record(door: &Door, commands: &[&'static Command], latency: std::time::Duration) {
    let mut latencies = door.latencies.borrow_mut();
    for same in commands.chunk_by(|a, b| std::ptr::eq(*a, *b)) {
        latencies.entry(same[0].name).or_default().record(latency, same.len() as u64);
    }
}

/// Answers a command that concerns the connection itself. False if the connection is to end.
async fn session(
    door: &Rc<Door>,
    entry: &Entry,
    command: &'static Command,
    asked: SessionCommand,
    out: &mut ReplyBuf,
) -> bool {
    let started = door.handles.clock.monotonic();
    let outcome = {
        let facts = Facts { now_us: door.handles.clock.unix_us(), config: &door.handles.settings.shown };
        entry.session.borrow_mut().execute(asked, &facts)
    };
    out.set_wire(entry.session.borrow().wire());
    let mut open = true;
    match outcome {
        Outcome::Reply(value) => out.push_value(&value),
        Outcome::Close(value) => {
            out.push_value(&value);
            open = false;
        }
        Outcome::Info(sections) => {
            let report = door.handles.report().await;
            out.push_value(&Value::Verbatim(info::render(&report.info(&door.handles), sections).into()));
        }
        Outcome::Clients(filter) => {
            let lines = clients(door, &filter).await;
            out.push_value(&Value::Verbatim(lines));
        }
    }
    if out.kind(out.replies().saturating_sub(1)) == Some(ReplyKind::Error) {
        door.count(Counter::CommandErrors);
    }
    record(door, &[command], started.elapsed());
    open
}

/// The lines of `CLIENT LIST`, over all arbiters.
async fn clients(door: &Door, filter: &ClientFilter) -> Bytes {
    let mut lines = door.handles.clients().await;
    lines.sort_by_key(|(id, _)| *id);
    let chosen: Vec<&(u64, String)> = match filter {
        ClientFilter::All => lines.iter().collect(),
        ClientFilter::Ids(ids) => ids.iter().filter_map(|id| lines.iter().find(|(known, _)| known == id)).collect(),
    };
    chosen.iter().flat_map(|(_, line)| [line.trim_end(), "\n"]).collect::<String>().into()
}
