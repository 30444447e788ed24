//! Records: JSON behind a header that tells whether every byte is as it was written, what the record describes, and in
//! which boot of the machine it was written.
//!
//! ```text
//! offset  bytes
//!      0     17  "slipway-record 2 "
//!     17     64  sha256 of everything from offset 99 to the end of the file, in lower-case hexadecimal digits
//!     81      1  space
//!     82     16  the first 16 digits of the sha256 of the second line, without its LF
//!     98      1  LF
//!     99      n  "<kind> <boot id> <length of the body in bytes> <name>" LF
//!   99+n length  the body: JSON; the file ends with it
//! ```
//! Kind and name are inside of what the checksum covers: a record that was copied to another's name is noticed. The kind
//! is one word; the name goes to the end of its line.
//!
//! Two older forms are read, and are replaced by this one when their record is next written:
//! ```text
//! "slipway-record 1 <boot id> <length> <sum>" LF <body> [LF]    sum: sha256 of the body, or FNV-1a in 16 digits
//! <body>                                                       plain JSON, of kinds that had no header once
//! ```
//! A record that a power cut has torn is told from a damaged one: nothing but zeros (or nothing at all), or of another
//! boot, which its second line must say unharmed, and with its end missing or zero. Only [`Durability::DaemonDeath`]
//! leaves such.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::atomic::{self, Durability};
use crate::{Error, Result, walker};

const MAGIC: &[u8] = b"slipway-record ";
const CURRENT: &[u8] = b"slipway-record 2 ";
const FORMER: &[u8] = b"slipway-record 1 ";
/// The hexadecimal digits of a sha256.
const SUM: usize = 64;
/// Those of the second line's checksum.
const SHORT: usize = 16;

/// This boot's name, as the kernel gives it (proc_sys_kernel(5), random/boot_id).
#[must_use]
pub fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // One word, so that it can stand in a header.
        id.split_whitespace().next().unwrap_or("unknown").to_owned()
    })
}

/// The properties that all records of a kind share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// One word, which no other kind has: it is part of each record.
    pub name: &'static str,
    /// The longest record in bytes; a longer file is damaged.
    pub most: u64,
    /// The failures that a written record survives.
    pub durability: Durability,
    /// Whether records of this kind were plain JSON once.
    pub once_plain: bool,
}

/// A record as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<T> {
    /// Its content.
    pub value: T,
    /// Whether it was written since the machine has started; false where the form does not say.
    pub this_boot: bool,
    /// The fault of the file, where a copy was read in its place.
    pub healed: Option<String>,
}

/// A record that is there and can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged: {reason}", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The fault.
    pub reason: String,
    /// A power cut has torn it: what it described was never whole on disk, and does not run any more.
    pub torn: bool,
}

impl Kind {
    /// Writes a record whole or not at all, in place of whatever has the path.
    ///
    /// # Errors
    /// As [`atomic::write_atomic`]; [`ErrorKind::InvalidInput`] for a value that is no JSON or a name of several lines.
    pub fn write<T: Serialize>(&self, path: &Path, name: &str, value: &T) -> Result<()> {
        atomic::write_atomic(path, &self.bytes(path, name, value)?, self.durability)
    }

    fn bytes<T: Serialize>(&self, path: &Path, name: &str, value: &T) -> Result<Vec<u8>> {
        let refused = |reason: String| std::io::Error::new(ErrorKind::InvalidInput, reason);
        let body = serde_json::to_vec(value)
            .map_err(|error| refused(error.to_string()))
            .map_err(Error::io("write record", path))?;
        if name.contains('\n') {
            return Err(Error::io("write record", path)(refused(format!("the name {name:?} has two lines"))));
        }
        Ok(encode(self.name, name, boot_id(), &body))
    }

