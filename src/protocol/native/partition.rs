//! What nodes tell each other of one partition: its keys by pages, and what replicas compare. Golden bytes in `golden.rs`.

use serde::{Deserialize, Serialize};

use super::Key;
use crate::base::hlc::Version;

/// A page of one partition's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<'a> {
    /// Partition number.
    pub partition: u16,
    /// In order of position.
    #[serde(borrow)]
    pub keys: Vec<Key<'a>>,
    /// Where to go on, if there is more.
    pub next: Option<u64>,
}

/// A place in the walk over a partition's leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeafPosition {
    /// Leaf number.
    pub leaf: u16,
    /// Position in it.
    pub position: u64,
}

/// What replicas of a partition compare first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDigest {
    /// Over keys and versions.
    pub digest: u64,
    /// Everything up to here was flushed.
    pub floor: Version,
    /// Everything up to here is here, and dead if it is not.
    pub settled: Version,
}
