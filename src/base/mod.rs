//! Floor 0, words: the types every other floor speaks in. Never does I/O, reads a clock or draws randomness.
//! Tested beside each file.

pub mod bitfield;
pub mod channel;
pub mod counters;
pub mod entry;
pub mod glob;
pub mod hlc;
pub mod id;
pub mod item;
pub mod level;
pub mod limits;
pub mod marks;
pub mod notify;
pub mod number;
pub mod op;
pub mod outcome;
#[cfg(feature = "sim")]
pub mod plant;
pub mod reply;
pub mod seen;
pub mod slot;
pub mod whole;
