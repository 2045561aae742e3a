//! Trellis: a replicated cache and key-value store without a leader.
//!
//! The house has floors, each importing only lower ones; `tests/tidy` enforces it and `docs/ARCHITECTURE.md` explains it.

pub mod actors;
pub mod admin;
pub mod base;
pub mod client;
pub mod cluster;
pub mod config;
pub mod net;
pub mod options;
pub mod protocol;
pub mod storage;
pub mod telemetry;
