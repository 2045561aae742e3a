//! A table of entries by key: open addressing over cache lines of eight slots, so that a search waits for memory twice, for the line and for
//! the entry, and both can be asked for ahead. Never decides what stays. Tested below.
//!
//! A search begins at the line its hash names and goes on, line by line, until it meets an empty slot. What is erased becomes empty where
//! the line has an empty slot already, for then no search goes on past it, else a mark, which the next building of the table removes (as in
//! Swiss tables: Kulukundis, "Designing a Fast, Efficient, Cache-friendly Hash Table, Step by Step", CppCon 2017). Lines need not be a power of two
//! (Lemire, "Fast Random Integer Generation in an Interval", 2019): a table grows by a size class of the allocator, not by doubling.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::packed::{Packed, PackedRef, Slot, Stamp, prefetch};
use super::size;

/// Slots in a line.
const LINE_SLOTS: usize = 8;
/// Bytes of a line; the fewest a table takes that holds anything.
pub(super) const LINE_BYTES: usize = LINE_SLOTS * size_of::<Slot>();
/// Lines whose entries are asked for ahead of a walk.
const WALK_AHEAD: usize = 2;

/// Hashes keys, with a seed that clients do not know.
#[derive(Clone)]
pub(super) struct KeyHash(FixedState);

impl KeyHash {
    pub(super) fn new(seed: u64) -> Self {
        Self(FixedState::with_seed(seed))
    }

    pub(super) fn of<'k>(&self, key: &'k [u8]) -> Key<'k> {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        Key { bytes: key, hash: hasher.finish() }
    }
}

/// A key and its hash, computed once.
#[derive(Clone, Copy)]
pub(super) struct Key<'k> {
    pub(super) bytes: &'k [u8],
    pub(super) hash: u64,
}

impl Key<'_> {
    /// Bits of the hash that do not choose the line.
    fn tag(self) -> u8 {
        self.hash as u8
    }
}

#[repr(align(64))]
struct Line([Slot; LINE_SLOTS]);

const _: () = assert!(size_of::<Line>() == LINE_BYTES);

impl Line {
    fn new() -> Self {
        Self([const { Slot::EMPTY }; LINE_SLOTS])
    }

    /// Which slots may hold an entry with this tag, a bit each.
    fn tagged(&self, tag: u8) -> u8 {
        (0..LINE_SLOTS).fold(0, |bits, n| bits | u8::from(self.0[n].has_tag(tag)) << n)
    }

    fn has_empty(&self) -> bool {
        self.0.iter().any(Slot::is_empty)
    }
}

