//! An overlayfs upper directory as a tar: sorted, whiteouts and opaque directories in the OCI form. The bytes go to a
//! hash and a skeleton; file data is only read, for it stays where it is.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use sha2::{Digest as _, Sha256};
use slipway_disk::walker::{Options, Step, Stop, Walker};

use super::Contents;
use super::root;
use super::skeleton::SkeletonWriter;
use super::tar::{BLOCK, padding};
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};

mod encode;
mod links;

use links::FirstNames;

/// The longest path of an entry: no path that a process gives the kernel is longer, and no tar with a longer one unpacks.
const PATH_MAX: usize = 4095;

/// The outcome of a directory.
#[derive(Debug)]
pub(crate) struct Diff {
    pub(crate) diff_id: DiffId,
    pub(crate) size: u64,
    pub(crate) contents: Contents,
}

/// Describes an upper directory: its diff id, and its skeleton at `skeleton`. More entries than `most` are refused, as
/// they would be by whoever pulls the layer.
pub(crate) fn diff(upper: &Path, skeleton: &Path, most: u64, stop: Stop<'_>) -> Result<Diff> {
    let mut writer = Writer {
        most,
        stop,
        hasher: Sha256::new(),
        skeleton: SkeletonWriter::create(skeleton)?,
        size: 0,
        links: FirstNames::default(),
        contents: Contents { bytes: 4096, inodes: 1, kept: 0 },
        buffer: vec![0; 256 << 10],
    };
    // Every entry, sorted by name within its directory.
    let mut walker = Walker::open(upper, Options::until(stop).sorted())?;
    while let Some(step) = walker.next()? {
        if step == Step::Found && writer.entry(&walker)? {
            walker.enter()?;
        }
    }
    writer.raw(&[0; 2 * BLOCK])?;
    writer.skeleton.finish()?;
    let diff_id = DiffId(Digest::finish(writer.hasher));
    Ok(Diff { diff_id, size: writer.size, contents: writer.contents })
}

struct Writer<'a> {
    most: u64,
    stop: Stop<'a>,
    hasher: Sha256,
    skeleton: SkeletonWriter,
    size: u64,
    links: FirstNames,
    contents: Contents,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    /// Writes one entry; true for a directory, whose children follow.
    fn entry(&mut self, at: &Walker<'_>) -> Result<bool> {
        self.check_limits(at)?;
        let (stat, path, name) = (at.stat()?, at.path(), at.name().as_bytes());
        let kind = FileType::from_raw_mode(stat.st_mode);
        self.contents.inodes += 1;
        if root::is_whiteout(&stat) {
            let parent = path.strip_suffix(name).unwrap_or_default();
            self.raw(&encode::marker(&[parent, b".wh.", name].concat()))?;
            root::mark_whiteouts(at.directory()?).map_err(|errno| Error::io("mark", at.shown())(errno))?;
            return Ok(false);
        }
        if kind == FileType::Socket {
            return Ok(false); // a socket is not bound to anything any more, and a tar has no word for it
        }
        let mut header = encode::Fields::of(path, &stat);
        let opaque = attributes(at, &mut header)?;
        if kind == FileType::Symlink {
            let link = rustix::fs::readlinkat(at.directory()?, at.name(), Vec::new());
            header.link = link.map_err(|errno| Error::io("read the link", at.shown())(errno))?.into_bytes();
        } else if kind != FileType::Directory && stat.st_nlink > 1 {
            let first = self.links.first(&stat, path);
            if let Some(first) = first.map_err(|reason| rejected(at, reason))? {
                self.contents.inodes = self.contents.inodes.saturating_sub(1);
                header.link_to(&first);
                self.raw(&header.encode())?;
                return Ok(false);
            }
        }
        self.raw(&header.encode())?;
        self.contents.bytes += if kind == FileType::Directory { 4096 } else { 0 };
        if kind == FileType::RegularFile {
            self.data(at, &stat)?;
        }
        if opaque {
            self.raw(&encode::marker(&[path, b"/.wh..wh..opq"].concat()))?;
        }
        Ok(kind == FileType::Directory)
    }

    /// Refuses what no layer can hold.
    fn check_limits(&self, at: &Walker<'_>) -> Result<()> {
        if at.name().as_bytes().starts_with(b".wh.") {
            let reason = "a name that begins with .wh. can't be part of a layer: rename the file";
            return Err(rejected(at, reason.into()));
        }
        if at.path().len() > PATH_MAX {
            let reason = format!(
                "its path has more than {PATH_MAX} bytes, the most that a layer can hold: remove the directories that lie so deep"
            );
            return Err(rejected(at, reason));
        }
        if self.contents.inodes > self.most {
            let most = self.most;
            let reason = format!("the layer has more than {most} entries, the configured limit: write less");
            return Err(rejected(at, reason));
        }
        Ok(())
    }

    fn data(&mut self, at: &Walker<'_>, stat: &Stat) -> Result<()> {
        let (full, size) = (at.shown(), u64::try_from(stat.st_size).unwrap_or(0));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(at.directory()?, at.name(), flags, Mode::empty());
        let mut file = File::from(file.map_err(Error::io("open", &full))?).take(size);
        let mut left = size;
        loop {
            if (self.stop)() {
                return Err(Error::Cancelled { what: "the making of a layer".into() });
            }
            let count = file.read(&mut self.buffer).map_err(Error::io("read", &full))?;
            let Some(part) = self.buffer.get(..count).filter(|part| !part.is_empty()) else { break };
            self.hasher.update(part);
            left = left.saturating_sub(count as u64);
        }
        if left > 0 {
            return Err(Error::Corrupt { path: full, reason: "it became shorter while it was read".into() });
        }
        self.size += size;
        self.contents.bytes += size.div_ceil(4096) * 4096;
        self.skeleton.file(at.path(), 0, size)?;
        let zeros = [0_u8; BLOCK];
        self.raw(zeros.get(..padding(size)).unwrap_or_default())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.skeleton.raw(bytes)
    }
}

fn rejected(at: &Walker<'_>, reason: String) -> Error {
    Error::LayerRejected { layer: at.shown().display().to_string(), reason }
}

/// Puts an entry's attributes into its header; says whether it is an opaque directory.
fn attributes(at: &Walker<'_>, header: &mut encode::Fields) -> Result<bool> {
    let path = root::proc_child(at.directory()?, at.name().as_bytes());
    let mut opaque = false;
    for (name, value) in root::xattrs_shown(&path, &at.shown())? {
        if root::is_overlay(&name) {
            opaque |= name.ends_with(b".overlay.opaque") && value == b"y";
            own_attribute(at, &path, &name)?;
        } else {
            header.xattrs.push((name, value));
        }
    }
    Ok(opaque)
}

/// Overlayfs' notes on an upper directory mean nothing in a lower one; what would change its meaning is refused.
fn own_attribute(at: &Walker<'_>, path: &Path, name: &[u8]) -> Result<()> {
    let kind = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    if matches!(kind, b"redirect" | b"metacopy") {
        let reason = "its directory was mounted with redirect_dir or metacopy, which a layer can't hold";
        return Err(rejected(at, reason.into()));
    }
    if !matches!(kind, b"opaque") {
        let removed = rustix::fs::lremovexattr(path, OsStr::from_bytes(name));
        removed.map_err(|errno| Error::io("remove an attribute of", at.shown())(errno))?;
    }
    Ok(())
}
