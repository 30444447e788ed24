//! What the daemon keeps on disk of each pod and container: who asked for what. One record, `request`, in the thing's
//! directory, renamed into place and not synced: it must survive the daemon's death, and after a power cut it either
//! reads well or is known as torn. Its copy of this boot, from which a damaged one is written again, is below the state
//! directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use slipway_disk::atomic::{self, Durability};
use slipway_disk::record::{Copies, Damage, Kind, Slot};
use slipway_image::ImageId;
use slipway_proto::runtime::v1::{CreateContainerRequest, RunPodSandboxRequest};
use slipway_runtime::{ContainerId, Damaged, Owner, SandboxId};

use crate::error::{Error, Result};

const FILE: &str = "request";
static POD: Kind = kind("pod-request");
static CONTAINER: Kind = kind("container-request");

const fn kind(name: &'static str) -> Kind {
    // The longest message that the daemon takes, in base64, and more.
    Kind { name, most: 32 << 20, durability: Durability::DaemonDeath, once_plain: false }
}

/// A record of a pod or container.
pub(crate) trait Recorded: Clone + Serialize + DeserializeOwned {
    /// The directory below the root.
    const GROUP: &'static str;

    /// What is common to all of its kind.
    fn kind() -> &'static Kind;
}

impl Recorded for PodRecord {
    const GROUP: &'static str = "pods";

    fn kind() -> &'static Kind {
        &POD
    }
}

impl Recorded for ContainerRecord {
    const GROUP: &'static str = "containers";

    fn kind() -> &'static Kind {
        &CONTAINER
    }
}

/// How far the life of a pod or container has gone; each is written before its work begins.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// It is there.
    Live,
    /// It is to be stopped, or has been.
    Stopping,
    /// It is to be removed.
    Removing,
}

/// A pod's record.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PodRecord {
    pub(crate) id: SandboxId,
    pub(crate) owner: Owner,
    pub(crate) name: String,
    pub(crate) created_at: i64,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) phase: Phase,
    pub(crate) request: Encoded<RunPodSandboxRequest>,
    /// What was wrong with the record that this one stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) damage: Option<String>,
}

/// A container's record.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) owner: Owner,
    pub(crate) pod: SandboxId,
    pub(crate) name: String,
    pub(crate) created_at: i64,
    pub(crate) image_id: ImageId,
    /// The repository and digest by which the image was pulled; none of one that was made here.
    #[serde(default)]
    pub(crate) image_digest: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) stop_signal: i32,
    pub(crate) log_path: Option<PathBuf>,
    /// Remove it when it has ended.
    pub(crate) transient: bool,
    pub(crate) phase: Phase,
    pub(crate) request: Encoded<CreateContainerRequest>,
    /// As [`PodRecord::damage`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) damage: Option<String>,
}

/// A protobuf message as base64 in a JSON text: bytes that are no text survive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Encoded<M>(pub(crate) M);

impl<M: prost::Message> Serialize for Encoded<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.encode_to_vec()))
    }
}

impl<'de, M: prost::Message + Default> Deserialize<'de> for Encoded<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        M::decode(bytes.as_slice()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What a directory of records holds.
#[derive(Debug)]
pub(crate) struct Loaded<R> {
    /// What reads well.
    pub(crate) records: Vec<R>,
    /// Ids whose record was torn by a power cut: nothing of them runs, they are to be removed.
    pub(crate) torn: Vec<String>,
    /// Ids whose record can't be read, and why.
    pub(crate) damaged: Vec<(String, Damage)>,
    /// Records that were written again from their copies.
    pub(crate) healed: Vec<Damaged>,
}

/// The records of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Records<R> {
    directory: PathBuf,
    copies: Copies,
    kind: PhantomData<fn() -> R>,
}

impl<R: Recorded> Records<R> {
    /// Opens the records below a root, making their directory where it is absent.
    pub(crate) fn open(root: &Path, state: &Path) -> Result<Self> {
        let directory = root.join(R::GROUP);
        atomic::make_directory(&directory, 0o700)?;
        Ok(Self { directory, copies: Copies::below(state), kind: PhantomData })
    }

