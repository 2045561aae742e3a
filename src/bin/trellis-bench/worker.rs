//! One thread of the generator: its connections, and one loop over what happens on them. A read, a write and no allocation a turn of a
//! connection. Never waits for one connection alone. Tested, as a process, in `tests/bench.rs`.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::arrivals::Arrivals;
use super::clock::Clock;
use super::pipe::{Pipe, Workload};
use super::tally::{BROKEN, Tally, UNANSWERED};
use super::timer::Timer;

/// What is read at a time; a whole reply line fits behind what was kept of the last.
const READ_BYTES: usize = 64 << 10;
/// Events taken at a time.
const EVENTS: usize = 256;
/// The loop looks at the clock at least this often.
const TURN_MAX: Duration = Duration::from_millis(50);
/// Between two attempts to connect again.
const RECONNECT_EVERY: u64 = 100_000_000;
/// After the end, for replies that are owed.
const DRAIN_MAX: u64 = 5_000_000_000;

/// Without a single reply; then the server is taken for gone.
const SILENCE_MAX: u64 = 30_000_000_000;

/// What a thread is to do.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) depth: usize,
    /// Nanoseconds since the start: from when on it counts, and until when it goes on.
    pub(crate) from: u64,
    pub(crate) end: u64,
    /// Requests that count, at most.
    pub(crate) quota: u64,
    /// Without one the loop is closed: who is answered asks again.
    pub(crate) arrivals: Option<Arrivals>,
    pub(crate) seed: u64,
}

/// How far a thread has come, for whoever watches.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) replies: AtomicU64,
    pub(crate) errors: AtomicU64,
}

/// A socket and its pipe.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    is_up: bool,
    /// When to connect again, if it is not.
    retry_at: u64,
    /// Has nothing more to ask for.
    is_done: bool,
    pipe: Pipe,
}

impl Connection {
    /// One that is connected.
    pub(crate) fn new(address: SocketAddr, stream: TcpStream, pipe: Pipe) -> Self {
        Self { address, stream: Some(stream), is_up: true, retry_at: 0, is_done: false, pipe }
    }
}

/// A thread's whole state.
pub(crate) struct Worker<'a> {
    workload: &'a Workload,
    task: Task,
    clock: Clock,
    progress: &'a Progress,
    poll: Poll,
    timer: Timer,
    connections: Vec<Connection>,
    random: SmallRng,
    tally: Tally,
    /// Of the quota, those begun.
    begun: u64,
    /// When the last reply came.
    heard: u64,
    /// Whose turn it is in an open loop.
    turn: usize,
    /// Connections that were given requests and have not written them.
    filled: Vec<usize>,
}

impl<'a> Worker<'a> {
    /// A thread's work, about to begin.
    ///
    /// # Errors
    /// Those of the system, out of descriptors for one.
    pub(crate) fn new(
        workload: &'a Workload,
        task: Task,
        clock: Clock,
        progress: &'a Progress,
        mut connections: Vec<Connection>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (n, connection) in connections.iter_mut().enumerate() {
            if let Some(stream) = &mut connection.stream {
                poll.registry().register(stream, Token(n), Interest::READABLE | Interest::WRITABLE)?;
            }
        }
        let timer = Timer::new(poll.registry(), Token(usize::MAX))?;
        let tally = Tally::new(workload.mix.commands().len(), task.from);
        let random = SmallRng::seed_from_u64(task.seed);
        let filled = Vec::with_capacity(connections.len());
        Ok(Self {
            workload,
            task,
            clock,
            progress,
            poll,
            timer,
            connections,
            random,
            tally,
            begun: 0,
            heard: clock.now(),
            turn: 0,
            filled,
        })
    }

    /// Works until all is done, or for as long as it may.
    ///
    /// # Errors
    /// Those of polling. Connections that break are counted instead.
    pub(crate) fn run(mut self) -> io::Result<Tally> {
        let (mut events, mut buffer) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        for n in 0..self.connections.len() {
            self.refill(n);
        }
        while !self.is_over() {
            let wait = self.arrive()?;
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            // The timer is no connection; it has done its work by waking the poll.
            let count = self.connections.len();
            for event in events.iter().filter(|event| event.token().0 < count) {
                self.turn(event.token().0, &mut buffer);
            }
            self.reconnect();
        }
        for connection in &mut self.connections {
            connection.pipe.lose(UNANSWERED, self.workload, &mut self.tally);
        }
        self.tally.unsent = self.unsent();
        Ok(self.tally)
    }

    /// What was due, or asked for by number, and never begun.
    fn unsent(&self) -> u64 {
        let of_quota = self.task.quota - self.begun;
        match self.task.arrivals {
            Some(arrivals) => arrivals.left(self.task.end).min(of_quota),
            None if self.task.quota < u64::MAX => of_quota,
            None => 0,
        }
    }

    /// Whether nothing more is to be begun at `now`.
    fn is_spent(&self, now: u64) -> bool {
        now >= self.task.end || self.begun >= self.task.quota
    }

    fn is_over(&self) -> bool {
        let now = self.clock.now();
        let owed = match &self.task.arrivals {
            Some(arrivals) => arrivals.due() < self.task.end && self.begun < self.task.quota,
            None => !self.is_spent(now) && !self.connections.iter().all(|connection| connection.is_done),
        };
        let pending = self.connections.iter().any(|connection| connection.pipe.pending() > 0);
        let is_late = now >= self.task.end.saturating_add(DRAIN_MAX) || now >= self.heard.saturating_add(SILENCE_MAX);
        !owed && !pending || is_late
    }

