//! What the failure detector is told, and every time it derives from that, in one place. Never changes while it runs. Tested below.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

use crate::base::id::{ClusterName, NodeId};
use crate::config::{FAILURE_MS, HEARTBEAT_MS};
use crate::protocol::datagram::PAYLOAD_BYTES_MAX;

/// Members remembered, the dead included. Beyond it the longest dead are forgotten, and strangers refused when all live.
pub const MEMBERS_MAX: usize = 1024;
/// Seeds listened to; more are ignored. Names may resolve to many addresses.
pub const SEEDS_MAX: usize = 64;
/// First pause between announcements of a node that knows no one. Doubles up to [`SEARCH_MS_MAX`]. Up to half of any pause is added at random.
pub(super) const SEARCH_MS_MIN: u64 = 250;
/// Longest such pause. One small datagram per seed is cheap, and a cluster whose seed came up last waits for this.
pub(super) const SEARCH_MS_MAX: u64 = 2_000;
/// Pause of a node that knows someone and looks for those who are away.
pub(super) const ANNOUNCE_MS: u64 = 5_000;
/// Dead members one such round writes to.
pub(super) const ANNOUNCE_DOWN_MAX: usize = 3;
/// Members that are told they are suspected in one turn.
pub(super) const CHALLENGES_PER_TURN_MAX: usize = 16;
/// About how many members tell a suspect so. All of them in a small cluster, a share in a large one.
pub(super) const CHALLENGERS: usize = 8;
/// A sender whose membership differs is reported at most this often.
pub(super) const DIGEST_NOTICE_MS: u64 = 200;
/// Refused datagrams of one reason are worth a log line this often.
pub(super) const REFUSAL_LOG_MS: u64 = 10_000;

/// What the failure detector is told.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// Who this node is.
    pub node: NodeId,
    /// Where the others write to it.
    pub address: SocketAddr,
    /// The life of this process: greater than that of any earlier life under the same id, such as milliseconds since 1970 at start.
    /// When a clock went back the node still gets in, a few round trips later.
    pub incarnation: u64,
    /// Within this time every member of a small cluster is probed by every other.
    pub heartbeat_interval_ms: u64,
    /// At the latest then a silent member is down.
    pub failure_timeout_ms: u64,
    /// Datagrams of other clusters are refused.
    pub cluster: ClusterName,
    /// Where to look for others. May contain this node.
    pub seeds: Vec<SocketAddr>,
}

/// Why a configuration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTiming {
    /// Probes this dense are noise.
    #[error("heartbeat interval must be 40 ms to 10 minutes")]
    Heartbeat,
    /// Shorter than the jitter of a busy machine, or longer than anyone waits.
    #[error("failure timeout must be 200 ms to 1 hour")]
    Timeout,
    /// A member would be dead before anyone asked it.
    #[error("failure timeout must be longer than the heartbeat interval")]
    Order,
    /// The address can't be written to.
    #[error("advertised address must be a unicast address with a port")]
    Address,
}

/// Times derived from the two settings; in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One member is probed each time this passes.
    pub probe_ms: u64,
    /// An answer that takes longer makes three others ask too.
    pub rtt_ms: u64,
    /// News is passed on this often, while there is any.
    pub spread_ms: u64,
    /// How long the member that raised a suspicion waits for it to be refuted.
    pub suspect_ms: u64,
    /// How long those wait who only heard of the suspicion, should its author be gone.
    pub backstop_ms: u64,
    /// A member silent for this long is worth asking when others fail.
    pub quiet_ms: u64,
    /// A timer this late means that this node was not running, so that what it did not hear proves nothing.
    pub stall_ms: u64,
}

