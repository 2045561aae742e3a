//! Decides what to compare with whom, so that replicas become equal: after a link was lost, a member came (back), or ownership moved; what
//! this node may claim to hold; and what it may drop. Never compares or sends anything itself. Tested in `sync/tests.rs`.
//!
//! Ownership moves without a cut-over: a new owner claims a partition when it has compared it with everybody who might have something of it,
//! an old one keeps it until every owner has claimed it (after Garage's layout transitions).

use std::collections::{BTreeMap, BTreeSet};

use crate::base::hlc::UnixMs;
use crate::base::slot::Partition;

use super::partition_set::PartitionSet;
use super::settle::{self, SETTLE_EVERY_MS};
use super::view::{Liveness, PeerIx, View};

mod progress;
mod release;
mod sessions;
#[cfg(test)]
mod tests;
mod turns;

pub use progress::Moving;
pub use sessions::{PARTITIONS_PER_SESSION, REST_MS_MIN, SessionEnd};
use turns::Turns;

/// Every shared partition is compared this often, whatever happened.
const ROUND_EVERY_MS: u64 = 10_000;
/// After a change of ownership, coordinators may for this long not know of it and write to the old owners alone.
const SETTLE_MS: u64 = 1_500;
/// Nodes that have met most of their seeds for this long, and none that holds anything, found a cluster together. A node that can't reach
/// its seeds founds none: it may be the one that is cut off, and two clusters of one name would both acknowledge at quorum.
const FOUND_AFTER_MS: u64 = 10_000;
/// What a node holds is said at most this often, but for the last of it: every node draws its routes anew then, a millisecond in which no client
/// is served.
const CLAIM_EVERY_MS: u64 = 1_000;
/// What comparing one partition with one peer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Keys that differed, in either direction.
    pub differing: usize,
    /// Keys brought here that had been written longer ago than a replica may lag behind in ordinary life.
    pub pulled_old: usize,
    /// Such keys that were brought there.
    pub pushed_old: usize,
    /// What is settled there is settled here now.
    pub adopted: bool,
}

impl Compared {
    /// Adds what a part came to.
    pub fn add(&mut self, part: Self) {
        self.differing += part.differing;
        self.pulled_old += part.pulled_old;
        self.pushed_old += part.pushed_old;
        self.adopted |= part.adopted;
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Compare these partitions with that peer, both ways. Of those that differ, as many as [`Planner::choose`] says.
    Compare(PeerIx, PartitionSet),
    /// Publish that this node holds these partitions.
    Claim {
        /// All it holds.
        partitions: PartitionSet,
        /// Where its data descends from.
        founding: u64,
    },
    /// Drop the data of these partitions.
    Drop(PartitionSet),
    /// Ask the other replicas of these partitions whether they may be settled.
    Settle(PartitionSet),
    /// What is here descends from another founding than what the others have.
    Unsettle,
    /// The others have gone on without this node, which was forgotten.
    Lapse,
    /// This node leaves, and by what is known here nothing keeps it any more.
    Depart,
}

/// What is known of one pair of partition and peer since the pair came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    /// The life of the peer.
    incarnation: u64,
    /// The mark of the route when the view was last looked at.
    mark: u32,
    /// Compared, with nothing old missing here.
    clean: bool,
    /// The mark of the route under which they were last found to have the same, but for what was under way; `None` if either may have missed
    /// something since.
    level: Option<u32>,
}

/// A comparison under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// The mark of the route when it began.
    mark: u32,
    /// Nothing is known to have been missed since it began.
    holds: bool,
}

/// The plan.
#[derive(Debug)]
pub struct Planner {
    started_ms: UnixMs,
    seeds_met_ms: Option<UnixMs>,
    founding: Option<u64>,
    held: PartitionSet,
    /// When some of what is held may be claimed or given back again, though more is to follow.
    next_claim_ms: UnixMs,
    pending: BTreeMap<PeerIx, PartitionSet>,
    pairs: BTreeMap<(Partition, PeerIx), Pair>,
    changed_ms: BTreeMap<Partition, UnixMs>,
    not_before_ms: BTreeMap<PeerIx, UnixMs>,
    busy: BTreeSet<PeerIx>,
    asked: BTreeMap<(Partition, PeerIx), Asked>,
    turns: Turns,
    /// Where among the partitions the next session with a peer begins to choose.
    next_choice: BTreeMap<PeerIx, Partition>,
    next_settle_ms: UnixMs,
    /// What is here of these partitions descends from another founding than what their holders have.
    foreign: PartitionSet,
    bowed: bool,
    /// How often this node was forgotten in its life.
    lapses: u32,
    lapsed: bool,
    /// When copies began to move to or from this node.
    begun: Option<progress::Begun>,
    /// Since when this node leaves.
    leaving_since_ms: Option<UnixMs>,
    next_round_ms: UnixMs,
    round: Option<Round>,
    last_round: Option<(UnixMs, usize)>,
}

