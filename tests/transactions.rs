//! Transactions as clients meet them: through any node, by several at once. What they must hold is atomicity where all keys have one hash tag, and
//! that a watched key that changed stops them. Replies and errors to the letter are compared with redis-server by `tests/clients`.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use running::{Node, connect, until};

/// A connection that speaks RESP2.
struct Client(BufReader<TcpStream>);

impl Client {
    fn of(address: &str) -> Self {
        Self(BufReader::new(connect(address)))
    }

    fn at(address: &str, level: &str) -> Self {
        let mut client = Self::of(address);
        assert_eq!(client.ask(&format!("TRELLIS CONSISTENCY {level}")), "+OK");
        client
    }

    /// One inline command and its reply, on one line.
    fn ask(&mut self, command: &str) -> String {
        self.say(&[command]).remove(0)
    }

    /// Commands sent at once, and their replies.
    fn say(&mut self, commands: &[&str]) -> Vec<String> {
        let lines: String = commands.iter().map(|command| format!("{command}\r\n")).collect();
        self.0.get_mut().write_all(lines.as_bytes()).expect("the node reads");
        commands.iter().map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the node answers");
        let line = line.trim_end().to_owned();
        let count = || line[1..].parse::<usize>().ok();
        match (line.chars().next(), count()) {
            (Some('*'), Some(count)) => {
                let elements: Vec<String> = (0..count).map(|_| self.reply()).collect();
                format!("[{}]", elements.join(" "))
            }
            (Some('$'), Some(bytes)) => {
                let mut text = vec![0; bytes + 2];
                self.0.read_exact(&mut text).expect("the node answers");
                String::from_utf8_lossy(&text[..bytes]).into_owned()
            }
            _ => line,
        }
    }
}

/// Whether a reply is an error of a moment of trouble, which a busy machine is enough for; anything else a client must never be told.
fn is_trouble(reply: &str) -> bool {
    reply.starts_with("-NOQUORUM ") || reply.starts_with("-TIMEOUT ")
}

/// Takes one from the number of workers, however the thread ends.
struct AtWork<'a>(&'a AtomicUsize);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds to both counters in transactions. Returns how often both were acknowledged.
fn add_to_both(address: &str, level: &str, rounds: usize) -> usize {
    let mut client = Client::at(address, level);
    let (mut done, mut unknown) = (0, 0);
    for _ in 0..rounds {
        let replies = client.say(&["MULTI", "INCR {t}a", "PING", "INCR {t}b", "EXEC"]);
        assert_eq!(replies[..4], ["+OK", "+QUEUED", "+QUEUED", "+QUEUED"]);
        if replies[4].contains('-') {
            assert!(is_trouble(&replies[4][1..]) || replies[4].contains("PONG -"), "{replies:?}");
            unknown += 1;
            continue;
        }
        let shown: Vec<&str> = replies[4].trim_matches(['[', ']']).split(' ').collect();
        assert!(shown[0].starts_with(':') && shown[1] == "+PONG" && shown[0] == shown[2], "{replies:?}");
        done += 1;
    }
    assert!(done > unknown, "{done} done, {unknown} unknown: nearly nothing works");
    done
}

/// Reads both counters in transactions while anybody is at work, and finds them equal.
fn find_both_equal(address: &str, level: &str, at_work: &AtomicUsize) {
    let mut client = Client::at(address, level);
    while at_work.load(Ordering::Relaxed) > 0 {
        let replies = client.say(&["MULTI", "GET {t}a", "MGET {t}b", "EXEC"]);
        if !replies[3].contains("applied:") {
            let seen = replies[3].replace(['[', ']'], "");
            let (one, other) = seen.split_once(' ').expect("two replies");
            assert_eq!(one, other, "seen in between");
        }
    }
}

