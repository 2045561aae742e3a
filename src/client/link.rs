//! One connection to one node: dials and greets, then carries requests and answers by their ids, any number at a time, until either side
//! ends or the node falls silent. Never retries. Exercised by `tests/client.rs`; tested below against scripted nodes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::base::limits::{CLIENT_FRAMES_UNDER_WAY_MAX, FRAME_BYTES_MAX, READ_CHUNK_BYTES};
use crate::net::write::write_chunks_noting;
use crate::net::{Net, Stream};
use crate::protocol::native::assembly::Assembly;
use crate::protocol::native::frame::{self, Call, FrameError};
use crate::protocol::native::{Ask, Hello, Message, PREFACE};

use super::clock;

/// Time for a connection to come about.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Time for a node to greet back.
const WELCOME_MAX: Duration = Duration::from_secs(2);
/// The longest greeting.
const WELCOME_BYTES_MAX: usize = 1024;
/// A node that owes answers and says nothing for this long is asked whether it is there.
const SILENCE_ASKED: Duration = Duration::from_millis(500);
/// Such pauses in a row, the first of which it was asked after, until the connection is given up.
const SILENCES_MAX: u32 = 2;
/// What the kernels of both sides may take of what is written without the node having read any. Bytes beyond it are a sign of life.
const KERNEL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A request may be begun within this time of its sending, and two round trips. Then, if the connection is lost, it is tried elsewhere.
const BEGINS_WITHIN: Duration = Duration::from_millis(500);
/// Requests of a connection that have no answer yet: a node with more to do reads no more, and would not find the question whether it is there.
const REQUESTS_MAX: usize = CLIENT_FRAMES_UNDER_WAY_MAX - 1;
/// Slowest way to a node that large requests are not late on.
const BYTES_PER_SEC_MIN: u64 = 8 * 1024 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    #[error("no greeting in time")]
    Silent,
    #[error("refused: {0}")]
    Refused(String),
    #[error("not the native protocol: {0}")]
    Protocol(String),
    #[error("it speaks HTTP: this looks like the admin port, not the main port")]
    Http,
}

impl From<FrameError> for DialError {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It was not sent.
    Unsent,
    /// It may have been done, or begun with until then.
    Broken {
        /// The node refuses to begin with it after this moment without asking others.
        begins_until: Instant,
    },
}

/// An open connection. Who asks holds it: dropped, it closes.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    /// The node's clock, Unix milliseconds, as it was at the latest at that moment.
    their_ms: (u64, Instant),
    begins_within: Duration,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or nothing will be any more.
    wake: Notify,
    room: Arc<Semaphore>,
}

/// Room for one request, until it is answered.
#[derive(Debug)]
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

/// A request without an answer. Its caller may have gone; the node works on it all the same.
#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Result<Bytes, ()>>,
    _room: Room,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(u64, Bytes)>,
    queued_bytes: usize,
    waiting: HashMap<u64, Waiting>,
    last_id: u64,
    /// Nobody asks or waits any more.
    is_leaving: bool,
    is_closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing comes over this connection any more. What was not sent can be told from what may have arrived.
    fn close(&self) {
        self.room.close();
        let mut state = self.state();
        state.is_closed = true;
        for (id, _) in std::mem::take(&mut state.queue) {
            if let Some(waiting) = state.waiting.remove(&id) {
                let _ = waiting.answer.send(Err(()));
            }
        }
        state.waiting.clear();
        drop(state);
        self.wake.notify_one();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.state().is_leaving = true;
        self.shared.wake.notify_one();
    }
}

