//! The life of a Redis client's connection: read, decode, execute, write. Reading goes on while replies wait to be taken, up to a bound,
//! because clients may write a whole pipeline before they read.

use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::limits::{BATCH_OPS_MAX, OUTPUT_BYTES_MAX, PUSH_BYTES_AHEAD, READ_CHUNK_BYTES};
use crate::net::Stream;
use crate::protocol::resp::decode::Decoder;
use crate::protocol::resp::encode::ReplyBuf;

use super::super::admission::Share;
use super::{Door, Entry, READ_BYTES_FIRST, Waits, execute, pubsub};

/// The refusal of a command that is too large for the moment. The connection ends, because the rest of the command is still to come.
const TOO_MUCH: &str = "BUSY the node is receiving too much, nothing was done with this command";

/// What a connection has to know of the commands that its protocol's decoder has begun.
pub(super) trait Arriving {
    /// Bytes held outside the read buffer.
    fn held_bytes(&self) -> usize;
    /// Whether nothing of a command has arrived.
    fn is_idle(&self, buf: &BytesMut) -> bool;
    /// Where the next bytes belong.
    fn read_target<'a>(&'a mut self, buf: &'a mut BytesMut) -> &'a mut BytesMut;
    /// Appends an error of the connection itself.
    fn put_error(out: &mut ReplyBuf, text: &str);
}

impl Arriving for Decoder {
    fn held_bytes(&self) -> usize {
        Self::held_bytes(self)
    }

    fn is_idle(&self, buf: &BytesMut) -> bool {
        Self::is_idle(self, buf)
    }

    fn read_target<'a>(&'a mut self, buf: &'a mut BytesMut) -> &'a mut BytesMut {
        Self::read_target(self, buf)
    }

    fn put_error(out: &mut ReplyBuf, text: &str) {
        out.push_error(text.as_bytes());
    }
}

/// What the connection holds, of a protocol that `D` decodes.
pub(super) struct Talk<D> {
    pub(super) decoder: D,
    pub(super) buf: BytesMut,
    pub(super) out: ReplyBuf,
    /// How much is read at once.
    chunk: usize,
    share: Share,
    /// Bytes of the commands its transaction has queued, and of what it has subscribed to.
    queued: usize,
    /// Whether whole commands may be left in `buf`, for want of room for their replies.
    pub(super) left: bool,
    /// Since when the client has taken none of the replies that wait for it.
    unread_since: Option<Instant>,
}

impl<D: Arriving> Talk<D> {
    /// What holds what has been read of a connection that begins.
    pub(super) fn new(door: &Door, decoder: D, buf: BytesMut, out: ReplyBuf) -> Self {
        door.bytes_in.set(door.bytes_in.get() + buf.len() as u64);
        let share = Share::of(door.budget.clone());
        Self { decoder, buf, out, chunk: READ_BYTES_FIRST, share, queued: 0, left: false, unread_since: None }
    }

    /// Bytes of commands that are not complete.
    fn unfinished_bytes(&self) -> usize {
        self.buf.len() + self.decoder.held_bytes()
    }

    /// Counts what the connection holds, and says whether there is room for more replies. There always is once none waits.
    pub(super) fn has_room(&self, door: &Door) -> bool {
        self.share.hold(self.unfinished_bytes() + self.out.held_bytes() + self.queued);
        !self.out.has_remaining() || (self.out.remaining() < OUTPUT_BYTES_MAX && !door.budget.is_used_up())
    }

    /// Whether it is about to take more of a command than is free, while there is no room.
    fn asks_too_much(&self, door: &Door) -> bool {
        !self.left && self.unfinished_bytes() > Share::FREE_BYTES && door.budget.is_used_up()
    }
}

/// Serves the connection until the client hangs up, breaks the protocol, or says `QUIT`.
pub(super) async fn serve(door: &Rc<Door>, entry: &Rc<Entry>, stream: Stream, buf: BytesMut) {
    let (mut from, mut to) = tokio::io::split(stream);
    entry.listening.allow();
    let decoder = Decoder::new(door.handles.settings.value_bytes_max);
    let mut talk = Talk::new(door, decoder, buf, ReplyBuf::new(entry.session.borrow().wire()));
    while turn(door, entry, &mut talk).await {
        match exchange(door, entry, (&mut from, &mut to), &mut talk).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => return,
        }
    }
    talk.decoder = Decoder::new(0);
    finish(door, entry, to, talk).await;
}

