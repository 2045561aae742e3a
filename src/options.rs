//! Where settings come from: the command line, then `TRELLIS_*` in the environment, then the file of `--config`. The first that names a
//! setting decides it. Never judges a value: `config` does. Tested below and, as a process, in `tests/options.rs`.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use crate::config::{self, Config, ConfigError, Settings};

/// A larger file is no configuration.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A replicated cache and key-value store. Any node answers for any key; a node can die at any time.
#[derive(Debug, Parser)]
#[command(name = "trellis", version, max_term_width = 110, after_help = AFTER_HELP)]
struct Flags {
    /// Main port for clients and members: RESP, native, and UDP for gossip; 0 takes a free one
    #[arg(env = "TRELLIS_PORT")]
    port: Option<String>,
    /// Any members to join through; without one the node starts a cluster of its own
    #[arg(value_name = "SEED", env = "TRELLIS_SEEDS", value_delimiter = ',')]
    seeds: Option<Vec<String>>,
    /// File with the same settings, in TOML
    #[arg(long, value_name = "FILE", env = "TRELLIS_CONFIG")]
    config: Option<PathBuf>,
    /// Address to bind [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR", env = "TRELLIS_HOST")]
    host: Option<String>,
    /// What others are told [default: the bound address]
    #[arg(long, value_name = "HOST[:PORT]", env = "TRELLIS_ADVERTISE")]
    advertise: Option<String>,
    /// Admin endpoint on the same host; 0 is off [default: port + 10000, or a free one where that is no port]
    #[arg(long, value_name = "PORT", env = "TRELLIS_ADMIN_PORT")]
    admin_port: Option<String>,
    /// Serve memcached clients on this port of the same host; 0 takes a free one [default: none]
    #[arg(long, value_name = "PORT", env = "TRELLIS_MEMCACHED_PORT")]
    memcached_port: Option<String>,
    /// Longest item of memcached clients, key and its overhead included, as their `-I` [default: 1mb]
    #[arg(long, value_name = "SIZE", env = "TRELLIS_MEMCACHED_MAX_ITEM_SIZE")]
    memcached_max_item_size: Option<String>,
    /// Nodes of another name are refused [default: trellis]
    #[arg(long, value_name = "NAME", env = "TRELLIS_CLUSTER_NAME")]
    cluster_name: Option<String>,
    /// Serve the main port's protocols on a Unix socket as well
    #[arg(long, value_name = "PATH", env = "TRELLIS_UNIX")]
    unix: Option<String>,
    /// Copies of each key, a number or `all` [default: 3]
    #[arg(long, value_name = "N", env = "TRELLIS_REPLICATION_FACTOR")]
    replication_factor: Option<String>,
    /// What a request waits for unless it says: one, quorum or all [default: one]
    #[arg(long, value_name = "LEVEL", env = "TRELLIS_CONSISTENCY")]
    consistency: Option<String>,
    /// Byte budget of the store, in equal parts of at least 1mb for the threads; 0 is none [default: 0]
    #[arg(long, value_name = "SIZE", env = "TRELLIS_MAX_MEMORY")]
    max_memory: Option<String>,
    /// At the budget: `lru` evicts the least recently used, `none` refuses writes [default: lru]
    #[arg(long, value_name = "POLICY", env = "TRELLIS_EVICTION")]
    eviction: Option<String>,
    /// Room for the names of keys that a member missed while it was away, in equal parts for the threads; 0 keeps none [default: 64mb]
    #[arg(long, value_name = "SIZE", env = "TRELLIS_MAX_HINTS")]
    max_hints: Option<String>,
    /// Longest value, 64kb to 512mb [default: 64mb]
    #[arg(long, value_name = "SIZE", env = "TRELLIS_MAX_VALUE_SIZE")]
    max_value_size: Option<String>,
    /// Client connections at once [default: 20000]
    #[arg(long, value_name = "N", env = "TRELLIS_MAX_CONNECTIONS")]
    max_connections: Option<String>,
    /// Disconnect clients idle for this long; 0 is never [default: 0]
    #[arg(long, value_name = "DURATION", env = "TRELLIS_CLIENT_TIMEOUT")]
    client_timeout: Option<String>,
    /// Events of keys that subscribers at this node are told of, in Redis's letters, as KEA [default: none]
    #[arg(long, value_name = "LETTERS", env = "TRELLIS_NOTIFY_KEYSPACE_EVENTS")]
    notify_keyspace_events: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_DATA_DIR")]
    data_dir: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_FSYNC")]
    fsync: Option<String>,
    /// Data threads, each with its own part of the store [default: cores]
    #[arg(long, value_name = "N", env = "TRELLIS_THREADS")]
    threads: Option<String>,
    /// Virtual nodes per unit of weight [default: 128]
    #[arg(long, value_name = "N", env = "TRELLIS_VNODES")]
    vnodes: Option<String>,
    /// Share of the ring; 0 is a gateway that holds nothing [default: 1]
    #[arg(long, value_name = "W", env = "TRELLIS_WEIGHT")]
    weight: Option<String>,
    /// Replicas go to different zones first
    #[arg(long, value_name = "ZONE", env = "TRELLIS_ZONE")]
    zone: Option<String>,
    /// Gossip probe period [default: 1000]
    #[arg(long, value_name = "MS", env = "TRELLIS_HEARTBEAT_INTERVAL")]
    heartbeat_interval: Option<String>,
    /// At the latest then a silent member is treated as down [default: 5000]
    #[arg(long, value_name = "MS", env = "TRELLIS_FAILURE_TIMEOUT")]
    failure_timeout: Option<String>,
    /// A member down for this long is taken out of the ring; 0 is never [default: 10m]
    #[arg(long, value_name = "DURATION", env = "TRELLIS_FORGET_AFTER")]
    forget_after: Option<String>,
    /// Identity; addresses may change, this does not [default: random]
    #[arg(long, value_name = "ID", env = "TRELLIS_NODE_ID")]
    node_id: Option<String>,
    /// text or json; RUST_LOG sets levels [default: text]
    #[arg(long, value_name = "FORMAT", env = "TRELLIS_LOG_FORMAT")]
    log_format: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_PASSWORD_FILE")]
    password_file: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_USERS_FILE")]
    users_file: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_TLS_CERT")]
    tls_cert: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_TLS_KEY")]
    tls_key: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_TLS_CA")]
    tls_ca: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_CLUSTER_KEY_FILE")]
    cluster_key_file: Option<String>,
    #[arg(long, hide = true, env = "TRELLIS_INSECURE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    insecure: Option<String>,
}

