//! The rules of the house, each a function from one source to what breaks it.

use crate::source::{Source, block_end, mentions, word_at};

/// A broken rule: line counted from 1, and why it matters.
pub(crate) struct Breach(pub(crate) usize, pub(crate) String);

fn breach(line: usize, why: impl Into<String>) -> Breach {
    Breach(line, why.into())
}

/// The rooms from the ground up. A room imports rooms before its own line, never one on the same line.
const FLOORS: [&[&str]; 8] = [
    &["base"],
    &["config"],
    &["protocol"],
    &["storage", "cluster"],
    &["net"],
    &["actors", "client"],
    &["admin", "options", "telemetry"],
    &["bin"],
];
const CORES_TOP: usize = 3;
const SOCKETS: usize = 4;
const PEOPLE: usize = 6;
const LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// The room a file of `src` belongs to; `lib.rs` is the roof over all and belongs to none.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    (inside != "lib.rs").then(|| first.trim_end_matches(".rs"))
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn floor_of(source: &Source) -> Option<usize> {
    room(&source.path).and_then(floor)
}

pub(crate) fn imports_go_down(source: &Source) -> Vec<Breach> {
    let Some(own) = room(&source.path) else { return vec![] };
    let Some(own_floor) = floor(own) else {
        return vec![breach(1, format!("room `{own}` has no floor: add it to FLOORS in tests/tidy/rules.rs"))];
    };
    let mut breaches = Vec::new();
    let mut check = |line: usize, target: &str| {
        let forbidden = match floor(target) {
            Some(floor) => target != own && floor >= own_floor,
            None => target.chars().next().is_some_and(char::is_lowercase),
        };
        if forbidden {
            breaches.push(breach(line, format!("`{own}` may not import `{target}`: imports go to lower floors")));
        }
    };
    let crate_names: &[&str] = if own == "bin" { &["trellis", "crate"] } else { &["crate"] };
    for (line, path) in source.imports() {
        let mut segments = path.split("::");
        if crate_names.contains(&segments.next().unwrap_or_default()) {
            check(line, segments.next().unwrap_or_default().trim());
        }
    }
    for (i, line) in source.code.iter().enumerate().filter(|(_, line)| word_at(line, "use").is_none()) {
        for name in crate_names {
            for (at, _) in line.match_indices(&format!("{name}::")).filter(|(at, _)| mentions(&line[*at..], name)) {
                let target = line[at + name.len() + 2..].split(|c: char| !c.is_alphanumeric() && c != '_').next();
                check(i + 1, target.unwrap_or_default());
            }
        }
    }
    breaches.extend(leaves_by_super(source));
    breaches
}

/// `super::super` that climbs out of its room evades the rule above.
fn leaves_by_super(source: &Source) -> Vec<Breach> {
    let inside = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inside.split('/').count();
    let climbs = |i: usize, line: &str| {
        let supers = (1..8).take_while(|n| line.contains(&"super::".repeat(*n))).count();
        let nested = usize::from(source.is_test[i] && !source.path.ends_with("/tests.rs"));
        supers > 0 && supers >= depth + nested
    };
    let lines = source.code.iter().enumerate().filter(|(i, line)| climbs(*i, line));
    lines.map(|(i, _)| breach(i + 1, "`super` leaves the room: name the path from `crate`")).collect()
}

/// Names only some rooms may speak: (path, may this file?, reason).
type Privilege = (&'static str, fn(&Source) -> bool, &'static str);

fn only(source: &Source, privileges: &[Privilege]) -> Vec<Breach> {
    let barred = privileges.iter().filter(|(_, may, _)| source.path.starts_with("src/") && !may(source));
    barred
        .flat_map(|(name, _, why)| source.naming(name).map(move |line| breach(line, format!("`{name}`: {why}"))))
        .collect()
}

fn in_room(source: &Source, name: &str) -> bool {
    room(&source.path) == Some(name)
}

/// The load generator measures servers from outside: it is no part of a node, and is never simulated.
fn in_generator(source: &Source) -> bool {
    source.path.starts_with("src/bin/trellis-bench/")
}

