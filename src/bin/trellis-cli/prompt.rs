//! The prompt: reads lines with history and completion, runs each, shows typed replies. Takes trellis-cli's own commands and any Redis command.
//! The client runs on a thread of its own, so that it keeps up with the cluster while somebody thinks. Tested in `tests/cli.rs`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Editor, Helper};
use tokio::runtime::{Handle, Runtime};

use trellis::protocol::resp::command::{COMMANDS, lookup};
use trellis::protocol::resp::inline;

use super::Failure;
use super::arguments::{self, Arguments, Command};
use super::ask::{Cluster, line};
use super::replies::{json, quoted, show};

/// Lines of history kept.
const HISTORY_LINES_MAX: usize = 1000;
/// Keys offered for one completion, and how long they are looked for.
const KEYS_OFFERED_MAX: usize = 100;
const KEYS_LOOK_MAX: Duration = Duration::from_millis(300);
/// Own commands that read files or are clearer as Redis has them; the rest is taken before Redis's of the same name.
const OWN: [&str; 11] =
    ["put", "delete", "health", "status", "ring", "plan", "leave", "share", "forget", "import", "export"];

/// Reads and runs lines until there are no more.
///
/// # Errors
/// When no node is reached at first, or the terminal fails. What fails later is shown, and the prompt goes on.
pub(crate) fn run(runtime: Runtime, arguments: &Arguments) -> Result<(), Failure> {
    let cluster = runtime.block_on(Cluster::connect(arguments))?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let driver = std::thread::spawn(move || runtime.block_on(async { stopped.await.is_ok() }));
    let result = converse(&Prompt { cluster, handle });
    // Nobody listens any more if the driver has come to grief, which its end tells.
    let _ = stop.send(());
    let _ = driver.join();
    result
}

/// The cluster, asked from outside its runtime.
#[derive(Clone)]
struct Prompt {
    cluster: Cluster,
    handle: Handle,
}

fn converse(prompt: &Prompt) -> Result<(), Failure> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_LINES_MAX)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(broken)?
        .build();
    let mut editor: Editor<Prompt, DefaultHistory> = Editor::with_config(config).map_err(broken)?;
    editor.set_helper(Some(prompt.clone()));
    let history = history_file().filter(|_| std::io::stdin().is_terminal());
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    if std::io::stdin().is_terminal() {
        line("`help` tells what there is; Ctrl-D ends.")?;
    }
    let sign = format!("{}> ", prompt.cluster.server);
    loop {
        let typed = match editor.readline(&sign) {
            Ok(typed) => typed,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(broken(error)),
        };
        if typed.trim().is_empty() {
            continue;
        }
        let _ = editor.add_history_entry(typed.as_str());
        match prompt.take(&typed) {
            Ok(true) => {}
            Ok(false) => break,
            Err(Failure::Shown) => {}
            Err(Failure::Output(error)) => return Err(Failure::Output(error)),
            Err(failure) => writeln!(std::io::stderr(), "(error) {failure}")?,
        }
    }
    if let Some(file) = &history {
        let kept = file.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(ReadlineError::from);
        if let Err(error) = kept.and_then(|()| editor.save_history(file)) {
            writeln!(std::io::stderr(), "trellis-cli: the history could not be kept: {error}")?;
        }
    }
    Ok(())
}

fn broken(error: ReadlineError) -> Failure {
    match error {
        ReadlineError::Io(error) => Failure::Output(error),
        other => Failure::Usage(other.to_string()),
    }
}

/// Where lines are kept: in the state folder of the XDG base directory specification, if the user has one.
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("trellis").join("history"))
}

impl Prompt {
    /// Runs one line. False if it is the last.
    fn take(&self, typed: &str) -> Result<bool, Failure> {
        let args = inline::split(typed.as_bytes()).map_err(|_| Failure::Usage("unbalanced quotes".into()))?.into_vec();
        let Some(name) = args.first().map(|name| String::from_utf8_lossy(name).to_lowercase()) else { return Ok(true) };
        match name.as_str() {
            "exit" | "quit" => return Ok(false),
            "help" => line(&help(args.get(1)))?,
            own if OWN.contains(&own) => self.own(args)?,
            _ => self.redis(args)?,
        }
        Ok(true)
    }

    /// One of trellis-cli's own commands, parsed as its command line is.
    fn own(&self, args: Vec<Bytes>) -> Result<(), Failure> {
        let before = [OsString::from("trellis-cli"), self.cluster.server.clone().into()];
        let words = before.into_iter().chain(args.into_iter().map(|arg| OsString::from_vec(arg.to_vec())));
        let parsed = match arguments::parse(words) {
            Ok(parsed) => parsed,
            Err(error) => return line(error.to_string().trim_end()),
        };
        let mut cluster = self.cluster.clone();
        cluster.json |= parsed.json;
        if let Some(level) = parsed.consistency {
            cluster.level = Some(level);
        }
        let Some(command) = parsed.command else { return Ok(()) };
        if matches!(&command, Command::Put { value, .. } if value == "-") {
            let told = "the prompt has standard input for itself; `set KEY -` stores a `-`";
            return Err(Failure::Usage(told.into()));
        }
        self.handle.block_on(cluster.carry_out(command, None))
    }

