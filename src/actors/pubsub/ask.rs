//! Who subscribed to what over the whole cluster: asks this node's hub and those of all members that are alive, and adds up. Never changes
//! anything.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::base::channel::Kind;
use crate::base::limits::REQUEST_TIMEOUT;
use crate::protocol::native::frame::Call;
use crate::protocol::native::{Answer, Ask, Key};

use super::peers::{answered, members};
use super::{Counts, Names};
use crate::actors::handles::Handles;
use crate::actors::replication::CallPeer;

/// A member that is alive did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NOQUORUM some members could not be asked, applied: no")]
pub struct Unasked;

/// Names that clients of any member subscribed to, of those that match, in order.
///
/// # Errors
/// [`Unasked`].
pub async fn names(handles: &Handles, kind: Kind, pattern: Bytes) -> Result<BTreeSet<Bytes>, Unasked> {
    let ask = Ask::Channels { kind, pattern: &pattern };
    let read = |answer: Answer<'_>| match answer {
        Answer::Names(names) => Some(names.iter().map(|Key(name)| Bytes::copy_from_slice(name)).collect::<Vec<_>>()),
        _ => None,
    };
    let there = others(handles, &ask, read).await?;
    let here = handles.hub.send(Names(kind, pattern)).await.map_err(|_| Unasked)?;
    Ok(there.into_iter().flatten().chain(here).collect())
}

/// How many clients of all members subscribed to each of these names.
///
/// # Errors
/// [`Unasked`].
pub async fn subscribers(handles: &Handles, kind: Kind, names: &[Bytes]) -> Result<Vec<u64>, Unasked> {
    let ask = Ask::Subscribers { kind, names: names.iter().map(|name| Key(name)).collect() };
    let read = |answer: Answer<'_>| match answer {
        Answer::Counts(counts) if counts.len() == names.len() => Some(counts),
        _ => None,
    };
    let there = others(handles, &ask, read).await?;
    let mut sums = handles.hub.send(Counts(kind, names.to_vec())).await.map_err(|_| Unasked)?;
    for counts in there {
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(count));
    }
    Ok(sums)
}

async fn others<T>(
    handles: &Handles,
    ask: &Ask<'_>,
    read: impl Fn(Answer<'_>) -> Option<T>,
) -> Result<Vec<T>, Unasked> {
    let view = handles.view.load_full();
    let call = Call::ask(ask);
    let asked = members(&view).filter(|(.., alive)| *alive).map(|(peer, ..)| {
        let sent = handles.local.replications[0].send(CallPeer { peer, call: call.clone() });
        tokio::time::timeout(REQUEST_TIMEOUT, sent)
    });
    let answers = join_all(asked.collect::<Vec<_>>()).await;
    answers.into_iter().map(|answer| answered(answer.map_err(|_| Unasked)?, &read).ok_or(Unasked)).collect()
}
