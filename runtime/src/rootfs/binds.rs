//! Host paths bound into a container: opened as detached mounts with their attributes set.

use crate::opener::Opener;
use crate::sys::mount::{MountChange, change_mount};
use crate::{Error, Result, patience};
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, fstat, statx};
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// How a path is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BindOptions {
    pub(crate) recursive: bool,
    set: u64,
    set_recursive: u64,
    propagation: u64,
}

/// A detached bind.
#[derive(Debug)]
pub(crate) struct Bind {
    pub(crate) mount: OwnedFd,
    pub(crate) is_directory: bool,
}

impl BindOptions {
    /// Reads a mount's options as the OCI specification names them.
    pub(crate) fn parse(destination: &Path, options: &[String]) -> Result<Self> {
        let mut parsed = Self { recursive: false, set: 0, set_recursive: 0, propagation: libc::MS_PRIVATE };
        for option in options {
            match option.as_str() {
                "bind" | "rw" | "suid" | "dev" | "exec" | "relatime" | "diratime" => {}
                "rbind" => parsed.recursive = true,
                "ro" => parsed.set |= libc::MOUNT_ATTR_RDONLY,
                "nosuid" => parsed.set |= libc::MOUNT_ATTR_NOSUID,
                "nodev" => parsed.set |= libc::MOUNT_ATTR_NODEV,
                "noexec" => parsed.set |= libc::MOUNT_ATTR_NOEXEC,
                "nosymfollow" => parsed.set |= libc::MOUNT_ATTR_NOSYMFOLLOW,
                "rro" => parsed.set_recursive |= libc::MOUNT_ATTR_RDONLY,
                "private" | "rprivate" => parsed.propagation = libc::MS_PRIVATE,
                "slave" | "rslave" => parsed.propagation = libc::MS_SLAVE,
                "shared" | "rshared" => parsed.propagation = libc::MS_SHARED,
                other => {
                    return Err(Error::Unsupported(format!(
                        "mount {}: option {other}",
                        destination.display()
                    )));
                }
            }
        }
        Ok(parsed)
    }

    /// A read-write bind of one mount.
    pub(crate) fn plain() -> Self {
        Self { recursive: false, set: 0, set_recursive: 0, propagation: libc::MS_PRIVATE }
    }

    /// A read-only bind of one mount.
    pub(crate) fn read_only() -> Self {
        Self { set: libc::MOUNT_ATTR_RDONLY, ..Self::plain() }
    }
}

/// Opens a source of a client's, which is made as a directory where it is absent, as kubelet's users expect. Its file
/// system may belong to a server that is gone, and not answer in the life of this daemon.
pub(crate) fn open_in_time(opener: &Opener, source: &Path, options: BindOptions) -> Result<Bind> {
    let (opener, path) = (opener.clone(), source.to_owned());
    let work = move || opener.bind(path, options);
    let opened = patience::in_time("bind", &source.display().to_string(), work);
    opened.map_err(|error| Error::Io { action: "bind", path: source.into(), source: error })?
}

/// As [`open`], of a source that is made where it is absent.
pub(crate) fn open_or_make(source: &Path, options: BindOptions) -> Result<Bind> {
    match std::fs::metadata(source) {
        Err(error) if error.kind() == ErrorKind::NotFound => make(source)?,
        _ => {}
    }
    open(source, options)
}

/// Makes a directory and what is missing above it, 0755 whatever the umask.
fn make(path: &Path) -> Result<()> {
    let failed = |source| Error::Io { action: "make the host's directory", path: path.into(), source };
    let missing: Vec<_> = path.ancestors().take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed)?;
    missing
        .iter()
        .try_for_each(|made| std::fs::set_permissions(made, PermissionsExt::from_mode(0o755)).map_err(failed))
}

/// Opens a source as a detached mount; a missing source is an error.
pub(crate) fn open(source: &Path, options: BindOptions) -> Result<Bind> {
    let failed = |source_error| Error::Io { action: "bind", path: source.into(), source: source_error };
    if options.propagation != libc::MS_PRIVATE {
        check_propagation(source, options.propagation)?;
    }
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let mount = open_tree(CWD, source, flags).map_err(|errno| failed(errno.into()))?;
    apply(&mount, options).map_err(failed)?;
    let stat = fstat(&mount).map_err(|errno| failed(errno.into()))?;
    Ok(Bind { mount, is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory })
}

/// Mounts come and go between the host and a container only where the host's mount takes part in propagation.
fn check_propagation(source: &Path, wanted: u64) -> Result<()> {
    let failed = |action| move |error| Error::Io { action, path: source.into(), source: error };
    let stat = statx(CWD, source, AtFlags::empty(), StatxFlags::MNT_ID);
    let stat = stat.map_err(|errno| failed("bind")(errno.into()))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed("find the mount of"))?;
    if takes_part(&mounts, stat.stx_mnt_id, wanted) {
        return Ok(());
    }
    let path = source.display();
    Err(Error::Invalid(format!(
        "host path {path} is on a private mount, so no mount can pass between it and a container: \
         make that mount shared (mount --make-rshared), or ask for private propagation"
    )))
}

/// Whether a mount is shared or, where only the host's mounts are to come, has a master.
fn takes_part(mounts: &str, id: u64, wanted: u64) -> bool {
    let id = id.to_string();
    let found = mounts.lines().find(|line| line.split(' ').next() == Some(id.as_str()));
    let mut fields = found.unwrap_or_default().split(' ').skip(6).take_while(|field| *field != "-");
    fields
        .any(|field| field.starts_with("shared:") || wanted == libc::MS_SLAVE && field.starts_with("master:"))
}

fn apply(mount: &OwnedFd, options: BindOptions) -> std::io::Result<()> {
    let propagation = MountChange {
        propagation: options.propagation,
        set: options.set_recursive,
        recursive: true,
        ..MountChange::default()
    };
    change_mount(mount.as_fd(), propagation)?;
    if options.set == 0 {
        return Ok(());
    }
    change_mount(mount.as_fd(), MountChange { set: options.set, ..MountChange::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_is_refused_by_name() {
        let error = BindOptions::parse(Path::new("/data"), &["rbind".into(), "idmap".into()]).unwrap_err();
        assert_eq!(error.to_string(), "mount /data: option idmap");
    }

    #[test]
    fn a_mount_takes_part_when_it_is_shared_or_a_slave() {
        let mounts = "7 1 0:5 / /a rw - tmpfs t rw\n8 1 0:5 / /b rw shared:3 - tmpfs t rw\n9 1 0:5 / /c rw master:3 - tmpfs t rw\n";
        let of = |id| [libc::MS_SLAVE, libc::MS_SHARED].map(|wanted| takes_part(mounts, id, wanted));
        assert_eq!([of(7), of(8), of(9)], [[false, false], [true, true], [true, false]]);
    }

    #[test]
    fn a_missing_source_is_an_error() {
        let error = open(Path::new("/no/such/place"), BindOptions::plain()).unwrap_err();
        assert_eq!(error.to_string(), "bind /no/such/place");
    }
}
