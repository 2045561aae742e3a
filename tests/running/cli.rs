//! `trellis-cli` as tests run it, and what they expect of its output.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Output, Stdio};

use super::program;

/// Runs a command against a server, with something on standard input.
pub(crate) fn cli_with(server: &str, args: &[&[u8]], input: &[u8]) -> Output {
    let mut command = program(assert_cmd::cargo::cargo_bin!("trellis-cli"));
    command.arg(server).args(args.iter().map(|arg| OsStr::from_bytes(arg)));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
    // It may end without reading; then the pipe is closed.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

/// The same without, from a line.
pub(crate) fn cli(server: &str, line: &str) -> Output {
    let args: Vec<&[u8]> = line.split(' ').filter(|arg| !arg.is_empty()).map(str::as_bytes).collect();
    cli_with(server, &args, b"")
}

/// Expects exit code, standard output and standard error.
#[track_caller]
pub(crate) fn expect(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let got = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(got, (Some(code), stdout.to_owned(), stderr.to_owned()));
}

/// Expects a good table or page, and returns it.
#[track_caller]
pub(crate) fn shown(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.as_ref()), (Some(0), ""));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The cells of the row that begins with `first`.
pub(crate) fn row<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|row| row.first() == Some(&first)).unwrap_or_else(|| panic!("no row {first}:\n{table}"))
}
