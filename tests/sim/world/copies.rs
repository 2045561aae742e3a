//! How many copies there are, and of whom: other numbers of copies, one node at a time or all in turn, members that own nothing, and what must come
//! of it. What else happens meanwhile is drawn in `combined`.

use std::time::Duration;

use trellis::config::Replication::{self, All, Copies};

use super::cluster::{Asked, Host, NODES};
use super::combined::BEGUN_MS;
use super::dice::Dice;
use super::run::Run;
use super::scenario::{Fault, Plan};

/// A node that is restarted is away for this long.
const RESTART: Duration = Duration::from_millis(700);
/// Once no trouble is left, all nodes have been restarted within this time.
const ROLL_MAX: Duration = Duration::from_secs(180);

/// A restart of all nodes in turn.
#[derive(Debug)]
pub(super) struct Rolling {
    /// Nodes whose turn is still to come.
    left: Vec<usize>,
    /// The node that was stopped, and when it returns.
    away: Option<(usize, Duration)>,
}

impl Plan {
    /// In two of three runs another number of copies than three, or a change of it.
    pub(super) fn change_copies(&mut self, dice: &mut Dice) {
        let at = dice.of(500..BEGUN_MS);
        match dice.of(0..6) {
            0 => {
                let n = dice.of(0..NODES as u64) as usize;
                let back = at + dice.of(200..8_000);
                self.faults.push((at, Fault::Copies(n, dice.pick(&[Copies(2), Copies(4), All]))));
                self.faults.push((at, Fault::CrashIfWhole(n)));
                self.faults.push((back, Fault::Return(n, false)));
            }
            1..3 => {
                let (from, to) = dice.pick(&[(2, 3), (3, 2)]);
                self.copies = Copies(from);
                self.faults.push((at, Fault::Roll(Copies(to))));
            }
            3 => self.copies = dice.pick(&[All, Copies(2)]),
            _ => {}
        }
    }

    /// In one of three runs a member owns nothing: from its start, or for a while.
    pub(super) fn add_gateway(&mut self, dice: &mut Dice) {
        let n = dice.of(0..NODES as u64) as usize;
        match dice.of(0..6) {
            0 => self.gateway = Some(n),
            1 => {
                let at = dice.of(500..BEGUN_MS);
                self.faults.push((at, Fault::Reweigh(n, 0)));
                if dice.chance(70) {
                    self.faults.push((at + dice.of(500..12_000), Fault::Reweigh(n, 1)));
                }
            }
            _ => {}
        }
    }
}

impl Run {
    /// All nodes are to want so many copies. One that starts from now on does.
    pub(super) fn roll(&mut self, copies: Replication) {
        self.hosts.iter().for_each(|host| host.copies.set(copies));
        self.rolling = Some(Rolling { left: (0..self.hosts.len()).rev().collect(), away: None });
    }

    /// The next step of a restart in turn: the operator asks the next node whether it may stop, stops it, starts it.
    pub(super) fn roll_on(&mut self) {
        let Some(rolling) = &mut self.rolling else { return };
        if let Some((n, until)) = rolling.away {
            if self.sim.elapsed() >= until {
                rolling.away = None;
                self.come_back(n, false);
            }
            return;
        }
        let Some(n) = rolling.left.last().copied() else {
            self.rolling = None;
            return;
        };
        let host = &self.hosts[n];
        if !host.up.get() || host.copies_wanted.get() == host.copies.get() {
            rolling.left.pop();
            return;
        }
        match host.may_stop.get() {
            Some(Asked::Open) => return,
            Some(Asked::Told(true)) => {}
            _ => return host.may_stop.set(Some(Asked::Open)),
        }
        host.may_stop.set(None);
        // It may not have heard yet that another has died, and two who die at once are more than is promised.
        if self.unwhole().is_none() {
            self.note(&format!("node {n} is restarted"));
            self.losses += 1;
            self.kill(n);
            if let Some(rolling) = &mut self.rolling {
                rolling.away = Some((n, self.sim.elapsed() + RESTART));
            }
        }
    }

    /// Lets the rest of a restart in turn come to its end.
    pub(super) fn finish_rolling(&mut self) -> bool {
        let end = self.sim.elapsed() + ROLL_MAX;
        while self.rolling.is_some() {
            if self.sim.elapsed() > end {
                self.failures.push(format!("a restart in turn does not end: {:?}, {:?}", self.rolling, self.unwhole()));
                return false;
            }
            if !self.step() {
                return false;
            }
        }
        true
    }

    /// There are as many copies as the node wants that wants the most, or as many as members take a share.
    pub(super) fn wrong_copies(&self) -> Option<String> {
        let wanted = |host: &Host, takers: usize| host.copies_wanted.get().copies(takers);
        let view = self.up().next()?.view()?;
        let takers = view.ring.members().iter().filter(|member| member.weight > 0).count();
        let most = self.up().map(|host| wanted(host, takers)).max()?;
        let copies = view.ring.copies();
        (copies != most).then(|| format!("placement: {copies} copies where {most} are wanted"))
    }
}
