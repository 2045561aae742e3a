//! Tests of the store actor, alone among three members: which executions its surveys, leases and memory of requests permit above level
//! one, and what it sends to replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::*;
use crate::actors::replication::{self, Identity, Outgoing};
use crate::base::entry::{BodyRef, EntryRef};
use crate::base::hlc::Hlc;
use crate::base::id::RequestId;
use crate::base::limits::OUTBOX_BYTES_MAX;
use crate::base::marks::Marks;
use crate::base::op::{Act, Deadline, ExpireWhen};
use crate::base::reply::Wire;
use crate::cluster::hints::Hints;
use crate::cluster::membership::Membership;
use crate::cluster::ring::Ring;
use crate::cluster::specimen::{id, member};
use crate::cluster::view::{Cartographer, Liveness, Sighting};
use crate::net::Net;
use crate::storage::StoreConfig;

const KEY: &[u8] = b"counter";
const NOW: UnixMs = 1_800_000_000_000;
const RETRIED: RequestId = RequestId { router: 7, sequence: 1 };

/// One of three members, none of which can be reached by it.
struct One {
    store: Addr<StoreActor>,
    replication: Addr<Replication>,
    view: Arc<View>,
}

impl One {
    fn start() -> Self {
        let mut membership = Membership::default();
        for name in ["a", "b", "c"] {
            membership.join(member(name)).expect("valid members");
            let full = PartitionSet::FULL;
            membership.set_held(&id(name), 10, full, 1).expect("a member");
        }
        let ring = Arc::new(Ring::build(&membership));
        let address = "127.0.0.1:1".parse().expect("an address");
        let alive = Sighting { incarnation: 10, liveness: Liveness::Alive, address };
        let sightings = BTreeMap::from([(id("b"), alive), (id("c"), alive)]);
        let view = Arc::new(Cartographer::new(id("a")).draw(&membership, ring, &sightings));
        let identity = Identity { net: Net::Os, cluster: "c".parse().expect("a name"), node: id("a"), incarnation: 10 };
        let (clock, hints) = (Clock::starting_at(NOW), Hints::new(0, 1));
        let replication = Replication::new(identity, clock, view.clone(), OUTBOX_BYTES_MAX, hints).start();
        let core = StoreConfig {
            shard: 0,
            shards: 1,
            memory_bytes_max: 0,
            evict: true,
            value_bytes_max: 1 << 26,
            hash_seed: 1,
        };
        let core = Store::new(core, Hlc::new(id("a").origin(10), 500));
        let shared = Arc::new(ArcSwap::new(view.clone()));
        let store = StoreActor::new(core, Leases::new(1), Clock::starting_at(NOW), shared, replication.clone()).start();
        Self { store, replication, view }
    }

    /// Records given to outboxes, those included that were dropped because nobody is there.
    async fn posted(&self) -> u64 {
        let stats = self.replication.send(replication::AskStats).await.expect("it runs");
        stats.counters.count(Counter::EntriesSent) + stats.counters.count(Counter::EntriesDropped)
    }

    /// Executes at level one, as from a client that is connected here.
    async fn execute(&self, ops: Vec<Op>) -> Executed {
        self.execute_as(ops, Vec::new(), false).await
    }

    async fn execute_as(&self, ops: Vec<Op>, requests: Vec<Option<RequestId>>, together: bool) -> Executed {
        self.store.do_send(ViewChanged(self.view.clone()));
        let batch = Execute {
            ops,
            requests,
            together,
            wire: Wire::Resp2,
            level: Level::One,
            deadline: tokio::time::Instant::now() + Duration::from_secs(60),
            start_by: None,
            grounds: None,
        };
        self.store.send(batch).await.expect("the store runs")
    }

    async fn survey(&self) -> Surveyed {
        let route = self.view.route(Partition::of(KEY)).mark;
        let question = Question { key: Bytes::from_static(KEY), route, lease: true };
        let ballot = Ballot::Own { above: Version::ZERO };
        let survey = Survey { ballot, questions: vec![question], requests: vec![RETRIED] };
        self.store.send(survey).await.expect("the store runs")
    }

    /// Increments under a ballot.
    async fn increment(&self, ballot: Version, settled: BTreeMap<RequestId, Outcome>) -> Executed {
        let route = self.view.route(Partition::of(KEY)).mark;
        let batch = Execute {
            ops: vec![Op::new(Bytes::from_static(KEY), Act::Incr { by: 1 })],
            requests: vec![Some(RETRIED)],
            together: false,
            wire: Wire::Resp2,
            level: Level::Quorum,
            deadline: tokio::time::Instant::now() + Duration::from_secs(60),
            start_by: None,
            grounds: Some(Grounds { routes: vec![route], leased: vec![true], ballot, settled }),
        };
        self.store.send(batch).await.expect("the store runs")
    }
}

fn reply(executed: &Executed) -> Vec<u8> {
    executed.replies.slices(0..1).collect::<Vec<_>>().concat()
}

#[test]
fn a_request_that_comes_twice_is_done_once_though_both_were_surveyed_before() {
    actix_rt::System::new().block_on(async {
        let one = One::start();
        let (first, second) = (one.survey().await, one.survey().await);
        assert!(first.answered.is_empty() && second.answered.is_empty());
        let done = one.increment(first.ballot, BTreeMap::new()).await;
        assert_eq!((done.late, &reply(&done)[..]), (false, &b":1\r\n"[..]));
        assert!(one.increment(second.ballot, BTreeMap::new()).await.late, "what the second knows is out of date");
        let third = one.survey().await;
        let settled: BTreeMap<_, _> = third.answered.into_iter().collect();
        let told = one.increment(third.ballot, settled).await;
        assert_eq!((told.late, &reply(&told)[..]), (false, &b":1\r\n"[..]));
    });
}

