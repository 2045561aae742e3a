//! One client connection's own state, and the commands it answers from it. Never does I/O or reads a clock: facts come in. Tested in `session/tests.rs`.

use bytes::Bytes;

use super::command::{Command, ParseError};
use super::control::{ClientFilter, ClientKind, KillFilter, Pause, Replies};
use super::info::Sections;
use super::settings::{self, Change};
use super::slowlog::SlowAsk;
use super::topology::ClusterAsk;
use super::value::Value;
use crate::base::hlc::UnixMs;
use crate::base::level::Level;
use crate::base::reply::Wire;

#[cfg(test)]
mod tests;

/// The Redis version we are compatible with. Clients choose features by it; `INFO` tells ours as `trellis_version`.
pub const REDIS_VERSION: &str = "7.2.0";

/// The only user there is while no password is configured.
const DEFAULT_USER: &[u8] = b"default";

/// What a connection of version 2 that has subscribed to something may ask for.
const LISTENING: [&str; 9] =
    ["ping", "subscribe", "ssubscribe", "unsubscribe", "sunsubscribe", "psubscribe", "punsubscribe", "quit", "reset"];

/// A command the connection answers itself.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionCommand {
    /// The answer depends on nothing.
    Answer(Value),
    /// `PING`.
    Ping(Option<Bytes>),
    /// `HELLO`.
    Hello(Hello),
    /// `AUTH`.
    Auth {
        /// The default user unless named.
        user: Option<Bytes>,
        /// As sent.
        password: Bytes,
    },
    /// `QUIT`.
    Quit,
    /// `RESET`.
    Reset,
    /// `CLIENT ID`.
    ClientId,
    /// `CLIENT GETNAME`.
    ClientName,
    /// `CLIENT SETNAME`; empty removes it.
    ClientSetName(Bytes),
    /// `CLIENT SETINFO lib-name`.
    ClientLibName(Bytes),
    /// `CLIENT SETINFO lib-ver`.
    ClientLibVersion(Bytes),
    /// `CLIENT INFO`.
    ClientInfo,
    /// `CLIENT LIST`.
    ClientList(ClientFilter),
    /// `INFO` of these sections.
    Info(Vec<Bytes>),
    /// `CONFIG GET` of these patterns.
    ConfigGet(Vec<Bytes>),
    /// `TIME`.
    Time,
    /// `TRELLIS CONSISTENCY`; `None` asks.
    Consistency(Option<Level>),
    /// `CLUSTER`, as far as it is about members.
    Cluster(ClusterAsk),
    /// `CLIENT KILL`.
    ClientKill(KillFilter),
    /// `CLIENT PAUSE`.
    ClientPause(Pause),
    /// `CLIENT UNPAUSE`.
    ClientUnpause,
    /// `CLIENT REPLY`.
    ClientReply(Replies),
    /// `CONFIG SET` of these names and values.
    ConfigSet(Vec<(Bytes, Bytes)>),
    /// `CONFIG RESETSTAT`.
    ResetStatistics,
    /// `SLOWLOG`.
    SlowLog(SlowAsk),
    /// `LATENCY HISTOGRAM` of these commands, or of all.
    Histograms(Vec<Bytes>),
}

/// Arguments of `HELLO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The version asked for.
    pub wire: Option<Wire>,
    /// User and password.
    pub auth: Option<(Bytes, Bytes)>,
    /// The connection's name.
    pub name: Option<Bytes>,
}

impl SessionCommand {
    /// Whether its reply is heard by a client that has said it wants none: from then on it does.
    pub fn unmutes(&self) -> bool {
        matches!(self, Self::ClientReply(Replies::On) | Self::Reset)
    }
}

/// What a session needs to know of the world to answer.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Microseconds since the Unix epoch.
    pub now_us: u64,
    /// Settings as `CONFIG GET` shows them, names in lower case.
    pub config: &'a [(String, String)],
}

impl Facts<'_> {
    fn now(&self) -> UnixMs {
        self.now_us / 1000
    }
}

/// What comes of a session command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Answer this.
    Reply(Value),
    /// Answer this, then close.
    Close(Value),
    /// Answer [`info::render`](super::info::render) of these sections, as [`Value::Verbatim`].
    Info(Sections),
    /// Answer the [`Session::line`]s of these connections, as [`Value::Verbatim`].
    Clients(ClientFilter),
    /// Answer this of the [`Topology`](super::topology::Topology).
    Cluster(ClusterAsk),
    /// End these connections and answer how many they were.
    Kill(KillFilter),
    /// Hold this node's clients up, or no longer; answer `+OK`.
    Pause(Option<Pause>),
    /// Answer nothing.
    Nothing,
    /// Make these changes to the settings and answer `+OK`.
    Change(Vec<Change>),
    /// Let `INFO` count from now on and answer `+OK`.
    ResetStatistics,
    /// Answer from the slow log.
    SlowLog(SlowAsk),
    /// Answer the latencies of these commands, or of all.
    Histograms(Vec<Bytes>),
}

