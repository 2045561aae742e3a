//! Real nodes as processes, for tests: started on free ports, waited for by what they say, stopped by signal. Every wait
//! is for an event or a change, with a deadline; `until` looks again and again, for what tells nobody when it changes.

pub(crate) mod cli;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use trellis::client::Client;

/// Far longer than anything takes; a test that meets it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at something that tells nobody when it changes.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// One of the package's programs, free of the settings of whoever runs the tests.
pub(crate) fn program(path: &std::path::Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRELLIS_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

fn trellis(args: &[&str]) -> Command {
    let mut command = program(assert_cmd::cargo::cargo_bin!("trellis"));
    command.args(args);
    command
}

/// A node that serves.
pub(crate) struct Node {
    child: Child,
    /// Its first line.
    pub(crate) ready: String,
    /// `host:port` of its main port.
    pub(crate) main: String,
    /// `host:port` of its admin endpoint.
    pub(crate) admin: String,
    /// `host:port` for memcached clients, or empty.
    pub(crate) memcached: String,
    lines: Receiver<String>,
    log: Option<JoinHandle<String>>,
}

impl Node {
    /// Starts a node with these arguments, the port first, and waits for its ready line.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_logging_to(Stdio::piped(), args)
    }

    /// The same with another standard error; what goes there is not in [`Node::log`].
    pub(crate) fn start_logging_to(log: impl Into<Stdio>, args: &[&str]) -> Self {
        let mut child = trellis(args).stdout(Stdio::piped()).stderr(log).spawn().expect("the node can be started");
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take());
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.map(|mut err| err.read_to_string(&mut text));
            text
        });
        let Ok(ready) = lines.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            panic!("{args:?}: no ready line: {}", log.join().unwrap_or_default());
        };
        let field = |name: &str| {
            let found = ready.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().to_owned()
        };
        Self {
            main: field("main"),
            admin: field("admin"),
            memcached: field("memcached"),
            child,
            ready,
            lines,
            log: Some(log),
        }
    }

    /// A cluster of `count` nodes that all see each other and hold their share.
    pub(crate) fn cluster(count: usize) -> Vec<Self> {
        Self::cluster_with(count, &[])
    }

    /// The same, each with these options.
    pub(crate) fn cluster_with(count: usize, options: &[&str]) -> Vec<Self> {
        let mut nodes = vec![Self::start(&[&["0"], options].concat())];
        while nodes.len() < count {
            let seed = nodes[0].main.clone();
            nodes.push(Self::start(&[&["0", &seed], options].concat()));
        }
        for node in &nodes {
            until("every member alive and complete", || {
                let status = node.json("/v1/status");
                let members = status["members"].as_array()?;
                let alive = members.iter().filter(|member| member["state"] == "alive").count();
                (alive == count && status["under_replicated_partitions"] == 0).then_some(())
            });
        }
        nodes
    }

    /// A page of its admin endpoint: status and body.
    pub(crate) fn http(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = connect(&self.admin);
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("the admin endpoint reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the admin endpoint answers in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        (status, body.to_owned())
    }

    /// A page that must be there, as JSON.
    pub(crate) fn json(&self, path: &str) -> Json {
        let (status, body) = self.http("GET", path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// Sends it a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Waits for its end: exit code, how long it took, and what it said on standard output since the ready line.
    pub(crate) fn wait(&mut self) -> (Option<i32>, Duration, Vec<String>) {
        let (began, mut said) = (Instant::now(), Vec::new());
        // Its standard output closes when it ends.
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the node does not end"),
            }
        }
        let code = self.child.wait().expect("it has ended").code();
        (code, began.elapsed(), said)
    }

    /// All it logged. It must have ended.
    pub(crate) fn log(&mut self) -> String {
        self.log.take().map(|log| log.join().expect("the log is text")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a node that should not start.
pub(crate) fn refused(args: &[&str]) -> Output {
    refused_logging_to(Stdio::piped(), args)
}

/// The same with so few open files at the most.
pub(crate) fn refused_with_files(limit: u32, args: &[&str]) -> Output {
    let mut command = program("sh".as_ref());
    let node = assert_cmd::cargo::cargo_bin!("trellis");
    command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]).arg(node).args(args);
    command.output().expect("a shell")
}

/// The same with another standard error.
pub(crate) fn refused_logging_to(log: impl Into<Stdio>, args: &[&str]) -> Output {
    trellis(args).stderr(log).output().expect("the node can be started")
}

/// Connects, with every read bounded.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("a positive time");
    stream
}

/// Looks every `LOOK_EVERY` until there is something to see, and fails at the deadline.
pub(crate) fn until<T>(what: impl Display, mut look: impl FnMut() -> Option<T>) -> T {
    let (_quiet, pause) = channel::<()>();
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        let _ = pause.recv_timeout(LOOK_EVERY);
    }
}

/// Does to a node what only builds for tests can be told to do.
pub(crate) fn harm(node: &Node, request: &'static [u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect([&node.main]).await.expect("the node answers");
        // The node may stop before its answer is out.
        let _ = client.admin(Some(&node.main), request).await;
    });
}

/// Sends inline commands and returns the first so many lines of the answers.
pub(crate) fn tell(address: &str, commands: &str, lines: usize) -> String {
    let mut client = BufReader::new(connect(address));
    client.get_mut().write_all(commands.as_bytes()).expect("the node reads");
    let mut answers = String::new();
    for _ in 0..lines {
        client.read_line(&mut answers).expect("the node answers");
    }
    answers
}

/// Reads the text exposition format (version 0.0.4): every family declared once and before its samples, every sample once.
pub(crate) fn parse_metrics(page: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let (mut families, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut current = String::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a name and a type");
            assert!(is_name(name) && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned(), kind).is_none(), "declared twice: {line}");
            name.clone_into(&mut current);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let (name, labels) = series.split_once('{').map_or((series, None), |(name, rest)| (name, Some(rest)));
        let suffixes: &[&str] = if families[&current] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "not under its family: {line}");
        for label in labels.map_or("", |labels| labels.strip_suffix('}').expect("closed")).split_terminator(',') {
            let (label, text) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            assert!(is_name(label) && text.is_some_and(|text| !text.contains(['"', '\\'])), "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}
