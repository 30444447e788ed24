//! Files that are written whole or not at all: under a temporary name, then renamed into place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;

use crate::{Error, Result};

const TEMPORARY: &str = ".tmp-";
const ASIDE: &str = ".aside-";
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The failures that a written file survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of the daemon at any moment. Nothing is synced: after a power cut the file may be old, empty or torn.
    DaemonDeath,
    /// A power cut: the content is synced before the rename, and the directory after it (fsync(2)).
    PowerCut,
}

/// A name that no other unfinished write has, not one of an earlier process either: what can't be removed keeps its name.
#[must_use]
pub fn temporary_name() -> String {
    format!("{TEMPORARY}{}", fresh())
}

fn fresh() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    let process = PROCESS.get_or_init(|| {
        let mut bytes = [0_u8; 8];
        // Without randomness a name that is taken is refused, and the next call tries the next one.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u64::from_le_bytes(bytes)
    });
    format!("{process:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether a name is that of a write that never finished.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY)
}

/// Whether a name is that of a directory that stood in the way of a write.
#[must_use]
pub fn is_aside(name: &str) -> bool {
    name.starts_with(ASIDE)
}

/// Replaces a file's content: a reader sees the old content or the new one. A link, a device or a FIFO of that name is
/// replaced, never written through; a directory of that name is renamed to [`is_aside`]'s form.
///
/// # Errors
/// When the file can't be written, synced or renamed (rename(2)); the old content is still there then.
pub fn write_atomic(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    replace(path, bytes, (durability, None))
}

/// Replaces a program as [`write_atomic`] replaces a file, for everybody to execute. It survives the death of the daemon
/// at any moment.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_program(path: &Path, bytes: &[u8]) -> Result<()> {
    const EXECUTABLE: u32 = 0o555;
    replace(path, bytes, (Durability::DaemonDeath, Some(EXECUTABLE)))
}

fn replace(path: &Path, bytes: &[u8], (durability, mode): (Durability, Option<u32>)) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let draft = parent.join(temporary_name());
    let written = write_draft(&draft, bytes, (durability, mode)).and_then(|()| rename(&draft, path));
    // Half a file on a full disk is of no use.
    written.inspect_err(|_| drop(fs::remove_file(&draft)))?;
    match durability {
        Durability::DaemonDeath => Ok(()),
        Durability::PowerCut => sync_directory(parent),
    }
}

fn write_draft(draft: &Path, bytes: &[u8], (durability, mode): (Durability, Option<u32>)) -> Result<()> {
    let mut file = File::create_new(draft).map_err(Error::io("create", draft))?;
    file.write_all(bytes).map_err(Error::io("write", draft))?;
    if let Some(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(Error::io("set the mode of", draft))?;
    }
    match durability {
        Durability::DaemonDeath => Ok(()),
        Durability::PowerCut => file.sync_all().map_err(Error::io("sync", draft)),
    }
}

fn rename(draft: &Path, path: &Path) -> Result<()> {
    match fs::rename(draft, path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            set_aside(path)?;
            fs::rename(draft, path).map_err(Error::io("rename into", path))
        }
        outcome => outcome.map_err(Error::io("rename into", path)),
    }
}

/// Renames what has a name that is needed for something else; returns where it is now, in the same directory.
///
/// # Errors
/// When it can't be renamed (rename(2)).
pub fn set_aside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let short: String = name.chars().take(64).collect();
    let aside = path.with_file_name(format!("{ASIDE}{short}-{}", fresh()));
    fs::rename(path, &aside).map_err(Error::io("rename", path))?;
    Ok(aside)
}

/// Makes sure that a directory is there, with its parents. What else has its name is set aside; returns where.
///
/// # Errors
/// As mkdir(2) and rename(2).
pub fn make_directory(path: &Path, mode: u32) -> Result<Option<PathBuf>> {
    let make = || fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    match make() {
        Ok(()) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) => {
            let parent = path.parent().filter(|parent| !parent.is_dir() && parent.symlink_metadata().is_ok());
            let aside = set_aside(parent.unwrap_or(path));
            let aside = aside.map_err(|_| Error::io("create directory", path)(error))?;
            make().map_err(Error::io("create directory", path))?;
            Ok(Some(aside))
        }
        Err(error) => Err(Error::io("create directory", path)(error)),
    }
}

/// Makes renames and removals in a directory survive a power cut.
///
/// # Errors
/// As fsync(2).
pub fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io("sync", path))
}

/// Removes the unfinished writes in a directory that a crash has left; what can't be removed stays.
pub fn remove_unfinished(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_temporary(&entry.file_name().to_string_lossy())) {
        // It is not read under this name, whatever it is.
        let _ = fs::remove_file(entry.path());
    }
}