pub(crate) fn frameworks_stay_in_their_rooms(source: &Source) -> Vec<Breach> {
    let has_sockets: fn(&Source) -> bool = |s| in_room(s, "net") || in_generator(s);
    only(
        source,
        &[
            ("actix", |s| in_room(s, "actors"), "only src/actors names actix"),
            ("actix_rt", |s| in_room(s, "actors"), "only src/actors names actix"),
            ("actix_web", |s| in_room(s, "admin"), "only src/admin names actix-web"),
            ("postcard", |s| in_room(s, "protocol"), "src/protocol is the one caller of postcard"),
            ("tokio::net", |s| in_room(s, "net"), "sockets come from src/net, which the simulator replaces"),
            ("std::net::TcpStream", has_sockets, "sockets come from src/net, which the simulator replaces"),
            ("std::net::TcpListener", has_sockets, "sockets come from src/net, which the simulator replaces"),
            ("mio", in_generator, "sockets come from src/net, which the simulator replaces"),
            ("std::net::UdpSocket", |s| in_room(s, "net"), "sockets come from src/net, which the simulator replaces"),
            ("tokio", |s| floor_of(s).is_none_or(|f| f >= SOCKETS), "the cores and below do no I/O"),
            ("clap", |s| floor_of(s).is_none_or(|f| f >= PEOPLE), "arguments are read on the top floor"),
        ],
    )
}

pub(crate) fn one_place_reads_clocks(source: &Source) -> Vec<Breach> {
    const CLOCKS: [&str; 3] = ["src/actors/clock.rs", "src/client/clock.rs", "src/bin/trellis-bench/clock.rs"];
    let clock = |s: &Source| CLOCKS.contains(&s.path.as_str());
    let why =
        "one place reads clocks: of a node src/actors/clock.rs, of the client and of the generator their own clock.rs";
    only(
        source,
        &[
            ("std::time::Instant", clock, why),
            ("std::time::SystemTime", clock, why),
            ("SystemTime::now", clock, why),
            ("Instant::now", clock, why),
            ("tokio::time::Instant::now", clock, why),
        ],
    )
}

pub(crate) fn cores_draw_no_randomness(source: &Source) -> Vec<Breach> {
    let why = "cores take randomness as an argument: same seed, same run";
    let above: fn(&Source) -> bool = |s| floor_of(s).is_none_or(|f| f > CORES_TOP);
    only(
        source,
        &[
            ("rand::rng", above, why),
            ("rand::random", above, why),
            ("Uuid::new_v4", above, why),
            ("uuid::Uuid::new_v4", above, why),
            ("RandomState::new", above, why),
            ("foldhash::fast::RandomState", above, why),
        ],
    )
}

pub(crate) fn no_iteration_order_reaches_a_decision(source: &Source) -> Vec<Breach> {
    if !in_room(source, "storage") && !in_room(source, "cluster") {
        return vec![];
    }
    let said = |line: usize| {
        let here = !source.comments[line - 1].trim().is_empty();
        here || line > 1 && !source.comments[line - 2].trim().is_empty()
    };
    let names = ["std::collections::HashMap", "std::collections::HashSet"];
    let lines = names.iter().flat_map(|name| source.naming(name)).filter(|line| !said(*line));
    lines
        .map(|line| {
            breach(line, "std's hash order differs in each run: use an ordered map, or say in a comment why not")
        })
        .collect()
}

pub(crate) fn a_header_says_what_a_file_is_for(source: &Source) -> Vec<Breach> {
    let first = source.raw.first().map_or("", String::as_str);
    if first.starts_with("//! ") && first.len() > 20 {
        vec![]
    } else {
        vec![breach(1, "a file starts with `//!` and its one job")]
    }
}

pub(crate) fn files_and_functions_are_short(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if source.raw.len() > LINES_MAX {
        breaches.push(breach(
            LINES_MAX + 1,
            format!("a file has at most {LINES_MAX} lines, this has {}", source.raw.len()),
        ));
    }
    for (i, line) in source.code.iter().enumerate() {
        // `fn(u8)` is a type and has no body.
        let declares = word_at(line, "fn").is_some_and(|at| line[at + 2..].starts_with(' '));
        let Some(end) = declares.then(|| block_end(&source.code, i)).flatten() else { continue };
        let lines = end + 1 - i;
        if lines > FUNCTION_LINES_MAX {
            breaches
                .push(breach(i + 1, format!("a function has at most {FUNCTION_LINES_MAX} lines, this has {lines}")));
        }
    }
    breaches
}

