//! Finding an entry in a table without moving it in the order of use, which `LruCache` offers for its values only. Never changes an entry.
//! Tested in `tests`.

use std::borrow::Borrow;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ptr::NonNull;

use lru::LruCache;

use super::{EntryMut, Packed, Slot};

/// What a table can be searched by: an entry, or a key that notes which entry it met.
pub(in crate::storage) trait Keyed {
    fn key_bytes(&self) -> &[u8];
    fn packed(&self) -> Option<&Packed>;
    /// Called on the searching side with the entry whose key is equal.
    fn meet(&self, entry: &dyn Keyed);
}

impl Keyed for Packed {
    fn key_bytes(&self) -> &[u8] {
        self.key()
    }
    fn packed(&self) -> Option<&Packed> {
        Some(self)
    }
    fn meet(&self, _: &dyn Keyed) {}
}

/// `LruCache` lends out its keys only together with a move to the front. A probe remembers the key it was equal to.
struct Probe<'k> {
    key: &'k [u8],
    met: Cell<Option<NonNull<Packed>>>,
}

impl<'k> Probe<'k> {
    fn new(key: &'k [u8]) -> Self {
        Self { key, met: Cell::new(None) }
    }
}

impl Keyed for Probe<'_> {
    fn key_bytes(&self) -> &[u8] {
        self.key
    }
    fn packed(&self) -> Option<&Packed> {
        None
    }
    fn meet(&self, entry: &dyn Keyed) {
        self.met.set(entry.packed().map(NonNull::from));
    }
}

impl Hash for dyn Keyed + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.key_bytes());
    }
}
impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        let equal = self.key_bytes() == other.key_bytes();
        if equal {
            self.meet(other);
        }
        equal
    }
}
impl Eq for dyn Keyed + '_ {}

impl Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.key());
    }
}
impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Packed {}

impl<'a> Borrow<dyn Keyed + 'a> for Packed {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

/// The entry under `key`, its place in the order of use unchanged.
pub(in crate::storage) fn peek<'t, S: BuildHasher>(
    table: &'t LruCache<Packed, Slot, S>,
    key: &[u8],
) -> Option<(&'t Packed, &'t Slot)> {
    let probe = Probe::new(key);
    let slot = table.peek::<dyn Keyed + '_>(&probe)?;
    let met = probe.met.get().expect("a lookup that finds compares equal");
    // SAFETY: the table owns this entry and is borrowed for 't; a table that only lends itself out shared neither moves nor drops it.
    Some((unsafe { met.as_ref() }, slot))
}

/// The entry under `key` to be changed, moved to the front of the order of use if asked.
pub(in crate::storage) fn find_mut<'t, S: BuildHasher>(
    table: &'t mut LruCache<Packed, Slot, S>,
    key: &[u8],
    promote: bool,
) -> Option<EntryMut<'t>> {
    let probe = Probe::new(key);
    let query: &dyn Keyed = &probe;
    let slot = if promote { table.get_mut(query) } else { table.peek_mut(query) }?;
    let met = probe.met.get().expect("a lookup that finds compares equal");
    // SAFETY: the table owns this entry, keeps it in its node, apart from the slot, and is borrowed exclusively for 't.
    Some(EntryMut { packed: unsafe { met.as_ref() }, slot })
}

/// Takes the entry under `key` out of the table.
pub(in crate::storage) fn remove<S: BuildHasher>(
    table: &mut LruCache<Packed, Slot, S>,
    key: &[u8],
) -> Option<(Packed, Slot)> {
    let probe = Probe::new(key);
    table.pop_entry::<dyn Keyed + '_>(&probe)
}
