//! Whose turn it is to compare a partition: two nodes at a time, begun by one of them, so that what differs crosses once. Never decides what
//! has to be compared. Tested in `sync/tests.rs`
//! and below.
//!
//! A node takes a partition before it asks a peer about it, and is refused if that one has it under comparison already. Who is refused gives it
//! back at once and tries again later: nobody waits for anybody, so nobody waits for ever.

use std::collections::BTreeMap;

use crate::base::hlc::UnixMs;
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::view::PeerIx;

/// A peer that has not said for this long that it is done, or what it compares next, is taken to be done.
const VISIT_MS_MAX: u64 = 5_000;

/// What a peer compares with this node.
#[derive(Clone, Copy, Debug)]
struct Visit {
    partitions: PartitionSet,
    until_ms: UnixMs,
}

/// What is under comparison on one node.
#[derive(Debug, Default)]
pub(super) struct Turns {
    own: BTreeMap<PeerIx, PartitionSet>,
    visits: BTreeMap<PeerIx, Visit>,
}

impl Turns {
    /// Those partitions that are under comparison.
    pub(super) fn taken(&self, now: UnixMs) -> PartitionSet {
        let own = self.own.values().fold(PartitionSet::EMPTY, |all, own| all.union(own));
        own.union(&self.visited(now, None))
    }

    fn visited(&self, now: UnixMs, but_by: Option<PeerIx>) -> PartitionSet {
        let current = self.visits.iter().filter(|(peer, visit)| visit.until_ms > now && Some(**peer) != but_by);
        current.fold(PartitionSet::EMPTY, |all, (_, visit)| all.union(&visit.partitions))
    }

    /// This node compares these with a peer, and none else with it.
    pub(super) fn begin(&mut self, peer: PeerIx, partitions: PartitionSet) {
        self.own.insert(peer, partitions);
    }

    /// It is done with what it compared with a peer.
    pub(super) fn end(&mut self, peer: PeerIx) {
        self.own.remove(&peer);
    }

    /// A peer begins to compare these with this node, and is done with what it compared before: those it may. If both ask each other,
    /// the one that `goes_first` does.
    pub(super) fn visit(&mut self, peer: PeerIx, asked: PartitionSet, goes_first: bool, now: UnixMs) -> PartitionSet {
        let own = self.own.iter().filter(|(with, _)| !(goes_first && **with == peer));
        let own = own.fold(PartitionSet::EMPTY, |all, (_, own)| all.union(own));
        let free = asked.difference(&own).difference(&self.visited(now, Some(peer)));
        if free.is_empty() {
            self.visits.remove(&peer);
        } else {
            self.visits.insert(peer, Visit { partitions: free, until_ms: now + VISIT_MS_MAX });
        }
        free
    }

