//! What happens in a run: a schedule of faults, drawn from the seed. Carries nothing out.

use std::time::Duration;

use trellis::base::limits::{HINTS_BYTES_DEFAULT, OUTBOX_BYTES_MAX};
use trellis::config::Replication;

use super::cluster::NODES;
use super::dice::Dice;

/// Longest pause of a client between two operations, unless the plan says otherwise.
const PACE_MS: u64 = 80;
/// Granularities of simulated time. What a message or a timer takes is rounded up to it: a fine one shows more orders of events that are close,
/// a coarse one more events that meet in an instant, for a fraction of the cost.
const TICKS_MS: [u64; 3] = [1, 2, 5];
/// Bytes that hints may take: as many as anybody needs, some tens, a few, none.
const HINTS_BYTES: [u64; 5] = [HINTS_BYTES_DEFAULT, HINTS_BYTES_DEFAULT, 4_000, 500, 0];

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// None, after the nodes have found each other.
    Calm,
    /// Nodes start in any order with any seeds, under load from the first moment.
    Form,
    /// Nodes die and return under their id with their memory gone, one at a time.
    Crash,
    /// Nodes die and return as somebody else, one at a time.
    Replace,
    /// Nodes leave in order, one or two at once, and others join meanwhile.
    Leave,
    /// A minority is cut off for a long time.
    Partition,
    /// Links carry one way only.
    Asymmetric,
    /// Datagrams are lost and overtake each other.
    Lossy,
    /// Streams between nodes break all the time.
    BrokenLinks,
    /// One node answers late.
    Slow,
    /// A node dies and returns amid cuts, losses and broken links.
    Mixed,
    /// Several of all troubles at once, a change of membership among them.
    Combined,
    /// A node returns with a wall clock that is an hour off.
    Clocks,
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::Calm,
        Self::Form,
        Self::Crash,
        Self::Replace,
        Self::Leave,
        Self::Partition,
        Self::Asymmetric,
        Self::Lossy,
        Self::BrokenLinks,
        Self::Slow,
        Self::Mixed,
        Self::Combined,
        Self::Clocks,
    ];

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A node's process dies.
    Crash(usize),
    /// A node's machine goes silent and then dies.
    PowerOff(usize),
    /// A node dies, unless copies that an earlier death took are still missing.
    CrashIfWhole(usize),
    /// It starts, as itself or as somebody else, unless it is up.
    Return(usize, bool),
    /// A node's process stands still.
    Freeze(usize),
    /// It goes on.
    Thaw(usize),
    /// An operator has a node leave in order. Once it has handed everything over it is away, until it is started again.
    Leave(usize),
    /// An operator takes that back, if it is still there.
    Stay(usize),
    /// An operator gives a running node another weight.
    Reweigh(usize, u16),
    /// A node's weight from its next life on.
    Weigh(usize, u16),
    /// The copies that a node wants from its next life on.
    Copies(usize, Replication),
    /// An operator gives all nodes another number of copies and restarts one after another, each when it says that it may stop.
    Roll(Replication),
    /// How many milliseconds off the clock is that a node's next life starts with.
    Skew(usize, i64),
    /// An operator has those forgotten whose place somebody else has taken.
    Forget,
    /// Nothing passes between these and all other nodes.
    Isolate(Vec<usize>),
    /// Nothing passes from the first to the second.
    CutOneWay(usize, usize),
    /// Nothing passes from the first to the second of any pair, until it is undone.
    Cut(Vec<(usize, usize)>),
    /// That is over; where another cut lasts, nothing passes still.
    Uncut(Vec<(usize, usize)>),
    /// Everything passes again.
    Mend,
    /// So it does, and who is away returns.
    Recover,
    /// Per mille of datagrams that are lost.
    LoseDatagrams(u64),
    /// Longest time a message takes.
    Latency(u64),
    /// Every message on a node's links takes this long.
    Slow(usize, u64),
    /// Per ten thousand messages between nodes that break their stream.
    Break(u64),
    /// Longest pause of a client between two operations.
    Pace(u64),
}

