//! The client's only reader of clocks: everything else here takes `now` from it.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::base::hlc::UnixMs;

/// The monotonic time.
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The wall clock, by which a command's deadline is found to be too far away. When something happens is never decided by it.
pub(super) fn unix_ms() -> UnixMs {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(UnixMs::MAX)
}
