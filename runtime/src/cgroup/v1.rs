//! Version 1: one directory in each hierarchy; a cpuset takes processes only once its cpus and memory nodes are set.

use super::files;
use super::hierarchy::{Directory, Mount};
use crate::Result;
use std::path::{Path, PathBuf};

/// Make each directory from the mount down to this one; returns those made.
pub(super) fn prepare(directory: &Directory, mount: &Mount) -> Result<Vec<PathBuf>> {
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in directory.path.ancestors().take_while(|one| one.starts_with(&mount.point)) {
        missing.push(ancestor);
    }
    let mut created = Vec::new();
    for path in missing.into_iter().rev() {
        if files::make_directory(path)? {
            created.push(path.to_owned());
        }
        if path != mount.point {
            fill_in(&Directory { controllers: directory.controllers.clone(), path: path.to_owned() })?;
        }
    }
    Ok(created)
}

/// Give an empty cpuset what its parent has.
pub(super) fn fill_in(directory: &Directory) -> Result<()> {
    if !directory.controllers.iter().any(|name| name == "cpuset") {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = directory.path.join(file);
        let Some(parent) = directory.path.parent() else { continue };
        if files::read(&path)?.trim().is_empty() {
            files::write(&path, files::read(&parent.join(file))?.trim())?;
        }
    }
    Ok(())
}
