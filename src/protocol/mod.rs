//! Floor 1, bytes: turns sockets' bytes into requests and replies into bytes. Trusts nothing it reads; never does I/O.

pub mod base64;
pub mod datagram;
pub mod dump;
pub mod item;
pub mod memcached;
pub mod native;
pub mod request;
pub mod resp;
