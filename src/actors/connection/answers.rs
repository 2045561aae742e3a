//! What one native connection owes: answers on their way out, and frames being worked on. Counts the bytes of both, so that its reader
//! knows when to stop. Never touches a socket. Tested below.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::base::limits::OUTPUT_BYTES_MAX;

/// Answers and work of one connection. One task reads, one writes; any number work.
#[derive(Default)]
pub(super) struct Answers {
    waiting: RefCell<Vec<Bytes>>,
    /// Of the answers not yet written, and of the frames being worked on.
    bytes: Cell<usize>,
    frames: Cell<usize>,
    is_closed: Cell<bool>,
    /// For the writer: there is an answer, or there will be no more.
    came: Notify,
    /// For the reader: an answer was written, or the work on a frame is over.
    went: Notify,
}

/// A frame being worked on, until dropped.
pub(super) struct Work {
    answers: Rc<Answers>,
    bytes: usize,
}

impl Answers {
    /// Begins to work on a frame of `bytes`.
    pub(super) fn begin(self: &Rc<Self>, bytes: usize) -> Work {
        self.frames.set(self.frames.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        Work { answers: self.clone(), bytes }
    }

    /// Appends an answer.
    pub(super) fn send(&self, answer: Bytes) {
        if !self.is_closed.get() {
            self.bytes.set(self.bytes.get() + answer.len());
            self.waiting.borrow_mut().push(answer);
            self.came.notify_one();
        }
    }

    /// Whether another frame may be read, of a side that may have `frames_max` worked on at a time.
    pub(super) fn has_room(&self, frames_max: usize) -> bool {
        self.bytes.get() < OUTPUT_BYTES_MAX && self.frames.get() < frames_max
    }

    /// Whether nothing is being worked on, and every answer has left.
    pub(super) fn is_idle(&self) -> bool {
        self.frames.get() == 0 && self.bytes.get() == 0
    }

    /// Waits until less is owed than before.
    pub(super) async fn went(&self) {
        self.went.notified().await;
    }

    /// Moves all waiting answers into `chunks`, which is empty. False when there will be none.
    pub(super) async fn take(&self, chunks: &mut Vec<Bytes>) -> bool {
        while self.waiting.borrow().is_empty() {
            if self.is_closed.get() {
                return false;
            }
            self.came.notified().await;
        }
        std::mem::swap(chunks, &mut self.waiting.borrow_mut());
        true
    }

    /// So many bytes of what was taken have left.
    pub(super) fn wrote(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
        self.went.notify_one();
    }

    /// Takes no further answers. Those waiting still go out.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.came.notify_one();
    }
}

impl Work {
    /// Appends an answer.
    pub(super) fn send(&self, answer: Bytes) {
        self.answers.send(answer);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let answers = &self.answers;
        answers.frames.set(answers.frames.get() - 1);
        answers.bytes.set(answers.bytes.get() - self.bytes);
        answers.went.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_answers_take_room_until_they_are_done() {
        let answers = Rc::new(Answers::default());
        let work = (answers.begin(1), answers.begin(1));
        assert!(answers.has_room(3) && !answers.has_room(2) && !answers.is_idle());
        work.0.send(Bytes::from(vec![0; OUTPUT_BYTES_MAX]));
        drop(work);
        assert!(!answers.is_idle() && !answers.has_room(2));
        answers.wrote(1);
        assert!(!answers.is_idle() && answers.has_room(2));
        answers.wrote(OUTPUT_BYTES_MAX - 1);
        assert!(answers.is_idle());
    }

    #[test]
    fn a_frame_takes_room_by_its_length() {
        let answers = Rc::new(Answers::default());
        let work = answers.begin(OUTPUT_BYTES_MAX);
        assert!(!answers.has_room(2));
        drop(work);
        assert!(answers.has_room(2));
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_goes_out_and_nothing_after() {
        let answers = Rc::new(Answers::default());
        answers.send(Bytes::from_static(b"a"));
        answers.close();
        answers.send(Bytes::from_static(b"b"));
        let mut chunks = Vec::new();
        assert!(answers.take(&mut chunks).await);
        assert_eq!(chunks, [Bytes::from_static(b"a")]);
        chunks.clear();
        assert!(!answers.take(&mut chunks).await);
    }

    #[tokio::test]
    async fn a_writer_that_waits_is_woken() {
        let answers = Rc::new(Answers::default());
        let mut chunks = Vec::new();
        let (taken, ()) = tokio::join!(answers.take(&mut chunks), async { answers.send(Bytes::from_static(b"a")) });
        assert!(taken);
        chunks.clear();
        let (taken, ()) = tokio::join!(answers.take(&mut chunks), async { answers.close() });
        assert!(!taken);
    }
}
