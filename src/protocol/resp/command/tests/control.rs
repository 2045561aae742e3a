//! Tests of the commands by which clients control a node and learn of its cluster, and of the commands that are none. The error texts are
//! the replies of `redis-server` 7.0.15 to the same lines.

use super::*;
use crate::base::slot::Slot;
use crate::protocol::resp::control::{KillFilter, Pause, Replies};
use crate::protocol::resp::slowlog::SlowAsk;
use crate::protocol::resp::topology::ClusterAsk;

#[test]
fn questions_about_the_cluster_are_told_apart() {
    for (line, ask) in [
        ("CLUSTER SLOTS", ClusterAsk::Slots),
        ("cluster shards", ClusterAsk::Shards),
        ("CLUSTER NODES", ClusterAsk::Nodes),
        ("CLUSTER INFO", ClusterAsk::Info),
        ("CLUSTER MYID", ClusterAsk::MyId),
        ("CLUSTER MYSHARDID", ClusterAsk::MyShardId),
        ("CLUSTER LINKS", ClusterAsk::Links),
        ("CLUSTER REPLICAS x", ClusterAsk::Replicas("x".into())),
        ("CLUSTER SLAVES x", ClusterAsk::Replicas("x".into())),
        ("CLUSTER COUNT-FAILURE-REPORTS x", ClusterAsk::FailureReports("x".into())),
    ] {
        assert_eq!(session(line), SessionCommand::Cluster(ask), "{line}");
    }
    assert_eq!(answer("CLUSTER KEYSLOT {foo}bar", Wire::Resp2), ":12182\r\n");
    for line in ["READONLY", "READWRITE", "ASKING"] {
        assert_eq!(answer(line, Wire::Resp3), "+OK\r\n");
    }
    assert_eq!(request("CLUSTER COUNTKEYSINSLOT 16383"), Request::Cluster(ClusterOp::CountInSlot(Slot(16383))));
    let keys = ClusterOp::KeysInSlot { slot: Slot(0), count: 7 };
    assert_eq!(request("CLUSTER GETKEYSINSLOT 0 7"), Request::Cluster(keys));
}

#[test]
fn errors_about_the_cluster_are_those_of_redis() {
    let by_hand = |name: &str| {
        format!("ERR CLUSTER {name} is not supported: members join by naming a seed and slots follow them")
    };
    expect_errors(&[
        ("CLUSTER", "ERR wrong number of arguments for 'cluster' command"),
        ("CLUSTER FOO", "ERR unknown subcommand 'FOO'. Try CLUSTER HELP."),
        ("CLUSTER SLOTS x", "ERR wrong number of arguments for 'cluster|slots' command"),
        ("CLUSTER KEYSLOT", "ERR wrong number of arguments for 'cluster|keyslot' command"),
        ("CLUSTER COUNTKEYSINSLOT 16384", "ERR Invalid slot"),
        ("CLUSTER COUNTKEYSINSLOT -1", "ERR Invalid slot"),
        ("CLUSTER COUNTKEYSINSLOT x", INTEGER),
        ("CLUSTER GETKEYSINSLOT 5 -1", "ERR Invalid slot or number of keys"),
        ("CLUSTER GETKEYSINSLOT 16384 1", "ERR Invalid slot or number of keys"),
        ("CLUSTER GETKEYSINSLOT x x", INTEGER),
        ("CLUSTER SETSLOT 1", "ERR wrong number of arguments for 'cluster|setslot' command"),
        ("cluster addslots 1", &by_hand("ADDSLOTS")),
        ("CLUSTER RESET", &by_hand("RESET")),
        ("CLUSTER FORGET x", &by_hand("FORGET")),
    ]);
}

