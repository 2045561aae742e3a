//! What changes would move, as JSON, and what the parameters of changes mean. Decides nothing: `cluster::plan` does. Exercised by `tests/cli.rs`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::base::id::NodeId;
use crate::cluster::plan::{Change, Load, Moves, Plan, Share, Sizes, Unplanned, between, pending, ring_after};
use crate::cluster::ring::Ring;
use crate::cluster::view::View;

use super::changes;
use super::handles::Handles;
use super::views::error;

/// Whom a planned join is named after, unless it says otherwise.
const JOINER: &str = "joiner";
/// Largest weight, as for `--weight`.
const WEIGHT_MAX: u16 = 1024;

/// Answers `v1/plan`, with what stands behind it: nothing, or a change such as `/leave/ID`.
pub(super) async fn plan(handles: &Handles, rest: &str) -> (u16, Value) {
    let view = handles.view.load_full();
    let held = view.claimed();
    let knows_more = |peer: &crate::cluster::view::Peer| !peer.member.held_now().is_empty();
    if held.is_empty()
        && let Some((other, _)) = view.others().find(|(ix, peer)| view.is_alive(*ix) && knows_more(peer))
    {
        // A gateway has no idea of sizes.
        return changes::pass_on(handles, other, &format!("v1/plan{rest}")).await;
    }
    let change = match change_of(rest) {
        Ok(change) => change,
        Err(reason) => return (400, error("bad_request", &reason)),
    };
    let Ok(known) = handles.local.sizes(held).await else { return (503, error("unavailable", "the node is stopping")) };
    let sizes = Sizes::new(known.into_iter().map(|(partition, keys, bytes)| (partition, (keys, bytes))).collect());
    let Some(change) = change else { return (200, page(&view, &view.ring, pending(&view, &sizes))) };
    match ring_after(&view, &change) {
        Ok(after) => (200, page(&view, &after, between(&view.ring, &after, &sizes))),
        Err(unplanned @ Unplanned::NoMember) => (404, error("not_found", &unplanned.to_string())),
        Err(unplanned) => (409, error("conflict", &unplanned.to_string())),
    }
}

/// Who gets and gives what, where `after` is the ring to be.
fn page(view: &View, after: &Ring, plan: Plan) -> Value {
    let places = |ring: &Ring| ring.members().iter().map(|m| (m.id.clone(), m.places)).collect::<BTreeMap<_, _>>();
    let (before, then) = (places(&view.ring), places(after));
    let ids: BTreeSet<&NodeId> = before.keys().chain(then.keys()).chain(plan.keys()).collect();
    let load = |load: Load| json!({ "partitions": load.partitions, "keys": load.keys, "bytes": load.bytes });
    let member = |id: &&NodeId| {
        let Moves { gets, gives } = plan.get(*id).copied().unwrap_or_default();
        json!({
            "id": id.as_str(),
            "partitions_before": before.get(*id).copied().unwrap_or(0),
            "partitions_after": then.get(*id).copied().unwrap_or(0),
            "gets": load(gets),
            "gives": load(gives),
        })
    };
    let members: Vec<Value> = ids.iter().map(member).collect();
    let all = |of: fn(Load) -> u64| plan.values().map(|moves| of(moves.gets)).sum::<u64>();
    json!({
        "copies_before": view.ring.copies(),
        "copies_after": after.copies(),
        "moves": { "partitions": all(|l| l.partitions), "keys": all(|l| l.keys), "bytes": all(|l| l.bytes) },
        "members": members,
    })
}

/// `a=b&c=d` with these names, each at most once. Values are names and numbers, which need no escapes.
pub(super) fn parameters<'a>(query: &'a str, names: &[&str]) -> Result<BTreeMap<&'a str, &'a str>, String> {
    let mut given = BTreeMap::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if !names.contains(&name) {
            return Err(format!("an unknown parameter; known are: {}", names.join(", ")));
        }
        if given.insert(name, value).is_some() {
            return Err(format!("`{name}` is given twice"));
        }
    }
    Ok(given)
}

/// What `weight` and `zone` say of a share. An empty zone is none.
pub(super) fn share_of(given: &BTreeMap<&str, &str>) -> Result<Share, String> {
    let weight = given.get("weight").map(|text| match text.parse() {
        Ok(weight @ 0..=WEIGHT_MAX) => Ok(weight),
        _ => Err(format!("a weight is a number from 0 to {WEIGHT_MAX}")),
    });
    let zone = given.get("zone").map(|text| match *text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| "not a name of a zone".to_owned()),
    });
    Ok(Share { weight: weight.transpose()?, zone: zone.transpose()? })
}

/// The change that is named by what stands behind `v1/plan`.
fn change_of(rest: &str) -> Result<Option<Change>, String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let parts: Vec<&str> = path.split('/').collect();
    let id = |text: &str| text.parse::<NodeId>().map_err(|_| "not a node id".to_owned());
    let given = parameters(query, if parts == ["", "join"] { &["id", "weight", "zone"] } else { &["weight", "zone"] })?;
    let share = share_of(&given)?;
    Ok(Some(match parts[..] {
        [""] if given.is_empty() => return Ok(None),
        ["", "join"] => Change::Join { id: id(given.get("id").copied().unwrap_or(JOINER))?, share },
        ["", "leave" | "forget", who] if given.is_empty() => Change::Go(id(who)?),
        ["", "share", who] => Change::Share(id(who)?, share),
        _ => return Err("a plan is of join, leave/ID, forget/ID or share/ID".into()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_parameters_name_a_change() {
        let id = |name: &str| name.parse::<NodeId>().unwrap();
        let share = |weight: Option<u16>, zone: Option<&str>| Share {
            weight,
            zone: zone.map(|zone| (!zone.is_empty()).then(|| zone.parse().unwrap())),
        };
        for (rest, expected) in [
            ("", None),
            ("/join", Some(Change::Join { id: id(JOINER), share: share(None, None) })),
            ("/join?id=x&weight=2&zone=b", Some(Change::Join { id: id("x"), share: share(Some(2), Some("b")) })),
            ("/leave/a", Some(Change::Go(id("a")))),
            ("/forget/a?", Some(Change::Go(id("a")))),
            ("/share/a?zone=", Some(Change::Share(id("a"), share(None, Some(""))))),
        ] {
            assert_eq!(change_of(rest), Ok(expected), "{rest}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for rest in [
            "?id=a",
            "/explode",
            "/leave",
            "/leave/",
            "/leave/a/b",
            "/leave/a?weight=2",
            "/share?weight=1",
            "/share/a?id=b",
            "/join?weight=1025",
            "/join?weight=-1",
            "/join?zone=a b",
            "/join?id=a&id=b",
            "/join?colour=red",
            "er",
        ] {
            assert!(change_of(rest).is_err(), "{rest}");
        }
    }
}
