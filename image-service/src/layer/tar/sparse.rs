//! Sparse files: a map says which parts of a file the tar holds, one after another; the rest are holes. There are four
//! forms (GNU tar's manual, "Storing Sparse Files"):
//!
//! ```text
//! old GNU   type S; 4 pairs and the size in the header, 21 pairs in each block that continues it
//! PAX 0.0   GNU.sparse.size, then GNU.sparse.offset and GNU.sparse.numbytes in turn
//! PAX 0.1   GNU.sparse.size, GNU.sparse.name, GNU.sparse.map=offset,count,offset,count,...
//! PAX 1.0   GNU.sparse.realsize, GNU.sparse.name; the map precedes the data: the number of pairs, then each number, all
//!           decimal and ended by a newline, filled up to a whole block
//! ```

use super::block::{BLOCK, broken, decimal};
use super::header::{field, number};
use crate::layer::Failure;

/// More parts than any honest file has.
const SEGMENTS_MAX: usize = 1 << 18;
/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

/// A part of a file that the tar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where in the file.
    pub(crate) offset: u64,
    /// How many bytes.
    pub(crate) count: u64,
}

/// Where the data of a sparse file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// The file's size with its holes.
    pub(crate) size: u64,
    /// The parts in the order of the tar's data.
    pub(crate) segments: Vec<Segment>,
    /// Old GNU: a further block of the map follows.
    pub(super) continues: bool,
    /// PAX 1.0: the map precedes the data.
    in_data: bool,
}

impl SparseMap {
    fn push(&mut self, offset: u64, count: u64) -> Result<(), Failure> {
        if self.segments.len() >= SEGMENTS_MAX {
            return Err(broken(&format!("a sparse file has more than {SEGMENTS_MAX} parts")));
        }
        self.segments.push(Segment { offset, count });
        Ok(())
    }

    /// Takes the pairs of a block that continues the map of an old GNU header.
    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<(), Failure> {
        self.pairs(block, 0, 21)?;
        self.continues = field(block, 504, 1) != b"\0";
        Ok(())
    }

    fn pairs(&mut self, block: &[u8; BLOCK], at: usize, most: usize) -> Result<(), Failure> {
        for pair in 0..most {
            let at = at + pair * 24;
            if field(block, at, 1) == b"\0" {
                return Ok(());
            }
            self.push(unsigned(field(block, at, 12))?, unsigned(field(block, at + 12, 12))?)?;
        }
        Ok(())
    }

    /// A reader of the map that precedes the data; it wants nothing where the map is known already.
    pub(super) fn text(&self) -> MapText {
        MapText { numbers_left: if self.in_data { None } else { Some(0) }, digits: Vec::new(), offset: None }
    }

    /// Checks that the parts are in order, within the file, and as long together as the data.
    pub(super) fn check(&self, stored: u64) -> Result<(), Failure> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for Segment { offset, count } in &self.segments {
            let after = offset.checked_add(*count).filter(|after| *offset >= end && *after <= self.size);
            end = after.ok_or_else(|| broken("the parts of a sparse file overlap or exceed its size"))?;
            sum += count;
        }
        if sum == stored {
            return Ok(());
        }
        Err(broken(&format!("the parts of a sparse file have {sum} bytes, its data has {stored}")))
    }
}

/// The map in an old GNU header.
pub(super) fn old_gnu(header: &[u8; BLOCK]) -> Result<SparseMap, Failure> {
    let size = unsigned(field(header, 483, 12))?;
    let mut map = SparseMap { size, segments: Vec::new(), continues: false, in_data: false };
    map.pairs(header, 386, 4)?;
    map.continues = field(header, 482, 1) != b"\0";
    Ok(map)
}

fn unsigned(field: &[u8]) -> Result<u64, Failure> {
    u64::try_from(number(field, "sparse map")?)
        .map_err(|_| broken("a negative number in a sparse file's map"))
}

/// Reads the map of a PAX 1.0 file from the blocks before its data.
#[derive(Debug)]
pub(super) struct MapText {
    /// Numbers that are still to come; unknown until the first, which counts the pairs, is read.
    numbers_left: Option<usize>,
    digits: Vec<u8>,
    offset: Option<u64>,
}

impl MapText {
    pub(super) fn wants_more(&self) -> bool {
        self.numbers_left != Some(0)
    }

    /// Takes a block; what follows the last number fills it up.
    pub(super) fn read(&mut self, block: &[u8; BLOCK], map: &mut SparseMap) -> Result<(), Failure> {
        for byte in block {
            if !self.wants_more() {
                return Ok(());
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > DIGITS_MAX {
                    return Err(broken("a number in a sparse file's map is malformed"));
                }
                continue;
            }
            let number = decimal(&std::mem::take(&mut self.digits))?;
            self.number(number, map)?;
        }
        Ok(())
    }

    fn number(&mut self, number: u64, map: &mut SparseMap) -> Result<(), Failure> {
        let Some(left) = self.numbers_left else {
            let pairs = usize::try_from(number).ok().filter(|pairs| *pairs <= SEGMENTS_MAX);
            let pairs =
                pairs.ok_or_else(|| broken(&format!("a sparse file has more than {SEGMENTS_MAX} parts")))?;
            self.numbers_left = Some(2 * pairs);
            return Ok(());
        };
        self.numbers_left = Some(left.saturating_sub(1));
        match self.offset.take() {
            None => self.offset = Some(number),
            Some(offset) => map.push(offset, number)?,
        }
        Ok(())
    }
}

/// A sparse file as PAX records describe it.
#[derive(Debug)]
pub(super) struct SparseFile {
    /// Its name where it is not the entry's.
    pub(super) name: Option<Vec<u8>>,
    pub(super) map: SparseMap,
}