const AFTER_HELP: &str = "Each option is also an environment variable (--node-id: TRELLIS_NODE_ID) and a key of the --config file \
(node-id = \"a\");\nflags come first, then the environment, then the file. Durations: 500ms 60s 10m 2h. Sizes: bytes, 512kb 64mb 1gb.";

/// Variables told of that nobody knows, and characters of each: they may be anything.
const UNKNOWN_MAX: usize = 8;
const UNKNOWN_CHARS_MAX: usize = 64;

/// Why there is no [`Config`]. The text is what the user is shown.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// `clap` has an answer of its own: a usage error, or the text of `--help` or `--version`.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file could not be read.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The file is too large to be meant.
    #[error("{}: larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not TOML, or says something nobody knows.
    #[error("{}: line {line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A value is wrong, or two contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl OptionsError {
    /// Tells the user and names the exit code: 0 after `--help` and `--version`, else 2.
    pub fn report(&self) -> u8 {
        // Nothing is left to do when standard error is gone.
        match self {
            Self::Usage(usage) => {
                let _ = usage.print();
                u8::try_from(usage.exit_code()).unwrap_or(2)
            }
            other => {
                let _ = writeln!(std::io::stderr(), "trellis: {other}");
                2
            }
        }
    }
}

/// Reads this process's arguments, environment and file.
///
/// # Errors
/// The first thing that is wrong; [`OptionsError::report`] shows it.
pub fn from_process() -> Result<Config, OptionsError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    from_args(std::env::args_os(), cores)
}

/// The same for given arguments, the program's name first.
///
/// # Errors
/// As [`from_process`].
pub fn from_args(args: impl IntoIterator<Item = OsString>, cores: usize) -> Result<Config, OptionsError> {
    let flags = Flags::try_parse_from(args)?;
    let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
    Ok(Config::new(&Settings::from(flags).over(file), cores)?)
}

