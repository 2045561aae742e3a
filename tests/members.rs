//! Members that leave and that take other shares, as operators do it: `trellis-cli` against nodes as processes.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use running::cli::{cli, cli_with, expect, shown};
use running::{Node, program, until};
use serde_json::Value as Json;

#[test]
fn a_member_leaves_with_its_data_handed_over_and_joins_anew() {
    let mut nodes = Node::cluster(3);
    let at: Vec<String> = nodes.iter().map(|node| node.main.clone()).collect();
    let id_of = |node: &Node| node.json("/v1/status")["node_id"].as_str().expect("text").to_owned();
    let ids: Vec<String> = nodes.iter().map(id_of).collect();
    for n in 0..50 {
        expect(&cli(&at[n % 3], &format!("put key:{n} value:{n}")), 0, "OK\n", "");
    }
    expect(&cli(&at[0], "leave nobody"), 1, "", "no such member\n");
    // One through another node, then the one that is addressed: each copy is held by the last at the end.
    for (asked, leave) in [(0, format!("leave {}", ids[2])), (1, "leave".to_owned())] {
        expect(&cli(&at[asked], &leave), 0, "left\n", "");
        let mut gone = nodes.pop().expect("one is left");
        assert_eq!(gone.wait().0, Some(0));
        let log = gone.log();
        assert!(log.contains("stopping (left the cluster)") && !log.contains("ERROR"), "{log}");
        let members = nodes[0].json("/v1/members");
        let listed: Vec<&str> =
            members["members"].as_array().expect("a list").iter().filter_map(|m| m["id"].as_str()).collect();
        let staying: Vec<String> = nodes.iter().map(id_of).collect();
        assert_eq!(listed.len(), staying.len());
        assert!(listed.iter().all(|id| staying.iter().any(|staying| staying == id)));
        for n in 0..50 {
            let read = cli(&at[n % nodes.len()], &format!("get key:{n} --consistency quorum"));
            expect(&read, 0, &format!("value:{n}"), "");
        }
    }
    let last = "no other member takes a share, so all data would be lost; stop the node if that is meant\n";
    expect(&cli(&at[0], "leave"), 1, "", last);
    let again = Node::start(&["0", &at[0], "--node-id", &ids[2]]);
    until("it joined anew", || (again.http("GET", "/health/ready").0 == 200).then_some(()));
    expect(&cli(&again.main, "get key:7 --consistency all"), 0, "value:7", "");
}

