//! What the clients of another member want to hear, as that member has told. Never asks for it. Tested in `tests.rs`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Change;
use crate::base::channel::Kind;
use crate::base::glob;
use crate::base::notify::Classes;

/// See the file's head. One life of a member has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    version: u64,
    everything: bool,
    classes: Classes,
    names: [BTreeSet<Bytes>; 3],
}

/// The change is of another version than is known here: all has to be told anew. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another version is known")]
pub struct Unfit;

impl Interest {
    /// Takes a change over. One that is older than what is known changes nothing.
    ///
    /// # Errors
    /// `Unfit`.
    pub fn take(&mut self, change: Change) -> Result<(), Unfit> {
        if change.version <= self.version {
            return Ok(());
        }
        if change.base == 0 {
            self.names = Default::default();
        } else if change.base != self.version {
            return Err(Unfit);
        }
        (self.version, self.everything, self.classes) = (change.version, change.everything, change.classes);
        for (kind, name) in change.removed {
            self.names[kind as usize].remove(&name);
        }
        for (kind, name) in change.added {
            self.names[kind as usize].insert(name);
        }
        Ok(())
    }

    /// Whether a message on this channel is wanted.
    pub fn wants(&self, kind: Kind, channel: &[u8]) -> bool {
        self.everything
            || self.names[kind as usize].contains(channel)
            || kind == Kind::Channel
                && self.names[Kind::Pattern as usize].iter().any(|pattern| glob::matches(pattern, channel))
    }

    /// Wanted events of keys.
    pub fn classes(&self) -> Classes {
        self.classes
    }
}
