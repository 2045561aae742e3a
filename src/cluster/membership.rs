//! Who is in the ring: a register per member that merges the same in any order. Never decides who is alive (gossip does) nor
//! who owns what (the ring does). Tested in `membership/tests.rs`.
//!
//! A state-based CRDT (Shapiro et al., "Conflict-free Replicated Data Types", 2011): two registers per member, each merged by
//! the maximum of a total order, so merging is commutative, associative and idempotent.
//!
//! - The *record*: who it is, where, how much it takes. Changed by the member itself, or by others when they forget it;
//!   each change raises its `revision`. The higher revision wins; of two changes made at once the more final state wins.
//! - *held*: the partitions the member says it holds complete data for. The member alone writes it; the later life wins, then the
//!   later revision in it.
//!
//! Records of members that left stay as tombstones, else an old copy of the membership would bring them back. At most
//! [`TOMBSTONES_MAX`] stay: beyond that `floor` rises over the oldest, and every tombstone at or below it is dropped, everywhere.
//! A peer that slept through that many departures can bring such a record back; failure detection then forgets it again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::partition_set::PartitionSet;
use crate::base::id::{NAME_BYTES_MAX, NodeId};

#[cfg(test)]
mod tests;

/// Members in the ring or leaving it.
pub const MEMBERS_MAX: usize = 1024;
/// Records kept of members that left or were forgotten.
pub const TOMBSTONES_MAX: usize = 1024;
/// Longest `host:port`: a DNS name of 253 bytes, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 260;
/// Longest zone name, in bytes.
pub const ZONE_BYTES_MAX: usize = NAME_BYTES_MAX;
/// Highest revision a record may claim. No honest one gets near; the sum over all members stays far from overflow.
pub const REVISION_MAX: u64 = 1 << 48;
/// Highest epoch a record or floor may claim; epochs built on it do not overflow.
pub const EPOCH_MAX: u64 = 1 << 62;
/// `replication` of a member that wants a copy on every member.
pub const REPLICATE_TO_ALL: u16 = u16::MAX;

/// Where a member stands. The order is that of finality, which decides between changes made at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// In the ring.
    Joined,
    /// Out of the ring by its own wish; still serves what the new owners have not got yet.
    Leaving,
    /// Gone by its own wish.
    Left,
    /// Declared gone by others.
    Forgotten,
}

/// Which partitions a member holds complete data for, as it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// The life of the process that said so. The field order is the merge order.
    pub incarnation: u64,
    /// Counts up within that life.
    pub held_revision: u64,
    /// What it holds.
    pub partitions: PartitionSet,
    /// Names the cluster founding its data descends from: Unix milliseconds at which a node without seeds began to serve. A claim to
    /// hold a partition is worth nothing to those whose data has another origin.
    pub founding: u64,
}

/// One member's record. Fields are appended, never moved: this is a wire format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// Counts the changes of this record.
    pub revision: u64,
    /// Where it stands.
    pub state: MemberState,
    /// `host:port` for clients, peers and gossip.
    pub address: String,
    /// `host:port` of the admin endpoint, if it has one.
    pub admin: Option<String>,
    /// Share of the ring relative to others; 0 is a gateway that holds nothing.
    pub weight: u16,
    /// Failure domain; copies go to different ones first. `None` is a zone of its own kind, shared by all that name none.
    pub zone: Option<String>,
    /// Virtual nodes per unit of weight.
    pub vnodes: u16,
    /// Copies it wants of each partition; [`REPLICATE_TO_ALL`] for one on every member.
    pub replication: u16,
    /// The life of the process. Must rise from life to life of one id (wall-clock milliseconds at the start do).
    pub incarnation: u64,
    /// What it holds; merges apart from the rest.
    pub held: Held,
    /// The epoch at which it left or was forgotten, 0 before that: the age of a tombstone.
    pub ended_epoch: u64,
}

/// What merging changed, in order of id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Members whose record is new or changed. The ring must be built anew.
    pub records: Vec<NodeId>,
    /// Members whose `held` changed.
    pub held: Vec<NodeId>,
    /// Whether old tombstones were given up.
    pub floor: bool,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.held.is_empty() && !self.floor
    }
}

