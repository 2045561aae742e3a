//! Commands on several keys that are more than their parts: as steps of one transaction where the keys are of one partition, else one
//! operation after another, without isolation. Never finds coordinators. Tested below and by the client tests.

use std::ops::Range;
use std::rc::Rc;

use crate::base::op::{Act, Expiry, Op, SetAnswer, When};
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink};
use crate::base::slot::Partition;
use crate::protocol::resp::encode::ReplyBuf;

use super::gather::{execute, in_part};
use super::{Desk, Ops, Terms, forward};

const OVERTAKEN: &str = "NOQUORUM another client set some of the keys meanwhile, the others are set, applied: unknown";

/// `MSETNX`. Over several partitions it looks first and then sets.
pub(super) async fn set_all_if_absent(desk: &Rc<Desk>, sets: Vec<Op>, terms: Terms, out: &mut ReplyBuf) {
    let partition = sets.first().map(|op| Partition::of(&op.key));
    if sets.iter().all(|op| Some(Partition::of(&op.key)) == partition) {
        let replies = together(desk, set_all_steps(sets), terms).await;
        return set_all_reply(&replies, 0..replies.replies(), out);
    }
    let looks = sets.iter().map(|op| Op::new(op.key.clone(), Act::Exists)).collect();
    let found = execute(desk, looks, terms).await;
    if let Some(n) = failed(&found, 0..found.replies()) {
        return out.append(&found, n..n + 1);
    }
    if (0..found.replies()).any(|n| found.kind(n) == Some(ReplyKind::Int(1))) {
        return out.reply(ReplyRef::Int(0));
    }
    let count = sets.len();
    let done = execute(desk, sets, terms).await;
    let set = (0..count).filter(|n| done.kind(*n) == Some(ReplyKind::Int(1))).count();
    match failed(&done, 0..count) {
        Some(n) if set > 0 => in_part(&done, n, out),
        Some(n) => out.append(&done, n..n + 1),
        // Somebody else was faster with some of the keys, or with all.
        None if set > 0 && set < count => out.reply(ReplyRef::Error(OVERTAKEN.into())),
        None => out.reply(ReplyRef::Int(i64::from(set == count))),
    }
}

/// `MSETNX` as steps: as many conditions as keys, each of which passes over all the rest, then the sets.
pub(super) fn set_all_steps(sets: Vec<Op>) -> Vec<Op> {
    let rest = |n: usize| u32::try_from(2 * sets.len() - n - 1).expect("arguments are bounded");
    let conditions = sets.iter().enumerate().map(|(n, set)| Op::new(set.key.clone(), Act::Absent { skip: rest(n) }));
    let mut steps: Vec<Op> = conditions.collect();
    let act = Act::Set { expiry: Expiry::Clear, when: When::Always, answer: SetAnswer::Done, flags: 0 };
    steps.extend(sets.into_iter().map(|set| Op { act, ..set }));
    steps
}

/// The reply to [`set_all_steps`], whose replies are those of this range.
pub(super) fn set_all_reply(replies: &ReplyBuf, range: Range<usize>, out: &mut ReplyBuf) {
    let sets = range.start + range.len() / 2..range.end;
    if !refused(replies, range.clone(), sets, out) {
        let is_absent = |n| replies.kind(n) != Some(ReplyKind::Int(0));
        out.reply(ReplyRef::Int(i64::from(range.into_iter().all(is_absent))));
    }
}

/// Executes operations on keys of one partition in one go.
async fn together(desk: &Rc<Desk>, ops: Vec<Op>, terms: Terms) -> ReplyBuf {
    forward::execute(desk, Ops { ops, together: true, ..Ops::default() }, terms).await
}

/// Replies with the error among these replies, if there is one: as it is if none of those that write was done, else as one in part.
fn refused(replies: &ReplyBuf, range: Range<usize>, mut writes: Range<usize>, out: &mut ReplyBuf) -> bool {
    let Some(n) = failed(replies, range) else { return false };
    // What was passed over answers null.
    if writes.any(|n| matches!(replies.kind(n), Some(ReplyKind::Value | ReplyKind::Int(_)))) {
        in_part(replies, n, out);
    } else {
        out.append(replies, n..n + 1);
    }
    true
}

fn failed(replies: &ReplyBuf, mut range: Range<usize>) -> Option<usize> {
    range.find(|n| replies.kind(*n) == Some(ReplyKind::Error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::reply::Wire;
    use bytes::Buf;

    fn text(mut out: ReplyBuf) -> String {
        String::from_utf8(out.copy_to_bytes(out.remaining()).to_vec()).expect("replies are text")
    }

    fn replies(parts: &[ReplyRef<'_>]) -> ReplyBuf {
        let mut replies = ReplyBuf::new(Wire::Resp2);
        parts.iter().for_each(|part| replies.reply(part.clone()));
        replies
    }

    #[test]
    fn sets_of_which_some_find_no_room_are_not_called_done() {
        let (absent, present, set) = (ReplyRef::Int(1), ReplyRef::Int(0), ReplyRef::Ok);
        let full = || ReplyRef::Error("OOM full".into());
        let answer = |parts: [ReplyRef<'_>; 4]| {
            let mut out = ReplyBuf::new(Wire::Resp2);
            set_all_reply(&replies(&parts), 0..4, &mut out);
            text(out)
        };
        assert_eq!(answer([absent.clone(), absent.clone(), set.clone(), set.clone()]), ":1\r\n");
        assert_eq!(answer([absent.clone(), present, ReplyRef::Null, ReplyRef::Null]), ":0\r\n");
        assert_eq!(answer([absent.clone(), absent.clone(), full(), full()]), "-OOM full\r\n");
        assert!(answer([absent.clone(), absent, set, full()]).ends_with("applied: unknown\r\n"));
    }
}
