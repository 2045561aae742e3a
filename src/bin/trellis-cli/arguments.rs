//! What `trellis-cli` can be told on its command line. Never talks to a node. Tested below and, as a process, in `tests/cli.rs`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use trellis::base::id::{ClusterName, NodeId, Zone};
use trellis::base::level::Level;
use trellis::config::quantity::parse_duration;

/// Asks a Trellis node. Any node answers for any key.
#[derive(Debug, Parser)]
#[command(name = "trellis-cli", version, max_term_width = 110, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Any node of the cluster
    #[arg(value_name = "HOST:PORT", value_parser = server)]
    pub(crate) server: String,
    /// Replicas that take part: one, quorum or all [default: the node's]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) consistency: Option<Level>,
    /// Name of the cluster
    #[arg(long, global = true, value_name = "NAME", default_value = "trellis")]
    pub(crate) cluster_name: ClusterName,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const AFTER_HELP: &str = "Without a command: a prompt, which takes any Redis command as well.\n\
Durations: 500ms 60s 10m 2h.\n\
Exit codes: 0 done, 1 the node said no or there is no such key, 2 bad usage, 3 no node reached.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store a value
    Put {
        /// Any bytes
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// Any bytes; `-` reads them from standard input
        #[arg(allow_negative_numbers = true)]
        value: OsString,
        /// The key goes after this time
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        ttl: Option<Duration>,
        /// Only if the key is not there; exits 1 when it is
        #[arg(long)]
        if_absent: bool,
    },
    /// Show the value of a key; exits 1 when there is none
    Get {
        /// Any bytes
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// End the value with a newline, as on a terminal
        #[arg(long)]
        newline: bool,
    },
    /// Delete a key; exits 1 when there is none
    Delete {
        /// Any bytes
        #[arg(allow_negative_numbers = true)]
        key: OsString,
    },
    /// List keys, one a line
    Keys {
        /// Glob: `*` `?` `[a-z]` `\`
        #[arg(default_value = "*", allow_negative_numbers = true)]
        pattern: OsString,
    },
    /// Show what happens to keys, as it happens: a line for each event, until the connection is lost
    ///
    /// The node must tell of keys: --notify-keyspace-events KA. It tells of all that happen in the cluster.
    Watch {
        /// Glob: `*` `?` `[a-z]` `\`
        #[arg(default_value = "*", allow_hyphen_values = true)]
        pattern: OsString,
    },
    /// Whether the node is ready; exits 1 when it is not
    Health,
    /// Members, their state and share, keys, version
    Status,
    /// Who holds what: shares of all members, or the replicas of one key
    Ring {
        /// Any bytes
        #[arg(allow_negative_numbers = true)]
        key: Option<OsString>,
    },
    /// Hand all data over and leave the cluster; returns when it has moved, after which the node's process ends
    ///
    /// Refused where nobody else could take the data over. Says for whom it waits, if that takes long. A node that has left and is started again joins
    /// anew.
    Leave {
        /// Id of the member, as `status` shows it [default: the node addressed]
        node: Option<NodeId>,
        /// Take a leave back that is under way: the member stays
        #[arg(long)]
        cancel: bool,
    },
    /// What is still moving between members, or what a change would move
    Plan {
        #[command(subcommand)]
        change: Option<Planned>,
    },
    /// Give a member another share of the ring while it runs; its next start has what its settings say
    Share {
        /// Id of the member, as `status` shows it
        node: NodeId,
        #[command(flatten)]
        share: Share,
    },
    /// Take a dead member out of the ring, for good
    Forget {
        /// Id of the member, as `status` shows it
        node: NodeId,
    },
    /// Store what a file holds: JSON lines, as `export` writes them, or Redis commands, as `redis-cli --pipe` takes them
    ///
    /// The time to live of a key (`ttl_ms`, `PX`) begins anew with its import, whenever the file was written.
    ///
    /// A line of JSON that is wrong, or a key that is refused, is told by its number and the rest goes on; of commands that break the
    /// protocol nothing can be read after the break. Exits 1 if anything was not stored.
    Import {
        /// `-` reads standard input
        file: PathBuf,
        /// What the file holds [default: JSON if its first byte is `{`]
        #[arg(long)]
        format: Option<FileFormat>,
    },
    /// Write all keys with their values and the time they have left to a file
    ///
    /// Flags of memcached clients are in JSON alone: the `SET` that any Redis server takes has none. That an item is stale, or a place kept for a
    /// value that is being made, is in neither.
    Export {
        /// `-` writes standard output
        file: PathBuf,
        /// What to write
        #[arg(long, default_value = "json")]
        format: FileFormat,
        /// Only keys that match this glob
        #[arg(long, default_value = "*", allow_hyphen_values = true)]
        pattern: OsString,
    },
}

