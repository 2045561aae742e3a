//! Members that own nothing, as processes: they answer for every key, be they the first that others join, one that died and is back, or one that gave up its
//! share for a while.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use serde_json::Value as Json;

use running::cli::{cli, expect};
use running::{Node, tell, until};

const KEYS: usize = 300;

fn start(name: &str, weight: &str, seeds: &[&str]) -> Node {
    let options = ["--node-id", name, "--weight", weight, "--replication-factor", "2", "--threads", "1"];
    Node::start(&[&["0"], seeds, &options[..]].concat())
}

/// Sets every key to one value through a node, at a level.
fn set(node: &Node, level: &str, value: &str) {
    let sets: String = (0..KEYS).map(|n| format!("SET key:{n} {value}\r\n")).collect();
    let answers = tell(&node.main, &format!("TRELLIS CONSISTENCY {level}\r\n{sets}"), 1 + KEYS);
    assert_eq!(answers, "+OK\r\n".repeat(1 + KEYS));
}

/// Expects every key to have that value, read through a node at quorum.
fn assert_set(node: &Node, value: &str) {
    let gets: String = (0..KEYS).map(|n| format!("GET key:{n}\r\n")).collect();
    let answers = tell(&node.main, &format!("TRELLIS CONSISTENCY quorum\r\n{gets}"), 1 + 2 * KEYS);
    assert_eq!(answers, "+OK\r\n".to_owned() + &format!("${}\r\n{value}\r\n", value.len()).repeat(KEYS));
}

/// Waits until these hold each of the keys twice in all, every partition is where it belongs, and those hold nothing.
fn await_placed(owners: &[&Node], others: &[&Node]) {
    until("all is where it belongs", || {
        let page = |node: &&Node| node.json("/v1/status");
        let (owners, others): (Vec<Json>, Vec<Json>) =
            (owners.iter().map(page).collect(), others.iter().map(page).collect());
        let keys: u64 = owners.iter().filter_map(|status| status["keys"].as_u64()).sum();
        let is_whole = |status: &Json| status["under_replicated_partitions"] == 0 && status["state"] == "active";
        let is_even = |member: &Json| member["partitions"] == member["holds"] && member["state"] == "alive";
        let members = |status: &Json| status["members"].as_array().is_some_and(|all| all.iter().all(is_even));
        let rests = owners.iter().chain(&others).all(|status| is_whole(status) && members(status));
        let empty = others.iter().all(|status| status["keys"] == 0 && status["tombstones"] == 0);
        (keys == 2 * KEYS as u64 && rests && empty).then_some(())
    });
}

#[test]
fn a_gateway_answers_for_all_keys_and_may_be_the_first_and_die() {
    // It founds the cluster and keeps what it is told until there is somebody with a share.
    let gateway = start("gateway", "0", &[]);
    set(&gateway, "quorum", "early");
    assert_set(&gateway, "early");
    let why = gateway.json("/v1/status")["not_safe_to_stop"].as_str().map(str::to_owned);
    assert_eq!(why.as_deref(), Some("no member takes a share, so nobody would take over"));
    let a = start("a", "1", &[&gateway.main]);
    let b = start("b", "1", &[&gateway.main]);
    await_placed(&[&a, &b], &[&gateway]);
    assert_set(&gateway, "early");
    set(&gateway, "all", "late");
    for node in [&a, &b, &gateway] {
        assert_set(node, "late");
    }
    let status = gateway.json("/v1/status");
    assert_eq!((&status["safe_to_stop"], &status["keys"]), (&true.into(), &0.into()), "{status}");
    // It dies without a word, which costs nobody anything, and is back under its name.
    drop(gateway);
    set(&a, "all", "meanwhile");
    let gateway = start("gateway", "0", &[&b.main]);
    until("it is ready", || (gateway.http("GET", "/health/ready").0 == 200).then_some(()));
    assert_set(&gateway, "meanwhile");
    await_placed(&[&a, &b], &[&gateway]);
}

#[test]
fn members_give_up_their_shares_while_they_run_but_the_last() {
    let a = start("a", "1", &[]);
    let [b, c] = ["b", "c"].map(|name| start(name, "1", &[&a.main]));
    until("all are there", || (a.json("/v1/members")["members"].as_array()?.len() == 3).then_some(()));
    set(&a, "quorum", "v1");
    await_placed(&[&a, &b, &c], &[]);
    expect(&cli(&a.main, "share b --weight 0"), 0, "changed\n", "");
    await_placed(&[&a, &c], &[&b]);
    assert_set(&b, "v1");
    set(&b, "all", "v2");
    // Two copies are wanted, and one member is left: it has the only one.
    expect(&cli(&b.main, "share a --weight 0"), 0, "changed\n", "");
    until("all is on one", || {
        (c.json("/v1/status")["keys"] == KEYS && a.json("/v1/status")["keys"] == 0).then_some(())
    });
    assert_set(&a, "v2");
    let sole = "no other member takes a share, so nobody would own any key\n";
    expect(&cli(&a.main, "share c --weight 0"), 1, "", sole);
    let last = "no other member takes a share, so all data would be lost; stop the node if that is meant\n";
    expect(&cli(&a.main, "leave c"), 1, "", last);
    set(&a, "all", "v3");
    for name in ["a", "b"] {
        expect(&cli(&c.main, &format!("share {name} --weight 1")), 0, "changed\n", "");
    }
    await_placed(&[&a, &b, &c], &[]);
    for node in [&a, &b, &c] {
        assert_set(node, "v3");
    }
}
