//! The bytes of native frames, pinned: a change here is a new protocol version. `docs/PROTOCOL.md` shows the same bytes.

use super::frame::{LENGTH_BYTES, decode, to_bytes};
use super::*;
use crate::base::entry::BodyRef;
use crate::base::op::{Act, Expiry, SetAnswer, When};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn pinned(message: &Message<'_>, expected: &str) {
    let bytes = to_bytes(message);
    assert_eq!(hex(&bytes), expected.replace(' ', ""), "{message:?}");
    assert_eq!(decode(&bytes[LENGTH_BYTES..]).as_ref(), Ok(message));
}

const VERSION_OF_7: Version = Version { time: 7 << 16, origin: 9 };
