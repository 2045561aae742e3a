//! What a client that knows the ring does directly: it learns who serves what, and sends operations to their coordinator itself. Here is
//! what such a node tells it, and what it is held to that peers are trusted with. Never executes anything. Tested below.

use std::collections::BTreeMap;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::base::counters::Counter;
use crate::base::item::TERMS_BYTES_MAX;
use crate::base::op::{Act, Op};
use crate::base::slot::Partition;
use crate::cluster::view::{PeerIx, View};
use crate::protocol::native::{Answer, Routes, encode_payload};

use super::super::handles::Settings;
use super::{Door, pause};

/// Members told of for each partition: who finds none of these has other troubles.
const SERVING_TOLD_MAX: usize = 8;

/// Holds operations of a client to what the protocols of clients hold theirs to: the longest value, and pauses.
///
/// # Errors
/// The error line; nothing was done.
pub(super) async fn admit(door: &Door, ops: &[Op], deadline: Instant) -> Result<(), String> {
    door.counters.borrow_mut().add(Counter::Commands, ops.len() as u64);
    too_long(ops, door.handles.settings.value_bytes_max)?;
    let writes = ops.iter().any(|op| op.act.writes());
    Ok(pause::wait_out_until(door, writes, deadline).await?)
}

fn too_long(ops: &[Op], value_bytes_max: usize) -> Result<(), String> {
    let besides = |op: &Op| if matches!(op.act, Act::Item(_)) { TERMS_BYTES_MAX } else { 0 };
    match ops.iter().any(|op| op.value.len() > value_bytes_max + besides(op)) {
        true => Err(format!("ERR a value may have at most {value_bytes_max} bytes, nothing was done")),
        false => Ok(()),
    }
}

/// Answers whom to ask for each partition, unless that is `known`.
pub(super) fn routes(view: &View, settings: &Settings, known: u64, reply: &impl Fn(Answer<'_>)) {
    let mut places: BTreeMap<PeerIx, u16> = BTreeMap::new();
    let mut routes = Routes {
        mark: 0,
        epoch: view.epoch,
        level: settings.consistency,
        value_bytes_max: settings.value_bytes_max as u64,
        members: Vec::new(),
        serving: Vec::new(),
    };
    for (place, (ix, peer)) in (0u16..).zip(view.peers()) {
        places.insert(ix, place);
        routes.members.push(&peer.member.address);
    }
    let told = |partition| {
        let serving = view.route(partition).serving.iter().take(SERVING_TOLD_MAX);
        serving.filter_map(|peer| places.get(peer).copied()).collect()
    };
    routes.serving = Partition::all().map(told).collect();
    // 0 is the mark of nothing.
    routes.mark = xxh3_64(&encode_payload(&routes)).max(1);
    if routes.mark == known { reply(Answer::Done) } else { reply(Answer::Routes(routes)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::item::ItemAct;
    use bytes::Bytes;

    #[test]
    fn the_longest_value_is_that_without_the_terms_of_an_item() {
        let op = |act, bytes| Op { key: Bytes::new(), act, value: vec![0; bytes].into() };
        assert!(too_long(&[op(Act::Get, 0), op(Act::Append, 10)], 10).is_ok());
        assert!(too_long(&[op(Act::Get, 0), op(Act::Append, 11)], 10).unwrap_err().starts_with("ERR "));
        assert!(too_long(&[op(Act::Item(ItemAct::Put), 10 + TERMS_BYTES_MAX)], 10).is_ok());
        assert!(too_long(&[op(Act::Item(ItemAct::Put), 11 + TERMS_BYTES_MAX)], 10).is_err());
    }
}
