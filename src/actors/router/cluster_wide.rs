//! What concerns all keys: asks every partition's coordinator, here or elsewhere, and adds the answers up. A coordinator that can't be reached
//! is replaced by the next replica. Never changes a single key. Tested below and by the client tests.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::base::counters::Counter;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink};
use crate::base::slot::{PARTITIONS, Partition, Slot};
use crate::cluster::partition_set::{PARTITION_SET_BYTES, PartitionSet};
use crate::cluster::view::PeerIx;
use crate::protocol::native::frame::{self, Call};
use crate::protocol::native::{Answer, Ask, Key, Message as Native, Page};
use crate::protocol::request::ClusterOp;
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::position;

use super::super::local::{Gone, remix, weighted};
use super::super::replication::CallPeer;
use super::super::store::{SCAN_BYTES_MAX, ScannedPage};
use super::{Desk, Terms};

const ATTEMPTS_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// Bits of a cursor below the partition number; a store's positions fit.
const POSITION_BITS: u32 = 48;
/// The longest `WAIT` waits. In Redis 0 waits for ever; here a connection that waits for ever would keep its permit for ever.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Keys one `SCAN` returns at the most, about.
const SCAN_COUNT_MAX: usize = 100_000;

const READ_UNREACHABLE: &str = "NOQUORUM some keys have no replica that could be reached, applied: no";
const FLUSH_UNREACHABLE: &str = "NOQUORUM some keys have no replica that could be reached, applied: unknown";
const FLUSH_SHORT: &str = "NOQUORUM too few replicas took the flush, applied: unknown";

/// A question all coordinators understand.
#[derive(Clone, Debug)]
enum Question {
    Count,
    Keys(Bytes),
    Scan { from: u64, count: usize, pattern: Bytes },
    RandomKey(u64),
    Flush,
    Wait { replicas: usize, timeout: Duration },
}

/// What one coordinator answers.
#[derive(Debug)]
enum Found {
    Count(u64),
    Keys(Vec<Bytes>),
    Pages(Vec<ScannedPage>),
    Flushed,
    /// Flushed by the coordinator and on its way to the others, of which too few have said in time that they have it.
    Short,
}

/// Some coordinator could not be reached, nor any that would stand in for it.
#[derive(Debug)]
struct Unreachable;

/// Answers one request.
pub(super) async fn answer(desk: &Rc<Desk>, op: ClusterOp, terms: Terms, out: &mut ReplyBuf) {
    let unreachable = if matches!(op, ClusterOp::Flush) { FLUSH_UNREACHABLE } else { READ_UNREACHABLE };
    let answered = match op {
        ClusterOp::DbSize => {
            all(desk, &Question::Count, terms).await.map(|found| out.reply(ReplyRef::Int(sum(&found))))
        }
        ClusterOp::Keys { pattern } => {
            all(desk, &Question::Keys(pattern), terms).await.map(|found| array(&keys_of(found), out))
        }
        ClusterOp::Scan { cursor, pattern, count, nothing } => {
            scan(desk, cursor, pattern.unwrap_or_default(), count, terms).await.map(|(cursor, keys)| {
                let none = Vec::new();
                page(cursor, if nothing { &none } else { &keys }, out);
            })
        }
        ClusterOp::Flush => all(desk, &Question::Flush, terms).await.map(|found| {
            if found.iter().any(|found| matches!(found, Found::Short)) {
                refuse(desk, FLUSH_SHORT, out);
            } else {
                out.reply(ReplyRef::Ok);
            }
        }),
        ClusterOp::RandomKey => random_key(desk, terms)
            .await
            .map(|key| out.reply(key.as_ref().map_or(ReplyRef::Null, |k| ReplyRef::Bulk(k)))),
        ClusterOp::Wait { replicas, timeout_ms } => {
            let replicas = usize::try_from(replicas.max(0)).unwrap_or(usize::MAX);
            let timeout = if timeout_ms == 0 { WAIT_MAX } else { Duration::from_millis(timeout_ms).min(WAIT_MAX) };
            let terms = Terms { deadline: desk.clock.monotonic() + timeout + REQUEST_TIMEOUT, ..terms };
            all(desk, &Question::Wait { replicas, timeout }, terms).await.map(|found| {
                let least = found.iter().map(|found| if let Found::Count(n) = found { *n } else { 0 }).min();
                out.reply(ReplyRef::Int(i64::try_from(least.unwrap_or(0)).unwrap_or(i64::MAX)));
            })
        }
        ClusterOp::CountInSlot(slot) => {
            let mut count = 0;
            let counted = of_slot(desk, slot, terms, |keys| {
                count += keys.count() as i64;
                true
            });
            counted.await.map(|()| out.reply(ReplyRef::Int(count)))
        }
        ClusterOp::KeysInSlot { slot, count } => {
            keys_of_slot(desk, slot, count, terms).await.map(|keys| array(&keys, out))
        }
    };
    if let Err(Unreachable) = answered {
        refuse(desk, unreachable, out);
    }
}

