//! An image as text, one line a setting and one a file, so that two builders' images can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The files of an image by their absolute paths, each with its kind, mode, owner and content.
pub type Files = BTreeMap<PathBuf, String>;

/// Settings that are no part of the comparison: Docker's note for Windows.
const IGNORED: [&str; 1] = ["ArgsEscaped"];

/// The files of directories that lie over one another as layers do, the lowest first.
///
/// # Panics
/// When one can't be read.
#[must_use]
pub fn files(layers: &[PathBuf]) -> Files {
    let mut found = Files::new();
    let mut links: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    for layer in layers {
        let mut folders = BTreeSet::from([PathBuf::from("/")]);
        while let Some(folder) = folders.pop_first() {
            let here = layer.join(folder.strip_prefix("/").expect("it is absolute"));
            let mut names: Vec<_> =
                std::fs::read_dir(&here).expect("a folder").map(|entry| entry.expect("an entry")).collect();
            names.sort_by_key(std::fs::DirEntry::file_name);
            for entry in names {
                let (path, source) = (folder.join(entry.file_name()), entry.path());
                let metadata = entry.metadata().expect("a file");
                let whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
                if !metadata.is_dir() || is_opaque(&source) {
                    found.retain(|known, _| !known.starts_with(&path) || (*known == path && !whiteout));
                }
                if whiteout {
                    continue;
                }
                let mut text = described(&source, &metadata);
                if metadata.is_file() && metadata.nlink() > 1 {
                    let first = links.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.clone());
                    if *first != path {
                        write!(text, " = {}", first.display()).expect("text");
                    }
                }
                found.insert(path.clone(), text);
                if metadata.is_dir() {
                    folders.insert(path);
                }
            }
        }
    }
    found
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 4];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value).is_ok_and(|length| length == 1)
}

fn described(path: &Path, metadata: &std::fs::Metadata) -> String {
    let kind = metadata.file_type();
    let mode = metadata.mode() & 0o7777;
    let owner = format!("{}:{}", metadata.uid(), metadata.gid());
    let device = metadata.rdev();
    if kind.is_symlink() {
        let target = std::fs::read_link(path).expect("a link");
        return format!("link {owner} -> {}", target.display());
    }
    if kind.is_file() {
        let content = std::fs::read(path).expect("a file");
        let text = String::from_utf8_lossy(&content).into_owned();
        let shown = if content.len() > 2_000 { format!("{} bytes", content.len()) } else { text };
        return format!("file {mode:04o} {owner} {shown:?}");
    }
    if kind.is_dir() {
        return format!("dir {mode:04o} {owner}");
    }
    let name = match () {
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_block_device() => "block",
        () => "char",
    };
    format!("{name} {mode:04o} {owner} {device}")
}

/// The image's settings and files; of an image on `base` the files that are not as there.
#[must_use]
pub fn text(config: &Value, files: &Files, base: &Files) -> String {
    let mut text = String::new();
    let empty = serde_json::Map::new();
    let settings: BTreeMap<_, _> = config.as_object().unwrap_or(&empty).iter().collect();
    for (name, value) in settings {
        let is_empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_empty && !IGNORED.contains(&name.as_str()) {
            writeln!(text, "{name} {value}").expect("text");
        }
    }
    let is_on_base = files.contains_key(Path::new("/bin/busybox"));
    let base = if is_on_base { base.clone() } else { Files::new() };
    for (path, file) in files.iter().filter(|(path, file)| base.get(*path) != Some(file)) {
        writeln!(text, "{} {file}", path.display()).expect("text");
    }
    for path in base.keys().filter(|path| !files.contains_key(*path)) {
        writeln!(text, "{} gone", path.display()).expect("text");
    }
    text
}
