//! The `trellis` process as a user or a supervisor meets it: its first line, its exit codes, its sockets, its admin pages.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use running::{DEADLINE, Node, connect, harm, parse_metrics, refused, tell, until};
use serde_json::Value as Json;
use trellis::base::id::NodeId;
use trellis::base::slot::Slot;

/// What a supervisor grants a node to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

fn is_served_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback() && address.port() != 0)
}

/// Sends inline commands, hangs up the sending side, and returns every answer.
fn say(path: &Path, commands: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("the socket is there");
    stream.set_read_timeout(Some(DEADLINE)).expect("a positive time");
    stream.write_all(commands.as_bytes()).expect("the node reads");
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("the node answers and hangs up");
    answers
}

#[test]
fn the_ready_line_names_every_listener() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let path = path.to_str().expect("a plain path");
    let node = Node::start(&["0", "--unix", path]);
    let words: Vec<&str> = node.ready.split(' ').collect();
    assert_eq!(words[..2], ["trellis", "ready"], "{}", node.ready);
    let listeners: Vec<(&str, &str)> = words[2..].iter().filter_map(|word| word.split_once('=')).collect();
    assert_eq!(listeners.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["main", "admin", "unix"]);
    assert!(is_served_address(listeners[0].1) && is_served_address(listeners[1].1), "{}", node.ready);
    assert_eq!(listeners[2].1, path);
    assert!(Node::start(&["0", "--admin-port", "0"]).ready.ends_with(" admin=127.0.0.1:0"));
}

#[test]
fn a_node_serves_before_its_seeds_answer() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let node = Node::start(&["0", &nobody.to_string()]);
    assert_eq!(node.http("GET", "/health/live").0, 200);
    let (status, body) = node.http("GET", "/health/ready");
    assert_eq!(status, 503);
    let body: Json = serde_json::from_str(&body).expect("JSON");
    assert!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{body}");
}

/// What a node that is not ready gives as its reason, once that holds `words`.
fn reason_of(node: &Node, words: &str) -> String {
    until(words, || {
        let (status, body) = node.http("GET", "/health/ready");
        assert_eq!(status, 503, "{body}");
        let body: Json = serde_json::from_str(&body).expect("JSON");
        body["reason"].as_str().filter(|reason| reason.contains(words)).map(str::to_owned)
    })
}

#[test]
fn seeds_that_do_not_answer_are_named_where_people_look() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let mut node = Node::start(&["0", &nobody.to_string(), "host.invalid:5000"]);
    let reason = reason_of(&node, "refused");
    assert!(reason.starts_with(&format!("no seed answers yet: {nobody} (Connection refused")), "{reason}");
    assert!(reason.contains("host.invalid:5000 (not found: "), "{reason}");
    assert_eq!(node.json("/v1/status")["not_ready"], reason);
    node.signal("TERM");
    assert_eq!(node.wait().0, Some(0));
    let log = node.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("WARN") && line.contains("seed")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&reason), "{log}");
}

#[test]
fn a_node_with_another_cluster_name_says_both_names_and_so_does_its_seed() {
    let mut seed = Node::start(&["0", "--cluster-name", "right"]);
    let mut node = Node::start(&["0", &seed.main, "--cluster-name", "wrong"]);
    let reason = reason_of(&node, "another cluster name: `wrong` where this is `right`");
    assert!(reason.contains(&seed.main), "{reason}");
    for node in [&mut node, &mut seed] {
        node.signal("TERM");
        assert_eq!(node.wait().0, Some(0));
        let log = node.log();
        assert!(log.contains("`wrong` where this is `right`"), "{log}");
    }
}

#[test]
fn two_nodes_under_one_id_both_say_so() {
    let mut first = Node::start(&["0", "--node-id", "a"]);
    let mut second = Node::start(&["0", &first.main, "--node-id", "a"]);
    let reason = reason_of(&second, "another process uses this node's id");
    assert!(reason.ends_with(&first.main), "{reason}");
    until("the first is ready all the same", || (first.http("GET", "/health/ready").0 == 200).then_some(()));
    for node in [&mut first, &mut second] {
        node.signal("TERM");
        assert_eq!(node.wait().0, Some(0));
        let log = node.log();
        assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("uses this node's id")), "{log}");
    }
}

