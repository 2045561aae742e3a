//! `watch`: what happens to keys, as it happens, by the keyspace notifications of the node that was named. It subscribes like any Redis
//! client. What is published while there is no connection is missed, so a lost connection ends it. Tested in `tests/cli.rs`.

use std::io::Write;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use trellis::base::limits::KEY_BYTES_MAX;
use trellis::base::notify::{Classes, KEYSPACE};
use trellis::base::reply::Wire;
use trellis::net::{Net, Stream};
use trellis::protocol::resp::read::ReplyReader;
use trellis::protocol::resp::value::Value;

use super::Failure;
use super::ask::{Cluster, line};
use super::lines::json_of;
use super::replies::quoted;

/// Time for a connection to come about.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A node that says nothing for this long is asked whether it is there, and given up if it still says nothing for as long again.
const SILENCE_ASKED: Duration = Duration::from_secs(2);
/// A reply is a key, a pattern and a few words.
const REPLY_BYTES_MAX: usize = 2 * KEY_BYTES_MAX + 1024;
/// What it tells of; asked again in a lull, which also shows whether it is there.
const WHICH: [&[u8]; 3] = [b"CONFIG", b"GET", b"notify-keyspace-events"];
/// What happened is one of a few words.
const WORD_WIDTH: usize = 8;

/// Shows events of the keys that match `pattern` until the connection is lost or the user has seen enough.
pub(crate) async fn run(cluster: &Cluster, pattern: &[u8]) -> Result<(), Failure> {
    let mut node = Subscriber::connect(&cluster.server).await?;
    // So that it can be asked other things while it tells.
    let greeting = node.ask(&[b"HELLO", b"3"]).await?;
    if !matches!(greeting, Value::Map(_)) {
        return Err(node.told(&greeting));
    }
    let set = node.ask(&WHICH).await?;
    let wanted = node.wanted(&set)?;
    let channels = [KEYSPACE, pattern].concat();
    let confirmed = node.ask(&[b"PSUBSCRIBE", &channels]).await?;
    if !matches!(&confirmed, Value::Push(parts) if parts.len() == 3) {
        return Err(node.told(&confirmed));
    }
    // Only now is everything that happens shown; a script that waits for this line misses nothing.
    writeln!(std::io::stderr(), "watching {} through {}: {wanted}", quoted(pattern), cluster.server)?;
    loop {
        match node.next().await? {
            Value::Push(parts) => {
                if let Some((key, event)) = told_of(&parts) {
                    show(&key, &event, cluster.json)?;
                }
            }
            // What it was asked in a lull.
            said => _ = node.wanted(&said)?,
        }
    }
}

/// Key and event of a message.
fn told_of(parts: &[Value]) -> Option<(Bytes, Bytes)> {
    match parts {
        [Value::Bulk(kind), _, Value::Bulk(channel), Value::Bulk(event)] if kind == "pmessage" => {
            Some((channel.slice_ref(channel.strip_prefix(KEYSPACE)?), event.clone()))
        }
        _ => None,
    }
}

fn show(key: &Bytes, event: &Bytes, as_json: bool) -> Result<(), Failure> {
    let event = String::from_utf8_lossy(event);
    if as_json {
        let told = Map::from_iter([("event".to_owned(), json!(event)), ("key".to_owned(), json_of(key))]);
        return line(&serde_json::Value::from(told).to_string());
    }
    line(&format!("{event:WORD_WIDTH$} {}", quoted(key)))
}

/// A connection of the Redis protocol.
struct Subscriber {
    server: String,
    stream: Stream,
    buf: BytesMut,
    replies: ReplyReader,
}

impl Subscriber {
    async fn connect(server: &str) -> Result<Self, Failure> {
        let connect = async {
            let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
            for address in Net::Os.resolve(server).await? {
                match Net::Os.connect(address, CONNECT_MAX).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        };
        let stream =
            connect.await.map_err(|error| Failure::Unreachable(format!("{server} cannot be reached: {error}")))?;
        Ok(Self { server: server.to_owned(), stream, buf: BytesMut::new(), replies: ReplyReader::new(REPLY_BYTES_MAX) })
    }

    /// Sends a command and reads its reply.
    async fn ask(&mut self, command: &[&[u8]]) -> Result<Value, Failure> {
        self.send(command).await?;
        self.next().await
    }

    async fn send(&mut self, command: &[&[u8]]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        let words = command.iter().map(|word| Value::Bulk(Bytes::copy_from_slice(word)));
        Value::Array(words.collect()).encode(Wire::Resp2, &mut bytes);
        self.stream.write_all(&bytes).await.map_err(|error| self.lost(&error.to_string()))
    }

    /// What the node says next, however long that takes, unless it seems to be gone.
    async fn next(&mut self) -> Result<Value, Failure> {
        let mut is_asked = false;
        loop {
            match self.replies.next(&mut self.buf) {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => {}
                Err(error) => return Err(self.lost(&error.to_string())),
            }
            match tokio::time::timeout(SILENCE_ASKED, self.stream.read_buf(&mut self.buf)).await {
                Ok(Ok(0)) => return Err(self.lost("the node hung up")),
                Ok(Ok(_)) => is_asked = false,
                Ok(Err(error)) => return Err(self.lost(&error.to_string())),
                Err(_) if is_asked => {
                    return Err(self.lost("the node does not answer, or holds its clients up (CLIENT PAUSE)"));
                }
                Err(_) => {
                    self.send(&WHICH).await?;
                    is_asked = true;
                }
            }
        }
    }

    /// The classes of events that the node tells its subscribers of, by its answer.
    fn wanted(&self, set: &Value) -> Result<Classes, Failure> {
        let letters = match set {
            Value::Map(pairs) => match &pairs[..] {
                [(_, Value::Bulk(letters))] => Classes::parse(letters),
                _ => None,
            },
            _ => None,
        };
        let wanted = letters.ok_or_else(|| self.told(set))?;
        if !wanted.has(Classes::BY_KEY) || wanted.effective() == Classes::NONE {
            return Err(Failure::Told(format!(
                "{} tells of no keys: start it with --notify-keyspace-events KA, or send it CONFIG SET notify-keyspace-events KA",
                self.server
            )));
        }
        Ok(wanted)
    }

    fn lost(&self, why: &str) -> Failure {
        Failure::Unreachable(format!("{}: {why}; what happens to keys from now on is not seen", self.server))
    }

    fn told(&self, said: &Value) -> Failure {
        match said {
            Value::Error(text) => Failure::Told(String::from_utf8_lossy(text).into_owned()),
            _ => self.lost("it answers otherwise than a Trellis node"),
        }
    }
}
