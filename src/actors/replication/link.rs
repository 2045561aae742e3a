//! The I/O of one link: dials a peer, shakes hands, then carries frames both ways until either side ends. Decides nothing; what happens
//! is told to the replication actor. What counts as a sign of life is tested below, the rest by the simulation.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix::{Addr, Message as ActixMessage};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::actors::clock::Clock;
use crate::base::id::{ClusterName, NodeId};
use crate::base::limits::{DIAL_TIMEOUT, FRAME_BYTES_MAX};
use crate::cluster::link::Moment;
use crate::cluster::view::PeerIx;
use crate::net::write::write_chunks;
use crate::net::{Net, Stream};
use crate::protocol::native::assembly::Assembly;
use crate::protocol::native::frame::{self, FrameError};
use crate::protocol::native::{Hello, Message, PREFACE, PeerHello};

use super::Replication;

/// Frames handed to the actor at once, and joined into one write.
const FRAMES_PER_TURN: usize = 256;

/// Whom to dial and as whom.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) net: Net,
    pub(super) clock: Clock,
    pub(super) address: SocketAddr,
    pub(super) cluster: ClusterName,
    pub(super) me: NodeId,
    pub(super) incarnation: u64,
    pub(super) expects: NodeId,
    pub(super) expects_incarnation: u64,
    pub(super) peer: PeerIx,
    pub(super) generation: u64,
}

/// The peer has greeted.
#[derive(ActixMessage)]
#[rtype(result = "()")]
pub(super) struct LinkUp {
    pub(super) peer: PeerIx,
    pub(super) generation: u64,
    /// What the peer's clock showed before `at`.
    pub(super) their_ms: u64,
    pub(super) at: Moment,
}

/// The link has ended.
#[derive(ActixMessage)]
#[rtype(result = "()")]
pub(super) struct LinkDown {
    pub(super) peer: PeerIx,
    pub(super) generation: u64,
    pub(super) was_open: bool,
    pub(super) reason: String,
}

/// Frames have arrived.
#[derive(ActixMessage)]
#[rtype(result = "()")]
pub(super) struct LinkFrames {
    pub(super) peer: PeerIx,
    pub(super) generation: u64,
    pub(super) frames: Vec<Bytes>,
}

/// What the link's owner sees of its I/O without being told.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// The last sign of life of the peer.
    alive_at: Cell<Moment>,
    /// Bytes of frames that the kernel has taken.
    written: Cell<u64>,
}

impl Pulse {
    pub(super) fn alive_at(&self) -> Moment {
        self.alive_at.get()
    }

    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }
}

/// Why a link is no more. Whatever was under way on it may or may not have been done.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkEnd {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the peer did not speak as agreed")]
    Protocol,
    #[error("another node or another life of it answers there")]
    Stranger,
}

/// Runs the link to its end; dropping the sender of `frames` ends it.
pub(super) async fn run(dial: Dial, pulse: Rc<Pulse>, frames: UnboundedReceiver<Bytes>, owner: Addr<Replication>) {
    let (peer, generation) = (dial.peer, dial.generation);
    let opened = tokio::time::timeout(DIAL_TIMEOUT, open(&dial)).await.unwrap_or_else(|_| Err(timed_out()));
    let (was_open, end) = match opened {
        Ok((stream, rest, their_ms)) => {
            owner.do_send(LinkUp { peer, generation, their_ms, at: dial.clock.uptime() });
            (true, carry(stream, rest, frames, (&dial, &pulse), &owner).await)
        }
        Err(end) => (false, Err(end)),
    };
    let reason = end.err().map_or_else(|| "closed".to_owned(), |end| end.to_string());
    owner.do_send(LinkDown { peer, generation, was_open, reason });
}