/// See the file's head. A place in it is a number, good until the table changes.
#[derive(Default)]
pub(super) struct Entries {
    lines: Vec<Line>,
    len: usize,
    erased: usize,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory the table takes, entries apart.
    pub(super) fn bytes(&self) -> usize {
        size::allocation(self.lines.capacity() * LINE_BYTES)
    }

    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.lines.len() as u128) >> u64::BITS) as usize
    }

    fn after(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() { 0 } else { line + 1 }
    }

    /// The place of `key`.
    pub(super) fn find(&self, key: Key<'_>) -> Option<usize> {
        let mut at = self.home(key.hash);
        loop {
            let line = self.lines.get(at)?;
            let mut tagged = line.tagged(key.tag());
            while tagged != 0 {
                let n = tagged.trailing_zeros() as usize;
                if line.0[n].get().is_some_and(|entry| entry.key() == key.bytes) {
                    return Some(at * LINE_SLOTS + n);
                }
                tagged &= tagged - 1;
            }
            if line.has_empty() {
                return None;
            }
            at = self.after(at);
        }
    }

    /// Asks for the line where the search for a key with this hash begins.
    pub(super) fn prefetch_line(&self, hash: u64) {
        self.prefetch_slots(self.home(hash));
    }

    /// Asks for the entries the search for `key` would look at in its first line.
    pub(super) fn prefetch_entry(&self, key: Key<'_>) {
        let Some(line) = self.lines.get(self.home(key.hash)) else { return };
        let mut tagged = line.tagged(key.tag());
        while tagged != 0 {
            line.0[tagged.trailing_zeros() as usize].prefetch();
            tagged &= tagged - 1;
        }
    }

    /// The slot at a place, if the table reaches that far.
    pub(super) fn slot(&self, place: usize) -> Option<&Slot> {
        Some(&self.lines.get(place / LINE_SLOTS)?.0[place % LINE_SLOTS])
    }

    /// As `slot`, to be changed.
    pub(super) fn slot_mut(&mut self, place: usize) -> Option<&mut Slot> {
        Some(&mut self.lines.get_mut(place / LINE_SLOTS)?.0[place % LINE_SLOTS])
    }

    /// The entry at a place, if there is one.
    pub(super) fn get(&self, place: usize) -> Option<PackedRef<'_>> {
        self.slot(place)?.get()
    }

    /// Lines there are.
    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The full slots of a line, with their places; none past the last line.
    pub(super) fn line(&self, line: usize) -> impl Iterator<Item = (usize, &Slot)> {
        let slots = self.lines.get(line).into_iter().flat_map(|line| &line.0).enumerate();
        slots.filter(|(_, slot)| slot.is_full()).map(move |(n, slot)| (line * LINE_SLOTS + n, slot))
    }

    /// Asks for a line.
    pub(super) fn prefetch_slots(&self, line: usize) {
        prefetch(self.lines.as_ptr().wrapping_add(line));
    }

    /// The places that hold something.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        (0..self.lines.len()).flat_map(|line| self.line(line)).map(|(place, _)| place)
    }

    /// The slots that hold something, in no order that means anything, but in the same one in each run.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.lines.iter().enumerate().flat_map(|(n, line)| {
            // Whoever walks reads the entries; the next lines' are on their way meanwhile.
            if let Some(next) = self.lines.get(n + WALK_AHEAD) {
                next.0.iter().for_each(Slot::prefetch);
            }
            line.0.iter().filter(|slot| slot.is_full())
        })
    }

    /// The slots that hold something, to be changed.
    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.lines.iter_mut().flat_map(|line| &mut line.0).filter(|slot| slot.is_full())
    }

    /// The entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = PackedRef<'_>> {
        self.slots().filter_map(Slot::get)
    }

    /// Adds an entry under its key, which is not here.
    pub(super) fn insert(&mut self, hash: &KeyHash, key: Key<'_>, entry: Packed, stamp: Stamp) {
        self.adopt(hash, key.hash, Slot::holding(entry, key.tag(), stamp));
    }

    /// Adds a slot of another table, whose key is not here.
    pub(super) fn adopt(&mut self, hash: &KeyHash, key_hash: u64, full: Slot) {
        if self.len + self.erased >= capacity(self.lines.len()) {
            self.rebuild(hash);
        }
        self.place(key_hash, full);
    }

    /// Puts a full slot where its search looks first.
    fn place(&mut self, hash: u64, full: Slot) {
        let mut at = self.home(hash);
        loop {
            if let Some(free) = self.lines[at].0.iter_mut().find(|slot| !slot.is_full()) {
                self.erased -= usize::from(!free.is_empty());
                self.len += 1;
                *free = full;
                return;
            }
            at = self.after(at);
        }
    }

    /// Builds the table anew, without marks, with room for a few more entries than it has.
    fn rebuild(&mut self, hash: &KeyHash) {
        let old = std::mem::take(self);
        let lines = lines_for(old.len + 1);
        self.lines = Vec::with_capacity(lines);
        self.lines.resize_with(lines, Line::new);
        for full in old.into_slots() {
            let key_hash = full.get().map_or(0, |entry| hash.of(entry.key()).hash);
            self.place(key_hash, full);
        }
    }

    /// The slots that hold something, taken out.
    pub(super) fn into_slots(self) -> impl Iterator<Item = Slot> {
        let mut lines = self.lines;
        (0..lines.len()).flat_map(move |n| {
            if let Some(next) = lines.get(n + WALK_AHEAD) {
                next.0.iter().for_each(Slot::prefetch);
            }
            std::mem::replace(&mut lines[n], Line::new()).0.into_iter().filter(Slot::is_full)
        })
    }

    /// Takes out the entry at a place. Places stay good; `fit` is due when nobody needs them any more.
    pub(super) fn take(&mut self, place: usize) -> Option<Packed> {
        let line = self.lines.get_mut(place / LINE_SLOTS)?;
        let empty = line.has_empty();
        let slot = &mut line.0[place % LINE_SLOTS];
        let entry = if empty { slot.clear() } else { slot.erase() }?;
        self.len -= 1;
        self.erased += usize::from(!empty);
        Some(entry)
    }

    /// Takes out up to `limit` of the entries whose slot is `wanted` and that are to leave.
    pub(super) fn extract(
        &mut self,
        limit: usize,
        wanted: impl Fn(&Slot) -> bool,
        mut leaves: impl FnMut(PackedRef<'_>) -> bool,
    ) -> Vec<Packed> {
        let mut taken = Vec::new();
        for at in 0..self.lines.len() {
            if let Some(next) = self.lines.get(at + WALK_AHEAD) {
                next.0.iter().filter(|slot| wanted(slot)).for_each(Slot::prefetch);
            }
            for n in 0..LINE_SLOTS {
                let slot = &self.lines[at].0[n];
                if taken.len() < limit && wanted(slot) && slot.get().is_some_and(&mut leaves) {
                    taken.extend(self.take(at * LINE_SLOTS + n));
                }
            }
        }
        taken
    }

    /// Gives memory back that is not needed any more.
    pub(super) fn fit(&mut self, hash: &KeyHash) {
        if self.len == 0 {
            *self = Self::default();
        } else if self.lines.len() > 1 && self.len < self.lines.len() * LINE_SLOTS / 4 {
            self.rebuild(hash);
        }
    }

    /// Takes any entry out of a table in which nothing is searched any more.
    pub(super) fn pop(&mut self) -> Option<Packed> {
        while let Some(line) = self.lines.last_mut() {
            if let Some(entry) = line.0.iter_mut().find_map(Slot::clear) {
                self.len -= 1;
                return Some(entry);
            }
            self.lines.pop();
        }
        *self = Self::default();
        None
    }
}

