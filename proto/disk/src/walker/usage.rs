//! The space that a tree takes on its file system.

use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Error, Options, Step, Stop, Walker};

/// The space that a tree takes.
#[derive(Debug, Default)]
pub struct Usage {
    /// Bytes on disk, by whole blocks. A file with several names counts for each.
    pub bytes: u64,
    /// Entries.
    pub inodes: u64,
    /// The first of what could not be counted; entries that go meanwhile are none.
    pub uncounted: Option<Error>,
}

/// Adds up what is below a directory, which is not counted itself; nothing for one that does not exist. Mounts in it are
/// not entered. The tree may change meanwhile: what is counted is what was found below it, never what a link leads to.
///
/// # Errors
/// [`Error::Stopped`], or when the directory itself can't be opened.
pub fn usage(top: &Path, stop: Stop<'_>) -> Result<Usage, Error> {
    let mut walker = match Walker::open(top, Options::until(stop)) {
        Ok(walker) => walker,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Usage::default());
        }
        Err(error) => return Err(error),
    };
    let mut usage = Usage::default();
    loop {
        let counted = match walker.next() {
            Ok(None) => return Ok(usage),
            Ok(Some(Step::Left)) => continue,
            Ok(Some(Step::Found)) => count(&mut walker, &mut usage),
            Err(error) => Err(error),
        };
        match counted {
            Ok(()) => {}
            Err(Error::Stopped) => return Err(Error::Stopped),
            Err(error) if changed_meanwhile(&error) => {}
            Err(error) => drop(usage.uncounted.get_or_insert(error)),
        }
    }
}

fn count(walker: &mut Walker<'_>, usage: &mut Usage) -> Result<(), Error> {
    let stat = walker.stat()?;
    usage.inodes = usage.inodes.saturating_add(1);
    usage.bytes = usage.bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { walker.enter() } else { Ok(()) }
}

/// Whether an entry is gone, or is something else than a moment ago.
fn changed_meanwhile(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return matches!(error, Error::Moved { .. }) };
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::STALE];
    gone.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
}
