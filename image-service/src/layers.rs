//! Layer directories: drafts become layers by a rename, and complete by their record.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use slipway_disk::walker::{self, Remnants, Stop};

use crate::digest::{ChainId, DiffId, Digest};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::LayerRecord;
use crate::index::{Held, Index};
use crate::layer::below::Below;
use crate::layer::pipeline::{self, Target, Unpacked};
use crate::layer::tar::Bounds;
use crate::layer::{Contents, Failure, diff, skeleton};
use crate::lease::Lease;
use crate::records::{Compressed, LayerFile, LayerKey, VERSION};
use crate::store::Shared;

/// A layer directory in the making; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    remnants: Remnants,
}

impl Draft {
    pub(crate) fn create(shared: &Shared) -> Result<Self> {
        let path = shared.places.folder("drafts").join(durable::temporary_name());
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(Self { path, remnants: shared.remnants.clone() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = self.remnants.remove(&self.path) {
            tracing::warn!(%error, "a draft of a layer is left until the next start");
        }
    }
}

/// A layer that was unpacked but has no record yet.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) key: LayerKey,
    pub(crate) file: LayerFile,
}

impl Shared {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { entries: self.config.limits.max_entries, bytes: self.config.limits.max_bytes }
    }

    /// The directories of these layers, topmost first.
    pub(crate) fn below(&self, layers: &[DiffId]) -> Result<Below> {
        let keys = self.index().keys(layers)?;
        Ok(Below { layers: keys.iter().rev().map(|key| self.places.layer(key).join("fs")).collect() })
    }

    /// Gives a draft its name. A directory that has the name already and a record wins; one without is garbage. A layer
    /// that nobody has a lease on any more is not placed: nobody would remove it.
    pub(crate) fn place(&self, draft: &Draft, key: LayerKey, file: LayerFile) -> Result<Placed> {
        let path = self.places.layer(&key);
        let placing = self.placing();
        if let Some(placed) = self.placed(key) {
            return Ok(placed);
        }
        if !self.index().leases.contains_key(&Held::Layer(key)) {
            return Err(Error::Cancelled { what: format!("layer {key}") });
        }
        let old = match fs::symlink_metadata(&path) {
            Ok(_) => Some(self.to_trash(&path)?),
            Err(_) => None,
        };
        fs::rename(draft.path(), &path).map_err(Error::io("create", &path))?;
        {
            let mut index = self.index();
            if index.suspect.remove(&key) {
                index.layers.remove(&key);
            }
            index.placed.insert(key, file.clone());
        }
        drop(placing);
        if let Some(old) = old {
            self.empty_trash(&old);
        }
        Ok(Placed { key, file })
    }

    /// A layer that is here, recorded or not yet.
    pub(crate) fn placed(&self, key: LayerKey) -> Option<Placed> {
        let index = self.index();
        if index.suspect.contains(&key) {
            return None;
        }
        let file = index.layers.get(&key).or_else(|| index.placed.get(&key)).cloned()?;
        Some(Placed { key, file })
    }

