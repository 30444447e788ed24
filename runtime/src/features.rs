//! What this kernel offers, found out once.

use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// The hard limit of open files that containers get where the daemon may give it.
pub(crate) const OPEN_FILES: u64 = 524_288;
const CAP_SYS_RESOURCE: u32 = 24;

/// What the runtime may use; a configuration can deny what the kernel has, so that fallbacks are tested anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// overlayfs takes its lower directories one by one (`lowerdir+`, Linux 6.5).
    pub lowerdir_append: bool,
    /// Pods' cgroups are of version 2.
    pub unified_cgroup: bool,
    /// This process may raise resource limits and lower `oom_score_adj`.
    pub sys_resource: bool,
    /// The hard limit of open files that containers can get, at most 524288.
    pub open_files: u64,
}

impl Features {
    /// Asks the kernel.
    #[must_use]
    pub fn probe() -> Self {
        let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let sys_resource = effective_capabilities() & (1 << CAP_SYS_RESOURCE) != 0;
        Self {
            lowerdir_append: lowerdir_append(),
            unified_cgroup: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            sys_resource,
            open_files: if sys_resource { OPEN_FILES } else { OPEN_FILES.min(own) },
        }
    }
}

/// The parameter is looked at when it is set: an unknown one is `EINVAL`.
fn lowerdir_append() -> bool {
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .is_ok_and(|context| fsconfig_set_string(&context, "lowerdir+", "/").is_ok())
}

fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}
