//! How many copies there are, on nodes as processes: another number by a restart of one node after the other, under quorum writes, and copies of
//! everything everywhere. What becomes of it amid faults is the simulation's to show.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use trellis::base::slot::Partition;

use running::{DEADLINE, Node, tell, until};

/// Keys that are written again and again.
const KEYS: usize = 500;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A client that writes at quorum, one key after the other, each time a larger number.
struct Writer {
    targets: Arc<Mutex<Vec<String>>>,
    stops: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<usize, Written>>,
}

/// What was written to a key.
#[derive(Clone, Copy, Default)]
struct Written {
    acknowledged: usize,
    asked: usize,
}

fn open(target: &str) -> Option<BufReader<TcpStream>> {
    let stream = TcpStream::connect(target).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut client = BufReader::new(stream);
    (ask(&mut client, "TRELLIS CONSISTENCY quorum")? == "+OK").then_some(client)
}

fn ask(client: &mut BufReader<TcpStream>, command: &str) -> Option<String> {
    client.get_mut().write_all(format!("{command}\r\n").as_bytes()).ok()?;
    let mut line = String::new();
    client.read_line(&mut line).ok()?;
    line.strip_suffix("\r\n").map(str::to_owned)
}

impl Writer {
    fn start(nodes: &BTreeMap<&str, Node>) -> Self {
        let targets: Arc<Mutex<Vec<String>>> =
            Arc::new(Mutex::new(nodes.values().map(|node| node.main.clone()).collect()));
        let stops = Arc::new(AtomicBool::new(false));
        let (to, stop) = (targets.clone(), stops.clone());
        let thread = std::thread::spawn(move || {
            let (mut written, mut client) = (BTreeMap::<usize, Written>::new(), None);
            for n in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if client.is_none() {
                    let targets = to.lock().expect("no panic").clone();
                    client = open(&targets[n % targets.len()]);
                }
                let Some(connection) = &mut client else { continue };
                let of = written.entry(n % KEYS).or_default();
                of.asked = n;
                match ask(connection, &format!("SET key:{} {n}", n % KEYS)) {
                    Some(answer) if answer == "+OK" => of.acknowledged = n,
                    Some(_) => {}
                    None => client = None,
                }
            }
            written
        });
        Self { targets, stops, thread }
    }

    fn stop(self) -> BTreeMap<usize, Written> {
        self.stops.store(true, Ordering::Relaxed);
        self.thread.join().expect("it wrote")
    }
}

/// A node that may find the others through these.
fn start(name: &str, copies: &str, seeds: &[&str]) -> Node {
    let options = ["--node-id", name, "--replication-factor", copies, "--threads", "1"];
    Node::start(&[&["0"], seeds, &options[..]].concat())
}

fn is_ready(node: &Node) -> Option<()> {
    (node.http("GET", "/health/ready").0 == 200).then_some(())
}

