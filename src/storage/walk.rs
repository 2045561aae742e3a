//! How a replica finds out in what a partition differs from another's: which sums to compare next, and when to list entries instead, so that
//! what is said is in proportion to the difference. Never asks anybody and looks at no store. Tested in `tests/compare.rs`.
//!
//! The walk goes down from leaves, whose sums are kept, into parts of them, whose sums are made when they are asked for, as in the
//! range-based reconciliation of sets (Meyer, 2023).

use super::digest::LEAF_BITS;
use super::ranges::{DEPTH_MAX, Ranges};
use crate::base::hlc::Version;
use crate::protocol::native::Scope;

/// Ranges with no more entries than this are listed: another look would cost about as much as it saves.
const LISTED_MAX: usize = 8;
/// Ranges with more than this are divided into sixteen parts, others into four.
const MANY: usize = 64;
/// Where the walk begins, in bits of a place: with a few sums, for most often little differs.
const FIRST_DEPTH: u8 = 4;
/// As far as sums are kept.
const KEPT_DEPTH: u8 = LEAF_BITS as u8;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Compare the sums of these.
    Sums(Ranges),
    /// Compare the entries of these from this place on.
    List(Ranges, u64),
}

/// The answer leads nowhere: the other side does not do as agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a comparison does not get on")]
pub struct Stuck;

/// One partition's comparison. Bound: a job has at most `RANGES_MAX` ranges, and each division leaves at most 16 jobs behind.
#[derive(Clone, Debug)]
pub struct Walk {
    todo: Vec<Job>,
}

impl Walk {
    /// All of a partition that is in `scope`.
    pub fn new(scope: Scope) -> Self {
        // No sums are kept of a part of the past.
        let depth = if scope.above == Version::ZERO { FIRST_DEPTH } else { 0 };
        Self { todo: vec![Job::Sums(Ranges::all(depth))] }
    }

    /// What to do next; `None` when all is compared.
    pub fn next_job(&mut self) -> Option<Job> {
        self.todo.pop()
    }

    /// The sums of the first `compared` of `ranges` were compared; those at the places `apart` differ. On the own side some `entries_each` are
    /// in a range.
    ///
    /// # Errors
    /// None was compared.
    pub fn compared(
        &mut self,
        ranges: &Ranges,
        compared: usize,
        apart: &[u32],
        entries_each: usize,
    ) -> Result<(), Stuck> {
        if compared == 0 {
            return Err(Stuck);
        }
        if let Some(rest) = ranges.after(compared) {
            self.todo.push(Job::Sums(rest));
        }
        let Some(apart) = ranges.pick(apart) else { return Ok(()) };
        let bits = finer(ranges.depth(), entries_each, apart.count() * 8 > compared * 7);
        if bits == 0 || ranges.depth() + bits > DEPTH_MAX {
            self.todo.push(Job::List(apart, 0));
        } else {
            self.todo.extend(apart.divide(bits).map(Job::Sums));
        }
        Ok(())
    }

    /// The entries of `ranges` from place `from` to before `end` were compared, all of them if there is no end.
    ///
    /// # Errors
    /// The end is no further than the beginning.
    pub fn listed(&mut self, ranges: Ranges, from: u64, end: Option<u64>) -> Result<(), Stuck> {
        match end {
            Some(end) if end <= from => return Err(Stuck),
            Some(end) => self.todo.push(Job::List(ranges, end)),
            None => {}
        }
        Ok(())
    }
}

/// How many bits further down to go; 0 to list.
fn finer(depth: u8, entries_each: usize, nearly_all_differ: bool) -> u8 {
    if entries_each <= LISTED_MAX {
        0
    } else if depth == FIRST_DEPTH {
        KEPT_DEPTH - FIRST_DEPTH
    } else if entries_each > MANY {
        4
    } else if nearly_all_differ && depth > 0 {
        // Parts would differ as well.
        0
    } else {
        2
    }
}