    /// Reads the record of this name; none where it is absent.
    ///
    /// # Errors
    /// [`Damage`] for whatever else is there.
    pub fn read<T: DeserializeOwned>(&self, path: &Path, name: &str) -> Result<Option<Loaded<T>>, Damage> {
        let damage = |reason: String, torn| Damage { path: path.to_owned(), reason, torn };
        let bytes = match atomic::read_regular(path, self.most) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(damage(error.to_string(), false)),
        };
        let found = decode(self, name, boot_id(), &bytes).map_err(|bad| damage(bad.reason, bad.torn))?;
        let value = serde_json::from_slice(found.body).map_err(|error| damage(error.to_string(), false))?;
        Ok(Some(Loaded { value, this_boot: found.boot == Some(boot_id()), healed: None }))
    }
}

/// A record with a copy of this boot, in a directory that a reboot empties: damage to the one is healed by the other.
#[derive(Clone, Debug)]
pub struct Slot {
    kind: &'static Kind,
    name: String,
    path: PathBuf,
    copy: PathBuf,
}

impl Slot {
    /// The record of a name, where it is, and where its copy is.
    #[must_use]
    pub fn new(kind: &'static Kind, name: &str, path: PathBuf, copy: PathBuf) -> Self {
        Self { kind, name: name.to_owned(), path, copy }
    }

    /// The record's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the record, then its copy.
    ///
    /// # Errors
    /// As [`Kind::write`]. A copy that can't be written is none: the record stands.
    pub fn write<T: Serialize>(&self, value: &T) -> Result<()> {
        let bytes = self.kind.bytes(&self.path, &self.name, value)?;
        atomic::write_atomic(&self.path, &bytes, self.kind.durability)?;
        self.write_copy(&bytes);
        Ok(())
    }

    fn write_copy(&self, bytes: &[u8]) {
        let write = || atomic::write_atomic(&self.copy, bytes, Durability::DaemonDeath);
        let written = match write() {
            Err(error) if error.source.kind() == ErrorKind::NotFound => self
                .copy
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .map_err(Error::io("create directory of", &self.copy))
                .and_then(|()| write()),
            outcome => outcome,
        };
        if written.is_err() {
            // An old copy must not be taken for this record.
            let _ = fs::remove_file(&self.copy);
        }
    }

