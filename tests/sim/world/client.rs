//! Clients: each speaks RESP to one node at a time, at one level, and writes down what it asked and was told.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trellis::base::level::Level;
use trellis::protocol::resp::read::ReplyReader;
use trellis::protocol::resp::value::Value;
use turmoil::net::TcpStream;

use super::dice::Dice;
use super::history::{Action, Event, History, Told};

/// A client gives an answer up after this long.
const PATIENCE: Duration = Duration::from_millis(2_500);
const DIAL_PATIENCE: Duration = Duration::from_millis(200);

/// What all clients of a run share.
pub(crate) struct Load {
    /// What they observe.
    pub(crate) history: History,
    /// Nodes they may talk to.
    pub(crate) targets: RefCell<Vec<SocketAddr>>,
    /// No new operations.
    pub(crate) stopped: Cell<bool>,
    /// Workers that have not ended.
    pub(crate) running: Cell<usize>,
    /// Where everything is drawn from.
    pub(crate) seed: u64,
}

/// Simulated time.
pub(crate) fn now_us() -> u64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_micros() as u64)
}

struct Connection {
    stream: TcpStream,
    buf: BytesMut,
    reader: ReplyReader,
}

impl Connection {
    async fn open(to: SocketAddr, level: Level) -> io::Result<Self> {
        let stream = tokio::time::timeout(DIAL_PATIENCE, TcpStream::connect(to)).await.map_err(|_| timed_out())??;
        let mut connection = Self { stream, buf: BytesMut::new(), reader: ReplyReader::new(1 << 20) };
        let consistency = level.to_string();
        let told = tokio::time::timeout(PATIENCE, connection.call(&["TRELLIS", "CONSISTENCY", &consistency])).await;
        match told.map_err(|_| timed_out())?? {
            Value::Simple(_) => Ok(connection),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    async fn call(&mut self, parts: &[&str]) -> io::Result<Value> {
        let mut command = format!("*{}\r\n", parts.len());
        for part in parts {
            command.push_str(&format!("${}\r\n{part}\r\n", part.len()));
        }
        self.stream.write_all(command.as_bytes()).await?;
        loop {
            if let Some(value) = self.reader.next(&mut self.buf).map_err(io::Error::other)? {
                return Ok(value);
            }
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// One client at work.
pub(crate) struct Worker {
    load: Rc<Load>,
    number: usize,
    level: Level,
    dice: Dice,
    connection: Option<Connection>,
    /// Members of the set that it wrote.
    members: Vec<String>,
}

impl Worker {
    /// Number `number` of them.
    pub(crate) fn new(load: Rc<Load>, number: usize, level: Level) -> Self {
        load.running.set(load.running.get() + 1);
        let dice = Dice::new(load.seed, &format!("client {number}"));
        Self { load, number, level, dice, connection: None, members: Vec::new() }
    }

    /// Works until told to stop.
    pub(crate) async fn work(mut self, pace_ms: Rc<Cell<u64>>) {
        while !self.load.stopped.get() {
            let (key, action) = self.choose();
            self.act(key, action).await;
            self.rest(pace_ms.get()).await;
        }
        self.load.running.set(self.load.running.get() - 1);
    }

    /// Sleeps up to `longest_ms`, in steps short enough to hear of the end.
    async fn rest(&mut self, longest_ms: u64) {
        let mut left = self.dice.of(1..longest_ms + 1);
        while left > 0 && !self.load.stopped.get() {
            let step = left.min(1_000);
            tokio::time::sleep(Duration::from_millis(step)).await;
            left -= step;
        }
    }

    /// Reads every key, as often as it takes to be answered, a bounded number of times.
    pub(crate) async fn read_all(mut self, keys: Vec<String>) {
        for key in keys {
            for _ in 0..20 {
                if self.act(key.clone(), Action::Get).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.load.running.set(self.load.running.get() - 1);
    }

    /// Keys are named by what is done to them: `r` registers, `c` counters, `d` set once and deleted, `e` set once with a deadline, `s` members of
    /// a set, each a key that is written once; with `q` or `o` for the level, because one level's promises do not hold for keys that the other writes.
    fn choose(&mut self) -> (String, Action) {
        let level = if self.level == Level::One { 'o' } else { 'q' };
        let (kind, reads) = (self.dice.of(0..12), self.dice.chance(50));
        let fresh = |load: &Load| format!("v{}", load.history.fresh());
        match kind {
            0..5 => {
                let key = format!("r{level}{}", self.dice.of(0..8));
                (key, if reads { Action::Get } else { Action::Set(fresh(&self.load)) })
            }
            5..7 => {
                let key = format!("c{level}{}", self.dice.of(0..4));
                (key, if self.dice.chance(20) { Action::Get } else { Action::Increment })
            }
            7..9 => {
                let key = format!("d{level}{}", self.dice.of(0..40));
                let act = self.dice.of(0..3);
                let action = if act == 0 { Action::Set(fresh(&self.load)) } else { Action::Delete };
                (key, if act == 2 { Action::Get } else { action })
            }
            9..11 if reads && !self.members.is_empty() => {
                let member = self.dice.of(0..self.members.len() as u64) as usize;
                (self.members[member].clone(), Action::Get)
            }
            9..11 => {
                let value = fresh(&self.load);
                self.members.push(format!("s{level}{value}"));
                (format!("s{level}{value}"), Action::Set(value))
            }
            _ => {
                let key = format!("e{level}{}", self.dice.of(0..20));
                let ms = self.dice.of(100..8_000);
                (key, if reads { Action::Get } else { Action::SetFor(fresh(&self.load), ms) })
            }
        }
    }

    /// Does one thing; whether it was answered.
    async fn act(&mut self, key: String, action: Action) -> bool {
        let asked_us = now_us();
        let told = match self.connected().await {
            Ok(()) => self.ask(&key, &action).await,
            Err(error) => Told::Refused(format!("no connection: {}", error.kind())),
        };
        let done = matches!(told, Told::Done(_));
        self.load.history.push(Event { worker: self.number, key, action, asked_us, told_us: now_us(), told });
        done
    }

    async fn connected(&mut self) -> io::Result<()> {
        // Now and then somebody else, so that every node gets to answer for every key.
        if self.connection.is_some() && self.dice.chance(95) {
            return Ok(());
        }
        let targets = self.load.targets.borrow().clone();
        if targets.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let to = self.dice.pick(&targets);
        self.connection = None;
        self.connection = Some(Connection::open(to, self.level).await?);
        Ok(())
    }

    async fn ask(&mut self, key: &str, action: &Action) -> Told {
        let connection = self.connection.as_mut().expect("just connected");
        let ms;
        let parts: Vec<&str> = match action {
            Action::Set(value) => vec!["SET", key, value],
            Action::SetFor(value, px) => {
                ms = px.to_string();
                vec!["SET", key, value, "PX", &ms]
            }
            Action::Get => vec!["GET", key],
            Action::Delete => vec!["DEL", key],
            Action::Increment => vec!["INCR", key],
        };
        let answer = tokio::time::timeout(PATIENCE, connection.call(&parts)).await.unwrap_or_else(|_| Err(timed_out()));
        match answer {
            Ok(Value::Error(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let unsure =
                    (text.starts_with("NOQUORUM") || text.starts_with("TIMEOUT")) && !text.ends_with("applied: no");
                if unsure { Told::Unknown(text) } else { Told::Refused(text) }
            }
            Ok(Value::Null) => Told::Done(None),
            Ok(Value::Int(n)) => Told::Done(Some(n.to_string())),
            Ok(Value::Bulk(text) | Value::Simple(text)) => {
                Told::Done(Some(String::from_utf8_lossy(&text).into_owned()))
            }
            Ok(other) => Told::Unknown(format!("{other:?}")),
            Err(error) => {
                self.connection = None;
                Told::Unknown(format!("no answer: {}", error.kind()))
            }
        }
    }
}
