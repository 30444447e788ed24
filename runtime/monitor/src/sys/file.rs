//! Files, directories, pipes and descriptors.

use super::{Error, Result, check, count, descriptor, done};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// `RESOLVE_*` bits of `openat2(2)`.
pub(crate) mod resolve {
    pub(crate) const NO_MAGICLINKS: u64 = 0x02;
    pub(crate) const NO_SYMLINKS: u64 = 0x04;
    pub(crate) const BENEATH: u64 = 0x08;
    pub(crate) const IN_ROOT: u64 = 0x10;
}

/// `AT_FDCWD`, as a directory.
pub(crate) fn here() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is no descriptor that could be closed; the calls of this module take it for the working
    // directory, and it is not -1.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// A standard stream, which the monitor keeps open for its whole life.
pub(crate) fn standard(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..3).contains(&number));
    // SAFETY: setup opens 0, 1 and 2 before anything else and only ever replaces them by dup2.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Flags and resolution of an [`openat2`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// `O_*`; close-on-exec is added.
    pub(crate) flags: i32,
    /// Permission bits of a file that is made.
    pub(crate) mode: u32,
    /// Bits of [`resolve`].
    pub(crate) resolve: u64,
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// How often an [`openat2`] is tried.
const TRIES: usize = 1000;

/// `openat2(2)`. A rename or a mount anywhere on the machine can make a bounded look-up fail with `EAGAIN`; it is
/// then retried, [`TRIES`] attempts at most.
pub(crate) fn openat2(directory: BorrowedFd<'_>, path: &CStr, how: How) -> Result<OwnedFd> {
    for _ in 1..TRIES {
        match openat2_once(directory, path, how) {
            Err(error) if error.errno == libc::EAGAIN => {}
            done => return done,
        }
    }
    openat2_once(directory, path, how)
}

fn openat2_once(directory: BorrowedFd<'_>, path: &CStr, how: How) -> Result<OwnedFd> {
    let flags = u64::from(how.flags.cast_unsigned() | libc::O_CLOEXEC.cast_unsigned());
    let mut attributes = OpenHow { flags, mode: u64::from(how.mode), resolve: how.resolve };
    // SAFETY: the descriptor is borrowed for the call, the path is NUL-terminated, and `attributes` is a live
    // repr(C) struct whose exact size is passed along; the kernel only reads both.
    let value = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            path.as_ptr(),
            &raw mut attributes,
            size_of::<OpenHow>(),
        )
    };
    descriptor("openat2", value)
}

/// `openat(2)`, close-on-exec.
pub(crate) fn openat(directory: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: the descriptor is borrowed for the call and the path is NUL-terminated.
    let value = unsafe { libc::openat(directory.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC, mode) };
    descriptor("openat", value)
}

/// `read(2)`.
pub(crate) fn read(file: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into the live buffer.
    let value = unsafe { libc::read(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    count("read", value)
}

/// `pread(2)`.
pub(crate) fn pread(file: BorrowedFd<'_>, buffer: &mut [u8], offset: i64) -> Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into the live buffer.
    let value = unsafe { libc::pread(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset) };
    count("pread", value)
}

/// `write(2)`.
pub(crate) fn write(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes of the live slice.
    let value = unsafe { libc::write(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    count("write", value)
}

/// The fields of `fstat(2)` that are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    /// Type and permission bits.
    pub(crate) mode: u32,
    /// The device that a device node stands for.
    pub(crate) device: u64,
    /// Length in bytes.
    pub(crate) size: i64,
}

impl Stat {
    /// Whether the type is this `S_IF*`.
    pub(crate) fn is(self, kind: u32) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}

/// `fstat(2)`.
pub(crate) fn fstat(file: BorrowedFd<'_>) -> Result<Stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills the live struct.
    done("fstat", unsafe { libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: zeroed, and filled by the successful call.
    let stat = unsafe { stat.assume_init() };
    Ok(Stat { mode: stat.st_mode, device: stat.st_rdev, size: stat.st_size })
}

/// `fchown(2)`.
pub(crate) fn fchown(file: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    done("fchown", unsafe { libc::fchown(file.as_raw_fd(), uid, gid) })
}

/// `fchmod(2)`.
pub(crate) fn fchmod(file: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    done("fchmod", unsafe { libc::fchmod(file.as_raw_fd(), mode) })
}

/// `fchownat(2)` of a name, links not followed.
pub(crate) fn fchownat(directory: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the descriptor is borrowed for the call and the name is NUL-terminated.
    done("fchownat", unsafe { libc::fchownat(directory.as_raw_fd(), name.as_ptr(), uid, gid, flags) })
}

/// `mkdirat(2)`.
pub(crate) fn mkdirat(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the descriptor is borrowed for the call and the name is NUL-terminated.
    done("mkdirat", unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) })
}

/// `mknodat(2)`.
pub(crate) fn mknodat(directory: BorrowedFd<'_>, name: &CStr, mode: u32, device: u64) -> Result<()> {
    // SAFETY: the descriptor is borrowed for the call and the name is NUL-terminated.
    done("mknodat", unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), mode, device) })
}

