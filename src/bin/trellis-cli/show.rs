//! Pages of a node as tables for people. Never asks a node; a field that is missing shows as `-`. Tested below.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde_json::Value as Json;

use trellis::base::slot::PARTITIONS;

/// `/v1/status`, and how many keys the cluster has.
pub(crate) fn status(page: &Json, keys: Option<i64>) -> String {
    let mut out = String::new();
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<18}{value}");
    };
    fact("node", text(&page["node_id"]));
    fact("cluster", text(&page["cluster"]));
    fact("version", text(&page["version"]));
    let reason = page["not_ready"].as_str().map_or_else(String::new, |reason| format!(", {reason}"));
    fact("state", format!("{}{reason}", text(&page["state"])));
    fact("up", page["uptime_ms"].as_u64().map_or("-".into(), uptime));
    fact("ring epoch", text(&page["ring_epoch"]));
    fact("keys", format!("{} in the cluster, {} here", text(&keys.into()), text(&page["keys"])));
    fact("memory", format!("{} bytes", text(&page["memory_bytes"])));
    fact("hints", format!("{} pending", text(&page["hints_pending"])));
    fact("syncing", format!("{} partitions", text(&page["partitions_syncing"])));
    if let Some(left) = page["rebalance"]["partitions_left"].as_u64() {
        let moved = text(&page["rebalance"]["partitions_moved"]);
        let takes = page["rebalance"]["left_ms"].as_u64().map_or("not known yet".into(), uptime);
        fact("moving", format!("{left} partitions, {moved} have moved, time left {takes}"));
    }
    fact("under-replicated", format!("{} partitions", text(&page["under_replicated_partitions"])));
    fact(
        "safe to stop",
        match (page["safe_to_stop"].as_bool(), page["not_safe_to_stop"].as_str()) {
            (Some(true), _) => "yes".into(),
            (_, Some(reason)) => format!("no, {reason}"),
            _ => "-".into(),
        },
    );
    let mut table = table(&["MEMBER", "ADDRESS", "ADMIN", "STATE", "ZONE", "WEIGHT", "PARTITIONS", "OWNS"], 5);
    for member in list(&page["members"]) {
        let partitions = &member["partitions"];
        let owns = partitions.as_u64().map_or("-".into(), |held| percent(held, u64::from(PARTITIONS)));
        table.add_row([
            text(&member["id"]),
            text(&member["address"]),
            text(&member["admin"]),
            state(member),
            text(&member["zone"]),
            text(&member["weight"]),
            text(partitions),
            owns,
        ]);
    }
    format!("{out}\n{}", lines(&table))
}

/// `/v1/ring`: each member's share of all copies, and of the partitions that some member coordinates.
pub(crate) fn shares(page: &Json) -> String {
    let mut held: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for run in list(&page["partitions"]) {
        let partitions = match (run["first"].as_u64(), run["last"].as_u64()) {
            (Some(first), Some(last)) => (last + 1).saturating_sub(first),
            _ => 0,
        };
        for (place, id) in list(&run["replicas"]).iter().enumerate() {
            let (copies, firsts) = held.entry(id.as_str().unwrap_or_default()).or_default();
            *copies += partitions;
            *firsts += if place == 0 { partitions } else { 0 };
        }
    }
    let all: u64 = held.values().map(|(copies, _)| copies).sum();
    let mut table = table(&["MEMBER", "ADDRESS", "STATE", "ZONE", "WEIGHT", "PARTITIONS", "FIRST FOR", "SHARE"], 4);
    for member in list(&page["members"]) {
        let (copies, firsts) = member["id"].as_str().and_then(|id| held.get(id)).copied().unwrap_or_default();
        table.add_row([
            text(&member["id"]),
            text(&member["address"]),
            state(member),
            text(&member["zone"]),
            text(&member["weight"]),
            copies.to_string(),
            firsts.to_string(),
            percent(copies, all),
        ]);
    }
    format!("ring epoch {}\n\n{}", text(&page["epoch"]), lines(&table))
}

/// `/v1/ring/{key}`.
pub(crate) fn replicas(page: &Json) -> String {
    let mut table = table(&["REPLICA", "ADDRESS", "STATE", "HOLDS"], 4);
    for replica in list(&page["replicas"]) {
        let holds = match replica["holds"].as_bool() {
            Some(true) => "complete",
            Some(false) => "syncing",
            None => "unknown",
        };
        table.add_row([text(&replica["id"]), text(&replica["address"]), text(&replica["state"]), holds.into()]);
    }
    format!("slot {}, partition {}\n\n{}", text(&page["slot"]), text(&page["partition"]), lines(&table))
}

