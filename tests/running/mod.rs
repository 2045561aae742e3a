//! Real nodes as processes, for tests: started on free ports, waited for by what they say, stopped by signal. Every wait
//! is for an event or a change, with a deadline; `until` looks again and again, for what tells nobody when it changes.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

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
        let mut child =
            trellis(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the node can be started");
        let (out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
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
        let mut nodes = vec![Self::start(&["0"])];
        while nodes.len() < count {
            let seed = nodes[0].main.clone();
            nodes.push(Self::start(&["0", &seed]));
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
    trellis(args).output().expect("the node can be started")
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
