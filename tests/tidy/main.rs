//! Reads the sources and holds them to the rules of the house (`docs/ARCHITECTURE.md`, `CONTRIBUTING.md`). One test a rule, which names
//! file, line and reason, and one planted breach a rule, so that a rule that stops seeing is seen.

mod rules;
mod source;

use rules::Breach;
use source::Source;

type Rule = fn(&Source) -> Vec<Breach>;

/// Fails with every breach of `rule` in `folders`.
fn hold(rule: Rule, folders: &[&str]) {
    let sources = Source::all(folders);
    assert!(sources.len() > 1, "the sources were not found");
    let mut lines = Vec::new();
    for source in &sources {
        lines.extend(rule(source).into_iter().map(|Breach(line, why)| format!("{}:{line}: {why}", source.path)));
    }
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

const CODE: &[&str] = &["src"];
const ALL: &[&str] = &["src", "tests", "benches", "examples"];

#[test]
fn imports_go_to_lower_floors_only() {
    hold(rules::imports_go_down, CODE);
}

#[test]
fn frameworks_stay_in_their_rooms() {
    hold(rules::frameworks_stay_in_their_rooms, CODE);
}

#[test]
fn one_place_reads_clocks() {
    hold(rules::one_place_reads_clocks, CODE);
}

#[test]
fn cores_draw_no_randomness() {
    hold(rules::cores_draw_no_randomness, CODE);
}

#[test]
fn no_iteration_order_reaches_a_decision() {
    hold(rules::no_iteration_order_reaches_a_decision, CODE);
}

#[test]
fn every_file_says_what_it_is_for() {
    hold(rules::a_header_says_what_a_file_is_for, ALL);
}

#[test]
fn files_and_functions_are_short() {
    hold(rules::files_and_functions_are_short, ALL);
}

#[test]
fn nothing_unwraps_outside_tests() {
    hold(rules::no_bare_unwrap, CODE);
}

#[test]
fn nothing_is_left_unfinished() {
    hold(rules::nothing_is_left_unfinished, ALL);
}

#[test]
fn selects_are_biased() {
    hold(rules::selects_are_biased, CODE);
}

#[test]
fn nobody_sleeps() {
    hold(rules::nobody_sleeps, ALL);
}

#[test]
fn no_machine_is_named() {
    hold(rules::no_machine_is_named, ALL);
}

#[test]
fn names_say_something() {
    hold(rules::names_say_something, ALL);
}

/// A counter that nothing counts says zero where it should say how much was lost.
#[test]
fn every_counter_is_counted() {
    let sources = Source::all(CODE);
    let (own, others): (Vec<&Source>, Vec<&Source>) = sources.iter().partition(|s| s.path == "src/base/counters.rs");
    let names =
        own.iter().flat_map(|s| &s.raw).filter_map(|line| line.trim().split_once(" => \"")).map(|(name, _)| name);
    let names: Vec<&str> = names.filter(|name| name.chars().all(char::is_alphanumeric)).collect();
    assert!(names.len() > 40, "the counters were not found");
    let counted = |name: &str| others.iter().any(|source| source.naming(&format!("Counter::{name}")).next().is_some());
    let idle: Vec<&str> = names.into_iter().filter(|name| !counted(name)).collect();
    assert!(idle.is_empty(), "never counted: {idle:?}");
}

/// The lines on which `rule` finds something in `text`, were it the file `path`.
fn caught(rule: Rule, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).into_iter().map(|Breach(line, _)| line).collect()
}

