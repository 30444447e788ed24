//! Version 2: directories are made with their controllers shared out from the hierarchy's top downwards.
//!
//! A cgroup that shares controllers out can't hold processes itself, so the daemon moves its own to a leaf first.

use super::files;
use super::hierarchy::Mount;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The controllers that limit containers.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];
/// The most rounds of moving a cgroup's processes, which may fork while they are moved.
const MOVES: usize = 16;

/// Make each directory from the mount down to `path` and share its controllers out.
pub(super) fn prepare(path: &Path, mount: &Mount, leaf: &str) -> Result<()> {
    let own = mount.point.join(&mount.own);
    for directory in chain(path, &mount.point) {
        files::make_directory(&directory)?;
        match share_out_raw(&directory) {
            Err(error) if directory == own && error.raw_os_error() == Some(libc::EBUSY) => {
                vacate(&directory, &directory.join(leaf))?;
                share_out(&directory)?;
            }
            // A cgroup above the daemon's own belongs to others: a controller that is missing there is reported once
            // a limit needs it.
            Err(_) if own.starts_with(&directory) && directory != own => {}
            result => result.map_err(|source| refused(&directory, source))?,
        }
    }
    Ok(())
}

/// The directories from `top` to `path`, both included.
fn chain(path: &Path, top: &Path) -> Vec<PathBuf> {
    let mut chain: Vec<PathBuf> =
        path.ancestors().take_while(|one| one.starts_with(top)).map(Path::to_owned).collect();
    chain.reverse();
    chain
}

/// Let the children of a cgroup use every controller it has.
pub(super) fn share_out(directory: &Path) -> Result<()> {
    share_out_raw(directory).map_err(|source| refused(directory, source))
}

fn share_out_raw(directory: &Path) -> std::io::Result<()> {
    let available = files::read_raw(&directory.join("cgroup.controllers"))?;
    let control = directory.join("cgroup.subtree_control");
    let enabled = files::read_raw(&control)?;
    let has = |list: &str, name: &str| list.split_ascii_whitespace().any(|one| one == name);
    let missing: Vec<String> = CONTROLLERS
        .iter()
        .filter(|name| has(&available, name) && !has(&enabled, name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    match files::write_raw(&control, &missing.join(" ")) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(error),
        Err(_) => {
            // A controller that can't be enabled (cpu, while real-time processes exist) must not prevent the others:
            // enable them one by one.
            for name in &missing {
                drop(files::write_raw(&control, name));
            }
            Ok(())
        }
    }
}

fn refused(directory: &Path, source: std::io::Error) -> Error {
    if source.raw_os_error() == Some(libc::EBUSY) {
        let name = directory.display();
        return Error::InUse(format!(
            "cgroup {name} holds processes of its own, so it can't have limited children; choose another cgroup root or parent"
        ));
    }
    files::failed("share out the controllers of cgroup", directory)(source)
}

/// Move every process of a cgroup to a leaf below it.
fn vacate(directory: &Path, leaf: &Path) -> Result<()> {
    files::make_directory(leaf)?;
    let target = leaf.join("cgroup.procs");
    for _ in 0..MOVES {
        let pids = files::read(&directory.join("cgroup.procs"))?;
        if pids.is_empty() {
            break;
        }
        for pid in pids.lines() {
            match files::write_raw(&target, pid) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(files::rejected(&target, pid, error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_from_the_mount_to_the_cgroup() {
        let chain = chain(Path::new("/sys/fs/cgroup/a/b"), Path::new("/sys/fs/cgroup"));
        assert_eq!(chain, ["/sys/fs/cgroup", "/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b"].map(PathBuf::from));
    }
}
