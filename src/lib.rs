//! Trellis: a replicated cache and key-value store without a leader.
//!
//! The house has floors, each importing only lower ones; `tests/tidy.rs` enforces it and `docs/ARCHITECTURE.md` explains it.

pub mod base;
pub mod protocol;
pub mod storage;