/// Each round is one transaction on two counters; whoever reads both in one finds them equal: on one node at level one, and through three at
/// `quorum`.
#[test]
fn what_a_transaction_does_under_one_hash_tag_is_seen_whole_or_not_at_all() {
    const ROUNDS: usize = 150;
    for (count, level) in [(1, "one"), (3, "quorum")] {
        let nodes = Node::cluster(count);
        let addresses: Vec<&str> = (0..3).map(|n| nodes[n % count].main.as_str()).collect();
        let at_work = AtomicUsize::new(addresses.len());
        let done: usize = std::thread::scope(|scope| {
            let at_work = &at_work;
            let add = |address| {
                scope.spawn(move || {
                    let _at_work = AtWork(at_work);
                    add_to_both(address, level, ROUNDS)
                })
            };
            let writers: Vec<_> = addresses.iter().map(|address| add(*address)).collect();
            for address in &addresses {
                scope.spawn(move || find_both_equal(address, level, at_work));
            }
            writers.into_iter().map(|writer| writer.join().expect("a writer")).sum()
        });
        let total = Client::at(&nodes[0].main, level).ask("MGET {t}a {t}b");
        let (one, other) = total[1..total.len() - 1].split_once(' ').expect("two values");
        let one: usize = one.parse().expect("a number");
        assert_eq!(one.to_string(), other);
        assert!((done..=3 * ROUNDS).contains(&one), "{done} acknowledged, {one} counted");
    }
}

/// Reads a counter, adds one, and writes it if nobody has meanwhile, until that has succeeded so often. Returns how often it is not known.
fn count_by_watching(address: &str, level: &str, rounds: usize) -> usize {
    let mut client = Client::at(address, level);
    let (mut won, mut unknown) = (0, 0);
    while won < rounds {
        let seen = match client.say(&["WATCH {t}n", "GET {t}n"]) {
            replies if replies.iter().any(|reply| is_trouble(reply)) => continue,
            replies => replies[1].parse::<usize>().unwrap_or(0),
        };
        let set = format!("SET {{t}}n {}", seen + 1);
        let replies = client.say(&["MULTI", &set, "APPEND {t}log x", "EXEC"]);
        match replies[3].as_str() {
            "*-1" => {}
            done if done == format!("[+OK :{}]", seen + 1) => won += 1,
            trouble if trouble.contains("applied: unknown") => unknown += 1,
            trouble => assert!(trouble.contains("applied: no"), "{trouble}"),
        }
    }
    unknown
}

/// Eight clients at once, through different nodes: each success counts once.
#[test]
fn watching_clients_count_exactly_through_different_nodes() {
    const ROUNDS: usize = 25;
    for (count, level) in [(1, "one"), (3, "quorum")] {
        let nodes = Node::cluster(count);
        let addresses: Vec<&str> = (0..8).map(|n| nodes[n % count].main.as_str()).collect();
        let unknown: usize = std::thread::scope(|scope| {
            let clients = addresses.iter().map(|address| scope.spawn(|| count_by_watching(address, level, ROUNDS)));
            let clients: Vec<_> = clients.collect();
            clients.into_iter().map(|client| client.join().expect("a client")).sum()
        });
        let mut client = Client::at(&nodes[0].main, level);
        let counted: usize = client.ask("GET {t}n").parse().expect("a number");
        let logged: usize = client.ask("STRLEN {t}log")[1..].parse().expect("a number");
        let possible = 8 * ROUNDS..=8 * ROUNDS + unknown;
        assert!(
            possible.contains(&counted) && possible.contains(&logged),
            "{} acknowledged, {unknown} unknown, {counted} counted, {logged} logged at {level}",
            8 * ROUNDS
        );
    }
}

/// Counts in transactions, on one key after the other. Returns replies that a write was not acknowledged in time which came long before that.
fn count_in_a_hurry(address: &str, rounds: usize) -> Vec<String> {
    let mut client = Client::at(address, "quorum");
    let mut hasty = Vec::new();
    for round in 0..rounds {
        let asked = Instant::now();
        let count = format!("INCR hits{}", round * 6 / rounds);
        let reply = client.say(&["MULTI", &count, &count, &count, &count, "EXEC"]).remove(5);
        assert!(reply.contains(':') || reply.contains("-TIMEOUT") || reply.contains("-NOQUORUM"), "{reply}");
        if reply.contains("did not acknowledge") && asked.elapsed() < Duration::from_secs(1) {
            hasty.push(reply);
        }
    }
    hasty
}

