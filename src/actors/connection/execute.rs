//! From decoded commands to encoded replies: parses each, answers what concerns the connection itself, and hands runs of requests to the
//! router, in order. Never reads or writes a socket.

use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::base::counters::Counter;
use crate::base::level::Level;
use crate::base::limits::{OPS_UNDER_WAY_MAX, OUTPUT_BYTES_CUT, REQUEST_TIMEOUT};
use crate::base::reply::{BUSY, ReplyKind, ReplyRef, ReplySink, STOPPING};
use crate::protocol::request::Request;
use crate::protocol::resp::command::{Command, Context, Parsed, parse};
use crate::protocol::resp::control::{ClientFilter, KillFilter, Replies};
use crate::protocol::resp::encode::ReplyBuf;
use crate::protocol::resp::session::{Facts, Outcome, SessionCommand};
use crate::protocol::resp::slowlog::Told;
use crate::protocol::resp::value::Value;
use crate::protocol::resp::{Args, info};

use super::super::router::Batch;
use super::super::topology;
use super::transaction::{self, Incoming};
use super::{Door, Entry, observe, pause, pubsub};

/// Requests waiting to go to the router together, and the commands they came from.
#[derive(Default)]
pub(super) struct Run {
    pub(super) requests: Vec<Request>,
    pub(super) commands: Vec<&'static Command>,
    /// Of their arguments, wherever those were read to.
    pub(super) bytes: usize,
    /// They are a transaction on keys of one partition.
    pub(super) together: bool,
    /// The level they were sent with; `None` takes the session's. A native connection's session is spoken to by the next command while
    /// this one is held up.
    pub(super) level: Option<Level>,
    /// What the slow log tells of them, should they be slow.
    pub(super) told: SmallVec<[Told; 1]>,
}

/// Commands of a batch that the slow log tells of, for all of them took as long. What is not told need not be kept.
const TOLD_MAX: usize = 8;

impl Run {
    /// The beginning of a command that may follow, to be kept. Of those that make up most traffic, and are never slow by themselves, one
    /// stands for all.
    fn tell(&self, args: &Args) -> Option<Told> {
        let plain = args[0].len() == 3 && args.len() <= 3;
        (self.told.is_empty() || !plain && self.told.len() < TOLD_MAX).then(|| Told::of(args))
    }

