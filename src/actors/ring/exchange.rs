//! One exchange of memberships over a connection of its own: it must work with nodes the ring does not know yet. Decides nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::base::limits::{DIAL_TIMEOUT, READ_CHUNK_BYTES};
use crate::cluster::membership::Membership;
use crate::protocol::native::frame::{self, FrameError};
use crate::protocol::native::{Answer, Ask, Hello, Message, PREFACE};

use super::Identity;

/// Longest membership taken: two thousand records with room to spare.
const MEMBERSHIP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time for the whole exchange.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why nothing was learned. The other side may have merged ours all the same.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("unexpected answer")]
    Protocol,
    #[error("took too long")]
    Late,
}

/// A membership as frames carry it.
pub(super) fn encode(membership: &Membership) -> Vec<u8> {
    crate::protocol::native::encode_payload(membership)
}

/// Reads a membership; whether it is sound is its merge's to say.
pub(super) fn decode(bytes: &[u8]) -> Result<Membership, String> {
    crate::protocol::native::decode_payload(bytes).map_err(|error| error.to_string())
}

/// Sends `ours` to whoever is at `to`, and returns theirs.
pub(super) async fn exchange(identity: &Identity, to: SocketAddr, ours: &[u8]) -> Result<Vec<u8>, ExchangeError> {
    tokio::time::timeout(EXCHANGE_TIMEOUT, attempt(identity, to, ours)).await.unwrap_or(Err(ExchangeError::Late))
}

async fn attempt(identity: &Identity, to: SocketAddr, ours: &[u8]) -> Result<Vec<u8>, ExchangeError> {
    let mut stream = identity.net.connect(to, DIAL_TIMEOUT).await?;
    let mut out = PREFACE.to_vec();
    frame::encode(&Message::Hello(Hello { cluster: identity.cluster.as_str(), peer: None }), &mut out);
    frame::encode(&Message::Ask { id: 1, ask: Ask::Membership(ours) }, &mut out);
    stream.write_all(&out).await?;
    let mut buf = BytesMut::with_capacity(READ_CHUNK_BYTES);
    loop {
        while let Some(payload) = frame::cut(&mut buf, MEMBERSHIP_BYTES_MAX)? {
            match frame::decode(&payload)? {
                Message::Welcome(_) => {}
                Message::Answer { id: 1, answer: Answer::Membership(theirs) } => return Ok(theirs.to_vec()),
                Message::Refused { reason } => return Err(ExchangeError::Refused(reason.to_owned())),
                _ => return Err(ExchangeError::Protocol),
            }
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
