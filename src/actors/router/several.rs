//! Commands on several keys that are more than their parts: as steps of one transaction where the keys are of one partition, else one
//! operation after another, without isolation. Never finds coordinators. Tested below and by the client tests.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use crate::base::op::{Act, BitOp, Deadline, Expiry, Op, Renaming, SetAnswer, When};
use crate::base::reply::{ReplyKind, ReplyRef, ReplySink};
use crate::base::whole::Whole;
use crate::protocol::request::Several;
use crate::protocol::resp::encode::ReplyBuf;
use crate::storage::combine;

use super::gather::{execute, in_part};
use super::{Desk, Ops, Terms, forward, lcs};

const NO_SUCH_KEY: &str = "ERR no such key";
/// Copies of a value that goes on changing while it is moved.
const RENAMES_MAX: usize = 8;
const STILL_CHANGING: &str =
    "NOQUORUM the key went on changing while it was moved and is under both names, applied: unknown";
const OVERTAKEN: &str = "NOQUORUM another client set some of the keys meanwhile, the others are set, applied: unknown";

/// `MSETNX` over several partitions: looks first, then sets.
pub(super) async fn set_all_apart(desk: &Rc<Desk>, sets: Vec<Op>, terms: Terms, out: &mut ReplyBuf) {
    let looks = sets.iter().map(|op| Op::new(op.key.clone(), Act::Absent { skip: 0 })).collect();
    let found = execute(desk, looks, terms, 0).await;
    if let Some(n) = failed(&found, 0..found.replies()) {
        return out.append(&found, n..n + 1);
    }
    if (0..found.replies()).any(|n| found.kind(n) == Some(ReplyKind::Int(0))) {
        return out.reply(ReplyRef::Int(0));
    }
    let count = sets.len();
    let done = execute(desk, sets, terms, 0).await;
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
pub(super) fn set_all_reply(replies: &ReplyBuf, mut range: Range<usize>, out: &mut ReplyBuf) {
    let sets = range.start + range.len() / 2..range.end;
    if !refused(replies, range.clone(), sets, out) {
        let is_absent = |n| replies.kind(n) != Some(ReplyKind::Int(0));
        out.reply(ReplyRef::Int(i64::from(range.all(is_absent))));
    }
}

/// Executes operations on keys of one partition in one go.
async fn together(desk: &Rc<Desk>, ops: Vec<Op>, terms: Terms) -> ReplyBuf {
    forward::execute(desk, Ops { ops, together: true, ..Ops::default() }, terms).await
}

/// A command on keys of one partition as steps of a transaction. One that finds that there is nothing to do passes over those after it.
pub(super) fn steps(command: &Several) -> Vec<Op> {
    let op = |key: &Bytes, act| Op::new(key.clone(), act);
    let load = |skip| Act::Renaming(Renaming::Load { skip });
    let unload = || Act::Renaming(Renaming::Unload { skip: 1 });
    match command {
        Several::Copy { from, to, replace: true } => {
            vec![op(from, Act::Load { skip: 1 }), op(to, Act::Unload { skip: 0 })]
        }
        Several::Copy { from, to, replace: false } => {
            vec![op(from, Act::Load { skip: 2 }), op(to, Act::Absent { skip: 1 }), op(to, Act::Unload { skip: 0 })]
        }
        Several::Rename { from, to, .. } if from == to => vec![op(from, load(0))],
        Several::Rename { from, to, if_absent: false } => {
            vec![op(from, load(2)), op(to, unload()), op(from, Act::Renaming(Renaming::Delete))]
        }
        Several::Rename { from, to, if_absent: true } => vec![
            op(from, load(3)),
            op(to, Act::Absent { skip: 2 }),
            op(to, unload()),
            op(from, Act::Renaming(Renaming::Delete)),
        ],
        Several::BitOp { how, to, from } => {
            let fold = |key| op(key, Act::Fold(*how));
            from.iter().map(fold).chain([op(to, Act::Unload { skip: 0 })]).collect()
        }
        Several::Lcs { keys, .. } => keys.iter().map(|key| op(key, Act::Get)).collect(),
    }
}

/// The reply to the [`steps`] of a command, whose replies are those of this range.
pub(super) fn reply(replies: &ReplyBuf, range: Range<usize>, command: &Several, out: &mut ReplyBuf) {
    let is = |n: usize, int| replies.kind(range.start + n) == Some(ReplyKind::Int(int));
    // The steps that write come last.
    let writes = match command {
        Several::Rename { from, to, .. } if from == to => 0,
        Several::Rename { .. } => 2,
        Several::Copy { .. } | Several::BitOp { .. } => 1,
        Several::Lcs { .. } => 0,
    };
    if refused(replies, range.clone(), range.end - writes..range.end, out) {
        return;
    }
    let answer = match command {
        Several::Copy { .. } => ReplyRef::Int(i64::from(!is(0, 0) && !is(range.len() - 2, 0))),
        Several::Rename { .. } if is(0, 0) => ReplyRef::Error(NO_SUCH_KEY.into()),
        Several::Rename { from, to, if_absent: true } => ReplyRef::Int(i64::from(from != to && !is(1, 0))),
        Several::Rename { if_absent: false, .. } => ReplyRef::Ok,
        Several::BitOp { .. } => return out.append(replies, range.end - 1..range.end),
        Several::Lcs { .. } => unreachable!("its reply takes longer, see `lcs`"),
    };
    out.reply(answer);
}

/// A command on keys of several partitions: one operation after another.
pub(super) async fn apart(desk: &Rc<Desk>, command: Several, terms: Terms, out: &mut ReplyBuf) {
    let done = match command {
        Several::Copy { from, to, replace } => copy(desk, from, (to, replace), terms).await,
        Several::Rename { from, to, if_absent } => rename(desk, from, (to, if_absent), terms).await,
        Several::BitOp { how, to, from } => bit_op(desk, how, (to, from), terms).await,
        Several::Lcs { keys, ask } => {
            let reads = keys.into_iter().map(|key| Op::new(key, Act::Get)).collect();
            let replies = execute(desk, reads, terms, 0).await;
            return lcs::reply(desk, &replies, 0..replies.replies(), ask, terms, out).await;
        }
    };
    match done {
        Ok(reply) => out.reply(reply),
        Err(error) => out.append_all(error),
    }
}

/// What came of a command: its reply, or the reply that is an error of one of its operations.
type Done = Result<ReplyRef<'static>, ReplyBuf>;

async fn copy(desk: &Rc<Desk>, from: Bytes, (to, replace): (Bytes, bool), terms: Terms) -> Done {
    let Some(whole) = fetch(desk, from, terms).await? else { return Ok(ReplyRef::Int(0)) };
    let when = if replace { When::Always } else { When::Absent };
    Ok(ReplyRef::Int(i64::from(put(desk, to, whole, (when, SetAnswer::Copied), terms).await?)))
}

/// Stores a copy, then deletes the original if that has not changed meanwhile, else copies it again: whatever happens, the value is in one of
/// the two places.
async fn rename(desk: &Rc<Desk>, from: Bytes, (to, if_absent): (Bytes, bool), terms: Terms) -> Done {
    let mut when = if if_absent { When::Absent } else { When::Always };
    let done = if if_absent { ReplyRef::Int(1) } else { ReplyRef::Ok };
    for attempt in 0..RENAMES_MAX {
        let whole = match fetch(desk, from.clone(), terms).await {
            Ok(Some(whole)) => whole,
            Ok(None) if attempt == 0 => return Ok(ReplyRef::Error(NO_SUCH_KEY.into())),
            // Somebody deleted it after it was copied.
            Ok(None) => return Ok(done),
            Err(error) if attempt == 0 => return Err(error),
            Err(error) => return Err(partly(&error, terms)),
        };
        let since = whole.seen;
        match put(desk, to.clone(), whole, (when, SetAnswer::Moved), terms).await {
            Ok(true) => when = When::Always,
            Ok(false) => return Ok(ReplyRef::Int(0)),
            Err(error) if attempt == 0 => return Err(error),
            Err(error) => return Err(partly(&error, terms)),
        }
        let depart = Act::Renaming(Renaming::Depart);
        let delete = vec![Op::new(from.clone(), Act::Unchanged { since }), Op::new(from.clone(), depart)];
        let replies = together(desk, delete, terms).await;
        if failed(&replies, 0..2).is_some() {
            return Err(partly(&replies, terms));
        }
        if replies.kind(0) != Some(ReplyKind::Int(0)) {
            return Ok(done);
        }
    }
    Ok(ReplyRef::Error(STILL_CHANGING.into()))
}

async fn bit_op(desk: &Rc<Desk>, how: BitOp, (to, from): (Bytes, Vec<Bytes>), terms: Terms) -> Done {
    let mut at_hand = None;
    // One after another: so there are two values at a time, however many there are.
    for key in from {
        let replies = execute(desk, vec![Op::new(key, Act::Get)], terms, 0).await;
        if replies.kind(0) == Some(ReplyKind::Error) {
            return Err(replies);
        }
        at_hand = Some(combine(how, at_hand, &lcs::bulk(&replies, 0).unwrap_or_default()));
    }
    let result = Bytes::from(at_hand.unwrap_or_default());
    let len = i64::try_from(result.len()).expect("values are bounded");
    let act = Act::Set { expiry: Expiry::Clear, when: When::Always, answer: SetAnswer::Done, flags: 0 };
    let write = if result.is_empty() { Op::new(to, Act::Delete) } else { Op { key: to, act, value: result } };
    let replies = execute(desk, vec![write], terms, 0).await;
    if replies.kind(0) == Some(ReplyKind::Error) { Err(replies) } else { Ok(ReplyRef::Int(len)) }
}

/// Reads a value with all that belongs to it.
async fn fetch(desk: &Rc<Desk>, key: Bytes, terms: Terms) -> Result<Option<Whole>, ReplyBuf> {
    let replies = execute(desk, vec![Op::new(key, Act::Whole)], terms, 0).await;
    if replies.kind(0) == Some(ReplyKind::Error) {
        return Err(replies);
    }
    Ok(lcs::bulk(&replies, 0).and_then(|bytes| Whole::from_bytes(&bytes)))
}

/// Stores a value with all that belongs to it; whether it was stored.
async fn put(
    desk: &Rc<Desk>,
    key: Bytes,
    whole: Whole,
    (when, answer): (When, SetAnswer),
    terms: Terms,
) -> Result<bool, ReplyBuf> {
    let at = |deadline| Deadline::At(i64::try_from(deadline).unwrap_or(i64::MAX));
    let expiry = whole.deadline.map_or(Expiry::Clear, |deadline| Expiry::Until(at(deadline)));
    let act = Act::Set { expiry, when, answer, flags: whole.flags };
    let replies = execute(desk, vec![Op { key, act, value: whole.value }], terms, 0).await;
    if replies.kind(0) == Some(ReplyKind::Error) {
        return Err(replies);
    }
    Ok(replies.kind(0) == Some(ReplyKind::Int(1)))
}

/// The reply where an error came after something was done.
fn partly(replies: &ReplyBuf, terms: Terms) -> ReplyBuf {
    let mut out = ReplyBuf::new(terms.wire);
    in_part(replies, failed(replies, 0..replies.replies()).unwrap_or(0), &mut out);
    out
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

    fn answered(command: &Several, parts: &[ReplyRef<'_>]) -> String {
        assert_eq!(steps(command).len(), parts.len());
        let mut out = ReplyBuf::new(Wire::Resp2);
        reply(&replies(parts), 0..parts.len(), command, &mut out);
        text(out)
    }

    #[test]
    fn what_is_passed_over_and_what_fails_is_told() {
        let (go, stop, over, done) = (ReplyRef::Int(1), ReplyRef::Int(0), ReplyRef::Null, ReplyRef::Int(5));
        let full = || ReplyRef::Error("OOM full".into());
        let copy = |replace| Several::Copy { from: "a".into(), to: "b".into(), replace };
        let rename = |to: &'static str, if_absent| Several::Rename { from: "a".into(), to: to.into(), if_absent };
        for (command, parts, expected) in [
            (copy(true), vec![go.clone(), done.clone()], ":1\r\n"),
            (copy(true), vec![stop.clone(), over.clone()], ":0\r\n"),
            (copy(true), vec![go.clone(), full()], "-OOM full\r\n"),
            (copy(false), vec![go.clone(), go.clone(), done.clone()], ":1\r\n"),
            (copy(false), vec![go.clone(), stop.clone(), over.clone()], ":0\r\n"),
            (copy(false), vec![stop.clone(), over.clone(), over.clone()], ":0\r\n"),
            (rename("b", false), vec![go.clone(), done.clone(), go.clone()], "+OK\r\n"),
            (rename("b", false), vec![stop.clone(), over.clone(), over.clone()], "-ERR no such key\r\n"),
            (rename("b", false), vec![go.clone(), full(), over.clone()], "-OOM full\r\n"),
            (rename("b", true), vec![go.clone(), go.clone(), done.clone(), go.clone()], ":1\r\n"),
            (rename("b", true), vec![go.clone(), stop.clone(), over.clone(), over.clone()], ":0\r\n"),
            (rename("b", true), vec![stop.clone(), over.clone(), over.clone(), over], "-ERR no such key\r\n"),
            (rename("a", false), vec![go.clone()], "+OK\r\n"),
            (rename("a", true), vec![go.clone()], ":0\r\n"),
            (rename("a", true), vec![stop], "-ERR no such key\r\n"),
        ] {
            assert_eq!(answered(&command, &parts), expected, "{command:?} {parts:?}");
        }
        let in_part = answered(&rename("b", false), &[go, done, ReplyRef::Error("NOQUORUM x".into())]);
        assert!(in_part.starts_with("-NOQUORUM done for some") && in_part.ends_with("applied: unknown\r\n"));
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
