//! One run against one server: connects, starts the threads, looks at the clocks of processors when what counts begins and ends, and puts
//! together what the threads counted. Tested, as a process, in `tests/bench.rs`.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::arrivals::Arrivals;
use super::clock::{Clock, nanos};
use super::cluster::{self, CONNECT_MAX, Slots};
use super::command::{Command, Mix, Protocol};
use super::encode::Encoder;
use super::keys::{Keys, Rounds};
use super::pipe::{Pipe, Workload};
use super::processor;
use super::tally::Tally;
use super::worker::{Connection, Progress, Task, Worker};
use super::{Failure, arguments::Arguments};

/// Requests outstanding on a connection while keys are stored.
const LOAD_DEPTH: usize = 64;
/// Between two looks at how it goes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One server, or the nodes of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
    /// Its process, if it was named.
    pid: Option<u32>,
}

/// Where to connect to, each with the slots to ask it for.
type Ends = Vec<(SocketAddr, Option<Arc<Slots>>)>;

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) tally: Tally,
    /// Processor time while it counted.
    pub(crate) server: Option<Duration>,
    pub(crate) own: Option<Duration>,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Stores every key, and counters where the mix has commands that need them.
    Load(Command),
    /// What was asked for.
    Measure,
}

impl Server {
    /// Finds a server by the names of its addresses.
    ///
    /// # Errors
    /// An address that is none.
    pub(crate) fn find(name: &str, addresses: &[String], pid: Option<u32>) -> Result<Self, Failure> {
        let resolved = addresses.iter().map(|address| {
            let found = address.to_socket_addrs().ok().and_then(|mut found| found.next());
            found.ok_or_else(|| Failure::Usage(format!("`{address}` is no address: expected host:port")))
        });
        let addresses = resolved.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { name: name.to_owned(), addresses, pid })
    }

    /// The processes at these ends. Half of the nodes would make half of a figure: all of them, or none.
    fn processes(&self, ends: &Ends) -> Vec<u32> {
        if let Some(pid) = self.pid {
            return vec![pid];
        }
        let found: Option<Vec<u32>> = ends.iter().map(|(address, _)| processor::listener(*address)).collect();
        let mut pids = found.unwrap_or_default();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    fn ends(&self, cluster: bool) -> Result<Ends, Failure> {
        if cluster {
            let owners = cluster::owners(self.addresses[0]).map_err(Failure::Unreachable)?;
            return Ok(owners.into_iter().map(|(address, slots)| (address, Some(Arc::new(slots)))).collect());
        }
        Ok(self.addresses.iter().map(|address| (*address, None)).collect())
    }
}

/// Processor time of all of these, if there are any.
fn processor(pids: &[u32]) -> Option<Duration> {
    let used = pids.iter().map(|pid| processor::of(*pid)).sum::<Option<Duration>>();
    used.filter(|_| !pids.is_empty())
}

impl Phase {
    /// What has to be stored first for `mix`.
    pub(crate) fn loads(protocol: Protocol, mix: &Mix) -> Vec<Self> {
        let counts = protocol == Protocol::Memcached && mix.commands().contains(&Command::Incr);
        let counters = counts.then_some(Self::Load(Command::MetaArithmetic));
        [Self::Load(Command::Set)].into_iter().chain(counters).collect()
    }
}

