//! The part of the plan that sessions have to do with: which partitions each brings together, what peers may compare with this node meanwhile,
//! and when the next begins. Never decides what has to be compared. Tested in `sync/tests.rs`.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Planner;
use crate::base::hlc::UnixMs;
use crate::base::id::NodeId;
use crate::base::slot::{PARTITIONS, Partition};
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::view::{PeerIx, View};

/// Partitions that differ and are brought together in one session.
pub const PARTITIONS_PER_SESSION: usize = 64;
/// A pair that could not be compared is tried again after this time.
pub(super) const RETRY_MS: u64 = 500;
/// Partitions that were under another comparison are tried again after this time, or up to twice as much, so that nodes that stood in each
/// other's way do not do so again.
pub(super) const TURN_MS: u64 = 100;
/// After a session its node rests for so many times as long as the session took, which is longer the more else there is to do: at most a third
/// of the time goes into comparing with one peer. After Garage's tranquility. Who waits for its copies rests as short as may be.
const REST_FACTOR: u64 = 2;
/// The shortest rest, so that what can't be mended keeps nobody busy.
pub const REST_MS_MIN: u64 = 10;
/// The longest.
const REST_MS_MAX: u64 = 2_000;

/// How a session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionEnd {
    /// Partitions that could not be compared: the peer did not answer.
    pub failed: PartitionSet,
    /// Partitions that are left for another session.
    pub put_off: PartitionSet,
    /// Some of these were under another comparison.
    pub refused: bool,
    /// How long it took.
    pub took_ms: u64,
}

impl Planner {
    /// Which of the partitions that differ from a peer's are to be brought together now. They are under comparison until the session is over.
    pub fn choose(&mut self, view: &View, peer: PeerIx, apart: &PartitionSet, now: UnixMs) -> PartitionSet {
        let free = apart.difference(&self.turns.taken(now));
        // Sessions of different pairs begin in different places, so that they seldom want the same.
        let first =
            *self.next_choice.entry(peer).or_insert_with(|| Partition(scatter(view, peer, 0) as u16 % PARTITIONS));
        let around = free.iter().filter(|p| *p >= first).chain(free.iter().filter(|p| *p < first));
        let chosen: Vec<Partition> = around.take(PARTITIONS_PER_SESSION).collect();
        if let Some(last) = chosen.last() {
            self.next_choice.insert(peer, Partition((last.0 + 1) % PARTITIONS));
        }
        let chosen = chosen.into_iter().collect();
        self.turns.begin(peer, chosen);
        chosen
    }

    /// A peer is about to compare these with this node: those it may.
    pub fn visited(&mut self, view: &View, by: &NodeId, asked: PartitionSet, now: UnixMs) -> PartitionSet {
        let Some((peer, _)) = view.find(by).filter(|(peer, _)| *peer != view.me) else { return PartitionSet::EMPTY };
        let goes_first = view.peer(view.me).is_some_and(|me| *by < me.member.id);
        self.turns.visit(peer, asked, goes_first, now)
    }

    /// A session is over.
    pub fn session_over(&mut self, view: &View, peer: PeerIx, end: &SessionEnd, now: UnixMs) {
        self.busy.remove(&peer);
        self.asked.retain(|(_, asked), _| *asked != peer);
        self.turns.end(peer);
        let pending = self.pending.entry(peer).or_insert(PartitionSet::EMPTY);
        *pending = pending.union(&end.put_off);
        let cost = if self.syncing(view) > 0 { 0 } else { end.took_ms };
        let rest = (REST_FACTOR.saturating_mul(cost)).clamp(REST_MS_MIN, REST_MS_MAX);
        let turn = if end.refused { TURN_MS + scatter(view, peer, now) % TURN_MS } else { 0 };
        let retry = if end.failed.is_empty() { 0 } else { RETRY_MS };
        self.not_before_ms.insert(peer, now + rest.max(turn).max(retry));
        self.diverged(peer, &end.failed);
    }
}

/// A number that differs from pair to pair, and from moment to moment.
fn scatter(view: &View, peer: PeerIx, now: UnixMs) -> u64 {
    let id = |peer| view.peer(peer).map_or("", |peer| peer.member.id.as_str());
    xxh3_64_with_seed(format!("{} {}", id(view.me), id(peer)).as_bytes(), now)
}
