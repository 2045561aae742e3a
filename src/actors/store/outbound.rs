//! What one batch of writes sends to replicas, encoded as it goes. Never decides who they are. Tested with the store actor.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::actors::replication::Outgoing;
use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::Version;
use crate::base::limits::{LARGE_VALUE_BYTES, OUTBOX_BYTES_MAX};
use crate::base::slot::Partition;
use crate::protocol::native::frame;
use crate::protocol::native::{Answered, Counted, RecordRef};

/// Encoded records on their way to replicas. Bound: `OUTBOX_BYTES_MAX` and one record.
#[derive(Default)]
pub(super) struct Outbound {
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<Outgoing>,
    /// Keys of large values to be sent as they are in the end, with the last operation that changed each.
    pub(super) later: BTreeMap<Bytes, u32>,
    pub(super) written: Vec<(u32, Version)>,
    /// What operations found that wrote nothing.
    pub(super) read: Vec<(u32, Version)>,
}

impl Outbound {
    pub(super) fn entry(
        &mut self,
        op: u32,
        key: &[u8],
        entry: EntryRef<'_>,
        answered: Option<Answered<'_>>,
        counted: Option<Counted>,
    ) {
        self.later.remove(key);
        // What comes after a full outbox goes without its bytes: it is dropped, counted and left to synchronisation.
        if self.bytes.len() < OUTBOX_BYTES_MAX {
            frame::encode_record(&RecordRef::Entry { key, entry, answered, counted }, &mut self.bytes);
        }
        let route = counted.map(|counted| counted.route);
        self.records.push(Outgoing { end: self.bytes.len(), partition: Partition::of(key), op, route });
        self.written.push((op, entry.version));
    }

    /// Whether the entry can wait for the end of its batch: of a large value, several versions would be as many copies.
    pub(super) fn puts_off(&mut self, op: u32, key: &Bytes, entry: EntryRef<'_>) -> bool {
        let large = value_len(entry) >= LARGE_VALUE_BYTES;
        if large {
            self.later.insert(key.clone(), op);
        }
        large
    }

    pub(super) fn floor(&mut self, partition: Partition, version: Version) {
        frame::encode_record(&RecordRef::Floor { partition: partition.0, version }, &mut self.bytes);
        let op = u32::from(partition.0);
        self.records.push(Outgoing { end: self.bytes.len(), partition, op, route: None });
        self.written.push((op, version));
    }
}

fn value_len(entry: EntryRef<'_>) -> usize {
    match entry.body {
        BodyRef::Live { value, .. } => value.len(),
        BodyRef::Tombstone => 0,
    }
}