/// A client connection's state.
#[derive(Clone, Debug)]
pub struct Session {
    id: u64,
    addr: String,
    laddr: String,
    name: Bytes,
    lib_name: Bytes,
    lib_version: Bytes,
    wire: Wire,
    level: Level,
    level_default: Level,
    created: UnixMs,
    last_active: UnixMs,
    last_command: &'static str,
    /// Commands queued since `MULTI`.
    queued: Option<usize>,
    /// What it has subscribed to, by kind.
    subscribed: [usize; 3],
    replies: Replies,
}

impl Session {
    /// The state of a connection accepted at `now` from `addr` on `laddr` (a path and `:0` for a Unix socket).
    pub fn new(id: u64, addr: String, laddr: String, level: Level, now: UnixMs) -> Self {
        Self {
            id,
            addr,
            laddr,
            name: Bytes::new(),
            lib_name: Bytes::new(),
            lib_version: Bytes::new(),
            wire: Wire::default(),
            level,
            level_default: level,
            created: now,
            last_active: now,
            last_command: "NULL",
            queued: None,
            subscribed: [0; 3],
            replies: Replies::On,
        }
    }

    /// Its number, unique on this node.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How to encode its replies.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Sets both at once, for a command that arrived inside another protocol.
    pub fn speak(&mut self, wire: Wire, level: Level) {
        self.wire = wire;
        self.level = level;
    }

    /// Which replies it gets.
    pub fn replies(&self) -> Replies {
        self.replies
    }

    /// Notes that the reply to be skipped was.
    pub fn skipped(&mut self) {
        self.replies = Replies::On;
    }

    /// Whether `CLIENT KILL` means it.
    pub fn fits(&self, filter: &KillFilter) -> bool {
        filter.fits(self.id, (&self.addr, &self.laddr), self.kind())
    }

    /// What kind of client it is.
    pub fn kind(&self) -> ClientKind {
        if self.listens() { ClientKind::PubSub } else { ClientKind::Normal }
    }

    /// Whether it has subscribed to anything.
    pub fn listens(&self) -> bool {
        self.subscribed != [0; 3]
    }

    /// Notes what it has subscribed to, by kind.
    pub fn note_subscribed(&mut self, subscribed: [usize; 3]) {
        self.subscribed = subscribed;
    }

    /// The refusal of a command by a connection that gets messages among its replies and could not tell them apart: version 2 has one kind
    /// of answer.
    pub fn refuses(&self, command: &'static Command) -> Option<ParseError> {
        if !self.listens() || self.wire != Wire::Resp2 || LISTENING.contains(&command.name) {
            return None;
        }
        let word = if command.name == "exec" { "EXECABORT Transaction discarded because of:" } else { "ERR" };
        let text = format!(
            "{word} Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            command.name
        );
        Some(ParseError { command: Some(command), text: text.into(), is_late: false })
    }

    /// The level of its requests.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Its client's address and what that calls itself, for the slow log.
    pub fn client(&self) -> (String, Bytes) {
        (self.addr.clone(), self.name.clone())
    }

    /// When it last sent a command.
    pub fn last_active(&self) -> UnixMs {
        self.last_active
    }

    /// Notes the last command of a batch, by its full name, for `CLIENT LIST`.
    pub fn note(&mut self, command: &'static str, now: UnixMs) {
        self.last_command = command;
        self.last_active = now;
    }

    /// Notes how many commands a transaction has queued, if there is one, for `CLIENT LIST`.
    pub fn note_queued(&mut self, queued: Option<usize>) {
        self.queued = queued;
    }