fn refuse(desk: &Desk, error: &'static str, out: &mut ReplyBuf) {
    desk.count(Counter::NoQuorum, 1);
    out.reply(ReplyRef::Error(error.into()));
}

fn sum(found: &[Found]) -> i64 {
    let total: u64 = found.iter().map(|found| if let Found::Count(n) = found { *n } else { 0 }).sum();
    i64::try_from(total).unwrap_or(i64::MAX)
}

fn keys_of(found: Vec<Found>) -> Vec<Bytes> {
    found.into_iter().flat_map(|found| if let Found::Keys(keys) = found { keys } else { Vec::new() }).collect()
}

fn array(keys: &[Bytes], out: &mut ReplyBuf) {
    let mut elements = ReplyBuf::new(out.wire());
    for key in keys {
        elements.reply(ReplyRef::Bulk(key));
    }
    out.open_array(keys.len());
    (0..keys.len()).for_each(|n| out.element(&elements, n));
    out.close(ReplyKind::Value);
}

fn page(cursor: u64, keys: &[Bytes], out: &mut ReplyBuf) {
    let mut parts = ReplyBuf::new(out.wire());
    parts.reply(ReplyRef::Bulk(cursor.to_string().as_bytes()));
    array(keys, &mut parts);
    out.open_array(2);
    out.element(&parts, 0);
    out.element(&parts, 1);
    out.close(ReplyKind::Value);
}

/// The cursor of a walk that goes on with this key. Walks return keys in the order of their cursors.
pub fn cursor_at(key: &[u8]) -> u64 {
    (u64::from(Partition::of(key).0) << POSITION_BITS) | position(key)
}

/// Walks on from `cursor` (0 starts) until about `count` keys, or enough bytes of them, are found: partition by partition, several at a time
/// where they hold few.
async fn scan(
    desk: &Rc<Desk>,
    cursor: u64,
    pattern: Bytes,
    count: u64,
    terms: Terms,
) -> Result<(u64, Vec<Bytes>), Unreachable> {
    let partition = u16::try_from(cursor >> POSITION_BITS).unwrap_or(PARTITIONS);
    let mut from = cursor & ((1 << POSITION_BITS) - 1);
    let mut next = partition;
    let mut keys: Vec<Bytes> = Vec::new();
    let mut bytes = 0;
    let count = usize::try_from(count).unwrap_or(usize::MAX).clamp(1, SCAN_COUNT_MAX);
    let mut window = 1u16;
    while next < PARTITIONS {
        let last = next.saturating_add(window).min(PARTITIONS);
        let partitions: PartitionSet = (next..last).map(Partition).collect();
        let question = Question::Scan { from, count, pattern: pattern.clone() };
        let mut pages: Vec<ScannedPage> = Vec::new();
        for found in among(desk, partitions, &question, terms).await? {
            if let Found::Pages(found) = found {
                pages.extend(found);
            }
        }
        pages.sort_by_key(|page| page.partition);
        for page in pages {
            // An answer that would have been too long ends early; the next question begins there.
            if page.partition.0 != next {
                break;
            }
            bytes += page.keys.iter().map(Bytes::len).sum::<usize>();
            keys.extend(page.keys);
            if let Some(position) = page.next {
                return Ok(((u64::from(page.partition.0) << POSITION_BITS) | position, keys));
            }
            next = page.partition.0 + 1;
            if keys.len() >= count || bytes >= SCAN_BYTES_MAX {
                break;
            }
        }
        from = 0;
        if keys.len() >= count || bytes >= SCAN_BYTES_MAX {
            break;
        }
        // Few keys a partition: look at more of them at a time.
        window = window.saturating_mul(8).min(PARTITIONS);
    }
    Ok((if next < PARTITIONS { u64::from(next) << POSITION_BITS } else { 0 }, keys))
}

