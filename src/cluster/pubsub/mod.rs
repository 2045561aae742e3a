//! Publish and subscribe over the cluster, as decisions: who of this node's clients subscribed to what (`roster`), what other members want to
//! hear (`interest`) and have been told of this one (`ledger`), and what is on its way to them (`mailbag`). Never sends anything. Tested
//! beside each file, together in `tests.rs`. Why so: ADR 0014.

mod interest;
mod ledger;
mod mailbag;
mod roster;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::base::channel::Kind;
use crate::base::notify::Classes;

pub use interest::Interest;
pub use ledger::Ledger;
pub use mailbag::{Mailbag, Parcel, Publications};
pub use roster::Roster;

/// Names of which a node tells the others one by one. With more of them it asks for everything that is published.
pub const INTEREST_NAMES_MAX: usize = 16 * 1024;
/// Bytes of these names.
pub const INTEREST_BYTES_MAX: usize = 1024 * 1024;

/// A name that is subscribed to.
pub type Name = (Kind, Bytes);

/// How what a node's clients want to hear has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The version it changes; 0 if it replaces whatever was known.
    pub base: u64,
    /// The version it makes.
    pub version: u64,
    /// Whether everything is wanted, names or not.
    pub everything: bool,
    /// Wanted events of keys.
    pub classes: Classes,
    /// Names that are wanted now.
    pub added: Vec<Name>,
    /// Names that are not any more.
    pub removed: Vec<Name>,
}
