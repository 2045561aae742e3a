//! Carries one command to the cluster and its answer to the user: connecting, asking, exit codes. How tables look is in `show`, how values
//! do in `lines`.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde_json::{Value as Json, json};

use trellis::base::level::Level;
use trellis::base::limits::VALUE_BYTES_MAX;
use trellis::client::{Applied, Client, Error, ErrorKind, Options, Request, TIMEOUT_MAX, Value};
use trellis::protocol::native::OTHER_CLUSTER;

use super::arguments::{Arguments, Command};
use super::{Failure, export, import, lines, members, show, watch};

/// Carries out the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    // What can be found wrong without the cluster is found first.
    let input = match &arguments.command {
        Some(Command::Put { value, .. }) if value == "-" => Some(standard_input()?),
        Some(Command::Import { file, .. }) if file.as_os_str() != "-" => {
            let found = std::fs::metadata(file).map_err(|error| Failure::Usage(format!("{}: {error}", file.display())));
            found.map(|_| None)?
        }
        Some(Command::Share { share, .. }) if share.query().is_empty() => {
            return Err(Failure::Usage("share: nothing to change, give --weight or --zone".into()));
        }
        _ => None,
    };
    let cluster = Cluster::connect(&arguments).await?;
    match arguments.command {
        Some(command) => cluster.carry_out(command, input).await,
        None => Ok(()),
    }
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let most = VALUE_BYTES_MAX as u64 + 1;
    let read = io::stdin().lock().take(most).read_to_end(&mut value);
    read.map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(Failure::Usage("standard input: longer than any value may be".into()));
    }
    Ok(value)
}

/// The cluster of the node that was named.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) server: String,
    pub(crate) level: Option<Level>,
    pub(crate) json: bool,
}

impl Cluster {
    pub(crate) async fn connect(arguments: &Arguments) -> Result<Self, Failure> {
        let server = arguments.server.clone();
        let mut options = Options::default().cluster_name(arguments.cluster_name.clone()).timeout(TIMEOUT_MAX);
        if let Some(level) = arguments.consistency {
            options = options.consistency(level);
        }
        let client = options.connect([&server]).await.map_err(|error| not_connected(&server, &error))?;
        Ok(Self { client, server, level: arguments.consistency, json: arguments.json })
    }

    /// Carries out a command; `input` is the value of a `put` that has it from elsewhere.
    pub(crate) async fn carry_out(&self, command: Command, input: Option<Vec<u8>>) -> Result<(), Failure> {
        match command {
            Command::Put { key, value, ttl, if_absent } => {
                let value = input.unwrap_or_else(|| value.as_bytes().to_vec());
                self.put(key.as_bytes(), value, ttl, if_absent).await
            }
            Command::Get { key, newline } => self.get(key.as_bytes(), newline).await,
            Command::Delete { key } => self.delete(key.as_bytes()).await,
            Command::Keys { pattern } => self.keys(pattern.as_bytes()).await,
            Command::Watch { pattern } => watch::run(self, pattern.as_bytes()).await,
            Command::Health => self.health().await,
            Command::Status => self.status().await,
            Command::Ring { key } => self.ring(key.as_deref()).await,
            Command::Leave { node, cancel: false } => members::leave(self, node.as_ref()).await,
            Command::Leave { node, cancel: true } => members::stay(self, node.as_ref()).await,
            Command::Plan { change } => members::plan(self, change.as_ref()).await,
            Command::Share { node, share } => members::share(self, &node, &share).await,
            Command::Forget { node } => members::forget(self, &node).await,
            Command::Import { file, format } => import::run(self, &file, format).await,
            Command::Export { file, format, pattern } => export::run(self, &file, format, pattern.as_bytes()).await,
        }
    }

    /// A request at the level that was asked for, which at the prompt may be another for each line.
    pub(crate) fn at_level<T>(&self, request: Request<T>) -> Request<T> {
        match self.level {
            Some(level) => request.consistency(level),
            None => request,
        }
    }

    async fn put(&self, key: &[u8], value: Vec<u8>, ttl: Option<Duration>, if_absent: bool) -> Result<(), Failure> {
        let mut set = self.client.set(key, value);
        if let Some(level) = self.level {
            set = set.consistency(level);
        }
        if let Some(ttl) = ttl {
            set = set.ttl(ttl);
        }
        if if_absent {
            set = set.if_absent();
        }
        match set.await.map_err(|error| self.failure(&error))? {
            stored if self.json => self.answer(&json!({ "stored": stored }), stored),
            true => line("OK"),
            false => Err(Failure::Told("key exists, nothing was stored".into())),
        }
    }

