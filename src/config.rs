//! The settings of a node, checked. A `Config` cannot be wrong: every value is in its range and fits the others, so the rest of the house
//! trusts it. Never reads a file, an argument, the environment or the machine (`options` does). Tested in `config/tests.rs`.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::id::{ClusterName, NodeId, Zone};
use crate::base::level::Level;
use crate::base::limits;
use crate::base::notify::Classes;

mod address;
mod memcached;
pub mod quantity;
mod settings;
#[cfg(test)]
mod tests;

pub use memcached::Memcached;
pub use settings::Settings;

use address::{advertise, host};
use quantity::{parse_duration, parse_duration_or_ms, parse_size};

/// The admin port is this far above the main port unless named.
pub const ADMIN_PORT_OFFSET: u16 = 10_000;
/// Tokens one member may put on the circle: `vnodes` times `weight`.
pub const TOKENS_PER_MEMBER_MAX: u64 = 65_536;
/// Heartbeat intervals there may be, in milliseconds. Probes any denser are noise.
pub const HEARTBEAT_MS: RangeInclusive<u64> = 40..=600_000;
/// Failure timeouts there may be, in milliseconds: longer than the jitter of a busy machine, shorter than anyone's patience.
pub const FAILURE_MS: RangeInclusive<u64> = 200..=3_600_000;
/// Clients at once unless told otherwise.
pub const CONNECTIONS_DEFAULT: usize = 20_000;
/// Seeds that may be named. One that answers is enough.
pub const SEEDS_MAX: usize = 128;
/// Least there may be as the longest value. The limit is one on every argument of a command, and keys are that long.
pub const VALUE_BYTES_LEAST: u64 = limits::KEY_BYTES_MAX as u64;
/// Least memory budget of a thread: below it a few long keys, or the traces of deleted ones, leave no room for anything.
pub const MEMORY_BYTES_PER_THREAD_MIN: u64 = 1024 * 1024;
/// `sun_path` of Linux without its closing zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Options that have their name today and their meaning in a later version. Refused: an option that does nothing would be a lie.
const LATER: [&str; 9] = [
    "data-dir",
    "fsync",
    "password-file",
    "users-file",
    "tls-cert",
    "tls-key",
    "tls-ca",
    "cluster-key-file",
    "insecure",
];

/// How many members hold each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// This many, or every member where there are fewer. Never 0.
    Copies(u8),
    /// Every member with weight: clone mode.
    All,
}

impl Replication {
    /// Replicas of each key where `members` have weight.
    pub fn copies(self, members: usize) -> usize {
        match self {
            Self::Copies(n) => members.min(usize::from(n)),
            Self::All => members,
        }
    }
}

/// What happens to a write that does not fit the memory budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The least recently used entries go.
    Lru,
    /// The write is refused with `OOM`.
    Refuse,
}

/// Where the admin endpoint listens, on the node's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminPort {
    /// Nowhere.
    Off,
    /// On any free port; the ready line and the member list say which.
    Free,
    /// Here.
    At(u16),
}

