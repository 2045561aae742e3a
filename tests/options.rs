//! The `trellis` binary refuses what it cannot do: exit code 2, one line on standard error, nothing on standard output.

use std::process::Command;

/// Runs the node with `args` and `env`, expects a refusal, and returns what it said.
fn refusal(args: &[&str], env: &[(&str, &str)]) -> String {
    ended(args, env, 2)
}

/// Runs the node with `args` and `env`, expects it to end with `code`, and returns what it said.
fn ended(args: &[&str], env: &[(&str, &str)], code: i32) -> String {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("trellis"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRELLIS_")) {
        command.env_remove(name);
    }
    let output = command.env_remove("RUST_LOG").args(args).envs(env.iter().copied()).output().expect("the node runs");
    assert_eq!(output.status.code(), Some(code), "{args:?} {env:?}");
    assert!(output.stdout.is_empty(), "standard output belongs to the ready line");
    String::from_utf8(output.stderr).expect("messages are UTF-8")
}

#[test]
fn a_missing_port_is_a_usage_error() {
    assert_eq!(refusal(&[], &[]), "trellis: a port is needed: trellis <port> [seed ...]\n");
}

#[test]
fn a_bad_value_is_named_in_one_line() {
    assert_eq!(refusal(&["5000", "--max-memory", "lots"], &[]).lines().count(), 1);
    assert!(
        refusal(&["5000", "--max-memory", "1"], &[]).starts_with("trellis: max-memory (1 bytes) is less than 1mb ")
    );
    let range = "trellis: max-value-size: 1 is not within 65536 to 536870912\n";
    assert_eq!(refusal(&["5000", "--max-value-size", "1"], &[]), range);
    assert_eq!(refusal(&["5000", "--data-dir", "x"], &[]), "trellis: data-dir is not available in this version\n");
    let message = refusal(&["5000", "--host", "0.0.0.0"], &[]);
    assert!(message.contains("needs advertise"), "{message}");
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    assert!(refusal(&["5000", "--wieght", "2"], &[]).contains("--weight"), "the nearest option is named");
}

#[test]
fn the_environment_stands_between_flags_and_file() {
    let dir = tempfile::tempdir().expect("a directory for the file");
    let path = dir.path().join("trellis.toml");
    std::fs::write(&path, "port = 5000\nthreads = 0\nweight = 2000").expect("the file is written");
    let config = path.to_str().expect("a plain path");
    // Threads are checked before the weight: that the weight is blamed shows whose threads were taken.
    assert!(refusal(&["--config", config], &[]).contains("threads: 0 "));
    assert!(refusal(&[], &[("TRELLIS_CONFIG", config), ("TRELLIS_THREADS", "1")]).contains("weight: 2000 "));
    assert!(refusal(&["--config", config, "--threads", "1"], &[("TRELLIS_THREADS", "0")]).contains("weight: 2000 "));
    let message = refusal(&["--config", config], &[("TRELLIS_THREADS", "1"), ("TRELLIS_WEIGHT", "3000")]);
    assert!(message.contains("weight: 3000 "), "{message}");
}

#[test]
fn a_variable_that_is_no_setting_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let said = ended(&[&port], &[("TRELLIS_MAXMEMORY", "1gb"), ("TRELLIS_ADMIN_PORT", "0")], 1);
    let line = said.lines().find(|line| line.contains("WARN") && line.contains("TRELLIS_MAXMEMORY"));
    assert!(line.is_some_and(|line| !line.contains("TRELLIS_ADMIN_PORT")), "{said}");
}

#[test]
fn seeds_in_the_environment_are_separated_by_commas() {
    let message = refusal(&["5000"], &[("TRELLIS_SEEDS", "a:1,b")]);
    assert_eq!(message, "trellis: seed: `b` is not host:port\n");
}

#[test]
fn a_filter_that_cannot_be_read_is_refused() {
    assert!(refusal(&["5000"], &[("RUST_LOG", "trellis=loud")]).starts_with("trellis: RUST_LOG: "));
}

#[test]
fn an_unreadable_file_is_refused() {
    assert!(refusal(&["5000", "--config", "/does/not/exist"], &[]).contains("/does/not/exist"));
}