/// Why a membership or a change was refused. The membership asked is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More members than [`MEMBERS_MAX`]. Retry when some have left.
    #[error("more than {MEMBERS_MAX} members")]
    TooManyMembers,
    /// More tombstones than an honest peer keeps.
    #[error("more than {TOMBSTONES_MAX} records of former members")]
    TooManyTombstones,
    /// A record is filed under another id.
    #[error("the record of `{0}` names another id")]
    WrongId(NodeId),
    /// A revision or epoch beyond [`REVISION_MAX`], or zero.
    #[error("the record of `{0}` has an impossible revision")]
    BadRevision(NodeId),
    /// An address that is empty, too long, or not printable ASCII with a port.
    #[error("the record of `{0}` has no usable address")]
    BadAddress(NodeId),
    /// A zone that is empty, too long or not printable ASCII.
    #[error("the record of `{0}` has no usable zone")]
    BadZone(NodeId),
    /// No virtual nodes, or no copies wanted.
    #[error("the record of `{0}` has zero virtual nodes or copies")]
    BadShare(NodeId),
    /// `ended_epoch` does not fit the state.
    #[error("the record of `{0}` does not know whether it ended")]
    BadEnd(NodeId),
    /// The change names a member that is not known.
    #[error("`{0}` is not a member")]
    Unknown(NodeId),
    /// A later life of the same id has spoken: two processes share it, or the clock went back. Start with a later incarnation.
    #[error("a later life of `{0}` is known")]
    LaterLife(NodeId),
}

impl Member {
    /// A record as a member would first write it: of weight 1 with 128 virtual nodes, wanting three copies, in life 1, holding nothing.
    pub fn new(id: NodeId, address: String) -> Self {
        Self {
            id,
            revision: 1,
            state: MemberState::Joined,
            address,
            admin: None,
            weight: 1,
            zone: None,
            vnodes: 128,
            replication: 3,
            incarnation: 1,
            held: Held::default(),
            ended_epoch: 0,
        }
    }

    /// Whether it has left or was forgotten.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.state, MemberState::Left | MemberState::Forgotten)
    }

    /// What it holds in its current life: a process that restarted holds nothing until it says so anew.
    pub fn held_now(&self) -> PartitionSet {
        if self.held.incarnation == self.incarnation { self.held.partitions } else { PartitionSet::EMPTY }
    }

    /// Checks every bound of the record; `filed_under` is the key it came with.
    pub fn validate(&self, filed_under: &NodeId) -> Result<(), Refused> {
        let id = || filed_under.clone();
        if self.id != *filed_under {
            return Err(Refused::WrongId(id()));
        }
        if !(1..=REVISION_MAX).contains(&self.revision)
            || self.ended_epoch > EPOCH_MAX
            || self.held.held_revision > REVISION_MAX
        {
            return Err(Refused::BadRevision(id()));
        }
        if !is_address(&self.address) || self.admin.as_deref().is_some_and(|admin| !is_address(admin)) {
            return Err(Refused::BadAddress(id()));
        }
        let named =
            |zone: &str| (1..=ZONE_BYTES_MAX).contains(&zone.len()) && zone.bytes().all(|b| b.is_ascii_graphic());
        if self.zone.as_deref().is_some_and(|zone| !named(zone)) {
            return Err(Refused::BadZone(id()));
        }
        if self.vnodes == 0 || self.replication == 0 {
            return Err(Refused::BadShare(id()));
        }
        if self.is_tombstone() != (self.ended_epoch > 0) {
            return Err(Refused::BadEnd(id()));
        }
        Ok(())
    }

    /// The total order by which records of one member merge: everything but `held`.
    fn rank(&self) -> impl Ord + '_ {
        (
            (self.revision, self.state, self.incarnation, self.weight, self.vnodes, self.replication),
            (&self.address, &self.admin, &self.zone, self.ended_epoch),
        )
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        text(out, self.id.as_str());
        text(out, &self.address);
        for optional in [&self.admin, &self.zone] {
            out.push(u8::from(optional.is_some()));
            text(out, optional.as_deref().unwrap_or(""));
        }
        out.push(self.state as u8);
        for number in [self.weight, self.vnodes, self.replication] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let Held { incarnation, held_revision, partitions, founding } = self.held;
        for number in [self.revision, self.incarnation, self.ended_epoch, incarnation, held_revision, founding] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&partitions.to_bytes());
    }
}

/// Changes a record and raises its revision, unless that would make it one that peers refuse.
fn change(member: &mut Member, how: impl FnOnce(&mut Member)) -> Result<(), Refused> {
    let mut changed = member.clone();
    how(&mut changed);
    changed.revision += 1;
    changed.validate(&member.id)?;
    *member = changed;
    Ok(())
}

