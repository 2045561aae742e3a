//! The Rust client against real nodes: what it promises while one is killed, stopped or joins, and what it says of those who are no nodes.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

#[allow(dead_code, reason = "a test is no program")]
#[path = "../examples/client.rs"]
mod example;

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use running::{Node, until};
use trellis::base::op::{Act, OpRef};
use trellis::base::reply::ReplyKind;
use trellis::client::{Applied, Client, Error, ErrorKind, Level, Lifetime, Options, Value};
use trellis::protocol::native::{
    Answer, Ask, Forward, Hello, Message, Misdirected, PREFACE, Replies, Routes, Welcome, frame,
};

/// Runs a test on a runtime of its own.
fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test)
}

fn addresses(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(|node| node.main.clone()).collect()
}

async fn connect(nodes: &[Node]) -> Client {
    Client::connect(addresses(nodes)).await.expect("a node answers")
}

/// One counter of a node's metrics.
fn counter(node: &Node, name: &str) -> f64 {
    let (_, page) = node.http("GET", "/metrics");
    let samples = running::parse_metrics(&page);
    let found = samples.iter().find(|(series, _)| series.split('{').next() == Some(name));
    found.map_or_else(|| panic!("no {name}:\n{page}"), |(_, value)| *value)
}

#[test]
fn what_is_stored_is_read_by_every_kind_of_call() {
    let node = Node::start(&["0"]);
    block_on(async {
        let client = connect(std::slice::from_ref(&node)).await;
        assert_eq!(client.get("k").await, Ok(None));
        assert_eq!(client.set("k", "v").await, Ok(true));
        assert_eq!(client.get("k").await.unwrap().as_deref(), Some(&b"v"[..]));
        assert_eq!(client.set("k", "w").if_absent().await, Ok(false));
        assert_eq!(client.set("absent", "w").if_present().await, Ok(false));
        assert_eq!(client.ttl("absent").await, Ok(Lifetime::Missing));
        assert_eq!(client.ttl("k").await, Ok(Lifetime::Unlimited));
        assert_eq!(client.expire("k", Duration::from_secs(100)).await, Ok(true));
        assert!(matches!(client.ttl("k").await, Ok(Lifetime::Left(left)) if left > Duration::from_secs(90)));
        assert_eq!(client.set("k", "x").keep_ttl().await, Ok(true));
        let item = client.get_item("k").await.unwrap().expect("it is there");
        assert!(item.value == "x" && item.ttl > Some(Duration::from_secs(90)));
        assert_eq!(client.persist("k").await, Ok(true));
        // The version changed with that.
        assert_eq!(client.set("k", "lost").if_version(item.version).await, Ok(false));
        let item = client.get_item("k").await.unwrap().expect("it is there");
        assert_eq!(client.set("k", "y").if_version(item.version).await, Ok(true));
        assert_eq!(client.delete_version("k", item.version).await, Ok(false));
        assert_eq!(client.exists("k").await, Ok(true));
        assert_eq!(client.delete("k").await, Ok(true));
        assert_eq!(client.delete("k").await, Ok(false));
        assert_eq!(client.get_item("k").await, Ok(None));
        assert_eq!(client.set("k", "z").if_version(item.version).await, Ok(false), "nothing is there");
        assert_eq!(client.incr("n", 5).await, Ok(5));
        assert_eq!(client.incr("n", -7).await, Ok(-2));
        let large = vec![7u8; 3_000_000];
        assert_eq!(client.set(b"\xff\0", large.clone()).await, Ok(true));
        assert_eq!(client.get(b"\xff\0").await.unwrap().as_deref(), Some(&large[..]));
        assert_eq!(client.status().await.unwrap()["keys"], 2);
        assert_eq!(client.ring("foo").await.unwrap()["slot"], 12182);
    });
}