#[test]
fn a_leave_that_waits_says_for_whom_and_can_be_taken_back() {
    let options = ["--heartbeat-interval", "100", "--failure-timeout", "1000", "--replication-factor", "2"];
    let nodes = Node::cluster_with(3, &options);
    let ids: Vec<String> =
        nodes.iter().map(|node| node.json("/v1/status")["node_id"].as_str().expect("text").to_owned()).collect();
    for n in 0..50 {
        expect(&cli(&nodes[n % 3].main, &format!("put key:{n} value:{n}")), 0, "OK\n", "");
    }
    // One of two that are to take over stands still, and nobody has noticed.
    nodes[1].signal("STOP");
    let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-cli"));
    command.args([&nodes[0].main, "leave", &ids[2]]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut leave = command.spawn().expect("it can be started");
    let mut said = BufReader::new(leave.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    let of = |node: &Node, id: &str| {
        let members = node.json("/v1/members");
        members["members"].as_array().expect("a list").iter().find(|m| m["id"] == id).cloned().expect("a member")
    };
    let leaver = of(&nodes[0], &ids[2]);
    let waits_for = &leaver["waits_for"][0];
    assert_eq!((&leaver["leaving"], &waits_for["id"]), (&true.into(), &ids[1].clone().into()), "{leaver}");
    let expected = format!("{} ({} partitions)", waits_for["id"], waits_for["partitions"]);
    assert!(line.contains(&expected) && line.contains("--cancel"), "{line}");

    expect(&cli(&nodes[0].main, &format!("leave {} --cancel", ids[2])), 0, "stays\n", "");
    assert_eq!(leave.wait().expect("it ends").code(), Some(1));
    line.clear();
    said.read_line(&mut line).expect("text");
    assert_eq!(line, format!("`{}` stays a member: see its log\n", ids[2]));
    nodes[1].signal("CONT");
    until("all have their shares again", || {
        let all = ids.iter().map(|id| of(&nodes[0], id));
        let rests = |m: Json| m["leaving"] == false && m["state"] == "alive" && m["partitions"] == m["holds"];
        all.into_iter().all(rests).then_some(())
    });
    for n in 0..50 {
        expect(&cli(&nodes[n % 3].main, &format!("get key:{n} --consistency all")), 0, &format!("value:{n}"), "");
    }
    // Nothing to take back.
    expect(&cli(&nodes[2].main, "leave --cancel"), 0, "stays\n", "");
}

#[test]
fn what_a_change_would_move_is_planned_and_a_share_is_changed_at_runtime() {
    let nodes: Vec<Node> = ["a", "b", "c"].iter().fold(Vec::new(), |mut nodes: Vec<Node>, name| {
        let seed = nodes.first().map(|node| node.main.clone());
        let args: Vec<&str> = ["0"].into_iter().chain(seed.as_deref()).collect();
        nodes.push(Node::start(&[&args[..], &["--node-id", name, "--replication-factor", "2"]].concat()));
        nodes
    });
    let at: Vec<&str> = nodes.iter().map(|node| node.main.as_str()).collect();
    let rests = || {
        until("nothing moves", || {
            nodes.iter().all(|node| node.json("/v1/status")["under_replicated_partitions"] == 0).then_some(())?;
            let plan = nodes[0].json("/v1/plan");
            let is_done = |m: &Json| m["gets"]["partitions"] == 0 && m["gives"]["partitions"] == 0;
            plan["members"].as_array()?.iter().all(is_done).then_some(())
        });
    };
    until("all are there", || (nodes[0].json("/v1/members")["members"].as_array()?.len() == 3).then_some(()));
    rests();
    for n in 0..300 {
        expect(&cli_with(at[0], &[b"put", format!("key:{n}").as_bytes(), b"v"], b""), 0, "OK\n", "");
    }
    let planned = |line: &str| -> Json { serde_json::from_str(&shown(&cli(at[1], line))).expect("JSON") };
    let of =
        |plan: &Json, id: &str| plan["members"].as_array().expect("a list").iter().find(|m| m["id"] == id).cloned();
    let leave = planned("plan leave b --json");
    let b = of(&leave, "b").expect("a member");
    assert_eq!((&b["gives"]["partitions"], &b["partitions_after"]), (&b["partitions_before"], &0.into()));
    assert!(b["gives"]["keys"].as_u64() > Some(100) && leave["moves"]["bytes"].as_u64() > Some(0), "{leave}");
    let join = planned("plan join --id d --weight 2 --json");
    assert!(of(&join, "d").expect("it would be one")["gets"]["partitions"].as_u64() > Some(500), "{join}");
    assert!(shown(&cli(at[1], "plan share c --weight 0")).contains("THEN"));
    expect(&cli(at[0], "plan leave nobody"), 1, "", "no such member\n");
    expect(&cli(at[0], "plan join --id a"), 1, "", "`a` is a member already\n");

    // Through another node than the one it is about; a gateway holds nothing, and asks others about sizes.
    expect(&cli(at[1], "share c --weight 0 --zone far"), 0, "changed\n", "");
    rests();
    let members = nodes[0].json("/v1/members");
    let c = of(&members, "c").expect("a member");
    assert_eq!(
        (&c["weight"], &c["zone"], &c["partitions"], &c["holds"]),
        (&0.into(), &"far".into(), &0.into(), &0.into())
    );
    let plan: Json = serde_json::from_str(&shown(&cli(at[2], "plan leave a --json"))).expect("JSON");
    assert_eq!(plan["copies_after"], 1);
    expect(&cli(at[2], "share c --weight 1 --zone -"), 0, "changed\n", "");
    rests();
    assert!(of(&nodes[0].json("/v1/members"), "c").expect("a member")["partitions"].as_u64() > Some(500));
    for n in 0..300 {
        expect(&cli(at[n % 3], &format!("get key:{n} --consistency all")), 0, "v", "");
    }
}
