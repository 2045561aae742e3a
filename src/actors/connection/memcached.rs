//! The life of a memcached client's connection: what one read brought goes to the router as one message, in order, and the answers are
//! dressed for the client. What commands mean is in `protocol::memcached`; reading and writing is what Redis connections do. Exercised by
//! `tests/memcached.rs` and the client checks.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use smallvec::SmallVec;

use crate::base::counters::Counter;
use crate::base::limits::{BATCH_OPS_MAX, BATCH_REPLY_BYTES_MAX, OPS_UNDER_WAY_MAX, OUTPUT_BYTES_CUT, REQUEST_TIMEOUT};
use crate::base::op::Op;
use crate::base::reply::{BUSY, ReplyKind, ReplyRef, ReplySink, STOPPING, Wire};
use crate::net::Stream;
use crate::protocol::memcached::decode::Decoder;
use crate::protocol::memcached::dress::{Dress, put_error, put_line};
use crate::protocol::memcached::stats::StatsFacts;
use crate::protocol::memcached::{Asked, Command};
use crate::protocol::request::{ClusterOp, Request};
use crate::protocol::resp::encode::ReplyBuf;

use super::super::process;
use super::super::router::Batch;
use super::resp::{Arriving, Talk, exchange, finish};
use super::{Door, Entry, Waits, pause};

impl Arriving for Decoder {
    fn held_bytes(&self) -> usize {
        0
    }

    fn is_idle(&self, buf: &BytesMut) -> bool {
        Self::is_idle(self, buf)
    }

    fn read_target<'a>(&'a mut self, buf: &'a mut BytesMut) -> &'a mut BytesMut {
        buf
    }

    fn put_error(out: &mut ReplyBuf, text: &str) {
        put_error(text.as_bytes(), out);
        out.close(ReplyKind::Error);
    }
}

/// What is to be answered, in order.
enum Due {
    /// The answers to so many requests, dressed.
    Answers(Dress, usize),
    /// This line, or nothing.
    Line(std::borrow::Cow<'static, str>),
}

/// Commands waiting to go to the router together.
#[derive(Default)]
struct Run {
    requests: Vec<Request>,
    due: Vec<Due>,
    names: Vec<&'static str>,
    /// Bytes of keys and values.
    bytes: usize,
}

impl Run {
    fn keys(&mut self, ops: SmallVec<[Op; 1]>, dress: Dress) {
        self.bytes += ops.iter().map(|op| op.key.len() + op.value.len()).sum::<usize>();
        self.due.push(Due::Answers(dress, ops.len()));
        self.requests.extend(ops.into_iter().map(Request::One));
    }
}

/// Serves the connection until the client hangs up, says `quit`, or speaks something else.
pub(super) async fn serve(door: &Rc<Door>, entry: &Rc<Entry>, stream: Stream) {
    let Some(settings) = &door.handles.settings.memcached else { return };
    let (mut from, mut to) = tokio::io::split(stream);
    let decoder = Decoder::new(settings.item_bytes_max);
    let mut talk = Talk::new(door, decoder, BytesMut::new(), ReplyBuf::new(Wire::Item));
    while turn(door, entry, &mut talk).await {
        match exchange(door, entry, (&mut from, &mut to), &mut talk).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => return,
        }
    }
    finish(door, entry, to, talk).await;
}

/// Executes everything that has arrived in full. False if the connection is to end.
async fn turn(door: &Rc<Door>, entry: &Rc<Entry>, talk: &mut Talk<Decoder>) -> bool {
    if talk.left && !talk.has_room(door) {
        return true;
    }
    let mut commands = Vec::new();
    loop {
        talk.left = talk.decoder.decode(&mut talk.buf, door.now(), BATCH_OPS_MAX, &mut commands);
        if !commands.is_empty() {
            entry.waits.set(Waits::Us);
            if !execute(door, entry, &mut commands, &mut talk.out).await {
                return false;
            }
        }
        if !talk.left || !talk.has_room(door) {
            return true;
        }
    }
}

