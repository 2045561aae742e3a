//! Doubt, suspicion, burial: what this node does about members that may be dead, beyond foca's probes. Never buries who refutes in time.
//! Tested by the scenarios in `tests/`.
//!
//! A suspect is told so by those who suspect it, not only by rumour ("buddy system" of Lifeguard, Dadgar et al. 2017, section IV.C): a live
//! one refutes within a round trip, and a lost rumour buries nobody.

use foca::{Codec, Member, State};
use rand::RngExt;

use super::config::{CHALLENGERS, CHALLENGES_PER_TURN_MAX};
use super::effect::MemberState;
use super::identity::{Identity, Wire};
use super::{Alarm, Gossip};
use crate::base::id::NodeId;
use crate::protocol::datagram::Kind;

/// A member that was asked whether it lives.
#[derive(Debug)]
pub(super) struct Doubt {
    who: Identity,
    /// Messages from it when the doubt arose.
    heard: u64,
    /// It was asked twice.
    last: bool,
}

impl Gossip {
    /// Something speaks against `node`, such as a broken TCP link: asks it at once, again after the time an answer takes, and suspects it
    /// after one probe period of silence. It is then suspect everywhere about as fast, and down `suspect_ms` later.
    pub fn suspect_hint(&mut self, now_ms: u64, node: &NodeId) {
        self.wake(now_ms);
        if self.gone {
            return;
        }
        self.doubt(node);
    }

    /// Asks a member that is believed alive whether it is, unless it is being asked.
    fn doubt(&mut self, node: &NodeId) {
        let Some(known) = self.view.known.get(node).filter(|k| k.state == MemberState::Alive) else { return };
        let (who, heard) = (known.identity.clone(), known.heard);
        let pending = |alarm: &Alarm| matches!(alarm, Alarm::Doubt(doubt) if doubt.who == who);
        if self.alarms.values().any(pending) {
            return;
        }
        self.challenge(&who, known.refuted, State::Alive);
        let again_at = self.clock.awake_ms() + self.timing.rtt_ms;
        self.set_alarm(again_at, Alarm::Doubt(Doubt { who, heard, last: false }));
    }

    /// Two suspects at once are a partition or a rack: asks those who have been silent longest, instead of waiting for their turn to be
    /// probed, which in a large cluster comes after the timeout.
    fn doubt_the_silent(&mut self) {
        let long_ago = self.clock.awake_ms().saturating_sub(self.timing.quiet_ms);
        let silent = self.view.known.values().filter(|k| k.state == MemberState::Alive && k.heard_ms <= long_ago);
        let mut silent: Vec<_> = silent.map(|k| (k.heard_ms, k.identity.node.clone())).collect();
        silent.sort_unstable();
        for (_, node) in silent.iter().take(CHALLENGES_PER_TURN_MAX) {
            self.doubt(node);
        }
    }

    /// The time for an answer has passed.
    pub(super) fn judge(&mut self, doubt: Doubt) {
        let Some(known) = self.view.known.get(&doubt.who.node) else { return };
        if known.identity != doubt.who || known.heard != doubt.heard || known.state != MemberState::Alive {
            return;
        }
        let refuted = known.refuted;
        if !doubt.last {
            self.challenge(&doubt.who, refuted, State::Alive);
            let at = self.clock.awake_ms() + self.timing.probe_ms - self.timing.rtt_ms;
            self.set_alarm(at, Alarm::Doubt(Doubt { last: true, ..doubt }));
            return;
        }
        let node = doubt.who.node.clone();
        let suspect = Member::new(doubt.who, refuted, State::Suspect);
        let raised = self.foca.apply_many(std::iter::once(suspect), true, &mut self.desk);
        self.note_fault(raised);
        let told = self.foca.gossip(&mut self.desk);
        self.note_fault(told);
        self.refresh();
        // We raised it, so we end it, as early as foca ends its own.
        let bury_at = self.clock.awake_ms() + self.timing.suspect_ms;
        if let Some(known) = self.view.known.get_mut(&node) {
            known.bury_at = known.bury_at.min(bury_at);
        }
    }

    /// Tells suspects what is believed of them, and buries those whose time is over.
    pub(super) fn visit_suspects(&mut self) {
        let now = self.clock.awake_ms();
        let (dead, living): (Vec<_>, Vec<_>) =
            self.view.suspects().map(|k| (k.identity.clone(), k.refuted, k.bury_at)).partition(|&(_, _, at)| at <= now);
        for (who, ..) in dead {
            self.bury(who);
        }
        if living.is_empty() {
            return;
        }
        if living.len() >= 2 {
            self.doubt_the_silent();
        }
        let crowd = self.foca.num_members().max(1);
        for (who, refuted, _) in living.into_iter().take(CHALLENGES_PER_TURN_MAX) {
            if self.rng.random_range(0..crowd) < CHALLENGERS {
                self.challenge(&who, refuted, State::Suspect);
            }
        }
        self.set_alarm(now + self.timing.probe_ms, Alarm::Suspects);
    }

    /// Visits suspects in this very turn or the next, unless a visit is planned.
    pub(super) fn visit_suspects_soon(&mut self) {
        if !self.alarms.values().any(|alarm| matches!(alarm, Alarm::Suspects)) {
            let now = self.clock.awake_ms();
            self.set_alarm(now, Alarm::Suspects);
        }
    }

    /// Declares a member down, and says so to the others.
    pub(super) fn bury(&mut self, who: Identity) {
        let dead = Member::new(who, 0, State::Down);
        let buried = self.foca.apply_many(std::iter::once(dead), true, &mut self.desk);
        self.note_fault(buried);
    }

    /// Says to `who` what is believed of it. It answers with an announcement, a later one when it was suspected.
    fn challenge(&mut self, who: &Identity, refuted: foca::Incarnation, believed: State) {
        let mut payload = Vec::new();
        let me = Member::alive(self.foca.identity().clone());
        let subject = Member::new(who.clone(), refuted, believed);
        for member in [me, subject] {
            Wire.encode_member(&member, &mut payload).expect("a vector takes any identity");
        }
        self.desk.send(who.address, Kind::Challenge, &payload);
    }
}
