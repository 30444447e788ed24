//! The runtime's records: each pod and container has one, and each start and end of a container.
//!
//! ```text
//! <root>/pods/<id>/record           a copy in <state>/copies/pods/<id>/record
//! <root>/containers/<id>/record     a copy in <state>/copies/containers/<id>/record
//! <root>/containers/<id>/started    a copy in <state>/copies/containers/<id>/started
//! <root>/containers/<id>/ended      the exit file of its monitor says the same
//! <state>/cgroups                   what is to be removed with the last daemon
//! ```
//! A record is renamed into place, not synced: it survives the daemon, and a torn one after a power cut is of another
//! boot, when nothing of what it describes runs any more.

use crate::{Error, Result, RuntimeConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_disk::atomic::{self, Durability};
pub(crate) use slipway_disk::record::Loaded;
use slipway_disk::record::{Copies, Damage, Kind, Slot};
use slipway_disk::walker;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The longest record: a request of the longest message that the daemon takes, and as much again.
const LONGEST: u64 = 32 << 20;

const fn kind(name: &'static str) -> Kind {
    Kind { name, most: LONGEST, durability: Durability::DaemonDeath, once_plain: false }
}

/// A pod's record.
pub(crate) static POD: Kind = kind("pod");
/// A container's record.
pub(crate) static CONTAINER: Kind = kind("container");
/// What a container was started with.
pub(crate) static STARTED: Kind = kind("started");
/// How a container has ended.
pub(crate) static ENDED: Kind = kind("ended");
/// The cgroups that are to be removed one day.
pub(crate) static CGROUPS: Kind = kind("cgroups");

/// Where the records of one pod or container are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its own directory.
    pub(crate) directory: PathBuf,
    group: &'static str,
    id: String,
    copies: Copies,
}

impl Place {
    /// That of a pod.
    pub(crate) fn pod(config: &RuntimeConfig, id: &str) -> Self {
        Self::of(config, "pods", id)
    }

    /// That of a container.
    pub(crate) fn container(config: &RuntimeConfig, id: &str) -> Self {
        Self::of(config, "containers", id)
    }

    fn of(config: &RuntimeConfig, group: &'static str, id: &str) -> Self {
        let directory = config.root.join(group).join(id);
        Self { directory, group, id: id.to_owned(), copies: Copies::below(&config.state) }
    }

    /// The ids of a group: those that have a directory, and those that have lost theirs and still have copies.
    pub(crate) fn ids(config: &RuntimeConfig, group: &str) -> Result<BTreeSet<String>> {
        let mut ids: BTreeSet<_> = names(&config.root.join(group))?.into_iter().collect();
        ids.extend(Copies::below(&config.state).ids(group));
        Ok(ids)
    }

    /// Its record proper: that of the pod or container itself.
    pub(crate) fn record(&self) -> Slot {
        let kind = if self.group == "pods" { &POD } else { &CONTAINER };
        self.slot(kind, "record")
    }

    /// What it was started with.
    pub(crate) fn started(&self) -> Slot {
        self.slot(&STARTED, "started")
    }

    fn slot(&self, kind: &'static Kind, file: &str) -> Slot {
        let copy = self.copies.of(self.group, &self.id).join(file);
        Slot::new(kind, &self.id, self.directory.join(file), copy)
    }

    /// Reads how it has ended.
    pub(crate) fn read_end<T: DeserializeOwned>(&self) -> std::result::Result<Option<T>, Damage> {
        let found = ENDED.read::<T>(&self.directory.join("ended"), &self.id)?;
        Ok(found.map(|loaded| loaded.value))
    }

    /// Writes how it has ended.
    pub(crate) fn write_end<T: Serialize>(&self, end: &T) -> Result<()> {
        Ok(ENDED.write(&self.directory.join("ended"), &self.id, end)?)
    }

    /// Removes every record, with the directory and all in it. Copies go first, which would bring a record back, and what
    /// it was started with goes before the record proper: the next start takes a directory without that for the rest of a
    /// removal, unless it says that something was started.
    pub(crate) fn remove(&self) -> Result<()> {
        self.copies.forget(self.group, &self.id)?;
        self.started().remove()?;
        self.record().remove()?;
        remove_directory(&self.directory)
    }
}

/// What a power cut has torn is as good as absent: what it described does not run any more.
pub(crate) fn absent_if_torn<T>(found: std::result::Result<Option<T>, Damage>) -> Result<Option<T>> {
    match found {
        Err(damage) if damage.torn => {
            tracing::warn!(path = %damage.path.display(), "a record was torn by a power cut: it counts as absent");
            Ok(None)
        }
        found => Ok(found?),
    }
}

/// Puts contents in a file's place at once.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(atomic::write_atomic(path, bytes, Durability::DaemonDeath)?)
}

/// Makes a directory for root alone, with its parents.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| Error::Io {
        action: "create directory",
        path: path.into(),
        source: slipway_disk::explained(path, source),
    })
}

/// Removes a directory and what is in it; an absent one is fine, and so is a file in its place.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    Ok(walker::remove(path, &walker::never)?)
}

/// The names in a directory; none in an absent one.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { action: "read directory", path: path.into(), source }),
    };
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .map_err(|source| Error::Io { action: "read directory", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> RuntimeConfig {
        RuntimeConfig { root: folder.join("lib"), state: folder.join("run"), ..RuntimeConfig::default() }
    }

    #[test]
    fn a_record_whose_directory_was_taken_away_comes_back_from_its_copy() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let place = Place::container(&config, "one");
        make_directory(&place.directory).unwrap();
        place.record().write(&String::from("pod\n1")).unwrap();
        remove_directory(&place.directory).unwrap();
        assert_eq!(Place::ids(&config, "containers").unwrap(), BTreeSet::from(["one".to_owned()]));
        let loaded = place.record().take_up::<String>().unwrap().unwrap();
        assert_eq!((loaded.value.as_str(), loaded.this_boot), ("pod\n1", true));
        place.remove().unwrap();
        place.remove().unwrap();
        assert!(Place::ids(&config, "containers").unwrap().is_empty());
    }

    #[test]
    fn a_record_that_a_power_cut_has_torn_is_as_good_as_absent_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::pod(&config(folder.path()), "one");
        make_directory(&place.directory).unwrap();
        place.write_end(&vec![1, 2, 3]).unwrap();
        assert_eq!(place.read_end::<Vec<u8>>().unwrap(), Some(vec![1, 2, 3]));
        let path = place.directory.join("ended");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(absent_if_torn(place.read_end::<Vec<u8>>()), Ok(None)));
        fs::write(&path, whole.replace("record 2", "record 9")).unwrap();
        assert!(matches!(absent_if_torn(place.read_end::<Vec<u8>>()), Err(Error::Record { .. })));
    }
}
