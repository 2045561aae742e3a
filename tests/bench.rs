//! `trellis-bench` as scripts meet it: what it counts against a node, a cluster, and servers that stall, lie or hang up.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::time::Duration;

use running::{Node, program};
use serde_json::Value as Json;

fn bench(line: &str) -> Output {
    let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-bench"));
    command.args(line.split_ascii_whitespace()).output().expect("it can be started")
}

/// Its JSON, of a run that ends with this code.
#[track_caller]
fn told(line: &str, code: i32) -> Json {
    let output = bench(&format!("{line} --json"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

/// Successes, failures, and misses of all commands of the first run.
fn counts(told: &Json) -> (u64, u64, u64) {
    let run = &told["runs"][0];
    let number = |value: &Json| value.as_u64().expect("a number");
    let misses = run["commands"].as_object().into_iter().flatten().map(|(_, of)| number(&of["misses"])).sum();
    (number(&run["successes"]), number(&run["failures"]), misses)
}

/// A server of one connection after another.
fn serve(mut each: impl FnMut(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || listener.incoming().flatten().for_each(&mut each));
    address
}

#[test]
fn every_request_is_answered_and_every_value_is_the_one_stored() {
    let node = Node::start(&["0", "--threads", "2", "--memcached-port", "0"]);
    let common = "-r 500 -c 7 --threads 2 -n 3001 --warm-up 0 --verify -d 0-300";
    for (line, misses_are_likely) in [
        (format!("{} --load --mix get:8,set:2 -P 1 {common}", node.main), false),
        (format!("{} --mix get,incr,del,ping -P 16 --distribution zipfian {common}", node.main), true),
        (format!("{} --protocol memcached --load --mix get,gets,set,mg,ms -P 8 {common}", node.memcached), false),
        (format!("{} --protocol memcached --load --mix incr,ma,touch,mn -P 4 {common}", node.memcached), false),
        (
            format!(
                "{} --protocol memcached --mix add,delete,md,get -P 4 --distribution sequential {common}",
                node.memcached
            ),
            true,
        ),
    ] {
        let (successes, failures, misses) = counts(&told(&line, 0));
        assert_eq!((successes, failures, misses > 0), (3001, 0, misses_are_likely), "{line}: {misses} misses");
    }
    let info = running::tell(&node.main, "DBSIZE\r\n", 1);
    assert!(info.starts_with(':'), "{info}");
}

#[test]
fn loading_stores_every_key_once_and_says_so() {
    let node = Node::start(&["0"]);
    let output = bench(&format!("{} --load-only -r 1234 -c 3", node.main));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.starts_with("server: 1234 stored in "), "{stdout}");
    assert_eq!(running::tell(&node.main, "DBSIZE\r\n", 1), ":1234\r\n");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let node = Node::start(&["0"]);
    let told = told(&format!("{} --rate 500 --duration 1s --warm-up 0 --mix set -c 3 --threads 2", node.main), 0);
    assert_eq!(counts(&told), (500, 0, 0));
    assert_eq!(told["runs"][0]["unsent"], 0);
}

#[test]
fn a_server_that_stands_still_keeps_everybody_waiting_who_was_due() {
    let silence = Duration::from_millis(300);
    let server = serve(move |stream| {
        stream.set_read_timeout(Some(silence)).expect("a positive time");
        let mut from = BufReader::new(stream.try_clone().expect("a second handle"));
        let (mut to, mut line, mut is_first) = (stream, String::new(), true);
        while from.read_line(&mut line).is_ok_and(|read| read > 0) {
            // The one connection is silent for as long as its first request has no answer.
            if line == "PING\r\n" && std::mem::take(&mut is_first) {
                assert!(from.read(&mut [0]).is_err());
            }
            if line == "PING\r\n" && to.write_all(b"+PONG\r\n").is_err() {
                return;
            }
            line.clear();
        }
    });
    let told = told(&format!("{server} --mix ping --rate 500 -n 200 --warm-up 0 -c 1"), 0);
    assert_eq!(counts(&told), (200, 0, 0));
    // 150 of 200 were due during the silence. A closed loop would have seen one slow request.
    let median = told["runs"][0]["latency_us"]["p50"].as_f64().unwrap();
    assert!(median > 50_000.0, "{median} us");
}

#[test]
fn an_answer_to_another_question_is_a_failure() {
    let server = serve(|mut stream| {
        let mut bytes = [0; 4096];
        while stream.read(&mut bytes).is_ok_and(|read| read > 0) {
            if stream.write_all(b"+OK\r\n").is_err() {
                return;
            }
        }
    });
    let told = told(&format!("{server} --mix get -n 5 --warm-up 0 -c 1"), 1);
    assert_eq!(counts(&told), (0, 5, 0));
    assert_eq!(told["runs"][0]["errors"]["(wrong reply)"], 5);
}

#[test]
fn a_connection_that_breaks_is_counted_and_made_anew() {
    let server = serve(|mut stream| {
        if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
            // Whoever is gone needs no answer.
            let _ = stream.write_all(b"+PONG\r\n");
        }
    });
    let told = told(&format!("{server} --mix ping -n 4 --warm-up 0 -c 1"), 1);
    let (successes, failures, _) = counts(&told);
    assert!(successes >= 1 && failures >= 1 && successes + failures == 4, "{told}");
    assert_eq!(told["runs"][0]["errors"]["(connection broken)"], failures);
}

#[test]
fn keys_go_to_their_owners_if_so_asked() {
    let nodes = Node::cluster(2);
    let forwarded = || -> f64 {
        let samples = nodes.iter().map(|node| running::parse_metrics(&node.http("GET", "/metrics").1));
        samples.map(|samples| samples["trellis_ops_forwarded_total"]).sum()
    };
    let common = "-r 300 -n 900 --warm-up 0 -c 4 --mix get,set --verify";
    let before = forwarded();
    let told_by_owners = told(&format!("{} --cluster --load {common}", nodes[0].main), 0);
    assert_eq!(counts(&told_by_owners), (900, 0, 0));
    // Both nodes' processors, where the kernel tells.
    let is_told = told_by_owners["runs"][0]["server_cpu_us_per_request"].is_number();
    assert_eq!(is_told, std::path::Path::new("/proc/self").exists());
    assert_eq!(forwarded(), before);
    let any = format!("{} {} {common}", nodes[0].main, nodes[1].main);
    assert_eq!(counts(&told(&any, 0)), (900, 0, 0));
    assert!(forwarded() > before, "any node takes any key, and passes on what is another's");
}

#[test]
fn servers_that_are_compared_take_turns() {
    let (first, second) = (Node::start(&["0"]), Node::start(&["0"]));
    let line = format!("--compare one={} two={} --rounds 3 -n 500 --warm-up 0 --load -r 100", first.main, second.main);
    let told = told(&line, 0);
    let compared = told["compared"].as_array().unwrap();
    assert_eq!(compared.len(), 2);
    assert_eq!(told["runs"].as_array().map(Vec::len), Some(6));
    assert_eq!(compared[0]["rate_ratio"]["medians"], 1.0);
    let ratio = &compared[1]["rate_ratio"];
    assert!(ratio["least"].as_f64().unwrap() <= ratio["most"].as_f64().unwrap(), "{ratio}");
    let table = bench(&line);
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(table.contains("| one ") && table.contains("| two "), "{table}");
}

#[test]
fn bad_usage_and_unreachable_servers_have_codes_of_their_own() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    for (line, code, said) in [
        (format!("{free} -n 1"), 3, "refused"),
        (format!("{free} --cluster -n 1"), 3, "CLUSTER SLOTS"),
        ("nowhere -n 1".to_owned(), 2, "expected host:port"),
        ("127.0.0.1:1 --mix mg".to_owned(), 2, "no command `mg`"),
        ("--compare a=127.0.0.1:1".to_owned(), 2, "--compare"),
    ] {
        let output = bench(&line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(said), "{line}: {stderr}");
    }
}
