//! Why a call failed, and whether it did anything. Reads the error lines of nodes; never decides whether to try again (`retry` does). Tested
//! below.

use std::fmt;

/// Whether what was asked has been done, when the call ends in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Applied {
    /// Nothing was done.
    No,
    /// It may have been done, in part or as a whole.
    Unknown,
    /// It was done; only the answer is of no use.
    Yes,
}

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No node could be reached.
    Unreachable,
    /// What answers does not talk to this client: it has another cluster name or protocol, or is no node.
    Refused,
    /// No answer before the deadline, the client's or the node's.
    Timeout,
    /// Too few replicas took part for the consistency asked for.
    NoQuorum,
    /// The cluster has no room for one more request at the moment, and had none when it was tried again.
    Busy,
    /// The memory budget of a node is used up, and it does not evict.
    OutOfMemory,
    /// The node is stopping, and no other answered.
    Shutdown,
    /// The command is wrong, or can't be done to what is there.
    Command,
    /// A node answered what is no answer to the question.
    Protocol,
    /// The client was closed.
    Closed,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    applied: Applied,
    message: String,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, applied: Applied, message: impl Into<String>) -> Self {
        Self { kind, applied, message: message.into() }
    }

    /// Nothing was done.
    pub(super) fn before(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, Applied::No, message)
    }

    /// That of an error line, its first word included. Every word but `NOQUORUM` and `TIMEOUT` means that nothing was done, unless the line
    /// says otherwise at its end.
    pub(super) fn of_line(line: &[u8]) -> Self {
        let line = String::from_utf8_lossy(line).into_owned();
        let kind = match line.split(' ').next().unwrap_or_default() {
            "NOQUORUM" => ErrorKind::NoQuorum,
            "TIMEOUT" => ErrorKind::Timeout,
            "BUSY" => ErrorKind::Busy,
            "OOM" => ErrorKind::OutOfMemory,
            "SHUTDOWN" => ErrorKind::Shutdown,
            _ => ErrorKind::Command,
        };
        let in_doubt = matches!(kind, ErrorKind::NoQuorum | ErrorKind::Timeout) && !line.ends_with("applied: no");
        let applied = if in_doubt || line.ends_with("applied: unknown") { Applied::Unknown } else { Applied::No };
        Self::new(kind, applied, line)
    }

    /// A reply that is none to what was asked, which was done all the same.
    pub(super) fn strange(what: impl fmt::Debug) -> Self {
        Self::new(ErrorKind::Protocol, Applied::Yes, format!("a node answered {what:.80?}, applied: yes"))
    }

    /// The same error after an earlier attempt that may have done something. A refusal says that nothing was done, which only the attempt it
    /// answers can vouch for.
    pub(super) fn in_doubt(mut self) -> Self {
        if self.applied == Applied::No && self.kind != ErrorKind::Command {
            self.applied = Applied::Unknown;
            self.message = match self.message.strip_suffix("applied: no") {
                Some(reason) => format!("{reason}applied: unknown"),
                None => format!("{}; an earlier attempt broke off, applied: unknown", self.message),
            };
        }
        self
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether what was asked has been done.
    pub fn applied(&self) -> Applied {
        self.applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_lines_say_what_kind_they_are_and_what_was_done() {
        use Applied::{No, Unknown};
        for (line, kind, applied) in [
            ("NOQUORUM too few replicas took the write, applied: unknown", ErrorKind::NoQuorum, Unknown),
            ("NOQUORUM too few replicas can be reached, applied: no", ErrorKind::NoQuorum, No),
            ("TIMEOUT", ErrorKind::Timeout, Unknown),
            ("BUSY the node is overloaded, nothing was done", ErrorKind::Busy, No),
            ("SHUTDOWN the node is stopping, nothing was done", ErrorKind::Shutdown, No),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::OutOfMemory, No),
            ("ERR value is not an integer or out of range", ErrorKind::Command, No),
            ("ERR the replies are too large for one answer, applied: unknown", ErrorKind::Command, Unknown),
            ("", ErrorKind::Command, No),
        ] {
            let error = Error::of_line(line.as_bytes());
            assert_eq!((error.kind(), error.applied(), error.to_string()), (kind, applied, line.to_owned()));
        }
    }

    #[test]
    fn a_refusal_vouches_for_its_own_attempt_only() {
        let told = |line: &str| Error::of_line(line.as_bytes()).in_doubt().to_string();
        assert_eq!(told("NOQUORUM too few, applied: no"), "NOQUORUM too few, applied: unknown");
        assert!(told("BUSY nothing was done").ends_with("applied: unknown"));
        // Who executes it finds it wrong whether or not it was tried before.
        let wrong = Error::of_line(b"ERR value is not an integer or out of range").in_doubt();
        assert_eq!(wrong.applied(), Applied::No);
    }
}
