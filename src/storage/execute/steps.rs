//! What transactions are made of besides ordinary acts: looking at a key for `WATCH`, comparing it at `EXEC`, and conditions that pass over
//! the acts after them. Never leaves anything out itself: whoever executes asks [`Store::take_skip`] how many. Tested in `storage::tests::steps`.

use super::Target;
use crate::base::hlc::Version;
use crate::base::reply::{ReplyRef, ReplySink};
use crate::base::seen::Seen;
use crate::storage::store::Store;

/// How far a transaction that failed skips: over all there is.
const TO_THE_END: usize = usize::MAX;

impl Store {
    /// How many of the operations after the last one are to be passed over. Told once.
    pub fn take_skip(&mut self) -> usize {
        std::mem::take(&mut self.skip)
    }

    pub(super) fn look(&mut self, to: Target<'_>, sink: &mut impl ReplySink) {
        let mut seen = self.seen(to);
        if !seen.live {
            let version = self.watched.look(to.key.hash, seen.version(), to.now);
            seen = Seen::new(version, false);
        }
        sink.reply(ReplyRef::Bulk(seen.to_text().as_bytes()));
    }

    pub(super) fn unchanged(&mut self, to: Target<'_>, since: Seen, sink: &mut impl ReplySink) {
        let is_unchanged = since.still(self.seen(to));
        self.go_on_if(is_unchanged, TO_THE_END, sink);
    }

    pub(super) fn absent(&mut self, to: Target<'_>, skip: u32, sink: &mut impl ReplySink) {
        let is_absent = self.glance(to).is_none();
        self.go_on_if(is_absent, skip as usize, sink);
    }

    fn go_on_if(&mut self, holds: bool, skip: usize, sink: &mut impl ReplySink) {
        self.skip = if holds { 0 } else { skip };
        sink.reply(ReplyRef::Int(i64::from(holds)));
    }

    fn seen(&mut self, to: Target<'_>) -> Seen {
        // Looks first: reading sweeps what has expired, which may leave nothing of its version.
        let version = self.tables[to.table].version(to.key).unwrap_or(Version::ZERO);
        let live = self.glance(to).is_some();
        Seen::new(if live { version } else { self.watched.newest(to.key.hash, version) }, live)
    }
}
