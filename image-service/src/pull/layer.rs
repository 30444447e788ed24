//! One layer's way into the store: what of its blob is here already, the rest from the registry, through the pipeline.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{Meter, blocking};
use crate::digest::{DiffId, Digest};
use crate::durable;
use crate::error::{Error, Result};
use crate::gc;
use crate::layer::Failure;
use crate::layer::pipeline::{self, Target, Unpacked};
use crate::layers::{Draft, Placed};
use crate::records::{Compressed, LayerKey};
use crate::registry::{Chunk, Descriptor, Session};
use crate::store::Shared;

/// The outcome of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Placed(Placed),
    /// It leans on the layers below and has to wait for them.
    NeedsBelow,
}

/// A layer to fetch.
pub(super) struct Fetch {
    pub(super) shared: Arc<Shared>,
    pub(super) session: Arc<Session>,
    pub(super) key: LayerKey,
    pub(super) diff_id: DiffId,
    pub(super) descriptor: Descriptor,
    pub(super) below: Option<Vec<DiffId>>,
    pub(super) meter: Meter,
    pub(super) refused: Arc<AtomicBool>,
}

/// A blob's bytes on disk while they come in.
struct Partial {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Fetch {
    pub(super) async fn run(self) -> Result<Outcome> {
        let _permit = self.shared.pulls.parallel.acquire().await;
        if let Some(placed) = self.shared.placed(self.key) {
            return Ok(Outcome::Placed(placed));
        }
        let (outcome, resumed) = self.attempt(true).await;
        match outcome {
            // The bytes of an earlier try, or a mirror's, may be wrong; the former are gone now.
            Err(Error::DigestMismatch { .. } | Error::LayerRejected { .. })
                if resumed || self.session.has_mirrors() =>
            {
                self.attempt(false).await.0
            }
            outcome => outcome,
        }
    }

    /// One try, with mirrors or without, and whether it began with bytes that an earlier one left.
    async fn attempt(&self, mirrors: bool) -> (Result<Outcome>, bool) {
        let opened = Draft::create(&self.shared).and_then(|draft| Ok((self.partial(&draft)?, draft)));
        let (partial, draft) = match opened {
            Ok(opened) => opened,
            Err(error) => return (Err(error), false),
        };
        let (offset, resumed) = (partial.length, partial.length > 0);
        let (sender, receiver) = mpsc::channel(16);
        let intake = Intake {
            shared: Arc::clone(&self.shared),
            key: self.key,
            diff_id: self.diff_id,
            descriptor: self.descriptor.clone(),
            below: self.below.clone(),
            receiver,
            meter: self.meter.clone(),
            refused: Arc::clone(&self.refused),
        };
        let disk = tokio::spawn(blocking(move || intake.run(partial, &draft)));
        self.meter.add(|progress| progress.bytes_done += offset);
        let ended = self.session.blob(&self.descriptor, (offset, mirrors), &sender).await;
        drop(sender.send(Chunk::End(ended)).await);
        drop(sender);
        let outcome =
            disk.await.unwrap_or_else(|_| Err(Error::Cancelled { what: "a layer's unpacking".into() }));
        if matches!(outcome, Ok(Outcome::Placed(_))) {
            self.meter.add(|progress| progress.layers_done += 1);
        }
        (outcome, resumed)
    }

