//! The metrics page in Prometheus's text format. Tested below.

use std::fmt::Write;

use crate::actors::latency::{BUCKETS, Histogram, Latencies};
use crate::actors::process;
use crate::actors::report::Report;
use crate::base::counters::Counter;
use crate::cluster::sync::Moving;
use crate::cluster::view::Liveness;

/// Everything the node measures.
pub(super) fn render(report: &Report) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for counter in Counter::ALL {
        family(&mut out, &format!("{}_total", counter.metric()), "counter");
        sample(&mut out, &format!("{}_total", counter.metric()), report.counters.count(*counter) as f64);
    }
    for (name, value) in gauges(report) {
        family(&mut out, name, "gauge");
        sample(&mut out, name, value);
    }
    members(&mut out, report);
    latencies(&mut out, &report.connections.latencies);
    out
}

fn gauges(report: &Report) -> Vec<(&'static str, f64)> {
    let process = process::usage();
    // Nothing is left where nothing moves.
    let moving = report.sync.moving.unwrap_or(Moving { left_ms: Some(0), ..Moving::default() });
    let mut gauges = vec![
        ("up_ms", report.uptime_ms as f64),
        ("keys", report.store.keys as f64),
        ("keys_with_deadline", report.store.with_deadline as f64),
        ("tombstones", report.store.tombstones as f64),
        ("memory_bytes", report.store.memory_bytes as f64),
        ("resident_bytes", process.resident_bytes as f64),
        ("subscriptions", report.hub.subscriptions as f64),
        ("expiry_late_ms", report.store.expiry_late_ms as f64),
        ("clients", report.connections.clients as f64),
        ("inflight_ops", report.connections.inflight_ops as f64),
        ("client_bytes_in", report.connections.bytes_in as f64),
        ("client_bytes_out", report.connections.bytes_out as f64),
        ("outbox_bytes", report.replication.outbox_bytes as f64),
        ("hints_pending", report.replication.hints_pending as f64),
        ("hints_bytes", report.replication.hints_bytes as f64),
        ("links", report.replication.links.len() as f64),
        ("peer_calls", report.replication.calls as f64),
        ("partitions_syncing", report.sync.syncing as f64),
        ("partitions_moving", moving.left as f64),
        ("safe_to_stop", f64::from(u8::from(report.not_safe_to_stop().is_none()))),
        ("under_replicated_partitions", report.view.under_replicated() as f64),
        ("ring_epoch", report.view.epoch as f64),
    ];
    // While nothing has moved yet nobody knows.
    gauges.extend(moving.left_ms.map(|ms| ("rebalance_left_seconds", ms as f64 / 1e3)));
    gauges
}

fn family(out: &mut String, name: &str, kind: &str) {
    let _ = writeln!(out, "# TYPE trellis_{name} {kind}");
}

fn sample(out: &mut String, name: &str, value: f64) {
    let _ = writeln!(out, "trellis_{name} {value}");
}

fn members(out: &mut String, report: &Report) {
    family(out, "members", "gauge");
    for (state, liveness) in [("alive", Liveness::Alive), ("suspect", Liveness::Suspect), ("down", Liveness::Down)] {
        let count = report.view.peers().filter(|(_, peer)| peer.liveness == liveness).count();
        let _ = writeln!(out, "trellis_members{{state=\"{state}\"}} {count}");
    }
}

fn latencies(out: &mut String, latencies: &Latencies) {
    let name = "command_duration_seconds";
    family(out, name, "histogram");
    for (command, histogram) in latencies {
        let mut below = 0;
        for bucket in 0..BUCKETS {
            below += histogram.buckets[bucket];
            let upper = Histogram::upper_us(bucket).map_or("+Inf".into(), |us| (us as f64 / 1e6).to_string());
            let _ = writeln!(out, "trellis_{name}_bucket{{command=\"{command}\",le=\"{upper}\"}} {below}");
        }
        let _ = writeln!(out, "trellis_{name}_sum{{command=\"{command}\"}} {}", histogram.sum_us as f64 / 1e6);
        let _ = writeln!(out, "trellis_{name}_count{{command=\"{command}\"}} {}", histogram.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn histogram_buckets_add_up_to_their_count() {
        let mut all = Latencies::new();
        all.entry("get").or_default().record(Duration::from_micros(3), 4);
        all.entry("get").or_default().record(Duration::from_secs(20), 1);
        let mut out = String::new();
        latencies(&mut out, &all);
        assert!(out.contains("_bucket{command=\"get\",le=\"0.000004\"} 4\n"), "{out}");
        assert!(out.contains("le=\"+Inf\"} 5\n") && out.contains("_count{command=\"get\"} 5\n"), "{out}");
    }
}