#[test]
fn planted_imports_are_caught() {
    let rule: Rule = rules::imports_go_down;
    for (path, text, lines) in [
        ("src/storage/store.rs", "use crate::base::id::NodeId;\nuse crate::protocol::x;", vec![]),
        ("src/storage/store.rs", "\nuse crate::cluster::ring;", vec![2]),
        ("src/cluster/ring.rs", "use crate::{\n    base::id,\n    net::udp,\n};", vec![1]),
        ("src/base/id.rs", "fn f() { crate::actors::node::run() }", vec![1]),
        ("src/base/id.rs", "use super::entry;", vec![]),
        ("src/base/id.rs", "use super::super::net;", vec![1]),
        ("src/base/mod.rs", "use super::net;", vec![1]),
        ("src/config.rs", "use crate::base::level::Level;", vec![]),
        ("src/base/level.rs", "use crate::config::Config;", vec![1]),
        ("src/options.rs", "use crate::telemetry;", vec![1]),
        ("src/bin/trellis.rs", "use trellis::{options, telemetry};", vec![]),
        ("src/bin/trellis-cli/main.rs", "use trellis::attic::x;", vec![1]),
        ("src/attic/x.rs", "", vec![1]),
        ("src/net/udp.rs", "// crate::actors is above\nlet x = \"crate::actors\";", vec![]),
    ] {
        assert_eq!(caught(rule, path, text), lines, "{path}: {text}");
    }
}

#[test]
fn planted_frameworks_are_caught() {
    let rule: Rule = rules::frameworks_stay_in_their_rooms;
    for (path, text, lines) in [
        ("src/actors/node.rs", "use actix::prelude::*;", vec![]),
        ("src/net/udp.rs", "use actix::prelude::*;", vec![1]),
        ("src/admin/routes.rs", "use actix_web::web;", vec![]),
        ("src/actors/node.rs", "use actix_web::web;", vec![1]),
        ("src/cluster/gossip.rs", "let x = postcard::to_slice();", vec![1]),
        ("src/cluster/gossip.rs", "use foca::PostcardCodec;", vec![]),
        ("src/actors/node.rs", "use tokio::{time, net::{TcpStream}};", vec![1]),
        ("src/net/udp.rs", "use tokio::net::UdpSocket;", vec![]),
        ("src/actors/node.rs", "use std::net::TcpStream;\nuse mio::net;", vec![1, 2]),
        ("src/bin/trellis-bench/x.rs", "use std::net::TcpStream;\nuse mio::net;", vec![]),
        ("src/storage/store.rs", "use tokio::sync::mpsc;", vec![1]),
        ("src/storage/store.rs", "#[cfg(test)]\nmod tests {\n    use tokio::sync::mpsc;\n}", vec![]),
        ("src/config.rs", "use clap::Parser;", vec![1]),
        ("src/options.rs", "use clap::Parser;", vec![]),
    ] {
        assert_eq!(caught(rule, path, text), lines, "{path}: {text}");
    }
}

#[test]
fn planted_clocks_dice_and_hash_orders_are_caught() {
    let clocks: Rule = rules::one_place_reads_clocks;
    assert_eq!(caught(clocks, "src/actors/clock.rs", "use std::time::SystemTime;"), []);
    assert_eq!(caught(clocks, "src/bin/trellis-bench/clock.rs", "let x = std::time::Instant::now();"), []);
    assert_eq!(caught(clocks, "src/bin/trellis-bench/run.rs", "let x = std::time::Instant::now();"), [1]);
    assert_eq!(caught(clocks, "src/net/udp.rs", "use std::time::{Duration, Instant};"), [1]);
    assert_eq!(caught(clocks, "src/net/udp.rs", "use std::time::Duration;\nlet x = std::time::Instant::now();"), [2]);
    assert_eq!(caught(clocks, "src/actors/node.rs", "use tokio::time::Instant;"), []);
    assert_eq!(
        caught(clocks, "src/actors/node.rs", "use tokio::time::Instant;\nmap.or_insert_with(Instant::now);"),
        [2]
    );
    assert_eq!(caught(clocks, "src/actors/node.rs", "let now = tokio::time::Instant::now();"), [1]);
    assert_eq!(caught(clocks, "tests/load.rs", "use std::time::Instant;"), []);

    let dice: Rule = rules::cores_draw_no_randomness;
    assert_eq!(caught(dice, "src/cluster/ring.rs", "let x = rand::rng();"), [1]);
    assert_eq!(caught(dice, "src/actors/node.rs", "let x = rand::rng();"), []);

    let order: Rule = rules::no_iteration_order_reaches_a_decision;
    assert_eq!(caught(order, "src/cluster/ring.rs", "use std::collections::{BTreeMap, HashMap};"), [1]);
    assert_eq!(caught(order, "src/cluster/ring.rs", "use std::collections::HashMap; // looked up, never walked"), []);
    assert_eq!(caught(order, "src/net/udp.rs", "use std::collections::HashMap;"), []);
}

