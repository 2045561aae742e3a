//! The I/O of one link: dials a peer, shakes hands, then carries frames both ways until either side ends. Decides nothing; what happens
//! is told to the replication actor. Exercised by the simulation.

use std::io;
use std::net::SocketAddr;

use actix::Addr;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use crate::base::id::{ClusterName, NodeId};
use crate::base::limits::{DIAL_TIMEOUT, FRAME_BYTES_MAX, READ_CHUNK_BYTES};
use crate::cluster::view::PeerIx;
use crate::net::write::write_chunks;
use crate::net::{Net, Stream};
use crate::protocol::native::frame::{self, FrameError};
use crate::protocol::native::{Hello, Message, PREFACE, PeerHello};

use super::{LinkDown, LinkFrames, LinkUp, Replication};

/// Frames handed to the actor at once, and joined into one write.
const FRAMES_PER_TURN: usize = 256;

/// Whom to dial and as whom.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) net: Net,
    pub(super) address: SocketAddr,
    pub(super) cluster: ClusterName,
    pub(super) me: NodeId,
    pub(super) incarnation: u64,
    pub(super) expects: NodeId,
    pub(super) expects_incarnation: u64,
    pub(super) peer: PeerIx,
    pub(super) generation: u64,
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
pub(super) async fn run(dial: Dial, frames: UnboundedReceiver<Bytes>, owner: Addr<Replication>) {
    let (peer, generation) = (dial.peer, dial.generation);
    let opened = tokio::time::timeout(DIAL_TIMEOUT, open(&dial)).await.unwrap_or_else(|_| Err(timed_out()));
    let (was_open, end) = match opened {
        Ok((stream, rest, their_ms)) => {
            owner.do_send(LinkUp { peer, generation, their_ms, at: Instant::now() });
            (true, carry(stream, rest, frames, &dial, &owner).await)
        }
        Err(end) => (false, Err(end)),
    };
    let reason = end.err().map_or_else(|| "closed".to_owned(), |end| end.to_string());
    owner.do_send(LinkDown { peer, generation, was_open, reason });
}

fn timed_out() -> LinkEnd {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

async fn open(dial: &Dial) -> Result<(Stream, BytesMut, u64), LinkEnd> {
    let mut stream = dial.net.connect(dial.address, DIAL_TIMEOUT).await?;
    let mut hello = PREFACE.to_vec();
    let peer =
        PeerHello { node: dial.me.as_str(), incarnation: dial.incarnation, expects: Some(dial.expects.as_str()) };
    frame::encode(&Message::Hello(Hello { cluster: dial.cluster.as_str(), peer: Some(peer) }), &mut hello);
    stream.write_all(&hello).await?;
    let mut buf = BytesMut::with_capacity(READ_CHUNK_BYTES);
    let payload = loop {
        if let Some(payload) = frame::cut(&mut buf, FRAME_BYTES_MAX)? {
            break payload;
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    match frame::decode(&payload)? {
        Message::Welcome(welcome) => {
            let expected = welcome.node == dial.expects.as_str() && welcome.incarnation == dial.expects_incarnation;
            if expected { Ok((stream, buf, welcome.now_ms)) } else { Err(LinkEnd::Stranger) }
        }
        Message::Refused { reason } => Err(LinkEnd::Refused(reason.to_owned())),
        _ => Err(LinkEnd::Protocol),
    }
}

async fn carry(
    stream: Stream,
    rest: BytesMut,
    frames: UnboundedReceiver<Bytes>,
    dial: &Dial,
    owner: &Addr<Replication>,
) -> Result<(), LinkEnd> {
    let (from, to) = tokio::io::split(stream);
    tokio::select! {
        end = read(from, rest, dial, owner) => end,
        end = write(to, frames) => end,
    }
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    mut buf: BytesMut,
    dial: &Dial,
    owner: &Addr<Replication>,
) -> Result<(), LinkEnd> {
    loop {
        let mut frames = Vec::new();
        while let Some(payload) = frame::cut(&mut buf, FRAME_BYTES_MAX)? {
            frames.push(payload);
        }
        if !frames.is_empty() {
            owner.do_send(LinkFrames { peer: dial.peer, generation: dial.generation, frames });
        }
        buf.reserve(READ_CHUNK_BYTES);
        if from.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    }
}

async fn write(mut to: impl AsyncWrite + Unpin, mut frames: UnboundedReceiver<Bytes>) -> Result<(), LinkEnd> {
    let mut chunks = Vec::with_capacity(FRAMES_PER_TURN);
    while frames.recv_many(&mut chunks, FRAMES_PER_TURN).await > 0 {
        write_chunks(&mut to, &mut chunks).await?;
    }
    Ok(())
}
