//! A connection's transaction: the commands queued since `MULTI`, and the keys watched before. Decides what is queued, when the whole is
//! refused, and whether it can be executed in one go; never executes. Tested below, and against a model of Redis's.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::command::{Command, ParseError, Parsed};
use super::session::SessionCommand;
use crate::base::limits::{
    ONE_GO_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPS_MAX, WATCHED_BYTES_MAX, WATCHED_KEYS_MAX,
};
use crate::base::op::{Act, Op};
use crate::base::seen::Seen;
use crate::base::slot::Partition;

#[cfg(test)]
mod tests;

const NESTED: &str = "ERR MULTI calls can not be nested";
const WATCH_INSIDE: &str = "ERR WATCH inside MULTI is not allowed";
const EXEC_WITHOUT: &str = "ERR EXEC without MULTI";
const DISCARD_WITHOUT: &str = "ERR DISCARD without MULTI";
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
const TOO_LARGE: &str = "ERR the transaction is too large, send it in parts; this command was not queued";
const TOO_LARGE_FOR_ONE_GO: &str =
    "EXECABORT Transaction discarded because of: too many bytes under one hash tag, send it in parts";
const TOO_MANY_WATCHED: &str = "ERR too many keys are watched, none was added";

/// A command about the transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum TransactionCommand {
    /// `MULTI`.
    Multi,
    /// `EXEC`.
    Exec,
    /// `DISCARD`.
    Discard,
    /// `WATCH` of these keys.
    Watch(Vec<Bytes>),
    /// `UNWATCH`.
    Unwatch,
}

/// A command that waits for `EXEC`.
#[derive(Debug)]
pub struct Queued {
    /// Which.
    pub command: &'static Command,
    /// What it asks for, or what is wrong with it, which is its answer.
    pub parsed: Result<Parsed, ParseError>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Transaction {
    is_open: bool,
    /// A command was refused: nothing will be executed, so nothing more is kept.
    is_spoiled: bool,
    queue: Vec<Queued>,
    ops: usize,
    /// Of all commands since `MULTI`, queued or not: their arguments share the buffers they were read into.
    bytes: usize,
    watched: BTreeMap<Bytes, Seen>,
    watched_bytes: usize,
}

/// What `EXEC` is to execute.
#[derive(Debug)]
pub struct Taken {
    /// In order.
    pub queue: Vec<Queued>,
    /// Of their arguments.
    pub bytes: usize,
    /// What the watched keys held.
    pub watched: BTreeMap<Bytes, Seen>,
}

impl Transaction {
    /// Whether commands are queued.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Commands queued, while it is open.
    pub fn queued(&self) -> Option<usize> {
        self.is_open.then_some(self.queue.len())
    }

    /// Whether a command that is queued changes keys.
    pub fn writes(&self) -> bool {
        self.queue.iter().any(|queued| queued.command.writes())
    }

    /// Bytes it keeps from being freed.
    pub fn held_bytes(&self) -> usize {
        self.bytes + self.watched_bytes + self.ops * size_of::<Op>() + self.queue.len() * size_of::<Queued>()
    }

    /// `MULTI`.
    ///
    /// # Errors
    /// The text for the client; nothing has changed.
    pub fn open(&mut self) -> Result<(), &'static str> {
        if self.is_open {
            return Err(NESTED);
        }
        self.is_open = true;
        Ok(())
    }

    /// Notes the bytes of a command that arrived while it is open. Those of one that is executed at once count as well.
    ///
    /// # Errors
    /// The text for the client, if that makes too many; nothing will be executed then.
    pub fn count(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.bytes += bytes;
        if self.bytes > TRANSACTION_BYTES_MAX {
            self.spoil();
            return Err(TOO_LARGE);
        }
        Ok(())
    }