/// A change that is planned, not made.
#[derive(Debug, Subcommand)]
pub(crate) enum Planned {
    /// A new member comes
    Join {
        /// Its id, if it will have one of its own
        #[arg(long)]
        id: Option<NodeId>,
        #[command(flatten)]
        share: Share,
    },
    /// A member leaves in order
    Leave {
        /// Id of the member
        node: NodeId,
    },
    /// A dead member is forgotten
    Forget {
        /// Id of the member
        node: NodeId,
    },
    /// A member takes another share
    Share {
        /// Id of the member
        node: NodeId,
        #[command(flatten)]
        share: Share,
    },
}

/// A member's share of the ring.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Share {
    /// Relative to others; 0 holds nothing
    #[arg(long, value_name = "W")]
    pub(crate) weight: Option<u16>,
    /// Copies go to different zones first; `-` is none
    #[arg(long, value_name = "ZONE", allow_hyphen_values = true, value_parser = zone)]
    pub(crate) zone: Option<String>,
}

impl Share {
    /// As the parameters of a page.
    pub(crate) fn query(&self) -> String {
        let weight = self.weight.map(|weight| format!("weight={weight}"));
        let zone = self.zone.as_ref().map(|zone| format!("zone={zone}"));
        weight.into_iter().chain(zone).collect::<Vec<_>>().join("&")
    }
}

/// What a file of keys holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileFormat {
    /// A line of JSON for each key
    Json,
    /// Redis commands
    Resp,
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// clap's, which print themselves; of a command before its node, in words of our own.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    Arguments::try_parse_from(&args).map_err(|error| {
        let swapped = match args.get(1..3) {
            Some([command, node]) if error.use_stderr() => command.to_str().zip(node.to_str()),
            _ => None,
        };
        match swapped.filter(|(command, node)| Command::has_subcommand(command) && server(node).is_ok()) {
            Some((command, node)) => {
                let told = format!("the node comes first: trellis-cli {node} {command}");
                Arguments::command().error(ErrorKind::UnknownArgument, told)
            }
            None => error,
        }
    })
}

fn server(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(1..) => Ok(text.to_owned()),
        _ => Err("expected host:port".into()),
    }
}

/// Nothing where there is to be none.
fn zone(text: &str) -> Result<String, String> {
    match text {
        "-" => Ok(String::new()),
        text => text.parse::<Zone>().map(String::from).map_err(|error| error.to_string()),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(Duration::ZERO) => Err("a key needs some time to live".into()),
        Some(lifetime) if i64::try_from(lifetime.as_millis()).is_ok() => Ok(lifetime),
        _ => Err("a duration is a number and ms, s, m or h".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        super::parse(["trellis-cli"].into_iter().chain(line.split(' ')).map(OsString::from))
    }

    #[test]
    fn the_command_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_stand_before_and_after_what_they_belong_to() {
        for line in [
            "h:1 --consistency quorum put k v --ttl 5s --if-absent",
            "h:1 put --ttl 5s k --if-absent v --consistency QUORUM",
            "--consistency quorum h:1 put --if-absent --ttl 5s -- k v",
        ] {
            let Arguments { consistency, command, .. } = parse(line).unwrap();
            assert_eq!(consistency, Some(Level::Quorum), "{line}");
            let Some(Command::Put { key, value, ttl, if_absent }) = command else { panic!("{line}: {command:?}") };
            assert_eq!((key, value, ttl, if_absent), ("k".into(), "v".into(), Some(Duration::from_secs(5)), true));
        }
    }

    #[test]
    fn values_may_look_like_options_where_that_is_plain() {
        for (line, expected) in [("h:1 put k -5", "-5"), ("h:1 put k -", "-"), ("h:1 put k -- --ttl", "--ttl")] {
            let Some(Command::Put { value, .. }) = parse(line).unwrap().command else { panic!("{line}") };
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn a_command_before_the_node_is_told_the_order() {
        for (line, right) in [("status h:1", "h:1 status"), ("get h:1 k", "h:1 get"), ("put h:1 k v", "h:1 put")] {
            let told = parse(line).unwrap_err();
            assert_eq!(told.exit_code(), 2);
            let first = told.to_string().lines().next().map(str::to_owned).unwrap();
            assert_eq!(first, format!("error: the node comes first: trellis-cli {right}"));
        }
        assert!(!parse("nowhere h:1").unwrap_err().to_string().contains("the node comes first"));
        assert!(parse("h:1 put h:2 v").is_ok());
    }

    #[test]
    fn without_a_command_there_is_a_prompt_and_json_goes_with_everything() {
        assert!(parse("h:1").unwrap().command.is_none());
        for line in ["h:1 get k --json", "h:1 --json status", "--json h:1", "h:1 keys a* --json", "h:1 import - --json"]
        {
            assert!(parse(line).unwrap().json, "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "h put k v",
            "h:0 health",
            ":5000 health",
            "h:1 put k",
            "h:1 put k v --ttl 5",
            "h:1 put k v --ttl 0s",
            "h:1 get k --consistency two",
            "h:1 forget a/b",
            "h:1 import",
            "h:1 export f --format xml",
            "h:1 leave a/b",
            "h:1 plan explode",
            "h:1 plan leave",
            "h:1 plan share n --weight many",
            "h:1 share",
            "h:1 share n --zone a/b",
            "",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
