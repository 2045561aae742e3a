//! Any command by its arguments, as Redis clients send it. One on a single key goes to the key's coordinator under a request id, like every
//! other call; the rest is put to any node. What changes the connection it is sent on is refused, for many callers share one. Tested below.

use bytes::Bytes;

use crate::base::level::Level;
use crate::base::limits::FRAME_BYTES_MAX;
use crate::base::op::Op;
use crate::protocol::native::{Answer, Ask, Key};
use crate::protocol::request::Request;
use crate::protocol::resp::Args;
use crate::protocol::resp::command::{Context, Parsed, lookup, parse};
use crate::protocol::resp::session::SessionCommand;
use crate::protocol::resp::subscriptions::PubSubCommand;
use crate::protocol::resp::value::Value;

use super::clock;
use super::error::{Applied, Error, ErrorKind};
use super::reply::{self, Reply};
use super::requests::Asked;
use super::{Client, Result, check};

/// Commands of Redis that take over their connection, and are none of ours.
const OF_CONNECTIONS: [&str; 2] = ["monitor", "sync"];
/// What a frame takes besides the arguments of a command, and besides the bytes of each of them, at the most.
const HEAD_BYTES: usize = 64;
const ARG_BYTES_BESIDES: usize = 8;

/// What becomes of a command.
#[derive(Debug)]
enum Way {
    /// To the coordinator of its key.
    Direct(Op),
    /// To any node. It may be asked again after a connection broke if it `repeats`.
    Any { repeats: bool },
    /// Nowhere.
    Refused(Error),
}

fn way(args: &[Bytes], value_bytes_max: usize) -> Way {
    let Some(name) = args.first() else { return Way::Refused(refused("ERR an empty command")) };
    let is_of_connection = OF_CONNECTIONS.iter().any(|of| name.eq_ignore_ascii_case(of.as_bytes()));
    // A newer node may know what this client does not.
    let Some(command) = lookup(name).filter(|_| !is_of_connection) else {
        return if is_of_connection { Way::Refused(of_connection(name)) } else { Way::Any { repeats: false } };
    };
    let mut parsed: Args = args.iter().cloned().collect();
    match parse(&mut parsed, &Context { now: clock::unix_ms(), value_bytes_max }) {
        // Each by itself: what is wrong with one command is no fault of those that travel with it.
        Ok((_, Parsed::Request(Request::One(op)))) => match check(&op, value_bytes_max) {
            Ok(()) => Way::Direct(op),
            Err(error) => Way::Refused(error),
        },
        Ok((command, Parsed::Request(_))) => Way::Any { repeats: !command.writes() },
        Ok((_, Parsed::Transaction(_))) => Way::Refused(of_connection(name)),
        Ok((_, Parsed::Session(asked))) if changes_connection(&asked) => Way::Refused(of_connection(name)),
        Ok((_, Parsed::Session(_))) => Way::Any { repeats: !command.writes() },
        Ok((_, Parsed::PubSub(asked))) if asked.is_heard() => Way::Refused(of_connection(name)),
        // A message that is published again is heard again.
        Ok((_, Parsed::PubSub(asked))) => Way::Any { repeats: !matches!(asked, PubSubCommand::Publish { .. }) },
        Err(error) => Way::Refused(Error::of_line(&error.text)),
    }
}

fn changes_connection(asked: &SessionCommand) -> bool {
    matches!(
        asked,
        SessionCommand::Hello(_)
            | SessionCommand::Auth { .. }
            | SessionCommand::Quit
            | SessionCommand::Reset
            | SessionCommand::ClientSetName(_)
            | SessionCommand::ClientLibName(_)
            | SessionCommand::ClientLibVersion(_)
            | SessionCommand::ClientReply(_)
            | SessionCommand::Consistency(Some(_))
    )
}

fn refused(line: impl Into<String>) -> Error {
    Error::before(ErrorKind::Command, line)
}

fn of_connection(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name).to_uppercase();
    refused(format!("ERR {name} is about one connection, and this client shares its connections"))
}

impl Client {
    /// Runs any command by its arguments, the way Redis clients send it. Commands about one connection (transactions, `SELECT`-like state,
    /// subscriptions) are refused.
    ///
    /// # Errors
    /// [`Error`]; the error replies of nodes are errors too.
    pub async fn command<A: AsRef<[u8]>>(&self, args: impl IntoIterator<Item = A>) -> Result<Value> {
        let args = args.into_iter().map(|arg| Bytes::copy_from_slice(arg.as_ref())).collect();
        let replies = self.pipeline(vec![args], None).await;
        replies.into_iter().next().unwrap_or_else(|| Err(Error::strange("nothing")))
    }

