//! Values on their way in and out: bounded each by itself and together, in size and in time. Tested below and in `tests.rs`.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::refusal::Refusal;
use crate::actors::admission::{Budget, Share};
use crate::base::limits::{CLIENT_BYTES_PER_SEC_MIN, CLIENT_REQUEST_TIMEOUT, CONNECTIONS_BYTES_MAX, READ_CHUNK_BYTES};

/// Room for what all clients of the endpoint send and have not taken yet.
pub(super) struct Room(Rc<Budget>);

impl Default for Room {
    fn default() -> Self {
        Self(Rc::new(Budget::new(CONNECTIONS_BYTES_MAX)))
    }
}

impl Room {
    /// Refuses everything while there is no room for anybody.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.0.is_overdrawn() { Err(Refusal::Busy) } else { Ok(()) }
    }

    /// All of a body that is to have at most `bytes_max`, and the room it takes. One that comes slower than clients may send is given up.
    pub(super) async fn read(
        &self,
        mut body: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin,
        announced: Option<u64>,
        bytes_max: usize,
        since: Instant,
    ) -> Result<(Vec<u8>, Share), Refusal> {
        self.check()?;
        if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
            return Err(Refusal::LargeValue(bytes_max));
        }
        let (mut value, share) = (Vec::new(), Share::of(self.0.clone()));
        loop {
            let allowed = Duration::from_secs((value.len() / CLIENT_BYTES_PER_SEC_MIN) as u64);
            let next = timeout_at(since + CLIENT_REQUEST_TIMEOUT + allowed, body.next()).await;
            let Some(chunk) = next.map_err(|_| Refusal::Slow)? else { return Ok((value, share)) };
            let chunk = chunk.map_err(|error| Refusal::Malformed(format!("the body broke off: {error}")))?;
            if value.len() + chunk.len() > bytes_max {
                return Err(Refusal::LargeValue(bytes_max));
            }
            if share.is_counted() && self.0.is_used_up() {
                return Err(Refusal::Busy);
            }
            value.extend_from_slice(&chunk);
            share.hold(value.capacity());
        }
    }

    /// A body to be sent.
    pub(super) fn body(&self, bytes: Bytes) -> Leaving {
        let share = Share::of(self.0.clone());
        share.hold(bytes.len());
        Leaving { left: bytes, share }
    }
}

/// A body on its way out, in pieces: the framework copies each when it is to be written, and must not copy all at once.
pub(super) struct Leaving {
    left: Bytes,
    share: Share,
}

impl MessageBody for Leaving {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        let piece = this.left.split_to(this.left.len().min(READ_CHUNK_BYTES));
        if this.left.is_empty() {
            this.share.hold(0);
        }
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    type Chunk = Result<Bytes, PayloadError>;

    fn chunks(sizes: &[usize]) -> Vec<Chunk> {
        sizes.iter().map(|size| Ok(Bytes::from(vec![1; *size]))).collect()
    }

    async fn read(room: &Room, chunks: Vec<Chunk>, announced: Option<u64>, max: usize) -> Result<usize, Refusal> {
        let read = room.read(stream::iter(chunks), announced, max, Instant::now()).await;
        read.map(|(value, _)| value.len())
    }

    #[tokio::test]
    async fn a_body_is_read_whole_up_to_the_limit() {
        let room = Room::default();
        assert!(matches!(read(&room, chunks(&[3, 0, 4]), Some(7), 7).await, Ok(7)));
        assert!(matches!(read(&room, Vec::new(), None, 7).await, Ok(0)));
        assert!(matches!(read(&room, chunks(&[3, 5]), None, 7).await, Err(Refusal::LargeValue(7))));
        assert!(matches!(read(&room, chunks(&[]), Some(8), 7).await, Err(Refusal::LargeValue(7))));
        let broken = vec![Ok(Bytes::from_static(b"x")), Err(PayloadError::Incomplete(None))];
        assert!(matches!(read(&room, broken, None, 7).await, Err(Refusal::Malformed(_))));
    }

    #[tokio::test]
    async fn all_bodies_together_have_a_bound_and_give_it_back() {
        let room = Room(Rc::new(Budget::new(1_000)));
        let leaving = room.body(vec![0; Share::FREE_BYTES + 1_000].into());
        assert!(matches!(read(&room, chunks(&[10]), None, 1 << 20).await, Ok(10)), "little is always read");
        let much = [Share::FREE_BYTES + 1, 1];
        assert!(matches!(read(&room, chunks(&much), None, 1 << 20).await, Err(Refusal::Busy)));
        let more = room.body(vec![0; Share::FREE_BYTES + 1_000].into());
        assert!(matches!(read(&room, chunks(&[10]), None, 1 << 20).await, Err(Refusal::Busy)));
        drop((leaving, more));
        assert!(read(&room, chunks(&much), None, 1 << 20).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_given_up() {
        let began = Instant::now();
        let silent = stream::iter(chunks(&[1])).chain(stream::pending());
        let read = Room::default().read(silent, None, 10, began).await;
        assert!(
            matches!(read, Err(Refusal::Slow)) && began.elapsed() < CLIENT_REQUEST_TIMEOUT + Duration::from_secs(1)
        );
        let (began, steady) = (Instant::now(), stream::iter(chunks(&[CLIENT_BYTES_PER_SEC_MIN * 2])));
        let late = stream::once(async {
            tokio::time::sleep(CLIENT_REQUEST_TIMEOUT + Duration::from_secs(1)).await;
            Ok(Bytes::from_static(b"x"))
        });
        let read = Room::default().read(steady.chain(Box::pin(late)), None, 1 << 20, began).await;
        assert_eq!(read.map(|(value, _)| value.len()).ok(), Some(CLIENT_BYTES_PER_SEC_MIN * 2 + 1));
    }
}