    /// The directory of one thing.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    fn slot(&self, id: &str) -> Slot {
        let copy = self.copies.of(R::GROUP, id).join(FILE);
        Slot::new(R::kind(), id, self.directory(id).join(FILE), copy)
    }

    /// Puts a record in place of what was there.
    pub(crate) fn write(&self, id: &str, record: &R) -> Result<()> {
        let directory = self.directory(id);
        fs::create_dir_all(&directory).map_err(Error::io("create directory", &directory))?;
        Ok(self.slot(id).write(record)?)
    }

    /// Removes a record, and its directory if nothing else is in it.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.slot(id).remove()?;
        let directory = self.directory(id);
        atomic::remove_unfinished(&directory);
        let log = directory.join("log");
        match fs::remove_file(&log) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(Error::io("remove log", &log)(error));
            }
            _ => {}
        }
        match fs::remove_dir(&directory) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(Error::io("remove directory", &directory)(error))
            }
            _ => Ok(()),
        }
    }

    /// Reads every record.
    pub(crate) fn load(&self) -> Result<Loaded<R>> {
        let (records, torn, damaged, healed) = Default::default();
        let mut loaded = Loaded { records, torn, damaged, healed };
        let entries = fs::read_dir(&self.directory).map_err(Error::io("read directory", &self.directory))?;
        let mut ids: BTreeSet<String> = self.copies.ids(R::GROUP).into_iter().collect();
        ids.extend(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()));
        for id in ids {
            let slot = self.slot(&id);
            match slot.take_up::<R>() {
                Ok(None) => {}
                Ok(Some(found)) => {
                    loaded.healed.extend(found.healed.map(|reason| healed_by_copy(slot.path(), &reason)));
                    loaded.records.push(found.value);
                }
                Err(damage) if damage.torn => loaded.torn.push(id),
                Err(damage) => loaded.damaged.push((id, damage)),
            }
        }
        Ok(loaded)
    }

    /// Verifies a record on disk. With `repair` a damaged one is written again.
    pub(crate) fn check(&self, id: &str, record: &R, repair: bool) -> Option<Damaged> {
        let slot = self.slot(id);
        let Damage { path, reason, .. } = slot.verify::<R>().err()?;
        let mended = repair && slot.write(record).is_ok();
        let problem = if mended { reason } else { format!("{reason}: check --repair writes it again") };
        Some(Damaged { path, problem, mended })
    }

    /// Where a record is.
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.directory(id).join(FILE)
    }
}

fn healed_by_copy(path: &Path, reason: &str) -> Damaged {
    tracing::warn!(path = %path.display(), reason, "a damaged record was written again from its copy");
    let problem = format!("{reason}; it was written again from its copy");
    Damaged { path: path.to_owned(), problem, mended: true }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        word: String,
    }

    impl Recorded for Thing {
        const GROUP: &'static str = "things";

        fn kind() -> &'static Kind {
            &POD
        }
    }

    fn records(folder: &Path) -> Records<Thing> {
        Records::open(&folder.join("lib"), &folder.join("run")).unwrap()
    }

    fn forget_copies(records: &Records<Thing>, folder: &Path) {
        let _ = fs::remove_dir_all(folder.join("run"));
        assert!(records.copies.ids("things").is_empty());
    }

    #[test]
    fn what_was_written_is_read_and_what_was_removed_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        records.write("a", &Thing { word: "x\ny".into() }).unwrap();
        assert_eq!(records.load().unwrap().records, [Thing { word: "x\ny".into() }]);
        records.remove("a").unwrap();
        records.remove("a").unwrap();
        assert!(!records.directory("a").exists());
        assert!(records.load().unwrap().records.is_empty());
    }

    #[test]
    fn a_damaged_record_is_written_again_from_its_copy_and_without_one_is_told_from_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        for id in ["empty", "damaged", "future"] {
            records.write(id, &Thing { word: "x".into() }).unwrap();
        }
        let whole = fs::read_to_string(records.path("damaged")).unwrap();
        let damage = || {
            fs::write(records.path("empty"), "").unwrap();
            fs::write(records.path("damaged"), whole.replace('x', "y")).unwrap();
            fs::write(records.path("future"), whole.replace("record 2", "record 9")).unwrap();
        };
        damage();
        let loaded = records.load().unwrap();
        assert_eq!((loaded.records.len(), loaded.healed.len(), loaded.damaged.len()), (3, 3, 0));
        assert_eq!(records.load().unwrap().healed, []);
        damage();
        forget_copies(&records, folder.path());
        let loaded = records.load().unwrap();
        assert_eq!(loaded.torn, ["empty"]);
        assert_eq!((loaded.records.len(), loaded.damaged.len()), (0, 2));
    }

    #[test]
    fn bytes_that_are_no_text_survive_a_record() {
        use slipway_proto::runtime::v1::KeyValue;
        let value = Encoded(KeyValue { key: "k".into(), value: vec![0, 255, 10] });
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Encoded<KeyValue>>(&text).unwrap(), value);
    }
}
