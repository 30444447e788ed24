//! Steps that set who the process is and what it may do.

use crate::sys::file::{How, resolve};
use crate::sys::process::CapabilitySets;
use crate::sys::{Error, Result, file, process};
use slipway_monitor::plan::Step;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Capabilities that the kernel's interface has room for.
const CAPABILITIES: u64 = 64;

/// Executes one step of this module.
pub(super) fn execute(step: &Step) -> Result<()> {
    match step {
        Step::Hostname { name } => process::sethostname(name),
        Step::Limit { resource, soft, hard } => process::set_limit(*resource, *soft, *hard, 0),
        Step::Umask { mask } => {
            file::umask(*mask);
            Ok(())
        }
        Step::Bounding { set } => bound(*set),
        Step::Identity { uid, gid, groups } => {
            process::prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
            process::setgroups(&groups.0)?;
            process::set_gid(*gid)?;
            process::set_uid(*uid)?;
            stay_opaque()
        }
        Step::Capabilities { effective, permitted, inheritable, ambient } => {
            let sets =
                CapabilitySets { effective: *effective, permitted: *permitted, inheritable: *inheritable };
            process::capset(sets)?;
            set_ambient(*ambient)?;
            stay_opaque()
        }
        Step::NoNewPrivileges {} => process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
        _ => Err(Error { call: "identity step", errno: libc::ENOSYS }),
    }
}

/// Lets nobody read the memory or take the descriptors of this process by having the same ids alone
/// (`PR_SET_DUMPABLE`). Each change of credentials sets this to `/proc/sys/fs/suid_dumpable`, so that it is repeated.
pub(crate) fn stay_opaque() -> Result<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 0, 0)
}

/// Leaves the daemon's session keyring for an empty one, charged to the root of the host: the quota of a user namespace's
/// root is one of 200 keys. A kernel without keyrings has nothing to leave, and one that a filter around the daemon keeps
/// from them (`EPERM`) keeps every container from them too.
pub(super) fn fresh_keyring() -> Result<()> {
    match process::join_session_keyring() {
        Err(error) if matches!(error.errno, libc::ENOSYS | libc::EPERM) => Ok(()),
        // The name of the quota is all that helps.
        Err(error) if error.errno == libc::EDQUOT => {
            Err(Error { call: "keyctl, beyond kernel.keys.root_maxkeys", ..error })
        }
        result => result,
    }
}

/// Raises a hard limit, where that is still allowed: root of a user namespace may only lower it. The step itself comes
/// later, so that a low limit does not hinder the steps before it.
pub(super) fn raise_limit(resource: u32, hard: u64) -> Result<()> {
    let (soft, current) = process::limit(resource)?;
    if hard > current { process::set_limit(resource, soft, hard, 0) } else { Ok(()) }
}

/// Becomes root of the user namespace that was just joined.
pub(crate) fn become_root() -> Result<()> {
    process::set_gid(0)?;
    process::set_uid(0)?;
    match process::setgroups(&[]) {
        // A namespace may forbid it for good; then there is nothing to drop either.
        Err(error) if error.errno == libc::EPERM => Ok(()),
        result => result,
    }
}

/// Writes a kernel parameter of this process's namespaces.
pub(crate) fn sysctl(proc: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    let parameters = file::openat(proc, c"sys", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let resolve = resolve::BENEATH | resolve::NO_SYMLINKS;
    let how = How { flags: libc::O_WRONLY, mode: 0, resolve };
    let parameter = file::openat2(parameters.as_fd(), name, how)?;
    file::write(parameter.as_fd(), value).map(drop)
}

/// Writes this process's `oom_score_adj`; a machine that does not let it be lowered keeps what it has.
pub(super) fn oom_score(proc: BorrowedFd<'_>, value: i32) -> Result<()> {
    let mut text = [0_u8; 12];
    let mut at = text.len();
    let mut rest = value.unsigned_abs();
    // Digits from the last to the first, on the stack.
    while at > 1 {
        at -= 1;
        if let Some(place) = text.get_mut(at) {
            *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        if let Some(place) = text.get_mut(at) {
            *place = b'-';
        }
    }
    let score = file::openat(proc, c"self/oom_score_adj", libc::O_WRONLY, 0)?;
    match file::write(score.as_fd(), text.get(at..).unwrap_or_default()) {
        Err(error) if matches!(error.errno, libc::EACCES | libc::EPERM) => Ok(()),
        result => result.map(drop),
    }
}

/// Drops every capability outside of a set from the bounding set.
pub(crate) fn bound(set: u64) -> Result<()> {
    for capability in 0..CAPABILITIES {
        if set >> capability & 1 == 1 {
            continue;
        }
        match process::prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            // One more than the kernel knows.
            Err(error) if error.errno == libc::EINVAL => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

fn set_ambient(set: u64) -> Result<()> {
    const CLEAR_ALL: u64 = 4;
    const RAISE: u64 = 2;
    process::prctl(libc::PR_CAP_AMBIENT, CLEAR_ALL, 0)?;
    for capability in (0..CAPABILITIES).filter(|capability| set >> capability & 1 == 1) {
        process::prctl(libc::PR_CAP_AMBIENT, RAISE, capability)?;
    }
    Ok(())
}