/// Executes `commands` and appends what they are answered. False if the connection is to end.
async fn execute(door: &Rc<Door>, entry: &Entry, commands: &mut Vec<Command>, out: &mut ReplyBuf) -> bool {
    if door.handles.census.pausing.is_set() {
        pause::wait_out(door, commands.iter().any(Command::writes)).await;
    }
    let now = door.now();
    let mut run = Run::default();
    door.counters.borrow_mut().add(Counter::Commands, commands.len() as u64);
    for command in commands.drain(..) {
        if command.is_too_large() {
            door.count(Counter::ItemsTooLarge);
        }
        entry.session.borrow_mut().note(command.name, now);
        run.names.push(command.name);
        match command.asked {
            Asked::Keys(ops, dress) => run.keys(ops, dress),
            Asked::Say(line, is_refusal) => {
                if is_refusal {
                    door.count(Counter::CommandErrors);
                }
                run.due.push(Due::Line(line));
            }
            Asked::Flush { after_s, quiet } => {
                let at_once = put_off(door, entry, after_s);
                if at_once {
                    run.requests.push(Request::Cluster(ClusterOp::Flush));
                }
                run.due.push(Due::Answers(Dress::Line { line: "OK", quiet }, usize::from(at_once)));
            }
            Asked::Stats(stats) => {
                flush(door, entry, &mut run, out).await;
                put_text(&stats.render(&facts(door).await), out);
            }
            Asked::Quit => {
                flush(door, entry, &mut run, out).await;
                return false;
            }
            Asked::HangUp => {
                door.count(Counter::MemcachedErrors);
                flush(door, entry, &mut run, out).await;
                return false;
            }
        }
    }
    flush(door, entry, &mut run, out).await;
    !is_cut(door, out)
}

/// Has the router answer the requests gathered so far, and appends what is due.
async fn flush(door: &Rc<Door>, entry: &Entry, run: &mut Run, out: &mut ReplyBuf) {
    let Run { requests, due, names, bytes } = std::mem::take(run);
    let started = door.handles.clock.monotonic();
    let answers = answer(door, entry, requests, bytes).await;
    let mut at = 0;
    for due in due {
        match due {
            Due::Answers(dress, count) => {
                dress.put(&answers, at..at + count, out);
                at += count;
            }
            Due::Line(line) => put_text(&line, out),
        }
    }
    let latency = started.elapsed();
    let mut latencies = door.latencies.borrow_mut();
    for same in names.chunk_by(|a, b| a == b) {
        latencies.entry(same[0]).or_default().record(latency, same.len() as u64);
    }
}

/// The router's answers, or refusals: one for each request.
async fn answer(door: &Rc<Door>, entry: &Entry, requests: Vec<Request>, bytes: usize) -> ReplyBuf {
    let count = requests.len();
    if count == 0 {
        return ReplyBuf::new(Wire::Item);
    }
    if door.is_stopping() {
        return refusals(door, Counter::Shutdown, STOPPING, count);
    }
    let room =
        if door.budget.is_overdrawn() { None } else { door.admission.admit(count.min(OPS_UNDER_WAY_MAX), bytes) };
    let Some(_permit) = room else { return refusals(door, Counter::Busy, BUSY, count) };
    let level = entry.session.borrow().level();
    let deadline = door.handles.clock.monotonic() + REQUEST_TIMEOUT;
    let ask = async |requests: Vec<Request>| {
        let batch = Batch { requests, together: false, wire: Wire::Item, level, deadline };
        door.handles.routers[door.shard].send(batch).await
    };
    if count <= BATCH_OPS_MAX {
        return ask(requests).await.unwrap_or_else(|_| refusals(door, Counter::Shutdown, STOPPING, count));
    }
    // Many keys: so many at a time that a store gets to others in between.
    let mut answers = ReplyBuf::new(Wire::Item);
    let mut left = requests.into_iter();
    while left.len() > 0 {
        if answers.copied_bytes() > BATCH_REPLY_BYTES_MAX {
            answers.append_all(refusals(door, Counter::Busy, BUSY, left.len()));
            break;
        }
        let part: Vec<Request> = left.by_ref().take(BATCH_OPS_MAX).collect();
        let count = part.len();
        answers.append_all(ask(part).await.unwrap_or_else(|_| refusals(door, Counter::Shutdown, STOPPING, count)));
    }
    answers
}

fn refusals(door: &Door, counter: Counter, text: &'static str, count: usize) -> ReplyBuf {
    door.counters.borrow_mut().add(counter, count as u64);
    let mut replies = ReplyBuf::new(Wire::Item);
    (0..count).for_each(|_| replies.reply(ReplyRef::Error(text.into())));
    replies
}

