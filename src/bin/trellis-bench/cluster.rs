//! Who owns which slot, as `CLUSTER SLOTS` of any node says once, before a run. Never follows changes: a member that goes during a run is
//! seen as broken connections. Tested below.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::BytesMut;

use trellis::base::slot::Slot;
use trellis::protocol::resp::read::ReplyReader;
use trellis::protocol::resp::value::Value;

/// Longest wait for a connection, and for the topology.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A topology of 16384 ranges with replicas is smaller.
const TOPOLOGY_BYTES_MAX: usize = 16 << 20;
const SLOTS: usize = 16384;

/// A set of slots.
#[derive(Debug)]
pub(crate) struct Slots([u64; SLOTS / 64]);

impl Slots {
    /// Of ranges, both ends included.
    pub(crate) fn of(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut words = [0; SLOTS / 64];
        for slot in ranges.into_iter().flat_map(|(from, to)| from..=to.min(SLOTS as u16 - 1)) {
            words[usize::from(slot) / 64] |= 1 << (slot % 64);
        }
        Self(words)
    }

    /// Whether it is one of them.
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot.0) / 64] >> (slot.0 % 64) & 1 == 1
    }
}

/// Asks a node who owns what: addresses and their slots.
///
/// # Errors
/// The node can't be reached, or has no such command, in words for the user.
pub(crate) fn owners(node: SocketAddr) -> Result<Vec<(SocketAddr, Slots)>, String> {
    let told = ask(node).map_err(|error| format!("CLUSTER SLOTS of {node}: {error}"))?;
    let owners = read(&told, node)?;
    if owners.is_empty() { Err(format!("CLUSTER SLOTS of {node}: nobody owns a slot")) } else { Ok(owners) }
}

fn ask(node: SocketAddr) -> io::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&node, CONNECT_MAX)?;
    stream.set_read_timeout(Some(CONNECT_MAX))?;
    stream.write_all(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n")?;
    let (mut reader, mut buffer, mut chunk) = (ReplyReader::new(TOPOLOGY_BYTES_MAX), BytesMut::new(), [0; 4096]);
    loop {
        if let Some(value) = reader.next(&mut buffer).map_err(io::Error::other)? {
            return Ok(value);
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}

fn read(told: &Value, node: SocketAddr) -> Result<Vec<(SocketAddr, Slots)>, String> {
    let ranges = match told {
        Value::Array(ranges) => ranges,
        Value::Error(error) => {
            return Err(format!("{node} is no cluster: {}", String::from_utf8_lossy(error.as_ref())));
        }
        _ => return Err(format!("CLUSTER SLOTS of {node}: an answer of another form")),
    };
    let mut owners: BTreeMap<SocketAddr, Vec<(u16, u16)>> = BTreeMap::new();
    for range in ranges {
        let (range, owner) =
            one(range, node).ok_or_else(|| format!("CLUSTER SLOTS of {node}: a range is malformed"))?;
        owners.entry(owner).or_default().push(range);
    }
    Ok(owners.into_iter().map(|(owner, ranges)| (owner, Slots::of(ranges))).collect())
}

/// First slot, last slot, owner, replicas.
fn one(range: &Value, node: SocketAddr) -> Option<((u16, u16), SocketAddr)> {
    let Value::Array(fields) = range else { return None };
    let [Value::Int(from), Value::Int(to), Value::Array(owner), ..] = fields.as_slice() else { return None };
    let [host, Value::Int(port), ..] = owner.as_slice() else { return None };
    // No name means the node that was asked.
    let host = match host {
        Value::Bulk(host) if !host.is_empty() => String::from_utf8_lossy(host).into_owned(),
        _ => node.ip().to_string(),
    };
    let owner = (host.as_str(), u16::try_from(*port).ok()?).to_socket_addrs().ok()?.next()?;
    Some(((u16::try_from(*from).ok()?, u16::try_from(*to).ok()?), owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> SocketAddr {
        "127.0.0.1:7000".parse().unwrap()
    }

    fn range(from: i64, to: i64, host: &'static str, port: i64) -> Value {
        let owner = Value::Array(vec![Value::bulk(host), Value::Int(port), Value::bulk("id")]);
        Value::Array(vec![Value::Int(from), Value::Int(to), owner])
    }

    #[test]
    fn an_owner_has_all_of_its_ranges() {
        let told = Value::Array(vec![
            range(0, 99, "127.0.0.1", 7001),
            range(100, 199, "", 7000),
            range(200, 16383, "127.0.0.1", 7001),
        ]);
        let owners = read(&told, node()).unwrap();
        let ports: Vec<u16> = owners.iter().map(|(owner, _)| owner.port()).collect();
        assert_eq!(ports, [7000, 7001]);
        for slot in 0..16384 {
            let owner = usize::from(!(100..200).contains(&slot));
            assert!(owners[owner].1.contains(Slot(slot)) && !owners[1 - owner].1.contains(Slot(slot)), "{slot}");
        }
    }

    #[test]
    fn what_is_no_topology_is_refused() {
        for told in [
            Value::error("ERR This instance has cluster support disabled"),
            Value::OK,
            Value::Array(vec![Value::OK]),
            Value::Array(vec![range(-1, 5, "127.0.0.1", 1)]),
            Value::Array(vec![range(0, 5, "127.0.0.1", 70_000)]),
        ] {
            assert!(read(&told, node()).is_err(), "{told:?}");
        }
    }
}
