//! What a client can be told before it connects. Each knob says what it trades.

use std::time::Duration;

use crate::base::id::ClusterName;
use crate::base::level::Level;
use crate::net::Net;

use super::Client;
use super::error::Error;
use super::inner::Inner;

/// The longest time a call may take. A node remembers for 30 s what it has done under a request's id; who tried again after that might do it
/// twice.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(20);
/// A little more than a node takes before it gives up itself and says why.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(6);
/// Two connections let a large answer pass beside small ones; a node has few cores to serve more.
const CONNECTIONS_PER_NODE: usize = 2;
/// Half of what one arbiter of a node lets in by default.
const IN_FLIGHT_MAX: usize = 16 * 1024;
/// What the client holds of requests not yet answered.
const IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) cluster: ClusterName,
    pub(super) consistency: Option<Level>,
    pub(super) timeout: Duration,
    pub(super) connections_per_node: usize,
    pub(super) in_flight_max: usize,
    pub(super) in_flight_bytes_max: usize,
    pub(super) net: Net,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: "trellis".parse().expect("it is a name"),
            consistency: None,
            timeout: TIMEOUT_DEFAULT,
            connections_per_node: CONNECTIONS_PER_NODE,
            in_flight_max: IN_FLIGHT_MAX,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            net: Net::Os,
        }
    }
}

impl Options {
    /// The name all nodes of the cluster share; `trellis` by default. A node of another name refuses the client.
    #[must_use]
    pub fn cluster_name(self, cluster: ClusterName) -> Self {
        Self { cluster, ..self }
    }

    /// How many replicas take part where a call does not say; by default the nodes' own setting.
    #[must_use]
    pub fn consistency(self, level: Level) -> Self {
        Self { consistency: Some(level), ..self }
    }

    /// How long a call may take where it does not say, retries included: 6 s by default, at most [`TIMEOUT_MAX`].
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(TIMEOUT_MAX), ..self }
    }

    /// Connections to each node, at least one; 2 by default. A second one is opened only when many requests are under way on the first.
    #[must_use]
    pub fn connections_per_node(self, connections: usize) -> Self {
        Self { connections_per_node: connections.max(1), ..self }
    }

    /// Operations under way at a time, at least one; 16,384 by default. Further calls wait for room, within their own deadline.
    #[must_use]
    pub fn in_flight_max(self, operations: usize) -> Self {
        Self { in_flight_max: operations.clamp(1, u32::MAX as usize), ..self }
    }

    /// Bytes of their keys and values, 64 MiB by default. A call that is larger alone waits until nothing else is under way.
    #[must_use]
    pub fn in_flight_bytes_max(self, bytes: usize) -> Self {
        Self { in_flight_bytes_max: bytes.clamp(1024, u32::MAX as usize), ..self }
    }

    /// Connects to the first of the seeds that answers, and learns from it who else is there.
    ///
    /// # Errors
    /// `Unreachable` or `Refused`; nothing was done.
    pub async fn connect<S: AsRef<str>>(self, seeds: impl IntoIterator<Item = S>) -> Result<Client, Error> {
        let seeds = seeds.into_iter().map(|seed| seed.as_ref().into()).collect();
        Ok(Client { inner: Inner::start(self, seeds).await? })
    }
}
