//! Abilities that a machine may lack, found out without the programs under test.

use std::path::Path;
use std::process::{Command, Stdio};

/// An ability that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// nftables with address translation: host ports and egress.
    Nat,
    /// The older tables of iptables, beside nftables.
    LegacyIptables,
    /// The cpuset controller.
    Cpuset,
    /// The hugetlb controller.
    HugePages,
    /// The kernel's side of file systems in user space.
    Fuse,
    /// Disks that are files.
    LoopDevices,
    /// Controllers of cgroup v2.
    CgroupV2,
    /// Controllers of cgroup v1.
    CgroupV1,
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::Nat => "nftables with address translation",
            Self::LegacyIptables => "iptables-legacy",
            Self::Cpuset => "the cpuset controller",
            Self::HugePages => "the hugetlb controller",
            Self::Fuse => "/dev/fuse",
            Self::LoopDevices => "loop devices",
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
        }
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn is_met(self) -> bool {
        match self {
            Self::Nat => nat(),
            Self::LegacyIptables => legacy_iptables(),
            Self::Cpuset => controller("cpuset"),
            Self::HugePages => controller("hugetlb"),
            Self::Fuse => Path::new("/dev/fuse").exists(),
            Self::LoopDevices => crate::frozen::has_loop_devices(),
            Self::CgroupV2 => unified(),
            Self::CgroupV1 => !unified(),
        }
    }
}

/// Whether the machine lacks something that the test needs, which is then noted as the reason for a skip. A skip that
/// `tests/data/skips.txt` does not list fails the run.
///
/// # Panics
/// When the runner's list can't be written.
#[must_use]
pub fn lacks(test: &str, needs: &[Need]) -> bool {
    let missing = needs.iter().find(|need| !need.is_met());
    if let Some(need) = missing {
        crate::skip(test, need.name());
    }
    missing.is_some()
}

/// Whether pods' cgroups are of version 2.
#[must_use]
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The kernel's version.
///
/// # Panics
/// When it can't be read.
#[must_use]
pub fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(|one: char| !one.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().expect("a version"), numbers.next().unwrap_or(0))
}

fn controller(name: &str) -> bool {
    if unified() {
        let all = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        return all.split_whitespace().any(|one| one == name);
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut lists = own.lines().filter_map(|line| line.split(':').nth(1));
    lists.any(|list| list.split(',').any(|one| one == name))
}

fn legacy_iptables() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--net", "sh", "-c", "iptables-legacy -L -n && ip6tables-legacy -L -n"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Makes a table that translates addresses, in a network namespace of its own.
fn nat() -> bool {
    let commands =
        "add table inet probe; add chain inet probe nat { type nat hook prerouting priority -100; }";
    let mut probe = Command::new("unshare");
    probe.args(["--net", "nft", commands]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}