/// Runs `phase`, and tells `watch` once a second how many replies and errors there were.
///
/// # Errors
/// No connection, or too few of what the system has.
pub(crate) fn run(
    arguments: &Arguments,
    server: &Server,
    phase: Phase,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<Run, Failure> {
    let workload = workload(arguments, phase)?;
    let ends = server.ends(arguments.cluster)?;
    let pids = server.processes(&ends);
    let count = usize::try_from(arguments.connections).expect("a u32").max(ends.len());
    let threads = usize::try_from(arguments.threads).expect("a u32").min(count);
    let depth = usize::try_from(arguments.pipeline).expect("a u32");
    let depth = if phase == Phase::Measure { depth } else { depth.max(LOAD_DEPTH) };
    let mut groups: Vec<Vec<Connection>> = (0..threads).map(|_| Vec::new()).collect();
    for n in 0..count {
        let (address, slots) = &ends[n % ends.len()];
        // Those with the same slots share a walk over the keys. Of others each has its part of all keys.
        let share =
            if slots.is_some() { (n / ends.len(), (count - 1 - n % ends.len()) / ends.len() + 1) } else { (n, count) };
        let pipe = Pipe::new(&workload, keys(arguments, phase, share), slots.clone(), depth);
        let stream = connect(*address).map_err(|error| Failure::Unreachable(format!("{address}: {error}")))?;
        groups[n * threads / count].push(Connection::new(*address, stream, pipe));
    }
    let progress: Vec<Progress> = groups.iter().map(|_| Progress::default()).collect();
    let (sender, receiver) = channel();
    let clock = Clock::start();
    let task = |n| task(arguments, phase, depth, (n, threads));
    let from = task(0).from;
    thread::scope(|scope| {
        let mut before = (from == 0).then(|| (processor(&pids), processor::own()));
        for (n, connections) in groups.into_iter().enumerate() {
            let (workload, progress, sender) = (&workload, &progress[n], sender.clone());
            scope.spawn(move || work(workload, task(n), clock, progress, connections, &sender));
        }
        drop(sender);
        let (mut tally, mut left, mut look_at) = (Tally::new(workload.mix.commands().len(), from), threads, 0);
        while left > 0 {
            let wake_at = if before.is_none() { from } else { look_at };
            match receiver.recv_timeout(clock.until(wake_at).min(LOOK_EVERY)) {
                Ok(counted) => {
                    tally.merge(&counted?);
                    left -= 1;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::System("a thread was lost".into())),
                Err(RecvTimeoutError::Timeout) if before.is_none() && clock.now() >= from => {
                    before = Some((processor(&pids), processor::own()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if clock.now() >= look_at {
                look_at = clock.now() + nanos(LOOK_EVERY);
                let sum = |of: fn(&Progress) -> u64| progress.iter().map(of).sum();
                watch(sum(|of| of.replies.load(Ordering::Relaxed)), sum(|of| of.errors.load(Ordering::Relaxed)));
            }
        }
        let (server_before, own_before) = before.unwrap_or_default();
        let used = |now: Option<Duration>, before: Option<Duration>| now?.checked_sub(before?);
        let (server, own) = (used(processor(&pids), server_before), used(processor::own(), own_before));
        Ok(Run { tally, server, own })
    })
}

fn work(
    workload: &Workload,
    task: Task,
    clock: Clock,
    progress: &Progress,
    connections: Vec<Connection>,
    sender: &Sender<Result<Tally, Failure>>,
) {
    let worker = Worker::new(workload, task, clock, progress, connections);
    let counted = worker.and_then(Worker::run).map_err(|error| Failure::System(error.to_string()));
    // Nobody listens any more if another thread has failed.
    let _ = sender.send(counted);
}

fn workload(arguments: &Arguments, phase: Phase) -> Result<Workload, Failure> {
    let mix = match phase {
        Phase::Load(command) => Mix::only(command),
        Phase::Measure => Mix::new(&arguments.mix, arguments.protocol).map_err(Failure::Usage)?,
    };
    Ok(Workload {
        protocol: arguments.protocol,
        mix,
        sizes: arguments.value_size.clone(),
        encoder: Encoder::new(arguments.protocol, &arguments.prefix, arguments.value_size.max()),
        verifies: arguments.verify,
    })
}

fn keys(arguments: &Arguments, phase: Phase, (n, of): (usize, usize)) -> Keys {
    let share = (n as u64, of as u64);
    match phase {
        Phase::Load(_) => Keys::walk(arguments.keys, share, Rounds::One),
        Phase::Measure => Keys::new(arguments.distribution, arguments.keys, arguments.exponent, share),
    }
}

fn task(arguments: &Arguments, phase: Phase, depth: usize, (n, threads): (usize, usize)) -> Task {
    let share = (n as u64, threads as u64);
    let seed = arguments.seed.wrapping_mul(1000).wrapping_add(share.0);
    if phase != Phase::Measure {
        return Task { depth, from: 0, end: u64::MAX, quota: u64::MAX, arrivals: None, seed };
    }
    let from = nanos(arguments.warm_up);
    let (end, quota) = match arguments.requests {
        // The first threads take what can't be divided.
        Some(requests) => (u64::MAX, requests / share.1 + u64::from(share.0 < requests % share.1)),
        None => (from + nanos(arguments.duration), u64::MAX),
    };
    let arrivals = arguments.rate.map(|rate| Arrivals::new(rate, share));
    Task { depth, from, end, quota, arrivals, seed }
}

fn connect(address: SocketAddr) -> std::io::Result<mio::net::TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn threads_share_a_number_of_requests_exactly(requests in 1u64..100_000, threads in 1usize..20) {
            let line = format!("trellis-bench h:1 -n {requests}");
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            let shares = (0..threads).map(|n| task(&arguments, Phase::Measure, 1, (n, threads)).quota);
            prop_assert_eq!(shares.sum::<u64>(), requests);
        }
    }

    #[test]
    fn counters_of_memcached_are_stored_before_they_are_counted_with() {
        let loads = |protocol, mix: &str| Phase::loads(protocol, &Mix::new(&mix.parse().unwrap(), protocol).unwrap());
        assert_eq!(loads(Protocol::Resp, "incr"), [Phase::Load(Command::Set)]);
        let both = [Phase::Load(Command::Set), Phase::Load(Command::MetaArithmetic)];
        assert_eq!(loads(Protocol::Memcached, "get,incr"), both);
    }
}
