//! The OCI specification that a container starts from: mounts, devices, masked paths; the caller fills in the rest.

use crate::capabilities::{Capabilities, CapabilityRequest, CapabilitySet};
use crate::sandbox::files::FILES;
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources, Mount, Process, Spec,
};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, major, minor, openat, statat};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How much of the host a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// The usual confinement.
    Confined,
    /// All devices and capabilities, nothing masked or read-only. (Seccomp is [`crate::ContainerRequest::seccomp`].)
    Privileged,
}

/// Character devices that every container has: name, major, minor.
const DEVICES: [(&str, i64, i64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Paths that reveal or affect the host, hidden from containers: with [`throttling`], the list of containerd 2.4.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Paths whose files change the host when written.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A specification with the OCI default mounts, devices, capabilities and masked paths and an empty process.
#[must_use]
pub fn default_spec(privilege: Privilege) -> Spec {
    let privileged = privilege == Privilege::Privileged;
    // When the daemon can't read its own capabilities, assume the default set: the start then names a missing one.
    let available = CapabilitySet::available().unwrap_or_else(|_| CapabilitySet::default_set());
    let request = CapabilityRequest { privileged, ..CapabilityRequest::default() };
    let capabilities =
        Capabilities::resolve(&request, available).unwrap_or_else(|_| Capabilities::default_for(available));
    let mut process = Process::default();
    process
        .set_args(None)
        .set_env(None)
        .set_cwd("/".into())
        .set_terminal(Some(false))
        .set_rlimits(None)
        .set_no_new_privileges(Some(false))
        .set_capabilities(Some(capabilities.to_spec()));
    let mut linux = Linux::default();
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(device_rules(privileged)));
    linux.set_namespaces(None).set_resources(Some(resources)).set_seccomp(None);
    if privileged {
        linux.set_masked_paths(None).set_readonly_paths(None).set_devices(Some(host_devices()));
    } else {
        let owned = |path: &&str| (*path).to_owned();
        let masked = MASKED.iter().map(owned).chain(throttling().iter().cloned()).collect();
        let read_only = READ_ONLY.iter().map(owned).collect();
        linux.set_masked_paths(Some(masked)).set_readonly_paths(Some(read_only)).set_devices(None);
    }
    let mut spec = Spec::default();
    spec.set_hostname(None)
        .set_root(None)
        .set_mounts(Some(default_mounts(privileged)))
        .set_process(Some(process))
        .set_linux(Some(linux));
    spec
}

/// The directories of each processor's thermal throttling counters, which would leak other containers' load. They are
/// looked up once.
fn throttling() -> &'static [String] {
    static FOUND: OnceLock<Vec<String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let entries = std::fs::read_dir("/sys/devices/system/cpu");
        // Without sysfs there is nothing to hide.
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        let is_processor = |path: &PathBuf| {
            let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("cpu"));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let counters = names.filter(is_processor).map(|path| path.join("thermal_throttle"));
        counters.filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
    })
}

/// The device rules of a container's cgroup: a privileged container may use every device; others may use the default
/// devices and terminals, and make (`m`) nodes of any number.
pub(crate) fn device_rules(privileged: bool) -> Vec<LinuxDeviceCgroup> {
    if privileged {
        return vec![rule(true, LinuxDeviceType::A, (None, None), "rwm")];
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, (None, None), "rwm"),
        rule(true, LinuxDeviceType::C, (None, None), "m"),
        rule(true, LinuxDeviceType::B, (None, None), "m"),
        rule(true, LinuxDeviceType::C, (Some(5), Some(2)), "rwm"),
        rule(true, LinuxDeviceType::C, (Some(136), None), "rwm"),
    ];
    rules.extend(
        DEVICES
            .iter()
            .map(|(_, major, minor)| rule(true, LinuxDeviceType::C, (Some(*major), Some(*minor)), "rwm")),
    );
    rules
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    number: (Option<i64>, Option<i64>),
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(kind))
        .set_major(number.0)
        .set_minor(number.1)
        .set_access(Some(access.into()));
    rule
}