/// A round under way: what of it is still to be compared, and how many keys differed.
#[derive(Debug, Default)]
struct Round {
    left: BTreeMap<PeerIx, PartitionSet>,
    differing: usize,
}

impl Planner {
    /// For a node started at `now`. Without seeds it founds a cluster: it holds everything there is, which is nothing.
    pub fn new(now: UnixMs, has_seeds: bool) -> Self {
        Self {
            started_ms: now,
            seeds_met_ms: None,
            founding: (!has_seeds).then_some(now),
            held: if has_seeds { PartitionSet::EMPTY } else { PartitionSet::FULL },
            next_claim_ms: now,
            pending: BTreeMap::new(),
            pairs: BTreeMap::new(),
            changed_ms: BTreeMap::new(),
            not_before_ms: BTreeMap::new(),
            busy: BTreeSet::new(),
            asked: BTreeMap::new(),
            turns: Turns::default(),
            next_choice: BTreeMap::new(),
            next_settle_ms: now + SETTLE_EVERY_MS,
            foreign: PartitionSet::EMPTY,
            bowed: false,
            lapses: 0,
            lapsed: false,
            begun: None,
            leaving_since_ms: None,
            next_round_ms: now + ROUND_EVERY_MS,
            round: None,
            last_round: None,
        }
    }

    /// With the rounds in which everything is compared, whatever happened, or without: then whatever is missed has to be known.
    #[must_use]
    pub fn with_rounds(self, rounds: bool) -> Self {
        Self { next_round_ms: if rounds { self.next_round_ms } else { UnixMs::MAX }, ..self }
    }

    /// What this node holds, by its own knowledge.
    pub fn held(&self) -> PartitionSet {
        self.held
    }

    /// How often this node was forgotten, as far as the plan knows.
    pub fn lapses(&self) -> u32 {
        self.lapses
    }

    /// Time and divergent keys of the last completed round.
    pub fn last_round(&self) -> Option<(UnixMs, usize)> {
        self.last_round
    }

    /// Partitions this node owns and can't claim yet.
    pub fn syncing(&self, view: &View) -> usize {
        usize::from(view.owned().difference(&self.held).count())
    }

    /// The cluster looks different: new pairs must be compared.
    pub fn view_changed(&mut self, view: &View, now: UnixMs) {
        if view.seeds_met {
            self.seeds_met_ms.get_or_insert(now);
        }
        self.lapse(view);
        self.bow_to_other_founding(view);
        let mut pairs = BTreeMap::new();
        for partition in Partition::all() {
            let route = view.route(partition);
            let concerned = route.owners.contains(&view.me) || self.held.contains(partition);
            for peer in route.replicas().filter(|peer| concerned && *peer != view.me) {
                let Some(incarnation) = alive(view, peer) else { continue };
                let known = self.pairs.get(&(partition, peer)).filter(|pair| pair.incarnation == incarnation).copied();
                if known.is_none() {
                    self.changed_ms.insert(partition, now);
                }
                // Another set of replicas: who was among them may have told some and not others of what it wrote.
                if known.is_none_or(|pair| pair.mark != route.mark) {
                    self.pending.entry(peer).or_insert(PartitionSet::EMPTY).insert(partition);
                }
                let level = known.and_then(|pair| pair.level).filter(|mark| *mark == route.mark);
                let clean = known.is_some_and(|pair| pair.clean);
                pairs.insert((partition, peer), Pair { incarnation, mark: route.mark, clean, level });
            }
        }
        self.pairs = pairs;
        self.pending.retain(|peer, _| alive(view, *peer).is_some());
        self.turns.retain(|peer| alive(view, peer).is_some());
        if let Some(round) = &mut self.round {
            round.left.retain(|peer, _| alive(view, *peer).is_some());
            round.left.iter_mut().for_each(|(peer, left)| *left = shared_with(view, *peer, left));
        }
    }

