//! Fetching what a batch of operations is about to need: hashes once, then all lines of the tables, then all entries, so that their waits
//! for memory overlap. Never reads a value and never changes anything. Tested with the operations, `benches/store.rs` shows what it is for.

use super::entries::Key;
use super::store::Store;
use crate::base::op::Op;

/// Operations fetched for at once: more than a core waits for at the same time, few enough to stay in its nearest cache.
pub const OPS_AHEAD: usize = 16;

/// Where an operation's key is to be looked for: its table and its hash. Good for as long as the store lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aim {
    pub(super) table: u32,
    pub(super) hash: u64,
}

impl Store {
    /// Aims at the keys of up to [`OPS_AHEAD`] operations, and asks for the memory they will need.
    ///
    /// # Panics
    /// If there are more, or a key belongs to another shard.
    pub fn aim(&self, ops: &[Op]) -> [Aim; OPS_AHEAD] {
        let mut aims = [Aim::default(); OPS_AHEAD];
        assert!(ops.len() <= OPS_AHEAD, "a window is bounded");
        for (aim, op) in aims.iter_mut().zip(ops) {
            let (table, key) = self.find(&op.key);
            *aim = Aim { table: table as u32, hash: key.hash };
            self.tables[table].prefetch_line(key);
        }
        for (aim, op) in aims.iter().zip(ops) {
            self.tables[aim.table as usize].prefetch_entry(Key { bytes: &op.key, hash: aim.hash });
        }
        aims
    }
}
