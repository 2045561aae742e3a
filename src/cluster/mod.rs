//! Floor 2, decisions about the cluster: who is a member, who is alive, who owns what. Pure: no actors, no clock, no randomness, and no
//! order of a hash map reaches a decision. Tested beside each file.

mod assignment;
mod balance;
pub mod forget;
pub mod gossip;
pub mod hints;
pub mod leave;
pub mod link;
pub mod membership;
pub mod outbox;
pub mod partition_set;
pub mod placement;
pub mod plan;
pub mod pubsub;
pub mod ring;
pub mod safety;
pub mod settle;
pub mod slots;
#[cfg(test)]
pub(crate) mod specimen;
pub mod survey;
pub mod sync;
pub mod tally;
pub mod view;
