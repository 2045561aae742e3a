//! The life of a native connection, of a peer or of `trellis-cli`: the greeting, then frames in and answers out. Each frame is worked on by
//! itself, because a request that waits for a quorum must not hold up the acknowledgements behind it. What a frame asks for is in `peer`.
//! Reading stops while too much is owed; what the other side is late with, reading and writing each, the actor looks at. Tested below.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::id::ClusterName;
use crate::base::limits::{CLIENT_FRAMES_UNDER_WAY_MAX, FRAME_BYTES_MAX, HELLO_MAX};
use crate::net::Stream;
use crate::net::write::write_chunks_noting;
use crate::protocol::native::assembly::Assembly;
use crate::protocol::native::frame::{self, FrameError};
use crate::protocol::native::{Message, OTHER_CLUSTER, PREFACE, VERSION, Welcome};

use super::answers::Answers;
use super::{Door, Entry, Role, Waits, peer};

/// The longest greeting.
const HELLO_BYTES_MAX: usize = 1024;
/// At most one log line for refused or broken connections in this time, on each arbiter: who makes noise must not fill a disk.
const REFUSAL_LOG_EVERY: Duration = Duration::from_secs(10);
/// Frames of a peer that may be worked on before no more are read.
const PEER_FRAMES_UNDER_WAY_MAX: usize = 64 * 1024;