impl Link {
    /// Connects to a node of `cluster` at `address`, a `host:port`, and greets it.
    pub(super) async fn dial(net: Net, address: &str, cluster: &str) -> Result<Self, DialError> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in net.resolve(address).await? {
            match net.connect(address, CONNECT_MAX).await {
                Ok(stream) => {
                    let greeted = tokio::time::timeout(WELCOME_MAX, Self::greet(stream, cluster));
                    return greeted.await.unwrap_or(Err(DialError::Silent));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure.into())
    }

    async fn greet(mut stream: Stream, cluster: &str) -> Result<Self, DialError> {
        let asked = clock::now();
        let mut greeting = PREFACE.to_vec();
        frame::encode(&Message::Hello(Hello { cluster, peer: None }), &mut greeting);
        // Who refuses may hang up at once; but its reason can still be read.
        let sent = stream.write_all(&greeting).await;
        let mut buf = BytesMut::with_capacity(READ_CHUNK_BYTES);
        let payload = loop {
            if buf.starts_with(b"HTTP") {
                return Err(DialError::Http);
            }
            if let Some(payload) = frame::cut(&mut buf, WELCOME_BYTES_MAX)? {
                break payload;
            }
            if stream.read_buf(&mut buf).await? == 0 {
                sent?;
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        let their_ms = match frame::decode(&payload)? {
            Message::Welcome(welcome) => welcome.now_ms,
            Message::Refused { reason } => return Err(DialError::Refused(reason.to_owned())),
            _ => return Err(DialError::Protocol("no welcome".into())),
        };
        let now = clock::now();
        let room = Arc::new(Semaphore::new(REQUESTS_MAX));
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Notify::new(), room });
        tokio::spawn(carry(stream, buf, shared.clone()));
        let begins_within = BEGINS_WITHIN + 2 * now.saturating_duration_since(asked);
        Ok(Self { shared, their_ms: (their_ms, now), begins_within })
    }

    /// Whether requests can be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.shared.state().is_closed
    }

    /// How many requests are under way.
    pub(super) fn under_way(&self) -> usize {
        self.shared.state().waiting.len()
    }

    /// What the node's clock showed at `moment`, or less: it is not known how long its greeting took.
    pub(super) fn their_ms(&self, moment: Instant) -> u64 {
        let (ms, at) = self.their_ms;
        let apart = |later: Instant, sooner: Instant| later.saturating_duration_since(sooner).as_millis() as u64;
        ms.saturating_add(apart(moment, at)).saturating_sub(apart(at, moment))
    }

    /// Waits until the node has room for one more request. An error says that the connection is lost.
    pub(super) async fn room(&self) -> Result<Room, Lost> {
        let permit = self.shared.room.clone().acquire_owned().await;
        permit.map(|permit| Room { _permit: permit }).map_err(|_| Lost::Unsent)
    }

    /// Sends a request and awaits its answer, a frame's payload.
    pub(super) async fn ask(&self, room: Room, call: &Call) -> Result<Bytes, Lost> {
        let (begins_until, answer) = {
            let mut state = self.shared.state();
            if state.is_closed {
                return Err(Lost::Unsent);
            }
            let way = (state.queued_bytes + call.bytes()) as u64 * 1000 / BYTES_PER_SEC_MIN;
            let begins_until = clock::now() + self.begins_within + Duration::from_millis(way);
            state.last_id += 1;
            let id = state.last_id;
            let frame = call.frame(id, self.their_ms(begins_until));
            state.queued_bytes += frame.len();
            state.queue.push_back((id, frame));
            let (sender, answer) = oneshot::channel();
            state.waiting.insert(id, Waiting { answer: sender, _room: room });
            (begins_until, answer)
        };
        self.shared.wake.notify_one();
        match answer.await {
            Ok(Ok(payload)) => Ok(payload),
            Ok(Err(())) => Err(Lost::Unsent),
            Err(_) => Err(Lost::Broken { begins_until }),
        }
    }
}

/// Ends a connection whose task ends, even with its runtime.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Carries frames both ways to the end of the connection.
async fn carry(stream: Stream, buf: BytesMut, shared: Arc<Shared>) {
    let _ending = Ending(shared.clone());
    let (from, to) = tokio::io::split(stream);
    let life = Notify::new();
    tokio::select! {
        () = read(from, buf, &shared, &life) => {}
        _ = write(to, &shared, &life) => {}
    }
}

async fn write(mut to: impl AsyncWriteExt + Unpin, shared: &Shared, life: &Notify) -> io::Result<()> {
    let mut chunks = Vec::new();
    loop {
        let is_done = {
            let mut state = shared.state();
            state.queued_bytes = 0;
            for (id, frame) in std::mem::take(&mut state.queue) {
                // A ping is not in the list. What nobody waits for any more is not sent.
                let is_wanted = state.waiting.get(&id).is_some_and(|waiting| !waiting.answer.is_closed());
                if is_wanted || id == PING_ID {
                    chunks.push(frame);
                } else {
                    state.waiting.remove(&id);
                }
            }
            state.is_leaving
        };
        if chunks.is_empty() {
            if is_done {
                return to.shutdown().await;
            }
            shared.wake.notified().await;
            continue;
        }
        let mut written = 0;
        let wrote = |bytes: usize| {
            written += bytes;
            if written > KERNEL_BYTES_MAX {
                life.notify_one();
            }
        };
        write_chunks_noting(&mut to, &mut chunks, wrote).await?;
    }
}

