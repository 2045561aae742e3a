//! Writes chains of shared buffers without joining them first. Tested below.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Buffers one system call takes.
const SLICES_MAX: usize = 64;

/// Writes all of `chunks`, in order.
///
/// # Errors
/// Those of `writev`; `WriteZero` if the stream takes nothing.
pub async fn write_chunks(stream: &mut (impl AsyncWrite + Unpin), chunks: &mut Vec<Bytes>) -> io::Result<()> {
    write_chunks_noting(stream, chunks, |_| {}).await
}

/// The same, telling `wrote` how many bytes the stream took each time.
///
/// # Errors
/// As [`write_chunks`].
pub async fn write_chunks_noting(
    stream: &mut (impl AsyncWrite + Unpin),
    chunks: &mut Vec<Bytes>,
    mut wrote: impl FnMut(usize),
) -> io::Result<()> {
    let mut first = 0;
    while first < chunks.len() {
        let written = {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&chunks[first..]) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            stream.write_vectored(&slices[..used]).await?
        };
        if written == 0 && chunks[first..].iter().any(|chunk| !chunk.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        wrote(written);
        let mut left = written;
        while first < chunks.len() && left >= chunks[first].len() {
            left -= chunks[first].len();
            first += 1;
        }
        if left > 0 {
            chunks[first].advance(left);
        }
    }
    chunks.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn chunks_arrive_in_order_whatever_the_pipe_takes_at_once() {
        let (mut from, mut to) = tokio::io::duplex(7);
        let mut chunks: Vec<Bytes> =
            (0..200u32).map(|n| Bytes::from(vec![b'a' + (n % 26) as u8; (n % 9) as usize])).collect();
        let expected: Vec<u8> = chunks.iter().flatten().copied().collect();
        let (wrote, read) = tokio::join!(
            async {
                let mut told = 0;
                let done = write_chunks_noting(&mut from, &mut chunks, |wrote| told += wrote).await;
                drop(from);
                done.map(|()| told)
            },
            async {
                let mut all = Vec::new();
                to.read_to_end(&mut all).await.map(|_| all)
            }
        );
        assert_eq!(wrote.unwrap(), expected.len());
        assert_eq!(read.unwrap(), expected);
    }
}
