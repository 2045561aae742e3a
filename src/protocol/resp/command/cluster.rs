//! `CLUSTER` and what clients of Redis Cluster say besides. Parses only; `topology` says the answers, the router finds keys of a slot.
//! Whatever would change a cluster of Redis is refused: here members join by a seed, and slots follow. Tested in `command/tests.rs`.

use super::table::{Command, Parse};
use super::{Context, ErrorText, Parsed, integer, introspect, session, take, wrong_arity};
use crate::base::slot::{SLOTS, Slot};
use crate::protocol::request::{ClusterOp, Request};
use crate::protocol::resp::Args;
use crate::protocol::resp::session::SessionCommand;
use crate::protocol::resp::topology::ClusterAsk;
use crate::protocol::resp::value::Value;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("cluster", -2, cluster)
        .flags("", "@slow")
        .about("cluster", "3.0.0", "Depends on subcommand.", "A container for cluster commands")
        .subcommands(&[
            told("cluster|slots", question, "Get array of Cluster slot to node mappings"),
            told("cluster|shards", question, "Get array of cluster slots to node mappings"),
            told("cluster|nodes", question, "Get Cluster config for the node"),
            told("cluster|info", question, "Provides info about Redis Cluster node state"),
            told("cluster|links", question, "Returns a list of the TCP links to and from peer nodes in the cluster"),
            told("cluster|myid", question, "Return the node id").tips(""),
            told("cluster|myshardid", question, "Return the node shard id").tips(""),
            about_node("cluster|replicas", "List replica nodes of the specified master node"),
            about_node("cluster|slaves", "List replica nodes of the specified master node"),
            about_node("cluster|count-failure-reports", "Return the number of failure reports active for a given node"),
            about_slot("cluster|keyslot", 3, keyslot, "Returns the hash slot of the specified key"),
            about_slot(
                "cluster|countkeysinslot",
                3,
                count_in_slot,
                "Return the number of local keys in the specified hash slot",
            ),
            about_slot("cluster|getkeysinslot", 4, keys_in_slot, "Return local key names in the specified hash slot")
                .tips("nondeterministic_output"),
            change("cluster|addslots", -3),
            change("cluster|addslotsrange", -4),
            change("cluster|bumpepoch", 2),
            change("cluster|delslots", -3),
            change("cluster|delslotsrange", -4),
            change("cluster|failover", -2),
            change("cluster|flushslots", 2),
            change("cluster|forget", 3),
            change("cluster|meet", -4),
            change("cluster|replicate", 3),
            change("cluster|reset", -2),
            change("cluster|saveconfig", 2),
            change("cluster|set-config-epoch", 3),
            change("cluster|setslot", -4),
            Command::new("cluster|help", 2, help).flags("loading stale", "@slow").about(
                "cluster",
                "5.0.0",
                "O(1)",
                "Show helpful text about the different subcommands",
            ),
        ]),
    Command::new("readonly", 1, agreed).flags("loading stale fast", "@fast @connection").about(
        "cluster",
        "3.0.0",
        "O(1)",
        "Enables read queries for a connection to a cluster replica node",
    ),
    Command::new("readwrite", 1, agreed).flags("loading stale fast", "@fast @connection").about(
        "cluster",
        "3.0.0",
        "O(1)",
        "Disables read queries for a connection to a cluster replica node",
    ),
    Command::new("asking", 1, agreed).flags("fast", "@fast @connection").about(
        "cluster",
        "3.0.0",
        "O(1)",
        "Sent by cluster clients after an -ASK redirect",
    ),
];

/// A question about the whole cluster.
const fn told(name: &'static str, parse: Parse, summary: &'static str) -> Command {
    Command::new(name, 2, parse)
        .flags("stale", "@slow")
        .tips("nondeterministic_output")
        .about("cluster", "3.0.0", "O(N)", summary)
}

/// A question about a node.
const fn about_node(name: &'static str, summary: &'static str) -> Command {
    Command::new(name, 3, question)
        .flags("admin stale", "@admin @slow @dangerous")
        .tips("nondeterministic_output")
        .about("cluster", "3.0.0", "O(N)", summary)
}