/// Variables of this process that look like settings and are none, a few of them: most likely a slip of the pen.
pub fn unknown_variables() -> Vec<String> {
    unknown_among(std::env::vars_os().map(|(name, _)| name))
}

fn unknown_among(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known = Flags::command();
    let known: Vec<_> = known.get_arguments().filter_map(clap::Arg::get_env).collect();
    let unknown = names.filter(|name| !known.contains(&name.as_os_str())).filter_map(|name| {
        let name = name.to_string_lossy();
        name.starts_with("TRELLIS_").then(|| name.escape_debug().take(UNKNOWN_CHARS_MAX).collect())
    });
    unknown.take(UNKNOWN_MAX).collect()
}

/// What is wrong with a file, in one line that offers only what works.
fn complaint(message: &str) -> String {
    match message.split_once(", expected one of ") {
        Some((unknown, _)) if unknown.starts_with("unknown field ") => {
            format!("{unknown}, there are: {}", config::available().collect::<Vec<_>>().join(", "))
        }
        _ => message.lines().collect::<Vec<_>>().join(", "),
    }
}

fn read(path: &Path) -> Result<Settings, OptionsError> {
    let unreadable = |reason| OptionsError::Unreadable { path: path.to_owned(), reason };
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(OptionsError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
        OptionsError::Malformed { path: path.to_owned(), line, reason: complaint(error.message()) }
    })
}

impl From<Flags> for Settings {
    fn from(flags: Flags) -> Self {
        Self {
            port: flags.port,
            seeds: flags.seeds,
            host: flags.host,
            advertise: flags.advertise,
            admin_port: flags.admin_port,
            memcached_port: flags.memcached_port,
            memcached_max_item_size: flags.memcached_max_item_size,
            cluster_name: flags.cluster_name,
            unix: flags.unix,
            replication_factor: flags.replication_factor,
            consistency: flags.consistency,
            max_memory: flags.max_memory,
            eviction: flags.eviction,
            max_hints: flags.max_hints,
            max_value_size: flags.max_value_size,
            max_connections: flags.max_connections,
            client_timeout: flags.client_timeout,
            notify_keyspace_events: flags.notify_keyspace_events,
            data_dir: flags.data_dir,
            fsync: flags.fsync,
            threads: flags.threads,
            vnodes: flags.vnodes,
            weight: flags.weight,
            zone: flags.zone,
            heartbeat_interval: flags.heartbeat_interval,
            failure_timeout: flags.failure_timeout,
            forget_after: flags.forget_after,
            node_id: flags.node_id,
            log_format: flags.log_format,
            password_file: flags.password_file,
            users_file: flags.users_file,
            tls_cert: flags.tls_cert,
            tls_key: flags.tls_key,
            tls_ca: flags.tls_ca,
            cluster_key_file: flags.cluster_key_file,
            insecure: flags.insecure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminPort, LogFormat, Replication};

    fn parse(args: &[&str]) -> Result<Config, OptionsError> {
        from_args([&["trellis"], args].concat().into_iter().map(OsString::from), 2)
    }

    fn with_file(text: &str, args: &[&str]) -> Result<Config, OptionsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trellis.toml");
        std::fs::write(&path, text).unwrap();
        parse(&[&["--config", path.to_str().unwrap()], args].concat())
    }

    #[test]
    fn the_command_is_well_formed_and_every_option_has_its_variable() {
        Flags::command().debug_assert();
        for arg in Flags::command().get_arguments() {
            let variable = format!("TRELLIS_{}", arg.get_id().as_str().to_uppercase());
            assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        }
    }

    #[test]
    fn one_argument_starts_a_node_and_a_second_joins_it() {
        assert_eq!(parse(&["5000"]).unwrap(), Config { threads: 2, ..Config::on_port(5000) });
        assert_eq!(parse(&["5001", "localhost:5000", "b:1"]).unwrap().seeds, ["localhost:5000", "b:1"]);
    }

