//! The memcached port of real nodes: pipelines, silence where it is asked for, what is refused, and the same keys through every door.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use running::{Node, connect, refused, until};

fn node(args: &[&str]) -> Node {
    Node::start(&[&["0", "--memcached-port", "0"], args].concat())
}

/// Sends `text`, and returns as many bytes of the answer as `expected` has.
fn answered(client: &mut TcpStream, text: &[u8], expected: usize) -> Vec<u8> {
    client.write_all(text).expect("the node reads");
    let mut answer = vec![0; expected];
    client.read_exact(&mut answer).expect("the node answers");
    answer
}

fn check(client: &mut TcpStream, text: &str, expected: &str) {
    let answer = answered(client, text.as_bytes(), expected.len());
    assert_eq!(String::from_utf8_lossy(&answer), expected, "{text:?}");
}

/// Sends `text` on a connection of its own, and returns all that comes until the node hangs up.
fn until_the_end(address: &str, text: &str) -> String {
    let mut client = connect(address);
    client.write_all(text.as_bytes()).expect("the node reads");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the node answers and hangs up");
    answer
}

#[test]
fn a_pipeline_is_answered_in_order_whatever_it_mixes() {
    let node = node(&["--threads", "2"]);
    assert!(node.ready.contains(" memcached=127.0.0.1:"), "{}", node.ready);
    let mut client = connect(&node.memcached);
    check(
        &mut client,
        "set a 7 0 1\r\nx\r\nset b 0 0 1 noreply\r\ny\r\nget a b c\r\nbad\r\nmg a v f\r\nmg no q\r\nms a 1 q\r\nz\r\nmn\r\nincr a 1\r\nversion\r\n",
        "STORED\r\nVALUE a 7 1\r\nx\r\nVALUE b 0 1\r\ny\r\nEND\r\nERROR\r\nVA 1 f7\r\nx\r\nMN\r\n\
         CLIENT_ERROR cannot increment or decrement non-numeric value\r\nVERSION 1.6.45\r\n",
    );
    let many: String = (0..5_000).map(|n| format!("set k{n} 0 0 2\r\nvv\r\n")).collect();
    assert_eq!(answered(&mut client, many.as_bytes(), 5_000 * 8), b"STORED\r\n".repeat(5_000));
    let keys: String = (0..20_000).map(|n| format!(" k{n}")).collect();
    let values: String = (0..5_000).map(|n| format!("VALUE k{n} 0 2\r\nvv\r\n")).collect();
    check(&mut client, &format!("get{keys}\r\n"), &format!("{values}END\r\n"));
    assert_eq!(until_the_end(&node.memcached, "get a\r\nquit\r\nget b\r\n"), "VALUE a 0 1\r\nz\r\nEND\r\n");
    assert_eq!(until_the_end(&node.memcached, "GET / HTTP/1.0\r\n\r\n"), "");
    assert!(until_the_end(&node.memcached, "stats\r\nquit\r\n").contains("STAT curr_items 5002\r\n"));
    assert_eq!(until_the_end(&node.memcached, "stats slabs\r\nquit\r\n"), "END\r\n");
}

#[test]
fn what_is_too_large_is_refused_and_what_was_there_goes() {
    let node = node(&["--memcached-max-item-size", "2kb"]);
    let mut client = connect(&node.memcached);
    let large = "x".repeat(2_048);
    check(&mut client, "set a 0 0 3\r\nold\r\n", "STORED\r\n");
    let refused = "SERVER_ERROR object too large for cache\r\n";
    check(
        &mut client,
        &format!("add a 0 0 2048\r\n{large}\r\nget a\r\n"),
        &format!("{refused}VALUE a 0 3\r\nold\r\nEND\r\n"),
    );
    check(&mut client, &format!("set a 0 0 2048\r\n{large}\r\nget a\r\n"), &format!("{refused}END\r\n"));
    assert!(node.http("GET", "/metrics").1.contains("trellis_items_refused_too_large_total 2\n"));
}

