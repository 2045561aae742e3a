//! Whose turn it is to change a key above level one: the acceptor's side of single-decree Paxos, per key and in memory. Never decides
//! who should coordinate, and never waits. Tested beside this file, and with whole coordinators in the simulation.
//!
//! A coordinator whose operation reads what it changes first surveys a majority. Each replica that answers promises it the key for
//! [`LEASE_MAX`]: until then it takes changes from nobody else, and changes under the lease only while the lease is the coordinator's.
//! Two coordinators that take turns, each believing itself alone, so never both change what the other has read. After "CASPaxos"
//! (Rystsov, 2018), except that versions order by time, not by ballot, so that the last writer wins everywhere else. Hence a
//! holder stamps within [`LEASE_STAMPS_MAX`] of its ballot, and the next one's ballot lies above that: what a holder left on a minority
//! loses to what its successor writes.
//!
//! A request is not done again where its effect may be in the value already. A replica therefore notes since when it has taken every write
//! to a key, one upon the other: what it does not remember of that time has not happened.
//!
//! Forgetting is safe: a change under a lease that is not known here is refused, and ballots below what was forgotten are.

use foldhash::fast::FixedState;
use lru::LruCache;
use std::hash::BuildHasher;

use crate::base::hlc::{UnixMs, Version};
use crate::base::limits::{LEASE_MAX, LEASE_STAMPS_MAX, LEASES_MAX};

#[cfg(test)]
mod tests;

const LEASE_MS: u64 = LEASE_MAX.as_millis() as u64;
const STAMPS_MS: u64 = LEASE_STAMPS_MAX.as_millis() as u64;
/// A holder stands back for one who asked this short a time ago.
const WANTED_MS: u64 = 100;
/// A lease that ended this long ago is forgotten when there is a new one to remember.
const KEPT_MS: u64 = 5_000;
/// Forgotten at most per new lease, so that a lull does not make one request pay for all before it.
const PURGED_PER_LEASE: usize = 2;

/// The key is another coordinator's for now. Nothing was promised or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Whoever is next must stamp above this.
    pub above: Version,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// [`Version::origin`] of the coordinator.
    holder: u32,
    /// Its first ballot after another's lease.
    since: Version,
    /// All its stamps lie below.
    stamps_below: Version,
    until: UnixMs,
    /// When another last asked.
    wanted: Option<UnixMs>,
    /// The last of the writes that came here one upon the other, none left out, and what the first of them was written upon, or itself if
    /// that is not known.
    chain: (Version, Version),
}

impl Lease {
    fn new(ballot: Version, now: UnixMs) -> Self {
        Self {
            holder: ballot.origin,
            since: ballot,
            stamps_below: stamps_below(ballot),
            until: now + LEASE_MS,
            wanted: None,
            chain: (Version::ZERO, Version::ZERO),
        }
    }

    /// A lease that ends later than any given now is one from before the clock went back.
    fn is_active(&self, now: UnixMs) -> bool {
        now < self.until && self.until <= now + LEASE_MS
    }

    fn is_wanted(&self, now: UnixMs) -> bool {
        self.wanted.is_some_and(|at| now.abs_diff(at) < WANTED_MS)
    }
}

/// Everything stamped under this ballot is older than this.
pub fn stamps_below(ballot: Version) -> Version {
    Version::earliest_at(ballot.unix_ms() + STAMPS_MS)
}

/// The leases one store has given, at most [`LEASES_MAX`].
#[derive(Debug)]
pub struct Leases {
    /// By the hash of the key: two keys that share one share their leases, which costs a wait and nothing else.
    held: LruCache<u64, Lease, FixedState>,
    hash: FixedState,
    /// All stamps under forgotten leases lie below.
    forgotten: Version,
}

impl Leases {
    /// No leases. `seed` is unknown to clients, so that they cannot make keys share.
    pub fn new(seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        Self {
            held: LruCache::unbounded_with_hasher(hash),
            hash: FixedState::with_seed(!seed),
            forgotten: Version::ZERO,
        }
    }