    /// Runs commands, one result each. Those on single keys travel together, each node's share at once, and keep their order on each key;
    /// the others wait for what precedes them.
    pub async fn pipeline(&self, commands: Vec<Vec<Bytes>>, level: Option<Level>) -> Vec<Result<Value>> {
        let asked = Asked { level, timeout: None };
        let value_bytes_max = self.inner.table().value_bytes_max;
        let mut results: Vec<Result<Value>> = Vec::with_capacity(commands.len());
        let mut run = Vec::new();
        let mut places = Vec::new();
        for args in commands {
            match way(&args, value_bytes_max) {
                Way::Direct(op) => {
                    run.push(op);
                    places.push(results.len());
                    results.push(Ok(Value::Null));
                }
                Way::Refused(error) => results.push(Err(error)),
                Way::Any { repeats } => {
                    self.run(std::mem::take(&mut run), &places, asked, &mut results).await;
                    places.clear();
                    results.push(self.put_to_any(&args, repeats, asked).await);
                }
            }
        }
        self.run(run, &places, asked, &mut results).await;
        results
    }

    /// Executes operations and puts their results where they belong.
    async fn run(&self, ops: Vec<Op>, places: &[usize], asked: Asked, results: &mut [Result<Value>]) {
        if ops.is_empty() {
            return;
        }
        let value = |reply: Result<Reply>| match reply? {
            Reply::Value(value) => Ok(value),
            Reply::Item(..) => Err(Error::strange("an item")),
        };
        match self.execute(ops, asked).await {
            Ok(replies) => {
                for (place, reply) in places.iter().zip(replies) {
                    results[*place] = value(reply);
                }
            }
            Err(error) => places.iter().for_each(|place| results[*place] = Err(error.clone())),
        }
    }

    pub(super) async fn put_to_any(&self, args: &[Bytes], repeats: bool, asked: Asked) -> Result<Value> {
        let deadline = self.deadline(asked);
        let bytes = args.iter().map(Bytes::len).sum();
        if bytes + args.len() * ARG_BYTES_BESIDES + HEAD_BYTES > FRAME_BYTES_MAX {
            // A node would hang up, on everybody who shares the connection.
            return Err(refused(format!("ERR a command may have at most {FRAME_BYTES_MAX} bytes, nothing was done")));
        }
        let _room = self.inner.room(1, bytes, deadline).await?;
        let level = asked.level.or(self.inner.options.consistency);
        let ask = Ask::Command { level, args: args.iter().map(|arg| Key(arg)).collect() };
        let read = |answer: Answer<'_>| match answer {
            Answer::Reply(bytes) => Some(reply::value(&Bytes::copy_from_slice(bytes))),
            _ => None,
        };
        let told = self.inner.ask(&ask, (None, repeats), deadline, read).await;
        told.map_err(|error| match error.applied() {
            // A question has no effect that could be in doubt.
            Applied::Unknown if repeats => Error::before(error.kind(), error.to_string()),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::op::Act;

    fn way_of(line: &str) -> Way {
        let args: Vec<Bytes> = line.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
        way(&args, 1024)
    }

    #[test]
    fn commands_on_one_key_go_to_its_coordinator() {
        for line in ["GET k", "set k v PX 100 NX", "INCRBY k 5", "BITCOUNT k", "del k", "expire k 10"] {
            let way = way_of(line);
            let is_direct = matches!(&way, Way::Direct(op) if op.key == "k");
            let is_any = line.starts_with("del") && matches!(way, Way::Any { repeats: false });
            assert!(is_direct || is_any, "{line}: {way:?}");
        }
        assert!(matches!(way_of("INCR k"), Way::Direct(Op { act: Act::Incr { by: 1 }, .. })));
    }

    #[test]
    fn others_go_to_any_node_and_again_only_if_they_read() {
        for line in ["MGET a b", "DBSIZE", "SCAN 0", "PING", "INFO", "CLUSTER INFO", "CONFIG GET *"] {
            assert!(matches!(way_of(line), Way::Any { repeats: true }), "{line}");
        }
        for line in ["MSET a 1 b 2", "DEL a b", "FLUSHALL", "RENAME a b", "NOSUCHCOMMAND a"] {
            assert!(matches!(way_of(line), Way::Any { repeats: false }), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_or_about_a_connection_goes_nowhere() {
        for line in [
            "MULTI",
            "EXEC",
            "WATCH k",
            "HELLO 3",
            "QUIT",
            "RESET",
            "CLIENT REPLY OFF",
            "CLIENT SETNAME x",
            "TRELLIS CONSISTENCY all",
            "SUBSCRIBE c",
            "psubscribe c",
            "SSUBSCRIBE c",
            "UNSUBSCRIBE",
            "PUNSUBSCRIBE",
            "SUNSUBSCRIBE",
            "MONITOR",
            "sync",
            "GET",
            "SET k v EX nonsense",
            "SET k v XX NX",
        ] {
            let Way::Refused(error) = way_of(line) else { panic!("{line}") };
            assert_eq!((error.kind(), error.applied()), (ErrorKind::Command, Applied::No), "{line}");
        }
        assert!(matches!(way(&[], 1), Way::Refused(_)));
    }
}
