//! Floor 2, the store: what one data shard holds, and every rule about it. No actix, no tokio, no clock: `now` comes in.

mod ahead;
mod background;
mod bitop;
mod bits;
mod compare;
mod digest;
mod entries;
mod eviction;
mod execute;
mod lcs;
mod lease;
mod notice;
mod packed;
mod pages;
mod ranges;
mod recent;
mod segment;
mod settle;
mod size;
mod store;
mod table;
mod walk;
mod watched;

pub use ahead::{Aim, OPS_AHEAD};
pub use background::Turn;
pub use bitop::combine;
pub use compare::{Differing, Printed, Sums, Unmatched, pair};
pub use digest::PartitionDigest;
pub use lcs::{Lcs, Match};
pub use lease::{Leased, Leases, stamps_below};
pub use notice::Notice;
pub use pages::KeyPage;
pub use ranges::{DEPTH_MAX, RANGES_MAX, Ranges};
pub use recent::RecentRequests;
pub use store::{Applied, Store, StoreConfig};
pub use table::position;
pub use walk::{Job, Stuck, Walk};

#[cfg(test)]
mod tests;
