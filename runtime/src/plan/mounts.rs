//! Mounts, devices and links as steps.

use super::{relative, text};
use crate::{Error, Result};
use slipway_monitor::plan::{Parameter, Step};
use slipway_monitor::wire::List;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A mount with its source at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreparedMount {
    /// As asked for.
    pub(crate) destination: PathBuf,
    /// Where the image's links lead from there.
    pub(crate) place: PathBuf,
    pub(crate) source: Source,
}

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A detached mount.
    Detached { descriptor: u16, is_directory: bool },
    /// A new file system.
    New { kind: String, attributes: u64, parameters: Parameters },
}

/// A device with its number or a bind of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PreparedDevice {
    /// To be made.
    Node { path: PathBuf, mode: u32, device: u64, uid: u32, gid: u32 },
    /// To be bound (in a user namespace no node can be made).
    Bind { path: PathBuf, descriptor: u16 },
}

/// Links that programs expect in /dev.
const LINKS: [(&str, &str); 5] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/ptmx", "pts/ptmx"),
];

/// The options of a file system that are its own, with their values.
pub(crate) type Parameters = Vec<(String, Option<String>)>;

/// Splits the options of a file system into mount attributes and its own parameters.
pub(crate) fn attributes(options: &[String]) -> (u64, Parameters) {
    let (mut attributes, mut parameters) = (0, Vec::new());
    for option in options {
        match option.as_str() {
            "ro" => attributes |= libc::MOUNT_ATTR_RDONLY,
            "nosuid" => attributes |= libc::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= libc::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= libc::MOUNT_ATTR_NOEXEC,
            "strictatime" => attributes |= libc::MOUNT_ATTR_STRICTATIME,
            "noatime" => attributes |= libc::MOUNT_ATTR_NOATIME,
            "rw" | "suid" | "dev" | "exec" | "relatime" | "private" | "rprivate" | "defaults" => {}
            // Dropped, for it changes nothing: each new mount of devpts is an instance of its own (Linux 4.7).
            "newinstance" => {}
            other => parameters.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
    (attributes, parameters)
}

/// A new file system with its options.
pub(crate) fn filesystem(kind: &str, options: &[String]) -> Source {
    let (attributes, parameters) = attributes(options);
    Source::New { kind: kind.to_owned(), attributes, parameters }
}

/// All mounts in order, with devices and links in the container's own /dev. In a /dev of the host's nothing is made.
pub(super) fn steps(
    mounts: &[PreparedMount],
    devices: &[PreparedDevice],
    terminal: bool,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let is_dev = |mount: &&PreparedMount| mount.destination == Path::new("/dev");
    if !mounts.iter().any(|mount| is_dev(&mount)) {
        make_devices(devices, steps)?;
    }
    for mount in mounts {
        one(mount, steps)?;
        if is_dev(&mount) && matches!(mount.source, Source::New { .. }) {
            // Devices come right after /dev, so that binds below it find their parents and stay on top.
            make_devices(devices, steps)?;
            for (path, target) in LINKS {
                steps.push(Step::MakeLink { path: text(path)?, target: text(target)? });
            }
            if terminal {
                // The child mounts its terminal on it.
                steps.push(Step::MakeFile { path: text("dev/console")?, mode: 0o600 });
            }
        }
    }
    Ok(())
}

fn one(mount: &PreparedMount, steps: &mut Vec<Step>) -> Result<()> {
    let target = relative(&shown(&mount.place)?)?;
    match &mount.source {
        Source::Detached { descriptor, is_directory: true } => {
            make_directories(&mount.place, steps)?;
            steps.push(Step::Attach { descriptor: *descriptor, target });
        }
        Source::Detached { descriptor, is_directory: false } => {
            make_file(&mount.place, steps)?;
            steps.push(Step::Attach { descriptor: *descriptor, target });
        }
        Source::New { kind, attributes, parameters } => {
            make_directories(&mount.place, steps)?;
            let parameters = parameters
                .iter()
                .map(|(key, value)| {
                    Ok(Parameter { key: text(key)?, value: value.as_deref().map(text).transpose()? })
                })
                .collect::<Result<Vec<_>>>()?;
            steps.push(Step::Mount {
                kind: text(kind)?,
                target,
                attributes: *attributes,
                parameters: List(parameters),
            });
        }
    }
    Ok(())
}

fn make_devices(devices: &[PreparedDevice], steps: &mut Vec<Step>) -> Result<()> {
    let mut seen = BTreeSet::new();
    // A later entry for a path stands for an earlier one.
    let mut chosen: Vec<_> = devices.iter().rev().filter(|device| seen.insert(device.path())).collect();
    chosen.reverse();
    for device in chosen {
        let path = relative(&shown(device.path())?)?;
        match device {
            PreparedDevice::Node { path: whole, mode, device, uid, gid } => {
                if let Some(parent) = whole.parent() {
                    make_directories(parent, steps)?;
                }
                steps.push(Step::MakeDevice { path, mode: *mode, device: *device, uid: *uid, gid: *gid });
            }
            PreparedDevice::Bind { path: whole, descriptor } => {
                make_file(whole, steps)?;
                steps.push(Step::Attach { descriptor: *descriptor, target: path });
            }
        }
    }
    Ok(())
}

impl PreparedDevice {
    fn path(&self) -> &Path {
        match self {
            Self::Node { path, .. } | Self::Bind { path, .. } => path,
        }
    }
}

/// A directory and its parents, each unless it is there.
pub(super) fn make_directories(path: &Path, steps: &mut Vec<Step>) -> Result<()> {
    let whole = relative(&shown(path)?)?;
    if whole.as_c_str() == c"." {
        return Ok(());
    }
    let whole = whole.to_string_lossy().into_owned();
    let ends = whole.match_indices('/').map(|(at, _)| at).chain([whole.len()]);
    for end in ends {
        let step = Step::MakeDirectory { path: text(whole.get(..end).unwrap_or_default())?, mode: 0o755 };
        // The step is repeated for each mount: a mount since may have hidden a directory that was made before, and
        // making one that exists is no error.
        steps.push(step);
    }
    Ok(())
}

fn make_file(path: &Path, steps: &mut Vec<Step>) -> Result<()> {
    if let Some(parent) = path.parent() {
        make_directories(parent, steps)?;
    }
    steps.push(Step::MakeFile { path: relative(&shown(path)?)?, mode: 0o644 });
    Ok(())
}

fn shown(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Error::Invalid(format!("path {} is not text", path.display())))?;
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(Error::Invalid(format!("path {text:?} in a container must be absolute")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str, source: Source) -> PreparedMount {
        PreparedMount { destination: destination.into(), place: destination.into(), source }
    }

    #[test]
    fn options_become_attributes_and_parameters() {
        let options = ["nosuid", "ro", "size=1k", "none"].map(String::from);
        let expected = Source::New {
            kind: "tmpfs".into(),
            attributes: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY,
            parameters: vec![("size".into(), Some("1k".into())), ("none".into(), None)],
        };
        assert_eq!(filesystem("tmpfs", &options), expected);
    }

    #[test]
    fn a_file_is_mounted_on_a_file() {
        let source = Source::Detached { descriptor: 4, is_directory: false };
        let mut made = Vec::new();
        steps(&[mount("/etc/hosts", source)], &[], false, &mut made).unwrap();
        let expected = [
            Step::MakeDirectory { path: c"etc".into(), mode: 0o755 },
            Step::MakeFile { path: c"etc/hosts".into(), mode: 0o644 },
            Step::Attach { descriptor: 4, target: c"etc/hosts".into() },
        ];
        assert_eq!(made, expected);
    }

    #[test]
    fn a_relative_destination_is_refused() {
        let source = Source::Detached { descriptor: 0, is_directory: true };
        let mounts = [mount("data", source)];
        assert!(steps(&mounts, &[], false, &mut Vec::new()).is_err());
    }
}
