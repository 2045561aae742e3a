//! Frames: a length and one postcard message. Encodes into a caller's buffer and cuts complete frames out of what a socket brought.
//! Never does I/O. Tested below and in `golden.rs`.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::{Answer, Ask, Forward, Holding, Message, RecordRef, encode_payload};
use crate::base::entry::{BodyRef, EntryRef};
use crate::base::limits::{
    CHANNEL_BYTES_MAX, FRAME_BYTES_MAX, KEY_BYTES_MAX, LARGE_VALUE_BYTES, MEMBERSHIP_BYTES_MAX, VALUE_BYTES_MAX,
};

/// Bytes of the length that leads each frame.
pub const LENGTH_BYTES: usize = 4;

/// A frame that breaks the protocol. The connection is lost; nothing of the frame was used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than allowed here.
    #[error("a frame of {bytes} bytes exceeds the limit of {max}")]
    TooLong {
        /// What it announced.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A request of peers, on a connection that did not greet as one.
    #[error("only a peer may send this, and the hello named none")]
    PeersOnly,
    /// Not a message this version knows.
    #[error("a frame does not decode: {0}")]
    Malformed(String),
}

/// Appends `message` as one frame.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    *out = postcard::to_extend(message, std::mem::take(out)).expect("a Vec takes any message");
    close(out, start);
}

/// A request that will get an id, and with it a frame, from the link that carries it.
#[derive(Debug, Clone)]
pub struct Call {
    kind: u8,
    body: Vec<u8>,
    begun_before: Option<Duration>,
}

// The numbers postcard gives the variants of `Message`; golden tests hold them.
const FORWARD: u8 = 3;
const REPLICATE: u8 = 5;
const FORWARDED: u8 = 4;
const ASK: u8 = 7;
const ANSWER: u8 = 8;
const RELAY: u8 = 9;

impl Call {
    /// A question.
    pub fn ask(ask: &Ask<'_>) -> Self {
        Self { kind: ASK, body: encode_payload(ask), begun_before: None }
    }

    /// Operations to coordinate.
    pub fn forward(forward: &Forward<'_>) -> Self {
        Self { kind: FORWARD, body: encode_payload(forward), begun_before: None }
    }

    /// The same for somebody else to find the coordinator of.
    pub fn relay(forward: &Forward<'_>) -> Self {
        Self { kind: RELAY, ..Self::forward(forward) }
    }

    /// The same, not to begin after `latest` on the sender's clock, however late the link that carries it would let it begin.
    #[must_use]
    pub fn begun_before(self, latest: Option<Duration>) -> Self {
        Self { begun_before: latest, ..self }
    }

    /// The latest moment on the sender's clock at which it may begin: `otherwise`, or an earlier one.
    pub fn begins_until(&self, otherwise: Duration) -> Duration {
        self.begun_before.map_or(otherwise, |latest| latest.min(otherwise))
    }

    /// Bytes of its frame, but for a few at its head.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The frame that carries it as number `id`; operations must not begin after `start_by` on the receiver's clock.
    pub fn frame(&self, id: u64, start_by: u64) -> Bytes {
        let numbers = [id, start_by];
        framed(self.kind, if self.kind == ASK { &numbers[..1] } else { &numbers }, &self.body)
    }
}

/// The `Replicate` frame of `count` records that [`encode_record`] encoded one after another.
pub fn replicate(sequence: u64, count: usize, records: &[u8]) -> Bytes {
    framed(REPLICATE, &[sequence, count as u64], records)
}

fn framed(kind: u8, numbers: &[u64], body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(LENGTH_BYTES + 1 + 10 * numbers.len() + body.len());
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind);
    for number in numbers {
        out = postcard::to_extend(number, out).expect("a Vec takes any message");
    }
    out.extend_from_slice(body);
    close(&mut out, 0);
    out.into()
}

fn close(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len() - start - LENGTH_BYTES).expect("frames are bounded far below 4 GiB");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Appends one record as it stands in a `Replicate`.
pub fn encode_record(record: &RecordRef<'_>, out: &mut Vec<u8>) {
    *out = postcard::to_extend(record, std::mem::take(out)).expect("a Vec takes any message");
}

