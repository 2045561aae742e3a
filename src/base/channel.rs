//! What clients subscribe to: names of three kinds. Only words; who subscribed is in `cluster::pubsub`. Tested where it is used.

use serde::{Deserialize, Serialize};

/// What a name that is subscribed to is. Append-only: peers number the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A channel (`SUBSCRIBE`).
    Channel,
    /// A glob over the names of channels (`PSUBSCRIBE`).
    Pattern,
    /// A channel of `SSUBSCRIBE`, which has nothing to do with one of the same name.
    Shard,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];
}
