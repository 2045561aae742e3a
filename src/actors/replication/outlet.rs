//! One peer as the replication sender sees it: outbox, link, calls without an answer. Never touches a socket; `link` does.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::base::hlc::Version;
use crate::base::limits::{LINK_RETRY_AFTER, LINK_SILENCE_MAX, LINK_STALL_MAX, OUTBOX_BYTES_MAX};
use crate::base::slot::Partition;
use crate::cluster::outbox::{Outbox, Posted, Ticket};
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::view::PeerIx;
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Ask, Refusal};

use super::LinkError;

/// Calls under way per peer and data arbiter.
pub(super) const CALLS_MAX: usize = 16 * 1024;
/// Unacknowledged frames from which on records gather in the outbox instead: they leave as fewer, larger frames.
const UNACKNOWLEDGED_FRAMES_MAX: usize = 64;

/// What became of a record at a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The replica has it.
    Merged,
    /// The replica has something newer.
    Newer(Version),
    /// It counts by another route.
    Astray,
    /// It may or may not have it, or refused it.
    Lost,
}

enum State {
    /// No link; the next dial is allowed from then on.
    Closed { until: Option<Instant> },
    /// A task is dialling or carrying; frames go to it either way.
    Linked { frames: mpsc::UnboundedSender<Bytes>, open: bool },
}

type Answer = oneshot::Sender<Result<Bytes, LinkError>>;

/// One peer.
pub(super) struct Outlet {
    state: State,
    generation: u64,
    outbox: Outbox,
    unacknowledged: usize,
    calls: BTreeMap<u64, Answer>,
    next_call: u64,
    heard: Instant,
    pinged: bool,
    /// What the peer's clock showed before a moment of ours.
    clock: Option<(u64, Instant)>,
    /// Calls that wait for the link to open.
    queued: Vec<(u64, Call)>,
    stalled: bool,
    drained: Vec<(u64, oneshot::Sender<()>)>,
}

impl Default for Outlet {
    fn default() -> Self {
        Self {
            state: State::Closed { until: None },
            generation: 0,
            outbox: Outbox::new(OUTBOX_BYTES_MAX),
            unacknowledged: 0,
            calls: BTreeMap::new(),
            next_call: 1,
            heard: Instant::now(),
            pinged: false,
            clock: None,
            queued: Vec::new(),
            stalled: false,
            drained: Vec::new(),
        }
    }
}

