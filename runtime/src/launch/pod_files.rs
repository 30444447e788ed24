//! A container's part of its pod: a copy of its own of each file of /etc, and the pod's /dev/shm.

use super::gather::Descriptors;
use super::mounts::{Place, taken};
use crate::plan::{PreparedMount, Source};
use crate::pod::PodRecord;
use crate::rootfs::binds::{self, BindOptions};
use crate::sandbox::files::{self, FILES};
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
    let contents = files::write(&place.pod.root, &record.config, &record.addresses)?;
    for (name, destination) in FILES {
        if taken(mounts, Path::new(destination)) {
            continue;
        }
        let copy = directory.join(name);
        let contents = contents.get(name).map(Vec::as_slice).unwrap_or_default();
        make_copy(contents, &copy, record.config.userns.as_ref())?;
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

/// Writes one container's copy of a file of the pod's; the container's root owns it. A start that was interrupted has left
/// one, which is written anew.
fn make_copy(contents: &[u8], to: &Path, map: Option<&IdMap>) -> Result<()> {
    let failed = |source| Error::Io {
        action: "copy the pod's file to",
        path: to.into(),
        source: slipway_disk::explained(to, source),
    };
    let (uid, gid) = map.map_or(Ok::<_, Error>((0, 0)), |map| Ok((map.root_uid()?, map.root_gid()?)))?;
    state::replace(to, contents)?;
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