/// What other members and cluster-aware clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// `None` is the port that was bound.
    pub port: Option<u16>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything a node is told before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bound for clients, peers and gossip. Default: 127.0.0.1, because there is no password yet.
    pub host: IpAddr,
    /// Main port (TCP, and UDP for gossip); 0 takes a free one.
    pub port: u16,
    /// Given whenever `host` is unspecified; else `None` is the bound address.
    pub advertise: Option<Advertise>,
    /// Default: `port` + 10000; a free one where `port` is 0 or the sum is no port.
    pub admin: AdminPort,
    /// For memcached clients. Default: none, there is no such listener.
    pub memcached: Option<Memcached>,
    /// Nodes of another name are refused. Default: `trellis`.
    pub cluster_name: ClusterName,
    /// The main port's protocols on a Unix socket as well. At most 107 bytes.
    pub unix: Option<PathBuf>,
    /// Default: 3, the least at which a quorum survives one crash. Must be equal on all members.
    pub replication: Replication,
    /// What a request that names no level gets. Default: one, as people who come from Redis expect.
    pub consistency: Level,
    /// Byte budget of the store over all threads, in equal parts of at least 1 MiB; `None` is no limit, the default.
    pub memory_bytes_max: Option<u64>,
    /// Default: lru.
    pub eviction: Eviction,
    /// Bytes for hints over all threads, in equal parts; 0 is none at all. Default 64 MiB: half a million keys that members missed.
    pub hints_bytes_max: u64,
    /// Longest value. Default 64 MiB, at least 64 KiB, at most 512 MiB.
    pub value_bytes_max: usize,
    /// Client connections at once; more are refused. Default 20,000: about 1 GiB of socket buffers at worst. Peers have their own pool.
    pub connections_max: usize,
    /// A client that has nothing outstanding and sends nothing for this long is disconnected. Default `None`, never, because connection pools
    /// keep idle connections and Redis does. A client in the middle of a request or of its replies is under the fixed limits
    /// `CLIENT_REQUEST_TIMEOUT` and `CLIENT_STALL_TIMEOUT` whatever is set here.
    pub client_timeout: Option<Duration>,
    /// Classes of events of keys that subscribers at this node are told of. Default: none, as in Redis, because they cost each write.
    pub notify: Classes,
    /// Data arbiters, each with its router and its store shard. Default: the cores of the machine.
    pub threads: usize,
    /// Virtual nodes per unit of weight. Default 128: more spread shares more evenly and make the ring dearer to build.
    pub vnodes: u16,
    /// Share of the ring. Default 1; 0 is a gateway that holds nothing.
    pub weight: u16,
    /// Replicas go to different zones first.
    pub zone: Option<Zone>,
    /// Gossip probe period. Default 1 s. Shorter sees a crash sooner and costs packets.
    pub heartbeat_interval: Duration,
    /// A member silent for this long is down, at the latest. Default 5 s, always above `heartbeat_interval`.
    pub failure_timeout: Duration,
    /// A member down for this long loses its place in the ring; `None` never. Default 10 min, always above `failure_timeout`.
    pub forget_after: Option<Duration>,
    /// `None` draws a random one.
    pub node_id: Option<NodeId>,
    /// Default: text.
    pub log_format: LogFormat,
    /// Members to join through, `host:port`. The node's own address among them does no harm.
    pub seeds: Vec<String>,
}

/// Why settings were refused. Every text is one line and names the option.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// There is no default for the port.
    #[error("a port is needed: trellis <port> [seed ...]")]
    NoPort,
    /// The text is not a value of its option.
    #[error("{name}: `{value}` is not {expected}")]
    BadValue {
        /// The option.
        name: &'static str,
        /// What was given, shortened and without control characters.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// The number is out of range.
    #[error("{name}: {value} is not within {min} to {max}")]
    OutOfRange {
        /// The option.
        name: &'static str,
        /// What was given.
        value: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// The option has its name already and its meaning in a later version.
    #[error("{name} is not available in this version")]
    Later {
        /// The option.
        name: &'static str,
    },
    /// Nobody can connect to an unspecified address.
    #[error("host {host} needs advertise: others must be told an address they can reach")]
    AdvertiseNeeded {
        /// The address to bind.
        host: IpAddr,
    },
    /// Two listeners on one port.
    #[error("{name} {port} is another listener's: give it another")]
    SamePort {
        /// The option.
        name: &'static str,
        /// The port.
        port: u16,
    },
    /// A live member would be called down between two probes.
    #[error("heartbeat-interval ({heartbeat:?}) must be below failure-timeout ({failure:?})")]
    HeartbeatTooLong {
        /// The probe period.
        heartbeat: Duration,
        /// The time a silent member has.
        failure: Duration,
    },
    /// A member would be forgotten before it is called down.
    #[error("forget-after ({forget:?}) must be above failure-timeout ({failure:?}), or 0 for never")]
    ForgetTooSoon {
        /// The time a member that is down has.
        forget: Duration,
        /// The time a silent member has.
        failure: Duration,
    },
    /// Hardly anything could be stored.
    #[error(
        "max-memory ({memory_bytes} bytes) is less than 1mb for each of the threads ({threads}): give more, fewer threads, or 0 for no limit"
    )]
    MemoryTooSmall {
        /// The budget.
        memory_bytes: u64,
        /// Those who share it.
        threads: usize,
    },
    /// The ring would be too large.
    #[error("vnodes ({vnodes}) times weight ({weight}) is more than {TOKENS_PER_MEMBER_MAX}")]
    TooManyTokens {
        /// Virtual nodes per unit of weight.
        vnodes: u16,
        /// The weight.
        weight: u16,
    },
}

