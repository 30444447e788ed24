//! Waiting for a log file: until something was written to it, or a rotation has put a new one in its place.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

/// Watches the folder of a log, which a rotation leaves where it is.
#[derive(Debug)]
pub struct LogWatch {
    folder: PathBuf,
    /// Absent while the folder can't be watched: then only time passes.
    notices: Option<OwnedFd>,
}

impl LogWatch {
    /// Begins to watch; what happens from now on ends the next wait.
    #[must_use]
    pub fn new(log: &Path) -> Self {
        let folder = log.parent().unwrap_or(Path::new("/")).to_owned();
        Self { notices: watch(&folder).ok(), folder }
    }

    /// Waits until the folder's files change, `also` is readable or the time is over; says whether anything happened.
    ///
    /// # Errors
    /// When the wait fails.
    pub fn wait(&mut self, also: Option<BorrowedFd<'_>>, limit: Duration) -> io::Result<bool> {
        if self.notices.is_none() {
            self.notices = watch(&self.folder).ok();
        }
        let watched = self.notices.iter().map(OwnedFd::as_fd).chain(also);
        let mut watched: Vec<PollFd<'_>> =
            watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let limit = Timespec::try_from(limit).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let ready = match poll(&mut watched, Some(&limit)) {
            Ok(ready) => ready,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        if let Some(notices) = &self.notices {
            drain(notices);
        }
        Ok(ready > 0)
    }

    /// The file that has come into the place of an open one, once something is in it: until then the old one may still
    /// be written to, for the new one is there before its writer goes over to it.
    ///
    /// # Errors
    /// When the new one can't be opened.
    pub fn replacement(log: &Path, open: &File) -> io::Result<Option<File>> {
        let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        match std::fs::metadata(log) {
            Ok(found) if found.len() > 0 && identity(&found) != identity(&open.metadata()?) => {
                File::open(log).map(Some)
            }
            Ok(_) => Ok(None),
            // Between the two steps of a rotation there is none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn watch(folder: &Path) -> rustix::io::Result<OwnedFd> {
    let notices = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&notices, folder, events)?;
    Ok(notices)
}

/// Takes the notices away: that there were some is all that counts.
fn drain(notices: &OwnedFd) {
    let mut buffer = [0_u8; 4096];
    while rustix::io::read(notices, &mut buffer).is_ok_and(|length| length > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_write_and_a_rotation_end_the_wait_and_silence_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut file = File::create(&log).unwrap();
        let mut watch = LogWatch::new(&log);
        assert!(!watch.wait(None, Duration::ZERO).unwrap());
        file.write_all(b"x").unwrap();
        assert!(watch.wait(None, Duration::from_secs(10)).unwrap());
        assert!(!watch.wait(None, Duration::ZERO).unwrap());
        std::fs::rename(&log, folder.path().join("log.1")).unwrap();
        assert!(LogWatch::replacement(&log, &file).unwrap().is_none());
        let mut new = File::create(&log).unwrap();
        assert!(watch.wait(None, Duration::from_secs(10)).unwrap());
        assert!(LogWatch::replacement(&log, &file).unwrap().is_none());
        new.write_all(b"x").unwrap();
        assert!(LogWatch::replacement(&log, &file).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_comes_later_is_watched_then() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("later/log");
        let mut watch = LogWatch::new(&log);
        assert!(!watch.wait(None, Duration::ZERO).unwrap());
        std::fs::create_dir(folder.path().join("later")).unwrap();
        assert!(!watch.wait(None, Duration::ZERO).unwrap());
        std::fs::write(&log, b"x").unwrap();
        assert!(watch.wait(None, Duration::from_secs(10)).unwrap());
    }
}
