//! Floor 4, actors: each concern of a node is one, and each translates: a message in, a core call, effects carried out, a timer re-armed.
//! The only room that names actix.

pub mod admission;
mod changes;
pub mod clock;
pub mod connection;
pub mod gossip;
pub mod handles;
pub mod latency;
pub mod live;
pub mod local;
pub mod node;
mod plan;
pub mod process;
pub mod pubsub;
pub mod replication;
pub mod report;
pub mod ring;
pub mod router;
pub mod store;
pub mod sync;
pub mod topology;
pub mod views;

/// Messages an actor's mailbox takes before its senders are parked. It is no bound (see ADR 1); what is in flight is bounded at the door.
const MAILBOX: usize = 1024;
