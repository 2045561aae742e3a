//! Which entry of a shard to evict: nearly the least recently used. A clock that counts uses, and a pool of the oldest entries seen in lines
//! drawn by lot. Removes nothing itself. Tested in `tests::eviction`.
//!
//! As in Redis, a few entries are looked at for each one evicted, and the best of the others are kept for the next time. Unlike there, they
//! are drawn from all partitions alike, each as often as it has lines, and a stamp lies in the slot: eight are looked at in one cache line,
//! fetched while the one before it was evicted, and no entry is touched but the one that goes.

use super::packed::{Slot, Stamp};
use super::table::Table;

/// Ticks in which as many different entries are used as there are. An entry's age in ticks is then a measure of how many others were used since,
/// which is what a least-recently-used order is about, whatever the pace.
const TICKS_PER_TURNOVER: usize = 128;
/// Entries unused for this long, eight turnovers, are equally old.
const AGE_MAX: u16 = Stamp::COUNT / 2;
/// Lines looked at for each entry evicted: some 13 entries where lines are as full as they are in a large store.
const LINES_DRAWN: usize = 2;
/// Where they are not, more are drawn, until this many entries were seen,
const SAMPLE: usize = 12;
/// but no more than this.
const LINES_MAX: usize = 24;
/// Draws before the list of segments is made anew, at least.
const DRAWS_MIN: usize = 16;
/// Old entries kept for the next evictions.
const POOL: usize = 32;

/// Counts uses. Stamps of equal value are of the same tick.
#[derive(Debug, Default)]
pub(super) struct UseClock {
    now: Stamp,
    uses: usize,
}

impl UseClock {
    pub(super) fn now(&self) -> Stamp {
        self.now
    }

    /// Counts an entry's first use in this tick, with `live` entries in all; whether it ended the tick.
    pub(super) fn count(&mut self, live: usize) -> bool {
        self.uses += 1;
        let over = self.uses * TICKS_PER_TURNOVER >= live;
        if over {
            (self.now, self.uses) = (self.now.after(1), 0);
        }
        over
    }
}

/// Where an entry lies, until its segment changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of its table in the shard.
    pub(super) table: usize,
    /// Index of its segment in the table.
    pub(super) segment: usize,
    /// Among the segment's live entries.
    pub(super) slot: usize,
}

impl Place {
    /// Where nothing lies.
    pub(super) const NOWHERE: Self = Self { table: usize::MAX, segment: 0, slot: 0 };
}

/// A place, and the stamp by which to know later whether what lies there is still as old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    place: Place,
    stamp: Stamp,
}

impl Candidate {
    fn slot<'t>(&self, tables: &'t [Table]) -> Option<&'t Slot> {
        let Place { table, segment, slot } = self.place;
        let slot = tables.get(table)?.segment(segment)?.live().slot(slot)?;
        (slot.is_full() && slot.stamp() == self.stamp).then_some(slot)
    }
}

/// A segment in the list to draw from.
#[derive(Clone, Copy, Debug)]
struct Listed {
    /// Lines of all segments up to this one.
    up_to: u64,
    table: usize,
    segment: usize,
}

