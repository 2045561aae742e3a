//! Bugs to be planted on purpose, so that the simulation can show that it finds them. Only with the `sim` feature; no release carries it.
//! Each is read in the one place it spoils. Exercised by `examples/simulate --plant NAME`.

use std::sync::atomic::{AtomicU8, Ordering};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plant {
    /// A replica that did not acknowledge counts as one that did (`cluster::tally`).
    LostAcknowledgement = 1,
    /// Merging ignores the node id (`base::entry`).
    OriginBlindMerge = 2,
    /// A replica takes what rests on a lease that it has given to another (`storage::lease`).
    IgnoredLease = 3,
    /// Members count each other's acknowledgements by different routes (`cluster::view`).
    EqualRoutes = 4,
    /// An owner that has not got its copies yet counts as one that has them, and is read from (`cluster::view`).
    JoiningReader = 5,
    /// A comparison leaves out half of the leaves that differ (`actors::sync`).
    SkippedLeaves = 6,
    /// What a replica could not be sent is neither noted nor is its partition marked (`actors::replication`, `cluster::outbox`).
    DroppedHint = 7,
    /// What is noted as a hint counts as acknowledged (`actors::replication`).
    CountedHint = 8,
    /// Tombstones are dropped before all replicas are known to have them (`storage::settle`).
    EarlyTombstone = 9,
}

impl Plant {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("lost-acknowledgement", Self::LostAcknowledgement),
        ("origin-blind-merge", Self::OriginBlindMerge),
        ("ignored-lease", Self::IgnoredLease),
        ("equal-routes", Self::EqualRoutes),
        ("joining-reader", Self::JoiningReader),
        ("skipped-leaves", Self::SkippedLeaves),
        ("dropped-hint", Self::DroppedHint),
        ("counted-hint", Self::CountedHint),
        ("early-tombstone", Self::EarlyTombstone),
    ];

    /// Plants it, for the whole process.
    pub fn sow(self) {
        SOWN.store(self as u8, Ordering::Relaxed);
    }

    /// Whether it is planted.
    pub fn is_sown(self) -> bool {
        SOWN.load(Ordering::Relaxed) == self as u8
    }
}

static SOWN: AtomicU8 = AtomicU8::new(0);
