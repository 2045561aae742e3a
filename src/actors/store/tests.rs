//! Tests of the store actor above level one, alone among three members: which executions its surveys, leases and memory of requests permit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::*;
use crate::actors::replication::Identity;
use crate::base::hlc::Hlc;
use crate::base::id::RequestId;
use crate::base::op::Act;
use crate::base::reply::Wire;
use crate::cluster::membership::Membership;
use crate::cluster::ring::Ring;
use crate::cluster::specimen::{id, member};
use crate::cluster::view::Cartographer;
use crate::net::Net;
use crate::storage::StoreConfig;

const KEY: &[u8] = b"counter";
const NOW: UnixMs = 1_800_000_000_000;
const RETRIED: RequestId = RequestId { router: 7, sequence: 1 };

/// One of three members, none of which can be reached by it.
struct One {
    store: Addr<StoreActor>,
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
        let view = Arc::new(Cartographer::new(id("a")).draw(&membership, ring, &BTreeMap::new()));
        let identity = Identity { net: Net::Os, cluster: "c".parse().expect("a name"), node: id("a"), incarnation: 10 };
        let replication = Replication::new(identity, Clock::starting_at(NOW), view.clone()).start();
        let core =
            StoreConfig { shard: 0, shards: 1, memory_bytes_max: 0, evict: true, value_bytes_max: 1024, hash_seed: 1 };
        let core = Store::new(core, Hlc::new(id("a").origin(10), 500));
        let shared = Arc::new(ArcSwap::new(view.clone()));
        let store = StoreActor::new(core, Leases::new(1), Clock::starting_at(NOW), shared, replication).start();
        Self { store, view }
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
            all_or_none: false,
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
