//! The client for Rust programs: knows who coordinates which key and asks there, over few connections, any number of requests at a time.
//!
//! A [`Client`] is cheap to clone; all clones share what they know and their connections. It is given some nodes to begin with, learns from
//! them who else is there, and follows joins and failures by itself.
//!
//! ```no_run
//! use std::time::Duration;
//! use trellis::client::{Client, Level};
//!
//! # async fn example() -> Result<(), trellis::client::Error> {
//! let client = Client::connect(["127.0.0.1:5000", "127.0.0.1:5001"]).await?;
//!
//! client.set("greeting", "hello").ttl(Duration::from_secs(60)).await?;
//! assert_eq!(client.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
//!
//! // A majority of the key's replicas takes part. However often it must be sent, it counts once.
//! let visits = client.incr("visits", 1).consistency(Level::Quorum).await?;
//!
//! // Only one of several clients gets this.
//! let is_mine = client.set("lock", "me").ttl(Duration::from_secs(10)).if_absent().await?;
//! # let _ = (visits, is_mine);
//! # Ok(())
//! # }
//! ```
//!
//! Change a value on the condition that nobody else has since:
//!
//! ```no_run
//! # async fn example(client: trellis::client::Client) -> Result<(), trellis::client::Error> {
//! while let Some(item) = client.get_item("cart").await? {
//!     let longer = [&item.value[..], b",book"].concat();
//!     if client.set("cart", longer).if_version(item.version).keep_ttl().await? {
//!         break;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Many keys at once, all keys, and any command there is:
//!
//! ```no_run
//! # async fn example(client: trellis::client::Client) -> Result<(), trellis::client::Error> {
//! use futures_util::TryStreamExt;
//!
//! client.set_many([("a", "1"), ("b", "2")]).await?;
//! let values = client.get_many(["a", "b", "c"]).await?;
//! let keys: Vec<_> = client.scan("user:*").try_collect().await?;
//! let bits = client.command(["BITCOUNT", "a"]).await?;
//! # let _ = (values, keys, bits);
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! Each [`Error`] says of what kind it is and whether the request was applied: no, yes, or that it can't be known. What met with nobody, or
//! with a node that had no room, is tried again until the call's deadline, elsewhere if need be. A request that changes something carries an
//! id, under which replicas remember it: tried again, it is answered and not done twice. At level one that holds while its coordinator
//! lives. A command on several keys ([`Client::command`]) has no such id and is not tried again once it may have arrived.
//!
//! # Bounds
//!
//! Operations and bytes under way, connections to each node and the time of each call are bounded by [`Options`]; a call beyond them waits
//! for room. A node that owes an answer and says nothing for a second is given up, and its requests are tried elsewhere.
//!
//! There is no encryption and no password yet; where a connection is dialled is the one place for both.

mod call;
mod clock;
mod commands;
mod error;
mod inner;
mod link;
mod node;
mod options;
mod pool;
mod reply;
mod requests;
mod retry;
mod routes;
mod scan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value as Json;
use tokio::time::Instant;

pub use crate::base::hlc::Version;
pub use crate::base::id::ClusterName;
pub use crate::base::level::Level;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::op::{Act, Op};
use crate::protocol::native::{Answer, Ask};
pub use crate::protocol::resp::value::Value;
pub use error::{Applied, Error, ErrorKind};
pub use options::{Options, TIMEOUT_MAX};
pub use reply::Item;
pub use requests::{Lifetime, Request, Set};

use call::Terms;
use inner::Inner;
use reply::Reply;
use requests::Asked;
use routes::Address;