    /// Does what `command` asks.
    pub fn execute(&mut self, command: SessionCommand, facts: &Facts<'_>) -> Outcome {
        Outcome::Reply(match command {
            SessionCommand::Answer(value) => value,
            SessionCommand::Ping(text) if self.listens() && self.wire == Wire::Resp2 => {
                Value::Array(vec![Value::bulk("pong"), Value::Bulk(text.unwrap_or_default())])
            }
            SessionCommand::Ping(None) => Value::simple("PONG"),
            SessionCommand::Ping(Some(text)) => Value::Bulk(text),
            SessionCommand::Hello(hello) => self.hello(hello),
            SessionCommand::Auth { user, .. } => authenticate(user.as_deref()),
            SessionCommand::Quit => return Outcome::Close(Value::OK),
            SessionCommand::Reset => {
                self.replies = Replies::On;
                self.name = Bytes::new();
                self.wire = Wire::default();
                self.level = self.level_default;
                Value::simple("RESET")
            }
            SessionCommand::ClientId => Value::Int(i64::try_from(self.id).unwrap_or(i64::MAX)),
            SessionCommand::ClientName if self.name.is_empty() => Value::Null,
            SessionCommand::ClientName => Value::Bulk(self.name.clone()),
            SessionCommand::ClientSetName(name) => set(&mut self.name, &name),
            SessionCommand::ClientLibName(name) => set(&mut self.lib_name, &name),
            SessionCommand::ClientLibVersion(version) => set(&mut self.lib_version, &version),
            SessionCommand::ClientInfo => Value::Verbatim(self.line(facts.now()).into()),
            SessionCommand::ClientList(filter) => return Outcome::Clients(filter),
            SessionCommand::Info(names) => return Outcome::Info(Sections::named(&names)),
            SessionCommand::ConfigGet(patterns) => settings::matching(&patterns, facts.config),
            SessionCommand::Time => {
                let part = |number: u64| Value::Bulk(number.to_string().into());
                Value::Array(vec![part(facts.now_us / 1_000_000), part(facts.now_us % 1_000_000)])
            }
            SessionCommand::Consistency(None) => Value::Bulk(self.level.to_string().into()),
            SessionCommand::ConfigSet(pairs) => match settings::changes(&pairs, facts.config) {
                Ok(changes) => return Outcome::Change(changes),
                Err(error) => error,
            },
            SessionCommand::ResetStatistics => return Outcome::ResetStatistics,
            SessionCommand::SlowLog(ask) => return Outcome::SlowLog(ask),
            SessionCommand::Histograms(names) => return Outcome::Histograms(names),
            SessionCommand::ClientKill(filter) => return Outcome::Kill(filter),
            SessionCommand::ClientPause(pause) => return Outcome::Pause(Some(pause)),
            SessionCommand::ClientUnpause => return Outcome::Pause(None),
            SessionCommand::ClientReply(replies) => return self.reply(replies),
            SessionCommand::Cluster(ask) => return Outcome::Cluster(ask),
            SessionCommand::Consistency(Some(level)) => {
                self.level = level;
                Value::OK
            }
        })
    }

    /// Who wants none does not skip one.
    fn reply(&mut self, replies: Replies) -> Outcome {
        if (self.replies, replies) != (Replies::Off, Replies::SkipNext) {
            self.replies = replies;
        }
        if replies == Replies::On { Outcome::Reply(Value::OK) } else { Outcome::Nothing }
    }

    /// The connection's line in `CLIENT LIST`, line end included.
    pub fn line(&self, now: UnixMs) -> String {
        let seconds = |since: UnixMs| now.saturating_sub(since) / 1000;
        format!(
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db=0 sub={} psub={} ssub={} multi={} qbuf=0 qbuf-free=0 \
             argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} user=default redir=-1 resp={} \
             lib-name={} lib-ver={}\n",
            self.id,
            self.addr,
            self.laddr,
            self.name.escape_ascii(),
            seconds(self.created),
            seconds(self.last_active),
            match (self.listens(), self.queued.is_some()) {
                (false, false) => "N",
                (true, false) => "P",
                (false, true) => "x",
                (true, true) => "Px",
            },
            self.subscribed[0],
            self.subscribed[1],
            self.subscribed[2],
            self.queued.map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX)),
            self.last_command,
            version(self.wire),
            self.lib_name.escape_ascii(),
            self.lib_version.escape_ascii(),
        )
    }

    /// A name is set even when authentication then fails, as in Redis.
    fn hello(&mut self, hello: Hello) -> Value {
        if let Some(name) = hello.name {
            set(&mut self.name, &name);
        }
        if let Some((user, _)) = &hello.auth {
            let answer = authenticate(Some(user));
            if answer != Value::OK {
                return answer;
            }
        }
        if let Some(wire) = hello.wire {
            self.wire = wire;
        }
        let fields = [
            ("server", Value::bulk("redis")),
            ("version", Value::bulk(REDIS_VERSION)),
            ("proto", Value::Int(version(self.wire))),
            ("id", Value::Int(i64::try_from(self.id).unwrap_or(i64::MAX))),
            ("mode", Value::bulk("standalone")),
            ("role", Value::bulk("master")),
            ("modules", Value::Array(Vec::new())),
        ];
        Value::Map(fields.into_iter().map(|(name, value)| (Value::bulk(name), value)).collect())
    }
}

/// Keeps a copy of its own: the argument shares its batch's buffer, which a connection must not hold for life.
fn set(field: &mut Bytes, text: &[u8]) -> Value {
    *field = Bytes::copy_from_slice(text);
    Value::OK
}

fn version(wire: Wire) -> i64 {
    match wire {
        Wire::Resp2 => 2,
        Wire::Resp3 | Wire::Item => 3,
    }
}

/// No password is configured: the default user needs none, and there is no other.
fn authenticate(user: Option<&[u8]>) -> Value {
    match user {
        None => Value::error(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        ),
        Some(DEFAULT_USER) => Value::OK,
        Some(_) => Value::error("WRONGPASS invalid username-password pair or user is disabled."),
    }
}
