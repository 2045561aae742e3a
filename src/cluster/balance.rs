//! Bounded load: passes places from members above their bound to members with room, then to members below theirs, each time the
//! way that is regretted least. Never looks at ids or at the circle. Tested in `ring/tests.rs`.
//!
//! The idea is that of "Consistent Hashing with Bounded Loads" (Mirrokni, Thorup, Zadimoghaddam, 2017), but instead of letting a full
//! member send each late comer on, it gives up those places that another member claims nearly as strongly. These are the same few
//! before and after a small change of the membership, so corrections do not cascade. Where no single pass helps (few members, tight
//! zones) a chain of passes does, found breadth first as in augmenting a flow.

use std::collections::VecDeque;

/// The least and the most places a member may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) least: u32,
    pub(super) most: u32,
}

/// A place passing from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) partition: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    /// How much weaker the new claim is than the old one; negative when it is stronger. Smaller is better.
    pub(super) regret: i128,
}

/// Places and who has them.
pub(super) trait Board {
    /// How many places each member has.
    fn loads(&self) -> &[u32];
    /// Every pass there is of a place of `from`.
    fn each_from(&self, from: usize, visit: impl FnMut(Pass));
    /// Every pass there is of a place to `to`.
    fn each_to(&self, to: usize, visit: impl FnMut(Pass));
    /// Does it.
    fn pass(&mut self, pass: Pass);
}

#[derive(Clone, Copy)]
enum Way {
    Away,
    Towards,
}

/// Brings every load within its bounds, as far as any chain of passes can: first no member above its most, which is the promise;
/// then none below its least, never breaking the first.
pub(super) fn settle(board: &mut impl Board, bounds: &[Bounds]) {
    for (member, bound) in bounds.iter().enumerate() {
        while board.loads()[member] > bound.most && shift(board, member, Way::Away, |to, load| load < bounds[to].most) {
        }
    }
    for (member, bound) in bounds.iter().enumerate() {
        while board.loads()[member] < bound.least
            && shift(board, member, Way::Towards, |from, load| load > bounds[from].least)
        {}
    }
}

/// Passes one place between `start` and a member that `fits`, the members between them keeping their loads. False when no
/// chain leads to one.
fn shift<B: Board>(board: &mut B, start: usize, way: Way, fits: impl Fn(usize, u32) -> bool) -> bool {
    let mut reached_by: Vec<Option<Pass>> = vec![None; board.loads().len()];
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        let chain = chain_to(at, start, way, &reached_by);
        let mut next: Vec<Option<Pass>> = vec![None; reached_by.len()];
        let mut note = |pass: Pass| {
            let other = far_end(pass, way);
            // No partition twice in a chain: each pass was judged as if it were the only one of its partition.
            let new = other != start && reached_by[other].is_none();
            let best = next[other].is_none_or(|best| (pass.regret, pass.partition) < (best.regret, best.partition));
            if new && best && chain.iter().all(|step| step.partition != pass.partition) {
                next[other] = Some(pass);
            }
        };
        match way {
            Way::Away => board.each_from(at, &mut note),
            Way::Towards => board.each_to(at, &mut note),
        }
        let fitting =
            next.iter().flatten().filter(|pass| fits(far_end(**pass, way), board.loads()[far_end(**pass, way)]));
        if let Some(&last) = fitting.min_by_key(|pass| (pass.regret, pass.partition, far_end(**pass, way))) {
            board.pass(last);
            chain.into_iter().for_each(|pass| board.pass(pass));
            return true;
        }
        for pass in next.into_iter().flatten() {
            reached_by[far_end(pass, way)] = Some(pass);
            queue.push_back(far_end(pass, way));
        }
    }
    false
}

fn far_end(pass: Pass, way: Way) -> usize {
    match way {
        Way::Away => pass.to,
        Way::Towards => pass.from,
    }
}

/// The passes between `start` and `at`, the latest first.
fn chain_to(at: usize, start: usize, way: Way, reached_by: &[Option<Pass>]) -> Vec<Pass> {
    let mut chain = Vec::new();
    let mut member = at;
    while member != start {
        let pass = reached_by[member].expect("only members that were reached are searched");
        chain.push(pass);
        member = match way {
            Way::Away => pass.from,
            Way::Towards => pass.to,
        };
    }
    chain
}