/// The `GNU.sparse.` records before an entry.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    version: (Option<u64>, Option<u64>),
    name: Option<Vec<u8>>,
    size: Option<u64>,
    segments: Vec<Segment>,
    offset: Option<u64>,
}

impl SparseRecords {
    /// Takes a record by what follows `GNU.sparse.` in its key.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        match key {
            b"major" => self.version.0 = Some(decimal(value)?),
            b"minor" => self.version.1 = Some(decimal(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            // The parts are counted.
            b"numblocks" => {}
            b"offset" if self.offset.is_none() => self.offset = Some(decimal(value)?),
            b"numbytes" if self.offset.is_some() => self.pair(decimal(value)?),
            b"map" => {
                self.segments.clear();
                for number in value.split(|byte| *byte == b',').filter(|number| !number.is_empty()) {
                    let number = decimal(number)?;
                    if self.offset.is_none() { self.offset = Some(number) } else { self.pair(number) }
                }
            }
            other => {
                let name = String::from_utf8_lossy(other);
                return Err(broken(&format!("the record GNU.sparse.{name} is unknown or out of place")));
            }
        }
        Ok(())
    }

    fn pair(&mut self, count: u64) {
        self.segments.extend(self.offset.take().map(|offset| Segment { offset, count }));
    }

    /// The sparse file that they describe; none where no record was taken.
    pub(super) fn finish(self) -> Result<Option<SparseFile>, Failure> {
        let Self { version, name, size, segments, offset } = self;
        if version == (None, None) && size.is_none() && segments.is_empty() && offset.is_none() {
            return if name.is_none() {
                Ok(None)
            } else {
                Err(broken("a sparse file has a name and no size"))
            };
        }
        let in_data = match (version.0.unwrap_or(0), version.1.unwrap_or(0)) {
            (1, 0) => true,
            (0, _) => false,
            (major, minor) => {
                return Err(broken(&format!("it has a sparse file of the unknown version {major}.{minor}")));
            }
        };
        if offset.is_some() || (in_data && !segments.is_empty()) {
            return Err(broken("the map of a sparse file is malformed"));
        }
        let size = size.ok_or_else(|| broken("a sparse file has no size"))?;
        Ok(Some(SparseFile { name, map: SparseMap { size, segments, continues: false, in_data } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(records: &[(&str, &str)]) -> Result<Option<SparseFile>, Failure> {
        let mut sparse = SparseRecords::default();
        for (key, value) in records {
            sparse.take(key.as_bytes(), value.as_bytes())?;
        }
        sparse.finish()
    }

    #[test]
    fn the_records_of_each_version_make_the_same_map() -> Result<(), Failure> {
        let expected = vec![Segment { offset: 0, count: 5 }, Segment { offset: 100, count: 7 }];
        let first =
            [("size", "200"), ("numblocks", "2"), ("offset", "0"), ("numbytes", "5"), ("offset", "100")];
        let second = [("name", "f"), ("size", "200"), ("map", "0,5,100,7")];
        let SparseFile { name, map } =
            taken(&[&first[..], &[("numbytes", "7")]].concat())?.unwrap_or_else(|| unreachable!());
        assert_eq!((name, map.size, &map.segments), (None, 200, &expected));
        let SparseFile { name, map } = taken(&second)?.unwrap_or_else(|| unreachable!());
        assert_eq!((name.as_deref(), &map.segments), (Some(&b"f"[..]), &expected));
        assert!(map.check(12).is_ok());
        assert!(map.check(13).is_err());
        Ok(())
    }

    #[test]
    fn the_map_before_the_data_is_read_across_blocks() -> Result<(), Failure> {
        let records = [("major", "1"), ("minor", "0"), ("realsize", "100000")];
        let SparseFile { mut map, .. } = taken(&records)?.unwrap_or_else(|| unreachable!());
        let numbers: String = (0..200).map(|at| format!("{}\n10\n", at * 100)).collect();
        let text = format!("200\n{numbers}");
        let mut reader = map.text();
        for block in text.as_bytes().chunks(BLOCK) {
            assert!(reader.wants_more());
            let mut whole = [0; BLOCK];
            whole[..block.len()].copy_from_slice(block);
            reader.read(&whole, &mut map)?;
        }
        assert!(!reader.wants_more());
        assert_eq!(map.segments.len(), 200);
        map.check(2000)
    }

    #[test]
    fn a_map_that_lies_is_refused() {
        for records in [
            &[("major", "2"), ("minor", "0"), ("realsize", "1")][..],
            &[("size", "10"), ("offset", "1")],
            &[("size", "10"), ("numbytes", "1")],
            &[("size", "10"), ("map", "0,5,x,7")],
            &[("size", "10"), ("map", "0,5,7")],
            &[("map", "0,5")],
            &[("name", "f")],
            &[("odd", "1")],
        ] {
            assert!(taken(records).is_err(), "{records:?}");
        }
        for map in ["0,5,3,5", "5,6", "20,1", "18446744073709551615,2"] {
            let SparseFile { map, .. } =
                taken(&[("size", "10"), ("map", map)]).ok().flatten().unwrap_or_else(|| unreachable!());
            assert!(map.check(map.segments.iter().fold(0, |sum, one| sum + one.count)).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(block in proptest::collection::vec(any::<u8>(), BLOCK), value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut whole = [0; BLOCK];
            whole.copy_from_slice(&block);
            drop(old_gnu(&whole).and_then(|mut map| map.extend(&whole)));
            let mut sparse = SparseRecords::default();
            for key in [&b"map"[..], b"offset", b"numbytes", b"size", b"major"] {
                drop(sparse.take(key, &value));
            }
            drop(sparse.finish());
        }
    }
}
