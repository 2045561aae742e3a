//! The nodes of a run: each is a simulated host that runs a whole node, life after life, and shows what it holds when asked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::LocalSet;
use trellis::actors::clock::Clock;
use trellis::actors::handles::Handles;
use trellis::actors::node::{self, World};
use trellis::actors::replication;
use trellis::actors::store::{AskStats, Peek};
use trellis::base::entry::Entry;
use trellis::base::slot::Partition;
use trellis::cluster::view::{Liveness, PeerIx, View};
use trellis::config::{Advertise, Config, Replication};
use trellis::net::Net;

use super::dice::Dice;
use super::scenario::Plan;

/// Nodes of every run at its beginning.
pub(crate) const NODES: usize = 5;
/// Their port.
pub(crate) const PORT: u16 = 5_000;
/// Unix time at the start of every run.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// A node looks this often whether somebody wants to see what it holds.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Under the keys asked about.
    pub(crate) entries: Vec<Option<Entry>>,
    /// Under any key, tombstones included.
    pub(crate) count: usize,
    /// Keys noted for others that they were not sent.
    pub(crate) hints: usize,
    /// What these take.
    pub(crate) hints_bytes: usize,
}

/// A question to a node whether it may stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It has not answered yet.
    Open,
    /// What it said.
    Told(bool),
}

/// One host.
pub(crate) struct Host {
    /// Its name on the simulated network.
    pub(crate) name: String,
    /// Seeds it is told.
    pub(crate) seeds: RefCell<Vec<String>>,
    /// Its node id in its next life.
    pub(crate) id: RefCell<String>,
    /// Whether it is up.
    pub(crate) up: Cell<bool>,
    /// Lives so far.
    pub(crate) lives: Cell<u64>,
    /// How far the wall clock is off that its next life starts with; nothing moves the clock of a life (ADR 0004).
    pub(crate) skew_ms: Cell<i64>,
    /// Its share of the ring in its next life.
    pub(crate) weight: Cell<u16>,
    /// The copies that it wants in its next life, and in this one.
    pub(crate) copies: Cell<Replication>,
    pub(crate) copies_wanted: Cell<Replication>,
    /// Whether somebody wants to know if it may stop, and what it said.
    pub(crate) may_stop: Cell<Option<Asked>>,
    /// Members it is to forget.
    pub(crate) forgets: RefCell<Vec<String>>,
    /// The weight that it is to take while it runs.
    pub(crate) reweighs: Cell<Option<u16>>,
    /// It is to leave.
    pub(crate) leaves: Cell<bool>,
    /// It is to stay after all.
    pub(crate) stays: Cell<bool>,
    /// It has left and ended a moment ago.
    pub(crate) left: Cell<bool>,
    /// It has left, and was not started since.
    pub(crate) is_gone: Cell<bool>,
    /// A member down for this long is forgotten.
    pub(crate) forget_after: Option<Duration>,
    /// Its data arbiters.
    pub(crate) threads: usize,
    /// Bytes its outboxes take.
    pub(crate) outbox_bytes_max: usize,
    /// Bytes its hints take.
    pub(crate) hints_bytes_max: u64,
    /// See [`Plan::rounds`].
    pub(crate) rounds: bool,
    seed: u64,
    frozen: Cell<bool>,
    thaw: Cell<Option<Waker>>,
    handles: RefCell<Option<Handles>>,
    wanted: RefCell<Option<Vec<String>>>,
    shown: RefCell<Option<Held>>,
}

impl Host {
    /// Number `n`.
    pub(crate) fn new(n: usize, seed: u64, plan: &Plan, dice: &mut Dice) -> Self {
        Self {
            name: format!("node-{n}"),
            seeds: RefCell::default(),
            id: RefCell::new(format!("n{n}")),
            up: Cell::new(false),
            lives: Cell::new(0),
            skew_ms: Cell::new(dice.of(0..100) as i64),
            weight: Cell::new(plan.weight(n)),
            copies: Cell::new(plan.copies),
            copies_wanted: Cell::new(plan.copies),
            may_stop: Cell::new(None),
            forgets: RefCell::default(),
            reweighs: Cell::new(None),
            leaves: Cell::new(false),
            stays: Cell::new(false),
            left: Cell::new(false),
            is_gone: Cell::new(false),
            forget_after: plan.forget_after,
            threads: dice.of(1..3) as usize,
            outbox_bytes_max: plan.outbox_bytes_max,
            hints_bytes_max: plan.hints_bytes_max,
            rounds: plan.rounds,
            seed,
            frozen: Cell::new(false),
            thaw: Cell::default(),
            handles: RefCell::default(),
            wanted: RefCell::default(),
            shown: RefCell::default(),
        }
    }

    /// Runs a life of the node; the simulator calls it at every start. Its tasks stand still while it is frozen, as those of a process that
    /// was sent SIGSTOP do: time goes on, timers run out, sockets fill.
    pub(crate) async fn live(self: Rc<Self>) -> turmoil::Result {
        let tasks = LocalSet::new();
        let mut life = pin!(tasks.run_until(self.clone().run()));
        poll_fn(|cx| {
            if self.frozen.get() {
                self.thaw.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            life.as_mut().poll(cx)
        })
        .await
    }

    /// Stops all that the node does.
    pub(crate) fn freeze(&self) {
        self.frozen.set(true);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.frozen.set(false);
        if let Some(waker) = self.thaw.take() {
            waker.wake();
        }
    }

    /// Whether it stands still.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.get()
    }

