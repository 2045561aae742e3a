//! What a member is called on the wire and which of two lives of one node is the later. Never decides who is alive. Tested below.

use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, PostcardCodec};
use serde::{Deserialize, Serialize};

use crate::base::id::NodeId;

/// One life of one node. SWIM's "down" is final for it: a member that was called down by mistake comes back as the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    pub(super) address: SocketAddr,
    /// The life of the process.
    pub(super) incarnation: u64,
    /// How many times it had to come back within that life.
    pub(super) bump: u32,
    /// It says good-bye: down, but not failed. Travels with the rumour of its death.
    pub(super) left: bool,
}

impl Identity {
    /// Of two lives the one with the greater rank is kept. Each return doubles its leap over the incarnation: a process whose clock
    /// went back by `t` milliseconds overtakes its former self after `log2(t)` round trips.
    pub(super) fn rank(&self) -> (u64, u64, u32, bool, SocketAddr) {
        let leap = if self.bump == 0 { 0 } else { 1 << self.bump.min(62) };
        (self.incarnation.saturating_add(leap), self.incarnation, self.bump, self.left, self.address)
    }

    /// The same, later.
    pub(super) fn next(&self) -> Self {
        Self { bump: self.bump.saturating_add(1), ..self.clone() }
    }
}

/// Whether an address can be written to.
pub(super) fn can_write_to(address: SocketAddr) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

impl foca::Identity for Identity {
    /// One node is one member wherever it lives, so a node that moves leaves nothing behind.
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(self.next())
    }

    fn addr(&self) -> NodeId {
        self.node.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank() > adversary.rank()
    }
}

/// Encodes what foca sends. Refuses what could not be answered.
pub(super) struct Wire;

/// Why bytes were no packet. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPacket {
    #[error(transparent)]
    Bytes(<PostcardCodec as Codec<Identity>>::Error),
    #[error("an address that can't be written to")]
    Address,
}

fn checked(id: &Identity) -> Result<(), BadPacket> {
    if can_write_to(id.address) { Ok(()) } else { Err(BadPacket::Address) }
}

impl Codec<Identity> for Wire {
    type Error = BadPacket;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), BadPacket> {
        PostcardCodec.encode_header(header, buf).map_err(BadPacket::Bytes)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, BadPacket> {
        let header: Header<Identity> = PostcardCodec.decode_header(buf).map_err(BadPacket::Bytes)?;
        checked(&header.src)?;
        match &header.message {
            Message::PingReq { target: other, .. }
            | Message::IndirectPing { origin: other, .. }
            | Message::IndirectAck { target: other, .. }
            | Message::ForwardedAck { origin: other, .. } => checked(other)?,
            _ => {}
        }
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), BadPacket> {
        PostcardCodec.encode_member(member, buf).map_err(BadPacket::Bytes)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, BadPacket> {
        let member: Member<Identity> = PostcardCodec.decode_member(buf).map_err(BadPacket::Bytes)?;
        checked(member.id())?;
        Ok(member)
    }
}

#[cfg(test)]
mod tests {
    use foca::Identity as _;

    use super::*;

    fn life(incarnation: u64, bump: u32) -> Identity {
        let address = "10.0.0.1:5000".parse().unwrap();
        Identity { node: "a".parse().unwrap(), address, incarnation, bump, left: false }
    }

    #[test]
    fn a_later_process_or_a_return_supersedes() {
        assert!(life(2, 0).win_addr_conflict(&life(1, 0)));
        assert!(life(1, 1).win_addr_conflict(&life(1, 0)));
        assert!(Identity { left: true, ..life(1, 1) }.win_addr_conflict(&life(1, 1)));
        assert!(!life(1, 0).win_addr_conflict(&life(1, 0)));
    }

    #[test]
    fn returns_outrank_each_other_for_ever_and_overtake_a_clock_that_went_back() {
        let mut last = life(1_700_000_000_000, 0);
        for _ in 0..200 {
            let next = last.next();
            assert!(next.win_addr_conflict(&last));
            last = next;
        }
        let (former, mut behind) = (life(1_700_003_600_000, 0), life(1_700_000_000_000, 0));
        let returns = std::iter::repeat_with(|| behind = behind.next()).take(22).count();
        assert!(behind.win_addr_conflict(&former), "an hour is overtaken in {returns} returns");
    }

    #[test]
    fn the_bytes_of_an_announcement_and_of_a_member_are_golden() {
        let (src, dst) = (life(300, 1), Identity { left: true, ..life(7, 0) });
        let header = Header { src: src.clone(), src_incarnation: 2, dst, message: Message::Announce };
        let mut bytes = Vec::new();
        Wire.encode_header(&header, &mut bytes).unwrap();
        // Id with its length, family, address, port, life, returns, left; refutations; the same of the other; the message.
        assert_eq!(bytes, b"\x01a\0\x0a\0\0\x01\x88\x27\xac\x02\x01\0\x02\x01a\0\x0a\0\0\x01\x88\x27\x07\0\x01\x06");
        assert_eq!(Wire.decode_header(&bytes[..]).unwrap(), header);
        bytes.clear();
        Wire.encode_member(&Member::new(src, 2, foca::State::Suspect), &mut bytes).unwrap();
        assert_eq!(bytes, b"\x01a\0\x0a\0\0\x01\x88\x27\xac\x02\x01\0\x02\x01");
    }

    #[test]
    fn addresses_nobody_can_write_to_are_refused() {
        for bad in ["0.0.0.0:5000", "10.0.0.1:0", "224.0.0.1:5000", "[::]:5000"] {
            let id = Identity { address: bad.parse().unwrap(), ..life(1, 0) };
            let mut bytes = Vec::new();
            Wire.encode_member(&Member::alive(id), &mut bytes).unwrap();
            assert!(matches!(Wire.decode_member(&bytes[..]), Err(BadPacket::Address)), "{bad}");
        }
    }
}
