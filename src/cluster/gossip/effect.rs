//! What the failure detector wants done, as data, and the desk that foca's wishes land on. Never performs anything.
//! Tested by the scenarios in `tests/`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use foca::{Notification, Runtime, Timer};

use super::identity::Identity;
use crate::base::id::NodeId;
use crate::protocol::datagram::{self, Kind, Stamp};

/// What is believed of a member. Only `Alive` is alive: nothing is routed to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer, and has some time left to refute.
    Suspect,
    /// It is silent.
    Down,
    /// It said good-bye.
    Left,
}

/// A member other than this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// Where; the number serves UDP and TCP.
    pub address: SocketAddr,
    /// Which life of its process. A change says that it restarted, even when nobody saw it down.
    pub incarnation: u64,
    /// What is believed of it.
    pub state: MemberState,
    /// Since when, on the caller's clock.
    pub since_ms: u64,
}

/// Why a datagram was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not an envelope of ours, or nonsense in one.
    Garbage,
    /// Another version of the envelope.
    Version(u8),
    /// Another cluster's.
    Cluster,
    /// It names members that there is no room for.
    Full,
}

/// Something to do. To be performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// More than half of this node and its seeds have been heard, this node counted. Said once, and not by a node without other seeds.
    SeedsMet,
    /// Send a datagram. Losing it does no harm.
    Send {
        /// Where to.
        to: SocketAddr,
        /// At most `DATAGRAM_BYTES_MAX`.
        bytes: Vec<u8>,
    },
    /// A member is new or has changed.
    Member(Member),
    /// A dead member was forgotten to make room.
    Forgotten(NodeId),
    /// A member's ring membership differs from ours: pull it. At most once per sender and `DIGEST_NOTICE_MS`.
    DigestDiffers {
        /// Where that member is, by its own word.
        from: SocketAddr,
        /// Its digest.
        digest: u64,
        /// Its epoch.
        epoch: u64,
    },
    /// A datagram was refused: count it.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Who sent it.
        from: SocketAddr,
        /// Say it in the log: none of its kind was for a while.
        log: bool,
    },
    /// Another process, at another address, speaks under this node's id. Both will suffer; say so loudly. At most once per
    /// `REFUSAL_LOG_MS`.
    Twin {
        /// Where the other is.
        address: SocketAddr,
        /// Its life; when greater than ours, it is the one meant to be.
        incarnation: u64,
    },
}

/// Where foca leaves what it wants until the core has taken it.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) stamp: Stamp,
    /// What foca's next message goes out as.
    pub(super) kind: Kind,
    pub(super) effects: VecDeque<Effect>,
    pub(super) alarms: Vec<(Timer<Identity>, Duration)>,
    /// Someone alive is known and knows us.
    pub(super) connected: bool,
    /// We were called down and came back under a later identity.
    pub(super) returned: bool,
}

impl Desk {
    pub(super) fn new(stamp: Stamp) -> Self {
        let (effects, alarms) = (VecDeque::new(), Vec::new());
        Self { stamp, kind: Kind::Packet, effects, alarms, connected: false, returned: false }
    }

    pub(super) fn send(&mut self, to: SocketAddr, kind: Kind, payload: &[u8]) {
        self.effects.push_back(Effect::Send { to, bytes: datagram::encode(self.stamp, kind, payload) });
    }
}

impl Runtime<Identity> for Desk {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::Active => self.connected = true,
            Notification::Idle | Notification::Defunct => self.connected = false,
            Notification::Rejoin(_) => {
                self.connected = false;
                self.returned = true;
            }
            // Changes of members are read from foca's list, which also knows suspects.
            _ => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.send(to.address, self.kind, data);
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.alarms.push((event, after));
    }
}
