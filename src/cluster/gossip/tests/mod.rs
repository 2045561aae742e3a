//! Scenarios on a simulated network, each for many seeds. Never waits for real time.

mod chaos;
mod edges;
mod faults;
mod network;
mod timing;
