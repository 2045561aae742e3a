//! The envelope around every gossip datagram: says whose it is before anything inside is looked at. Never decodes what it carries.
//! Tested below, with golden bytes.
//!
//! ```text
//! offset  bytes  field
//!      0      3  magic "TRG"
//!      3      1  version, 1
//!      4      8  cluster fingerprint, little endian (`ClusterName::fingerprint`)
//!     12      1  kind: 0 packet, 1 announce, 2 challenge
//!     13      8  digest of the sender's ring membership, little endian
//!     21      8  epoch of the sender's ring, little endian
//!     29      n  payload, n <= PAYLOAD_BYTES_MAX
//! ```
//!
//! The fingerprint keeps strangers apart, it authenticates nobody. A later version seals kind to payload with an AEAD: a key id (4 bytes)
//! and a nonce (24) follow the fingerprint, a tag (16) ends the datagram, and the first twelve bytes are its associated data.
//! [`SEAL_BYTES`] keeps that room free today, so sealing will not shrink what fits.

use crate::base::limits::DATAGRAM_BYTES_MAX;

const MAGIC: &[u8; 3] = b"TRG";
const VERSION: u8 = 1;
/// Bytes in front of the payload.
pub const HEADER_BYTES: usize = 29;
/// Kept free for a key id, a nonce and a tag, rounded up.
pub const SEAL_BYTES: usize = 48;
/// Longest payload.
pub const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES - SEAL_BYTES;

/// What the payload is. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A packet of the SWIM protocol.
    Packet,
    /// A member presents itself to whoever lives at an address.
    Announce,
    /// A member asks another whether it is alive, and says what it believes.
    Challenge,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Packet => 0,
            Self::Announce => 1,
            Self::Challenge => 2,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Packet),
            1 => Some(Self::Announce),
            2 => Some(Self::Challenge),
            _ => None,
        }
    }
}

/// What every datagram of one node says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Fingerprint of the cluster's name.
    pub cluster: u64,
    /// Digest of the sender's ring membership.
    pub digest: u64,
    /// Epoch of the sender's ring.
    pub epoch: u64,
}

/// A datagram opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The sender's words about itself; `cluster` is ours.
    pub stamp: Stamp,
    /// What the payload is.
    pub kind: Kind,
    /// Up to [`PAYLOAD_BYTES_MAX`] bytes that nothing has looked at yet.
    pub payload: &'a [u8],
}

/// Why a datagram was refused. Nothing was changed; do not retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No envelope of ours.
    #[error("not a gossip datagram")]
    Garbage,
    /// An envelope of another protocol version.
    #[error("gossip version {0} where {VERSION} is spoken")]
    Version(u8),
    /// A node of another cluster.
    #[error("a datagram of another cluster")]
    Cluster,
}

/// Puts `payload` in an envelope.
///
/// # Panics
///
/// When the payload is longer than [`PAYLOAD_BYTES_MAX`]: its maker knows the bound.
pub fn encode(stamp: Stamp, kind: Kind, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a payload of {} bytes does not fit a datagram", payload.len());
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&stamp.cluster.to_le_bytes());
    bytes.push(kind.byte());
    bytes.extend_from_slice(&stamp.digest.to_le_bytes());
    bytes.extend_from_slice(&stamp.epoch.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Opens an envelope addressed to `cluster`.
///
/// # Errors
///
/// [`Refused`], in the order of its variants' cost: a version or a cluster is only named when the bytes before it were ours.
pub fn decode(cluster: u64, bytes: &[u8]) -> Result<Datagram<'_>, Refused> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(Refused::Garbage)?;
    let (&version, rest) = rest.split_first().ok_or(Refused::Garbage)?;
    if version != VERSION {
        return Err(Refused::Version(version));
    }
    let (theirs, rest) = take_u64(rest)?;
    if theirs != cluster {
        return Err(Refused::Cluster);
    }
    let (&kind, rest) = rest.split_first().ok_or(Refused::Garbage)?;
    let kind = Kind::of(kind).ok_or(Refused::Garbage)?;
    let (digest, rest) = take_u64(rest)?;
    let (epoch, payload) = take_u64(rest)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Refused::Garbage);
    }
    Ok(Datagram { stamp: Stamp { cluster, digest, epoch }, kind, payload })
}

fn take_u64(bytes: &[u8]) -> Result<(u64, &[u8]), Refused> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Refused::Garbage)?;
    Ok((u64::from_le_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::ClusterName;

    const STAMP: Stamp = Stamp { cluster: 0x0807_0605_0403_0201, digest: 0x18, epoch: 0x2827 };

    #[test]
    fn the_bytes_of_an_envelope_are_golden() {
        let golden: &[u8] = b"TRG\x01\x01\x02\x03\x04\x05\x06\x07\x08\x01\x18\0\0\0\0\0\0\0\x27\x28\0\0\0\0\0\0hi";
        assert_eq!(encode(STAMP, Kind::Announce, b"hi"), golden);
        let shown: Vec<String> = golden.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(include_str!("../../docs/PROTOCOL.md").contains(&shown.join(" ")), "the document shows these bytes");
        let opened = decode(STAMP.cluster, golden).unwrap();
        assert_eq!(opened, Datagram { stamp: STAMP, kind: Kind::Announce, payload: b"hi" });
        assert_eq!("trellis".parse::<ClusterName>().unwrap().fingerprint(), 5_597_111_145_929_733_197);
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let good = encode(STAMP, Kind::Packet, b"");
        assert_eq!(good.len(), HEADER_BYTES);
        for cut in 0..HEADER_BYTES {
            assert_eq!(decode(STAMP.cluster, &good[..cut]), Err(Refused::Garbage), "cut at {cut}");
        }
        assert_eq!(decode(1, &good), Err(Refused::Cluster));
        let mut other = good.clone();
        other[3] = 2;
        assert_eq!(decode(STAMP.cluster, &other), Err(Refused::Version(2)));
        let mut unknown = good.clone();
        unknown[12] = 3;
        assert_eq!(decode(STAMP.cluster, &unknown), Err(Refused::Garbage));
        let mut long = good;
        long.resize(HEADER_BYTES + PAYLOAD_BYTES_MAX + 1, 0);
        assert_eq!(decode(STAMP.cluster, &long), Err(Refused::Garbage));
    }

    proptest! {
        #[test]
        fn any_bytes_are_opened_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1300), ours in any::<bool>()) {
            let mut bytes = bytes;
            if ours {
                bytes.splice(0..0, *b"TRG\x01\0\0\0\0\0\0\0\0");
            }
            let _ = decode(0, &bytes);
        }

        #[test]
        fn what_was_enveloped_comes_out(
            cluster: u64, digest: u64, epoch: u64, kind in 0u8..3, payload in prop::collection::vec(any::<u8>(), 0..=PAYLOAD_BYTES_MAX),
        ) {
            let (stamp, kind) = (Stamp { cluster, digest, epoch }, Kind::of(kind).unwrap());
            let bytes = encode(stamp, kind, &payload);
            prop_assert!(bytes.len() + SEAL_BYTES <= DATAGRAM_BYTES_MAX);
            prop_assert_eq!(decode(cluster, &bytes), Ok(Datagram { stamp, kind, payload: &payload }));
        }
    }
}
