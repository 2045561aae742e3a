//! One peer as the replication sender sees it: outbox, calls without an answer, and the frames of both. Never touches a socket, which
//! `link` does, and never decides when the peer is silent: the rules are in `cluster::link`, tested there. When callers are told is tested
//! below.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::base::hlc::Version;
use crate::base::limits::LINK_BYTES_MAX;
use crate::base::slot::Partition;
use crate::cluster::link::{Finding, Link, Moment, begins_until};
use crate::cluster::outbox::{Lost, Outbox, Posted, Ticket};
use crate::cluster::partition_set::PartitionSet;
use crate::cluster::view::PeerIx;
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Ask, Refusal};

use super::link::Pulse;
use super::{LinkError, OpenLink};

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

struct Calling {
    answer: oneshot::Sender<Result<Bytes, LinkError>>,
    /// Until when the peer may begin with it; zero while it waits for the link to open.
    begins_until: Moment,
}

/// One peer.
pub(super) struct Outlet {
    link: Link,
    /// To the task that dials or carries. Unbounded, because what may enter it is bounded: by `CALLS_MAX`, `LINK_BYTES_MAX` and the outbox.
    frames: Option<mpsc::UnboundedSender<Bytes>>,
    pulse: Rc<Pulse>,
    /// Bytes of frames given to the task, or to be given to it once the link opens.
    handed: u64,
    outbox: Outbox,
    unacknowledged: usize,
    calls: BTreeMap<u64, Calling>,
    next_call: u64,
    /// Calls that wait for the link to open.
    queued: Vec<(u64, Call)>,
    drained: Vec<(u64, oneshot::Sender<()>)>,
}

impl Outlet {
    /// One whose outbox takes no batch while it holds `outbox_bytes_max`.
    pub(super) fn new(outbox_bytes_max: usize) -> Self {
        Self {
            link: Link::default(),
            frames: None,
            pulse: Rc::default(),
            handed: 0,
            outbox: Outbox::new(outbox_bytes_max),
            unacknowledged: 0,
            calls: BTreeMap::new(),
            next_call: 1,
            queued: Vec::new(),
            drained: Vec::new(),
        }
    }

    pub(super) fn is_linked(&self) -> bool {
        self.link.is_linked()
    }

    pub(super) fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// What is told of it while it is open.
    pub(super) fn open_link(&self, peer: PeerIx, now: Moment) -> Option<OpenLink> {
        let age = now.saturating_sub(self.link.opened_at()?);
        Some(OpenLink { peer, age, queued_bytes: self.outbox_bytes() })
    }

    /// Whether enough time has passed since the last failure.
    pub(super) fn may_dial(&self, now: Moment) -> bool {
        self.link.may_dial(now)
    }

    pub(super) fn is_generation(&self, generation: u64) -> bool {
        self.link.is_current(generation)
    }

    /// A link task is to start: the generation of its link, what it tells of its I/O, and where it takes its frames from.
    pub(super) fn dial(&mut self, now: Moment) -> (u64, Rc<Pulse>, mpsc::UnboundedReceiver<Bytes>) {
        let (frames, receiver) = mpsc::unbounded_channel();
        self.frames = Some(frames);
        self.pulse = Rc::default();
        self.handed = 0;
        (self.link.dial(now), self.pulse.clone(), receiver)
    }

    /// The link works. False if it is not the current one.
    pub(super) fn opened(&mut self, generation: u64, clock: (u64, Moment), now: Moment) -> bool {
        let current = self.is_generation(generation);
        if current {
            self.link.opened(clock, now);
            self.handed = self.handed.saturating_sub(self.queued.iter().map(|(_, call)| call.bytes() as u64).sum());
            for (id, call) in std::mem::take(&mut self.queued) {
                let begins_until = self.send_call(id, &call, now);
                if let Some(calling) = self.calls.get_mut(&id) {
                    calling.begins_until = begins_until;
                }
            }
        }
        current
    }

    /// Something arrived. False if it came over a link that has been given up.
    pub(super) fn heard(&mut self, generation: u64) -> bool {
        self.feel_pulse();
        self.is_generation(generation)
    }

    fn feel_pulse(&mut self) {
        self.link.lives(self.pulse.alive_at());
    }

    fn send(&mut self, frame: Bytes) {
        if let Some(frames) = &self.frames {
            self.handed += frame.len() as u64;
            // The task ends before its sender only with a `LinkDown` under way, which settles what was outstanding.
            let _ = frames.send(frame);
        }
    }

