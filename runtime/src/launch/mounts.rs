//! A container's mounts: what the specification asks for, the pod's files, the image's volumes; each where the links of
//! the image lead, a mount below another one after it.

use super::gather::Descriptors;
use super::{places, pod_files, volumes};
use crate::cgroup::ContainerCgroup;
use crate::opener::Opener;
use crate::plan::{PreparedMount, Source, filesystem};
use crate::pod::{Container, Pod};
use crate::rootfs::binds::{self, BindOptions};
use crate::sys::mount::{MountChange, change_mount};
use crate::{Error, Result};
use oci_spec::runtime::Mount;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// All that a container's mounts depend on.
pub(super) struct Place<'a> {
    pub(super) opener: &'a Opener,
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    pub(super) cgroup: &'a ContainerCgroup,
    /// Its root, mounted.
    pub(super) root: BorrowedFd<'a>,
    /// A proc of the pid namespace that it joins, detached.
    pub(super) shared_proc: Option<OwnedFd>,
}

/// Opens all mounts of a container, in the order in which they are made.
pub(super) fn gather(place: &Place<'_>, descriptors: &mut Descriptors) -> Result<Vec<PreparedMount>> {
    let record = place.pod.record();
    let mut mounts = prepare_mounts(place, descriptors)?;
    if let Some(proc) = &place.shared_proc {
        bind_shared_proc(&mut mounts, proc, descriptors)?;
    }
    if record.config.userns.is_some() && record.netns.is_none() {
        bind_host_sysfs(&mut mounts, descriptors)?;
    }
    pod_files::add(place, &record, &mut mounts, descriptors)?;
    let volumes = volumes::prepare(place, &record, &mounts, descriptors)?;
    // Among equals the order stays: the pod's file is on top of what a volume has there.
    let mut mounts: Vec<_> = volumes.into_iter().chain(mounts).collect();
    places::settle(place.root, &mut mounts, descriptors)?;
    Ok(mounts)
}

fn prepare_mounts(place: &Place<'_>, descriptors: &mut Descriptors) -> Result<Vec<PreparedMount>> {
    let mut prepared = Vec::new();
    for mount in place.container.record.request.spec.mounts().iter().flatten() {
        let options = mount.options().as_deref().unwrap_or_default();
        let kind = mount.typ().as_deref().unwrap_or("bind");
        let destination = mount.destination().clone();
        if kind == "bind" || options.iter().any(|option| option == "bind" || option == "rbind") {
            prepared.push(bind(place.opener, mount, options, descriptors)?);
        } else if kind == "cgroup" || kind == "cgroup2" {
            cgroup_mounts(&destination, options, place.cgroup, &mut prepared, descriptors)?;
        } else {
            prepared.push(PreparedMount::new(destination, filesystem(kind, options)));
        }
    }
    Ok(prepared)
}

fn bind(
    opener: &Opener,
    mount: &Mount,
    options: &[String],
    descriptors: &mut Descriptors,
) -> Result<PreparedMount> {
    let destination = mount.destination().clone();
    let source = mount.source().as_deref();
    let source = source
        .ok_or_else(|| Error::Invalid(format!("mount {}: a bind needs a source", destination.display())))?;
    let bind = binds::open_in_time(opener, source, BindOptions::parse(&destination, options)?)?;
    let descriptor = descriptors.add(bind.mount)?;
    Ok(PreparedMount::new(destination, Source::Detached { descriptor, is_directory: bind.is_directory }))
}

/// Version 2 is mounted by the child in its own cgroup namespace; of version 1, each hierarchy's directory is bound.
fn cgroup_mounts(
    destination: &Path,
    options: &[String],
    cgroup: &ContainerCgroup,
    prepared: &mut Vec<PreparedMount>,
    descriptors: &mut Descriptors,
) -> Result<()> {
    let location = cgroup.location();
    if location.unified {
        prepared.push(PreparedMount::new(destination, filesystem("cgroup2", options)));
        return Ok(());
    }
    let base = ["nosuid", "nodev", "noexec", "mode=755", "size=1m"].map(String::from);
    prepared.push(PreparedMount::new(destination, filesystem("tmpfs", &base)));
    let access = if options.iter().any(|option| option == "ro") {
        BindOptions::read_only()
    } else {
        BindOptions::plain()
    };
    for directory in &location.directories {
        let name = directory.controllers.join(",");
        let name = name.strip_prefix("name=").unwrap_or(&name);
        if name.is_empty() {
            continue;
        }
        let bind = binds::open(&directory.path, access)?;
        let descriptor = descriptors.add(bind.mount)?;
        let source = Source::Detached { descriptor, is_directory: true };
        prepared.push(PreparedMount::new(destination.join(name), source));
    }
    Ok(())
}

/// Puts a proc of the joined pid namespace in the place of each that the specification mounts.
fn bind_shared_proc(
    mounts: &mut [PreparedMount],
    proc: &OwnedFd,
    descriptors: &mut Descriptors,
) -> Result<()> {
    let mut left = Some(proc);
    for mount in mounts {
        let Source::New { kind, attributes, parameters } = &mount.source else { continue };
        if kind != "proc" {
            continue;
        }
        let at = mount.destination.display();
        if let Some((key, _)) = parameters.first() {
            return Err(Error::Unsupported(format!("mount {at}: option {key} of a proc that others share")));
        }
        let Some(proc) = left.take() else {
            return Err(Error::Unsupported(format!(
                "mount {at}: a second proc of processes that are shared"
            )));
        };
        let change = MountChange { set: *attributes, ..MountChange::default() };
        change_mount(proc.as_fd(), change)
            .map_err(|source| Error::Kernel { call: "mount_setattr of a shared proc".into(), source })?;
        let copy = proc.try_clone();
        let copy = copy.map_err(|source| Error::Kernel { call: "duplicate a descriptor".into(), source })?;
        let descriptor = descriptors.add(copy)?;
        mount.source = Source::Detached { descriptor, is_directory: true };
    }
    Ok(())
}

/// sysfs shows a network, so a user namespace that does not own one can't mount it: the host's is bound, read-only.
fn bind_host_sysfs(mounts: &mut [PreparedMount], descriptors: &mut Descriptors) -> Result<()> {
    for mount in mounts {
        if matches!(&mount.source, Source::New { kind, .. } if kind == "sysfs") {
            let options = BindOptions::parse(&mount.destination, &["rbind".into(), "rro".into()])?;
            let descriptor = descriptors.add(binds::open(Path::new("/sys"), options)?.mount)?;
            mount.source = Source::Detached { descriptor, is_directory: true };
        }
    }
    Ok(())
}

pub(super) fn taken(mounts: &[PreparedMount], destination: &Path) -> bool {
    mounts.iter().any(|mount| mount.destination == destination)
}
