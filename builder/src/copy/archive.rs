//! ADD of archives: a tar, plain or compressed by gzip or zstd, is known by its content and unpacked by the image store,
//! within the store's limits; its entries are then copied like those of a stage.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::FileType;
use slipway_image::Store;

use super::draft::Draft;
use super::origin::{Item, Origin, Selection};
use super::request::Request;
use super::select::select;
use crate::cancel::Cancellation;
use crate::error::{Error, Result};
use crate::lowers::directories;
use crate::tree::{Tree, kind};

/// Compressions that are known but not undone.
const REFUSED: [(&[u8], &str); 2] = [(b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz")];

/// Takes the archives out of a selection.
pub(crate) fn take(origin: &Origin<'_>, found: &mut Vec<Selection>) -> Result<Vec<Selection>> {
    let mut archives = Vec::new();
    let mut others = Vec::new();
    for selection in found.drain(..) {
        let item = &selection.root;
        let is_file = !selection.directory && kind(&item.stat) == FileType::RegularFile;
        if is_file && is_archive(open(origin, item)?, item)? {
            archives.push(selection)
        } else {
            others.push(selection)
        }
    }
    *found = others;
    Ok(archives)
}

/// Unpacks an archive below the destination, with its modes, and the owners that it says where none is asked for.
pub(crate) fn unpack(
    store: &Store,
    origin: &Origin<'_>,
    archive: &Selection,
    (draft, request): (&mut Draft, &Request),
) -> Result<()> {
    let item = &archive.root;
    let tar = || Ok::<_, Error>(Stoppable { file: open(origin, item)?, cancel: origin.cancel });
    let imported = store.import_layer(tar()?, &[]);
    // A cancelled import ends with the cancellation, not with the error that this has caused in it.
    origin.cancel.check()?;
    let layer = imported?;
    let named = store.named_directories(tar()?)?;
    let tree = Tree::open(&directories(store, &[layer.diff_id])?)?;
    let place = format!("the archive {}", item.source.display());
    let unpacked = Origin { tree: &tree, ignore: None, place, cancel: origin.cancel };
    let whole = Request {
        sources: vec!["/".into()],
        destination: format!("{}/", request.destination.trim_end_matches('/')),
        owner: request.owner,
        chmod: None,
        archive: Some(named),
    };
    draft.copy(&unpacked, &select(&unpacked, &whole.sources)?, &whole)
}

/// A file that can't be read any more when the build is given up.
struct Stoppable<'a> {
    file: File,
    cancel: &'a Cancellation,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("the build was cancelled"));
        }
        self.file.read(buffer)
    }
}

fn open(origin: &Origin<'_>, item: &Item) -> Result<File> {
    let parent = origin.tree.directory(item.source.parent().unwrap_or(Path::new("")))?;
    parent.open_file(item.source.file_name().unwrap_or_default()).map_err(Error::io("open", &item.source))
}

fn is_archive(file: File, item: &Item) -> Result<bool> {
    let mut head = Vec::new();
    let mut file = file;
    Read::by_ref(&mut file).take(6).read_to_end(&mut head).map_err(Error::io("read", &item.source))?;
    if let Some((_, name)) = REFUSED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(Error::Invalid(format!(
            "{} is compressed by {name}, which ADD does not unpack: unpack it before, or use COPY",
            item.source.display()
        )));
    }
    io::Seek::rewind(&mut file).map_err(Error::io("read", &item.source))?;
    // A file that can't be decompressed is no archive, whatever its first bytes say.
    Ok(slipway_image::is_tar(file).unwrap_or(false))
}
