//! A directory for each VOLUME of the image, which begins with a copy of the image's files there.

use super::mounts::{Origin, Origins, Place, PlannedMount, taken};
use crate::rootfs::copy;
use crate::rootfs::links::follow;
use crate::{Error, IdMap, Result, state};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The volumes as mounts, but those where something else is mounted.
pub(super) fn plan(origins: &Origins<'_>, mounts: &[PlannedMount]) -> Result<Vec<PlannedMount>> {
    let directory = origins.container.directory.join("volumes");
    let mut planned = Vec::new();
    for (number, volume) in origins.container.record.request.volumes.iter().enumerate() {
        refuse_kernel(volume, volume)?;
        if volume.as_path() != Path::new("/") && !taken(mounts, volume) {
            let source = directory.join(number.to_string());
            planned.push(PlannedMount::bind(source, volume, &["rw"], Origin::Volume));
        }
    }
    Ok(planned)
}

fn refuse_kernel(volume: &Path, at: &Path) -> Result<()> {
    if ["/proc", "/sys"].iter().any(|kernel| at.starts_with(kernel)) {
        let shown = volume.display();
        return Err(Error::Invalid(format!("the image's volume {shown} would cover files of the kernel's")));
    }
    Ok(())
}

/// Drops the volumes that lead to where something else is mounted; gives the destinations of those that lie below another
/// mount, where the files are not the image's.
pub(super) fn drop_covered(
    root: BorrowedFd<'_>,
    planned: &mut Vec<PlannedMount>,
) -> Result<BTreeSet<PathBuf>> {
    let nowhere = BTreeSet::new();
    let (mut covered, mut hidden, mut dropped) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    if planned.iter().all(|planned| planned.origin != Origin::Volume) {
        return Ok(hidden);
    }
    for planned in planned.iter().filter(|planned| planned.origin != Origin::Volume) {
        covered.insert(follow(root, planned.destination(), &nowhere)?);
    }
    for planned in planned.iter().filter(|planned| planned.origin == Origin::Volume) {
        let volume = planned.destination();
        let at = follow(root, volume, &nowhere)?;
        refuse_kernel(volume, &at)?;
        if at == Path::new("/") || covered.contains(&at) {
            dropped.insert(volume.to_owned());
        } else if at.ancestors().any(|above| covered.contains(above)) {
            hidden.insert(volume.to_owned());
        }
    }
    planned.retain(|planned| planned.origin != Origin::Volume || !dropped.contains(planned.destination()));
    Ok(hidden)
}

/// Makes a volume's directory, unless an earlier attempt to start has made it.
pub(super) fn fill(place: &Place<'_>, planned: &PlannedMount, hidden: bool) -> Result<()> {
    let Some(directory) = planned.mount.source().as_deref().filter(|directory| !directory.exists()) else {
        return Ok(());
    };
    let volume = planned.destination();
    let at = follow(place.root, volume, &BTreeSet::new())?;
    let content = if hidden { None } else { open_in_image(place.root, volume, &at)? };
    make(directory, content, place.origins.record.config.userns.as_ref())
}

/// The image's directory at a place; none when it has nothing there.
fn open_in_image(root: BorrowedFd<'_>, volume: &Path, at: &Path) -> Result<Option<OwnedFd>> {
    let path = at.strip_prefix("/").unwrap_or(at);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match slipway_disk::openat2(root, path, flags, Mode::empty(), resolve) {
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
fn make(directory: &Path, content: Option<OwnedFd>, map: Option<&IdMap>) -> Result<()> {
    let failed = |action: &'static str| {
        let path = PathBuf::from(directory);
        move |source| Error::Io { action, source: slipway_disk::explained(&path, source), path }
    };
    let (fresh, staging) = (directory.with_extension("new"), directory.with_extension("links"));
    slipway_disk::remove_tree(&fresh)?;
    slipway_disk::remove_tree(&staging)?;
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