/// A line to look at.
#[derive(Clone, Copy, Debug, Default)]
struct Drawn {
    table: usize,
    segment: usize,
    line: usize,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Evictor {
    /// State of Marsaglia's xorshift ("Xorshift RNGs", 2003): the same seed draws the same.
    lot: u64,
    /// Segments that had anything when the list was made.
    list: Vec<Listed>,
    draws_left: usize,
    /// What is looked at next.
    drawn: [Drawn; LINES_DRAWN],
    /// From the youngest to the oldest.
    pool: Vec<Candidate>,
    /// The segment whose ages are bounded next: table and segment.
    aging: (usize, usize),
    /// Segments this round of that had so far, and the last in all.
    passed: usize,
    round: usize,
}

impl Evictor {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            lot: seed | 1,
            list: Vec::new(),
            draws_left: 0,
            drawn: [Drawn::default(); LINES_DRAWN],
            pool: Vec::with_capacity(POOL),
            aging: (0, 0),
            passed: 0,
            round: 0,
        }
    }

    /// An entry to evict, old among those at hand, and not the one at `spared`; `None` if there is no other.
    pub(super) fn next(&mut self, tables: &[Table], now: Stamp, spared: Place) -> Option<Place> {
        for _ in 0..2 {
            self.look(tables, now);
            if let Some(oldest) = self.take_oldest(tables, spared) {
                return Some(oldest);
            }
            // What was listed is gone.
            self.draws_left = 0;
        }
        any_entry(tables, spared)
    }

    fn take_oldest(&mut self, tables: &[Table], spared: Place) -> Option<Place> {
        while let Some(oldest) = self.pool.pop() {
            if oldest.slot(tables).is_some() && oldest.place != spared {
                // The next to go is read then, so it may be fetched now.
                if let Some(slot) = self.pool.last().and_then(|next| next.slot(tables)) {
                    slot.prefetch();
                }
                return Some(oldest.place);
            }
        }
        None
    }

    /// Looks at the lines drawn before, and draws those for the next time.
    fn look(&mut self, tables: &[Table], now: Stamp) {
        if self.draws_left == 0 {
            self.list_segments(tables);
        }
        self.draws_left -= 1;
        let mut seen = 0;
        for n in 0..LINES_MAX {
            if n >= LINES_DRAWN && seen >= SAMPLE {
                break;
            }
            let Some(drawn) = self.draw(tables) else { break };
            let Drawn { table, segment, line } = std::mem::replace(&mut self.drawn[n % LINES_DRAWN], drawn);
            let slots = tables.get(table).and_then(|table| table.segment(segment)).map(|s| s.live().line(line));
            for (slot, full) in slots.into_iter().flatten() {
                seen += 1;
                let place = Place { table, segment, slot };
                self.consider(Candidate { place, stamp: full.stamp() }, now);
            }
        }
    }

    /// Draws a line and asks for it.
    fn draw(&mut self, tables: &[Table]) -> Option<Drawn> {
        let lines = self.list.last()?.up_to;
        self.lot ^= self.lot << 13;
        self.lot ^= self.lot >> 7;
        self.lot ^= self.lot << 17;
        let drawn = ((u128::from(self.lot) * u128::from(lines)) >> u64::BITS) as u64;
        let Listed { up_to, table, segment } = self.list[self.list.partition_point(|listed| listed.up_to <= drawn)];
        let line = (up_to - 1 - drawn) as usize;
        tables[table].segment(segment)?.live().prefetch_slots(line);
        Some(Drawn { table, segment, line })
    }

    /// Lists the segments that have anything: one pass over all for a quarter as many evictions.
    fn list_segments(&mut self, tables: &[Table]) {
        self.list.clear();
        let mut up_to = 0;
        for (n, table) in tables.iter().enumerate().filter(|(_, table)| !table.is_empty()) {
            for (segment, lines) in table.segments().iter().map(|segment| segment.live().lines()).enumerate() {
                up_to += lines as u64;
                if lines > 0 {
                    self.list.push(Listed { up_to, table: n, segment });
                }
            }
        }
        self.draws_left = (self.list.len() / 4).max(DRAWS_MIN);
    }

    fn consider(&mut self, candidate: Candidate, now: Stamp) {
        let age = candidate.stamp.age(now);
        let full = self.pool.len() == POOL;
        if full && age <= self.pool[0].stamp.age(now) || self.pool.contains(&candidate) {
            return;
        }
        if full {
            self.pool.remove(0);
        }
        let at = self.pool.partition_point(|pooled| pooled.stamp.age(now) <= age);
        self.pool.insert(at, candidate);
    }

    /// Bounds the age of some entries, so that within `AGE_MAX` ticks all have been seen to. Due at the end of each tick.
    pub(super) fn bound_ages(&mut self, tables: &mut [Table], now: Stamp) {
        // Twice as fast as needed, for the number of segments may grow meanwhile.
        for _ in 0..=self.round * 2 / usize::from(AGE_MAX) {
            let (table, segment) = self.aging;
            if let Some(segment) = tables[table].segment_mut(segment) {
                segment.bound_age(now, AGE_MAX);
            }
            self.passed += 1;
            self.aging = if segment + 1 < tables[table].segments().len() {
                (table, segment + 1)
            } else {
                ((table + 1) % tables.len(), 0)
            };
            if self.aging == (0, 0) {
                (self.round, self.passed) = (self.passed, 0);
            }
        }
    }
}

/// Any entry but the one at `spared`, where so few are left that none was drawn.
fn any_entry(tables: &[Table], spared: Place) -> Option<Place> {
    let filled = tables.iter().enumerate().filter(|(_, table)| !table.is_empty());
    let mut places = filled.flat_map(|(n, table)| {
        let segments = table.segments().iter().enumerate();
        segments.flat_map(move |(segment, s)| s.live().places().map(move |slot| Place { table: n, segment, slot }))
    });
    places.find(|place| *place != spared)
}