#[test]
fn clients_are_killed_paused_and_muted_by_the_arguments_of_redis() {
    let filter = KillFilter { skip_me: true, ..KillFilter::default() };
    for (line, expected) in [
        (
            "CLIENT KILL 1.2.3.4:5",
            KillFilter { addr: Some("1.2.3.4:5".into()), by_address: true, ..KillFilter::default() },
        ),
        ("CLIENT KILL ID 7 SKIPME no", KillFilter { id: Some(7), skip_me: false, ..filter.clone() }),
        (
            "CLIENT KILL ADDR x laddr y",
            KillFilter { addr: Some("x".into()), laddr: Some("y".into()), ..filter.clone() },
        ),
        ("CLIENT KILL TYPE normal USER default", KillFilter { kind: Some(ClientKind::Normal), ..filter.clone() }),
        ("CLIENT KILL TYPE pubsub", KillFilter { kind: Some(ClientKind::PubSub), ..filter.clone() }),
        ("CLIENT KILL SKIPME yes", filter.clone()),
    ] {
        assert_eq!(session(line), SessionCommand::ClientKill(expected), "{line}");
    }
    for (line, timeout_ms, writes_only) in
        [("CLIENT PAUSE 5", 5, false), ("CLIENT PAUSE 0 write", 0, true), ("CLIENT PAUSE 1 ALL", 1, false)]
    {
        assert_eq!(session(line), SessionCommand::ClientPause(Pause { timeout_ms, writes_only }), "{line}");
    }
    assert_eq!(session("CLIENT UNPAUSE"), SessionCommand::ClientUnpause);
    for (line, replies) in
        [("CLIENT REPLY on", Replies::On), ("CLIENT REPLY OFF", Replies::Off), ("CLIENT REPLY skip", Replies::SkipNext)]
    {
        assert_eq!(session(line), SessionCommand::ClientReply(replies), "{line}");
    }
    for (line, reply) in [
        ("CLIENT NO-EVICT on", "+OK\r\n"),
        ("CLIENT NO-TOUCH off", "+OK\r\n"),
        ("CLIENT TRACKING off", "+OK\r\n"),
        ("CLIENT TRACKING off OPTIN OPTOUT", "+OK\r\n"),
        ("CLIENT GETREDIR", ":-1\r\n"),
        ("CLIENT UNBLOCK 1", ":0\r\n"),
        ("CLIENT UNBLOCK 1 error", ":0\r\n"),
        (
            "CLIENT TRACKINGINFO",
            "%3\r\n$5\r\nflags\r\n~1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n",
        ),
    ] {
        assert_eq!(answer(line, Wire::Resp3), reply, "{line}");
    }
}

