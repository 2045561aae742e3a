//! One connection without its socket: bytes to send, requests that wait for replies, and what the replies that arrive come to. Tested
//! below against a server made of the same protocol.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::rngs::SmallRng;

use trellis::base::slot::Slot;

use super::cluster::Slots;
use super::command::{Command, Mix, Protocol};
use super::encode::Encoder;
use super::keys::Keys;
use super::replies::{Expected, ReplyCounter, Step, Unreadable};
use super::sizes::Sizes;
use super::tally::Tally;

/// What is asked for; the same for all connections.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) protocol: Protocol,
    pub(crate) mix: Mix,
    pub(crate) sizes: Sizes,
    pub(crate) encoder: Encoder,
    /// Values that are read are compared with what was stored.
    pub(crate) verifies: bool,
}

/// Draws for a key in the slots of a connection's server. One that owns next to nothing is asked for something of others then.
const DRAWS_MAX: usize = 10_000;

struct Pending {
    start: u64,
    key: u64,
    /// Index in the mix.
    command: usize,
}

/// A connection's requests and replies.
pub(crate) struct Pipe {
    out: Vec<u8>,
    sent: usize,
    pending: VecDeque<Pending>,
    /// What has arrived of a line that is not whole.
    tail: Vec<u8>,
    counter: ReplyCounter,
    keys: Keys,
    slots: Option<Arc<Slots>>,
    /// The key under consideration, spelled.
    spelled: Vec<u8>,
}

impl Pipe {
    /// A pipe that asks for `keys`, of these slots only.
    pub(crate) fn new(workload: &Workload, keys: Keys, slots: Option<Arc<Slots>>, depth: usize) -> Self {
        Self {
            out: Vec::new(),
            sent: 0,
            pending: VecDeque::with_capacity(depth),
            tail: Vec::new(),
            counter: ReplyCounter::new(workload.protocol, workload.verifies),
            keys,
            slots,
            spelled: Vec::new(),
        }
    }

    /// Appends one request that starts now, or should have started then. False if there are no more keys to ask for.
    pub(crate) fn ask(&mut self, workload: &Workload, random: &mut SmallRng, start: u64) -> bool {
        let index = workload.mix.draw(random);
        let command = workload.mix.commands()[index];
        let Some(key) = self.key(workload, random, command) else { return false };
        let bytes = if command.stores() { workload.sizes.draw(random) } else { 0 };
        workload.encoder.request(&mut self.out, command, key, bytes);
        self.pending.push_back(Pending { start, key, command: index });
        true
    }

    fn key(&mut self, workload: &Workload, random: &mut SmallRng, command: Command) -> Option<u64> {
        let Some(slots) = &self.slots else { return self.keys.next(random) };
        // A walk that ends does so by itself, and leaves nothing out.
        let is_walk = matches!(self.keys, Keys::Walk { .. });
        let mut draws = 0;
        loop {
            let key = self.keys.next(random)?;
            draws += 1;
            self.spelled.clear();
            workload.encoder.key(&mut self.spelled, command, key);
            if slots.contains(Slot::of(&self.spelled)) || draws >= DRAWS_MAX && !is_walk {
                return Some(key);
            }
        }
    }

    /// What is to be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// So much of it was.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    /// Requests without a reply.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Moves what was left of the last look to the front of `buffer`, where the next bytes are to follow. Says how much it is.
    pub(crate) fn restore(&mut self, buffer: &mut [u8]) -> usize {
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        self.tail.clear();
        kept
    }

    /// Takes what arrived. Says how many replies it made whole.
    ///
    /// # Errors
    /// [`Unreadable`]: what was pending is lost, see [`Self::lose`].
    pub(crate) fn arrived(
        &mut self,
        mut bytes: &[u8],
        now: u64,
        workload: &Workload,
        tally: &mut Tally,
    ) -> Result<u64, Unreadable> {
        let mut replies = 0;
        while !bytes.is_empty() {
            // A server that says something unasked is none of ours.
            let Pending { start, key, command } = self.pending.front().ok_or(Unreadable)?;
            let expected = Expected { command: workload.mix.commands()[*command], key: *key };
            match self.counter.step(bytes, expected, &workload.encoder)? {
                Step::More(read) => {
                    self.tail.extend_from_slice(&bytes[read..]);
                    break;
                }
                Step::Whole(read, outcome) => {
                    bytes = &bytes[read..];
                    tally.answered(*command, *start, now, outcome);
                    self.pending.pop_front();
                    replies += 1;
                }
            }
        }
        Ok(replies)
    }

