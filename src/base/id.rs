//! Names of clusters, nodes and requests. Parses them once at the edge; never looks anything up. Tested below.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

/// Longest node id or cluster name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a node id or cluster name was refused. Nothing was changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` is not a name: use 1 to {NAME_BYTES_MAX} of a-z A-Z 0-9 . _ -")]
pub struct BadName {
    name: String,
}

fn checked(name: &str) -> Result<Arc<str>, BadName> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits && plain { Ok(name.into()) } else { Err(BadName { name: name.chars().take(80).collect() }) }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = BadName;
            fn from_str(name: &str) -> Result<Self, BadName> {
                checked(name).map(Self)
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(name: String) -> Result<Self, BadName> {
                name.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// A node's identity. Addresses may change, this does not; a random UUID unless the operator names one.
    NodeId
}
name_type! {
    /// The name every member of a cluster shares. Nodes of another name are refused.
    ClusterName
}
name_type! {
    /// What fails together with a node: a rack, a building, a region.
    Zone
}

impl NodeId {
    /// The 32 bits of this id, in this life of the process, that versions carry. Two lives of one id differ, so that a
    /// node which lost its memory never stamps a version it has stamped before.
    pub fn origin(&self, incarnation: u64) -> u32 {
        let mut bytes = self.0.as_bytes().to_vec();
        bytes.extend_from_slice(&incarnation.to_le_bytes());
        xxh3_64(&bytes) as u32
    }

    /// This id as clients of Redis Cluster expect one: 40 hexadecimal digits, always the same for the same id (XXH3, 128 bits and 32 more).
    pub fn cluster_id(&self) -> String {
        let bytes = self.0.as_bytes();
        format!("{:032x}{:08x}", xxh3_128(bytes), xxh3_64_with_seed(bytes, u64::from(u32::MAX)) as u32)
    }
}

impl ClusterName {
    /// A 64-bit fingerprint for datagrams, where the name itself would cost too much.
    pub fn fingerprint(&self) -> u64 {
        xxh3_64(self.0.as_bytes())
    }
}

/// Names one attempt-independent request: the life of the node that took it from a client, and that life's count. A retry carries the
/// same id, so an owner that has seen it answers with what it answered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId {
    /// Random per router and per life.
    pub router: u64,
    /// Counts up within it.
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_when_empty_long_or_odd() {
        for bad in ["", "a b", "ü", "x/y", &"x".repeat(65)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
        assert_eq!("node-1.a_b".parse::<NodeId>().unwrap().as_str(), "node-1.a_b");
    }

    #[test]
    fn the_id_told_to_cluster_clients_is_stable_and_of_forty_digits() {
        let told = |name: &str| name.parse::<NodeId>().unwrap().cluster_id();
        assert_eq!(told("a").len(), 40);
        assert!(told("node-1").bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_eq!(told("node-1"), told("node-1"));
        assert_ne!(told("node-1"), told("node-2"));
    }

    #[test]
    fn two_lives_of_one_node_stamp_with_different_origins() {
        let id: NodeId = "a".parse().unwrap();
        assert_ne!(id.origin(1), id.origin(2));
        assert_eq!(id.origin(7), id.origin(7));
    }
}
