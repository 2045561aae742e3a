//! The life of a native connection, of a peer or of `trellis-cli`: the greeting, then frames in and answers out. Each frame is worked on by
//! itself, because a request that waits for a quorum must not hold up the acknowledgements behind it. What a frame asks for is in `peer`.

use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::base::counters::Counter;
use crate::base::limits::{FRAME_BYTES_MAX, HELLO_MAX, READ_CHUNK_BYTES};
use crate::net::Stream;
use crate::net::write::write_chunks;
use crate::protocol::native::frame::{self, FrameError};
use crate::protocol::native::{Message, PREFACE, VERSION, Welcome};

use super::{Door, Entry, Role, Waits, peer};

/// The longest greeting.
const HELLO_BYTES_MAX: usize = 1024;
/// Answers joined into one write.
const ANSWERS_PER_WRITE: usize = 256;
/// Frames that may be worked on before no more are read.
const FRAMES_UNDER_WAY_MAX: usize = 64 * 1024;

/// Why the connection ends before its time.
enum End {
    Hangup,
    Broken(FrameError),
    Stranger(&'static str),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Hangup
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Broken(error)
    }
}

/// Serves the connection to its end.
pub(super) async fn serve(door: &Rc<Door>, entry: &Rc<Entry>, mut stream: Stream, mut buf: BytesMut) {
    entry.waits.set(Waits::Request { since: door.handles.clock.monotonic(), bytes: 0 });
    let greeted = tokio::time::timeout(HELLO_MAX, greet(door, entry, &mut stream, &mut buf)).await;
    let greeted = greeted.unwrap_or(Err(End::Stranger("no greeting in time")));
    let reason = match greeted {
        Ok(()) => match carry(door, entry, stream, buf).await {
            Err(End::Broken(error)) => {
                door.count(Counter::NativeErrors);
                tracing::warn!(client = entry.session.borrow().id(), %error, "native connection closed");
                return;
            }
            _ => return,
        },
        Err(End::Hangup) => return,
        Err(End::Stranger(reason)) => {
            door.count(Counter::NativeStrangers);
            reason.to_owned()
        }
        Err(End::Broken(error)) => {
            door.count(Counter::NativeErrors);
            error.to_string()
        }
    };
    tracing::warn!(from = ?stream.peer_address(), reason, "native connection refused");
    let _ = stream.write_all(&frame::to_bytes(&Message::Refused { reason: &reason })).await;
    let _ = stream.shutdown().await;
}

async fn greet(door: &Rc<Door>, entry: &Entry, stream: &mut Stream, buf: &mut BytesMut) -> Result<(), End> {
    while buf.len() < PREFACE.len() {
        if !PREFACE.starts_with(buf) || stream.read_buf(buf).await? == 0 {
            break;
        }
    }
    let same = buf.iter().zip(PREFACE).take_while(|(a, b)| **a == *b).count();
    if same < PREFACE.len() {
        let is_version = same == PREFACE.len() - 1 && buf.len() > same;
        return Err(End::Stranger(if is_version { OTHER_VERSION } else { "not the native protocol" }));
    }
    buf.advance(PREFACE.len());
    let payload = loop {
        if let Some(payload) = frame::cut(buf, HELLO_BYTES_MAX)? {
            break payload;
        }
        if stream.read_buf(buf).await? == 0 {
            return Err(End::Hangup);
        }
    };
    let Message::Hello(hello) = frame::decode(&payload)? else { return Err(End::Stranger("a hello must come first")) };
    let identity = &door.handles.identity;
    if hello.cluster != identity.cluster.as_str() {
        return Err(End::Stranger("another cluster name"));
    }
    if hello.peer.as_ref().and_then(|peer| peer.expects).is_some_and(|expected| expected != identity.node.as_str()) {
        return Err(End::Stranger("another node answers here"));
    }
    let role = if hello.peer.is_some() { Role::Peer } else { Role::Client };
    if !entry.seat.settle(role) {
        door.count(Counter::ConnectionsRefused);
        return Err(End::Stranger("no room for one more connection"));
    }
    let welcome = Welcome { node: identity.node.as_str(), incarnation: identity.incarnation, now_ms: door.now() };
    stream.write_all(&frame::to_bytes(&Message::Welcome(welcome))).await?;
    Ok(())
}

const OTHER_VERSION: &str = "another version of the native protocol";
const _: () = assert!(VERSION == PREFACE[4], "the preface carries the version");

async fn carry(door: &Rc<Door>, entry: &Rc<Entry>, stream: Stream, buf: BytesMut) -> Result<(), End> {
    let (from, to) = tokio::io::split(stream);
    // Unbounded, because what enters it answers what was read, and reading stops when too much waits.
    let (answers, waiting) = mpsc::unbounded_channel();
    let mut writing = std::pin::pin!(write(door, entry, to, waiting));
    let read = tokio::select! {
        end = &mut writing => return end,
        end = read(door, entry, from, buf, answers) => end,
    };
    // Answers under way still go out: the other side may have closed only its writing end.
    read?;
    writing.await
}

async fn read(
    door: &Rc<Door>,
    entry: &Rc<Entry>,
    mut from: impl AsyncReadExt + Unpin,
    mut buf: BytesMut,
    answers: mpsc::UnboundedSender<Bytes>,
) -> Result<(), End> {
    let mut unanswered = Vec::new();
    loop {
        while let Some(payload) = frame::cut(&mut buf, FRAME_BYTES_MAX)? {
            entry.waits.set(Waits::Us);
            let task = peer::take(door, entry, payload, &answers)?;
            unanswered.extend(task);
        }
        if unanswered.len() > FRAMES_UNDER_WAY_MAX {
            futures_util::future::join_all(unanswered.drain(..)).await;
        }
        unanswered.retain(|task: &tokio::task::JoinHandle<()>| !task.is_finished());
        if unanswered.is_empty() && buf.is_empty() {
            entry.waits.set(Waits::Idle);
        }
        buf.reserve(READ_CHUNK_BYTES);
        let read = from.read_buf(&mut buf).await?;
        if read == 0 {
            futures_util::future::join_all(unanswered.drain(..)).await;
            return Ok(());
        }
        door.bytes_in.set(door.bytes_in.get() + read as u64);
        entry.session.borrow_mut().note("native", door.now());
    }
}

async fn write(
    door: &Rc<Door>,
    entry: &Rc<Entry>,
    mut to: impl AsyncWriteExt + Unpin,
    mut waiting: mpsc::UnboundedReceiver<Bytes>,
) -> Result<(), End> {
    let mut chunks = Vec::with_capacity(ANSWERS_PER_WRITE);
    while waiting.recv_many(&mut chunks, ANSWERS_PER_WRITE).await > 0 {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        let before = entry.waits.replace(Waits::Stalled { since: door.handles.clock.monotonic() });
        write_chunks(&mut to, &mut chunks).await?;
        entry.waits.set(before);
        door.bytes_out.set(door.bytes_out.get() + bytes as u64);
    }
    Ok(())
}
