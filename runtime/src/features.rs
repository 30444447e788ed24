//! What this kernel offers, found out once.

/// What the runtime may use; a configuration can deny what the kernel has, so that fallbacks are tested anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// overlayfs takes its lower directories one by one (`lowerdir+`, Linux 6.5).
    pub lowerdir_append: bool,
    /// `MOUNT_ATTR_IDMAP` works on a directory of the store.
    pub idmapped_mounts: bool,
    /// Pods' cgroups are of version 2.
    pub unified_cgroup: bool,
    /// This process may raise resource limits and lower `oom_score_adj`.
    pub sys_resource: bool,
    /// The hard limit of open files that containers can get, at most 524288.
    pub open_files: u64,
}
