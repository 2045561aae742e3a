//! The life of a Redis client's connection: read, decode, execute, write. Reading goes on while replies wait to be taken, up to a bound,
//! because clients may write a whole pipeline before they read.

use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::base::counters::Counter;
use crate::base::limits::{BATCH_OPS_MAX, OUTPUT_BYTES_MAX, READ_CHUNK_BYTES};
use crate::net::Stream;
use crate::protocol::resp::decode::Decoder;
use crate::protocol::resp::encode::ReplyBuf;

use super::{Door, Entry, READ_BYTES_FIRST, Waits, execute};

/// Serves the connection until the client hangs up, breaks the protocol, or says `QUIT`.
pub(super) async fn serve(door: &Rc<Door>, entry: &Rc<Entry>, stream: Stream, mut buf: BytesMut) {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut decoder = Decoder::new(door.handles.settings.value_bytes_max);
    let mut out = ReplyBuf::new(entry.session.borrow().wire());
    let mut chunk = READ_BYTES_FIRST;
    let mut open = true;
    door.bytes_in.set(door.bytes_in.get() + buf.len() as u64);
    while open {
        open = turn(door, entry, &mut decoder, &mut buf, &mut out).await;
        if !open {
            break;
        }
        match exchange(door, entry, (&mut from, &mut to), &mut decoder, &mut buf, &mut out, &mut chunk).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => return,
        }
    }
    // The last replies: the end of a pipeline, an error in the protocol, the answer to QUIT.
    entry.waits.set(Waits::Stalled { since: door.handles.clock.monotonic() });
    while out.has_remaining() && to.write_buf(&mut out).await.is_ok_and(|n| n > 0) {}
    let _ = to.shutdown().await;
}

/// Executes everything that has arrived in full. False if the connection is to end.
async fn turn(
    door: &Rc<Door>,
    entry: &Rc<Entry>,
    decoder: &mut Decoder,
    buf: &mut BytesMut,
    out: &mut ReplyBuf,
) -> bool {
    let mut commands = Vec::new();
    loop {
        let decoded = decoder.decode(buf, BATCH_OPS_MAX, &mut commands);
        let found = commands.len();
        if found > 0 {
            entry.waits.set(Waits::Us);
            if !execute::batch(door, entry, &mut commands, out).await {
                return false;
            }
        }
        if let Err(error) = decoded {
            door.count(Counter::RespErrors);
            out.push_value(&error.reply());
            return false;
        }
        if found < BATCH_OPS_MAX || out.len_bytes() >= OUTPUT_BYTES_MAX {
            return true;
        }
    }
}

/// Waits until something was read or written. False at the client's end.
async fn exchange(
    door: &Door,
    entry: &Entry,
    (from, to): (&mut tokio::io::ReadHalf<Stream>, &mut tokio::io::WriteHalf<Stream>),
    decoder: &mut Decoder,
    buf: &mut BytesMut,
    out: &mut ReplyBuf,
    chunk: &mut usize,
) -> io::Result<bool> {
    loop {
        let room = out.len_bytes() < OUTPUT_BYTES_MAX;
        note_wait(door, entry, decoder, buf, out);
        if buf.capacity() - buf.len() < *chunk / 4 {
            buf.reserve(*chunk);
        }
        let target = decoder.read_target(buf);
        let space = target.capacity() - target.len();
        tokio::select! {
            biased;
            written = to.write_buf(out), if out.has_remaining() => {
                let written = written?;
                door.bytes_out.set(door.bytes_out.get() + written as u64);
                entry.waits.set(Waits::Us);
                if !out.has_remaining() {
                    out.clear();
                }
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                // There may be whole commands left that had no room for their replies.
                if !room {
                    return Ok(true);
                }
            }
            read = from.read_buf(target), if room => {
                let read = read?;
                door.bytes_in.set(door.bytes_in.get() + read as u64);
                if read == space {
                    *chunk = (*chunk * 4).min(READ_CHUNK_BYTES);
                }
                return Ok(read > 0);
            }
        }
    }
}

/// Notes what the connection is about to wait for. A wait that goes on keeps its beginning.
fn note_wait(door: &Door, entry: &Entry, decoder: &Decoder, buf: &BytesMut, out: &ReplyBuf) {
    let now = || door.handles.clock.monotonic();
    let bytes = buf.len() + decoder.held_bytes();
    entry.waits.set(match entry.waits.get() {
        _ if out.has_remaining() => Waits::Stalled { since: now() },
        Waits::Request { since, .. } => Waits::Request { since, bytes },
        _ if decoder.is_idle(buf) => Waits::Idle,
        _ => Waits::Request { since: now(), bytes },
    });
}