    async fn get(&self, key: &[u8], newline: bool) -> Result<(), Failure> {
        if self.json {
            let item = self.at_level(self.client.get_item(key)).await.map_err(|error| self.failure(&error))?;
            let item = item.ok_or_else(not_found)?;
            return line(&lines::of_item(key, &item));
        }
        let value = self.at_level(self.client.get(key)).await.map_err(|error| self.failure(&error))?;
        let value = value.ok_or_else(not_found)?;
        let mut out = io::stdout().lock();
        out.write_all(&value)?;
        if newline || out.is_terminal() {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    async fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        match self.at_level(self.client.delete(key)).await.map_err(|error| self.failure(&error))? {
            deleted if self.json => self.answer(&json!({ "deleted": deleted }), deleted),
            true => line("deleted"),
            false => Err(not_found()),
        }
    }

    async fn keys(&self, pattern: &[u8]) -> Result<(), Failure> {
        let keys: Result<Vec<Bytes>, Error> = self.client.scan(pattern).try_collect().await;
        let mut keys = keys.map_err(|error| self.failure(&error))?;
        keys.sort_unstable();
        keys.dedup();
        if self.json {
            return line(&Json::from_iter(keys.iter().map(|key| lines::json_of(key))).to_string());
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        for key in keys {
            out.write_all(&key)?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    async fn health(&self) -> Result<(), Failure> {
        let (status, page) = self.page(b"health").await?;
        if self.json {
            line(&page.to_string())?;
        }
        match page["reason"].as_str() {
            None if status == 200 && self.json => Ok(()),
            None if status == 200 => line("ready"),
            reason => Err(Failure::Told(format!("not ready: {}", reason.unwrap_or("no reason given")))),
        }
    }

    async fn status(&self) -> Result<(), Failure> {
        let page = self.good_page(b"v1/status").await?;
        if self.json {
            return line(&page.to_string());
        }
        // A node of a cluster in distress can't count all keys; the rest is worth showing all the more then.
        let keys = match self.client.command(["DBSIZE"]).await {
            Ok(Value::Int(keys)) => Some(keys),
            Ok(_) => None,
            Err(error) => match self.failure(&error) {
                Failure::Told(_) => None,
                failure => return Err(failure),
            },
        };
        line(&show::status(&page, keys))
    }

    async fn ring(&self, key: Option<&OsStr>) -> Result<(), Failure> {
        let page = match key {
            Some(key) => self.good_page(&[b"v1/ring/", key.as_bytes()].concat()).await?,
            None => self.good_page(b"v1/ring").await?,
        };
        line(&match key {
            _ if self.json => page.to_string(),
            Some(_) => show::replicas(&page),
            None => show::shares(&page),
        })
    }

    /// Shows an answer in JSON; the exit code says it too.
    fn answer(&self, answer: &Json, is_yes: bool) -> Result<(), Failure> {
        line(&answer.to_string())?;
        if is_yes { Ok(()) } else { Err(Failure::Shown) }
    }

    pub(crate) async fn good_page(&self, path: &[u8]) -> Result<Json, Failure> {
        match self.page(path).await? {
            (200..300, page) => Ok(page),
            (status, page) => {
                let error = &page["error"];
                let reason = error["message"].as_str().map_or_else(|| format!("status {status}"), str::to_owned);
                let told = error["applied"] == "unknown" && !reason.contains("applied:");
                Err(Failure::Told(if told { format!("{reason}, applied: unknown") } else { reason }))
            }
        }
    }

    /// A page of the node that was named, not of any.
    async fn page(&self, path: &[u8]) -> Result<(u16, Json), Failure> {
        self.page_of(&self.server, path).await
    }

    /// A page of a node by its address.
    pub(crate) async fn page_of(&self, node: &str, path: &[u8]) -> Result<(u16, Json), Failure> {
        self.client.admin(Some(node), path).await.map_err(|error| self.failure(&error))
    }

    /// What a user is told of an error. A node that answers and refuses is told in its words; that no answer came is another matter.
    pub(crate) fn failure(&self, error: &Error) -> Failure {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Unreachable | ErrorKind::Refused | ErrorKind::Protocol => self.lost(error),
            ErrorKind::Timeout if !text.starts_with("TIMEOUT") => self.lost(error),
            _ => Failure::Told(text),
        }
    }

    fn lost(&self, error: &Error) -> Failure {
        let told = if error.applied() == Applied::Unknown && !error.to_string().contains("applied:") {
            ", applied: unknown"
        } else {
            ""
        };
        Failure::Unreachable(format!("{}: {error}{told}", self.server))
    }
}

fn not_connected(server: &str, error: &Error) -> Failure {
    let text = error.to_string();
    let reason = text.strip_prefix(server).map_or(text.as_str(), |rest| rest.trim_start_matches([':', ' ']));
    match error.kind() {
        ErrorKind::Refused => match reason.strip_prefix("refused: ") {
            Some(reason) => {
                let hint = if reason.starts_with(OTHER_CLUSTER) { "; try --cluster-name" } else { "" };
                Failure::Told(format!("{server} refused: {reason}{hint}"))
            }
            None => Failure::Unreachable(format!("{server} does not answer as a Trellis node: {reason}")),
        },
        _ => Failure::Unreachable(format!("{server} cannot be reached: {reason}")),
    }
}

fn not_found() -> Failure {
    Failure::Told("key not found".into())
}

pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