/// Entries and marks that a table of this many lines may hold: seven of eight, so that lines with an empty slot are never far.
fn capacity(lines: usize) -> usize {
    lines * (LINE_SLOTS - 1)
}

/// Lines of a table to be built for `len` entries: the smallest size class with room for an eighth more.
fn lines_for(len: usize) -> usize {
    let lines = (len + len / 8).div_ceil(LINE_SLOTS - 1);
    size::allocation(lines * LINE_BYTES) / LINE_BYTES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::hlc::Version;
    use crate::storage::packed::{Content, ContentBody, Value};

    fn entry(key: &[u8], time: u64) -> Packed {
        let body = ContentBody::Live {
            value: Value::Copied(key),
            deadline: None,
            marks: crate::base::marks::Marks::default(),
        };
        Packed::new(key, &Content { version: Version { time, origin: 1 }, body })
    }

    fn check(table: &Entries, hash: &KeyHash, model: &BTreeMap<Vec<u8>, u64>) {
        assert_eq!(table.len(), model.len());
        for (key, time) in model {
            let found = table.find(hash.of(key)).and_then(|place| table.get(place)).expect("what is in is found");
            assert_eq!((found.key(), found.version().time), (&key[..], *time));
        }
        let mut listed: Vec<&[u8]> = table.iter().map(PackedRef::key).collect();
        listed.sort_unstable();
        assert!(listed.iter().eq(model.keys()));
        let marked = |line: &Line| line.0.iter().filter(|slot| !slot.is_full() && !slot.is_empty()).count();
        assert_eq!(table.erased, table.lines.iter().map(marked).sum::<usize>());
        assert!(table.lines.is_empty() || table.lines.iter().any(Line::has_empty), "searches end");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn whatever_comes_and_goes_the_table_holds_what_the_model_holds(
            steps in prop::collection::vec((0u16..600, 0u8..100), 1..1_500),
            removed_of_100 in 5u8..95,
            seed: u64,
            collide: bool,
        ) {
            let hash = KeyHash::new(seed);
            // Keys that all begin their search in the same few lines.
            let of = |key: &'_ [u8]| if collide { hash.of(key).hash >> 60 } else { hash.of(key).hash };
            let (mut table, mut model) = (Entries::default(), BTreeMap::new());
            for (time, (number, what)) in (0..).zip(steps) {
                let bytes = number.to_be_bytes().to_vec();
                let key = Key { bytes: &bytes, hash: of(&bytes) };
                let place = table.find(key);
                prop_assert_eq!(place.is_some(), model.contains_key(&bytes));
                if what < removed_of_100 {
                    prop_assert_eq!(place.and_then(|place| table.take(place)).is_some(), model.remove(&bytes).is_some());
                    // Building anew takes the table's own hash.
                    if !collide {
                        table.fit(&hash);
                    }
                } else if place.is_none() && !(collide && table.len() + table.erased >= capacity(table.lines.len()).max(1)) {
                    table.insert(&hash, key, entry(&bytes, time), Stamp::default());
                    model.insert(bytes, time);
                }
            }
            if !collide {
                check(&table, &hash, &model);
            }
            let taken = table.extract(usize::MAX, Slot::is_full, |entry| entry.version().time % 2 == 0);
            prop_assert_eq!(taken.len(), model.values().filter(|time| **time % 2 == 0).count());
            let mut popped = taken.len();
            while table.pop().is_some() {
                popped += 1;
            }
            prop_assert_eq!((popped, table.len(), table.bytes()), (model.len(), 0, 0));
        }
    }

    #[test]
    fn a_table_takes_little_more_than_its_entries_need() {
        let hash = KeyHash::new(3);
        let mut table = Entries::default();
        let (mut before, mut grown) = (0, 0);
        for number in 0..3_584usize {
            let key = number.to_be_bytes();
            table.insert(&hash, hash.of(&key), entry(&key, 0), Stamp::default());
            if table.bytes() != before {
                (before, grown) = (table.bytes(), grown + 1);
            }
            assert!(number < 100 || table.bytes() < table.len() * 12, "{} {}", table.len(), table.bytes());
        }
        assert!(grown < 40, "{grown}");
        let places: Vec<usize> = (0..3_584usize).filter_map(|n| table.find(hash.of(&n.to_be_bytes()))).collect();
        assert_eq!(places.len(), 3_584);
        for place in &places[30..] {
            table.take(*place);
        }
        table.fit(&hash);
        assert!(table.bytes() <= 30 * 12 + LINE_BYTES, "{}", table.bytes());
    }
}
