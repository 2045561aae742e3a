//! `trellis-cli` as scripts meet it: what it prints where, and its exit codes, against one node and against three.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use running::cli::{cli, cli_with, expect, row, shown};
use running::{DEADLINE, Node, program, until};
use serde_json::Value as Json;

#[test]
fn values_are_put_got_and_deleted() {
    let node = Node::start(&["0"]);
    let at = node.main.as_str();
    expect(&cli(at, "get k"), 1, "", "key not found\n");
    expect(&cli(at, "put k v"), 0, "OK\n", "");
    expect(&cli(at, "get k"), 0, "v", "");
    expect(&cli(at, "get k --newline"), 0, "v\n", "");
    expect(&cli(at, "put k w --if-absent"), 1, "", "key exists, nothing was stored\n");
    expect(&cli(at, "put --consistency quorum k w"), 0, "OK\n", "");
    expect(&cli(at, "--consistency all get k"), 0, "w", "");
    expect(&cli(at, "delete k"), 0, "deleted\n", "");
    expect(&cli(at, "delete k"), 1, "", "key not found\n");
    expect(&cli(at, "put k v --if-absent --ttl 2h"), 0, "OK\n", "");
    expect(&cli(at, "put empty -"), 0, "OK\n", "");
    expect(&cli(at, "get empty"), 0, "", "");
    expect(&cli(at, "put n -5"), 0, "OK\n", "");
    expect(&cli(at, "get n"), 0, "-5", "");
}

#[test]
fn a_value_goes_at_its_time_to_live() {
    let node = Node::start(&["0"]);
    expect(&cli(&node.main, "put k v --ttl 300ms"), 0, "OK\n", "");
    let gone = until("expired", || Some(cli(&node.main, "get k")).filter(|output| output.status.code() != Some(0)));
    expect(&gone, 1, "", "key not found\n");
}

#[test]
fn any_bytes_pass_as_keys_and_values() {
    let node = Node::start(&["0"]);
    let at = node.main.as_str();
    let every_byte: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = every_byte.iter().copied().cycle().take(3_000_000).collect();
    for value in [every_byte.as_slice(), large.as_slice(), b"\n", b"\r\n+OK\r\n"] {
        expect(&cli_with(at, &[b"put", b"k\xff\n", b"-"], value), 0, "OK\n", "");
        let got = cli_with(at, &[b"get", b"k\xff\n"], b"");
        assert_eq!((got.status.code(), got.stdout == value), (Some(0), true), "{} bytes", value.len());
    }
    let without_zero = &every_byte[1..];
    expect(&cli_with(at, &[b"put", b"a", without_zero], b""), 0, "OK\n", "");
    assert_eq!(cli(at, "get a").stdout, without_zero);
    assert_eq!(cli(at, "keys").stdout, b"a\nk\xff\n\n");
}

#[test]
fn keys_are_listed_by_pattern_in_order() {
    let node = Node::start(&["0"]);
    let at = node.main.as_str();
    expect(&cli(at, "keys"), 0, "", "");
    for key in ["b:1", "a:2", "a:1"] {
        expect(&cli(at, &format!("put {key} v")), 0, "OK\n", "");
    }
    expect(&cli(at, "keys"), 0, "a:1\na:2\nb:1\n", "");
    expect(&cli(at, "keys a:*"), 0, "a:1\na:2\n", "");
    expect(&cli(at, "keys [^a]:?"), 0, "b:1\n", "");
    expect(&cli(at, "keys c*"), 0, "", "");
}