/// Reads a regular file of at most `most` bytes. A link is not followed, a FIFO or device is not waited for or touched.
///
/// # Errors
/// As open(2) and read(2); [`ErrorKind::InvalidData`] for what is no regular file, or has more bytes.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    if file.metadata()?.len() > most {
        return Err(too_long(most));
    }
    // It may grow while it is read.
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= most => Ok(bytes),
        _ => Err(too_long(most)),
    }
}

/// Opens a regular file for reading. A link is not followed, a FIFO or device is not waited for or touched.
///
/// # Errors
/// As open(2); [`ErrorKind::InvalidData`] for what is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    check(&fs::symlink_metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(flags()).open(path)?;
    // It may have been replaced between the two looks.
    check(&file.metadata()?)?;
    Ok(file)
}

/// Opens a file that is there for its lock alone. What else has its name is set aside: nobody holds a lock on that.
///
/// # Errors
/// As open(2) and rename(2).
pub fn open_lock(path: &Path) -> Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => drop(set_aside(path)?),
        _ => {}
    }
    let open = OpenOptions::new().create(true).truncate(false).write(true).custom_flags(flags()).open(path);
    open.map_err(Error::io("open lock", path))
}

fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed()
}

fn check(metadata: &fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::new(ErrorKind::InvalidData, format!("it is {what}, not a regular file")))
}

fn too_long(most: u64) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("it has more than {most} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_replaces_whatever_has_the_name_and_leaves_nothing_else() {
        for durability in [Durability::DaemonDeath, Durability::PowerCut] {
            let folder = tempfile::tempdir().unwrap();
            let (path, other) = (folder.path().join("file"), folder.path().join("other"));
            fs::write(&other, "untouched").unwrap();
            std::os::unix::fs::symlink(&other, &path).unwrap();
            write_atomic(&path, b"one", durability).unwrap();
            write_atomic(&path, b"two", durability).unwrap();
            assert_eq!(read_regular(&path, 3).unwrap(), b"two");
            assert_eq!(fs::read(&other).unwrap(), b"untouched");
            assert_eq!(names(folder.path()), ["file", "other"]);
        }
    }

    #[test]
    fn a_program_can_be_executed_by_everybody_and_replaces_one_that_nobody_may_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        for text in ["#!/bin/sh\nexit 3\n", "#!/bin/sh\nexit 4\n"] {
            write_program(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o555);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["program"]);
    }

    #[test]
    fn a_directory_in_the_way_of_a_write_is_set_aside_with_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::create_dir_all(path.join("below")).unwrap();
        write_atomic(&path, b"one", Durability::PowerCut).unwrap();
        assert_eq!(read_regular(&path, 3).unwrap(), b"one");
        let names = names(folder.path());
        assert!(names.len() == 2 && is_aside(&names[0]), "{names:?}");
        assert!(folder.path().join(&names[0]).join("below").exists());
    }

    #[test]
    fn whatever_stands_where_a_directory_belongs_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        assert_eq!(make_directory(&path, 0o700).unwrap(), None);
        assert_eq!(make_directory(&path, 0o700).unwrap(), None);
        for link in [false, true] {
            fs::remove_dir(&path).unwrap();
            if link {
                std::os::unix::fs::symlink("absent", &path).unwrap();
            } else {
                fs::write(&path, "x").unwrap();
            }
            let aside = make_directory(&path, 0o700).unwrap().unwrap();
            assert!(path.is_dir() && aside.symlink_metadata().is_ok(), "{aside:?}");
        }
        assert!(make_directory(&folder.path().join("folder/../absent/../x"), 0o700).is_ok());
    }

    #[test]
    fn a_failed_write_keeps_the_old_content_and_leaves_no_draft() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomic(&folder.path().join("absent/file"), b"x", Durability::DaemonDeath);
        assert_eq!(error.unwrap_err().source.kind(), ErrorKind::NotFound);
        fs::write(folder.path().join(temporary_name()), "half").unwrap();
        remove_unfinished(folder.path());
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn only_a_regular_file_of_a_bounded_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "four").unwrap();
        assert_eq!(read_regular(&path("file"), 4).unwrap(), b"four");
        File::create(path("sparse")).unwrap().set_len(1 << 40).unwrap();
        fs::create_dir(path("directory")).unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        let fifo = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, fifo, 0).unwrap();
        for name in ["sparse", "directory", "link", "fifo"] {
            assert_eq!(read_regular(&path(name), 4).unwrap_err().kind(), ErrorKind::InvalidData, "{name}");
        }
        assert_eq!(read_regular(&path("file"), 3).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(read_regular(&path("absent"), 3).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