/// The id of pings, whose answers nobody waits for.
const PING_ID: u64 = 0;

async fn read(mut from: impl AsyncReadExt + Unpin, buf: BytesMut, shared: &Shared, life: &Notify) {
    let (mut frames, mut silences) = (Assembly::new(buf), 0);
    loop {
        loop {
            match frames.cut(FRAME_BYTES_MAX) {
                Ok(Some(payload)) => match answered(shared, payload) {
                    true => {}
                    // A node's last word, or what is no word of the protocol.
                    false => return,
                },
                Ok(None) => break,
                Err(_) => return,
            }
        }
        tokio::select! {
            read = from.read_buf(frames.read_target()) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => silences = 0,
            },
            () = life.notified() => silences = 0,
            () = tokio::time::sleep(SILENCE_ASKED) => {
                silences = if shared.state().waiting.is_empty() { 0 } else { silences + 1 };
                if silences >= SILENCES_MAX {
                    return;
                }
                if silences == 1 {
                    let ping = frame::to_bytes(&Message::Ask { id: PING_ID, ask: Ask::Ping });
                    shared.state().queue.push_back((PING_ID, ping));
                    shared.wake.notify_one();
                }
            }
        }
    }
}

/// Hands an answer to whoever waits for it. False if it is none.
fn answered(shared: &Shared, payload: Bytes) -> bool {
    let Some(id) = frame::answered_id(&payload) else { return false };
    let waiting = shared.state().waiting.remove(&id);
    if let Some(waiting) = waiting {
        let _ = waiting.answer.send(Ok(payload));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Listener;
    use crate::protocol::native::{Answer, Welcome};
    use futures_util::future::join_all;

    const WELCOME: Message<'static> = Message::Welcome(Welcome { node: "a", incarnation: 1, now_ms: 70_000 });

    /// A node that says `script`, one part for each request after the greeting, and what it heard.
    async fn node(script: Vec<Vec<u8>>) -> (String, tokio::task::JoinHandle<()>) {
        let listener = Net::Os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap().unwrap().to_string();
        let serve = tokio::spawn(async move {
            let mut stream = Listener::accept(&listener).await.unwrap();
            let mut buf = BytesMut::new();
            stream.read_buf(&mut buf).await.unwrap();
            for part in script {
                stream.write_all(&part).await.unwrap();
            }
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        (address, serve)
    }

    fn bytes(message: &Message<'_>) -> Vec<u8> {
        frame::to_bytes(message).to_vec()
    }

    fn pong(id: u64) -> Vec<u8> {
        bytes(&Message::Answer { id, answer: Answer::Pong })
    }

    fn ping() -> Call {
        Call::ask(&Ask::Ping)
    }

    #[tokio::test]
    async fn answers_find_who_asked_in_any_order_and_others_are_dropped() {
        let (address, serve) = node(vec![bytes(&WELCOME), pong(9), pong(2), pong(1)]).await;
        let link = Link::dial(Net::Os, &address, "trellis").await.unwrap();
        let (one, two) = tokio::join!(ask(&link), ask(&link));
        let id = |answer: Result<Bytes, Lost>| frame::answered_id(&answer.unwrap());
        assert_eq!((id(one), id(two)), (Some(1), Some(2)));
        assert_eq!(link.under_way(), 0);
        // Dropped, the connection ends, and with it the node's script.
        drop(link);
        serve.await.unwrap();
    }

    #[tokio::test]
    async fn each_way_not_to_be_greeted_has_its_error() {
        async fn dial(first: Vec<u8>) -> DialError {
            let (address, _serve) = node(vec![first]).await;
            Link::dial(Net::Os, &address, "trellis").await.unwrap_err()
        }
        let refused = Message::Refused { reason: "another cluster name" };
        assert!(matches!(dial(bytes(&refused)).await, DialError::Refused(reason) if reason == "another cluster name"));
        assert!(matches!(dial(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await, DialError::Http));
        assert!(matches!(dial(pong(1)).await, DialError::Protocol(_)));
        assert!(matches!(dial(b"-ERR what is this\r\n".to_vec()).await, DialError::Protocol(_)));
        let absent = Link::dial(Net::Os, "127.0.0.1:1", "trellis").await;
        assert!(matches!(absent, Err(DialError::Io(_))));
    }

    #[tokio::test]
    async fn a_broken_connection_leaves_doubt_and_takes_no_more() {
        // What is no answer ends it.
        let (address, _serve) = node(vec![bytes(&WELCOME), bytes(&WELCOME)]).await;
        let link = Link::dial(Net::Os, &address, "trellis").await.unwrap();
        let lost = ask(&link).await;
        assert!(matches!(lost, Err(Lost::Broken { .. } | Lost::Unsent)), "{lost:?}");
        while link.is_open() {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&link).await, Err(Lost::Unsent));
    }

    #[tokio::test]
    async fn a_silent_node_is_given_up_after_a_while() {
        let (address, _serve) = node(vec![bytes(&WELCOME)]).await;
        let link = Link::dial(Net::Os, &address, "trellis").await.unwrap();
        let asked = clock::now();
        assert!(matches!(ask(&link).await, Err(Lost::Broken { .. })));
        assert!(clock::now() - asked >= SILENCE_ASKED * SILENCES_MAX);
    }

    #[tokio::test]
    async fn a_moment_on_the_nodes_clock_is_never_reckoned_too_late() {
        let (address, _serve) = node(vec![bytes(&WELCOME)]).await;
        let link = Link::dial(Net::Os, &address, "trellis").await.unwrap();
        let at = link.their_ms.1;
        let second = Duration::from_secs(1);
        assert_eq!([at - second, at, at + second].map(|moment| link.their_ms(moment)), [69_000, 70_000, 71_000]);
    }

    async fn ask(link: &Link) -> Result<Bytes, Lost> {
        link.ask(link.room().await?, &ping()).await
    }

    /// A node that holds its answers back until it is asked whether it is there. It works on as many frames of a connection as nodes do: with
    /// so many it would not hear that question any more, and hangs up.
    async fn busy_node() -> String {
        let listener = Net::Os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap().unwrap().to_string();
        tokio::spawn(async move {
            let mut stream = Listener::accept(&listener).await.unwrap();
            let (mut buf, mut held, mut is_asked) = (BytesMut::new(), Vec::new(), false);
            while held.len() < CLIENT_FRAMES_UNDER_WAY_MAX && stream.read_buf(&mut buf).await.is_ok_and(|read| read > 0)
            {
                if buf.starts_with(&PREFACE) {
                    let _ = buf.split_to(PREFACE.len());
                }
                while let Some(payload) = frame::cut(&mut buf, FRAME_BYTES_MAX).unwrap() {
                    match frame::decode(&payload).unwrap() {
                        Message::Hello(_) => stream.write_all(&bytes(&WELCOME)).await.unwrap(),
                        Message::Ask { id, .. } => {
                            is_asked |= id == PING_ID;
                            held.push(id);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                if is_asked {
                    let pongs: Vec<u8> = held.drain(..).flat_map(pong).collect();
                    stream.write_all(&pongs).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_node_with_as_much_to_do_as_it_takes_is_not_taken_for_dead() {
        let link = Link::dial(Net::Os, &busy_node().await, "trellis").await.unwrap();
        let told = join_all((0..2 * CLIENT_FRAMES_UNDER_WAY_MAX).map(|_| ask(&link))).await;
        assert!(told.iter().all(Result::is_ok), "{:?}", told.iter().find(|told| told.is_err()));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_takes_its_room_until_it_is_answered() {
        let link = Link::dial(Net::Os, &busy_node().await, "trellis").await.unwrap();
        let sent = async {
            while link.under_way() < REQUESTS_MAX || !link.shared.state().queue.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            told = join_all((0..REQUESTS_MAX).map(|_| ask(&link))) => panic!("{told:?}"),
            () = sent => {}
        }
        assert!(tokio::time::timeout(Duration::ZERO, link.room()).await.is_err());
        assert!(ask(&link).await.is_ok());
        assert_eq!(link.under_way(), 0);
    }
}