impl Outlet {
    pub(super) fn is_linked(&self) -> bool {
        matches!(self.state, State::Linked { .. })
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Linked { open: true, .. })
    }

    /// Whether enough time has passed since the last failure.
    pub(super) fn may_dial(&self) -> bool {
        matches!(&self.state, State::Closed { until } if until.is_none_or(|until| until <= Instant::now()))
    }

    pub(super) fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    pub(super) fn is_generation(&self, generation: u64) -> bool {
        self.is_linked() && self.generation == generation
    }

    /// A link task starts; it takes its frames from here.
    pub(super) fn dial(&mut self) -> mpsc::UnboundedReceiver<Bytes> {
        // Unbounded, because what may enter it is bounded: the outbox and the number of calls.
        let (frames, receiver) = mpsc::unbounded_channel();
        self.generation += 1;
        self.state = State::Linked { frames, open: false };
        self.expect_an_answer();
        receiver
    }

    /// The link works. False if it is not the current one.
    pub(super) fn opened(&mut self, generation: u64, clock: (u64, Instant)) -> bool {
        let current = self.is_generation(generation);
        if let (true, State::Linked { open, .. }) = (current, &mut self.state) {
            *open = true;
            self.clock = Some(clock);
            self.expect_an_answer();
            let start_by = self.start_by();
            if let State::Linked { frames, .. } = &self.state {
                for (id, call) in self.queued.drain(..) {
                    let _ = frames.send(call.frame(id, start_by));
                }
            }
        }
        current
    }

    /// Something arrived. False if it came over a link that has been given up.
    pub(super) fn heard(&mut self, generation: u64) -> bool {
        let current = self.is_generation(generation);
        if current {
            self.expect_an_answer();
        }
        current
    }

    fn expect_an_answer(&mut self) {
        self.heard = Instant::now();
        self.pinged = false;
        self.stalled = false;
    }

    /// When, on the peer's clock and never later than that, this node may give a call up that it sends now. The peer's clock showed at
    /// least what its welcome said when the welcome arrived, and silence counts from when it was last heard.
    fn start_by(&self) -> u64 {
        self.clock.map_or(0, |(their_ms, at)| {
            let since = (self.heard + LINK_SILENCE_MAX).saturating_duration_since(at);
            their_ms + u64::try_from(since.as_millis()).unwrap_or(u64::MAX / 2)
        })
    }

    /// The peer has been silent for too long: callers are told to go elsewhere, and further calls are refused until it is heard
    /// again. Entries keep waiting for it; a peer that was only slow loses none.
    pub(super) fn stall(&mut self) {
        self.stalled = true;
        for (_, answer) in std::mem::take(&mut self.calls) {
            let _ = answer.send(Err(LinkError::Broken));
        }
    }

    /// Gives the link up. Returns who waited for acknowledgements; callers are told here.
    pub(super) fn close(&mut self) -> Vec<Ticket> {
        // What waited for a link that never opened was never sent.
        let error = if self.is_open() { LinkError::Broken } else { LinkError::Unreachable };
        self.state = State::Closed { until: Some(Instant::now() + LINK_RETRY_AFTER) };
        for (_, answer) in std::mem::take(&mut self.calls) {
            let _ = answer.send(Err(error));
        }
        self.unacknowledged = 0;
        self.stalled = false;
        self.clock = None;
        self.queued.clear();
        self.drained.clear();
        self.outbox.lose_all()
    }

    pub(super) fn post(&mut self, record: &[u8], posted: Posted) -> bool {
        self.note_start();
        self.outbox.post(record, posted)
    }

    pub(super) fn mark_diverged(&mut self, partition: Partition) {
        self.outbox.mark_diverged(partition);
    }

    pub(super) fn take_diverged(&mut self) -> PartitionSet {
        self.outbox.take_diverged()
    }

    /// Silence counts from the moment there is something to answer.
    fn note_start(&mut self) {
        if !self.is_waiting() {
            self.expect_an_answer();
        }
    }

    /// Sends the open frame, unless enough frames are on their way that it may as well grow.
    pub(super) fn flush(&mut self) {
        let State::Linked { frames, .. } = &self.state else { return };
        if self.unacknowledged >= UNACKNOWLEDGED_FRAMES_MAX && !self.outbox.is_ripe() {
            return;
        }
        if let Some(sealed) = self.outbox.seal() {
            self.unacknowledged += 1;
            // The task ends before its sender only with a `LinkDown` under way, which settles what was outstanding.
            let _ = frames.send(frame::replicate(sealed.sequence, sealed.count, &sealed.records));
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        sequence: u64,
        newer: &[(u32, Version)],
        refused: &[(u32, Refusal)],
    ) -> Vec<(Ticket, Verdict)> {
        let posted = self.outbox.acknowledged(sequence);
        self.unacknowledged = self.unacknowledged.saturating_sub(usize::from(!posted.is_empty()));
        let apart = newer.iter().map(|(n, _)| *n).chain(refused.iter().map(|(n, _)| *n));
        for posted in apart.filter_map(|n| posted.get(n as usize)) {
            // The replica knows something its coordinator does not, or the reverse.
            self.outbox.mark_diverged(posted.partition);
        }
        for (sequence, sender) in std::mem::take(&mut self.drained) {
            if self.outbox.is_acknowledged_to(sequence) {
                let _ = sender.send(());
            } else {
                self.drained.push((sequence, sender));
            }
        }
        let newer: BTreeMap<u32, Version> = newer.iter().copied().collect();
        let refused: BTreeMap<u32, Refusal> = refused.iter().copied().collect();
        let verdict = |n: u32| match (refused.get(&n), newer.get(&n)) {
            (Some(Refusal::Route), _) => Verdict::Astray,
            (Some(Refusal::FarFuture | Refusal::Lease), _) => Verdict::Lost,
            (None, Some(version)) => Verdict::Newer(*version),
            (None, None) => Verdict::Merged,
        };
        (0u32..).zip(posted).filter_map(|(n, posted)| posted.ticket.map(|ticket| (ticket, verdict(n)))).collect()
    }

    /// Sends a call.
    pub(super) fn call(&mut self, call: &Call) -> Result<oneshot::Receiver<Result<Bytes, LinkError>>, LinkError> {
        if self.calls.len() >= CALLS_MAX {
            return Err(LinkError::Busy);
        }
        if self.stalled {
            return Err(LinkError::Unreachable);
        }
        self.note_start();
        let State::Linked { frames, .. } = &self.state else { return Err(LinkError::Unreachable) };
        let id = self.next_call;
        self.next_call += 1;
        let (answer, receiver) = oneshot::channel();
        self.calls.insert(id, answer);
        if self.is_open() {
            let _ = frames.send(call.frame(id, self.start_by()));
        } else {
            self.queued.push((id, call.clone()));
        }
        Ok(receiver)
    }

    pub(super) fn answered(&mut self, id: u64, payload: Bytes) {
        if let Some(answer) = self.calls.remove(&id) {
            // The caller may have run into its deadline.
            let _ = answer.send(Ok(payload));
        }
    }

    /// Whether something is outstanding on the link.
    pub(super) fn is_waiting(&self) -> bool {
        self.stalled
            || !self.calls.is_empty()
            || self.outbox.is_waiting()
            || matches!(self.state, State::Linked { open: false, .. })
    }

    /// Whether a stalled link has had all the time it gets. What was lost on the way stays lost for as long as the kernel's patience
    /// with it grows, which after a partition may be minutes; a new link is there at once.
    pub(super) fn is_lost(&self) -> bool {
        self.stalled && self.heard.elapsed() > LINK_STALL_MAX
    }

    /// This node did not run for a while: what the peer said meanwhile is still to be read.
    pub(super) fn excuse(&mut self) {
        if !self.stalled {
            self.expect_an_answer();
        }
    }

    /// Whether the peer has been silent for too long while something is outstanding. Half way there it is pinged once, because it
    /// may be working on what was asked.
    pub(super) fn is_silent(&mut self) -> bool {
        if !self.is_open() || !self.is_waiting() || self.stalled {
            return false;
        }
        let silence = self.heard.elapsed();
        if silence > LINK_SILENCE_MAX / 2 && !self.pinged {
            self.pinged = true;
            if let State::Linked { frames, .. } = &self.state {
                // Nobody waits for the answer to id 0; hearing it is enough.
                let _ = frames.send(Call::ask(&Ask::Ping).frame(0, 0));
            }
        }
        silence > LINK_SILENCE_MAX
    }

    /// Completes once everything posted so far is acknowledged; fails if the link breaks before.
    pub(super) fn drained(&mut self) -> oneshot::Receiver<()> {
        self.flush_whatever();
        let (sender, receiver) = oneshot::channel();
        let sequence = self.outbox.last_sealed();
        if self.outbox.is_acknowledged_to(sequence) {
            let _ = sender.send(());
        } else {
            self.drained.push((sequence, sender));
        }
        receiver
    }

    fn flush_whatever(&mut self) {
        let before = std::mem::take(&mut self.unacknowledged);
        self.flush();
        self.unacknowledged += before;
    }

    pub(super) fn outbox_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }
}

/// Waits until, for every one of `routes`, `enough` of its members have drained, and answers how many have: the least over all routes.
pub(super) async fn count_drained(
    routes: Vec<Vec<PeerIx>>,
    waits: BTreeMap<PeerIx, oneshot::Receiver<()>>,
    enough: usize,
    timeout: Duration,
) -> usize {
    let mut done: Vec<PeerIx> = Vec::new();
    let count = |done: &[PeerIx]| {
        routes.iter().map(|route| route.iter().filter(|peer| done.contains(peer)).count()).min().unwrap_or(0)
    };
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for (peer, wait) in waits {
        let sender = sender.clone();
        actix::spawn(async move {
            if wait.await.is_ok() {
                let _ = sender.send(peer);
            }
        });
    }
    drop(sender);
    let deadline = Instant::now() + timeout;
    while count(&done) < enough {
        match tokio::time::timeout_at(deadline, receiver.recv()).await {
            Ok(Some(peer)) => done.push(peer),
            Ok(None) | Err(_) => break,
        }
    }
    count(&done)
}
