//! The end of a run: waits until clients have ended and all nodes agree, reads everything once more, and has the history checked.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use trellis::base::level::Level;
use trellis::base::slot::Partition;
use trellis::cluster::view::View;

use super::checks;
use super::client::Worker;
use super::cluster::{self, Held, Host};
use super::history::Event;
use super::run::{READER, Run};

/// All is equal within this time of the last fault.
const QUIET_MAX: Duration = Duration::from_secs(90);
/// Lines of a key's history that are kept of a failure.
const STORY_LINES_MAX: usize = 60;

impl Run {
    /// Waits until clients have ended and all nodes agree.
    pub(super) fn settle(&mut self) {
        let begun = self.sim.elapsed();
        for _ in 0..300 {
            if self.load.running.get() == 0 || !self.steps(Duration::from_millis(500)) {
                break;
            }
        }
        if self.load.running.get() > 0 {
            self.failures.push("clients do not end".to_owned());
        }
        let keys: BTreeSet<String> = self.load.history.events().into_iter().map(|event| event.key).collect();
        let keys: Vec<String> = keys.into_iter().collect();
        if !self.await_equal(QUIET_MAX, &keys) {
            return;
        }
        self.converged = self.sim.elapsed() - begun;
        for host in self.up() {
            self.note(&host.view().map_or_else(String::new, |view| cluster::picture(&view)));
            self.note(&format!("{:?}", host.shown()));
        }
        let reader = Worker::new(self.load.clone(), READER, Level::Quorum);
        self.sim.client("client-last", async move {
            reader.read_all(keys).await;
            Ok(())
        });
        while self.load.running.get() > 0 && self.step() {}
        let last = self.load.history.events();
        if let Some(event) = last.iter().rev().find(|e| e.worker == READER && !e.is_done()) {
            self.failures.push(format!("a healthy cluster does not answer: {event:?}"));
        }
    }

    /// Waits until [`Self::difference`] finds none.
    pub(super) fn await_equal(&mut self, at_most: Duration, keys: &[String]) -> bool {
        let begun = self.sim.elapsed();
        loop {
            if !self.steps(Duration::from_millis(500)) {
                return false;
            }
            for host in self.up() {
                host.want(keys);
            }
            if !self.steps(Duration::from_millis(300)) {
                return false;
            }
            if let Some(excess) = self.excess() {
                self.failures.push(excess);
                return false;
            }
            let Some(difference) = self.unwhole().or_else(|| self.difference(keys)) else {
                self.note("all is equal");
                return true;
            };
            self.load.history.remark(&difference);
            if self.sim.elapsed() > begun + at_most {
                self.failures.push(format!("convergence: not equal after {at_most:?}: {difference}"));
                return false;
            }
            self.forget_the_gone();
        }
    }

    /// Hints beyond their bound.
    fn excess(&self) -> Option<String> {
        let bytes = |host: &Rc<Host>| host.shown().map_or(0, |held| held.hints_bytes);
        let over = self.up().find(|host| bytes(host) as u64 > self.plan.hints_bytes_max);
        over.map(|host| format!("bounds: hints of {} take {} bytes", host.name, bytes(host)))
    }

    /// What nodes do not agree on yet about who is there and who holds what.
    pub(super) fn unwhole(&self) -> Option<String> {
        let up = self.up().count();
        let views: Vec<_> = self.up().filter_map(|host| host.view()).collect();
        let all = || views.iter().map(|v| cluster::summary(v)).collect::<Vec<_>>().join("\n    ");
        if views.len() < up {
            return Some("some nodes are not up".to_owned());
        }
        let whole =
            |v: &View| v.under_replicated() == 0 && v.peers().count() == up && v.peers().all(|(ix, _)| v.is_alive(ix));
        if !views.iter().all(|view| whole(view)) {
            return Some(format!("not whole\n    {}", all()));
        }
        let first = cluster::picture(&views[0]);
        if views.iter().any(|view| cluster::picture(view) != first) {
            return Some(format!("pictures differ\n    {}", all()));
        }
        None
    }

    /// What nodes that agree on who is there hold amiss: every key is on exactly its owners, the same on each, and there is nothing else.
    fn difference(&self, keys: &[String]) -> Option<String> {
        if let Some(wrong) = self.wrong_copies() {
            return Some(wrong);
        }
        let shown: Option<Vec<_>> = self.up().map(|host| Some((host.view()?, host.shown()?))).collect();
        let Some(shown) = shown else { return Some("a node does not show what it holds".to_owned()) };
        for (k, key) in keys.iter().enumerate() {
            let partition = Partition::of(key.as_bytes());
            let (owners, others): (Vec<_>, Vec<_>) =
                shown.iter().partition(|(view, _)| view.route(partition).owners.contains(&view.me));
            let line = |held: &[&(_, Held)]| held.iter().map(|h| format!("{:?}", h.1.entries[k])).collect::<Vec<_>>();
            if owners.iter().any(|(_, held)| held.entries[k] != owners[0].1.entries[k]) {
                return Some(format!("replicas of {key} differ: {:?}", line(&owners)));
            }
            if others.iter().any(|(_, held)| held.entries[k].is_some()) {
                return Some(format!("placement: {key} is held by others than its owners: {:?}", line(&others)));
            }
        }
        if let Some((view, held)) = shown.iter().find(|(_, held)| held.hints > 0) {
            return Some(format!("hints: a node of {} keeps {} for members that are there", view.epoch, held.hints));
        }
        let more = |held: &Held| held.count > held.entries.iter().flatten().count();
        let more = shown.iter().find(|(_, held)| !keys.is_empty() && more(held));
        more.map(|(view, held)| {
            let known = held.entries.iter().flatten().count();
            format!("placement: a node of {} holds {} entries, {known} of them known", view.epoch, held.count)
        })
    }

    /// Has the history checked.
    pub(super) fn check(&mut self) {
        let events = self.load.history.events();
        self.failures.extend(checks::nothing_from_nowhere(&events));
        type Checker<'a> = (&'a str, &'a dyn Fn(&str, &[&Event]) -> Vec<String>);
        let counter = |key: &str, events: &[&Event]| checks::counter(key, events, self.plan.one_cluster);
        let mut checkers: Vec<Checker<'_>> = vec![("cq", &counter)];
        if self.plan.one_cluster {
            checkers.extend::<[Checker<'_>; 3]>([
                ("rq", &checks::one_copy),
                ("dq", &checks::deletes),
                ("sq", &checks::deletes),
            ]);
        }
        // A deadline is what its coordinator's clock says, so one that is off by an hour makes them an hour late or over at once (ADR 0004).
        if self.plan.one_cluster && self.plan.clocks_agree {
            checkers.push(("eq", &checks::deadlines));
        }
        let mut failures = Vec::new();
        for (prefix, checker) in checkers {
            for (key, events) in checks::keys(&events, prefix) {
                let wrong = checker(key, &events);
                if !wrong.is_empty() && self.story.is_empty() {
                    self.story = events.iter().take(STORY_LINES_MAX).map(|event| event.line()).collect();
                }
                failures.extend(wrong);
            }
        }
        self.failures.extend(failures);
    }
}
