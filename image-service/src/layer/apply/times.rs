//! The times of a layer's directories, set when all is written: making something in a directory changes its time. They
//! wait on disk, for a hostile layer has any number of directories.
//!
//! ```text
//! record = length:u32le path seconds:i64le nanoseconds:u32le
//! ```

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::layer::Failure;

/// A file without a name; it is gone with this.
pub(super) struct DirectoryTimes {
    file: BufWriter<File>,
    count: u64,
    path: PathBuf,
}

impl DirectoryTimes {
    /// None yet; the file is made in this directory.
    pub(super) fn create(directory: &Path) -> Result<Self> {
        let path = directory.join("times");
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = BufWriter::new(file.map_err(Error::io("create", &path))?);
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(Self { file, count: 0, path })
    }

    /// Remembers the time that a directory is to get.
    pub(super) fn push(&mut self, path: &[u8], (seconds, nanoseconds): (i64, u32)) -> Result<()> {
        let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
        let fields: [&[u8]; 4] =
            [&length.to_le_bytes(), path, &seconds.to_le_bytes(), &nanoseconds.to_le_bytes()];
        self.count += 1;
        fields.iter().try_for_each(|field| self.file.write_all(field)).map_err(Error::io("write", &self.path))
    }

    /// Gives all of them in their order.
    pub(super) fn each(
        self,
        mut set: impl FnMut(&[u8], (i64, u32)) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = || Error::io("read", self.path.clone());
        let file = self.file.into_inner().map_err(|error| failed()(error.into_error()))?;
        let mut input = BufReader::new(file);
        input.rewind().map_err(failed())?;
        let mut path = Vec::new();
        for _ in 0..self.count {
            let (mut length, mut seconds, mut nanoseconds) = ([0; 4], [0; 8], [0; 4]);
            input.read_exact(&mut length).map_err(failed())?;
            path.resize(u32::from_le_bytes(length) as usize, 0);
            input.read_exact(&mut path).map_err(failed())?;
            input.read_exact(&mut seconds).map_err(failed())?;
            input.read_exact(&mut nanoseconds).map_err(failed())?;
            set(&path, (i64::from_le_bytes(seconds), u32::from_le_bytes(nanoseconds)))?;
        }
        Ok(())
    }
}
