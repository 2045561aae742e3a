//! What one replica has yet to receive or to acknowledge. Bounded in bytes, beyond which goes at most one batch; what does not fit, or is
//! lost with a link, is remembered as partitions to synchronise, and what is lost is given back besides. Never does I/O. Tested below.

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
    /// The records, encoded one after another: a part of the frame that carries them.
    encoded: Bytes,
}

/// What was under way on a link that is gone.
#[derive(Debug, Default)]
pub struct Lost {
    /// Who was waiting.
    pub waiting: Vec<Ticket>,
    /// Encoded records, one after another in each, the oldest first. The replica may have them all the same.
    pub encoded: Vec<Bytes>,
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
            self.mark_diverged(posted.partition);
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

    /// Closes the open frame and hands it over for sending. `frame` makes it of its sequence, which the acknowledgement echoes, the number of
    /// records and the records, which it ends with.
    pub fn seal(&mut self, frame: impl FnOnce(u64, usize, &[u8]) -> Bytes) -> Option<Bytes> {
        if self.open_records.is_empty() {
            return None;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let records = std::mem::take(&mut self.open_records);
        let frame = frame(sequence, records.len(), &self.open);
        // The frame is in memory until it is acknowledged, and nothing twice.
        let encoded = frame.slice(frame.len() - self.open.len()..);
        self.sent.push_back(Parcel { sequence, records, encoded });
        self.open.clear();
        self.open.shrink_to(2 * FRAME_BYTES_TARGET);
        Some(frame)
    }

    /// The replica has taken a frame: its records, in order. Empty for a sequence that is not outstanding.
    pub fn acknowledged(&mut self, sequence: u64) -> Vec<Posted> {
        // Frames are acknowledged nearly in order: the search ends at once.
        let Some(at) = self.sent.iter().position(|parcel| parcel.sequence == sequence) else { return Vec::new() };
        let parcel = self.sent.remove(at).expect("the position was just found");
        self.bytes -= parcel.encoded.len();
        parcel.records
    }

    /// The link is gone: whatever was unsent or unacknowledged is dropped and its partitions marked diverged.
    pub fn lose_all(&mut self) -> Lost {
        let mut lost = Lost::default();
        let (open, encoded) = (std::mem::take(&mut self.open_records), std::mem::take(&mut self.open));
        let open = Parcel { sequence: self.next_sequence, records: open, encoded: encoded.into() };
        for parcel in std::mem::take(&mut self.sent).into_iter().chain([open]) {
            for posted in parcel.records {
                self.mark_diverged(posted.partition);
                lost.waiting.extend(posted.ticket);
            }
            lost.encoded.push(parcel.encoded);
        }
        self.bytes = 0;
        lost
    }

    /// Marks a partition of which the replica has missed something.
    pub fn mark_diverged(&mut self, partition: Partition) {
        #[cfg(feature = "sim")]
        if crate::base::plant::Plant::DroppedHint.is_sown() {
            return;
        }
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

    /// A frame of records alone.
    fn bare(_: u64, _: usize, records: &[u8]) -> Bytes {
        Bytes::copy_from_slice(records)
    }

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
        outbox.seal(bare).expect("records wait");
        outbox.acknowledged(outbox.last_sealed());
        assert!(!outbox.post(b"1", posted(1)), "room in the middle of a batch would let half of it pass");
        outbox.begin_batch();
        assert!(outbox.post(b"1", posted(1)));
    }

    #[test]
    fn a_lost_link_tells_every_waiter_and_marks_every_partition() {
        let mut outbox = Outbox::new(1_000);
        outbox.post(b"a", posted(1));
        assert_eq!(
            outbox
                .seal(|sequence, count, records| [&[sequence as u8, count as u8], records].concat().into())
                .as_deref(),
            Some(&b"\x01\x01a"[..])
        );
        outbox.post(b"b", posted(2));
        let lost = outbox.lose_all();
        assert_eq!(lost.waiting.into_iter().map(|ticket| ticket.tally).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(lost.encoded, [&b"a"[..], b"b"]);
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
                        let frame = outbox.seal(bare);
                        prop_assert_eq!(frame.as_ref().map_or(0, Bytes::len), open);
                        sent.extend(frame.map(|_| (outbox.last_sealed(), std::mem::take(&mut open))));
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
