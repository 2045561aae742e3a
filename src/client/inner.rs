//! What all clones of a client share: the nodes it knows, the routing table and who keeps it fresh, room for what is under way. Exercised
//! by `tests/client.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rand::seq::SliceRandom;
use tokio::sync::{AcquireError, Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Answer, Ask, Message};

use super::clock;
use super::error::{Applied, Error, ErrorKind};
use super::link::{DialError, Lost};
use super::node::Node;
use super::options::Options;
use super::retry::{self, Verdict};
use super::routes::{Address, Table};

/// How often a client that is in use asks for the routing table. What it does not hear by itself, that a member is back, it hears so.
const ROUTES_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the table, however many calls want one.
const ROUTES_PAUSE: Duration = Duration::from_millis(20);
/// Time for the answer of one node.
const ROUTES_ANSWER_MAX: Duration = Duration::from_secs(1);
/// Nodes asked in one turn, the first with a table ends it.
const ROUTES_NODES_MAX: usize = 8;
/// Bytes that one permit stands for.
const ROOM_BYTES: usize = 1024;

/// The shared part of a client.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) options: Options,
    /// `RequestId::router` of this client.
    pub(super) router: u64,
    seeds: Vec<Address>,
    sequence: AtomicU64,
    table: ArcSwap<Table>,
    nodes: Mutex<BTreeMap<Address, Arc<Node>>>,
    ops_room: Semaphore,
    bytes_room: Semaphore,
    is_used: AtomicBool,
    /// The table is wanted now, or never again.
    refresh: Arc<Notify>,
}

/// Room for a call, until dropped.
pub(super) struct Room<'a> {
    _ops: SemaphorePermit<'a>,
    _bytes: SemaphorePermit<'a>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.refresh.notify_one();
    }
}

impl Inner {
    /// Connects to one of the seeds and learns from it who else is there.
    pub(super) async fn start(options: Options, seeds: Vec<Address>) -> Result<Arc<Self>, Error> {
        let refresh = Arc::new(Notify::new());
        let inner = Arc::new(Self {
            // Not zero, which a request without an id has.
            router: rand::random_range(1..=u64::MAX),
            sequence: AtomicU64::new(1),
            table: ArcSwap::default(),
            nodes: Mutex::default(),
            ops_room: Semaphore::new(options.in_flight_max),
            bytes_room: Semaphore::new(options.in_flight_bytes_max / ROOM_BYTES),
            is_used: AtomicBool::new(false),
            refresh: refresh.clone(),
            options,
            seeds,
        });
        inner.refresh().await?;
        tokio::spawn(keep_fresh(Arc::downgrade(&inner), refresh));
        Ok(inner)
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// The node of that address.
    pub(super) fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = self.nodes();
        nodes.entry(address.clone()).or_insert_with(|| Arc::new(Node::new(address.clone()))).clone()
    }

    pub(super) fn is_avoided(&self, address: &str) -> bool {
        self.nodes().get(address).is_some_and(|node| node.is_avoided())
    }

    /// Whether a link to any node is open.
    pub(super) fn is_linked(&self) -> bool {
        self.nodes().values().any(|node| node.is_linked())
    }

    /// All nodes there may be, those first that are likely to answer, and in no order besides: a stranger's clients spread.
    fn candidates(&self) -> Vec<Arc<Node>> {
        let table = self.table();
        let mut addresses: Vec<&Address> = table.members().iter().chain(&self.seeds).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.shuffle(&mut rand::rng());
        let mut nodes: Vec<Arc<Node>> = addresses.into_iter().map(|address| self.node(address)).collect();
        nodes.sort_by_key(|node| (node.is_avoided(), !node.is_linked()));
        nodes
    }

    /// A node to ask what any can answer, unless all are passed over.
    pub(super) fn any_node(&self) -> Option<Arc<Node>> {
        self.candidates().into_iter().next().filter(|node| !node.is_avoided())
    }

    /// Has the table looked at soon.
    pub(super) fn refresh_soon(&self) {
        self.refresh.notify_one();
    }

    /// Fetches the routing table.
    async fn refresh(&self) -> Result<(), Error> {
        for node in self.candidates().into_iter().take(ROUTES_NODES_MAX.max(self.seeds.len())) {
            let known = self.table().mark;
            let call = Call::ask(&Ask::Routes(known));
            let asked = async {
                let link = node.link(&self.options).await.ok()?;
                link.ask(link.room().await.ok()?, &call).await.ok()
            };
            let answer = tokio::time::timeout(ROUTES_ANSWER_MAX, asked).await.ok().flatten();
            match answer.as_deref().map(frame::decode) {
                Some(Ok(Message::Answer { answer: Answer::Routes(told), .. })) => {
                    if let Some(table) = Table::of(&told) {
                        self.adopt(table);
                        return Ok(());
                    }
                }
                Some(Ok(Message::Answer { answer: Answer::Done, .. })) if known != 0 => return Ok(()),
                _ => {}
            }
        }
        Err(self.unreachable(Applied::No))
    }

    /// Takes a table over, and forgets nodes that are no members any more.
    fn adopt(&self, table: Table) {
        let stays = |address: &Address| table.members().contains(address) || self.seeds.contains(address);
        self.nodes().retain(|address, _| stays(address));
        self.table.store(Arc::new(table));
    }