#[test]
fn errors_say_of_what_kind_they_are_and_that_nothing_was_done() {
    let node = Node::start(&["0", "--max-value-size", "1mb", "--max-memory", "8mb", "--eviction", "none"]);
    block_on(async {
        let client = connect(std::slice::from_ref(&node)).await;
        let told = |error: Error| (error.kind(), error.applied());
        client.set("text", "x").await.unwrap();
        let refused = (ErrorKind::Command, Applied::No);
        assert_eq!(told(client.incr("text", 1).await.unwrap_err()), refused);
        assert_eq!(told(client.set("k", vec![0; 1024 * 1024 + 1]).await.unwrap_err()), refused);
        assert_eq!(told(client.set(vec![b'k'; 70_000], "v").await.unwrap_err()), refused);
        assert_eq!(told(client.command(["NOSUCH", "k"]).await.unwrap_err()), refused);
        assert_eq!(told(client.command(["MULTI"]).await.unwrap_err()), refused);
        let full =
            join_all((0..12).map(|n| client.set(format!("large:{n}"), vec![0; 1024 * 1024]).into_future())).await;
        let full: Vec<Error> = full.into_iter().filter_map(Result::err).collect();
        assert!(!full.is_empty() && full.iter().all(|error| error.kind() == ErrorKind::OutOfMemory), "{full:?}");
        let (closed, other) = (client.clone(), client.clone());
        closed.close().await;
        assert_eq!(told(other.get("text").await.unwrap_err()), (ErrorKind::Closed, Applied::No));
    });
}

#[test]
fn commands_by_their_arguments_and_pipelines_keep_their_order() {
    let nodes = Node::cluster(3);
    block_on(async {
        let client = connect(&nodes).await;
        assert_eq!(client.command(["SET", "k", "v", "PX", "100000"]).await, Ok(Value::OK));
        assert_eq!(client.command(["APPEND", "k", "w"]).await, Ok(Value::Int(2)));
        assert_eq!(client.command(["MGET", "k", "none"]).await, Ok(Value::Array(vec![Value::bulk("vw"), Value::Null])));
        assert_eq!(client.command(["PING"]).await, Ok(Value::simple("PONG")));
        let words = |line: &str| line.split(' ').map(|word| word.to_owned().into()).collect();
        let lines = ["SET a 1", "INCR a", "DEL a b", "EXISTS a", "SET a x", "INCR a", "GET a"];
        let replies = client.pipeline(lines.map(words).to_vec(), Some(Level::Quorum)).await;
        let [set, two, deleted, gone, again, wrong, x] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!((set, two, deleted), (&Ok(Value::OK), &Ok(Value::Int(2)), &Ok(Value::Int(1))));
        assert_eq!((gone, again, x), (&Ok(Value::Int(0)), &Ok(Value::OK), &Ok(Value::bulk("x"))));
        assert_eq!(wrong.as_ref().unwrap_err().kind(), ErrorKind::Command);
    });
}

#[test]
fn requests_go_to_the_coordinator_itself() {
    let nodes = Node::cluster(3);
    let forwarded = || nodes.iter().map(|node| counter(node, "trellis_ops_forwarded_total")).sum::<f64>();
    block_on(async {
        let client = connect(&nodes).await;
        let before = forwarded();
        client.set_many((0..3000).map(|n| (format!("k{n}"), n.to_string()))).await.unwrap();
        let values = client.get_many((0..3000).map(|n| format!("k{n}"))).await.unwrap();
        assert!(values.iter().enumerate().all(|(n, value)| value.as_deref() == Some(n.to_string().as_bytes())));
        assert_eq!(forwarded(), before);
        let keys: BTreeSet<_> = client.scan("k*").try_collect().await.unwrap();
        assert_eq!(keys.len(), 3000);
        assert_eq!(client.delete_many((0..3100).map(|n| format!("k{n}"))).await, Ok(3000));
    });
}

