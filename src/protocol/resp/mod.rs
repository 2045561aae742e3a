//! The Redis protocol, versions 2 and 3, from the server's side: bytes to commands, commands to requests, answers to bytes.
//! Pure: never does I/O and never reads a clock. Tested beside each file, and against `redis-server` 7.0 when the texts were taken.

use bytes::Bytes;
use smallvec::SmallVec;

pub mod command;
pub mod control;
pub mod decode;
pub mod encode;
pub mod info;
pub mod inline;
pub mod number;
pub mod read;
pub mod session;
pub mod settings;
pub mod slowlog;
pub mod subscriptions;
pub mod topology;
pub mod transaction;
pub mod value;

/// A command as it came: its name, then its arguments. Never empty.
pub type Args = SmallVec<[Bytes; 4]>;
