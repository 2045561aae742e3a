//! Bounded load: moves places from members above their bound to members below it, along the cheapest way there is. Never looks
//! at ids or the circle. Tested in `ring/tests.rs`.

use std::collections::VecDeque;

/// The least and the most places a member may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) least: u32,
    pub(super) most: u32,
}

/// Places that can pass from one member to another.
pub(super) trait Board {
    /// How many members there are, and how many places each has.
    fn loads(&self) -> &[u32];
    /// Calls `visit(partition, to, regret)` for each place of `from` and each member that could take it.
    fn offers(&self, from: usize, visit: impl FnMut(usize, usize, i128));
    /// Passes the place on.
    fn pass(&mut self, partition: usize, from: usize, to: usize);
}

/// Brings every load within its bounds as far as any way of passing places allows.
pub(super) fn settle(board: &mut impl Board, bounds: &[Bounds]) {
    for member in 0..bounds.len() {
        while board.loads()[member] > bounds[member].most {
            if !move_one(board, Some(member), |b, m| b.loads()[m] < bounds[m].most) {
                break;
            }
        }
    }
    for member in 0..bounds.len() {
        while board.loads()[member] < bounds[member].least {
            if !pull_one(board, member, bounds) {
                break;
            }
        }
    }
}

fn move_one<B: Board>(board: &mut B, from: Option<usize>, room: impl Fn(&B, usize) -> bool) -> bool {
    let Some(from) = from else { return false };
    let mut best: Option<(i128, usize, usize)> = None;
    board.offers(from, |partition, to, regret| {
        if room(board, to) && best.is_none_or(|best| (regret, partition, to) < best) {
            best = Some((regret, partition, to));
        }
    });
    if let Some((_, partition, to)) = best {
        board.pass(partition, from, to);
        return true;
    }
    let Some(chain) = chain(board, from, |m| room(board, m)) else { return false };
    for (partition, from, to) in chain.into_iter().rev() {
        board.pass(partition, from, to);
    }
    true
}

fn pull_one<B: Board>(board: &mut B, to: usize, bounds: &[Bounds]) -> bool {
    let mut best: Option<(i128, usize, usize)> = None;
    for from in 0..bounds.len() {
        if from == to || board.loads()[from] <= bounds[from].least {
            continue;
        }
        board.offers(from, |partition, taker, regret| {
            if taker == to && best.is_none_or(|best| (regret, partition, from) < best) {
                best = Some((regret, partition, from));
            }
        });
    }
    if let Some((_, partition, from)) = best {
        board.pass(partition, from, to);
        return true;
    }
    (0..bounds.len()).filter(|&m| m != to && board.loads()[m] > bounds[m].least).any(|_| false)
}

/// The shortest chain of passes from `from` to a member with room (breadth first), no partition twice in it.
fn chain<B: Board>(board: &B, from: usize, room: impl Fn(usize) -> bool) -> Option<Vec<(usize, usize, usize)>> {
    let mut reached: Vec<Option<(usize, usize)>> = vec![None; board.loads().len()];
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        let way = |mut member: usize, reached: &[Option<(usize, usize)>]| {
            let mut steps = Vec::new();
            while let Some((partition, before)) = reached[member] {
                steps.push((partition, before, member));
                member = before;
            }
            steps.reverse();
            steps
        };
        let used: Vec<usize> = way(at, &reached).iter().map(|step| step.0).collect();
        let mut next: Vec<Option<(i128, usize)>> = vec![None; reached.len()];
        board.offers(at, |partition, to, regret| {
            let fresh = to != from && reached[to].is_none() && !used.contains(&partition);
            if fresh && next[to].is_none_or(|best| (regret, partition) < best) {
                next[to] = Some((regret, partition));
            }
        });
        for (to, best) in next.into_iter().enumerate() {
            let Some((_, partition)) = best else { continue };
            reached[to] = Some((partition, at));
            if room(to) {
                return Some(way(to, &reached));
            }
            queue.push_back(to);
        }
    }
    None
}