    /// Gives up what is pending, and begins anew for another connection.
    pub(crate) fn lose(&mut self, why: &str, workload: &Workload, tally: &mut Tally) {
        for Pending { start, .. } in self.pending.drain(..) {
            tally.lost(start, why);
        }
        self.out.clear();
        self.tail.clear();
        self.sent = 0;
        self.counter = ReplyCounter::new(workload.protocol, workload.verifies);
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Distribution, Rounds};
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn workload(protocol: Protocol, mix: &str) -> Workload {
        Workload {
            protocol,
            mix: Mix::new(&mix.parse().unwrap(), protocol).unwrap(),
            sizes: Sizes::Range(0, 40),
            encoder: Encoder::new(protocol, "k:", 40),
            verifies: true,
        }
    }

    /// Replies of a memcached that has what it is asked for.
    fn replies(asked: &[u8]) -> Vec<u8> {
        let (text, mut out) = (String::from_utf8(asked.to_vec()).unwrap(), String::new());
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        while let Some(line) = lines.next() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "get" => out.push_str(&format!("VALUE {0} 0 {1}\r\n{0}\r\nEND\r\n", words[1], words[1].len())),
                "mg" => out.push_str(&format!("VA {}\r\n{}\r\n", words[1].len(), words[1])),
                "ms" => {
                    out.push_str("HD\r\n");
                    (words[2] != "0").then(|| lines.next());
                }
                other => panic!("{other}"),
            }
        }
        out.into_bytes()
    }

    proptest! {
        #[test]
        fn every_request_is_counted_once_however_replies_arrive(seed: u64, count in 1usize..60, cut in 1usize..50) {
            let workload = workload(Protocol::Memcached, "get,mg:2,ms:3");
            let mut random = SmallRng::seed_from_u64(seed);
            let keys = Keys::new(Distribution::Uniform, 1000, 1.0, (0, 1));
            let (mut pipe, mut tally) = (Pipe::new(&workload, keys, None, count), Tally::new(3, 0));
            for _ in 0..count {
                prop_assert!(pipe.ask(&workload, &mut random, 5));
            }
            let replies = replies(pipe.unsent());
            let (mut buffer, mut whole) = (vec![0; 4096], 0);
            for chunk in replies.chunks(cut) {
                let kept = pipe.restore(&mut buffer);
                buffer[kept..kept + chunk.len()].copy_from_slice(chunk);
                whole += pipe.arrived(&buffer[..kept + chunk.len()], 9, &workload, &mut tally).unwrap();
            }
            prop_assert_eq!((whole, tally.successes(), tally.failures()), (count as u64, count as u64, 0));
            prop_assert_eq!(pipe.pending(), 0);
            prop_assert_eq!(tally.latencies().max(), 4);
        }
    }

    #[test]
    fn a_connection_that_broke_begins_anew() {
        let workload = workload(Protocol::Resp, "get");
        let keys = Keys::walk(10, (0, 1), Rounds::Endless);
        let (mut pipe, mut tally) = (Pipe::new(&workload, keys, None, 2), Tally::new(1, 0));
        let mut random = SmallRng::seed_from_u64(1);
        for _ in 0..2 {
            assert!(pipe.ask(&workload, &mut random, 1));
        }
        assert_eq!(pipe.arrived(b"$3\r\nk:", 2, &workload, &mut tally), Ok(0));
        pipe.lose("(gone)", &workload, &mut tally);
        assert_eq!((tally.errors["(gone)"], pipe.pending(), pipe.unsent().len()), (2, 0, 0));
        assert!(pipe.ask(&workload, &mut random, 3));
        assert_eq!(pipe.arrived(b"$-1\r\n", 4, &workload, &mut tally), Ok(1));
        assert_eq!(pipe.arrived(b"+OK\r\n", 4, &workload, &mut tally), Err(Unreadable), "nobody asked");
    }

    #[test]
    fn connections_to_owners_ask_for_their_keys_only() {
        let workload = workload(Protocol::Resp, "get");
        let lower = Arc::new(Slots::of([(0, 8191)]));
        let keys = Keys::walk(1000, (0, 1), Rounds::One);
        let mut pipe = Pipe::new(&workload, keys, Some(lower), 1000);
        let mut random = SmallRng::seed_from_u64(1);
        while pipe.ask(&workload, &mut random, 1) {}
        let expected = (0..1000).filter(|n| Slot::of(format!("k:{n:012}").as_bytes()).0 < 8192);
        assert!(pipe.pending.iter().map(|pending| pending.key).eq(expected));
    }
}
