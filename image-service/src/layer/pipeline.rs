//! A layer's way from compressed bytes to a directory, a thread for each stage:
//!
//! ```text
//! chunks -> hash, partial blob -> decompress -> hash (diff id)
//!                                            -> untar, skeleton
//! ```

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::below::Below;
use super::tar::Bounds;
use super::{Contents, Failure, apply, compression};
use crate::digest::{DiffId, Digest};

const DEPTH: usize = 8;
const CHUNK: usize = 256 << 10;

/// The place and the limits of an unpacked layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) layer: &'a Path,
    pub(crate) below: Option<&'a Below>,
    pub(crate) bounds: Bounds,
}

/// A layer that was unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) diff_id: DiffId,
    pub(crate) size: u64,
    pub(crate) contents: Contents,
}

/// Unpacks compressed chunks. The source runs in a thread of its own and gives the bytes on; its own result, for it hashes
/// what it gives, comes back beside that of the unpacking.
pub(crate) fn unpack<T: Send>(
    source: impl FnOnce(&mut dyn FnMut(Bytes)) -> T + Send,
    target: Target<'_>,
) -> (T, Result<Unpacked, Failure>) {
    std::thread::scope(|scope| {
        let (compressed_in, compressed) = sync_channel::<Bytes>(DEPTH);
        let (plain_in, plain) = sync_channel::<io::Result<Bytes>>(DEPTH);
        let (hash_in, hash) = sync_channel::<Bytes>(DEPTH);
        let source = scope.spawn(move || {
            let mut next = Some(compressed_in);
            // The source is read to its end even if nobody unpacks it any more: its digest tells damage from malice.
            source(&mut |bytes| {
                if next.as_ref().is_some_and(|next| next.send(bytes).is_err()) {
                    next = None;
                }
            })
        });
        scope.spawn(move || inflate(ChunkReader::new(compressed.into_iter().map(Ok)), &plain_in));
        let hasher = scope.spawn(move || {
            let mut hasher = Sha256::new();
            for bytes in hash {
                hasher.update(&bytes);
            }
            Digest::finish(hasher)
        });
        let applied = apply::apply(
            Tee { input: ChunkReader::new(plain.into_iter()), hash: hash_in },
            target.layer,
            target.below,
            target.bounds,
        );
        let diff_id = hasher.join();
        let source = source.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let diff_id = diff_id.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let unpacked = applied.map(|(contents, size)| Unpacked { diff_id: DiffId(diff_id), size, contents });
        (source, unpacked)
    })
}

/// Unpacks an uncompressed tar.
pub(crate) fn unpack_plain(tar: impl Read + Send, target: Target<'_>) -> Result<Unpacked, Failure> {
    let mut hashing = Hashing { input: tar, hasher: Sha256::new() };
    let (contents, size) = apply::apply(&mut hashing, target.layer, target.below, target.bounds)?;
    Ok(Unpacked { diff_id: DiffId(Digest::finish(hashing.hasher)), size, contents })
}

fn inflate(input: impl BufRead + Send, output: &SyncSender<io::Result<Bytes>>) {
    let mut decoder = match compression::decoder(input) {
        Ok(decoder) => decoder,
        Err(error) => return drop(output.send(Err(error))),
    };
    loop {
        let mut buffer = vec![0_u8; CHUNK];
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match decoder.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return drop(output.send(Err(error))),
            }
        }
        buffer.truncate(filled);
        if buffer.is_empty() || output.send(Ok(Bytes::from(buffer))).is_err() {
            return;
        }
    }
}

/// Chunks as a reader.
struct ChunkReader<I> {
    chunks: I,
    current: Bytes,
}

impl<I: Iterator<Item = io::Result<Bytes>>> ChunkReader<I> {
    fn new(chunks: I) -> Self {
        Self { chunks, current: Bytes::new() }
    }
}

impl<I: Iterator<Item = io::Result<Bytes>>> BufRead for ChunkReader<I> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.chunks.next() {
                Some(chunk) => self.current = chunk?,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        drop(self.current.split_to(amount.min(self.current.len())));
    }
}

impl<I: Iterator<Item = io::Result<Bytes>>> Read for ChunkReader<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        if let (Some(slot), Some(part)) = (buffer.get_mut(..count), available.get(..count)) {
            slot.copy_from_slice(part);
        }
        self.consume(count);
        Ok(count)
    }
}

/// Gives every chunk to the diff id's hash before it is parsed.
struct Tee<I> {
    input: ChunkReader<I>,
    hash: SyncSender<Bytes>,
}

impl<I: Iterator<Item = io::Result<Bytes>>> Read for Tee<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.current.is_empty() {
            self.input.fill_buf()?;
            if !self.input.current.is_empty() && self.hash.send(self.input.current.clone()).is_err() {
                return Err(io::Error::other("the hashing thread is gone"));
            }
        }
        self.input.read(buffer)
    }
}

struct Hashing<R> {
    input: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}