    /// Reads the record, or its copy where the record is damaged or absent. Nothing is written: what is being removed at
    /// the same time stays removed.
    ///
    /// # Errors
    /// [`Damage`] of the record, where there is no whole copy either.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<Loaded<T>>, Damage> {
        let found = self.kind.read::<T>(&self.path, &self.name);
        if let Ok(Some(_)) = &found {
            return found;
        }
        let Ok(Some(copy)) = self.kind.read::<T>(&self.copy, &self.name) else { return found };
        if !copy.this_boot {
            return found;
        }
        let reason = found.err().map_or_else(|| "it was absent".to_owned(), |damage| damage.reason);
        Ok(Some(Loaded { healed: Some(reason), ..copy }))
    }

    /// As [`Self::read`], at the start of a daemon, when nothing is removed: the record or the copy that is damaged or
    /// absent is written again from the other.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn take_up<T: DeserializeOwned + Serialize>(&self) -> Result<Option<Loaded<T>>, Damage> {
        let found = self.read::<T>()?;
        let Some(loaded) = &found else { return Ok(None) };
        if loaded.healed.is_some() {
            // Where the disk does not take it now, the copy still has it.
            let _ = self.path.parent().map(fs::create_dir_all);
            let _ = self.kind.write(&self.path, &self.name, &loaded.value);
        } else if loaded.this_boot
            && let Ok(bytes) = atomic::read_regular(&self.path, self.kind.most)
            && atomic::read_regular(&self.copy, self.kind.most).ok().as_ref() != Some(&bytes)
        {
            self.write_copy(&bytes);
        }
        Ok(found)
    }

    /// Whether the file itself can be read as it is, copy or not.
    ///
    /// # Errors
    /// [`Damage`] of the file; an absent one counts as damaged.
    pub fn verify<T: DeserializeOwned>(&self) -> Result<(), Damage> {
        let absent = || Damage { path: self.path.clone(), reason: "it is absent".to_owned(), torn: false };
        self.kind.read::<T>(&self.path, &self.name)?.map(drop).ok_or_else(absent)
    }

    /// Removes the record; the copy goes first, so that it never brings a removed record back.
    ///
    /// # Errors
    /// As unlink(2); what is absent is fine.
    pub fn remove(&self) -> Result<()> {
        for path in [&self.copy, &self.path] {
            remove(path)?;
        }
        // Where it was the last one.
        let _ = self.copy.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// Where the copies of records are: a directory that a reboot empties, with one directory for each thing that has any.
#[derive(Clone, Debug)]
pub struct Copies(PathBuf);

impl Copies {
    /// The copies below a state directory.
    #[must_use]
    pub fn below(state: &Path) -> Self {
        Self(state.join("copies"))
    }

    /// The directory of one thing's copies. `group` is what it is one of, such as `pods`.
    #[must_use]
    pub fn of(&self, group: &str, id: &str) -> PathBuf {
        self.0.join(group).join(id)
    }

    /// The ids in a group that have copies.
    #[must_use]
    pub fn ids(&self, group: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(group)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Removes a thing's copies: before its records, which they would bring back.
    ///
    /// # Errors
    /// As unlink(2) and rmdir(2); what is absent is fine.
    pub fn forget(&self, group: &str, id: &str) -> Result<()> {
        let directory = self.of(group, id);
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            remove(&path)?;
        }
        gone(fs::remove_dir(&directory)).map_err(Error::io("remove copies", &directory))
    }
}

/// Removes a file, or what a person or a damaged disk has put in its place.
fn remove(path: &Path) -> Result<()> {
    match crate::remove_tree(path).map_err(walker::Error::into_parts) {
        // A directory above it is none: a person has put a file there.
        Err((_, _, source)) if source.kind() == ErrorKind::NotADirectory => Ok(()),
        Err((action, path, source)) => Err(Error { action, path, source }),
        Ok(()) => Ok(()),
    }
}

fn gone(outcome: std::io::Result<()>) -> std::io::Result<()> {
    match outcome {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        outcome => outcome,
    }
}

/// The bytes of a record.
#[must_use]
pub fn encode(kind: &str, name: &str, boot: &str, body: &[u8]) -> Vec<u8> {
    let header = format!("{kind} {boot} {} {name}", body.len());
    let short = short(header.as_bytes());
    let mut covered = format!("{header}\n").into_bytes();
    covered.extend_from_slice(body);
    let mut bytes = CURRENT.to_vec();
    bytes.extend_from_slice(format!("{} {short}\n", hex(&Sha256::digest(&covered))).as_bytes());
    bytes.append(&mut covered);
    bytes
}

/// The checksum of a second line.
fn short(header: &[u8]) -> String {
    hex(&Sha256::digest(header)).chars().take(SHORT).collect()
}

/// A record whose bytes are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The JSON.
    pub body: &'a [u8],
    /// The boot it was written in; none in plain JSON.
    pub boot: Option<&'a str>,
}

/// Why bytes are no whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The fault.
    pub reason: String,
    /// A power cut can have done it.
    pub torn: bool,
}

impl Bad {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), torn: false }
    }
}

