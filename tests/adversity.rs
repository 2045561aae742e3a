//! Nodes as processes whose surroundings are not as they should be: logs nobody reads, few descriptors, many clients, one that asks for
//! too much. Not a test of the network between them, which the simulation has.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use running::{Node, connect, harm, parse_metrics, refused_logging_to, refused_with_files, tell, until};

/// What a supervisor grants a node to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// A standard error whose reader has gone.
fn unread_log() -> OwnedFd {
    let (log, _) = UnixStream::pair().expect("a pair of sockets");
    log.into()
}

/// Two nodes with such logs meet, and the second dies, all of which is news: the first goes on, and stops in order.
fn outlives_another(log: impl Fn() -> OwnedFd) {
    let times = ["--heartbeat-interval", "100", "--failure-timeout", "1000"];
    let mut first = Node::start_logging_to(log(), &[&["0"], &times[..]].concat());
    let second = Node::start_logging_to(log(), &[&["0", first.main.as_str()], &times[..]].concat());
    let state = |node: &Node, state: &str| {
        let status = node.json("/v1/status");
        let members = status["members"].as_array().into_iter().flatten();
        members.filter(|member| member["state"] == state).count()
    };
    until("they met", || (state(&first, "alive") == 2 && state(&second, "alive") == 2).then_some(()));
    drop(second);
    until("the other is down", || (state(&first, "down") == 1).then_some(()));
    assert_eq!(tell(&first.main, "SET k v\r\nGET k\r\n", 3), "+OK\r\n$1\r\nv\r\n");
    first.signal("TERM");
    let (code, took, _) = first.wait();
    assert_eq!(code, Some(0));
    assert!(took < STOP_TIME_MAX, "{took:?}");
}

#[test]
fn a_node_outlives_the_reader_of_its_log() {
    outlives_another(unread_log);
    let node = Node::start_logging_to(unread_log(), &["0", "127.0.0.1:1"]);
    let metrics = || parse_metrics(&node.http("GET", "/metrics").1);
    until("a line is lost", || (metrics()["trellis_log_lines_dropped_total"] >= 1.0).then_some(()));
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = held.local_addr().expect("bound").port().to_string();
    assert_eq!(refused_logging_to(unread_log(), &["0", "--admin-port", &taken]).status.code(), Some(1));
    assert_eq!(refused_logging_to(unread_log(), &["0", "--threads", "0"]).status.code(), Some(2));
    assert_eq!(refused_logging_to(unread_log(), &["0", "--wieght", "1"]).status.code(), Some(2));
}

/// A standard error that nobody reads and that is full.
fn stuck_log() -> (UnixStream, OwnedFd) {
    let (reader, mut log) = UnixStream::pair().expect("a pair of sockets");
    log.set_nonblocking(true).expect("a socket");
    while log.write_all(&[0; 4096]).is_ok() {}
    while log.write_all(&[0]).is_ok() {}
    log.set_nonblocking(false).expect("a socket");
    (reader, log.into())
}

#[test]
fn nothing_waits_for_a_log_that_nobody_reads() {
    let readers = RefCell::new(Vec::new());
    let log = || {
        let (reader, log) = stuck_log();
        readers.borrow_mut().push(reader);
        log
    };
    outlives_another(log);
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = held.local_addr().expect("bound").port().to_string();
    assert_eq!(refused_logging_to(log(), &["0", "--admin-port", &taken]).status.code(), Some(1));
    let mut node = Node::start_logging_to(log(), &["0"]);
    harm(&node, b"POST debug/panic");
    let (code, took, _) = node.wait();
    assert_eq!(code, Some(70));
    assert!(took < STOP_TIME_MAX, "{took:?}");
}

#[test]
fn too_few_open_files_are_refused_in_one_line() {
    for limit in [12, 20, 56] {
        let output = refused_with_files(limit, &["0", "--threads", "2"]);
        let reason = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{reason}");
        let expected = format!(
            "trellis: the hard limit on open files, {limit}, is too low: with 2 threads at least 57 are needed\n"
        );
        assert_eq!(reason, expected);
    }
}