#[test]
fn what_happens_to_keys_is_watched_over_the_whole_cluster() {
    let nodes = Node::cluster(3);
    let (watched, other) = (nodes[0].main.as_str(), nodes[1].main.as_str());
    let refused = cli(watched, "watch");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(
        (refused.status.code(), told.contains("CONFIG SET notify-keyspace-events KA")),
        (Some(1), true),
        "{told}"
    );

    let settings = cli_with(watched, &[], b"config set notify-keyspace-events KA\n");
    expect(&settings, 0, "OK\n", "");
    for (as_json, seen) in [
        (false, "set      \"k:1 \\n\"\nexpire   \"k:1 \\n\"\ndel      \"k:1 \\n\"\n"),
        (
            true,
            "{\"event\":\"set\",\"key\":\"k:1 \\n\"}\n{\"event\":\"expire\",\"key\":\"k:1 \\n\"}\n{\"event\":\"del\",\"key\":\"k:1 \\n\"}\n",
        ),
    ] {
        let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-cli"));
        command.args([watched, "watch", "k:*"]).args(as_json.then_some("--json"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
        let mut says = BufReader::new(child.stderr.take().expect("piped"));
        let mut first = String::new();
        says.read_line(&mut first).expect("it says when it watches");
        assert_eq!(first, format!("watching \"k:*\" through {watched}: AK\n"));
        expect(&cli(other, "put j v"), 0, "OK\n", "");
        expect(&cli_with(other, &[b"put", b"k:1 \n", b"v", b"--ttl", b"1h"], b""), 0, "OK\n", "");
        expect(&cli_with(other, &[b"delete", b"k:1 \n"], b""), 0, "deleted\n", "");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let got: String = (0..3).map(|_| lines.next().expect("an event").expect("text") + "\n").collect();
        assert_eq!(got, seen);
        child.kill().expect("it runs");
        child.wait().expect("it ended");
    }
}

#[test]
fn a_watch_ends_when_the_node_tells_of_no_keys_any_more() {
    let node = Node::start(&["0", "--notify-keyspace-events", "KA"]);
    let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-cli"));
    command.args([&node.main, "watch"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    let mut says = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    says.read_line(&mut line).expect("it says when it watches");
    expect(&cli_with(&node.main, &[], b"config set notify-keyspace-events E\n"), 0, "OK\n", "");
    line.clear();
    says.read_to_string(&mut line).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert!(line.contains("tells of no keys") && line.lines().count() == 1, "{line}");
}

#[test]
fn a_watch_ends_with_its_connection() {
    let node = Node::start(&["0", "--notify-keyspace-events", "KA"]);
    let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-cli"));
    command.args([&node.main, "watch"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    let mut says = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    says.read_line(&mut line).expect("it says when it watches");
    node.signal("KILL");
    line.clear();
    says.read_to_string(&mut line).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    assert!(line.contains("is not seen") && line.lines().count() == 1, "{line}");
}

#[test]
fn one_node_shows_itself() {
    let node = Node::start(&["0", "--node-id", "n1", "--zone", "z1"]);
    let at = node.main.as_str();
    until("ready", || cli(at, "health").status.success().then_some(()));
    expect(&cli(at, "health"), 0, "ready\n", "");
    let health: Json = serde_json::from_str(&shown(&cli(at, "health --json"))).expect("JSON");
    assert_eq!(health["ready"], true);
    expect(&cli(at, "put foo bar"), 0, "OK\n", "");
    let status = shown(&cli(at, "status"));
    assert_eq!(row(&status, "n1"), ["n1", at, node.admin.as_str(), "alive", "z1", "1", "1024", "100.0%"]);
    assert_eq!(row(&status, "keys")[..2], ["keys", "1"]);
    assert_eq!(row(&status, "version"), ["version", env!("CARGO_PKG_VERSION")]);
    assert_eq!(row(&shown(&cli(at, "ring")), "n1")[5..], ["1024", "1024", "100.0%"]);
    let ring = shown(&cli(at, "ring foo"));
    assert!(ring.starts_with("slot 12182, partition 761\n"), "{ring}");
    assert_eq!(row(&ring, "n1"), ["n1", at, "alive", "complete"]);
    for (line, field) in [("status --json", "node_id"), ("ring --json", "partitions"), ("ring foo --json", "replicas")]
    {
        let page: Json = serde_json::from_str(&shown(&cli(at, line))).expect("JSON");
        assert!(!page[field].is_null(), "{line}: {page}");
    }
}

#[test]
fn bad_usage_exits_with_2_and_says_how() {
    for line in [
        "",
        "h:1 leave no/name",
        "h:1 plan leave",
        "h:1 share n",
        "h:1 put k",
        "h:1 put k v w",
        "h:1 put k v --ttl soon",
        "h:1 get k --consistency most",
        "h:1 import",
        "h:1 import /no/such/file",
        "h:1 export /no/such/folder/file --format xml",
        "h:1 forget no/name",
        "h:1 get k --cluster-name !",
        "nowhere get k",
        "h:99999 get k",
        "status h:1",
    ] {
        let args: Vec<&str> = line.split(' ').filter(|arg| !arg.is_empty()).collect();
        let output = program(assert_cmd::cargo::cargo_bin!("trellis-cli")).args(&args).output().expect("it runs");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{line}: {output:?}");
        assert!(!output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn an_unreachable_server_is_one_line_and_exit_code_3() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    // Someone who hangs up, as a server of another kind does.
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at_stranger = stranger.local_addr().expect("bound");
    let hang_up = std::thread::spawn(move || {
        let (mut stream, _) = stranger.accept().expect("a connection");
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    for server in [free.to_string(), at_stranger.to_string(), "host.invalid:5000".to_owned()] {
        let output = cli(&server, "get k");
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len(), line.lines().count()), (Some(3), 0, 1), "{line}");
        assert!(line.contains(&server), "{line}");
    }
    hang_up.join().expect("it was asked");
}

#[test]
fn the_admin_port_is_known_for_what_it_is() {
    let node = Node::start(&["0"]);
    let output = cli(&node.admin, "status");
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), line.lines().count()), (Some(3), 1), "{line}");
    assert!(line.contains(&node.admin) && line.contains("admin port"), "{line}");
}

#[test]
fn what_the_server_refuses_exits_with_1() {
    let node = Node::start(&["0", "--cluster-name", "other", "--max-value-size", "1mb"]);
    let at = node.main.as_str();
    let names = "another cluster name: `trellis` where this is `other`; try --cluster-name";
    expect(&cli(at, "get k"), 1, "", &format!("{at} refused: {names}\n"));
    expect(&cli(at, "get k --cluster-name other"), 1, "", "key not found\n");
    expect(&cli(at, "--cluster-name other forget nobody"), 1, "", "no such member\n");
    let large = cli_with(at, &[b"--cluster-name", b"other", b"put", b"k", b"-"], &vec![b'x'; 1024 * 1024 + 1]);
    let reason = String::from_utf8_lossy(&large.stderr).into_owned();
    assert_eq!((large.status.code(), reason.starts_with("ERR ")), (Some(1), true), "{reason}");
    let key = cli_with(at, &[b"--cluster-name", b"other", b"put", &[b'k'; 65 * 1024], b"v"], b"");
    assert_eq!(key.status.code(), Some(1), "{key:?}");
    expect(&cli(at, "get k --cluster-name other"), 1, "", "key not found\n");
}

#[test]
fn any_of_three_nodes_answers_for_any_key_and_a_dead_one_is_forgotten() {
    let mut nodes = Node::cluster(3);
    let at: Vec<String> = nodes.iter().map(|node| node.main.clone()).collect();
    for n in 0..12 {
        expect(&cli(&at[n % 3], &format!("put key:{n} value:{n} --consistency quorum")), 0, "OK\n", "");
        let read = cli(&at[(n + 1) % 3], &format!("get key:{n} --consistency quorum"));
        expect(&read, 0, &format!("value:{n}"), "");
    }
    expect(&cli(&at[2], "delete key:3 --consistency all"), 0, "deleted\n", "");
    assert_eq!(shown(&cli(&at[1], "keys key:*")).lines().count(), 11);
    let status: Json = serde_json::from_str(&shown(&cli(&at[0], "status --json"))).expect("JSON");
    let members = status["members"].as_array().expect("a list");
    let id_at = |address: &str| {
        let member = members.iter().find(|member| member["address"] == address).expect("a member");
        member["id"].as_str().expect("text").to_owned()
    };
    let table = shown(&cli(&at[0], "status"));
    let ring = shown(&cli(&at[1], "ring"));
    let replicas = shown(&cli(&at[2], "ring key:1"));
    for address in &at {
        assert_eq!(row(&table, &id_at(address))[3], "alive");
        assert_eq!(row(&ring, &id_at(address)).last(), Some(&"33.3%"));
        assert_eq!(row(&replicas, &id_at(address))[2..], ["alive", "complete"]);
    }
    assert_eq!(row(&table, "keys")[..2], ["keys", "11"]);

    let gone = id_at(&at[2]);
    let living = format!("`{gone}` is alive; stop it first\n");
    expect(&cli(&at[0], &format!("forget {gone}")), 1, "", &living);
    drop(nodes.pop());
    until("seen as down", || {
        let table = shown(&cli(&at[0], "status"));
        (row(&table, &gone)[3] == "down").then_some(())
    });
    assert_eq!(row(&shown(&cli(&at[0], "ring key:1")), &gone)[2..], ["down", "unknown"]);
    for n in (0..12).filter(|n| *n != 3) {
        expect(&cli(&at[n % 2], &format!("get key:{n} --consistency quorum")), 0, &format!("value:{n}"), "");
    }
    expect(&cli(&at[1], &format!("forget {gone}")), 0, "forgotten\n", "");
    until("forgotten everywhere", || at[..2].iter().all(|at| !shown(&cli(at, "status")).contains(&gone)).then_some(()));
}

#[test]
fn answers_come_in_json_where_that_is_asked_for() {
    let node = Node::start(&["0"]);
    let at = node.main.as_str();
    expect(&cli(at, "put k v --ttl 100s --json"), 0, "{\"stored\":true}\n", "");
    expect(&cli(at, "put k v --if-absent --json"), 1, "{\"stored\":false}\n", "");
    let item: Json = serde_json::from_str(&shown(&cli(at, "get k --json"))).expect("JSON");
    assert_eq!((&item["key"], &item["value"]), (&"k".into(), &"v".into()));
    assert!(item["ttl_ms"].as_u64().is_some_and(|ms| ms > 90_000 && ms <= 100_000), "{item}");
    expect(&cli_with(at, &[b"put", b"b\xff", b"-"], b"\xfe"), 0, "OK\n", "");
    let binary = cli_with(at, &[b"get", b"b\xff", b"--json"], b"");
    expect(&binary, 0, "{\"key_base64\":\"Yv8=\",\"value_base64\":\"/g==\"}\n", "");
    expect(&cli(at, "keys --json"), 0, "[{\"base64\":\"Yv8=\"},\"k\"]\n", "");
    expect(&cli(at, "get none --json"), 1, "", "key not found\n");
    expect(&cli(at, "delete k --json"), 0, "{\"deleted\":true}\n", "");
    expect(&cli(at, "delete k --json"), 1, "{\"deleted\":false}\n", "");
}

/// The summary of an import or export, its times left out.
fn summary(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let (verb, rest) = last.split_once(" in ").unwrap_or_else(|| panic!("no summary: {text}"));
    format!("{verb}, {}", rest.split_once(", ").expect("counts").1)
}

#[test]
fn what_was_exported_is_imported_again_in_both_formats() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let (from, to) = (Node::start(&["0"]), Node::start(&["0"]));
    let every_byte: Vec<u8> = (0..=255).collect();
    expect(&cli_with(&from.main, &[b"put", b"bytes\xff", b"-"], &every_byte), 0, "OK\n", "");
    expect(&cli_with(&from.main, &[b"put", b"large", b"-"], &every_byte.repeat(20_000)), 0, "OK\n", "");
    expect(&cli(&from.main, "put short v --ttl 1h"), 0, "OK\n", "");
    let many: String = (0..3000).map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"{n}\"}}\n")).collect();
    let imported = cli_with(&from.main, &[b"import", b"-"], many.as_bytes());
    assert_eq!((imported.status.code(), summary(&imported)), (Some(0), "imported 3000 keys, 0 failed".into()));
    for format in ["json", "resp"] {
        let at = file(format);
        let exported = cli(&from.main, &format!("export {at} --format {format}"));
        assert_eq!((exported.status.code(), summary(&exported)), (Some(0), "exported 3003 keys, 0 failed".into()));
        let imported = cli(&to.main, &format!("import {at}"));
        assert_eq!((imported.status.code(), summary(&imported)), (Some(0), "imported 3003 keys, 0 failed".into()));
        assert_eq!(cli_with(&to.main, &[b"get", b"bytes\xff"], b"").stdout, every_byte);
        assert_eq!(cli(&to.main, "get large").stdout.len(), 256 * 20_000);
        assert_eq!(cli(&to.main, "get k2999").stdout, b"2999");
        let short: Json = serde_json::from_str(&shown(&cli(&to.main, "get short --json"))).expect("JSON");
        assert!(short["ttl_ms"].as_u64().is_some_and(|ms| ms > 3_500_000), "{short}");
        assert_eq!(shown(&cli(&to.main, "keys k*")).lines().count(), 3000);
        expect(&cli(&to.main, "delete k2999"), 0, "deleted\n", "");
    }
    // To standard output come the keys that match, and nothing else.
    let some = cli(&from.main, "export - --pattern k1?");
    assert_eq!(String::from_utf8_lossy(&some.stdout).lines().count(), 10);
}

#[test]
fn a_broken_file_is_told_by_number_and_exits_with_1() {
    let node = Node::start(&["0", "--max-value-size", "64kb"]);
    let at = node.main.as_str();
    let long = "x".repeat(70_000);
    let lines = format!(
        "{{\"key\":\"a\",\"value\":\"1\"}}\nnonsense\n{{\"key\":\"b\",\"value\":\"{long}\"}}\n{{\"key\":\"c\",\"value\":\"3\"}}\n"
    );
    let output = cli_with(at, &[b"import", b"-", b"--format", b"json"], lines.as_bytes());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), summary(&output)), (Some(1), "imported 2 keys, 2 failed".into()), "{told}");
    assert!(told.contains("line 2: ") && told.contains("line 3: ERR a value may have"), "{told}");
    expect(&cli(at, "get c"), 0, "3", "");
    // Commands keep their order; after a break nothing can be read.
    let commands = "SET n 1\r\nINCR n\r\nINCR a\r\nINCR text\r\nSET text x\r\nINCR text\r\nDEL a c\r\n*1\r\nbroken\r\nSET late 1\r\n";
    let output = cli_with(at, &[b"import", b"-"], commands.as_bytes());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("command 6: ERR value is not an integer"), "{told}");
    assert!(told.contains("stopped after command 7: expected '$'"), "{told}");
    assert_eq!(shown(&cli(at, "keys")), "n\ntext\n");
    expect(&cli(at, "get n"), 0, "2", "");
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    assert_eq!(cli_with(&gone.to_string(), &[b"import", b"-"], b"SET a 1\r\n").status.code(), Some(3));
}

