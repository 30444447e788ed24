//! Processes: their making, identity, privileges and end.

use super::{Error, Result, check, done};
use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// `CLONE_INTO_CGROUP` (Linux 5.7), wider than libc's type for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// On which side of a clone the caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The old one, with the child's pid.
    Parent(i32),
}

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `clone3(2)` without shared memory, as `fork(2)` with flags; into a cgroup of version 2 if one is given. The child
/// is reported by SIGCHLD to its parent.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side> {
    let mut arguments = CloneArgs { flags, ..CloneArgs::default() };
    // With CLONE_PARENT the child takes its caller's signal, and the kernel wants 0 here.
    if flags & u64::from(libc::CLONE_PARENT.cast_unsigned()) == 0 {
        arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the struct is live and its exact size is passed along. Without CLONE_VM the child has a copy of the
    // memory of this process, whose only thread is the caller, so it finds every lock and the heap at rest.
    let value = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) };
    let pid = check("clone3", value)?;
    Ok(if pid == 0 { Side::Child } else { Side::Parent(i32::try_from(pid).unwrap_or(i32::MAX)) })
}

/// `clone(2)` of a sibling, as `fork(2)` with `CLONE_PARENT`: it goes past a seccomp filter that knows `pass`, see
/// [`crate::launch::passage`].
pub(crate) fn clone_sibling(pass: u64) -> Result<Side> {
    let none = 0_usize;
    // SAFETY: as in `clone3`. The kernel takes five arguments; the sixth is for the filter alone.
    let value = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT, none, none, none, none, pass) };
    let pid = check("clone", value)?;
    Ok(if pid == 0 { Side::Child } else { Side::Parent(i32::try_from(pid).unwrap_or(i32::MAX)) })
}

/// `setns(2)`.
pub(crate) fn setns(namespace: BorrowedFd<'_>, kind: u64) -> Result<()> {
    let kind = i32::try_from(kind).map_err(|_| Error { call: "setns", errno: libc::EINVAL })?;
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    done("setns", unsafe { libc::setns(namespace.as_raw_fd(), kind) })
}

/// `unshare(2)`.
pub(crate) fn unshare(kinds: u64) -> Result<()> {
    let kinds = i32::try_from(kinds).map_err(|_| Error { call: "unshare", errno: libc::EINVAL })?;
    // SAFETY: takes a plain number; only namespaces are unshared, never the file table that OwnedFd relies on.
    done("unshare", unsafe { libc::unshare(kinds) })
}

/// Ends the process at once, without destructors (`_exit(2)`).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes a plain number and never returns.
    unsafe { libc::_exit(code) }
}

/// A child that has ended, and its status; none where none has.
pub(crate) fn wait_any() -> Result<Option<(i32, i32)>> {
    wait(-1, libc::WNOHANG)
}

/// One child and its status if it has ended; none where it has not.
pub(crate) fn wait_if_ended(pid: i32) -> Result<Option<(i32, i32)>> {
    wait(pid, libc::WNOHANG)
}

/// Waits for one child until it has ended.
pub(crate) fn wait_for(pid: i32) -> Result<Option<(i32, i32)>> {
    wait(pid, 0)
}

fn wait(pid: i32, flags: i32) -> Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one number into the live variable.
    let value = check("waitpid", unsafe { libc::waitpid(pid, &raw mut status, flags | libc::__WALL) })?;
    let pid = i32::try_from(value).unwrap_or(0);
    Ok((pid > 0).then_some((pid, status)))
}

/// `kill(2)`.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes plain numbers.
    done("kill", unsafe { libc::kill(pid, signal) })
}

/// `setsid(2)`, past a filter that knows `pass`.
pub(crate) fn setsid(pass: u64) -> Result<()> {
    let none = 0_usize;
    // SAFETY: the kernel takes no argument; the sixth is for the filter alone.
    done("setsid", unsafe { libc::syscall(libc::SYS_setsid, none, none, none, none, none, pass) })
}

/// Begins an anonymous session keyring (`KEYCTL_JOIN_SESSION_KEYRING`, `keyctl(2)`).
pub(crate) fn join_session_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    let anonymous = ptr::null::<c_char>();
    // SAFETY: without a name the kernel reads no memory.
    done("keyctl", unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) })
}

