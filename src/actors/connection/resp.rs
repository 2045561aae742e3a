//! The life of a Redis client's connection: read, decode, execute, write. Reading goes on while replies wait to be taken, up to a bound,
//! because clients may write a whole pipeline before they read.

use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::base::counters::Counter;
use crate::base::limits::{BATCH_OPS_MAX, OUTPUT_BYTES_MAX, READ_CHUNK_BYTES};
use crate::net::Stream;
use crate::protocol::resp::decode::Decoder;
use crate::protocol::resp::encode::ReplyBuf;

use super::{Door, Entry, READ_BYTES_FIRST, Waits, execute};

/// What the connection holds.
struct Talk {
    decoder: Decoder,
    buf: BytesMut,
    out: ReplyBuf,
    /// How much is read at once.
    chunk: usize,
    /// Since when the client has taken none of the replies that wait for it.
    unread_since: Option<Instant>,
}

/// Serves the connection until the client hangs up, breaks the protocol, or says `QUIT`.
pub(super) async fn serve(door: &Rc<Door>, entry: &Rc<Entry>, stream: Stream, buf: BytesMut) {
    let (mut from, mut to) = tokio::io::split(stream);
    door.bytes_in.set(door.bytes_in.get() + buf.len() as u64);
    let mut talk = Talk {
        decoder: Decoder::new(door.handles.settings.value_bytes_max),
        buf,
        out: ReplyBuf::new(entry.session.borrow().wire()),
        chunk: READ_BYTES_FIRST,
        unread_since: None,
    };
    while turn(door, entry, &mut talk).await {
        match exchange(door, entry, (&mut from, &mut to), &mut talk).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => return,
        }
    }
    // The last replies: the end of a pipeline, an error in the protocol, the answer to QUIT.
    while talk.out.has_remaining() {
        note_wait(door, entry, &mut talk);
        match to.write_buf(&mut talk.out).await {
            Ok(written) if written > 0 => note_written(door, entry, &mut talk, written),
            _ => return,
        }
    }
    let _ = to.shutdown().await;
}

/// Executes everything that has arrived in full. False if the connection is to end.
async fn turn(door: &Rc<Door>, entry: &Rc<Entry>, talk: &mut Talk) -> bool {
    let mut commands = Vec::new();
    loop {
        let decoded = talk.decoder.decode(&mut talk.buf, BATCH_OPS_MAX, &mut commands);
        let found = commands.len();
        if found > 0 {
            entry.waits.set(Waits::Us);
            if !execute::batch(door, entry, &mut commands, &mut talk.out).await {
                return false;
            }
        }
        if let Err(error) = decoded {
            door.count(Counter::RespErrors);
            talk.out.push_value(&error.reply());
            return false;
        }
        if found < BATCH_OPS_MAX || talk.out.remaining() >= OUTPUT_BYTES_MAX {
            return true;
        }
    }
}

/// Waits until something was read or written. False at the client's end.
async fn exchange(
    door: &Door,
    entry: &Entry,
    (from, to): (&mut ReadHalf<Stream>, &mut WriteHalf<Stream>),
    talk: &mut Talk,
) -> io::Result<bool> {
    loop {
        let room = talk.out.remaining() < OUTPUT_BYTES_MAX;
        note_wait(door, entry, talk);
        if talk.buf.capacity() - talk.buf.len() < talk.chunk / 4 {
            talk.buf.reserve(talk.chunk);
        }
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
        }
    }
}

/// Notes that the client has taken replies: whatever else it does meanwhile, this alone shows that it goes on taking them.
fn note_written(door: &Door, entry: &Entry, talk: &mut Talk, written: usize) {
    door.bytes_out.set(door.bytes_out.get() + written as u64);
    entry.waits.set(Waits::Us);
    talk.unread_since = None;
    if !talk.out.has_remaining() {
        talk.out.clear();
    }
}

/// Notes what the connection is about to wait for. A wait that goes on keeps its beginning.
fn note_wait(door: &Door, entry: &Entry, talk: &mut Talk) {
    let now = || door.handles.clock.monotonic();
    let bytes = talk.buf.len() + talk.decoder.held_bytes();
    entry.waits.set(match entry.waits.get() {
        _ if talk.out.has_remaining() => Waits::Stalled { since: *talk.unread_since.get_or_insert_with(now) },
        Waits::Request { since, .. } => Waits::Request { since, bytes },
        _ if talk.decoder.is_idle(&talk.buf) => Waits::Idle,
        _ => Waits::Request { since: now(), bytes },
    });
}