#[test]
fn many_tasks_share_few_connections() {
    let nodes = Node::cluster(3);
    block_on(async {
        let client = Options::default().in_flight_max(300).connect(addresses(&nodes)).await.unwrap();
        let tasks: Vec<_> = (0..1000)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move {
                    for round in 0..20 {
                        client.set(format!("k{n}"), format!("{n}:{round}")).await.unwrap();
                        let read = client.get(format!("k{n}")).await.unwrap();
                        assert_eq!(read.as_deref(), Some(format!("{n}:{round}").as_bytes()));
                    }
                })
            })
            .collect();
        join_all(tasks).await.into_iter().for_each(|task| task.expect("no task fails"));
        for node in &nodes {
            let Value::Verbatim(list) = client.command(["CLIENT", "LIST"]).await.unwrap() else { panic!("no list") };
            let list = String::from_utf8_lossy(&list).into_owned();
            assert!(list.lines().count() <= 2, "{}: {list}", node.main);
        }
    });
}

/// Eight tasks count at quorum until `is_over`. How often they were told it was done, and how often that it may have been.
async fn count(client: &Client, is_over: impl Fn(u64) -> bool + Clone + Send + 'static) -> (u64, u64) {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (client, is_over) = (client.clone(), is_over.clone());
            tokio::spawn(async move {
                let (mut done, mut unknown) = (0, 0);
                while !is_over(done) {
                    match client.incr("counter", 1).consistency(Level::Quorum).await {
                        Ok(_) => done += 1,
                        Err(error) if error.applied() == Applied::No => {}
                        Err(_) => unknown += 1,
                    }
                }
                (done, unknown)
            })
        })
        .collect();
    let told = join_all(tasks).await.into_iter().map(|task| task.expect("no task fails"));
    told.fold((0, 0), |(a, b), (done, unknown)| (a + done, b + unknown))
}

async fn value_of(client: &Client) -> u64 {
    let value = client.get("counter").consistency(Level::Quorum).await.expect("two of three live");
    value.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("a number"))
}

#[test]
fn counts_are_exact_while_a_node_is_killed_and_another_joins() {
    let mut nodes = Node::cluster(3);
    block_on(async {
        let client = connect(&nodes).await;
        let (going, over) = tokio::sync::watch::channel(false);
        let counting = {
            let client = client.clone();
            tokio::spawn(async move { count(&client, move |_| *over.borrow()).await })
        };
        let grows_from = |from: u64| {
            let client = client.clone();
            async move {
                let began = Instant::now();
                while value_of(&client).await < from + 200 {
                    assert!(began.elapsed() < running::DEADLINE, "the counter stands still");
                }
                value_of(&client).await
            }
        };
        let reached = grows_from(0).await;
        // The one that coordinates the counter, which is the hardest to lose.
        let first = client.ring("counter").await.unwrap()["replicas"][0]["address"].as_str().unwrap().to_owned();
        let place = nodes.iter().position(|node| node.main == first).expect("a node of ours");
        drop(nodes.remove(place));
        let reached = grows_from(reached).await;
        nodes.push(Node::start(&["0", &nodes[0].main]));
        let joined = nodes[2].main.clone();
        let began = Instant::now();
        while !client.members().contains(&joined) {
            assert!(began.elapsed() < running::DEADLINE, "the client does not learn of the new node");
            client.get("x").await.unwrap();
        }
        grows_from(reached).await;
        going.send(true).unwrap();
        let (done, unknown) = counting.await.unwrap();
        let value = value_of(&client).await;
        assert!(done <= value && value <= done + unknown, "{done} acknowledged, {unknown} unknown, {value} counted");
        assert!(unknown * 10 <= done, "{unknown} of {done} unknown");
    });
}