    /// Promises `key` to the coordinator with this ballot. One that has it keeps it, unless another has asked for it meanwhile.
    ///
    /// # Errors
    /// [`Leased`] if it is another's, or if `ballot` is not above all that was stamped under the lease before it.
    pub fn ask(&mut self, key: &[u8], ballot: Version, now: UnixMs) -> Result<(), Leased> {
        let id = self.hash.hash_one(key);
        let Some(lease) = self.held.get_mut(&id) else {
            if ballot < self.forgotten {
                return Err(Leased { above: self.forgotten });
            }
            self.make_room(now);
            self.held.put(id, Lease::new(ballot, now));
            return Ok(());
        };
        let refused = Err(Leased { above: lease.stamps_below });
        let (active, wanted) = (lease.is_active(now), lease.is_wanted(now));
        if lease.holder == ballot.origin {
            if ballot < lease.since || wanted && !active {
                return refused;
            }
            lease.stamps_below = lease.stamps_below.max(stamps_below(ballot));
            if !wanted {
                lease.until = now + LEASE_MS;
            }
            return Ok(());
        }
        if active {
            lease.wanted = Some(now);
        }
        if active || ballot < lease.stamps_below {
            return refused;
        }
        *lease = Lease { chain: lease.chain, ..Lease::new(ballot, now) };
        Ok(())
    }

    /// Notes a write that was taken, and what it was written upon under a lease, [`Version::ZERO`] if that is not known. Of keys that were
    /// never leased nothing is noted.
    pub fn taken(&mut self, key: &[u8], base: Version, version: Version) {
        if let Some(lease) = self.held.peek_mut(&self.hash.hash_one(key)) {
            let follows = base > Version::ZERO && lease.chain.1 == base;
            // Whoever had the lease had asked a majority: nothing but this write came after what it was written upon.
            let first = match base {
                _ if follows => lease.chain.0,
                Version::ZERO => version,
                _ => base,
            };
            lease.chain = (first, version);
        }
    }

    /// After which version every write that led to `held` was taken here.
    pub fn known_since(&self, key: &[u8], held: Version) -> Option<Version> {
        let lease = self.held.peek(&self.hash.hash_one(key))?;
        (lease.chain.1 == held && held > Version::ZERO).then_some(lease.chain.0)
    }

    /// Whether what a coordinator decided on under this ballot may still be done.
    pub fn covers(&self, key: &[u8], ballot: Version, now: UnixMs) -> bool {
        #[cfg(feature = "sim")]
        if crate::base::plant::Plant::IgnoredLease.is_sown() {
            return true;
        }
        let lease = self.held.peek(&self.hash.hash_one(key));
        lease.is_some_and(|l| l.holder == ballot.origin && l.since <= ballot && l.is_active(now))
    }

    /// Whether a new write that rests on no lease may be taken, stamped `version`.
    ///
    /// # Errors
    /// [`Leased`] if the key is promised to another than who stamped it, or was, and the stamp is not above what that one may have stamped.
    pub fn admits(&self, key: &[u8], version: Version, now: UnixMs) -> Result<(), Leased> {
        // Nearly always: no operation that reads what it changes is under way.
        if self.held.is_empty() && version >= self.forgotten {
            return Ok(());
        }
        match self.held.peek(&self.hash.hash_one(key)) {
            // What the holder stamped before is as old as any other's.
            Some(lease) if lease.holder == version.origin && version >= lease.since => Ok(()),
            Some(lease) if lease.is_active(now) || version < lease.stamps_below => {
                Err(Leased { above: lease.stamps_below })
            }
            None if version < self.forgotten => Err(Leased { above: self.forgotten }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the key is promised to another coordinator than `origin`.
    pub fn is_anothers(&self, key: &[u8], origin: u32, now: UnixMs) -> bool {
        let lease = self.held.peek(&self.hash.hash_one(key));
        lease.is_some_and(|lease| lease.holder != origin && lease.is_active(now))
    }

    fn make_room(&mut self, now: UnixMs) {
        for _ in 0..PURGED_PER_LEASE {
            let Some((_, oldest)) = self.held.peek_lru() else { return };
            if self.held.len() < LEASES_MAX && now < oldest.until.saturating_add(KEPT_MS) {
                return;
            }
            self.forgotten = self.forgotten.max(oldest.stamps_below);
            self.held.pop_lru();
        }
    }
}