/// `host:port` with a port that is one.
fn is_address(address: &str) -> bool {
    let fits = address.len() <= ADDRESS_BYTES_MAX && address.bytes().all(|b| b.is_ascii_graphic());
    let parts = address.rsplit_once(':');
    fits && parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Every member there is or was, by id. Equal memberships have equal [`digest`](Self::digest), [`epoch`](Self::epoch) and ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Tombstones that ended at or before this epoch are dropped.
    floor: u64,
    members: BTreeMap<NodeId, Member>,
}

impl Membership {
    /// The record of `id`, a tombstone included.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id)
    }

    /// Every record in order of id, tombstones included.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Members in the ring, in order of id.
    pub fn joined(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.state == MemberState::Joined)
    }

    /// Members in the ring or leaving it, in order of id: those worth talking to.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| !member.is_tombstone())
    }

    /// Members in the ring, or leaving it, whose address a later process has taken: what they held in memory is gone, and they can't return
    /// where they were. They keep their place in the lists until they are forgotten or come back elsewhere, and own and hold nothing meanwhile. Of two at one
    /// address the one with the greater incarnation, then id, stays; so a clock that went back between the two leaves the newer one without
    /// a share until the older is forgotten.
    pub fn superseded(&self) -> BTreeSet<&NodeId> {
        let mut latest: BTreeMap<&str, (u64, &NodeId)> = BTreeMap::new();
        let mut superseded = BTreeSet::new();
        for member in self.present() {
            let this = (member.incarnation, &member.id);
            let other = latest.get(member.address.as_str()).copied();
            superseded.extend(other.map(|other| other.min(this).1));
            latest.insert(&member.address, other.map_or(this, |other| other.max(this)));
        }
        superseded
    }

    /// The sum of all revisions: rises with every change of a record, and is equal for equal memberships. It says how new a
    /// membership is, not which: compare [`digest`](Self::digest) for that. `held` does not count.
    pub fn epoch(&self) -> u64 {
        self.floor + self.iter().map(|member| member.revision).sum::<u64>()
    }

    /// A fingerprint of everything in it. Differs from a peer's: pull and merge.
    pub fn digest(&self) -> u64 {
        let mut bytes = self.floor.to_le_bytes().to_vec();
        for member in self.iter() {
            member.encode(&mut bytes);
        }
        xxh3_64(&bytes)
    }

    /// Checks every bound. What comes from outside is validated before anything else looks at it; [`merge`](Self::merge) does.
    pub fn validate(&self) -> Result<(), Refused> {
        let tombstones = self.iter().filter(|member| member.is_tombstone()).count();
        if tombstones > TOMBSTONES_MAX {
            return Err(Refused::TooManyTombstones);
        }
        if self.members.len() - tombstones > MEMBERS_MAX {
            return Err(Refused::TooManyMembers);
        }
        self.members.iter().try_for_each(|(id, member)| member.validate(id))?;
        match self.members.first_key_value() {
            Some((id, _)) if self.floor > EPOCH_MAX => Err(Refused::BadRevision(id.clone())),
            _ => Ok(()),
        }
    }

    /// Takes over what `other` knows better. All or nothing: after an error this membership is as it was.
    pub fn merge(&mut self, other: &Self) -> Result<Changes, Refused> {
        other.validate()?;
        let mut merged = self.clone();
        let mut changes = Changes::default();
        merged.floor = merged.floor.max(other.floor);
        for (id, theirs) in &other.members {
            let Some(ours) = merged.members.get_mut(id) else {
                if !(theirs.is_tombstone() && theirs.ended_epoch <= merged.floor) {
                    merged.members.insert(id.clone(), theirs.clone());
                    changes.records.push(id.clone());
                }
                continue;
            };
            let held = ours.held.max(theirs.held);
            if held != ours.held {
                changes.held.push(id.clone());
            }
            if theirs.rank() > ours.rank() {
                *ours = theirs.clone();
                changes.records.push(id.clone());
            }
            ours.held = held;
        }
        merged.drop_old_tombstones();
        if merged.present().count() > MEMBERS_MAX {
            return Err(Refused::TooManyMembers);
        }
        changes.records.retain(|id| merged.members.contains_key(id));
        changes.floor = merged.floor > self.floor;
        *self = merged;
        Ok(changes)
    }

    /// Puts `me` into the ring, or changes what it says of itself; to be called by the member alone. `revision`, `state`,
    /// `held` and `ended_epoch` of `me` are ignored. Also how a member that finds itself forgotten comes back. True when that changed anything.
    ///
    /// # Errors
    /// [`Refused::LaterLife`] when the membership knows a later incarnation, which it would not give way to.
    pub fn join(&mut self, mut me: Member) -> Result<bool, Refused> {
        let known = self.members.get(&me.id);
        if known.is_some_and(|known| known.incarnation.max(known.held.incarnation) > me.incarnation) {
            return Err(Refused::LaterLife(me.id));
        }
        me.state = MemberState::Joined;
        me.ended_epoch = 0;
        me.held = known.map_or_else(Held::default, |known| known.held);
        if known.is_some_and(Member::is_tombstone) && me.held.incarnation == me.incarnation {
            // The others have gone on without it: what it held before is not all there is any more.
            let held_revision = me.held.held_revision + 1;
            me.held = Held { held_revision, partitions: PartitionSet::EMPTY, founding: 0, ..me.held };
        }
        me.revision = known.map_or(1, |known| known.revision);
        if known == Some(&me) {
            return Ok(false);
        }
        me.revision += u64::from(known.is_some());
        me.validate(&me.id)?;
        if known.is_none_or(Member::is_tombstone) && self.present().count() >= MEMBERS_MAX {
            return Err(Refused::TooManyMembers);
        }
        self.members.insert(me.id.clone(), me);
        Ok(true)
    }

    /// Takes `id` out of the ring while it hands its data over. True when that changed anything.
    pub fn leave(&mut self, id: &NodeId) -> Result<bool, Refused> {
        self.advance(id, MemberState::Leaving)
    }

    /// Marks `id` as gone by its own wish. True when that changed anything.
    pub fn left(&mut self, id: &NodeId) -> Result<bool, Refused> {
        self.advance(id, MemberState::Left)
    }

    /// Marks `id` as gone because others say so. True when that changed anything.
    pub fn forget(&mut self, id: &NodeId) -> Result<bool, Refused> {
        self.advance(id, MemberState::Forgotten)
    }

    /// Says which partitions `id` holds in its life `incarnation`; to be called by the member alone. True when that changed anything.
    ///
    /// # Errors
    /// [`Refused::LaterLife`] when a later incarnation has spoken, [`Refused::Unknown`] before it has joined.
    pub fn set_held(
        &mut self,
        id: &NodeId,
        incarnation: u64,
        partitions: PartitionSet,
        founding: u64,
    ) -> Result<bool, Refused> {
        let member = self.members.get_mut(id).ok_or_else(|| Refused::Unknown(id.clone()))?;
        if member.held.incarnation > incarnation {
            return Err(Refused::LaterLife(id.clone()));
        }
        let same_life = member.held.incarnation == incarnation;
        if same_life && member.held.partitions == partitions && member.held.founding == founding {
            return Ok(false);
        }
        let held_revision = if same_life { member.held.held_revision + 1 } else { 1 };
        if held_revision > REVISION_MAX {
            return Err(Refused::BadRevision(id.clone()));
        }
        member.held = Held { incarnation, held_revision, partitions, founding };
        Ok(true)
    }

    fn advance(&mut self, id: &NodeId, to: MemberState) -> Result<bool, Refused> {
        let epoch = self.epoch() + 1;
        let member = self.members.get_mut(id).ok_or_else(|| Refused::Unknown(id.clone()))?;
        if member.state >= to {
            return Ok(false);
        }
        change(member, |member| {
            if !member.is_tombstone() && to > MemberState::Leaving {
                member.ended_epoch = epoch;
            }
            member.state = to;
        })?;
        self.drop_old_tombstones();
        Ok(true)
    }

    /// The rule on tombstones. The epoch does not fall: `floor` takes the epoch of the newest dropped, which counted all of their revisions.
    fn drop_old_tombstones(&mut self) {
        let mut ended: Vec<u64> = self.iter().map(|member| member.ended_epoch).filter(|&epoch| epoch > 0).collect();
        if ended.len() > TOMBSTONES_MAX {
            let surplus = ended.len() - TOMBSTONES_MAX;
            self.floor = self.floor.max(*ended.select_nth_unstable(surplus - 1).1);
        }
        let floor = self.floor;
        self.members.retain(|_, member| member.ended_epoch == 0 || member.ended_epoch > floor);
    }
}
