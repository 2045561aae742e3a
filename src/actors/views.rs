//! The admin endpoint's answers as JSON, whoever carries them: HTTP or the native protocol of `trellis-cli`. Never opens a socket.

use serde_json::{Value, json};

use crate::base::slot::{Partition, Slot};
use crate::cluster::leave::waits_for;
use crate::cluster::membership::MemberState;
use crate::cluster::view::{Liveness, Peer, PeerIx, View};

use super::changes;
use super::handles::Handles;
use super::plan;
use super::report::Report;

/// Answers a path such as `v1/status`, or a change such as `POST v1/members/ID/forget`.
pub(super) async fn answer(handles: &Handles, request: &[u8]) -> (u16, String) {
    let (status, body) = match std::str::from_utf8(request) {
        Ok(text) => match text.strip_prefix("POST ") {
            Some(path) => changes::change(handles, path).await,
            None => page(handles, text).await,
        },
        // A key need not be text.
        Err(_) => match request.strip_prefix(b"v1/ring/") {
            Some(key) => (200, ring_of(&handles.view.load(), key)),
            None => (404, error("not_found", "no such page")),
        },
    };
    (status, body.to_string())
}

async fn page(handles: &Handles, path: &str) -> (u16, Value) {
    match path {
        "v1/status" => (200, status(handles, &handles.report().await)),
        "v1/members" => (200, json!({ "members": members(&handles.view.load()) })),
        "v1/ring" => (200, ring(&handles.view.load())),
        "health" => health(&handles.report().await),
        "health/live" => live(&handles.report().await),
        _ => match (path.strip_prefix("v1/ring/"), path.strip_prefix("v1/plan")) {
            (Some(key), _) => (200, ring_of(&handles.view.load(), key.as_bytes())),
            (_, Some(rest)) => plan::plan(handles, rest).await,
            _ => (404, error("not_found", "no such page")),
        },
    }
}

/// An error body. Nothing was done.
pub fn error(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message, "applied": "no" } })
}

/// `/health/ready`.
fn health(report: &Report) -> (u16, Value) {
    match report.not_ready() {
        None => (200, json!({ "ready": true, "state": report.state() })),
        Some(reason) => (503, json!({ "ready": false, "state": report.state(), "reason": reason })),
    }
}

/// `/health/live`.
fn live(report: &Report) -> (u16, Value) {
    match report.not_live() {
        None => (200, json!({ "live": true })),
        Some(reason) => (503, json!({ "live": false, "reason": reason })),
    }
}

/// `/v1/status`.
fn status(handles: &Handles, report: &Report) -> Value {
    let last_round = report.sync.last_round_age_ms;
    let not_safe_to_stop = report.not_safe_to_stop();
    let rebalance = report.sync.moving.map(|moving| {
        json!({
            "partitions_left": moving.left,
            "partitions_moved": moving.moved,
            "elapsed_ms": moving.elapsed_ms,
            "left_ms": moving.left_ms,
        })
    });
    json!({
        "node_id": handles.identity.node.as_str(),
        "cluster": handles.identity.cluster.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": report.uptime_ms,
        "state": report.state(),
        "not_ready": report.not_ready(),
        "ring_epoch": report.view.epoch,
        "members": members(&report.view),
        "keys": report.store.keys,
        "memory_bytes": report.store.memory_bytes,
        "tombstones": report.store.tombstones,
        "hints_pending": report.replication.hints_pending,
        "partitions_syncing": report.sync.syncing,
        "under_replicated_partitions": report.view.under_replicated(),
        "rebalance": rebalance,
        "safe_to_stop": not_safe_to_stop.is_none(),
        "not_safe_to_stop": not_safe_to_stop,
        "silent": report.silent,
        "anti_entropy": { "last_round_ms": last_round, "divergent_keys": report.sync.divergent_keys },
    })
}

fn members(view: &View) -> Vec<Value> {
    view.peers().map(|(ix, peer)| member(view, ix, peer)).collect()
}

fn member(view: &View, ix: PeerIx, peer: &Peer) -> Value {
    let waits_for =
        waits_for(view, ix).into_iter().map(|(id, partitions)| json!({ "id": id.as_str(), "partitions": partitions }));
    json!({
        "id": peer.member.id.as_str(),
        "address": peer.member.address,
        "admin": peer.member.admin,
        "state": state(peer),
        "leaving": peer.member.state == MemberState::Leaving,
        "zone": peer.member.zone,
        "weight": peer.member.weight,
        "partitions": peer.partitions,
        "holds": peer.member.held_now().count(),
        "waits_for": waits_for.collect::<Vec<_>>(),
    })
}

fn state(peer: &Peer) -> &'static str {
    match peer.liveness {
        _ if peer.member.is_tombstone() => "left",
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Down => "down",
    }
}

/// `/v1/ring`: runs of partitions with the same replicas.
fn ring(view: &View) -> Value {
    let name = |ix| view.peer(ix).map_or("?", |peer| peer.member.id.as_str());
    let mut runs: Vec<(u16, u16, Vec<&str>)> = Vec::new();
    for partition in Partition::all() {
        let replicas: Vec<&str> = view.route(partition).owners.iter().map(|ix| name(*ix)).collect();
        match runs.last_mut() {
            Some((_, last, same)) if *same == replicas => *last = partition.0,
            _ => runs.push((partition.0, partition.0, replicas)),
        }
    }
    let runs: Vec<Value> = runs
        .iter()
        .map(|(first, last, replicas)| json!({ "first": first, "last": last, "replicas": replicas }))
        .collect();
    json!({ "epoch": view.epoch, "partitions": runs, "members": members(view) })
}

/// `/v1/ring/{key}`. Of a replica that is not alive nobody knows what it holds: its last claim says nothing of a process that is gone.
fn ring_of(view: &View, key: &[u8]) -> Value {
    let slot = Slot::of(key);
    let route = view.route(slot.partition());
    let replica = |ix| {
        let peer = view.peer(ix)?;
        let holds = (peer.liveness == Liveness::Alive).then(|| route.holders.contains(&ix));
        Some(json!({
            "id": peer.member.id.as_str(),
            "address": peer.member.address,
            "state": state(peer),
            "holds": holds,
        }))
    };
    let replicas: Vec<Value> = route.owners.iter().filter_map(|ix| replica(*ix)).collect();
    json!({ "slot": slot.0, "partition": slot.partition().0, "replicas": replicas })
}
