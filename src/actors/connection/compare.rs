//! What members ask of each other when they compare themselves. What the answers are is the stores' to say, and whether a partition may be
//! compared now the sync actor's. Exercised by the simulation.

use bytes::Bytes;

use crate::actors::local::{Gone, Local};
use crate::actors::store::{AskSums, Match};
use crate::actors::sync::Visit;
use crate::base::limits::SYNC_ENTRIES_PER_FRAME;
use crate::base::reply::STOPPING;
use crate::base::slot::{PARTITIONS, Partition};
use crate::protocol::native::{Answer, Ask, Digests, Key, PartitionDigest, PrintsOf, Roots, SUM_BYTES, SumsOf, apart};
use crate::storage::Ranges;

use super::peer::{NOT_PARTITIONS, partitions};
use super::pubsub::MEMBERS_ONLY;
use super::{Door, Entry};

const NOT_RANGES: Answer<'static> = Answer::Failed("ERR not ranges of a partition");

/// Answers one of these questions.
pub(super) async fn answer(door: &Door, entry: &Entry, ask: Ask<'_>, payload: &Bytes, reply: &impl Fn(Answer<'_>)) {
    if !entry.is_peer() {
        return reply(MEMBERS_ONLY);
    }
    let local = &door.handles.local;
    let answered = match ask {
        Ask::Roots(asked) => compare_roots(local, &asked, reply).await,
        Ask::Digests(asked) => digests(door, &asked, reply).await,
        Ask::Sums(asked) => sums(local, asked, reply).await,
        Ask::Prints(asked) => prints(local, asked, payload, reply).await,
        _ => unreachable!("the caller sends these here"),
    };
    if answered.is_err() {
        reply(Answer::Failed(STOPPING));
    }
}

async fn compare_roots(local: &Local, asked: &Roots<'_>, reply: &impl Fn(Answer<'_>)) -> Result<(), Gone> {
    let Some(partitions) = partitions(asked.partitions) else { return refused(reply, NOT_PARTITIONS) };
    let ours = local.roots(partitions, asked.recent, (usize::from(asked.width), asked.salt)).await?;
    reply_apart(&ours, asked.sums, reply);
    Ok(())
}

fn refused(reply: &impl Fn(Answer<'_>), why: Answer<'_>) -> Result<(), Gone> {
    reply(why);
    Ok(())
}

fn reply_apart(ours: &[u8], theirs: &[u8], reply: &impl Fn(Answer<'_>)) {
    let (compared, apart) = apart(ours, theirs);
    reply(Answer::Apart { compared: u32::try_from(compared).expect("frames are bounded far below 4 GiB"), apart });
}

async fn digests(door: &Door, asked: &Digests<'_>, reply: &impl Fn(Answer<'_>)) -> Result<(), Gone> {
    let (Some(partitions), Ok(node)) = (partitions(asked.partitions), asked.node.parse()) else {
        return refused(reply, NOT_PARTITIONS);
    };
    let free = door.handles.sync.send(Visit { node, partitions }).await?;
    let mut found = door.handles.local.digests(free, asked.recent).await?.into_iter().peekable();
    let digest = |partition: Partition| -> Option<PartitionDigest> {
        found.next_if(|(at, _)| *at == partition).map(|(_, digest)| digest)
    };
    reply(Answer::Digests(partitions.iter().map(digest).collect()));
    Ok(())
}

fn ranges(partition: u16, depth: u8, numbers: Vec<u32>) -> Option<(Partition, Ranges)> {
    let ranges = Ranges::new(depth, numbers)?;
    (partition < PARTITIONS).then_some((Partition(partition), ranges))
}

async fn sums(local: &Local, asked: SumsOf<'_>, reply: &impl Fn(Answer<'_>)) -> Result<(), Gone> {
    let Some((partition, ranges)) = ranges(asked.partition, asked.depth, asked.ranges) else {
        return refused(reply, NOT_RANGES);
    };
    let ours = local.store_of(partition).send(AskSums { partition, scope: asked.scope, ranges }).await?;
    reply_apart(&ours.sums, asked.sums, reply);
    Ok(())
}

async fn prints(local: &Local, asked: PrintsOf<'_>, payload: &Bytes, reply: &impl Fn(Answer<'_>)) -> Result<(), Gone> {
    let ranges = ranges(asked.partition, asked.depth, asked.ranges);
    // More than a page has: keys of one place stay together, which nobody meets by chance.
    let fits = asked.prints.len() <= 2 * SYNC_ENTRIES_PER_FRAME * SUM_BYTES;
    let Some((partition, ranges)) = ranges.filter(|_| fits) else { return refused(reply, NOT_RANGES) };
    let within = (asked.from, asked.to);
    let prints = payload.slice_ref(asked.prints);
    let ask = Match { partition, scope: asked.scope, ranges, within, prints };
    let found = local.store_of(partition).send(ask).await?;
    let versions = found.entries.iter().map(|(key, version)| (Key(key), *version)).collect();
    reply(Answer::Unmatched { versions, lacking: found.lacking, end: found.end });
    Ok(())
}
