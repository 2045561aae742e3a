//! One exchange of memberships over a connection of its own: it must work with nodes the ring does not know yet. Decides nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::limits::{DIAL_TIMEOUT, MEMBERSHIP_BYTES_MAX};
use crate::cluster::membership::Membership;
use crate::net::client::{Client, ClientError};
use crate::protocol::native::{Answer, Ask, decode_payload, encode_payload};

use super::Identity;

/// Time for question and answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// A membership as frames carry it.
pub(super) fn encode(membership: &Membership) -> Vec<u8> {
    encode_payload(membership)
}

/// Reads a membership; whether it is sound is its merge's to say.
pub(super) fn decode(bytes: &[u8]) -> Result<Membership, String> {
    decode_payload(bytes).map_err(|error| error.to_string())
}

/// Sends `ours` to whoever is at `to`, and returns theirs. After an error the other side may have merged ours all the same.
pub(super) async fn exchange(identity: &Identity, to: SocketAddr, ours: &[u8]) -> Result<Vec<u8>, ClientError> {
    let client = Client::connect(identity.net, to, identity.cluster.as_str(), DIAL_TIMEOUT).await?;
    let mut client = client.taking_at_most(MEMBERSHIP_BYTES_MAX);
    let theirs = |answer: Answer<'_>| match answer {
        Answer::Membership(theirs) => Some(theirs.to_vec()),
        _ => None,
    };
    client.ask(Ask::Membership(ours), EXCHANGE_TIMEOUT, theirs).await
}