    /// Peers that are gone compare nothing.
    pub(super) fn retain(&mut self, lives: impl Fn(PeerIx) -> bool) {
        self.visits.retain(|peer, _| lives(*peer));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::slot::Partition;

    fn set(partitions: &[u16]) -> PartitionSet {
        partitions.iter().map(|p| Partition(*p)).collect()
    }

    #[test]
    fn what_is_under_comparison_is_refused_until_it_is_over() {
        let (mut turns, [a, b]) = (Turns::default(), [1, 2].map(PeerIx));
        turns.begin(a, set(&[1, 2]));
        assert_eq!(turns.visit(b, set(&[2, 3]), true, 0), set(&[3]));
        assert_eq!(turns.taken(0), set(&[1, 2, 3]));
        assert_eq!(turns.visit(a, set(&[1, 3, 4]), false, 0), set(&[4]));
        assert_eq!(turns.visit(a, set(&[1, 3, 4]), true, 0), set(&[1, 4]), "both ask each other, and one goes first");
        assert_eq!(turns.visit(b, set(&[]), true, 0), set(&[]));
        assert_eq!(turns.visit(a, set(&[3]), false, 0), set(&[3]), "the other is done");
        turns.end(a);
        assert_eq!(turns.taken(VISIT_MS_MAX - 1), set(&[3]));
        assert_eq!(turns.taken(VISIT_MS_MAX), set(&[]), "a peer that says nothing more is done");
        turns.visit(a, set(&[3]), false, 9);
        turns.retain(|peer| peer != a);
        assert_eq!(turns.taken(9), set(&[]));
    }

    /// Nodes that compare few partitions, all with each other, over a network that takes its time.
    struct World {
        nodes: Vec<Node>,
        now: UnixMs,
        /// When it arrives, from whom, to whom, what.
        under_way: Vec<(UnixMs, usize, usize, Message)>,
    }

    struct Node {
        turns: Turns,
        /// With whom and what is to be compared yet.
        pending: Vec<(usize, Partition)>,
        not_before: Vec<UnixMs>,
        asking: Vec<Option<Partition>>,
        /// Comparisons that go on, as this node knows: who began it, with whom.
        comparing: Vec<(usize, usize, Partition)>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Message {
        May(Partition),
        Allowed(Partition, bool),
        /// To oneself: the comparison has taken its time.
        Worked(Partition),
        Done(Partition),
        Heard,
    }

    impl World {
        fn send(&mut self, from: usize, to: usize, message: Message, takes: u64) {
            self.under_way.push((self.now + 1 + takes, from, to, message));
        }

        fn begin(&mut self, n: usize, draw: u64) {
            let now = self.now;
            for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
                let node = &mut self.nodes[n];
                let taken = node.turns.taken(now);
                let next = node.pending.iter().find(|(with, p)| *with == peer && !taken.contains(*p)).map(|(_, p)| *p);
                if let Some(p) = next.filter(|_| node.asking[peer].is_none() && node.not_before[peer] <= now) {
                    node.turns.begin(PeerIx(peer as u32), [p].into_iter().collect());
                    node.asking[peer] = Some(p);
                    self.send(n, peer, Message::May(p), draw % 30);
                }
            }
        }

        fn deliver(&mut self, draw: u64) {
            let due = self.under_way.extract_if(.., |(at, ..)| *at <= self.now).collect::<Vec<_>>();
            for (_, from, to, message) in due {
                let (now, ix) = (self.now, PeerIx(from as u32));
                let node = &mut self.nodes[to];
                match message {
                    Message::May(p) => {
                        let free = node.turns.visit(ix, [p].into_iter().collect(), from < to, now);
                        if free.contains(p) {
                            let twice = node.comparing.iter().any(|(_, _, other)| *other == p);
                            assert!(!twice, "{to} compares {p:?} twice at once");
                            node.comparing.push((from, to, p));
                        }
                        self.send(to, from, Message::Allowed(p, free.contains(p)), draw % 30);
                    }
                    Message::Allowed(p, true) => {
                        let twice = node.comparing.iter().any(|(_, _, other)| *other == p);
                        assert!(!twice, "{to} compares {p:?} twice at once");
                        node.comparing.push((to, from, p));
                        self.send(from, to, Message::Worked(p), 20 + draw % 60);
                    }
                    Message::Allowed(_, false) => {
                        node.turns.end(ix);
                        node.asking[from] = None;
                        node.not_before[from] = now + 100 + draw % 100;
                    }
                    Message::Worked(p) => {
                        node.comparing.retain(|known| *known != (to, from, p));
                        node.pending.retain(|known| *known != (from, p));
                        self.send(to, from, Message::Done(p), draw % 30);
                    }
                    Message::Done(p) => {
                        node.comparing.retain(|known| *known != (from, to, p));
                        node.turns.visit(ix, PartitionSet::EMPTY, from < to, now);
                        self.send(to, from, Message::Heard, draw % 30);
                    }
                    Message::Heard => {
                        node.turns.end(ix);
                        node.asking[from] = None;
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_partition_is_compared_twice_at_once_and_everybody_gets_a_turn(
            count in 2..5usize, partitions in 1..4u16, mut draw: u64,
        ) {
            let node = |n: usize| Node {
                turns: Turns::default(),
                pending: (0..count).filter(|peer| *peer != n)
                    .flat_map(|peer| (0..partitions).map(move |p| (peer, Partition(p)))).collect(),
                not_before: vec![0; count],
                asking: vec![None; count],
                comparing: Vec::new(),
            };
            let mut world = World { nodes: (0..count).map(node).collect(), now: 0, under_way: Vec::new() };
            while world.nodes.iter().any(|node| !node.pending.is_empty()) {
                prop_assert!(world.now < 60_000, "somebody starves");
                world.now += 10;
                for n in 0..count {
                    draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    world.begin(n, draw >> 33);
                    world.deliver(draw >> 40);
                }
            }
        }
    }
}
