//! Open files, of which every connection is one: has the process use all that the system grants it, and says how many clients fit.
//! Tested below and in `tests/process.rs`.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What a node has open before anybody connects, but for its threads: standard streams, listeners, signals, the runtimes of the main
/// thread, of liveness and of the admin endpoint. Measured 22, and one more each with a Unix socket and with a port for memcached clients; the
/// rest is for files that are read in passing.
const OWN: u64 = 32;
/// What the runtime of one more data thread has open.
const OWN_PER_THREAD: u64 = 4;
/// Least that is kept for others than clients for each data thread: links from and to two peers, and whoever has not said who it is.
const OTHERS_PER_THREAD: u64 = 8;
/// Kept for them where there is plenty.
const OTHERS: u64 = 1024;

/// There are too few for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hard limit on open files, {limit}, is too low: with {threads} threads at least {least} are needed")]
pub struct TooFew {
    /// How many there are.
    pub limit: u64,
    /// Data threads there would be.
    pub threads: usize,
    /// How many would do.
    pub least: u64,
}

/// Raises the soft limit on open files to the hard one, and says what it is then. The soft one is low for the sake of programs that use
/// `select`, which this one does not.
///
/// # Errors
/// Those of `getrlimit` and `setrlimit`. The limit is as it was.
pub fn raise() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Clients that `limit` descriptors are enough for on a node with so many data threads: what is left by the node itself, but for a quarter
/// of it, or 1024 where that is less, for peers and the admin endpoint, which must be served when clients take all the rest.
///
/// # Errors
/// [`TooFew`] when that is not even one.
pub fn clients(limit: u64, threads: usize) -> Result<usize, TooFew> {
    let (own, others) = (OWN + OWN_PER_THREAD * threads as u64, OTHERS_PER_THREAD * threads as u64);
    let least = own + others + 1;
    if limit < least {
        return Err(TooFew { limit, threads, least });
    }
    let left = limit - own;
    let clients = left - others.max(OTHERS.min(left / 4));
    Ok(usize::try_from(clients).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_peers_and_files() {
        let fit = [57, 64, 1024, 1 << 20].map(|limit| clients(limit, 2));
        assert_eq!(fit, [Ok(1), Ok(8), Ok(738), Ok((1 << 20) - 40 - 1024)]);
        assert_eq!(clients(1024, 64), Ok(1024 - 32 - 64 * 12));
        assert_eq!(clients(56, 2), Err(TooFew { limit: 56, threads: 2, least: 57 }));
        assert!(clients(0, 256).is_err());
    }
}