/// Walks over the keys of a slot where its partition is coordinated, a page of the partition at a time, while `more` wants to go on.
async fn of_slot(
    desk: &Rc<Desk>,
    slot: Slot,
    terms: Terms,
    mut more: impl FnMut(&mut dyn Iterator<Item = &Bytes>) -> bool,
) -> Result<(), Unreachable> {
    let partitions: PartitionSet = [slot.partition()].into_iter().collect();
    let mut next = Some(0);
    while let Some(from) = next {
        let question = Question::Scan { from, count: SCAN_COUNT_MAX, pattern: Bytes::new() };
        next = None;
        for found in among(desk, partitions, &question, terms).await? {
            let Found::Pages(pages) = found else { continue };
            for page in pages {
                let goes_on = more(&mut page.keys.iter().filter(|key| Slot::of(key) == slot));
                next = page.next.filter(|_| goes_on);
            }
        }
    }
    Ok(())
}

/// Up to `count` keys of a slot, fewer where that many would be much.
async fn keys_of_slot(desk: &Rc<Desk>, slot: Slot, count: u64, terms: Terms) -> Result<Vec<Bytes>, Unreachable> {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(SCAN_COUNT_MAX);
    let (mut keys, mut bytes) = (Vec::new(), 0);
    of_slot(desk, slot, terms, |found| {
        for key in found.take(count - keys.len()) {
            bytes += key.len();
            // A copy: one key must not keep the page it came in.
            keys.push(Bytes::copy_from_slice(key));
        }
        keys.len() < count && bytes < SCAN_BYTES_MAX
    })
    .await?;
    Ok(keys)
}

/// A key, each with about the same chance: first how many there are where, then one of those. `None` when there is none.
async fn random_key(desk: &Rc<Desk>, terms: Terms) -> Result<Option<Bytes>, Unreachable> {
    let id = desk.request_id();
    let draw = xxhash_rust::xxh3::xxh3_64_with_seed(&id.sequence.to_le_bytes(), id.router);
    let counted = by_coordinator(desk, PartitionSet::FULL, &Question::Count, terms).await?;
    let counts: Vec<u64> = counted.iter().map(|(_, found)| if let Found::Count(n) = found { *n } else { 0 }).collect();
    let Some((drawn, _)) = counted.get(weighted(&counts, draw)) else { return Ok(None) };
    // If all those have expired meanwhile, any other will do.
    for partitions in [*drawn, PartitionSet::FULL] {
        let keys = keys_of(among(desk, partitions, &Question::RandomKey(remix(draw)), terms).await?);
        if !keys.is_empty() {
            return Ok(keys.get((draw % keys.len() as u64) as usize).cloned());
        }
    }
    Ok(None)
}

async fn all(desk: &Rc<Desk>, question: &Question, terms: Terms) -> Result<Vec<Found>, Unreachable> {
    among(desk, PartitionSet::FULL, question, terms).await
}