/// A number that nobody can guess (`getrandom(2)`).
pub(crate) fn random() -> Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel writes at most as many bytes as the live array has.
    let value = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match super::count("getrandom", value)? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(Error { call: "getrandom", errno: libc::EIO }),
    }
}

/// `prctl(2)` with plain numbers.
pub(crate) fn prctl(option: i32, first: u64, second: u64) -> Result<()> {
    // SAFETY: the options that are used take numbers alone, and the two unused ones are 0 as they demand.
    done("prctl", unsafe { libc::prctl(option, first, second, 0_u64, 0_u64) })
}

/// Names this process, as ps(1) and top(1) show it: 15 bytes at most (`PR_SET_NAME`).
pub(crate) fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: the name is NUL-terminated, and the kernel reads at most 16 bytes of it.
    done("prctl", unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0_u64, 0_u64, 0_u64) })
}

/// `setgroups(2)`.
pub(crate) fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads as many numbers as the live slice has.
    done("setgroups", unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// `setresgid(2)` to one id, by the raw call: glibc's would signal threads that a child does not have.
pub(crate) fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: takes plain numbers.
    done("setresgid", unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })
}

/// `setresuid(2)` to one id, by the raw call.
pub(crate) fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: takes plain numbers.
    done("setresuid", unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// The three sets of `capset(2)`, one bit a capability.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CapabilitySets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// `capset(2)` of this thread.
pub(crate) fn capset(sets: CapabilitySets) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    let low = |set: u64| u32::try_from(set & 0xffff_ffff).unwrap_or(0);
    let high = |set: u64| low(set >> 32);
    let data = [
        [low(sets.effective), low(sets.permitted), low(sets.inheritable)],
        [high(sets.effective), high(sets.permitted), high(sets.inheritable)],
    ];
    // SAFETY: version 3 reads the header and two triples of numbers, which are live and laid out as arrays.
    let value = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    done("capset", value)
}

/// Installs a seccomp filter for this thread.
pub(crate) fn seccomp(filter: &[libc::sock_filter], flags: u32) -> Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| Error { call: "seccomp", errno: libc::E2BIG })?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `length` instructions of the live slice and checks them.
    let value =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    done("seccomp", value)
}

/// `prlimit(2)` of this process.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64, pass: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none = ptr::null_mut::<libc::rlimit64>();
    let unused = 0_usize;
    // SAFETY: the kernel reads the live struct and writes nothing. It takes four arguments; the sixth is for the filter
    // alone.
    let value =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, none, unused, pass) };
    done("prlimit", value)
}

/// This process's soft and hard limit, by `prlimit(2)`.
pub(crate) fn limit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none = ptr::null::<libc::rlimit64>();
    // SAFETY: the kernel reads nothing and writes the live struct.
    let value = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, &raw mut limit) };
    done("prlimit", value)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// `sethostname(2)`.
pub(crate) fn sethostname(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads as many bytes as the live slice has.
    done("sethostname", unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })
}

/// A null-terminated array of strings for [`execve`]; it borrows the strings. Allocates.
#[derive(Debug)]
pub(crate) struct Vector<'a> {
    pointers: Vec<*const c_char>,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Vector<'a> {
    /// The array of these strings.
    pub(crate) fn new(strings: &'a [CString]) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, strings: PhantomData }
    }
}

/// `execve(2)`: returns only its error.
pub(crate) fn execve(program: &CStr, arguments: &Vector<'_>, environment: &Vector<'_>) -> Error {
    // SAFETY: the program is NUL-terminated; both arrays end with null and borrow strings that live.
    unsafe { libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    super::last("execve")
}

/// Nanoseconds of a clock.
pub(crate) fn clock(id: i32) -> i64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the kernel fills the live struct.
    unsafe { libc::clock_gettime(id, time.as_mut_ptr()) };
    // SAFETY: a timespec of zeros is valid, and the call has filled it.
    let time = unsafe { time.assume_init() };
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Sets the link `lo` of this network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    const SIOCSIFFLAGS: libc::Ioctl = 0x8914;
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    let flags = u16::try_from(libc::IFF_UP).unwrap_or(1);
    let request = Request { name, flags, rest: [0; 22] };
    // SAFETY: the struct is as long as the kernel's `ifreq`, live, and only read by this request.
    done("ioctl SIOCSIFFLAGS", unsafe { libc::ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, &raw const request) })
}