#[test]
fn planted_sizes_and_headers_are_caught() {
    let header: Rule = rules::a_header_says_what_a_file_is_for;
    assert_eq!(caught(header, "src/x.rs", "use std::fmt;"), [1]);
    assert_eq!(caught(header, "src/x.rs", "//! Counts what is refused."), []);

    let sizes: Rule = rules::files_and_functions_are_short;
    assert_eq!(caught(sizes, "src/x.rs", &"\n".repeat(500)), []);
    assert_eq!(caught(sizes, "src/x.rs", &"\n".repeat(501)), [501]);
    let function = |lines: usize| format!("\nfn f(\n) -> [u8; 3]\n{{{}}}\nfn g();\n", "\n".repeat(lines - 3));
    assert_eq!(caught(sizes, "src/x.rs", &function(70)), []);
    assert_eq!(caught(sizes, "src/x.rs", &function(71)), [2]);
}

#[test]
fn planted_leftovers_are_caught() {
    let unwraps: Rule = rules::no_bare_unwrap;
    assert_eq!(caught(unwraps, "src/x.rs", "a.unwrap();\nb.unwrap_or(1);\n// c.unwrap()\n\"d.unwrap()\""), [1]);
    assert_eq!(
        caught(unwraps, "src/x.rs", "#[cfg(test)]\nmod tests {\n    a.unwrap();\n}\nfn f() { b.unwrap(); }"),
        [5]
    );
    assert_eq!(caught(unwraps, "src/x.rs", "#[cfg(test)]\nmod tests;\nfn f() { b.unwrap(); }"), [3]);

    let leftovers: Rule = rules::nothing_is_left_unfinished;
    let planted = "todo!();\nunimplemented!(\"x\");\ndbg!(x);\n#[ignore]\n#[ignore = \"slow\"]\n// FIXME: x\n\"todo!()\"; my_todo!();";
    assert_eq!(caught(leftovers, "tests/x.rs", planted), [1, 2, 3, 4, 5, 6]);

    let sleeps: Rule = rules::nobody_sleeps;
    assert_eq!(caught(sleeps, "tests/x.rs", "std::thread::sleep(d);\ntokio::time::sleep(d).await;"), [1]);

    let selects: Rule = rules::selects_are_biased;
    let planted = "select! {\n    a = b => c,\n}\nselect! {\n    // why\n    biased;\n    a = b => c,\n}";
    assert_eq!(caught(selects, "src/actors/x.rs", planted), [1]);
    assert_eq!(caught(selects, "src/client/x.rs", planted), [0; 0]);
}

#[test]
fn planted_names_are_caught() {
    let machines: Rule = rules::no_machine_is_named;
    assert_eq!(caught(machines, "src/x.rs", concat!("// see /ho", "me/me/notes\nlet p = \"/etc\";")), [1]);

    let names: Rule = rules::names_say_something;
    assert_eq!(caught(names, "src/net/utils.rs", ""), [1]);
    assert_eq!(caught(names, "src/net/x.rs", "struct LinkManager;\nfn test_helper() {}\nfn commonly() {}"), [1, 2]);
}

#[test]
fn strings_comments_and_lifetimes_are_told_apart() {
    let text = "let a = \"x // \\\" y\"; // dbg\nlet b: &'a str = r#\"q\"z\"#; let c = '\"'; /* e\nf */ g('\\'', b\"h\", br\"i\");";
    let source = Source::new("src/x.rs", text);
    let squeezed: Vec<String> = source.code.iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(squeezed, ["leta=;", "letb:&'astr=;letc=;", "g(,b,b);"]);
    assert!(
        source.comments[0].contains("dbg")
            && source.comments[1].contains("/* e")
            && source.comments[2].starts_with("f */")
    );
}