    /// Sends a call, and returns until when the peer may begin with it.
    fn send_call(&mut self, id: u64, call: &Call, now: Moment) -> Moment {
        let begins_until = call.begins_until(begins_until(now, self.unwritten_bytes() + call.bytes() as u64));
        self.send(call.frame(id, self.link.their_ms(begins_until)));
        begins_until
    }

    fn unwritten_bytes(&self) -> u64 {
        self.handed.saturating_sub(self.pulse.written())
    }

    /// The peer is silent: callers are told to go elsewhere as soon as it may not begin with their calls any more. Further calls are refused
    /// until it is heard again. Entries keep waiting for it; a peer that was only slow loses none.
    fn give_up_calls(&mut self, now: Moment) {
        for (_, calling) in self.calls.extract_if(.., |_, calling| calling.begins_until <= now) {
            let _ = calling.answer.send(Err(LinkError::Broken { within: Duration::ZERO }));
        }
    }

    /// Gives the link up. Returns what had not been acknowledged; callers are told here.
    pub(super) fn close(&mut self, now: Moment) -> Lost {
        let was_open = self.is_open();
        self.link.close(now);
        self.frames = None;
        for calling in std::mem::take(&mut self.calls).into_values() {
            // What waited for a link that never opened was never sent.
            let broken = LinkError::Broken { within: calling.begins_until.saturating_sub(now) };
            let _ = calling.answer.send(Err(if was_open { broken } else { LinkError::Unreachable }));
        }
        self.unacknowledged = 0;
        self.queued.clear();
        self.drained.clear();
        self.outbox.lose_all()
    }

    /// The records posted from now on belong to one batch.
    pub(super) fn begin_batch(&mut self) {
        self.outbox.begin_batch();
    }

    pub(super) fn post(&mut self, record: &[u8], posted: Posted, now: Moment) -> bool {
        self.note_start(now);
        let taken = self.outbox.post(record, posted);
        if self.outbox.is_ripe() {
            // However large the batch, its frames are not.
            self.flush_now();
        }
        taken
    }

    pub(super) fn mark_diverged(&mut self, partition: Partition) {
        self.outbox.mark_diverged(partition);
    }

    pub(super) fn take_diverged(&mut self) -> PartitionSet {
        self.outbox.take_diverged()
    }

    /// Silence counts from the moment there is something to answer.
    fn note_start(&mut self, now: Moment) {
        if !self.is_waiting() {
            self.link.awaits(now);
        }
    }

    /// Sends the open frame, unless enough frames are on their way that it may as well grow.
    pub(super) fn flush(&mut self) {
        if self.unacknowledged < UNACKNOWLEDGED_FRAMES_MAX || self.outbox.is_ripe() {
            self.flush_now();
        }
    }

