//! The way of messages from the hub to one subscriber's connection, wherever that lives, and what bounds it. Tested below.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::base::limits::{PUSH_BYTES_KEPT, PUSH_BYTES_MAX, PUSHES_BYTES_MAX};
use crate::protocol::resp::subscriptions::Pushed;

/// Bytes of messages that wait for all subscribers of a node.
pub type Waiting = Arc<AtomicUsize>;

/// The hub's end. Bounded by the bytes that wait, which are counted before anything is sent.
pub struct Inbox {
    sender: UnboundedSender<Pushed>,
    own: AtomicUsize,
    all: Waiting,
    is_cut: AtomicBool,
    connection: AbortHandle,
}

/// The connection's end.
pub struct Feed {
    receiver: RefCell<UnboundedReceiver<Pushed>>,
    inbox: Arc<Inbox>,
}

/// The subscriber takes too little of what it asked for, and is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooSlow;

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Inbox {
    /// Sends a message, or ends the connection for which too much waits. A single message may be as large as it is. How many arrive.
    ///
    /// # Errors
    /// [`TooSlow`], once: until the hub has heard of its end, nothing more is sent there.
    pub(super) fn push(&self, pushed: Pushed) -> Result<u64, TooSlow> {
        if self.is_cut.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let (bytes, own, all) = (pushed.bytes(), self.own.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed));
        let after = own + bytes;
        let too_slow = after > PUSH_BYTES_MAX || all > PUSHES_BYTES_MAX && after > PUSH_BYTES_KEPT;
        if own > 0 && too_slow {
            self.is_cut.store(true, Ordering::Relaxed);
            self.connection.abort();
            return Err(TooSlow);
        }
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
        // A connection that is gone is about to say so.
        let _ = self.sender.send(pushed);
        Ok(1)
    }

    fn took(&self, pushed: &Pushed) {
        self.own.fetch_sub(pushed.bytes(), Ordering::Relaxed);
        self.all.fetch_sub(pushed.bytes(), Ordering::Relaxed);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Feed {
    /// For the connection that this handle ends.
    pub fn new(all: Waiting, connection: AbortHandle) -> Self {
        let (sender, receiver) = unbounded_channel();
        let inbox = Inbox { sender, own: AtomicUsize::new(0), all, is_cut: AtomicBool::new(false), connection };
        Self { receiver: RefCell::new(receiver), inbox: Arc::new(inbox) }
    }

    /// The hub's end.
    pub fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    /// The next message, if one waits.
    pub fn try_next(&self) -> Option<Pushed> {
        let pushed = self.receiver.borrow_mut().try_recv().ok()?;
        self.inbox.took(&pushed);
        Some(pushed)
    }

    /// The next message. There is no end: this end keeps the other.
    pub async fn next(&self) -> Pushed {
        let pushed = poll_fn(|cx| self.receiver.borrow_mut().poll_recv(cx)).await.expect("the sender lives beside it");
        self.inbox.took(&pushed);
        pushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::channel::Kind;

    fn message(bytes: usize) -> Pushed {
        Pushed { kind: Kind::Channel, pattern: None, channel: "c".into(), payload: vec![0; bytes].into() }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_counted() {
        let all = Waiting::default();
        let task = tokio::spawn(std::future::pending::<()>());
        let feed = Feed::new(all.clone(), task.abort_handle());
        let inbox = feed.inbox();
        assert_eq!(inbox.push(message(PUSH_BYTES_MAX + 1)), Ok(1), "one message may be as large as it is");
        assert!(all.load(Ordering::Relaxed) > PUSH_BYTES_MAX);
        assert_eq!(feed.next().await, message(PUSH_BYTES_MAX + 1));
        assert_eq!((all.load(Ordering::Relaxed), feed.try_next()), (0, None));
        assert_eq!(inbox.push(message(10)), Ok(1));
        assert_eq!(inbox.push(message(PUSH_BYTES_MAX)), Err(TooSlow));
        assert_eq!(inbox.push(message(PUSH_BYTES_MAX)), Ok(0), "it is cut off once");
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(feed.try_next(), Some(message(10)));
    }

    #[tokio::test]
    async fn where_all_wait_for_much_none_may_for_more_than_its_part() {
        let all = Waiting::new(AtomicUsize::new(PUSHES_BYTES_MAX + 1));
        let task = tokio::spawn(std::future::pending::<()>());
        let feed = Feed::new(all.clone(), task.abort_handle());
        assert_eq!(feed.inbox().push(message(PUSH_BYTES_KEPT / 2)), Ok(1));
        assert_eq!(feed.inbox().push(message(PUSH_BYTES_KEPT)), Err(TooSlow));
        drop(feed);
        assert_eq!(all.load(Ordering::Relaxed), PUSHES_BYTES_MAX + 1);
    }
}
