//! The kernel's features, probed once, without those that the configuration denies: denying one lets its fallback be
//! tested on any kernel.

use crate::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_set_fd, fsconfig_set_string, fsopen};
use rustix::process::{Resource, getrlimit};

/// The hard limit of open files that containers get where the daemon may give it.
pub(crate) const OPEN_FILES: u64 = 524_288;
const CAP_SYS_RESOURCE: u32 = 24;

/// The features of the kernel, and of the daemon's privileges, that the runtime uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// overlayfs takes its lower directories one by one (`lowerdir+`, Linux 6.5). Else `mount(2)` names them by short
    /// links.
    pub lowerdir_append: bool,
    /// `lowerdir+` takes descriptors (Linux 6.13). Else a layer seen through a pod's id map is attached in a mount
    /// namespace of the mounting thread's own and named by its path there.
    pub lowerdir_descriptor: bool,
    /// A child is born in its cgroup (`CLONE_INTO_CGROUP`, version 2 alone). Else it is moved there, which waits.
    pub clone_into_cgroup: bool,
    /// A cgroup is killed at once (`cgroup.kill`, version 2, Linux 5.14). Else its processes are, until none is left.
    pub cgroup_kill: bool,
    /// This process may raise resource limits and lower `oom_score_adj`. Else it gives what it has.
    pub sys_resource: bool,
    /// Pods' cgroups are of version 2.
    pub unified_cgroup: bool,
    /// The hard limit of open files that containers can get, at most 524288.
    pub open_files: u64,
}

type Switch = fn(&mut Features) -> &mut bool;

/// The features that a configuration can deny, by name.
const SWITCHES: [(&str, Switch); 5] = [
    ("lowerdir-append", |features| &mut features.lowerdir_append),
    ("lowerdir-descriptor", |features| &mut features.lowerdir_descriptor),
    ("clone-into-cgroup", |features| &mut features.clone_into_cgroup),
    ("cgroup-kill", |features| &mut features.cgroup_kill),
    ("sys-resource", |features| &mut features.sys_resource),
];

/// The features of the hierarchies that the node's cgroups are in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CgroupSupport {
    /// They are of version 2.
    pub(crate) unified: bool,
    /// They have `cgroup.kill`.
    pub(crate) kill: bool,
}

impl Features {
    /// The kernel's features, without the denied ones.
    pub(crate) fn probe(denied: &[String], cgroups: CgroupSupport) -> Result<Self> {
        let mut features = Self {
            lowerdir_append: lowerdir_append(),
            lowerdir_descriptor: lowerdir_descriptor(),
            clone_into_cgroup: cgroups.unified,
            cgroup_kill: cgroups.kill,
            sys_resource: effective_capabilities() & (1 << CAP_SYS_RESOURCE) != 0,
            unified_cgroup: cgroups.unified,
            open_files: 0,
        };
        features.deny(denied)?;
        let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        features.open_files = if features.sys_resource { OPEN_FILES } else { OPEN_FILES.min(own) };
        Ok(features)
    }

    /// Refuses a name that is none of a feature.
    pub(crate) fn check(denied: &[String]) -> Result<()> {
        Self::default().deny(denied)
    }

    fn deny(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            let Some((_, switch)) = SWITCHES.iter().find(|(known, _)| known == name) else {
                let known = SWITCHES.map(|(name, _)| name).join(", ");
                return Err(Error::Invalid(format!(
                    "kernel feature {name:?} can't be disabled; the known are {known}"
                )));
            };
            *switch(self) = false;
        }
        Ok(())
    }

    /// Each feature that can be disabled, by its name, and whether it is used.
    pub fn list(mut self) -> impl Iterator<Item = (&'static str, bool)> {
        SWITCHES.into_iter().map(move |(name, switch)| (name, *switch(&mut self)))
    }
}

/// The parameter is looked at when it is set: an unknown one is `EINVAL`. Before Linux 6.5 overlayfs takes any text until
/// the mount is made, and so it takes nonsense too.
fn lowerdir_append() -> bool {
    let takes = |key| {
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .is_ok_and(|context| fsconfig_set_string(&context, key, "/").is_ok())
    };
    takes("lowerdir+") && !takes("slipway-knows-no-such-key")
}

fn lowerdir_descriptor() -> bool {
    let set = || {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        fsconfig_set_fd(&context, "lowerdir+", &root)
    };
    set() == Ok::<(), Errno>(())
}

fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_switch_denies_one_feature_and_an_unknown_one_is_refused_by_name() {
        let all = || {
            let mut features = Features::default();
            SWITCHES.iter().for_each(|(_, switch)| *switch(&mut features) = true);
            features
        };
        for (name, _) in SWITCHES {
            let mut features = all();
            features.deny(&[name.to_owned()]).unwrap();
            let denied: Vec<_> = features.list().filter(|(_, used)| !used).collect();
            assert_eq!(denied, [(name, false)]);
        }
        let error = all().deny(&["cgroup-kil".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("\"cgroup-kil\"") && error.contains("cgroup-kill,"), "{error}");
    }
}
