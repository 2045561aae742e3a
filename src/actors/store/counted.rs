//! What a store actor does above level one: says what it holds and promises keys to coordinators, and takes what rests on such promises.
//! The rules are in `storage::lease` and `cluster::view`; who asks whom is in `router::coordinate`. Exercised by the simulation.

use actix::prelude::*;

use super::{Ballot, Execute, Grounds, Held, Outbound, Question, Restamp, StoreActor, Survey, Surveyed, Taken};
use crate::base::counters::Counter;
use crate::base::entry::{Body, Entry};
use crate::base::hlc::{UnixMs, Version};
use crate::base::id::RequestId;
use crate::base::limits::CLOCK_AHEAD_MAX;
use crate::base::outcome::Outcome;
use crate::base::slot::Partition;
use crate::protocol::native::{Counted, Refusal};
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::{Leased, stamps_below};

impl Grounds {
    /// What the write of operation `n` rests on, written upon version `base`.
    pub(super) fn counted(&self, n: usize, base: Version) -> Counted {
        Counted { route: self.routes[n], base, lease: self.leased[n].then_some(self.ballot) }
    }
}

impl StoreActor {
    /// Whether what a batch rests on still holds.
    pub(super) fn stands(&self, batch: &Execute, now: UnixMs) -> bool {
        let Some(grounds) = &batch.grounds else { return true };
        let view = self.view.load();
        let stamp = self.core.next_stamp(now);
        let in_time = !grounds.leased.contains(&true) || stamp < stamps_below(grounds.ballot);
        // A request may come twice to one coordinator and be done between the second's survey and now.
        let done_since = |request: &RequestId| {
            !grounds.settled.contains_key(request)
                && self.recent.recall(*request, now).is_some_and(Outcome::has_changed)
        };
        in_time
            && !batch.requests.iter().flatten().any(done_since)
            && batch.ops.iter().enumerate().all(|(n, op)| {
                let ours = if grounds.leased[n] {
                    self.leases.covers(&op.key, grounds.ballot, now)
                } else {
                    !op.act.writes() || self.leases.admits(&op.key, stamp, now).is_ok()
                };
                ours && view.route(Partition::of(&op.key)).mark == grounds.routes[n]
            })
    }

    /// Whether an entry stamped `version` may be merged here, were it newer.
    pub(super) fn may_take(
        &mut self,
        key: &[u8],
        version: Version,
        counted: Option<Counted>,
        now: UnixMs,
    ) -> Result<(), Taken> {
        let Some(Counted { route, lease, .. }) = counted else {
            // Repair and level one: whatever is older than the lease will come again, and what is newer than its stamps wins then.
            return if self.leases.is_anothers(key, version.origin, now) {
                self.counters.inc(Counter::LeasesRefused);
                Err(Taken::Refused(Refusal::Lease))
            } else {
                Ok(())
            };
        };
        if self.view.load().route(Partition::of(key)).mark != route {
            self.counters.inc(Counter::RoutesRefused);
            return Err(Taken::Refused(Refusal::Route));
        }
        let admitted = match lease {
            Some(ballot) if self.leases.covers(key, ballot, now) => Ok(()),
            Some(_) => Err(Taken::Refused(Refusal::Lease)),
            None => self.leases.admits(key, version, now).map_err(|Leased { above }| Taken::Newer(above)),
        };
        if admitted.is_err() {
            self.counters.inc(Counter::LeasesRefused);
        }
        admitted
    }

    fn hold(&mut self, question: &Question, ballot: Option<Version>, above: Version, now: UnixMs) -> Held {
        if self.view.load().route(Partition::of(&question.key)).mark != question.route {
            self.counters.inc(Counter::RoutesRefused);
            return Held::OtherRoute;
        }
        if question.lease {
            // Without a ballot of its own, another's stamps are too far ahead of this node's clock: it will catch up.
            let asked = ballot.ok_or(Leased { above }).and_then(|ballot| self.leases.ask(&question.key, ballot, now));
            if let Err(Leased { above }) = asked {
                self.counters.inc(Counter::LeasesRefused);
                return Held::Leased(above);
            }
        }
        // A flush is one version for many keys: whoever missed it must hear of it with each of them.
        let flushed = || {
            let version = self.core.floor(Partition::of(&question.key));
            (version > Version::ZERO).then_some(Entry { version, body: Body::Tombstone })
        };
        Held::Entry(self.core.peek_owned(&question.key).or_else(flushed))
    }
}

impl Handler<Survey> for StoreActor {
    type Result = MessageResult<Survey>;

    fn handle(&mut self, survey: Survey, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let leases = survey.questions.iter().any(|question| question.lease);
        let (ballot, above) = match survey.ballot {
            Ballot::Of(ballot) if ballot.unix_ms() > now + CLOCK_AHEAD_MAX.as_millis() as u64 => {
                self.counters.inc(Counter::EntriesFarFuture);
                (None, ballot)
            }
            Ballot::Of(ballot) => (Some(ballot), ballot),
            Ballot::Own { above } if leases => (self.core.ballot(above, now), above),
            Ballot::Own { above } => (None, above),
        };
        let held: Vec<Held> = survey.questions.iter().map(|question| self.hold(question, ballot, above, now)).collect();
        // What changed nothing may be done again.
        let done = |request: &RequestId| self.recent.recall(*request, now).filter(|outcome| outcome.has_changed());
        let recall = |request: &RequestId| Some((*request, done(request)?.clone()));
        let answered = survey.requests.iter().filter_map(recall).collect();
        let known = survey.questions.iter().zip(&held).map(|(question, held)| match held {
            Held::Entry(Some(entry)) => {
                let since = self.leases.known_since(&question.key, entry.version)?;
                Some(since.max(self.recent.forgotten()))
            }
            Held::Entry(None) | Held::Leased(_) | Held::OtherRoute => None,
        });
        let known = known.collect();
        MessageResult(Surveyed { ballot: ballot.unwrap_or(Version::ZERO), held, answered, known })
    }
}

impl Handler<Restamp> for StoreActor {
    type Result = MessageResult<Restamp>;

    fn handle(&mut self, restamp: Restamp, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.unix_ms();
        let mut out = Outbound::default();
        let view = self.view.load_full();
        for (at, (n, key, ours)) in restamp.keys.iter().enumerate() {
            let counted = restamp.grounds.counted(at, *ours);
            let stands = self.leases.covers(key, restamp.grounds.ballot, now)
                && self.core.next_stamp(now) < stamps_below(restamp.grounds.ballot)
                && view.route(Partition::of(key)).mark == counted.route;
            if stands {
                let mut stamped = Version::ZERO;
                let changed = self.core.restamp(key, *ours, now, &mut |key, entry| {
                    stamped = entry.version;
                    out.entry(*n, key, entry, None, Some(counted));
                });
                if changed {
                    self.leases.taken(key, *ours, stamped);
                }
            }
        }
        MessageResult(self.replicate(out, restamp.level, ReplyBuf::default()))
    }
}