/// A schedule.
pub(crate) struct Plan {
    /// When each node starts.
    pub(crate) starts_ms: [u64; NODES],
    /// Seeds of each.
    pub(crate) seeds: [Vec<usize>; NODES],
    /// Nodes that are also told a seed at which nobody lives.
    pub(crate) misled: [bool; NODES],
    /// Clients begin before the cluster is complete.
    pub(crate) load_at_once: bool,
    /// What happens, in milliseconds after the load began.
    pub(crate) faults: Vec<(u64, Fault)>,
    /// Hosts on which nobody lives until the schedule starts somebody.
    pub(crate) joiners: usize,
    /// Copies that nodes want at first.
    pub(crate) copies: Replication,
    /// A node that owns nothing at first.
    pub(crate) gateway: Option<usize>,
    /// Bytes that outboxes take.
    pub(crate) outbox_bytes_max: usize,
    /// Bytes that the hints of a node take.
    pub(crate) hints_bytes_max: u64,
    /// Replicas are compared time and again, whatever happened; else whatever was missed has to be known.
    pub(crate) rounds: bool,
    /// Longest pause of a client between two operations.
    pub(crate) pace_ms: u64,
    /// When the load ends.
    pub(crate) load_ms: u64,
    /// Granularity of simulated time.
    pub(crate) tick_ms: u64,
    /// See [`super::cluster::Host::forget_after`].
    pub(crate) forget_after: Option<Duration>,
    /// Nobody forgets who lives on: it stays one cluster, whose counters at quorum are exact and whose keys are as if there were one copy.
    pub(crate) one_cluster: bool,
    /// Wall clocks are off by less than what is taken for true.
    pub(crate) clocks_agree: bool,
}

