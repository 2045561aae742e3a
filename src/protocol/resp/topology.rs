//! What `CLUSTER` tells: slots, members and their state in the shapes of Redis 7, from plain facts. Gathers nothing itself. Tested below,
//! and against `redis-server` in cluster mode when the shapes were taken.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use super::value::Value;
use crate::base::slot::SLOTS;

/// A question about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterAsk {
    /// `SLOTS`.
    Slots,
    /// `SHARDS`.
    Shards,
    /// `NODES`.
    Nodes,
    /// `INFO`.
    Info,
    /// `MYID`.
    MyId,
    /// `MYSHARDID`.
    MyShardId,
    /// `LINKS`.
    Links,
    /// `REPLICAS` of the node with this id.
    Replicas(Bytes),
    /// `COUNT-FAILURE-REPORTS` of the node with this id.
    FailureReports(Bytes),
}

/// What is known of a member's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Online,
    /// It has not answered yet.
    Suspected,
    /// It is down.
    Failed,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Forty hexadecimal digits.
    pub id: String,
    /// Name or address clients are told; IPv6 without brackets.
    pub host: String,
    /// Its port, for clients and other members alike.
    pub port: u16,
    /// How it is.
    pub health: Health,
    /// The slots it leads, as runs from first to last.
    pub leads: Vec<(u16, u16)>,
}

/// Consecutive slots with the same members, each by its place in [`Topology::nodes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First slot.
    pub first: u16,
    /// Last slot.
    pub last: u16,
    /// Whom to ask, the leader first.
    pub serving: Vec<usize>,
    /// Who has a share in it and can't be asked now.
    pub absent: Vec<usize>,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Every member.
    pub nodes: Vec<Node>,
    /// The place of the node that tells.
    pub me: usize,
    /// All slots.
    pub ranges: Vec<Range>,
    /// The epoch of the ring.
    pub epoch: u64,
}

/// A link to another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// To whom: an id of forty digits.
    pub node: String,
    /// Unix milliseconds at which it opened.
    pub opened_ms: u64,
    /// Bytes that wait to be sent or acknowledged.
    pub queued_bytes: usize,
}

fn text(of: &str) -> Value {
    Value::Bulk(of.to_owned().into())
}

fn int(n: impl TryInto<i64>) -> Value {
    Value::Int(n.try_into().unwrap_or(i64::MAX))
}

fn map<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (Value::bulk(name), value)).collect())
}

