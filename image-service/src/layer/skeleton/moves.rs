//! Where the data of replaced entries is: a later entry of the same name, or of a name above, moved it into `kept/`.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::Path;

use super::record::{Record, SkeletonReader};

/// The memory that the moves of one layer may take, in bytes: a layer with more is refused.
pub(crate) const MOVES_MAX: usize = 32 << 20;

/// The memory that one move takes, in bytes.
pub(crate) fn cost(path: &[u8]) -> usize {
    const BESIDES: usize = 128;
    path.len().saturating_add(BESIDES)
}

/// The moves of a layer, by the hashes of their paths. Nothing is kept of the data, of which a hostile layer may have
/// millions of pieces.
#[derive(Default)]
pub(super) struct Moves {
    hashes: RandomState,
    by_path: HashMap<u64, Vec<Move>>,
}

struct Move {
    path: Vec<u8>,
    /// How many data records are before it.
    before: u64,
    /// The name in `kept/`; it counts up.
    number: u64,
}

impl Moves {
    /// Reads the moves of a skeleton.
    pub(super) fn read(skeleton: &Path) -> io::Result<Self> {
        let (mut reader, mut moves) = (SkeletonReader::open(skeleton)?, Self::default());
        let (mut before, mut memory) = (0_u64, 0_usize);
        while let Some(record) = reader.next()? {
            match record {
                Record::Raw(_) => {}
                Record::Data { .. } => before += 1,
                Record::Moved { path, number } => {
                    memory = memory.saturating_add(cost(&path));
                    if memory > MOVES_MAX {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "too many entries are replaced",
                        ));
                    }
                    let hash = moves.prefixes(&path).last().map_or(0, |(_, hash)| hash);
                    moves.by_path.entry(hash).or_default().push(Move { path, before, number });
                }
            }
        }
        Ok(moves)
    }

    /// Where in `kept/` the data of a record is, if it was moved: by the first move after it of its path or one above.
    pub(super) fn place(&self, path: &[u8], ordinal: u64) -> Option<Vec<u8>> {
        if self.by_path.is_empty() {
            return None;
        }
        let later = self.prefixes(path).filter_map(|(end, hash)| {
            let above = path.get(..end)?;
            let mut moves = self.by_path.get(&hash)?.iter();
            let first = moves.find(|one| one.before > ordinal && one.path == above)?;
            Some((first.number, end))
        });
        let (number, end) = later.min()?;
        Some([number.to_string().as_bytes(), path.get(end..)?].concat())
    }

    /// The ends and hashes of a path and those above it, the topmost first. It takes one pass over the path.
    fn prefixes(&self, path: &[u8]) -> impl Iterator<Item = (usize, u64)> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let (mut hasher, mut begin) = (self.hashes.build_hasher(), 0);
        slashes.chain([path.len()]).map(move |end| {
            hasher.write(path.get(begin..end).unwrap_or_default());
            begin = end;
            (end, hasher.clone().finish())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::SkeletonWriter;
    use super::*;

    #[test]
    fn data_is_where_the_first_later_move_of_its_path_or_one_above_took_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skeleton");
        let mut writer = SkeletonWriter::create(&path).unwrap();
        writer.file(b"a/b/f", 0, 1).unwrap();
        writer.file(b"a/bb", 0, 1).unwrap();
        writer.moved(b"a/b/f", 0).unwrap();
        writer.file(b"a/b/f", 0, 1).unwrap();
        writer.moved(b"a/b", 1).unwrap();
        writer.file(b"a/b", 0, 1).unwrap();
        writer.moved(b"a", 2).unwrap();
        writer.file(b"a/bb", 0, 1).unwrap();
        writer.finish().unwrap();
        let moves = Moves::read(&path).unwrap();
        let place =
            |path: &[u8], ordinal| moves.place(path, ordinal).map(|found| String::from_utf8(found).unwrap());
        assert_eq!(place(b"a/b/f", 0).as_deref(), Some("0"));
        assert_eq!(place(b"a/bb", 1).as_deref(), Some("2/bb"));
        assert_eq!(place(b"a/b/f", 2).as_deref(), Some("1/f"));
        assert_eq!(place(b"a/b", 3).as_deref(), Some("2/b"));
        assert_eq!(place(b"a/bb", 4), None);
    }

    /// The paths of replaced data were kept in memory, as many as a layer had.
    #[test]
    fn a_skeleton_whose_moves_take_too_much_memory_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skeleton");
        let mut writer = SkeletonWriter::create(&path).unwrap();
        let long = vec![b'x'; 4000];
        for number in 0..u64::try_from(MOVES_MAX / long.len()).unwrap() {
            writer.moved(&long, number).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(Moves::read(&path).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
    }
}
