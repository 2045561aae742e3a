//! Asks a seed that does not answer to gossip why, over TCP: for the log and for whoever asks about readiness. Decides nothing. Exercised by
//! `tests/process.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::actors::replication::Identity;
use crate::base::limits::DIAL_TIMEOUT;
use crate::net::client::{Client, ClientError};

/// Time for a greeting.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(2);
/// No greeting and no reason is longer.
const FRAME_BYTES_MAX: usize = 1024;

/// What whoever is at `address` has to say, in words.
pub(super) async fn ask(identity: &Identity, address: SocketAddr) -> String {
    let greeted = async {
        let client = Client::connect(identity.net, address, identity.cluster.as_str(), DIAL_TIMEOUT).await?;
        let mut client = client.taking_at_most(FRAME_BYTES_MAX);
        client.await_welcome(WELCOME_TIMEOUT).await.map(|node| node == identity.node.as_str())
    };
    match greeted.await {
        Ok(true) => "it has this node's id".into(),
        Ok(false) => "it answers over TCP, not over UDP".into(),
        Err(ClientError::Unreachable(error)) => error.to_string(),
        Err(other) => other.to_string(),
    }
}
