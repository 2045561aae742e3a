//! Acts that change nothing. Never write, except that reading may sweep what has expired. Compared with redis-server in `storage::tests`.

use std::borrow::Cow;

use super::{Target, bulk};
use crate::base::reply::{ReplyRef, ReplySink};
use crate::storage::store::Store;

impl Store {
    pub(super) fn get(&mut self, to: Target<'_>, sink: &mut impl ReplySink) {
        let found = self.value(to).map(|live| sink.reply(bulk(live))).is_some();
        if !found {
            sink.reply(ReplyRef::Null);
        }
        self.count_lookup(found);
    }

    /// `EXISTS`, and `TOUCH`, which is a use.
    pub(super) fn presence(&mut self, to: Target<'_>, touch: bool, sink: &mut impl ReplySink) {
        let found = self.read(to.table, to.key, to.now, touch).is_some();
        self.count_lookup(found);
        sink.reply(ReplyRef::Int(i64::from(found)));
    }

    pub(super) fn kind(&mut self, to: Target<'_>, sink: &mut impl ReplySink) {
        let found = self.glance(to).is_some();
        self.count_lookup(found);
        sink.reply(ReplyRef::Simple(Cow::Borrowed(if found { "string" } else { "none" })));
    }

    pub(super) fn strlen(&mut self, to: Target<'_>, sink: &mut impl ReplySink) {
        let len = self.value(to).map(|live| live.value().len());
        self.count_lookup(len.is_some());
        sink.reply(ReplyRef::Int(len.unwrap_or(0) as i64));
    }

    pub(super) fn get_range(&mut self, to: Target<'_>, start: i64, end: i64, sink: &mut impl ReplySink) {
        let found = self.value(to).map(|live| {
            let value = live.value();
            sink.reply(ReplyRef::Bulk(range(value.len(), start, end).and_then(|r| value.get(r)).unwrap_or_default()));
        });
        let found = found.is_some();
        if !found {
            sink.reply(ReplyRef::Bulk(b""));
        }
        self.count_lookup(found);
    }

    /// Seconds round half up, as in Redis's `ttlGenericCommand`.
    pub(super) fn ttl(&mut self, to: Target<'_>, ms: bool, absolute: bool, sink: &mut impl ReplySink) {
        let deadline = self.glance(to).map(|live| live.deadline());
        self.count_lookup(deadline.is_some());
        sink.reply(ReplyRef::Int(match deadline {
            None => -2,
            Some(None) => -1,
            Some(Some(deadline)) => {
                let at = if absolute { deadline } else { deadline.saturating_sub(to.now) };
                let at = if ms { at } else { at.saturating_add(500) / 1_000 };
                i64::try_from(at).unwrap_or(i64::MAX)
            }
        }));
    }
}

/// The bytes from `start` to `end`, both inclusive and negative from the end, as in Redis's `getrangeCommand`; `None` when there are none.
fn range(len: usize, start: i64, end: i64) -> Option<std::ops::Range<usize>> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let len_i64 = i64::try_from(len).ok()?;
    let from_end = |at: i64| if at < 0 { len_i64.saturating_add(at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(len_i64 - 1));
    (start <= end && len > 0).then(|| start as usize..end as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_rules_of_redis() {
        for (len, start, end, expected) in [
            (5, 0, -1, Some(0..5)),
            (5, 1, 3, Some(1..4)),
            (5, -3, -2, Some(2..4)),
            (5, -100, 100, Some(0..5)),
            (5, 3, 1, None),
            (5, 5, 10, None),
            (5, -1, -5, None),
            (5, 0, -100, Some(0..1)),
            (5, -100, -50, Some(0..1)),
            (0, 0, -1, None),
            (5, i64::MIN, i64::MAX, Some(0..5)),
        ] {
            assert_eq!(range(len, start, end), expected, "{len} {start} {end}");
        }
    }
}
