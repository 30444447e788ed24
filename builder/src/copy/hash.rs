//! The hash of all that a COPY takes: its cache key. Times are not part of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use super::origin::{Item, Origin, Selection, Sockets};
use crate::error::{Error, Result};
use crate::tree::kind;

/// Extended attributes that are content.
pub(crate) type Attributes = BTreeMap<String, Vec<u8>>;

/// A hash over names, kinds, modes, owners, sizes, links, devices, attributes and contents.
/// Sockets that are left out are added to those known.
pub(crate) fn hash(
    origin: &Origin<'_>,
    selections: &[Selection],
    owned: bool,
    sockets: &mut Sockets,
) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    for selection in selections {
        field(&mut hasher, &[u8::from(selection.directory)]);
        field(&mut hasher, selection.name.as_os_str().as_encoded_bytes());
        let mut items = selection.items(origin);
        for item in &mut items {
            let item = item?;
            let stat = &item.stat;
            field(&mut hasher, item.name.as_os_str().as_encoded_bytes());
            field(&mut hasher, &stat.st_mode.to_le_bytes());
            if owned {
                field(&mut hasher, &stat.st_uid.to_le_bytes());
                field(&mut hasher, &stat.st_gid.to_le_bytes());
            }
            content(origin, &item, &mut hasher)?;
        }
        sockets.extend(items.sockets());
    }
    Ok(hasher.finalize().into())
}

fn content(origin: &Origin<'_>, item: &Item, hasher: &mut Sha256) -> Result<()> {
    let failed = |action| Error::io(action, &item.source);
    let parent = origin.tree.directory(item.source.parent().unwrap_or(Path::new("")))?;
    let name = item.source.file_name().unwrap_or_default();
    match kind(&item.stat) {
        FileType::RegularFile => {
            let mut file = parent.open_file(name).map_err(failed("open"))?;
            for (name, value) in attributes(&file) {
                field(hasher, name.as_bytes());
                field(hasher, &value);
            }
            field(hasher, &digest(origin, &mut file, &item.source)?);
        }
        FileType::Symlink => {
            let target = parent.read_link(name).map_err(failed("read link"))?;
            field(hasher, target.as_os_str().as_encoded_bytes());
        }
        FileType::CharacterDevice | FileType::BlockDevice => field(hasher, &item.stat.st_rdev.to_le_bytes()),
        _ => {}
    }
    Ok(())
}

fn digest(origin: &Origin<'_>, file: &mut File, path: &Path) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        origin.cancel.check()?;
        let read = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if read == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

/// A field with its length before it, so that two fields never run into one another.
fn field(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(bytes);
}

/// The attributes that are copied: file capabilities and the user's own.
pub(crate) fn attributes(file: &impl std::os::fd::AsFd) -> Attributes {
    let mut list = vec![0_u8; 1 << 16];
    let length = rustix::fs::flistxattr(file, list.as_mut_slice()).unwrap_or(0);
    let names = list.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    let mut found = Attributes::new();
    for name in names.filter_map(|name| std::str::from_utf8(name).ok()) {
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0_u8; 1 << 16];
        if let Ok(length) = rustix::fs::fgetxattr(file, name, value.as_mut_slice()) {
            value.truncate(length);
            found.insert(name.to_owned(), value);
        }
    }
    found
}