fn cluster(names: &[&'static str], copies: &str) -> BTreeMap<&'static str, Node> {
    let mut nodes = BTreeMap::new();
    for name in names {
        let seed = nodes.values().next().map(|node: &Node| node.main.clone());
        nodes.insert(*name, start(name, copies, seed.as_deref().as_slice()));
        until("it is ready", || is_ready(&nodes[name]));
    }
    nodes
}

/// Restarts one node after the other with another setting, each when it says that it may stop.
fn roll(nodes: &mut BTreeMap<&'static str, Node>, copies: &str, writer: &Writer) {
    for name in NAMES {
        until(format!("{name} may stop"), || (nodes[name].json("/v1/status")["safe_to_stop"] == true).then_some(()));
        let mut old = nodes.remove(name).expect("it is there");
        let others: Vec<String> = nodes.values().map(|node| node.main.clone()).collect();
        writer.targets.lock().expect("no panic").clone_from(&others);
        old.signal("TERM");
        assert_eq!(old.wait().0, Some(0));
        let seeds: Vec<&str> = others.iter().map(String::as_str).collect();
        let new = start(name, copies, &seeds);
        until("it is back", || is_ready(&new));
        writer.targets.lock().expect("no panic").push(new.main.clone());
        nodes.insert(name, new);
    }
}

/// Waits until each of these keys is on exactly its owners, so many of them, and there is nothing else anywhere.
fn assert_placed(nodes: &BTreeMap<&'static str, Node>, keys: &[String], copies: usize) {
    let mut of: BTreeMap<String, usize> = nodes.keys().map(|name| ((*name).to_owned(), 0)).collect();
    let first = nodes.values().next().expect("one");
    let ring = first.json("/v1/ring");
    let runs = ring["partitions"].as_array().expect("a list");
    for key in keys {
        let partition = u64::from(Partition::of(key.as_bytes()).0);
        let run = runs.iter().find(|run| run["last"].as_u64() >= Some(partition)).expect("all are there");
        let owners = run["replicas"].as_array().expect("a list");
        assert_eq!(owners.len(), copies);
        owners.iter().for_each(|owner| *of.get_mut(owner.as_str().expect("text")).expect("a member") += 1);
    }
    until("every key is where it belongs and nowhere else", || {
        let held = |node: &Node| node.json("/v1/status")["keys"].as_u64();
        nodes.iter().all(|(name, node)| held(node) == Some(of[*name] as u64)).then_some(())
    });
}

/// Reads at quorum through a node and expects nothing to be lost.
fn assert_kept(node: &Node, written: &BTreeMap<usize, Written>) {
    let mut client = open(&node.main).expect("it serves");
    for (key, Written { acknowledged, asked }) in written {
        let length = ask(&mut client, &format!("GET key:{key}")).expect("an answer");
        assert!(length.starts_with('$') && length != "$-1", "key:{key} of {acknowledged}: {length}");
        let mut value = String::new();
        client.read_line(&mut value).expect("the value");
        let value: usize = value.trim_end().parse().expect("a number");
        assert!((*acknowledged..=*asked).contains(&value), "key:{key}: {value}, not {acknowledged} to {asked}");
    }
}

fn names(keys: usize) -> Vec<String> {
    (0..keys).map(|n| format!("key:{n}")).collect()
}

#[test]
fn a_rolling_restart_changes_the_number_of_copies_and_loses_nothing() {
    let mut nodes = cluster(&NAMES, "2");
    let puts: String = names(KEYS).iter().map(|key| format!("SET {key} 0\r\n")).collect();
    assert_eq!(tell(&nodes["a"].main, &puts, KEYS), "+OK\r\n".repeat(KEYS));
    for (copies, there_are) in [("3", 3), ("2", 2)] {
        let writer = Writer::start(&nodes);
        roll(&mut nodes, copies, &writer);
        let written = writer.stop();
        assert!(written.len() == KEYS && written.values().all(|of| of.acknowledged > 0));
        assert_placed(&nodes, &names(KEYS), there_are);
        nodes.values().for_each(|node| assert_kept(node, &written));
    }
}

#[test]
fn of_single_copies_more_are_made_once_a_member_wants_more() {
    let mut nodes = cluster(&NAMES[..3], "1");
    let puts: String = names(KEYS).iter().map(|key| format!("SET {key} 0\r\n")).collect();
    assert_eq!(tell(&nodes["a"].main, &puts, KEYS), "+OK\r\n".repeat(KEYS));
    assert_placed(&nodes, &names(KEYS), 1);
    let status = nodes["a"].json("/v1/status");
    assert!(status["not_safe_to_stop"].as_str().is_some_and(|why| why.contains("only copy")), "{status}");
    let writer = Writer::start(&nodes);
    // No restart: it would lose what has one copy.
    let new = start("d", "3", &[&nodes["a"].main]);
    nodes.insert("d", new);
    until("it is ready", || is_ready(&nodes["d"]));
    roll(&mut nodes, "3", &writer);
    let written = writer.stop();
    assert_placed(&nodes, &names(KEYS), 3);
    nodes.values().for_each(|node| assert_kept(node, &written));
}

#[test]
fn clones_have_everything_also_one_that_joins_and_one_that_died() {
    let mut nodes = cluster(&NAMES[..3], "all");
    let puts: String = names(KEYS).iter().map(|key| format!("SET {key} value\r\n")).collect();
    assert_eq!(tell(&nodes["a"].main, &puts, KEYS), "+OK\r\n".repeat(KEYS));
    let everywhere = |nodes: &BTreeMap<&'static str, Node>, keys: usize| {
        assert_placed(nodes, &names(keys), nodes.len());
        let members = nodes["a"].json("/v1/members");
        let holds: Vec<_> = members["members"].as_array().expect("a list").iter().map(|m| m["holds"].clone()).collect();
        assert_eq!(holds, vec![1024; nodes.len()]);
    };
    everywhere(&nodes, KEYS);
    let new = start("d", "all", &[&nodes["a"].main]);
    nodes.insert("d", new);
    until("it is ready", || is_ready(&nodes["d"]));
    everywhere(&nodes, KEYS);
    // It dies without a word, others take writes meanwhile, and it returns with nothing.
    drop(nodes.remove("b"));
    let more: String = names(2 * KEYS)[KEYS..].iter().map(|key| format!("SET {key} value\r\n")).collect();
    let count = |answers: String| answers.matches("+OK").count();
    assert_eq!(count(tell(&nodes["c"].main, &more, KEYS)), KEYS);
    let again = start("b", "all", &[&nodes["a"].main]);
    nodes.insert("b", again);
    until("it is back", || is_ready(&nodes["b"]));
    everywhere(&nodes, 2 * KEYS);
    // Whoever is left has all of it.
    let left = nodes.remove("d").expect("it joined");
    drop(nodes);
    let gets: String = names(2 * KEYS).iter().map(|key| format!("GET {key}\r\n")).collect();
    assert_eq!(tell(&left.main, &gets, 4 * KEYS), "$5\r\nvalue\r\n".repeat(2 * KEYS));
}