/// A question about a slot or its keys.
const fn about_slot(name: &'static str, arity: i32, parse: Parse, summary: &'static str) -> Command {
    Command::new(name, arity, parse).flags("stale", "@slow").about("cluster", "3.0.0", "O(N)", summary)
}

/// What changes a cluster of Redis.
const fn change(name: &'static str, arity: i32) -> Command {
    Command::new(name, arity, refused).flags("admin stale no_async_loading", "@admin @slow @dangerous").about(
        "cluster",
        "3.0.0",
        "O(1)",
        "Refused: members and slots are not assigned by hand",
    )
}

/// Unreachable by a client: a container without a subcommand has the wrong arity.
fn cluster(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    Err(wrong_arity("cluster"))
}

fn question(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let name = args[1].to_ascii_lowercase();
    let ask = match &name[..] {
        b"slots" => ClusterAsk::Slots,
        b"shards" => ClusterAsk::Shards,
        b"nodes" => ClusterAsk::Nodes,
        b"info" => ClusterAsk::Info,
        b"links" => ClusterAsk::Links,
        b"myid" => ClusterAsk::MyId,
        b"myshardid" => ClusterAsk::MyShardId,
        b"count-failure-reports" => ClusterAsk::FailureReports(take(args, 2)),
        _ => ClusterAsk::Replicas(take(args, 2)),
    };
    session(SessionCommand::Cluster(ask))
}

fn refused(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let name = String::from_utf8_lossy(&args[1]).to_uppercase();
    Err(format!("ERR CLUSTER {name} is not supported: members join by naming a seed and slots follow them").into())
}

/// Any node reads and writes any key, whatever mode the connection is in.
fn agreed(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Answer(Value::OK))
}

fn keyslot(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Answer(Value::Int(i64::from(Slot::of(&args[2]).0))))
}

fn slot(number: i64) -> Option<Slot> {
    u16::try_from(number).ok().filter(|slot| *slot < SLOTS).map(Slot)
}

fn count_in_slot(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let slot = slot(integer(&args[2])?).ok_or("ERR Invalid slot")?;
    Ok(Parsed::Request(Request::Cluster(ClusterOp::CountInSlot(slot))))
}

fn keys_in_slot(args: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    let (number, count) = (integer(&args[2])?, integer(&args[3])?);
    let (Some(slot), Ok(count)) = (slot(number), u64::try_from(count)) else {
        return Err("ERR Invalid slot or number of keys".into());
    };
    Ok(Parsed::Request(Request::Cluster(ClusterOp::KeysInSlot { slot, count })))
}

fn help(_: &mut Args, _: &Context) -> Result<Parsed, ErrorText> {
    session(SessionCommand::Answer(introspect::help(
        "CLUSTER",
        &[
            "COUNT-FAILURE-REPORTS <node-id>",
            "    Return number of failure reports for <node-id>.",
            "COUNTKEYSINSLOT <slot>",
            "    Return the number of keys in <slot>.",
            "GETKEYSINSLOT <slot> <count>",
            "    Return key names in a slot.",
            "INFO",
            "    Return information about the cluster.",
            "KEYSLOT <key>",
            "    Return the hash slot for <key>.",
            "MYID",
            "    Return the node id.",
            "MYSHARDID",
            "    Return the node's shard id.",
            "NODES",
            "    Return cluster configuration seen by node. Output format:",
            "    <id> <ip:port> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
            "REPLICAS <node-id>",
            "    Return <node-id> replicas.",
            "SLOTS",
            "    Return information about slots range mappings. Each range is made of:",
            "    start, end, master and replicas IP addresses, ports and ids",
            "SHARDS",
            "    Return information about slot range mappings and the nodes associated with them.",
            "LINKS",
            "    Return information about all network links between this node and its peers.",
            "    Output format is an array where each array element is a map containing attributes of a link",
        ],
    )))
}
