//! Whiteouts: `.wh.x` hides what lies below under that name, `.wh..wh..opq` all that lies below a directory.

use super::{
    Applier, DISK_BLOCK, Entry, Errno, Error, Failure, FileType, Keeps, Mode, OsStr, OsStrExt as _, Place,
    Read, TarReader, name, root,
};

impl Applier<'_> {
    pub(super) fn whiteout(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        hidden: &[u8],
        tar: &mut TarReader<impl Read>,
    ) -> Result<Keeps, Failure> {
        if entry.size > 0 {
            let mut skipped = 0_u64;
            while let count @ 1.. = tar.data(&mut self.buffer)? {
                tar.skeleton().raw(self.buffer.get(..count).unwrap_or_default())?;
                skipped += count as u64;
                if skipped > DISK_BLOCK {
                    return Err(Failure::entry(&entry.path, "a whiteout has data"));
                }
            }
        }
        if hidden == b".wh..opq" {
            let directory = place.real.strip_suffix(b".wh..wh..opq").unwrap_or_default();
            let directory = directory.strip_suffix(b"/").unwrap_or(directory).to_vec();
            self.make_opaque(&directory)?;
            return Ok(Keeps::Parent);
        }
        if hidden.starts_with(b".wh.") {
            return Ok(Keeps::Parent); // aufs' own bookkeeping (.wh..wh.plnk and its kin) hides nothing
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Failure::entry(&entry.path, "a whiteout names no file"));
        }
        let real = name::join(place.real.strip_suffix(place.name).unwrap_or_default(), hidden);
        match rustix::fs::mknodat(
            place.parent,
            OsStr::from_bytes(hidden),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        ) {
            Ok(()) => {
                self.contents.inodes += 1;
                root::mark_whiteouts(place.parent).map_err(Error::io("mark", self.path(&real)))?;
            }
            // The layer's own file stays: a whiteout hides what lies below. Its own directory hides it by being opaque.
            Err(Errno::EXIST) => {
                let stat = root::stat(place.parent, hidden).map_err(Error::io("read", self.path(&real)))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    self.make_opaque(&real)?;
                }
            }
            Err(errno) => return Err(Error::io("make a whiteout at", self.path(&real))(errno).into()),
        }
        Ok(Keeps::Parent)
    }

    pub(super) fn make_opaque(&self, real: &[u8]) -> Result<(), Failure> {
        let fd = self.root.directory(real).map_err(Error::io("open", self.path(real)))?;
        let flags = rustix::fs::XattrFlags::empty();
        let set = rustix::fs::fsetxattr(fd, root::opaque_name(), b"y", flags);
        Ok(set.map_err(Error::io("make opaque", self.path(real)))?)
    }
}
