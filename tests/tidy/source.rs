//! One source file as the rules see it: code without comments and strings, comments alone, which lines are tests, and what it imports. A
//! scanner, not a parser: it knows just enough Rust to never take a string for code.

use std::path::Path;

/// A file, cut into the views the rules need. All views have the lines of the file.
pub(crate) struct Source {
    /// Relative to the package, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) raw: Vec<String>,
    /// Comments and the contents of strings blanked.
    pub(crate) code: Vec<String>,
    /// Only comments.
    pub(crate) comments: Vec<String>,
    /// Whether the line belongs to a `#[cfg(test)]` item, or the file to the tests.
    pub(crate) is_test: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = views(text);
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (raw, code, comments) = (lines(text), lines(&code), lines(&comments));
        let whole = !path.starts_with("src/") || path.ends_with("/tests.rs") || path.contains("/tests/");
        let is_test = if whole { vec![true; raw.len()] } else { test_lines(&code) };
        Self { path: path.to_owned(), raw, code, comments, is_test }
    }

    /// Every `.rs` file under the given folders of the package.
    pub(crate) fn all(folders: &[&str]) -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        for folder in folders.iter().map(|folder| root.join(folder)).filter(|folder| folder.exists()) {
            walk(&folder, &mut paths);
        }
        paths.sort();
        let relative =
            |path: &Path| path.strip_prefix(root).expect("under the root").to_string_lossy().replace('\\', "/");
        paths.iter().map(|p| Self::new(&relative(p), &std::fs::read_to_string(p).expect("sources are UTF-8"))).collect()
    }

    /// Lines of code (not of tests) that name `path`, counted from 1.
    pub(crate) fn naming<'a>(&'a self, path: &'a str) -> impl Iterator<Item = usize> + 'a {
        let lines = self.code.iter().enumerate().filter(|(i, _)| !self.is_test[*i]);
        let direct = lines.filter(|(_, line)| mentions(line, path)).map(|(i, _)| i + 1);
        let prefix = format!("{path}::");
        let imported = self.imports().into_iter().filter(move |(i, full)| {
            !self.is_test[*i - 1] && (full == path || full.starts_with(&prefix)) && !mentions(&self.code[*i - 1], path)
        });
        direct.chain(imported.map(|(i, _)| i))
    }

    /// Every path of every `use`, groups expanded, with the line the statement starts on, counted from 1.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (i, line) in self.code.iter().enumerate() {
            let Some(start) = word_at(line, "use").filter(|at| !line[..*at].contains(['{', '=', '<'])) else {
                continue;
            };
            let mut statement = line[start + 3..].to_owned();
            for next in &self.code[i + 1..] {
                if statement.contains(';') {
                    break;
                }
                statement.push(' ');
                statement.push_str(next);
            }
            let tree: String =
                statement.split(';').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            expand("", &tree, &mut |path| found.push((i + 1, path)));
        }
        found
    }
}

fn walk(folder: &Path, paths: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// `a::{b, c::{d as e}}` calls back with `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, found: &mut impl FnMut(String)) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        found(format!("{prefix}{path}"));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    expand(&prefix, &inner[start..at], found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `line`, not as a part of a longer word.
pub(crate) fn word_at(line: &str, word: &str) -> Option<usize> {
    line.match_indices(word).map(|(at, _)| at).find(|at| {
        !line[..*at].chars().next_back().is_some_and(is_word)
            && !line[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

/// Whether `line` names the path, from its first segment on: `x::actix` does not name `actix`.
pub(crate) fn mentions(line: &str, path: &str) -> bool {
    let mut rest = line;
    while let Some(at) = word_at(rest, path) {
        if !rest[..at].ends_with("::") && !rest[..at].ends_with('.') {
            return true;
        }
        rest = &rest[at + path.len()..];
    }
    false
}

/// The text with comments and string contents blanked, and the text with all but comments blanked.
fn views(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut at = 0;
    while at < chars.len() {
        let (end, kind) = token(&chars, at);
        for c in &chars[at..end] {
            let blank = if *c == '\n' { '\n' } else { ' ' };
            code.push(if kind == Kind::Code { *c } else { blank });
            comments.push(if kind == Kind::Comment { *c } else { blank });
        }
        at = end;
    }
    (code, comments)
}

#[derive(PartialEq, Clone, Copy)]
enum Kind {
    Code,
    Comment,
    Text,
}

/// The end of what starts at `at`, and what it is.
fn token(chars: &[char], at: usize) -> (usize, Kind) {
    let starts = |from: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(from + i) == Some(&c));
    let until = |from: usize, what: &str| {
        (from..chars.len()).find(|i| starts(*i, what)).map_or(chars.len(), |i| i + what.chars().count())
    };
    let fresh = at == 0 || !is_word(chars[at - 1]) || (chars[at - 1] == 'b' && (at == 1 || !is_word(chars[at - 2])));
    match chars[at] {
        '/' if starts(at, "//") => {
            ((at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()), Kind::Comment)
        }
        '/' if starts(at, "/*") => (until(at + 2, "*/"), Kind::Comment),
        'r' if fresh && (starts(at, "r\"") || starts(at, "r#")) => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if chars.get(at + 1 + hashes) != Some(&'"') {
                return (at + 1, Kind::Code);
            }
            (until(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes))), Kind::Text)
        }
        '"' => (quoted(chars, at, '"'), Kind::Text),
        '\'' if starts(at + 1, "\\") => (quoted(chars, at, '\''), Kind::Text),
        '\'' if chars.get(at + 2) == Some(&'\'') => (at + 3, Kind::Text),
        _ => (at + 1, Kind::Code),
    }
}

fn quoted(chars: &[char], open: usize, quote: char) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// Lines inside the item that follows a `#[cfg(test)]`.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut marks = vec![false; code.len()];
    for start in (0..code.len()).filter(|i| code[*i].trim_start().starts_with("#[cfg(test)]")) {
        let end = block_end(code, start).unwrap_or(start + 1);
        marks[start..=end.min(code.len() - 1)].fill(true);
    }
    marks
}

/// The line on which the first block that opens at or after `start` closes; `None` when a `;` comes first.
pub(crate) fn block_end(code: &[String], start: usize) -> Option<usize> {
    let (mut depth, mut brackets) = (0usize, 0i32);
    for (i, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                ';' if depth == 0 && brackets == 0 => return None,
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Some(i);
                    }
                }
                _ => {}
            }
        }
    }
    None
}