    /// Why no node answers.
    pub(super) fn unreachable(&self, applied: Applied) -> Error {
        let nodes: Vec<Arc<Node>> = self.candidates();
        let refusal = |node: &Arc<Node>| match &*node.failure()? {
            DialError::Io(_) | DialError::Silent => None,
            refused => Some(format!("{} {refused}", node.address)),
        };
        if let Some(refusal) = nodes.iter().find_map(refusal) {
            return Error::new(ErrorKind::Refused, applied, refusal);
        }
        let reason = |node: &Arc<Node>| node.failure().map(|failure| format!("{}: {failure}", node.address));
        let reasons: Vec<String> = nodes.iter().filter_map(reason).take(3).collect();
        let reasons = if reasons.is_empty() { "no node answered".to_owned() } else { reasons.join("; ") };
        let told = if applied == Applied::No { "" } else { ", applied: unknown" };
        Error::new(ErrorKind::Unreachable, applied, format!("{reasons}{told}"))
    }

    /// Waits for room for a call.
    pub(super) async fn room(&self, ops: usize, bytes: usize, deadline: Instant) -> Result<Room<'_>, Error> {
        self.is_used.store(true, Ordering::Relaxed);
        let permits = |wanted: usize, all: usize| u32::try_from(wanted.min(all)).expect("the options bound it");
        let room = async {
            let ops = self.ops_room.acquire_many(permits(ops, self.options.in_flight_max)).await?;
            let all = self.options.in_flight_bytes_max / ROOM_BYTES;
            let bytes = self.bytes_room.acquire_many(permits(bytes.div_ceil(ROOM_BYTES), all)).await?;
            Ok(Room { _ops: ops, _bytes: bytes })
        };
        match tokio::time::timeout_at(deadline, room).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(AcquireError { .. })) => Err(closed()),
            Err(_) => Err(Error::before(ErrorKind::Timeout, "too much is under way already, applied: no")),
        }
    }

    /// Takes no more calls, and waits until those under way are over.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.options.in_flight_max).expect("the options bound it");
        // Nobody gets a permit after this; who has one ends within `TIMEOUT_MAX`.
        let _all = self.ops_room.acquire_many(all).await;
        self.ops_room.close();
        self.nodes().clear();
        self.refresh.notify_one();
    }

    /// Asks one node after another until one answers: `only` that one if given. Whether the question may be asked again after a connection
    /// broke is `repeats`.
    pub(super) async fn ask<T>(
        &self,
        ask: &Ask<'_>,
        (only, repeats): (Option<&Address>, bool),
        deadline: Instant,
        read: impl Fn(Answer<'_>) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        let call = Call::ask(ask);
        let (mut busy, mut last) = (0, None);
        for attempt in 0..retry::ATTEMPTS_MAX {
            let node = only.map(|only| self.node(only)).or_else(|| self.any_node());
            let answer = match &node {
                Some(node) => self.ask_node(node, &call, deadline).await,
                None => Err(Lost::Unsent),
            };
            match answer {
                Ok(payload) => {
                    let error = match frame::decode(&payload) {
                        Ok(Message::Answer { answer: Answer::Failed(line), .. }) => Error::of_line(line.as_bytes()),
                        Ok(Message::Answer { answer, .. }) => match read(answer) {
                            Some(Ok(told)) => return Ok(told),
                            Some(Err(error)) => error,
                            None => return Err(Error::strange("an answer to another question")),
                        },
                        _ => return Err(Error::strange("an answer to another question")),
                    };
                    match (retry::judge(&error, busy), &node) {
                        (Verdict::Final, _) => return Err(error),
                        (Verdict::Elsewhere, Some(node)) => node.avoid(),
                        _ => {}
                    }
                    busy += u32::from(error.kind() == ErrorKind::Busy);
                    last = Some(error);
                }
                Err(Lost::Broken { .. }) if !repeats => {
                    let line = "the connection broke before the answer, applied: unknown";
                    return Err(Error::new(ErrorKind::Unreachable, Applied::Unknown, line));
                }
                Err(_) => {}
            }
            let next = clock::now() + retry::pause(attempt, only.is_none(), rand::random());
            if next >= deadline {
                break;
            }
            tokio::time::sleep_until(next).await;
        }
        Err(last.unwrap_or_else(|| match self.is_linked() {
            true => Error::new(ErrorKind::Timeout, Applied::No, "no answer in time, applied: no"),
            false => self.unreachable(Applied::No),
        }))
    }

    async fn ask_node(&self, node: &Node, call: &Call, deadline: Instant) -> Result<Bytes, Lost> {
        let linked = async {
            let link = node.link(&self.options).await.ok()?;
            Some((link.room().await.ok()?, link))
        };
        let Ok(Some((room, link))) = tokio::time::timeout_at(deadline, linked).await else {
            node.avoid();
            return Err(Lost::Unsent);
        };
        let answer = tokio::time::timeout_at(deadline, link.ask(room, call)).await;
        answer.unwrap_or(Err(Lost::Broken { begins_until: deadline })).inspect_err(|_| node.avoid())
    }
}

fn closed() -> Error {
    Error::before(ErrorKind::Closed, "the client was closed, applied: no")
}

/// Keeps the table of a client fresh while it is in use. Ends with it.
async fn keep_fresh(client: Weak<Inner>, refresh: Arc<Notify>) {
    loop {
        let wanted = tokio::time::timeout(ROUTES_EVERY, refresh.notified()).await.is_ok();
        let Some(inner) = client.upgrade() else { return };
        if inner.ops_room.is_closed() {
            return;
        }
        if inner.is_used.swap(false, Ordering::Relaxed) || wanted {
            // Whoever calls finds out as well that no node answers.
            let _ = inner.refresh().await;
        }
        drop(inner);
        tokio::time::sleep(ROUTES_PAUSE).await;
    }
}
