//! Which pauses of an arbiter are worth a log line: a machine that is out of breath has thousands. Never reads a clock. Tested below.

use std::time::Duration;

use tokio::time::Instant;

/// At most one line in this time.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Pauses since the last line.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    told: Option<Instant>,
    count: u64,
    longest: Duration,
}

impl Pauses {
    /// Notes a pause that ended now. Gives what to tell, if a line is due: how many there were since the last line, and the longest.
    pub(super) fn note(&mut self, now: Instant, paused: Duration) -> Option<(u64, Duration)> {
        self.count += 1;
        self.longest = self.longest.max(paused);
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < TELL_EVERY) {
            return None;
        }
        let told = (self.count, self.longest);
        *self = Self { told: Some(now), ..Self::default() };
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pauses_are_one_line_a_second_with_their_number_and_the_longest() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut pauses = Pauses::default();
        let mut note = |at, paused| pauses.note(start + ms(at), ms(paused));
        assert_eq!(note(0, 200), Some((1, ms(200))));
        assert_eq!([note(300, 250), note(700, 900), note(999, 201)], [None; 3]);
        assert_eq!(note(1_300, 300), Some((4, ms(900))));
        assert_eq!(note(2_300, 210), Some((1, ms(210))));
    }
}