#[test]
fn a_stopped_node_costs_a_call_its_deadline_at_the_most() {
    let nodes = Node::cluster(3);
    block_on(async {
        let client = connect(&nodes).await;
        client.set_many((0..300).map(|n| (format!("k{n}"), "v"))).consistency(Level::All).await.unwrap();
        nodes[1].signal("STOP");
        let began = Instant::now();
        let short = Duration::from_millis(200);
        let reads = join_all((0..300).map(|n| client.get(format!("k{n}")).timeout(short).into_future())).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        let (served, late): (Vec<_>, Vec<_>) = reads.into_iter().partition(Result::is_ok);
        assert!(!served.is_empty() && !late.is_empty(), "{} served, {} late", served.len(), late.len());
        for error in late.into_iter().filter_map(Result::err) {
            assert_eq!((error.kind(), error.applied()), (ErrorKind::Timeout, Applied::No));
        }
        // With more time they find another replica, before the failure detector has said a word.
        let reads = join_all((0..300).map(|n| client.get(format!("k{n}")).into_future())).await;
        assert!(reads.into_iter().all(|read| read.is_ok_and(|value| value.is_some())));
        nodes[1].signal("CONT");
    });
}

#[test]
fn those_who_are_no_nodes_of_the_cluster_are_told_apart() {
    let node = Node::start(&["0", "--cluster-name", "other"]);
    let garbage = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at_garbage = garbage.local_addr().expect("bound").to_string();
    let talk = std::thread::spawn(move || {
        let (mut stream, _) = garbage.accept().expect("a connection");
        let _ = stream.write_all(&[0xF5; 4096]);
        let _ = stream.read(&mut [0; 512]);
    });
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    block_on(async {
        let refused = |error: Error| (error.kind(), error.applied(), error.to_string());
        let (kind, applied, told) = refused(Client::connect([&node.main]).await.unwrap_err());
        assert_eq!((kind, applied), (ErrorKind::Refused, Applied::No));
        assert!(told.contains("another cluster name: `trellis` where this is `other`"), "{told}");
        let (kind, _, told) = refused(Client::connect([&node.admin]).await.unwrap_err());
        assert!(kind == ErrorKind::Refused && told.contains("admin port"), "{told}");
        let (kind, _, told) = refused(Client::connect([&at_garbage]).await.unwrap_err());
        assert!(kind == ErrorKind::Refused && told.contains("not the native protocol"), "{told}");
        let (kind, _, told) = refused(Client::connect([free.to_string()]).await.unwrap_err());
        assert!(kind == ErrorKind::Unreachable && told.contains(&free.to_string()), "{told}");
        let named = Options::default().cluster_name("other".parse().unwrap());
        let client = named.connect([&free.to_string(), &node.main]).await.expect("one of the seeds answers");
        assert_eq!(client.set("k", "v").await, Ok(true));
    });
    talk.join().expect("it was connected to");
}

/// A native connection by hand: the greeting is done, frames go both ways.
struct Wire(TcpStream, BytesMut);

impl Wire {
    fn to(address: &str) -> Self {
        let mut wire = Self(running::connect(address), BytesMut::new());
        wire.0.write_all(&PREFACE).expect("the node reads");
        wire.say(&Message::Hello(Hello { cluster: "trellis", peer: None }));
        assert!(matches!(frame::decode(&wire.hear().expect("a welcome")), Ok(Message::Welcome(_))));
        wire
    }

    fn say(&mut self, message: &Message<'_>) {
        self.0.write_all(&frame::to_bytes(message)).expect("the other side reads");
    }

    fn hear(&mut self) -> Option<Bytes> {
        loop {
            if let Some(payload) = frame::cut(&mut self.1, 1 << 20).expect("a frame") {
                return Some(payload);
            }
            let mut piece = [0; 4096];
            match self.0.read(&mut piece).expect("the other side answers in time") {
                0 => return None,
                read => self.1.extend_from_slice(&piece[..read]),
            }
        }
    }