fn default_mounts(privileged: bool) -> Vec<Mount> {
    let access = if privileged { "rw" } else { "ro" };
    let confined = ["nosuid", "noexec", "nodev"];
    let table: [(&str, &str, &[&str]); 6] = [
        ("/proc", "proc", &[]),
        ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/mqueue", "mqueue", &[]),
        ("/sys", "sysfs", &[access]),
        ("/sys/fs/cgroup", "cgroup", &["relatime", access]),
    ];
    table
        .iter()
        .map(|(destination, kind, options)| {
            let shared: &[&str] = if options.contains(&"nosuid") { &[] } else { &confined };
            let mut mount = Mount::default();
            mount
                .set_destination(destination.into())
                .set_typ(Some((*kind).into()))
                .set_source(Some(kind.into()))
                .set_options(Some(
                    shared.iter().chain(*options).map(|option| (*option).to_owned()).collect(),
                ));
            mount
        })
        .collect()
}

/// The mount points that a container's root must have; a start makes missing ones in the container's own layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoints {
    /// Directories, without those below another mount.
    pub directories: Vec<PathBuf>,
    /// Files.
    pub files: Vec<PathBuf>,
}

/// The mount points of [`default_spec`] and of a pod's files.
#[must_use]
pub fn mount_points() -> MountPoints {
    let mut directories: Vec<PathBuf> = Vec::new();
    for mount in default_mounts(false) {
        let path = mount.destination();
        if !directories.iter().any(|above| path.starts_with(above)) {
            directories.push(path.clone());
        }
    }
    MountPoints { directories, files: FILES.iter().map(|(_, path)| path.into()).collect() }
}

/// The devices that every container has.
pub(crate) fn default_devices() -> Vec<LinuxDevice> {
    DEVICES
        .iter()
        .map(|(name, major, minor)| {
            device(Path::new("/dev").join(name), LinuxDeviceType::C, (*major, *minor), 0o666)
        })
        .collect()
}

fn device(path: PathBuf, kind: LinuxDeviceType, number: (i64, i64), mode: u32) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(path)
        .set_typ(kind)
        .set_major(number.0)
        .set_minor(number.1)
        .set_file_mode(Some(mode))
        .set_uid(Some(0))
        .set_gid(Some(0));
    device
}

/// Lists the device nodes below /dev, without the directories and nodes that every container gets of its own.
fn host_devices() -> Vec<LinuxDevice> {
    let mut found = Vec::new();
    collect_devices(Path::new("/dev"), 0, &mut found);
    found
}

/// Adds the device nodes below a directory; a directory that can't be read is skipped.
fn collect_devices(directory: &Path, depth: u8, found: &mut Vec<LinuxDevice>) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(opened) = openat(CWD, directory, flags, Mode::empty()) else { return };
    let Ok(entries) = Dir::read_from(&opened) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if matches!(
            name.as_str(),
            "." | ".." | "pts" | "shm" | "mqueue" | "fd" | "console" | "ptmx" | ".udev"
        ) {
            continue;
        }
        let path = directory.join(&name);
        // Skip an entry that was removed after it was listed.
        let Ok(stat) = statat(&opened, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth < 4 => {
                collect_devices(&path, depth + 1, found);
                continue;
            }
            FileType::CharacterDevice => LinuxDeviceType::C,
            FileType::BlockDevice => LinuxDeviceType::B,
            _ => continue,
        };
        let number = (i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev)));
        found.push(device(path, kind, number, stat.st_mode & 0o777));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privileged_container_has_nothing_masked() {
        let spec = default_spec(Privilege::Privileged);
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.masked_paths().is_none() && linux.readonly_paths().is_none());
        assert!(
            linux.devices().as_ref().unwrap().iter().any(|device| device.path() == Path::new("/dev/null"))
        );
    }

    #[test]
    fn a_confined_container_sees_sysfs_read_only() {
        let spec = default_spec(Privilege::Confined);
        let mounts = spec.mounts().as_ref().unwrap();
        let sys = mounts.iter().find(|mount| mount.destination() == Path::new("/sys")).unwrap();
        assert!(sys.options().as_ref().unwrap().contains(&"ro".to_owned()));
    }

    #[test]
    fn what_is_on_another_mount_is_no_mount_point_of_the_root() {
        let points = mount_points();
        assert_eq!(points.directories, ["/proc", "/dev", "/sys"].map(PathBuf::from));
        assert!(points.files.contains(&"/etc/hosts".into()));
    }
}
