//! The first name of each file that has several, for a tar's hard links.

use std::collections::HashMap;

use rustix::fs::Stat;

/// The memory that the names may take, in bytes.
const LIMIT: usize = 256 << 20;
/// The memory that a name takes besides its bytes.
const OVERHEAD: usize = 96;

/// Files whose other names are still to come.
#[derive(Debug, Default)]
pub(super) struct FirstNames {
    known: HashMap<(u64, u64), Known>,
    held: usize,
}

#[derive(Debug)]
struct Known {
    path: Vec<u8>,
    /// Names that were not seen yet.
    left: usize,
}

impl FirstNames {
    /// The first path of a file that was seen before; none for one that is new, which is remembered until all its names
    /// were seen.
    ///
    /// # Errors
    /// A reason for the layer's refusal, where the names take too much memory.
    pub(super) fn first(&mut self, stat: &Stat, path: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(known) = self.known.get_mut(&inode) {
            known.left = known.left.saturating_sub(1);
            if known.left > 0 {
                return Ok(Some(known.path.clone()));
            }
            let path = self.known.remove(&inode).map(|known| known.path);
            self.held -= path.as_ref().map_or(0, |path| path.len() + OVERHEAD);
            return Ok(path);
        }
        self.held += path.len() + OVERHEAD;
        if self.held > LIMIT {
            return Err(format!(
                "the names of files that have several take more than {LIMIT} bytes: link less"
            ));
        }
        let left = usize::try_from(stat.st_nlink).unwrap_or(usize::MAX).saturating_sub(1);
        self.known.insert(inode, Known { path: path.to_vec(), left });
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_forgotten_with_its_last_name() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("first");
        std::fs::write(&first, "").unwrap();
        std::fs::hard_link(&first, folder.path().join("second")).unwrap();
        let stat = rustix::fs::stat(&first).unwrap();
        let mut names = FirstNames::default();
        assert_eq!(names.first(&stat, b"first"), Ok(None));
        assert_eq!(names.first(&stat, b"second"), Ok(Some(b"first".to_vec())));
        assert!(names.known.is_empty() && names.held == 0);
    }
}
