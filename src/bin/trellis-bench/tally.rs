//! What a run came to: how many of which request succeeded and how long they took, and what went wrong by name. Percentiles come from
//! merged histograms, never from averages of percentiles. Tested below.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::replies::Outcome;

/// Latencies above this are counted as this long.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Significant decimal digits of latencies.
const DIGITS: u8 = 3;
/// Kinds of errors that are told apart; a server that makes up ever new ones fills no memory.
const ERROR_KINDS_MAX: usize = 32;

/// Latencies and outcomes of one command.
#[derive(Clone, Debug)]
pub(crate) struct Successes {
    pub(crate) misses: u64,
    /// Nanoseconds, misses included.
    pub(crate) latencies: Histogram<u64>,
}

/// Counts what was begun within the time that counts.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// What began before, in nanoseconds since the start, was warming up.
    from: u64,
    /// In the order of the mix.
    pub(crate) commands: Vec<Successes>,
    /// By name: the first word of the server's refusal, or ours in brackets.
    pub(crate) errors: BTreeMap<String, u64>,
    /// When the last reply that counts came.
    pub(crate) last: u64,
    /// Requests of an open loop that were due and never sent.
    pub(crate) unsent: u64,
}

/// A reply that belongs to another question.
pub(crate) const WRONG: &str = "(wrong reply)";
/// The connection broke, or what came was no protocol; what was asked for on it is not known.
pub(crate) const BROKEN: &str = "(connection broken)";
/// No reply until long after the end.
pub(crate) const UNANSWERED: &str = "(unanswered)";

impl Tally {
    /// Nothing yet, of so many commands.
    pub(crate) fn new(commands: usize, from: u64) -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("the bounds are in order");
        let commands = vec![Successes { misses: 0, latencies }; commands];
        Self { from, commands, errors: BTreeMap::new(), last: from, unsent: 0 }
    }

    /// A reply that came now.
    pub(crate) fn answered(&mut self, command: usize, start: u64, now: u64, outcome: Outcome) {
        if start < self.from {
            return;
        }
        self.last = self.last.max(now);
        match outcome {
            Outcome::Done | Outcome::Miss => {
                let successes = &mut self.commands[command];
                successes.misses += u64::from(outcome == Outcome::Miss);
                successes.latencies.saturating_record(now.saturating_sub(start).max(1));
            }
            Outcome::Refused(word) => self.note(&word, 1),
            Outcome::Wrong => self.note(WRONG, 1),
        }
    }

    /// A request that has no reply.
    pub(crate) fn lost(&mut self, start: u64, why: &str) {
        if start >= self.from {
            self.note(why, 1);
        }
    }

    fn note(&mut self, error: &str, count: u64) {
        let is_new = !self.errors.contains_key(error);
        let name = if is_new && self.errors.len() >= ERROR_KINDS_MAX { "(others)" } else { error };
        *self.errors.entry(name.to_owned()).or_default() += count;
    }

    /// Adds what another thread counted in the same run.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.commands.iter_mut().zip(&other.commands) {
            mine.misses += theirs.misses;
            mine.latencies.add(&theirs.latencies).expect("all have the same bounds");
        }
        for (error, count) in &other.errors {
            self.note(error, *count);
        }
        self.last = self.last.max(other.last);
        self.unsent += other.unsent;
    }

    /// Requests that succeeded.
    pub(crate) fn successes(&self) -> u64 {
        self.commands.iter().map(|command| command.latencies.len()).sum()
    }

    /// Requests that failed, in whatever way.
    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Latencies of all commands.
    pub(crate) fn latencies(&self) -> Histogram<u64> {
        let mut all = self.commands[0].latencies.clone();
        for command in &self.commands[1..] {
            all.add(&command.latencies).expect("all have the same bounds");
        }
        all
    }

    /// Seconds from the beginning of what counts to its last reply.
    pub(crate) fn seconds(&self) -> f64 {
        (self.last - self.from) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn threads_merged_are_one_thread(latencies in prop::collection::vec((0usize..2, 1u64..1_000_000, any::<bool>()), 1..200), split in 0usize..200) {
            let count = |answers: &[(usize, u64, bool)]| {
                let mut tally = Tally::new(2, 100);
                for (command, latency, done) in answers {
                    let outcome = if *done { Outcome::Done } else { Outcome::Refused("BUSY".into()) };
                    tally.answered(*command, 100, 100 + latency, outcome);
                }
                tally
            };
            let (whole, (first, second)) = (count(&latencies), latencies.split_at(split.min(latencies.len())));
            let mut merged = count(first);
            merged.merge(&count(second));
            prop_assert_eq!(merged.successes() + merged.failures(), latencies.len() as u64);
            prop_assert_eq!((merged.last, &merged.errors), (whole.last, &whole.errors));
            prop_assert_eq!(merged.latencies(), whole.latencies());
        }
    }

    #[test]
    fn what_began_while_warming_up_does_not_count() {
        let mut tally = Tally::new(1, 100);
        tally.answered(0, 99, 200, Outcome::Done);
        tally.lost(99, BROKEN);
        assert_eq!((tally.successes(), tally.failures(), tally.seconds()), (0, 0, 0.0));
    }

    #[test]
    fn a_wrong_reply_and_a_refusal_are_no_successes() {
        let mut tally = Tally::new(1, 0);
        for outcome in [Outcome::Done, Outcome::Miss, Outcome::Wrong, Outcome::Refused("BUSY".into())] {
            tally.answered(0, 0, 10, outcome);
        }
        tally.lost(0, BROKEN);
        assert_eq!((tally.successes(), tally.failures(), tally.commands[0].misses), (2, 3, 1));
        assert_eq!(tally.errors.keys().collect::<Vec<_>>(), [BROKEN, WRONG, "BUSY"]);
    }

    #[test]
    fn errors_of_ever_new_names_fill_no_memory() {
        let mut tally = Tally::new(1, 0);
        for n in 0..1000 {
            tally.answered(0, 0, 1, Outcome::Refused(format!("E{n}")));
        }
        assert_eq!((tally.errors.len(), tally.failures()), (ERROR_KINDS_MAX + 1, 1000));
    }
}