    fn push(&mut self, request: Request, (command, bytes): (&'static Command, usize), told: Option<Told>) {
        self.requests.push(request);
        self.commands.push(command);
        self.bytes += bytes;
        self.told.extend(told);
    }

    /// How many of their operations are under way at a time.
    fn ops(&self) -> usize {
        self.requests.iter().map(Request::ops).sum::<usize>().min(OPS_UNDER_WAY_MAX)
    }
}

/// Executes `commands` and appends their replies. False if the connection is to end.
pub(super) async fn batch(door: &Rc<Door>, entry: &Rc<Entry>, commands: &mut Vec<Args>, out: &mut ReplyBuf) -> bool {
    let now = door.now();
    let context = Context { now, value_bytes_max: door.handles.settings.value_bytes_max };
    let mut run = Run { level: Some(entry.session.borrow().level()), ..Run::default() };
    let tells = door.handles.live.slower_than().is_some();
    let mut replies = entry.session.borrow().replies();
    // Takes what the client has said it does not want to hear.
    let mut unheard = ReplyBuf::new(out.wire());
    let mut hears = replies == Replies::On;
    door.counters.borrow_mut().add(Counter::Commands, commands.len() as u64);
    for mut args in commands.drain(..) {
        let bytes: usize = args.iter().map(Bytes::len).sum();
        let told = if tells { run.tell(&args) } else { None };
        let parsed = pubsub::restricted(entry, parse(&mut args, &context));
        let heard = replies == Replies::On || unmutes(entry, &parsed);
        if heard != std::mem::replace(&mut hears, heard) {
            flush(door, entry, &mut run, if heard { &mut unheard } else { &mut *out }).await;
            unheard.clear();
        }
        let out = if heard { &mut *out } else { &mut unheard };
        if door.handles.census.pausing.is_set()
            && let Ok((command, _)) = &parsed
            && let Some(writes) = writes(entry, command)
            && pause::holds(door, writes)
        {
            flush(door, entry, &mut run, out).await;
            pause::wait_out(door, writes).await;
        }
        let is_open = entry.transaction.borrow().is_open();
        let at_once = if is_open { transaction::queue(door, entry, parsed, bytes, out) } else { Some(parsed) };
        match at_once {
            None => {}
            Some(Ok((command, Parsed::Request(request)))) => {
                run.push(request, (command, bytes), told);
                entry.session.borrow_mut().note(command.name, now);
            }
            Some(Ok((command, asked))) => {
                flush(door, entry, &mut run, out).await;
                entry.session.borrow_mut().note(command.name, now);
                let skips = skips_next(&asked, replies);
                let started = door.handles.clock.monotonic();
                if !itself(door, entry, command, asked, out).await || is_cut(door, entry, out) {
                    return false;
                }
                observe::note_slow(door, entry, told.as_slice(), started.elapsed());
                // It may have changed the level of what follows.
                run.level = None;
                replies = entry.session.borrow().replies();
                if skips && replies == Replies::SkipNext {
                    continue;
                }
            }
            Some(Err(error)) => {
                flush(door, entry, &mut run, out).await;
                door.count(Counter::CommandErrors);
                transaction::refused(entry, &error);
                out.push_value(&error.reply());
            }
        }
        if replies == Replies::SkipNext {
            replies = Replies::On;
            entry.session.borrow_mut().skipped();
        }
    }
    flush(door, entry, &mut run, if hears { &mut *out } else { &mut unheard }).await;
    out.set_wire(entry.session.borrow().wire());
    true
}

/// Whether the reply to this is heard by a client that has said it wants none. What is queued changes nothing yet.
fn unmutes(entry: &Entry, parsed: &Incoming) -> bool {
    match parsed {
        Ok((_, Parsed::Session(SessionCommand::Reset))) => true,
        Ok((_, Parsed::Session(asked))) => asked.unmutes() && !entry.transaction.borrow().is_open(),
        Ok((_, Parsed::PubSub(asked))) => asked.is_heard() && !entry.transaction.borrow().is_open(),
        _ => false,
    }
}

/// Whether what may say that a reply is to be skipped means the one after its own. In a transaction that is the one after `EXEC`'s.
fn skips_next(asked: &Parsed, before: Replies) -> bool {
    match asked {
        Parsed::Session(asked) => *asked == SessionCommand::ClientReply(Replies::SkipNext),
        Parsed::Transaction(_) => before == Replies::On,
        Parsed::Request(_) | Parsed::PubSub(_) => false,
    }
}

/// Has the connection do what it does itself. False if it is to end.
async fn itself(door: &Rc<Door>, entry: &Entry, command: &'static Command, asked: Parsed, out: &mut ReplyBuf) -> bool {
    match asked {
        Parsed::Session(asked) => session(door, entry, command, asked, out).await,
        Parsed::Transaction(asked) => transaction::execute(door, entry, command, asked, out).await,
        Parsed::PubSub(asked) => {
            pubsub::execute(door, entry, command, asked, out).await;
            true
        }
        Parsed::Request(_) => unreachable!("the router answers these"),
    }
}

/// Whether `CLIENT PAUSE` may hold a command up as one that writes; `None` if it never does, being the one that ends a pause.
fn writes(entry: &Entry, command: &Command) -> Option<bool> {
    let writes = command.writes() || command.name == "exec" && entry.transaction.borrow().writes();
    (command.name != "client|unpause").then_some(writes)
}

/// Has the router answer the requests gathered so far.
pub(super) async fn flush(door: &Rc<Door>, entry: &Entry, run: &mut Run, out: &mut ReplyBuf) {
    if run.requests.is_empty() {
        return;
    }
    let ops = run.ops();
    let Run { requests, commands, bytes, together, level, told } = std::mem::take(run);
    let count = requests.len();
    if door.is_stopping() {
        return refuse(door, Counter::Shutdown, STOPPING, count, out);
    }
    let room = if door.budget.is_overdrawn() { None } else { door.admission.admit(ops, bytes) };
    let Some(_permit) = room else {
        return refuse(door, Counter::Busy, BUSY, count, out);
    };
    let (wire, level) = {
        let session = entry.session.borrow();
        (session.wire(), level.unwrap_or(session.level()))
    };
    let started = door.handles.clock.monotonic();
    let batch = Batch { requests, together, wire, level, deadline: started + REQUEST_TIMEOUT };
    match door.handles.routers[door.shard].send(batch).await {
        Ok(replies) => out.append_all(replies),
        Err(_) => refuse(door, Counter::Shutdown, STOPPING, count, out),
    }
    let took = started.elapsed();
    record(door, &commands, took);
    observe::note_slow(door, entry, &told, took);
}

/// Gives a client up whose replies take too much memory, and the replies with it.
fn is_cut(door: &Door, entry: &Entry, out: &mut ReplyBuf) -> bool {
    let bytes = out.copied_bytes();
    let cut = bytes > OUTPUT_BYTES_CUT;
    if cut {
        door.count(Counter::ConnectionsOutput);
        tracing::warn!(client = entry.session.borrow().id(), bytes, "client cut off: its replies take too much memory");
        out.clear();
    }
    cut
}

pub(super) fn refuse(door: &Door, counter: Counter, text: &'static str, count: usize, out: &mut ReplyBuf) {
    door.counters.borrow_mut().add(counter, count as u64);
    for _ in 0..count {
        out.reply(ReplyRef::Error(text.into()));
    }
}

/// Notes the latency of each command: that of the batch it travelled in, which is what its client saw.
pub(super) fn record(door: &Door, commands: &[&'static Command], latency: std::time::Duration) {
    let mut latencies = door.latencies.borrow_mut();
    for same in commands.chunk_by(|a, b| std::ptr::eq(*a, *b)) {
        latencies.entry(same[0].name).or_default().record(latency, same.len() as u64);
    }
}

/// Answers a command that concerns the connection itself. False if the connection is to end.
pub(super) async fn session(
    door: &Rc<Door>,
    entry: &Entry,
    command: &'static Command,
    asked: SessionCommand,
    out: &mut ReplyBuf,
) -> bool {
    let started = door.handles.clock.monotonic();
    if asked == SessionCommand::Reset {
        entry.transaction.borrow_mut().reset();
        entry.session.borrow_mut().note_queued(None);
        pubsub::reset(door, entry, out).await;
    }
    let outcome = {
        let shown = door.handles.live.shown();
        let facts = Facts { now_us: door.handles.clock.unix_us(), config: &shown };
        entry.session.borrow_mut().execute(asked, &facts)
    };
    out.set_wire(entry.session.borrow().wire());
    let mut open = true;
    let before = out.replies();
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
        Outcome::Nothing => {}
        Outcome::Pause(pause) => {
            let pausing = &door.handles.census.pausing;
            pause.map_or_else(|| pausing.end(), |pause| pausing.begin(pause, door.now()));
            out.push_value(&Value::OK);
        }
        Outcome::Kill(filter) => open = kill(door, entry, &filter, out).await,
        Outcome::Change(changes) => out.push_value(&observe::change(door, &changes).await),
        Outcome::ResetStatistics => out.push_value(&observe::reset_statistics(door).await),
        Outcome::SlowLog(ask) => out.push_value(&observe::slow_log(door, ask).await),
        Outcome::Histograms(names) => out.push_value(&observe::histograms(door, &names).await),
        Outcome::Cluster(ask) => out.push_value(&topology::answer(&door.handles, ask).await),
    }
    if out.kind(before) == Some(ReplyKind::Error) {
        door.count(Counter::CommandErrors);
    }
    record(door, &[command], started.elapsed());
    open
}

/// Answers `CLIENT KILL`. False if the connection that asks is among those to end.
async fn kill(door: &Door, entry: &Entry, filter: &KillFilter, out: &mut ReplyBuf) -> bool {
    let (me, suicide) = {
        let session = entry.session.borrow();
        (session.id(), !filter.skip_me && session.fits(filter))
    };
    let killed = door.handles.kill_clients(filter, me).await + u64::from(suicide);
    if suicide {
        door.count(Counter::ConnectionsKilled);
    }
    out.push_value(&match (filter.by_address, killed) {
        (true, 0) => Value::error("ERR No such client"),
        (true, _) => Value::OK,
        (false, killed) => Value::Int(i64::try_from(killed).unwrap_or(i64::MAX)),
    });
    !suicide
}

/// The lines of `CLIENT LIST`, over all arbiters.
async fn clients(door: &Door, filter: &ClientFilter) -> Bytes {
    let kind = if let ClientFilter::Kind(kind) = filter { Some(*kind) } else { None };
    let mut lines = door.handles.clients(kind).await;
    lines.sort_by_key(|(id, _)| *id);
    let chosen: Vec<&(u64, String)> = match filter {
        ClientFilter::All | ClientFilter::Kind(_) => lines.iter().collect(),
        ClientFilter::Ids(ids) => named(&lines, ids),
    };
    chosen.iter().flat_map(|(_, line)| [line.trim_end(), "\n"]).collect::<String>().into()
}

/// Those of `lines`, which are in the order of their ids, that `ids` name: in that order, each once, however often it is named.
fn named<'a>(lines: &'a [(u64, String)], ids: &[u64]) -> Vec<&'a (u64, String)> {
    let mut left: Vec<Option<&(u64, String)>> = lines.iter().map(Some).collect();
    let place = |id: &u64| lines.binary_search_by_key(id, |(known, _)| *known).ok();
    ids.iter().filter_map(|id| left[place(id)?].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::op::{Act, Op};
    use crate::protocol::request::Gather;

    #[test]
    fn each_client_is_listed_once_in_the_order_asked_for() {
        let lines: Vec<(u64, String)> = (1..=20_000).map(|id| (id * 2, id.to_string())).collect();
        let asked: Vec<u64> = [8, 3, 2, 8].into_iter().chain((0..1_000_000).map(|n| n % 9)).collect();
        let found: Vec<u64> = named(&lines, &asked).iter().map(|(id, _)| *id).collect();
        assert_eq!(found, [8, 2, 4, 6]);
    }

    #[test]
    fn operations_are_counted_not_commands_and_only_those_under_way() {
        let op = || Op::new(Bytes::from_static(b"k"), Act::Exists);
        let run = |ops: usize| Run {
            requests: vec![Request::One(op()), Request::Many(Gather::Sum, (0..ops).map(|_| op()).collect())],
            ..Run::default()
        };
        assert_eq!((run(99).ops(), run(1_000_000).ops()), (100, OPS_UNDER_WAY_MAX));
    }
}