/// Two nodes with two threads each, so that every write needs both and the thread that has a client is mostly not the one that has the key.
#[test]
fn a_busy_counter_at_quorum_is_acknowledged_whichever_thread_asks() {
    const ROUNDS: usize = 1_500;
    let nodes = Node::cluster_with(2, &["--threads", "2"]);
    let hasty: Vec<String> = std::thread::scope(|scope| {
        let client = |n: usize| {
            let address = &nodes[n % 2].main;
            scope.spawn(move || count_in_a_hurry(address, ROUNDS))
        };
        let clients: Vec<_> = (0..6).map(client).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    assert!(hasty.is_empty(), "{} of {}: {}", hasty.len(), 6 * ROUNDS, hasty[0]);
}

#[test]
fn a_key_is_watched_across_a_change_of_its_coordinator() {
    let mut nodes = Node::cluster(3);
    let mut client = Client::at(&nodes[0].main, "quorum");
    // A key that another node coordinates, which then stops in order.
    let key = (0..)
        .map(|n| format!("k{n}"))
        .find(|key| nodes[0].json(&format!("/v1/ring/{key}"))["replicas"][0]["address"] == nodes[2].main.as_str())
        .expect("it coordinates some");
    for (changed, expected) in [(false, "[:6]"), (true, "*-1")] {
        assert_eq!(client.say(&[&format!("SET {key} 5"), &format!("WATCH {key}")]), ["+OK", "+OK"]);
        if changed {
            assert_eq!(Client::at(&nodes[1].main, "quorum").ask(&format!("SET {key} 5")), "+OK");
        } else {
            let mut coordinator = nodes.pop().expect("three");
            coordinator.signal("TERM");
            assert_eq!(coordinator.wait().0, Some(0));
            until("it is found gone", || {
                let members = nodes[0].json("/v1/members");
                let alive = members["members"].as_array()?.iter().filter(|member| member["state"] == "alive").count();
                (alive == 2).then_some(())
            });
        }
        let replies = client.say(&["MULTI", &format!("INCR {key}"), "EXEC"]);
        assert_eq!(replies[2], expected);
    }
}

#[test]
fn what_can_not_be_done_is_told_for_each_command() {
    let mut nodes = Node::cluster(2);
    let mut other = nodes.pop().expect("two");
    other.signal("KILL");
    other.wait();
    let mut client = Client::at(&nodes[0].main, "all");
    let refused = until("the other is found dead", || {
        let replies = client.say(&["MULTI", "INCR {k}a", "PING", "GET {k}a", "EXEC"]);
        replies[4].contains("-NOQUORUM").then(|| replies[4].clone())
    });
    assert!(refused.starts_with("[-NOQUORUM ") && refused.contains(" +PONG -NOQUORUM "), "{refused}");
    assert_eq!(refused.matches("applied: no").count(), 2, "{refused}");
    assert_eq!(client.ask("TRELLIS CONSISTENCY one"), "+OK");
    assert_eq!(client.ask("GET {k}a"), "$-1");
    assert_eq!(client.say(&["MULTI", "INCR {k}a", "GET {k}a", "EXEC"])[3], "[:1 1]");
}

#[test]
fn a_transaction_has_bounds_and_is_counted_when_it_is_refused() {
    let node = Node::start(&["0"]);
    let mut client = Client::of(&node.main);
    let many = format!("EXISTS{}", " k".repeat(20_000));
    let mut commands = vec!["MULTI"];
    commands.extend(std::iter::repeat_n(many.as_str(), 7));
    commands.extend(["SET k v", "EXEC", "EXISTS k", "CLIENT LIST"]);
    let replies = client.say(&commands);
    assert_eq!(replies[6], "+QUEUED");
    assert!(replies[7].starts_with("-ERR the transaction is too large"), "{}", replies[7]);
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    assert_eq!((replies[9].as_str(), replies[10].as_str()), (aborted, ":0"));
    assert!(replies[11].contains(" flags=N ") && replies[11].contains(" multi=-1 "), "{}", replies[11]);
    let (_, metrics) = node.http("GET", "/metrics");
    assert!(metrics.contains("\ntrellis_transactions_refused_total 1\n"), "{metrics}");
}
