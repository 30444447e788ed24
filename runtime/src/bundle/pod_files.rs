//! Files of the pod that each container sees: a copy of its own of each file of /etc, and the pod's /dev/shm.

use super::mounts::{Origin, Origins, PlannedMount, taken};
use crate::sandbox::files::{self, FILES};
use crate::{Error, IpcMode, Result, state};
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The directory of a container that holds its copies.
const COPIES: &str = "etc";
const SHM: &str = "/dev/shm";

/// Adds them where the request mounts nothing.
pub(super) fn plan(origins: &Origins<'_>, mounts: &mut Vec<PlannedMount>) {
    let container = origins.container;
    let access = if container.record.request.rootfs.readonly { "ro" } else { "rw" };
    for (name, destination) in FILES {
        if !taken(mounts, Path::new(destination)) {
            let copy = container.directory.join(COPIES).join(name);
            mounts.push(PlannedMount::bind(copy, Path::new(destination), &[access], Origin::PodFile(name)));
        }
    }
    if taken(mounts, Path::new(SHM)) {
        return;
    }
    // The host's is as the host has it. A clone of the pod's keeps its attributes; other runtimes have to be told.
    let (shm, options): (PathBuf, &[&str]) = match origins.record.config.ipc {
        IpcMode::Pod => (origins.pod.state.join("shm"), &["rw", "nosuid", "nodev", "noexec"]),
        IpcMode::Host => (SHM.into(), &["rw"]),
    };
    mounts.push(PlannedMount::bind(shm, Path::new(SHM), options, Origin::Node));
}

/// The contents of the pod's files by their names; those that are absent or damaged are written again.
pub(super) fn contents(origins: &Origins<'_>) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    files::write(&origins.pod.root, &origins.record.config, &origins.record.addresses)
}

/// Makes the container's copy of a file, which the container's root owns. A start that was interrupted has left one, which
/// is written anew.
pub(super) fn copy(origins: &Origins<'_>, contents: &[u8], planned: &PlannedMount) -> Result<()> {
    let Some(to) = planned.mount.source() else { return Ok(()) };
    let map = origins.record.config.userns.as_ref();
    let failed = |source| Error::Io {
        action: "copy the pod's file to",
        path: to.into(),
        source: slipway_disk::explained(to, source),
    };
    let (uid, gid) = map.map_or(Ok::<_, Error>((0, 0)), |map| Ok((map.root_uid()?, map.root_gid()?)))?;
    state::make_directory(&origins.container.directory.join(COPIES))?;
    state::replace(to, contents)?;
    chown(to, Some(uid), Some(gid)).map_err(failed)?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o644)).map_err(failed)
}
