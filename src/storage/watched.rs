//! Keys that were looked at while they were absent, and what was written to them since: what came and went leaves no trace where there are no
//! tombstones, or after a flush. Forgetting is harmless: the key is absent again. Never reads a clock. Tested below.

use foldhash::fast::FixedState;
use lru::LruCache;

use crate::base::hlc::{UnixMs, Version};

/// Keys of one store; the one looked at the longest time ago is forgotten first.
const KEYS_MAX: usize = 16 * 1024;
/// So long is a key remembered after it was last looked at: longer than anybody watches one.
const KEPT_MS: u64 = 60_000;

/// See the file's head.
pub(super) struct Watched {
    /// By the hash of the key: of two that share one, a write to one counts for both, which makes a client try again.
    held: LruCache<u64, (Version, UnixMs), FixedState>,
}

impl Watched {
    pub(super) fn new() -> Self {
        Self { held: LruCache::unbounded_with_hasher(FixedState::default()) }
    }

    /// What an absent key of this version is to be told from later, which is remembered.
    pub(super) fn look(&mut self, hash: u64, version: Version, now: UnixMs) -> Version {
        let seen = self.newest(hash, version);
        self.held.put(hash, (seen, now));
        if self.held.len() > KEYS_MAX {
            self.held.pop_lru();
        }
        seen
    }

    /// The newest that is known to have been written to an absent key of this version.
    pub(super) fn newest(&self, hash: u64, version: Version) -> Version {
        self.held.peek(&hash).map_or(version, |(written, _)| version.max(*written))
    }

    /// Notes a write.
    pub(super) fn written(&mut self, hash: u64, version: Version) {
        if !self.held.is_empty()
            && let Some((written, _)) = self.held.peek_mut(&hash)
        {
            *written = version;
        }
    }

    /// Forgets what nobody watches any more.
    pub(super) fn turn(&mut self, now: UnixMs) {
        while self.held.peek_lru().is_some_and(|(_, (_, at))| now.saturating_sub(*at) >= KEPT_MS) {
            self.held.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(time: u64) -> Version {
        Version { time, origin: 1 }
    }

    #[test]
    fn a_write_to_a_key_that_was_absent_is_remembered_for_a_while() {
        let mut watched = Watched::new();
        watched.written(1, version(5));
        assert_eq!(watched.look(1, Version::ZERO, 0), Version::ZERO);
        watched.written(1, version(6));
        watched.written(2, version(7));
        assert_eq!([1, 2].map(|hash| watched.newest(hash, Version::ZERO)), [version(6), Version::ZERO]);
        assert_eq!(watched.look(1, Version::ZERO, 10), version(6));
        assert_eq!(watched.look(1, version(9), 10), version(9));
        watched.turn(10 + KEPT_MS - 1);
        assert_eq!(watched.held.len(), 1);
        watched.turn(10 + KEPT_MS);
        assert!(watched.held.is_empty());
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let mut watched = Watched::new();
        for hash in 0..KEYS_MAX as u64 + 10 {
            watched.look(hash, Version::ZERO, 0);
        }
        assert_eq!(watched.held.len(), KEYS_MAX);
    }
}
