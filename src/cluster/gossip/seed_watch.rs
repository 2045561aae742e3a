//! When to speak up about seeds that do not answer, and in which words. Never sends anything: `join` looks for them, whatever is said here.
//! Tested below.

use std::net::SocketAddr;

/// Seeds must be silent for this long before they are worth a line; those that start together with this node are no news. The pause then
/// doubles from line to line.
const FIRST_MS: u64 = 5_000;
/// Longest pause between two lines.
const PAUSE_MS_MAX: u64 = 300_000;
/// Seeds named in one line.
const NAMED_MAX: usize = 4;
/// Characters told of what is known of one seed. Some of it is the word of strangers.
const FINDING_CHARS_MAX: usize = 200;

/// A seed as it was named, and what the resolver said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSeed {
    /// `host:port`.
    pub name: String,
    /// Its addresses, or why there are none.
    pub found: Result<Vec<SocketAddr>, String>,
}

#[derive(Debug)]
struct Silent {
    name: String,
    address: Option<SocketAddr>,
    finding: Option<String>,
}

/// Which seeds are silent.
#[derive(Debug, Default)]
pub struct SeedWatch {
    silent: Vec<Silent>,
    answered: bool,
    /// When the next line is due, and the pause before it; `None` while nothing is wrong.
    next: Option<(u64, u64)>,
}

impl SeedWatch {
    /// Takes what is known now: the seeds, this node's own address, and whether any other node has answered. True when a line is due; then
    /// [`SeedWatch::to_ask`] is to be asked first.
    pub fn look(&mut self, now_ms: u64, seeds: &[NamedSeed], own: SocketAddr, answered: bool) -> bool {
        let before = std::mem::take(&mut self.silent);
        self.answered = answered;
        for seed in seeds {
            let (address, finding) = match &seed.found {
                Ok(addresses) if answered || addresses.contains(&own) => continue,
                Ok(addresses) => {
                    let known = before.iter().find(|silent| silent.name == seed.name && silent.address.is_some());
                    (addresses.first().copied(), known.and_then(|silent| silent.finding.clone()))
                }
                Err(reason) => (None, Some(told(&format!("not found: {reason}")))),
            };
            self.silent.push(Silent { name: seed.name.clone(), address, finding });
        }
        if self.silent.is_empty() {
            self.next = None;
            return false;
        }
        let (at, pause_ms) = *self.next.get_or_insert((now_ms + FIRST_MS, FIRST_MS));
        let due = now_ms >= at;
        if due {
            let pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
            self.next = Some((now_ms + pause_ms, pause_ms));
        }
        due
    }

    /// Silent seeds with an address, few, of which more may be learned by asking them why.
    pub fn to_ask(&self) -> Vec<SocketAddr> {
        self.silent.iter().take(NAMED_MAX).filter_map(|silent| silent.address).collect()
    }

    /// Why a seed does not answer, as far as it could be found out.
    pub fn learned(&mut self, address: SocketAddr, finding: &str) {
        for silent in self.silent.iter_mut().filter(|silent| silent.address == Some(address)) {
            silent.finding = Some(told(finding));
        }
    }

    /// The line to write, if anything is still wrong.
    pub fn line(&self) -> Option<String> {
        if self.silent.is_empty() {
            return None;
        }
        let named = self.silent.iter().take(NAMED_MAX).map(|Silent { name, finding, .. }| match finding {
            Some(finding) => format!("{name} ({finding})"),
            None => name.clone(),
        });
        let named = named.collect::<Vec<_>>().join(", ");
        let rest = match self.silent.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = if self.answered { "some seeds have no address" } else { "no seed answers yet" };
        Some(format!("{what}: {named}{rest}"))
    }

    /// Why this node is alone; `None` when it is not, or is meant to be.
    pub fn alone(&self) -> Option<String> {
        if self.answered { None } else { self.line() }
    }
}

/// A finding as a line may hold it.
fn told(finding: &str) -> String {
    finding.chars().take(FINDING_CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn seed(port: u16) -> NamedSeed {
        NamedSeed { name: format!("h:{port}"), found: Ok(vec![at(port)]) }
    }

    fn lost(name: &str) -> NamedSeed {
        NamedSeed { name: name.into(), found: Err("no\nsuch name".into()) }
    }

    #[test]
    fn silence_is_told_after_a_while_and_then_ever_more_rarely() {
        let mut watch = SeedWatch::default();
        let told = (0..1_000_000).step_by(1_000).filter(|now| watch.look(*now, &[seed(1)], at(9), false));
        assert_eq!(told.collect::<Vec<u64>>(), [5_000, 15_000, 35_000, 75_000, 155_000, 315_000, 615_000, 915_000]);
        assert_eq!(watch.line().unwrap(), "no seed answers yet: h:1");
        // An answer ends it, and the next silence begins anew.
        assert!(!watch.look(1_000_000, &[seed(1)], at(9), true) && watch.line().is_none());
        assert!(!watch.look(2_000_000, &[seed(1)], at(9), false) && watch.look(2_005_000, &[seed(1)], at(9), false));
    }

    #[test]
    fn a_name_without_an_address_is_told_at_the_same_pace_whoever_else_answers() {
        let mut watch = SeedWatch::default();
        let told = (0..60_000).step_by(1_000).filter(|now| watch.look(*now, &[lost("x:1"), seed(2)], at(9), true));
        assert_eq!(told.collect::<Vec<u64>>(), [5_000, 15_000, 35_000]);
        assert_eq!(watch.line().unwrap(), "some seeds have no address: x:1 (not found: no?such name)");
        assert_eq!((watch.alone(), watch.to_ask()), (None, vec![]));
    }

    #[test]
    fn what_was_learned_of_a_seed_stays_until_it_answers() {
        let mut watch = SeedWatch::default();
        watch.look(0, &[lost("x:1"), seed(2), seed(9)], at(9), false);
        assert_eq!(watch.to_ask(), [at(2)]);
        watch.learned(at(2), "connection refused");
        watch.learned(at(7), "nobody asked");
        watch.look(1_000, &[lost("x:1"), seed(2), seed(9)], at(9), false);
        let line = "no seed answers yet: x:1 (not found: no?such name), h:2 (connection refused)";
        assert_eq!(watch.alone().unwrap(), line);
    }

    #[test]
    fn this_node_alone_among_its_seeds_is_no_news_and_many_seeds_are_a_short_line() {
        let mut watch = SeedWatch::default();
        assert!(!watch.look(0, &[seed(9)], at(9), false) && !watch.look(9_000, &[seed(9)], at(9), false));
        assert_eq!(watch.line(), None);
        let many: Vec<NamedSeed> = (10..110).map(seed).collect();
        watch.look(0, &many, at(9), false);
        watch.to_ask().iter().for_each(|address| watch.learned(*address, &"x".repeat(10_000)));
        let line = watch.line().unwrap();
        assert!(line.len() < 1_000 && line.ends_with(" and 96 more"), "{line}");
    }
}
