//! What connections tell of the commands that went through them, and the settings changed by them: `SLOWLOG`, `LATENCY HISTOGRAM`,
//! `CONFIG SET`, `CONFIG RESETSTAT`. What is slow, and what an entry shows, stands in `protocol::resp::slowlog`. Exercised by
//! `tests/clients/check_control.py`.

use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;

use crate::protocol::resp::settings::Change;
use crate::protocol::resp::slowlog::{SlowAsk, SlowEntry, Told, newest};
use crate::protocol::resp::value::Value;

use super::super::latency::{BUCKETS, Histogram, Latencies};
use super::super::live::Baseline;
use super::super::pubsub::SetClasses;
use super::super::report::ask;
use super::super::store::SetBudget;
use super::{Connections, Door, Entry};

/// The slow log of one arbiter.
#[derive(Message)]
#[rtype(result = "Vec<SlowEntry>")]
struct AskSlow;

/// Forget it.
#[derive(Message)]
#[rtype(result = "()")]
struct ForgetSlow;

impl Handler<AskSlow> for Connections {
    type Result = Vec<SlowEntry>;

    fn handle(&mut self, _: AskSlow, _: &mut Self::Context) -> Self::Result {
        self.door.slow.borrow().entries()
    }
}

impl Handler<ForgetSlow> for Connections {
    type Result = ();

    fn handle(&mut self, _: ForgetSlow, _: &mut Self::Context) {
        self.door.slow.borrow_mut().clear();
    }
}

/// Notes the commands of a batch that took `took`, if that was long.
pub(super) fn note_slow(door: &Door, entry: &Entry, told: &[Told], took: Duration) {
    let live = &door.handles.live;
    if live.slower_than().is_none_or(|limit| took < limit) || live.slowlog_len() == 0 {
        return;
    }
    let (addr, name) = entry.session.borrow().client();
    for told in told {
        let slow = SlowEntry {
            id: live.next_slow_command(),
            unix_s: door.now() / 1000,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            args: Vec::new(),
            addr: addr.clone(),
            name: name.clone(),
        };
        door.slow.borrow_mut().note(told, slow, live.slowlog_len());
    }
}

/// Answers `SLOWLOG`, over all arbiters.
pub(super) async fn slow_log(door: &Door, asked: SlowAsk) -> Value {
    let doors = door.handles.connections.get().map_or(&[][..], Vec::as_slice);
    if asked == SlowAsk::Reset {
        ask(doors, || ForgetSlow).await;
        return Value::OK;
    }
    let len_max = door.handles.live.slowlog_len();
    let entries: Vec<SlowEntry> = ask(doors, || AskSlow).await.into_iter().flatten().collect();
    match asked {
        SlowAsk::Entries(count) => newest(entries, len_max, count),
        SlowAsk::Len | SlowAsk::Reset => Value::Int(entries.len().min(len_max) as i64),
    }
}

/// Answers `LATENCY HISTOGRAM`.
pub(super) async fn histograms(door: &Door, names: &[Bytes]) -> Value {
    let report = door.handles.report().await;
    let baseline = door.handles.live.baseline();
    let since = |name: &&'static str, histogram: &Histogram| {
        histogram.since(&baseline.latencies.get(name).copied().unwrap_or_default())
    };
    let latencies: Latencies = report.connections.latencies.iter().map(|(name, h)| (*name, since(name, h))).collect();
    // A container stands for its subcommands.
    let is = |name: &str, wanted: &Bytes| {
        let lower = wanted.to_ascii_lowercase();
        name.as_bytes() == lower || name.split_once('|').is_some_and(|(container, _)| container.as_bytes() == lower)
    };
    let chosen = latencies.iter().filter(|(name, histogram)| {
        histogram.count() > 0 && (names.is_empty() || names.iter().any(|wanted| is(name, wanted)))
    });
    Value::Map(chosen.map(|(name, histogram)| (Value::bulk(name), distribution(histogram))).collect())
}

/// Calls up to each bucket's end, where there are any in it.
fn distribution(histogram: &Histogram) -> Value {
    let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let mut calls = 0;
    let mut buckets = Vec::new();
    for (bucket, count) in histogram.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        calls += count;
        buckets.push((int(Histogram::upper_us(bucket).unwrap_or(1 << BUCKETS)), int(calls)));
    }
    Value::Map(vec![(Value::bulk("calls"), int(calls)), (Value::bulk("histogram_usec"), Value::Map(buckets))])
}

/// Makes changes to the settings.
pub(super) async fn change(door: &Door, changes: &[Change]) -> Value {
    let (handles, live) = (&door.handles, &door.handles.live);
    changes.iter().for_each(|change| live.apply(*change));
    if changes.iter().any(|change| matches!(change, Change::MaxMemory(_) | Change::Evicts(_))) {
        let stores = &handles.local.stores;
        let share = match live.memory_bytes_max() {
            0 => 0,
            bytes => usize::try_from(bytes / stores.len() as u64).unwrap_or(usize::MAX).max(1),
        };
        ask(stores, || SetBudget { bytes_max: share, evict: live.evicts() }).await;
    }
    for change in changes {
        if let Change::Notify(classes) = change {
            // A hub that is gone ends the node.
            let _ = handles.hub.send(SetClasses(*classes)).await;
        }
    }
    for change in changes {
        tracing::info!(?change, "setting changed by a client");
    }
    Value::OK
}

/// Has `INFO` count from now on.
pub(super) async fn reset_statistics(door: &Door) -> Value {
    let report = door.handles.report().await;
    door.handles.live.reset_statistics(Baseline {
        counters: report.counters,
        latencies: report.connections.latencies,
        bytes_in: report.connections.bytes_in,
        bytes_out: report.connections.bytes_out,
    });
    Value::OK
}
