//! Who the connections of a node are, and how many of each kind there may be: clients and peers must not take each other's room. Knows no
//! socket. Tested below.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::pause::Pausing;
use crate::base::limits::{PEER_CONNECTIONS_MAX, UNDECIDED_CONNECTIONS_MAX};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Has said nothing yet, or not enough.
    Undecided,
    /// A client.
    Client,
    /// A node of this cluster.
    Peer,
}

/// What the connections of all arbiters share. Touched when a connection opens, says who it is, or closes, not by requests.
#[derive(Debug)]
pub struct Census {
    seats: [Seats; 3],
    next_id: AtomicU64,
    flushes: AtomicU64,
    /// Connections that `accept` failed to bring.
    pub accepts_failed: AtomicU64,
    /// Set once the node stops: requests are refused from then on.
    pub stopping: AtomicBool,
    /// Whether clients are held up.
    pub(super) pausing: Pausing,
}

#[derive(Debug)]
struct Seats {
    taken: AtomicUsize,
    max: usize,
}

impl Census {
    /// Nobody, and room for `clients_max` clients.
    pub fn new(clients_max: usize) -> Self {
        let seats = [UNDECIDED_CONNECTIONS_MAX, clients_max, PEER_CONNECTIONS_MAX]
            .map(|max| Seats { taken: AtomicUsize::new(0), max });
        let (next_id, accepts_failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let flushes = AtomicU64::new(0);
        Self { seats, next_id, flushes, accepts_failed, stopping: AtomicBool::new(false), pausing: Pausing::default() }
    }

    /// The number of a new connection.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of a flush that a memcached client asks for.
    pub(super) fn next_flush(&self) -> u64 {
        self.flushes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether none was asked for since.
    pub(super) fn is_last_flush(&self, number: u64) -> bool {
        self.flushes.load(Ordering::Relaxed) == number
    }

    fn take(&self, role: Role) -> bool {
        let Seats { taken, max } = &self.seats[role as usize];
        let room = taken.fetch_add(1, Ordering::Relaxed) < *max;
        if !room {
            self.leave(role);
        }
        room
    }

    fn leave(&self, role: Role) {
        self.seats[role as usize].taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    census: Arc<Census>,
    role: Cell<Role>,
}

impl Seat {
    /// A place for a connection that has said nothing yet. Where too many are such, it counts as a client at once. `None` without room.
    pub(super) fn take(census: Arc<Census>) -> Option<Self> {
        let role = [Role::Undecided, Role::Client].into_iter().find(|role| census.take(*role))?;
        Some(Self { census, role: Cell::new(role) })
    }

    /// Who sits there.
    pub(super) fn role(&self) -> Role {
        self.role.get()
    }

    /// Notes who it is. False where there is no room for one more; nothing changes then.
    pub(super) fn settle(&self, role: Role) -> bool {
        if self.role.get() == role {
            return true;
        }
        let room = self.census.take(role);
        if room {
            self.census.leave(self.role.replace(role));
        }
        room
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.census.leave(self.role.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(census: &Arc<Census>) -> Seat {
        Seat::take(census.clone()).unwrap()
    }

    #[test]
    fn clients_leave_the_room_of_peers_alone_and_peers_that_of_clients() {
        let census = Arc::new(Census::new(1));
        let peers: Vec<Seat> = (0..3).map(|_| arrive(&census)).collect();
        assert!(peers.iter().all(|peer| peer.settle(Role::Peer)));
        let (client, late) = (arrive(&census), arrive(&census));
        assert!(client.settle(Role::Client) && !late.settle(Role::Client));
        assert!(late.settle(Role::Peer), "a peer is let in among clients without room");
        drop(client);
        let next = arrive(&census);
        assert!(next.settle(Role::Client) && next.settle(Role::Client));
        assert_eq!((next.role(), late.role()), (Role::Client, Role::Peer));
    }

    #[test]
    fn those_who_say_nothing_are_bounded_and_then_count_as_clients() {
        let census = Arc::new(Census::new(1));
        let silent: Vec<Seat> = (0..UNDECIDED_CONNECTIONS_MAX).map(|_| arrive(&census)).collect();
        assert!(silent.iter().all(|seat| seat.role() == Role::Undecided));
        assert_eq!(arrive(&census).role(), Role::Client);
        let client = arrive(&census);
        assert!(Seat::take(census.clone()).is_none());
        assert!(client.settle(Role::Peer) && arrive(&census).role() == Role::Client);
    }
}
