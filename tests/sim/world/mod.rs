//! A simulated world: five whole nodes or more and their clients on one network and one clock, all of it drawn from one seed. Shared by the tests
//! in `tests/sim` and by the command `examples/simulate`.

pub(crate) mod checks;
mod client;
mod cluster;
mod combined;
mod copies;
mod dice;
mod faults;
mod history;
mod level_one;
mod run;
mod scenario;
mod settle;

pub(crate) use level_one::Losses;
pub(crate) use run::{Outcome, Task, run};
pub(crate) use scenario::Scenario;
