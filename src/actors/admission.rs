//! The door of a data arbiter: what may be in flight on it at a time. The only bound there is, because an actor's mailbox is none. One
//! arbiter, one owner: plain cells, no atomics. Tested below.

use std::cell::Cell;
use std::rc::Rc;

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

    /// Lets a batch in, or not. One that is larger than all the room may pass alone, else it could never pass.
    pub fn admit(self: &Rc<Self>, ops: usize, bytes: usize) -> Option<Permit> {
        let (in_flight, in_flight_bytes) = (self.ops.get(), self.bytes.get());
        let fits = in_flight + ops <= self.ops_max && in_flight_bytes + bytes <= self.bytes_max;
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
        assert!(first.is_some() && door.admit(3, 1).is_none() && door.admit(1, 91).is_none());
        drop(first);
        assert!(door.admit(3, 100).is_some());
        assert_eq!((door.ops(), door.bytes()), (0, 0));
    }

    #[test]
    fn what_is_larger_than_all_the_room_passes_alone() {
        let door = Rc::new(Admission::new(10, 100));
        let large = door.admit(1, 1_000);
        assert!(large.is_some() && door.admit(1, 1).is_none());
    }
}
