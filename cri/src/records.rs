//! What the daemon keeps on disk of each pod and container: who asked for what. One file, `request`, in the thing's
//! directory, renamed into place and not synced: it must survive the daemon's death, and after a power cut it either
//! reads well or is known as torn.
//!
//! ```text
//! slipway-record 1 <boot id> <length> <sha256 of the body>\n
//! <body: JSON>
//! ```

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use slipway_image::ImageId;
use slipway_proto::runtime::v1::{CreateContainerRequest, RunPodSandboxRequest};
use slipway_runtime::{ContainerId, SandboxId};

use crate::error::{Error, Result};

const MAGIC: &str = "slipway-record 1";
const FILE: &str = "request";
/// The longest record: the longest message that the daemon takes, in base64, and more.
const LONGEST: u64 = 32 << 20;

/// Who a pod or container belongs to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Owner {
    /// The CRI's client.
    Cri,
    /// `slipway run`.
    Run,
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
    /// What can't be read and is kept for a person to look at.
    pub(crate) unreadable: Vec<Error>,
}

/// The records of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Records<R> {
    directory: PathBuf,
    boot: String,
    kind: PhantomData<fn() -> R>,
}

impl<R: Serialize + DeserializeOwned> Records<R> {
    /// Opens `<root>/<name>`, making it where it is absent.
    pub(crate) fn open(root: &Path, name: &str) -> Result<Self> {
        let directory = root.join(name);
        fs::create_dir_all(&directory).map_err(Error::io("create directory", &directory))?;
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(path).map_err(Error::io("read", path))?.trim().to_owned();
        Ok(Self { directory, boot, kind: PhantomData })
    }

    /// The directory of one thing.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// Puts a record in place of what was there.
    pub(crate) fn write(&self, id: &str, record: &R) -> Result<()> {
        let directory = self.directory(id);
        fs::create_dir_all(&directory).map_err(Error::io("create directory", &directory))?;
        let path = directory.join(FILE);
        let body = serde_json::to_string(record)
            .map_err(|error| Error::Record { path: path.clone(), reason: error.to_string() })?;
        let text = format!("{MAGIC} {} {} {}\n{body}\n", self.boot, body.len(), hex(&Sha256::digest(&body)));
        let draft = directory.join(".request");
        let written = fs::write(&draft, text).map_err(Error::io("write record", &draft));
        written
            .and_then(|()| fs::rename(&draft, &path).map_err(Error::io("rename record into", &path)))
            // Half a record on a full disk is of no use.
            .inspect_err(|_| drop(fs::remove_file(&draft)))
    }

    /// Removes a record, and its directory if nothing else is in it.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let directory = self.directory(id);
        for name in [FILE, ".request", "log"] {
            let path = directory.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove record", &path)(error));
                }
                _ => {}
            }
        }
        match fs::remove_dir(&directory) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            Err(error) => Err(Error::io("remove directory", &directory)(error)),
        }
    }

    /// Reads every record.
    pub(crate) fn load(&self) -> Result<Loaded<R>> {
        let mut loaded = Loaded { records: Vec::new(), torn: Vec::new(), unreadable: Vec::new() };
        let entries = fs::read_dir(&self.directory).map_err(Error::io("read directory", &self.directory))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("read directory", &self.directory))?;
            let path = entry.path().join(FILE);
            let mut bytes = Vec::new();
            let read = File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
            match read {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => {
                    loaded.unreadable.push(Error::io("read record", &path)(error));
                    continue;
                }
            }
            match self.parse(&bytes) {
                Ok(record) => loaded.records.push(record),
                Err(Bad::Torn) => loaded.torn.push(entry.file_name().to_string_lossy().into_owned()),
                Err(Bad::Unreadable(reason)) => loaded.unreadable.push(Error::Record { path, reason }),
            }
        }
        Ok(loaded)
    }

    fn parse(&self, bytes: &[u8]) -> Result<R, Bad> {
        // The rename is atomic while the kernel lives: only a power cut leaves a file without its bytes.
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(Bad::Torn);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Bad::because("it is no text"))?;
        let (head, rest) = text.split_once('\n').ok_or_else(|| Bad::because("it has no header"))?;
        let fields = head.strip_prefix(MAGIC).ok_or_else(|| Bad::because("its version is unknown"))?;
        let mut fields = fields.split_whitespace();
        let (Some(boot), Some(length), Some(sum)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(Bad::because("its header is incomplete"));
        };
        let body = rest.strip_suffix('\n').unwrap_or(rest);
        if length != body.len().to_string() || sum != hex(&Sha256::digest(body)) {
            let torn = boot != self.boot;
            return Err(if torn { Bad::Torn } else { Bad::because("its checksum does not match") });
        }
        serde_json::from_str(body).map_err(|error| Bad::Unreadable(error.to_string()))
    }
}

enum Bad {
    Torn,
    Unreadable(String),
}

impl Bad {
    fn because(reason: &str) -> Self {
        Self::Unreadable(reason.to_owned())
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        word: String,
    }

    fn records(folder: &Path) -> Records<Thing> {
        Records::open(folder, "things").unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        records.write("a", &Thing { word: "x\ny".into() }).unwrap();
        assert_eq!(records.load().unwrap().records, [Thing { word: "x\ny".into() }]);
        records.remove("a").unwrap();
        records.remove("a").unwrap();
        assert!(!records.directory("a").exists());
    }

    #[test]
    fn a_record_torn_by_a_power_cut_is_told_from_a_damaged_one() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        for id in ["empty", "cut", "damaged", "future"] {
            records.write(id, &Thing { word: "x".into() }).unwrap();
        }
        let file = |id: &str| records.directory(id).join(FILE);
        fs::write(file("empty"), "").unwrap();
        let whole = fs::read_to_string(file("cut")).unwrap();
        let other = whole.replace(&records.boot, "another-boot");
        fs::write(file("cut"), &other[..other.len() - 4]).unwrap();
        fs::write(file("damaged"), whole.replace('x', "y")).unwrap();
        fs::write(file("future"), whole.replace("slipway-record 1", "slipway-record 2")).unwrap();
        let mut loaded = records.load().unwrap();
        loaded.torn.sort();
        assert_eq!(loaded.torn, ["cut", "empty"]);
        assert_eq!(loaded.unreadable.len(), 2);
        assert!(loaded.records.is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_survive_a_record() {
        use slipway_proto::runtime::v1::KeyValue;
        let value = Encoded(KeyValue { key: "k".into(), value: vec![0, 255, 10] });
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Encoded<KeyValue>>(&text).unwrap(), value);
    }
}
