//! The skeleton of a layer reproduces its tar bit for bit: every byte that is no file's data, and for the data the file
//! that has it.
//!
//! ```text
//! zstd( record* )
//! record = 'R' length:u32le bytes                              bytes of the tar as they are
//!        | 'F' length:u32le path offset:u64le count:u64le      count bytes of fs/path
//!        | 'M' length:u32le path number:u64le                  the entry at path until here is now kept/number
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::root::Root;
use crate::error::{Error, Result};

mod moves;
mod record;

use moves::Moves;
pub(crate) use moves::{MOVES_MAX, cost as cost_of_move};
use record::{Record, SkeletonReader};

const LEVEL: i32 = 3;
const PENDING_MAX: usize = 64 << 10;

/// Writes a skeleton, or drops what it is given.
pub(crate) struct SkeletonWriter {
    output: Option<zstd::Encoder<'static, BufWriter<File>>>,
    path: PathBuf,
    pending: Vec<u8>,
}

impl SkeletonWriter {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(Error::io("create", path))?;
        let output = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(Error::io("write", path))?;
        let pending = Vec::with_capacity(PENDING_MAX);
        Ok(Self { output: Some(output), path: path.to_path_buf(), pending })
    }

    /// A writer for reading a tar only.
    pub(crate) fn none() -> Self {
        Self { output: None, path: PathBuf::new(), pending: Vec::new() }
    }

    /// Bytes of the tar.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        if self.output.is_none() {
            return Ok(());
        }
        for piece in bytes.chunks(PENDING_MAX) {
            if self.pending.len() + piece.len() > PENDING_MAX {
                self.flush()?;
            }
            self.pending.extend_from_slice(piece);
        }
        Ok(())
    }

    /// Data that is in a file.
    pub(crate) fn file(&mut self, path: &[u8], offset: u64, count: u64) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.flush()?;
        self.record(b'F', path)?;
        self.write(&offset.to_le_bytes())?;
        self.write(&count.to_le_bytes())
    }

    /// An entry that was at a path is now kept under a number.
    pub(crate) fn moved(&mut self, path: &[u8], number: u64) -> Result<()> {
        self.flush()?;
        self.record(b'M', path)?;
        self.write(&number.to_le_bytes())
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let Some(output) = self.output else { return Ok(()) };
        output.finish().and_then(|mut file| file.flush()).map_err(Error::io("write", self.path))
    }

    fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.record(b'R', &pending)?;
        }
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    fn record(&mut self, tag: u8, bytes: &[u8]) -> Result<()> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.write(&[tag])?;
        self.write(&length.to_le_bytes())?;
        self.write(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        output.write_all(bytes).map_err(Error::io("write", &self.path))
    }
}

/// Writes the tar of the layer in this directory.
pub(crate) fn rebuild(layer: &Path, kept: u64, output: &mut dyn Write) -> Result<()> {
    let skeleton = layer.join("skeleton");
    let corrupt = |error: io::Error| Error::Corrupt { path: skeleton.clone(), reason: error.to_string() };
    let moves = if kept > 0 { Moves::read(&skeleton).map_err(corrupt)? } else { Moves::default() };
    let (files, keep) = (Root::open(&layer.join("fs"))?, layer.join("kept"));
    let mut reader = SkeletonReader::open(&skeleton).map_err(corrupt)?;
    let mut ordinal = 0_u64;
    while let Some(record) = reader.next().map_err(corrupt)? {
        match record {
            Record::Raw(bytes) => output.write_all(&bytes).map_err(Error::io("write the tar of", layer))?,
            Record::Moved { .. } => {}
            Record::Data { path, offset, count } => {
                let file = match moves.place(&path, ordinal) {
                    Some(kept_path) => Root::open(&keep)?.open_file(&kept_path)?,
                    None => files.open_file(&path)?,
                };
                copy(file, (offset, count), output).map_err(|error| Error::Corrupt {
                    path: layer.to_path_buf(),
                    reason: error.to_string(),
                })?;
                ordinal += 1;
            }
        }
    }
    Ok(())
}

fn copy(mut file: File, (offset, count): (u64, u64), output: &mut dyn Write) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    if io::copy(&mut file.take(count), output)? == count {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than its tar says"))
}