#[test]
fn a_survey_tells_of_a_flush_that_others_may_have_missed() {
    actix_rt::System::new().block_on(async {
        let one = One::start();
        assert!(matches!(&one.survey().await.held[..], [Held::Entry(None)]));
        let flush = Flush { partitions: PartitionSet::FULL, level: Level::One };
        one.store.send(flush).await.expect("the store runs");
        let held = one.survey().await.held;
        let [Held::Entry(Some(entry))] = &held[..] else { panic!("{held:?}") };
        assert_eq!(entry.body, crate::base::entry::Body::Tombstone);
        assert!(entry.version > Version::ZERO);
    });
}

#[test]
fn of_a_large_value_only_the_last_version_of_a_batch_is_sent() {
    actix_rt::System::new().block_on(async {
        let one = One::start();
        let op = |act| Op::new(Bytes::from_static(KEY), act);
        let grow = Op { value: Bytes::from_static(b"x"), ..op(Act::SetRange { offset: 1 << 20 }) };
        let forever = op(Act::Persist);
        let expire = op(Act::Expire { at: Deadline::In(100_000), when: ExpireWhen::default() });
        let mut ops = vec![grow];
        ops.extend((0..100).flat_map(|_| [expire.clone(), forever.clone()]));
        let executed = one.execute(ops).await;
        assert_eq!(executed.replies.replies(), 201);
        assert_eq!(one.posted().await, 2, "one for each of the others");
        one.execute(vec![expire, op(Act::Delete)]).await;
        assert_eq!(one.posted().await, 4, "the tombstone alone");
    });
}

#[test]
fn a_batch_encodes_no_more_than_fills_an_outbox() {
    let value = vec![7; OUTBOX_BYTES_MAX / 4];
    let body = BodyRef::Live { value: &value, deadline: None, marks: Marks::default() };
    let mut out = Outbound::default();
    for op in 0..100 {
        let entry = EntryRef { version: Version { time: u64::from(op), origin: 1 }, body };
        out.entry(op, KEY, entry, None, None);
    }
    assert_eq!((out.records.len(), out.written.len()), (100, 100));
    assert!(out.bytes.len() < OUTBOX_BYTES_MAX + value.len() + 1024);
    assert_eq!(out.records.iter().filter(|record| record.end < out.bytes.len()).count(), 3, "the fourth is the last");
}

#[test]
fn a_record_left_out_is_lost_for_its_waiter_and_never_sent() {
    actix_rt::System::new().block_on(async {
        let one = One::start();
        let (commit, committed) = oneshot::channel();
        let record = Outgoing { end: 0, partition: Partition::of(KEY), op: 5, route: None };
        let sent = Replicate { bytes: Vec::new(), records: vec![record], level: Level::Quorum, commit: Some(commit) };
        one.replication.do_send(sent);
        assert_eq!(committed.await.expect("it is told").short, [5]);
        let stats = one.replication.send(replication::AskStats).await.expect("it runs");
        assert_eq!(stats.counters.count(Counter::EntriesDropped), 2);
        assert_eq!(stats.counters.count(Counter::EntriesSent), 0);
    });
}

/// All replies, as RESP2 shows them.
fn shown(executed: &Executed) -> String {
    let all = executed.replies.slices(0..executed.replies.replies()).collect::<Vec<_>>().concat();
    String::from_utf8(all).expect("replies are text").replace("\r\n", " ")
}

#[test]
fn a_condition_that_fails_passes_over_what_follows() {
    actix_rt::System::new().block_on(async {
        let one = One::start();
        let op = |key: &'static str, act| Op::new(Bytes::from_static(key.as_bytes()), act);
        let ops =
            |skip| vec![op("a", Act::Absent { skip }), op("b", Act::Incr { by: 1 }), op("a", Act::Incr { by: 1 })];
        assert_eq!(shown(&one.execute_as(ops(1), vec![], true).await), ":1 :1 :1 ");
        assert_eq!(shown(&one.execute_as(ops(1), vec![], true).await), ":0 $-1 :2 ");
        assert_eq!(shown(&one.execute_as(ops(2), vec![], true).await), ":0 $-1 $-1 ");
        let since = crate::base::seen::Seen { time: 1, origin: 1, live: true };
        let mut failing = vec![op("a", Act::Unchanged { since })];
        assert_eq!(shown(&one.execute(failing.clone()).await), ":0 ", "by itself it passes over nothing");
        failing.extend(ops(0));
        assert_eq!(shown(&one.execute_as(failing, vec![], true).await), ":0 $-1 $-1 $-1 ");
        assert_eq!(shown(&one.execute(vec![op("a", Act::Get)]).await), "$1 2 ", "it ends with its transaction");
    });
}

#[test]
fn a_transaction_that_comes_twice_is_done_once_and_says_what_it_no_longer_knows() {
    actix_rt::System::new().block_on(async {
        let one = One::start();
        let ops = || [Act::Incr { by: 1 }, Act::Get].map(|act| Op::new(Bytes::from_static(KEY), act)).to_vec();
        let ids = || vec![Some(RETRIED), None];
        assert_eq!(shown(&one.execute_as(ops(), ids(), true).await), ":1 $1 1 ");
        one.execute(ops()).await;
        let again = shown(&one.execute_as(ops(), ids(), true).await);
        assert!(again.starts_with(":1 -NOQUORUM ") && again.ends_with("applied: unknown "), "{again}");
        assert_eq!(shown(&one.execute(ops()).await), ":3 $1 3 ");
    });
}
