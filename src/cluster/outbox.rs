//! What one replica has yet to receive or to acknowledge. Bounded in bytes, beyond which goes at most one batch; what does not fit, or is
//! lost with a link, is remembered as partitions to synchronise. Never does I/O. Tested below.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::limits::{FRAME_BYTES_MAX, FRAME_BYTES_TARGET};
use crate::base::slot::Partition;

use super::partition_set::PartitionSet;

/// Longest record, with its value and the reply it may bring along: what a frame takes, with room for its head.
const RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX - 64;

/// Links a record to whoever counts its acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Of the count, chosen by the caller.
    pub tally: u64,
    /// Which of the caller's operations the record belongs to.
    pub op: u32,
}

/// A record in a frame: where it belongs, and who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its partition.
    pub partition: Partition,
    /// Who waits.
    pub ticket: Option<Ticket>,
}

/// Records that travel together.
#[derive(Debug)]
struct Parcel {
    sequence: u64,
    records: Vec<Posted>,
    bytes: usize,
}

/// A frame to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Echoed by the acknowledgement.
    pub sequence: u64,
    /// How many records.
    pub count: usize,
    /// The encoded records, one after another.
    pub records: Bytes,
}

/// One replica's outbox.
#[derive(Debug)]
pub struct Outbox {
    bytes_max: usize,
    bytes: usize,
    /// Whether the batch that is being posted began below the bound.
    admits: bool,
    next_sequence: u64,
    open: Vec<u8>,
    open_records: Vec<Posted>,
    sent: VecDeque<Parcel>,
    diverged: PartitionSet,
}