/// A range as numbers: one where first and last are the same.
fn run((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

impl Topology {
    /// The place of the node with this id.
    pub fn find(&self, id: &[u8]) -> Option<usize> {
        self.nodes.iter().position(|node| node.id.as_bytes() == id)
    }

    /// `CLUSTER SLOTS`: ranges that somebody can be asked for, in the order given.
    pub fn slots(&self) -> Value {
        let node = |place: &usize| {
            let node = &self.nodes[*place];
            Value::Array(vec![text(&node.host), int(node.port), text(&node.id), Value::Map(Vec::new())])
        };
        let served = self.ranges.iter().filter(|range| !range.serving.is_empty());
        Value::Array(
            served
                .map(|range| {
                    let ends = [int(range.first), int(range.last)];
                    Value::Array(ends.into_iter().chain(range.serving.iter().map(node)).collect())
                })
                .collect(),
        )
    }

    /// `CLUSTER SHARDS`: ranges with equal members together, then each member that has a share in none.
    pub fn shards(&self) -> Value {
        let mut shards: BTreeMap<(&[usize], &[usize]), Vec<Value>> = BTreeMap::new();
        let mut in_none = vec![true; self.nodes.len()];
        for range in &self.ranges {
            let slots = shards.entry((&range.serving, &range.absent)).or_default();
            slots.extend([int(range.first), int(range.last)]);
            range.serving.iter().chain(&range.absent).for_each(|place| in_none[*place] = false);
        }
        let alone: Vec<[usize; 1]> = (0..self.nodes.len()).filter(|place| in_none[*place]).map(|p| [p]).collect();
        let nodes = |serving: &[usize], absent: &[usize]| {
            let serving = serving.iter().map(|place| (*place, true));
            let all = serving.chain(absent.iter().map(|place| (*place, false)));
            let nodes = all.enumerate().map(|(n, (place, serves))| self.shard_node(place, n == 0, serves));
            nodes.collect::<Vec<_>>()
        };
        let shard = |slots, nodes| map([("slots", Value::Array(slots)), ("nodes", Value::Array(nodes))]);
        let shards = shards.into_iter().map(|((serving, absent), slots)| shard(slots, nodes(serving, absent)));
        let alone = alone.iter().map(|place| shard(Vec::new(), nodes(place, &[])));
        Value::Array(shards.chain(alone).collect())
    }

    fn shard_node(&self, place: usize, leads: bool, serves: bool) -> Value {
        let node = &self.nodes[place];
        let health = match node.health {
            Health::Failed => "fail",
            Health::Online | Health::Suspected if serves => "online",
            // A member that has yet to get the data, in the word of a replica that loads.
            Health::Online | Health::Suspected => "loading",
        };
        map([
            ("id", text(&node.id)),
            ("port", int(node.port)),
            ("ip", text(&node.host)),
            ("endpoint", text(&node.host)),
            ("role", Value::bulk(if leads { "master" } else { "replica" })),
            ("replication-offset", Value::Int(0)),
            ("health", Value::bulk(health)),
        ])
    }

    /// `CLUSTER NODES`. Every member is a master, of the slots that it leads.
    pub fn nodes(&self) -> Value {
        let lines: String = (0..self.nodes.len()).map(|place| self.line(place) + "\n").collect();
        Value::Verbatim(lines.into())
    }

    fn line(&self, place: usize) -> String {
        let Node { id, host, port, health, leads } = &self.nodes[place];
        let myself = if place == self.me { "myself," } else { "" };
        let (flag, link) = match health {
            Health::Online => ("", "connected"),
            Health::Suspected => (",fail?", "connected"),
            Health::Failed => (",fail", "disconnected"),
        };
        let mut line = format!("{id} {host}:{port}@{port} {myself}master{flag} - 0 0 {} {link}", self.epoch);
        for leads in leads {
            write!(line, " {}", run(*leads)).expect("a string takes what is written to it");
        }
        line
    }

    /// `CLUSTER REPLICAS`: nobody is the replica of a whole node.
    pub fn replicas(&self, id: &[u8]) -> Value {
        self.find(id).map_or_else(|| unknown_node(id), |_| Value::Array(Vec::new()))
    }

    /// `CLUSTER COUNT-FAILURE-REPORTS`: members share one verdict, so it is one or none.
    pub fn failure_reports(&self, id: &[u8]) -> Value {
        let reports = |place: usize| int(u8::from(self.nodes[place].health != Health::Online));
        self.find(id).map_or_else(|| unknown_node(id), reports)
    }

    /// `CLUSTER INFO`; `messages` are the datagrams of the failure detector, sent and received.
    pub fn info(&self, messages: (u64, u64)) -> Value {
        let slots = |range: &Range| u32::from(range.last) - u32::from(range.first) + 1;
        let (mut ok, mut suspected, mut failed) = (0, 0, 0);
        for range in &self.ranges {
            match range.serving.first().map(|leader| self.nodes[*leader].health) {
                Some(Health::Online) => ok += slots(range),
                Some(Health::Suspected) => suspected += slots(range),
                Some(Health::Failed) | None => failed += slots(range),
            }
        }
        let state = if failed == 0 { "ok" } else { "fail" };
        let size = self.nodes.iter().filter(|node| !node.leads.is_empty()).count();
        let (sent, received) = messages;
        let lines = [
            format!("cluster_state:{state}"),
            format!("cluster_slots_assigned:{SLOTS}"),
            format!("cluster_slots_ok:{ok}"),
            format!("cluster_slots_pfail:{suspected}"),
            format!("cluster_slots_fail:{failed}"),
            format!("cluster_known_nodes:{}", self.nodes.len()),
            format!("cluster_size:{size}"),
            format!("cluster_current_epoch:{}", self.epoch),
            format!("cluster_my_epoch:{}", self.epoch),
            format!("cluster_stats_messages_sent:{sent}"),
            format!("cluster_stats_messages_received:{received}"),
            "total_cluster_links_buffer_limit_exceeded:0".to_owned(),
        ];
        Value::Verbatim(lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect::<String>().into())
    }
}

/// `CLUSTER LINKS`.
pub fn links(links: &[Link]) -> Value {
    let link = |link: &Link| {
        map([
            ("direction", Value::bulk("to")),
            ("node", text(&link.node)),
            ("create-time", int(link.opened_ms)),
            ("events", Value::bulk("rw")),
            ("send-buffer-allocated", int(link.queued_bytes)),
            ("send-buffer-used", int(link.queued_bytes)),
        ])
    };
    Value::Array(links.iter().map(link).collect())
}

/// The id up to a NUL, as C prints it.
fn unknown_node(id: &[u8]) -> Value {
    let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
    Value::error([b"ERR Unknown node ", id].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reply::Wire;

    fn node(name: char, port: u16, health: Health, leads: &[(u16, u16)]) -> Node {
        Node { id: name.to_string().repeat(40), host: "10.0.0.1".into(), port, health, leads: leads.to_vec() }
    }

    /// Two members that serve, one that is down and one that has no share.
    fn topology() -> Topology {
        let nodes = vec![
            node('a', 1, Health::Online, &[(0, 99), (101, 101)]),
            node('b', 2, Health::Suspected, &[(100, 100)]),
            node('c', 3, Health::Failed, &[]),
            node('d', 4, Health::Online, &[]),
        ];
        let range = |first, last, serving: &[usize], absent: &[usize]| Range {
            first,
            last,
            serving: serving.to_vec(),
            absent: absent.to_vec(),
        };
        let ranges = vec![
            range(0, 99, &[0, 1], &[2]),
            range(100, 100, &[1], &[]),
            range(101, 101, &[0, 1], &[2]),
            range(102, SLOTS - 1, &[], &[2]),
        ];
        Topology { nodes, me: 0, ranges, epoch: 7 }
    }

    fn shown(value: &Value, wire: Wire) -> String {
        let mut out = Vec::new();
        value.encode(wire, &mut out);
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn slots_are_as_redis_tells_them() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let node = |id: &str, port, end| format!("*4 $8 10.0.0.1 :{port} $40 {id} {end}0 ");
        for (wire, end) in [(Wire::Resp2, '*'), (Wire::Resp3, '%')] {
            let (first, second) = (node(&a, 1, end), node(&b, 2, end));
            let expected = format!("*3 *4 :0 :99 {first}{second}*3 :100 :100 {second}*4 :101 :101 {first}{second}");
            assert_eq!(shown(&topology().slots(), wire), expected);
        }
    }

    #[test]
    fn shards_are_as_redis_tells_them() {
        let node = |name: &str, port, role: &str, health: &str| {
            format!(
                "%7 $2 id $40 {} $4 port :{port} $2 ip $8 10.0.0.1 $8 endpoint $8 10.0.0.1 $4 role ${} {role} \
                 $18 replication-offset :0 $6 health ${} {health} ",
                name.repeat(40),
                role.len(),
                health.len()
            )
        };
        let expected = [
            "*4 %2 $5 slots *2 :102 :16383 $5 nodes *1 ",
            &node("c", 3, "master", "fail"),
            "%2 $5 slots *4 :0 :99 :101 :101 $5 nodes *3 ",
            &node("a", 1, "master", "online"),
            &node("b", 2, "replica", "online"),
            &node("c", 3, "replica", "fail"),
            "%2 $5 slots *2 :100 :100 $5 nodes *1 ",
            &node("b", 2, "master", "online"),
            "%2 $5 slots *0 $5 nodes *1 ",
            &node("d", 4, "master", "online"),
        ];
        assert_eq!(shown(&topology().shards(), Wire::Resp3), expected.concat());
        let flat = expected.concat().replace("%2 ", "*4 ").replace("%7 ", "*14 ");
        assert_eq!(shown(&topology().shards(), Wire::Resp2), flat);
    }

    #[test]
    fn nodes_are_lines_as_redis_writes_them() {
        let Value::Verbatim(lines) = topology().nodes() else { panic!() };
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| name.repeat(40));
        let expected = format!(
            "{a} 10.0.0.1:1@1 myself,master - 0 0 7 connected 0-99 101\n\
             {b} 10.0.0.1:2@2 master,fail? - 0 0 7 connected 100\n\
             {c} 10.0.0.1:3@3 master,fail - 0 0 7 disconnected\n\
             {d} 10.0.0.1:4@4 master - 0 0 7 connected\n"
        );
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_state_is_ok_while_every_slot_is_served() {
        let lines = |topology: &Topology| {
            let Value::Verbatim(text) = topology.info((5, 6)) else { panic!() };
            String::from_utf8(text.to_vec()).unwrap().split_terminator("\r\n").map(str::to_owned).collect::<Vec<_>>()
        };
        let mut topology = topology();
        let told = lines(&topology);
        let expected = [
            "cluster_state:fail",
            "cluster_slots_assigned:16384",
            "cluster_slots_ok:101",
            "cluster_slots_pfail:1",
            "cluster_slots_fail:16282",
            "cluster_known_nodes:4",
            "cluster_size:2",
        ];
        assert_eq!(told[..7], expected);
        assert_eq!(told[9..11], ["cluster_stats_messages_sent:5", "cluster_stats_messages_received:6"]);
        topology.ranges.truncate(3);
        assert_eq!(lines(&topology)[0], "cluster_state:ok");
    }

    #[test]
    fn a_node_is_found_by_its_whole_id() {
        let topology = topology();
        assert_eq!(topology.failure_reports("c".repeat(40).as_bytes()), Value::Int(1));
        assert_eq!(topology.failure_reports("a".repeat(40).as_bytes()), Value::Int(0));
        assert_eq!(topology.replicas("a".repeat(40).as_bytes()), Value::Array(Vec::new()));
        assert_eq!(topology.replicas(b"abc"), Value::error("ERR Unknown node abc"));
    }
}
