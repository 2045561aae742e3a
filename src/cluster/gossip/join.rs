//! Finding others: announces this node to seeds until someone answers, then to whoever is away, for ever. Never gives up, never forgets a
//! seed. Tested by the scenarios in `tests/`.

use std::net::SocketAddr;

use rand::RngExt;
use rand::seq::IteratorRandom;

use super::config::{ANNOUNCE_DOWN_MAX, ANNOUNCE_MS, SEARCH_MS_MAX, SEARCH_MS_MIN};
use super::identity::Identity;
use super::{Alarm, Gossip, MemberState};
use crate::protocol::datagram::Kind;

/// When the next round is and how far the pauses have grown.
#[derive(Debug, Default)]
pub(super) struct Announcing {
    alarm: Option<(u64, u64)>,
    /// While nobody is known: the next pause.
    search_ms: Option<u64>,
}

impl Announcing {
    /// Whether no round has been planned yet.
    pub(super) fn never(&self) -> bool {
        self.alarm.is_none()
    }

    /// The pauses start over.
    pub(super) fn again(&mut self) {
        self.search_ms = None;
    }
}

impl Gossip {
    /// Brings the next round forward to at most `in_ms` from now.
    pub(super) fn announce_soon(&mut self, in_ms: u64) {
        if self.gone {
            return;
        }
        let at = self.clock.awake_ms() + in_ms;
        if let Some(key) = self.announcing.alarm {
            if key.0 <= at {
                return;
            }
            self.alarms.remove(&key);
        }
        self.announcing.alarm = Some(self.set_alarm(at, Alarm::Announce));
    }

    /// Nobody is left, or the others took us for dead: begins again with short pauses.
    pub(super) fn search(&mut self) {
        if self.announcing.search_ms.is_none() {
            self.announcing.search_ms = Some(SEARCH_MS_MIN);
            let soon_ms = self.rng.random_range(0..SEARCH_MS_MIN);
            self.announce_soon(soon_ms);
        }
    }

    /// One round: all seeds while alone, else those never heard, else one whose address no live member has; and some of the dead, since they
    /// may be what we look like from the other side of a partition.
    pub(super) fn announce_round(&mut self) {
        let missing = self.seeds.iter().copied().filter(|&seed| !self.view.lives_at(seed));
        let unheard: Vec<SocketAddr> = missing.clone().filter(|seed| !self.seeds_heard.contains(seed)).collect();
        let mut to: Vec<SocketAddr> = match (self.desk.connected, unheard.is_empty()) {
            (false, _) => self.seeds.clone(),
            (true, false) => unheard.clone(),
            (true, true) => missing.choose(&mut self.rng).into_iter().collect(),
        };
        let own = self.address();
        let away = self.view.members().filter(|m| matches!(m.state, MemberState::Down | MemberState::Left));
        let away = away.map(|m| m.address).filter(|&address| address != own && !self.view.lives_at(address));
        to.extend(away.sample(&mut self.rng, ANNOUNCE_DOWN_MAX));
        to.sort_unstable();
        to.dedup();
        for address in to {
            self.announce_to(address);
        }
        let pause_ms = if self.desk.connected {
            self.announcing.search_ms = None;
            // Those met so far may all be strangers to the cluster that the seed is of; together they would found another.
            if unheard.is_empty() { ANNOUNCE_MS } else { SEARCH_MS_MAX }
        } else {
            let pause_ms = self.announcing.search_ms.unwrap_or(SEARCH_MS_MIN);
            self.announcing.search_ms = Some((pause_ms * 2).min(SEARCH_MS_MAX));
            pause_ms
        };
        let in_ms = pause_ms + self.rng.random_range(0..=pause_ms / 2);
        self.announcing.alarm = None;
        self.announce_soon(in_ms);
    }

    /// Presents this node to whoever lives at `to`. Foca announces to identities only, so it is given one nobody has and the receiver
    /// puts in its own.
    pub(super) fn announce_to(&mut self, to: SocketAddr) {
        let whoever = Identity { address: to, ..self.foca.identity().clone() };
        self.desk.kind = Kind::Announce;
        let sent = self.foca.announce(whoever, &mut self.desk);
        self.desk.kind = Kind::Packet;
        self.note_fault(sent);
    }
}