/// Writes the last replies: the end of a pipeline, an error in the protocol, the answer to QUIT. What else arrived is given up.
pub(super) async fn finish<D: Arriving>(door: &Door, entry: &Entry, mut to: WriteHalf<Stream>, mut talk: Talk<D>) {
    talk.buf = BytesMut::new();
    while talk.out.has_remaining() {
        talk.share.hold(talk.out.held_bytes());
        note_wait(door, entry, &mut talk);
        match to.write_buf(&mut talk.out).await {
            Ok(written) if written > 0 => note_written(door, entry, &mut talk, written),
            _ => return,
        }
    }
    let _ = to.shutdown().await;
}

/// Executes everything that has arrived in full. False if the connection is to end.
async fn turn(door: &Rc<Door>, entry: &Rc<Entry>, talk: &mut Talk<Decoder>) -> bool {
    let mut commands = Vec::new();
    if talk.left && !talk.has_room(door) {
        return true;
    }
    loop {
        let decoded = talk.decoder.decode(&mut talk.buf, BATCH_OPS_MAX, &mut commands);
        let found = commands.len();
        if found > 0 {
            entry.waits.set(Waits::Us);
            let open = execute::batch(door, entry, &mut commands, &mut talk.out).await;
            talk.queued = entry.transaction.borrow().held_bytes() + entry.listening.held_bytes();
            if !open {
                return false;
            }
            pubsub::take(entry, &mut talk.out);
        }
        if let Err(error) = decoded {
            door.count(Counter::RespErrors);
            talk.out.push_value(&error.reply());
            return false;
        }
        talk.left = found == BATCH_OPS_MAX;
        if !talk.left || !talk.has_room(door) {
            return true;
        }
    }
}

/// Waits until something was read or written. False at the client's end.
pub(super) async fn exchange<D: Arriving>(
    door: &Door,
    entry: &Entry,
    (from, to): (&mut ReadHalf<Stream>, &mut WriteHalf<Stream>),
    talk: &mut Talk<D>,
) -> io::Result<bool> {
    loop {
        note_wait(door, entry, talk);
        if talk.buf.capacity() - talk.buf.len() < talk.chunk / 4 {
            talk.buf.reserve(talk.chunk);
        }
        // Makes room for a large value, which counts before it fills.
        let _ = talk.decoder.read_target(&mut talk.buf);
        let room = talk.has_room(door) && !talk.left;
        if talk.asks_too_much(door) {
            door.count(Counter::Busy);
            D::put_error(&mut talk.out, TOO_MUCH);
            return Ok(false);
        }
        let takes = talk.out.remaining() < PUSH_BYTES_AHEAD;
        let target = talk.decoder.read_target(&mut talk.buf);
        let space = target.capacity() - target.len();
        tokio::select! {
            biased;
            written = to.write_buf(&mut talk.out), if talk.out.has_remaining() => {
                let written = written?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                note_written(door, entry, talk, written);
                // There may be whole commands left that had no room for their replies.
                if !room {
                    return Ok(true);
                }
            }
            read = from.read_buf(target), if room => {
                let read = read?;
                door.bytes_in.set(door.bytes_in.get() + read as u64);
                if read == space {
                    talk.chunk = (talk.chunk * 4).min(READ_CHUNK_BYTES);
                }
                return Ok(read > 0);
            }
            pushed = entry.listening.next(), if takes => pushed.put(&mut talk.out),
        }
    }
}

/// Notes that the client has taken replies: whatever else it does meanwhile, this alone shows that it goes on taking them.
fn note_written<D: Arriving>(door: &Door, entry: &Entry, talk: &mut Talk<D>, written: usize) {
    door.bytes_out.set(door.bytes_out.get() + written as u64);
    entry.waits.set(Waits::Us);
    talk.unread_since = None;
    if !talk.out.has_remaining() {
        talk.out.clear();
    }
}

/// Notes what the connection is about to wait for. A wait that goes on keeps its beginning.
fn note_wait<D: Arriving>(door: &Door, entry: &Entry, talk: &mut Talk<D>) {
    let now = || door.handles.clock.monotonic();
    let bytes = talk.unfinished_bytes();
    entry.is_counted.set(talk.share.is_counted());
    entry.waits.set(match entry.waits.get() {
        _ if talk.out.has_remaining() => Waits::Stalled { since: *talk.unread_since.get_or_insert_with(now) },
        Waits::Request { since, .. } => Waits::Request { since, bytes },
        _ if talk.decoder.is_idle(&talk.buf) => Waits::Idle,
        _ => Waits::Request { since: now(), bytes },
    });
}
