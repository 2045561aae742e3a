//! Whose time a node goes by: its own, or its cluster's if that is another. A node that stamps an hour ahead acknowledges what no other takes, and one that returns with its
//! clock set back looks older than its former life. Exercised by the simulation (`--scenario clocks`); tested below.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;

use crate::base::limits::{CLOCK_AHEAD_MAX, DIAL_TIMEOUT};
use crate::config::Config;
use crate::net::Net;
use crate::net::client::Client;

use super::super::clock::Clock;

/// Time for a seed to tell its own. A start waits no longer for those that do not answer.
const TOLD_WITHIN: Duration = Duration::from_millis(200);
/// Seeds that are asked.
const ASKED_MAX: usize = 16;

/// The clock to start with: `clock`, set to the time of the seeds that answer if it is off by more than a stamp may lie ahead. `own` is where this node itself is reached.
pub(super) async fn of_cluster(config: &Config, net: Net, clock: Clock, own: [SocketAddr; 2]) -> Clock {
    let asked = config.seeds.iter().take(ASKED_MAX).map(|seed| ahead_ms(config, net, clock, own, seed));
    let mut told: Vec<i64> = join_all(asked).await.into_iter().flatten().collect();
    let Some(ahead_ms) = median(&mut told) else { return clock };
    if ahead_ms.unsigned_abs() <= CLOCK_AHEAD_MAX.as_millis() as u64 {
        return clock;
    }
    tracing::warn!(cluster_ahead_ms = ahead_ms, "the clock of this machine is off: going by the time of the cluster");
    clock.moved_by(ahead_ms)
}

/// By how much a seed's clock is ahead of this one, if it is somebody else and answers.
async fn ahead_ms(config: &Config, net: Net, clock: Clock, own: [SocketAddr; 2], seed: &str) -> Option<i64> {
    let found = tokio::time::timeout(TOLD_WITHIN, net.resolve(seed)).await.ok()?.ok()?;
    let to = found.into_iter().find(|address| !own.contains(address))?;
    let mut client = Client::connect(net, to, config.cluster_name.as_str(), DIAL_TIMEOUT).await.ok()?;
    let theirs = client.await_time(TOLD_WITHIN).await.ok()?;
    Some(i64::try_from(theirs).ok()?.saturating_sub(i64::try_from(clock.unix_ms()).ok()?))
}

/// One that as many are above as below, so that one wrong clock among several decides nothing.
fn median(values: &mut [i64]) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_clock_among_three_decides_nothing() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [7]), Some(7));
        assert_eq!(median(&mut [3_600_000, -3, 2]), Some(2));
        assert_eq!(median(&mut [-3_600_000, 5, 1]), Some(1));
    }

    #[test]
    fn a_clock_that_was_moved_goes_on_from_there() {
        let clock = Clock::starting_at(10_000);
        assert!(clock.moved_by(3_600_000).unix_ms() >= 3_610_000);
        assert!((7_000..9_000).contains(&clock.moved_by(-3_000).unix_ms()));
        assert!(clock.moved_by(-60_000).unix_ms() < 2_000, "there is nothing before 1970");
    }
}