    /// A Redis command, by its arguments.
    fn redis(&self, args: Vec<Bytes>) -> Result<(), Failure> {
        let (client, level) = (&self.cluster.client, self.cluster.level);
        match self.handle.block_on(client.pipeline(vec![args], level)).pop() {
            Some(Ok(reply)) if self.cluster.json => line(&json(&reply).to_string()),
            Some(Ok(reply)) => line(&show(&reply)),
            Some(Err(error)) => match self.cluster.failure(&error) {
                Failure::Told(text) if self.cluster.json => line(&serde_json::json!({ "error": text }).to_string()),
                Failure::Told(text) => line(&format!("(error) {text}")),
                failure => Err(failure),
            },
            None => Err(Failure::Told("no answer".into())),
        }
    }

    /// Some keys that begin with this.
    fn keys(&self, beginning: &str) -> Vec<String> {
        let escaped: String =
            beginning.chars().flat_map(|c| "*?[]\\".contains(c).then_some('\\').into_iter().chain([c])).collect();
        let scan = self.cluster.client.scan(format!("{escaped}*"));
        let found = async move {
            let mut keys = BTreeSet::new();
            let mut scan = std::pin::pin!(scan);
            while let Ok(Some(key)) = scan.try_next().await {
                keys.insert(key);
                if keys.len() >= KEYS_OFFERED_MAX {
                    break;
                }
            }
            keys
        };
        let keys = self.handle.block_on(async { tokio::time::timeout(KEYS_LOOK_MAX, found).await });
        keys.unwrap_or_default().iter().map(as_word).collect()
    }
}

/// A key as it is typed: as it is, or in quotes.
fn as_word(key: &Bytes) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\".contains(byte);
    let text = std::str::from_utf8(key).ok().filter(|key| !key.is_empty() && key.bytes().all(|byte| is_plain(&byte)));
    text.map_or_else(|| quoted(key), str::to_owned)
}

fn help(about: Option<&Bytes>) -> String {
    let Some(name) = about else {
        let own = OWN.join(", ");
        return format!(
            "Own commands: {own}, help [COMMAND], quit.\n\
             Everything else is taken as a Redis command: GET, SET, KEYS, SCAN, INFO ...; `help COMMAND` tells what one does.\n\
             \"double\" and 'single' quotes are those of redis-cli. Tab completes commands and keys."
        );
    };
    let text = String::from_utf8_lossy(name).to_lowercase();
    if OWN.contains(&text.as_str()) {
        use clap::CommandFactory;
        let mut command = Arguments::command();
        return command
            .find_subcommand_mut(&text)
            .map_or(text, |found| found.render_help().to_string().trim_end().to_owned());
    }
    match lookup(name) {
        Some(command) => {
            let count = command.arity.unsigned_abs() - 1;
            let least = if command.arity < 0 { "at least " } else { "" };
            format!("{}: {} ({least}{count} arguments)", command.name.to_uppercase(), command.summary)
        }
        None => format!("there is no command `{text}`"),
    }
}

impl Helper for Prompt {}
impl Highlighter for Prompt {}
impl Validator for Prompt {}
impl Hinter for Prompt {
    type Hint = String;
}

impl Completer for Prompt {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &rustyline::Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let start = line[..at].rfind(' ').map_or(0, |space| space + 1);
        let word = &line[start..at];
        let before = line[..start].trim();
        let mut found = match word {
            _ if before.is_empty() || before.eq_ignore_ascii_case("help") => commands(word),
            _ if word.starts_with(['"', '\'']) => Vec::new(),
            _ => self.keys(word),
        };
        // What can't go on otherwise is a whole word.
        if let [only] = &mut found[..] {
            only.push(' ');
        }
        Ok((start, found))
    }
}

/// The commands that begin with this, in the case it has.
fn commands(beginning: &str) -> Vec<String> {
    let lower = beginning.to_lowercase();
    let is_upper = beginning.chars().any(char::is_uppercase);
    let own = OWN.into_iter().chain(["help", "quit"]);
    let names: BTreeSet<&str> = own.chain(COMMANDS.iter().map(|command| command.name)).collect();
    let fitting = names.into_iter().filter(|name| name.starts_with(&lower));
    fitting.map(|name| if is_upper { name.to_uppercase() } else { name.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use clap::Subcommand;

    use super::*;

    #[test]
    fn commands_are_completed_in_the_case_they_are_typed_in() {
        assert_eq!(commands("stat"), ["status"]);
        assert_eq!(commands("HEAL"), ["HEALTH"]);
        assert!(commands("inc").contains(&"incrbyfloat".to_owned()));
        assert!(commands("").len() > 50 && commands("nosuch").is_empty());
    }

    #[test]
    fn keys_are_offered_as_they_have_to_be_typed() {
        for key in ["user:1", "a b", "", "\"", "\u{1F600}", "x\n"] {
            let key = Bytes::from(key);
            assert_eq!(&inline::split(as_word(&key).as_bytes()).unwrap()[..], &[key][..]);
        }
        assert_eq!(as_word(&Bytes::from_static(b"user:1")), "user:1");
    }

    #[test]
    fn every_own_command_is_one() {
        assert!(OWN.iter().all(|name| Command::has_subcommand(name)));
    }
}
