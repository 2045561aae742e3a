//! The client for people and scripts. Never decides what a command means: it asks a node.

fn main() {}