#[test]
fn what_a_node_took_before_its_seed_answered_is_the_clusters_afterwards() {
    let seed = Node::start(&["0"]);
    seed.signal("STOP");
    let node = Node::start(&["0", &seed.main]);
    assert_eq!(node.http("GET", "/health/ready").0, 503);
    // One replica holds it, and that is what level one says.
    assert_eq!(tell(&node.main, "SET k v\r\nGET k\r\n", 3), "+OK\r\n$1\r\nv\r\n");
    // Its majority of one says nothing.
    let refused = tell(&node.main, "TRELLIS CONSISTENCY quorum\r\nSET k w\r\n", 2);
    assert!(refused.starts_with("+OK\r\n-NOQUORUM ") && refused.ends_with("applied: no\r\n"), "{refused}");
    seed.signal("CONT");
    until("the seed has it", || (tell(&seed.main, "GET k\r\n", 1) == "$1\r\n").then_some(()));
    until("ready", || (node.http("GET", "/health/ready").0 == 200).then_some(()));
    assert_eq!(tell(&node.main, "GET k\r\n", 2), "$1\r\nv\r\n");
}

#[test]
fn signals_stop_it_in_order_whoever_is_connected() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::start(&["0"]);
        let idle = (connect(&node.main), connect(&node.admin));
        let mut asking = BufReader::new(connect(&node.main));
        asking.get_mut().write_all(b"PING\r\n").expect("the node reads");
        let mut answer = String::new();
        asking.read_line(&mut answer).expect("the node answers");
        assert_eq!(answer, "+PONG\r\n");
        node.signal(signal);
        let (code, took, said) = node.wait();
        assert_eq!((code, said), (Some(0), vec![]), "SIG{signal}");
        assert!(took < STOP_TIME_MAX, "SIG{signal} took {took:?}");
        drop(idle);
        let log = node.log();
        assert!(!log.contains("panic") && !log.contains('\u{1b}'), "{log}");
        let own = [format!("stopping (SIG{signal})"), "stopped".into()];
        let said = |line: &String| log.lines().any(|logged| logged.contains("INFO") && logged.ends_with(line.as_str()));
        assert!(own.iter().all(said), "{log}");
        assert!(!log.to_lowercase().contains("actix") && !log.contains("workers"), "{log}");
    }
}

#[test]
fn a_stopping_node_says_so_before_it_hangs_up() {
    let mut node = Node::start(&["0"]);
    let mut client = BufReader::new(connect(&node.main));
    node.signal("TERM");
    let mut answers = BTreeSet::new();
    loop {
        let mut answer = String::new();
        let heard = client.get_mut().write_all(b"SET k v\r\n").and_then(|()| client.read_line(&mut answer));
        if !heard.is_ok_and(|bytes| bytes > 0) {
            break;
        }
        answers.insert(answer.split([' ', '\r']).next().unwrap_or_default().to_owned());
    }
    assert!(answers.contains("-SHUTDOWN"), "{answers:?}");
    assert!(answers.iter().all(|answer| ["+OK", "-SHUTDOWN"].contains(&answer.as_str())), "{answers:?}");
    assert_eq!(node.wait().0, Some(0));
}

#[test]
fn an_actor_that_panics_stops_the_node_with_exit_code_70() {
    let mut node = Node::start(&["0"]);
    harm(&node, b"POST debug/panic");
    let (code, took, _) = node.wait();
    assert_eq!(code, Some(70), "{}", node.log());
    assert!(took < STOP_TIME_MAX, "{took:?}");
}

#[test]
fn a_part_that_hangs_is_told_of_and_does_not_keep_the_process_alive() {
    let mut node = Node::start(&["0"]);
    harm(&node, b"POST debug/hang");
    let (status, body) =
        until("the gossip hangs", || Some(node.http("GET", "/health/live")).filter(|(s, _)| *s == 503));
    assert!(body.contains("gossip"), "{status}: {body}");
    assert_eq!(node.http("GET", "/health/ready").0, 503);
    assert_eq!(node.http("GET", "/metrics").0, 503);
    let silent = node.json("/v1/status")["silent"].to_string();
    assert!(silent.contains("gossip") && !silent.contains("store"), "{silent}");

    node.signal("TERM");
    let (code, took, _) = node.wait();
    assert!(took < STOP_TIME_MAX, "{took:?}");
    let log = node.log();
    assert_eq!(code, Some(70), "{log}");
    assert!(log.contains("did not stop in time: gossip, liveness arbiter"), "{log}");
}