impl Timing {
    /// The one place where times are derived. For the defaults, 1000 and 5000 ms: probe 200, rtt 80, spread 100, suspect 1500, quiet 1000,
    /// backstop 2500, stall 200.
    ///
    /// - `probe` = a fifth of the heartbeat: in a cluster of up to six each node reaches all others within one. SWIM's expected time until
    ///   *someone* probes a dead member is about one probe period whatever the size (Das et al. 2002, section 3.1), so the period need not
    ///   depend on it; measured, a quarter missed the goal of three seconds among ten nodes once in 200 runs. At most 1/25 of the timeout,
    ///   so that a long heartbeat can't eat a short timeout.
    /// - `rtt` = 2/5 of it: leaves 3/5 for the four hops of an indirect probe.
    /// - `suspect` = 3/10 of the timeout: seven probe periods in which a live suspect is told and can refute. Waiting for a probe (three periods
    ///   at worst among three nodes), its failure (one), this and spreading come to half of the timeout.
    /// - `quiet` = five probe periods, the heartbeat: in a small healthy cluster no member is silent for longer.
    /// - `backstop` = half of the timeout: begins when the rumour arrives, ends before the timeout does.
    ///
    /// # Errors
    ///
    /// [`BadTiming`] when the settings contradict each other.
    pub fn derive(heartbeat_interval_ms: u64, failure_timeout_ms: u64) -> Result<Self, BadTiming> {
        if !HEARTBEAT_MS.contains(&heartbeat_interval_ms) {
            return Err(BadTiming::Heartbeat);
        }
        if !FAILURE_MS.contains(&failure_timeout_ms) {
            return Err(BadTiming::Timeout);
        }
        if failure_timeout_ms <= heartbeat_interval_ms {
            return Err(BadTiming::Order);
        }
        let probe_ms = (heartbeat_interval_ms / 5).min(failure_timeout_ms / 25);
        Ok(Self {
            probe_ms,
            rtt_ms: probe_ms * 2 / 5,
            spread_ms: probe_ms / 2,
            suspect_ms: failure_timeout_ms * 3 / 10,
            backstop_ms: failure_timeout_ms / 2,
            quiet_ms: probe_ms * 5,
            stall_ms: probe_ms,
        })
    }

    /// What foca is told.
    ///
    /// - Three helpers per indirect probe: SWIM's own choice; more buys little.
    /// - Twelve transmissions of each piece of news: three rounds to everyone among five, and 4 log10(n + 1) stays below it up to a
    ///   thousand members.
    /// - The dead are never forgotten by time (an identity forgotten could be revived by an old rumour), only at [`MEMBERS_MAX`].
    /// - The dead are told so when they speak, which is how a node that was paused learns to come back.
    /// - Announcing to the dead is ours, since foca stops it when alone; announcing to the living every five seconds fills the lists of
    ///   large clusters, where one answer can't name all.
    pub(super) fn foca(self) -> foca::Config {
        let some = |n| NonZeroUsize::new(n).expect("a literal above zero");
        foca::Config {
            probe_period: Duration::from_millis(self.probe_ms),
            probe_rtt: Duration::from_millis(self.rtt_ms),
            num_indirect_probes: some(3),
            max_transmissions: NonZeroU8::new(12).expect("a literal above zero"),
            suspect_to_down_after: Duration::from_millis(self.suspect_ms),
            remove_down_after: None,
            max_packet_size: some(PAYLOAD_BYTES_MAX),
            notify_down_members: true,
            periodic_announce: Some(PeriodicParams { frequency: Duration::from_secs(5), num_members: some(1) }),
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(PeriodicParams {
                frequency: Duration::from_millis(self.spread_ms),
                num_members: some(3),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_refused_when_they_contradict_each_other() {
        assert_eq!(Timing::derive(39, 5000), Err(BadTiming::Heartbeat));
        assert_eq!(Timing::derive(100, 199), Err(BadTiming::Timeout));
        assert_eq!(Timing::derive(1000, 1000), Err(BadTiming::Order));
    }

    #[test]
    fn a_dead_member_is_down_before_the_timeout_for_any_settings() {
        for heartbeat in [40, 100, 250, 1000, 5000, 60_000, 600_000] {
            for timeout in [200, 500, 1000, 5000, 30_000, 600_001, 3_600_000] {
                let Ok(t) = Timing::derive(heartbeat, timeout) else { continue };
                assert!(0 < t.rtt_ms && t.rtt_ms * 2 < t.probe_ms, "{t:?}");
                assert!(t.spread_ms > 0 && t.probe_ms * 7 <= t.suspect_ms, "{t:?}");
                // Three periods until someone probes, one to fail, the suspicion, two to spread.
                assert!(t.probe_ms * 6 + t.suspect_ms < timeout, "{t:?}");
                assert!(t.probe_ms * 6 + t.backstop_ms < timeout, "{t:?}");
            }
        }
    }
}
