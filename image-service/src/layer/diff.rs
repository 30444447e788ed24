//! An overlayfs upper directory as a tar: sorted, whiteouts and opaque directories in the OCI form. The bytes go to a
//! hash and a skeleton; file data is only read, for it stays where it is.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Contents;
use super::root;
use super::skeleton::SkeletonWriter;
use super::tar::{BLOCK, padding};
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};

mod encode;

/// What became of a directory.
#[derive(Debug)]
pub(crate) struct Diff {
    pub(crate) diff_id: DiffId,
    pub(crate) size: u64,
    pub(crate) contents: Contents,
}

/// Describes an upper directory: its diff id, and its skeleton at `skeleton`.
pub(crate) fn diff(upper: &Path, skeleton: &Path) -> Result<Diff> {
    let mut writer = Writer {
        root: upper.to_path_buf(),
        hasher: Sha256::new(),
        skeleton: SkeletonWriter::create(skeleton)?,
        size: 0,
        links: HashMap::new(),
        contents: Contents { bytes: 4096, inodes: 1, kept: 0 },
        buffer: vec![0; 256 << 10],
    };
    writer.everything()?;
    writer.raw(&[0; 2 * BLOCK])?;
    writer.skeleton.finish()?;
    let diff_id = DiffId(Digest::finish(writer.hasher));
    Ok(Diff { diff_id, size: writer.size, contents: writer.contents })
}

struct Writer {
    root: PathBuf,
    hasher: Sha256,
    skeleton: SkeletonWriter,
    size: u64,
    /// The first path of each inode with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    contents: Contents,
    buffer: Vec<u8>,
}

impl Writer {
    /// Every entry, sorted by name within its directory; a stack of its own, for depth comes from the container.
    fn everything(&mut self) -> Result<()> {
        let mut stack = vec![(Vec::new(), self.names(b"")?)];
        while let Some((directory, names)) = stack.last_mut() {
            let Some(name) = names.pop() else {
                stack.pop();
                continue;
            };
            let path = if directory.is_empty() { name } else { [directory, b"/".as_slice(), &name].concat() };
            if self.entry(&path)? {
                let names = self.names(&path)?;
                stack.push((path, names));
            }
        }
        Ok(())
    }

    /// Names in reverse order, to be taken from the end.
    fn names(&self, directory: &[u8]) -> Result<Vec<Vec<u8>>> {
        let path = self.path(directory);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", &path))? {
            names.push(entry.map_err(Error::io("read", &path))?.file_name().into_vec());
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(names)
    }

    /// Writes one entry; true for a directory, whose children follow.
    fn entry(&mut self, path: &[u8]) -> Result<bool> {
        let full = self.path(path);
        let stat = std::fs::symlink_metadata(&full).map_err(Error::io("read", &full))?;
        let kind = stat.file_type();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        if name.starts_with(b".wh.") {
            let reason = "a name that begins with .wh. can't be part of a layer: rename the file".into();
            return Err(Error::LayerRejected { layer: full.display().to_string(), reason });
        }
        self.contents.inodes += 1;
        if kind.is_char_device() && stat.rdev() == 0 {
            let parent = path.strip_suffix(name).unwrap_or_default();
            self.raw(&encode::marker(&[parent, b".wh.", name].concat()))?;
            let parent = self.path(parent);
            File::open(&parent)
                .and_then(|directory| Ok(root::mark_whiteouts(directory.as_fd())?))
                .map_err(Error::io("mark", &parent))?;
            return Ok(false);
        }
        if kind.is_socket() {
            return Ok(false); // a socket is not bound to anything any more, and a tar has no word for it
        }
        let mut header = encode::Fields::of(path, &stat);
        let mut opaque = false;
        for (name, value) in root::xattrs(&full)? {
            if root::is_overlay(&name) {
                opaque |= name.ends_with(b".overlay.opaque") && value == b"y";
                self.own_attribute(&full, &name)?;
            } else {
                header.xattrs.push((name, value));
            }
        }
        if kind.is_symlink() {
            header.link = root::read_link(&full)?;
        } else if !kind.is_dir() && stat.nlink() > 1 {
            match self.links.get(&(stat.dev(), stat.ino())) {
                Some(first) => {
                    self.contents.inodes = self.contents.inodes.saturating_sub(1);
                    header.link_to(first);
                    self.raw(&header.encode())?;
                    return Ok(false);
                }
                None => drop(self.links.insert((stat.dev(), stat.ino()), path.to_vec())),
            }
        }
        self.raw(&header.encode())?;
        self.contents.bytes += if kind.is_dir() { 4096 } else { 0 };
        if kind.is_file() {
            self.data(path, stat.len())?;
        }
        if opaque {
            self.raw(&encode::marker(&[path, b"/.wh..wh..opq"].concat()))?;
        }
        Ok(kind.is_dir())
    }

    /// Overlayfs' notes on an upper directory mean nothing in a lower one; what would change its meaning is refused.
    fn own_attribute(&self, path: &Path, name: &[u8]) -> Result<()> {
        let kind = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
        if matches!(kind, b"redirect" | b"metacopy") {
            let reason =
                "its directory was mounted with redirect_dir or metacopy, which a layer can't hold".into();
            return Err(Error::LayerRejected { layer: path.display().to_string(), reason });
        }
        if !matches!(kind, b"opaque") {
            rustix::fs::lremovexattr(path, OsStr::from_bytes(name))
                .map_err(Error::io("remove an attribute of", path))?;
        }
        Ok(())
    }

    fn data(&mut self, path: &[u8], size: u64) -> Result<()> {
        let full = self.path(path);
        let mut file = File::open(&full).map_err(Error::io("open", &full))?.take(size);
        let mut left = size;
        loop {
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
        self.skeleton.file(path, 0, size)?;
        let zeros = [0_u8; BLOCK];
        self.raw(zeros.get(..padding(size)).unwrap_or_default())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.skeleton.raw(bytes)
    }

    fn path(&self, relative: &[u8]) -> PathBuf {
        if relative.is_empty() { self.root.clone() } else { self.root.join(OsStr::from_bytes(relative)) }
    }
}