/// Why the connection ends before its time.
enum End {
    Hangup,
    Broken(FrameError),
    Stranger(Cow<'static, str>),
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
    let greeted = greeted.unwrap_or(Err(End::Stranger("no greeting in time".into())));
    let reason = match greeted {
        Ok(()) => match carry(door, entry, stream, buf).await {
            Err(End::Broken(error)) => {
                door.count(Counter::NativeErrors);
                if log_due(&door.refusal_logged, door.handles.clock.monotonic()) {
                    tracing::warn!(client = entry.session.borrow().id(), %error, "native connection closed");
                }
                return;
            }
            _ => return,
        },
        Err(End::Hangup) => return,
        Err(End::Stranger(reason)) => {
            door.count(Counter::NativeStrangers);
            reason.into_owned()
        }
        Err(End::Broken(error)) => {
            door.count(Counter::NativeErrors);
            error.to_string()
        }
    };
    if log_due(&door.refusal_logged, door.handles.clock.monotonic()) {
        tracing::warn!(from = ?stream.peer_address(), reason, "native connection refused");
    }
    let _ = stream.write_all(&frame::to_bytes(&Message::Refused { reason: &reason })).await;
    let _ = stream.shutdown().await;
}

/// Whether a line may be written now; notes that it was.
fn log_due(last: &Cell<Option<Instant>>, now: Instant) -> bool {
    let due = last.get().is_none_or(|at| now - at >= REFUSAL_LOG_EVERY);
    if due {
        last.set(Some(now));
    }
    due
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
        let reason = if is_version { OTHER_VERSION } else { "not the native protocol" };
        return Err(End::Stranger(reason.into()));
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
    let Message::Hello(hello) = frame::decode(&payload)? else {
        return Err(End::Stranger("a hello must come first".into()));
    };
    let identity = &door.handles.identity;
    if hello.cluster != identity.cluster.as_str() {
        return Err(End::Stranger(other_cluster(hello.cluster, &identity.cluster).into()));
    }
    if hello.peer.as_ref().and_then(|peer| peer.expects).is_some_and(|expected| expected != identity.node.as_str()) {
        return Err(End::Stranger("another node answers here".into()));
    }
    let role = if hello.peer.is_some() { Role::Peer } else { Role::Client };
    if !entry.seat.settle(role) {
        door.count(Counter::ConnectionsRefused);
        return Err(End::Stranger("no room for one more connection".into()));
    }
    let welcome = Welcome { node: identity.node.as_str(), incarnation: identity.incarnation, now_ms: door.now() };
    stream.write_all(&frame::to_bytes(&Message::Welcome(welcome))).await?;
    entry.waits.set(Waits::Us);
    Ok(())
}

/// Tells both names to both sides: whoever got one of them wrong must see it. What is no name is not repeated.
fn other_cluster(theirs: &str, ours: &ClusterName) -> String {
    match theirs.parse::<ClusterName>() {
        Ok(theirs) => format!("{OTHER_CLUSTER}: `{theirs}` where this is `{ours}`"),
        Err(_) => format!("{OTHER_CLUSTER}: none where this is `{ours}`"),
    }
}

const OTHER_VERSION: &str = "another version of the native protocol";
const _: () = assert!(VERSION == PREFACE[4], "the preface carries the version");

async fn carry(door: &Rc<Door>, entry: &Rc<Entry>, stream: Stream, buf: BytesMut) -> Result<(), End> {
    let (from, to) = tokio::io::split(stream);
    let answers = Rc::new(Answers::default());
    let mut writing = std::pin::pin!(write(door, entry, to, &answers));
    let read = tokio::select! {
        biased;
        end = &mut writing => return end,
        end = read(door, entry, from, buf, &answers) => end,
    };
    match &read {
        Ok(()) => {}
        Err(End::Broken(error)) => answers.send(frame::to_bytes(&Message::Refused { reason: &error.to_string() })),
        Err(_) => return read,
    }
    // Answers still go out: the other side may have closed only its writing end.
    answers.close();
    let written = writing.await;
    read.and(written)
}

async fn read(
    door: &Rc<Door>,
    entry: &Rc<Entry>,
    mut from: impl AsyncReadExt + Unpin,
    buf: BytesMut,
    answers: &Rc<Answers>,
) -> Result<(), End> {
    let mut frames = Assembly::new(buf);
    let is_peer = entry.is_peer();
    let frames_max = if is_peer { PEER_FRAMES_UNDER_WAY_MAX } else { CLIENT_FRAMES_UNDER_WAY_MAX };
    loop {
        while answers.has_room(frames_max)
            && let Some(payload) = frames.cut(FRAME_BYTES_MAX)?
        {
            entry.waits.set(Waits::Us);
            peer::take(door, entry, payload, answers)?;
        }
        if !answers.has_room(frames_max) {
            entry.waits.set(Waits::Us);
            answers.went().await;
            continue;
        }
        let now = || door.handles.clock.monotonic();
        entry.waits.set(next_wait(entry.waits.get(), frames.held_bytes(), answers.is_idle(), now));
        let read = tokio::select! {
            biased;
            read = from.read_buf(frames.read_target()) => read?,
            // A client is idle from its last answer on.
            () = answers.went(), if !is_peer => continue,
        };
        if read == 0 {
            while !answers.is_idle() {
                answers.went().await;
            }
            return Ok(());
        }
        door.bytes_in.set(door.bytes_in.get() + read as u64);
        entry.session.borrow_mut().note("native", door.now());
    }
}

/// What the reader waits for next, with so many bytes of a frame in hand. A frame that goes on arriving keeps its beginning.
fn next_wait(before: Waits, bytes: usize, is_idle: bool, now: impl FnOnce() -> Instant) -> Waits {
    match before {
        _ if bytes == 0 && is_idle => Waits::Idle,
        _ if bytes == 0 => Waits::Us,
        Waits::Request { since, .. } => Waits::Request { since, bytes },
        _ => Waits::Request { since: now(), bytes },
    }
}

async fn write(
    door: &Rc<Door>,
    entry: &Rc<Entry>,
    mut to: impl AsyncWriteExt + Unpin,
    answers: &Rc<Answers>,
) -> Result<(), End> {
    let mut chunks = Vec::new();
    while answers.take(&mut chunks).await {
        entry.stalled.set(Some(door.handles.clock.monotonic()));
        let wrote = |bytes: usize| {
            answers.wrote(bytes);
            door.bytes_out.set(door.bytes_out.get() + bytes as u64);
            entry.stalled.set(Some(door.handles.clock.monotonic()));
        };
        write_chunks_noting(&mut to, &mut chunks, wrote).await?;
        entry.stalled.set(None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_logged_once_in_a_while() {
        let (last, start) = (Cell::new(None), Instant::now());
        let at = |ms| log_due(&last, start + Duration::from_millis(ms));
        assert_eq!([at(0), at(1), at(9_999), at(10_000), at(10_001)], [true, false, false, true, false]);
    }

    #[test]
    fn the_name_of_another_cluster_is_told_and_nothing_that_is_no_name() {
        let ours = "a".parse().unwrap();
        assert_eq!(other_cluster("b", &ours), "another cluster name: `b` where this is `a`");
        assert_eq!(other_cluster("b\n\u{1b}[2J", &ours), "another cluster name: none where this is `a`");
    }

    #[test]
    fn a_frame_that_trickles_in_is_timed_from_its_first_byte() {
        let began = Instant::now();
        let later = || began + Duration::from_secs(9);
        let first = next_wait(Waits::Idle, 4, true, || began);
        assert_eq!(first, Waits::Request { since: began, bytes: 4 });
        assert_eq!(next_wait(first, 5, true, later), Waits::Request { since: began, bytes: 5 });
        // A complete frame leaves `Us`; what follows it begins anew.
        assert_eq!(next_wait(Waits::Us, 5, false, later), Waits::Request { since: later(), bytes: 5 });
    }

    #[test]
    fn between_frames_a_client_waits_for_its_answers_or_is_idle() {
        let never = || unreachable!("nothing begins");
        assert_eq!(next_wait(Waits::Us, 0, false, never), Waits::Us);
        assert_eq!(next_wait(Waits::Us, 0, true, never), Waits::Idle);
    }
}
