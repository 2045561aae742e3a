//! Acts that change a deadline and keep the value. Compared with redis-server in `storage::tests`.

use super::{Mutated, Target, bulk};
use crate::base::hlc::UnixMs;
use crate::base::op::{Deadline, ExpireWhen, Expiry, absolute};
use crate::base::reply::{ReplyRef, ReplySink};
use crate::storage::store::Store;

impl Store {
    pub(super) fn get_ex(
        &mut self,
        to: Target<'_>,
        expiry: Expiry,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        let found = self.value(to).map(|live| {
            sink.reply(bulk(live));
            live.deadline()
        });
        self.count_lookup(found.is_some());
        let Some(present) = found else { return sink.reply(ReplyRef::Null) };
        match expiry {
            Expiry::Keep => {}
            Expiry::Clear if present.is_none() => {}
            Expiry::Clear => self.set_deadline(to, None, mutated),
            Expiry::Until(at) => self.set_deadline(to, Some(absolute(at, to.now)), mutated),
        }
    }

    pub(super) fn expire_at(
        &mut self,
        to: Target<'_>,
        at: Deadline,
        when: ExpireWhen,
        sink: &mut impl ReplySink,
        mutated: &mut impl Mutated,
    ) {
        let at = absolute(at, to.now);
        let present = self.glance(to).map(|live| live.deadline());
        let done = present.is_some_and(|present| allows(when, present, at));
        if done {
            self.set_deadline(to, Some(at), mutated);
        }
        sink.reply(ReplyRef::Int(i64::from(done)));
    }

    pub(super) fn persist(&mut self, to: Target<'_>, sink: &mut impl ReplySink, mutated: &mut impl Mutated) {
        let done = self.glance(to).is_some_and(|live| live.deadline().is_some());
        if done {
            self.set_deadline(to, None, mutated);
        }
        sink.reply(ReplyRef::Int(i64::from(done)));
    }
}

/// Redis's `expireGenericCommand`: no deadline is later than any.
fn allows(when: ExpireWhen, present: Option<UnixMs>, at: UnixMs) -> bool {
    !(when.no_deadline && present.is_some()
        || when.deadline && present.is_none()
        || when.later && present.is_none_or(|present| at <= present)
        || when.earlier && present.is_some_and(|present| at >= present))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_with_the_present_deadline() {
        let (nx, xx, gt, lt) = (
            ExpireWhen { no_deadline: true, ..ExpireWhen::default() },
            ExpireWhen { deadline: true, ..ExpireWhen::default() },
            ExpireWhen { later: true, ..ExpireWhen::default() },
            ExpireWhen { earlier: true, ..ExpireWhen::default() },
        );
        for (when, present, expected) in [
            (ExpireWhen::default(), None, true),
            (nx, None, true),
            (nx, Some(5), false),
            (xx, None, false),
            (xx, Some(5), true),
            (gt, None, false),
            (gt, Some(9), true),
            (gt, Some(10), false),
            (lt, None, true),
            (lt, Some(10), false),
            (lt, Some(11), true),
        ] {
            assert_eq!(allows(when, present, 10), expected, "{when:?} {present:?}");
        }
    }
}
