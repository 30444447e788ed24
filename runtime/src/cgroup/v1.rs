//! Version 1: one directory in each hierarchy; a cpuset takes processes only once its cpus and memory nodes are set.

use super::files;
use super::hierarchy::{Directory, Mount};
use crate::Result;
use std::path::Path;

/// Make each directory from the mount down to this one.
pub(super) fn prepare(directory: &Directory, mount: &Mount) -> Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in directory.path.ancestors().take_while(|one| one.starts_with(&mount.point)) {
        missing.push(ancestor);
    }
    for path in missing.into_iter().rev() {
        files::make_directory(path)?;
        if path != mount.point {
            fill_in(&Directory { controllers: directory.controllers.clone(), path: path.to_owned() })?;
        }
    }
    Ok(())
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
