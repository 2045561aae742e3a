//! Schedules of several troubles at once, a change of membership always among them, all drawn from the seed. Carries nothing out.
//!
//! What is kept within what the cluster promises: memory is lost with one node at a time ([`Fault::CrashIfWhole`]), and only who is dead is
//! forgotten. Members that forget each other while both live are two clusters, between which nothing is promised.

use super::cluster::NODES;
use super::dice::Dice;
use super::scenario::{Fault, Plan};

/// When the last trouble has begun.
pub(super) const BEGUN_MS: u64 = 16_000;
/// How long a trouble lasts, most often.
const LASTS_MS: std::ops::Range<u64> = 500..12_000;
/// The longest pause of a node.
const PAUSE_MS_MAX: u64 = 60_000;
/// How far apart the wall clocks of two lives may be: nearly as far as is taken for true.
const SKEW_MS_MAX: u64 = 450;
/// How far a wall clock jumps.
pub(super) const JUMP_MS: i64 = 3_600_000;

impl Plan {
    /// Fills in a schedule.
    pub(super) fn combine(&mut self, seed: u64, dice: &mut Dice) {
        self.joiners = dice.of(0..3) as usize;
        self.tick_ms = dice.pick(&[1, 2, 5, 5, 10, 10]);
        self.pace_ms = dice.of(60..160);
        if dice.chance(30) {
            self.outbox_bytes_max = dice.of(1..2_000) as usize;
        }
        for n in 0..NODES {
            self.faults.push((0, Fault::Skew(n, dice.of(0..SKEW_MS_MAX) as i64)));
        }
        for n in NODES..NODES + self.joiners {
            self.faults.push((dice.of(500..BEGUN_MS), Fault::Return(n, false)));
        }
        for _ in 0..dice.of(1..3) {
            self.change_membership(dice);
        }
        if dice.chance(60) {
            self.leaves(dice);
        }
        if dice.chance(40) {
            let n = dice.of(0..NODES as u64) as usize;
            self.faults.push((dice.of(500..BEGUN_MS), Fault::Reweigh(n, dice.pick(&[1, 2, 3]))));
        }
        for _ in 0..dice.of(2..6) {
            self.trouble(dice);
        }
        self.take_leaves_back(&mut Dice::new(seed, "stays"));
        self.change_copies(&mut Dice::new(seed, "copies"));
        self.add_gateway(&mut Dice::new(seed, "gateways"));
        let last = self.faults.iter().map(|(at, _)| *at).max().unwrap_or_default();
        self.load_ms = last.max(BEGUN_MS) + 2_000;
        self.faults.push((self.load_ms - 1_000, Fault::Recover));
    }

    /// One node leaves in order, or two do at once, or nearly; some die on the way, some come back.
    pub(super) fn leaves(&mut self, dice: &mut Dice) {
        let at = dice.of(500..BEGUN_MS);
        for n in dice.order(NODES).into_iter().take(dice.of(1..3) as usize) {
            let at = at + dice.of(0..2_000);
            self.faults.push((at, Fault::Leave(n)));
            if dice.chance(25) {
                self.faults.push((at + dice.of(100..4_000), Fault::CrashIfWhole(n)));
            }
            if dice.chance(40) {
                self.faults.push((at + dice.of(4_000..12_000), Fault::Return(n, dice.chance(30))));
            }
        }
    }

    /// A third of those that leave are told to stay.
    fn take_leaves_back(&mut self, dice: &mut Dice) {
        let leaves = self.faults.iter().filter_map(|(at, fault)| match fault {
            Fault::Leave(n) => Some((*at, *n)),
            _ => None,
        });
        let leaves: Vec<(u64, usize)> = leaves.collect();
        for (at, n) in leaves {
            if dice.chance(33) {
                self.faults.push((at + dice.of(200..5_000), Fault::Stay(n)));
            }
        }
    }

