//! What an operator changes about the cluster: members that leave, are forgotten, or take another share. A member's own wishes are told to that member, through
//! whichever node they come. Answers are JSON, whoever carries them. Decides nothing.

use serde_json::{Value, json};

use crate::base::id::NodeId;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::cluster::plan::Share;
use crate::cluster::view::{Liveness, PeerIx};
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Answer, Ask, Message as Native};

use super::handles::Handles;
use super::plan;
use super::replication::{CallPeer, LinkError};
use super::report;
use super::ring::{Forget, Leave, Reshare, Stay};
use super::views::error;

/// Carries out `path`, such as `v1/members/ID/leave`.
pub(super) async fn change(handles: &Handles, path: &str) -> (u16, Value) {
    #[cfg(feature = "sim")]
    match path {
        // For the tests that an actor's panic stops the node in order, and that one that hangs keeps nobody; releases do not have them.
        "debug/panic" => {
            handles.local.stores[0].do_send(super::store::Panic);
            return (200, json!({ "panicked": true }));
        }
        "debug/hang" => {
            handles.gossip.do_send(super::gossip::Hang);
            return (200, json!({ "hung": true }));
        }
        _ => {}
    }
    let (name, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = name.split('/').collect();
    let ["v1", "members", id, action @ ("forget" | "leave" | "stay" | "share")] = parts[..] else {
        return (404, error("not_found", "no such action"));
    };
    let Ok(id) = id.parse::<NodeId>() else { return (400, error("bad_request", "not a node id")) };
    let view = handles.view.load_full();
    let Some((ix, peer)) = view.find(&id) else { return (404, error("not_found", "no such member")) };
    match action {
        "forget" => forget(handles, id).await,
        "share" if ix == view.me => reshare(handles, query).await,
        "stay" if ix == view.me => stay(handles).await,
        _ if ix == view.me => leave(handles).await,
        _ if peer.liveness == Liveness::Down => {
            (409, error("conflict", &format!("`{id}` is down: `forget` takes it out of the ring")))
        }
        _ => pass_on(handles, ix, &format!("POST {path}")).await,
    }
}

async fn forget(handles: &Handles, id: NodeId) -> (u16, Value) {
    match report::ask(std::slice::from_ref(&handles.ring), || Forget(id.clone())).await.pop() {
        Some(Ok(())) => (200, json!({ "forgotten": true })),
        Some(Err(reason)) => (409, error("conflict", &reason)),
        None => ring_silent(),
    }
}

/// Accepted, not done: what this node holds moves first.
async fn leave(handles: &Handles) -> (u16, Value) {
    match report::ask(std::slice::from_ref(&handles.ring), || Leave).await.pop() {
        Some(Ok(())) => (202, json!({ "leaving": true })),
        Some(Err(reason)) => (409, error("conflict", &reason)),
        None => ring_silent(),
    }
}

/// This node takes back that it leaves.
async fn stay(handles: &Handles) -> (u16, Value) {
    match report::ask(std::slice::from_ref(&handles.ring), || Stay).await.pop() {
        Some(Ok(())) => (200, json!({ "leaving": false })),
        Some(Err(reason)) => (409, error("conflict", &reason)),
        None => ring_silent(),
    }
}

/// This node takes another share from now on. Others see it at once, and data moves.
async fn reshare(handles: &Handles, query: &str) -> (u16, Value) {
    let share = match plan::parameters(query, &["weight", "zone"]).and_then(|given| plan::share_of(&given)) {
        Ok(share) if share == Share::default() => return (400, error("bad_request", "`weight` or `zone` is missing")),
        Ok(share) => share,
        Err(reason) => return (400, error("bad_request", &reason)),
    };
    match report::ask(std::slice::from_ref(&handles.ring), || Reshare(share.clone())).await.pop() {
        Some(Ok(())) => (200, json!({ "changed": true })),
        Some(Err(reason)) => (409, error("conflict", &reason)),
        None => ring_silent(),
    }
}

fn ring_silent() -> (u16, Value) {
    (503, unknown("no answer from: ring"))
}

/// An error after which nobody knows whether anything was done.
fn unknown(message: &str) -> Value {
    let mut body = error("unavailable", message);
    body["error"]["applied"] = "unknown".into();
    body
}

/// Has another member answer a request, such as the one that a change is about.
pub(super) async fn pass_on(handles: &Handles, peer: PeerIx, request: &str) -> (u16, Value) {
    let call = Call::ask(&Ask::Admin(request.as_bytes()));
    let asked = handles.local.replications[0].send(CallPeer { peer, call });
    let payload = match tokio::time::timeout(REQUEST_TIMEOUT, asked).await {
        Ok(Ok(Ok(payload))) => payload,
        Ok(Ok(Err(refused @ (LinkError::Unreachable | LinkError::Busy)))) => {
            return (503, error("unavailable", &refused.to_string()));
        }
        Ok(Ok(Err(broken @ LinkError::Broken { .. }))) => return (503, unknown(&broken.to_string())),
        Ok(Err(_)) | Err(_) => return (503, unknown("the member does not answer")),
    };
    match frame::decode(&payload) {
        Ok(Native::Answer { answer: Answer::Admin { status, body }, .. }) => match serde_json::from_slice(body) {
            Ok(body) => (status, body),
            Err(_) => (503, unknown("the member's answer can't be read")),
        },
        _ => (503, unknown("the member does not answer as agreed")),
    }
}