    /// The blob's partial file; a second layer that claims the same blob at the same time gets one of its own.
    fn partial(&self, draft: &Draft) -> Result<Partial> {
        let path = self.shared.places.partial(&self.descriptor.digest);
        let open = |path: PathBuf| {
            let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            opened.map_err(Error::io("open", &path)).map(|file| (file, path))
        };
        let (mut file, mut path) = open(path)?;
        if !durable::lock_named(&file, &path) {
            (file, path) = open(draft.path().join("blob"))?;
        }
        let mut length = file.metadata().map_err(Error::io("read", &path))?.len();
        if length > self.descriptor.size {
            file.set_len(0).map_err(Error::io("empty", &path))?;
            length = 0;
        }
        Ok(Partial { file, path, length })
    }
}

/// The disk side of a layer's fetch.
struct Intake {
    shared: Arc<Shared>,
    key: LayerKey,
    diff_id: DiffId,
    descriptor: Descriptor,
    below: Option<Vec<DiffId>>,
    receiver: mpsc::Receiver<Chunk>,
    meter: Meter,
    refused: Arc<AtomicBool>,
}

impl Intake {
    fn run(mut self, mut partial: Partial, draft: &Draft) -> Result<Outcome> {
        let below = self.below.as_ref().map(|layers| self.shared.below(layers)).transpose()?;
        let target = Target { layer: draft.path(), below: below.as_ref(), bounds: self.shared.bounds() };
        let meter = self.meter.clone();
        let (mut receiver, path) =
            (std::mem::replace(&mut self.receiver, mpsc::channel(1).1), partial.path.clone());
        let (digest, unpacked) =
            pipeline::unpack(|give| receive(&mut receiver, &mut partial, &meter, give), target);
        let outcome = match self.judge(digest, unpacked) {
            Ok(None) => Ok(Outcome::NeedsBelow),
            Ok(Some(unpacked)) => self.place(draft, &unpacked, &path),
            Err(error) => Err(error),
        };
        let stays = match &outcome {
            Ok(Outcome::NeedsBelow)
            | Err(Error::Cancelled { .. } | Error::RegistryUnavailable { .. } | Error::Io { .. }) => {
                partial.length > 0
            }
            _ => false,
        };
        if !stays {
            slipway_disk::remove_tree(&path)?;
        }
        // Unlocked before it is asked whether the image was refused: whoever refuses it removes what is not locked.
        drop(partial);
        if self.refused.load(Ordering::SeqCst) {
            gc::discard_partial(&self.shared, &self.descriptor.digest)?;
        }
        outcome
    }

    fn place(&self, draft: &Draft, unpacked: &Unpacked, path: &Path) -> Result<Outcome> {
        let mut file = Shared::layer_file(self.diff_id, unpacked.size, unpacked.contents);
        let Descriptor { media_type, digest, size, .. } = self.descriptor.clone();
        file.compressed.push(Compressed { media_type, digest, size });
        let placed = self.shared.place(draft, self.key, file)?;
        if self.shared.config.keep_blobs {
            let blob = self.shared.places.blob(&self.descriptor.digest);
            fs::rename(path, &blob).map_err(Error::io("keep", &blob))?;
        }
        Ok(Outcome::Placed(placed))
    }

    /// The meaning of the two sides' results together: the network's first, then the digest, then the tar.
    fn judge(&self, digest: Result<Digest>, unpacked: Result<Unpacked, Failure>) -> Result<Option<Unpacked>> {
        let actual = digest?;
        if actual != self.descriptor.digest {
            let object = "its blob".into();
            return Err(Error::DigestMismatch { object, expected: self.descriptor.digest, actual });
        }
        let unpacked = match unpacked {
            Err(Failure::NeedsBelow) if self.below.is_none() => return Ok(None),
            other => other.map_err(|failure| failure.for_layer(&self.descriptor.digest.to_string()))?,
        };
        if unpacked.diff_id == self.diff_id {
            return Ok(Some(unpacked));
        }
        let object = "its uncompressed tar".into();
        Err(Error::DigestMismatch { object, expected: self.diff_id.0, actual: unpacked.diff_id.0 })
    }
}

/// Hashes what was here, then what comes, and passes both on.
fn receive(
    receiver: &mut mpsc::Receiver<Chunk>,
    partial: &mut Partial,
    meter: &Meter,
    give: &mut dyn FnMut(Bytes),
) -> Result<Digest> {
    let mut hasher = Sha256::new();
    let mut left = partial.length;
    while left > 0 {
        let mut buffer = vec![0_u8; usize::try_from(left.min(256 << 10)).unwrap_or(1)];
        partial.file.read_exact(&mut buffer).map_err(Error::io("read", &partial.path))?;
        left -= buffer.len() as u64;
        hasher.update(&buffer);
        give(buffer.into());
    }
    loop {
        match receiver.blocking_recv() {
            Some(Chunk::Data(bytes)) => {
                partial.file.write_all(&bytes).map_err(Error::io("write", &partial.path))?;
                partial.length += bytes.len() as u64;
                hasher.update(&bytes);
                meter.add(|progress| progress.bytes_done += bytes.len() as u64);
                give(bytes);
            }
            Some(Chunk::End(ended)) => return ended.map(|()| Digest::finish(hasher)),
            None => return Err(Error::Cancelled { what: "a layer's download".into() }),
        }
    }
}