impl Plan {
    /// Draws one.
    pub(crate) fn draw(scenario: Scenario, seed: u64) -> Self {
        let mut dice = Dice::new(seed, "plan");
        let mut plan = Self::quiet(&mut dice);
        plan.tick_ms = Dice::new(seed, "tick").pick(&TICKS_MS);
        plan.hints_bytes_max = Dice::new(seed, "hints").pick(&HINTS_BYTES);
        plan.rounds = Dice::new(seed, "rounds").chance(70);
        match scenario {
            Scenario::Calm => {}
            Scenario::Form => plan.load_at_once = true,
            Scenario::Crash => plan.crashes(&mut dice, false),
            Scenario::Replace => plan.crashes(&mut dice, true),
            Scenario::Leave => plan.leave(&mut dice),
            Scenario::Partition => plan.partition(&mut dice),
            Scenario::Asymmetric => plan.asymmetric(&mut dice),
            Scenario::Lossy => {
                plan.faults.push((1_000, Fault::LoseDatagrams(dice.of(20..300))));
                plan.faults.push((1_000, Fault::Latency(dice.of(10..60))));
            }
            Scenario::BrokenLinks => plan.faults.push((1_000, Fault::Break(dice.of(2..30)))),
            Scenario::Slow => {
                let n = dice.of(0..NODES as u64) as usize;
                plan.faults.push((dice.of(1_000..5_000), Fault::Slow(n, dice.of(20..600))));
            }
            Scenario::Mixed => plan.mixed(&mut dice),
            Scenario::Combined => plan.combine(seed, &mut dice),
            Scenario::Clocks => plan.clocks(&mut dice),
        }
        plan.faults.push((plan.load_ms, Fault::Mend));
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The share of the ring that a node begins with.
    pub(crate) fn weight(&self, n: usize) -> u16 {
        u16::from(self.gateway != Some(n))
    }

    /// Everybody starts within a few seconds and finds the others, through any seeds that connect them all.
    fn quiet(dice: &mut Dice) -> Self {
        let order = dice.order(NODES);
        let mut seeds: [Vec<usize>; NODES] = Default::default();
        for (n, node) in order.iter().enumerate().skip(1) {
            seeds[*node].push(order[dice.of(0..n as u64) as usize]);
            if dice.chance(50) {
                seeds[*node].push(dice.of(0..NODES as u64) as usize);
            }
        }
        Self {
            starts_ms: std::array::from_fn(|_| dice.of(1..4_000)),
            seeds,
            misled: std::array::from_fn(|n| n != order[0] && dice.chance(30)),
            load_at_once: false,
            faults: Vec::new(),
            joiners: 0,
            copies: Replication::Copies(3),
            gateway: None,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            hints_bytes_max: HINTS_BYTES_DEFAULT,
            rounds: true,
            pace_ms: PACE_MS,
            load_ms: 20_000,
            tick_ms: TICKS_MS[0],
            forget_after: Some(Duration::from_secs(600)),
            one_cluster: true,
            clocks_agree: true,
        }
    }

    fn crashes(&mut self, dice: &mut Dice, fresh: bool) {
        let mut at = 2_000;
        if fresh {
            self.forget_after = Some(Duration::from_secs(15));
        }
        for n in dice.order(NODES).into_iter().take(2) {
            at += dice.of(0..2_000);
            self.faults.push((at, if dice.chance(50) { Fault::Crash(n) } else { Fault::PowerOff(n) }));
            at += dice.of(200..12_000);
            self.faults.push((at, Fault::Return(n, fresh)));
            // Until its replicas are whole again the next crash would be a second one.
            at += 30_000;
        }
        self.load_ms = at;
    }

    /// At least three stay. Half of the leavers come back.
    fn leave(&mut self, dice: &mut Dice) {
        self.joiners = dice.of(0..3) as usize;
        for n in NODES..NODES + self.joiners {
            self.faults.push((dice.of(1_000..8_000), Fault::Return(n, false)));
        }
        for n in dice.order(NODES).into_iter().take(dice.of(1..3) as usize) {
            self.faults.push((dice.of(1_000..8_000), Fault::Leave(n)));
            if dice.chance(50) {
                self.faults.push((dice.of(14_000..18_000), Fault::Return(n, dice.chance(30))));
            }
        }
    }

    fn partition(&mut self, dice: &mut Dice) {
        let away: Vec<usize> = dice.order(NODES).into_iter().take(dice.of(1..3) as usize).collect();
        // Hours take long to simulate, and most of what they show shows within minutes.
        let length = 60_000 * if dice.chance(3) { dice.of(60..150) } else { dice.of(2..15) };
        // Sides that forget each other live on as two clusters, and then no quorum means anything.
        let forgets = dice.chance(50);
        self.one_cluster = !forgets;
        self.forget_after = forgets.then_some(Duration::from_secs(600));
        self.tick_ms = 10;
        self.faults.push((4_000, Fault::Isolate(away)));
        self.faults.push((20_000, Fault::Pace(120_000)));
        self.faults.push((length - 10_000, Fault::Pace(PACE_MS)));
        self.faults.push((length, Fault::Mend));
        self.load_ms = length + 20_000;
    }

    fn asymmetric(&mut self, dice: &mut Dice) {
        let mut at = 2_000;
        for _ in 0..3 {
            for _ in 0..dice.of(1..4) {
                let order = dice.order(NODES);
                self.faults.push((at, Fault::CutOneWay(order[0], order[1])));
            }
            at += dice.of(1_000..12_000);
            self.faults.push((at, Fault::Mend));
            at += dice.of(1_000..6_000);
        }
        self.load_ms = at;
    }

    fn mixed(&mut self, dice: &mut Dice) {
        let n = dice.of(0..NODES as u64) as usize;
        self.load_ms = 45_000;
        self.faults.push((dice.of(1_000..8_000), Fault::Crash(n)));
        self.faults.push((dice.of(8_000..20_000), Fault::Return(n, false)));
        for _ in 0..dice.of(1..5) {
            let other = dice.of(0..NODES as u64) as usize;
            let fault = match dice.of(0..6) {
                0 => Fault::Isolate(vec![other]),
                1 => Fault::CutOneWay(n, other),
                2 => Fault::CutOneWay(other, n),
                3 => Fault::LoseDatagrams(dice.of(20..300)),
                4 => Fault::Break(dice.of(2..20)),
                _ => Fault::Latency(dice.of(5..80)),
            };
            self.faults.push((dice.of(1_000..30_000), fault));
            if dice.chance(60) {
                self.faults.push((dice.of(5_000..45_000), Fault::Mend));
            }
        }
    }
}
