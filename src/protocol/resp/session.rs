//! One client connection's own state, and the commands it answers from it. Never does I/O or reads a clock: facts come in. Tested below.

use bytes::Bytes;

use super::control::{ClientFilter, KillFilter, Pause, Replies};
use super::info::Sections;
use super::settings::{self, Change};
use super::slowlog::SlowAsk;
use super::topology::ClusterAsk;
use super::value::Value;
use crate::base::hlc::UnixMs;
use crate::base::level::Level;
use crate::base::reply::Wire;

/// The Redis version we are compatible with. Clients choose features by it; `INFO` tells ours as `trellis_version`.
pub const REDIS_VERSION: &str = "7.2.0";

/// The only user there is while no password is configured.
const DEFAULT_USER: &[u8] = b"default";

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
        filter.fits(self.id, &self.addr, &self.laddr)
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
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi={} qbuf=0 qbuf-free=0 \
             argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} user=default redir=-1 resp={} \
             lib-name={} lib-ver={}\n",
            self.id,
            self.addr,
            self.laddr,
            self.name.escape_ascii(),
            seconds(self.created),
            seconds(self.last_active),
            if self.queued.is_some() { "x" } else { "N" },
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

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(7, "127.0.0.1:5".into(), "127.0.0.1:6".into(), Level::One, 1_000)
    }

    fn reply(session: &mut Session, command: SessionCommand) -> Value {
        let config =
            [("maxmemory".to_owned(), "0".to_owned()), ("maxmemory-policy".to_owned(), "allkeys-lru".to_owned())];
        match session.execute(command, &Facts { now_us: 5_000_042, config: &config }) {
            Outcome::Reply(value) => value,
            other => panic!("{other:?}"),
        }
    }

    fn shown(value: &Value, wire: Wire) -> String {
        let mut out = Vec::new();
        value.encode(wire, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hello_switches_the_version_and_says_who_we_are() {
        let mut session = session();
        let hello = Hello { wire: Some(Wire::Resp3), name: Some("bob".into()), auth: None };
        let value = reply(&mut session, SessionCommand::Hello(hello));
        assert_eq!(session.wire(), Wire::Resp3);
        assert_eq!(
            shown(&value, session.wire()),
            "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n\
             $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
        );
        assert_eq!(reply(&mut session, SessionCommand::ClientName), Value::bulk("bob"));
        assert_eq!(reply(&mut session, SessionCommand::Reset), Value::simple("RESET"));
        assert_eq!(session.wire(), Wire::Resp2);
        assert_eq!(reply(&mut session, SessionCommand::ClientName), Value::Null);
    }

    #[test]
    fn a_wrong_user_is_refused_and_leaves_the_version() {
        let mut session = session();
        let hello = Hello { wire: Some(Wire::Resp3), auth: Some(("x".into(), "y".into())), name: None };
        let value = reply(&mut session, SessionCommand::Hello(hello));
        assert_eq!(value, Value::error("WRONGPASS invalid username-password pair or user is disabled."));
        assert_eq!(session.wire(), Wire::Resp2);
        let default = SessionCommand::Auth { user: Some("default".into()), password: "x".into() };
        assert_eq!(reply(&mut session, default), Value::OK);
    }

    #[test]
    fn a_level_lasts_until_reset() {
        let mut session = session();
        assert_eq!(reply(&mut session, SessionCommand::Consistency(Some(Level::All))), Value::OK);
        assert_eq!(reply(&mut session, SessionCommand::Consistency(None)), Value::bulk("all"));
        reply(&mut session, SessionCommand::Reset);
        assert_eq!(session.level(), Level::One);
    }

    #[test]
    fn a_client_that_wants_no_replies_does_not_skip_one() {
        let mut session = session();
        let facts = Facts { now_us: 0, config: &[] };
        for (asked, outcome, after) in [
            (Replies::SkipNext, Outcome::Nothing, Replies::SkipNext),
            (Replies::Off, Outcome::Nothing, Replies::Off),
            (Replies::SkipNext, Outcome::Nothing, Replies::Off),
            (Replies::On, Outcome::Reply(Value::OK), Replies::On),
        ] {
            assert_eq!(session.execute(SessionCommand::ClientReply(asked), &facts), outcome);
            assert_eq!(session.replies(), after);
        }
    }

    #[test]
    fn quitting_answers_first() {
        let facts = Facts { now_us: 0, config: &[] };
        assert_eq!(session().execute(SessionCommand::Quit, &facts), Outcome::Close(Value::OK));
    }

    #[test]
    fn settings_are_found_by_name_and_pattern_once() {
        let mut session = session();
        let mut ask = |patterns: &[&'static str]| {
            let patterns = patterns.iter().map(|pattern| Bytes::from(*pattern)).collect();
            shown(&reply(&mut session, SessionCommand::ConfigGet(patterns)), Wire::Resp2)
        };
        assert_eq!(ask(&["MAXMEMORY"]), "*2\r\n$9\r\nMAXMEMORY\r\n$1\r\n0\r\n");
        let both = "*4\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n$16\r\nmaxmemory-policy\r\n$11\r\nallkeys-lru\r\n";
        assert_eq!(ask(&["maxmemory", "MAX*", "foo"]), both);
        assert_eq!(ask(&["foo"]), "*0\r\n");
    }

    #[test]
    fn time_is_two_numbers_as_text() {
        assert_eq!(
            reply(&mut session(), SessionCommand::Time),
            Value::Array(vec![Value::bulk("5"), Value::bulk("42")])
        );
    }

    #[test]
    fn a_client_line_names_the_connection_and_its_last_command() {
        let mut session = session();
        session.note("client|list", 2_500);
        session.note_queued(Some(3));
        assert!(session.line(5_000).contains(" flags=x db=0 sub=0 psub=0 ssub=0 multi=3 "));
        session.note_queued(None);
        reply(&mut session, SessionCommand::ClientLibName("lib".into()));
        let line = session.line(5_000);
        assert!(
            line.starts_with("id=7 addr=127.0.0.1:5 laddr=127.0.0.1:6 fd=-1 name= age=4 idle=2 flags=N db=0 "),
            "{line}"
        );
        assert!(line.ends_with(" cmd=client|list user=default redir=-1 resp=2 lib-name=lib lib-ver=\n"), "{line}");
    }
}