#[test]
fn a_port_in_use_is_named_and_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let port = address.port().to_string();
    for args in [&[port.as_str(), "--admin-port", "0"][..], &["0", "--admin-port", &port]] {
        let output = refused(args);
        let reason = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{args:?}: {reason}");
        let line = reason.lines().find(|line| line.starts_with("trellis: ")).unwrap_or_default();
        assert!(line.contains(&address.to_string()) && line.contains("in use"), "{args:?}: {reason}");
        assert_eq!(line.contains("--admin-port"), args[0] == "0", "{args:?}: {reason}");
    }
    // With both in use, as where the same command runs already, it is the main port that is told.
    let taken_too = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port_too = taken_too.local_addr().expect("bound").port().to_string();
    let output = refused(&[&port, "--admin-port", &port_too]);
    let reason = String::from_utf8(output.stderr).expect("text");
    assert!(reason.contains(&format!("cannot listen on tcp {address}")), "{reason}");
    let output = refused(&["0", "--admin-port", &port]);
    let reason = String::from_utf8(output.stderr).expect("text");
    assert!(reason.contains("--admin-port takes another"), "{reason}");
    let taken = until("a port is free for connections", || {
        let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        TcpListener::bind(address).is_ok().then_some(taken)
    });
    let address = taken.local_addr().expect("bound");
    let output = refused(&[&address.port().to_string(), "--admin-port", "0"]);
    let reason = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(reason.contains(&format!("cannot listen on udp {address}")), "{reason}");
}

#[test]
fn inline_commands_work_over_the_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let mut node = Node::start(&["0", "--unix", path.to_str().expect("a plain path")]);
    assert_eq!(say(&path, "SET foo bar\r\nGET foo\r\n"), "+OK\r\n$3\r\nbar\r\n");
    assert_eq!(say(&path, "GET \"foo\"\nECHO 'a b'\n"), "$3\r\nbar\r\n$3\r\na b\r\n");
    node.signal("TERM");
    assert_eq!(node.wait().0, Some(0));
    assert!(!path.exists(), "a node that stopped in order leaves no socket behind");
}

#[test]
fn a_unix_socket_is_taken_over_from_the_dead_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let name = path.to_str().expect("a plain path");
    drop(UnixListener::bind(&path).expect("a socket file that nobody serves"));
    let _node = Node::start(&["0", "--unix", name]);
    assert_eq!(say(&path, "PING\r\n"), "+PONG\r\n");

    let second = refused(&["0", "--unix", name]);
    let reason = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{reason}");
    assert!(reason.contains(name), "{reason}");
    assert_eq!(say(&path, "PING\r\n"), "+PONG\r\n", "the first is untouched");

    let file = dir.path().join("file");
    std::fs::write(&file, "precious").expect("written");
    assert_eq!(refused(&["0", "--unix", file.to_str().expect("a plain path")]).status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
}

#[test]
fn health_and_status_say_all_that_is_promised() {
    let node = Node::start(&["0", "--node-id", "a", "--zone", "z", "--weight", "2"]);
    assert_eq!(node.http("GET", "/health/live").0, 200);
    until("ready", || (node.http("GET", "/health/ready").0 == 200).then_some(()));
    let status = node.json("/v1/status");
    for field in [
        "uptime_ms",
        "ring_epoch",
        "keys",
        "memory_bytes",
        "hints_pending",
        "partitions_syncing",
        "under_replicated_partitions",
        "tombstones",
    ] {
        assert!(status[field].is_u64(), "{field}: {status}");
    }
    assert_eq!((&status["node_id"], &status["state"]), (&"a".into(), &"active".into()));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let entropy = status["anti_entropy"].as_object().expect("an object");
    assert!(entropy.contains_key("last_round_ms") && entropy["divergent_keys"].is_u64(), "{status}");
    let expected = serde_json::json!([{
        "id": "a", "address": node.main, "admin": node.admin, "state": "alive", "leaving": false, "zone": "z", "weight": 2,
        "partitions": 1024, "holds": 1024, "waits_for": [],
    }]);
    assert_eq!(status["members"], expected);
    assert_eq!(node.json("/v1/members"), serde_json::json!({ "members": expected }));
    // The slots are those of `CLUSTER KEYSLOT` in Redis.
    let foo = node.json("/v1/ring/foo");
    assert_eq!((&foo["slot"], &foo["partition"]), (&12182.into(), &(12182 / 16).into()));
    assert_eq!(foo["replicas"][0]["id"], "a");
    assert_eq!(node.json("/v1/ring/x%7Bfoo%7D")["slot"], 12182, "the key is unescaped, its hash tag counts");
    assert_eq!(node.json("/v1/ring/%FF")["slot"], Slot::of(b"\xff").0, "a key need not be text");
    assert_eq!(node.json("/v1/ring")["partitions"][0]["replicas"], serde_json::json!(["a"]));
}

