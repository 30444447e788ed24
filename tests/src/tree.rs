//! The contents of a directory, to be compared before and after.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Every path below a directory with its kind, and a file's size.
///
/// # Panics
/// When the directory can't be read.
#[must_use]
pub fn tree(top: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        // A directory that is removed meanwhile counts as absent.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.path().strip_prefix(top).expect("it lies below").display().to_string();
            let size = if metadata.is_file() { metadata.len() } else { 0 };
            found.insert(format!("{name} {:o} {size}", metadata.mode()));
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// Waits until a directory's tree is what it was.
///
/// # Panics
/// When it does not become so; it tells the difference.
#[track_caller]
pub fn assert_same(top: &Path, before: &BTreeSet<String>, when: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let now = tree(top);
        if now == *before {
            return;
        }
        if std::time::Instant::now() > deadline {
            let new: Vec<_> = now.difference(before).collect();
            let gone: Vec<_> = before.difference(&now).collect();
            panic!("{when}: left behind {new:#?}, gone {gone:#?}");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