fn put_text(text: &str, out: &mut ReplyBuf) {
    match text.strip_suffix("\r\n") {
        Some(line) => put_line(line, out),
        None if text.is_empty() => return,
        None => put_line(text, out),
    }
    out.close(ReplyKind::Value);
}

/// Gives a client up whose replies take too much memory, and the replies with it.
fn is_cut(door: &Door, out: &mut ReplyBuf) -> bool {
    let bytes = out.copied_bytes();
    let cut = bytes > OUTPUT_BYTES_CUT;
    if cut {
        door.count(Counter::ConnectionsOutput);
        tracing::warn!(bytes, "memcached client cut off: its replies take too much memory");
        out.clear();
    }
    cut
}

/// Takes note of a flush. As in memcached there is one: it replaces any that was put off before, on this node. Whether it is due at once.
fn put_off(door: &Rc<Door>, entry: &Entry, after_s: u64) -> bool {
    let turn = door.handles.census.next_flush();
    if let Some(before) = door.flush.borrow_mut().take() {
        before.abort();
    }
    if after_s == 0 {
        return true;
    }
    let level = entry.session.borrow().level();
    let begun = door.clone();
    let task = tokio::task::spawn_local(async move {
        tokio::time::sleep(Duration::from_secs(after_s)).await;
        if !begun.handles.census.is_last_flush(turn) || begun.is_stopping() {
            return;
        }
        let deadline = begun.handles.clock.monotonic() + REQUEST_TIMEOUT;
        let requests = vec![Request::Cluster(ClusterOp::Flush)];
        let batch = Batch { requests, together: false, wire: Wire::Item, level, deadline };
        let done = begun.handles.routers[begun.shard].send(batch).await;
        if !done.is_ok_and(|replies| replies.kind(0) == Some(ReplyKind::Value)) {
            tracing::warn!("a flush_all that a client had put off could not be done everywhere");
        }
    });
    door.flush.replace(Some(task.abort_handle()));
    false
}

/// What `stats` tells.
async fn facts(door: &Door) -> StatsFacts {
    let handles = &door.handles;
    let report = handles.report().await;
    let settings = &handles.settings;
    let count = |counter| report.counters.count(counter);
    let calls = |names: &[&str]| -> u64 {
        names.iter().filter_map(|name| report.connections.latencies.get(*name)).map(|latency| latency.count()).sum()
    };
    let memcached = settings.memcached.as_ref();
    let usage = process::usage();
    StatsFacts {
        pid: std::process::id(),
        uptime_s: report.uptime_ms / 1_000,
        now_s: handles.clock.unix_ms() / 1_000,
        trellis_version: env!("CARGO_PKG_VERSION"),
        cpu_user_s: usage.cpu_user_s,
        cpu_system_s: usage.cpu_system_s,
        connections_max: settings.connections_max as u64,
        connections: report.connections.clients as u64,
        connections_total: count(Counter::ConnectionsAccepted),
        connections_rejected: count(Counter::ConnectionsRefused),
        hits: count(Counter::Hits),
        misses: count(Counter::Misses),
        stores: calls(&[
            "memcached_set",
            "memcached_add",
            "memcached_replace",
            "memcached_append",
            "memcached_prepend",
            "memcached_cas",
            "memcached_ms",
        ]),
        flushes: calls(&["memcached_flush_all"]),
        touches: calls(&["memcached_touch", "memcached_gat", "memcached_gats"]),
        metas: calls(&["memcached_mg", "memcached_ms", "memcached_md", "memcached_ma", "memcached_mn", "memcached_me"]),
        too_large: count(Counter::ItemsTooLarge),
        out_of_memory: count(Counter::OutOfMemory),
        bytes_read: report.connections.bytes_in,
        bytes_written: report.connections.bytes_out,
        memory_bytes_max: handles.live.memory_bytes_max(),
        memory_bytes: report.store.memory_bytes as u64,
        keys: report.store.keys as u64,
        threads: handles.routers.len(),
        evictions: count(Counter::Evicted),
        expired: count(Counter::Expired),
        item_bytes_max: memcached.map_or(0, |memcached| memcached.item_bytes_max),
        port: memcached.map_or(0, |memcached| memcached.address.port()),
        host: memcached.map_or_else(String::new, |memcached| memcached.address.ip().to_string()),
        evicts: handles.live.evicts(),
        unix: settings.unix.as_ref().map(|path| path.display().to_string()),
        idle_timeout_s: handles.live.client_timeout_ms().map_or(0, |ms| ms / 1_000),
    }
}