    /// When a node that founded a cluster meets one whose claims outweigh its own, it holds nothing any more and asks that one.
    fn bow_to_other_founding(&mut self, view: &View) {
        let claimed = view.claimed();
        let outweighed = claimed.iter().any(|p| {
            let holders = &view.route(p).holders;
            !holders.is_empty() && !holders.contains(&view.me)
        });
        let theirs = view.others().find(|(ix, peer)| {
            Some(peer.member.held.founding) != self.founding
                && Partition::all().any(|p| view.route(p).holders.contains(ix))
        });
        if let Some((_, peer)) = theirs.filter(|_| outweighed || self.founding.is_none()) {
            self.founding = Some(peer.member.held.founding);
            if outweighed {
                self.held = PartitionSet::EMPTY;
                self.pairs.clear();
                self.asked.clear();
                self.foreign = PartitionSet::FULL;
                self.bowed = true;
            }
        }
    }

    /// A node that was forgotten holds nothing any more, as if it had started anew.
    fn lapse(&mut self, view: &View) {
        if view.lapses > self.lapses {
            self.lapses = view.lapses;
            self.held = PartitionSet::EMPTY;
            self.pairs.clear();
            self.asked.clear();
            self.lapsed = true;
        }
    }

    /// A peer may have missed writes to these partitions.
    pub fn diverged(&mut self, peer: PeerIx, partitions: &PartitionSet) {
        let pending = self.pending.entry(peer).or_insert(PartitionSet::EMPTY);
        *pending = pending.union(partitions);
        for partition in partitions.iter() {
            if let Some(pair) = self.pairs.get_mut(&(partition, peer)) {
                pair.level = None;
            }
            if let Some(asked) = self.asked.get_mut(&(partition, peer)) {
                asked.holds = false;
            }
        }
    }

    /// One partition has been compared.
    pub fn compared(&mut self, peer: PeerIx, partition: Partition, came_to: Compared) {
        if came_to.adopted {
            self.foreign.remove(partition);
        }
        let asked = self.asked.remove(&(partition, peer)).filter(|asked| asked.holds);
        if let Some(pair) = self.pairs.get_mut(&(partition, peer)) {
            pair.clean = came_to.pulled_old == 0;
            pair.level = asked.filter(|_| pair.clean && came_to.pushed_old == 0).map(|asked| asked.mark);
            // Something old was brought here or there: whether they have the same now, another comparison tells.
            if pair.level.is_none() {
                self.pending.entry(peer).or_insert(PartitionSet::EMPTY).insert(partition);
            }
        }
        if let Some(round) = &mut self.round {
            round.differing += came_to.differing;
            if let Some(left) = round.left.get_mut(&peer) {
                left.remove(partition);
            }
        }
    }

    /// Partitions of which what is here descends from another founding than what their holders have, who may never have had it.
    pub fn foreign(&self) -> PartitionSet {
        self.foreign
    }

    /// Whether all that this node has of a partition is, or is on its way, to every other replica by the route of this mark.
    pub fn is_level(&self, view: &View, partition: Partition, mark: u32) -> bool {
        let level = |peer: PeerIx| {
            self.pairs.get(&(partition, peer)).is_some_and(|pair| pair.level == Some(mark))
                && !self.pending.get(&peer).is_some_and(|pending| pending.contains(partition))
        };
        let route = settle::route(view, partition).filter(|route| route.mark == mark);
        route.is_some_and(|route| settle::others(view, route).all(level))
    }

    /// What to do now, at most one thing per peer at a time; `filled` are the partitions that hold any data here, `unsettled` those that were
    /// written to since they were settled.
    pub fn steps(
        &mut self,
        view: &View,
        (filled, unsettled): (&PartitionSet, &PartitionSet),
        now: UnixMs,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        if std::mem::take(&mut self.bowed) {
            steps.push(Step::Unsettle);
        }
        if std::mem::take(&mut self.lapsed) {
            steps.push(Step::Lapse);
        }
        let held = self.held;
        self.claim(view, now, &mut steps);
        self.give_back(view, filled, now, &mut steps);
        if self.held != held {
            self.next_claim_ms = now + CLAIM_EVERY_MS;
        }
        self.note_progress(view, now);
        if self.may_depart(view, filled, now) {
            steps.push(Step::Depart);
        }
        self.settle(view, unsettled, now, &mut steps);
        self.begin_round(view, now);
        for (peer, pending) in &mut self.pending {
            let waits = self.not_before_ms.get(peer).is_some_and(|at| *at > now) || self.busy.contains(peer);
            if waits || alive(view, *peer).is_none() {
                continue;
            }
            let chosen = shared_with(view, *peer, &std::mem::take(pending));
            if !chosen.is_empty() {
                self.busy.insert(*peer);
                for partition in chosen.iter() {
                    let asked = Asked { mark: view.route(partition).mark, holds: true };
                    self.asked.insert((partition, *peer), asked);
                }
                steps.push(Step::Compare(*peer, chosen));
            }
        }
        steps
    }