fn timed_out() -> LinkEnd {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

async fn open(dial: &Dial) -> Result<(Stream, Assembly, u64), LinkEnd> {
    let mut stream = dial.net.connect(dial.address, DIAL_TIMEOUT).await?;
    let mut hello = PREFACE.to_vec();
    let peer =
        PeerHello { node: dial.me.as_str(), incarnation: dial.incarnation, expects: Some(dial.expects.as_str()) };
    frame::encode(&Message::Hello(Hello { cluster: dial.cluster.as_str(), peer: Some(peer) }), &mut hello);
    stream.write_all(&hello).await?;
    let mut frames = Assembly::default();
    let payload = loop {
        if let Some(payload) = frames.cut(FRAME_BYTES_MAX)? {
            break payload;
        }
        if stream.read_buf(frames.read_target()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    match frame::decode(&payload)? {
        Message::Welcome(welcome) => {
            let expected = welcome.node == dial.expects.as_str() && welcome.incarnation == dial.expects_incarnation;
            if expected { Ok((stream, frames, welcome.now_ms)) } else { Err(LinkEnd::Stranger) }
        }
        Message::Refused { reason } => Err(LinkEnd::Refused(reason.to_owned())),
        _ => Err(LinkEnd::Protocol),
    }
}

async fn carry(
    stream: Stream,
    rest: Assembly,
    frames: UnboundedReceiver<Bytes>,
    (dial, pulse): (&Dial, &Rc<Pulse>),
    owner: &Addr<Replication>,
) -> Result<(), LinkEnd> {
    let (from, to) = tokio::io::split(stream);
    let to = Paced { to, pulse: pulse.clone(), clock: dial.clock, waited: false };
    tokio::select! {
        biased;
        end = read(from, rest, (dial, pulse), owner) => end,
        end = write(to, frames) => end,
    }
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    mut frames: Assembly,
    (dial, pulse): (&Dial, &Pulse),
    owner: &Addr<Replication>,
) -> Result<(), LinkEnd> {
    loop {
        let mut arrived = Vec::new();
        while let Some(payload) = frames.cut(FRAME_BYTES_MAX)? {
            arrived.push(payload);
        }
        if !arrived.is_empty() {
            owner.do_send(LinkFrames { peer: dial.peer, generation: dial.generation, frames: arrived });
        }
        if from.read_buf(frames.read_target()).await? == 0 {
            return Ok(());
        }
        // Any byte will do: a large frame may take longer to cross than a peer may be silent.
        pulse.alive_at.set(dial.clock.uptime());
    }
}

async fn write(mut to: impl AsyncWrite + Unpin, mut frames: UnboundedReceiver<Bytes>) -> Result<(), LinkEnd> {
    let mut chunks = Vec::with_capacity(FRAMES_PER_TURN);
    while frames.recv_many(&mut chunks, FRAMES_PER_TURN).await > 0 {
        write_chunks(&mut to, &mut chunks).await?;
    }
    Ok(())
}

/// Notes what is written, and when the peer made room for it. What the kernel takes at once says nothing of the peer; what had to wait
/// goes on only because the peer's side took something.
struct Paced<W> {
    to: W,
    pulse: Rc<Pulse>,
    clock: Clock,
    waited: bool,
}

impl<W> Paced<W> {
    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let waited = std::mem::replace(&mut self.waited, written.is_pending());
        let written = ready!(written)?;
        self.pulse.written.set(self.pulse.written.get() + written as u64);
        if waited {
            self.pulse.alive_at.set(self.clock.uptime());
        }
        Poll::Ready(Ok(written))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Paced<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.to).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.to).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_is_a_sign_of_life_only_if_it_had_to_wait() {
        let (near, mut far) = tokio::io::duplex(64);
        let pulse = Rc::new(Pulse::default());
        let mut to = Paced { to: near, pulse: pulse.clone(), clock: Clock::os(), waited: false };
        to.write_all(&[1; 64]).await.expect("there is room");
        assert_eq!((pulse.written(), pulse.alive_at()), (64, Moment::ZERO), "nobody has read yet");
        let mut taken = [0; 64];
        let (wrote, read) = tokio::join!(to.write_all(&[2; 10]), far.read_exact(&mut taken));
        assert!(wrote.is_ok() && read.is_ok());
        assert_eq!(pulse.written(), 74);
        assert!(pulse.alive_at() > Moment::ZERO);
    }
}
