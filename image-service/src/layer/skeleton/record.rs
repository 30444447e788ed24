//! The records of a skeleton.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// A record is never longer; paths and raw pieces are far shorter.
const RECORD_MAX: u32 = 2 << 20;

/// A record.
pub(super) enum Record {
    Raw(Vec<u8>),
    Data { path: Vec<u8>, offset: u64, count: u64 },
    Moved { path: Vec<u8>, number: u64 },
}

/// Reads a skeleton, one record at a time.
pub(super) struct SkeletonReader {
    input: zstd::Decoder<'static, BufReader<File>>,
}

impl SkeletonReader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { input: zstd::Decoder::new(slipway_disk::atomic::open_regular(path)?)? })
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let mut tag = [0_u8; 1];
        if self.input.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let mut length = [0_u8; 4];
        self.input.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > RECORD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record is too long"));
        }
        let mut bytes = vec![0_u8; length as usize];
        self.input.read_exact(&mut bytes)?;
        Ok(Some(match tag {
            [b'R'] => Record::Raw(bytes),
            [b'F'] => Record::Data { path: bytes, offset: self.number()?, count: self.number()? },
            [b'M'] => Record::Moved { path: bytes, number: self.number()? },
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown record")),
        }))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0_u8; 8];
        self.input.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
