//! Floor 2, decisions about the cluster: who is alive. Inputs and `now` come in, effects go out; no clock, no socket, no randomness
//! but a seed.

pub mod gossip;
