//! One key under survey: what the answers of its replicas amount to. The newest version, who lacks it, and what has become of requests that
//! may have been done before. Asks nobody and executes nothing; who asks is `router::survey`. Tested beside this file, and with whole
//! coordinators in the simulation.

use std::collections::BTreeMap;

use crate::base::entry::Entry;
use crate::base::hlc::{UnixMs, Version};
use crate::base::id::RequestId;
use crate::base::limits::CLOCK_AHEAD_MAX;
use crate::base::outcome::Outcome;

use super::tally::{Progress, Tally};
use super::view::{PeerIx, Required};

#[cfg(test)]
mod tests;

/// What is to be answered to a request that is not to be done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was done, with this outcome, which is part of what the key holds.
    Done(Outcome),
    /// It may be part of what the key holds, or have been overruled, and nobody can tell.
    InDoubt,
}

/// The key, while the answers come in.
#[derive(Debug)]
pub struct Subject {
    required: Required,
    tally: Tally,
    ours: Option<Entry>,
    /// The newest that is not ours.
    newer: Option<Entry>,
    /// The version each other replica that answered has.
    theirs: BTreeMap<PeerIx, Version>,
    /// Which replicas remember each request, and with what outcome. One that was begun twice may have left two.
    remembered: BTreeMap<(RequestId, Version), (Outcome, Vec<PeerIx>)>,
    /// Versions that some replica has, and since when it remembers every request that led to them.
    known: Vec<(Version, Version)>,
    declined: bool,
}

impl Subject {
    /// A key of which `me` holds `ours`, and of which `required` must be heard.
    pub fn new(required: Required, me: PeerIx, ours: Option<Entry>) -> Self {
        let mut tally = Tally::new(required.clone());
        tally.acknowledge(me);
        let (newer, theirs) = (None, BTreeMap::new());
        let (remembered, known) = (BTreeMap::new(), Vec::new());
        Self { required, tally, ours, newer, theirs, remembered, known, declined: false }
    }

    /// What this node holds.
    pub fn ours(&self) -> Option<&Entry> {
        self.ours.as_ref()
    }

    /// The newest, if this node does not hold it.
    pub fn newer(&self) -> Option<&Entry> {
        self.newer.as_ref()
    }

    /// The newest of all.
    pub fn newest(&self) -> Option<&Entry> {
        self.newer.as_ref().or(self.ours.as_ref())
    }

    /// Its version; [`Version::ZERO`] where nobody has anything.
    pub fn newest_version(&self) -> Version {
        self.newest().map_or(Version::ZERO, |entry| entry.version)
    }

    /// The other replicas that answered.
    pub fn heard(&self) -> impl Iterator<Item = PeerIx> {
        self.theirs.keys().copied()
    }

    /// A replica holds this.
    pub fn holds(&mut self, peer: PeerIx, entry: Option<Entry>) {
        self.tally.acknowledge(peer);
        self.theirs.insert(peer, entry.as_ref().map_or(Version::ZERO, |entry| entry.version));
        if let Some(entry) = entry {
            let best = self.newest().map(Entry::as_ref);
            if best.is_none_or(|best| entry.as_ref().merge_order(&best).is_gt()) {
                self.newer = Some(entry);
            }
        }
    }

    /// A replica does not answer now, for a reason that will pass.
    pub fn declines(&mut self, peer: PeerIx) {
        self.declined = true;
        self.tally.fail(peer);
    }

    /// A replica does not answer.
    pub fn is_lost(&mut self, peer: PeerIx) {
        self.tally.fail(peer);
    }

    /// A replica remembers a request.
    pub fn remembers(&mut self, peer: PeerIx, request: RequestId, outcome: Outcome) {
        self.remembered.entry((request, outcome.version)).or_insert_with(|| (outcome, Vec::new())).1.push(peer);
    }

    /// A replica that holds `version` remembers every request that led there since this one.
    pub fn knows_since(&mut self, version: Version, since: Version) {
        self.known.push((version, since));
    }

    /// The version that another replica said it holds.
    pub fn version_of(&self, peer: PeerIx) -> Option<Version> {
        self.theirs.get(&peer).copied()
    }

    /// Whether enough replicas have answered.
    pub fn progress(&self) -> Progress {
        self.tally.progress()
    }

    /// Whether enough replicas could answer, going by who is known to be down.
    pub fn may_be_met(&self, is_down: impl Fn(PeerIx) -> bool) -> bool {
        let up = |set: &[PeerIx]| set.iter().filter(|peer| !is_down(**peer)).count();
        self.required.sets.iter().all(|(set, needed)| up(set) >= *needed)
    }

    /// Whether another look may find more.
    pub fn may_pass(&self) -> bool {
        self.declined
    }

    /// The request that wrote the newest version, which travels with it so that a retry elsewhere finds both.
    pub fn behind_newest(&self) -> Option<(RequestId, &Outcome)> {
        let newest = self.newest_version();
        let mut behind =
            self.remembered.iter().filter(|((_, version), _)| *version == newest && newest > Version::ZERO);
        behind.next().map(|((request, _), (outcome, _))| (*request, outcome))
    }

    /// Whether a replica that answered lacks the newest version, or the request behind it.
    pub fn lacks(&self, peer: PeerIx) -> bool {
        let newest = self.newest_version();
        let knows = |(request, _)| self.remembered[&(request, newest)].1.contains(&peer);
        self.theirs.get(&peer).is_some_and(|version| *version < newest)
            || newest > Version::ZERO && !self.behind_newest().is_none_or(knows)
    }

    /// Whether enough replicas hold the newest version, once those in `taken` have taken it as well.
    pub fn is_settled(&self, me: PeerIx, taken: impl Fn(PeerIx) -> Option<bool>) -> bool {
        let mut tally = Tally::new(self.required.clone());
        tally.acknowledge(me);
        for (peer, version) in &self.theirs {
            if taken(*peer).unwrap_or(*version >= self.newest_version()) {
                tally.acknowledge(*peer);
            }
        }
        tally.progress() == Progress::Met
    }

    /// What becomes of the `requests` asked about, other than being done now. One whose effect is the newest version, or that a majority
    /// took, is part of what the key holds. Of any other that is remembered it can't be said: it may have been built upon, or overruled by
    /// somebody who never saw it. Nor of one that was begun before, at `begun_ms`, and is not remembered, unless the newest version is
    /// older than it, or somebody remembers all that led there since.
    pub fn verdicts(
        &self,
        majority: &Required,
        requests: &[RequestId],
        begun_ms: Option<UnixMs>,
    ) -> BTreeMap<RequestId, Verdict> {
        let newest = self.newest_version();
        let mut verdicts = BTreeMap::new();
        for ((request, _), (outcome, by)) in &self.remembered {
            let mut tally = Tally::new(majority.clone());
            for peer in by {
                tally.acknowledge(*peer);
            }
            if outcome.version == newest || tally.progress() == Progress::Met {
                verdicts.insert(*request, Verdict::Done(outcome.clone()));
            } else {
                verdicts.entry(*request).or_insert(Verdict::InDoubt);
            }
        }
        let Some(begun_ms) = begun_ms else { return verdicts };
        // Clocks differ, but not by more than this: stamps from further ahead are refused.
        let begun = Version::earliest_at(begun_ms.saturating_sub(CLOCK_AHEAD_MAX.as_millis() as u64));
        let known = self.known.iter().any(|(version, since)| *version == newest && *since < begun);
        if newest >= begun && !known {
            for request in requests {
                verdicts.entry(*request).or_insert(Verdict::InDoubt);
            }
        }
        verdicts
    }
}