    #[test]
    fn every_setting_of_the_file_has_the_name_of_its_flag() {
        let all: Vec<String> =
            Flags::command().get_arguments().map(|arg| arg.get_id().as_str().replace('_', "-")).collect();
        // Of the last no letters are some, too.
        let others = ["config", "seeds", "port", "notify-keyspace-events"];
        for name in all.iter().filter(|name| !others.contains(&name.as_str())) {
            match with_file(&format!("{name} = \"\""), &["1"]) {
                Err(OptionsError::Config(_)) => {}
                other => panic!("{name} is not a setting of the file: {other:?}"),
            }
        }
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file =
            "port = 7000\nzone = \"z\"\nthreads = 4\nseeds = [\"a:1\"]\nmax-memory = \"1gb\"\nlog-format = \"json\"";
        let config = with_file(file, &["--threads", "3"]).unwrap();
        assert_eq!((config.port, config.threads, config.zone.as_ref().map(|zone| zone.as_str())), (7000, 3, Some("z")));
        assert_eq!((config.memory_bytes_max, config.log_format), (Some(1 << 30), LogFormat::Json));
        assert_eq!((config.seeds, config.replication), (vec!["a:1".into()], Replication::Copies(3)));
        let config = with_file(file, &["5000", "b:2", "--admin-port", "0"]).unwrap();
        assert_eq!((config.port, config.admin, config.seeds), (5000, AdminPort::Off, vec!["b:2".into()]));
    }

    #[test]
    fn the_file_of_the_readme_is_good() {
        let (_, rest) = include_str!("../README.md").split_once("```toml\n").unwrap();
        let config = with_file(rest.split_once("```").unwrap().0, &[]).unwrap();
        assert_eq!((config.port, config.memory_bytes_max), (5000, Some(4 << 30)));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        for (text, reason) in [
            ("port = 1\nprot = 5", "line 2: unknown field `prot`"),
            ("config = \"x\"", "line 1: unknown field `config`"),
            ("port = [1]", "line 1: invalid type"),
            ("port = 1.5", "line 1: invalid type"),
            ("\n\nport = ", "line 3: "),
        ] {
            let error = with_file(text, &["5000"]).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains('\n'), "{error}");
        }
        assert!(matches!(with_file("vnodes = 0", &["1"]), Err(OptionsError::Config(_))));
        assert!(matches!(parse(&["1", "--config", "/does/not/exist"]), Err(OptionsError::Unreadable { .. })));
        let large = format!("# {}", "x".repeat(FILE_BYTES_MAX as usize));
        assert!(matches!(with_file(&large, &["1"]), Err(OptionsError::TooLarge { .. })));
    }

    #[test]
    fn an_unknown_setting_of_the_file_is_told_those_that_work() {
        let error = with_file("maxmemory = 1", &["5000"]).unwrap_err().to_string();
        assert!(error.contains("unknown field `maxmemory`, there are: port, host, "), "{error}");
        assert!(error.contains("max-memory") && error.contains("seeds") && !error.contains("tls-cert"), "{error}");
    }

    #[test]
    fn variables_that_are_no_setting_are_found() {
        let among = |names: &[&str]| unknown_among(names.iter().map(OsString::from));
        assert_eq!(among(&["PATH", "TRELLIS_MAX_MEMORY", "TRELLIS_PORT", "TRELLIS_SEEDS", "TRELLIS_CONFIG"]), [""; 0]);
        assert_eq!(among(&["TRELLIS_MAXMEMORY", "HOME"]), ["TRELLIS_MAXMEMORY"]);
        assert_eq!(among(&["TRELLIS_\n"]), ["TRELLIS_\\n"]);
        let many: Vec<String> = (0..100).map(|n| format!("TRELLIS_{n}{}", "X".repeat(1000))).collect();
        let told = among(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(told.len() == UNKNOWN_MAX && told.iter().all(|name| name.len() == UNKNOWN_CHARS_MAX), "{told:?}");
    }

    #[test]
    fn unknown_options_are_refused_and_later_ones_named() {
        assert!(matches!(parse(&["5000", "--nodeid", "x"]), Err(OptionsError::Usage(_))));
        for later in ["--data-dir=x", "--insecure", "--fsync=always", "--tls-cert=x"] {
            let error = parse(&["5000", later]).unwrap_err().to_string();
            assert!(error.ends_with("is not available in this version"), "{later}: {error}");
        }
    }
}