/// Takes a record of any known form apart. `boot` is the boot that is now.
///
/// # Errors
/// [`Bad`] for bytes that are no whole record of this kind and name.
pub fn decode<'a>(kind: &Kind, name: &str, boot: &str, bytes: &'a [u8]) -> Result<Decoded<'a>, Bad> {
    if bytes.iter().all(|byte| *byte == 0) {
        let reason = if bytes.is_empty() { "it is empty" } else { "it has nothing but zeros" };
        return Err(Bad { reason: reason.to_owned(), torn: true });
    }
    if let Some(rest) = bytes.strip_prefix(CURRENT) {
        return current(kind.name, name, boot, rest);
    }
    if let Some(rest) = bytes.strip_prefix(FORMER) {
        return former(boot, rest);
    }
    if bytes.starts_with(MAGIC) {
        return Err(Bad::because("its version is unknown: it was written by a newer program, or is damaged"));
    }
    // A current record whose first letter is damaged begins as JSON may.
    let magic = MAGIC.get(1..).unwrap_or_default();
    let damaged = bytes.get(1..).is_some_and(|rest| rest.starts_with(magic));
    if kind.once_plain && matches!(bytes.first(), Some(b'{' | b'[')) && !damaged {
        return Ok(Decoded { body: bytes, boot: None });
    }
    Err(Bad::because("it does not begin as a record does"))
}

fn current<'a>(kind: &str, name: &str, now: &str, rest: &'a [u8]) -> Result<Decoded<'a>, Bad> {
    let cut = || Bad::because("its first line is incomplete");
    let (sum, rest) = rest.split_at_checked(SUM).ok_or_else(cut)?;
    let (header_sum, rest) =
        rest.strip_prefix(b" ").and_then(|rest| rest.split_at_checked(SHORT)).ok_or_else(cut)?;
    let covered = rest.strip_prefix(b"\n").ok_or_else(cut)?;
    let header = covered.iter().position(|byte| *byte == b'\n').and_then(|end| covered.split_at_checked(end));
    let (header, body) = header.ok_or_else(|| Bad::because("its second line has no end"))?;
    let body = body.get(1..).unwrap_or_default();
    if header_sum != short(header).as_bytes() {
        return Err(Bad::because("the checksum of its second line does not match"));
    }
    let header = std::str::from_utf8(header).map_err(|_| Bad::because("its second line is no text"))?;
    let mut words = header.splitn(4, ' ');
    let (Some(has_kind), Some(boot), Some(length), Some(has_name)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Bad::because("its second line is incomplete"));
    };
    if sum != hex(&Sha256::digest(covered)).as_bytes() {
        return Err(mismatch(boot != now, length, body));
    }
    if has_kind != kind || has_name != name {
        return Err(Bad::because(format!("it is that of the {has_kind} {has_name}, under another name")));
    }
    if length != body.len().to_string() {
        return Err(Bad::because("its length is not what its header says"));
    }
    Ok(Decoded { body, boot: Some(boot) })
}

/// The checksum does not match: a power cut cuts the end off or fills it with zeros, nothing else.
fn mismatch(other_boot: bool, length: &str, body: &[u8]) -> Bad {
    let cut = length.parse().is_ok_and(|length: usize| body.len() < length) || body.last() == Some(&0);
    Bad { reason: "its checksum does not match".to_owned(), torn: other_boot && cut }
}

fn former<'a>(now: &str, rest: &'a [u8]) -> Result<Decoded<'a>, Bad> {
    let end = rest.iter().position(|byte| *byte == b'\n').and_then(|end| rest.split_at_checked(end));
    let (header, body) = end.ok_or_else(|| Bad::because("its first line has no end"))?;
    let body = body.get(1..).unwrap_or_default();
    let header = std::str::from_utf8(header).map_err(|_| Bad::because("its first line is no text"))?;
    let words: Vec<&str> = header.split(' ').collect();
    let [boot, length, sum] = words.as_slice() else {
        return Err(Bad::because("its first line is incomplete"));
    };
    let whole = |body: &[u8]| {
        let actual = if sum.len() == SUM { hex(&Sha256::digest(body)) } else { fnv(body) };
        *length == body.len().to_string() && *sum == actual
    };
    let trimmed = body.strip_suffix(b"\n").unwrap_or(body);
    for body in [trimmed, body] {
        if whole(body) {
            return Ok(Decoded { body, boot: Some(boot) });
        }
    }
    Err(mismatch(*boot != now, length, trimmed))
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{sum:016x}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