#[test]
fn clients_that_take_all_their_room_do_not_keep_peers_out() {
    let first = Node::start(&["0", "--max-connections", "1"]);
    let mut client = BufReader::new(connect(&first.main));
    client.get_mut().write_all(b"PING\r\n").expect("the node reads");
    let mut pong = String::new();
    client.read_line(&mut pong).expect("the node answers");
    assert_eq!(pong, "+PONG\r\n");
    assert_eq!(tell(&first.main, "PING\r\n", 1), "-ERR max number of clients reached\r\n");
    // One that says nothing is a client after a while, and told the same.
    let mut silent = String::new();
    connect(&first.main).read_to_string(&mut silent).expect("the node answers");
    assert_eq!(silent, "-ERR max number of clients reached\r\n");
    let second = Node::start(&["0", &first.main]);
    until("both hold their share", || {
        let status = second.json("/v1/status");
        let complete = status["under_replicated_partitions"] == 0 && status["members"].as_array()?.len() == 2;
        complete.then_some(())
    });
}

#[test]
fn the_replies_to_one_batch_are_bounded_and_the_rest_of_it_is_refused() {
    const REPLIES_BYTES_MAX: usize = 256 * 1024 * 1024;
    const KEY_BYTES: usize = 60_000;
    let node = Node::start(&["0"]);
    let mut stream = connect(&node.main);
    let mut answered = |commands: &[u8], end: &[u8]| {
        stream.write_all(commands).unwrap();
        let (mut bytes, mut chunk) = (0, vec![0; 1 << 20]);
        let mut tail = Vec::new();
        while !tail.ends_with(end) {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the node hung up");
            bytes += read;
            tail.extend_from_slice(&chunk[..read]);
            tail.drain(..tail.len().saturating_sub(4096));
        }
        (bytes, String::from_utf8_lossy(&tail).into_owned())
    };
    let mut sets: Vec<u8> = Vec::new();
    for n in 0..500 {
        write!(sets, "*3\r\n$3\r\nSET\r\n${KEY_BYTES}\r\n{n:0KEY_BYTES$}\r\n$1\r\nv\r\n").unwrap();
    }
    sets.extend_from_slice(b"ECHO done\r\n");
    answered(&sets, b"done\r\n");
    let (bytes, tail) = answered(&[&b"KEYS *\r\n".repeat(12)[..], b"ECHO done\r\n"].concat(), b"done\r\n");
    let one = 500 * KEY_BYTES;
    assert!(bytes > REPLIES_BYTES_MAX && bytes < REPLIES_BYTES_MAX + 2 * one, "{bytes} bytes");
    assert!(tail.contains("-BUSY the replies to one batch are too large"), "{tail:?}");
}

#[test]
fn who_waits_for_a_dead_coordinators_promise_is_answered_and_not_left_in_doubt() {
    let nodes = Node::cluster_with(3, &["--consistency", "quorum"]);
    let at = |n: usize| nodes[n].main.as_str();
    // The last coordinates them, the second does when it is dead, and the first is asked.
    let is_coordinated = |key: &String| {
        let replicas = nodes[0].json(&format!("/v1/ring/{key}"));
        let order = replicas["replicas"].as_array().into_iter().flatten().map(|replica| &replica["address"]);
        order.eq([at(2), at(1), at(0)])
    };
    let keys: Vec<String> = (0..).map(|n| format!("k{n}")).filter(is_coordinated).take(8).collect();
    for key in &keys {
        assert_eq!(tell(at(0), &format!("SET {key} old GET\r\n"), 1), "$-1\r\n");
    }
    nodes[2].signal("KILL");
    until("the first knows", || {
        let status = nodes[0].json("/v1/status");
        let members = status["members"].as_array().into_iter().flatten();
        (members.filter(|member| member["state"] == "alive").count() == 2).then_some(())
    });
    let ask = |key: &String| {
        let mut client = BufReader::new(connect(at(0)));
        write!(client.get_mut(), "SET {key} new GET\r\n").expect("the node reads");
        client
    };
    for mut client in keys.iter().map(ask).collect::<Vec<_>>() {
        let (mut length, mut value) = (String::new(), String::new());
        client.read_line(&mut length).expect("the node answers");
        assert_eq!(length, "$3\r\n");
        client.read_line(&mut value).expect("the node answers");
        assert_eq!(value, "old\r\n");
    }
}
