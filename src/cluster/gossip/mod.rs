//! The failure detector: who is alive, by SWIM. Inputs and `now_ms` in, effects and the next deadline out. Never reads a clock, opens a
//! socket, or says who owns what. Tested by the scenarios in `tests/`, on a simulated network.
//!
//! foca does the protocol. Around it: an envelope, announcing for ever to seeds and to the dead, telling suspects that they are (so that a
//! live one refutes in a round trip), asking a member whose TCP link broke at once, one heap of timers, and a clock that stands still while
//! this node does not run. `docs/adr/0003-failure-detection.md` says why.

mod config;
mod effect;
mod identity;
mod join;
mod packet;
mod seed_watch;
mod suspicion;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use foca::{Foca, NoCustomBroadcast, Timer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use config::{BadTiming, GossipConfig, MEMBERS_MAX, SEEDS_MAX, Timing};
use effect::Desk;
pub use effect::{Effect, Member, MemberState, Refusal};
use identity::{Identity, Wire};
pub use seed_watch::{NamedSeed, SeedWatch};
use view::View;

use crate::base::id::NodeId;
use crate::protocol::datagram::Stamp;

/// Something due at a time.
#[derive(Debug)]
enum Alarm {
    /// One of foca's.
    Foca(Timer<Identity>),
    /// Announce to whom we miss.
    Announce,
    /// Tell suspects, and bury those who had their time.
    Suspects,
    /// Judge a member that someone doubted.
    Doubt(suspicion::Doubt),
}

/// The failure detector of one node. After every call that takes `now_ms` the caller performs [`Gossip::next_effect`] until there is none,
/// and calls [`Gossip::tick`] at [`Gossip::next_deadline`]. Extra ticks are harmless. `now_ms` counts from any monotonic origin.
pub struct Gossip {
    foca: Foca<Identity, Wire, StdRng, NoCustomBroadcast>,
    timing: Timing,
    desk: Desk,
    /// Our own draws; foca has a generator of its own.
    rng: StdRng,
    view: View,
    seeds: Vec<SocketAddr>,
    /// Addresses among the seeds from which a member of this cluster has written.
    seeds_heard: BTreeSet<SocketAddr>,
    seeds_met: bool,
    announcing: join::Announcing,
    /// By deadline, then by age: foca wants its timers in order.
    alarms: BTreeMap<(u64, u64), Alarm>,
    alarms_set: u64,
    clock: Clock,
    digest_notices: BTreeMap<NodeId, u64>,
    logged: packet::Logged,
    gone: bool,
    faults: u64,
}

/// Time while this node runs. When it did not (paused, starved, suspended), nothing it failed to hear counts against anyone.
#[derive(Debug)]
struct Clock {
    /// The caller's clock, never backwards.
    now_ms: u64,
    /// How much of it we slept through.
    slept_ms: u64,
}

impl Clock {
    fn awake_ms(&self) -> u64 {
        self.now_ms - self.slept_ms
    }
}

impl Gossip {
    /// A node that knows nobody yet. It announces itself to its seeds at its first [`Gossip::tick`], and for ever.
    ///
    /// # Errors
    ///
    /// [`BadTiming`] when settings contradict each other.
    pub fn new(now_ms: u64, config: GossipConfig, seed: u64) -> Result<Self, BadTiming> {
        let timing = Timing::derive(config.heartbeat_interval_ms, config.failure_timeout_ms)?;
        if !identity::can_write_to(config.address) {
            return Err(BadTiming::Address);
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let identity = Identity {
            node: config.node,
            address: config.address,
            incarnation: config.incarnation,
            bump: 0,
            left: false,
        };
        let foca_rng = StdRng::seed_from_u64(rng.random());
        let stamp = Stamp { cluster: config.cluster.fingerprint(), ..Stamp::default() };
        let mut gossip = Self {
            foca: Foca::new(identity, timing.foca(), foca_rng, Wire),
            timing,
            desk: Desk::new(stamp),
            rng,
            view: View::default(),
            seeds: Vec::new(),
            seeds_heard: BTreeSet::new(),
            seeds_met: false,
            announcing: join::Announcing::default(),
            alarms: BTreeMap::new(),
            alarms_set: 0,
            clock: Clock { now_ms, slept_ms: 0 },
            digest_notices: BTreeMap::new(),
            logged: packet::Logged::default(),
            gone: false,
            faults: 0,
        };
        gossip.seeds(now_ms, config.seeds);
        Ok(gossip)
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64) {
        let now = self.wake(now_ms);
        while let Some(entry) = self.alarms.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Alarm::Foca(timer) => {
                    let handled = self.foca.handle_timer(timer, &mut self.desk);
                    self.note_fault(handled);
                }
                Alarm::Announce => self.announce_round(),
                Alarm::Suspects => self.visit_suspects(),
                Alarm::Doubt(doubt) => self.judge(doubt),
            }
            self.settle();
        }
    }

