//! What of an answer fits one frame: replies beyond are replaced by errors, entries beyond are left for the next question. Never encodes
//! frames. Tested below.

use crate::base::entry::{BodyRef, EntryRef};
use crate::base::limits::FRAME_BYTES_MAX;
use crate::base::reply::{ReplyRef, ReplySink};
use crate::protocol::native::Holding;
use crate::protocol::resp::encode::ReplyBuf;

/// What each reply may take besides its share of the room: its mark, and an error in its place.
const REPLY_BYTES: usize = 128;
/// For all other fields of an answer.
const HEAD_BYTES: usize = 1024;
/// Room for the replies of one `Forward`.
pub(super) const REPLIES_BYTES_MAX: usize = FRAME_BYTES_MAX - HEAD_BYTES;
/// Operations of one `Forward`: so many that an error for each fits a frame.
pub(super) const FORWARD_OPS_MAX: usize = REPLIES_BYTES_MAX / REPLY_BYTES;
/// Entries of one answer take about this, unless the first alone is larger: a few milliseconds of a link, which must not fall silent.
pub(super) const ENTRIES_BYTES_TARGET: usize = 8 * 1024 * 1024;
/// The same of a survey, which is not asked again for the rest.
pub(super) const SURVEY_BYTES_TARGET: usize = FRAME_BYTES_MAX / 2;

const UNREAD: &str = "ERR the replies are too large for one answer, applied: no";
const UNTOLD: &str = "ERR the replies are too large for one answer, applied: unknown";

/// The replies, those that have no room within `bytes_max` as errors. `writes` tells which of the operations can change a key.
///
/// # Panics
/// When an error for each has no room.
pub(super) fn replies(all: ReplyBuf, writes: &[bool], bytes_max: usize) -> ReplyBuf {
    let count = all.replies();
    let mut left = bytes_max.checked_sub(count * REPLY_BYTES).expect("operations are bounded where they arrive");
    if all.slices_len(0..count) <= left {
        return all;
    }
    let mut fitting = ReplyBuf::new(all.wire());
    for n in 0..count {
        let bytes = all.slices_len(n..n + 1);
        if bytes <= left {
            left -= bytes;
            fitting.append(&all, n..n + 1);
        } else {
            let may_have_written = writes.get(n).is_none_or(|writes| *writes);
            fitting.reply(ReplyRef::Error(if may_have_written { UNTOLD } else { UNREAD }.into()));
        }
    }
    fitting
}

/// How many of these, from the first on, take about `bytes_target` together: at least one if there is any.
pub(super) fn page(holdings: &[Holding<'_>], bytes_target: usize) -> usize {
    let mut bytes = 0;
    let fits = holdings.iter().take_while(|holding| {
        bytes += bytes_of(holding);
        bytes <= bytes_target
    });
    fits.count().max(1).min(holdings.len())
}

fn bytes_of(holding: &Holding<'_>) -> usize {
    match holding {
        Holding::Entry(EntryRef { body: BodyRef::Live { value, .. }, .. }) => value.len() + size_of::<Holding<'_>>(),
        _ => size_of::<Holding<'_>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hlc::Version;
    use crate::base::marks::Marks;
    use crate::base::reply::{ReplyKind, Wire};
    use bytes::{Buf, Bytes};

    fn of(lengths: &[usize]) -> ReplyBuf {
        let mut replies = ReplyBuf::new(Wire::Resp2);
        lengths.iter().for_each(|length| replies.reply(ReplyRef::Shared(&Bytes::from(vec![b'v'; *length]))));
        replies
    }

    #[test]
    fn replies_that_fit_stay_as_they_are() {
        let (mut before, all) = (of(&[10, 90_000]), of(&[10, 90_000]));
        let mut after = replies(all, &[false, true], 91_000);
        assert_eq!(after.copy_to_bytes(after.remaining()), before.copy_to_bytes(before.remaining()));
    }

    #[test]
    fn replies_that_have_no_room_become_errors_that_say_what_was_done() {
        let after = replies(of(&[600, 600, 600, 10]), &[false, false, true, false], 4 * REPLY_BYTES + 700);
        let kinds: Vec<_> = (0..4).map(|n| after.kind(n).unwrap()).collect();
        assert_eq!(kinds, [ReplyKind::Value, ReplyKind::Error, ReplyKind::Error, ReplyKind::Value]);
        let text = |n: usize| String::from_utf8(after.slices(n..n + 1).collect::<Vec<_>>().concat()).unwrap();
        assert!(text(1).ends_with("applied: no\r\n") && text(2).ends_with("applied: unknown\r\n"));
        assert!(after.slices_len(0..after.replies()) <= 4 * REPLY_BYTES + 700);
    }

    #[test]
    fn as_many_errors_as_operations_may_come_fit_a_frame() {
        // A mark: where the reply ends, its kind, an integer.
        assert!(UNTOLD.len().max(UNREAD.len()) + "-\r\n".len() + 5 + 1 + 10 <= REPLY_BYTES);
        const { assert!(FORWARD_OPS_MAX * REPLY_BYTES <= REPLIES_BYTES_MAX) };
    }

    #[test]
    fn a_page_has_a_bound_and_at_least_one_entry() {
        let value = vec![0; 1_000];
        let body = BodyRef::Live { value: &value, deadline: None, marks: Marks::default() };
        let holdings = [Holding::Entry(EntryRef { version: Version::ZERO, body }); 5];
        assert_eq!([0, 1, 2_500, 1 << 20].map(|target| page(&holdings, target)), [1, 1, 2, 5]);
        assert_eq!(page(&[], 10), 0);
    }
}
