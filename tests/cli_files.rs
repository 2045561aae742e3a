//! What `trellis-cli` reads and writes besides its command line: files of keys, and lines for its prompt. Against one node and against three;
//! what else it does is in `cli.rs`.

#[allow(dead_code, reason = "each test program uses its part")]
mod running;

use std::io::Write;
use std::process::{Output, Stdio};

use running::{Node, program, tell};

/// Runs a command against a server, with something on standard input.
fn cli_with(server: &str, args: &[&str], input: &[u8]) -> Output {
    let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-cli"));
    command.arg(server).args(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
    // It may end without reading; then the pipe is closed.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn flags_of_memcached_clients_pass_through_a_file() {
    let [from, to] = [(); 2].map(|()| Node::start(&["0", "--memcached-port", "0"]));
    let set = "set a 7 0 1\r\nx\r\nset b 4294967295 1000 1\r\ny\r\nset c 0 0 1\r\nz\r\n";
    assert_eq!(tell(&from.memcached, set, 3), "STORED\r\n".repeat(3));
    let exported = cli_with(&from.main, &["export", "-"], b"").stdout;
    assert!(text(&exported).contains("{\"key\":\"a\",\"value\":\"x\",\"flags\":7}\n"), "{}", text(&exported));
    let imported = cli_with(&to.main, &["import", "-"], &exported);
    assert_eq!(imported.status.code(), Some(0), "{imported:?}");
    let values = "VALUE a 7 1\r\nx\r\nVALUE b 4294967295 1\r\ny\r\nVALUE c 0 1\r\nz\r\nEND\r\n";
    assert_eq!(tell(&to.memcached, "get a b c\r\n", 7), values);
    let ttls = text(&cli_with(&to.main, &[], b"ttl a\nttl b\n").stdout);
    let Some(("(integer) -1", ttl)) = ttls.trim_end().split_once('\n') else { panic!("{ttls}") };
    let left: u64 = ttl.trim_start_matches("(integer) ").parse().expect("a number");
    assert!((900..=1000).contains(&left), "{ttls}");
}

#[test]
fn a_line_at_the_prompt_has_a_consistency_of_its_own() {
    let mut nodes = Node::cluster(3);
    // What asks for all three can't be done any more.
    drop(nodes.pop());
    let lines = b"put k v\nput k w --consistency all\nget k\ndelete k --consistency all\ndelete other --json\n";
    let output = cli_with(&nodes[0].main, &[], lines);
    let (out, told) = (text(&output.stdout), text(&output.stderr));
    let [stored, read, deleted] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}\n{told}") };
    assert!(stored == "OK" && read.starts_with('"') && deleted == "{\"deleted\":false}", "{out}");
    let is_refusal = |line: &str| line.contains("NOQUORUM") || line.contains("TIMEOUT");
    assert!(told.lines().count() == 2 && told.lines().all(is_refusal), "{told}");
}

#[test]
fn a_value_from_standard_input_is_not_to_be_had_at_the_prompt() {
    let node = Node::start(&["0"]);
    let output = cli_with(&node.main, &[], b"put k -\nget k\nset k -\nget k\n");
    assert_eq!(text(&output.stdout), "(nil)\nOK\n\"-\"\n");
    assert!(text(&output.stderr).contains("the prompt has standard input for itself"), "{output:?}");
}