/// What a call comes to.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A client of one cluster.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    /// Connects with the default [`Options`] to the first of these `host:port` that answers, and learns from it who else is there.
    ///
    /// # Errors
    /// `Unreachable` or `Refused`; nothing was done.
    pub async fn connect<S: AsRef<str>>(seeds: impl IntoIterator<Item = S>) -> Result<Self> {
        Options::default().connect(seeds).await
    }

    /// Takes no more calls of any clone, waits for those under way, and closes the connections. To drop all clones closes them as well.
    pub async fn close(self) {
        self.inner.close().await;
    }

    /// `host:port` of the members, as they are known at the moment.
    pub fn members(&self) -> Vec<String> {
        self.inner.table().members().iter().map(|member| member.to_string()).collect()
    }

    /// The state of the cluster as one node sees it: the page that the admin endpoint has at `/v1/status`.
    ///
    /// # Errors
    /// [`Error`]; nothing is changed by asking.
    pub async fn status(&self) -> Result<Json> {
        self.good_page("v1/status".into()).await
    }

    /// Who holds a key: slot, partition and replicas, as at `/v1/ring/{key}`.
    ///
    /// # Errors
    /// [`Error`]; nothing is changed by asking.
    pub async fn ring(&self, key: impl AsRef<[u8]>) -> Result<Json> {
        self.good_page([b"v1/ring/", key.as_ref()].concat()).await
    }

    async fn good_page(&self, path: Vec<u8>) -> Result<Json> {
        match self.admin(None, path).await? {
            (200..300, page) => Ok(page),
            (status, page) => {
                let reason = page["error"]["message"].as_str().unwrap_or("no reason given");
                Err(Error::before(ErrorKind::Command, format!("{reason} (status {status})")))
            }
        }
    }

    /// A page of the admin endpoint by its path without the first slash, or a change, `POST ` and a path: of the node at this `host:port`,
    /// or of any. HTTP status and body.
    ///
    /// # Errors
    /// [`Error`]. A change may have been made if it says so.
    pub async fn admin(&self, node: Option<&str>, path: impl AsRef<[u8]>) -> Result<(u16, Json)> {
        let deadline = self.deadline(Asked::default());
        let _room = self.inner.room(1, path.as_ref().len(), deadline).await?;
        let (node, repeats) = (node.map(Address::from), !path.as_ref().starts_with(b"POST "));
        let read = |answer: Answer<'_>| match answer {
            Answer::Admin { status, body } => Some(Ok((status, serde_json::from_slice(body).ok()?))),
            _ => None,
        };
        self.inner.ask(&Ask::Admin(path.as_ref()), (node.as_ref(), repeats), deadline, read).await
    }

    fn deadline(&self, asked: Asked) -> Instant {
        clock::now() + asked.timeout.unwrap_or(self.inner.options.timeout).min(TIMEOUT_MAX)
    }

    /// Executes operations, one result each. An error is about all of them.
    async fn execute(&self, ops: Vec<Op>, asked: Asked) -> Result<Vec<Result<Reply>>> {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let (begun, deadline) = (clock::now(), self.deadline(asked));
        let value_bytes_max = self.inner.table().value_bytes_max;
        ops.iter().try_for_each(|op| check(op, value_bytes_max))?;
        let bytes = ops.iter().map(call::op_bytes).sum();
        let _room = self.inner.room(ops.len(), bytes, deadline).await?;
        let level = asked.level.or(self.inner.options.consistency);
        Ok(call::execute(&self.inner, ops, Terms { level, begun, deadline }).await)
    }
}

/// Refuses what no node would take, and what would cost the connection that others share.
fn check(Op { key, act, value }: &Op, value_bytes_max: usize) -> Result<()> {
    let besides = if matches!(act, Act::Item(_)) { crate::base::item::TERMS_BYTES_MAX } else { 0 };
    let told = match () {
        () if key.len() > KEY_BYTES_MAX => format!("ERR key exceeds the limit of {KEY_BYTES_MAX} bytes"),
        () if value.len() > value_bytes_max.saturating_add(besides) => {
            format!("ERR a value may have at most {value_bytes_max} bytes, nothing was done")
        }
        () => return Ok(()),
    };
    Err(Error::before(ErrorKind::Command, told))
}