/// Asks the coordinators of `partitions`.
async fn among(
    desk: &Rc<Desk>,
    partitions: PartitionSet,
    question: &Question,
    terms: Terms,
) -> Result<Vec<Found>, Unreachable> {
    let found = by_coordinator(desk, partitions, question, terms).await?;
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

/// Asks the coordinators of `partitions`, and tells which of them each answers for.
async fn by_coordinator(
    desk: &Rc<Desk>,
    mut partitions: PartitionSet,
    question: &Question,
    terms: Terms,
) -> Result<Vec<(PartitionSet, Found)>, Unreachable> {
    let first = partitions.iter().next();
    let mut found = Vec::new();
    for attempt in 0..ATTEMPTS_MAX {
        let view = desk.view.load_full();
        let mut groups: BTreeMap<Option<PeerIx>, PartitionSet> = BTreeMap::new();
        for partition in partitions.iter() {
            groups.entry(desk.coordinator(view.route(partition))).or_insert(PartitionSet::EMPTY).insert(partition);
        }
        let asked = groups.into_iter().map(async |(to, group)| {
            // Only the first partition's page starts in the middle.
            let question = match question {
                Question::Scan { count, pattern, .. } if group.iter().next() != first => {
                    Question::Scan { from: 0, count: *count, pattern: pattern.clone() }
                }
                question => question.clone(),
            };
            let answer = match to {
                Some(peer) if peer == view.me => here(desk, group, question, terms).await.ok(),
                Some(peer) => there(desk, peer, group, &question, terms).await,
                None => None,
            };
            (group, answer)
        });
        for (group, answer) in join_all(asked).await {
            if let Some(answer) = answer {
                partitions = partitions.difference(&group);
                found.push((group, answer));
            }
        }
        if partitions.is_empty() {
            return Ok(found);
        }
        if desk.clock.monotonic() >= terms.deadline {
            break;
        }
        tokio::time::sleep(PAUSE * attempt).await;
    }
    Err(Unreachable)
}

async fn here(desk: &Desk, partitions: PartitionSet, question: Question, terms: Terms) -> Result<Found, Gone> {
    let local = &desk.local;
    Ok(match question {
        Question::Count => Found::Count(local.count(partitions).await?),
        Question::Keys(pattern) => Found::Keys(local.keys(partitions, &pattern).await?),
        Question::Scan { from, count, pattern } => Found::Pages(local.scan(partitions, from, count, &pattern).await?),
        Question::RandomKey(draw) => Found::Keys(local.random_key(partitions, draw).await?.into_iter().collect()),
        Question::Flush => {
            if local.flush(partitions, terms.level).await? {
                Found::Flushed
            } else {
                Found::Short
            }
        }
        Question::Wait { replicas, timeout } => {
            Found::Count(local.await_replicas(partitions, replicas, timeout).await? as u64)
        }
    })
}

async fn there(
    desk: &Desk,
    peer: PeerIx,
    partitions: PartitionSet,
    question: &Question,
    terms: Terms,
) -> Option<Found> {
    let bits: [u8; PARTITION_SET_BYTES] = partitions.to_bytes();
    let bits = &bits[..];
    let ask = match question {
        Question::Count => Ask::Count(bits),
        Question::Keys(pattern) => Ask::Keys { partitions: bits, pattern },
        Question::Scan { from, count, pattern } => {
            Ask::Scan { partitions: bits, from: *from, count: u32::try_from(*count).unwrap_or(u32::MAX), pattern }
        }
        Question::RandomKey(_) => Ask::RandomKey(bits),
        Question::Flush => Ask::Flush { partitions: bits, level: terms.level },
        Question::Wait { replicas, timeout } => Ask::Wait {
            partitions: bits,
            replicas: u32::try_from(*replicas).unwrap_or(u32::MAX),
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        },
    };
    let call = CallPeer { peer, call: Call::ask(&ask) };
    let answer = tokio::time::timeout_at(terms.deadline, desk.replication.send(call)).await.ok()?.ok()?;
    let Ok(payload) = answer else {
        desk.avoid(peer);
        return None;
    };
    found_in(&payload)
}

/// What a peer's answer says; `None` when it answered nothing, and somebody else has to be asked.
fn found_in(payload: &Bytes) -> Option<Found> {
    let own = |keys: Vec<Key<'_>>| keys.into_iter().map(|key| payload.slice_ref(key.0)).collect();
    let Ok(Native::Answer { answer, .. }) = frame::decode(payload) else { return None };
    match answer {
        Answer::Count(n) => Some(Found::Count(n)),
        Answer::Keys(keys) => Some(Found::Keys(own(keys))),
        Answer::Scanned(pages) => {
            let page = |page: Page<'_>| ScannedPage {
                partition: Partition(page.partition),
                keys: own(page.keys),
                next: page.next,
            };
            Some(Found::Pages(pages.into_iter().map(page).collect()))
        }
        Answer::Done => Some(Found::Flushed),
        // Done there all the same: to ask again would flush what was written since.
        Answer::Failed(error) if error.starts_with("NOQUORUM") => Some(Found::Short),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reply::STOPPING;

    #[test]
    fn a_flush_short_of_its_level_is_an_answer_and_a_stopping_node_gives_none() {
        let heard = |answer| found_in(&frame::to_bytes(&Native::Answer { id: 1, answer }).slice(frame::LENGTH_BYTES..));
        assert!(matches!(heard(Answer::Done), Some(Found::Flushed)));
        assert!(matches!(heard(Answer::Failed("NOQUORUM too few, applied: unknown")), Some(Found::Short)));
        assert!(heard(Answer::Failed(STOPPING)).is_none());
        assert!(matches!(heard(Answer::Keys(vec![Key(b"k")])), Some(Found::Keys(keys)) if keys == ["k"]));
    }
}
