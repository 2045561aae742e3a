//! Puts frames together from what a socket brought, each large one in an allocation of its own and no larger than it, so that a value
//! taken from a frame keeps nothing else in memory. Never does I/O. Tested below.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{self, FrameError, LENGTH_BYTES};
use crate::base::limits::{LARGE_VALUE_BYTES, READ_CHUNK_BYTES};

/// First allocation for a large frame, whatever length was announced. It grows fourfold, so at most a third of a frame is copied.
const LARGE_START_BYTES: usize = 2 * LARGE_VALUE_BYTES;

/// Frames of one connection.
#[derive(Debug, Default)]
pub struct Assembly {
    buf: BytesMut,
    large: Option<Large>,
}

/// The payload of a large frame, as far as it has arrived.
#[derive(Debug)]
struct Large {
    bytes: BytesMut,
    whole: usize,
}

impl Assembly {
    /// Goes on after what has arrived in `buf`.
    pub fn new(buf: BytesMut) -> Self {
        Self { buf, large: None }
    }

    /// Cuts off the next complete frame's payload.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] before any of an oversized frame is kept.
    pub fn cut(&mut self, bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
        if self.large.is_none() {
            let Some(whole) = frame::announced(&self.buf, bytes_max)? else { return Ok(None) };
            if whole < LARGE_VALUE_BYTES {
                return frame::cut(&mut self.buf, bytes_max);
            }
            self.buf.advance(LENGTH_BYTES);
            let came = self.buf.len().min(whole);
            let mut bytes = BytesMut::new();
            make_room(&mut bytes, came, whole);
            bytes.extend_from_slice(&self.buf[..came]);
            self.buf.advance(came);
            self.large = Some(Large { bytes, whole });
        }
        let complete = self.large.take_if(|large| large.bytes.len() == large.whole);
        Ok(complete.map(|large| large.bytes.freeze()))
    }

    /// Where the next bytes from the socket belong; to be asked once [`Self::cut`] has found no frame, before each read.
    pub fn read_target(&mut self) -> &mut BytesMut {
        match &mut self.large {
            Some(Large { bytes, whole }) => {
                make_room(bytes, 1, *whole);
                bytes
            }
            None => {
                self.buf.reserve(READ_CHUNK_BYTES);
                &mut self.buf
            }
        }
    }

    /// Bytes held of frames not yet cut.
    pub fn held_bytes(&self) -> usize {
        self.buf.len() + self.large.as_ref().map_or(0, |large| LENGTH_BYTES + large.bytes.len())
    }
}

/// Room for `more` bytes, in an allocation no larger than the whole.
fn make_room(bytes: &mut BytesMut, more: usize, whole: usize) {
    if bytes.capacity() - bytes.len() < more {
        let room = (bytes.capacity() * 4).max(LARGE_START_BYTES).max(bytes.len() + more).min(whole);
        let mut larger = BytesMut::with_capacity(room);
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::FRAME_BYTES_MAX;
    use bytes::BufMut;
    use proptest::prelude::*;

    /// Reads `wire` as a socket would bring it, at most `piece` bytes at a time.
    fn assemble(wire: &[u8], piece: usize) -> Vec<Bytes> {
        let (mut assembly, mut wire, mut frames) = (Assembly::default(), wire, Vec::new());
        while !wire.is_empty() {
            let target = assembly.read_target();
            let taken = piece.min(target.capacity() - target.len()).min(wire.len());
            target.put_slice(&wire[..taken]);
            wire.advance(taken);
            while let Some(frame) = assembly.cut(FRAME_BYTES_MAX).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(assembly.held_bytes(), 0);
        frames
    }

    fn wire(lengths: &[usize]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (n, length) in lengths.iter().enumerate() {
            wire.put_u32_le(u32::try_from(*length).unwrap());
            wire.extend((0..*length).map(|at| (at + n) as u8));
        }
        wire
    }

    fn memory(held: Bytes) -> usize {
        held.try_into_mut().expect("nobody else holds it").capacity()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn frames_come_out_as_they_went_in(
            lengths in prop::collection::vec(prop_oneof![0usize..40, 32_000usize..34_000, 60_000usize..300_000], 0..6),
            piece in prop_oneof![1_000usize..5_000, Just(usize::MAX)],
        ) {
            let wire = wire(&lengths);
            let (mut plain, mut expected) = (BytesMut::from(&wire[..]), Vec::new());
            while let Some(frame) = frame::cut(&mut plain, FRAME_BYTES_MAX).unwrap() {
                expected.push(frame);
            }
            let frames = assemble(&wire, piece);
            prop_assert_eq!(frames.iter().map(Bytes::len).collect::<Vec<_>>(), lengths);
            prop_assert_eq!(&frames, &expected);
            for frame in frames.into_iter().chain(expected).filter(|frame| frame.len() >= LARGE_VALUE_BYTES) {
                prop_assert_eq!(frame.len(), memory(frame));
            }
        }
    }

    #[test]
    fn a_length_alone_allocates_little() {
        let mut assembly = Assembly::default();
        assembly.read_target().put_u32_le(u32::try_from(FRAME_BYTES_MAX).unwrap());
        assert_eq!(assembly.cut(FRAME_BYTES_MAX), Ok(None));
        assert_eq!(assembly.read_target().capacity(), LARGE_START_BYTES);
        assert_eq!(assembly.held_bytes(), LENGTH_BYTES);
        assert!(matches!(assembly_of(1_025).cut(1_024), Err(FrameError::TooLong { bytes: 1_025, max: 1_024 })));
    }

    fn assembly_of(length: u32) -> Assembly {
        Assembly::new(BytesMut::from(&length.to_le_bytes()[..]))
    }

    #[test]
    fn a_value_keeps_little_more_than_itself_in_memory() {
        for (frame_bytes, value_bytes) in
            [(33_000, 32_900), (90_000, 33_000), (40_000, 30_100), (64 << 20, 33_000), (100, 99)]
        {
            let mut frames = assemble(&wire(&[20, frame_bytes, 20]), usize::MAX);
            let frame = frames.swap_remove(1);
            drop(frames);
            let value = frame::share(&frame, &frame[..value_bytes]);
            drop(frame);
            assert_eq!(value.len(), value_bytes);
            assert!(memory(value) <= value_bytes * 4 / 3, "{value_bytes} of {frame_bytes}");
        }
    }
}