impl Outbox {
    /// An empty one that takes no batch while it holds `bytes_max` bytes unsent and unacknowledged.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            admits: true,
            next_sequence: 1,
            open: Vec::new(),
            open_records: Vec::new(),
            sent: VecDeque::new(),
            diverged: PartitionSet::EMPTY,
        }
    }

    /// The records posted from now on belong to one batch, which passes whole if there is any room now: its writes succeed or fail
    /// together, and however large it is, it passes as soon as what was before it has been taken. So the outbox holds at most its bound
    /// and one batch.
    pub fn begin_batch(&mut self) {
        self.admits = self.bytes < self.bytes_max;
    }

    /// Adds an encoded record. False if there was no room, or it is too long for any frame: the record is dropped and its partition marked
    /// diverged.
    pub fn post(&mut self, record: &[u8], posted: Posted) -> bool {
        if !self.admits || record.len() > RECORD_BYTES_MAX {
            self.diverged.insert(posted.partition);
            return false;
        }
        self.bytes += record.len();
        self.open.extend_from_slice(record);
        self.open_records.push(posted);
        true
    }

    /// Whether the open frame has reached the size at which it should go whatever else is waiting.
    pub fn is_ripe(&self) -> bool {
        self.open.len() >= FRAME_BYTES_TARGET
    }

    /// Closes the open frame and hands it over for sending.
    pub fn seal(&mut self) -> Option<Frame> {
        if self.open_records.is_empty() {
            return None;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let records = Bytes::from(std::mem::take(&mut self.open));
        let posted = std::mem::take(&mut self.open_records);
        let count = posted.len();
        self.sent.push_back(Parcel { sequence, records: posted, bytes: records.len() });
        Some(Frame { sequence, count, records })
    }

    /// The replica has taken a frame: its records, in order. Empty for a sequence that is not outstanding.
    pub fn acknowledged(&mut self, sequence: u64) -> Vec<Posted> {
        // Frames are acknowledged nearly in order: the search ends at once.
        let Some(at) = self.sent.iter().position(|parcel| parcel.sequence == sequence) else { return Vec::new() };
        let parcel = self.sent.remove(at).expect("the position was just found");
        self.bytes -= parcel.bytes;
        parcel.records
    }

    /// The link is gone: whatever was unsent or unacknowledged is dropped and its partitions marked diverged. Returns who was waiting.
    pub fn lose_all(&mut self) -> Vec<Ticket> {
        let mut waiting = Vec::new();
        let sent = self.sent.drain(..).flat_map(|parcel| parcel.records);
        for posted in sent.chain(self.open_records.drain(..)) {
            self.diverged.insert(posted.partition);
            waiting.extend(posted.ticket);
        }
        self.open.clear();
        self.bytes = 0;
        waiting
    }

    /// Marks a partition whose record was not even posted.
    pub fn mark_diverged(&mut self, partition: Partition) {
        self.diverged.insert(partition);
    }

    /// Partitions in which the replica may have missed something, handed over to whoever synchronises them.
    pub fn take_diverged(&mut self) -> PartitionSet {
        std::mem::take(&mut self.diverged)
    }

    /// The newest sequence handed out; once it and all before it are acknowledged, the replica has all that was posted so far.
    pub fn last_sealed(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Whether everything up to `sequence` has been acknowledged.
    pub fn is_acknowledged_to(&self, sequence: u64) -> bool {
        self.sent.front().is_none_or(|parcel| parcel.sequence > sequence)
    }

    /// Whether something was sent and not acknowledged.
    pub fn is_waiting(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Bytes unsent and unacknowledged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn posted(partition: u16) -> Posted {
        Posted { partition: Partition(partition), ticket: Some(Ticket { tally: u64::from(partition), op: 0 }) }
    }

    #[test]
    fn a_full_outbox_drops_the_record_and_marks_its_partition() {
        let mut outbox = Outbox::new(10);
        assert!(outbox.post(b"1234567890", posted(1)));
        outbox.begin_batch();
        assert!(!outbox.post(b"123", posted(2)));
        assert_eq!(outbox.take_diverged().iter().collect::<Vec<_>>(), [Partition(2)]);
        assert!(outbox.take_diverged().is_empty());
    }

    #[test]
    fn a_batch_that_begins_with_room_passes_whole_and_the_next_does_not() {
        let mut outbox = Outbox::new(10);
        outbox.begin_batch();
        assert!((0..3).all(|_| outbox.post(b"12345678", posted(1))));
        outbox.begin_batch();
        assert!(!outbox.post(b"1", posted(1)));
        let sealed = outbox.seal().expect("records wait");
        outbox.acknowledged(sealed.sequence);
        assert!(!outbox.post(b"1", posted(1)), "room in the middle of a batch would let half of it pass");
        outbox.begin_batch();
        assert!(outbox.post(b"1", posted(1)));
    }

    #[test]
    fn a_lost_link_tells_every_waiter_and_marks_every_partition() {
        let mut outbox = Outbox::new(1_000);
        outbox.post(b"a", posted(1));
        outbox.seal();
        outbox.post(b"b", posted(2));
        let waiting: Vec<u64> = outbox.lose_all().into_iter().map(|ticket| ticket.tally).collect();
        assert_eq!(waiting, [1, 2]);
        assert_eq!(outbox.take_diverged().count(), 2);
        assert_eq!(outbox.bytes(), 0);
        assert!(outbox.is_acknowledged_to(u64::MAX));
    }

    proptest! {
        #[test]
        fn bytes_are_those_not_yet_acknowledged(steps in prop::collection::vec((0u8..4, 1usize..200), 1..200)) {
            let mut outbox = Outbox::new(500);
            let (mut open, mut sent) = (0usize, std::collections::VecDeque::new());
            let mut fits = true;
            for (step, size) in steps {
                match step {
                    3 => {
                        fits = outbox.bytes() < 500;
                        outbox.begin_batch();
                    }
                    0 => {
                        prop_assert_eq!(outbox.post(&vec![0; size], posted(0)), fits);
                        open += if fits { size } else { 0 };
                    }
                    1 => {
                        let frame = outbox.seal();
                        prop_assert_eq!(frame.as_ref().map_or(0, |f| f.records.len()), open);
                        sent.extend(frame.map(|f| (f.sequence, std::mem::take(&mut open))));
                    }
                    _ => {
                        if let Some((sequence, _)) = sent.pop_front() {
                            prop_assert!(!outbox.is_acknowledged_to(sequence));
                            prop_assert!(!outbox.acknowledged(sequence).is_empty());
                            prop_assert!(outbox.is_acknowledged_to(sequence));
                        }
                    }
                }
                prop_assert_eq!(outbox.bytes(), open + sent.iter().map(|(_, n)| n).sum::<usize>());
            }
        }
    }
}