/// The first of the records that this node encoded, and those after it.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode_record(records: &[u8]) -> Result<(RecordRef<'_>, &[u8]), FrameError> {
    postcard::take_from_bytes(records).map_err(|error| FrameError::Malformed(error.to_string()))
}

/// One message as a frame of its own.
pub fn to_bytes(message: &Message<'_>) -> Bytes {
    let mut out = Vec::new();
    encode(message, &mut out);
    out.into()
}

/// The same, unless the frame would be longer than any that is taken.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn try_to_bytes(message: &Message<'_>) -> Result<Bytes, FrameError> {
    let mut out = postcard::to_extend(message, vec![0; LENGTH_BYTES]).expect("a Vec takes any message");
    let bytes = out.len() - LENGTH_BYTES;
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes, max: FRAME_BYTES_MAX });
    }
    close(&mut out, 0);
    Ok(out.into())
}

/// Cuts the next complete frame's payload off `buf`. Large payloads are copied out of it: for those who read many of them there is
/// [`Assembly`](super::assembly::Assembly).
///
/// # Errors
/// [`FrameError::TooLong`] before any of an oversized frame is kept.
pub fn cut(buf: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(bytes) = announced(buf, bytes_max)? else { return Ok(None) };
    if buf.len() < LENGTH_BYTES + bytes {
        return Ok(None);
    }
    buf.advance(LENGTH_BYTES);
    let payload = buf.split_to(bytes);
    Ok(Some(if bytes < LARGE_VALUE_BYTES { payload.freeze() } else { Bytes::copy_from_slice(&payload) }))
}

/// The length of the payload that begins in `buf`, if that much of it is there.
pub(super) fn announced(buf: &[u8], bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(head) = buf.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let bytes = u32::from_le_bytes(*head) as usize;
    if bytes <= bytes_max { Ok(Some(bytes)) } else { Err(FrameError::TooLong { bytes, max: bytes_max }) }
}

/// Reads the message of a frame; it must fill the frame, and no key, value or membership in it exceeds its limit: actors take
/// that for granted.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode(payload: &[u8]) -> Result<Message<'_>, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => bounded(&message).map(|()| message),
        Ok((_, rest)) => Err(FrameError::Malformed(format!("{} bytes left over", rest.len()))),
        Err(error) => Err(FrameError::Malformed(error.to_string())),
    }
}

/// The id of the request that a frame answers, read without the rest of it; `None` if it answers none.
pub fn answered_id(payload: &[u8]) -> Option<u64> {
    let (kind, rest) = payload.split_first()?;
    let (id, _) = postcard::take_from_bytes(rest).ok()?;
    matches!(*kind, FORWARDED | ANSWER).then_some(id)
}

