//! The door of a data arbiter: what may be in flight on it at a time. The only bound there is, because an actor's mailbox is none. One
//! arbiter, one owner: plain cells, no atomics. Tested below.

use std::cell::Cell;
use std::rc::Rc;

use crate::base::limits::READ_CHUNK_BYTES;

/// Room for requests and their bytes.
#[derive(Debug)]
pub struct Admission {
    ops: Cell<usize>,
    bytes: Cell<usize>,
    ops_max: usize,
    bytes_max: usize,
}

/// A batch's share of the room; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    door: Rc<Admission>,
    ops: usize,
    bytes: usize,
}

impl Admission {
    /// Room for `ops_max` operations that carry `bytes_max` bytes together.
    pub fn new(ops_max: usize, bytes_max: usize) -> Self {
        Self { ops: Cell::new(0), bytes: Cell::new(0), ops_max, bytes_max }
    }

    /// Lets a batch in, or not. One that is larger than all the room may pass alone, and a large one while half of the bytes are free, else
    /// they could never pass.
    pub fn admit(self: &Rc<Self>, ops: usize, bytes: usize) -> Option<Permit> {
        let (in_flight, in_flight_bytes) = (self.ops.get(), self.bytes.get());
        let half = self.bytes_max / 2;
        let fits_bytes = in_flight_bytes + bytes <= self.bytes_max || bytes > half && in_flight_bytes <= half;
        let fits = in_flight + ops <= self.ops_max && fits_bytes;
        if !fits && in_flight > 0 {
            return None;
        }
        self.ops.set(in_flight + ops);
        self.bytes.set(in_flight_bytes + bytes);
        Some(Permit { door: self.clone(), ops, bytes })
    }

    /// Operations in flight.
    pub fn ops(&self) -> usize {
        self.ops.get()
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

/// Bytes that the connections of one data arbiter hold outside of requests in flight: what they have of unfinished commands, and the replies
/// that nobody has read yet. Those who hold little are not counted.
#[derive(Debug)]
pub struct Budget {
    used: Cell<usize>,
    max: usize,
}

impl Budget {
    /// Room for `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { used: Cell::new(0), max }
    }

    /// Whether there is no room left for those who hold a part already.
    pub fn is_used_up(&self) -> bool {
        self.used.get() >= self.max
    }

    /// Whether there is no room left for anybody: twice as much is held as should be.
    pub fn is_overdrawn(&self) -> bool {
        self.used.get() >= self.max.saturating_mul(2)
    }
}

/// One connection's part of a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Rc<Budget>,
    held: Cell<usize>,
}

impl Share {
    /// What a connection may hold uncounted, so that small commands and their replies go on whatever others do.
    pub const FREE_BYTES: usize = READ_CHUNK_BYTES;

    /// A share that holds nothing.
    pub fn of(budget: Rc<Budget>) -> Self {
        Self { budget, held: Cell::new(0) }
    }

    /// Whether any of it counts.
    pub fn is_counted(&self) -> bool {
        self.held.get() > 0
    }

    /// Notes what the connection holds now. Never refuses: who asks for more looks at [`Budget::is_used_up`] first.
    pub fn hold(&self, bytes: usize) {
        let bytes = bytes.saturating_sub(Self::FREE_BYTES);
        self.budget.used.set(self.budget.used.get() + bytes - self.held.replace(bytes));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.door.ops.set(self.door.ops.get() - self.ops);
        self.door.bytes.set(self.door.bytes.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let door = Rc::new(Admission::new(10, 100));
        let first = door.admit(8, 10);
        assert!(first.is_some() && door.admit(3, 1).is_none());
        let second = door.admit(1, 50);
        assert!(second.is_some() && door.admit(1, 41).is_none());
        drop(second);
        drop(first);
        assert!(door.admit(3, 100).is_some());
        assert_eq!((door.ops(), door.bytes()), (0, 0));
    }

    #[test]
    fn a_share_counts_what_is_beyond_the_free_part_and_is_given_back() {
        let budget = Rc::new(Budget::new(100));
        let (one, other) = (Share::of(budget.clone()), Share::of(budget.clone()));
        one.hold(Share::FREE_BYTES);
        other.hold(Share::FREE_BYTES + 99);
        assert!(!budget.is_used_up());
        one.hold(Share::FREE_BYTES + 1);
        assert!(budget.is_used_up());
        one.hold(3);
        assert!(!budget.is_used_up());
        one.hold(usize::MAX / 2);
        drop((one, other));
        assert_eq!(budget.used.get(), 0);
    }

    #[test]
    fn a_large_batch_passes_while_half_of_the_room_is_free() {
        let door = Rc::new(Admission::new(10, 100));
        let half = door.admit(1, 50);
        assert!(half.is_some() && door.admit(1, 500).is_some() && door.admit(1, 51).is_some());
        let more = door.admit(1, 1);
        assert!(more.is_some() && door.admit(1, 51).is_none() && door.admit(1, 49).is_some());
    }

    #[test]
    fn what_is_larger_than_all_the_room_passes_alone() {
        let door = Rc::new(Admission::new(10, 100));
        let large = door.admit(1, 1_000);
        assert!(large.is_some() && door.admit(1, 1).is_none());
    }
}