    fn flush_now(&mut self) {
        if self.is_linked()
            && let Some(frame) = self.outbox.seal(frame::replicate)
        {
            self.unacknowledged += 1;
            self.send(frame);
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
    pub(super) fn call(
        &mut self,
        call: &Call,
        now: Moment,
    ) -> Result<oneshot::Receiver<Result<Bytes, LinkError>>, LinkError> {
        self.feel_pulse();
        if self.link.is_stalled() || !self.is_linked() {
            return Err(LinkError::Unreachable);
        }
        if self.calls.len() >= CALLS_MAX || self.unwritten_bytes() > LINK_BYTES_MAX {
            return Err(LinkError::Busy);
        }
        self.note_start(now);
        let id = self.next_call;
        self.next_call += 1;
        let (answer, receiver) = oneshot::channel();
        let begins_until = if self.is_open() {
            self.send_call(id, call, now)
        } else {
            self.handed += call.bytes() as u64;
            self.queued.push((id, call.clone()));
            Moment::ZERO
        };
        self.calls.insert(id, Calling { answer, begins_until });
        Ok(receiver)
    }

    pub(super) fn answered(&mut self, id: u64, payload: Bytes) {
        if let Some(calling) = self.calls.remove(&id) {
            // The caller may have run into its deadline.
            let _ = calling.answer.send(Ok(payload));
        }
    }

    /// Whether something is outstanding on the link.
    pub(super) fn is_waiting(&self) -> bool {
        self.link.is_stalled()
            || !self.calls.is_empty()
            || self.outbox.is_waiting()
            || self.is_linked() && !self.is_open()
    }

    /// This node did not run for a while.
    pub(super) fn excuse(&mut self, now: Moment) {
        self.feel_pulse();
        self.link.excuse(now);
    }

    /// Looks whether the peer has been silent for too long while something is outstanding, and does what follows for the calls.
    pub(super) fn look(&mut self, now: Moment) -> Finding {
        self.feel_pulse();
        let finding = self.link.look(self.is_waiting(), now);
        match finding {
            // Nobody waits for the answer to id 0; hearing it is enough.
            Finding::Quiet => self.send(Call::ask(&Ask::Ping).frame(0, 0)),
            Finding::Silent | Finding::Stalled => self.give_up_calls(now),
            Finding::Fine | Finding::Lost => {}
        }
        finding
    }

    /// Completes once everything posted so far is acknowledged; fails if the link breaks before.
    pub(super) fn drained(&mut self) -> oneshot::Receiver<()> {
        self.flush_now();
        let (sender, receiver) = oneshot::channel();
        let sequence = self.outbox.last_sealed();
        if self.outbox.is_acknowledged_to(sequence) {
            let _ = sender.send(());
        } else {
            self.drained.push((sequence, sender));
        }
        receiver
    }

    pub(super) fn outbox_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }
}

/// Waits until, for every one of `routes`, `enough` of its members have drained, and answers how many have by `deadline`: the least over
/// all routes.
pub(super) async fn count_drained(
    routes: Vec<Vec<PeerIx>>,
    waits: BTreeMap<PeerIx, oneshot::Receiver<()>>,
    enough: usize,
    deadline: Instant,
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
    while count(&done) < enough {
        match tokio::time::timeout_at(deadline, receiver.recv()).await {
            Ok(Some(peer)) => done.push(peer),
            Ok(None) | Err(_) => break,
        }
    }
    count(&done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::OUTBOX_BYTES_MAX;
    use crate::base::limits::{CALL_BEGINS_MAX, LINK_SILENCE_MAX};

    fn open() -> Outlet {
        let mut outlet = Outlet::new(OUTBOX_BYTES_MAX);
        let (generation, ..) = outlet.dial(Moment::ZERO);
        assert!(outlet.opened(generation, (0, Moment::ZERO), Moment::ZERO));
        outlet
    }

    fn call(outlet: &mut Outlet, now: Moment) -> oneshot::Receiver<Result<Bytes, LinkError>> {
        outlet.call(&Call::ask(&Ask::Ping), now).expect("the link is open and has room")
    }

    #[test]
    fn a_caller_is_told_of_a_silence_once_the_peer_may_not_begin_any_more() {
        let mut outlet = open();
        let (begun, tick) = (Moment::from_millis(50), Duration::from_millis(1));
        let mut early = call(&mut outlet, Moment::ZERO);
        let mut late = call(&mut outlet, begun);
        assert_eq!(outlet.look(LINK_SILENCE_MAX + tick), Finding::Silent);
        let told = Ok(Err(LinkError::Broken { within: Duration::ZERO }));
        assert_eq!(early.try_recv(), told, "200 ms are over");
        assert!(late.try_recv().is_err(), "the peer may begin with it still");
        assert_eq!(outlet.call(&Call::ask(&Ask::Ping), LINK_SILENCE_MAX + tick).err(), Some(LinkError::Unreachable));
        assert_eq!(outlet.look(begun + CALL_BEGINS_MAX), Finding::Stalled);
        assert_eq!(late.try_recv(), told);
    }

    #[test]
    fn a_link_that_closes_tells_how_long_a_call_may_be_begun() {
        let mut outlet = open();
        let mut answer = call(&mut outlet, Moment::ZERO);
        outlet.close(Moment::from_millis(30));
        let within = CALL_BEGINS_MAX - Duration::from_millis(30);
        assert_eq!(answer.try_recv(), Ok(Err(LinkError::Broken { within })));
    }

    #[test]
    fn a_link_with_too_many_unsent_bytes_takes_no_further_call() {
        let mut outlet = Outlet::new(OUTBOX_BYTES_MAX);
        outlet.dial(Moment::ZERO);
        outlet.handed = LINK_BYTES_MAX;
        drop(call(&mut outlet, Moment::ZERO));
        assert_eq!(outlet.call(&Call::ask(&Ask::Ping), Moment::ZERO).err(), Some(LinkError::Busy));
    }
}