/// `trellis-cli` at a terminal, and all that it has shown there.
struct Terminal {
    child: std::process::Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn open(server: &str, home: &std::path::Path) -> Self {
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let side = || Stdio::from(pty.slave.try_clone().expect("descriptors are left"));
        let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-cli"));
        command
            .arg(server)
            .env("XDG_STATE_HOME", home)
            .env("TERM", "xterm")
            .stdin(side())
            .stdout(side())
            .stderr(side());
        let child = command.spawn().expect("it can be started");
        let keyboard = File::from(pty.master);
        let mut display = keyboard.try_clone().expect("descriptors are left");
        let (to, screen) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = display.read(&mut piece) {
                let _ = to.send(piece[..read].to_vec());
            }
        });
        Self { child, keyboard, screen, shown: String::new() }
    }

    /// Types, and waits until this is shown.
    fn type_until(&mut self, typed: &str, wanted: &str) {
        self.type_until_all(typed, &[wanted]);
    }

    /// Types, and waits until these are shown, one behind the other.
    fn type_until_all(&mut self, typed: &str, wanted: &[&str]) {
        self.keyboard.write_all(typed.as_bytes()).expect("the terminal takes it");
        let before = self.shown.len();
        let follows =
            |shown: &str| wanted.iter().try_fold(before, |at, next| Some(at + shown[at..].find(next)? + next.len()));
        while follows(&self.shown).is_none() {
            let piece = self.screen.recv_timeout(DEADLINE);
            let piece = piece.unwrap_or_else(|error| panic!("no {wanted:?}: {error}: {}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_prompt_takes_commands_completes_them_and_remembers() {
    let node = Node::start(&["0"]);
    let home = tempfile::tempdir().expect("a folder");
    let sign = format!("{}> ", node.main);
    let mut terminal = Terminal::open(&node.main, home.path());
    terminal.type_until("", &sign);
    terminal.type_until("set 'a key' \"v\\n\"\r", "OK");
    terminal.type_until("get \"a key\"\r", "\"v\\n\"");
    terminal.type_until("incr n\r", "(integer) 1");
    terminal.type_until("incr 'a key'\r", "(error) ERR value is not an integer");
    terminal.type_until("mget n none\r", "2) (nil)");
    terminal.type_until("multi\r", "shares its connections");
    terminal.type_until("get \"open\r", "unbalanced quotes");
    terminal.type_until("status\r", "MEMBER");
    terminal.type_until("put k v --if-absent\r", "OK");
    terminal.type_until("put k v --if-absent\r", "key exists");
    terminal.type_until("help incr\r", "INCR: Increment");
    // Completion of a command, and of a key.
    terminal.type_until("persis\tnosuch\r", "(integer) 0");
    terminal.type_until("set user:12345 x\r", "OK");
    // Between two lines the terminal is as it was found, and makes an end of its own of the key for it.
    terminal.type_until_all("strlen user:1\t\r", &["(integer) 1", &sign]);
    terminal.type_until("\x04", "");
    let code = until("its end", || terminal.child.try_wait().expect("it is a child")).code();
    assert_eq!(code, Some(0), "{}", terminal.shown);
    let history = std::fs::read_to_string(home.path().join("trellis/history")).expect("it was kept");
    assert!(history.contains("incr n\n"), "{history}");
    // What was typed before comes back with the key for it.
    let mut again = Terminal::open(&node.main, home.path());
    again.type_until("", &sign);
    again.type_until("\x1b[A\r", "(integer) 1");
}

#[test]
fn lines_from_a_pipe_are_run_like_typed_ones() {
    let node = Node::start(&["0"]);
    let output = cli_with(&node.main, &[], b"incr n\nnonsense 1\nget n\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let [one, error, got] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
    assert!(one == "(integer) 1" && error.starts_with("(error) ERR unknown command") && got == "\"1\"", "{lines}");
    let json = cli_with(&node.main, &[b"--json"], b"mget n none\n");
    assert_eq!(json.stdout, b"[\"1\",null]\n");
}

#[test]
fn the_exit_code_is_the_same_when_nobody_can_be_told_why() {
    let (unread, _) = UnixStream::pair().expect("a pair of sockets");
    let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-cli"));
    let status = command.args(["127.0.0.1:1", "get", "k"]).stderr(OwnedFd::from(unread)).status();
    assert_eq!(status.expect("it can be started").code(), Some(3));
}