/// Refuses keys, values and memberships beyond their limits, wherever they stand.
fn bounded(message: &Message<'_>) -> Result<(), FrameError> {
    match message {
        Message::Forward { forward, .. } | Message::Relay { forward, .. } => {
            forward.ops.iter().try_for_each(|(_, op)| key(op.key).and_then(|()| value(op.value)))
        }
        Message::Replicate { records, .. } => records.iter().try_for_each(|record| match record {
            RecordRef::Entry { key: of, entry: held, .. } => key(of).and_then(|()| entry(held)),
            RecordRef::Floor { .. } => Ok(()),
        }),
        Message::Ask { ask: Ask::Entries(keys), .. } => keys.iter().try_for_each(|(asked, _)| key(asked.0)),
        Message::Ask { ask: Ask::Survey { keys, .. }, .. } => keys.iter().try_for_each(|asked| key(asked.key.0)),
        Message::Ask { ask: Ask::Membership(theirs), .. } => within("membership", theirs, MEMBERSHIP_BYTES_MAX),
        Message::Ask { ask: Ask::Interest(wanted), .. } => {
            wanted.added.iter().chain(&wanted.removed).try_for_each(|(_, wanted)| name(wanted.0))
        }
        Message::Ask { ask: Ask::Publish(published), .. } => {
            published.iter().try_for_each(|message| name(message.channel.0).and_then(|()| value(message.payload.0)))
        }
        Message::Ask { ask: Ask::Subscribers { names, .. }, .. } => names.iter().try_for_each(|asked| name(asked.0)),
        Message::Answer { answer, .. } => match answer {
            Answer::Names(names) => names.iter().try_for_each(|found| name(found.0)),
            Answer::Membership(theirs) => within("membership", theirs, MEMBERSHIP_BYTES_MAX),
            Answer::Entries(holdings) | Answer::Survey { holdings, .. } => holdings.iter().try_for_each(holding),
            Answer::Keys(keys) => keys.iter().try_for_each(|found| key(found.0)),
            Answer::Scanned(pages) => pages.iter().flat_map(|page| &page.keys).try_for_each(|found| key(found.0)),
            Answer::Unmatched { versions, .. } => versions.iter().try_for_each(|(found, _)| key(found.0)),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn key(key: &[u8]) -> Result<(), FrameError> {
    within("key", key, KEY_BYTES_MAX)
}

fn name(name: &[u8]) -> Result<(), FrameError> {
    within("channel", name, CHANNEL_BYTES_MAX)
}

fn value(value: &[u8]) -> Result<(), FrameError> {
    within("value", value, VALUE_BYTES_MAX)
}

fn entry(entry: &EntryRef<'_>) -> Result<(), FrameError> {
    if let BodyRef::Live { value: held, .. } = entry.body { value(held) } else { Ok(()) }
}

fn holding(holding: &Holding<'_>) -> Result<(), FrameError> {
    if let Holding::Entry(held) = holding { entry(held) } else { Ok(()) }
}

fn within(what: &str, part: &[u8], max: usize) -> Result<(), FrameError> {
    if part.len() <= max { Ok(()) } else { Err(FrameError::Malformed(format!("a {what} of {} bytes", part.len()))) }
}

/// `part` of `frame` as shared bytes. A part that is most of a large frame, which has an allocation of its own, keeps that; everything else
/// is copied out, so that a value never keeps more than a third of its size in memory besides itself.
pub fn share(frame: &Bytes, part: &[u8]) -> Bytes {
    let is_most = frame.len() >= LARGE_VALUE_BYTES && part.len() >= frame.len() / 4 * 3 + 3;
    if is_most { frame.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Page, Published, Replies, Surveyed, Wanted};
    use super::*;
    use crate::base::channel::Kind;
    use crate::base::hlc::Version;
    use crate::base::level::Level;
    use crate::base::notify::Classes;
    use crate::base::op::{Act, OpRef};
    use crate::base::reply::{ReplyKind, Wire};
    use proptest::prelude::*;

    #[test]
    fn a_frame_cut_into_single_bytes_is_put_together_again() {
        let sent = Message::Ask { id: 9, ask: Ask::Entries(vec![(Key(b"a"), Version::ZERO)]) };
        let bytes = to_bytes(&sent);
        let mut buf = BytesMut::new();
        for byte in &bytes[..bytes.len() - 1] {
            buf.extend_from_slice(&[*byte]);
            assert_eq!(cut(&mut buf, 1024), Ok(None));
        }
        buf.extend_from_slice(&bytes[bytes.len() - 1..]);
        let frame = cut(&mut buf, 1024).unwrap().unwrap();
        assert_eq!(decode(&frame), Ok(sent));
        assert!(buf.is_empty());
    }

    #[test]
    fn frames_made_in_pieces_are_those_made_whole() {
        let ask = Ask::Entries(vec![(Key(b"k"), Version::ZERO)]);
        assert_eq!(Call::ask(&ask).frame(300, 0), to_bytes(&Message::Ask { id: 300, ask }));
        let forward = Forward {
            epoch: 1,
            timeout_ms: 500,
            level: Level::Quorum,
            wire: Wire::Resp3,
            router: 7,
            together: false,
            retry: false,
            begun_ms: 1,
            ops: vec![(0, OpRef { key: b"k", act: Act::Get, value: b"" })],
        };
        let relay = Message::Relay { id: 2, start_by: 7, forward: forward.clone() };
        assert_eq!(Call::relay(&forward).frame(2, 7), to_bytes(&relay));
        assert_eq!(Call::forward(&forward).frame(2, 7), to_bytes(&Message::Forward { id: 2, start_by: 7, forward }));
        let record = RecordRef::Floor { partition: 3, version: Version { time: 9, origin: 1 } };
        let mut records = Vec::new();
        encode_record(&record, &mut records);
        encode_record(&record, &mut records);
        let whole = to_bytes(&Message::Replicate { sequence: 4, records: vec![record; 2] });
        assert_eq!(replicate(4, 2, &records), whole);
        assert_eq!(decode_record(&records), Ok((record, &records[records.len() / 2..])));
        assert!(decode_record(&records[..1]).is_err() && decode_record(&[]).is_err());
    }

    #[test]
    fn an_answer_tells_what_it_answers_and_nothing_else_does() {
        let id_of = |message: Message<'_>| answered_id(&to_bytes(&message)[LENGTH_BYTES..]);
        assert_eq!(id_of(Message::Answer { id: 300, answer: Answer::Pong }), Some(300));
        let misdirected = super::super::Misdirected { epoch: 1 };
        assert_eq!(id_of(Message::Forwarded { id: u64::MAX, result: Err(misdirected) }), Some(u64::MAX));
        assert_eq!(id_of(Message::Ask { id: 300, ask: Ask::Ping }), None);
        assert_eq!((answered_id(&[]), answered_id(&[8]), answered_id(&[8, 0x80])), (None, None, None));
    }

    #[test]
    fn an_oversized_frame_is_refused_by_its_length_alone() {
        let mut buf = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        assert!(matches!(cut(&mut buf, 1024), Err(FrameError::TooLong { max: 1024, .. })));
    }

    fn forward_of<'a>(key: &'a [u8], value: &'a [u8]) -> Message<'a> {
        let op = OpRef { key, act: Act::Get, value };
        let forward = Forward {
            epoch: 1,
            timeout_ms: 500,
            level: Level::One,
            wire: Wire::Resp2,
            router: 7,
            together: false,
            retry: false,
            begun_ms: 1,
            ops: vec![(0, op)],
        };
        Message::Forward { id: 1, start_by: 1, forward }
    }

    fn entry_of(value: &[u8]) -> EntryRef<'_> {
        EntryRef {
            version: Version::ZERO,
            body: BodyRef::Live { value, deadline: None, marks: crate::base::marks::Marks::default() },
        }
    }

    /// Every message that carries a key, with this one.
    fn with_key(key: &[u8]) -> Vec<Message<'_>> {
        let record = RecordRef::Entry { key, entry: entry_of(b""), answered: None, counted: None };
        let surveyed = Surveyed { key: Key(key), have: Version::ZERO, route: 0, lease: false };
        let survey = Ask::Survey { ballot: Version::ZERO, keys: vec![surveyed], requests: vec![] };
        let page = Page { partition: 0, keys: vec![Key(key)], next: None };
        let answer = |answer| Message::Answer { id: 1, answer };
        vec![
            forward_of(key, b""),
            Message::Replicate { sequence: 1, records: vec![record] },
            Message::Ask { id: 1, ask: Ask::Entries(vec![(Key(key), Version::ZERO)]) },
            Message::Ask { id: 1, ask: survey },
            answer(Answer::Keys(vec![Key(key)])),
            answer(Answer::Scanned(vec![page])),
            answer(Answer::Unmatched { versions: vec![(Key(key), Version::ZERO)], lacking: vec![], end: None }),
        ]
    }

    /// Every message that carries the name of a channel, with this one.
    fn with_name(name: &[u8]) -> Vec<Message<'_>> {
        let (kind, name) = (Kind::Channel, Key(name));
        let wanted = |added, removed| {
            let wanted = Wanted {
                node: "n",
                incarnation: 1,
                base: 0,
                version: 1,
                everything: false,
                classes: Classes::NONE,
                added,
                removed,
            };
            Ask::Interest(wanted)
        };
        let ask = |ask| Message::Ask { id: 1, ask };
        vec![
            ask(wanted(vec![(kind, name)], vec![])),
            ask(wanted(vec![], vec![(kind, name)])),
            ask(Ask::Publish(vec![Published { kind, channel: name, payload: Key(b"") }])),
            ask(Ask::Subscribers { kind, names: vec![name] }),
            Message::Answer { id: 1, answer: Answer::Names(vec![name]) },
        ]
    }

    #[test]
    fn the_name_of_a_channel_beyond_its_limit_is_refused_wherever_it_stands() {
        let longest = vec![b'c'; CHANNEL_BYTES_MAX + 1];
        for (sent, too_long) in with_name(&longest[1..]).into_iter().zip(with_name(&longest)) {
            assert!(decode(&to_bytes(&sent)[LENGTH_BYTES..]).is_ok());
            let refused = to_bytes(&too_long);
            assert!(matches!(decode(&refused[LENGTH_BYTES..]), Err(FrameError::Malformed(_))), "{too_long:.80?}");
        }
    }

    #[test]
    fn a_key_beyond_its_limit_is_refused_wherever_it_stands() {
        let longest = vec![b'k'; KEY_BYTES_MAX + 1];
        for (sent, too_long) in
            with_key(&longest[1..]).into_iter().chain(with_key(b"")).zip(with_key(&longest).into_iter().cycle())
        {
            assert!(decode(&to_bytes(&sent)[LENGTH_BYTES..]).is_ok());
            assert!(
                matches!(decode(&to_bytes(&too_long)[LENGTH_BYTES..]), Err(FrameError::Malformed(_))),
                "{too_long:.80?}"
            );
        }
    }

    #[test]
    fn a_value_beyond_its_limit_is_refused_wherever_it_stands() {
        let value = vec![0; VALUE_BYTES_MAX + 1];
        let record = RecordRef::Entry { key: b"k", entry: entry_of(&value), answered: None, counted: None };
        let holdings = vec![Holding::Same, Holding::Entry(entry_of(&value))];
        for too_long in [
            forward_of(b"k", &value),
            Message::Replicate { sequence: 1, records: vec![record] },
            Message::Answer { id: 1, answer: Answer::Entries(holdings.clone()) },
            Message::Answer { id: 1, answer: Answer::Survey { holdings, answered: vec![], known: vec![] } },
        ] {
            assert!(matches!(bounded(&too_long), Err(FrameError::Malformed(_))));
        }
        assert_eq!(bounded(&forward_of(b"k", &value[1..])), Ok(()));
    }

    #[test]
    fn a_membership_beyond_its_limit_is_refused() {
        let bytes = vec![0; MEMBERSHIP_BYTES_MAX + 1];
        for (theirs, is_refused) in [(&bytes[..], true), (&bytes[1..], false)] {
            let ask = Message::Ask { id: 1, ask: Ask::Membership(theirs) };
            let answer = Message::Answer { id: 1, answer: Answer::Membership(theirs) };
            assert_eq!((bounded(&ask).is_err(), bounded(&answer).is_err()), (is_refused, is_refused));
        }
    }

    #[test]
    fn a_frame_that_nobody_would_take_is_not_made() {
        let body = vec![0; FRAME_BYTES_MAX];
        let reply = |bytes| Message::Answer { id: 1, answer: Answer::Reply(bytes) };
        assert!(matches!(try_to_bytes(&reply(&body)), Err(FrameError::TooLong { .. })));
        assert_eq!(try_to_bytes(&reply(b"+OK")), Ok(to_bytes(&reply(b"+OK"))));
    }

    #[test]
    fn bytes_after_the_message_are_refused() {
        let mut payload = to_bytes(&Message::Ask { id: 1, ask: Ask::Ping })[LENGTH_BYTES..].to_vec();
        payload.push(0);
        assert!(matches!(decode(&payload), Err(FrameError::Malformed(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn random_payloads_never_panic(payload: Vec<u8>) {
            let _ = decode(&payload);
        }

        #[test]
        fn a_damaged_frame_never_panics(at in 0usize..40, byte: u8) {
            let sent = Message::Forwarded {
                id: 77,
                result: Ok(Replies { marks: vec![(5, ReplyKind::Int(3)), (9, ReplyKind::Error)], bytes: b":3\r\n-E\r\n" }),
            };
            let mut payload = to_bytes(&sent)[LENGTH_BYTES..].to_vec();
            let at = at % payload.len();
            payload[at] = byte;
            let _ = decode(&payload);
        }
    }
}
