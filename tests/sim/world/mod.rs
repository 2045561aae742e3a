//! A simulated world: five whole nodes and their clients on one network and one clock, all of it drawn from one seed. Shared by the tests
//! in `tests/sim` and by the command `examples/simulate`.

pub(crate) mod checks;
mod client;
mod cluster;
mod dice;
mod history;
mod run;
mod scenario;

pub(crate) use run::{Outcome, run};
pub(crate) use scenario::Scenario;
