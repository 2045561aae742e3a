//! Hints between real processes: what a member misses while it stands still is noted by those who write, and is with it soon after it goes on.
//! What becomes of hints amid faults is the simulation's to show.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use running::{Node, parse_metrics, tell, until};

const KEYS: usize = 300;

fn pending(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.json("/v1/status")["hints_pending"].as_u64().expect("a number")).sum()
}

fn count(nodes: &[Node], counter: &str) -> f64 {
    nodes.iter().map(|node| parse_metrics(&node.http("GET", "/metrics").1)[counter]).sum()
}

/// Writes every key a few times.
fn write(to: &Node) {
    let sets: String = (0..5).flat_map(|n| (0..KEYS).map(move |key| format!("SET k{key} v{n}\r\n"))).collect();
    assert_eq!(tell(&to.main, &sets, 5 * KEYS), "+OK\r\n".repeat(5 * KEYS));
}

#[test]
fn what_a_member_misses_is_noted_once_a_key_and_handed_over_when_it_is_back() {
    let options = ["--heartbeat-interval", "100", "--failure-timeout", "1000", "--threads", "2"];
    let mut nodes = Node::cluster_with(3, &options);
    let away = nodes.pop().expect("three nodes");
    away.signal("STOP");
    for node in &nodes {
        until("it is missed", || {
            let status = node.json("/v1/status");
            let members = status["members"].as_array()?;
            members.iter().any(|member| member["state"] == "down").then_some(())
        });
    }
    write(&nodes[0]);
    assert_eq!(pending(&nodes), KEYS as u64);
    let refused = tell(&nodes[0].main, "TRELLIS CONSISTENCY all\r\nSET k0 x\r\n", 2);
    assert!(refused.starts_with("+OK\r\n-NOQUORUM ") && refused.ends_with("applied: no\r\n"), "{refused}");
    assert_eq!(pending(&nodes), KEYS as u64, "it counts towards no level");

    away.signal("CONT");
    until("all is handed over", || (pending(&nodes) == 0).then_some(()));
    assert_eq!(count(&nodes, "trellis_hints_handed_over_total"), KEYS as f64);
    assert_eq!(count(&nodes, "trellis_hints_dropped_total"), 0.0);
    until("it has every key", || (away.json("/v1/status")["keys"] == KEYS).then_some(()));
}

#[test]
fn without_hints_nothing_is_noted_and_a_member_that_is_back_gets_all_the_same() {
    let options = ["--heartbeat-interval", "100", "--failure-timeout", "1000", "--max-hints", "0"];
    let mut nodes = Node::cluster_with(2, &options);
    let away = nodes.pop().expect("two nodes");
    away.signal("STOP");
    until("it is missed", || {
        let status = nodes[0].json("/v1/status");
        let members = status["members"].as_array()?;
        members.iter().any(|member| member["state"] == "down").then_some(())
    });
    write(&nodes[0]);
    assert_eq!((pending(&nodes), count(&nodes, "trellis_hints_stored_total")), (0, 0.0));
    away.signal("CONT");
    until("it has every key", || (away.json("/v1/status")["keys"] == KEYS).then_some(()));
}
