//! Messages on their way to one member, a batch at a time so that they stay in order, and how many subscribers each has reached. Never sends.
//! Tested below and in `tests.rs`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::base::channel::Kind;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Of the channel.
    pub kind: Kind,
    /// Where it was published.
    pub channel: Bytes,
    /// What.
    pub payload: Bytes,
    /// The publication that counts who gets it, if somebody wants to know.
    pub ticket: Option<u64>,
}

impl Parcel {
    /// What it takes.
    pub fn bytes(&self) -> usize {
        self.channel.len() + self.payload.len() + size_of::<Self>()
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Mailbag {
    waiting: VecDeque<Parcel>,
    bytes: usize,
    /// Tickets of the batch that was sent and not answered.
    under_way: Option<Vec<Option<u64>>>,
}

impl Mailbag {
    /// Takes a message, if those that wait take no more than `bytes_max`.
    ///
    /// # Errors
    /// The message; nothing has changed.
    pub fn post(&mut self, parcel: Parcel, bytes_max: usize) -> Result<(), Parcel> {
        if self.bytes + parcel.bytes() > bytes_max && self.bytes > 0 {
            return Err(parcel);
        }
        self.bytes += parcel.bytes();
        self.waiting.push_back(parcel);
        Ok(())
    }

    /// The next batch to send, of one message at least and about `bytes_target` at most; none while another is under way.
    pub fn next(&mut self, bytes_target: usize) -> Option<Vec<Parcel>> {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return None;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(parcel) = self.waiting.front()
            && (batch.is_empty() || bytes + parcel.bytes() <= bytes_target)
        {
            bytes += parcel.bytes();
            batch.extend(self.waiting.pop_front());
        }
        self.bytes -= bytes;
        self.under_way = Some(batch.iter().map(|parcel| parcel.ticket).collect());
        Some(batch)
    }

    /// The batch under way has been answered or is lost: its tickets, in order.
    pub fn answered(&mut self) -> Vec<Option<u64>> {
        self.under_way.take().unwrap_or_default()
    }

    /// Gives up what waits: the tickets.
    pub fn give_up(&mut self) -> Vec<Option<u64>> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_iter().map(|parcel| parcel.ticket).collect()
    }
}

/// Publications whose receivers are still being counted. `W` is who wants to know.
#[derive(Debug)]
pub struct Publications<W> {
    next: u64,
    open: BTreeMap<u64, (usize, u64, W)>,
}

impl<W> Default for Publications<W> {
    fn default() -> Self {
        Self { next: 0, open: BTreeMap::new() }
    }
}

impl<W> Publications<W> {
    /// Begins one that `members` are asked about and `count` receivers here have got.
    pub fn open(&mut self, members: usize, count: u64, waiter: W) -> u64 {
        self.next += 1;
        self.open.insert(self.next, (members, count, waiter));
        self.next
    }

    /// One member has delivered to so many, or nobody will know. The sum, once all have answered, and who waits for it.
    pub fn settle(&mut self, ticket: u64, count: u64) -> Option<(u64, W)> {
        let (members, sum, _) = self.open.get_mut(&ticket)?;
        *sum = sum.saturating_add(count);
        *members = members.saturating_sub(1);
        if *members > 0 {
            return None;
        }
        let (_, sum, waiter) = self.open.remove(&ticket)?;
        Some((sum, waiter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(payload: &'static str, ticket: Option<u64>) -> Parcel {
        Parcel { kind: Kind::Channel, channel: "c".into(), payload: payload.into(), ticket }
    }

    #[test]
    fn batches_go_one_after_another_and_in_order() {
        let mut bag = Mailbag::default();
        let one = parcel("1", None).bytes();
        for (n, payload) in ["1", "2", "3"].into_iter().enumerate() {
            bag.post(parcel(payload, Some(n as u64)), 3 * one).unwrap();
        }
        assert!(bag.post(parcel("4", None), 3 * one).is_err());
        let sent = |bag: &mut Mailbag| bag.next(2 * one).map(|batch| batch.into_iter().map(|p| p.payload).collect());
        assert_eq!(sent(&mut bag), Some(vec![Bytes::from("1"), Bytes::from("2")]));
        assert_eq!(sent(&mut bag), None);
        assert_eq!(bag.answered(), [Some(0), Some(1)]);
        bag.post(parcel("a message longer than the bound", None), one).unwrap_err();
        assert_eq!(sent(&mut bag), Some(vec![Bytes::from("3")]));
        bag.post(parcel("a message longer than the bound", None), one).unwrap();
        assert_eq!((bag.answered(), bag.give_up(), bag.next(one)), (vec![Some(2)], vec![None], None));
    }

    #[test]
    fn receivers_are_summed_up_once_all_members_have_answered() {
        let mut publications = Publications::default();
        let ticket = publications.open(2, 3, 'w');
        assert_eq!(publications.settle(ticket, 4), None);
        assert_eq!(publications.settle(ticket, 0), Some((7, 'w')));
        assert_eq!(publications.settle(ticket, 1), None);
    }
}