/// Names of all settings that have their meaning in this version, those of the file.
pub fn available() -> impl Iterator<Item = &'static str> {
    Settings::NAMES.iter().copied().filter(|name| !LATER.contains(name))
}

impl Config {
    /// Checks `settings` and fills in the defaults. `cores` is what the machine has, for `threads`.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn new(settings: &Settings, cores: usize) -> Result<Self, ConfigError> {
        if let Some((name, _)) = settings.given().find(|(name, _)| LATER.contains(name)) {
            return Err(ConfigError::Later { name });
        }
        let s = settings;
        let port = number("port", s.port.as_deref().ok_or(ConfigError::NoPort)?, 0..=u16::MAX)?;
        let config = Self {
            host: or("host", &s.host, Ipv4Addr::LOCALHOST.into(), "an IP address", host)?,
            port,
            advertise: option("advertise", &s.advertise, "host or host:port", advertise)?,
            admin: admin(s.admin_port.as_deref(), port)?,
            memcached: Memcached::new(s)?,
            cluster_name: or("cluster-name", &s.cluster_name, default_cluster(), NAME, |t| t.parse().ok())?,
            unix: option("unix", &s.unix, "a path of 1 to 107 bytes", unix_path)?,
            replication: or(
                "replication-factor",
                &s.replication_factor,
                Replication::Copies(3),
                REPLICATION,
                replication,
            )?,
            consistency: or("consistency", &s.consistency, Level::One, "one, quorum or all", |t| t.parse().ok())?,
            memory_bytes_max: or("max-memory", &s.max_memory, 0, SIZE, parse_size).map(|n| (n > 0).then_some(n))?,
            eviction: or("eviction", &s.eviction, Eviction::Lru, EVICTION, eviction)?,
            hints_bytes_max: or("max-hints", &s.max_hints, limits::HINTS_BYTES_DEFAULT, SIZE, parse_size)?,
            value_bytes_max: value_bytes_max(s.max_value_size.as_deref())?,
            connections_max: number_or("max-connections", &s.max_connections, CONNECTIONS_DEFAULT, 1..=1_000_000)?,
            client_timeout: or("client-timeout", &s.client_timeout, Duration::ZERO, DURATION, parse_duration)
                .map(some)?,
            notify: or("notify-keyspace-events", &s.notify_keyspace_events, Classes::NONE, CLASSES, |t| {
                Classes::parse(t.as_bytes())
            })?,
            threads: number_or("threads", &s.threads, cores.clamp(1, 256), 1..=256)?,
            vnodes: number_or("vnodes", &s.vnodes, 128, 1..=4096)?,
            weight: number_or("weight", &s.weight, 1, 0..=1024)?,
            zone: option("zone", &s.zone, NAME, |t| t.parse().ok())?,
            heartbeat_interval: milliseconds("heartbeat-interval", &s.heartbeat_interval, 1_000, HEARTBEAT_MS)?,
            failure_timeout: milliseconds("failure-timeout", &s.failure_timeout, 5_000, FAILURE_MS)?,
            forget_after: or("forget-after", &s.forget_after, Duration::from_secs(600), DURATION, parse_duration)
                .map(some)?,
            node_id: option("node-id", &s.node_id, NAME, |t| t.parse().ok())?,
            log_format: or("log-format", &s.log_format, LogFormat::Text, "text or json", log_format)?,
            seeds: seeds(s.seeds.as_deref().unwrap_or_default())?,
        };
        config.relations().map(|()| config)
    }

    /// Every setting at its default, with one thread: where a test or a simulation starts from.
    pub fn on_port(port: u16) -> Self {
        let settings = Settings { port: Some(port.to_string()), ..Settings::default() };
        Self::new(&settings, 1).expect("every default is within its range")
    }

    /// Whether anyone but this machine can reach the node, which is said aloud at start while there is neither TLS nor a password.
    pub fn is_exposed(&self) -> bool {
        !self.host.is_loopback()
    }

    /// Whether a value that `value_bytes_max` allows never fits the part of `memory_bytes_max` that one thread has.
    pub fn refuses_large_values(&self) -> bool {
        self.memory_bytes_max.is_some_and(|bytes| bytes / (self.threads as u64) < self.value_bytes_max as u64)
    }

    /// What must hold between settings.
    fn relations(&self) -> Result<(), ConfigError> {
        let (heartbeat, failure) = (self.heartbeat_interval, self.failure_timeout);
        if self.host.is_unspecified() && self.advertise.is_none() {
            return Err(ConfigError::AdvertiseNeeded { host: self.host });
        }
        if self.port != 0 && self.admin == AdminPort::At(self.port) {
            return Err(ConfigError::SamePort { name: "admin-port", port: self.port });
        }
        if let Some(memcached) = &self.memcached {
            memcached.fits(self)?;
        }
        if heartbeat >= failure {
            return Err(ConfigError::HeartbeatTooLong { heartbeat, failure });
        }
        if let Some(forget) = self.forget_after.filter(|forget| *forget <= failure) {
            return Err(ConfigError::ForgetTooSoon { forget, failure });
        }
        let threads = self.threads;
        if let Some(memory_bytes) = self.memory_bytes_max
            && memory_bytes / (threads as u64) < MEMORY_BYTES_PER_THREAD_MIN
        {
            return Err(ConfigError::MemoryTooSmall { memory_bytes, threads });
        }
        if u64::from(self.vnodes) * u64::from(self.weight) > TOKENS_PER_MEMBER_MAX {
            return Err(ConfigError::TooManyTokens { vnodes: self.vnodes, weight: self.weight });
        }
        Ok(())
    }
}