    /// Queues a command that was counted. After a refusal it is not kept, because it will not be executed.
    ///
    /// # Errors
    /// The text for the client, if there are too many; nothing will be executed then.
    pub fn queue(&mut self, queued: Queued) -> Result<(), &'static str> {
        let ops = if let Ok(Parsed::Request(request)) = &queued.parsed { request.ops() } else { 1 };
        self.ops += ops;
        if self.ops > TRANSACTION_OPS_MAX {
            self.spoil();
            return Err(TOO_LARGE);
        }
        if !self.is_spoiled {
            self.queue.push(queued);
        }
        Ok(())
    }

    /// A command was refused: `EXEC` will be too.
    pub fn spoil(&mut self) {
        self.is_spoiled = true;
        self.queue = Vec::new();
        (self.ops, self.bytes) = (0, 0);
    }

    /// Whether so many more keys may be watched.
    ///
    /// # Errors
    /// The text for the client; nothing has changed.
    pub fn may_watch(&self, keys: &[Bytes]) -> Result<(), &'static str> {
        if self.is_open {
            return Err(WATCH_INSIDE);
        }
        let news = keys.iter().filter(|key| !self.watched.contains_key(*key));
        let (count, bytes) = news.fold((0, 0), |(count, bytes), key| (count + 1, bytes + key.len()));
        let fits = self.watched.len() + count <= WATCHED_KEYS_MAX && self.watched_bytes + bytes <= WATCHED_BYTES_MAX;
        if fits { Ok(()) } else { Err(TOO_MANY_WATCHED) }
    }

    /// Remembers what a key holds. One that is watched already is compared with what it held then.
    pub fn watch(&mut self, key: &[u8], seen: Seen) {
        if !self.watched.contains_key(key) {
            self.watched_bytes += key.len();
            // A copy of its own: the argument shares its batch's buffer.
            self.watched.insert(Bytes::copy_from_slice(key), seen);
        }
    }

    /// `UNWATCH`.
    pub fn unwatch(&mut self) {
        self.watched.clear();
        self.watched_bytes = 0;
    }

    /// `DISCARD`.
    ///
    /// # Errors
    /// The text for the client; nothing has changed.
    pub fn discard(&mut self) -> Result<(), &'static str> {
        if !self.is_open {
            return Err(DISCARD_WITHOUT);
        }
        self.reset();
        Ok(())
    }

    /// Forgets everything (`RESET`).
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// `EXEC`: what is to be executed. The transaction is over, and nothing is watched.
    ///
    /// # Errors
    /// The text for the client, if there is no transaction or a command was refused.
    pub fn take(&mut self) -> Result<Taken, &'static str> {
        if !self.is_open {
            return Err(EXEC_WITHOUT);
        }
        let Self { is_spoiled, queue, bytes, watched, .. } = std::mem::take(self);
        if is_spoiled { Err(ABORTED) } else { Ok(Taken { queue, bytes, watched }) }
    }
}

impl Taken {
    /// Whether this many bytes can be executed in one go.
    ///
    /// # Errors
    /// The text for the client.
    pub fn fits_one_go(&self) -> Result<(), &'static str> {
        if self.bytes > ONE_GO_BYTES_MAX && self.queue.len() > 1 { Err(TOO_LARGE_FOR_ONE_GO) } else { Ok(()) }
    }

    /// The partition of all keys of all commands, if they can be executed in one go: none is about all keys, and none changes how those
    /// after it are answered.
    pub fn partition(&self) -> Option<Partition> {
        let mut all = None;
        for queued in &self.queue {
            match &queued.parsed {
                Ok(Parsed::Request(request)) => {
                    let partition = request.partition()?;
                    if *all.get_or_insert(partition) != partition {
                        return None;
                    }
                }
                Ok(Parsed::Session(SessionCommand::Hello(hello))) if hello.wire.is_some() => return None,
                Ok(Parsed::Session(SessionCommand::Consistency(Some(_)))) => return None,
                Ok(Parsed::Session(_) | Parsed::Transaction(_) | Parsed::PubSub(_)) | Err(_) => {}
            }
        }
        all
    }

    /// The comparisons of watched keys: those of this partition, and the others.
    pub fn conditions(&self, partition: Option<Partition>) -> (Vec<Op>, Vec<Op>) {
        let conditions = self.watched.iter().map(|(key, seen)| Op::new(key.clone(), Act::Unchanged { since: *seen }));
        conditions.partition(|op| Some(Partition::of(&op.key)) == partition)
    }
}
