//! Which security modules of the kernel are at work on the node.

/// Whether SELinux is: then its file system is mounted where every program looks for it (selinux(8)).
pub(crate) fn has_selinux() -> bool {
    /// `SELINUX_MAGIC` of linux/magic.h.
    const MAGIC: u64 = 0xf97c_ff8c;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|found| u64::try_from(found.f_type) == Ok(MAGIC))
}

/// Whether AppArmor is (apparmor(7)).
pub(crate) fn has_apparmor() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.trim() == "Y")
}
