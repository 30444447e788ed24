//! Binds and devices of the host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxResources, Mount, MountBuilder, Spec,
};
use slipway_proto::runtime::v1 as cri;

use crate::error::{Error, Result};

/// Adds the binds, each in place of what the specification has at its path; gives the paths.
pub(super) fn fill(spec: &mut Spec, config: &cri::ContainerConfig) -> Result<BTreeSet<PathBuf>> {
    let mut binds = Vec::new();
    for (index, mount) in config.mounts.iter().enumerate() {
        binds.push(bind(index, mount)?);
    }
    // A mount below another one comes after it.
    binds.sort_by_key(|bind| bind.destination().components().count());
    let covered: BTreeSet<PathBuf> = binds.iter().map(|bind| bind.destination().clone()).collect();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let devices = Path::new("/dev");
    mounts.retain(|mount| {
        let path = mount.destination();
        // With a /dev of the host's come its own terminals and queues.
        !(covered.contains(path) || covered.contains(devices) && path.starts_with(devices))
    });
    mounts.extend(binds);
    spec.set_mounts(Some(mounts));
    Ok(covered)
}

fn bind(index: usize, mount: &cri::Mount) -> Result<Mount> {
    let field = |name: &str| format!("config.mounts[{index}].{name}");
    let image = mount.image.as_ref().is_some_and(|image| *image != cri::ImageSpec::default());
    for (name, wished) in [
        ("image", image),
        ("image_sub_path", !mount.image_sub_path.is_empty()),
        ("uidMappings", !mount.uid_mappings.is_empty()),
        ("gidMappings", !mount.gid_mappings.is_empty()),
        ("recursive_read_only", mount.recursive_read_only),
    ] {
        if wished {
            return Err(Error::unsupported(field(name)));
        }
    }
    let target = Path::new(&mount.container_path);
    let climbs = target.components().any(|part| part == Component::ParentDir);
    if !target.is_absolute() || climbs || mount.container_path.contains('\0') || target == Path::new("/") {
        let reason = format!("{:?} is no absolute path below /", mount.container_path);
        return Err(Error::invalid(field("container_path"), reason));
    }
    if !mount.host_path.starts_with('/') || mount.host_path.contains('\0') {
        let reason = format!("{:?} is no absolute path", mount.host_path);
        return Err(Error::invalid(field("host_path"), reason));
    }
    let propagation = match cri::MountPropagation::try_from(mount.propagation) {
        Ok(cri::MountPropagation::PropagationPrivate) => "rprivate",
        Ok(cri::MountPropagation::PropagationHostToContainer) => "rslave",
        Ok(cri::MountPropagation::PropagationBidirectional) => "rshared",
        Err(_) => return Err(Error::invalid(field("propagation"), "there is no such propagation")),
    };
    let access = if mount.readonly { "ro" } else { "rw" };
    let options = ["rbind", propagation, access].map(str::to_owned).to_vec();
    MountBuilder::default()
        .destination(target.components().collect::<PathBuf>())
        .typ("bind")
        .source(&mount.host_path)
        .options(options)
        .build()
        .map_err(|error| Error::invalid(field("container_path"), error.to_string()))
}

/// Adds the host's devices and lets the container use them.
pub(super) fn devices(spec: &mut Spec, config: &cri::ContainerConfig) -> Result<()> {
    let mut nodes = Vec::new();
    let mut rules = Vec::new();
    for (index, device) in config.devices.iter().enumerate() {
        let field = |name: &str| format!("config.devices[{index}].{name}");
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        if !access.chars().all(|letter| "rwm".contains(letter)) {
            return Err(Error::invalid(
                field("permissions"),
                format!("{access:?} is not made of r, w and m"),
            ));
        }
        let target =
            if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
        if !target.starts_with('/') {
            return Err(Error::invalid(field("container_path"), format!("{target:?} is no absolute path")));
        }
        for (host, inside) in files(Path::new(&device.host_path), Path::new(target), &field("host_path"))? {
            let (node, rule) = one(&host, &inside, access).map_err(|reason| {
                Error::invalid(field("host_path"), format!("{}: {reason}", host.display()))
            })?;
            nodes.push(node);
            rules.push(rule);
        }
    }
    if nodes.is_empty() {
        return Ok(());
    }
    let linux = spec.linux_mut().get_or_insert_with(Linux::default);
    linux.devices_mut().get_or_insert_with(Vec::new).extend(nodes);
    let resources = linux.resources_mut().get_or_insert_with(LinuxResources::default);
    resources.devices_mut().get_or_insert_with(Vec::new).extend(rules);
    Ok(())
}

/// A device is itself; a directory is the devices in it.
fn files(host: &Path, inside: &Path, field: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let metadata =
        fs::metadata(host).map_err(|error| Error::invalid(field, format!("{}: {error}", host.display())))?;
    if !metadata.is_dir() {
        return Ok(vec![(host.to_owned(), inside.to_owned())]);
    }
    let entries = fs::read_dir(host).map_err(Error::io("read directory", host))?;
    let devices = entries.flatten().filter(|entry| {
        entry
            .metadata()
            .is_ok_and(|found| found.file_type().is_char_device() || found.file_type().is_block_device())
    });
    Ok(devices.map(|entry| (entry.path(), inside.join(entry.file_name()))).collect())
}

fn one(host: &Path, inside: &Path, access: &str) -> Result<(LinuxDevice, LinuxDeviceCgroup), String> {
    let metadata = fs::metadata(host).map_err(|error| error.to_string())?;
    let typ = if metadata.file_type().is_char_device() {
        LinuxDeviceType::C
    } else if metadata.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        return Err("it is no device".to_owned());
    };
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let node = LinuxDeviceBuilder::default()
        .path(inside)
        .typ(typ)
        .major(i64::from(major))
        .minor(i64::from(minor))
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build();
    let rule = LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(typ)
        .major(i64::from(major))
        .minor(i64::from(minor))
        .access(access)
        .build();
    Ok((node.map_err(|error| error.to_string())?, rule.map_err(|error| error.to_string())?))
}