    /// A node dies and returns with another weight, or as somebody else, before or after the old one is forgotten.
    fn change_membership(&mut self, dice: &mut Dice) {
        let n = dice.of(0..NODES as u64) as usize;
        let at = dice.of(500..BEGUN_MS);
        let back = at + dice.of(200..8_000);
        self.faults.push((at, Fault::CrashIfWhole(n)));
        match dice.of(0..3) {
            0 => {
                // At least four members keep a share, for three copies on living ones.
                self.faults.push((at, Fault::Weigh(n, dice.pick(&[1, 2, 3]))));
                self.faults.push((back, Fault::Return(n, false)));
            }
            1 => {
                self.faults.push((back, Fault::Return(n, true)));
                self.faults.push((back + dice.of(0..6_000), Fault::Forget));
            }
            _ => self.faults.push((back, Fault::Return(n, true))),
        }
    }

    fn trouble(&mut self, dice: &mut Dice) {
        let n = dice.of(0..NODES as u64) as usize;
        let others = dice.order(NODES + self.joiners);
        let others: Vec<usize> = others.into_iter().filter(|other| *other != n).collect();
        let at = dice.of(500..BEGUN_MS);
        let end = at + dice.of(LASTS_MS);
        let faults = &mut self.faults;
        match dice.of(0..9) {
            0 => faults.extend([(at, Fault::CrashIfWhole(n)), (end, Fault::Return(n, false))]),
            1 => {
                let end = if dice.chance(5) { at + dice.of(LASTS_MS.end..PAUSE_MS_MAX) } else { end };
                faults.extend([(at, Fault::Freeze(n)), (end, Fault::Thaw(n))]);
            }
            2 => {
                let away = if dice.chance(50) { vec![n] } else { vec![n, others[0]] };
                let rest = others.iter().filter(|other| !away.contains(other));
                let ways: Vec<_> = rest.flat_map(|to| away.iter().flat_map(|a| [(*a, *to), (*to, *a)])).collect();
                faults.extend([(at, Fault::Cut(ways.clone())), (end, Fault::Uncut(ways))]);
            }
            3 => {
                let towards = dice.chance(50);
                let ends = &others[..dice.of(1..4) as usize];
                let ways: Vec<_> = ends.iter().map(|o| if towards { (*o, n) } else { (n, *o) }).collect();
                faults.extend([(at, Fault::Cut(ways.clone())), (end, Fault::Uncut(ways))]);
            }
            4 => {
                let ways = vec![(n, others[0]), (others[0], n), (n, others[1]), (others[1], n)];
                let mut at = at;
                for _ in 0..dice.of(3..10) {
                    faults.push((at, Fault::Cut(ways.clone())));
                    at += dice.of(100..1_500);
                    faults.push((at, Fault::Uncut(ways.clone())));
                    at += dice.of(100..1_500);
                }
            }
            5 => faults.extend([(at, Fault::LoseDatagrams(dice.of(20..300))), (end, Fault::LoseDatagrams(0))]),
            6 => faults.extend([(at, Fault::Break(dice.of(2..20))), (end, Fault::Break(0))]),
            7 => faults.extend([(at, Fault::Latency(dice.of(5..80))), (end, Fault::Latency(3))]),
            _ => faults.extend([(at, Fault::Slow(n, dice.of(20..400))), (end, Fault::Slow(n, 1))]),
        }
    }

    /// Wall clocks that jump while a node is down: it returns an hour ahead or behind, and once more with the right time.
    pub(super) fn clocks(&mut self, dice: &mut Dice) {
        let n = dice.of(0..NODES as u64) as usize;
        let jump = if dice.chance(50) { JUMP_MS } else { -JUMP_MS };
        let fresh = dice.chance(50);
        self.tick_ms = dice.pick(&[2, 5]);
        self.faults.extend([
            (2_000, Fault::CrashIfWhole(n)),
            (2_500, Fault::Skew(n, jump)),
            (4_000, Fault::Return(n, fresh)),
            (20_000, Fault::CrashIfWhole(n)),
            (20_000, Fault::Skew(n, 0)),
            (22_000, Fault::Return(n, dice.chance(50))),
            (24_000, Fault::Recover),
        ]);
        self.load_ms = 26_000;
        self.clocks_agree = false;
    }
}