#[test]
fn errors_about_clients_are_those_of_redis() {
    let unfit =
        |name: &str| format!("ERR unknown subcommand or wrong number of arguments for '{name}'. Try CLIENT HELP.");
    expect_errors(&[
        ("CLIENT KILL", "ERR wrong number of arguments for 'client|kill' command"),
        ("CLIENT KILL ID x", "ERR client-id should be greater than 0"),
        ("CLIENT KILL ID 0", "ERR client-id should be greater than 0"),
        ("CLIENT KILL ID -1", "ERR client-id should be greater than 0"),
        ("CLIENT KILL TYPE foo", "ERR Unknown client type 'foo'"),
        ("CLIENT KILL USER foo", "ERR No such user 'foo'"),
        ("CLIENT KILL SKIPME maybe", SYNTAX),
        ("CLIENT KILL FOO x", SYNTAX),
        ("CLIENT KILL ID 1 FOO", SYNTAX),
        ("CLIENT PAUSE", "ERR wrong number of arguments for 'client|pause' command"),
        ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE -1", "ERR timeout is negative"),
        ("CLIENT PAUSE 1 FOO", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        ("CLIENT PAUSE 1 ALL x", &unfit("PAUSE")),
        ("CLIENT UNPAUSE x", "ERR wrong number of arguments for 'client|unpause' command"),
        ("CLIENT REPLY foo", SYNTAX),
        ("CLIENT NO-EVICT x", SYNTAX),
        ("CLIENT TRACKING x", SYNTAX),
        ("CLIENT TRACKING on foo", SYNTAX),
        ("CLIENT TRACKING off FOO", SYNTAX),
        ("CLIENT TRACKING on REDIRECT x", INTEGER),
        ("CLIENT TRACKING on", "ERR CLIENT TRACKING is not supported: nothing tells clients when keys change"),
        (
            "CLIENT CACHING yes",
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ),
        ("CLIENT UNBLOCK x", INTEGER),
        ("CLIENT UNBLOCK 1 FOO", "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
        ("CLIENT UNBLOCK 1 ERROR x", &unfit("UNBLOCK")),
        ("CLIENT NO-TOUCH on", "ERR CLIENT NO-TOUCH ON is not supported: every command counts as a use of its keys"),
    ]);
}

#[test]
fn no_command_tells_clients_to_add_up_the_answers_of_all_nodes() {
    for line in ["dbsize", "keys", "scan", "randomkey", "flushall"] {
        let info = answer(&format!("COMMAND INFO {line}"), Wire::Resp2);
        assert!(!info.contains("_policy"), "{info}");
    }
    assert!(answer("COMMAND INFO del", Wire::Resp2).contains("request_policy:multi_shard"));
}

#[test]
fn keys_are_told_with_their_flags() {
    let told = |line: &str| answer(&format!("COMMAND GETKEYSANDFLAGS {line}"), Wire::Resp2);
    assert_eq!(told("set a b"), "*1\r\n*2\r\n$1\r\na\r\n*2\r\n+OW\r\n+update\r\n");
    assert_eq!(told("set a b get"), "*1\r\n*2\r\n$1\r\na\r\n*3\r\n+RW\r\n+access\r\n+update\r\n");
    let two = "*2\r\n*2\r\n$1\r\na\r\n*2\r\n+OW\r\n+update\r\n*2\r\n$1\r\nc\r\n*2\r\n+OW\r\n+update\r\n";
    assert_eq!(told("mset a b c d"), two);
    let one = |flags: &str| format!("*1\r\n*2\r\n$1\r\na\r\n{flags}");
    assert_eq!(told("bitfield a get u8 0"), one("*2\r\n+RO\r\n+access\r\n"));
    assert_eq!(told("bitfield a overflow sat incrby u8 0 1"), one("*3\r\n+RW\r\n+access\r\n+update\r\n"));
    expect_errors(&[
        ("COMMAND GETKEYSANDFLAGS foo x", "ERR Invalid command specified"),
        ("COMMAND GETKEYSANDFLAGS ping x", "ERR The command has no key arguments"),
        ("COMMAND GETKEYSANDFLAGS get a b", "ERR Invalid number of arguments specified for command"),
        ("COMMAND GETKEYSANDFLAGS get", "ERR wrong number of arguments for 'command|getkeysandflags' command"),
        ("COMMAND LIST FILTERBY FOO x", SYNTAX),
        ("COMMAND LIST x y z", SYNTAX),
    ]);
}

#[test]
fn what_is_observed_is_asked_for_as_in_redis() {
    for (line, ask) in [
        ("SLOWLOG GET", SlowAsk::Entries(10)),
        ("SLOWLOG GET -1", SlowAsk::Entries(usize::MAX)),
        ("slowlog get 3", SlowAsk::Entries(3)),
        ("SLOWLOG LEN", SlowAsk::Len),
        ("SLOWLOG RESET", SlowAsk::Reset),
    ] {
        assert_eq!(session(line), SessionCommand::SlowLog(ask), "{line}");
    }
    assert_eq!(session("LATENCY HISTOGRAM get set"), SessionCommand::Histograms(vec!["get".into(), "set".into()]));
    let pairs = vec![("a".into(), "b".into()), ("c".into(), "d".into())];
    assert_eq!(session("CONFIG SET a b c d"), SessionCommand::ConfigSet(pairs));
    assert_eq!(session("CONFIG RESETSTAT"), SessionCommand::ResetStatistics);
    for (line, reply) in [
        ("LATENCY LATEST", "*0\r\n"),
        ("LATENCY HISTORY x", "*0\r\n"),
        ("LATENCY RESET a b", ":0\r\n"),
        ("SWAPDB 0 0", "+OK\r\n"),
    ] {
        assert_eq!(answer(line, Wire::Resp2), reply, "{line}");
    }
}

#[test]
fn refusals_of_what_is_observed_and_of_other_databases_are_those_of_redis() {
    let no_debug = "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local \
                    connection, otherwise you need to set this option in the configuration file, and then restart the server.";
    let count = "ERR count should be greater than or equal to -1";
    let range = "ERR DB index is out of range";
    expect_errors(&[
        ("SLOWLOG", "ERR wrong number of arguments for 'slowlog' command"),
        ("SLOWLOG GET x", count),
        ("SLOWLOG GET -2", count),
        ("SLOWLOG GET 99999999999999999999", count),
        ("SLOWLOG GET 1 2", "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP."),
        ("SLOWLOG LEN x", "ERR wrong number of arguments for 'slowlog|len' command"),
        ("LATENCY", "ERR wrong number of arguments for 'latency' command"),
        ("LATENCY GRAPH", "ERR wrong number of arguments for 'latency|graph' command"),
        ("LATENCY GRAPH foo", "ERR No samples available for event 'foo'"),
        ("CONFIG SET a", "ERR wrong number of arguments for 'config|set' command"),
        ("CONFIG SET a b c", SYNTAX),
        ("CONFIG REWRITE", "ERR The server is running without a config file"),
        ("DEBUG", "ERR wrong number of arguments for 'debug' command"),
        ("DEBUG SLEEP 0", no_debug),
        ("DEBUG HELP", no_debug),
        ("SELECT 1", range),
        ("SWAPDB 0 1", range),
        ("SWAPDB 0 -1", range),
        ("SWAPDB x 0", "ERR invalid first DB index"),
        ("SWAPDB 0 99999999999", "ERR invalid second DB index"),
        ("MOVE k 0", "ERR source and destination objects are the same"),
        ("MOVE k 1", range),
        ("MOVE k x", INTEGER),
        ("MOVE k 99999999999", "ERR value is out of range, value must between -2147483648 and 2147483647"),
    ]);
}

/// Commands of Redis 7 about what is not here: other data types, scripts, persistence, replicas, users, modules.
const ABSENT: &str = "acl bgrewriteaof bgsave blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin eval eval_ro evalsha evalsha_ro \
    failover fcall fcall_ro function geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch \
    geosearchstore hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield hscan hset hsetnx hstrlen hvals \
    lastsave lindex linsert llen lmove lmpop lolwut lpop lpos lpush lpushx lrange lrem lset ltrim migrate module monitor pfadd pfcount \
    pfdebug pfmerge pfselftest psync replconf replicaof restore-asking role rpop rpoplpush rpush rpushx sadd save scard script sdiff \
    sdiffstore shutdown sinter sintercard sinterstore sismember slaveof smembers smismember smove sort sort_ro spop srandmember \
    srem sscan sunion sunionstore sync xack xadd xautoclaim xclaim xdel xgroup xinfo xlen xpending xrange xread \
    xreadgroup xrevrange xsetid xtrim zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop zmscore \
    zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank zremrangebyscore \
    zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion zunionstore";

#[test]
fn commands_about_what_is_not_here_are_unknown_as_to_a_redis_that_lacks_them() {
    for name in ABSENT.split_whitespace() {
        for name in [name.to_owned(), name.to_uppercase()] {
            let bare = format!("ERR unknown command '{name}', with args beginning with: ");
            let with = format!("ERR unknown command '{name}', with args beginning with: 'k' 'v' ");
            expect_errors(&[(&name, &bare), (&format!("{name} k v"), &with)]);
        }
    }
}
