//! Open files, of which every connection is one: has the process use all that the system grants it, and says how many clients fit.
//! Tested below and in `tests/process.rs`.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Kept for what must go on when clients take all the rest: links from and to peers, those who have not said who they are, the admin
/// endpoint, listeners, files.
const RESERVED: u64 = 1024;

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

/// Clients that `descriptors` are enough for: all but a reserve, or but a quarter where there are few.
pub fn clients(descriptors: u64) -> usize {
    let clients = descriptors - RESERVED.min(descriptors / 4);
    usize::try_from(clients).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_peers_and_files() {
        assert_eq!([1, 100, 1024, 4096, 1 << 20].map(clients), [1, 75, 768, 3072, (1 << 20) - 1024]);
    }
}
