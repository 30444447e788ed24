//! Tar headers: ustar, with a PAX header before it for what ustar can't say.

use rustix::fs::{FileType, Stat};

use crate::layer::tar::{BLOCK, padding};

const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

/// The fields of a header.
pub(super) struct Fields {
    path: Vec<u8>,
    pub(super) link: Vec<u8>,
    flag: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    size: u64,
    device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Fields {
    pub(super) fn of(path: &[u8], stat: &Stat) -> Self {
        let flag = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => b'5',
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            FileType::Fifo => b'6',
            _ => b'0',
        };
        let device = if matches!(flag, b'3' | b'4') {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        } else {
            (0, 0)
        };
        let mut path = path.to_vec();
        if flag == b'5' {
            path.push(b'/');
        }
        Self {
            path,
            link: Vec::new(),
            flag,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime,
            size: if flag == b'0' { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
            device,
            xattrs: Vec::new(),
        }
    }

    /// Makes it a hard link to an earlier path.
    pub(super) fn link_to(&mut self, target: &[u8]) {
        (self.flag, self.size, self.link) = (b'1', 0, target.to_vec());
        self.xattrs.clear();
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut number = |key: &[u8], value: u64, most: u64| {
            if value > most {
                record(&mut records, key, value.to_string().as_bytes());
            }
        };
        number(b"gid", self.gid.into(), OCTAL_7);
        number(b"size", self.size, OCTAL_11);
        number(b"uid", self.uid.into(), OCTAL_7);
        if self.link.len() > 100 {
            record(&mut records, b"linkpath", &self.link);
        }
        if self.mtime < 0 || self.mtime.unsigned_abs() > OCTAL_11 {
            record(&mut records, b"mtime", self.mtime.to_string().as_bytes());
        }
        if self.path.len() > 100 {
            record(&mut records, b"path", &self.path);
        }
        for (name, value) in &self.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        let mut bytes = Vec::new();
        if !records.is_empty() {
            let header = Self {
                flag: b'x',
                size: records.len() as u64,
                mode: 0o644,
                ..Self::named(b"PaxHeaders/entry")
            };
            bytes.extend_from_slice(&header.block());
            let fill = padding(records.len() as u64);
            bytes.append(&mut records);
            bytes.resize(bytes.len() + fill, 0);
        }
        bytes.extend_from_slice(&self.block());
        bytes
    }

    fn named(path: &[u8]) -> Self {
        Self {
            path: path.to_vec(),
            link: Vec::new(),
            flag: b'0',
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0_u8; BLOCK];
        put(&mut block, 0, self.path.get(..self.path.len().min(100)).unwrap_or_default());
        octal(&mut block, 100, 7, self.mode.into());
        octal(&mut block, 108, 7, u64::from(self.uid).min(OCTAL_7));
        octal(&mut block, 116, 7, u64::from(self.gid).min(OCTAL_7));
        octal(&mut block, 124, 11, self.size.min(OCTAL_11));
        octal(&mut block, 136, 11, u64::try_from(self.mtime).unwrap_or(0).min(OCTAL_11));
        put(&mut block, 148, b"        ");
        put(&mut block, 156, &[self.flag]);
        put(&mut block, 157, self.link.get(..self.link.len().min(100)).unwrap_or_default());
        put(&mut block, 257, b"ustar\x0000");
        octal(&mut block, 329, 7, self.device.0.into());
        octal(&mut block, 337, 7, self.device.1.into());
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block, 148, 6, sum);
        put(&mut block, 154, b"\0 ");
        block
    }
}

/// A whiteout or opaque marker: an empty file with nothing of its own.
pub(super) fn marker(path: &[u8]) -> Vec<u8> {
    Fields::named(path).encode()
}

/// `length key=value\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (slot, byte) in block.iter_mut().skip(at).zip(bytes) {
        *slot = *byte;
    }
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    put(block, at, format!("{value:0digits$o}").as_bytes());
}
