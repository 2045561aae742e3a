//! A datagram socket. Never interprets a byte.

use std::io;
use std::net::SocketAddr;

/// A bound UDP socket.
#[derive(Debug)]
pub enum Udp {
    /// The operating system's.
    Os(tokio::net::UdpSocket),
    /// The simulator's.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::UdpSocket),
}

impl Udp {
    /// Waits for the next datagram; bytes past the end of `buf` are lost.
    ///
    /// # Errors
    /// Those of `recvfrom`. On some systems an earlier send to a closed port shows here; it concerns that send alone.
    pub async fn receive(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Os(socket) => socket.recv_from(buf).await,
            #[cfg(feature = "sim")]
            Self::Sim(socket) => socket.recv_from(buf).await,
        }
    }

    /// Sends one datagram, waiting for room. (`try_send_to` on a fresh tokio socket answers `WouldBlock` before it was ever polled.)
    ///
    /// # Errors
    /// Those of `sendto`.
    pub async fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Self::Os(socket) => socket.send_to(bytes, to).await.map(drop),
            #[cfg(feature = "sim")]
            Self::Sim(_) if loss::strikes() => Ok(()),
            #[cfg(feature = "sim")]
            Self::Sim(socket) => socket.send_to(bytes, to).await.map(drop),
        }
    }

    /// The bound address.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Os(socket) => socket.local_addr(),
            #[cfg(feature = "sim")]
            Self::Sim(socket) => socket.local_addr(),
        }
    }
}

/// The simulator loses whole links, streams and all; this loses single datagrams.
#[cfg(feature = "sim")]
mod loss {
    use std::cell::Cell;

    thread_local! {
        static PER_MILLE: Cell<u64> = const { Cell::new(0) };
        static DRAWN: Cell<u64> = const { Cell::new(0) };
    }

    /// From now on, in the simulation of this thread, `per_mille` of the datagrams sent are lost, chosen by `seed`.
    pub fn lose_datagrams(per_mille: u64, seed: u64) {
        PER_MILLE.set(per_mille);
        DRAWN.set(seed);
    }

    pub(super) fn strikes() -> bool {
        DRAWN.set(xxhash_rust::xxh3::xxh3_64(&DRAWN.get().to_le_bytes()));
        DRAWN.get() % 1_000 < PER_MILLE.get()
    }
}

#[cfg(feature = "sim")]
pub use loss::lose_datagrams;