    /// Makes placed layers durable and known: one sync for all of them, then their records.
    pub(crate) fn record_layers(&self, placed: &[Placed]) -> Result<()> {
        let new: Vec<&Placed> = {
            let index = self.index();
            placed.iter().filter(|one| !index.layers.contains_key(&one.key)).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let root = fs::File::open(&self.places.root).map_err(Error::io("open", &self.places.root))?;
        rustix::fs::syncfs(root).map_err(Error::io("sync", &self.places.root))?;
        for one in new {
            let path = self.places.layer(&one.key).join("record");
            durable::write_record(&path, &one.file)?;
            let mut index = self.index();
            index.healed(&path);
            index.placed.remove(&one.key);
            index.layers.insert(one.key, one.file.clone());
        }
        durable::sync_directory(&self.places.folder("layers"))
    }

    /// Remembers a compressed form of a layer, the newest first.
    pub(crate) fn remember(&self, key: &LayerKey, compressed: Compressed) -> Result<()> {
        const MOST: usize = 4;
        let Some(mut file) = self.index().layers.get(key).cloned() else { return Ok(()) };
        if file.compressed.first() == Some(&compressed) {
            return Ok(());
        }
        file.compressed.retain(|one| one.digest != compressed.digest);
        file.compressed.insert(0, compressed);
        file.compressed.truncate(MOST);
        durable::write_record(&self.places.layer(key).join("record"), &file)?;
        self.index().layers.insert(*key, file);
        Ok(())
    }

    /// A layer's record as it is before any registry knows it.
    pub(crate) fn layer_file(diff_id: DiffId, size: u64, contents: Contents) -> LayerFile {
        let Contents { bytes, inodes, kept } = contents;
        LayerFile { version: VERSION, diff_id, size, bytes, inodes, kept, compressed: Vec::new() }
    }

    /// Writes a layer's tar and verifies it.
    pub(crate) fn layer_tar(&self, layer: &DiffId, output: &mut dyn Write) -> Result<()> {
        let (key, file) = self.layer_of(layer)?;
        self.layer_tar_at(&key, &file, output)
    }

    /// The same for one of the forms that a layer is here in.
    pub(crate) fn layer_tar_at(
        &self,
        key: &LayerKey,
        file: &LayerFile,
        output: &mut dyn Write,
    ) -> Result<()> {
        let path = self.places.layer(key);
        let mut hashing = HashWriter { output, hasher: Sha256::new() };
        skeleton::rebuild(&path, file.kept, &mut hashing)?;
        let actual = Digest::finish(hashing.hasher);
        if actual == file.diff_id.0 {
            return Ok(());
        }
        Err(Error::DigestMismatch { object: path.display().to_string(), expected: file.diff_id.0, actual })
    }

    /// A layer by its diff id, whatever it lies on.
    pub(crate) fn layer_of(&self, layer: &DiffId) -> Result<(LayerKey, LayerFile)> {
        let index = self.index();
        let own = LayerKey::Diff(*layer);
        let found = index.layers.get_key_value(&own);
        let found = found.or_else(|| index.layers.iter().find(|(_, file)| file.diff_id == *layer));
        let missing = || Error::LayerMissing { layer: layer.to_string() };
        found.map(|(key, file)| (*key, file.clone())).ok_or_else(missing)
    }
}

/// Writes a layer's record again, if its files still make its tar; says whether they do.
pub(crate) fn restore(shared: &Shared, key: &LayerKey, diff_id: DiffId, path: &Path) -> Result<bool> {
    if let Some(known) = shared.index().layers.get(key).cloned() {
        return Ok(shared.layer_tar_at(key, &known, &mut io::sink()).is_ok());
    }
    let (fs_bytes, inodes) = measure(&path.join("fs"))?;
    let kept = fs::read_dir(path.join("kept")).map_or(0, |entries| entries.count() as u64);
    let mut counting = Counting(0);
    let mut file = Shared::layer_file(diff_id, 0, Contents { bytes: fs_bytes, inodes, kept });
    if shared.layer_tar_at(key, &file, &mut counting).is_err() {
        return Ok(false);
    }
    file.size = counting.0;
    let record = path.join("record");
    durable::write_record(&record, &file)?;
    let mut index = shared.index();
    index.healed(&record);
    index.layers.insert(*key, file);
    Ok(true)
}

/// Bytes on disk and inodes of a directory and all in it.
fn measure(top: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let usage = walker::usage(top, &walker::never)?;
    let own = fs::symlink_metadata(top).map_or(0, |stat| stat.blocks().saturating_mul(512));
    Ok((usage.bytes.saturating_add(own), usage.inodes.saturating_add(1)))
}

/// Counts what is written.
struct Counting(u64);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a layer of an overlayfs upper directory.
pub(crate) fn commit(shared: &Arc<Shared>, upper: &Path, stop: Stop<'_>) -> Result<LayerRecord> {
    let draft = Draft::create(shared)?;
    let most = shared.config.limits.max_entries;
    let described = diff::diff(upper, &draft.path().join("skeleton"), most, stop)?;
    let file = Shared::layer_file(described.diff_id, described.size, described.contents);
    let key = LayerKey::Diff(described.diff_id);
    let lease = Lease::take(shared, vec![Held::Layer(key)]);
    // A layer that a check found damaged does not count: this one takes its place.
    let placed = match shared.placed(key) {
        Some(placed) => placed,
        None => match fs::rename(upper, draft.path().join("fs")) {
            Ok(()) => shared.place(&draft, key, file)?,
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                drop(draft);
                return copy_in(shared, upper, described.diff_id, stop);
            }
            Err(error) => return Err(Error::io("move", upper)(error)),
        },
    };
    shared.record_layers(&[placed])?;
    Ok(LayerRecord { diff_id: described.diff_id, size: described.size, lease })
}