#[test]
fn a_flush_may_be_put_off_and_a_later_one_takes_its_place() {
    let node = node(&[]);
    let mut client = connect(&node.memcached);
    check(&mut client, "set a 0 0 1\r\nx\r\nflush_all 1\r\nget a\r\n", "STORED\r\nOK\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    until("the flush", || (answered(&mut client, b"mg a\r\n", 4) == b"EN\r\n").then_some(()));
    check(&mut client, "set a 0 0 1\r\nx\r\nflush_all 1000\r\nflush_all\r\nget a\r\n", "STORED\r\nOK\r\nOK\r\nEND\r\n");
}

#[test]
fn keys_are_the_same_through_every_door_of_every_node() {
    let nodes = {
        let first = node(&[]);
        let seed = first.main.clone();
        let rest: Vec<Node> =
            (0..2).map(|_| Node::start(&["0", &seed, "--memcached-port", "0", "--consistency", "quorum"])).collect();
        std::iter::once(first).chain(rest).collect::<Vec<_>>()
    };
    for node in &nodes {
        until("every member alive and complete", || {
            let status = node.json("/v1/status");
            let alive = status["members"].as_array()?.iter().filter(|member| member["state"] == "alive").count();
            (alive == 3 && status["under_replicated_partitions"] == 0).then_some(())
        });
    }
    let (quorum, other) = (&nodes[1], &nodes[2]);
    let redis = |node: &Node, command: &str| {
        let mut client = BufReader::new(connect(&node.main));
        client.get_mut().write_all(command.as_bytes()).expect("the node reads");
        let mut line = String::new();
        client.read_line(&mut line).expect("the node answers");
        line
    };
    let mut client = connect(&quorum.memcached);
    for n in 0..40 {
        check(&mut client, &format!("set k{n} 5 100 1\r\nx\r\n"), "STORED\r\n");
        assert_eq!(redis(other, &format!("STRLEN k{n}\r\n")), ":1\r\n");
        assert_eq!(redis(other, &format!("APPEND k{n} y\r\n")), ":2\r\n");
        check(&mut client, &format!("get k{n}\r\n"), &format!("VALUE k{n} 5 2\r\nxy\r\nEND\r\n"));
        assert_eq!(redis(other, &format!("TTL k{n}\r\n")), ":100\r\n");
        // The number of one node is that of the others.
        let mut there = connect(&other.memcached);
        let cas = |client: &mut TcpStream| {
            client.write_all(format!("mg k{n} c\r\n").as_bytes()).expect("the node reads");
            let mut line = String::new();
            BufReader::new(client).read_line(&mut line).expect("the node answers");
            line.trim_end().strip_prefix("HD c").expect("a hit").to_owned()
        };
        let seen = cas(&mut client);
        assert_eq!(cas(&mut there), seen);
        check(&mut there, &format!("ms k{n} 1 C{seen}\r\na\r\nms k{n} 1 C{seen} c\r\nb\r\n"), "HD\r\nEX c0\r\n");
        check(&mut client, &format!("md k{n} I\r\nmg k{n} v\r\n"), "HD\r\nVA 1 X W\r\na\r\n");
        check(&mut there, &format!("mg k{n} v\r\n"), "VA 1 Z X\r\na\r\n");
        check(&mut there, &format!("ms k{n} 1\r\n9\r\nincr k{n} 1\r\ndecr k{n} 5\r\n"), "HD\r\n10\r\n5\r\n");
        check(
            &mut client,
            &format!("get k{n}\r\nma n{n} N0 J7 v\r\n"),
            &format!("VALUE k{n} 0 2\r\n5 \r\nEND\r\nVA 1\r\n7\r\n"),
        );
    }
}

#[test]
fn a_port_in_use_is_told_with_the_option_that_names_another() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let output = refused(&["0", "--memcached-port", &address.port().to_string()]);
    let reason = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(reason.contains(&format!("cannot listen on memcached {address}")), "{reason}");
    assert!(reason.contains("--memcached-port takes another"), "{reason}");
}
