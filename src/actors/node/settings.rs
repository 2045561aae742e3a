//! What a node was told, in the words of those who need it: what never changes, and what `CONFIG SET` can change. Decides nothing. Exercised by
//! every test with real processes.

use std::net::SocketAddr;

use crate::actors::handles::{MemcachedSettings, Settings};
use crate::actors::live::Live;
use crate::cluster::hints::Hints;
use crate::config::{Config, Eviction};
use crate::net::{Listener, Net};
use crate::protocol::resp::settings::Change;

pub(super) fn settings(config: &Config, address: SocketAddr, memcached: Option<&Listener>) -> Settings {
    Settings {
        value_bytes_max: config.value_bytes_max,
        connections_max: config.connections_max,
        consistency: config.consistency,
        unix: config.unix.clone(),
        port: address.port(),
        memcached: memcached.zip(config.memcached).map(|(listener, asked)| MemcachedSettings {
            address: listener.address().ok().flatten().unwrap_or(SocketAddr::new(config.host, asked.port)),
            item_bytes_max: asked.item_bytes_max,
        }),
    }
}

/// The hints of one of so many data arbiters.
pub(super) fn hints(config: &Config, shards: u16, hash_seed: u64) -> Hints {
    Hints::new((config.hints_bytes_max / u64::from(shards)) as usize, hash_seed)
}

/// What can change, and everything as `CONFIG GET` shows it.
pub(super) fn live(config: &Config, address: SocketAddr) -> Live {
    let fixed = [
        ("appendonly", "no".to_owned()),
        ("bind", config.host.to_string()),
        ("databases", "1".to_owned()),
        ("latency-monitor-threshold", "0".to_owned()),
        ("maxclients", config.connections_max.to_string()),
        ("port", address.port().to_string()),
        ("proto-max-bulk-len", config.value_bytes_max.to_string()),
        ("save", String::new()),
        ("unixsocket", config.unix.as_ref().map_or_else(String::new, |path| path.display().to_string())),
    ];
    let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let evicts = config.eviction == Eviction::Lru;
    let live = Live::new(config.client_timeout, config.memory_bytes_max.unwrap_or(0), evicts, fixed);
    live.apply(Change::Notify(config.notify));
    live
}

/// Whether any seed is, or may come to be, somebody else. A node that is told of itself alone founds a cluster at once.
pub(super) async fn seeds_name_others(config: &Config, net: Net, own: [SocketAddr; 2]) -> bool {
    for seed in &config.seeds {
        match net.resolve(seed).await {
            Ok(found) if !found.is_empty() && found.iter().all(|address| own.contains(address)) => {}
            _ => return true,
        }
    }
    false
}
