//! Commands about members: one is forgotten, one leaves or stays after all, one takes another share, and what such changes would move. Waits for what takes its time. How tables look is in `show`. Tested in `tests/cli.rs`.

use std::time::Duration;

use serde_json::{Value as Json, json};

use trellis::base::id::NodeId;

use super::arguments::{Planned, Share};
use super::ask::{Cluster, line};
use super::progress::Progress;
use super::{Failure, show};

/// Between two looks at a member that leaves.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After so many looks whoever is asked knows that the member leaves.
const LOOKS_UNKNOWN_MAX: u32 = 100;

/// A member that waits for others is said to do so after so many looks: most that are not alive are back within a moment.
const LOOKS_WAITING_MIN: u32 = 20;

/// Takes a dead member out of the ring.
pub(crate) async fn forget(cluster: &Cluster, id: &NodeId) -> Result<(), Failure> {
    let page = cluster.good_page(format!("POST v1/members/{id}/forget").as_bytes()).await?;
    line(&if cluster.json { page.to_string() } else { "forgotten".into() })
}

/// Gives a member another share.
pub(crate) async fn share(cluster: &Cluster, id: &NodeId, share: &Share) -> Result<(), Failure> {
    let page = cluster.good_page(format!("POST v1/members/{id}/share?{}", share.query()).as_bytes()).await?;
    line(&if cluster.json { page.to_string() } else { "changed".into() })
}

/// Shows what a change would move, or what is still moving.
pub(crate) async fn plan(cluster: &Cluster, change: Option<&Planned>) -> Result<(), Failure> {
    let rest = match change {
        None => String::new(),
        Some(Planned::Join { id, share }) => {
            let id = id.iter().map(|id| format!("id={id}"));
            format!("/join?{}", id.chain([share.query()]).collect::<Vec<_>>().join("&"))
        }
        Some(Planned::Leave { node }) => format!("/leave/{node}"),
        Some(Planned::Forget { node }) => format!("/forget/{node}"),
        Some(Planned::Share { node, share }) => format!("/share/{node}?{}", share.query()),
    };
    let page = cluster.good_page(format!("v1/plan{rest}").as_bytes()).await?;
    line(&if cluster.json { page.to_string() } else { show::plan(&page) })
}

/// Has a member leave, by default the one that was addressed, and returns when its data has moved and it is gone.
pub(crate) async fn leave(cluster: &Cluster, id: Option<&NodeId>) -> Result<(), Failure> {
    let id = named_or_own(cluster, id).await?;
    let members = cluster.good_page(b"v1/members").await?;
    let others = list(&members).iter().filter(|member| member["id"] != id.as_str());
    let others = others.filter_map(|member| member["address"].as_str().map(str::to_owned));
    let mut witnesses: Vec<String> = std::iter::once(cluster.server.clone()).chain(others).collect();
    let held = held_by(&members, &id);
    cluster.good_page(format!("POST v1/members/{id}/leave").as_bytes()).await?;
    let progress = Progress::of("moved", Some(held), false);
    let (mut looks, mut is_known, mut moved) = (0, false, 0);
    let (mut waited, mut said) = (0, None);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let members = look(cluster, &mut witnesses).await?;
        let Some(member) = list(&members).iter().find(|m| m["id"] == id.as_str() && m["state"] != "left") else {
            break;
        };
        let is_leaving = member["leaving"] == true;
        if member["state"] == "down" && is_leaving {
            return Err(Failure::Told(format!("`{id}` went down before all that it holds had moved")));
        }
        if !is_leaving && (is_known || looks > LOOKS_UNKNOWN_MAX) {
            return Err(Failure::Told(format!("`{id}` stays a member: see its log")));
        }
        looks += 1;
        is_known |= is_leaving;
        let waits_for = waits_for(member);
        waited = if waits_for.is_some() { waited + 1 } else { 0 };
        if waited >= LOOKS_WAITING_MIN && waits_for != said {
            progress.say(waits_for.as_deref().unwrap_or_default());
            said = waits_for;
        }
        let gone = held.saturating_sub(held_by(&members, &id));
        progress.step(gone.saturating_sub(moved));
        moved = moved.max(gone);
    }
    drop(progress);
    line(&if cluster.json { json!({ "left": true }).to_string() } else { "left".into() })
}

/// Takes back that a member leaves.
pub(crate) async fn stay(cluster: &Cluster, id: Option<&NodeId>) -> Result<(), Failure> {
    let id = named_or_own(cluster, id).await?;
    let page = cluster.good_page(format!("POST v1/members/{id}/stay").as_bytes()).await?;
    line(&if cluster.json { page.to_string() } else { "stays".into() })
}

/// The member that was named, or the one that was addressed.
async fn named_or_own(cluster: &Cluster, id: Option<&NodeId>) -> Result<String, Failure> {
    if let Some(id) = id {
        return Ok(id.to_string());
    }
    let status = cluster.good_page(b"v1/status").await?;
    let own = status["node_id"].as_str().ok_or_else(|| Failure::Told("the node does not tell its id".into()))?;
    Ok(own.to_owned())
}

/// For whom a member waits before it can give away what it holds, in words.
fn waits_for(member: &Json) -> Option<String> {
    let of = member["waits_for"].as_array()?.iter();
    let of: Vec<String> = of.map(|one| format!("{} ({} partitions)", one["id"], one["partitions"])).collect();
    (!of.is_empty()).then(|| {
        format!(
            "waits for members that are to take over and are not alive: {}; `leave --cancel` takes the leave back",
            of.join(", ")
        )
    })
}

/// The members as the first of the witnesses sees them that can be reached; those before it are not asked again. The node that was addressed
/// may be the one that goes.
async fn look(cluster: &Cluster, witnesses: &mut Vec<String>) -> Result<Json, Failure> {
    loop {
        let Some(witness) = witnesses.first() else {
            return Err(Failure::Unreachable(format!("{}: no member can be reached any more", cluster.server)));
        };
        match cluster.page_of(witness, b"v1/members").await {
            Ok((200, members)) => return Ok(members),
            Ok((status, _)) => return Err(Failure::Told(format!("{witness} answers with status {status}"))),
            Err(Failure::Unreachable(_)) => drop(witnesses.remove(0)),
            Err(failure) => return Err(failure),
        }
    }
}

fn list(page: &Json) -> &[Json] {
    page["members"].as_array().map_or(&[], Vec::as_slice)
}

fn held_by(page: &Json, id: &str) -> u64 {
    list(page).iter().find(|member| member["id"] == id).and_then(|member| member["holds"].as_u64()).unwrap_or(0)
}
