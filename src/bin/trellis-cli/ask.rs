//! Carries one command to a node and its answer to the user: connecting, asking, exit codes. How tables look is in `show`.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value as Json;

use trellis::base::level::Level;
use trellis::base::limits::{FRAME_BYTES_MAX, VALUE_BYTES_MAX};
use trellis::net::Net;
use trellis::net::client::{Client, ClientError};
use trellis::protocol::native::{Answer, Ask, Key, OTHER_CLUSTER};
use trellis::protocol::resp::read::ReplyReader;
use trellis::protocol::resp::value::Value;

use super::arguments::{Arguments, Command, Format};
use super::{Failure, show};

/// Time to connect to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a node to greet back.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for an answer. A node gives up after `REQUEST_TIMEOUT`; the rest is for the bytes of a large value.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Carries out the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, consistency, cluster_name, command } = arguments;
    // Read before connecting: a node has no patience with those who say nothing.
    let input = match &command {
        Command::Put { value, .. } if value == "-" => Some(standard_input()?),
        _ => None,
    };
    let client = connect(&server, cluster_name.as_str()).await?;
    let mut node = Node { client, server, level: consistency };
    match command {
        Command::Put { key, value, ttl, if_absent } => {
            node.put(key.as_bytes(), input.as_deref().unwrap_or(value.as_bytes()), ttl, if_absent).await
        }
        Command::Get { key, newline } => node.get(key.as_bytes(), newline).await,
        Command::Delete { key } => node.delete(key.as_bytes()).await,
        Command::Keys { pattern } => node.keys(pattern.as_bytes()).await,
        Command::Health { format } => node.health(format).await,
        Command::Status { format } => node.status(format).await,
        Command::Ring { key, format } => node.ring(key.as_deref(), format).await,
        Command::Forget { node: id } => node.forget(id.as_str()).await,
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

/// Connects to the first address of `server` at which anybody answers.
async fn connect(server: &str, cluster: &str) -> Result<Client, Failure> {
    let unreachable = |why: String| Failure::Unreachable(format!("{server} cannot be reached: {why}"));
    let addresses = Net::Os.resolve(server).await.map_err(|error| unreachable(error.to_string()))?;
    let mut last = unreachable("the name has no address".into());
    for address in addresses {
        let greeted = async {
            let mut client = Client::connect(Net::Os, address, cluster, CONNECT_TIMEOUT).await?;
            client.await_welcome(WELCOME_TIMEOUT).await?;
            Ok(client)
        };
        match greeted.await {
            Ok(client) => return Ok(client),
            Err(ClientError::Unreachable(error)) => last = unreachable(error.to_string()),
            Err(ClientError::Refused(reason)) => {
                let hint = if reason.starts_with(OTHER_CLUSTER) { "; try --cluster-name" } else { "" };
                return Err(Failure::Told(format!("{server} refused: {reason}{hint}")));
            }
            Err(error) => last = Failure::Unreachable(format!("{server} does not answer as a Trellis node: {error}")),
        }
    }
    Err(last)
}

/// The node that was named.
struct Node {
    client: Client,
    server: String,
    level: Option<Level>,
}

impl Node {
    async fn put(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>, if_absent: bool) -> Result<(), Failure> {
        let ttl = ttl.map(|ttl| ttl.as_millis().to_string());
        let mut args: Vec<&[u8]> = vec![b"SET", key, value];
        if let Some(ttl) = &ttl {
            args.extend([b"PX", ttl.as_bytes()]);
        }
        if if_absent {
            args.push(b"NX");
        }
        match self.command(&args).await? {
            Value::Null => Err(Failure::Told("key exists, nothing was stored".into())),
            _ => line("OK"),
        }
    }

    async fn get(&mut self, key: &[u8], newline: bool) -> Result<(), Failure> {
        let Value::Bulk(value) = self.command(&[b"GET", key]).await? else { return Err(not_found()) };
        let mut out = io::stdout().lock();
        out.write_all(&value)?;
        if newline || out.is_terminal() {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    async fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        match self.command(&[b"DEL", key]).await? {
            Value::Int(0) => Err(not_found()),
            _ => line("deleted"),
        }
    }

    async fn keys(&mut self, pattern: &[u8]) -> Result<(), Failure> {
        let Value::Array(keys) = self.command(&[b"KEYS", pattern]).await? else {
            return Err(self.lost("no list of keys"));
        };
        let mut keys: Vec<Bytes> =
            keys.into_iter().filter_map(|key| if let Value::Bulk(key) = key { Some(key) } else { None }).collect();
        keys.sort_unstable();
        let mut out = io::BufWriter::new(io::stdout().lock());
        for key in keys {
            out.write_all(&key)?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    async fn health(&mut self, format: Format) -> Result<(), Failure> {
        let (status, page) = self.page(b"health").await?;
        if format.json {
            line(&page.to_string())?;
        }
        match page["reason"].as_str() {
            None if status == 200 && format.json => Ok(()),
            None if status == 200 => line("ready"),
            reason => Err(Failure::Told(format!("not ready: {}", reason.unwrap_or("no reason given")))),
        }
    }

    async fn status(&mut self, format: Format) -> Result<(), Failure> {
        let page = self.good_page(b"v1/status").await?;
        if format.json {
            return line(&page.to_string());
        }
        // A node of a cluster in distress can't count all keys; the rest is worth showing all the more then.
        let keys = match self.command(&[b"DBSIZE"]).await {
            Ok(Value::Int(keys)) => Some(keys),
            Ok(_) | Err(Failure::Told(_)) => None,
            Err(failure) => return Err(failure),
        };
        line(&show::status(&page, keys))
    }

    async fn ring(&mut self, key: Option<&OsStr>, format: Format) -> Result<(), Failure> {
        let page = match key {
            Some(key) => self.good_page(&[b"v1/ring/", key.as_bytes()].concat()).await?,
            None => self.good_page(b"v1/ring").await?,
        };
        line(&match key {
            _ if format.json => page.to_string(),
            Some(_) => show::replicas(&page),
            None => show::shares(&page),
        })
    }

    async fn forget(&mut self, id: &str) -> Result<(), Failure> {
        self.good_page(format!("POST v1/members/{id}/forget").as_bytes()).await?;
        line("forgotten")
    }

    /// The reply to a command; error replies are failures.
    async fn command(&mut self, args: &[&[u8]]) -> Result<Value, Failure> {
        let ask = Ask::Command { level: self.level, args: args.iter().map(|arg| Key(arg)).collect() };
        let reply = self.client.ask(ask, ANSWER_TIMEOUT, |answer| match answer {
            Answer::Reply(bytes) => ReplyReader::new(FRAME_BYTES_MAX).next(&mut BytesMut::from(bytes)).ok().flatten(),
            _ => None,
        });
        match reply.await {
            Ok(Value::Error(error)) => Err(Failure::Told(String::from_utf8_lossy(&error).into_owned())),
            Ok(value) => Ok(value),
            Err(error) => Err(self.failure(error)),
        }
    }

    async fn good_page(&mut self, path: &[u8]) -> Result<Json, Failure> {
        match self.page(path).await? {
            (200..300, page) => Ok(page),
            (status, page) => {
                let reason =
                    page["error"]["message"].as_str().map_or_else(|| format!("status {status}"), str::to_owned);
                Err(Failure::Told(reason))
            }
        }
    }

    async fn page(&mut self, path: &[u8]) -> Result<(u16, Json), Failure> {
        let page = self.client.ask(Ask::Admin(path), ANSWER_TIMEOUT, |answer| match answer {
            Answer::Admin { status, body } => Some((status, serde_json::from_slice(body).ok()?)),
            _ => None,
        });
        page.await.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: ClientError) -> Failure {
        match error {
            ClientError::Failed(line) => Failure::Told(line),
            other => self.lost(&other.to_string()),
        }
    }

    fn lost(&self, why: &str) -> Failure {
        Failure::Unreachable(format!("{} did not answer: {why}, applied: unknown", self.server))
    }
}

fn not_found() -> Failure {
    Failure::Told("key not found".into())
}

fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
