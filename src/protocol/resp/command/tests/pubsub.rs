//! Commands about channels. The error texts are the replies of `redis-server` 7.0.15 to the same lines.

use super::*;
use crate::base::channel::Kind;
use crate::base::limits::{CHANNEL_BYTES_MAX, PATTERN_BYTES_MAX, SUBSCRIPTIONS_BYTES_MAX};
use crate::protocol::resp::subscriptions::PubSubCommand;

fn asked(line: &str) -> PubSubCommand {
    match parsed(line) {
        Ok((_, Parsed::PubSub(command))) => command,
        other => panic!("{line}: {other:?}"),
    }
}

fn names(words: &str) -> Vec<Bytes> {
    words.split_whitespace().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

#[test]
fn channels_patterns_and_shard_channels_are_told_apart() {
    for (line, expected) in [
        ("SUBSCRIBE a b a", PubSubCommand::Subscribe(Kind::Channel, names("a b a"))),
        ("psubscribe n*", PubSubCommand::Subscribe(Kind::Pattern, names("n*"))),
        ("SSUBSCRIBE a", PubSubCommand::Subscribe(Kind::Shard, names("a"))),
        ("UNSUBSCRIBE", PubSubCommand::Unsubscribe(Kind::Channel, vec![])),
        ("PUNSUBSCRIBE a b", PubSubCommand::Unsubscribe(Kind::Pattern, names("a b"))),
        ("SUNSUBSCRIBE a", PubSubCommand::Unsubscribe(Kind::Shard, names("a"))),
        ("PUBLISH a x", PubSubCommand::Publish { kind: Kind::Channel, channel: "a".into(), payload: "x".into() }),
        ("SPUBLISH a x", PubSubCommand::Publish { kind: Kind::Shard, channel: "a".into(), payload: "x".into() }),
        ("PUBSUB CHANNELS", PubSubCommand::Channels(Kind::Channel, "*".into())),
        ("PUBSUB SHARDCHANNELS a*", PubSubCommand::Channels(Kind::Shard, "a*".into())),
        ("PUBSUB NUMPAT", PubSubCommand::CountPatterns),
        ("PUBSUB NUMSUB", PubSubCommand::Subscribers(Kind::Channel, vec![])),
        ("PUBSUB SHARDNUMSUB a b", PubSubCommand::Subscribers(Kind::Shard, names("a b"))),
    ] {
        assert_eq!(asked(line), expected, "{line}");
    }
}

#[test]
fn errors_of_channels_are_those_of_redis() {
    expect_errors(&[
        ("SUBSCRIBE", "ERR wrong number of arguments for 'subscribe' command"),
        ("PUBLISH a b c", "ERR wrong number of arguments for 'publish' command"),
        ("SPUBLISH a", "ERR wrong number of arguments for 'spublish' command"),
        ("PUBSUB", "ERR wrong number of arguments for 'pubsub' command"),
        ("PUBSUB foo", "ERR unknown subcommand 'foo'. Try PUBSUB HELP."),
        ("PUBSUB NUMPAT x", "ERR wrong number of arguments for 'pubsub|numpat' command"),
        ("PUBSUB CHANNELS a b", "ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP."),
    ]);
}

#[test]
fn names_have_a_bound() {
    let long = "c".repeat(CHANNEL_BYTES_MAX + 1);
    let text = format!("ERR a channel may have at most {CHANNEL_BYTES_MAX} bytes, nothing was done");
    for verb in ["SUBSCRIBE", "UNSUBSCRIBE", "PUBSUB NUMSUB"] {
        let error = parsed(&format!("{verb} {long}")).expect_err(verb);
        assert_eq!((&error.text[..], error.is_late), (text.as_bytes(), true), "{verb}");
    }
    assert_eq!(parsed(&format!("PUBLISH {long} x")).expect_err("too long").text, text);
    let pattern = "*".repeat(PATTERN_BYTES_MAX + 1);
    let text = format!("ERR a pattern may have at most {PATTERN_BYTES_MAX} bytes, nothing was done");
    for verb in ["PSUBSCRIBE", "PUBSUB CHANNELS"] {
        assert_eq!(parsed(&format!("{verb} {pattern}")).expect_err(verb).text, text);
    }
    let most = SUBSCRIPTIONS_BYTES_MAX / CHANNEL_BYTES_MAX;
    assert!(parsed(&format!("PUBSUB NUMSUB{}", format!(" {}", &long[1..]).repeat(most))).is_ok());
    assert!(parsed(&format!("PUBSUB NUMSUB{}", format!(" {}", &long[1..]).repeat(most + 1))).is_err());
    assert!(parsed(&format!("SUBSCRIBE {}", &long[1..])).is_ok());
}
