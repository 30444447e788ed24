//! What a container has of its pod: a copy of its own of each file of /etc, and the pod's /dev/shm.

use super::gather::Descriptors;
use super::mounts::{Place, taken};
use crate::plan::{PreparedMount, Source};
use crate::pod::PodRecord;
use crate::rootfs::binds::{self, BindOptions};
use crate::sandbox::FILES;
use crate::{Error, IdMap, IpcMode, Result, state};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The directory of a container that holds its copies.
const COPIES: &str = "etc";

/// Adds them where the specification mounts nothing.
pub(super) fn add(
    place: &Place<'_>,
    record: &PodRecord,
    mounts: &mut Vec<PreparedMount>,
    descriptors: &mut Descriptors,
) -> Result<()> {
    let directory = place.container.directory.join(COPIES);
    state::make_directory(&directory)?;
    let readonly = place.container.record.request.rootfs.readonly;
    let access = if readonly { BindOptions::read_only() } else { BindOptions::plain() };
    for (name, destination) in FILES {
        if taken(mounts, Path::new(destination)) {
            continue;
        }
        let copy = directory.join(name);
        make_copy(&place.pod.root.join(name), &copy, record.config.userns.as_ref())?;
        bind(&copy, destination, access, (mounts, descriptors))?;
    }
    let shm: PathBuf = match record.config.ipc {
        IpcMode::Pod => place.pod.state.join("shm"),
        IpcMode::Host => "/dev/shm".into(),
    };
    if taken(mounts, Path::new("/dev/shm")) {
        return Ok(());
    }
    bind(&shm, "/dev/shm", BindOptions::plain(), (mounts, descriptors))
}

/// The longest of the pod's files, in bytes.
const LONGEST: u64 = 16 << 20;

/// Copies a file of the pod's for one container, whose root owns it. A start that was interrupted has left one, which is
/// written anew.
fn make_copy(from: &Path, to: &Path, map: Option<&IdMap>) -> Result<()> {
    let failed = |source| Error::Io {
        action: "copy the pod's file to",
        path: to.into(),
        source: slipway_disk::explained(to, source),
    };
    let (uid, gid) = map.map_or(Ok::<_, Error>((0, 0)), |map| Ok((map.root_uid()?, map.root_gid()?)))?;
    let contents = slipway_disk::atomic::read_regular(from, LONGEST).map_err(failed)?;
    state::replace(to, &contents)?;
    chown(to, Some(uid), Some(gid)).map_err(failed)?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o644)).map_err(failed)
}

fn bind(
    source: &Path,
    destination: &str,
    access: BindOptions,
    (mounts, descriptors): (&mut Vec<PreparedMount>, &mut Descriptors),
) -> Result<()> {
    let bind = binds::open(source, access)?;
    let descriptor = descriptors.add(bind.mount)?;
    let source = Source::Detached { descriptor, is_directory: bind.is_directory };
    mounts.push(PreparedMount::new(destination, source));
    Ok(())
}