/// `readlinkat(2)`: the bytes of a link's target, cut to the buffer; of the link that `directory` is for an empty name.
pub(crate) fn readlinkat(directory: BorrowedFd<'_>, name: &CStr, target: &mut [u8]) -> Result<usize> {
    let (room, length) = (target.as_mut_ptr().cast(), target.len());
    // SAFETY: the descriptor is borrowed for the call, the name is NUL-terminated, and the kernel writes at most `length`
    // bytes into the live buffer.
    let value = unsafe { libc::readlinkat(directory.as_raw_fd(), name.as_ptr(), room, length) };
    count("readlinkat", value)
}

/// `symlinkat(2)`.
pub(crate) fn symlinkat(target: &CStr, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: the descriptor is borrowed for the call, target and name are NUL-terminated.
    done("symlinkat", unsafe { libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), name.as_ptr()) })
}

/// `renameat(2)` within one directory.
pub(crate) fn rename(directory: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<()> {
    let raw = directory.as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call, both names are NUL-terminated.
    done("renameat", unsafe { libc::renameat(raw, from.as_ptr(), raw, to.as_ptr()) })
}

/// `unlinkat(2)` of a file.
pub(crate) fn unlink(directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: the descriptor is borrowed for the call and the name is NUL-terminated.
    done("unlinkat", unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) })
}

/// `pipe2(2)`, close-on-exec: the end to read and the end to write.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two numbers into the live array.
    done("pipe2", unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [read, write] = ends;
    Ok((descriptor("pipe2", read)?, descriptor("pipe2", write)?))
}

/// `dup2(2)` onto a standard stream.
pub(crate) fn replace_standard(file: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    // SAFETY: only 0, 1 and 2 are replaced, which no OwnedFd holds.
    done("dup2", unsafe { libc::dup2(file.as_raw_fd(), number) })
}

/// A copy of a descriptor, 3 or higher, close-on-exec.
pub(crate) fn duplicate(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    descriptor("fcntl", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })
}

/// Makes reads and writes of this description return rather than wait.
pub(crate) fn set_nonblocking(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    let flags = check("fcntl", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })?;
    let flags = i32::try_from(flags).unwrap_or(0) | libc::O_NONBLOCK;
    // SAFETY: as above.
    done("fcntl", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) })
}

/// The seals of a memfd.
pub(crate) fn seals(file: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    let value = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    check("fcntl", value).map(|seals| i32::try_from(seals).unwrap_or(0))
}

/// `fchdir(2)`.
pub(crate) fn fchdir(directory: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes a borrowed descriptor alone.
    done("fchdir", unsafe { libc::fchdir(directory.as_raw_fd()) })
}

/// `chdir(2)`.
pub(crate) fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: the path is NUL-terminated.
    done("chdir", unsafe { libc::chdir(path.as_ptr()) })
}

/// Whether the working directory is reachable from the root, by `getcwd(2)`: the kernel's own answer begins with
/// `(unreachable)` where it is not.
pub(crate) fn is_inside_root() -> Result<()> {
    let mut buffer = [0_u8; 4097];
    // SAFETY: the kernel writes at most `buffer.len()` bytes into the live buffer.
    let value = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    check("getcwd", value)?;
    if buffer.first() == Some(&b'/') { Ok(()) } else { Err(Error { call: "getcwd", errno: libc::EXDEV }) }
}

/// `umask(2)`.
pub(crate) fn umask(mask: u32) {
    // SAFETY: takes a plain number and can't fail.
    unsafe { libc::umask(mask) };
}

/// Closes every descriptor from 3 on but one (`close_range(2)`, Linux 5.9). For a child that is about to drop what it
/// knows of them: no [`OwnedFd`] of a closed one may be used or dropped afterwards.
pub(crate) fn close_all_but(kept: BorrowedFd<'_>) -> Result<()> {
    let kept = kept.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, kept.wrapping_sub(1)), (kept.saturating_add(1), u32::MAX)] {
        if first <= last {
            // SAFETY: the caller, a child, has no use for these descriptors any more, which its docs demand.
            done("close_range", unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) })?;
        }
    }
    Ok(())
}

/// Clears `O_NONBLOCK` and every other flag of an open description that may be changed.
pub(crate) fn clear_flags(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    done("fcntl", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) })
}

/// Marks every descriptor from 3 on close-on-exec (`close_range(2)`).
pub(crate) fn close_all_on_exec() -> Result<()> {
    // SAFETY: closes nothing now, only sets a flag.
    let value = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    done("close_range", value)
}

/// Whether a descriptor belongs to a devpts.
pub(crate) fn is_devpts(file: BorrowedFd<'_>) -> Result<bool> {
    filesystem(file).map(|kind| kind == 0x1cd1)
}

/// Whether a descriptor belongs to a proc file system.
pub(crate) fn is_proc(file: BorrowedFd<'_>) -> Result<bool> {
    filesystem(file).map(|kind| kind == 0x9fa0)
}

/// The magic number of a descriptor's file system (`fstatfs(2)`, `linux/magic.h`).
fn filesystem(file: BorrowedFd<'_>) -> Result<i64> {
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel fills the live struct.
    done("fstatfs", unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: zeroed, and filled by the successful call.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_type)
}