#[test]
fn unknown_pages_and_actions_are_json_errors() {
    let node = Node::start(&["0"]);
    for (method, path, status) in [
        ("GET", "/v2/status", 404),
        ("GET", "/nothing/at/all", 404),
        ("PUT", "/v1/status", 405),
        ("GET", "/v1/members/nobody/forget", 405),
        ("POST", "/v1/members/nobody/forget", 404),
        ("POST", "/v1/members/nobody/leave", 404),
        ("POST", "/v1/members/nobody/stay", 404),
        ("POST", "/v1/members/nobody/share?weight=2", 404),
        ("GET", "/v1/plan/leave/nobody", 404),
        ("GET", "/v1/plan/join?weight=heavy", 400),
        ("POST", "/v1/members/a%20b/forget", 400),
    ] {
        let (got, body) = node.http(method, path);
        let body: Json = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: not JSON: {body}"));
        assert_eq!(got, status, "{path}: {body}");
        let error = &body["error"];
        assert!(error["code"].is_string() && error["message"].is_string() && error["applied"] == "no", "{body}");
    }
}

#[test]
fn a_node_alone_tells_cluster_clients_that_it_serves_every_slot() {
    let node = Node::start(&["0", "--node-id", "a"]);
    until("ready", || (node.http("GET", "/health/ready").0 == 200).then_some(()));
    let (host, port) = node.main.rsplit_once(':').expect("an address");
    let id = "a".parse::<NodeId>().expect("a name").cluster_id();
    let slots =
        format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n${}\r\n{host}\r\n:{port}\r\n$40\r\n{id}\r\n*0\r\n", host.len());
    assert_eq!(tell(&node.main, "CLUSTER SLOTS\r\n", 11), slots);
    let line = tell(&node.main, "CLUSTER NODES\r\n", 2);
    let line = line.lines().nth(1).expect("a node");
    assert!(line.starts_with(&format!("{id} {host}:{port}@{port} myself,master - 0 0 ")), "{line}");
    assert!(line.ends_with(" connected 0-16383"), "{line}");
    assert!(tell(&node.main, "CLUSTER INFO\r\n", 2).ends_with("cluster_state:ok\r\n"));
    let keys = "MSET {t}1 x {t}2 y\r\nCLUSTER KEYSLOT t\r\n";
    let slot = tell(&node.main, keys, 2).lines().nth(1).expect("a slot")[1..].to_owned();
    assert_eq!(tell(&node.main, &format!("CLUSTER COUNTKEYSINSLOT {slot}\r\n"), 1), ":2\r\n");
}

#[test]
fn every_line_of_the_metrics_page_is_valid() {
    let node = Node::start(&["0"]);
    let mut client = BufReader::new(connect(&node.main));
    client.get_mut().write_all(b"SET k v\r\nGET k\r\nNONSENSE\r\n").expect("the node reads");
    let mut answers = client.lines().map_while(Result::ok);
    assert!(answers.find(|line| line.starts_with("-ERR unknown command")).is_some());
    let (status, page) = node.http("GET", "/metrics");
    assert_eq!(status, 200);
    let samples = parse_metrics(&page);
    assert_eq!(samples["trellis_keys"], 1.0);
    assert!(samples["trellis_command_duration_seconds_count{command=\"get\"}"] >= 1.0);
    assert!(samples["trellis_command_duration_seconds_bucket{command=\"set\",le=\"+Inf\"}"] >= 1.0);
    assert!(samples["trellis_commands_refused_total"] >= 1.0);
}

#[test]
fn a_stopping_node_tells_http_clients_too() {
    let mut node = Node::start(&["0"]);
    assert_eq!(node.http("PUT", "/v1/kv/a").0, 201);
    let put = "PUT /v1/kv/a HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n";
    let mut client = connect(&node.admin);
    let mut answer = [0; 4096];
    node.signal("TERM");
    let refusal = until("a refusal", || {
        client.write_all(put.as_bytes()).expect("the node reads");
        let read = client.read(&mut answer).expect("the node answers");
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        (!answer.starts_with("HTTP/1.1 204")).then_some(answer)
    });
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("\"code\":\"shutdown\""), "{refusal}");
    assert_eq!(node.wait().0, Some(0));
}
