//! `LCS`: compares two values and answers as Redis does. The table is filled piece by piece, so that others get their turn. Never reads a
//! key. What is compared is in `storage::lcs`; tested by the client tests.

use std::ops::Range;

use bytes::Bytes;

use crate::base::counters::Counter;
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink};
use crate::protocol::request::{LcsAsk, LcsWant};
use crate::protocol::resp::encode::ReplyBuf;
use crate::protocol::resp::value::Value;
use crate::storage::{Lcs, Match};

use super::{Desk, Terms};

/// Pairs of bytes compared before others get their turn: half a millisecond.
const PAIRS_AT_ONCE: usize = 512 * 1024;

const TABLE_TOO_LARGE: &str = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";
const LATE: &str = "TIMEOUT other comparisons took too long, applied: no";

/// Answers with what the two values have in common that these replies carry.
pub(super) async fn reply(
    desk: &Desk,
    replies: &ReplyBuf,
    mut range: Range<usize>,
    ask: LcsAsk,
    terms: Terms,
    out: &mut ReplyBuf,
) {
    let values: Vec<Bytes> = range.clone().map(|n| bulk(replies, n).unwrap_or_default()).collect();
    if let Some(n) = range.find(|n| replies.kind(*n) == Some(ReplyKind::Error)) {
        return out.append(replies, n..n + 1);
    }
    let [a, b] = &values[..] else { unreachable!("two values are compared") };
    if Lcs::table_bytes(a.len(), b.len()).is_none_or(|bytes| bytes > ask.table_bytes_max) {
        return out.reply(ReplyRef::Error(TABLE_TOO_LARGE.into()));
    }
    let Ok(Ok(_permit)) = tokio::time::timeout_at(terms.deadline, desk.comparing.acquire()).await else {
        desk.count(Counter::Timeout, 1);
        return out.reply(ReplyRef::Error(LATE.into()));
    };
    let mut lcs = Lcs::new(a, b);
    while lcs.fill(PAIRS_AT_ONCE) {
        tokio::task::yield_now().await;
    }
    out.push_value(&match ask.want {
        LcsWant::Length => int(lcs.bytes()),
        LcsWant::Text => Value::Bulk(lcs.trace().0.into()),
        LcsWant::Matches { shortest, with_length } => {
            let (_, matches) = lcs.trace();
            let long = matches.iter().filter(|found| found.bytes() >= shortest);
            let matches = long.map(|found| shown(found, with_length)).collect();
            Value::Map(vec![(Value::bulk("matches"), Value::Array(matches)), (Value::bulk("len"), int(lcs.bytes()))])
        }
    });
}

fn shown(found: &Match, with_length: bool) -> Value {
    let span = |(first, last)| Value::Array(vec![int(first), int(last)]);
    let mut parts = vec![span(found.a), span(found.b)];
    if with_length {
        parts.push(int(found.bytes()));
    }
    Value::Array(parts)
}

fn int(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The bytes of a bulk reply.
pub(super) fn bulk(replies: &ReplyBuf, n: usize) -> Option<Bytes> {
    if replies.kind(n) != Some(ReplyKind::Value) {
        return None;
    }
    let encoded = Bytes::from(replies.slices(n..n + 1).collect::<Vec<_>>().concat());
    let head = memchr::memchr(b'\n', &encoded)? + 1;
    (encoded.first() == Some(&b'$') && encoded.len() >= head + 2).then(|| encoded.slice(head..encoded.len() - 2))
}
