//! Datagrams received: opened, checked against the bounds, given to foca. Never trusts a number in one. Tested by the scenarios in `tests/`.

use std::net::SocketAddr;

use bytes::Buf;
use foca::{Codec, Header, Member, Message, State};

use super::config::{DIGEST_NOTICE_MS, REFUSAL_LOG_MS};
use super::effect::{Effect, Refusal};
use super::identity::{Identity, Wire};
use super::{Gossip, MEMBERS_MAX};
use crate::protocol::datagram::{self, Kind, Stamp};

/// When something of each kind was last worth a log line.
#[derive(Debug, Default)]
pub(super) struct Logged {
    refusals: [Option<u64>; 4],
    twin: Option<u64>,
}

/// Who sent a datagram that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// A member, or this node through a seed that is it.
    Heard,
    /// Another process under this node's id.
    Twin,
}

/// Whether a line may be written now; notes that it was.
fn due(last: &mut Option<u64>, now_ms: u64) -> bool {
    let due = last.is_none_or(|at| now_ms >= at + REFUSAL_LOG_MS);
    if due {
        *last = Some(now_ms);
    }
    due
}

impl Gossip {
    /// A datagram that `from` sent.
    pub fn receive(&mut self, now_ms: u64, from: SocketAddr, bytes: &[u8]) {
        self.wake(now_ms);
        if self.gone {
            return;
        }
        let outcome = match datagram::decode(self.desk.stamp.cluster, bytes) {
            Ok(datagram) => self.open(datagram.kind, datagram.payload, datagram.stamp),
            Err(datagram::Refused::Garbage) => Err(Refusal::Garbage),
            Err(datagram::Refused::Version(version)) => Err(Refusal::Version(version)),
            Err(datagram::Refused::Cluster) => Err(Refusal::Cluster),
        };
        // Another process under our own name is not the cluster we look for.
        if outcome == Ok(Sender::Heard) {
            self.heard_from(from);
        }
        if let Err(refusal) = outcome {
            let slot = match refusal {
                Refusal::Garbage => 0,
                Refusal::Version(_) => 1,
                Refusal::Cluster => 2,
                Refusal::Full => 3,
            };
            let log = due(&mut self.logged.refusals[slot], self.clock.now_ms);
            self.desk.effects.push_back(Effect::Refused { refusal, from, log });
        }
        self.settle();
    }

    fn open(&mut self, kind: Kind, payload: &[u8], stamp: Stamp) -> Result<Sender, Refusal> {
        match kind {
            Kind::Packet => {
                let mut rest = payload;
                let header = Wire.decode_header(&mut rest).map_err(|_| Refusal::Garbage)?;
                self.packet(&header, rest, payload, stamp)
            }
            Kind::Announce => {
                let mut rest = payload;
                let mut header = Wire.decode_header(&mut rest).map_err(|_| Refusal::Garbage)?;
                if header.message != Message::Announce || !rest.is_empty() {
                    return Err(Refusal::Garbage);
                }
                // It was meant for whoever lives here.
                header.dst = self.foca.identity().clone();
                let mut packet = Vec::new();
                Wire.encode_header(&header, &mut packet).expect("a vector takes any header");
                self.packet(&header, &[], &packet, stamp)
            }
            Kind::Challenge => self.challenged(payload, stamp),
        }
    }

    /// A packet of the protocol: `header`, then `updates`; `whole` is both.
    fn packet(
        &mut self,
        header: &Header<Identity>,
        updates: &[u8],
        whole: &[u8],
        stamp: Stamp,
    ) -> Result<Sender, Refusal> {
        if let Some(own) = self.own_name(&header.src) {
            return Ok(own);
        }
        if !self.has_room_for(header, updates)? {
            return Err(Refusal::Full);
        }
        match self.foca.handle_data(whole, &mut self.desk) {
            Ok(()) | Err(foca::Error::DataFromOurselves) => {}
            Err(foca::Error::Encode(_)) => self.faults += 1,
            Err(_) => return Err(Refusal::Garbage),
        }
        self.heard(&header.src, stamp);
        Ok(Sender::Heard)
    }

    /// Someone wants to know whether we live, and says what it believes.
    fn challenged(&mut self, payload: &[u8], stamp: Stamp) -> Result<Sender, Refusal> {
        let mut rest = payload;
        let mut next = || Wire.decode_member(&mut rest).map_err(|_| Refusal::Garbage);
        let (sender, subject) = (next()?, next()?);
        if !rest.is_empty() {
            return Err(Refusal::Garbage);
        }
        if let Some(own) = self.own_name(sender.id()) {
            return Ok(own);
        }
        if subject.id().node != self.foca.identity().node {
            return Ok(Sender::Heard);
        }
        if subject.state() == State::Suspect && subject.id() == self.foca.identity() {
            let refuted = self.foca.apply_many(std::iter::once(subject), false, &mut self.desk);
            self.note_fault(refuted);
        }
        self.heard(sender.id(), stamp);
        self.announce_to(sender.id().address);
        Ok(Sender::Heard)
    }

    /// Whether a message comes from our own name: ourselves through a seed that is us, or another process that took our id. That one is
    /// answered, seldom and with about as much as it sent, so that it learns of us: whichever of the two is new would else wait for ever.
    fn own_name(&mut self, sender: &Identity) -> Option<Sender> {
        let own = self.foca.identity();
        if sender.node != own.node {
            return None;
        }
        if sender.address == own.address {
            return Some(Sender::Heard);
        }
        if due(&mut self.logged.twin, self.clock.now_ms) {
            let (address, incarnation) = (sender.address, sender.incarnation);
            self.desk.effects.push_back(Effect::Twin { address, incarnation });
            self.announce_to(address);
        }
        Some(Sender::Twin)
    }

    /// Whether every member a packet names fits. Looks inside only when it might not.
    fn has_room_for(&mut self, header: &Header<Identity>, mut updates: &[u8]) -> Result<bool, Refusal> {
        let unknown = |gossip: &Self, id: &Identity| usize::from(!gossip.view.known.contains_key(&id.node));
        let mut strangers = unknown(self, &header.src);
        if updates.len() >= 2 && header.message != Message::Broadcast {
            let named = usize::from(updates.get_u16());
            if self.view.known.len() + named.min(updates.len()) + 1 > MEMBERS_MAX {
                for _ in 0..named {
                    let member: Member<Identity> = Wire.decode_member(&mut updates).map_err(|_| Refusal::Garbage)?;
                    strangers += unknown(self, member.id());
                }
            }
        }
        Ok(strangers == 0 || self.make_room(strangers))
    }

    /// A member spoke: it lives, and says what it knows of the ring.
    fn heard(&mut self, sender: &Identity, stamp: Stamp) {
        self.view.heard_from(&sender.node, self.clock.awake_ms());
        let (own, now_ms) = (self.desk.stamp, self.clock.now_ms);
        if (stamp.digest, stamp.epoch) == (own.digest, own.epoch) {
            return;
        }
        let recent = |&at: &u64| now_ms < at + DIGEST_NOTICE_MS;
        if self.digest_notices.get(&sender.node).is_some_and(recent) {
            return;
        }
        if self.digest_notices.len() >= MEMBERS_MAX {
            self.digest_notices.retain(|_, at| recent(at));
            if self.digest_notices.len() >= MEMBERS_MAX {
                return;
            }
        }
        self.digest_notices.insert(sender.node.clone(), now_ms);
        let Stamp { digest, epoch, .. } = stamp;
        self.desk.effects.push_back(Effect::DigestDiffers { from: sender.address, digest, epoch });
    }
}