    /// What happened on a connection: replies, room to write, its end, or its beginning.
    fn turn(&mut self, n: usize, buffer: &mut [u8]) {
        let connection = &mut self.connections[n];
        let Some(stream) = &mut connection.stream else { return };
        if !connection.is_up {
            match (stream.take_error(), stream.peer_addr()) {
                (Ok(None), Ok(_)) => connection.is_up = stream.set_nodelay(true).is_ok(),
                // Not there yet.
                (Ok(None), Err(error)) if error.kind() == io::ErrorKind::NotConnected => return,
                _ => return self.give_up(n),
            }
            return self.refill(n);
        }
        loop {
            let connection = &mut self.connections[n];
            let Some(stream) = &mut connection.stream else { return };
            let kept = connection.pipe.restore(buffer);
            let read = match stream.read(&mut buffer[kept..]) {
                Ok(0) => return self.give_up(n),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return self.give_up(n),
            };
            let (now, before) = (self.clock.now(), self.tally.failures());
            let arrived = connection.pipe.arrived(&buffer[..kept + read], now, self.workload, &mut self.tally);
            let Ok(replies) = arrived else { return self.give_up(n) };
            if replies > 0 {
                self.heard = now;
            }
            self.progress.replies.fetch_add(replies, Ordering::Relaxed);
            self.progress.errors.fetch_add(self.tally.failures() - before, Ordering::Relaxed);
            // A read that did not fill the buffer has emptied the socket; what comes later is an event of its own.
            if kept + read < buffer.len() {
                break;
            }
        }
        if self.connections[n].pipe.pending() == 0 && self.task.arrivals.is_none() {
            self.refill(n);
        } else if !self.connections[n].pipe.unsent().is_empty() {
            self.write(n);
        }
    }

    /// Asks for as many replies as may be outstanding, in a closed loop.
    fn refill(&mut self, n: usize) {
        let now = self.clock.now();
        if self.task.arrivals.is_some() || self.is_spent(now) {
            return;
        }
        for _ in 0..self.task.depth {
            let connection = &mut self.connections[n];
            if self.begun >= self.task.quota {
                break;
            }
            if !connection.pipe.ask(self.workload, &mut self.random, now) {
                connection.is_done = true;
                break;
            }
            self.begun += u64::from(now >= self.task.from);
        }
        self.write(n);
    }

    /// Asks for what is due, in an open loop. Says how long there is nothing to do but to read.
    fn arrive(&mut self) -> io::Result<Duration> {
        let Some(mut arrivals) = self.task.arrivals else { return Ok(TURN_MAX) };
        let now = self.clock.now();
        let mut is_full = false;
        while arrivals.due() <= now && arrivals.due() < self.task.end && self.begun < self.task.quota {
            let Some(n) = self.next_free() else {
                is_full = true;
                break;
            };
            if self.connections[n].pipe.unsent().is_empty() {
                self.filled.push(n);
            }
            if !self.connections[n].pipe.ask(self.workload, &mut self.random, arrivals.due()) {
                self.connections[n].is_done = true;
                continue;
            }
            self.begun += u64::from(arrivals.due() >= self.task.from);
            arrivals.advance();
        }
        self.task.arrivals = Some(arrivals);
        while let Some(n) = self.filled.pop() {
            self.write(n);
        }
        let wait = self.clock.until(arrivals.due());
        if !is_full && wait < TURN_MAX {
            self.timer.set(wait)?;
        }
        Ok(TURN_MAX)
    }

    /// The next connection with room for a request.
    fn next_free(&mut self) -> Option<usize> {
        let (count, depth) = (self.connections.len(), self.task.depth);
        let free =
            |connection: &Connection| connection.is_up && !connection.is_done && connection.pipe.pending() < depth;
        let n = (self.turn..self.turn + count).map(|n| n % count).find(|n| free(&self.connections[*n]))?;
        self.turn = n + 1;
        Some(n)
    }

    /// Writes what the socket takes. The rest follows when it has room.
    fn write(&mut self, n: usize) {
        let connection = &mut self.connections[n];
        let Some(stream) = connection.stream.as_mut().filter(|_| connection.is_up) else { return };
        while !connection.pipe.unsent().is_empty() {
            match stream.write(connection.pipe.unsent()) {
                Ok(sent) => connection.pipe.sent(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.give_up(n),
            }
        }
    }

    /// A connection is of no more use: what was asked on it is lost, and it is made anew later.
    fn give_up(&mut self, n: usize) {
        let (connection, before) = (&mut self.connections[n], self.tally.failures());
        connection.pipe.lose(BROKEN, self.workload, &mut self.tally);
        (connection.stream, connection.is_up) = (None, false);
        connection.retry_at = self.clock.now().saturating_add(RECONNECT_EVERY);
        self.progress.errors.fetch_add(self.tally.failures() - before, Ordering::Relaxed);
    }

    /// Begins to connect again where it is time.
    fn reconnect(&mut self) {
        if self.connections.iter().all(|connection| connection.stream.is_some()) {
            return;
        }
        let now = self.clock.now();
        for n in 0..self.connections.len() {
            let connection = &mut self.connections[n];
            if connection.stream.is_some() || connection.retry_at > now {
                continue;
            }
            let made = TcpStream::connect(connection.address).and_then(|mut stream| {
                self.poll.registry().register(&mut stream, Token(n), Interest::READABLE | Interest::WRITABLE)?;
                Ok(stream)
            });
            match made {
                Ok(stream) => connection.stream = Some(stream),
                Err(_) => connection.retry_at = now + RECONNECT_EVERY,
            }
        }
    }
}