const NAME: &str = "a name: 1 to 64 of a-z A-Z 0-9 . _ -";
const SIZE: &str = "a size: bytes, or a number with kb, mb, gb or tb (1024s), k, m or g (1000s)";
const DURATION: &str = "a duration: 0, or a number with ms, s, m or h";
const EVICTION: &str = "lru or none, by Redis's names allkeys-lru or noeviction";
const CLASSES: &str = "letters of Ag$lshzxeKEtmdn";
const REPLICATION: &str = "a number of copies from 1 to 255, or `all`";

fn bad(name: &'static str, value: &str, expected: &'static str) -> ConfigError {
    let value = value.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
    ConfigError::BadValue { name, value, expected }
}

/// A setting without a default.
fn option<T>(
    name: &'static str,
    text: &Option<String>,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    text.as_deref().map(|text| parse(text).ok_or_else(|| bad(name, text, expected))).transpose()
}

/// A setting with one.
fn or<T>(
    name: &'static str,
    text: &Option<String>,
    default: T,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, ConfigError> {
    Ok(option(name, text, expected, parse)?.unwrap_or(default))
}

fn number<T>(name: &'static str, text: &str, range: RangeInclusive<T>) -> Result<T, ConfigError>
where
    T: Copy + TryFrom<u64> + TryInto<u64> + PartialOrd,
{
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value: u64 = text.parse().ok().filter(|_| digits).ok_or_else(|| bad(name, text, "a whole number"))?;
    let [min, max] = [*range.start(), *range.end()].map(|edge| edge.try_into().unwrap_or(u64::MAX));
    let fits = T::try_from(value).ok().filter(|value| range.contains(value));
    fits.ok_or(ConfigError::OutOfRange { name, value, min, max })
}

fn number_or<T>(
    name: &'static str,
    text: &Option<String>,
    default: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError>
where
    T: Copy + TryFrom<u64> + TryInto<u64> + PartialOrd,
{
    text.as_deref().map_or(Ok(default), |text| number(name, text, range))
}

fn milliseconds(
    name: &'static str,
    text: &Option<String>,
    default_ms: u64,
    range_ms: RangeInclusive<u64>,
) -> Result<Duration, ConfigError> {
    let expected = "milliseconds, or a number with ms, s, m or h";
    let duration = or(name, text, Duration::from_millis(default_ms), expected, parse_duration_or_ms)?;
    let value = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (min, max) = (*range_ms.start(), *range_ms.end());
    if range_ms.contains(&value) { Ok(duration) } else { Err(ConfigError::OutOfRange { name, value, min, max }) }
}

/// Zero means never.
fn some(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn default_cluster() -> ClusterName {
    "trellis".parse().expect("a short plain name")
}

fn admin(text: Option<&str>, port: u16) -> Result<AdminPort, ConfigError> {
    Ok(match text.map(|text| number("admin-port", text, 0..=u16::MAX)).transpose()? {
        Some(0) => AdminPort::Off,
        Some(at) => AdminPort::At(at),
        None if port == 0 => AdminPort::Free,
        None => port.checked_add(ADMIN_PORT_OFFSET).map_or(AdminPort::Free, AdminPort::At),
    })
}

fn unix_path(text: &str) -> Option<PathBuf> {
    ((1..=UNIX_PATH_BYTES_MAX).contains(&text.len()) && !text.contains('\0')).then(|| text.into())
}

fn replication(text: &str) -> Option<Replication> {
    if text.eq_ignore_ascii_case("all") {
        return Some(Replication::All);
    }
    number("", text, 1..=u8::MAX).ok().map(Replication::Copies)
}

fn eviction(text: &str) -> Option<Eviction> {
    match text {
        // The second names are those of Redis.
        "lru" | "allkeys-lru" => Some(Eviction::Lru),
        "none" | "noeviction" => Some(Eviction::Refuse),
        _ => None,
    }
}

fn log_format(text: &str) -> Option<LogFormat> {
    [("text", LogFormat::Text), ("json", LogFormat::Json)].into_iter().find(|(name, _)| *name == text).map(|(_, f)| f)
}

fn value_bytes_max(text: Option<&str>) -> Result<usize, ConfigError> {
    let name = "max-value-size";
    let Some(text) = text else { return Ok(limits::VALUE_BYTES_DEFAULT) };
    let value = parse_size(text).ok_or_else(|| bad(name, text, SIZE))?;
    let (min, max) = (VALUE_BYTES_LEAST, limits::VALUE_BYTES_MAX as u64);
    let fits = usize::try_from(value).ok().filter(|_| (min..=max).contains(&value));
    fits.ok_or(ConfigError::OutOfRange { name, value, min, max })
}

fn seeds(texts: &[String]) -> Result<Vec<String>, ConfigError> {
    if texts.len() > SEEDS_MAX {
        let (value, max) = (texts.len() as u64, SEEDS_MAX as u64);
        return Err(ConfigError::OutOfRange { name: "seeds", value, min: 0, max });
    }
    let whole = |text: &String| advertise(text).is_some_and(|seed| seed.port.is_some());
    match texts.iter().find(|text| !whole(text)) {
        Some(text) => Err(bad("seed", text, "host:port")),
        None => Ok(texts.to_vec()),
    }
}