/// `/v1/plan`.
pub(crate) fn plan(page: &Json) -> String {
    let (before, after) = (&page["copies_before"], &page["copies_after"]);
    let copies = if before == after { text(after) } else { format!("{} now, then {}", text(before), text(after)) };
    let moves = &page["moves"];
    let all =
        format!("{} partitions, {} keys, {}", text(&moves["partitions"]), text(&moves["keys"]), size(&moves["bytes"]));
    let head = ["MEMBER", "PARTITIONS", "THEN", "GETS", "KEYS", "BYTES", "GIVES", "KEYS", "BYTES"];
    let mut table = table(&head, 1);
    for member in list(&page["members"]) {
        let (gets, gives) = (&member["gets"], &member["gives"]);
        table.add_row([
            text(&member["id"]),
            text(&member["partitions_before"]),
            text(&member["partitions_after"]),
            text(&gets["partitions"]),
            text(&gets["keys"]),
            size(&gets["bytes"]),
            text(&gives["partitions"]),
            text(&gives["keys"]),
            size(&gives["bytes"]),
        ]);
    }
    format!("copies {copies}\nmoves  {all}\n\n{}", lines(&table))
}

/// A table whose columns from `numbers` on hold numbers.
fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn lines(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// What the failure detector says of a member, unless there is more to say.
fn state(member: &Json) -> String {
    if member["leaving"] == true && member["state"] == "alive" { "leaving".into() } else { text(&member["state"]) }
}

fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Json) -> String {
    match value {
        Json::Null => "-".into(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Bytes in the largest unit that leaves a number above one.
fn size(bytes: &Json) -> String {
    let Some(bytes) = bytes.as_u64() else { return "-".into() };
    let unit = (1..=4).rev().find(|unit| bytes >> (10 * unit) > 0);
    unit.map_or(format!("{bytes} B"), |unit| {
        format!("{:.1} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, ["KiB", "MiB", "GiB", "TiB"][unit - 1])
    })
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

fn uptime(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {}s", seconds % 60),
        (0, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_add_up_over_runs_of_partitions() {
        let member = |id: &str| json!({ "id": id, "address": "h:1", "state": "alive", "zone": null, "weight": 1 });
        let shown = shares(&json!({
            "epoch": 4,
            "members": [member("a"), member("b"), member("gateway")],
            "partitions": [
                { "first": 0, "last": 9, "replicas": ["a", "b"] },
                { "first": 10, "last": 39, "replicas": ["b"] },
            ],
        }));
        let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["ring", "epoch", "4"]);
        assert_eq!(rows[3], ["a", "h:1", "alive", "-", "1", "10", "10", "20.0%"]);
        assert_eq!(rows[4], ["b", "h:1", "alive", "-", "1", "40", "30", "80.0%"]);
        assert_eq!(rows[5], ["gateway", "h:1", "alive", "-", "1", "0", "0", "0.0%"]);
    }

    #[test]
    fn a_page_without_anything_is_still_shown() {
        let words = |shown: String| shown.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = words(status(&json!({}), None));
        assert!(
            shown.starts_with("node - cluster - version - state - up - ring epoch - keys - in the cluster, - here"),
            "{shown}"
        );
        assert!(shown.ends_with("MEMBER ADDRESS ADMIN STATE ZONE WEIGHT PARTITIONS OWNS"), "{shown}");
        let shown = words(shares(&json!([])));
        assert_eq!(shown, "ring epoch - MEMBER ADDRESS STATE ZONE WEIGHT PARTITIONS FIRST FOR SHARE");
        assert_eq!(words(replicas(&json!("x"))), "slot -, partition - REPLICA ADDRESS STATE HOLDS");
    }

    #[test]
    fn only_of_the_living_is_it_said_what_they_hold() {
        let replica =
            |id: &str, state: &str, holds: Json| json!({ "id": id, "address": "h:1", "state": state, "holds": holds });
        let list =
            [replica("a", "alive", true.into()), replica("b", "alive", false.into()), replica("c", "down", Json::Null)];
        let shown = replicas(&json!({ "slot": 1, "partition": 0, "replicas": list }));
        let last: Vec<&str> = shown.lines().skip(3).filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(last, ["complete", "syncing", "unknown"]);
    }

    #[test]
    fn a_plan_shows_who_gets_and_who_gives() {
        let load = |n: u64| json!({ "partitions": n, "keys": 10 * n, "bytes": 2048 * n });
        let member = |id: &str, gets: u64, gives: u64| json!({ "id": id, "partitions_before": 9, "partitions_after": 9 + gets - gives, "gets": load(gets), "gives": load(gives) });
        let shown = plan(&json!({
            "copies_before": 2, "copies_after": 3, "moves": load(3), "members": [member("a", 3, 0), member("b", 0, 3)],
        }));
        let rows: Vec<String> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows[..2], ["copies 2 now, then 3", "moves 3 partitions, 30 keys, 6.0 KiB"]);
        assert_eq!(rows[4..], ["a 9 12 3 30 6.0 KiB 0 0 0 B", "b 9 6 0 0 0 B 3 30 6.0 KiB"]);
        assert_eq!(
            [0, 1023, 1 << 20, (5 << 30) / 2].map(|n: u64| size(&n.into())),
            ["0 B", "1023 B", "1.0 MiB", "2.5 GiB"]
        );
    }

    #[test]
    fn uptimes_name_their_two_largest_units() {
        assert_eq!([59_999, 3_600_000, 90_000_000].map(uptime), ["0m 59s", "1h 0m", "1d 1h"]);
    }
}
