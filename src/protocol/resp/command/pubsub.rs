//! Commands about channels. Parses only; the connection and this node's hub execute. Tested in `command/tests/pubsub.rs`.

use bytes::Bytes;

use super::table::{Command, Parse, c_text};
use super::{Context, ErrorText, Parsed, answer, introspect, take, wrong_arity};
use crate::base::channel::Kind;
use crate::base::limits::{CHANNEL_BYTES_MAX, PATTERN_BYTES_MAX, SUBSCRIPTIONS_BYTES_MAX, SUBSCRIPTIONS_MAX};
use crate::protocol::resp::Args;
use crate::protocol::resp::subscriptions::PubSubCommand;

const LISTENING: &str = "pubsub noscript loading stale";
const PUBLISHING: &str = "pubsub loading stale fast";

pub(super) const COMMANDS: &[Command] = &[
    listening("subscribe", -2, subscribe).about(
        "pubsub",
        "2.0.0",
        "O(N) where N is the number of channels to subscribe to.",
        "Listen for messages published to the given channels",
    ),
    listening("unsubscribe", -1, unsubscribe).about(
        "pubsub",
        "2.0.0",
        "O(N) where N is the number of clients already subscribed to a channel.",
        "Stop listening for messages posted to the given channels",
    ),
    listening("psubscribe", -2, psubscribe).about(
        "pubsub",
        "2.0.0",
        "O(N) where N is the number of patterns the client is already subscribed to.",
        "Listen for messages published to channels matching the given patterns",
    ),
    listening("punsubscribe", -1, punsubscribe).about(
        "pubsub",
        "2.0.0",
        "O(N+M) where N is the number of patterns the client is already subscribed and M is the number of total patterns subscribed in the system (by any client).",
        "Stop listening for messages posted to channels matching the given patterns",
    ),
    listening("ssubscribe", -2, ssubscribe).keys(1, -1, 1, "not_key").about(
        "pubsub",
        "7.0.0",
        "O(N) where N is the number of shard channels to subscribe to.",
        "Listen for messages published to the given shard channels",
    ),
    listening("sunsubscribe", -1, sunsubscribe).keys(1, -1, 1, "not_key").about(
        "pubsub",
        "7.0.0",
        "O(N) where N is the number of clients already subscribed to a shard channel.",
        "Stop listening for messages posted to the given shard channels",
    ),
    Command::new("publish", 3, publish).flags(PUBLISHING, "@pubsub @fast").about(
        "pubsub",
        "2.0.0",
        "O(N+M) where N is the number of clients subscribed to the receiving channel and M is the total number of subscribed patterns (by any client).",
        "Post a message to a channel",
    ),
    Command::new("spublish", 3, spublish).flags(PUBLISHING, "@pubsub @fast").keys(1, 1, 1, "not_key").about(
        "pubsub",
        "7.0.0",
        "O(N) where N is the number of clients subscribed to the receiving shard channel.",
        "Post a message to a shard channel",
    ),
    Command::new("pubsub", -2, container)
        .flags("", "@slow")
        .about("pubsub", "2.8.0", "Depends on subcommand.", "A container for Pub/Sub commands")
        .subcommands(&[
            asking("pubsub|shardchannels", -2, shard_channels).about(
                "pubsub",
                "7.0.0",
                "O(N) where N is the number of active shard channels, and assuming constant time pattern matching (relatively short shard channels).",
                "List active shard channels",
            ),
            asking("pubsub|channels", -2, channels).about(
                "pubsub",
                "2.8.0",
                "O(N) where N is the number of active channels, and assuming constant time pattern matching (relatively short channels and patterns)",
                "List active channels",
            ),
            asking("pubsub|numpat", 2, patterns).about(
                "pubsub",
                "2.8.0",
                "O(1)",
                "Get the count of unique patterns pattern subscriptions",
            ),
            Command::new("pubsub|help", 2, help).flags("loading stale", "@slow").about(
                "pubsub",
                "6.2.0",
                "O(1)",
                "Show helpful text about the different subcommands",
            ),
            asking("pubsub|shardnumsub", -2, shard_subscribers).about(
                "pubsub",
                "7.0.0",
                "O(N) for the SHARDNUMSUB subcommand, where N is the number of requested shard channels",
                "Get the count of subscribers for shard channels",
            ),
            asking("pubsub|numsub", -2, subscribers).about(
                "pubsub",
                "2.8.0",
                "O(N) for the NUMSUB subcommand, where N is the number of requested channels",
                "Get the count of subscribers for channels",
            ),
        ]),
];

