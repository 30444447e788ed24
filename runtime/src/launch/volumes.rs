//! A directory for each VOLUME of the image, which begins with what the image has there.

use super::gather::Descriptors;
use super::mounts::{Place, taken};
use crate::plan::{PreparedMount, Source};
use crate::pod::PodRecord;
use crate::rootfs::binds::{self, BindOptions};
use crate::rootfs::links::follow;
use crate::rootfs::{copy, inside};
use crate::{Error, IdMap, Result, state};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The volumes as mounts, but those where something else is mounted.
pub(super) fn prepare(
    place: &Place<'_>,
    record: &PodRecord,
    mounts: &[PreparedMount],
    descriptors: &mut Descriptors,
) -> Result<Vec<PreparedMount>> {
    let volumes = &place.container.record.request.volumes;
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    let mut covered = BTreeSet::new();
    for mount in mounts {
        covered.insert(follow(place.root, &mount.destination, &BTreeSet::new())?);
    }
    let mut made = Vec::new();
    for (number, volume) in volumes.iter().enumerate() {
        let at = follow(place.root, volume, &BTreeSet::new())?;
        if ["/proc", "/sys"].iter().any(|kernel| at.starts_with(kernel)) {
            let shown = volume.display();
            return Err(Error::Invalid(format!(
                "the image's volume {shown} would cover files of the kernel's"
            )));
        }
        if at == Path::new("/") || covered.contains(&at) || taken(mounts, volume) {
            continue;
        }
        let directory = place.container.directory.join("volumes").join(number.to_string());
        if !directory.exists() {
            // What lies below another mount is not the image's.
            let hidden = at.ancestors().any(|above| covered.contains(above));
            let content = if hidden { None } else { open_in_image(place, volume, &at)? };
            fill(&directory, content, record.config.userns.as_ref())?;
        }
        let descriptor = descriptors.add(binds::open(&directory, BindOptions::plain())?.mount)?;
        made.push(PreparedMount::new(volume, Source::Detached { descriptor, is_directory: true }));
    }
    Ok(made)
}

/// The image's directory at a place; none when it has nothing there.
fn open_in_image(place: &Place<'_>, volume: &Path, at: &Path) -> Result<Option<OwnedFd>> {
    let path = at.strip_prefix("/").unwrap_or(at);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match inside::open(place.root, path, flags, resolve) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR) => {
            Err(Error::Invalid(format!("the image's volume {} is no directory in it", volume.display())))
        }
        Err(errno) => {
            Err(Error::Io { action: "open the image's volume", path: volume.into(), source: errno.into() })
        }
    }
}

/// Makes a volume's directory; one that is interrupted is begun again.
fn fill(directory: &Path, content: Option<OwnedFd>, map: Option<&IdMap>) -> Result<()> {
    let failed = |action: &'static str| {
        let path = PathBuf::from(directory);
        move |source| Error::Io { action, source: slipway_disk::explained(&path, source), path }
    };
    let (fresh, staging) = (directory.with_extension("new"), directory.with_extension("links"));
    state::remove_directory(&fresh)?;
    state::remove_directory(&staging)?;
    state::make_directory(&fresh)?;
    if let Some(content) = content {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, &fresh, flags, Mode::empty());
        let target = opened.map_err(|errno| failed("open volume")(errno.into()))?;
        copy::tree(content, &target, &staging)?;
    } else {
        std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).map_err(failed("set mode of"))?;
        if let Some(map) = map {
            chown(&fresh, Some(map.root_uid()?), Some(map.root_gid()?)).map_err(failed("set owner of"))?;
        }
    }
    std::fs::rename(&fresh, directory).map_err(failed("rename into"))
}