/// The upper directory lies on another file system: its tar is written out once and unpacked here.
fn copy_in(shared: &Arc<Shared>, upper: &Path, expected: DiffId, stop: Stop<'_>) -> Result<LayerRecord> {
    let folder = Draft::create(shared)?;
    std::os::unix::fs::symlink(upper, folder.path().join("fs")).map_err(Error::io("link", upper))?;
    diff::diff(upper, &folder.path().join("skeleton"), shared.config.limits.max_entries, stop)?;
    let spool = folder.path().join("tar");
    let mut output = fs::File::create_new(&spool).map_err(Error::io("create", &spool))?;
    skeleton::rebuild(folder.path(), 0, &mut output)?;
    let tar = fs::File::open(&spool).map_err(Error::io("open", &spool))?;
    let layer = import(shared, tar, &[])?;
    if layer.diff_id == expected {
        return Ok(layer);
    }
    let (expected, actual) = (expected.0, layer.diff_id.0);
    Err(Error::DigestMismatch { object: upper.display().to_string(), expected, actual })
}

/// Makes a layer of an uncompressed tar that lies on these layers.
pub(crate) fn import(shared: &Arc<Shared>, tar: impl Read + Send, parents: &[DiffId]) -> Result<LayerRecord> {
    let draft = Draft::create(shared)?;
    let spool = draft.path().join("tar");
    spool_tar(tar, &spool, shared.config.limits.max_bytes)?;
    let (unpacked, leans) = match unpack_spool(shared, draft.path(), None) {
        Err(Failure::NeedsBelow) => {
            clear(draft.path())?;
            (unpack_spool(shared, draft.path(), Some(&shared.below(parents)?)), true)
        }
        other => (other, false),
    };
    let unpacked = unpacked.map_err(|failure| failure.for_layer("of the given tar"))?;
    slipway_disk::remove_tree(&spool)?;
    let key = if leans {
        let chain = ChainId::of(&[parents, &[unpacked.diff_id]].concat());
        LayerKey::Chain(chain.last().copied().unwrap_or(ChainId(unpacked.diff_id.0)))
    } else {
        LayerKey::Diff(unpacked.diff_id)
    };
    let lease = Lease::take(shared, vec![Held::Layer(key)]);
    let file = Shared::layer_file(unpacked.diff_id, unpacked.size, unpacked.contents);
    shared.record_layers(&[shared.place(&draft, key, file)?])?;
    Ok(LayerRecord { diff_id: unpacked.diff_id, size: unpacked.size, lease })
}

fn spool_tar(tar: impl Read, spool: &Path, most: u64) -> Result<()> {
    let mut output = fs::File::create_new(spool).map_err(Error::io("create", spool))?;
    let count =
        io::copy(&mut tar.take(most.saturating_add(1)), &mut output).map_err(Error::io("write", spool))?;
    if count <= most {
        return Ok(());
    }
    let reason = format!("its tar has more than {most} bytes, the configured limit");
    Err(Error::LayerRejected { layer: "of the given tar".into(), reason })
}

fn unpack_spool(shared: &Shared, layer: &Path, below: Option<&Below>) -> Result<Unpacked, Failure> {
    let spool = layer.join("tar");
    let tar =
        io::BufReader::with_capacity(256 << 10, fs::File::open(&spool).map_err(Error::io("open", &spool))?);
    pipeline::unpack_plain(tar, Target { layer, below, bounds: shared.bounds() })
}

/// Empties a draft for another try.
pub(crate) fn clear(draft: &Path) -> Result<()> {
    slipway_disk::remove_tree(&draft.join("fs"))?;
    slipway_disk::remove_tree(&draft.join("kept"))?;
    Ok(slipway_disk::remove_tree(&draft.join("skeleton"))?)
}

/// The keys that a lease on these layers needs before it is known where they are.
pub(crate) fn held(layers: &[DiffId]) -> Vec<Held> {
    Index::candidates(layers).map(Held::Layer).collect()
}

struct HashWriter<'a> {
    output: &'a mut dyn Write,
    hasher: Sha256,
}

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
