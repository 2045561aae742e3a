//! Floor 3, sockets: the one seam between the node and a network. The operating system's, or under the `sim` feature the simulator's,
//! chosen at run time. Holds no policy: it neither retries nor decides whom to talk to. Exercised by every test that runs a node, and below.

pub mod client;
pub mod descriptors;
mod stream;
mod udp;
pub mod write;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

pub use stream::{Handover, Stream};
pub use udp::Udp;
#[cfg(feature = "sim")]
pub use udp::lose_datagrams;

/// Connections the kernel may hold for us until we accept them.
const BACKLOG: u32 = 4096;

/// A bound listener outside any runtime, for the admin endpoint: it brings its own server and is never simulated.
pub type PlainListener = std::net::TcpListener;

/// Has the kernel end connections that `listener` will accept when their clients take nothing of what is sent to them for so long; the
/// server of [`PlainListener`] does not. On other systems than Linux they stay.
///
/// # Errors
/// Those of `setsockopt`.
pub fn end_stalled(listener: &PlainListener, after: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        nix::sys::socket::setsockopt(listener, nix::sys::socket::sockopt::TcpUserTimeout, &after_ms)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (listener, after);
    Ok(())
}

/// Which network a node lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// The operating system's.
    Os,
    /// The simulator's; only inside a `turmoil` host.
    #[cfg(feature = "sim")]
    Sim,
}

/// A bound TCP or Unix listener.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix domain.
    Unix(UnixListener),
    /// Simulated TCP.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpListener),
}

impl Net {
    /// Binds a TCP listener; port 0 takes a free one.
    ///
    /// # Errors
    /// Those of `bind` and `listen`.
    pub async fn listen(self, address: SocketAddr) -> io::Result<Listener> {
        match self {
            Self::Os => {
                let socket = match address {
                    SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
                };
                // A node restarted at once must get its port back while old connections linger in TIME_WAIT.
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                socket.listen(BACKLOG).map(Listener::Tcp)
            }
            #[cfg(feature = "sim")]
            Self::Sim => turmoil::net::TcpListener::bind(address).await.map(Listener::Sim),
        }
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    /// Those of `connect`; `TimedOut` after `timeout`.
    pub async fn connect(self, address: SocketAddr, timeout: Duration) -> io::Result<Stream> {
        let dial = async {
            match self {
                Self::Os => TcpStream::connect(address).await.and_then(Stream::tcp),
                #[cfg(feature = "sim")]
                Self::Sim => turmoil::net::TcpStream::connect(address).await.map(Stream::Sim),
            }
        };
        tokio::time::timeout(timeout, dial).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Binds a UDP socket.
    ///
    /// # Errors
    /// Those of `bind`.
    pub async fn udp(self, address: SocketAddr) -> io::Result<Udp> {
        match self {
            Self::Os => tokio::net::UdpSocket::bind(address).await.map(Udp::Os),
            #[cfg(feature = "sim")]
            Self::Sim => turmoil::net::UdpSocket::bind(address).await.map(Udp::Sim),
        }
    }

    /// The addresses of `host:port`.
    ///
    /// # Errors
    /// Those of the resolver.
    pub async fn resolve(self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Os => tokio::net::lookup_host(host_port).await.map(Iterator::collect),
            #[cfg(feature = "sim")]
            Self::Sim => host_port
                .parse()
                .map(|address| vec![address])
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "simulated hosts are named by address")),
        }
    }
}

/// Listens on a Unix domain socket, in place of one that a dead process left behind.
///
/// # Errors
/// `AddrInUse` if something answers there or a file of another kind is in the way; else those of `connect` and `bind`. Nothing is removed
/// then.
pub fn listen_unix(path: &Path) -> io::Result<(Listener, SocketFile)> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                // Nothing else says that nobody listens: it may be somebody else's whom this process may not talk to, or one that is busy.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                Err(error) => return Err(error),
                Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
            }
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "the path exists and is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path).map(Listener::Unix)?;
    Ok((listener, SocketFile::at(path)?))
}

/// The file of a Unix socket, as it was when it was bound. Its number is nobody else's as long as the socket is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Removes the file, while the socket is open, unless it has gone or another has taken its place.
    ///
    /// # Errors
    /// Those of `lstat` and `unlink`, but for a file that is not there.
    pub fn remove(&self) -> io::Result<()> {
        match Self::at(&self.path) {
            Ok(found) if found == *self => std::fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    /// Those of `accept`; some pass by themselves (too many open files).
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.and_then(|(stream, _)| Stream::tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _): (UnixStream, _)| Stream::Unix(stream)),
            #[cfg(feature = "sim")]
            Self::Sim(listener) => listener.accept().await.map(|(stream, _)| Stream::Sim(stream)),
        }
    }

    /// The bound TCP address; `None` for a Unix socket.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
            #[cfg(feature = "sim")]
            Self::Sim(listener) => listener.local_addr().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_file_of_the_own_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (_first, of_first) = listen_unix(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        of_first.remove().unwrap();
        let (_second, of_second) = listen_unix(&path).unwrap();
        of_first.remove().unwrap();
        assert!(path.exists());
        of_second.remove().unwrap();
        assert!(!path.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_client_that_takes_nothing_is_given_up() {
        use std::io::Write;
        let listener = PlainListener::bind("127.0.0.1:0").unwrap();
        end_stalled(&listener, Duration::from_millis(100)).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        let error = std::iter::repeat_with(|| stream.write_all(&[0; 65_536])).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn only_a_socket_that_refuses_is_taken_for_a_dead_ones() {
        let dir = tempfile::tempdir().unwrap();
        // A datagram socket is bound there: to connect fails, though its owner lives.
        let lives = dir.path().join("lives");
        let _owner = std::os::unix::net::UnixDatagram::bind(&lives).unwrap();
        assert!(listen_unix(&lives).is_err() && lives.exists());
        let dead = dir.path().join("dead");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        assert!(dead.exists() && listen_unix(&dead).is_ok());
    }
}