    /// Asks, when it is time, about what this node can vouch for itself.
    fn settle(&mut self, view: &View, unsettled: &PartitionSet, now: UnixMs, steps: &mut Vec<Step>) {
        if now < self.next_settle_ms {
            return;
        }
        // All by their own clocks in the same turn, or nearly: whose turn it is should be one's.
        self.next_settle_ms = (now / SETTLE_EVERY_MS + 1) * SETTLE_EVERY_MS;
        let mine = settle::mine(view, unsettled, now);
        let level: PartitionSet = mine.iter().filter(|p| self.is_level(view, *p, view.route(*p).mark)).collect();
        if !level.is_empty() {
            steps.push(Step::Settle(level));
        }
    }

    /// Claims what has been compared with everybody who might have something of it.
    fn claim(&mut self, view: &View, now: UnixMs, steps: &mut Vec<Step>) {
        // With all others silent, what they hold can't be known; the last of all members has nobody left to ask.
        let is_last = self.founding.is_some() && view.others().next().is_none();
        let alone = !is_last && view.others().all(|(_, peer)| peer.liveness != Liveness::Alive);
        // Where nobody holds anything yet, somebody who founded a cluster may be on the way.
        let founded = self.founding.is_some() || Partition::all().any(|p| !view.route(p).holders.is_empty());
        if !founded && self.seeds_met_ms.is_none_or(|at| now < at + FOUND_AFTER_MS) {
            return;
        }
        let lacking = view.owned().difference(&self.held);
        let may_claim = |&partition: &Partition| {
            let route = view.route(partition);
            let settled = self.changed_ms.get(&partition).is_none_or(|at| *at + SETTLE_MS <= now);
            let compared = |peer: &PeerIx| self.pairs.get(&(partition, *peer)).is_some_and(|pair| pair.clean);
            let living = route.replicas().filter(|peer| *peer != view.me && view.is_alive(*peer));
            let heard = route.holders.iter().filter(|peer| compared(peer)).count();
            let enough = route.holders.is_empty() || heard > route.holders.len() / 2;
            settled && !alone && enough && living.into_iter().all(|peer| compared(&peer))
        };
        let complete: PartitionSet = lacking.iter().filter(may_claim).collect();
        if complete == lacking || now >= self.next_claim_ms {
            self.held = self.held.union(&complete);
        }
        if self.held != view.claimed() {
            // The first claim of all settles where the data descends from.
            let founding = *self.founding.get_or_insert(self.started_ms);
            steps.push(Step::Claim { partitions: self.held, founding });
        }
    }

    /// Starts comparing everything with everybody when it is time, and notes the end of the round before.
    fn begin_round(&mut self, view: &View, now: UnixMs) {
        if let Some(round) = self.round.take_if(|round| round.left.values().all(PartitionSet::is_empty)) {
            self.last_round = Some((now, round.differing));
        }
        if now < self.next_round_ms || self.round.is_some() {
            return;
        }
        self.next_round_ms = now + ROUND_EVERY_MS;
        let mut round = Round::default();
        for partition in view.owned().iter() {
            for peer in view.route(partition).owners.iter().filter(|peer| **peer != view.me && view.is_alive(**peer)) {
                round.left.entry(*peer).or_insert(PartitionSet::EMPTY).insert(partition);
            }
        }
        for (peer, partitions) in &round.left {
            let pending = self.pending.entry(*peer).or_insert(PartitionSet::EMPTY);
            *pending = pending.union(partitions);
        }
        self.round = Some(round);
    }
}

/// Those that a peer owns or holds: it is to have no others.
fn shared_with(view: &View, peer: PeerIx, partitions: &PartitionSet) -> PartitionSet {
    partitions.iter().filter(|partition| view.route(*partition).replicas().any(|replica| replica == peer)).collect()
}

/// The life of a living peer.
fn alive(view: &View, peer: PeerIx) -> Option<u64> {
    view.peer(peer).filter(|peer| peer.liveness == Liveness::Alive).map(|peer| peer.member.incarnation)
}
