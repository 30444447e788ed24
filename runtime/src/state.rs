//! The runtime's records. Each is a file of its own that is written once: nothing is renamed over, which ext4 would flush.
//!
//! ```text
//! <root>/pods/<id>/record             written before anything is made
//! <root>/pods/<id>/ready              all of it is made: its addresses, network namespace and monitor
//! <root>/pods/<id>/ended              its monitor has ended unasked
//! <root>/pods/<id>/intent.N           it is to be stopped, or removed
//! <root>/containers/<id>/record
//! <root>/containers/<id>/started.N    its Nth start, written before that is tried
//! <root>/containers/<id>/ended.N      the end of that start; the exit file of its monitor says the same
//! <root>/containers/<id>/intent       it is to be removed
//! <state>/cgroups                     the cgroups that are to be removed with the last daemon
//! ```
//! Of numbered files the highest whole one counts. All but a container's `ended` ones have a copy below `<state>/copies`, under the
//! same names. Earlier releases had neither `ready`, `ended` nor `intent` of pods, for they replaced `record` with each
//! change, and no numbers: `started` and `ended` without one have the number 0 here. The caller kept a record `request`.
//!
//! A record is renamed into place, not synced: it survives the daemon, and a torn one after a power cut is of another
//! boot, when nothing of what it describes runs any more.

use crate::{Error, Result, RuntimeConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_disk::atomic::{self, Durability};
pub(crate) use slipway_disk::record::Loaded;
use slipway_disk::record::{Copies, Damage, Kind, Slot};
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
/// The facts of a pod that is made.
pub(crate) static READY: Kind = kind("ready");
/// The end of a pod's monitor.
pub(crate) static POD_ENDED: Kind = kind("pod-ended");
/// The caller's record of a pod, of earlier releases.
pub(crate) static POD_REQUEST: Kind = kind("pod-request");
/// The caller's record of a container, of earlier releases.
pub(crate) static CONTAINER_REQUEST: Kind = kind("container-request");
/// The wish to stop or remove a pod, or to remove a container.
pub(crate) static INTENT: Kind = kind("intent");
/// A start of a container.
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

    /// A pod's facts, once it is made.
    pub(crate) fn ready(&self) -> Slot {
        self.slot(&READY, "ready")
    }

    /// The end of a pod's monitor that nobody had asked for.
    pub(crate) fn pod_ended(&self) -> Slot {
        self.slot(&POD_ENDED, "ended")
    }

    /// A wish to stop or remove a pod, or to remove a container.
    pub(crate) fn intent(&self, number: u32) -> Slot {
        self.slot(&INTENT, &numbered("intent", number))
    }

    /// The record that the caller kept in earlier releases.
    pub(crate) fn former_request(&self) -> Slot {
        let kind = if self.group == "pods" { &POD_REQUEST } else { &CONTAINER_REQUEST };
        self.slot(kind, "request")
    }

    /// A start of a container.
    pub(crate) fn started(&self, run: u32) -> Slot {
        self.slot(&STARTED, &numbered("started", run))
    }

    /// The path of the end of a container's start.
    pub(crate) fn ended_path(&self, run: u32) -> PathBuf {
        self.directory.join(numbered("ended", run))
    }

    fn slot(&self, kind: &'static Kind, file: &str) -> Slot {
        let copy = self.copies.of(self.group, &self.id).join(file);
        Slot::new(kind, &self.id, self.directory.join(file), copy)
    }

    /// The numbers of the files of one name that are here or have copies, in order.
    pub(crate) fn numbers(&self, name: &str) -> BTreeSet<u32> {
        let copies = self.copies.of(self.group, &self.id);
        let found = [&self.directory, &copies].map(|directory| names(directory).unwrap_or_default());
        found.iter().flatten().filter_map(|file| number(name, file)).collect()
    }

    /// Reads the end of a container's start.
    pub(crate) fn read_end<T: DeserializeOwned>(&self, run: u32) -> std::result::Result<Option<T>, Damage> {
        let found = ENDED.read::<T>(&self.ended_path(run), &self.id)?;
        Ok(found.map(|loaded| loaded.value))
    }

    /// Writes the end of a container's start.
    pub(crate) fn write_end<T: Serialize>(&self, run: u32, end: &T) -> Result<()> {
        Ok(ENDED.write(&self.ended_path(run), &self.id, end)?)
    }

    /// Removes every record, with the directory and all in it. Copies go first, which would bring a record back, and what
    /// says that something runs goes before the record proper: the next daemon takes a directory without that for the
    /// rest of a removal, unless it says that something was started.
    pub(crate) fn remove(&self) -> Result<()> {
        self.copies.forget(self.group, &self.id)?;
        for run in self.numbers("started") {
            self.started(run).remove()?;
        }
        self.ready().remove()?;
        self.record().remove()?;
        Ok(slipway_disk::remove_tree(&self.directory)?)
    }
}

/// The name of a numbered file; number 0 is the name alone.
fn numbered(name: &str, number: u32) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}.{number}") }
}

/// The number of a file of this name; none for other files.
fn number(name: &str, file: &str) -> Option<u32> {
    let number = match file.strip_prefix(name)? {
        "" => 0,
        suffix => suffix.strip_prefix('.')?.parse().ok()?,
    };
    (numbered(name, number) == file).then_some(number)
}

/// Files that were damaged and are whole again, each with what was wrong with it.
pub(crate) type Healed = Vec<(PathBuf, String)>;

/// Notes that a record was written again from its copy.
pub(crate) fn note<T>(healed: &mut Healed, slot: &Slot, loaded: &Loaded<T>) {
    let path = slot.path().to_owned();
    let again = |reason: String| (path, format!("{reason}; it was written again from its copy"));
    healed.extend(loaded.healed.clone().map(again));
}

/// A record that a power cut has torn is as good as absent: what it described does not run any more.
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
        slipway_disk::remove_tree(&place.directory).unwrap();
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
        place.write_end(1, &vec![1, 2, 3]).unwrap();
        assert_eq!(place.read_end::<Vec<u8>>(1).unwrap(), Some(vec![1, 2, 3]));
        let path = place.ended_path(1);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(absent_if_torn(place.read_end::<Vec<u8>>(1)), Ok(None)));
        fs::write(&path, whole.replace("record 2", "record 9")).unwrap();
        assert!(matches!(absent_if_torn(place.read_end::<Vec<u8>>(1)), Err(Error::Record { .. })));
    }
}