const fn listening(name: &'static str, arity: i32, parse: Parse) -> Command {
    Command::new(name, arity, parse).flags(LISTENING, "@pubsub @slow")
}

const fn asking(name: &'static str, arity: i32, parse: Parse) -> Command {
    Command::new(name, arity, parse).flags("pubsub loading stale", "@pubsub @slow")
}

fn of(command: PubSubCommand) -> Result<Parsed, ErrorText> {
    Ok(Parsed::PubSub(command))
}

/// The arguments from `first` on as names of channels or patterns.
fn names(kind: Kind, args: &mut Args, first: usize) -> Result<Vec<Bytes>, ErrorText> {
    args.iter().skip(first).try_for_each(|name| bounded(kind, name))?;
    Ok(args.drain(first..).collect())
}

fn bounded(kind: Kind, name: &[u8]) -> Result<(), ErrorText> {
    let (what, bytes_max) = match kind {
        Kind::Channel | Kind::Shard => ("channel", CHANNEL_BYTES_MAX),
        Kind::Pattern => ("pattern", PATTERN_BYTES_MAX),
    };
    if name.len() > bytes_max {
        return Err(format!("ERR a {what} may have at most {bytes_max} bytes, nothing was done").into());
    }
    Ok(())
}

fn listen(kind: Kind, args: &mut Args) -> Result<Parsed, ErrorText> {
    of(PubSubCommand::Subscribe(kind, names(kind, args, 1)?))
}

fn leave(kind: Kind, args: &mut Args) -> Result<Parsed, ErrorText> {
    of(PubSubCommand::Unsubscribe(kind, names(kind, args, 1)?))
}

fn subscribe(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    listen(Kind::Channel, args)
}

fn psubscribe(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    listen(Kind::Pattern, args)
}

fn ssubscribe(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    listen(Kind::Shard, args)
}

fn unsubscribe(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    leave(Kind::Channel, args)
}

fn punsubscribe(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    leave(Kind::Pattern, args)
}

fn sunsubscribe(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    leave(Kind::Shard, args)
}

fn post(kind: Kind, args: &mut Args) -> Result<Parsed, ErrorText> {
    let (channel, payload) = (take(args, 1), take(args, 2));
    bounded(kind, &channel)?;
    of(PubSubCommand::Publish { kind, channel, payload })
}

fn publish(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    post(Kind::Channel, args)
}

fn spublish(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    post(Kind::Shard, args)
}

/// Unreachable by a client: a container without a subcommand has the wrong arity.
fn container(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(wrong_arity("pubsub"))
}

fn list(kind: Kind, args: &mut Args) -> Result<Parsed, ErrorText> {
    if args.len() > 3 {
        let name = c_text(&args[1], 128);
        let text = [b"ERR unknown subcommand or wrong number of arguments for '", name, b"'. Try PUBSUB HELP."];
        return Err(ErrorText(text.concat().into()));
    }
    let pattern = if args.len() == 3 { take(args, 2) } else { Bytes::from_static(b"*") };
    bounded(Kind::Pattern, &pattern)?;
    of(PubSubCommand::Channels(kind, pattern))
}

fn channels(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    list(Kind::Channel, args)
}

fn shard_channels(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    list(Kind::Shard, args)
}

fn patterns(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    of(PubSubCommand::CountPatterns)
}

/// Of how many names all members are asked: as many as a client may have subscribed to.
fn count(kind: Kind, args: &mut Args) -> Result<Parsed, ErrorText> {
    let names = names(kind, args, 2)?;
    let bytes: usize = names.iter().map(Bytes::len).sum();
    if names.len() > SUBSCRIPTIONS_MAX || bytes > SUBSCRIPTIONS_BYTES_MAX {
        return Err("ERR too many channels to ask about at once".to_owned().into());
    }
    of(PubSubCommand::Subscribers(kind, names))
}

fn subscribers(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    count(Kind::Channel, args)
}

fn shard_subscribers(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    count(Kind::Shard, args)
}

fn help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    answer(introspect::help(
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
            "SHARDCHANNELS [<pattern>]",
            "    Return the currently active shard level channels matching a <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers for the specified shard level channel(s)",
        ],
    ))
}