    /// When [`Gossip::tick`] is wanted next; `None` once this node has left.
    pub fn next_deadline(&self) -> Option<u64> {
        self.alarms.first_key_value().map(|(&(at, _), _)| at + self.clock.slept_ms)
    }

    /// The next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.desk.effects.pop_front()
    }

    /// The seeds' addresses as they resolve now. At most [`SEEDS_MAX`] are kept. One that is this node's own does no harm.
    pub fn seeds(&mut self, now_ms: u64, mut seeds: Vec<SocketAddr>) {
        self.wake(now_ms);
        seeds.sort_unstable();
        seeds.dedup();
        seeds.retain(|&seed| seed != self.address() && identity::can_write_to(seed));
        seeds.truncate(SEEDS_MAX);
        if self.seeds != seeds || self.announcing.never() {
            self.seeds = seeds;
            self.seeds_heard.retain(|heard| self.seeds.contains(heard));
            self.count_seeds();
            self.announce_soon(0);
        }
    }

    /// Notes that a member of this cluster wrote from an address.
    fn heard_from(&mut self, from: SocketAddr) {
        if self.seeds.contains(&from) && self.seeds_heard.insert(from) {
            self.count_seeds();
        }
    }

    fn count_seeds(&mut self) {
        let heard = self.seeds_heard.len();
        if !self.seeds_met && heard > 0 && 2 * (heard + 1) > self.seeds.len() + 1 {
            self.seeds_met = true;
            self.desk.effects.push_back(Effect::SeedsMet);
        }
    }

    /// What our own ring membership is. Goes out with every datagram; when it is new, to three members at once, whose change takes it on
    /// to others in turn.
    pub fn local_digest(&mut self, digest: u64, epoch: u64) {
        let stamp = Stamp { digest, epoch, ..self.desk.stamp };
        if self.desk.stamp != stamp && !self.gone {
            self.desk.stamp = stamp;
            let told = self.foca.gossip(&mut self.desk);
            self.note_fault(told);
        }
    }

    /// Says good-bye. The effects that follow are the last; everything received later is ignored.
    pub fn leave(&mut self, now_ms: u64) {
        self.wake(now_ms);
        if self.gone {
            return;
        }
        let farewell = Identity { left: true, ..self.foca.identity().next() };
        let changed = self.foca.change_identity(farewell, &mut self.desk);
        self.note_fault(changed);
        let left = self.foca.leave_cluster(&mut self.desk);
        self.note_fault(left);
        // Each goes to three members and may be lost; whoever hears it passes it on.
        for _ in 0..2 {
            let told = self.foca.gossip(&mut self.desk);
            self.note_fault(told);
        }
        self.gone = true;
        self.desk.alarms.clear();
        self.alarms.clear();
    }

    /// Every member known but this node, by id.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.view.members()
    }

    /// What is known of one of them.
    pub fn member(&self, id: &NodeId) -> Option<Member> {
        self.view.member(id)
    }

    /// Whether a live member knows us.
    pub fn connected(&self) -> bool {
        self.desk.connected
    }

    /// Whether any other node of this cluster has ever answered at a seed's address, or knows us now.
    pub fn answered(&self) -> bool {
        self.desk.connected || !self.seeds_heard.is_empty()
    }

    /// Errors that only a mistake of ours can cause. Zero, or a bug to report.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// Where the others write to this node.
    pub fn address(&self) -> SocketAddr {
        self.foca.identity().address
    }

    /// Sets the clock; answers the time that counts.
    fn wake(&mut self, now_ms: u64) -> u64 {
        self.clock.now_ms = self.clock.now_ms.max(now_ms);
        if let Some((&(due, _), _)) = self.alarms.first_key_value() {
            let late_ms = self.clock.awake_ms().saturating_sub(due);
            if late_ms > self.timing.stall_ms {
                self.clock.slept_ms += late_ms;
            }
        }
        self.clock.awake_ms()
    }

    fn set_alarm(&mut self, at: u64, alarm: Alarm) -> (u64, u64) {
        self.alarms_set += 1;
        let key = (at, self.alarms_set);
        self.alarms.insert(key, alarm);
        key
    }

    fn note_fault(&mut self, outcome: Result<(), foca::Error>) {
        self.faults += u64::from(outcome.is_err());
    }

    /// Takes what foca left behind: timers, a return, news of members.
    fn settle(&mut self) {
        let now = self.clock.awake_ms();
        for (timer, after) in std::mem::take(&mut self.desk.alarms) {
            let after_ms = u64::try_from(after.as_millis()).expect("periods are hours at most");
            self.set_alarm(now + after_ms, Alarm::Foca(timer));
        }
        self.refresh();
        // Those who called us down know us by our former name, and whoever we miss may be missing us.
        if std::mem::take(&mut self.desk.returned) {
            self.announcing.again();
        }
        if !self.desk.connected {
            self.search();
        }
    }
}