    async fn run(self: Rc<Self>) -> turmoil::Result {
        self.lives.set(self.lives.get() + 1);
        self.is_gone.set(false);
        let address = turmoil::lookup(self.name.as_str());
        let mut config = Config::on_port(PORT);
        config.host = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        config.advertise = Some(Advertise { host: address.to_string(), port: Some(PORT) });
        config.node_id = Some(self.id.borrow().parse()?);
        config.seeds = self.seeds.borrow().clone();
        config.forget_after = self.forget_after;
        config.threads = self.threads;
        config.weight = self.weight.get();
        self.copies_wanted.set(self.copies.get());
        config.replication = self.copies.get();
        config.hints_bytes_max = self.hints_bytes_max;
        let elapsed_ms = turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
        let wall_ms = (EPOCH_MS + elapsed_ms).saturating_add_signed(self.skew_ms.get());
        let world = World {
            net: Net::Sim,
            clock: Clock::starting_at(wall_ms),
            seed: Dice::new(self.seed, &format!("{} {}", self.name, self.lives.get())).of(0..u64::MAX),
            outbox_bytes_max: self.outbox_bytes_max,
            rounds: self.rounds,
            threads: false,
        };
        let bound = node::bind(&config, world.net).await?;
        let node = node::start(bound, &config, world, None).await?;
        *self.handles.borrow_mut() = Some(node.handles.clone());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for id in self.forgets.take() {
                // Refused while it still seems alive; the run asks again.
                node.handles.admin(format!("POST v1/members/{id}/forget").as_bytes()).await;
            }
            let own = |change: &str| format!("POST v1/members/{}/{change}", node.handles.identity.node);
            if let Some(weight) = self.reweighs.take() {
                // Refused while it leaves.
                node.handles.admin(own(&format!("share?weight={weight}")).as_bytes()).await;
            }
            if self.leaves.take() {
                // Refused where nobody could take over.
                node.handles.admin(own("leave").as_bytes()).await;
            }
            if self.stays.take() {
                // Too late for one that has left.
                node.handles.admin(own("stay").as_bytes()).await;
            }
            if self.may_stop.get() == Some(Asked::Open) {
                let (_, status) = node.handles.admin(b"v1/status").await;
                self.may_stop.set(Some(Asked::Told(status.contains("\"safe_to_stop\":true"))));
            }
            if node.handles.departed.notified().now_or_never().is_some() {
                node.stop().await?;
                self.is_gone.set(true);
                self.left.set(true);
                // The host is taken down from outside.
                return std::future::pending().await;
            }
            let wanted = self.wanted.borrow_mut().take();
            if let Some(keys) = wanted {
                *self.shown.borrow_mut() = Some(held(&node.handles, &keys).await);
            }
        }
    }

    /// Forgets the life that ended.
    pub(crate) fn died(&self) {
        self.up.set(false);
        self.frozen.set(false);
        self.forgets.take();
        self.leaves.set(false);
        self.stays.set(false);
        self.reweighs.set(None);
        self.may_stop.set(None);
        self.handles.take();
        self.wanted.take();
        self.shown.take();
    }

    /// Asks to be shown what the node holds under these keys.
    pub(crate) fn want(&self, keys: &[String]) {
        self.shown.take();
        *self.wanted.borrow_mut() = Some(keys.to_vec());
    }

    /// What it showed.
    pub(crate) fn shown(&self) -> Option<Held> {
        self.shown.borrow().clone()
    }

    /// The node's picture of the cluster.
    pub(crate) fn view(&self) -> Option<std::sync::Arc<View>> {
        self.handles.borrow().as_ref().map(|handles| handles.view.load_full())
    }
}

async fn held(handles: &Handles, keys: &[String]) -> Held {
    let mut entries = Vec::with_capacity(keys.len());
    for key in keys {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let store = handles.local.store_of(Partition::of(&key)).clone();
        entries.push(store.send(Peek(vec![key])).await.ok().and_then(|mut held| held.pop().flatten()));
    }
    let mut count = 0;
    for store in &handles.local.stores {
        count += store.send(AskStats).await.map_or(0, |stats| stats.keys + stats.tombstones);
    }
    let (mut hints, mut hints_bytes) = (0, 0);
    for sender in &handles.local.replications {
        let stats = sender.send(replication::AskStats).await.unwrap_or_default();
        hints += stats.hints_pending;
        hints_bytes += stats.hints_bytes;
    }
    Held { entries, count, hints, hints_bytes }
}

/// What all nodes must agree on, in words: members with all their records say, and the owners of every partition.
pub(crate) fn picture(view: &View) -> String {
    let name = |ix: &PeerIx| view.peer(*ix).map_or("?".to_owned(), |peer| peer.member.id.to_string());
    let mut members: BTreeMap<String, String> = BTreeMap::new();
    for (_, peer) in view.peers() {
        members.insert(peer.member.id.to_string(), format!("{:?}", peer.member));
    }
    let routes: Vec<Vec<String>> = Partition::all().map(|p| view.route(p).owners.iter().map(name).collect()).collect();
    format!("epoch {} members {members:?} routes {routes:?}", view.epoch)
}

/// Who a node says is there, for people.
pub(crate) fn summary(view: &View) -> String {
    let peers: Vec<String> = view
        .peers()
        .map(|(_, peer)| {
            format!(
                "{}:{}:r{}:{}p held {}",
                peer.member.id,
                match peer.liveness {
                    Liveness::Alive => "alive",
                    Liveness::Suspect => "suspect",
                    Liveness::Down => "down",
                },
                peer.member.revision,
                peer.partitions,
                peer.member.held_now().count(),
            )
        })
        .collect();
    format!("epoch {} under-replicated {} [{}]", view.epoch, view.under_replicated(), peers.join(", "))
}

/// The address of a host by number.
pub(crate) fn address(sim: &turmoil::Sim<'_>, n: usize) -> SocketAddr {
    SocketAddr::new(sim.lookup(format!("node-{n}").as_str()), PORT)
}