pub(crate) fn no_bare_unwrap(source: &Source) -> Vec<Breach> {
    let lines = source.code.iter().enumerate().filter(|(i, line)| !source.is_test[*i] && line.contains(".unwrap()"));
    lines.map(|(i, _)| breach(i + 1, "outside tests: `expect(\"why it holds\")` or an error")).collect()
}

pub(crate) fn nothing_is_left_unfinished(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (i, line) in source.code.iter().enumerate() {
        let macros = ["todo", "unimplemented", "dbg"].into_iter();
        let called =
            macros.filter(|name| word_at(line, name).is_some_and(|at| line[at + name.len()..].starts_with('!')));
        breaches.extend(called.map(|name| breach(i + 1, format!("`{name}!` is unfinished work"))));
        if line.contains("#[ignore") {
            breaches.push(breach(i + 1, "a test that is not run is no test"));
        }
        let marks =
            ["FIXME", "TODO", "XXX", "HACK"].into_iter().filter(|mark| word_at(&source.comments[i], mark).is_some());
        breaches.extend(marks.map(|mark| breach(i + 1, format!("{mark}: do it, or write an issue"))));
    }
    breaches
}

pub(crate) fn nobody_sleeps(source: &Source) -> Vec<Breach> {
    let lines = source.code.iter().enumerate().filter(|(_, line)| line.contains("thread::sleep"));
    let why = "a sleep makes a test slow or flaky and stops an arbiter: wait for what you need";
    lines.map(|(i, _)| breach(i + 1, why)).collect()
}

/// Without it the runtime draws which branch it looks at first, from dice that no seed of the simulator throws.
pub(crate) fn selects_are_biased(source: &Source) -> Vec<Breach> {
    let in_node = ["src/actors/", "src/net/"].iter().any(|room| source.path.starts_with(room));
    let next = |i: usize| source.code[i + 1..].iter().map(|line| line.trim()).find(|line| !line.is_empty());
    let lines = source.code.iter().enumerate();
    let lines = lines.filter(|(i, line)| in_node && line.contains("select! {") && next(*i) != Some("biased;"));
    lines.map(|(i, _)| breach(i + 1, "`biased;` first, or one seed of the simulator is several runs")).collect()
}

pub(crate) fn no_machine_is_named(source: &Source) -> Vec<Breach> {
    // Put together here, so that this file does not break its own rule.
    let roots = ["home", "root", "Users", "work"].map(|root| format!("/{root}/"));
    let named = |line: &str| roots.iter().any(|root| line.contains(root.as_str()));
    let lines = source.raw.iter().enumerate().filter(|(_, line)| named(line));
    lines.map(|(i, _)| breach(i + 1, "a path of one machine")).collect()
}

pub(crate) fn names_say_something(source: &Source) -> Vec<Breach> {
    let why = |word: &str| format!("`{word}` is a room everything ends up in: name the job");
    let stem = source.path.trim_end_matches(".rs");
    let mut breaches: Vec<Breach> = stem.split('/').filter_map(vague).map(|word| breach(1, why(word))).collect();
    for (i, line) in source.code.iter().enumerate() {
        for keyword in ["mod", "struct", "enum", "trait", "type", "fn"] {
            let Some(at) = word_at(line, keyword) else { continue };
            let name = line[at + keyword.len()..].trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next();
            breaches.extend(name.and_then(vague).map(|word| breach(i + 1, why(word))));
        }
    }
    breaches
}

/// The vague word in a snake- or camel-case name.
fn vague(name: &str) -> Option<&'static str> {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() {
            words.push('_');
        }
        words.extend(c.to_lowercase());
    }
    let vague = ["util", "utils", "helper", "helpers", "manager", "common", "misc"];
    vague.into_iter().find(|word| words.split('_').any(|part| part == *word))
}
