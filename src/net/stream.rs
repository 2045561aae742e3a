//! A connected byte stream of any kind. Never interprets a byte.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix domain.
    Unix(UnixStream),
    /// Simulated TCP.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpStream),
}

/// A stream on its way to another arbiter: a tokio socket belongs to the reactor it was made in, so it travels as the plain socket.
#[derive(Debug)]
pub enum Handover {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// Unix domain.
    Unix(std::os::unix::net::UnixStream),
    /// Simulated TCP; simulated hosts have one reactor.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpStream),
}

impl Stream {
    /// A TCP stream that sends small writes at once.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// The other side's address; `None` for a Unix socket.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.peer_addr().ok(),
        }
    }

    /// This side's address; `None` for a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
            #[cfg(feature = "sim")]
            Self::Sim(stream) => stream.local_addr().ok(),
        }
    }

    /// Leaves this arbiter's reactor.
    ///
    /// # Errors
    /// Those of deregistering.
    pub fn hand_over(self) -> io::Result<Handover> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Handover::Tcp),
            Self::Unix(stream) => stream.into_std().map(Handover::Unix),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => Ok(Handover::Sim(stream)),
        }
    }
}

impl Handover {
    /// Enters the reactor of the arbiter this is called in.
    ///
    /// # Errors
    /// Those of registering.
    pub fn take_over(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Stream::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
            #[cfg(feature = "sim")]
            Self::Sim(stream) => Ok(Stream::Sim(stream)),
        }
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            #[cfg(feature = "sim")]
            Stream::Sim($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One piece is cheaper by `send` than by `writev`, which looks after a file first.
        if let [one] = bufs {
            return self.poll_write(cx, one);
        }
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => true,
            #[cfg(feature = "sim")]
            Self::Sim(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