    /// What came of this request: the encoded reply, or that it went astray.
    fn told(&mut self, message: &Message<'_>) -> Result<String, Misdirected> {
        self.say(message);
        let payload = self.hear().expect("an answer");
        match frame::decode(&payload) {
            Ok(Message::Forwarded { result, .. }) => {
                result.map(|replies| String::from_utf8_lossy(replies.bytes).into_owned())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn incr(key: &[u8], sequence: u64, retry: bool) -> Forward<'_> {
    Forward {
        epoch: 0,
        timeout_ms: 5000,
        level: Level::One,
        wire: trellis::base::reply::Wire::Item,
        router: 77,
        together: false,
        retry,
        begun_ms: 1,
        ops: vec![(sequence, OpRef { key, act: Act::Incr { by: 1 }, value: b"" })],
    }
}

#[test]
fn any_node_passes_on_what_a_client_could_not_bring_to_its_coordinator_and_counts_it_once() {
    let first = Node::start(&["0", "--replication-factor", "1"]);
    let second = Node::start(&["0", &first.main, "--replication-factor", "1"]);
    // A key that the second alone has, once it has its share.
    let key = until("a key of the second node", || {
        (0..100).map(|n| format!("key:{n}")).find(|key| {
            let replicas = first.json(&format!("/v1/ring/{key}"))["replicas"].clone();
            replicas[0]["address"] == second.main.as_str() && replicas[0]["holds"] == true
        })
    });
    let mut wire = Wire::to(&first.main);
    let start_by = u64::MAX / 2;
    let relay = |sequence, retry| Message::Relay { id: 1, start_by, forward: incr(key.as_bytes(), sequence, retry) };
    until("the first has given the key up", || {
        let look = OpRef { key: key.as_bytes(), act: Act::Get, value: b"" };
        let forward = Forward { ops: vec![(0, look)], ..incr(b"", 0, false) };
        wire.told(&Message::Forward { id: 1, start_by, forward }).err()
    });
    assert_eq!(wire.told(&relay(1, false)), Ok(":1\r\n".to_owned()));
    // The same request again, by the same way and straight.
    assert_eq!(wire.told(&relay(1, true)), Ok(":1\r\n".to_owned()));
    let straight = Message::Forward { id: 1, start_by, forward: incr(key.as_bytes(), 1, true) };
    assert_eq!(Wire::to(&second.main).told(&straight), Ok(":1\r\n".to_owned()));
    assert_eq!(wire.told(&relay(2, false)), Ok(":2\r\n".to_owned()));
    // Who comes too late to begin is told so; nothing was done.
    let late = Message::Relay { id: 1, start_by: 0, forward: incr(key.as_bytes(), 3, false) };
    assert_eq!(wire.told(&late), Ok(format!("-{}\r\n", trellis::base::reply::LATE)));
    assert_eq!(wire.told(&relay(4, false)), Ok(":3\r\n".to_owned()));
    // A transaction is not for clients.
    let together = Message::Forward { id: 1, start_by, forward: Forward { together: true, ..incr(b"k", 5, false) } };
    wire.say(&together);
    let last = wire.hear().expect("a reason");
    assert!(matches!(frame::decode(&last), Ok(Message::Refused { .. })));
    assert_eq!(wire.hear(), None);
}

/// Takes a connection of a client as a node would, and answers its question for routes: all keys are served where nobody listens.
fn greet_as_node(listener: &TcpListener) -> Wire {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(running::DEADLINE)).expect("a positive time");
    stream.read_exact(&mut [0; PREFACE.len()]).expect("a preface");
    let mut wire = Wire(stream, BytesMut::new());
    assert!(matches!(frame::decode(&wire.hear().expect("a hello")), Ok(Message::Hello(_))));
    wire.say(&Message::Welcome(Welcome { node: "a", incarnation: 1, now_ms: 1 }));
    wire
}

/// The next request that is no question for routes, as the test wants it: whether it is a retry, and its ids.
fn next_request(wire: &mut Wire) -> (u64, u64, u64, bool) {
    let routes = Routes {
        mark: 1,
        epoch: 1,
        level: Level::Quorum,
        value_bytes_max: 1024,
        members: vec!["127.0.0.1:1"],
        serving: vec![vec![0]; 1024],
    };
    loop {
        let payload = wire.hear().expect("a request");
        match frame::decode(&payload).expect("a message") {
            Message::Ask { id, ask: Ask::Routes(_) } => {
                wire.say(&Message::Answer { id, answer: Answer::Routes(routes.clone()) });
            }
            Message::Ask { id, ask: Ask::Ping } => wire.say(&Message::Answer { id, answer: Answer::Pong }),
            Message::Relay { id, forward, .. } => return (id, forward.router, forward.ops[0].0, forward.retry),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_request_whose_connection_broke_is_sent_again_as_the_same_request() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let node = std::thread::spawn(move || {
        let mut wire = greet_as_node(&listener);
        let (_, router, sequence, retry) = next_request(&mut wire);
        assert!(!retry && sequence != 0);
        drop(wire);
        let mut wire = greet_as_node(&listener);
        let (id, again, same, retry) = next_request(&mut wire);
        assert_eq!((again, same, retry), (router, sequence, true));
        // No room: nothing was done by this attempt, which says nothing of the first.
        let busy = Replies { marks: vec![(10, ReplyKind::Error)], bytes: b"-BUSY no\r\n" };
        wire.say(&Message::Forwarded { id, result: Ok(busy) });
        let (id, again, same, retry) = next_request(&mut wire);
        assert_eq!((again, same, retry), (router, sequence, true));
        let oom = Replies { marks: vec![(9, ReplyKind::Error)], bytes: b"-OOM no\r\n" };
        wire.say(&Message::Forwarded { id, result: Ok(oom) });
        // The next is another request.
        let (id, again, other, retry) = next_request(&mut wire);
        assert!(again == router && other != sequence && !retry);
        wire.say(&Message::Forwarded {
            id,
            result: Ok(Replies { marks: vec![(4, ReplyKind::Int(7))], bytes: b":7\r\n" }),
        });
        while wire.hear().is_some() {}
    });
    block_on(async {
        let client = Client::connect([&address]).await.unwrap();
        let error = client.incr("k", 1).await.unwrap_err();
        assert_eq!((error.kind(), error.applied()), (ErrorKind::OutOfMemory, Applied::Unknown), "{error}");
        assert_eq!(client.incr("k", 1).await, Ok(7));
        client.close().await;
    });
    node.join().expect("the node heard what it expected");
}

#[test]
fn the_example_runs_against_three_nodes() {
    let nodes = Node::cluster(3);
    block_on(async { example::tour(&addresses(&nodes)).await.expect("everything is as it should be") });
}

#[test]
fn a_node_that_leaves_in_order_costs_no_error() {
    let mut nodes = Node::cluster(3);
    let (going, over) = tokio::sync::watch::channel(false);
    block_on(async {
        let client = connect(&nodes).await;
        let counting = {
            let client = client.clone();
            tokio::spawn(async move { count(&client, move |_| *over.borrow()).await })
        };
        while client.get("counter").await.unwrap().is_none() {}
        nodes[2].signal("TERM");
        let (code, ..) = nodes[2].wait();
        assert_eq!(code, Some(0));
        going.send(true).unwrap();
        let (done, unknown) = counting.await.unwrap();
        assert_eq!((value_of(&client).await, unknown), (done, 0));
    });
}

#[test]
fn a_node_hears_a_ping_behind_all_that_a_client_may_have_under_way() {
    let nodes = Node::cluster(3);
    let mut wire = Wire::to(&nodes[0].main);
    nodes[1].signal("STOP");
    let look = vec![(0, OpRef { key: b"k", act: Act::Get, value: b"" })];
    let forward = Forward { level: Level::All, ops: look, ..incr(b"", 0, false) };
    let mut frames = Vec::new();
    for id in 1..trellis::base::limits::CLIENT_FRAMES_UNDER_WAY_MAX as u64 {
        frame::encode(&Message::Relay { id, start_by: u64::MAX / 2, forward: forward.clone() }, &mut frames);
    }
    frame::encode(&Message::Ask { id: 0, ask: Ask::Ping }, &mut frames);
    wire.0.write_all(&frames).expect("the node reads");
    let first = wire.hear().expect("an answer");
    assert!(matches!(frame::decode(&first), Ok(Message::Answer { id: 0, answer: Answer::Pong })));
}
