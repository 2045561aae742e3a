//! What a key was seen to hold, as `WATCH` remembers it. Never looks itself: `storage` does. Tested below.

use serde::{Deserialize, Serialize};

use super::hlc::Version;

/// The state of a key at one moment: what is written after it is told from it by its version. 16 bytes, so that no operation grows by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// [`Version::time`] of what was there, a tombstone's or an expired value's included; 0 if there was nothing.
    pub time: u64,
    /// [`Version::origin`] of the same.
    pub origin: u32,
    /// Whether it was a value.
    pub live: bool,
}

/// Length of the text.
const TEXT_BYTES: usize = 25;

impl Seen {
    /// What holds this version.
    pub fn new(version: Version, live: bool) -> Self {
        Self { time: version.time, origin: version.origin, live }
    }

    /// Of what was there; [`Version::ZERO`] if there was nothing.
    pub fn version(self) -> Version {
        Version { time: self.time, origin: self.origin }
    }

    /// Whether a key that is now as `now` has not been written since. What was absent and is no longer remembered has not: a delete that
    /// matters leaves something newer.
    pub fn still(self, now: Self) -> bool {
        let forgotten = now.version() == Version::ZERO;
        self.live == now.live && (self == now || !now.live && forgotten)
    }

    /// As it travels in a reply.
    pub fn to_text(self) -> String {
        format!("{}{:016x}{:08x}", u8::from(self.live), self.time, self.origin)
    }

    /// Reads [`Self::to_text`].
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == TEXT_BYTES)?;
        let live = match text.as_bytes()[0] {
            b'0' => false,
            b'1' => true,
            _ => return None,
        };
        let time = u64::from_str_radix(text.get(1..17)?, 16).ok()?;
        let origin = u32::from_str_radix(text.get(17..)?, 16).ok()?;
        Some(Self { time, origin, live })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(time: u64, live: bool) -> Seen {
        Seen { time, origin: u32::from(time > 0), live }
    }

    #[test]
    fn a_key_is_as_it_was_while_its_version_is() {
        for (then, now, still) in [
            (seen(5, true), seen(5, true), true),
            (seen(5, true), seen(6, true), false),
            (seen(5, true), seen(6, false), false),
            // Expired: the version stays, the value does not.
            (seen(5, true), seen(5, false), false),
            (seen(5, true), seen(0, false), false),
            (seen(0, false), seen(0, false), true),
            (seen(0, false), seen(6, true), false),
            // Written and deleted again.
            (seen(0, false), seen(6, false), false),
            (seen(5, false), seen(6, false), false),
            // The tombstone is gone, and nothing came after it.
            (seen(5, false), seen(0, false), true),
        ] {
            assert_eq!(then.still(now), still, "{then:?} {now:?}");
        }
    }

    #[test]
    fn its_text_reads_back_and_nothing_else_does() {
        for seen in [seen(0, false), seen(5, true), Seen { time: u64::MAX, origin: u32::MAX, live: false }] {
            assert_eq!(Seen::from_text(seen.to_text().as_bytes()), Some(seen));
        }
        let text = seen(5, true).to_text();
        for bad in ["", &text[1..], &format!("{text}0"), &text.replacen('1', "2", 1), &"x".repeat(25), &"é".repeat(13)]
        {
            assert_eq!(Seen::from_text(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Seen>(), 16);
    }
}
